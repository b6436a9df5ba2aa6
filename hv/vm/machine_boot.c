/* SPDX-License-Identifier: MIT */
/*
 * Booting a machine that is built, and resetting it. Everything here runs on the VM's own thread, with its vCPUs parked or
 * not yet there.
 *
 * A boot puts the ACPI tables, kernel, initrd and command line into the guest's memory and sets the boot vCPU to the
 * kernel's entry (kernel_image.h), as docs/guest-interface.md describes it. A reset brings every device back to its
 * power-on state and clears the memory that the guest has touched; a boot follows it. Files on a volume are in memory only meanwhile.
 */
#include <stdio.h>

#include "kernel/heap.h"
#include "kernel/thread.h"
#include "vdev/vacpi.h"
#include "vm/kernel_image.h"
#include "vm/machine.h"
#include "vm/memory_map.h"

#define ACPI_BASE 0xe0000ull
#define ACPI_BYTES 0x20000ull
#define BOOT_PIECE_BYTES (256 * KIB)

static enum status write_acpi(struct vm *vm, char *text, size_t text_bytes)
{
    struct vacpi_config config = {
        .cpu_count = vm->cpu_count,
        .ioapic_id = MACHINE_IOAPIC_ID,
        .pm_base = VPM_BASE,
        .reset_port = VPM_CF9_PORT,
        .com1 = true,
        .slot_count = 32,
        .mmio32 = { MACHINE_PCI_BASE, MACHINE_PCI_END - MACHINE_PCI_BASE },
    };
    const size_t room = 64 * KIB;
    void *buffer = kzalloc(room);
    enum status status = ERR_NO_MEMORY;

    if (buffer) {
        size_t used = vacpi_build(&config, buffer, room, ACPI_BASE);
        status = used && used <= ACPI_BYTES && gmem_write(&vm->gmem, GPA(ACPI_BASE), buffer, used) ? OK : ERR_RANGE;
        kfree(buffer, room);
    }
    if (status != OK)
        snprintf(text, text_bytes, "vm %s: its ACPI tables cannot be written (%s); stop another VM if memory is short", vm->name,
                 status_name(status));
    return status;
}

static bool boot_read(void *context, gpa_t gpa, void *bytes, uint64_t count)
{
    struct vm *vm = context;

    return gmem_read(&vm->gmem, gpa, bytes, count);
}

static bool boot_valid(void *context, gpa_t gpa, uint64_t count)
{
    struct vm *vm = context;

    return gmem_valid(&vm->gmem, gpa, count);
}

/* A kernel and its initrd can be hundreds of MiB: the copy lets others have the CPU in between. */
static bool boot_write(void *context, gpa_t gpa, const void *bytes, uint64_t count)
{
    struct vm *vm = context;

    if (!gmem_valid(&vm->gmem, gpa, count))
        return false;
    for (uint64_t done = 0; done < count;) {
        uint64_t piece = MIN(count - done, BOOT_PIECE_BYTES);
        if (!gmem_write(&vm->gmem, GPA(gpa.v + done), (const char *)bytes + done, piece))
            return false;
        done += piece;
        if (thread_should_yield())
            thread_yield();
    }
    return true;
}

enum status machine_boot(struct vm *vm, char *text, size_t text_bytes)
{
    struct memory_range map[MEMORY_MAP_RANGES];
    struct boot_file initrd = { 0 };
    struct gmem_ops memory = { .context = vm, .read = boot_read, .write = boot_write, .valid = boot_valid };
    struct boot_request request = {
        .memory = &memory,
        .map = map,
        .map_count = memory_map_build(vm->gmem.bytes, map, MEMORY_MAP_RANGES),
        .cmdline = vm->config.cmdline,
        .acpi_rsdp = ACPI_BASE,
    };
    char error[BOOT_ERROR_BYTES] = "";
    enum status status;

    if (!vm->config.kernel) {
        snprintf(text, text_bytes, "vm %s: it has no kernel to boot; set `kernel =` in its section", vm->name);
        return ERR_INVALID;
    }
    status = machine_file(vm, "kernel", vm->config.kernel, &request.kernel, text, text_bytes);
    if (status == OK && vm->config.initrd) {
        status = machine_file(vm, "initrd", vm->config.initrd, &initrd, text, text_bytes);
        request.modules = &initrd;
        request.module_count = 1;
    }
    if (status == OK)
        status = write_acpi(vm, text, text_bytes);
    if (status == OK) {
        status = kernel_image_boot(&request, &vm->cpu[0]->vcpu.state, error);
        if (status != OK)
            snprintf(text, text_bytes, "vm %s: %s", vm->name, error);
    }
    machine_file_close(&request.kernel);
    machine_file_close(&initrd);
    if (status != OK)
        return status;
    machine_hyperv_init(vm);
    vm->virtio_spoke = false;
    for (unsigned i = 0; i < vm->cpu_count; i++) {
        struct machine_cpu *cpu = vm->cpu[i];
        cpu->waits_for_sipi = i != 0;
        cpu->signals = 0;
        cpu->tsc_adjust = 0;
        cpu->vcpu.tsc_offset = vm->tsc_offset;
        cpu->vcpu.tsc_offset_changed = true;
        cpu->vcpu.valid = cpu->vcpu.dirty = STATE_ALL;
        msr_state_reset(&cpu->msrs, &vm->model);
        msr_state_firmware_mtrrs(&cpu->msrs, &vm->model);
        hyperv_vcpu_init(&cpu->hyperv, i);
    }
    spin_lock(&vm->lock);
    vpic_set_levels(&vm->pic, GSI_LEVEL_INPUTS);
    spin_unlock(&vm->lock);
    vlapic_virtual_wire(&vm->cpu[0]->apic);
    return OK;
}

void machine_reset(struct vm *vm)
{
    uint64_t now = machine_now(vm);

    spin_lock(&vm->lock);
    for (unsigned i = 0; i < vm->device_count; i++)
        virtio_quiesce(vm->device[i]);
    spin_unlock(&vm->lock);
    machine_drain_disks(vm, MACHINE_DRAIN_NS); /* before the memory that they write to is another life's */
    spin_lock(&vm->lock);
    for (unsigned i = 0; i < vm->device_count; i++)
        virtio_reset(vm->device[i]);
    vpci_reset(&vm->pci);
    vpic_reset(&vm->pic);
    vioapic_reset(&vm->ioapic);
    vpit_reset(&vm->pit, now);
    vrtc_reset(&vm->rtc, now);
    vuart_reset(&vm->com1);
    vpm_reset(&vm->pm, now);
    spin_unlock(&vm->lock);
    for (unsigned i = 0; i < vm->cpu_count; i++) {
        vlapic_power_on(&vm->cpu[i]->apic);
        machine_cpu_reset(vm->cpu[i], false);
    }
    machine_apic_page_update(vm);
    vm->crash_reports = 0;
    for (uint64_t base = 0; base < gmem_end(&vm->gmem); base += LARGE_PAGE_BYTES) {
        uint64_t index;
        if (!gmem_index(&vm->gmem, base, &index) || (vm->gmem.frames[index] & GMEM_UNTOUCHED))
            continue;
        (void)!gmem_zero(&vm->gmem, GPA(base), LARGE_PAGE_BYTES);
        if (thread_should_yield())
            thread_yield();
    }
}
