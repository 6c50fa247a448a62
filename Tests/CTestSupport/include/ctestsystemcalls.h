// System calls that go wrong as a test wishes: seccomp(2) hands those of one thread, and of all threads that it starts,
// to a supervisor in the same process, which lets each one happen or answers it with an error.
#pragma once
#include <stdint.h>

enum ctest_call {
    CTEST_OTHER = 0,
    CTEST_CREATE,  // openat with O_CREAT
    CTEST_CREATE_UNNAMED,  // openat with O_TMPFILE
    CTEST_WRITE,  // pwrite64
    CTEST_SYNC,  // fsync, fdatasync, syncfs
    CTEST_RENAME,
    CTEST_RENAME_NOREPLACE,  // renameat2
    CTEST_LINK,
    CTEST_UNLINK,
    CTEST_MAKE_DIRECTORY,
    CTEST_CHANGE_MODE,
    CTEST_TRUNCATE,
    CTEST_SYMLINK,
    CTEST_SET_TIMES,
};

// Puts the calling thread under supervision, for good. Returns the supervisor's descriptor, or -1 with errno.
int ctest_supervise_calls(void);

// Waits for the next call for at most `milliseconds`. Returns 1 with its id and kind, 0 if none came, -1 with errno.
int ctest_next_call(int supervisor, int milliseconds, uint64_t *id, enum ctest_call *call);

// Lets the call happen (`error` 0) or fail with `error`. A thread that is gone by now does not matter.
void ctest_answer_call(int supervisor, uint64_t id, int error);
