/* SPDX-License-Identifier: MIT */
/*
 * UEFI runtime services are called with the physical addresses that they were loaded at (SetVirtualAddressMap is never
 * called): a page table of their own maps their memory one to one, with the hypervisor's upper half beside it. They run
 * on the boot CPU, with interrupts off where another CPU keeps watch over them; a lone CPU leaves them on and watches
 * itself. Where they are missing, come back, or are still at it after FIRMWARE_WAIT_NS, a restart goes on by the means of
 * reset.c.
 *
 * Runtime code is mapped writable and executable in that table, for firmwares write to pages that they call code; the
 * table is loaded for the length of a call only.
 */
#include "kernel/power.h"

#include "drivers/uart.h"
#include "kernel/cpu.h"
#include "kernel/log.h"
#include "kernel/pt.h"
#include "kernel/reset.h"
#include "kernel/time.h"
#include "kernel/timer.h"
#include "kernel/vmap.h"

/* The UEFI calling convention is Microsoft's. */
#define EFI_CALL __attribute__((ms_abi))
#define RESET_SYSTEM_OFFSET 104 /* in EFI_RUNTIME_SERVICES: header 24, ten pointers before it (UEFI 2.10, 4.5) */
#define FIRMWARE_WAIT_NS (5 * NS_PER_S)

/* As EFI_RESET_TYPE numbers them (UEFI 2.10, 8.5.1). */
enum efi_reset { EFI_RESET_COLD, EFI_RESET_SHUTDOWN = 2 };

static struct pt runtime_pt;
static uint64_t runtime_services;
static enum efi_reset wanted;
static struct timer watch;

void power_init(const struct boot_info *info)
{
    const struct boot_mem_range *range = phys_to_virt(HPA(info->mem));

    reset_init();
    if (!info->efi_runtime) {
        log_warning("power: the firmware gave no runtime services; the node can be restarted, but not switched off");
        return;
    }
    if (!pt_create(&runtime_pt, &pt_format_host, PAGE_OWNER_HV, LARGE_PAGE_BYTES)) {
        log_warning("power: no memory for the runtime services' map");
        return;
    }
    for (uint64_t i = 0; i < info->mem_count; i++) {
        enum status status = OK;
        if (range[i].type == BOOT_MEM_RUNTIME)
            status = pt_map(&runtime_pt, range[i].base, HPA(range[i].base), range[i].bytes, PT_READ | PT_WRITE | PT_EXEC);
        else if (range[i].type == BOOT_MEM_MMIO)
            status = pt_map(&runtime_pt, range[i].base, HPA(range[i].base), range[i].bytes,
                            PT_READ | PT_WRITE | PT_UNCACHED);
        if (status != OK) {
            log_warning("power: cannot map the runtime services at 0x%lx", range[i].base);
            return;
        }
    }
    runtime_services = info->efi_runtime;
}

static void firmware_failed(const char *how)
{
    if (wanted == EFI_RESET_COLD) {
        log_warning("power: the firmware does not restart the node: %s", how);
        reset_machine(true);
    }
    log_error("power: the firmware does not switch the node off: %s. It can be switched off by hand now", how);
}

static void watch_fired(struct timer *timer)
{
    (void)timer;
    firmware_failed("nothing has happened for 5 s");
}

/* The last CPU has the watch: another one than the boot CPU where there are two. */
static void arm_watch(void *arg)
{
    (void)arg;
    if (this_cpu() == cpus[cpu_count - 1])
        timer_arm(&watch, time_now_ns() + FIRMWARE_WAIT_NS);
}

static void call_firmware(void)
{
    uint64_t *own = phys_to_virt(runtime_pt.root), *host = phys_to_virt(host_pt.root);

    for (unsigned i = 256; i < 512; i++)
        own[i] = host[i];
    timer_init(&watch, watch_fired);
    cpu_call_all(arm_watch, NULL);
    uart_drain();
    irq_disable();
    if (wanted == EFI_RESET_COLD)
        reset_prepare();
    write_cr4(read_cr4() & ~(uint64_t)(BIT(20) | BIT(21))); /* SMEP and SMAP: the map is in the lower half */
    write_cr3(runtime_pt.root.v);
    if (cpu_count == 1)
        irq_enable();
    typedef void EFI_CALL (*reset_fn)(uint32_t type, uint64_t status, uint64_t bytes, void *data);
    reset_fn reset = *(reset_fn *)(runtime_services + RESET_SYSTEM_OFFSET);
    reset(wanted, 0, 0, NULL);
    irq_disable();
    write_cr3(host_pt.root.v);
    timer_cancel(&watch);
}

static NORETURN void end_node(enum efi_reset type)
{
    wanted = type;
    log_console_flush();
    if (runtime_services) {
        call_firmware();
        firmware_failed("its reset service came back");
    } else {
        firmware_failed("it gave no runtime services");
    }
    for (;;)
        __asm__ volatile("cli; hlt");
}

void power_reset_now(void)
{
    reset_machine(false);
}

void power_reboot(void)
{
    end_node(EFI_RESET_COLD);
}

void power_off(void)
{
    end_node(EFI_RESET_SHUTDOWN);
}
