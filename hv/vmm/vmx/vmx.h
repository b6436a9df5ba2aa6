/* SPDX-License-Identifier: MIT */
/*
 * Private to the VMX backend: its objects, and who does what.
 *
 *   vmx_caps.c   which controls this CPU allows: pure arithmetic on the capability MSRs
 *   vmx.c        the table, probing, switching on, objects
 *   vmx_vmcs.c   which VMCS is current, its constant fields, parking, dump
 *   vmx_run.c    what happens between two entries: preparation of an entry, decoding of an exit
 *   vmx_light.c  exits that are answered before the registers are switched back
 *   vmx_state.c  vcpu->state <-> VMCS
 *   vmx_apic.c   the CPU's part in the guest's local APIC
 *   vmx_entry.S  the world switch
 *
 * A VMCS belongs to a CPU from its first VMPTRLD there until VMCLEAR there (SDM vol. 3C, 25.1), and nobody can reach
 * its contents from elsewhere. So: a vCPU that is to run on another CPU must be parked on the old one first, on its own
 * thread; load() works on the CPU that ran the vCPU last; after park() all groups are in vcpu->state and there is
 * nothing to load.
 *
 * Beside the VMCS a vCPU has registers that no VMX transition touches: CR2, DR0-3, DR6, STAR, LSTAR, CSTAR, FMASK,
 * KERNEL_GS_BASE, TSC_AUX. The hypervisor uses none of them, so they stay in the CPU until another vCPU runs there;
 * vmx_cpu.owner says whose they are, and struct vmx_away is their home meanwhile.
 */
#ifndef VMM_VMX_VMX_H
#define VMM_VMX_VMX_H

#include "vmm/guest_regs.h"
#include "vmm/offsets.h"
#include "vmm/vmm.h"
#include "vmm/vmx/vmcs.h"

#define PML_ENTRIES 512

/* The capability MSRs, appendix A. */
struct vmx_msrs {
    uint64_t basic, pin, processor, exit, entry; /* the TRUE ones where there are */
    uint64_t secondary, ept_vpid, cr0_fixed0, cr0_fixed1, cr4_fixed0, cr4_fixed1;
};

struct vmx_caps {
    uint32_t pin, processor, secondary, exit, entry; /* what every VMCS starts with */
    uint32_t secondary_allowed;                      /* what may be set besides */
    uint32_t secondary_required;                     /* what must not be cleared of it */
    uint64_t cr0_set, cr4_set;                       /* bits that must be set in guest CR0 (PE and PG apart), CR4 */
    uint64_t cr4_allowed;
    uint64_t host_cr0_set, host_cr0_allowed;
    uint64_t eptp_bits;
    uint32_t revision;
    bool invept_single, invvpid_single, vpid;
    bool vectoring_stale; /* vmx_apic_vectoring */
};

/* Which controls a CPU with these MSRs gets. False: something that we need is missing, `why` says what. Pure. */
bool vmx_caps_compute(const struct vmx_msrs *msrs, struct vmx_caps *caps, struct vmm_features *features, char *why,
                      size_t why_bytes) MUST_CHECK;

extern struct vmx_caps vmx_caps;
extern struct vmm_features vmx_features;

struct vmx_vcpu;

struct vmx_cpu { /* struct cpu.vmm */
    struct vcpu *current;     /* both of the next two are this vCPU's: the usual case, one comparison */
    struct vmx_vcpu *vmcs;    /* whose VMCS is current; NULL = none that counts */
    struct vcpu *owner;       /* whose CR2, DR and MSRs the CPU holds */
    hpa_t vmxon_region;
};

/* MSR bitmaps: which vCPUs one is for. */
#define VMX_BITMAP_SPEC 1u   /* those that write SPEC_CTRL (guest_regs.h), which is open there */
#define VMX_BITMAP_X2APIC 2u /* those whose x2APIC the CPU carries out */
#define VMX_BITMAPS 4u

struct vmx_vm { /* vm_core.backend */
    hpa_t msr_bitmap[VMX_BITMAPS]; /* by VMX_BITMAP_ bits, see vmx_msr_bitmap(); 0: none needed */
};

struct vmx_away {
    uint64_t cr2, dr6, star, lstar, cstar, fmask, kernel_gs_base;
};

struct vmx_vcpu { /* vcpu.backend */
    struct vm_exit *exit;     /* of the run that is going on */
    volatile uint8_t *virtual_apic; /* page; byte 0x80 is VTPR */
    uint64_t rip, rsp, rflags, cr8; /* what the VMCS holds: after an exit the same as vcpu->state */
    uint64_t host_rsp;
    uint8_t vtpr;             /* virtual_apic[VTPR] as it was last, for which cr8 holds */
    uint32_t wants;           /* vcpu_wants() that the VMCS already knows */
    uint32_t light_left;      /* light exits until the next one is a full one; vmx_light.c */
    bool initialized;         /* the VMCS's constant fields have been written */
    bool launched;            /* VMRESUME, not VMLAUNCH */
    bool pml_on, pml_changed; /* wanted; the VMCS is still to be told, also the index */
    bool apic_changed;        /* vmx_apic has been called since the last entry */
    uint8_t apic_wanted, apic_assist; /* enum apic_assist: wanted, and what the VMCS says */
    uint32_t processor_controls, secondary_controls, tpr_threshold; /* last written */
    uint64_t eoi_exits[4];    /* last written */
    uint64_t cr0_shadow, cr4_shadow;
    uint64_t eptp;
    uint16_t vpid;            /* 0 = none */
    struct guest_regs regs;
    struct vmx_away away;
    hpa_t vmcs, virtual_apic_page, pml_page;
    uint64_t *pml_log;        /* the page, or NULL: this CPU has no page-modification log */
    unsigned pml_next;        /* entry that the CPU fills next, going down */
};

#define VTPR 0x80
#define LIGHT_EXITS_MAX 32

/*
 * Bits of CR0 and CR4 that a guest changes without an exit. PG and PAE are not among them: shared code keeps EFER.LMA
 * and the PDPTEs in step; nor CD and NW, which the guest sees but the CPU does not, nor what a host has to have (NE,
 * MCE, VMXE) and what depends on the CPU model (UMIP, FSGSBASE, PCIDE, OSXSAVE, SMEP, SMAP, PKE ...).
 */
#define CR0_GUEST (CR0_PE | CR0_MP | CR0_EM | CR0_TS | CR0_WP | CR0_AM)
#define CR4_GUEST (CR4_VME | CR4_PVI | CR4_TSD | CR4_DE | CR4_PSE | CR4_PGE | CR4_PCE | CR4_OSFXSR | CR4_OSXMMEXCPT)

/* vmx_vmcs.c. Interrupts off in all of them. */
bool vmx_attach(struct vmx_cpu *cpu, struct vcpu *vcpu); /* VMCS current, registers loaded, host fields right */
bool vmx_reach(struct vmx_cpu *cpu, struct vcpu *vcpu);  /* VMCS current only */
void vmx_release(struct vcpu *vcpu);                     /* all state into vcpu->state, VMCLEAR */
void vmx_evict(struct vmx_cpu *cpu);                     /* the owner's registers to their home */
void vmx_dump(struct vcpu *vcpu);
/*
 * The page-modification log. A vCPU's log is drained by its own thread, between an exit and the next entry, or by whoever
 * has set flush_wanted and seen it out of the guest: it takes the wish back before it enters, which needs the same lock (the
 * stage-2 lock) and drains first. So a log is never drained while the CPU may write to it.
 */
void vmx_pml_drain(struct vcpu *vcpu);                 /* after vcpu_flush_wait; nothing if the vCPU has done it since */
void vmx_pml_drain_own(struct vcpu *vcpu, bool flush); /* flush: takes flush_wanted back; interrupts off */
/* No translation of this vCPU is left on this CPU. */
void vmx_flush_all(const struct vmx_vcpu *v);

/* vmx_apic.c */
/* An MSR bitmap for vCPUs in x2APIC mode: opens what the CPU carries out. */
void vmx_apic_open_msrs(uint8_t *map);
/* The table's `apic`. */
void vmx_apic(struct vcpu *vcpu, enum apic_assist assist);
/* At an entry after that: the VMCS says so. */
void vmx_apic_store(struct vcpu *vcpu, struct vmx_vcpu *v);
/* The exits. */
void vmx_apic_access(struct vcpu *vcpu, struct vm_exit *exit);
/* What IDT-vectoring information says, put right. */
uint64_t vmx_apic_vectoring(const struct vcpu *vcpu, uint64_t info);
/* vmx.c */
/* Accesses to the MSR exit, or not, in this bitmap (25.6.9). */
void vmx_msr_bits(uint8_t *map, uint32_t msr, bool read, bool write);
/* The bitmap that is in force for this vCPU. */
hpa_t vmx_msr_bitmap(const struct vcpu *vcpu);

/* vmx_state.c */
void vmx_load(struct vcpu *vcpu, unsigned groups);
void vmx_store(struct vcpu *vcpu, unsigned groups);
void vmx_registers_save(struct vmx_vcpu *v);
void vmx_registers_restore(const struct vmx_vcpu *v);

/* The table's `run`: vmx_entry.S. Calls vmx_prepare, enters, leaves through vmx_after_exit or vmx_entry_failed. */
void vmx_run(struct vcpu *vcpu, struct vm_exit *exit);
void vmx_exit_entry(void); /* HOST_RIP */
int vmx_prepare(struct vcpu *vcpu, struct vm_exit *exit, uint64_t host_rsp); /* 1 VMRESUME, 0 VMLAUNCH, -1 refused */
void vmx_after_exit(struct vcpu *vcpu, uint64_t reason);
/* vmx_light.c. True: answered; RAX, RBX, RCX and RDX (CPUID) are in vcpu->state. For vmx_entry.S alone. */
bool vmx_light_cpuid(struct vcpu *vcpu);
bool vmx_light_memory(struct vcpu *vcpu);
void vmx_entry_failed(struct vcpu *vcpu, bool refused);

/* vmm/guard.c: places in vmx_entry.S, and what may take their place (vmm/guard_entry.S). */
extern uint8_t vmx_guard_entry[], vmx_guard_exit[], vmx_guard_light[];
void vmx_entry_clear(void);
void vmx_guard_full(void); /* full_exit in vmx_entry.S: no function either */
void vmx_exit_barrier(void);
void vmx_exit_fill(void);
void vmx_exit_return(void);

#endif
