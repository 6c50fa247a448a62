#define _GNU_SOURCE
#include "ctestsystemcalls.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <stddef.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

static const struct {
    int number;
    enum ctest_call call;
} calls[] = {
    {SYS_openat, CTEST_OTHER}, {SYS_pwrite64, CTEST_WRITE}, {SYS_fsync, CTEST_SYNC}, {SYS_fdatasync, CTEST_SYNC},
    {SYS_syncfs, CTEST_SYNC}, {SYS_renameat2, CTEST_RENAME_NOREPLACE}, {SYS_linkat, CTEST_LINK},
    {SYS_unlinkat, CTEST_UNLINK}, {SYS_mkdirat, CTEST_MAKE_DIRECTORY}, {SYS_fchmod, CTEST_CHANGE_MODE},
    {SYS_fchmodat, CTEST_CHANGE_MODE}, {SYS_ftruncate, CTEST_TRUNCATE}, {SYS_symlinkat, CTEST_SYMLINK},
    {SYS_utimensat, CTEST_SET_TIMES},
#ifdef SYS_renameat
    {SYS_renameat, CTEST_RENAME},
#endif
#ifdef SYS_rename
    {SYS_rename, CTEST_RENAME}, {SYS_link, CTEST_LINK}, {SYS_unlink, CTEST_UNLINK}, {SYS_mkdir, CTEST_MAKE_DIRECTORY},
    {SYS_chmod, CTEST_CHANGE_MODE}, {SYS_symlink, CTEST_SYMLINK}, {SYS_rmdir, CTEST_UNLINK},
#endif
};
enum { CALLS = sizeof calls / sizeof calls[0] };

int ctest_supervise_calls(void)
{
    struct sock_filter filter[CALLS + 3];
    filter[0] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
    for (int i = 0; i < CALLS; i++) {
        // On to the last statement but one, which is the supervisor's.
        filter[1 + i] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, calls[i].number, CALLS - i, 0);
    }
    filter[CALLS + 1] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    filter[CALLS + 2] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF);
    struct sock_fprog program = {.len = CALLS + 3, .filter = filter};
    // Without the rights of root a filter may only be put on what can gain none.
    if (geteuid() != 0 && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return -1;
    return (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &program);
}

int ctest_next_call(int supervisor, int milliseconds, uint64_t *id, enum ctest_call *call)
{
    struct pollfd entry = {.fd = supervisor, .events = POLLIN};
    int ready = poll(&entry, 1, milliseconds);
    if (ready <= 0) return ready < 0 && errno != EINTR ? -1 : 0;
    if (!(entry.revents & POLLIN)) return 0;
    struct seccomp_notif notice;
    memset(&notice, 0, sizeof notice);
    if (ioctl(supervisor, SECCOMP_IOCTL_NOTIF_RECV, &notice) != 0) return errno == ENOENT || errno == EINTR ? 0 : -1;
    *id = notice.id;
    *call = CTEST_OTHER;
    for (int i = 0; i < CALLS; i++) {
        if (calls[i].number == notice.data.nr) *call = calls[i].call;
    }
    if (notice.data.nr == SYS_openat) {
        uint64_t flags = notice.data.args[2];
        if ((flags & O_TMPFILE) == O_TMPFILE) *call = CTEST_CREATE_UNNAMED;
        else if (flags & O_CREAT) *call = CTEST_CREATE;
    }
    return 1;
}

void ctest_answer_call(int supervisor, uint64_t id, int error)
{
    struct seccomp_notif_resp answer;
    memset(&answer, 0, sizeof answer);
    answer.id = id;
    answer.error = -error;
    if (error == 0) answer.flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE;
    ioctl(supervisor, SECCOMP_IOCTL_NOTIF_SEND, &answer);
}
