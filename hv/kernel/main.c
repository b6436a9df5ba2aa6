/* SPDX-License-Identifier: MIT */
/*
 * The order in which the hypervisor comes up, on one page. hv_start runs on the boot stack with the loader's tables;
 * hv_main on a guarded stack with its own. After that everything is threads.
 */
#include <stdio.h>
#include <string.h>

#include "boot/boot_info.h"
#include "drivers/uart.h"
#include "kernel/acpi.h"
#include "kernel/apic.h"
#include "kernel/cpu.h"
#include "kernel/cpu_setup.h"
#include "kernel/crc32c.h"
#include "kernel/framebuffer.h"
#include "kernel/heap.h"
#include "kernel/ioapic.h"
#include "kernel/layout.h"
#include "kernel/log.h"
#include "kernel/node.h"
#include "kernel/page.h"
#include "kernel/power.h"
#include "kernel/random.h"
#include "kernel/thread.h"
#include "kernel/time.h"
#include "kernel/timer.h"
#include "kernel/trap.h"
#include "kernel/vmap.h"

#define BOOT_CPU_STACK_BYTES 32768
#define COM1 0x3f8

extern uintptr_t __stack_chk_guard;
NORETURN void stack_switch_and_call(void *stack_top, void (*fn)(void));
NORETURN void hv_start(struct boot_info *info);

static struct boot_info boot;
static struct cpu boot_cpu = { .timers_lock = SPINLOCK_INIT("timers") };

const struct boot_info *boot_info_get(void)
{
    return &boot;
}

/* The tables go to the end of the first range that holds them; the rest of all free ranges goes to the allocator. */
static void memory_init(void)
{
    const struct boot_mem_range *range = (const void *)(HV_DIRECT_BASE + boot.mem);
    uint64_t ram_end = 0, tables = 0, table_bytes;

    for (uint64_t i = 0; i < boot.mem_count; i++)
        if (range[i].type != BOOT_MEM_MMIO && range[i].type != BOOT_MEM_RESERVED)
            ram_end = MAX(ram_end, range[i].base + range[i].bytes);
    table_bytes = ALIGN_UP(page_table_bytes(ram_end), PAGE_BYTES);
    for (uint64_t i = 0; i < boot.mem_count && !tables; i++)
        if (range[i].type == BOOT_MEM_FREE && range[i].base >= MIB && range[i].bytes >= table_bytes)
            tables = range[i].base + range[i].bytes - table_bytes;
    if (!tables)
        panic("memory: no free range of %lu KiB for the page allocator's tables", table_bytes / KIB);
    page_init((void *)(HV_DIRECT_BASE + tables), ram_end);
    for (uint64_t i = 0; i < boot.mem_count; i++) {
        uint64_t base = range[i].base, bytes = range[i].bytes;
        if (range[i].type != BOOT_MEM_FREE)
            continue;
        if (range_within(tables - base, table_bytes, bytes) && tables >= base)
            bytes -= table_bytes;
        if (bytes)
            page_add(HPA(base), bytes);
    }
}

static void hv_main(void);

void hv_start(struct boot_info *info)
{
    cpu_detect();
    boot_cpu.self = &boot_cpu;
    boot_cpu.online = true;
    cpus[0] = &boot_cpu;
    wrmsr(MSR_GS_BASE, (uint64_t)&boot_cpu);
    uart_init(COM1);
    if (info->magic != BOOT_INFO_MAGIC || info->version != BOOT_INFO_VERSION || info->bytes != sizeof boot)
        panic("boot: the loader's hand-over has another version; loader and hypervisor must come from one file");
    boot = *info;
    uint64_t canary;
    memcpy(&canary, boot.random_seed, sizeof canary);
    __stack_chk_guard = (canary ^ rdtsc()) & ~0xffull; /* a zero byte stops string overruns */
    cpu_setup_control();
    memory_init();
    vmap_init(&boot);
    void *stack = vmap_stack(BOOT_CPU_STACK_BYTES);
    if (!stack)
        panic("boot: no memory for a stack");
    boot_cpu.stack_top = (uint64_t)stack;
    stack_switch_and_call(stack, hv_main);
}

static void hv_main(void)
{
    trap_init();
    if (!trap_cpu_init(&boot_cpu))
        panic("boot: no memory for descriptor tables");
    acpi_init(boot.rsdp);
    time_init(acpi_info.pm_timer_port, boot.unix_time_s, boot.tsc_at_exit);
    framebuffer_init(&boot.framebuffer);
    log_info("Tasuki on %s, %s", cpu_features.brand[0] ? cpu_features.brand : "an unnamed CPU", cpu_features.vendor_name);
    apic_init(acpi_info.apic_page ? acpi_info.apic_page : 0xfee00000);
    apic_cpu_init();
    ioapic_init();
    boot_cpu.apic_id = apic_id();
    thread_init_cpu(&boot_cpu);
    timer_init_vector();
    apic_timer_calibrate();
    power_init(&boot);
    random_seed(boot.random_seed, sizeof boot.random_seed);
    memset(boot.random_seed, 0, sizeof boot.random_seed);
    crc32c_use_hardware(cpu_features.sse42);
    irq_enable();
    smp_start(&boot);
    smp_find_cores();

    struct page_totals totals;
    page_totals_get(&totals);
    log_info("memory: %lu MiB, %lu MiB free, %lu KiB of tables", totals.ram_bytes / MIB, totals.free_bytes / MIB,
             totals.table_bytes / KIB);
    node_start();
    thread_idle();
}
