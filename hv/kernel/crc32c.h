/* SPDX-License-Identifier: MIT */
/*
 * CRC-32C (Castagnoli polynomial 0x1edc6f41, reflected), the checksum of the state stream and of everything on disk.
 *
 * Pure, except that crc32c_use_hardware() sets one flag for the whole program. Vector state is never touched: the
 * `crc32` instruction of SSE4.2 works on general registers. Any context may call crc32c().
 */
#ifndef KERNEL_CRC32C_H
#define KERNEL_CRC32C_H

#include "kernel/types.h"

/*
 * Continues a checksum: `crc` is the value returned for the bytes before these, 0 at the start. So
 * crc32c(crc32c(0, a, m), b, n) is the checksum of a followed by b. The checksum of "123456789" is 0xe3069283.
 */
uint32_t crc32c(uint32_t crc, const void *bytes, size_t count);

/*
 * Whether crc32c() uses the instruction: true only if CPUID.1:ECX[20] (SSE4.2) is set on every CPU. Off at the start.
 * To be called once, before other CPUs run.
 */
void crc32c_use_hardware(bool available);

#endif
