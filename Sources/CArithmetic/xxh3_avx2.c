// XXH3-128 for processors with AVX2 (xxh3.c).
#if defined(__x86_64__)
#include "carithmetic.h"
// What xxhash.h includes must not be compiled for another processor: it is included before.
#include <immintrin.h>
#include <stdlib.h>
#include <string.h>

#pragma clang attribute push(__attribute__((target("avx2"))), apply_to = function)
#define XXH_INLINE_ALL
#define XXH_VECTOR 2 // XXH_AVX2
#include <xxhash.h>

struct carithmetic_hash128 carithmetic_xxh3_avx2(const void *data, size_t length, uint64_t seed) {
    XXH128_hash_t hash = XXH3_128bits_withSeed(data, length, seed);
    return (struct carithmetic_hash128){hash.low64, hash.high64};
}

void carithmetic_xxh3_update_avx2(void *state, const void *data, size_t length) {
    XXH3_128bits_update(state, data, length);
}
#pragma clang attribute pop
#endif
