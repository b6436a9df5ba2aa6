/* SPDX-License-Identifier: MIT */
/*
 * The instructions that Bochs executes, counted for the storage part of `make bench`: those of the hypervisor and
 * those of its guest apart. For QEMU a plugin does that (count_plugin.c); Bochs has no such interface, but its debugger
 * traces: between `trace on` and `trace off` it prints each instruction before it is executed. This is a library that
 * is loaded before Bochs' own (LD_PRELOAD) and takes these words where Bochs gives them to the C library: millions of
 * lines are neither written nor read.
 *
 * A line comes in pieces, each by a call of fputs() with the standard output; the first three are
 *
 *     "(0).[3474847889] "    CPU, ticks
 *     "[0x00003dc72bc8] 0008:ffffffff80072bc8 (unk. ctxt): "    address in the machine's memory, selector, address
 *     "vmresume"             the instruction
 *
 * Whose an instruction is: the CPU is in its guest from a VMLAUNCH or VMRESUME on until it comes to the hypervisor's
 * exit entry (SDM vol. 3C, 28.5), or to what lies behind the VMRESUME, where it was refused (27.1). Both are known by
 * their place in the machine's memory, which nobody but the hypervisor has, so a guest that has code at the same
 * address is no match.
 *
 * Each turn of a string instruction with a REP prefix is a line; all turns count as one instruction, as in QEMU and to
 * a CPU's own counters. While the CPU is halted there are no lines, and nothing counts. An instruction that faults or
 * exits counts when it begins, and once more when it is begun anew.
 *
 * The environment: TASUKI_MARKS names the file that gets a line for each `trace on` and `trace off`: a number from 0
 * on, nanoseconds, and the hypervisor's and the guest's instructions, as the plugin writes it. TASUKI_EXIT is the exit
 * entry's address, in hexadecimal. One CPU alone is traced.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static enum { NOTHING, TIME, PLACE } seen; /* the piece before */
static uint64_t hypervisor, guest;
static uint64_t place, address;      /* of the instruction: in the machine's memory, and as the CPU has it */
static uint64_t exit_place, refused; /* where the hypervisor goes on; 0: not known yet */
static uint64_t repeated;            /* place of the REP instruction before; 0: it was none */
static bool in_guest;

static void write_mark(void)
{
    static int marks = -1;
    static unsigned mark;
    struct timespec now;

    if (marks < 0 && (marks = open(getenv("TASUKI_MARKS"), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644)) < 0)
        abort();
    clock_gettime(CLOCK_MONOTONIC, &now);
    dprintf(marks, "%u %" PRIu64 " %" PRIu64 " %" PRIu64 "\n", mark++,
            (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec, hypervisor, guest);
    in_guest = true; /* the program that marks is in the guest */
}

static bool begins(const char *text, const char *with)
{
    return !strncmp(text, with, strlen(with));
}

/* Whether the hypervisor goes on here. The exit entry is known by its address the first time, then by its place. */
static bool goes_on(void)
{
    static uint64_t exit_address;

    if (exit_place)
        return place == exit_place || (place == refused && refused);
    if (!exit_address)
        exit_address = strtoull(getenv("TASUKI_EXIT"), NULL, 16);
    if (address != exit_address)
        return false;
    exit_place = place;
    return true;
}

static void instruction(const char *text)
{
    uint64_t before = repeated;

    if (in_guest && goes_on())
        in_guest = false;
    repeated = begins(text, "rep") ? place : 0;
    if (repeated && before == place)
        return;
    if (in_guest) {
        guest++;
        return;
    }
    hypervisor++;
    if (begins(text, "vmresume") || begins(text, "vmlaunch")) {
        in_guest = true;
        refused = place + 3;
    }
}

/* "[0xPLACE] SELECTOR:ADDRESS (...", or with other words in the brackets where no memory is mapped. */
static void take_place(const char *text)
{
    const char *colon = strchr(text, ':');

    place = *text == '[' ? strtoull(text + 1, NULL, 16) : 0;
    address = colon ? strtoull(colon + 1, NULL, 16) : 0;
}

/* In the place of the C library's. What is not of an instruction's line goes on to that. */
int fputs(const char *restrict text, FILE *restrict to)
{
    static int (*next)(const char *, FILE *);

    if (begins(text, "(0).[")) {
        seen = TIME;
        return 0;
    }
    if (seen == TIME) {
        take_place(text);
        seen = PLACE;
        return 0;
    }
    if (seen == PLACE) {
        instruction(text);
        seen = NOTHING;
        return 0;
    }
    if (begins(text, "Tracing "))
        write_mark();
    if (!next)
        *(void **)&next = dlsym(RTLD_NEXT, "fputs");
    return next(text, to);
}
