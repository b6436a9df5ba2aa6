/* SPDX-License-Identifier: MIT */
/*
 * What exits cost, for `make bench`: the loops of tests/peer/kvm_bench.c, byte for byte, in the same mode (64-bit, an
 * identity map of 2 MiB pages). A figure is what one more turn of a loop costs: RDTSC around N and around 2 N turns, the
 * least of a few each, the difference divided by N. The emulators' time stamp counters count instructions. One line for each figure:
 * "note NAME VALUE".
 *
 * Memory is measured by passes that write one byte to every page. With keys=1 on the command line the program that runs
 * this guest says by a key on COM1 what comes next, and switches the dirty log in between: 'e' the exits, 't' the first and
 * the second pass, 'd' one more pass, 's' a pass over one page in 512, 'q' the end. forever=NAME runs one loop without end,
 * for a profiler.
 */
#include "guest.h"

#define LOOP_TURNS 10000ull
#define TOUCH_AT (16ull << 20)
#define COM1 0x3f8

/* Runs the code at `body` (a loop of ESI turns, then RET) with RDI, RBP and RBX set; the ticks that took. */
static uint64_t run_loop(const void *body, uint64_t turns, uint64_t rdi, uint64_t rbp, uint64_t rbx)
{
    uint64_t start = rdtsc();

    __asm__ volatile("pushq %%rbp; movq %[rbp], %%rbp; call *%[body]; popq %%rbp"
                     : "+S"(turns), "+D"(rdi), "+b"(rbx)
                     : [body] "r"(body), [rbp] "r"(rbp)
                     : "rax", "rcx", "rdx", "r11", "memory", "cc");
    return rdtsc() - start;
}

/* A loop as code: its instructions, DEC ESI, JNZ back, RET. */
#define LOOP(name, code)                                                                                              \
    extern const uint8_t name[];                                                                                       \
    __asm__(".pushsection .text; .balign 64; " #name ": " code "; decl %esi; jnz " #name "; ret; .popsection")

LOOP(loop_empty, "nop");
LOOP(loop_cpuid, "xorl %eax, %eax; xorl %ecx, %ecx; cpuid");
LOOP(loop_vmcall, "movl $1, %eax; vmcall");
LOOP(loop_vmmcall, "movl $1, %eax; vmmcall");
LOOP(loop_rdmsr, "movl $0xfe, %ecx; rdmsr");
LOOP(loop_out_uart, "movw $0x3ff, %dx; outb %al, %dx");
LOOP(loop_out_pic, "outb %al, $0x21");
LOOP(loop_out_none, "outb %al, $0x80");
LOOP(loop_doorbell, "movw %ax, (%rbx)");
LOOP(loop_touch, "movb $5, (%rdi); addq %rbp, %rdi");

/* The least of three: what the host does besides (a console that is read, a timer) is in some of them, and in no figure. */
static uint64_t least(const void *body, uint64_t turns, uint64_t rbx)
{
    uint64_t least = UINT64_MAX;

    for (unsigned i = 0; i < 3; i++) {
        uint64_t ticks = run_loop(body, turns, 0, 0, rbx);
        least = ticks < least ? ticks : least;
    }
    return least;
}

/* In tenths. */
static uint64_t measure(const void *body, uint64_t rbx)
{
    run_loop(body, 100, 0, 0, rbx);
    return (least(body, 2 * LOOP_TURNS, rbx) - least(body, LOOP_TURNS, rbx)) * 10 / LOOP_TURNS;
}

/* ---- The doorbell of the first virtio device ---- */

static uint32_t pci_read(unsigned device, unsigned offset)
{
    outl(0xcf8, 0x80000000u | device << 11 | (offset & ~3u));
    return inl(0xcfc);
}

static uint8_t pci_byte(unsigned device, unsigned offset)
{
    return (uint8_t)(pci_read(device, offset) >> (offset & 3) * 8);
}

/* The address of queue 0's doorbell by the notify capability (virtio 1.2, 4.1.4.4); 0: there is no such device. */
static uint64_t find_doorbell(void)
{
    for (unsigned device = 0; device < 32; device++) {
        if ((pci_read(device, 0) & 0xffff) != 0x1af4)
            continue;
        outl(0xcf8, 0x80000004u | device << 11); /* memory accesses on */
        outl(0xcfc, pci_read(device, 4) | 2);
        for (unsigned at = pci_byte(device, 0x34); at; at = pci_byte(device, at + 1)) {
            if (pci_byte(device, at) != 9 || pci_byte(device, at + 3) != 2)
                continue;
            unsigned bar = 0x10 + 4 * pci_byte(device, at + 4);
            uint64_t base = pci_read(device, bar) & ~15u;
            if ((pci_read(device, bar) & 6) == 4)
                base |= (uint64_t)pci_read(device, bar + 4) << 32;
            if (base && base < 1ull << 32)
                return base + pci_read(device, at + 8);
        }
    }
    return 0;
}

/* ---- Memory ---- */

static void measure_touch(const char *name, uint64_t stride)
{
    uint64_t pages = (guest_ram_end() - TOUCH_AT) / stride;
    uint64_t tenths = run_loop(loop_touch, pages, TOUCH_AT, stride, 0) * 10 / pages;

    guest_note("%s %lu.%lu", name, tenths / 10, tenths % 10);
    guest_note("%s_pages %lu", name, pages);
}

static uint8_t hypercall_page[4096] __attribute__((aligned(4096)));

static void measure_exits(const char *forever)
{
    uint64_t doorbell = find_doorbell();
    const struct { const char *name; const void *body; } loops[] = {
        { "loop", loop_empty },
        { "cpuid_exit", loop_cpuid },
        { "hypercall", guest_intel() ? loop_vmcall : loop_vmmcall },
        { "rdmsr", loop_rdmsr },
        { "out_uart", loop_out_uart },
        { "out_pic", loop_out_pic },
        { "out_none", loop_out_none },
        { "doorbell", loop_doorbell },
    };

    uint64_t tenths[COUNT(loops)];

    guest_check("a virtio device with a doorbell", doorbell);
    for (unsigned i = 0; i < COUNT(loops); i++) {
        while (forever && !strncmp(forever, loops[i].name, strlen(loops[i].name)))
            run_loop(loops[i].body, 1u << 30, 0, 0, doorbell);
        tenths[i] = forever ? 0 : measure(loops[i].body, doorbell);
    }
    for (unsigned i = 0; !forever && i < COUNT(loops); i++)
        guest_note("%s %lu.%lu", loops[i].name, tenths[i] / 10, tenths[i] % 10);
}

static char wait_for_key(void)
{
    while (!(inb(COM1 + 5) & 1))
        cpu_pause();
    return (char)inb(COM1);
}

static void serve_keys(void)
{
    for (;;) {
        guest_note("ready");
        switch (wait_for_key()) {
        case 'e': measure_exits(NULL); break;
        case 't':
            measure_touch("first_touch", 4096);
            measure_touch("mapped_touch", 4096);
            break;
        case 'd': measure_touch("touch_dense", 4096); break;
        case 's': measure_touch("touch_sparse", 512 * 4096); break;
        case 'q': return;
        default: break;
        }
    }
}

void guest_main(void)
{
    outb(0x21, 0xff);
    outb(0xa1, 0xff);
    wrmsr(0x40000000, 1); /* who this guest is, without which there are no hypercalls (TLFS 3.13) */
    wrmsr(0x40000001, (uint64_t)hypercall_page | 1);
    if (guest_argument_number("keys", 0)) {
        serve_keys();
        return;
    }
    measure_exits(guest_argument("forever"));
    measure_touch("first_touch", 4096);
    measure_touch("mapped_touch", 4096);
}
