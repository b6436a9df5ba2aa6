/* SPDX-License-Identifier: MIT */
/*
 * Integers of 1 to 8 bytes at any address: how every format in this program is read and written, so that neither
 * alignment nor a struct's padding matters. Our own formats are little-endian; iSCSI and SCSI are big-endian. Pure.
 * Compilers turn a constant width into one move.
 */
#ifndef KERNEL_BYTES_H
#define KERNEL_BYTES_H

#include "kernel/types.h"

static inline uint64_t le_get(const uint8_t *p, unsigned width)
{
    uint64_t value = 0;
    for (unsigned i = 0; i < width; i++)
        value |= (uint64_t)p[i] << (8 * i);
    return value;
}

static inline void le_put(uint8_t *p, uint64_t value, unsigned width)
{
    for (unsigned i = 0; i < width; i++)
        p[i] = (uint8_t)(value >> (8 * i));
}

static inline uint16_t le16_get(const uint8_t *p) { return (uint16_t)le_get(p, 2); }
static inline uint32_t le32_get(const uint8_t *p) { return (uint32_t)le_get(p, 4); }
static inline uint64_t le64_get(const uint8_t *p) { return le_get(p, 8); }
static inline void le16_put(uint8_t *p, uint16_t value) { le_put(p, value, 2); }
static inline void le32_put(uint8_t *p, uint32_t value) { le_put(p, value, 4); }
static inline void le64_put(uint8_t *p, uint64_t value) { le_put(p, value, 8); }

static inline uint64_t be_get(const uint8_t *p, unsigned width)
{
    uint64_t value = 0;
    for (unsigned i = 0; i < width; i++)
        value = value << 8 | p[i];
    return value;
}

static inline void be_put(uint8_t *p, uint64_t value, unsigned width)
{
    for (unsigned i = 0; i < width; i++)
        p[i] = (uint8_t)(value >> (8 * (width - 1 - i)));
}

static inline uint16_t be16_get(const uint8_t *p) { return (uint16_t)be_get(p, 2); }
static inline uint32_t be24_get(const uint8_t *p) { return (uint32_t)be_get(p, 3); }
static inline uint32_t be32_get(const uint8_t *p) { return (uint32_t)be_get(p, 4); }
static inline uint64_t be64_get(const uint8_t *p) { return be_get(p, 8); }
static inline void be16_put(uint8_t *p, uint16_t value) { be_put(p, value, 2); }
static inline void be24_put(uint8_t *p, uint32_t value) { be_put(p, value, 3); }
static inline void be32_put(uint8_t *p, uint32_t value) { be_put(p, value, 4); }
static inline void be64_put(uint8_t *p, uint64_t value) { be_put(p, value, 8); }

#endif
