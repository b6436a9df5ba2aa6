/* SPDX-License-Identifier: MIT */
/*
 * libFuzzer target: any bytes as an instruction, in any state, on any memory, must neither crash the emulator nor break
 * its promises: callbacks get sizes of 1 to 64 bytes that stay on a page, a step that is not EMU_DONE changes nothing,
 * a length is 1 to 15, and the fast length agrees with the decoder's.
 *
 * Input: struct state_seed, then the instruction, then memory contents that repeat.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/emulate.h"
#include "vmm/emulate_internal.h"

#define MEMORY 0x10000u

static uint8_t memory[MEMORY];
static bool moody; /* some callbacks fail */
static unsigned calls;

static void check_range(uint64_t at, size_t count)
{
    if (count < 1 || count > 64 || (at & 0xfff) + count > 0x1000)
        abort();
}

static bool mem_read(void *context, gpa_t gpa, void *bytes, size_t count)
{
    (void)context;
    check_range(gpa.v, count);
    if (moody && ++calls % 7 == 0)
        return false;
    for (size_t i = 0; i < count; i++)
        ((uint8_t *)bytes)[i] = memory[(gpa.v + i) % MEMORY];
    return true;
}

static bool mem_write(void *context, gpa_t gpa, const void *bytes, size_t count)
{
    (void)context;
    check_range(gpa.v, count);
    if (moody && ++calls % 5 == 0)
        return false;
    for (size_t i = 0; i < count; i++)
        memory[(gpa.v + i) % MEMORY] = ((const uint8_t *)bytes)[i];
    return true;
}

static bool mem_exchange(void *context, gpa_t gpa, const void *expected, const void *desired, size_t count, bool *equal)
{
    (void)expected;
    if (count != 1 && count != 2 && count != 4 && count != 8 && count != 16)
        abort();
    *equal = !moody || ++calls % 3;
    return !*equal || mem_write(context, gpa, desired, count);
}

static const void *mem_peek(void *context, gpa_t gpa, size_t count)
{
    (void)context;
    check_range(gpa.v, count);
    return range_within(gpa.v, count, MEMORY) ? memory + gpa.v : NULL;
}

static bool port_in(void *context, uint16_t port, unsigned size, uint32_t *value)
{
    (void)context;
    if (size != 1 && size != 2 && size != 4)
        abort();
    *value = port;
    return true;
}

static bool port_out(void *context, uint16_t port, unsigned size, uint32_t value)
{
    return port_in(context, port, size, &value);
}

static bool vector_read(void *context, unsigned index, uint8_t bytes[64])
{
    (void)context;
    if (index >= 32)
        abort();
    memset(bytes, (int)index, 64);
    return true;
}

static bool vector_write(void *context, unsigned index, const uint8_t bytes[64])
{
    (void)context;
    uint8_t copy[64];
    if (index >= 32)
        abort();
    memcpy(copy, bytes, sizeof(copy)); /* the sanitizer sees that all of it is there */
    return copy[0] == bytes[0];
}

struct state_seed {
    uint8_t mode, cpl, flags, options;
    uint32_t rflags, cr4;
    uint16_t limits[8];
    uint8_t attributes[8];
    uint64_t gpr[GPR_COUNT];
};

static void make_state(struct cpu_state *s, const struct state_seed *seed)
{
    memset(s, 0, sizeof(*s));
    memcpy(s->gpr, seed->gpr, sizeof(s->gpr));
    s->rflags = (seed->rflags & 0x3f7fd5) | RFLAGS_FIXED;
    s->cr4 = seed->cr4;
    s->cr3 = 0x1000;
    s->xcr0 = 7;
    for (unsigned i = 0; i < SEG_COUNT; i++) {
        s->seg[i].base = (uint64_t)seed->limits[i] << 4;
        s->seg[i].limit = seed->attributes[i] & 0x80 ? 0xffffffff : seed->limits[i];
        s->seg[i].attributes = (seed->attributes[i] & 0x1f) | SEG_P | (seed->cpl & 3u) << SEG_DPL_SHIFT |
                               (seed->attributes[i] & 0x20 ? SEG_DB : 0) |
                               (seed->attributes[i] & 0x40 ? SEG_UNUSABLE : 0);
    }
    s->gdtr = (struct table_register){ .base = 0x200, .limit = seed->limits[0] };
    switch (seed->mode % 5) {
    case 0: break;
    case 1: s->cr0 = CR0_PE; break;
    case 2: s->cr0 = CR0_PE | CR0_PG; break;
    case 3:
        s->cr0 = CR0_PE | CR0_PG | CR0_WP;
        s->efer = EFER_LMA | EFER_LME | EFER_NXE;
        break;
    default:
        s->cr0 = CR0_PE;
        s->efer = EFER_LMA | EFER_LME;
        s->seg[SEG_CS].attributes |= SEG_L;
        break;
    }
    if (seed->flags & 1)
        s->cr0 |= CR0_AM;
    s->rip = seed->flags & 2 ? seed->gpr[0] : 0xffc;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct state_seed seed;
    struct cpu_state state, before;
    if (size < sizeof(seed) + 1)
        return 0;
    memcpy(&seed, data, sizeof(seed));
    data += sizeof(seed);
    size -= sizeof(seed);
    size_t filled = size < MEMORY ? size : MEMORY;
    memcpy(memory, data, filled);
    for (size_t n; filled < MEMORY; filled += n) {
        n = filled < MEMORY - filled ? filled : MEMORY - filled;
        memcpy(memory + filled, memory, n);
    }
    make_state(&state, &seed);
    moody = seed.options & 1;
    calls = 0;
    struct emu_ops ops = { .read = mem_read, .write = mem_write, .compare_exchange = mem_exchange, .peek = mem_peek };
    if (seed.options & 2) {
        ops.port_in = port_in;
        ops.port_out = port_out;
        ops.vector_read = vector_read;
        ops.vector_write = vector_write;
        ops.peek = NULL;
    }
    struct emu emu = { .state = &state, .ops = &ops, .physical_bits = 32 + seed.options % 21 };
    if (seed.options & 4) {
        emu.byte_count = (uint8_t)(size < 15 ? size : 15);
        memcpy(emu.bytes, data, emu.byte_count);
    }
    struct emu copy = emu;
    unsigned length = emu_instruction_length(&copy);
    copy = emu;
    unsigned decoded = emu_decoded_length(&copy);
    /* With paging the walk may set accessed bits in what is also the code. */
    bool steady = !moody && !(state.cr0 & CR0_PG);
    if (length > 15 || (decoded && steady && length != decoded))
        abort();
    before = state;
    enum emu_result result = emu_step(&emu);
    if (result != EMU_DONE && memcmp(&before, &state, sizeof(state)))
        abort();
    if (result == EMU_FAULT && emu.fault.type != EVENT_EXCEPTION)
        abort();
    if (result == EMU_DONE && (emu.length < 1 || emu.length > 15))
        abort();
    return 0;
}
