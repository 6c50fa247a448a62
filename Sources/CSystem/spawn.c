// Starting child processes: what posix_spawn offers beyond POSIX is hidden from Swift's Glibc module.
#define _GNU_SOURCE
#include "csystem_spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <unistd.h>

int csystem_spawn(
    char *const *arguments, char *const *environment, const char *directory, int input, int output, int errors,
    pid_t *process)
{
    // A descriptor below 3 (possible when we were started with 0, 1 or 2 closed) would be overwritten by an earlier
    // dup2 of the child, so each is first copied above them.
    int wanted[3] = {input, output, errors};
    int copies[3] = {-1, -1, -1};
    int result = 0;
    for (int i = 0; i < 3 && result == 0; i++) {
        copies[i] = fcntl(wanted[i], F_DUPFD_CLOEXEC, 3);
        if (copies[i] < 0) result = errno;
    }
    if (result == 0) {
        posix_spawn_file_actions_t actions;
        posix_spawnattr_t attributes;
        sigset_t none, all;
        sigemptyset(&none);
        sigfillset(&all);
        // These fail for want of memory only, and glibc reports that again from the calls that follow.
        posix_spawn_file_actions_init(&actions);
        posix_spawnattr_init(&attributes);
        posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
        posix_spawnattr_setsigmask(&attributes, &none);
        posix_spawnattr_setsigdefault(&attributes, &all);
        for (int i = 0; i < 3 && result == 0; i++) {
            result = posix_spawn_file_actions_adddup2(&actions, copies[i], i);
        }
        if (result == 0) result = posix_spawn_file_actions_addclosefrom_np(&actions, 3);
        if (result == 0 && directory) result = posix_spawn_file_actions_addchdir_np(&actions, directory);
        if (result == 0) {
            result = posix_spawnp(process, arguments[0], &actions, &attributes, arguments, environment);
        }
        posix_spawnattr_destroy(&attributes);
        posix_spawn_file_actions_destroy(&actions);
    }
    for (int i = 0; i < 3; i++) {
        if (copies[i] >= 0) close(copies[i]);
    }
    return result;
}

int csystem_memory_file(const void *bytes, size_t count)
{
    int file = memfd_create("kedge-input", MFD_CLOEXEC);
    if (file < 0) return -1;
    size_t done = 0;
    while (done < count) {
        ssize_t written = write(file, (const char *)bytes + done, count - done);
        if (written < 0 && errno == EINTR) continue;
        if (written <= 0) {
            int saved = written < 0 ? errno : EIO;
            close(file);
            errno = saved;
            return -1;
        }
        done += (size_t)written;
    }
    if (lseek(file, 0, SEEK_SET) < 0) {
        int saved = errno;
        close(file);
        errno = saved;
        return -1;
    }
    return file;
}

int csystem_output_pipe(int *read_end, int *write_end)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) < 0) return -1;
    if (fcntl(ends[0], F_SETFL, O_NONBLOCK) < 0) {
        int saved = errno;
        close(ends[0]);
        close(ends[1]);
        errno = saved;
        return -1;
    }
    *read_end = ends[0];
    *write_end = ends[1];
    return 0;
}

int csystem_process_descriptor(pid_t process)
{
    return pidfd_open(process, 0);
}

char *const *csystem_environment(void)
{
    return environ;
}
