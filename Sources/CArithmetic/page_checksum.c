// PostgreSQL's data page checksum (src/include/storage/checksum_impl.h): the page, its pd_checksum taken as zero, is read
// as rows of 32 words; each column has an FNV-1a hash of its own with an extra shift, all 32 are folded together, mixed
// with the block number and reduced to 1 to 65535. 32 columns, so that wide registers can be filled.
#include "carithmetic.h"
#include <string.h>

enum { columns = 32, row_bytes = columns * sizeof(uint32_t), checksum_offset = 8 };

static const uint32_t start_values[columns] = {
    0x5B1F36E9, 0xB8525960, 0x02AB50AA, 0x1DE66D2A, 0x79FF467A, 0x9BB9F8A3, 0x217E7CD2, 0x83E13D2C,
    0xF8D4474F, 0xE39EB970, 0x42C6AE16, 0x993216FA, 0x7B093B5D, 0x98DAFF3C, 0xF718902A, 0x0B1C9CDB,
    0xE58F764B, 0x187636BC, 0x5D7B3BB1, 0xE73DE7DE, 0x92BEC979, 0xCCA6C0B2, 0x304A0979, 0x85AA43D4,
    0x783125BB, 0x6CA8EAA2, 0xE407EAC6, 0x4B5CFC3E, 0x9FBF8C76, 0x15CA20BE, 0xF2CA9FD3, 0x959BD756,
};

#define ALWAYS_INLINE static inline __attribute__((always_inline))

ALWAYS_INLINE void mix_row(uint32_t sums[columns], const unsigned char *row) {
    uint32_t words[columns];
    memcpy(words, row, row_bytes);
    for (int column = 0; column < columns; column++) {
        uint32_t mixed = sums[column] ^ words[column];
        sums[column] = mixed * 16777619u ^ mixed >> 17;
    }
}

// Compiled once for each instruction set, by inlining into the functions below.
ALWAYS_INLINE uint16_t checksum(const unsigned char *page, size_t size, uint32_t block) {
    static const unsigned char zeroes[row_bytes];
    unsigned char first[row_bytes];
    memcpy(first, page, row_bytes);
    first[checksum_offset] = first[checksum_offset + 1] = 0;

    uint32_t sums[columns];
    memcpy(sums, start_values, sizeof sums);
    mix_row(sums, first);
    for (size_t at = row_bytes; at < size; at += row_bytes) mix_row(sums, page + at);
    mix_row(sums, zeroes);
    mix_row(sums, zeroes);

    uint32_t folded = block;
    for (int column = 0; column < columns; column++) folded ^= sums[column];
    return (uint16_t)(folded % 65535 + 1);
}

uint16_t carithmetic_page_checksum_portable(const void *page, size_t size, uint32_t block) {
    return checksum(page, size, block);
}

#if defined(__x86_64__)
__attribute__((target("avx2"))) static uint16_t checksum_avx2(const void *page, size_t size, uint32_t block) {
    return checksum(page, size, block);
}
#endif

uint16_t carithmetic_page_checksum(const void *page, size_t size, uint32_t block) {
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2")) return checksum_avx2(page, size, block);
#endif
    return checksum(page, size, block);
}
