// What tests ask of the C library and Swift's Glibc module hides.
#pragma once
#include <stddef.h>

// Bytes that malloc has handed out in this process and that were not freed.
size_t ctest_allocated_bytes(void);
