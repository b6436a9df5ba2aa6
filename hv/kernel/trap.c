/* SPDX-License-Identifier: MIT */
/*
 * Descriptor tables and the one C function behind all interrupt stubs.
 *
 * An exception in the hypervisor is the hypervisor's own fault and ends in panic, with one exception: #GP at the marked
 * instructions of rdmsr_safe and wrmsr_safe. NMI, double fault and machine check run on stacks of their own (IST), for
 * they can arrive while the stack is the problem. An NMI during a panic is how the panicking CPU stops the others.
 *
 * Interrupt handlers acknowledge and wake; the only work that is done here is what must preempt everything.
 */
#include "kernel/trap.h"

#include <string.h>

#include "kernel/apic.h"
#include "kernel/cpu.h"
#include "kernel/heap.h"
#include "kernel/layout.h"
#include "kernel/log.h"
#include "kernel/panic.h"
#include "kernel/thread.h"
#include "kernel/vmap.h"

#define IST_STACK_BYTES 8192
#define IST_NMI 1
#define IST_DF 2
#define IST_MC 3

struct idt_gate {
    uint16_t offset_low, selector;
    uint8_t ist, type;
    uint16_t offset_middle;
    uint32_t offset_high, reserved;
};
_Static_assert(sizeof(struct idt_gate) == 16, "SDM vol. 3A, figure 6-8");

struct PACKED tss {
    uint32_t reserved0;
    uint64_t rsp[3];
    uint64_t reserved1;
    uint64_t ist[7];
    uint64_t reserved2;
    uint16_t reserved3, io_map_base;
};
_Static_assert(sizeof(struct tss) == 104, "SDM vol. 3A, figure 8-11");

struct cpu_tables {
    uint64_t gdt[5]; /* null, code, data, TSS (two entries) */
    struct tss tss ALIGNED(16);
};

struct PACKED descriptor_pointer {
    uint16_t limit;
    uint64_t base;
};

extern char trap_stubs[], rdmsr_safe_access[], rdmsr_safe_fixup[], wrmsr_safe_access[], wrmsr_safe_fixup[];

static struct idt_gate idt[256] ALIGNED(16);
static struct {
    void (*handler)(void *arg);
    void *arg;
} handlers[256];

static const char *const exception_names[32] = {
    "#DE divide error", "#DB debug", "NMI", "#BP breakpoint", "#OF overflow", "#BR bound", "#UD invalid opcode",
    "#NM no math", "#DF double fault", NULL, "#TS invalid TSS", "#NP not present", "#SS stack fault",
    "#GP general protection", "#PF page fault", NULL, "#MF math fault", "#AC alignment", "#MC machine check",
    "#XM SIMD", "#VE virtualization", "#CP control protection",
};

void trap_init(void)
{
    for (unsigned i = 0; i < 256; i++) {
        uint64_t stub = (uint64_t)trap_stubs + i * 16;
        idt[i] = (struct idt_gate){
            .offset_low = (uint16_t)stub, .offset_middle = (uint16_t)(stub >> 16), .offset_high = (uint32_t)(stub >> 32),
            .selector = SEL_KERNEL_CS, .type = 0x8e,
            .ist = i == 2 ? IST_NMI : i == 8 ? IST_DF : i == 18 ? IST_MC : 0,
        };
    }
}

bool trap_cpu_init(struct cpu *cpu)
{
    struct cpu_tables *tables = kzalloc(sizeof *tables);
    void *stacks[3];

    if (!tables)
        return false;
    for (unsigned i = 0; i < ARRAY_COUNT(stacks); i++)
        if (!(stacks[i] = vmap_stack(IST_STACK_BYTES)))
            return false;
    for (unsigned i = 0; i < ARRAY_COUNT(stacks); i++)
        tables->tss.ist[i] = (uint64_t)stacks[i];
    tables->tss.io_map_base = sizeof tables->tss;

    uint64_t tss = (uint64_t)&tables->tss;
    tables->gdt[1] = 0x00af9b000000ffff;
    tables->gdt[2] = 0x00cf93000000ffff;
    tables->gdt[3] = (sizeof(struct tss) - 1) | (tss & 0xffffff) << 16 | 0x89ull << 40 | (tss >> 24 & 0xff) << 56;
    tables->gdt[4] = tss >> 32;

    cpu->gdt_base = (uint64_t)tables->gdt;
    cpu->gdt_limit = sizeof tables->gdt - 1;
    cpu->tss_base = tss;
    cpu->idt_base = (uint64_t)idt;
    cpu->idt_limit = sizeof idt - 1;

    struct descriptor_pointer gdtr = { cpu->gdt_limit, cpu->gdt_base }, idtr = { cpu->idt_limit, cpu->idt_base };
    __asm__ volatile("lgdt %0\n\t"
                     "pushq %1\n\t"
                     "leaq 1f(%%rip), %%rax\n\t"
                     "pushq %%rax\n\t"
                     "lretq\n"
                     "1:\n\t"
                     "movl %2, %%eax\n\t"
                     "movl %%eax, %%ds\n\t"
                     "movl %%eax, %%es\n\t"
                     "movl %%eax, %%ss\n\t"
                     "xorl %%eax, %%eax\n\t"
                     "movl %%eax, %%fs\n\t"
                     "movl %%eax, %%gs\n\t"
                     "lldt %%ax\n\t"
                     "ltr %w3\n\t"
                     "lidt %4"
                     : : "m"(gdtr), "i"(SEL_KERNEL_CS), "i"(SEL_KERNEL_DS), "r"(SEL_TSS), "m"(idtr) : "rax", "memory");
    wrmsr(MSR_FS_BASE, 0);
    wrmsr(MSR_GS_BASE, (uint64_t)cpu);
    return true;
}

void trap_set_handler(uint8_t vector, void (*handler)(void *arg), void *arg)
{
    handlers[vector].arg = arg;
    __atomic_store_n(&handlers[vector].handler, handler, __ATOMIC_RELEASE);
}

uint8_t trap_alloc_vector(void)
{
    static uint8_t next = VECTOR_DEVICE_FIRST;
    return next > VECTOR_DEVICE_LAST ? 0 : next++;
}

void trap_dispatch(struct trap_frame *frame);
void trap_dispatch(struct trap_frame *frame)
{
    if (frame->vector >= 32) {
        struct cpu *cpu = this_cpu();
        cpu->irq_count++;
        if (handlers[frame->vector].handler)
            handlers[frame->vector].handler(handlers[frame->vector].arg);
        if (frame->vector != VECTOR_SPURIOUS)
            apic_eoi();
        return;
    }
    switch (frame->vector) {
    case 2:
        panic_nmi(frame);
        this_cpu()->nmi_count++;
        return;
    case 13:
        if (frame->rip == (uint64_t)rdmsr_safe_access) {
            frame->rip = (uint64_t)rdmsr_safe_fixup;
            return;
        }
        if (frame->rip == (uint64_t)wrmsr_safe_access) {
            frame->rip = (uint64_t)wrmsr_safe_fixup;
            return;
        }
        break;
    }
    const char *name = exception_names[frame->vector] ? exception_names[frame->vector] : "reserved exception";
    uint64_t cr2 = read_cr2();
    if (frame->vector == 8 && vmap_is_guard(cr2))
        panic_frame(frame, "stack overflow of thread %s (#DF at 0x%lx)", thread_name(thread_current()), cr2);
    if (frame->vector == 14)
        panic_frame(frame, "%s at 0x%lx, error 0x%lx", name, cr2, frame->error);
    panic_frame(frame, "%s, error 0x%lx", name, frame->error);
}
