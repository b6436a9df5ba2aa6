/* SPDX-License-Identifier: MIT */
/*
 * Bringing up the other CPUs, which the MADT or else the firmware's own list names, one at a time: copy the trampoline of
 * entry.S below 1 MiB, tell it where to go, send INIT and STARTUP, and wait until the CPU says that it is there. A CPU that
 * does not come is named and left out.
 *
 * The trampoline needs a CR3 below 4 GiB that maps its own page one to one and the hypervisor: a copy of the host's top
 * table with a small identity map beside it, in the second page that the loader reserved. Each CPU leaves it for the
 * real tables at once.
 */
#include <string.h>

#include "kernel/acpi.h"
#include "kernel/apic.h"
#include "kernel/cpu.h"
#include "kernel/cpu_setup.h"
#include "kernel/heap.h"
#include "kernel/layout.h"
#include "kernel/log.h"
#include "kernel/spinlock.h"
#include "kernel/thread.h"
#include "kernel/time.h"
#include "kernel/topology.h"
#include "kernel/trap.h"
#include "kernel/vmap.h"

#define AP_STACK_BYTES 16384
#define AP_WAIT_NS (2000 * NS_PER_MS)

extern char ap_start[], ap_end[], ap_page[], ap_cr3[], ap_stack[], ap_cpu[], ap_entry[], ap_efer[];

static struct spinlock call_lock = SPINLOCK_INIT("call");
static struct {
    void (*fn)(void *arg);
    void *arg;
    uint32_t left;
} call;

static void call_interrupt(void *arg)
{
    (void)arg;
    call.fn(call.arg);
    __atomic_fetch_sub(&call.left, 1, __ATOMIC_RELEASE);
}

static void kick_interrupt(void *arg)
{
    (void)arg; /* the interrupt itself is the message: the guest was left, or HLT ended */
}

void cpu_call_all(void (*fn)(void *arg), void *arg)
{
    /* Interrupts stay on while waiting for the lock: another caller may be waiting for us to take its call. */
    spin_lock(&call_lock);
    call.fn = fn;
    call.arg = arg;
    __atomic_store_n(&call.left, cpu_count - 1, __ATOMIC_RELEASE);
    for (unsigned i = 0; i < cpu_count; i++)
        if (cpus[i] != this_cpu())
            apic_ipi(cpus[i]->apic_id, VECTOR_CALL);
    uint64_t flags = irq_save();
    fn(arg);
    irq_restore(flags);
    while (__atomic_load_n(&call.left, __ATOMIC_ACQUIRE))
        cpu_pause();
    spin_unlock(&call_lock);
}

/* How a CPU reports to the one that started it: struct cpu.start_state. */
enum { AP_STARTING, AP_ONLINE, AP_DIFFERENT };

/*
 * The TSCs of all CPUs must show the same, for a guest's vCPUs share one offset and timers cross CPUs. The new CPU and
 * the one that started it take turns in writing their TSC into `ping`; each must see a value that is not in its future.
 */
#define TSC_ROUNDS 20
static struct {
    uint32_t turn; /* even: the starter's; odd: the new CPU's; TSC_ROUNDS * 2: done */
    uint64_t tsc;
    uint64_t worst; /* how far the other's TSC was ahead, at the most */
} ping;

static void tsc_compare(uint32_t my_parity, uint64_t deadline_ns)
{
    for (;;) {
        uint32_t turn = __atomic_load_n(&ping.turn, __ATOMIC_ACQUIRE);
        if (turn >= TSC_ROUNDS * 2 || time_now_ns() > deadline_ns)
            return;
        if ((turn & 1) != my_parity) {
            cpu_pause();
            continue;
        }
        uint64_t now = rdtsc_ordered();
        if (turn && ping.tsc > now && ping.tsc - now > ping.worst)
            ping.worst = ping.tsc - now;
        ping.tsc = rdtsc_ordered();
        __atomic_store_n(&ping.turn, turn + 1, __ATOMIC_RELEASE);
    }
}

static void ap_main(struct cpu *cpu)
{
    write_cr3(host_pt.root.v);
    /* Exceptions first: what follows must not end in a reset of the whole machine. */
    if (!trap_cpu_init(cpu))
        panic("smp: no memory for the tables of CPU %u", cpu->id);
    if (!cpu_same_as_boot()) {
        __atomic_store_n(&cpu->start_state, AP_DIFFERENT, __ATOMIC_RELEASE);
        for (;;)
            __asm__ volatile("cli; hlt");
    }
    cpu_setup_control();
    tsc_compare(1, time_now_ns() + AP_WAIT_NS);
    thread_init_cpu(cpu);
    apic_cpu_init();
    __atomic_store_n(&cpu->online, true, __ATOMIC_RELEASE);
    __atomic_store_n(&cpu->start_state, AP_ONLINE, __ATOMIC_RELEASE);
    irq_enable();
    thread_idle();
}

static void set_word(char *page, const char *word, uint64_t value)
{
    memcpy(page + (word - ap_start), &value, sizeof value);
}

/* The copy of the top table, with the first 2 MiB mapped one to one. Returns false where memory ran out. */
static bool build_tables(uint64_t table_hpa)
{
    uint64_t *top = phys_to_virt(HPA(table_hpa));
    hpa_t middle, low;

    if (!page_alloc(PAGE_BYTES, PAGE_OWNER_HV, PAGE_ZERO, &middle) ||
        !page_alloc(PAGE_BYTES, PAGE_OWNER_HV, PAGE_ZERO, &low))
        return false;
    memcpy(top, phys_to_virt(host_pt.root), PAGE_BYTES);
    top[0] = middle.v | 3;
    *(uint64_t *)phys_to_virt(middle) = low.v | 3;
    *(uint64_t *)phys_to_virt(low) = 0x83; /* present, writable, 2 MiB */
    return true;
}

static void start_one(uint32_t apic, char *page, uint64_t page_hpa)
{
    struct cpu *cpu = kzalloc(sizeof *cpu);
    void *stack = vmap_stack(AP_STACK_BYTES);

    if (!cpu || !stack) {
        log_error("smp: no memory for the CPU with APIC ID %u; it stays off", apic);
        return;
    }
    cpu->self = cpu;
    cpu->id = cpu_count;
    cpu->apic_id = apic;
    cpu->timers_lock = (struct spinlock)SPINLOCK_INIT("timers");
    cpu->stack_top = (uint64_t)stack;
    cpus[cpu->id] = cpu;
    set_word(page, ap_stack, (uint64_t)stack);
    set_word(page, ap_cpu, (uint64_t)cpu);
    ping.turn = 0;
    ping.worst = 0;
    apic_start_cpu(apic, page_hpa);
    uint64_t deadline = time_now_ns() + AP_WAIT_NS;
    tsc_compare(0, deadline);
    while (__atomic_load_n(&cpu->start_state, __ATOMIC_ACQUIRE) == AP_STARTING && time_now_ns() < deadline)
        cpu_pause();
    /* Whoever comes late finds no stack and halts (entry.S). */
    uint64_t none = 0;
    __atomic_exchange((uint64_t *)(page + (ap_stack - ap_start)), &none, &none, __ATOMIC_SEQ_CST);
    switch (__atomic_load_n(&cpu->start_state, __ATOMIC_ACQUIRE)) {
    case AP_ONLINE:
        if (ping.worst > time_tsc_khz() / 1000) /* a microsecond: more than the measurement costs */
            log_warning("smp: the TSC of the CPU with APIC ID %u is up to %lu ticks off; clocks of guests may jump between "
                        "CPUs. A newer firmware may set them alike", apic, ping.worst);
        cpu_count++;
        return;
    case AP_DIFFERENT:
        log_error("smp: the CPU with APIC ID %u has other features than the boot CPU; it stays off. Set all cores alike in "
                  "the firmware's setup", apic);
        break;
    default:
        log_error("smp: the CPU with APIC ID %u did not start within 2 s; it stays off", apic);
        break;
    }
    cpus[cpu->id] = NULL; /* its memory stays its own: it may still come */
}

static struct cpuid_regs read_cpuid(uint32_t leaf, uint32_t subleaf)
{
    return cpuid(leaf, subleaf);
}

void smp_find_cores(void)
{
    struct topology t = topology_find(read_cpuid, cpu_features.vendor == CPU_AMD);

    for (unsigned i = 0; i < cpu_count; i++) {
        cpus[i]->package = topology_package(&t, cpus[i]->apic_id);
        cpus[i]->core = topology_core(&t, cpus[i]->apic_id);
        cpus[i]->core_thread = topology_thread(&t, cpus[i]->apic_id);
    }
    log_debug("smp: %u bits of the APIC ID tell threads of a core, %u those of a package, by CPUID leaf %s", t.thread_bits,
              t.package_bits, t.source);
}

void smp_start(const struct boot_info *info)
{
    trap_set_handler(VECTOR_CALL, call_interrupt, NULL);
    trap_set_handler(VECTOR_KICK, kick_interrupt, NULL);
    const uint32_t *ids = acpi_info.cpu_count ? acpi_info.cpu_apic_id : info->cpu_apic_id;
    unsigned count = acpi_info.cpu_count ? acpi_info.cpu_count : info->cpu_count;
    if (count <= 1)
        return;
    if (!info->ap_trampoline) {
        log_error("smp: the firmware left no memory below 1 MiB; one CPU is used");
        return;
    }
    char *page = phys_to_virt(HPA(info->ap_trampoline));
    if (!build_tables(info->ap_trampoline + PAGE_BYTES)) {
        log_error("smp: no memory for the start-up tables; one CPU is used");
        return;
    }
    memcpy(page, ap_start, (size_t)(ap_end - ap_start));
    set_word(page, ap_page, info->ap_trampoline);
    set_word(page, ap_cr3, info->ap_trampoline + PAGE_BYTES);
    set_word(page, ap_entry, (uint64_t)ap_main);
    set_word(page, ap_efer, BIT(8) | (cpu_features.nx ? BIT(11) : 0));
    for (unsigned i = 0; i < count && cpu_count < CPU_MAX; i++)
        if (ids[i] != cpus[0]->apic_id)
            start_one(ids[i], page, info->ap_trampoline);
    log_info("smp: %u CPUs", cpu_count);
}
