/* SPDX-License-Identifier: MIT */
/*
 * Switching, and reaching into, the vector state of guests. XCR0 in the registers is the guest's while its state is
 * there; around XSAVE and XRSTOR it is all that the host has, so that a component which the guest has switched off, but
 * once used, is neither lost nor left for the next guest.
 */
#include "vmm/vector.h"

#include <string.h>

#include "kernel/log.h"
#include "kernel/msr.h"
#include "kernel/thread.h"
#include "kernel/x86.h"

/* The standard format of the area: SDM vol. 1, 13.4. */
#define XSAVE_XMM_OFFSET 160
#define XSAVE_BV_OFFSET 512
#define COMPONENT_SSE 1
#define COMPONENT_AVX 2
#define COMPONENT_ZMM_HIGH 6
#define COMPONENT_PKRU 9

struct vcpu *vector_owner[CPU_MAX];
bool vector_compacts;
static uint64_t last_vm[CPU_MAX]; /* serial */

static void xsave_area(void *area)
{
    if (cpu_features.xsave)
        __asm__ volatile("xsave64 (%0)" : : "r"(area), "a"((uint32_t)cpu_features.xcr0_mask),
                         "d"((uint32_t)(cpu_features.xcr0_mask >> 32)) : "memory");
    else
        __asm__ volatile("fxsave64 (%0)" : : "r"(area) : "memory");
}

static void xrstor_area(void *area)
{
    if (cpu_features.xsave)
        __asm__ volatile("xrstor64 (%0)" : : "r"(area), "a"((uint32_t)cpu_features.xcr0_mask),
                         "d"((uint32_t)(cpu_features.xcr0_mask >> 32)) : "memory");
    else
        __asm__ volatile("fxrstor64 (%0)" : : "r"(area) : "memory");
}

static void set_xcr0(uint64_t value)
{
    if (cpu_features.xsave)
        xsetbv(0, value);
}

void vector_find_xcr0(struct vcpu *vcpu)
{
    if (cpu_features.xsave && vector_owner[this_cpu()->id] == vcpu)
        vcpu->state.xcr0 = xgetbv(0);
}

static void release_here(void)
{
    struct vcpu *owner = vector_owner[this_cpu()->id];

    if (!owner)
        return;
    vector_find_xcr0(owner);
    set_xcr0(cpu_features.xcr0_mask);
    xsave_area(owner->xsave);
    vector_owner[this_cpu()->id] = NULL;
}

/* What other work has left in the L1 data cache, where a guest could read it there (L1TF). */
static void flush_l1d(void)
{
    wrmsr(MSR_FLUSH_CMD, 1);
}

/* Another VM comes to this CPU: an indirect branch barrier besides (SDM vol. 4, table 2-2; APM vol. 3, E.4.6). */
static void clear_leaks(void)
{
    if (cpu_features.speculation.ibpb)
        wrmsr(MSR_PRED_CMD, 1);
    if (cpu_features.speculation.flush_l1d)
        flush_l1d();
}

/*
 * Saves known registers in the compacted format (SDM vol. 1, 13.4.3 and 13.10) and looks where they went: Bochs 2.7 puts the
 * AVX component 160 bytes too low, so that a guest which uses XSAVEC or XSAVES loses registers.
 */
static bool compaction_works(void)
{
    enum { COMPONENTS = BIT(0) | BIT(COMPONENT_SSE) | BIT(COMPONENT_AVX), AVX_BYTES = 256, COMPACTED_AVX = 576, AREA = 1024 };
    static uint8_t from[AREA] ALIGNED(64), to[AREA] ALIGNED(64);
    uint64_t components = COMPONENTS, compacted = BIT(63) | COMPONENTS, nothing = 0;
    uint32_t at = cpu_features.xsave_offset[COMPONENT_AVX];

    if (!cpu_features.xsave || !(cpuid(0xd, 1).eax & BIT(1)))
        return false;
    if ((cpu_features.xcr0_mask & COMPONENTS) != COMPONENTS || at + AVX_BYTES > AREA)
        return true; /* nothing lies behind the header that could go wrong */
    for (unsigned i = 0; i < AVX_BYTES; i++) {
        from[XSAVE_XMM_OFFSET + i] = (uint8_t)(i * 7 + 1);
        from[at + i] = (uint8_t)(i * 13 + 5);
    }
    memcpy(from, &(uint16_t){ 0x37f }, 2);        /* FCW */
    memcpy(from + 24, &(uint32_t){ 0x1f80 }, 4); /* MXCSR */
    memcpy(from + XSAVE_BV_OFFSET, &components, 8);
    xrstor_area(from);
    __asm__ volatile("xsavec64 (%0)" : : "r"(to), "a"(COMPONENTS), "d"(0) : "memory");
    memcpy(from + XSAVE_BV_OFFSET, &nothing, 8);
    xrstor_area(from); /* all registers as after a reset */
    return !memcmp(to + XSAVE_BV_OFFSET, &components, 8) && !memcmp(to + XSAVE_BV_OFFSET + 8, &compacted, 8) &&
           !memcmp(to + XSAVE_XMM_OFFSET, from + XSAVE_XMM_OFFSET, AVX_BYTES) && !memcmp(to + COMPACTED_AVX, from + at, AVX_BYTES);
}

void vector_init(void)
{
    uint64_t flags = irq_save();

    vector_compacts = compaction_works();
    irq_restore(flags);
    if (!vector_compacts && cpu_features.xsave && cpuid(0xd, 1).eax & BIT(1))
        log_info("cpu: XSAVEC does not keep AVX registers; guests do not get it, nor XSAVES");
    if (cpu_features.speculation.flush_l1d)
        thread_set_guest_hook(flush_l1d);
}

void vector_acquire(struct vcpu *vcpu)
{
    unsigned cpu = this_cpu()->id;

    release_here();
    if (last_vm[cpu] != vcpu->vm->serial) {
        clear_leaks();
        last_vm[cpu] = vcpu->vm->serial;
    }
    set_xcr0(cpu_features.xcr0_mask);
    if (cpu_features.fpu_pointers_leak) {
        /* XRSTOR leaves the last x87 instruction's addresses alone while no exception is pending: make them ours. */
        static const uint32_t zero;
        __asm__ volatile("fnclex; emms; fildl %0" : : "m"(zero));
    }
    xrstor_area(vcpu->xsave);
    set_xcr0(vcpu->state.xcr0);
    vector_owner[cpu] = vcpu;
}

void vector_release(struct vcpu *vcpu)
{
    uint64_t flags = irq_save();

    if (vector_owner[this_cpu()->id] == vcpu)
        release_here();
    irq_restore(flags);
}

void vcpu_set_xcr0(struct vcpu *vcpu, uint64_t value)
{
    uint64_t flags = irq_save();

    vcpu->state.xcr0 = value;
    if (vector_owner[this_cpu()->id] == vcpu)
        set_xcr0(value);
    irq_restore(flags);
}

/* A component's place in the area; NULL if the guest has not switched it on. */
static uint8_t *component(struct vcpu *vcpu, unsigned number)
{
    if (!(vcpu->state.xcr0 & BIT(number)))
        return NULL;
    return (uint8_t *)vcpu->xsave + cpu_features.xsave_offset[number];
}

static bool in_use(const struct vcpu *vcpu, unsigned number)
{
    uint64_t used;

    if (!cpu_features.xsave)
        return number <= COMPONENT_SSE;
    memcpy(&used, (const uint8_t *)vcpu->xsave + XSAVE_BV_OFFSET, sizeof used);
    return used & BIT(number);
}

static void read_part(struct vcpu *vcpu, unsigned number, const uint8_t *from, uint8_t *to, size_t bytes)
{
    if (from && in_use(vcpu, number))
        memcpy(to, from, bytes);
}

/* The component leaves its initial state: its other registers, which were not kept in the area, are zero. */
static void write_part(struct vcpu *vcpu, unsigned number, uint8_t *to, uint8_t *all, size_t all_bytes,
                       const uint8_t *from, size_t bytes)
{
    uint64_t used;

    if (!to)
        return;
    if (!in_use(vcpu, number))
        memset(all, 0, all_bytes);
    memcpy(to, from, bytes);
    if (cpu_features.xsave) {
        memcpy(&used, (uint8_t *)vcpu->xsave + XSAVE_BV_OFFSET, sizeof used);
        used |= BIT(number);
        memcpy((uint8_t *)vcpu->xsave + XSAVE_BV_OFFSET, &used, sizeof used);
    }
}

bool vector_read(struct vcpu *vcpu, unsigned index, uint8_t bytes[64])
{
    if (index > 15)
        return false;
    vector_release(vcpu);
    uint8_t *avx = component(vcpu, COMPONENT_AVX), *zmm = component(vcpu, COMPONENT_ZMM_HIGH);
    memset(bytes, 0, 64);
    read_part(vcpu, COMPONENT_SSE, (uint8_t *)vcpu->xsave + XSAVE_XMM_OFFSET + index * 16, bytes, 16);
    read_part(vcpu, COMPONENT_AVX, avx ? avx + index * 16 : NULL, bytes + 16, 16);
    read_part(vcpu, COMPONENT_ZMM_HIGH, zmm ? zmm + index * 32 : NULL, bytes + 32, 32);
    return true;
}

bool vector_write(struct vcpu *vcpu, unsigned index, const uint8_t bytes[64])
{
    if (index > 15)
        return false;
    vector_release(vcpu);
    uint8_t *sse = (uint8_t *)vcpu->xsave + XSAVE_XMM_OFFSET;
    uint8_t *avx = component(vcpu, COMPONENT_AVX), *zmm = component(vcpu, COMPONENT_ZMM_HIGH);
    write_part(vcpu, COMPONENT_SSE, sse + index * 16, sse, 16 * 16, bytes, 16);
    write_part(vcpu, COMPONENT_AVX, avx ? avx + index * 16 : NULL, avx, 16 * 16, bytes + 16, 16);
    write_part(vcpu, COMPONENT_ZMM_HIGH, zmm ? zmm + index * 32 : NULL, zmm, 16 * 32, bytes + 32, 32);
    return true;
}

uint32_t vector_pkru(struct vcpu *vcpu)
{
    uint32_t value = 0;

    vector_release(vcpu);
    const uint8_t *pkru = component(vcpu, COMPONENT_PKRU);
    if (pkru && in_use(vcpu, COMPONENT_PKRU))
        memcpy(&value, pkru, sizeof value);
    return value;
}
