/* SPDX-License-Identifier: MIT */
/*
 * The machine status word: LMSW and SMSW. Then through the modes and back, several times: 64-bit, compatibility, 32-bit
 * protected, 16-bit protected, real mode (with big segments too) and virtual 8086. In each: CPUID, an I/O port, an MSR,
 * device memory, an interrupt. modes.S does it.
 */
#include "guest.h"

#define LOW_RESULTS 0xa000ull
#define IOAPIC 0xfec00000ull

extern void modes_run(void);
extern uint64_t guest_gdt[];
extern uint8_t modes_low[], modes_low_end[];
extern uint32_t modes_compat_leaf, modes_pm32_leaf, modes_pm32_device, modes_v86_flags, modes_v86_code, modes_v86_error,
    modes_tss[26];

/* What the 16-bit code leaves at LOW_RESULTS (modes.S). */
struct low {
    uint32_t pm16_leaf, real_leaf, interrupts, divide_errors; /* 00 */
    uint32_t apic_base, segment, above, device;               /* 10 */
    uint32_t cmos, v86_leaf, v86_memory, written;             /* 20 */
    uint16_t string[8];                                       /* 30 */
};

/* ---- The machine status word, beside bits of CR0 that a hypervisor keeps to itself ---- */

#define CR0_TS BIT(3)
#define CR0_CD BIT(30)
static uint16_t status_word;

static void smsw_absent(void *argument)
{
    __asm__ volatile("smsww (%0)" : : "r"(argument) : "memory");
}

static void status(void)
{
    uint64_t wide, narrow = 0x1234567800000000, after, cr0 = read_cr0();
    write_cr0(cr0 | CR0_CD);
    __asm__ volatile("smsww %1; movq %%cr0, %0" : "=r"(after), "=m"(status_word));
    guest_equal("SMSW to memory", cr0 & 0xffff, status_word);
    guest_equal("CR0.CD is seen behind it", CR0_CD, after & CR0_CD);
    __asm__ volatile("smswq %0" : "=r"(wide));
    guest_equal("SMSW to a 64-bit register", cr0 | CR0_CD, wide);
    __asm__ volatile("smsww %w0" : "+r"(narrow));
    guest_equal("SMSW to a 16-bit register", 0x1234567800000000 | (cr0 & 0xffff), narrow);
    status_word = (uint16_t)(cr0 | CR0_TS);
    __asm__ volatile("lmsw %1; movq %%cr0, %0" : "=r"(after) : "m"(status_word));
    guest_equal("LMSW from memory, then CR0", cr0 | CR0_CD | CR0_TS, after);
    __asm__ volatile("clts; movl %1, %%eax; lmsw %%ax; movq %%cr0, %0" : "=r"(after) : "r"((uint32_t)cr0) : "rax");
    guest_equal("LMSW from a register, then CR0", cr0 | CR0_CD, after);
    struct guest_fault fault = guest_try(smsw_absent, (void *)BIT(40));
    guest_equal("SMSW to a page that is not there is #PF", 14, (uint64_t)fault.vector);
    guest_equal("with its address", BIT(40), fault.cr2);
    guest_equal("for a write", 2, fault.error);
    guest_equal("and the program's own RFLAGS.TF", 0, fault.rflags & BIT(8));
    write_cr0(cr0);
    guest_equal("CR0.CD is gone", cr0, read_cr0());
}

void guest_main(void)
{
    status();
    volatile struct low *low = (volatile struct low *)LOW_RESULTS;
    uint32_t leaf = cpuid(0, 0).eax;
    guest_gdt[11] =
        0x0000890000000000 | ((uint64_t)modes_tss & 0xffffff) << 16 | ((uint64_t)modes_tss >> 24) << 56 | 103;
    for (unsigned turn = 0; turn < 3; turn++) {
        for (unsigned i = 0; i < sizeof(*low) / 4; i++)
            ((volatile uint32_t *)low)[i] = 0;
        memcpy((void *)0x9000, modes_low, (size_t)(modes_low_end - modes_low));
        outb(0x70, 0x40);
        outb(0x71, (uint8_t)(0x90 + turn));
        mmio_write32(IOAPIC, 0x11 + turn);
        modes_run();
        guest_gdt[11] &= ~(2ull << 40);
        guest_gdt[9] &= ~(2ull << 40);
        __asm__ volatile("ltr %w0" : : "r"(0x48));
        guest_note("turn %u", turn);
        guest_equal("compatibility mode: CPUID", leaf, modes_compat_leaf);
        guest_equal("32-bit protected mode: CPUID", leaf, modes_pm32_leaf);
        guest_equal("32-bit protected mode: device memory", 0x11 + turn, modes_pm32_device);
        guest_equal("16-bit protected mode: CPUID", leaf, low->pm16_leaf);
        guest_equal("real mode: CPUID", leaf, low->real_leaf);
        guest_equal("real mode: INT n through the vector table", 1, low->interrupts);
        guest_equal("real mode: divide error", 1, low->divide_errors);
        guest_equal("real mode: RDMSR", (uint32_t)rdmsr(0x1b), low->apic_base);
        guest_equal("real mode: segment times 16", 0x1234, low->segment);
        guest_equal("real mode: above 1 MiB by ffff:0010", 0x1badb002, low->above);
        guest_equal("real mode: device memory by a big segment", 0x11 + turn, low->device);
        guest_equal("real mode: write to device memory", 0x22, mmio_read32(IOAPIC));
        guest_equal("real mode: port", 0x90 + turn, low->cmos);
        guest_equal("real mode: REP STOSW", 0x5aa5,
                    low->string[7] == 0x5aa5 && low->string[0] == 0x5aa5 ? 0x5aa5 : low->string[7]);
        guest_equal("virtual 8086: CPUID", leaf, low->v86_leaf);
        guest_equal("virtual 8086: segment times 16", 0x4321, low->v86_memory);
        guest_equal("virtual 8086: INT n with IOPL 0 is #GP, RFLAGS.VM set", 1, modes_v86_flags >> 17 & 1);
        guest_equal("virtual 8086: the #GP's code segment", 0x900, modes_v86_code);
        guest_equal("virtual 8086: the #GP's error code", 0, modes_v86_error);
        guest_equal("64-bit again: CPUID", leaf, cpuid(0, 0).eax);
    }
}
