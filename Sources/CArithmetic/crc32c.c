// CRC32C: polynomial 0x1EDC6F41, reflected, initial value and final exclusive-or of all ones.
//
// The crc32 instruction of SSE4.2 has a latency of three cycles and a throughput of one, so a long buffer is cut into
// four neighbouring streams that are computed side by side. Their CRCs are then joined: appending n zero bytes to a
// message multiplies its CRC by x^(8n) modulo the polynomial, and a carry-less multiplication by a constant followed by
// one crc32 instruction does just that (see `shift_constants`).
#include "carithmetic.h"
#include <pthread.h>
#include <stdbool.h>
#include <string.h>

// MARK: - Any processor: eight bytes a step through eight tables

static uint32_t tables[8][256];
static pthread_once_t tables_made = PTHREAD_ONCE_INIT;

static void make_tables(void) {
    for (uint32_t byte = 0; byte < 256; byte++) {
        uint32_t crc = byte;
        for (int bit = 0; bit < 8; bit++) crc = crc >> 1 ^ (crc & 1 ? 0x82F63B78u : 0);
        tables[0][byte] = crc;
    }
    for (int table = 1; table < 8; table++)
        for (int byte = 0; byte < 256; byte++) {
            uint32_t crc = tables[table - 1][byte];
            tables[table][byte] = crc >> 8 ^ tables[0][crc & 0xFF];
        }
}

uint32_t carithmetic_crc32c_portable(uint32_t previous, const void *data, size_t length) {
    pthread_once(&tables_made, make_tables);
    const unsigned char *next = data;
    uint32_t crc = ~previous;
    for (; length >= 8; length -= 8, next += 8) {
        uint32_t low = crc ^ (next[0] | (uint32_t)next[1] << 8 | (uint32_t)next[2] << 16 | (uint32_t)next[3] << 24);
        crc = tables[7][low & 0xFF] ^ tables[6][low >> 8 & 0xFF] ^ tables[5][low >> 16 & 0xFF] ^ tables[4][low >> 24]
            ^ tables[3][next[4]] ^ tables[2][next[5]] ^ tables[1][next[6]] ^ tables[0][next[7]];
    }
    for (; length > 0; length--, next++) crc = crc >> 8 ^ tables[0][(crc ^ *next) & 0xFF];
    return ~crc;
}

#if defined(__x86_64__)

// MARK: - x86 with SSE4.2 and PCLMULQDQ

#include <immintrin.h>

#define ACCELERATED __attribute__((target("sse4.2,pclmul")))

static inline bool is_accelerated(void) {
    return __builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("pclmul");
}

static inline uint64_t load64(const unsigned char *from) {
    uint64_t value;
    memcpy(&value, from, sizeof value);
    return value;
}

// For streams of n bytes: x^(8kn - 33) modulo the polynomial, reflected, for k = 1, 2, 3. The product of two reflected
// 32-bit values is one bit short of a reflected 64-bit value (a factor of x), and the crc32 instruction multiplies by
// x^32: together the missing 33.
struct shift_constants {
    uint32_t one, two, three;
};
static const struct shift_constants shift_1024 = {0x170076fa, 0xa51b6135, 0x359674f7};
static const struct shift_constants shift_128 = {0x0d3b6092, 0xb9e02b86, 0xd270f1a2};

ACCELERATED static inline uint64_t multiply(uint32_t crc, uint32_t constant) {
    __m128i product = _mm_clmulepi64_si128(_mm_cvtsi32_si128((int)crc), _mm_cvtsi32_si128((int)constant), 0);
    return (uint64_t)_mm_cvtsi128_si64(product);
}

// The raw CRC state after four streams of `stream` bytes each.
ACCELERATED static inline uint32_t four_streams(
    uint32_t crc, const unsigned char *from, size_t stream, struct shift_constants shift) {
    uint64_t a = crc, b = 0, c = 0, d = 0;
    for (size_t at = 0; at < stream; at += 8) {
        a = _mm_crc32_u64(a, load64(from + at));
        b = _mm_crc32_u64(b, load64(from + at + stream));
        c = _mm_crc32_u64(c, load64(from + at + 2 * stream));
        d = _mm_crc32_u64(d, load64(from + at + 3 * stream));
    }
    uint64_t joined = multiply((uint32_t)a, shift.three) ^ multiply((uint32_t)b, shift.two)
        ^ multiply((uint32_t)c, shift.one);
    return (uint32_t)(_mm_crc32_u64(0, joined) ^ d);
}

// Works on the raw state: neither the initial nor the final inversion.
ACCELERATED static inline uint32_t accelerated(uint32_t state, const unsigned char *next, size_t length) {
    for (; length >= 4096; length -= 4096, next += 4096) state = four_streams(state, next, 1024, shift_1024);
    for (; length >= 512; length -= 512, next += 512) state = four_streams(state, next, 128, shift_128);
    uint64_t crc = state;
    for (; length >= 8; length -= 8, next += 8) crc = _mm_crc32_u64(crc, load64(next));
    state = (uint32_t)crc;
    if (length & 4) {
        uint32_t value;
        memcpy(&value, next, sizeof value);
        state = _mm_crc32_u32(state, value);
        next += 4;
    }
    if (length & 2) {
        uint16_t value;
        memcpy(&value, next, sizeof value);
        state = _mm_crc32_u16(state, value);
        next += 2;
    }
    if (length & 1) state = _mm_crc32_u8(state, *next);
    return state;
}

ACCELERATED static uint32_t crc32c_accelerated(uint32_t crc, const void *data, size_t length) {
    return ~accelerated(~crc, data, length);
}

ACCELERATED static uint32_t record_accelerated(const unsigned char *record, size_t total_length) {
    uint32_t state = accelerated(0xFFFFFFFFu, record + 24, total_length - 24);
    uint64_t crc = _mm_crc32_u64(_mm_crc32_u64(state, load64(record)), load64(record + 8));
    uint32_t last;
    memcpy(&last, record + 16, sizeof last);
    return ~_mm_crc32_u32((uint32_t)crc, last);
}

#endif

// MARK: - Dispatch

uint32_t carithmetic_crc32c(uint32_t crc, const void *data, size_t length) {
#if defined(__x86_64__)
    if (is_accelerated()) return crc32c_accelerated(crc, data, length);
#endif
    return carithmetic_crc32c_portable(crc, data, length);
}

uint32_t carithmetic_wal_record_crc32c(const void *record, size_t total_length) {
    const unsigned char *bytes = record;
#if defined(__x86_64__)
    if (is_accelerated()) return record_accelerated(bytes, total_length);
#endif
    return carithmetic_crc32c_portable(
        carithmetic_crc32c_portable(0, bytes + 24, total_length - 24), bytes, 20);
}
