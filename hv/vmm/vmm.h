/* SPDX-License-Identifier: MIT */
/*
 * The contract between the shared half of the virtual machine monitor and its two backends, vmx/ and svm/.
 *
 * A backend is one const table of coarse operations. It alone knows VMCS or VMCB. The shared half (run.c, exits.c,
 * gmem.c, stage2.c) alone knows devices, time and policy. Between them lie struct vcpu and struct vm_exit.
 *
 * State of a vCPU. vcpu->state is the one place where shared code reads and writes architectural state. After an exit the
 * groups in vcpu->valid are current there (always STATE_BASE and STATE_INTR); shared code asks for more with vcpu_load() and marks
 * what it changed in vcpu->dirty (which makes the group valid too); the backend writes dirty groups back at the next
 * entry. So an exit costs only the state it needs.
 *
 * Events. vcpu->state.pending is injected at the next entry and then EVENT_NONE; if an exit interrupts its delivery, the
 * backend puts it back there (EXITINTINFO, IDT-vectoring information). Shared code injects only into an empty slot.
 *
 * Interrupts. Where the CPU itself can deliver a guest's interrupts and carry out its APIC accesses (features->apic_assist,
 * and vm->apic_assist says that this VM gets it), the backend has a page of APIC registers for each vCPU, apic_registers.
 * Shared code fills it while the vCPU is out of the guest and tells so by apic(); from then on such interrupts do not pass
 * the event slot. What the CPU leaves to software comes as EXIT_APIC_WRITE and EXIT_APIC_EOI (the instruction is done,
 * RIP is behind it), or, for the APIC's page, as an access to memory that is not RAM. Shared code maps vm->apic_page at
 * APIC_PAGE_GPA while every vCPU's APIC answers there; what is in that page does not matter, no access reaches it.
 *
 * Context. run() is called by the vCPU's thread with host interrupts off and returns with them off; a host interrupt that
 * ended the run is still pending then and is taken when the caller turns interrupts on. A vCPU may change its CPU
 * between two runs, after park() on the old one (nobody else can reach a VMCS that is loaded there); the backend notices
 * (vcpu->last_cpu) and does the rest.
 */
#ifndef VMM_VMM_H
#define VMM_VMM_H

#include "kernel/page.h"
#include "kernel/pt.h"
#include "kernel/status.h"
#include "kernel/thread.h"
#include "kernel/timer.h"
#include "kernel/types.h"
#include "vmm/core_turn.h"
#include "vmm/cpu_state.h"
#include "vmm/tsc.h"

struct cpuid_model;
struct vm_core;
struct vcpu;
struct vcpu_ops;
struct length_cache;

/* Groups of struct cpu_state. */
#define STATE_BASE BIT(0)      /* gpr, rip, rflags, cr8, pending: always valid after an exit */
#define STATE_CR BIT(1)        /* cr0, cr2, cr3, cr4, efer, pdpte */
#define STATE_SEG BIT(2)       /* seg[] */
#define STATE_TABLE BIT(3)     /* gdtr, idtr */
#define STATE_SYSCALL BIT(4)   /* star, lstar, cstar, fmask, kernel_gs_base, sysenter_*, tsc_aux */
#define STATE_DEBUG BIT(5)     /* dr[], dr6, dr7, debugctl */
#define STATE_INTR BIT(6)      /* interruptibility */
#define STATE_MISC BIT(7)      /* pat, spec_ctrl, xcr0, xss */
#define STATE_TRAP BIT(9)      /* pending_debug */
#define STATE_ALL (0xffu | STATE_TRAP)
#define STATE_CS BIT(8)        /* seg[SEG_CS] and seg[SEG_SS] alone: part of STATE_SEG, for vcpu_load() only, never dirty */

enum exit_kind {
    EXIT_HOST,        /* host interrupt, NMI or nothing for the shared half: go on */
    EXIT_CPUID,
    EXIT_HLT,
    EXIT_PAUSE,
    EXIT_IO,          /* IN, OUT: io */
    EXIT_STRING_IO,   /* INS, OUTS: for the emulator */
    EXIT_MEMORY,      /* second-stage fault: memory */
    EXIT_RDMSR,       /* ECX, EDX:EAX by the registers */
    EXIT_WRMSR,
    EXIT_CR_WRITE,    /* cr */
    EXIT_CR_READ,
    EXIT_XSETBV,
    EXIT_WBINVD,      /* also INVD */
    EXIT_HYPERCALL,   /* VMCALL, VMMCALL */
    EXIT_EXCEPTION,   /* an intercepted exception: event */
    EXIT_UNDEFINED,   /* an instruction that does not exist for this guest (VMX, SVM ones ...): #UD */
    EXIT_IRQ_WINDOW,
    EXIT_NMI_WINDOW,
    EXIT_TPR,         /* CR8 fell below vcpu->tpr_threshold */
    EXIT_APIC_WRITE,  /* the guest has written to its APIC's page: apic.offset */
    EXIT_APIC_EOI,    /* the CPU has ended an interrupt that somebody waits for: apic.vector */
    EXIT_SHUTDOWN,    /* triple fault */
    EXIT_TASK_SWITCH, /* reported, not emulated: the vCPU is stopped */
    EXIT_PML_FULL,    /* the page-modification log wants draining (the backend has put it in the bitmap already) */
    EXIT_INVALID,     /* entry failed, or the backend does not know the exit: raw_* says which */
    EXIT_KINDS,
};

struct vm_exit {
    enum exit_kind kind;
    uint8_t length;   /* instruction exits only: of the instruction; 0: unknown, shared code finds out */
    union {
        struct { uint16_t port; uint8_t size; bool in; } io;
        struct {
            gpa_t gpa;
            uint8_t access;       /* enum access: READ, WRITE, FETCH */
            bool delivering;      /* it was the CPU's own, for an event: its stack or descriptor tables, not the instruction's */
            bool walking;         /* the fault was on a guest page table entry, not on the access itself */
            bool gva_valid;
            gva_t gva;
            uint8_t byte_count;   /* instruction bytes of decode assists, 0 = none */
            uint8_t bytes[15];
        } memory;
        struct { uint8_t number; uint8_t gpr; uint64_t value; bool clts, lmsw; } cr; /* value: what is to be written */
        struct { uint16_t offset; uint8_t vector; } apic;
        struct event event;
    };
    uint64_t raw_reason, raw_info1, raw_info2; /* the vendor's codes, for dumps */
};

struct vmm_features { /* what the backend found, for shared code and for `cpu list` */
    bool next_rip, decode_assists, flush_by_asid, vmcb_clean, vgif, avic;      /* SVM */
    bool unrestricted, vpid, ept_ad, pml, preemption_timer, apic_register, virtual_interrupt, posted_interrupt; /* VMX */
    bool branch_step;       /* DEBUGCTL.BTF works in a guest; without it the bit is dropped, and each instruction steps */
    bool apic_assist;       /* the CPU can deliver interrupts by itself: see above */
    bool apic_assist_flawed; /* ... but not always right: only where the admin insists */
    bool second_stage_ad;   /* A/D bits in second-stage tables can be used */
    bool second_stage_1g;
    bool pdptes_in_memory;  /* PAE: the CPU reads and checks PDPTEs when it walks, there is no cached copy to load */
    bool virtual_spec_ctrl;       /* SVM: the CPU itself switches SPEC_CTRL */
    bool rdtscp, invpcid, xsaves; /* the instructions work in a guest (RDTSCP: RDPID and TSC_AUX too) */
    struct tsc_scaling tsc;
    unsigned asid_count;
};

/* How a guest reaches its APIC, as far as the CPU carries it out. */
enum apic_assist {
    APIC_ASSIST_NONE, /* it does not: software injects (also while the APIC is switched off) */
    APIC_ASSIST_PAGE, /* xAPIC mode: by the page */
    APIC_ASSIST_MSRS, /* x2APIC mode */
};

#define APIC_PAGE_GPA 0xfee00000ull

/*
 * For vmm/guard.c: a CALL before the guest's registers are loaded, a JMP after they are saved, and what may take their
 * place; and the JMP to where light exits are looked for (vmm/light.h), with the way past them.
 */
struct guard_sites {
    uint8_t *entry_call, *exit_jump, *light_jump;
    void (*entry_clear)(void), (*full_exit)(void);
    void (*exit_barrier)(void), (*exit_fill)(void), (*exit_return)(void);
};

struct vmm_backend {
    const char *name; /* "svm" or "vmx" */
    const struct pt_format *stage2_format;
    const struct vmm_features *features;
    const struct guard_sites *guard;

    /* Is it there and may it be used? Writes the reason into `why` if not. Once, on the boot CPU. */
    bool (*probe)(char *why, size_t why_bytes);
    /* On each CPU, interrupts off: switches virtualization on (VMXON; EFER.SVME and the host save area). */
    enum status (*cpu_enable)(void);
    void (*cpu_disable)(void);

    enum status (*vm_create)(struct vm_core *vm);
    void (*vm_destroy)(struct vm_core *vm);
    /* vcpu->state holds what the first entry loads (all of it dirty). vcpu->backend is the backend's to set. */
    enum status (*vcpu_create)(struct vcpu *vcpu);
    void (*vcpu_destroy)(struct vcpu *vcpu);

    /* One entry and one exit. */
    void (*run)(struct vcpu *vcpu, struct vm_exit *exit);
    /* Brings groups into vcpu->state. On the vCPU's thread, or with the vCPU stopped. */
    void (*load)(struct vcpu *vcpu, unsigned groups);
    /* Writes all dirty groups back without entering, and lets go of the CPU (VMCLEAR): before a save, a pause, a move. */
    void (*park)(struct vcpu *vcpu);
    /* Second-stage rights were taken away: cached translations of this VM must not be used by its next entry. */
    void (*flush)(struct vcpu *vcpu);
    /* The page-modification log on, with nothing in it, or off (vCPU parked). */
    void (*pml)(struct vcpu *vcpu, bool on);
    /*
     * Brings what the CPU has logged into the dirty log. Right after vcpu_flush_wait(): a vCPU that was in the guest has
     * done it at its flush, and the log of one that was not is drained here, before it can enter.
     */
    void (*pml_drain)(struct vcpu *vcpu);
    /*
     * Guest reads and writes of this MSR, which is switched with the guest or a command, go straight to the CPU, or exit,
     * as all do after vm_create. Per VM, before its first run.
     */
    void (*msr_passthrough)(struct vm_core *vm, uint32_t msr, bool read, bool write);
    /*
     * vcpu->apic_registers has changed, or the mode: at the next entry the CPU goes by them. The vCPU's thread, out of the
     * guest. NULL where features->apic_assist is false.
     */
    void (*apic)(struct vcpu *vcpu, enum apic_assist assist);
    /* Everything the backend holds about the vCPU, as text lines by log_info. */
    void (*dump)(struct vcpu *vcpu);
};
extern const struct vmm_backend vmm_backend_svm, vmm_backend_vmx;

/* A vCPU as both halves see it. The first members are known to the entry code in assembly by offset. */
struct vcpu {
    struct cpu_state state;   /* first member; gpr[] at offset 0 */
    void *backend;            /* struct svm_vcpu or struct vmx_vcpu */
    struct vm_core *vm;
    unsigned id;
    uint32_t valid, dirty;    /* groups, see above */
    int last_cpu;             /* CPU of the last run, -1 = none or parked */
    bool flush_wanted;        /* set by anyone who then kicks; the backend clears it and flushes, at the next entry */
    bool want_irq_window;     /* exit as soon as an external interrupt can be taken */
    bool want_nmi_window;
    uint8_t tpr_threshold;    /* exit (EXIT_TPR) when CR8 falls below this; 0 = never */
    uint64_t tsc_offset;      /* guest TSC = tsc_scale(vm->tsc_multiplier, host TSC) + tsc_offset */
    bool tsc_offset_changed;
    uint64_t exits[EXIT_KINDS]; /* by kind, for `vm show` */
    const struct cpuid_model *cpuid; /* the VM's; set before the first run */

    /* The shared half's own (run.c); backends leave these alone. */
    uint32_t requests;        /* atomic; enum vcpu_request */
    uint32_t in_guest;        /* atomic; between the last look at flush_wanted and the exit */
    bool nmi_pending;
    uint32_t unpark_count;    /* atomic; how often it has left the park */
    bool parked;              /* all state is in vcpu->state; the thread waits (REQ_PARK) or has ended */
    bool stopped;             /* the thread has ended */
    struct cpu *cpu;          /* where its thread runs */
    struct thread *thread;
    struct wait_queue queue;  /* the thread sleeps here: HLT, park */
    const struct vcpu_ops *ops;
    void *xsave;              /* guest vector state while it is not in the registers; standard format */
    struct timer timer;       /* host timer: the earliest of the vCPU's own deadlines */
    struct timer deadline_timer; /* host timer: the run deadline */
    uint64_t deadline_told;   /* the deadline that ops->deadline has been called for */
    struct core_waiter core_waiter; /* core.c: while it waits for its VM's turn on the core */
    uint32_t *apic_registers; /* the backend's, from its creation; NULL: the CPU does nothing for this vCPU's APIC */
    struct length_cache *lengths; /* the backend's, where the CPU reports no instruction lengths; else NULL */
};

/*
 * Instructions of the VM's CPU model that a backend can take away; the others of these are #UD, or, where the CPU has no
 * means against them, harmless.
 */
#define INSTRUCTION_RDTSCP BIT(0) /* and RDPID */
#define INSTRUCTION_INVPCID BIT(1)
#define INSTRUCTION_XSAVES BIT(2)

/* What the backend needs of struct vm: the first member of it. */
struct vm_core {
    struct pt stage2;
    page_owner_t owner;       /* all of the VM's memory and tables */
    uint64_t serial;          /* never used twice: tells VMs apart where a pointer could be a reused one */
    void *backend;            /* per-VM things: bitmaps, ASID/VPID allocation */
    struct stage2 *memory;    /* vmm/stage2.h: set by stage2_create */
    uint64_t *dirty_bitmap;   /* vmm/dirty.h sets bits here, by gfn, atomically; NULL while the log is off */
    uint64_t dirty_bits;      /* its size */
    unsigned physical_bits;   /* the guest's MAXPHYADDR */
    bool apic_assist;         /* set before vm_create: the CPU is to deliver interrupts by itself */
    hpa_t apic_page;          /* then: what is mapped at APIC_PAGE_GPA; of shared code */
    uint64_t run_deadline_tsc; /* host TSC after which no vCPU of this VM enters; UINT64_MAX = none. Atomic. */
    uint64_t tsc_multiplier;  /* vmm/tsc.h; set before vm_create, constant from then on */
    uint32_t instructions;    /* INSTRUCTION_...: likewise */
    uint64_t spec_ctrl_valid; /* bits of SPEC_CTRL that the guest may set, 0: it has none. Likewise */
};

/* After shared code has written state->debugctl: what this CPU would not honour reads 0, on every path alike. */
static inline void vcpu_debugctl_limit(const struct vmm_backend *b, struct cpu_state *state)
{
    if (!b->features->branch_step)
        state->debugctl = 0;
}

static inline void vcpu_load(const struct vmm_backend *b, struct vcpu *vcpu, unsigned groups)
{
    unsigned missing = groups & ~vcpu->valid;
    if (missing) {
        b->load(vcpu, missing);
        vcpu->valid |= missing;
    }
}

/* All exits so far. */
static inline uint64_t vcpu_exit_count(const struct vcpu *vcpu)
{
    uint64_t count = 0;

    for (unsigned kind = 0; kind < EXIT_KINDS; kind++)
        count += vcpu->exits[kind];
    return count;
}

/*
 * For backends without NRIP save: the length of the instruction at CS:RIP, 0 if it cannot be told (a fetch fault: the
 * guest then enters again and takes it). vmm/run.c; lean.
 */
unsigned vmm_instruction_length(struct vcpu *vcpu);
/* Copies up to 15 bytes at CS:RIP; the count that could be read. */
unsigned vmm_instruction_bytes(struct vcpu *vcpu, uint8_t bytes[15]);

#endif
