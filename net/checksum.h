/* SPDX-License-Identifier: MIT */
/* The Internet checksum. Pure. */
#ifndef NET_CHECKSUM_H
#define NET_CHECKSUM_H

#include <stddef.h>
#include <stdint.h>

/*
 * The one's complement sum (not its complement) of `count` bytes taken as 16-bit words in the machine's byte order, a last
 * odd byte padded with zero (RFC 1071). `bytes` need not be aligned. Any context.
 */
uint16_t net_checksum(const void *bytes, int count);
/* The same sum as one of 64-bit words, not folded: 64, 32 or 16 bits of it and what is above added are the same number. */
uint64_t net_sum(const void *bytes, size_t count);

#endif
