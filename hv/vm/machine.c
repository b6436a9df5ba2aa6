/* SPDX-License-Identifier: MIT */
/*
 * Building a machine from a configuration, and taking it down again. Everything here runs on the VM's own thread.
 *
 * The order of building is the order of what needs what: owner, memory, second stage, CPU model, backend, devices,
 * vCPUs; machine_destroy goes backwards and can take down what is half built, because everything in struct vm below
 * `built` is zero before. Accounting: a VM's memory, its second-stage tables and its copies of disks hang on its page
 * owner, and destroying the owner tells if any was forgotten. The structures around them (some 30 KiB a vCPU, 64 KiB of
 * console) come from the heap and count as the hypervisor's.
 *
 * Map of the machine: docs/guest-interface.md.
 */
#include <stdio.h>
#include <string.h>

#include "boot/boot_info.h"
#include "kernel/heap.h"
#include "kernel/index_mask.h"
#include "kernel/log.h"
#include "kernel/node.h"
#include "kernel/random.h"
#include "kernel/time.h"
#include "vm/kernel_image.h"
#include "vm/machine.h"
#include "vm/machine_net.h"
#include "vm/vm_files.h"
#include "vmm/cpu_state_stream.h"
#include "vmm/vector.h"

#define COM1_BASE 0x3f8
#define COM1_GSI 4
#define RTC_GSI 8
#define SCI_GSI 9
#define SLOT_CONSOLE 1
#define SLOT_RNG 2
#define TOLD_PATH 80 /* bytes that a message shows of a path: what helps comes behind it */
#define CRASH_REPORTS 4 /* that are logged, of each life of a guest */
#define APIC_TIMER_KHZ_HERE 1000000 /* vlapic.h: one count is a nanosecond */

/* ---- Boot modules ---- */

static const char *dots(const char *path)
{
    return strlen(path) > TOLD_PATH ? "..." : "";
}

/* NULL: the configuration did not name it. efi_status says whether it could be read. */
static const struct boot_module *module_of(const char *path)
{
    const struct boot_info *info = boot_info_get();
    const struct boot_module *module = phys_to_virt(HPA(info->modules));

    for (uint64_t i = 0; i < info->module_count; i++)
        if (!strcmp(phys_to_virt(HPA(module[i].path)), path))
            return &module[i];
    return NULL;
}

enum status machine_file(const struct vm *vm, const char *kind, const char *path, struct boot_file *file, char *text,
                         size_t text_bytes)
{
    const struct boot_module *module = module_of(path);

    if (config_disk_on_volume(path)) {
        void *bytes;
        *file = (struct boot_file){ .name = path };
        enum status status = vm_file_read(vm->name, path, vm->config.memory_bytes, &bytes, &file->count, text,
                                          text_bytes); /* what is larger does not fit into the guest */
        file->bytes = status == OK ? bytes : NULL;
        return status;
    }
    if (!module || module->efi_status) {
        const char *cure = module ? "put the file there" : "name it in tasuki.conf";
        const char *cause = !module                             ? "it was not in the configuration then"
                            : (module->efi_status & 0xff) == 2  ? "the path is no file's, or too long"
                            : (module->efi_status & 0xff) == 14 ? "there is no such file"
                                                                : "the firmware reported an error";

        snprintf(text, text_bytes, "vm %s: %s %.*s%s could not be read at boot (%s); %s and reboot the node", vm->name, kind,
                 TOLD_PATH, path, dots(path), cause, cure);
        return ERR_NOT_FOUND;
    }
    *file = (struct boot_file){ .bytes = phys_to_virt(HPA(module->base)), .count = module->bytes, .name = path };
    return OK;
}

void machine_file_close(struct boot_file *file)
{
    if (file->bytes && config_disk_on_volume(file->name))
        kfree((void *)file->bytes, file->count + 1);
    file->bytes = NULL;
}

/* ---- What devices ask of the machine ---- */

static void doorbell(void *context, struct virtio_device *device)
{
    (void)device;
    vm_signal(context, ORDER_WORK);
}

static void host_timer_fired(struct timer *timer)
{
    vm_signal(CONTAINER_OF(timer, struct vm, host_timer), ORDER_WORK);
}

static void timers_changed(void *context)
{
    struct vm *vm = context;
    timer_arm(&vm->host_timer, machine_host_time(vm, vtimer_next(&vm->timers)));
}

static void send_msi(void *context, uint64_t address, uint32_t data)
{
    struct vm *vm = context;

    (void)vlapic_bus_message(&vm->apics, address, data);
}

static void ioapic_eoi(void *context, uint8_t vector)
{
    struct vm *vm = context;

    spin_lock(&vm->lock);
    vioapic_eoi(&vm->ioapic, vector);
    spin_unlock(&vm->lock);
}

/* INTR of the 8259s: the boot vCPU looks at it. */
static void pic_intr(void *context, unsigned pin, bool level)
{
    struct vm *vm = context;
    (void)pin;

    if (!level || !vm->cpu[0])
        return;
    if (!vlapic_accepts_extint(&vm->cpu[0]->apic))
        vlapic_lint0(&vm->cpu[0]->apic);
    vcpu_request(&vm->cpu[0]->vcpu, REQ_EVENT);
}

static void guest_off(void *context)
{
    vm_signal(context, ORDER_GUEST_OFF);
}

static void guest_reset(void *context)
{
    vm_signal(context, ORDER_GUEST_RESET);
}

static void serial_sink(void *context, const void *bytes, size_t count)
{
    struct vm *vm = context;

    vm->virtio_spoke = false;
    vm_console_output(vm, bytes, count);
}

static void virtio_sink(void *context, const void *bytes, size_t count)
{
    struct vm *vm = context;

    vm->virtio_spoke = true;
    vm_console_output(vm, bytes, count);
}

static void console_room(void *context, uint64_t now_ns)
{
    (void)now_ns;
    vm_signal(context, ORDER_WORK);
}

static void guest_crashed(void *context, const uint64_t parameters[5], const char *message)
{
    struct vm *vm = context;

    if (++vm->crash_reports > CRASH_REPORTS) /* the log is not the guest's */
        return;
    log_warning("vm %s: the guest reports a crash: 0x%lx (0x%lx, 0x%lx, 0x%lx, 0x%lx)%s%s", vm->name, parameters[0],
                parameters[1], parameters[2], parameters[3], parameters[4], *message ? " " : "", message);
}

static void random_fill(void *context, void *bytes, size_t count)
{
    (void)context;
    random_bytes(bytes, count);
}

/* ---- Building ---- */

static enum status build_devices(struct vm *vm, char *text, size_t text_bytes)
{
    uint64_t now = machine_now(vm);
    enum status status;

    vm->timers = (struct vtimer_queue){ .changed = timers_changed, .context = vm };
    timer_init(&vm->host_timer, host_timer_fired);
    vm->apics = (struct vlapic_bus){ .eoi = ioapic_eoi, .context = vm };
    vioapic_init(&vm->ioapic, &vm->apics, MACHINE_IOAPIC_ID);
    vpic_init(&vm->pic, (struct vline){ pic_intr, vm, 0 });
    vm->gsi = (struct vgsi){ &vm->pic, &vm->ioapic };
    vpit_init(&vm->pit, &vm->timers, vgsi_line(&vm->gsi, 0), now);
    vrtc_init(&vm->rtc, &vm->timers, vgsi_line(&vm->gsi, RTC_GSI), time_unix_ns(), now);
    vuart_init(&vm->com1, &vm->timers, vgsi_line(&vm->gsi, COM1_GSI), (struct char_sink){ serial_sink, vm },
               console_room, vm);
    vpm_init(&vm->pm, &vm->timers, vgsi_line(&vm->gsi, SCI_GSI), (struct vpm_events){ guest_off, guest_reset, vm }, now);

    struct vpci_wiring wiring = {
        .ports = &vm->ports, .mmio = &vm->mmio, .mmio_base = MACHINE_PCI_BASE, .mmio_end = MACHINE_PCI_END,
        .gsi = vgsi_line(&vm->gsi, 0), .msi = { send_msi, vm },
        .reset_control = &vpm_cf9_ops, .reset_control_device = &vm->pm,
    };
    if ((status = vpic_attach(&vm->pic, &vm->ports)) != OK || (status = vpit_attach(&vm->pit, &vm->ports)) != OK ||
        (status = vrtc_attach(&vm->rtc, &vm->ports)) != OK || (status = vpm_attach(&vm->pm, &vm->ports)) != OK ||
        (status = vbus_add(&vm->ports, COM1_BASE, 8, &vuart_ops, &vm->com1)) != OK ||
        (status = vbus_add(&vm->mmio, VIOAPIC_BASE, VIOAPIC_BYTES, &vioapic_ops, &vm->ioapic)) != OK ||
        (status = vpci_init(&vm->pci, &wiring)) != OK) {
        snprintf(text, text_bytes, "vm %s: its devices cannot be set up (%s); stop another VM if memory is short",
                 vm->name, status_name(status));
        return status;
    }

    struct virtio_owner owner = { .name = vm->name, .memory = &vm->memory, .doorbell = doorbell, .context = vm };
    struct char_sink sink = { virtio_sink, vm };
    if ((status = virtio_console_init(&vm->console, &owner, &vm->pci, SLOT_CONSOLE, &sink)) != OK ||
        (status = virtio_rng_init(&vm->rng, &owner, &vm->pci, SLOT_RNG, random_fill, NULL)) != OK) {
        snprintf(text, text_bytes, "vm %s: its virtio devices cannot be set up (%s); stop another VM if memory is short",
                 vm->name, status_name(status));
        return status;
    }
    vm->device[vm->device_count++] = &vm->console.device;
    vm->device[vm->device_count++] = &vm->rng.device;

    status = machine_build_disks(vm, &owner, MACHINE_SLOT_DISK_FIRST, text, text_bytes);
    return status == OK ? machine_nets_build(vm, &owner, text, text_bytes) : status;
}

static void host_cpuid(void *context, uint32_t leaf, uint32_t subleaf, uint32_t out[4])
{
    struct cpuid_regs r = cpuid(leaf, subleaf);
    (void)context;

    out[0] = r.eax;
    out[1] = r.ebx;
    out[2] = r.ecx;
    out[3] = r.edx;
}

enum status machine_model(const struct vm *vm, const char *name, struct cpuid_model *model, char *text, size_t text_bytes)
{
    struct cpuid_host host = { host_cpuid, NULL };
    struct cpuid_abilities abilities = {
        .vcpu_count = vm->config.vcpus,
        .tsc_khz = vm->config.tsc_khz ? vm->config.tsc_khz : (uint32_t)time_tsc_khz(),
        .mxcsr_mask = cpu_mxcsr_mask(),
        .apic_khz = APIC_TIMER_KHZ_HERE,
        .xcr0 = cpu_features.xsave ? cpu_features.xcr0_mask : 0,
        .x2apic = true,
        .tsc_deadline = true,
        .tsc_adjust = true,
        .invariant_tsc = cpu_features.invariant_tsc,
        .rdtscp = vmm && vmm->features->rdtscp,
        .invpcid = vmm && vmm->features->invpcid,
        .xsavec = vector_compacts,
        .xsaves = vector_compacts && vmm && vmm->features->xsaves,
        .spec_ctrl = true,
        .arch_capabilities = cpu_features.arch_capabilities,
    };

    return cpuid_model_build(model, name, &host, &abilities, text, text_bytes);
}

static enum status build_cpu(struct vm *vm, unsigned id)
{
    struct machine_cpu *cpu = kzalloc(sizeof *cpu);
    enum status status;

    if (!cpu)
        return ERR_NO_MEMORY;
    vm->cpu[id] = cpu;
    cpu->vm = vm;
    cpu->timers = (struct vtimer_queue){ .changed = machine_timers_changed, .context = cpu };
    struct vcpu *vcpu = &cpu->vcpu;
    vcpu->vm = &vm->core;
    vcpu->id = id;
    vcpu->last_cpu = -1;
    vcpu->ops = &machine_vcpu_ops;
    vcpu->cpuid = &vm->model;
    vcpu->stopped = true;
    vcpu->parked = true;
    wait_queue_init(&vcpu->queue, "vcpu");
    vcpu->xsave = kzalloc(MAX(vm->model.xsave.area_bytes, cpu_features.xsave_bytes));
    if (!vcpu->xsave)
        return ERR_NO_MEMORY;
    machine_emu_ops(cpu);
    vlapic_init(&cpu->apic, &vm->apics, &machine_apic_ops, cpu, id, id == 0, &cpu->timers);
    machine_cpu_reset(cpu, false);
    status = vmm->vcpu_create(vcpu);
    if (status != OK)
        return status;
    vm->vcpu[id] = vcpu;
    if (vcpu->apic_registers)
        vlapic_set_page(&cpu->apic, vcpu->apic_registers);
    return OK;
}

static enum config_apic apic_choice; /* atomic */

void vm_set_apic_virtualization(enum config_apic apic)
{
    __atomic_store_n(&apic_choice, apic, __ATOMIC_RELAXED);
}

bool vm_apic_virtualization(void)
{
    enum config_apic choice = __atomic_load_n(&apic_choice, __ATOMIC_RELAXED);

    return vmm && vmm->features->apic_assist &&
           (choice == CONFIG_APIC_ON || (choice == CONFIG_APIC_AUTO && !vmm->features->apic_assist_flawed));
}

/* Without the page the VM does without the CPU's help. */
static void build_apic_page(struct vm *vm)
{
    vm->apic_page_mapped = false;
    vm->core.apic_assist = vm_apic_virtualization() &&
                           page_alloc(PAGE_BYTES, vm->core.owner, PAGE_ZERO, &vm->core.apic_page);
}

/* The guest's TSC gets the frequency of its model, and begins at 0. */
static enum status set_tsc(struct vm *vm, char *text, size_t text_bytes)
{
    uint32_t khz = vm->model.tsc_khz, host_khz = (uint32_t)time_tsc_khz();

    if (vm->config.tsc_khz && vm->config.tsc_khz != khz) {
        snprintf(text, text_bytes, "vm %s: its saved state has a TSC of %u kHz, its configuration one of %u kHz; "
                                   "set tsc-frequency to what it was", vm->name, khz, vm->config.tsc_khz);
        return ERR_INVALID;
    }
    if (tsc_multiplier(&vmm->features->tsc, khz, host_khz, &vm->core.tsc_multiplier, &vm->tsc_rate_khz) != OK) {
        snprintf(text, text_bytes, "vm %s: its TSC is to run at %u kHz, this node's runs at %u kHz and its CPU cannot "
                                   "scale it to that; %s", vm->name, khz, host_khz,
                 vm->config.tsc_khz ? "leave tsc-frequency out, or use a node whose CPU can"
                                    : "use a node of the same frequency, or one whose CPU can");
        return ERR_UNSUPPORTED;
    }
    vm->tsc_offset = -machine_tsc(vm);
    return OK;
}

enum status machine_build(struct vm *vm, const struct cpuid_model *model, char *text, size_t text_bytes)
{
    enum status status = ERR_NO_MEMORY;
    char why[VM_TEXT_BYTES - 80] = "";

    if (!vmm) {
        snprintf(text, text_bytes, "vm %s: this node cannot run VMs; `node show` says why", vm->name);
        return ERR_UNSUPPORTED;
    }
    vm->cpu_count = vm->config.vcpus;
    vm->clock_stopped = false;
    vm->dirty_engine = DIRTY_OFF;
    vm->clock_base_ns = time_now_ns();
    static uint64_t last_serial;
    vm->core.serial = __atomic_add_fetch(&last_serial, 1, __ATOMIC_RELAXED);
    vm->core.run_deadline_tsc = time_ns_to_tsc(vm->run_deadline_ns); /* it outlives a stop, a start, a restore */
    vm->core.physical_bits = cpu_features.physical_bits;
    if (!page_owner_create(vm->name, &vm->core.owner)) {
        snprintf(text, text_bytes, "vm %s: the node accounts for %u VMs at most; stop another VM", vm->name, PAGE_OWNERS - 1);
        return ERR_NO_MEMORY;
    }
    vm->built = true;

    struct page_totals totals;
    page_totals_get(&totals);
    status = gmem_create(&vm->gmem, &vm->core, vm->config.memory_bytes);
    if (status != OK) {
        snprintf(text, text_bytes, "vm %s: memory = %lu MiB, but the node has %lu MiB free; give it less or stop another VM",
                 vm->name, vm->config.memory_bytes / MIB, totals.free_large_bytes / MIB);
        return status;
    }
    gmem_ops_init(&vm->memory, &vm->gmem);
    status = stage2_create(&vm->stage2, &vm->core, &vm->gmem, vmm->stage2_format,
                           vmm->features->second_stage_1g ? HUGE_PAGE_BYTES : LARGE_PAGE_BYTES);
    vm->stage2.small_code = cpu_features.speculation.small_code;
    if (status == OK && model)
        vm->model = *model;
    else if (status == OK && (status = machine_model(vm, vm->config.cpu, &vm->model, why, sizeof why)) != OK)
        snprintf(text, text_bytes, "vm %s: %s", vm->name, why);
    if (status != OK) {
        if (!*text)
            snprintf(text, text_bytes, "vm %s: no memory for its tables; stop another VM", vm->name);
        return status;
    }
    status = set_tsc(vm, text, text_bytes);
    if (status != OK)
        return status;
    vm->core.instructions = cpuid_instructions(&vm->model);
    vm->core.spec_ctrl_valid = vm->model.limits.spec_ctrl_valid;
    build_apic_page(vm);
    status = vmm->vm_create(&vm->core);
    if (status != OK) {
        snprintf(text, text_bytes, "vm %s: %s cannot set it up (%s); stop another VM if memory is short", vm->name, vmm->name,
                 status_name(status));
        return status;
    }
    for (const uint32_t *msr = msr_open; *msr; msr++) {
        struct msr_rule rule = msr_policy(&vm->model, *msr);
        if (rule.kind == MSR_SWITCHED)
            vmm->msr_passthrough(&vm->core, *msr, true, true);
        else if (rule.kind == MSR_COMMAND)
            vmm->msr_passthrough(&vm->core, *msr, false, true);
    }
    status = build_devices(vm, text, text_bytes);
    if (status != OK)
        return status;
    for (unsigned i = 0; i < vm->cpu_count; i++) {
        status = build_cpu(vm, i);
        if (status != OK) {
            snprintf(text, text_bytes, "vm %s: vCPU %u cannot be set up (%s); give it fewer, or stop another VM", vm->name, i,
                     status_name(status));
            return status;
        }
    }
    return OK;
}

void machine_destroy(struct vm *vm)
{
    if (!vm->built)
        return;
    machine_drain_disks(vm, MACHINE_DRAIN_NS);
    timer_cancel(&vm->host_timer);
    machine_nets_destroy(vm);
    for (unsigned i = 0; i < vm->cpu_count; i++) {
        struct machine_cpu *cpu = vm->cpu[i];
        if (!cpu)
            continue;
        if (vm->vcpu[i])
            vmm->vcpu_destroy(&cpu->vcpu);
        kfree(cpu->vcpu.xsave, MAX(vm->model.xsave.area_bytes, cpu_features.xsave_bytes));
        kfree(cpu, sizeof *cpu);
        vm->cpu[i] = NULL;
        vm->vcpu[i] = NULL;
    }
    machine_destroy_disks(vm);
    vm->device_count = 0;
    memset(&vm->ports, 0, sizeof vm->ports);
    memset(&vm->mmio, 0, sizeof vm->mmio);
    if (vm->core.backend)
        vmm->vm_destroy(&vm->core);
    stage2_destroy(&vm->stage2);
    if (vm->core.apic_page.v)
        page_free(vm->core.apic_page, PAGE_BYTES, vm->core.owner);
    gmem_destroy(&vm->gmem);
    page_owner_destroy(vm->core.owner);
    memset(&vm->core, 0, sizeof vm->core);
    vm->built = false;
}

void machine_hyperv_init(struct vm *vm)
{
    hyperv_init(&vm->hyperv, &vm->memory, vm->cpu_count, vm->tsc_rate_khz, APIC_TIMER_KHZ_HERE,
                cpu_features.vendor == CPU_AMD, machine_tsc(vm) + vm->tsc_offset, machine_now(vm));
    vm->hyperv.model_khz = vm->model.tsc_khz;
    vm->hyperv.crashed = guest_crashed;
    vm->hyperv.context = vm;
}

/* ---- Device work ---- */

/*
 * What the admin typed goes to the console that showed something last, the serial port or virtio's: that is where the
 * prompt is. Locked; what finds no room there waits.
 */
static void give_input(struct vm *vm, uint64_t now)
{
    uint8_t bytes[64];

    spin_lock(&vm->console_lock);
    unsigned count = MIN(vm->input_count, (unsigned)sizeof bytes);
    for (unsigned i = 0; i < count; i++)
        bytes[i] = vm->input[(vm->input_first + i) % MACHINE_CONSOLE_INPUT];
    spin_unlock(&vm->console_lock);
    size_t taken = vm->virtio_spoke ? virtio_console_input(&vm->console, bytes, count)
                                    : vuart_input(&vm->com1, bytes, count, now);
    spin_lock(&vm->console_lock);
    vm->input_first = (vm->input_first + (unsigned)taken) % MACHINE_CONSOLE_INPUT;
    vm->input_count -= (unsigned)taken;
    spin_unlock(&vm->console_lock);
}

bool machine_work(struct vm *vm)
{
    bool more = false;

    if (rdtsc() >= __atomic_load_n(&vm->core.run_deadline_tsc, __ATOMIC_ACQUIRE))
        return false; /* its devices stop where its vCPUs do; moving the deadline brings us back */
    spin_lock(&vm->lock);
    uint64_t now = machine_now(vm);
    vtimer_run(&vm->timers, now);
    timers_changed(vm);
    machine_nets_links(vm);
    machine_complete_disks(vm);
    for (unsigned i = 0; i < vm->device_count; i++)
        if (__atomic_load_n(&vm->device[i]->notified, __ATOMIC_ACQUIRE))
            more |= virtio_process(vm->device[i], now);
    if (vm->input_count)
        give_input(vm, now);
    spin_unlock(&vm->lock);
    return more;
}
