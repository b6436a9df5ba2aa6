/* SPDX-License-Identifier: MIT */
/*
 * The CPU model in the state stream. The entries travel as they are; all that follows from them is derived again.
 *
 * What a stream may bring is bounded by this host's own "host" model, the ceiling: each feature bit must be known, must
 * be allowed and must be there, addresses no wider, XSAVE components of the same place and size. Words that only inform
 * a guest (cache sizes, brand) are taken as they come.
 */
#include <string.h>

#include "kernel/bytes.h"
#include "vmm/cpuid_features.h"
#include "vmm/cpuid_model.h"

#define AMD_REPEATED 0x0183f3ffu /* bits of leaf 1's EDX that AMD repeats in leaf 0x80000001 */

void cpuid_model_save(const struct cpuid_model *m, struct stream_writer *w)
{
    stream_put_bytes(w, m->name, sizeof(m->name));
    stream_put_u32(w, m->vendor);
    stream_put_u32(w, m->vcpu_count);
    stream_put_u32(w, m->tsc_khz);
    stream_put_u32(w, m->apic_khz);
    stream_put_u64(w, m->arch_capabilities);
    stream_put_u32(w, m->count - 1);
    for (unsigned i = 1; i < m->count; i++) {
        const struct cpuid_entry *e = &m->entry[i];
        const uint32_t words[] = { e->leaf, e->subleaf, e->eax, e->ebx, e->ecx, e->edx };
        for (unsigned k = 0; k < ARRAY_COUNT(words); k++)
            stream_put_u32(w, words[k]);
    }
}

static const char *feature_name(uint32_t leaf, uint32_t subleaf, unsigned reg, unsigned bit)
{
    for (unsigned i = 0; i < cpuid_feature_count; i++) {
        const struct cpuid_feature *f = &cpuid_features[i];
        if (f->leaf == leaf && f->subleaf == subleaf && f->reg == reg && f->bit == bit)
            return f->need == NEED_SMP ? NULL : f->name; /* the count of vCPUs is the stream's */
    }
    return NULL;
}

/* One register of one entry against the ceiling's. */
static void check_register(struct stream_reader *r, const struct cpuid_model *m, const struct cpuid_model *ceiling,
                           const struct cpuid_entry *e, unsigned reg)
{
    uint32_t known = cpuid_feature_mask(e->leaf, e->subleaf, reg);
    if (!known)
        return;
    if (e->leaf == 0x80000001 && reg == REG_EDX && m->vendor == CPU_VENDOR_AMD)
        known |= AMD_REPEATED;
    uint32_t value = cpuid_entry_register(e, reg);
    const struct cpuid_entry *here = cpuid_find(ceiling, e->leaf, e->subleaf);
    uint32_t lacking = value & ~cpuid_entry_register(here, reg);
    for (unsigned bit = 0; bit < 32; bit++) {
        if (value >> bit & ~(known >> bit) & 1)
            stream_fail(r, ERR_CORRUPT, "CPUID 0x%x.%u register %u bit %u is no feature that guests get", e->leaf,
                        e->subleaf, reg, bit);
        const char *name = feature_name(e->leaf, e->subleaf, reg, bit);
        if ((lacking >> bit & 1) && name)
            stream_fail(r, ERR_UNSUPPORTED, "this node's CPU lacks %s, which the VM was given; use cpu = portable",
                        name);
    }
}

static bool leaf_known(uint32_t leaf)
{
    return leaf <= 2 || leaf == 4 || leaf == 6 || leaf == 7 || leaf == 0xb || leaf == 0xd || leaf == 0x15 ||
           leaf == 0x16 || leaf == 0x1f || (leaf >= CPUID_HYPERVISOR && leaf <= CPUID_HYPERVISOR + 6) ||
           leaf == CPUID_TASUKI || leaf == CPUID_TASUKI + 1 || (leaf >= CPUID_EXTENDED && leaf <= CPUID_EXTENDED + 8) ||
           leaf == 0x80000019 || leaf == 0x8000001a || leaf == 0x8000001d || leaf == 0x8000001e || leaf == 0x80000021;
}

static void read_entries(struct cpuid_model *m, struct stream_reader *r)
{
    uint32_t count = stream_get_u32(r);
    if (!r->error && (count == 0 || count >= CPUID_ENTRIES))
        stream_fail(r, ERR_CORRUPT, "%u CPUID leaves", count);
    m->count = 1;
    for (uint32_t i = 0; i < count && !r->error; i++) {
        struct cpuid_entry *e = &m->entry[m->count];
        e->leaf = stream_get_u32(r);
        e->subleaf = stream_get_u32(r);
        e->eax = stream_get_u32(r);
        e->ebx = stream_get_u32(r);
        e->ecx = stream_get_u32(r);
        e->edx = stream_get_u32(r);
        const struct cpuid_entry *before = e - 1;
        bool first = m->count == 1;
        bool ascending = first || e->leaf > before->leaf || (e->leaf == before->leaf && e->subleaf > before->subleaf);
        if (!r->error && (!ascending || !leaf_known(e->leaf)))
            stream_fail(r, ERR_CORRUPT, "CPUID 0x%x.%u is %s", e->leaf, e->subleaf,
                        ascending ? "unknown" : "out of order");
        m->count++;
    }
}

static bool same_entry(const struct cpuid_entry *a, const struct cpuid_entry *b)
{
    return a->eax == b->eax && a->ebx == b->ebx && a->ecx == b->ecx && a->edx == b->edx;
}

static void check_xsave(struct stream_reader *r, const struct cpuid_model *m, const struct cpuid_model *ceiling)
{
    if ((m->limits.xcr0_valid & ~ceiling->limits.xcr0_valid) || (m->limits.xss_valid & ~ceiling->limits.xss_valid))
        stream_fail(r, ERR_UNSUPPORTED, "this node's CPU lacks XSAVE components of 0x%llx; use cpu = portable",
                    (unsigned long long)m->limits.xcr0_valid);
    if (m->limits.xcr0_valid && !cpuid_xcr0_ok(m, m->limits.xcr0_valid))
        stream_fail(r, ERR_CORRUPT, "XSAVE components 0x%llx do not go together",
                    (unsigned long long)m->limits.xcr0_valid);
    if (!(cpuid_find(m, 1, 0)->ecx & BIT(26)) != !m->limits.xcr0_valid)
        stream_fail(r, ERR_CORRUPT, "CPUID 0xd does not go with the XSAVE bit");
    /* Size, offset, and the alignment by which it finds its place in the compacted format: a guest keeps such areas. */
    for (unsigned i = 2; i < XSAVE_COMPONENTS; i++)
        if ((m->limits.xcr0_valid & BIT(i)) && !same_entry(cpuid_find(m, 0xd, i), cpuid_find(ceiling, 0xd, i)))
            stream_fail(r, ERR_UNSUPPORTED, "this node's CPU keeps XSAVE component %u elsewhere; use cpu = portable",
                        i);
}

static bool printable(const char name[CPUID_NAME_BYTES])
{
    unsigned i = 0;
    while (i < CPUID_NAME_BYTES && name[i] > 0x20 && name[i] < 0x7f)
        i++;
    return i && i < CPUID_NAME_BYTES && !name[i];
}

void cpuid_model_restore(struct cpuid_model *m, struct stream_reader *r, const struct cpuid_model *ceiling)
{
    memset(m, 0, sizeof(*m));
    if (!r->error && r->version != CPUID_SECTION_VERSION)
        stream_fail(r, ERR_VERSION, "version %u, this node reads %u: update it", r->version, CPUID_SECTION_VERSION);
    stream_get_bytes(r, m->name, sizeof(m->name));
    uint32_t vendor = stream_get_u32(r);
    m->vcpu_count = stream_get_u32(r);
    m->tsc_khz = stream_get_u32(r);
    m->apic_khz = stream_get_u32(r);
    m->arch_capabilities = stream_get_u64(r);
    read_entries(m, r);
    if (r->error)
        return;
    if (!printable(m->name)) {
        memset(m->name, 0, sizeof(m->name));
        stream_fail(r, ERR_CORRUPT, "the model's name is damaged");
    }
    if (vendor > CPU_VENDOR_AMD || !m->vcpu_count || m->vcpu_count > 32 || !m->tsc_khz)
        stream_fail(r, ERR_CORRUPT, "vendor %u, %u vCPUs, TSC of %u kHz", vendor, m->vcpu_count, m->tsc_khz);
    if (m->apic_khz != ceiling->apic_khz)
        stream_fail(r, ERR_UNSUPPORTED, "an APIC timer of %u kHz, this node has %u", m->apic_khz, ceiling->apic_khz);
    m->vendor = vendor;
    m->cross_vendor = m->vendor != ceiling->vendor;
    m->xsave.mxcsr_mask = ceiling->xsave.mxcsr_mask;
    cpuid_model_index(m);
    if (m->cross_vendor && strncmp(m->name, "portable-", 9))
        stream_fail(r, ERR_UNSUPPORTED, "CPU model %s is of another vendor than this node's CPU; use cpu = portable",
                    m->name);
    if (m->limits.physical_bits < 32 || m->limits.physical_bits > ceiling->limits.physical_bits)
        stream_fail(r, ERR_UNSUPPORTED, "%u bits of physical address, this node has %u", m->limits.physical_bits,
                    ceiling->limits.physical_bits);
    bool has_arch = cpuid_find(m, 7, 0)->edx & BIT(29);
    if (m->arch_capabilities & (has_arch ? ~CPUID_ARCH_CAPABILITIES_SHOWN : UINT64_MAX))
        stream_fail(r, ERR_CORRUPT, "ARCH_CAPABILITIES 0x%llx are not what guests get",
                    (unsigned long long)m->arch_capabilities);
    uint64_t promises = m->arch_capabilities ^ (has_arch ? CPUID_ARCH_CAPABILITIES_RISKS : 0);
    if (promises & ~(ceiling->arch_capabilities ^ CPUID_ARCH_CAPABILITIES_RISKS))
        stream_fail(r, ERR_UNSUPPORTED,
                    "ARCH_CAPABILITIES 0x%llx promise what this node's CPU does not; use cpu = portable",
                    (unsigned long long)m->arch_capabilities);
    for (unsigned i = 1; i < m->count && !r->error; i++)
        if (m->entry[i].subleaf && !(m->entry[i].flags & CPUID_INDEXED)) /* it would be found, and has not been checked */
            stream_fail(r, ERR_CORRUPT, "CPUID 0x%x has no subleaf %u", m->entry[i].leaf, m->entry[i].subleaf);
    for (unsigned i = 1; i < m->count && !r->error; i++)
        for (unsigned reg = REG_EAX; reg <= REG_EDX; reg++)
            check_register(r, m, ceiling, &m->entry[i], reg);
    check_xsave(r, m, ceiling);
}
