/* SPDX-License-Identifier: MIT */
/*
 * The guest that the emulator's unit tests share: 128 KiB of memory behind counting callbacks, four modes to start
 * from, and RUN(bytes), which steps over one instruction. Each test program includes it once; what one does not use is
 * no warning.
 */
#ifndef EMULATE_FIXTURE_H
#define EMULATE_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "vmm/emulate.h"
#include "vmm/emulate_alu.h"
#include "vmm/emulate_internal.h"

#define UNUSED __attribute__((unused))
#define MEMORY 0x20000u
#define CODE 0x8000u
#define DATA 0x9000u
#define GDT 0x400u
#define TSS 0x600u

static UNUSED uint8_t memory[MEMORY];
static UNUSED struct cpu_state state, before;
static UNUSED struct emu emu;
static UNUSED unsigned reads, writes, exchanges, contention;
static UNUSED size_t last_count;
static UNUSED uint32_t last_port, port_value, port_accesses;
static UNUSED uint8_t vector[64];
static UNUSED bool memory_gone;

static UNUSED bool mem_read(void *context, gpa_t gpa, void *bytes, size_t count)
{
    (void)context;
    assert_true(count >= 1 && count <= 64 && (gpa.v & 0xfff) + count <= 0x1000);
    reads++;
    last_count = count;
    if (memory_gone || !range_within(gpa.v, count, MEMORY))
        return false;
    memcpy(bytes, memory + gpa.v, count);
    return true;
}

static UNUSED bool mem_write(void *context, gpa_t gpa, const void *bytes, size_t count)
{
    (void)context;
    assert_true(count >= 1 && count <= 64 && (gpa.v & 0xfff) + count <= 0x1000);
    writes++;
    last_count = count;
    if (memory_gone || !range_within(gpa.v, count, MEMORY))
        return false;
    memcpy(memory + gpa.v, bytes, count);
    return true;
}

static UNUSED bool mem_exchange(void *context, gpa_t gpa, const void *expected, const void *desired, size_t count,
                                bool *equal)
{
    (void)context;
    exchanges++;
    if (contention) {
        contention--;
        memory[gpa.v]++; /* another vCPU was faster */
    }
    *equal = !memcmp(memory + gpa.v, expected, count);
    if (*equal)
        memcpy(memory + gpa.v, desired, count);
    return true;
}

static UNUSED bool port_in(void *context, uint16_t port, unsigned size, uint32_t *value)
{
    (void)context;
    (void)size;
    last_port = port;
    port_accesses++;
    *value = port_value++;
    return true;
}

static UNUSED bool port_out(void *context, uint16_t port, unsigned size, uint32_t value)
{
    (void)context;
    (void)size;
    last_port = port;
    port_accesses++;
    port_value = value;
    return true;
}

static UNUSED bool vector_get(void *context, unsigned index, uint8_t bytes[64])
{
    (void)context;
    (void)index;
    memcpy(bytes, vector, 64);
    return true;
}

static UNUSED bool vector_put(void *context, unsigned index, const uint8_t bytes[64])
{
    (void)context;
    (void)index;
    memcpy(vector, bytes, 64);
    return true;
}

static UNUSED const void *mem_peek(void *context, gpa_t gpa, size_t count)
{
    (void)context;
    return range_within(gpa.v, count, MEMORY) ? memory + gpa.v : NULL;
}

static UNUSED struct emu_ops ops;

static UNUSED void set_segment(enum seg seg, uint32_t base, uint32_t limit, uint32_t attributes)
{
    state.seg[seg] = (struct segment){ .base = base, .limit = limit, .attributes = attributes };
}

/* 64-bit code, unpaged for the walk's sake (CR0.PG clear): linear is physical. */
static UNUSED int mode_long(void **unused)
{
    (void)unused;
    memset(memory, 0, sizeof(memory));
    memset(&state, 0, sizeof(state));
    ops = (struct emu_ops){ .read = mem_read,
                            .write = mem_write,
                            .compare_exchange = mem_exchange,
                            .port_in = port_in,
                            .port_out = port_out,
                            .vector_read = vector_get,
                            .vector_write = vector_put };
    reads = writes = exchanges = contention = port_accesses = 0;
    memory_gone = false;
    port_value = 0x41;
    state.cr0 = CR0_PE;
    state.efer = EFER_LME | EFER_LMA;
    state.rflags = RFLAGS_FIXED;
    for (unsigned i = 0; i < 6; i++)
        set_segment((enum seg)i, 0, 0xffffffff, 0xc093);
    state.seg[SEG_CS].attributes = 0xa09b;
    state.seg[SEG_LDTR].attributes = SEG_UNUSABLE;
    set_segment(SEG_TR, TSS, 0x67, 0x8b);
    state.rip = CODE;
    state.gdtr = (struct table_register){ .base = GDT, .limit = 0x7f };
    return 0;
}

static UNUSED int mode_protected(void **unused)
{
    mode_long(unused);
    state.efer = 0;
    state.seg[SEG_CS].attributes = 0xc09b;
    return 0;
}

static UNUSED int mode_real(void **unused)
{
    mode_long(unused);
    state.efer = 0;
    state.cr0 = 0;
    for (unsigned i = 0; i < 6; i++)
        set_segment((enum seg)i, 0, 0xffff, 0x93);
    return 0;
}

/* Identity-mapped pages of 4 KiB in four levels; page 0xb000 is missing, 0xd000 is read-only. */
#define PT 0x4000
static UNUSED int mode_paged(void **unused)
{
    mode_long(unused);
    static const uint64_t tables[] = { 0x1000, 0x2000, 0x3000, PT };
    for (unsigned i = 0; i < 3; i++) {
        uint64_t entry = tables[i + 1] | 7;
        memcpy(memory + tables[i], &entry, 8);
    }
    for (uint64_t page = 0; page < MEMORY; page += 0x1000) {
        uint64_t entry = page | (page == 0xb000 ? 0 : page == 0xd000 ? 5 : 7);
        memcpy(memory + PT + page / 512, &entry, 8);
    }
    state.cr3 = 0x1000;
    state.cr4 = CR4_PAE;
    state.cr0 = CR0_PE | CR0_PG | CR0_WP;
    return 0;
}

static UNUSED uint64_t leaf(uint64_t page)
{
    uint64_t entry;
    memcpy(&entry, memory + PT + page / 512, 8);
    return entry;
}

/* Puts the bytes at CS:RIP and steps once. */
#define RUN(...) run((const uint8_t[]){ __VA_ARGS__ }, sizeof((const uint8_t[]){ __VA_ARGS__ }))
static UNUSED enum emu_result run(const uint8_t *bytes, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        memory[(state.seg[SEG_CS].base + state.rip + i) % MEMORY] = bytes[i];
    before = state;
    emu = (struct emu){ .state = &state, .ops = &ops, .physical_bits = 40 };
    return emu_step(&emu);
}

static UNUSED void store(uint64_t at, uint64_t value, unsigned bytes) { memcpy(memory + at, &value, bytes); }
static UNUSED uint64_t fetch(uint64_t at, unsigned bytes)
{
    uint64_t value = 0;
    memcpy(&value, memory + at, bytes);
    return value;
}

static UNUSED void assert_exception(enum emu_result result, unsigned exception, bool has_error, unsigned error)
{
    assert_int_equal(result, EMU_FAULT);
    assert_int_equal(emu.fault.type, EVENT_EXCEPTION);
    assert_int_equal(emu.fault.vector, exception);
    assert_int_equal(emu.fault.has_error, has_error);
    assert_int_equal(emu.fault.error, error);
    assert_memory_equal(&state, &before, sizeof(state));
}

#endif
