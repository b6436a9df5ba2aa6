/* SPDX-License-Identifier: MIT */
/*
 * The CPU model in use: finding a leaf, the parts of a leaf that depend on the vCPU's state, and what follows from the
 * leaves for CR4, EFER, XCR0 and the XSAVE area. All of it is derived from the entries alone, so that a model that was
 * built here and one that came in a stream cannot differ.
 */
#include <string.h>

#include "vmm/cpuid_features.h"
#include "vmm/cpuid_model.h"
#include "vmm/vmm.h"

const struct cpuid_entry *cpuid_find_indexed(const struct cpuid_model *model, const struct cpuid_entry *first,
                                             uint32_t subleaf)
{
    for (const struct cpuid_entry *e = first; e < model->entry + model->count && e->leaf == first->leaf; e++)
        if (e->subleaf == subleaf)
            return e;
    return &model->entry[0];
}

/* Leaf to slot, as cpuid_find has it; -1 for a leaf outside. */
static int slot_of(uint32_t leaf)
{
    uint32_t base = 0;
    if (leaf < CPUID_BASIC_LEAVES)
        return (int)leaf;
    base += CPUID_BASIC_LEAVES;
    if (leaf - CPUID_EXTENDED < CPUID_EXTENDED_LEAVES)
        return (int)(base + leaf - CPUID_EXTENDED);
    base += CPUID_EXTENDED_LEAVES;
    if (leaf - CPUID_HYPERVISOR < CPUID_HYPERVISOR_LEAVES)
        return (int)(base + leaf - CPUID_HYPERVISOR);
    base += CPUID_HYPERVISOR_LEAVES;
    if (leaf - CPUID_TASUKI < CPUID_TASUKI_LEAVES)
        return (int)(base + leaf - CPUID_TASUKI);
    return -1;
}

static bool leaf_indexed(uint32_t leaf)
{
    return leaf == 4 || leaf == 7 || leaf == 0xb || leaf == 0xd || leaf == 0x1f || leaf == 0x8000001d;
}

static bool leaf_dynamic(uint32_t leaf, uint32_t subleaf)
{
    return leaf == 1 || (leaf == 7 && subleaf == 0) || leaf == 0xb || leaf == 0x1f || (leaf == 0xd && subleaf < 2) ||
           leaf == 0x8000001e || leaf == 0x80000001;
}

static void derive_limits(struct cpuid_model *m)
{
    const struct cpuid_entry *one = cpuid_find(m, 1, 0), *seven = cpuid_find(m, 7, 0);
    const struct cpuid_entry *extended = cpuid_find(m, 0x80000001, 0), *sizes = cpuid_find(m, 0x80000008, 0);
    const struct { uint32_t reg; unsigned bit; uint64_t cr4; } cr4[] = {
        { one->edx, 1, CR4_VME | CR4_PVI }, { one->edx, 4, CR4_TSD },      { one->edx, 2, CR4_DE },
        { one->edx, 3, CR4_PSE },           { one->edx, 6, CR4_PAE },      { one->edx, 7, CR4_MCE },
        { one->edx, 13, CR4_PGE },          { one->edx, 24, CR4_OSFXSR },  { one->edx, 25, CR4_OSXMMEXCPT },
        { one->ecx, 17, CR4_PCIDE },        { one->ecx, 26, CR4_OSXSAVE }, { seven->ebx, 0, CR4_FSGSBASE },
        { seven->ebx, 7, CR4_SMEP },        { seven->ebx, 20, CR4_SMAP },  { seven->ecx, 2, CR4_UMIP },
        { seven->ecx, 3, CR4_PKE },         { seven->ecx, 16, CR4_LA57 },
    };
    struct cpu_limits *l = &m->limits;
    l->cr4_valid = CR4_PCE; /* RDPMC without counters: #GP in either setting */
    for (unsigned i = 0; i < ARRAY_COUNT(cr4); i++)
        if (cr4[i].reg >> cr4[i].bit & 1)
            l->cr4_valid |= cr4[i].cr4;
    l->efer_valid = (extended->edx & BIT(11) ? EFER_SCE : 0) | (extended->edx & BIT(20) ? EFER_NXE : 0) |
                    (extended->edx & BIT(29) ? EFER_LME | EFER_LMA : 0) | (extended->edx & BIT(25) ? EFER_FFXSR : 0) |
                    (cpuid_find(m, 0x80000021, 0)->eax & BIT(8) ? EFER_AIBRSE : 0);
    /* SDM vol. 4, table 2-2; APM vol. 2, 3.2.9. */
    const uint32_t more = cpuid_find(m, 7, 2)->edx;
    l->spec_ctrl_valid = (seven->edx & BIT(26) || sizes->ebx & BIT(14) ? BIT(0) : 0) |
                         (seven->edx & BIT(27) || sizes->ebx & BIT(15) ? BIT(1) : 0) |
                         (seven->edx & BIT(31) || sizes->ebx & BIT(24) ? BIT(2) : 0) |
                         (more & BIT(1) ? BIT(3) | BIT(4) : 0) | (more & BIT(2) ? BIT(5) | BIT(6) : 0) |
                         (more & BIT(0) || sizes->ebx & BIT(28) ? BIT(7) : 0) | (more & BIT(3) ? BIT(8) : 0) |
                         (more & BIT(4) ? BIT(10) : 0);
    l->linear_bits = seven->ecx & BIT(16) ? 57 : 48;
    l->physical_bits = sizes->eax & 0xff;
}

static void derive_xsave(struct cpuid_model *m)
{
    const struct cpuid_entry *main = cpuid_find(m, 0xd, 0), *instructions = cpuid_find(m, 0xd, 1);
    struct cpu_limits *l = &m->limits;
    struct xsave_layout *x = &m->xsave;
    l->xcr0_valid = (uint64_t)main->edx << 32 | main->eax;
    l->xss_valid = instructions->eax & BIT(3) ? (uint64_t)instructions->edx << 32 | instructions->ecx : 0;
    uint32_t mxcsr_mask = x->mxcsr_mask;
    memset(x, 0, sizeof(*x));
    x->mxcsr_mask = mxcsr_mask;
    x->components = l->xcr0_valid | 3;
    x->area_bytes = XSAVE_LEGACY_BYTES + XSAVE_HEADER_BYTES;
    for (unsigned i = 2; i < XSAVE_COMPONENTS; i++) {
        const struct cpuid_entry *e = cpuid_find(m, 0xd, i);
        if (!(l->xcr0_valid & BIT(i)))
            continue;
        x->component[i].bytes = e->eax;
        x->component[i].offset = e->ebx;
        x->area_bytes = MAX(x->area_bytes, e->eax + e->ebx);
    }
}

void cpuid_model_index(struct cpuid_model *m)
{
    memset(m->slot, 0, sizeof(m->slot));
    memset(&m->entry[0], 0, sizeof(m->entry[0]));
    for (unsigned i = m->count; i-- > 1;) { /* backwards: the first subleaf of a leaf is what stays */
        struct cpuid_entry *e = &m->entry[i];
        e->flags =
            (leaf_indexed(e->leaf) ? CPUID_INDEXED : 0) | (leaf_dynamic(e->leaf, e->subleaf) ? CPUID_DYNAMIC : 0);
        int slot = slot_of(e->leaf);
        if (slot >= 0)
            m->slot[slot] = (uint8_t)i;
    }
    derive_limits(m);
    derive_xsave(m);
}

/* Bytes of the XSAVE area for a set of components, in the standard or the compacted format (SDM vol. 1, 13.4). */
static uint32_t xsave_bytes(const struct cpuid_model *m, uint64_t components, bool compacted)
{
    uint32_t bytes = XSAVE_LEGACY_BYTES + XSAVE_HEADER_BYTES;
    for (unsigned i = 2; i < XSAVE_COMPONENTS; i++) {
        if (!(components & BIT(i)))
            continue;
        const struct cpuid_entry *e = cpuid_find(m, 0xd, i);
        if (compacted)
            bytes = (uint32_t)(e->ecx & BIT(1) ? ALIGN_UP(bytes, 64) : bytes) + e->eax;
        else
            bytes = MAX(bytes, e->eax + e->ebx);
    }
    return bytes;
}

void cpuid_adjust(const struct cpuid_model *m, const struct cpuid_entry *e, const struct cpuid_dynamic *d,
                  uint32_t out[4])
{
    out[REG_EAX] = e->eax, out[REG_EBX] = e->ebx, out[REG_ECX] = e->ecx, out[REG_EDX] = e->edx;
    switch (e->leaf) {
    case 1:
        out[REG_EBX] |= d->apic_id << 24;
        if (d->cr4 & CR4_OSXSAVE)
            out[REG_ECX] |= BIT(27);
        if (!d->apic_enabled)
            out[REG_EDX] &= ~(uint32_t)BIT(9);
        break;
    case 7:
        if (e->subleaf == 0 && (d->cr4 & CR4_PKE))
            out[REG_ECX] |= BIT(4);
        break;
    case 0xb:
    case 0x1f:
        out[REG_EDX] = d->apic_id;
        break;
    case 0xd:
        if (e->subleaf == 0)
            out[REG_EBX] = xsave_bytes(m, d->xcr0, false);
        else if (e->subleaf == 1 && (e->eax & (BIT(1) | BIT(3))))
            out[REG_EBX] = xsave_bytes(m, d->xcr0 | (e->eax & BIT(3) ? d->xss : 0), true);
        break;
    case 0x80000001:
        if (m->vendor == CPU_VENDOR_AMD && !d->apic_enabled)
            out[REG_EDX] &= ~(uint32_t)BIT(9);
        break;
    case 0x8000001e:
        out[REG_EAX] = d->apic_id; /* extended APIC ID */
        out[REG_EBX] = d->apic_id; /* core number; one thread a core */
        break;
    default:
        break;
    }
}

void cpuid_read(const struct cpuid_model *model, uint32_t leaf, uint32_t subleaf, const struct cpuid_dynamic *dynamic,
                uint32_t out[4])
{
    cpuid_adjust(model, cpuid_find(model, leaf, subleaf), dynamic, out);
}

uint32_t cpuid_instructions(const struct cpuid_model *m)
{
    const struct cpuid_entry *seven = cpuid_find(m, 7, 0);
    bool rdtscp = (cpuid_find(m, 0x80000001, 0)->edx & BIT(27)) || (seven->ecx & BIT(22));
    return (uint32_t)((rdtscp ? INSTRUCTION_RDTSCP : 0) | (seven->ebx & BIT(10) ? INSTRUCTION_INVPCID : 0) |
                      (cpuid_find(m, 0xd, 1)->eax & BIT(3) ? INSTRUCTION_XSAVES : 0));
}

bool cpuid_xcr0_ok(const struct cpuid_model *model, uint64_t xcr0)
{
    enum { X87 = 1, SSE = 2, AVX = 4, MPX = 0x18, AVX512 = 0xe0 };
    if ((xcr0 & ~model->limits.xcr0_valid) || !(xcr0 & X87))
        return false;
    if ((xcr0 & AVX) && !(xcr0 & SSE))
        return false;
    if ((xcr0 & MPX) && (xcr0 & MPX) != MPX)
        return false;
    return !(xcr0 & AVX512) || ((xcr0 & AVX512) == AVX512 && (xcr0 & AVX));
}
