/* SPDX-License-Identifier: MIT */
/*
 * A ChaCha20 generator (RFC 8439 block function) with fast key erasure: each call makes a block for the next key first,
 * so that the state left in memory does not tell what was given out. Seeds are absorbed by running the generator with
 * the seed exclusive-ored into the key. RDRAND, where there, is mixed into every call; it is never trusted alone.
 */
#include "kernel/random.h"

#include <string.h>

#include "kernel/cpu.h"
#include "kernel/spinlock.h"

static struct spinlock random_lock = SPINLOCK_INIT("random");
static uint32_t key[8];
static uint64_t counter;

static uint32_t rotate(uint32_t value, unsigned by)
{
    return value << by | value >> (32 - by);
}

static void quarter(uint32_t *s, unsigned a, unsigned b, unsigned c, unsigned d)
{
    s[a] += s[b];
    s[d] = rotate(s[d] ^ s[a], 16);
    s[c] += s[d];
    s[b] = rotate(s[b] ^ s[c], 12);
    s[a] += s[b];
    s[d] = rotate(s[d] ^ s[a], 8);
    s[c] += s[d];
    s[b] = rotate(s[b] ^ s[c], 7);
}

static void block(uint32_t out[16])
{
    uint32_t in[16] = { 0x61707865, 0x3320646e, 0x79622d32, 0x6b206574 };

    memcpy(in + 4, key, sizeof key);
    in[12] = (uint32_t)counter;
    in[13] = (uint32_t)(counter >> 32);
    counter++;
    memcpy(out, in, sizeof in);
    for (unsigned i = 0; i < 10; i++) {
        quarter(out, 0, 4, 8, 12);
        quarter(out, 1, 5, 9, 13);
        quarter(out, 2, 6, 10, 14);
        quarter(out, 3, 7, 11, 15);
        quarter(out, 0, 5, 10, 15);
        quarter(out, 1, 6, 11, 12);
        quarter(out, 2, 7, 8, 13);
        quarter(out, 3, 4, 9, 14);
    }
    for (unsigned i = 0; i < 16; i++)
        out[i] += in[i];
}

/* A memset that the compiler may not leave out because nobody reads the memory again. */
static void wipe(void *bytes, size_t count)
{
    memset(bytes, 0, count);
    __asm__ volatile("" : : "r"(bytes) : "memory");
}

static void erase_key(void)
{
    uint32_t out[16];

    block(out);
    memcpy(key, out, sizeof key);
    wipe(out, sizeof out);
}

void random_seed(const void *bytes, size_t count)
{
    const uint8_t *byte = bytes;
    uint64_t flags = spin_lock_irqsave(&random_lock);

    for (size_t i = 0; i < count; i++) {
        ((uint8_t *)key)[i % sizeof key] ^= byte[i];
        if (i % sizeof key == sizeof key - 1 || i == count - 1)
            erase_key();
    }
    spin_unlock_irqrestore(&random_lock, flags);
}

void random_bytes(void *bytes, size_t count)
{
    uint8_t *out = bytes;
    uint32_t words[16];
    uint64_t flags = spin_lock_irqsave(&random_lock);

    if (cpu_features.rdrand) {
        uint64_t value;
        bool ok;
        __asm__ volatile("rdrand %0" : "=r"(value), "=@ccc"(ok));
        if (ok) {
            key[0] ^= (uint32_t)value;
            key[1] ^= (uint32_t)(value >> 32);
        }
    }
    key[2] ^= (uint32_t)rdtsc();
    erase_key();
    while (count) {
        size_t piece = MIN(count, sizeof words);
        block(words);
        memcpy(out, words, piece);
        out += piece;
        count -= piece;
    }
    erase_key();
    wipe(words, sizeof words);
    spin_unlock_irqrestore(&random_lock, flags);
}
