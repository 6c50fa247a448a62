// The few Linux calls that Swift's Glibc module hides (_GNU_SOURCE) or cannot import (macros, tuples, signal
// handlers). Each function is a thin wrapper: -1 and errno on failure unless it says otherwise; no policy here.
#pragma once
#include <dirent.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

// Name of an error number such as "ENOENT", NULL for a number without a name (strerrorname_np is GNU-only).
const char *csystem_errno_name(int number);
// Text of an error number in `buffer`, always terminated (strerror is not safe with threads).
void csystem_errno_text(int number, char *buffer, size_t size);

// What statx(2) says about a file: stat(2) has no birth time, and Glibc hides statx. Times in nanoseconds since 1970.
struct csystem_status {
    uint64_t inode;
    uint64_t device;
    uint64_t size;
    uint64_t allocated_bytes;
    uint32_t mode;
    uint32_t links;
    uint32_t user;
    uint32_t group;
    int64_t modified_ns;
    int64_t changed_ns;
    int64_t birth_ns;
    bool has_birth;
    // Something is mounted here; never set by kernels before 5.8.
    bool is_mount_root;
};
// Status of `path` below `directory` (AT_FDCWD allowed); with an empty path, of the descriptor itself.
int csystem_status(int directory, const char *path, bool follow_links, struct csystem_status *result);

// renameat2(2) with RENAME_NOREPLACE: EEXIST instead of replacing (hidden). EINVAL where the file system lacks it.
int csystem_rename_noreplace(int old_directory, const char *old_path, int new_directory, const char *new_path);
// openat(2) with a mode: it is variadic, which Swift cannot import safely. O_CLOEXEC is always added.
int csystem_openat(int directory, const char *path, int flags, mode_t mode);
// O_TMPFILE is hidden: an unnamed file in the directory `path`. EOPNOTSUPP or EISDIR where there is none.
int csystem_open_unnamed(int directory, const char *path, mode_t mode);

// The next entry of an open directory: 1 and its name and DT_ type, 0 at the end, -1 on error. Swift sees d_name as a
// tuple, and telling the end from an error needs errno cleared just before readdir(3).
int csystem_next_entry(DIR *directory, const char **name, unsigned char *type);

// How many pages of a range of a file the page cache holds (cachestat(2), Linux 6.5): -1 and ENOSYS from older kernels, EPERM
// for a file of others.
int64_t csystem_cached_pages(int descriptor, uint64_t offset, uint64_t length);
// Starts writing dirty pages of a range (sync_file_range(2) is hidden); `wait` also waits for them. No durability.
int csystem_start_writeback(int descriptor, off_t offset, off_t count, bool wait);
// Reserves room for the first `length` bytes of a file and makes it that long (fallocate(2) is hidden; posix_fallocate(3) writes
// where the file system can't).
int csystem_allocate(int descriptor, off_t length);
// syncfs(2) is hidden: makes all of a file system durable, one call for a restored data directory.
int csystem_syncfs(int descriptor);

// Turns O_DIRECT (open(2)) of an open file on or off.
int csystem_set_direct(int descriptor, bool on);
// pipe2(2) with O_CLOEXEC is hidden.
int csystem_pipe(int descriptors[2]);

// The width of the terminal behind a descriptor, 0 where it is none: ioctl(2) is variadic.
int csystem_terminal_columns(int descriptor);

// Names the calling thread as `ps -L` shows it, at most 15 bytes (pthread_setname_np is hidden).
void csystem_name_thread(const char *name);

// Makes SIGINT, SIGTERM and SIGHUP set a flag, unless they are ignored, and SIGPIPE and SIGXFSZ harmless. A thread of its own waits
// for them: at a second signal (a second or more after the first), or when the process still runs some time after the first, it ends the process, whatever the
// other threads hang in. To be called before any other thread is started.
int csystem_catch_interruptions(void);
// How long after the first signal the process is ended by force, and with which exit status; -1: by that signal.
void csystem_end_by_force_after(int milliseconds, int status);
// Ends the process with `status` where it would die of a fault of its own, for a caller that must not see a signal.
int csystem_exit_on_crash(int status);
// Opens /dev/null in place of each of 0, 1 and 2 that is closed, so that no file of ours gets such a number and then what is
// meant for a person. Reading and writing there fail as before. To be called before anything is opened.
void csystem_occupy_standard_streams(void);
// The first signal caught so far, 0 for none.
int csystem_caught_interruption(void);
// Ends the process by `signal` with its default action, as a caller that looks at the wait status expects.
_Noreturn void csystem_die_by(int signal);
