/* SPDX-License-Identifier: MIT */
/*
 * What the run loop asks of the machine (struct vcpu_ops), and what a local APIC asks of its vCPU.
 *
 * INIT and SIPI arrive as signal bits from any CPU and are carried out on the vCPU's own thread, in that order. A vCPU
 * that waits for a SIPI does not run; nothing but that, a park or a stop moves it.
 */
#include "kernel/log.h"
#include "kernel/time.h"
#include "vm/kernel_image.h"
#include "vm/machine.h"
#include "vmm/cpu_state_stream.h"

static struct machine_cpu *machine_cpu_of(struct vcpu *vcpu)
{
    return CONTAINER_OF(vcpu, struct machine_cpu, vcpu);
}

/* ---- For the run loop ---- */

/* What the CPU can do for the APIC in the mode that it is in. */
static enum apic_assist assist_of(const struct vlapic *apic)
{
    return !(apic->base_msr & APIC_BASE_ENABLE)  ? APIC_ASSIST_NONE
           : apic->base_msr & APIC_BASE_X2APIC ? APIC_ASSIST_MSRS
                                               : APIC_ASSIST_PAGE;
}

static void interrupt_hand_over(struct vcpu *vcpu)
{
    struct machine_cpu *cpu = machine_cpu_of(vcpu);

    if (!cpu->apic.page)
        return;
    enum apic_assist assist = assist_of(&cpu->apic);
    bool changed = assist != APIC_ASSIST_NONE && vlapic_lend(&cpu->apic);
    if (changed || assist != cpu->assist) {
        cpu->assist = assist;
        vmm->apic(vcpu, assist);
    }
}

/* The interrupt of the local APIC that software delivers, or -1. */
static int own_interrupt(const struct machine_cpu *cpu)
{
    return cpu->apic.lent ? -1 : vlapic_pending(&cpu->apic);
}

static bool extint_pending(struct machine_cpu *cpu)
{
    return vlapic_has_extint(&cpu->apic) ||
           (cpu->vcpu.id == 0 && vpic_output(&cpu->vm->pic) && vlapic_accepts_extint(&cpu->apic));
}

static int interrupt_pending(struct vcpu *vcpu)
{
    struct machine_cpu *cpu = machine_cpu_of(vcpu);
    int vector = own_interrupt(cpu);

    if (vector >= 0)
        return vector;
    return extint_pending(cpu) ? 0 : -1; /* the 8259 names the vector when it is taken */
}

static bool interrupt_wakes(struct vcpu *vcpu)
{
    struct machine_cpu *cpu = machine_cpu_of(vcpu);

    return vlapic_pending(&cpu->apic) >= 0 || extint_pending(cpu);
}

static int interrupt_take(struct vcpu *vcpu)
{
    struct machine_cpu *cpu = machine_cpu_of(vcpu);
    int vector = own_interrupt(cpu);

    if (vector >= 0) {
        vlapic_accept(&cpu->apic, (uint8_t)vector);
        return vector;
    }
    (void)vlapic_take_extint(&cpu->apic);
    spin_lock(&cpu->vm->lock);
    vector = vpic_acknowledge(&cpu->vm->pic);
    spin_unlock(&cpu->vm->lock);
    return vector;
}

static void interrupt_return(struct vcpu *vcpu, uint8_t vector)
{
    struct machine_cpu *cpu = machine_cpu_of(vcpu);

    if (vlapic_return(&cpu->apic, vector))
        return;
    spin_lock(&cpu->vm->lock);
    vpic_return(&cpu->vm->pic, vector);
    spin_unlock(&cpu->vm->lock);
}

static unsigned tpr_threshold(struct vcpu *vcpu)
{
    unsigned threshold = vlapic_tpr_threshold(&machine_cpu_of(vcpu)->apic);

    return threshold > 15 ? 0 : threshold;
}

static void arm_host_timer(struct machine_cpu *cpu)
{
    timer_arm(&cpu->vcpu.timer, machine_host_time(cpu->vm, vtimer_next(&cpu->timers)));
}

static void timer_due(struct vcpu *vcpu)
{
    struct machine_cpu *cpu = machine_cpu_of(vcpu);

    vtimer_run(&cpu->timers, machine_now(cpu->vm));
    arm_host_timer(cpu);
}

void machine_timers_changed(void *context)
{
    struct machine_cpu *cpu = context;

    /* While the vCPU is not on a CPU its timer is armed when its thread goes on (REQ_TIMER). */
    if (cpu->vcpu.thread == thread_current())
        arm_host_timer(cpu);
}

static bool request(struct vcpu *vcpu)
{
    struct machine_cpu *cpu = machine_cpu_of(vcpu);
    uint32_t signals = __atomic_exchange_n(&cpu->signals, 0, __ATOMIC_ACQ_REL);

    if ((signals & SIGNAL_INIT) && vcpu->id == 0) {
        vm_signal(cpu->vm, ORDER_GUEST_RESET); /* there is no firmware at the reset vector: the machine starts anew */
        return false;
    }
    if (signals & SIGNAL_INIT) {
        machine_cpu_reset(cpu, true);
        cpu->waits_for_sipi = vcpu->id != 0;
    }
    if ((signals & SIGNAL_SIPI) && cpu->waits_for_sipi) {
        struct cpu_state *s = &vcpu->state;
        s->seg[SEG_CS].selector = (uint16_t)(cpu->sipi_vector << 8);
        s->seg[SEG_CS].base = (uint64_t)cpu->sipi_vector << 12;
        s->rip = 0;
        vcpu->dirty |= STATE_ALL;
        cpu->waits_for_sipi = false;
    }
    return !cpu->waits_for_sipi;
}

static void deadline(struct vcpu *vcpu)
{
    struct machine_cpu *cpu = machine_cpu_of(vcpu);

    log_info("vm %s: vCPU %u holds at its run deadline", cpu->vm->name, vcpu->id);
}

const struct vcpu_ops machine_vcpu_ops = {
    .exit = machine_exit,
    .interrupt_hand_over = interrupt_hand_over,
    .interrupt_wakes = interrupt_wakes,
    .interrupt_pending = interrupt_pending,
    .interrupt_take = interrupt_take,
    .interrupt_return = interrupt_return,
    .tpr_threshold = tpr_threshold,
    .timer = timer_due,
    .request = request,
    .deadline = deadline,
};

/* ---- For the APIC ---- */

static void apic_kick(void *context)
{
    struct machine_cpu *cpu = context;

    vcpu_request(&cpu->vcpu, REQ_EVENT);
}

static void apic_nmi(void *context)
{
    struct machine_cpu *cpu = context;

    __atomic_store_n(&cpu->vcpu.nmi_pending, true, __ATOMIC_RELEASE);
    vcpu_request(&cpu->vcpu, REQ_EVENT);
}

static void apic_init_signal(void *context)
{
    struct machine_cpu *cpu = context;

    __atomic_fetch_or(&cpu->signals, SIGNAL_INIT, __ATOMIC_ACQ_REL);
    vcpu_request(&cpu->vcpu, REQ_OWNER);
}

static void apic_sipi(void *context, uint8_t vector)
{
    struct machine_cpu *cpu = context;

    cpu->sipi_vector = vector;
    __atomic_fetch_or(&cpu->signals, SIGNAL_SIPI, __ATOMIC_ACQ_REL);
    vcpu_request(&cpu->vcpu, REQ_OWNER);
}

static uint64_t apic_tsc(void *context)
{
    struct machine_cpu *cpu = context;

    return machine_tsc(cpu->vm) + cpu->vcpu.tsc_offset;
}

static uint64_t apic_tsc_to_ns(void *context, uint64_t tsc)
{
    struct machine_cpu *cpu = context;
    uint64_t now_tsc = machine_tsc(cpu->vm) + cpu->vcpu.tsc_offset, now = machine_now(cpu->vm);

    /* In guest units and from now on: a value in the past is due, one that is ages away saturates and never wraps. */
    if (tsc <= now_tsc)
        return now;
    uint64_t wait = time_ticks_to_ns(tsc_host_ticks(cpu->vm->core.tsc_multiplier, tsc - now_tsc));
    return wait < VTIMER_OFF - 1 - now ? now + wait : VTIMER_OFF - 1;
}

const struct vlapic_ops machine_apic_ops = {
    .kick = apic_kick,
    .nmi = apic_nmi,
    .init = apic_init_signal,
    .sipi = apic_sipi,
    .tsc = apic_tsc,
    .tsc_to_ns = apic_tsc_to_ns,
};

/* ---- The page of the APICs ---- */

/*
 * One second-stage table serves all vCPUs, and an access to the page that is mapped at APIC_PAGE_GPA goes through to it
 * from a vCPU whose APIC does not answer there. So it is mapped only while all of them do; else each access is a fault,
 * and software's, as where the CPU helps with nothing.
 */
void machine_apic_page_update(struct vm *vm)
{
    bool answer = true;

    if (!vm->core.apic_page.v)
        return;
    spin_lock(&vm->lock);
    for (unsigned i = 0; i < vm->cpu_count; i++)
        answer &= assist_of(&vm->cpu[i]->apic) == APIC_ASSIST_PAGE;
    bool unmap = vm->apic_page_mapped && !answer;
    if (answer && !vm->apic_page_mapped) /* marked as dirty already: a page-modification log must not name it */
        vm->apic_page_mapped = stage2_map(&vm->stage2, GPA(APIC_PAGE_GPA), vm->core.apic_page, PAGE_BYTES,
                                          PT_READ | PT_WRITE | PT_ACCESSED | PT_DIRTY) == OK;
    else if (unmap)
        vm->apic_page_mapped = stage2_unmap(&vm->stage2, GPA(APIC_PAGE_GPA), PAGE_BYTES) != OK;
    spin_unlock(&vm->lock);
    for (unsigned i = 0; unmap && i < vm->cpu_count; i++)
        vcpu_flush_wait(&vm->cpu[i]->vcpu);
}

/* ---- Reset ---- */

void machine_cpu_reset(struct machine_cpu *cpu, bool init)
{
    struct vcpu *vcpu = &cpu->vcpu;

    if (init) {
        /* What INIT leaves alone: SDM vol. 3A, table 9-1. */
        vcpu_load(vmm, vcpu, STATE_ALL);
        const struct cpu_state old = vcpu->state;
        struct cpu_state *new = &vcpu->state;
        cpu_state_reset(new);
        new->xcr0 = old.xcr0;
        new->xss = old.xss;
        new->tsc_aux = old.tsc_aux;
        new->star = old.star;
        new->lstar = old.lstar;
        new->cstar = old.cstar;
        new->fmask = old.fmask;
        new->kernel_gs_base = old.kernel_gs_base;
        new->sysenter_cs = old.sysenter_cs;
        new->sysenter_esp = old.sysenter_esp;
        new->sysenter_eip = old.sysenter_eip;
        new->pat = old.pat;
        new->spec_ctrl = old.spec_ctrl;
        new->cr0 = (new->cr0 & ~(CR0_CD | CR0_NW)) | (old.cr0 & (CR0_CD | CR0_NW));
        vlapic_reset(&cpu->apic);
    } else {
        cpu_state_reset(&vcpu->state);
        xsave_reset(vcpu->xsave, &cpu->vm->model.xsave);
    }
    vcpu->nmi_pending = false;
    vcpu->valid = STATE_ALL;
    vcpu->dirty = STATE_ALL;
}
