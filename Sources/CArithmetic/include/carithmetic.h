// Checksums that are worth processor-specific code: CRC32C (WAL records, pg_control, files), PostgreSQL's page
// checksum and XXH3. Each function looks at what the processor offers; all variants give the same result.
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// CRC32C (Castagnoli) of `data`, continuing from `crc`, the finished CRC of what came before (0 at the start).
uint32_t carithmetic_crc32c(uint32_t crc, const void *data, size_t length);
// The same by tables, on any processor. What carithmetic_crc32c falls back to; here so that tests can compare the two.
uint32_t carithmetic_crc32c_portable(uint32_t crc, const void *data, size_t length);

// CRC of one WAL record that lies in one piece: its `total_length` bytes from the 24th on, then its first 20
// (src/backend/access/transam/xlogreader.c, ValidXLogRecord). `total_length` is at least 24.
uint32_t carithmetic_wal_record_crc32c(const void *record, size_t total_length);

// PostgreSQL's checksum of a data page of `size` bytes (a positive multiple of 128), as pd_checksum should hold it
// (src/include/storage/checksum_impl.h). `block` counts from the start of the relation fork, not of its segment file.
// `page` needs no alignment.
uint16_t carithmetic_page_checksum(const void *page, size_t size, uint32_t block);
// The same without processor-specific instructions, for tests.
uint16_t carithmetic_page_checksum_portable(const void *page, size_t size, uint32_t block);

struct carithmetic_hash128 {
    uint64_t low, high;
};

// XXH3-128 of `data`. XXH128_canonicalFromHash prints the high half first.
struct carithmetic_hash128 carithmetic_xxh3(const void *data, size_t length, uint64_t seed);
// Its two variants, for tests. The second only where the processor has the instructions.
struct carithmetic_hash128 carithmetic_xxh3_portable(const void *data, size_t length, uint64_t seed);
struct carithmetic_hash128 carithmetic_xxh3_avx2(const void *data, size_t length, uint64_t seed);
bool carithmetic_xxh3_has_avx2(void);

// XXH3_128bits_update: adds `data` to what `state`, an XXH3_state_t of libxxhash, has seen.
void carithmetic_xxh3_update(void *state, const void *data, size_t length);
// Only where the processor has the instructions.
void carithmetic_xxh3_update_avx2(void *state, const void *data, size_t length);
