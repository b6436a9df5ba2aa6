/* SPDX-License-Identifier: MIT */
/*
 * Builds a CPU model. Leaves are made one after another in ascending order: feature registers from the allow-list
 * (cpuid_features.c), the rest by a function for each kind of leaf. What follows from the leaves alone (the index, the
 * limits on CR4, EFER and XCR0, the XSAVE layout) is derived by cpuid_model_index, which a restored model goes through
 * too.
 *
 * The topology of every model is one package with one core for each vCPU and one thread for each core. The caches'
 * sizes are the host's in "host", and made up in portable models.
 */
#include "vmm/cpuid_model.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "kernel/bytes.h"
#include "vmm/cpuid_features.h"
#include "vmm/hyperv.h"

#define PORTABLE_PHYSICAL_BITS 39
#define VERSION_SIGNATURE 0x000206c2u         /* portable: family 6, model 44, stepping 2 */

static const char *const model_names[] = { "host", "portable", "portable-1", NULL };

struct build {
    struct cpuid_model *model;
    const struct cpuid_host *host;
    const struct cpuid_abilities *abilities; /* with xcr0 cut down to what host and model have */
    unsigned portable; /* version of the portable model, 0 = "host" */
    uint32_t host_basic, host_extended; /* highest leaves */
    uint32_t vendor_words[3];           /* EBX, EDX, ECX of leaf 0 */
    unsigned core_bits;                 /* of the APIC ID, for the core number */
    uint32_t signature;                 /* EAX of leaf 1 */
    uint8_t physical_bits, linear_bits;
    const char *lacking;                /* first feature that a portable model needs and this host has not */
};

const char *cpuid_model_name(unsigned index)
{
    return index < ARRAY_COUNT(model_names) ? model_names[index] : NULL;
}

static void host_leaf(const struct build *b, uint32_t leaf, uint32_t subleaf, uint32_t out[4])
{
    bool there = leaf >= CPUID_EXTENDED ? leaf <= b->host_extended : leaf <= b->host_basic;
    memset(out, 0, 4 * sizeof(out[0]));
    if (there)
        b->host->cpuid(b->host->context, leaf, subleaf, out);
}

static void add(struct build *b, uint32_t leaf, uint32_t subleaf, uint32_t eax, uint32_t ebx, uint32_t ecx,
                uint32_t edx)
{
    struct cpuid_model *m = b->model;
    if (m->count < CPUID_ENTRIES)
        m->entry[m->count++] = (struct cpuid_entry){ leaf, subleaf, 0, eax, ebx, ecx, edx, 0 };
}

/* The value of one feature register. */
static uint32_t features(struct build *b, uint32_t leaf, uint32_t subleaf, unsigned reg)
{
    uint32_t host[4], value = 0;
    host_leaf(b, leaf, subleaf, host);
    for (unsigned i = 0; i < cpuid_feature_count; i++) {
        const struct cpuid_feature *f = &cpuid_features[i];
        if (f->leaf != leaf || f->subleaf != subleaf || f->reg != reg ||
            (b->portable && (!f->portable || f->portable > b->portable)))
            continue;
        bool emulated = cpuid_need_emulated(f);
        if (cpuid_need_met(f, b->abilities, b->model->vendor) && (emulated || host[reg] >> f->bit & 1))
            value |= 1u << f->bit;
        else if (b->portable && !emulated && !b->lacking)
            b->lacking = f->name;
    }
    return value;
}

static void add_features(struct build *b, uint32_t leaf, uint32_t subleaf)
{
    add(b, leaf, subleaf, features(b, leaf, subleaf, REG_EAX), features(b, leaf, subleaf, REG_EBX),
        features(b, leaf, subleaf, REG_ECX), features(b, leaf, subleaf, REG_EDX));
}

static bool intel(const struct build *b) { return b->model->vendor != CPU_VENDOR_AMD; }
static bool amd(const struct build *b) { return b->model->vendor == CPU_VENDOR_AMD; }

/* ---- Caches ---- */

/* Level, type and geometry, which leaf 4 and leaf 0x8000001d encode alike (SDM vol. 2A; APM vol. 3, E.4.15). */

struct cache {
    uint32_t eax, ebx, ecx, edx;
};
#define CACHE(type, level, line, ways, sets) \
    { (type) | (level) << 5 | 1 << 8, ((line) - 1) | ((ways) - 1) << 22, (sets) - 1, 0 }
static const struct cache portable_caches[] = {
    CACHE(1, 1, 64, 8, 64), CACHE(2, 1, 64, 8, 64), CACHE(3, 2, 64, 8, 1024), CACHE(3, 3, 64, 16, 8192),
};

static void add_caches(struct build *b, uint32_t leaf)
{
    uint32_t cores = (1u << b->core_bits) - 1;
    unsigned count = 0;
    for (; count < 5; count++) {
        uint32_t c[4];
        if (!b->portable)
            host_leaf(b, leaf, count, c);
        else if (count < ARRAY_COUNT(portable_caches))
            memcpy(c, &portable_caches[count], sizeof(c));
        else
            break;
        uint32_t type = c[REG_EAX] & 0x1f, level = c[REG_EAX] >> 5 & 7;
        if (!type)
            break;
        uint32_t sharing = level >= 3 ? cores : 0;
        add(b, leaf, count, (c[REG_EAX] & 0x3ff) | sharing << 14 | (leaf == 4 ? cores << 26 : 0), c[REG_EBX],
            c[REG_ECX], c[REG_EDX] & 7);
    }
    add(b, leaf, count, 0, 0, 0, 0);
}

/* ---- Topology: leaves 0xb and 0x1f (SDM vol. 3A, 8.9) ---- */

static void add_topology(struct build *b, uint32_t leaf)
{
    add(b, leaf, 0, 0, 1, 1 << 8, 0);
    add(b, leaf, 1, b->core_bits, b->model->vcpu_count, 2 << 8 | 1, 0);
    add(b, leaf, 2, 0, 0, 2, 0);
}

/* ---- XSAVE: leaf 0xd ---- */

/* The components to offer: a consistent set of those that the backend switches and the host has. */
static uint64_t xcr0_offered(const struct build *b, uint64_t switched)
{
    enum { X87_SSE = 3, AVX = 4, AVX512 = 0xe0, PKRU = 0x200 };
    uint32_t word[4], one[4];
    host_leaf(b, 1, 0, one);
    host_leaf(b, 0xd, 0, word);
    uint64_t components = switched & ((uint64_t)word[REG_EDX] << 32 | word[REG_EAX]);
    components &= X87_SSE | AVX | AVX512 | PKRU;
    if (b->portable || !(one[REG_ECX] & BIT(26)) || (components & X87_SSE) != X87_SSE)
        return 0;
    if ((components & (AVX | AVX512)) != (AVX | AVX512))
        components &= ~(uint64_t)AVX512;
    return components;
}

static void add_xsave(struct build *b)
{
    uint64_t components = b->abilities->xcr0;
    uint32_t word[4], size = XSAVE_LEGACY_BYTES + XSAVE_HEADER_BYTES;
    if (!components)
        return;
    for (unsigned i = 2; i < XSAVE_COMPONENTS; i++) {
        host_leaf(b, 0xd, i, word);
        if (components & BIT(i))
            size = MAX(size, word[REG_EAX] + word[REG_EBX]);
    }
    add(b, 0xd, 0, (uint32_t)components, 0, size, 0);
    add(b, 0xd, 1, features(b, 0xd, 1, REG_EAX), 0, 0, 0);
    for (unsigned i = 2; i < XSAVE_COMPONENTS; i++) {
        host_leaf(b, 0xd, i, word);
        if (components & BIT(i))
            add(b, 0xd, i, word[REG_EAX], word[REG_EBX], word[REG_ECX] & 3, 0);
    }
}

/* ---- The three ranges ---- */

static void add_basic(struct build *b)
{
    struct cpuid_model *m = b->model;
    uint32_t max = b->portable ? 0x16 : intel(b) ? 0x1f : 0xd;
    add(b, 0, 0, max, b->vendor_words[0], b->vendor_words[2], b->vendor_words[1]);
    add(b, 1, 0, b->signature, 8u << 8 | (1u << b->core_bits) << 16, features(b, 1, 0, REG_ECX),
        features(b, 1, 0, REG_EDX));
    if (intel(b)) {
        add(b, 2, 0, 0x0000ff01, 0, 0, 0); /* "ask leaf 4" (SDM vol. 2A, table 3-12, descriptor 0xff) */
        add_caches(b, 4);
    }
    add_features(b, 6, 0);
    uint32_t structured = 0;
    if (features(b, 7, 1, REG_EAX) | features(b, 7, 1, REG_EDX))
        structured = 1;
    if (features(b, 7, 2, REG_EDX))
        structured = 2;
    add(b, 7, 0, structured, features(b, 7, 0, REG_EBX), features(b, 7, 0, REG_ECX), features(b, 7, 0, REG_EDX));
    for (uint32_t i = 1; i <= structured; i++)
        add_features(b, 7, i);
    add_topology(b, 0xb);
    add_xsave(b);
    if (intel(b)) {
        /* The crystal is the APIC timer's clock (SDM vol. 3A, 11.5.4), so the leaf gives both frequencies. */
        if (m->apic_khz <= UINT32_MAX / 1000)
            add(b, 0x15, 0, m->apic_khz, m->tsc_khz, m->apic_khz * 1000, 0);
        add(b, 0x16, 0, m->tsc_khz / 1000, m->tsc_khz / 1000, 100, 0);
        if (!b->portable)
            add_topology(b, 0x1f);
    }
}

static uint32_t four(const char *text)
{
    return le32_get((const uint8_t *)text);
}

/* docs/guest-interface.md, "Hypervisor leaves"; TLFS 2.4. */
static void add_hypervisor(struct build *b)
{
    add(b, 0x40000000, 0, 0x40000006, four("Micr"), four("osof"), four("t Hv"));
    add(b, 0x40000001, 0, four("Hv#1"), 0, 0, 0);
    add(b, 0x40000002, 0, 14393, 10u << 16, 0, 0); /* the interface of Windows Server 2016 */
    add(b, 0x40000003, 0, HV_FEATURES_EAX, 0, 0, HV_FEATURES_EDX);
    add(b, 0x40000004, 0, HV_HINTS_EAX, 0xffffffff, b->physical_bits, 0);
    add(b, 0x40000005, 0, 32, 32, 0, 0);
    add(b, 0x40000006, 0, BIT(3), 0, 0, 0); /* second-level address translation is in use */
    add(b, CPUID_TASUKI, 0, CPUID_TASUKI + 1, four("Tasu"), four("kiTa"), four("suki"));
    add(b, CPUID_TASUKI + 1, 0, 1, 0, 0, 0);
}

static void add_brand(struct build *b)
{
    uint8_t portable[48] = "Tasuki portable CPU, version 1";
    for (uint32_t i = 0; i < 3; i++) {
        uint32_t w[4];
        host_leaf(b, 0x80000002 + i, 0, w);
        for (unsigned r = 0; r < 4 && b->portable; r++)
            w[r] = le32_get(portable + 16 * i + 4 * r);
        add(b, 0x80000002 + i, 0, w[0], w[1], w[2], w[3]);
    }
}

static void add_extended(struct build *b)
{
    struct cpuid_model *m = b->model;
    uint32_t word[4];
    uint32_t max = amd(b) ? MIN(MAX(b->host_extended, 0x80000008u), 0x80000021u) : 0x80000008u;
    add(b, 0x80000000, 0, max, amd(b) ? b->vendor_words[0] : 0, amd(b) ? b->vendor_words[2] : 0,
        amd(b) ? b->vendor_words[1] : 0);
    /* AMD repeats most of leaf 1's EDX here (APM vol. 3, E.4.2). */
    uint32_t repeated = amd(b) ? features(b, 1, 0, REG_EDX) & 0x0183f3ff : 0;
    add(b, 0x80000001, 0, amd(b) ? b->signature : 0, 0, features(b, 0x80000001, 0, REG_ECX),
        features(b, 0x80000001, 0, REG_EDX) | repeated);
    add_brand(b);
    if (amd(b)) {
        host_leaf(b, 0x80000005, 0, word);
        add(b, 0x80000005, 0, word[0], word[1], word[2], word[3]);
    }
    host_leaf(b, 0x80000006, 0, word);
    if (b->portable)
        add(b, 0x80000006, 0, 0, 0, 512u << 16 | 6u << 12 | 64, 0);
    else
        add(b, 0x80000006, 0, word[0], word[1], word[2], word[3]);
    add_features(b, 0x80000007, 0);
    add(b, 0x80000008, 0, b->physical_bits | (uint32_t)b->linear_bits << 8,
        features(b, 0x80000008, 0, REG_EBX), amd(b) ? (m->vcpu_count - 1) | b->core_bits << 12 : 0, 0);
    if (!amd(b))
        return;
    if (max >= 0x80000019) {
        host_leaf(b, 0x80000019, 0, word);
        add(b, 0x80000019, 0, word[0], word[1], 0, 0);
    }
    if (max >= 0x8000001a) {
        host_leaf(b, 0x8000001a, 0, word);
        add(b, 0x8000001a, 0, word[0] & 7, 0, 0, 0);
    }
    if (features(b, 0x80000001, 0, REG_ECX) & BIT(22)) {
        add_caches(b, 0x8000001d);
        add(b, 0x8000001e, 0, 0, 0, 0, 0); /* filled for each vCPU: one thread a core, one node */
    }
    if (max >= 0x80000021)
        add_features(b, 0x80000021, 0);
}

/* ---- Building ---- */

static enum status say(char *text, size_t text_bytes, enum status status, const char *format, ...) PRINTF_LIKE(4, 5);
static enum status say(char *text, size_t text_bytes, enum status status, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    if (text_bytes)
        vsnprintf(text, text_bytes, format, args);
    va_end(args);
    return status;
}

/* Version of a portable model, 0 for "host", -1 for an unknown name. */
static int parse_name(const char *name)
{
    if (!name || !*name || !strcmp(name, "host"))
        return 0;
    return !strcmp(name, "portable") || !strcmp(name, "portable-1") ? 1 : -1;
}

static enum cpu_vendor vendor_of(const uint32_t words[3])
{
    if (words[0] == four("Genu") && words[1] == four("ineI") && words[2] == four("ntel"))
        return CPU_VENDOR_INTEL;
    if ((words[0] == four("Auth") && words[1] == four("enti") && words[2] == four("cAMD")) ||
        (words[0] == four("Hygo") && words[1] == four("nGen") && words[2] == four("uine")))
        return CPU_VENDOR_AMD;
    return CPU_VENDOR_OTHER;
}

static unsigned log2_up(uint32_t value)
{
    unsigned bits = 0;
    while ((1u << bits) < value)
        bits++;
    return bits;
}

/* Leaf 0, the vendor, and the widths of addresses: what later leaves depend on. */
static void survey(struct build *b)
{
    struct cpuid_model *m = b->model;
    const struct cpuid_abilities *a = b->abilities;
    uint32_t word[4];
    b->host->cpuid(b->host->context, 0, 0, word);
    b->host_basic = word[REG_EAX];
    b->vendor_words[0] = word[REG_EBX], b->vendor_words[1] = word[REG_EDX], b->vendor_words[2] = word[REG_ECX];
    enum cpu_vendor host_vendor = vendor_of(b->vendor_words);
    b->host->cpuid(b->host->context, CPUID_EXTENDED, 0, word);
    b->host_extended = word[REG_EAX] >= CPUID_EXTENDED ? word[REG_EAX] : CPUID_EXTENDED;
    m->vendor = host_vendor;
    if (b->portable) {
        m->vendor = CPU_VENDOR_INTEL;
        b->vendor_words[0] = four("Genu"), b->vendor_words[1] = four("ineI"), b->vendor_words[2] = four("ntel");
    }
    m->cross_vendor = m->vendor != host_vendor;
    b->core_bits = log2_up(m->vcpu_count);
    host_leaf(b, 1, 0, word);
    b->signature = b->portable ? VERSION_SIGNATURE : word[REG_EAX];

    host_leaf(b, 0x80000008, 0, word);
    uint8_t physical = word[REG_EAX] & 0xff ? word[REG_EAX] & 0xff : 36;
    if (a->physical_bits)
        physical = MIN(physical, a->physical_bits);
    if (b->portable && physical < PORTABLE_PHYSICAL_BITS)
        b->lacking = "39 bits of physical address";
    b->physical_bits = b->portable ? PORTABLE_PHYSICAL_BITS : MIN(physical, 52);
    b->linear_bits = !b->portable && (features(b, 7, 0, REG_ECX) & BIT(16)) ? 57 : 48;
}

enum status cpuid_model_build(struct cpuid_model *model, const char *name, const struct cpuid_host *host,
                              const struct cpuid_abilities *abilities, char *text, size_t text_bytes)
{
    int portable = parse_name(name);
    if (portable < 0)
        return say(text, text_bytes, ERR_NOT_FOUND, "there is no CPU model %s; use host or portable", name);
    if (!abilities->vcpu_count || abilities->vcpu_count > 32 || !abilities->tsc_khz || !abilities->apic_khz)
        return say(text, text_bytes, ERR_INVALID, "CPU model %s: %u vCPUs, TSC of %u kHz, APIC timer of %u kHz",
                   name && *name ? name : "host", abilities->vcpu_count, abilities->tsc_khz, abilities->apic_khz);

    memset(model, 0, sizeof(*model));
    snprintf(model->name, sizeof(model->name), "%s", portable ? "portable-1" : "host");
    model->vcpu_count = abilities->vcpu_count;
    model->tsc_khz = abilities->tsc_khz;
    model->apic_khz = abilities->apic_khz;
    model->count = 1; /* [0]: the leaf that is not there */
    struct cpuid_abilities offered = *abilities;
    struct build b = { .model = model, .host = host, .abilities = &offered, .portable = (unsigned)portable };
    survey(&b);
    offered.xcr0 = xcr0_offered(&b, abilities->xcr0);
    add_basic(&b);
    const struct cpu_limits sizes = model->limits; /* the index works limits out of leaves that are still to come */
    cpuid_model_index(model); /* add_extended repeats leaf 1 */
    model->limits = sizes;
    add_hypervisor(&b);
    add_extended(&b);
    cpuid_model_index(model);
    model->xsave.mxcsr_mask = abilities->mxcsr_mask ? abilities->mxcsr_mask : 0xffff;
    if (cpuid_find(model, 7, 0)->edx & BIT(29))
        model->arch_capabilities = abilities->arch_capabilities & CPUID_ARCH_CAPABILITIES_SHOWN;
    if (b.lacking)
        return say(text, text_bytes, ERR_UNSUPPORTED, "CPU model %s needs %s, which this host lacks; use cpu = host",
                   model->name, b.lacking);
    return OK;
}
