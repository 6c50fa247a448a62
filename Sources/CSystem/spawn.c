// Starting child processes: what posix_spawn offers beyond POSIX is hidden from Swift's Glibc module.
#define _GNU_SOURCE
#include "csystem_spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <linux/close_range.h>
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

// The child's half: nothing but calls that are safe after fork in a process with threads. Never returns.
static void become(
    char *const *arguments, char *const *environment, const char *directory, const int *wanted, int death_signal,
    pid_t parent, int report)
{
    struct sigaction standard = {.sa_handler = SIG_DFL};
    for (int signal = 1; signal < NSIG; signal++) sigaction(signal, &standard, NULL);
    setsid();
    int failure = 0;
    if (prctl(PR_SET_PDEATHSIG, death_signal) != 0) failure = errno;
    // The parent may have ended before the line above.
    if (failure == 0 && getppid() != parent) _exit(127);
    for (int i = 0; i < 3 && failure == 0; i++) {
        if (dup2(wanted[i], i) < 0) failure = errno;
    }
    if (failure == 0 && close_range(3, ~0U, CLOSE_RANGE_CLOEXEC) != 0) failure = errno;
    if (failure == 0 && directory && chdir(directory) != 0) failure = errno;
    if (failure == 0) {
        sigset_t none;
        sigemptyset(&none);
        sigprocmask(SIG_SETMASK, &none, NULL);
        execvpe(arguments[0], arguments, environment);
        failure = errno;
    }
    ssize_t ignored = write(report, &failure, sizeof failure);
    (void)ignored;
    _exit(127);
}

int csystem_spawn_tied(
    char *const *arguments, char *const *environment, const char *directory, int input, int output, int errors,
    int death_signal, pid_t *process)
{
    // Copies above 2, for the same reason as in csystem_spawn.
    int wanted[3] = {input, output, errors};
    int copies[3] = {-1, -1, -1};
    int report[2] = {-1, -1};
    int result = 0;
    for (int i = 0; i < 3 && result == 0; i++) {
        copies[i] = fcntl(wanted[i], F_DUPFD_CLOEXEC, 3);
        if (copies[i] < 0) result = errno;
    }
    if (result == 0 && pipe2(report, O_CLOEXEC) != 0) result = errno;
    if (result == 0) {
        // No handler of ours may run in the child.
        sigset_t all, before;
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &before);
        pid_t parent = getpid();
        pid_t child = fork();
        if (child == 0) become(arguments, environment, directory, copies, death_signal, parent, report[1]);
        if (child < 0) result = errno;
        pthread_sigmask(SIG_SETMASK, &before, NULL);
        close(report[1]);
        if (child > 0) {
            int failure = 0;
            ssize_t count;
            do count = read(report[0], &failure, sizeof failure);
            while (count < 0 && errno == EINTR);
            if (count == (ssize_t)sizeof failure) {
                result = failure;
                while (waitpid(child, NULL, 0) < 0 && errno == EINTR) {}
            } else {
                *process = child;
            }
        }
        close(report[0]);
    }
    for (int i = 0; i < 3; i++) {
        if (copies[i] >= 0) close(copies[i]);
    }
    return result;
}

int csystem_signal_process(int descriptor, int signal)
{
    return pidfd_send_signal(descriptor, signal, NULL, 0);
}

void csystem_remove_variable(const char *name)
{
    unsetenv(name);
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
