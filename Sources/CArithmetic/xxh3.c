// XXH3-128 of bytes in one piece, and the part of hashing pieces that takes the time. The algorithm is that of xxhash.h,
// which picks its instructions when it is compiled; Debian's libxxhash has none beyond SSE2. Here it is compiled for AVX2
// as well, and which one is used is decided at run time. The hash is the same with both. AVX-512 was not faster where the
// data comes from beyond the first cache.
#include "carithmetic.h"
#define XXH_INLINE_ALL
#include <xxhash.h>

struct carithmetic_hash128 carithmetic_xxh3_portable(const void *data, size_t length, uint64_t seed) {
    XXH128_hash_t hash = XXH3_128bits_withSeed(data, length, seed);
    return (struct carithmetic_hash128){hash.low64, hash.high64};
}

struct carithmetic_hash128 carithmetic_xxh3(const void *data, size_t length, uint64_t seed) {
#if defined(__x86_64__)
    if (carithmetic_xxh3_has_avx2()) return carithmetic_xxh3_avx2(data, length, seed);
#endif
    return carithmetic_xxh3_portable(data, length, seed);
}

void carithmetic_xxh3_update(void *state, const void *data, size_t length) {
#if defined(__x86_64__)
    if (carithmetic_xxh3_has_avx2()) return carithmetic_xxh3_update_avx2(state, data, length);
#endif
    XXH3_128bits_update(state, data, length);
}

bool carithmetic_xxh3_has_avx2(void) {
#if defined(__x86_64__)
    return __builtin_cpu_supports("avx2");
#else
    return false;
#endif
}

#if !defined(__x86_64__)
struct carithmetic_hash128 carithmetic_xxh3_avx2(const void *data, size_t length, uint64_t seed) {
    return carithmetic_xxh3_portable(data, length, seed);
}

void carithmetic_xxh3_update_avx2(void *state, const void *data, size_t length) {
    XXH3_128bits_update(state, data, length);
}
#endif
