/* SPDX-License-Identifier: MIT */
/*
 * The CPUs of the machine. Each has one struct cpu, reached through GS: this_cpu() is one instruction. Every CPU has its
 * own GDT, TSS, IST stacks (NMI, #DF, #MC), run queue and timers.
 */
#ifndef KERNEL_CPU_H
#define KERNEL_CPU_H

#include "kernel/speculation.h"
#include "kernel/spinlock.h"
#include "kernel/types.h"
#include "kernel/x86.h"

#define CPU_MAX 256

/* Host segment selectors: the same on every CPU. */
#define SEL_KERNEL_CS 0x08
#define SEL_KERNEL_DS 0x10
#define SEL_TSS 0x18

enum host_vendor { CPU_INTEL, CPU_AMD, CPU_OTHER };

struct thread;
struct timer;
struct runqueue;

struct cpu {
    struct cpu *self;         /* GS:0 */
    struct thread *current;   /* GS:8 */
    uint32_t id;              /* 0 is the boot CPU; dense */
    uint32_t apic_id;
    uint32_t package, core, core_thread; /* kernel/topology.h: numbers, with gaps; set once all CPUs are up */
    volatile bool online;
    uint32_t start_state;     /* smp.c, while it comes up */
    bool virtualization_on;   /* the backend's cpu_enable succeeded here */
    uint64_t gdt_base, tss_base, idt_base;
    uint16_t gdt_limit, idt_limit;
    void *vmm;                /* the backend's per-CPU state */
    struct runqueue *runqueue;
    struct timer *timers;     /* armed timers, ascending; see timer.h */
    struct spinlock timers_lock;
    uint64_t stack_top;       /* boot/idle stack */
    uint64_t nmi_count, irq_count;
    union {
        struct {
            volatile bool reschedule;  /* somebody became runnable: leave the guest, yield */
            volatile bool core_wanted; /* the core must be asked for before a guest is entered: vmm/core.h */
        };
        volatile uint16_t wanted;      /* both, for the one test before an entry */
    };
    uint32_t preempt_off;     /* interrupt nesting */
    struct core *shared_core; /* vmm/core.c: NULL where the core has no other thread */
    struct cpu *core_next;    /* in its list of CPUs */
    struct thread *core_holder; /* the guest's thread for which this CPU has the core's turn, and its VM's serial number */
    uint64_t core_vm;
    uint64_t core_shares;     /* how often another thread of the core was another VM's when a guest got this one */
};

static inline struct cpu *this_cpu(void)
{
    struct cpu *cpu;
    __asm__("movq %%gs:0, %0" : "=r"(cpu));
    return cpu;
}

/* What the boot CPU has; the other CPUs must have the same (checked when they come up). */
struct cpu_features {
    enum host_vendor vendor;
    char vendor_name[13];
    char brand[49];
    uint32_t family, model, stepping;
    uint32_t physical_bits, linear_bits;
    bool nx, smep, smap, umip, pcid, huge_pages, x2apic, tsc_deadline, invariant_tsc, xsave, xsaves, rdrand, rdseed,
        sse42, rdtscp, fsgsbase, hypervisor, monitor, svm, vmx;
    uint64_t xcr0_mask;       /* what XCR0 may hold */
    uint32_t xsave_bytes;     /* area for all of xcr0_mask, standard format */
    uint32_t xsave_offset[64]; /* of each component in it */
    uint64_t arch_capabilities; /* Intel's MSR; 0: there is none */
    struct speculation speculation; /* what leaks, and what is done about it */
    bool tcg;                 /* hypervisor: QEMU without any, which executes instructions itself */
    bool fpu_pointers_leak;   /* AMD without XSaveErPtr: APM vol. 3, CPUID 8000_0008H EBX bit 2 */
};
extern struct cpu_features cpu_features;

extern struct cpu *cpus[CPU_MAX];
extern unsigned cpu_count; /* CPUs that came up; set once all are */

/* Fills cpu_features from CPUID. Boot CPU, first thing. */
void cpu_detect(void);

/* SPEC_CTRL as the hypervisor runs with it. */
static inline uint64_t cpu_host_spec_ctrl(void)
{
    const struct speculation *s = &cpu_features.speculation;

    return (s->always_ibrs ? BIT(0) : 0) | (s->no_history ? BIT(10) : 0);
}

/* MXCSR_MASK of this CPU (SDM vol. 1, 11.6.6). Clobbers nothing: reads an FXSAVE image. */
uint32_t cpu_mxcsr_mask(void);

/* Runs fn(arg) on every online CPU, interrupts off there, and waits. Thread context, interrupts on. */
void cpu_call_all(void (*fn)(void *arg), void *arg);

#endif
