/* SPDX-License-Identifier: MIT */
/*
 * Private to the SVM backend: its objects, and who does what.
 *
 *   svm.c        the table, probing, switching on, objects, dump
 *   svm_run.c    what happens between two VMRUNs: preparation of an entry, decoding of an exit
 *   svm_state.c  vcpu->state <-> VMCB
 *   svm_light.c  exits that are answered before the world is switched back
 *   svm_step.c   running one instruction by TF
 *   svm_decode.c what an instruction is, from its bytes: MOV CRn without decode assists, use of RFLAGS
 *   svm_entry.S  the world switch
 *
 * A VMCB is plain memory, so groups can be loaded from any CPU while the vCPU is stopped. The exception are DR0-3 and
 * TSC_AUX, which stay in the CPU (vmm/guest_regs.h): they can be loaded on the CPU that ran the vCPU last, and from
 * anywhere after park().
 */
#ifndef VMM_SVM_SVM_H
#define VMM_SVM_SVM_H

#include "vmm/guest_regs.h"
#include "vmm/length_cache.h"
#include "vmm/offsets.h"
#include "vmm/svm/svm_decode.h"
#include "vmm/svm/vmcb.h"
#include "vmm/vmm.h"

struct svm_cpu { /* struct cpu.vmm */
    struct vcpu *current;      /* whose DR0-3 and TSC_AUX the CPU holds */
    uint64_t host_vmcb;        /* host physical: what VMLOAD brings back after each exit */
    hpa_t save_area, host_page;
    uint32_t next_asid;        /* 1 .. asid_count - 1 */
    uint64_t asid_generation;  /* counts how often ASIDs ran out; never 0 */
    uint64_t tsc_multiplier;   /* that the CPU applies to the TSC of its guest */
};

struct svm_vm { /* vm_core.backend */
    hpa_t msr_bitmap;          /* two pages */
    hpa_t msr_bitmap_spec;     /* the same with SPEC_CTRL open, for vCPUs that write it (guest_regs.h); 0: none needed */
};

struct svm_vcpu { /* vcpu.backend */
    struct vmcb *vmcb;
    uint64_t vmcb_hpa;
    struct vm_exit *exit;      /* of the run that is going on */
    uint32_t wants;            /* vcpu_wants() that the VMCB already knows */
    /* What makes an exit unusual, side by side, so that one test of one word finds whether there is any. */
    union {
        struct {
            bool odd;          /* one of the rare things below is to be looked at */
            bool prepared;     /* the entry was not the usual one: what holds for one entry only is to be taken back */
            /* NMIs are masked in software: from the injection of one until the IRET that ends its handler is done. */
            bool nmi_blocked;
            bool unused;
        };
        uint32_t unusual;
    };
    uint64_t asid_generation;
    struct guest_regs regs;
    uint64_t cr0_hidden;       /* CD and NW: the guest sees them set, the CPU does not */
    bool native_once;          /* CR0 intercepts are off until the next exit */
    bool iret_seen;            /* at iret_rip, about to execute: unblocked as soon as RIP has moved on */
    uint64_t iret_rip;
    bool stepping;             /* TF is ours, to get an NMI window after one instruction, or to keep a shadow */
    bool shadow_step;          /* the last exit came in an interrupt shadow: the next entry steps over its end */
    uint64_t step_rip;
    uint64_t step_dr6;         /* the sticky bits of DR6 from before the step, which must be told from its own */
    bool step_loads;           /* the stepped instruction loads RFLAGS: TF is the guest's own after it */
    uint32_t held_debug;       /* pending_debug: the VMCB has no place for it */
    uint32_t codes[2];         /* of the last full exits, the newest last; for the dump */
    bool leaving;              /* a host interrupt has been asked for, to end this run at once */
    struct length_cache lengths; /* vcpu->lengths, without NRIP save */
};

extern struct vmm_features svm_features;

void svm_load(struct vcpu *vcpu, unsigned groups);
void svm_store(struct vcpu *vcpu, unsigned groups);

/*
 * The VMCB has one shadow bit for STI and MOV SS. It is told as MOV SS, which blocks all that STI does and more, and
 * which an Intel CPU takes with any RFLAGS.IF.
 */
static inline uint32_t svm_interruptibility(const struct svm_vcpu *v)
{
    _Static_assert(INTERRUPTIBILITY_MOV_SS == 2 && INTERRUPTIBILITY_NMI == 8, "shifts below");
    return ((uint32_t)v->vmcb->int_state & 1) << 1 | (uint32_t)v->nmi_blocked << 3;
}

/* An event that was being delivered, a shadow, or one of the rare things in struct svm_vcpu. */
static inline uint32_t svm_exit_unusual(const struct svm_vcpu *v, const struct vmcb *vmcb)
{
    _Static_assert(SVM_EVENT_VALID == 1ull << 31, "bit 31 of 32");
    return (uint32_t)vmcb->exit_int_info >> 31 | ((uint32_t)vmcb->int_state & SVM_SHADOW) | v->unusual;
}

/* Of the instruction that exited; 0: not known. */
static inline uint8_t svm_instruction_length(const struct svm_vcpu *v)
{
    const struct vmcb *vmcb = v->vmcb;

    if (svm_features.next_rip && vmcb->next_rip)
        return (uint8_t)(vmcb->next_rip - vmcb->rip);
    /* The cache is of 64-bit code; CS.L means that in long mode only, and the cache is empty outside it. */
    return vmcb->cs.attributes & VMCB_SEG_L ? (uint8_t)length_cache_find(&v->lengths, vmcb->rip, vmcb->cr3) : 0;
}

/* The intercepts that depend on CR0.CD and NMI blocking, from the fields above. */
void svm_intercepts_update(struct svm_vcpu *v);

/*
 * The guest's next instruction with TF set, then an exit; between svm_store and the writing of RFLAGS, at an entry that
 * injects nothing. False: no step, since the instruction would store TF where the guest sees it.
 */
bool svm_step_start(struct vcpu *vcpu);
/* After an exit while v->stepping: takes TF back. True if the #DB that ended the run was only the step. */
bool svm_step_end(struct vcpu *vcpu);

/* The table's `run`: svm_entry.S. It calls svm_prepare, enters, and leaves through svm_after_exit. */
void svm_run(struct vcpu *vcpu, struct vm_exit *exit);
struct svm_entry { uint64_t guest_vmcb, host_vmcb; }; /* returned in RAX and RDX */
struct svm_entry svm_prepare(struct vcpu *vcpu, struct vm_exit *exit);
void svm_after_exit(struct vcpu *vcpu, uint32_t code); /* the low half of the exit code, which tells all of them apart */
/* svm_light.c. True: answered; RBX, RCX and RDX (CPUID) are in vcpu->state. For svm_entry.S alone. */
bool svm_light_cpuid(struct vcpu *vcpu);
bool svm_light_memory(struct vcpu *vcpu);

/* Saves what the CPU holds of its current vCPU; interrupts off. */
void svm_evict(struct svm_cpu *cpu);

/* The TSC ratio of whatever guest this CPU enters next (15.30.5); the host's own TSC is not scaled. Interrupts off. */
void svm_set_tsc_ratio(struct svm_cpu *cpu, uint64_t multiplier);

/* vmm/guard.c: places in svm_entry.S, and what may take their place (vmm/guard_entry.S). */
extern uint8_t svm_guard_entry[], svm_guard_exit[], svm_guard_light[];
void svm_entry_clear(void);
void svm_guard_full(void); /* full_exit in svm_entry.S: no function either */
void svm_exit_barrier(void);
void svm_exit_fill(void);
void svm_exit_return(void);

#endif
