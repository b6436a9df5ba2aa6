/* SPDX-License-Identifier: MIT */
/*
 * NMIs at every moment: while an NMI is handled, at an IRET that faults, in the shadow of STI and MOV SS, beside
 * interrupts and exceptions. What the interrupted program and the handlers see of RFLAGS and DR6 is theirs: a hypervisor
 * that looks for the moment to deliver an NMI by single steps leaves no TF there and no debug exception.
 */
#include "guest.h"
#include "nmi.h"

#define NMI 0x4400u
#define RFLAGS_TF BIT(8)
#define ROUNDS 400
#define ABSENT 0x123456789000ull

static volatile uint64_t taken, with_tf, traps, soft, stop, sent;

static void look(const struct guest_frame *frame)
{
    with_tf += (frame->rflags & RFLAGS_TF) != 0;
}

static void on_nmi(struct guest_frame *frame)
{
    look(frame);
    taken++;
}

/* The first one leaves a second pending and cannot return. */
static void on_nmi_spoilt(struct guest_frame *frame)
{
    look(frame);
    if (taken++ == 0) {
        apic_send(0, NMI);
        frame->cs = 0xfff8;
    }
}

static void on_debug(struct guest_frame *frame)
{
    traps++;
    frame->rflags &= ~RFLAGS_TF;
}

static void on_soft(struct guest_frame *frame)
{
    look(frame);
    soft++;
}

static void send_self(void *argument)
{
    (void)argument;
    apic_send(0, NMI);
    guest_delay_us(200);
}

static void faulting_iret(void)
{
    taken = 0;
    guest_handlers[2] = on_nmi_spoilt;
    struct guest_fault fault = guest_try(send_self, NULL);
    guest_equal("an NMI handler's IRET to nowhere is #GP", 13, (uint64_t)fault.vector);
    guest_equal("with that selector", 0xfff8, fault.error);
    guest_equal("and no TF pushed", 0, fault.rflags & RFLAGS_TF);
    guest_delay_us(200);
    guest_equal("the NMI that waited for it comes", 2, taken);
}

/* ---- The storm ---- */

static void sender(void *argument)
{
    uint64_t seed = 7;
    (void)argument;
    apic_enable();
    while (!stop) {
        apic_send(0, NMI);
        sent++;
        guest_delay_us(5 + guest_random(&seed) % 40);
    }
}

#define CODE(name, code)                                                                                               \
    static void name(void *argument)                                                                                   \
    {                                                                                                                  \
        uint64_t a = (uint64_t)argument;                                                                               \
        __asm__ volatile(code "\n cli" : "+r"(a) : : "rax", "rcx", "rdx", "memory", "cc");                             \
        with_tf += (a & RFLAGS_TF) != 0;                                                                               \
    }
CODE(sti_pushf, "sti; pushfq; popq %0")
CODE(ss_pushf, "movl %%ss, %%eax; movl %%eax, %%ss; pushfq; popq %0")
CODE(sti_popf, "pushfq; sti; popfq; pushfq; popq %0")
CODE(sti_int, "sti; int $0x80; pushfq; popq %0")
CODE(sti_nop, "sti; nop; pushfq; popq %0")
CODE(sti_ud, "sti; ud2")
CODE(ss_pf, "movl %%ss, %%eax; movl %%eax, %%ss; movl (%0), %%eax")
CODE(sti_pf, "sti; movl (%0), %%eax")
CODE(msr_gp, "movl $0x20000000, %%ecx; sti; rdmsr")

static uint64_t faults_wrong;

static void expect(void (*code)(void *), int vector)
{
    struct guest_fault fault = guest_try(code, (void *)ABSENT);
    with_tf += (fault.rflags & RFLAGS_TF) != 0;
    faults_wrong += fault.vector != vector || (vector == 14 && (fault.cr2 != ABSENT || fault.error));
}

static void storm(void)
{
    uint64_t dr6, turns = 0, began;

    taken = with_tf = 0;
    guest_handlers[2] = on_nmi;
    guest_handlers[0x80] = on_soft;
    __asm__ volatile("movq %0, %%dr6" : : "r"(0x4001ull)); /* sticky: nobody but us may change it */
    if (!guest_check("a second CPU starts", guest_start_cpu(1, sender, NULL)))
        return;
    began = rdtsc();
    while ((turns < ROUNDS || taken < ROUNDS) && rdtsc() - began < 20 * guest_tsc_hz()) {
        sti_pushf(NULL);
        ss_pushf(NULL);
        sti_popf(NULL);
        sti_int(NULL);
        sti_nop(NULL);
        expect(sti_ud, 6);
        expect(ss_pf, 14);
        expect(sti_pf, 14);
        expect(msr_gp, 13);
        (void)cpuid(0, 0);
        turns++;
    }
    stop = 1;
    guest_delay_us(1000);
    __asm__ volatile("movq %%dr6, %0" : "=r"(dr6));
    guest_note("%lu NMIs sent, %lu taken, %lu turns", sent, taken, turns);
    guest_check("hundreds of NMIs came, none from nowhere", taken >= ROUNDS && taken <= sent);
    guest_equal("the software interrupts came", turns, soft);
    guest_equal("the faults were the right ones", 0, faults_wrong);
    guest_equal("DR6 is as it was", 0x4001, dr6 & 0x400f);
}

void nmi_tests(void)
{
    with_tf = 0;
    guest_handlers[1] = on_debug;
    faulting_iret();
    storm();
    guest_equal("no TF in anybody's RFLAGS", 0, with_tf);
    guest_equal("no debug exception", 0, traps);
    guest_handlers[1] = guest_handlers[2] = guest_handlers[0x80] = NULL;
}
