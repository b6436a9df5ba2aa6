/* SPDX-License-Identifier: MIT */
/*
 * The CPU that a guest sees: a named, versioned model, built once when the VM is created, carried by its stream, and
 * the same on all its vCPUs. Pure core: the host's leaves come through a callback.
 *
 *   "host"        what this host has and the hypervisor honours
 *   "portable-1"  the same on every AMD and Intel host that has x86-64-v2; "portable" means the newest of these
 *
 * A model never shows a feature that does not work: every bit comes from an allow-list (cpuid_features.c), and the
 * registers that CPUID governs (CR4, EFER, XCR0) are limited by the same model (cpu_limits). docs/guest-interface.md
 * lists the leaves, docs/decisions/0002-portable-cpu-model.md says what the portable model is and why.
 *
 * Callers: vm/ builds and saves; the exit path reads with cpuid_find (inline, about a dozen instructions) and, for the
 * few leaves that depend on the vCPU, cpuid_adjust.
 */
#ifndef VMM_CPUID_MODEL_H
#define VMM_CPUID_MODEL_H

#include "kernel/index_mask.h"
#include "kernel/status.h"
#include "kernel/types.h"
#include "vm/stream.h"
#include "vmm/cpu_limits.h"
#include "vmm/cpu_state_stream.h"

enum cpu_vendor { CPU_VENDOR_OTHER, CPU_VENDOR_INTEL, CPU_VENDOR_AMD };

/* How the host's CPUID is read; on the boot CPU, or canned answers in a test. out = EAX, EBX, ECX, EDX. */
struct cpuid_host {
    void (*cpuid)(void *context, uint32_t leaf, uint32_t subleaf, uint32_t out[4]);
    void *context;
};

/* What the hypervisor and the backend can do on this host. A false one takes the feature away from every model. */
struct cpuid_abilities {
    uint32_t vcpu_count;    /* 1..32 */
    uint32_t tsc_khz;       /* of the guest's TSC; not 0 */
    uint32_t apic_khz;      /* of the virtual APIC timer before its divider; not 0. APIC_TIMER_KHZ */
    uint32_t mxcsr_mask;    /* of the host's FXSAVE image; 0 = 0xffff, which every x86-64 CPU has */
    uint64_t xcr0;          /* components that are switched; 0 = no XSAVE for guests. Of these, x87, SSE, AVX, AVX-512
                             * and PKRU are offered. XSS is always 0: no supervisor component is offered */
    uint64_t arch_capabilities; /* the host's IA32_ARCH_CAPABILITIES (Intel), 0 = it has none */
    uint8_t physical_bits;  /* limit on guest physical addresses; 0 = the host's */
    bool x2apic;            /* the virtual APIC's x2APIC mode: works on every host */
    bool tsc_deadline;      /* the virtual APIC's TSC-deadline mode */
    bool tsc_adjust;        /* IA32_TSC_ADJUST is emulated */
    bool invariant_tsc;     /* the host's TSC is, and the VM is not going to leave it */
    bool rdtscp;            /* RDTSCP, RDPID and TSC_AUX work in a guest */
    bool invpcid;           /* INVPCID works in a guest; PCID itself needs nothing */
    bool xsavec;            /* XSAVEC and the compacted format do what the manual says */
    bool xsaves;            /* XSAVES/XRSTORS work in a guest */
    bool spec_ctrl;         /* SPEC_CTRL is switched, PRED_CMD and FLUSH_CMD are passed */
    bool la57;              /* 5-level paging in the guest */
};
#define APIC_TIMER_KHZ 1000000u

#define CPUID_INDEXED BIT(0) /* several subleaves: the entries of a leaf follow each other, ascending */
#define CPUID_DYNAMIC BIT(1) /* pass through cpuid_adjust before use */
struct cpuid_entry {
    uint32_t leaf, subleaf;
    uint32_t flags;
    uint32_t eax, ebx, ecx, edx;
    uint32_t unused; /* a power of two in size: an index becomes an address by a shift */
};

#define CPUID_ENTRIES 120
#define CPUID_BASIC_LEAVES 0x20u
#define CPUID_HYPERVISOR 0x40000000u
#define CPUID_HYPERVISOR_LEAVES 0x10u
#define CPUID_TASUKI 0x40000100u     /* "TasukiTasuki", max leaf; +1: interface version */
#define CPUID_TASUKI_LEAVES 2u
#define CPUID_EXTENDED 0x80000000u
#define CPUID_EXTENDED_LEAVES 0x22u
#define CPUID_SLOTS (CPUID_BASIC_LEAVES + CPUID_HYPERVISOR_LEAVES + CPUID_TASUKI_LEAVES + CPUID_EXTENDED_LEAVES)
#define CPUID_SLOT_ROOM 128u /* a power of 2, so that masking an index costs one instruction */
_Static_assert(CPUID_SLOTS <= CPUID_SLOT_ROOM, "slots of leaves");
#define CPUID_NAME_BYTES 32

struct cpuid_model {
    struct cpuid_entry entry[CPUID_ENTRIES]; /* [0] is all zero: the answer for a leaf that is not there */
    uint32_t count;
    uint8_t slot[CPUID_SLOT_ROOM];    /* leaf -> index of its first entry */
    char name[CPUID_NAME_BYTES];      /* "host", "portable-1" */
    enum cpu_vendor vendor;           /* as the guest sees it */
    uint32_t vcpu_count, tsc_khz, apic_khz;
    uint64_t arch_capabilities;       /* what the guest reads; 0 = the MSR does not exist */
    bool cross_vendor;                /* the model's vendor is not the host's: see docs/decisions/0002 on #UD */
    struct cpu_limits limits;
    struct xsave_layout xsave;
};

/*
 * Builds a model. ERR_NOT_FOUND: no model of that name (NULL or "" = "host"); ERR_UNSUPPORTED: this host lacks a
 * feature of it; ERR_INVALID: nonsense in `abilities`. `text` (may be NULL with 0) then has the words for the admin.
 */
enum status cpuid_model_build(struct cpuid_model *model, const char *name, const struct cpuid_host *host,
                              const struct cpuid_abilities *abilities, char *text, size_t text_bytes) MUST_CHECK;

/* The names that cpuid_model_build takes, one per index from 0; NULL at the end. */
const char *cpuid_model_name(unsigned index);

/* The entry for a leaf; never NULL: what is not there is all zero. */
const struct cpuid_entry *cpuid_find_indexed(const struct cpuid_model *model, const struct cpuid_entry *first,
                                             uint32_t subleaf);
/* The first entry of a leaf, whatever its subleaf. */
static inline const struct cpuid_entry *cpuid_find_first(const struct cpuid_model *model, uint32_t leaf)
{
    unsigned slot;
    if (likely(leaf < CPUID_BASIC_LEAVES))
        slot = leaf;
    else if (leaf - CPUID_EXTENDED < CPUID_EXTENDED_LEAVES)
        slot = leaf - CPUID_EXTENDED + CPUID_BASIC_LEAVES;
    else if (leaf - CPUID_HYPERVISOR < CPUID_HYPERVISOR_LEAVES)
        slot = leaf - CPUID_HYPERVISOR + CPUID_BASIC_LEAVES + CPUID_EXTENDED_LEAVES;
    else if (leaf - CPUID_TASUKI < CPUID_TASUKI_LEAVES)
        slot = leaf - CPUID_TASUKI + CPUID_BASIC_LEAVES + CPUID_EXTENDED_LEAVES + CPUID_HYPERVISOR_LEAVES;
    else
        return &model->entry[0];
    return &model->entry[model->slot[index_wrap(slot, CPUID_SLOT_ROOM)]];
}

static inline const struct cpuid_entry *cpuid_find(const struct cpuid_model *model, uint32_t leaf, uint32_t subleaf)
{
    const struct cpuid_entry *entry = cpuid_find_first(model, leaf);
    return likely(!(entry->flags & CPUID_INDEXED)) ? entry : cpuid_find_indexed(model, entry, subleaf);
}

/* What a dynamic leaf depends on. */
struct cpuid_dynamic {
    uint32_t apic_id;   /* = vCPU number */
    bool apic_enabled;  /* IA32_APIC_BASE[11] */
    uint64_t cr4, xcr0, xss;
};

/* The values for one vCPU of an entry with CPUID_DYNAMIC, out = EAX, EBX, ECX, EDX. Right for all other entries too. */
void cpuid_adjust(const struct cpuid_model *model, const struct cpuid_entry *entry, const struct cpuid_dynamic *dynamic,
                  uint32_t out[4]);

/* cpuid_find and cpuid_adjust in one: for everybody but the exit path. */
void cpuid_read(const struct cpuid_model *model, uint32_t leaf, uint32_t subleaf, const struct cpuid_dynamic *dynamic,
                uint32_t out[4]);

/* Those of INSTRUCTION_... (vmm.h) that the model has. */
uint32_t cpuid_instructions(const struct cpuid_model *model);

/* True if XSETBV may set XCR0 to this value (SDM vol. 1, 13.3): else #GP. */
bool cpuid_xcr0_ok(const struct cpuid_model *model, uint64_t xcr0);

/* The payload of a "CPUMODEL" section: the whole model, one for a VM. */
#define CPUID_SECTION_TAG "CPUMODEL"
#define CPUID_SECTION_VERSION 1
void cpuid_model_save(const struct cpuid_model *model, struct stream_writer *w);
/*
 * Reads one back. `ceiling` is the "host" model of this node, built with its abilities: a saved model with a feature
 * that the ceiling lacks is refused with ERR_UNSUPPORTED and the feature's name in the reader's error text. vcpu_count
 * comes from the stream.
 */
void cpuid_model_restore(struct cpuid_model *model, struct stream_reader *r, const struct cpuid_model *ceiling);

#endif
