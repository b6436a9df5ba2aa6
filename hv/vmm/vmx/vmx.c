/* SPDX-License-Identifier: MIT */
/*
 * The VMX backend: what the machine has, switching it on, and the objects behind VMs and vCPUs. See vmx.h for the rest.
 * The manual is Intel SDM vol. 3C, chapters 24 to 32.
 *
 * Every port access exits. The MSR bitmap is the VM's: all ones (every access exits) but for those that
 * msr_passthrough() opened.
 */
#include <stdio.h>
#include <string.h>

#include "kernel/cpu.h"
#include "kernel/heap.h"
#include "kernel/log.h"
#include "vmm/vmx/vmx.h"

#define CPUID_VMX BIT(5) /* leaf 1 ECX */
#define FEATURE_CONTROL_LOCK BIT(0)
#define FEATURE_CONTROL_VMX BIT(2) /* outside SMX */
#define BASIC_TRUE_CONTROLS BIT(55)

/* Appendix A. */
#define MSR_VMX_BASIC 0x480
#define MSR_VMX_PIN 0x481
#define MSR_VMX_PROCESSOR 0x482
#define MSR_VMX_EXIT 0x483
#define MSR_VMX_ENTRY 0x484
#define MSR_VMX_CR0_FIXED0 0x486
#define MSR_VMX_CR0_FIXED1 0x487
#define MSR_VMX_CR4_FIXED0 0x488
#define MSR_VMX_CR4_FIXED1 0x489
#define MSR_VMX_SECONDARY 0x48b
#define MSR_VMX_EPT_VPID 0x48c
#define MSR_VMX_TRUE_PIN 0x48d
#define MSR_VMX_TRUE_PROCESSOR 0x48e
#define MSR_VMX_TRUE_EXIT 0x48f
#define MSR_VMX_TRUE_ENTRY 0x490

#define VPID_COUNT 65536u

struct vmx_caps vmx_caps;
struct vmm_features vmx_features;
static uint64_t vpids[VPID_COUNT / 64] = { 1 }; /* taken ones; 0 is the host's */

static void msrs_read(struct vmx_msrs *m)
{
    *m = (struct vmx_msrs){ .basic = rdmsr(MSR_VMX_BASIC) };
    bool exact = m->basic & BASIC_TRUE_CONTROLS;

    m->pin = rdmsr(exact ? MSR_VMX_TRUE_PIN : MSR_VMX_PIN);
    m->processor = rdmsr(exact ? MSR_VMX_TRUE_PROCESSOR : MSR_VMX_PROCESSOR);
    m->exit = rdmsr(exact ? MSR_VMX_TRUE_EXIT : MSR_VMX_EXIT);
    m->entry = rdmsr(exact ? MSR_VMX_TRUE_ENTRY : MSR_VMX_ENTRY);
    m->cr0_fixed0 = rdmsr(MSR_VMX_CR0_FIXED0);
    m->cr0_fixed1 = rdmsr(MSR_VMX_CR0_FIXED1);
    m->cr4_fixed0 = rdmsr(MSR_VMX_CR4_FIXED0);
    m->cr4_fixed1 = rdmsr(MSR_VMX_CR4_FIXED1);
    if (m->processor >> 32 & CPU_SECONDARY)
        m->secondary = rdmsr(MSR_VMX_SECONDARY);
    if (m->secondary >> 32 & (CPU2_EPT | CPU2_VPID))
        m->ept_vpid = rdmsr(MSR_VMX_EPT_VPID);
}

static bool probe(char *why, size_t why_bytes)
{
    uint64_t control;
    struct vmx_msrs msrs;

    if (!(cpuid(1, 0).ecx & CPUID_VMX)) {
        snprintf(why, why_bytes, "this CPU has no VMX (CPUID 1 ECX bit 5 is clear)");
        return false;
    }
    if (!rdmsr_safe(MSR_FEATURE_CONTROL, &control)) {
        snprintf(why, why_bytes, "this CPU says that it has VMX but has no IA32_FEATURE_CONTROL");
        return false;
    }
    if ((control & FEATURE_CONTROL_LOCK) && !(control & FEATURE_CONTROL_VMX)) {
        snprintf(why, why_bytes, "VMX is disabled by the firmware (IA32_FEATURE_CONTROL = 0x%llx, locked): "
                                 "switch VT-x on in the firmware's set-up", (unsigned long long)control);
        return false;
    }
    msrs_read(&msrs);
    return vmx_caps_compute(&msrs, &vmx_caps, &vmx_features, why, why_bytes);
}

/* IA32_FEATURE_CONTROL must be locked with VMX allowed before VMXON (24.7). */
static bool feature_control_set(void)
{
    uint64_t control = rdmsr(MSR_FEATURE_CONTROL);

    if (!(control & FEATURE_CONTROL_LOCK))
        wrmsr(MSR_FEATURE_CONTROL, control | FEATURE_CONTROL_VMX | FEATURE_CONTROL_LOCK);
    control = rdmsr(MSR_FEATURE_CONTROL);
    if ((control & FEATURE_CONTROL_LOCK) && (control & FEATURE_CONTROL_VMX))
        return true;
    log_error("cpu %u: VMX is disabled by the firmware (IA32_FEATURE_CONTROL = 0x%llx): switch VT-x on in its set-up",
              this_cpu()->id, (unsigned long long)control);
    return false;
}

static enum status cpu_enable(void)
{
    struct cpu *cpu = this_cpu();
    struct vmx_cpu *x;

    if (!feature_control_set())
        return ERR_UNSUPPORTED;
    x = kzalloc(sizeof(*x));
    if (!x)
        return ERR_NO_MEMORY;
    if (!page_alloc(PAGE_BYTES, PAGE_OWNER_HV, PAGE_ZERO, &x->vmxon_region)) {
        kfree(x, sizeof(*x));
        return ERR_NO_MEMORY;
    }
    *(uint32_t *)phys_to_virt(x->vmxon_region) = vmx_caps.revision;
    write_cr0((read_cr0() | vmx_caps.host_cr0_set) & vmx_caps.host_cr0_allowed);
    write_cr4(read_cr4() | vmx_caps.cr4_set | CR4_VMXE);
    if (!vmxon(x->vmxon_region.v)) {
        log_error("cpu %u: VMXON failed (CR0 0x%llx, CR4 0x%llx)", cpu->id, (unsigned long long)read_cr0(),
                  (unsigned long long)read_cr4());
        write_cr4(read_cr4() & ~CR4_VMXE);
        page_free(x->vmxon_region, PAGE_BYTES, PAGE_OWNER_HV);
        kfree(x, sizeof(*x));
        return ERR_UNSUPPORTED;
    }
    guest_regs_host_init();
    cpu->vmm = x;
    return OK;
}

static void tables_reload(const struct cpu *cpu)
{
    struct PACKED { uint16_t limit; uint64_t base; } gdt = { cpu->gdt_limit, cpu->gdt_base },
                                                     idt = { cpu->idt_limit, cpu->idt_base };
    __asm__ volatile("lgdt %0; lidt %1" : : "m"(gdt), "m"(idt));
}

static void cpu_disable(void)
{
    struct cpu *cpu = this_cpu();
    struct vmx_cpu *x = cpu->vmm;

    if (!x)
        return;
    vmx_evict(x);
    if (x->vmcs && !vmclear(x->vmcs->vmcs.v))
        log_error("cpu %u: VMCLEAR before VMXOFF failed", cpu->id);
    cpu->vmm = NULL;
    __asm__ volatile("vmxoff" : : : "cc", "memory");
    write_cr4(read_cr4() & ~CR4_VMXE);
    tables_reload(cpu);
    page_free(x->vmxon_region, PAGE_BYTES, PAGE_OWNER_HV);
    kfree(x, sizeof(*x));
}

/* 25.6.9: a bit an MSR; reads in the first half of the page, writes in the second, low MSRs before high ones. */
void vmx_msr_bits(uint8_t *map, uint32_t msr, bool read, bool write)
{
    uint32_t base = msr < 0x2000 ? 0 : 0xc0000000;

    if (msr - base >= 0x2000)
        return; /* always exits */
    uint8_t bit = (uint8_t)(1 << msr % 8);
    uint8_t *reads = map + (base ? 0x400 : 0) + (msr - base) / 8, *writes = reads + 0x800;
    *reads = (uint8_t)(read ? *reads & ~bit : *reads | bit);
    *writes = (uint8_t)(write ? *writes & ~bit : *writes | bit);
}

hpa_t vmx_msr_bitmap(const struct vcpu *vcpu)
{
    const struct vmx_vm *vm = vcpu->vm->backend;
    const struct vmx_vcpu *v = vcpu->backend;

    return vm->msr_bitmap[(v->regs.spec_ctrl ? VMX_BITMAP_SPEC : 0) |
                          (v->apic_assist == APIC_ASSIST_MSRS ? VMX_BITMAP_X2APIC : 0)];
}

static void msr_passthrough(struct vm_core *vm, uint32_t msr, bool read, bool write)
{
    struct vmx_vm *v = vm->backend;

    for (unsigned i = 0; i < VMX_BITMAPS; i++)
        if (v->msr_bitmap[i].v && (msr != MSR_SPEC_CTRL || (i & VMX_BITMAP_SPEC)))
            vmx_msr_bits(phys_to_virt(v->msr_bitmap[i]), msr, read, write);
}

static void vm_destroy(struct vm_core *vm)
{
    struct vmx_vm *v = vm->backend;

    if (!v)
        return;
    for (unsigned i = 0; i < VMX_BITMAPS; i++)
        if (v->msr_bitmap[i].v)
            page_free(v->msr_bitmap[i], PAGE_BYTES, vm->owner);
    kfree(v, sizeof(*v));
    vm->backend = NULL;
}

static enum status vm_create(struct vm_core *vm)
{
    unsigned kinds = (vm->spec_ctrl_valid ? VMX_BITMAP_SPEC : 0) | (vm->apic_assist ? VMX_BITMAP_X2APIC : 0);
    struct vmx_vm *v = kzalloc(sizeof(*v));

    if (!v)
        return ERR_NO_MEMORY;
    vm->backend = v;
    for (unsigned i = 0; i < VMX_BITMAPS; i++) {
        if (i & ~kinds)
            continue;
        if (!page_alloc(PAGE_BYTES, vm->owner, 0, &v->msr_bitmap[i])) {
            vm_destroy(vm);
            return ERR_NO_MEMORY;
        }
        memset(phys_to_virt(v->msr_bitmap[i]), 0xff, PAGE_BYTES);
        if (i & VMX_BITMAP_X2APIC)
            vmx_apic_open_msrs(phys_to_virt(v->msr_bitmap[i]));
    }
    return OK;
}

/*
 * A VPID that no other vCPU has, or 0 where all are taken. Translations of an earlier owner are dropped on each CPU when the
 * new one first comes to it (vmx_flush_all).
 */
static uint16_t vpid_take(void)
{
    for (unsigned i = 0; i < ARRAY_COUNT(vpids); i++) {
        uint64_t free = ~__atomic_load_n(&vpids[i], __ATOMIC_RELAXED);
        while (free) {
            uint64_t bit = free & -free;
            if (!(__atomic_fetch_or(&vpids[i], bit, __ATOMIC_RELAXED) & bit))
                return (uint16_t)(i * 64 + (unsigned)__builtin_ctzll(bit));
            free &= ~bit;
        }
    }
    return 0;
}

static void vpid_give(uint16_t vpid)
{
    if (vpid)
        __atomic_fetch_and(&vpids[vpid / 64], ~(1ull << vpid % 64), __ATOMIC_RELAXED);
}

/* Frees what vcpu_create got, as far as it got. */
static void vcpu_free(struct vmx_vcpu *v, page_owner_t owner)
{
    vpid_give(v->vpid);
    if (v->pml_page.v)
        page_free(v->pml_page, PAGE_BYTES, owner);
    if (v->virtual_apic_page.v)
        page_free(v->virtual_apic_page, PAGE_BYTES, owner);
    if (v->vmcs.v)
        page_free(v->vmcs, PAGE_BYTES, owner);
    kfree(v, sizeof(*v));
}

/*
 * The page-modification log with nothing in it, and the CPU to begin at its first entry, which is the last in memory.
 * With nobody in the guest.
 */
static void pml_empty(struct vmx_vcpu *v)
{
    memset(v->pml_log, 0xff, PAGE_BYTES); /* DIRTY_LOG_EMPTY in every entry */
    v->pml_next = PML_ENTRIES - 1;
}

static enum status vcpu_create(struct vcpu *vcpu)
{
    const struct vm_core *vm = vcpu->vm;
    struct vmx_vcpu *v = kzalloc(sizeof(*v));

    if (!v)
        return ERR_NO_MEMORY;
    if (!page_alloc(PAGE_BYTES, vm->owner, PAGE_ZERO, &v->vmcs) ||
        !page_alloc(PAGE_BYTES, vm->owner, PAGE_ZERO, &v->virtual_apic_page) ||
        (vmx_features.pml && !page_alloc(PAGE_BYTES, vm->owner, 0, &v->pml_page)))
        goto free;
    if (vmx_caps.vpid && !(v->vpid = vpid_take()))
        goto free;
    *(uint32_t *)phys_to_virt(v->vmcs) = vmx_caps.revision;
    v->virtual_apic = phys_to_virt(v->virtual_apic_page);
    vcpu->apic_registers = vm->apic_assist ? phys_to_virt(v->virtual_apic_page) : NULL;
    if (v->pml_page.v) {
        v->pml_log = phys_to_virt(v->pml_page);
        pml_empty(v);
    }
    v->eptp = vm->stage2.root.v | vmx_caps.eptp_bits;
    v->wants = VCPU_WANTS_UNKNOWN;
    v->regs.spec_ctrl_valid = vm->spec_ctrl_valid;
    vcpu->backend = v;
    vcpu->valid = STATE_ALL;
    vcpu->dirty = STATE_ALL;
    vcpu->last_cpu = -1;
    vcpu->tsc_offset_changed = true;
    return OK;

free:
    vcpu_free(v, vm->owner);
    return ERR_NO_MEMORY;
}

static void park(struct vcpu *vcpu)
{
    uint64_t flags = irq_save();

    vmx_release(vcpu);
    irq_restore(flags);
}

static void vcpu_destroy(struct vcpu *vcpu)
{
    if (!vcpu->backend)
        return;
    park(vcpu);
    vcpu_free(vcpu->backend, vcpu->vm->owner);
    vcpu->backend = NULL;
    vcpu->apic_registers = NULL;
}

static void flush(struct vcpu *vcpu)
{
    __atomic_store_n(&vcpu->flush_wanted, true, __ATOMIC_SEQ_CST);
}

static void pml(struct vcpu *vcpu, bool on)
{
    struct vmx_vcpu *v = vcpu->backend;

    v->pml_on = on && vmx_features.pml;
    v->pml_changed = true;
    /*
     * What the CPU has logged after the last log's final drain is not for this log. Nor may it stay: the CPU stores an entry
     * where its index says and takes one off that (SDM vol. 3C, 29.3.6), so with an entry that no drain has taken it stands
     * below software's index. Given software's, it would fill that entry again, while the first drain has already gone
     * on below it, where nothing is found until the log is full. So both begin anew.
     */
    if (v->pml_on)
        pml_empty(v);
    v->wants = VCPU_WANTS_UNKNOWN;
}

static void dump(struct vcpu *vcpu)
{
    uint64_t flags = irq_save();

    vmx_dump(vcpu);
    irq_restore(flags);
}

static const struct guard_sites guard_sites = {
    .entry_call = vmx_guard_entry, .exit_jump = vmx_guard_exit, .entry_clear = vmx_entry_clear,
    .light_jump = vmx_guard_light, .full_exit = vmx_guard_full,
    .exit_barrier = vmx_exit_barrier, .exit_fill = vmx_exit_fill, .exit_return = vmx_exit_return,
};

const struct vmm_backend vmm_backend_vmx = {
    .guard = &guard_sites,
    .name = "vmx",
    .stage2_format = &pt_format_ept,
    .features = &vmx_features,
    .probe = probe,
    .cpu_enable = cpu_enable,
    .cpu_disable = cpu_disable,
    .vm_create = vm_create,
    .vm_destroy = vm_destroy,
    .vcpu_create = vcpu_create,
    .vcpu_destroy = vcpu_destroy,
    .run = vmx_run,
    .load = vmx_load,
    .park = park,
    .flush = flush,
    .pml = pml,
    .pml_drain = vmx_pml_drain,
    .msr_passthrough = msr_passthrough,
    .apic = vmx_apic,
    .dump = dump,
};
