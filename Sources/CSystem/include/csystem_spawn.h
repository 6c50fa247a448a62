#pragma once
#include <stddef.h>
#include <sys/types.h>

/// Starts the program `arguments[0]` (searched in PATH if it holds no slash) with exactly these three descriptors as
/// its 0, 1 and 2; every other descriptor of ours is closed in it. All signals have their default action and none is
/// blocked there, whatever the calling thread does with them. `directory` may be NULL: ours. Returns 0 or an errno.
int csystem_spawn(
    char *const *arguments, char *const *environment, const char *directory, int input, int output, int errors,
    pid_t *process);

/// The same for a child that must not outlive us: it gets `death_signal` when the calling thread ends, however that is
/// (prctl(2), PR_SET_PDEATHSIG; 0: none), and it leads a session of its own, so that the keys of a terminal do not reach it.
int csystem_spawn_tied(
    char *const *arguments, char *const *environment, const char *directory, int input, int output, int errors,
    int death_signal, pid_t *process);

/// Sends `signal` to the process behind a descriptor of `csystem_process_descriptor`, which cannot be another process
/// of the same number. Returns -1 with errno on failure.
int csystem_signal_process(int descriptor, int signal);

/// Removes the variable from our own environment. Only while there is no other thread that may read it.
void csystem_remove_variable(const char *name);

/// An anonymous file in memory, positioned at its start, that holds `bytes`. Returns -1 with errno on failure.
int csystem_memory_file(const void *bytes, size_t count);

/// A pipe whose ends are closed on exec; the read end does not block. Returns 0, or -1 with errno.
int csystem_output_pipe(int *read_end, int *write_end);

/// A descriptor that becomes readable when `process`, a child of ours, ends. Returns -1 with errno on failure.
int csystem_process_descriptor(pid_t process);

/// Our own environment: NULL-terminated "NAME=value" strings. Nobody in this process changes it.
char *const *csystem_environment(void);
