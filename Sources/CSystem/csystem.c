#define _GNU_SOURCE
#include "csystem.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <time.h>
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
#ifdef STATX_ATTR_MOUNT_ROOT
    result->is_mount_root = (status.stx_attributes & STATX_ATTR_MOUNT_ROOT) != 0;
#endif
    return 0;
}

int csystem_rename_noreplace(int old_directory, const char *old_path, int new_directory, const char *new_path) {
    return renameat2(old_directory, old_path, new_directory, new_path, RENAME_NOREPLACE);
}

int64_t csystem_cached_pages(int descriptor, uint64_t offset, uint64_t length) {
    // Debian 12's headers do not know the call; its number is the same on all architectures.
    enum { number = 451 };
    struct {
        uint64_t offset, length;
    } range = {offset, length};
    struct {
        uint64_t cached, dirty, under_writeback, evicted, recently_evicted;
    } found = {0};
    if (syscall(number, descriptor, &range, &found, 0u) != 0) return -1;
    return (int64_t)found.cached;
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

int csystem_allocate(int descriptor, off_t length) { return fallocate(descriptor, 0, 0, length); }

int csystem_syncfs(int descriptor) { return syncfs(descriptor); }

int csystem_set_direct(int descriptor, bool on) {
    int flags = fcntl(descriptor, F_GETFL);
    if (flags < 0) return -1;
    return fcntl(descriptor, F_SETFL, on ? flags | O_DIRECT : flags & ~O_DIRECT);
}

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
static atomic_int forced_status = -1;
static atomic_int forced_after_milliseconds = 10000;

static void note_interruption(int signal) {
    int none = 0;
    atomic_compare_exchange_strong(&caught_signal, &none, signal);
}

// For a stream that nobody reads: whoever ends by force must not begin to wait.
static void tell(const char *text) {
    struct pollfd stream = {.fd = STDERR_FILENO, .events = POLLOUT};
    if (poll(&stream, 1, 0) == 1 && (stream.revents & POLLOUT) && write(STDERR_FILENO, text, strlen(text)) < 0) return;
}

static _Noreturn void end_by_force(int signal) {
    tell("kedge: error: interrupted by a signal, and ended at once: something did not stop in time, or a second signal "
         "came\ndetail: Nothing was cleaned up. What is incomplete is not visible and is never used.\n"
         "hint: Find out what hangs, such as a mount that does not answer, then run the command again.\n"
         "code: interrupted\n");
    int status = atomic_load(&forced_status);
    if (status >= 0) _exit(status);
    csystem_die_by(signal);
}

// Waits until the time is over, or until the next signal where that is wanted.
static void wait_for_signal(const sigset_t *watched, int milliseconds, bool ends_at_signal) {
    struct timespec now, end;
    clock_gettime(CLOCK_MONOTONIC, &end);
    end.tv_sec += milliseconds / 1000;
    end.tv_nsec += milliseconds % 1000 * 1000000L;
    for (;;) {
        clock_gettime(CLOCK_MONOTONIC, &now);
        long long left = (end.tv_sec - now.tv_sec) * 1000000000LL + end.tv_nsec - now.tv_nsec;
        if (left <= 0) return;
        struct timespec time = {.tv_sec = left / 1000000000LL, .tv_nsec = left % 1000000000LL};
        if (sigtimedwait(watched, NULL, &time) > 0 && ends_at_signal) return;
    }
}

// Waits for the signals in place of all other threads: these may hang in system calls that no signal ends.
static void *watch_interruptions(void *argument) {
    sigset_t watched = *(sigset_t *)argument;
    free(argument);
    int number;
    while (sigwait(&watched, &number) != 0) {}
    note_interruption(number);
    // A second signal, or the end of the time: either way it is over. One that comes together with the first is the same
    // request: timeout(1), for one, sends it to the process and then to its group.
    const int together = 1000;
    int left = atomic_load(&forced_after_milliseconds);
    wait_for_signal(&watched, together < left ? together : left, false);
    if (left > together) wait_for_signal(&watched, left - together, true);
    end_by_force(number);
}

static int start_watch(const sigset_t *watched) {
    sigset_t *copy = malloc(sizeof *copy);
    if (copy == NULL) return -1;
    *copy = *watched;
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, 128 << 10);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pthread_t thread;
    int failure = pthread_create(&thread, &attributes, watch_interruptions, copy);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    if (failure != 0) free(copy);
    return failure == 0 ? 0 : -1;
}

int csystem_catch_interruptions(void) {
    struct sigaction ignore = {.sa_handler = SIG_IGN};
    if (sigaction(SIGPIPE, &ignore, NULL) != 0 || sigaction(SIGXFSZ, &ignore, NULL) != 0) return -1;
    // Where our caller ignored it, the exit statuses of our children would be lost (wait(2), ECHILD).
    struct sigaction ordinary = {.sa_handler = SIG_DFL};
    if (sigaction(SIGCHLD, &ordinary, NULL) != 0) return -1;
    sigset_t watched;
    sigemptyset(&watched);
    // A terminal that is closed sends SIGHUP; nohup has it ignored.
    const int signals[] = {SIGINT, SIGTERM, SIGHUP};
    const int count = sizeof signals / sizeof signals[0];
    for (int i = 0; i < count; i++) {
        // What our caller ignores (a shell does so for SIGINT in the background) stays ignored.
        struct sigaction present;
        if (sigaction(signals[i], NULL, &present) != 0) return -1;
        if (present.sa_handler != SIG_IGN) sigaddset(&watched, signals[i]);
    }
    // Blocked before there is another thread, so that every thread has them blocked.
    if (pthread_sigmask(SIG_BLOCK, &watched, NULL) != 0) return -1;
    if (start_watch(&watched) == 0) return 0;
    // No more threads: a handler does what one can do, which is to set the flag.
    struct sigaction action = {.sa_handler = note_interruption};
    sigfillset(&action.sa_mask);
    for (int i = 0; i < count; i++) {
        if (sigismember(&watched, signals[i]) && sigaction(signals[i], &action, NULL) != 0) return -1;
    }
    return pthread_sigmask(SIG_UNBLOCK, &watched, NULL);
}

void csystem_end_by_force_after(int milliseconds, int status) {
    atomic_store(&forced_after_milliseconds, milliseconds);
    atomic_store(&forced_status, status);
}

static int crash_status;

static void end_after_crash(int signal) {
    (void)signal;
    tell("kedge: error: ended by a crash\nhint: Please report this with what kedge printed before.\ncode: defect\n");
    _exit(crash_status);
}

int csystem_exit_on_crash(int status) {
    crash_status = status;
    struct sigaction action = {.sa_handler = end_after_crash};
    sigfillset(&action.sa_mask);
    const int signals[] = {SIGILL, SIGTRAP, SIGABRT, SIGBUS, SIGFPE, SIGSEGV};
    for (size_t i = 0; i < sizeof signals / sizeof signals[0]; i++) {
        if (sigaction(signals[i], &action, NULL) != 0) return -1;
    }
    return 0;
}

void csystem_occupy_standard_streams(void) {
    for (int stream = 0; stream < 3; stream++) {
        if (fcntl(stream, F_GETFD) >= 0 || errno != EBADF) continue;
        // The lowest free number is taken, which is this one. Opened so that using it fails as it would have failed.
        int flags = stream == STDIN_FILENO ? O_WRONLY : O_RDONLY;
        if (open("/dev/null", flags) != stream) return;
    }
}

int csystem_caught_interruption(void) { return atomic_load(&caught_signal); }

_Noreturn void csystem_die_by(int number) {
    struct sigaction action = {.sa_handler = SIG_DFL};
    sigaction(number, &action, NULL);
    sigset_t only;
    sigemptyset(&only);
    sigaddset(&only, number);
    pthread_sigmask(SIG_UNBLOCK, &only, NULL);
    // To this thread: another one may be waiting for this very signal.
    raise(number);
    // A signal whose default action does not end a process: end it all the same.
    _exit(128 + number);
}
