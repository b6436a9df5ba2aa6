/* SPDX-License-Identifier: MIT */
/*
 * A guest that writes exactly the pages that it is told, for the dirty log. Its own program (data, stacks and page tables
 * included) lies in the pages before `free`, which it names at the start; all others are written and read on command only.
 *     ready FREE END            page numbers of 4 KiB, hex: first free one, one behind the last
 *     w FIRST COUNT STRIDE      writes COUNT pages, STRIDE pages apart; all CPUs take turns with the pages
 *     r FIRST COUNT STRIDE      reads them
 *     q                         ends
 * Numbers are hex. The answer to the n-th line is `obeyed N`.
 */
#include "guest.h"

#define COM1 0x3f8

static volatile uint64_t job, finished, first, count, stride;
static volatile char kind;
static unsigned cpus;

static void do_share(unsigned me)
{
    for (uint64_t i = me; i < count; i += cpus) {
        volatile uint64_t *page = (volatile uint64_t *)((first + i * stride) * 4096);
        if (kind == 'w')
            page[i % 512]++;
        else
            (void)page[i % 512];
    }
    __atomic_add_fetch(&finished, 1, __ATOMIC_SEQ_CST);
}

static void helper(void *argument)
{
    uint64_t seen = 0;
    (void)argument;
    for (;;) {
        while (job == seen)
            cpu_pause();
        seen = job;
        do_share(guest_cpu());
    }
}

static char read_char(void)
{
    while (!(inb(COM1 + 5) & 1))
        cpu_pause();
    return (char)inb(COM1);
}

static uint64_t read_number(char *ended_by)
{
    uint64_t value = 0;
    for (;;) {
        char c = read_char();
        if (c >= '0' && c <= '9')
            value = value * 16 + (uint64_t)(c - '0');
        else if (c >= 'a' && c <= 'f')
            value = value * 16 + (uint64_t)(c - 'a' + 10);
        else {
            *ended_by = c;
            return value;
        }
    }
}

void guest_main(void)
{
    cpus = guest_cpu_count();
    for (unsigned i = 1; i < cpus; i++)
        guest_check("a CPU starts", guest_start_cpu(i, helper, NULL));
    uint64_t begin = guest_program_end() / 4096, end = guest_ram_end() / 4096;
    guest_printf("ready %lx %lx\r\n", begin, end);
    for (;;) {
        char c = read_char(), space;
        if (c == 'q')
            break;
        if (c != 'w' && c != 'r')
            continue;
        (void)read_char();
        kind = c;
        first = read_number(&space);
        count = read_number(&space);
        stride = read_number(&space);
        if (first < begin || (count && first + (count - 1) * stride >= end)) {
            guest_printf("fail pages %lx %lx %lx: expected RAM, got something else\r\n", first, count, stride);
            continue;
        }
        finished = 0;
        __atomic_add_fetch(&job, 1, __ATOMIC_SEQ_CST);
        do_share(0);
        while (finished < cpus)
            cpu_pause();
        guest_printf("obeyed %lu\r\n", job);
    }
    guest_check("obeyed", true);
}
