/* SPDX-License-Identifier: MIT */
/* Turns on cores that have more than one thread: locks, interrupts and waiting around core_turn.c. See core.h. */
#include "vmm/core.h"

#include "kernel/apic.h"
#include "kernel/heap.h"
#include "kernel/log.h"
#include "kernel/time.h"
#include "kernel/trap.h"

struct core {
    struct spinlock lock;
    struct core_turn turn;
    struct cpu *first; /* its CPUs, by core_next */
};

static bool any_shared, share_allowed;

bool core_apart(void)
{
    return any_shared && !share_allowed;
}

bool core_any_shared(void)
{
    return any_shared;
}

/* With the lock held. */
static void obey(struct core *core, struct core_order order)
{
    for (struct cpu *cpu = core->first; order.leave && cpu; cpu = cpu->core_next) {
        if (!cpu->core_holder)
            continue;
        __atomic_store_n(&cpu->core_wanted, true, __ATOMIC_SEQ_CST);
        if (cpu != this_cpu())
            apic_ipi(cpu->apic_id, VECTOR_KICK);
    }
    if (!order.wake)
        return;
    for (struct core_waiter *w = core->turn.first; w; w = w->next)
        if (w->vm == core->turn.vm)
            wake_all(&CONTAINER_OF(w, struct vcpu, core_waiter)->queue);
}

/* This CPU gives its claim up. Interrupts off or on. */
static void leave(struct cpu *cpu)
{
    struct core *core = cpu->shared_core;
    uint64_t flags = spin_lock_irqsave(&core->lock);

    cpu->core_holder = NULL;
    cpu->core_vm = 0;
    if (!share_allowed)
        obey(core, core_turn_leave(&core->turn, time_now_ns()));
    spin_unlock_irqrestore(&core->lock, flags);
}

static void thread_switched(const struct thread *from, bool from_stays, const struct thread *to, bool to_guest)
{
    struct cpu *cpu = this_cpu();

    if (!cpu->shared_core)
        return;
    if (cpu->core_holder && cpu->core_holder != to && (to_guest || (cpu->core_holder == from && !from_stays)))
        leave(cpu);
    if (to_guest && cpu->core_holder != to)
        cpu->core_wanted = true;
}

void core_begin(void)
{
    struct cpu *cpu = this_cpu();

    if (!cpu->shared_core)
        return;
    uint64_t flags = irq_save();
    if (cpu->core_holder)
        leave(cpu);
    cpu->core_wanted = true;
    irq_restore(flags);
}

void core_give_way(struct cpu *cpu)
{
    if (cpu->core_holder)
        leave(cpu);
}

void core_cancel_wait(struct vcpu *vcpu)
{
    struct core *core = this_cpu()->shared_core;
    uint64_t flags = spin_lock_irqsave(&core->lock);

    obey(core, core_turn_cancel(&core->turn, &vcpu->core_waiter, time_now_ns()));
    spin_unlock_irqrestore(&core->lock, flags);
}

/* With the lock held: the claim is made. */
static void claimed(struct core *core, struct cpu *cpu, uint64_t vm)
{
    cpu->core_holder = thread_current();
    cpu->core_vm = vm;
    cpu->core_wanted = false;
    for (const struct cpu *other = core->first; other; other = other->core_next) {
        if (other->core_vm && other->core_vm != vm) {
            cpu->core_shares++;
            break;
        }
    }
}

static bool open_to(const struct core *core, uint64_t vm)
{
    return __atomic_load_n(&core->turn.vm, __ATOMIC_ACQUIRE) == vm && !__atomic_load_n(&core->turn.ending, __ATOMIC_ACQUIRE);
}

void core_enter(struct vcpu *vcpu)
{
    struct cpu *cpu = this_cpu();
    struct core *core = cpu->shared_core;
    uint64_t vm = vcpu->vm->serial, now = time_now_ns(), until;
    uint64_t flags = spin_lock_irqsave(&core->lock);
    bool in = share_allowed || core_turn_enter(&core->turn, &vcpu->core_waiter, vm, now);

    if (in)
        claimed(core, cpu, vm);
    else
        obey(core, core_turn_press(&core->turn, &vcpu->core_waiter, now));
    /* Once it is being ended, the last one that leaves wakes the next; the time is for the turn after that. */
    until = core->turn.ending ? now + CORE_TURN_NS : core->turn.ends_ns;
    spin_unlock_irqrestore(&core->lock, flags);
    if (!in)
        (void)wait_event_until(&vcpu->queue, __atomic_load_n(&vcpu->requests, __ATOMIC_SEQ_CST) || open_to(core, vm), until);
}

void core_check(const struct vcpu *vcpu)
{
    struct cpu *cpu = this_cpu();

    if (likely(!cpu->shared_core || cpu->core_vm == vcpu->vm->serial))
        return;
    cpu->core_shares++;
    log_error("core %u: vCPU %u of a VM ran on CPU %u while the core was not its VM's", cpu->core, vcpu->id, cpu->id);
}

/* The core of a CPU that is not in one yet, if another CPU is a thread of it. False: no memory. */
static bool core_make(unsigned index, unsigned *threads)
{
    struct core *core = NULL;

    for (unsigned i = index + 1; i < cpu_count; i++) {
        if (cpus[i]->core != cpus[index]->core)
            continue;
        if (!core) {
            core = kzalloc(sizeof *core);
            if (!core)
                return false;
            core->lock = (struct spinlock)SPINLOCK_INIT("core");
            core->first = cpus[index];
            cpus[index]->shared_core = core;
            ++*threads;
        }
        cpus[i]->shared_core = core;
        cpus[i]->core_next = core->first;
        core->first = cpus[i];
        ++*threads;
    }
    return true;
}

enum status core_init(bool share)
{
    unsigned threads = 0;

    share_allowed = share;
    for (unsigned i = 0; i < cpu_count; i++)
        if (!cpus[i]->shared_core && !core_make(i, &threads))
            return ERR_NO_MEMORY;
    any_shared = threads;
    if (!threads)
        return OK;
    thread_set_switch_hook(thread_switched);
    log_info("node: %u CPUs are threads of cores with others: %s", threads,
             share ? "VMs share cores, as [node] share-cores says" : "one VM at a time on each core");
    return OK;
}
