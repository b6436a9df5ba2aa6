/* SPDX-License-Identifier: MIT */
/*
 * The guest's local APIC as far as the CPU carries it out (SDM vol. 3C, chapter 30): reads of most registers, writes of
 * TPR, EOI and self-IPIs, and the delivery of what is requested in the virtual-APIC page. Shared code owns what is in that
 * page (vmm.h); here is what the VMCS has to say about it:
 *
 *   guest interrupt status  the highest vector requested (RVI) and in service (SVI), made anew from the page whenever
 *                           shared code has changed it, and kept by the CPU meanwhile (25.4.2)
 *   EOI-exit bitmap         the level-triggered vectors, which are the bits of TMR
 *   controls                "virtualize APIC accesses" in xAPIC mode, "virtualize x2APIC mode" in x2APIC mode, never
 *                           both (27.2.1.1), and none of the four while the APIC is off
 *   MSR bitmap              in x2APIC mode the one that lets the APIC's MSRs through. It is never in force without
 *                           "virtualize x2APIC mode", or the guest would reach the host's APIC
 *
 * VM entry itself evaluates what is pending (27.7.5 and 30.2.1), so an interrupt that was handed over is taken at the
 * guest's first instruction that can. A change of mode drops all translations of the vCPU: whether an address is that of
 * the APIC-access page may be cached with them (29.4.3.4).
 */
#include "vmm/emulate.h"
#include "vmm/vmx/vmx.h"

#define MSR_X2APIC 0x800u
#define X2APIC_EOI 0x0b
#define X2APIC_SELF_IPI 0x3f
#define X2APIC_TPR 0x08

/* Words of the page (30.1.1): the offset divided by 4; eight of 32 vectors each, 16 bytes apart. */
#define PAGE_ISR (0x100 / 4)
#define PAGE_TMR (0x180 / 4)
#define PAGE_IRR (0x200 / 4)

#define MODE_CONTROLS ((uint32_t)(CPU2_APIC_ACCESS | CPU2_X2APIC | CPU2_APIC_REGISTER | CPU2_VIRTUAL_INTERRUPT))

void vmx_apic_open_msrs(uint8_t *map)
{
    /* ID, version, TPR, PPR, LDR, SVR, ISR to IRR, ESR, LVT, initial count, divide. Others are not in the page, are not
     * in it as this mode has them (ICR), or do not exist and must fault. */
    static const struct { uint8_t first, last; } reads[] = {
        { 0x02, 0x03 }, { 0x08, 0x08 }, { 0x0a, 0x0a }, { 0x0d, 0x0d }, { 0x0f, 0x28 }, { 0x32, 0x38 }, { 0x3e, 0x3e },
    };

    for (unsigned i = 0; i < ARRAY_COUNT(reads); i++)
        for (unsigned reg = reads[i].first; reg <= reads[i].last; reg++)
            vmx_msr_bits(map, MSR_X2APIC + reg, true, reg == X2APIC_TPR);
    vmx_msr_bits(map, MSR_X2APIC + X2APIC_EOI, false, true);
    vmx_msr_bits(map, MSR_X2APIC + X2APIC_SELF_IPI, false, true);
}

void vmx_apic(struct vcpu *vcpu, enum apic_assist assist)
{
    struct vmx_vcpu *v = vcpu->backend;

    v->apic_wanted = (uint8_t)assist;
    v->apic_changed = true;
    v->wants = VCPU_WANTS_UNKNOWN; /* so that the next entry comes by vmx_apic_store */
}

static void mode_switch(const struct vcpu *vcpu, struct vmx_vcpu *v)
{
    uint32_t controls = v->secondary_controls & ~MODE_CONTROLS;

    v->apic_assist = v->apic_wanted;
    if (v->apic_assist != APIC_ASSIST_NONE)
        controls |= CPU2_APIC_REGISTER | CPU2_VIRTUAL_INTERRUPT |
                    (uint32_t)(v->apic_assist == APIC_ASSIST_PAGE ? CPU2_APIC_ACCESS : CPU2_X2APIC);
    v->secondary_controls = controls;
    vmwrite(VMCS_SECONDARY_CONTROLS, controls);
    vmwrite(VMCS_MSR_BITMAP, vmx_msr_bitmap(vcpu).v);
    vmx_flush_all(v);
}

static uint64_t highest(const uint32_t *page, unsigned first_word)
{
    for (unsigned i = 8; i-- > 0;)
        if (page[first_word + i * 4])
            return i * 32 + 31 - (unsigned)__builtin_clz(page[first_word + i * 4]);
    return 0;
}

void vmx_apic_store(struct vcpu *vcpu, struct vmx_vcpu *v)
{
    const uint32_t *page = vcpu->apic_registers;

    v->apic_changed = false;
    if (v->apic_assist != v->apic_wanted)
        mode_switch(vcpu, v);
    if (v->apic_assist == APIC_ASSIST_NONE)
        return;
    vmwrite(VMCS_GUEST_INTERRUPT_STATUS, highest(page, PAGE_IRR) | highest(page, PAGE_ISR) << 8);
    for (unsigned i = 0; i < ARRAY_COUNT(v->eoi_exits); i++) {
        uint64_t level = page[PAGE_TMR + i * 8] | (uint64_t)page[PAGE_TMR + i * 8 + 4] << 32;
        if (level != v->eoi_exits[i]) {
            v->eoi_exits[i] = level;
            vmwrite(VMCS_EOI_EXIT_0 + 2 * i, level);
        }
    }
}

/*
 * An access that the CPU does not carry out: for shared code one to memory that is not RAM. Of a write during an event's
 * delivery nothing but its address is told; such a delivery cannot go on anyhow.
 */
void vmx_apic_access(struct vcpu *vcpu, struct vm_exit *exit)
{
    uint64_t qualification = vmread(VMCS_EXIT_QUALIFICATION);
    unsigned type = qualification >> QUALIFICATION_APIC_TYPE_SHIFT & 0xf;
    (void)vcpu;

    exit->kind = EXIT_MEMORY;
    exit->raw_info1 = qualification;
    exit->memory.gpa = GPA(APIC_PAGE_GPA | (qualification & QUALIFICATION_APIC_OFFSET));
    exit->raw_info2 = exit->memory.gpa.v;
    exit->memory.access = type == APIC_ACCESS_WRITE ? ACCESS_WRITE : type == APIC_ACCESS_FETCH ? ACCESS_FETCH : ACCESS_READ;
    exit->memory.walking = type == APIC_ACCESS_PHYSICAL || type == APIC_ACCESS_PHYSICAL_DELIVERY;
    exit->memory.gva_valid = false;
    exit->memory.byte_count = 0;
}

/*
 * Bochs 2.7 does not note a virtual interrupt as the event that is being delivered: an exit in its delivery comes with the
 * event before it. There, an interrupt is in service although its handler has not run, which a handler does with
 * interrupts off until it has ended the interrupt.
 */
uint64_t vmx_apic_vectoring(const struct vcpu *vcpu, uint64_t info)
{
    const struct vmx_vcpu *v = vcpu->backend;

    if (!vmx_caps.vectoring_stale || v->apic_assist == APIC_ASSIST_NONE || !(vcpu->state.rflags & RFLAGS_IF))
        return info;
    uint64_t in_service = vmread(VMCS_GUEST_INTERRUPT_STATUS) >> 8 & 0xff;
    return in_service ? INTERRUPTION_VALID | INTERRUPTION_EXTERNAL << INTERRUPTION_TYPE_SHIFT | in_service : info;
}
