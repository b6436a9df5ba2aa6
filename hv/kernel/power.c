/* SPDX-License-Identifier: MIT */
/*
 * UEFI runtime services are called with the physical addresses that they were loaded at (SetVirtualAddressMap is never
 * called): a page table of their own maps their memory one to one, with the hypervisor's upper half beside it. They run
 * with interrupts off on the boot CPU. Where they are missing or come back, the reset port of the chipset (0xcf9) and
 * then a triple fault end the node.
 *
 * Runtime code is mapped writable and executable in that table, for firmwares write to pages that they call code; the
 * table is loaded for the length of a call only.
 */
#include "kernel/power.h"

#include "drivers/uart.h"
#include "kernel/cpu.h"
#include "kernel/log.h"
#include "kernel/pt.h"
#include "kernel/vmap.h"

/* The UEFI calling convention is Microsoft's. */
#define EFI_CALL __attribute__((ms_abi))
#define RESET_SYSTEM_OFFSET 104 /* in EFI_RUNTIME_SERVICES: header 24, ten pointers before it (UEFI 2.10, 4.5) */
#define EFI_RESET_COLD 0
#define EFI_RESET_SHUTDOWN 2

static struct pt runtime_pt;
static uint64_t runtime_services;

void power_init(const struct boot_info *info)
{
    const struct boot_mem_range *range = phys_to_virt(HPA(info->mem));

    if (!info->efi_runtime) {
        log_warning("power: the firmware gave no runtime services; reset uses port 0xcf9, power-off cannot");
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
    uint64_t *own = phys_to_virt(runtime_pt.root), *host = phys_to_virt(host_pt.root);
    for (unsigned i = 256; i < 512; i++)
        own[i] = host[i];
    runtime_services = info->efi_runtime;
}

static void runtime_reset(uint32_t type)
{
    uart_drain();
    if (!runtime_services)
        return;
    irq_disable();
    write_cr4(read_cr4() & ~(uint64_t)(BIT(20) | BIT(21))); /* SMEP and SMAP: the map is in the lower half */
    write_cr3(runtime_pt.root.v);
    typedef void EFI_CALL (*reset_fn)(uint32_t type, uint64_t status, uint64_t bytes, void *data);
    reset_fn reset = *(reset_fn *)(runtime_services + RESET_SYSTEM_OFFSET);
    reset(type, 0, 0, NULL);
    write_cr3(host_pt.root.v);
}

void power_reset_now(void)
{
    struct PACKED {
        uint16_t limit;
        uint64_t base;
    } no_idt = { 0, 0 };

    irq_disable();
    uart_drain();
    out8(0xcf9, 0x02);
    out8(0xcf9, 0x06);
    for (unsigned i = 0; i < 100000; i++)
        cpu_pause();
    __asm__ volatile("lidt %0; ud2" : : "m"(no_idt));
    for (;;)
        __asm__ volatile("hlt");
}

void power_reboot(void)
{
    runtime_reset(EFI_RESET_COLD);
    power_reset_now();
}

void power_off(void)
{
    runtime_reset(EFI_RESET_SHUTDOWN);
    log_error("power: the firmware did not switch the node off; it can be switched off by hand now");
    for (;;)
        __asm__ volatile("cli; hlt");
}
