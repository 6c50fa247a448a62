#define _GNU_SOURCE
#include "csystem.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

const char *csystem_errno_name(int number) { return strerrorname_np(number); }

void csystem_errno_text(int number, char *buffer, size_t size) {
    // strerrordesc_np is the C locale's text and needs no lock; it lacks only numbers that are no errors.
    const char *text = strerrordesc_np(number);
    if (text != NULL) {
        snprintf(buffer, size, "%s", text);
    } else {
        snprintf(buffer, size, "error %d", number);
    }
}

static int64_t nanoseconds(struct statx_timestamp time) { return time.tv_sec * 1000000000LL + time.tv_nsec; }

int csystem_status(int directory, const char *path, bool follow_links, struct csystem_status *result) {
    struct statx status;
    int flags = AT_EMPTY_PATH | AT_NO_AUTOMOUNT | (follow_links ? 0 : AT_SYMLINK_NOFOLLOW);
    if (statx(directory, path, flags, STATX_BASIC_STATS | STATX_BTIME, &status) != 0) return -1;
    memset(result, 0, sizeof *result);
    result->inode = status.stx_ino;
    result->device = makedev(status.stx_dev_major, status.stx_dev_minor);
    result->size = status.stx_size;
    result->allocated_bytes = status.stx_blocks * 512;
    result->mode = status.stx_mode;
    result->links = status.stx_nlink;
    result->user = status.stx_uid;
    result->group = status.stx_gid;
    result->modified_ns = nanoseconds(status.stx_mtime);
    result->changed_ns = nanoseconds(status.stx_ctime);
    result->has_birth = (status.stx_mask & STATX_BTIME) != 0;
    result->birth_ns = result->has_birth ? nanoseconds(status.stx_btime) : 0;
    return 0;
}

int csystem_rename_noreplace(int old_directory, const char *old_path, int new_directory, const char *new_path) {
    return renameat2(old_directory, old_path, new_directory, new_path, RENAME_NOREPLACE);
}

int csystem_openat(int directory, const char *path, int flags, mode_t mode) {
    return openat(directory, path, flags | O_CLOEXEC, mode);
}

int csystem_open_unnamed(int directory, const char *path, mode_t mode) {
    return openat(directory, path, O_TMPFILE | O_RDWR | O_CLOEXEC, mode);
}

int csystem_next_entry(DIR *directory, const char **name, unsigned char *type) {
    errno = 0;
    struct dirent *entry = readdir(directory);
    if (entry == NULL) return errno == 0 ? 0 : -1;
    *name = entry->d_name;
    *type = entry->d_type;
    return 1;
}

int csystem_start_writeback(int descriptor, off_t offset, off_t count, bool wait) {
    unsigned flags = SYNC_FILE_RANGE_WRITE;
    if (wait) flags |= SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WAIT_AFTER;
    return sync_file_range(descriptor, offset, count, flags);
}

int csystem_syncfs(int descriptor) { return syncfs(descriptor); }

int csystem_terminal_columns(int descriptor) {
    struct winsize size;
    return ioctl(descriptor, TIOCGWINSZ, &size) == 0 ? size.ws_col : 0;
}

int csystem_pipe(int descriptors[2]) { return pipe2(descriptors, O_CLOEXEC); }

void csystem_name_thread(const char *name) {
    char short_name[16];
    snprintf(short_name, sizeof short_name, "%s", name);
    pthread_setname_np(pthread_self(), short_name);
}

static atomic_int caught_signal;

static void catch_interruption(int signal) {
    int none = 0;
    atomic_compare_exchange_strong(&caught_signal, &none, signal);
}

int csystem_catch_interruptions(void) {
    // No SA_RESTART: a blocking call of the main thread returns with EINTR, so that it can look at the flag.
    struct sigaction action = {.sa_handler = catch_interruption};
    sigfillset(&action.sa_mask);
    if (sigaction(SIGINT, &action, NULL) != 0 || sigaction(SIGTERM, &action, NULL) != 0) return -1;
    struct sigaction ignore = {.sa_handler = SIG_IGN};
    return sigaction(SIGPIPE, &ignore, NULL);
}

int csystem_caught_interruption(void) { return atomic_load(&caught_signal); }

_Noreturn void csystem_die_by(int number) {
    struct sigaction action = {.sa_handler = SIG_DFL};
    sigaction(number, &action, NULL);
    sigset_t only;
    sigemptyset(&only);
    sigaddset(&only, number);
    pthread_sigmask(SIG_UNBLOCK, &only, NULL);
    kill(getpid(), number);
    // A signal whose default action does not end a process: end it all the same.
    _exit(128 + number);
}
