// What tests ask of the C library and Swift's Glibc module hides.
#pragma once
#include <stddef.h>

// Bytes that malloc has handed out in this process and that were not freed.
size_t ctest_allocated_bytes(void);

// Starts a child that shares all descriptors and does nothing until it is killed. Returns its process id.
int ctest_fork_paused(void);

// Gives the calling thread, and those that it starts, another user's rights on files (setfsuid(2)).
void ctest_use_file_rights(unsigned user, unsigned group);
