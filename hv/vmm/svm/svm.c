/* SPDX-License-Identifier: MIT */
/*
 * The SVM backend: what the machine has, switching it on, and the objects behind VMs and vCPUs. See svm.h for the rest.
 * The manual is AMD APM vol. 2, chapter 15.
 *
 * One I/O permission map of ones serves all VMs: every port access exits. The MSR permission map is the VM's: all ones
 * (every access exits) but for those that msr_passthrough() opened. A guest's physical addresses go through nested
 * paging always.
 */
#include <stdio.h>
#include <string.h>

#include "kernel/cpu.h"
#include "kernel/heap.h"
#include "kernel/log.h"
#include "vmm/svm/svm.h"

#define CPUID_SVM BIT(2)            /* 8000_0001 ECX */
#define CPUID_1G BIT(26)            /* 8000_0001 EDX */
#define VM_CR_SVMDIS BIT(4)
#define SVM_FEATURE_NP BIT(0)       /* 8000_000A EDX */
#define SVM_FEATURE_LBR BIT(1)
#define SVM_FEATURE_LOCK BIT(2)
#define SVM_FEATURE_NRIP BIT(3)
#define SVM_FEATURE_TSC_RATE BIT(4)
#define SVM_FEATURE_CLEAN BIT(5)
#define SVM_FEATURE_FLUSH_BY_ASID BIT(6)
#define SVM_FEATURE_DECODE BIT(7)
#define SVM_FEATURE_PAUSE_FILTER BIT(10)
#define SVM_FEATURE_PAUSE_THRESHOLD BIT(12)
#define SVM_FEATURE_AVIC BIT(13)
#define SVM_FEATURE_VGIF BIT(16)
#define SVM_FEATURE_SPEC_CTRL BIT(20)

#define IOPM_PAGES 3
#define MSRPM_PAGES 2
#define PAUSE_COUNT 3000      /* PAUSEs in a row that pass for a short wait ... */
#define PAUSE_THRESHOLD 128   /* ... and cycles between two that still belong to one row */

struct vmm_features svm_features;
static hpa_t io_map;
static uint32_t svm_feature_bits;

static bool refuse(char *why, size_t why_bytes, const char *reason)
{
    snprintf(why, why_bytes, "%s", reason);
    return false;
}

static bool probe(char *why, size_t why_bytes)
{
    uint64_t vm_cr;

    if (cpuid(0x80000000, 0).eax < 0x8000000a || !(cpuid(0x80000001, 0).ecx & CPUID_SVM))
        return refuse(why, why_bytes, "this CPU has no SVM (CPUID 8000_0001 ECX bit 2 is clear)");
    struct cpuid_regs r = cpuid(0x8000000a, 0);
    svm_feature_bits = r.edx;
    if (rdmsr_safe(MSR_VM_CR, &vm_cr) && (vm_cr & VM_CR_SVMDIS))
        return refuse(why, why_bytes, r.edx & SVM_FEATURE_LOCK
            ? "SVM is disabled by the firmware (VM_CR.SVMDIS, with a lock key): switch SVM on in the firmware's set-up"
            : "SVM is disabled by the firmware (VM_CR.SVMDIS): switch SVM on in the firmware's set-up");
    if (!(r.edx & SVM_FEATURE_NP))
        return refuse(why, why_bytes, "this CPU has SVM but no nested paging (CPUID 8000_000A EDX bit 0 is clear)");
    if (r.ebx < 2)
        return refuse(why, why_bytes, "this CPU has SVM but no address space identifiers (CPUID 8000_000A EBX)");
    svm_features = (struct vmm_features){
        .next_rip = r.edx & SVM_FEATURE_NRIP,
        .decode_assists = r.edx & SVM_FEATURE_DECODE,
        .flush_by_asid = r.edx & SVM_FEATURE_FLUSH_BY_ASID,
        .vmcb_clean = r.edx & SVM_FEATURE_CLEAN,
        .vgif = r.edx & SVM_FEATURE_VGIF,
        .avic = r.edx & SVM_FEATURE_AVIC,
        .branch_step = r.edx & SVM_FEATURE_LBR,
        .second_stage_ad = true, /* nested tables are ordinary tables (15.25.5) */
        .second_stage_1g = cpuid(0x80000001, 0).edx & CPUID_1G,
        .pdptes_in_memory = true, /* 15.25.10 */
        .tsc = { .integer_bits = 8, .fraction_bits = r.edx & SVM_FEATURE_TSC_RATE ? 32 : 0 },
        .virtual_spec_ctrl = r.edx & SVM_FEATURE_SPEC_CTRL,
        .rdtscp = cpu_features.rdtscp,
        .invpcid = true, /* where the CPU has it */
        .xsaves = cpu_features.xsaves,
        .asid_count = r.ebx,
    };
    if (!io_map.v) {
        if (!page_alloc_run(IOPM_PAGES, PAGE_OWNER_HV, 0, &io_map))
            return refuse(why, why_bytes, "no memory for the I/O permission map");
        memset(phys_to_virt(io_map), 0xff, IOPM_PAGES * PAGE_BYTES);
    }
    return true;
}

static enum status cpu_enable(void)
{
    struct cpu *cpu = this_cpu();
    struct svm_cpu *s = kzalloc(sizeof(*s));

    if (!s)
        return ERR_NO_MEMORY;
    if (!page_alloc(PAGE_BYTES, PAGE_OWNER_HV, PAGE_ZERO, &s->save_area))
        goto free_cpu;
    if (!page_alloc(PAGE_BYTES, PAGE_OWNER_HV, PAGE_ZERO, &s->host_page))
        goto free_save_area;
    s->host_vmcb = s->host_page.v;
    s->next_asid = 1;
    s->asid_generation = 1;
    svm_set_tsc_ratio(s, TSC_UNSCALED); /* the firmware may have left another */
    wrmsr(MSR_EFER, rdmsr(MSR_EFER) | EFER_SVME);
    wrmsr(MSR_VM_HSAVE_PA, s->save_area.v);
    /* The host's FS, GS, TR, LDTR and system call MSRs do not change any more: kept once, loaded at each exit. */
    __asm__ volatile("vmsave %0" : : "a"(s->host_vmcb) : "memory");
    guest_regs_host_init();
    cpu->vmm = s;
    return OK;

free_save_area:
    page_free(s->save_area, PAGE_BYTES, PAGE_OWNER_HV);
free_cpu:
    kfree(s, sizeof(*s));
    return ERR_NO_MEMORY;
}

static void cpu_disable(void)
{
    struct cpu *cpu = this_cpu();
    struct svm_cpu *s = cpu->vmm;

    if (!s)
        return;
    svm_evict(s);
    svm_set_tsc_ratio(s, TSC_UNSCALED);
    cpu->vmm = NULL;
    __asm__ volatile("stgi"); /* GIF means nothing with SVME clear, but a next user may rely on it */
    wrmsr(MSR_VM_HSAVE_PA, 0);
    wrmsr(MSR_EFER, rdmsr(MSR_EFER) & ~EFER_SVME);
    page_free(s->host_page, PAGE_BYTES, PAGE_OWNER_HV);
    page_free(s->save_area, PAGE_BYTES, PAGE_OWNER_HV);
    kfree(s, sizeof(*s));
}

/* 15.11: two bits an MSR, read then write, in three ranges of 0x800 bytes each. False: not in the map, always exits. */
static bool msr_map_bit(uint32_t msr, uint32_t *bit)
{
    static const uint32_t bases[] = { 0, 0xc0000000, 0xc0010000 };

    for (unsigned i = 0; i < ARRAY_COUNT(bases); i++)
        if (msr - bases[i] < 0x2000) {
            *bit = i * 0x800 * 8 + (msr - bases[i]) * 2;
            return true;
        }
    return false;
}

static void msr_map_set(hpa_t bitmap, uint32_t msr, bool read, bool write)
{
    uint8_t *map = phys_to_virt(bitmap);
    uint32_t bit;

    if (!bitmap.v || !msr_map_bit(msr, &bit))
        return;
    uint8_t mask = (uint8_t)(3 << bit % 8), denied = (uint8_t)(((read ? 0 : 1) | (write ? 0 : 2)) << bit % 8);
    map[bit / 8] = (uint8_t)((map[bit / 8] & ~mask) | denied);
}

static void msr_passthrough(struct vm_core *vm, uint32_t msr, bool read, bool write)
{
    struct svm_vm *v = vm->backend;

    msr_map_set(v->msr_bitmap_spec, msr, read, write);
    if (msr != MSR_SPEC_CTRL || svm_features.virtual_spec_ctrl)
        msr_map_set(v->msr_bitmap, msr, read, write);
}

static enum status vm_create(struct vm_core *vm)
{
    struct svm_vm *v = kzalloc(sizeof(*v));

    if (!v)
        return ERR_NO_MEMORY;
    if (!page_alloc_run(MSRPM_PAGES, vm->owner, 0, &v->msr_bitmap))
        goto free_vm;
    memset(phys_to_virt(v->msr_bitmap), 0xff, MSRPM_PAGES * PAGE_BYTES);
    if (vm->spec_ctrl_valid && !svm_features.virtual_spec_ctrl) {
        if (!page_alloc_run(MSRPM_PAGES, vm->owner, 0, &v->msr_bitmap_spec))
            goto free_bitmap;
        memset(phys_to_virt(v->msr_bitmap_spec), 0xff, MSRPM_PAGES * PAGE_BYTES);
    }
    vm->backend = v;
    return OK;

free_bitmap:
    page_free_run(v->msr_bitmap, MSRPM_PAGES, vm->owner);
free_vm:
    kfree(v, sizeof(*v));
    return ERR_NO_MEMORY;
}

static void vm_destroy(struct vm_core *vm)
{
    struct svm_vm *v = vm->backend;

    if (!v)
        return;
    if (v->msr_bitmap_spec.v)
        page_free_run(v->msr_bitmap_spec, MSRPM_PAGES, vm->owner);
    page_free_run(v->msr_bitmap, MSRPM_PAGES, vm->owner);
    kfree(v, sizeof(*v));
    vm->backend = NULL;
}

static void controls_init(const struct vm_core *core, struct vmcb *vmcb)
{
    const struct svm_vm *vm = core->backend;

    vmcb->exceptions = BIT(EXC_DB) | BIT(EXC_AC) | BIT(EXC_MC);
    vmcb->intercepts1 = SVM_I1_INTR | SVM_I1_NMI | SVM_I1_INIT | SVM_I1_CR0_SELECTIVE | SVM_I1_RDPMC | SVM_I1_CPUID |
                        SVM_I1_RSM | SVM_I1_INVD | SVM_I1_HLT | SVM_I1_INVLPGA | SVM_I1_IOIO | SVM_I1_MSR |
                        SVM_I1_TASK_SWITCH | SVM_I1_SHUTDOWN;
    vmcb->intercepts2 = SVM_I2_VMRUN | SVM_I2_VMMCALL | SVM_I2_VMLOAD | SVM_I2_VMSAVE | SVM_I2_STGI | SVM_I2_CLGI |
                        SVM_I2_SKINIT | SVM_I2_WBINVD | SVM_I2_MONITOR | SVM_I2_MWAIT | SVM_I2_XSETBV | SVM_I2_RDPRU;
    vmcb->intercepts3 = SVM_I3_INVLPGB | SVM_I3_INVLPGB_ILLEGAL | SVM_I3_MCOMMIT | SVM_I3_TLBSYNC;
    if (!(core->instructions & INSTRUCTION_RDTSCP))
        vmcb->intercepts2 |= SVM_I2_RDTSCP; /* RDPID has no intercept */
    if (!(core->instructions & INSTRUCTION_INVPCID))
        vmcb->intercepts3 |= SVM_I3_INVPCID;
    vmcb->cr_writes = BIT(4);
    if (svm_feature_bits & SVM_FEATURE_PAUSE_FILTER) { /* without it every PAUSE would exit: worse than to spin */
        vmcb->intercepts1 |= SVM_I1_PAUSE;
        vmcb->pause_count = PAUSE_COUNT;
        vmcb->pause_threshold = svm_feature_bits & SVM_FEATURE_PAUSE_THRESHOLD ? PAUSE_THRESHOLD : 0;
    }
    vmcb->iopm_base = io_map.v;
    vmcb->msrpm_base = vm->msr_bitmap.v;
    vmcb->int_ctl = SVM_V_INTR_MASKING;
    vmcb->np_enable = 1;
    vmcb->n_cr3 = core->stage2.root.v;
}

static enum status vcpu_create(struct vcpu *vcpu)
{
    const struct vm_core *core = vcpu->vm;
    const struct svm_vm *vm = core->backend;
    struct svm_vcpu *v = kzalloc(sizeof(*v));
    hpa_t page;

    if (!v)
        return ERR_NO_MEMORY;
    if (!page_alloc(PAGE_BYTES, core->owner, PAGE_ZERO, &page)) {
        kfree(v, sizeof(*v));
        return ERR_NO_MEMORY;
    }
    v->vmcb = phys_to_virt(page);
    v->vmcb_hpa = page.v;
    v->wants = VCPU_WANTS_UNKNOWN;
    v->regs.spec_ctrl_valid = vm->msr_bitmap_spec.v ? core->spec_ctrl_valid : 0;
    controls_init(core, v->vmcb);
    vcpu->backend = v;
    length_cache_clear(&v->lengths);
    vcpu->lengths = svm_features.next_rip ? NULL : &v->lengths;
    vcpu->valid = STATE_ALL;
    vcpu->dirty = STATE_ALL;
    vcpu->last_cpu = -1;
    vcpu->tsc_offset_changed = true;
    return OK;
}

static void park(struct vcpu *vcpu)
{
    struct svm_cpu *cpu = vmm_this_cpu();
    uint64_t flags = irq_save();

    vcpu_load(&vmm_backend_svm, vcpu, STATE_ALL);
    svm_store(vcpu, vcpu->dirty);
    vcpu->dirty = 0;
    if (cpu && cpu->current == vcpu)
        svm_evict(cpu);
    vcpu->last_cpu = -1;
    irq_restore(flags);
}

static void vcpu_destroy(struct vcpu *vcpu)
{
    struct svm_vcpu *v = vcpu->backend;

    if (!v)
        return;
    park(vcpu);
    page_free(HPA(v->vmcb_hpa), PAGE_BYTES, vcpu->vm->owner);
    kfree(v, sizeof(*v));
    vcpu->backend = NULL;
}

static void flush(struct vcpu *vcpu)
{
    __atomic_store_n(&vcpu->flush_wanted, true, __ATOMIC_SEQ_CST);
}

/* There is no page-modification log; A/D bits and write protection do its work. */
static void pml(struct vcpu *vcpu, bool on)
{
    (void)vcpu;
    (void)on;
}

static void pml_drain(struct vcpu *vcpu)
{
    (void)vcpu;
}

static void dump_segment(const char *name, const struct vmcb_segment *s)
{
    log_info("  %-5s selector %04x attributes %03x limit %08x base %016llx", name, s->selector, s->attributes,
              s->limit, (unsigned long long)s->base);
}

#define FIELD(member) { #member, offsetof(struct vmcb, member), sizeof(((struct vmcb *)0)->member) }
static const struct { const char *name; uint16_t offset, bytes; } dump_fields[] = {
    FIELD(exit_code), FIELD(exit_info1), FIELD(exit_info2), FIELD(exit_int_info), FIELD(event_inject), FIELD(rip),
    FIELD(rsp), FIELD(rax), FIELD(rflags), FIELD(cpl), FIELD(cr0), FIELD(cr2), FIELD(cr3), FIELD(cr4), FIELD(efer),
    FIELD(dr6), FIELD(dr7), FIELD(g_pat), FIELD(debugctl), FIELD(star), FIELD(lstar), FIELD(cstar), FIELD(sfmask),
    FIELD(kernel_gs_base), FIELD(sysenter_cs), FIELD(sysenter_esp), FIELD(sysenter_eip), FIELD(cr_reads),
    FIELD(cr_writes), FIELD(dr_reads), FIELD(dr_writes), FIELD(exceptions), FIELD(intercepts1), FIELD(intercepts2),
    FIELD(intercepts3), FIELD(pause_threshold), FIELD(pause_count), FIELD(iopm_base), FIELD(msrpm_base),
    FIELD(tsc_offset), FIELD(asid), FIELD(tlb_control), FIELD(int_ctl), FIELD(int_vector), FIELD(int_state),
    FIELD(np_enable), FIELD(n_cr3), FIELD(lbr_control), FIELD(clean), FIELD(next_rip), FIELD(byte_count),
    FIELD(branch_from), FIELD(branch_to), FIELD(exception_from), FIELD(exception_to),
    FIELD(spec_ctrl),
};
#undef FIELD

static void dump(struct vcpu *vcpu)
{
    const struct svm_vcpu *v = vcpu->backend;
    const struct vmcb *vmcb = v->vmcb;

    log_info("vcpu %u: VMCB at %llx, last CPU %d, exit codes %x, %x, the host's CR3 %llx", vcpu->id,
              (unsigned long long)v->vmcb_hpa, vcpu->last_cpu, v->codes[0], v->codes[1], (unsigned long long)read_cr3());
    for (unsigned i = 0; i < ARRAY_COUNT(dump_fields); i++) {
        uint64_t value = 0;
        memcpy(&value, (const char *)vmcb + dump_fields[i].offset, dump_fields[i].bytes);
        log_info("  %-15s %016llx", dump_fields[i].name, (unsigned long long)value);
    }
    dump_segment("es", &vmcb->es);
    dump_segment("cs", &vmcb->cs);
    dump_segment("ss", &vmcb->ss);
    dump_segment("ds", &vmcb->ds);
    dump_segment("fs", &vmcb->fs);
    dump_segment("gs", &vmcb->gs);
    dump_segment("ldtr", &vmcb->ldtr);
    dump_segment("tr", &vmcb->tr);
    dump_segment("gdtr", &vmcb->gdtr);
    dump_segment("idtr", &vmcb->idtr);
    log_info("  cr0 hidden %llx, nmi blocked %d, iret seen %d, stepping %d", (unsigned long long)v->cr0_hidden,
              v->nmi_blocked, v->iret_seen, v->stepping);
}

static const struct guard_sites guard_sites = {
    .entry_call = svm_guard_entry, .exit_jump = svm_guard_exit, .entry_clear = svm_entry_clear,
    .light_jump = svm_guard_light, .full_exit = svm_guard_full,
    .exit_barrier = svm_exit_barrier, .exit_fill = svm_exit_fill, .exit_return = svm_exit_return,
};

const struct vmm_backend vmm_backend_svm = {
    .guard = &guard_sites,
    .name = "svm",
    .stage2_format = &pt_format_npt,
    .features = &svm_features,
    .probe = probe,
    .cpu_enable = cpu_enable,
    .cpu_disable = cpu_disable,
    .vm_create = vm_create,
    .vm_destroy = vm_destroy,
    .vcpu_create = vcpu_create,
    .vcpu_destroy = vcpu_destroy,
    .run = svm_run,
    .load = svm_load,
    .park = park,
    .flush = flush,
    .pml = pml,
    .pml_drain = pml_drain,
    .msr_passthrough = msr_passthrough,
    .dump = dump,
};
