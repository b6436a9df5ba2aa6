/* SPDX-License-Identifier: MIT */
/*
 * The bodies of the sections, and the table of them. See save_parts.h; docs/state-stream.md has the fields.
 *
 * The order of the table says what needs what: the VM, its CPU model and its clock stand first, because a machine is built
 * from them; PCI and virtio before the interrupt controllers, because restoring them moves lines whose state comes with the
 * controllers; the controllers before the APICs for the same reason; a vCPU's TSC before its APIC, which arms TSC deadlines;
 * memory last, since it is most of the stream. The Hyper-V clock page is written anew when memory is there.
 */
#include "vm/save_parts.h"

#include <string.h>

#include "kernel/bytes.h"
#include "vmm/cpu_state_stream.h"

#define XSTATE_BV 512 /* in an XSAVE area */
#define PKRU_COMPONENT 9

/* ---- The bodies, and who takes them back ---- */

static void put_vm(struct stream_writer *w, void *arg)
{
    struct save_walk *k = arg;
    save_vm_put(&k->info, w);
}

static void put_model(struct stream_writer *w, void *arg)
{
    struct save_walk *k = arg;
    cpuid_model_save(&k->vm->model, w);
}

static void put_clock(struct stream_writer *w, void *arg)
{
    struct save_walk *k = arg;
    struct save_clock clock = { k->now, machine_tsc(k->vm) + k->vm->tsc_offset, time_unix_ns(), k->vm->model.tsc_khz };
    save_clock_put(&clock, w);
}

static void put_pic(struct stream_writer *w, void *arg)
{
    struct save_walk *k = arg;
    vpic_save(&k->vm->pic, w, k->now);
}

static void get_pic(struct save_walk *k, struct stream_reader *r)
{
    vpic_restore(&k->vm->pic, r, k->now);
}

static void put_ioapic(struct stream_writer *w, void *arg)
{
    struct save_walk *k = arg;
    vioapic_save(&k->vm->ioapic, w, k->now);
}

static void get_ioapic(struct save_walk *k, struct stream_reader *r)
{
    vioapic_restore(&k->vm->ioapic, r, k->now);
}

static void put_pit(struct stream_writer *w, void *arg)
{
    struct save_walk *k = arg;
    vpit_save(&k->vm->pit, w, k->now);
}

static void get_pit(struct save_walk *k, struct stream_reader *r)
{
    vpit_restore(&k->vm->pit, r, k->now);
}

static void put_rtc(struct stream_writer *w, void *arg)
{
    struct save_walk *k = arg;
    vrtc_save(&k->vm->rtc, w, k->now);
}

static void get_rtc(struct save_walk *k, struct stream_reader *r)
{
    vrtc_restore(&k->vm->rtc, r, time_unix_ns(), k->now);
}

static void put_uart(struct stream_writer *w, void *arg)
{
    struct save_walk *k = arg;
    vuart_save(&k->vm->com1, w, k->now);
}

static void get_uart(struct save_walk *k, struct stream_reader *r)
{
    vuart_restore(&k->vm->com1, r, k->now);
}

static void put_pm(struct stream_writer *w, void *arg)
{
    struct save_walk *k = arg;
    vpm_save(&k->vm->pm, w, k->now);
}

static void get_pm(struct save_walk *k, struct stream_reader *r)
{
    vpm_restore(&k->vm->pm, r, k->now);
}

static void put_hyperv(struct stream_writer *w, void *arg)
{
    struct save_walk *k = arg;
    hyperv_save(&k->vm->hyperv, w);
}

static void get_hyperv(struct save_walk *k, struct stream_reader *r)
{
    hyperv_restore(&k->vm->hyperv, r);
}

static void whole_pci(struct save_walk *k, struct stream_writer *w)
{
    vpci_save(&k->vm->pci, w);
}

static void get_pci(struct save_walk *k, struct stream_reader *r)
{
    vpci_restore(&k->vm->pci, r);
}

static void whole_virtio(struct save_walk *k, struct stream_writer *w)
{
    for (unsigned i = 0; i < k->vm->device_count; i++)
        virtio_save(k->vm->device[i], w);
}

static void get_virtio(struct save_walk *k, struct stream_reader *r)
{
    virtio_restore(k->device, r);
}

/* ---- vCPUs ---- */

static void put_cpu(struct stream_writer *w, void *arg)
{
    struct save_walk *k = arg;
    cpu_state_save(&k->cpu->vcpu.state, w);
}

static void get_cpu(struct save_walk *k, struct stream_reader *r)
{
    cpu_state_restore(&k->cpu->vcpu.state, r, &k->vm->model.limits);
    vcpu_debugctl_limit(vmm, &k->cpu->vcpu.state);
}

static void put_xsave(struct stream_writer *w, void *arg)
{
    struct save_walk *k = arg;
    uint8_t *area = k->cpu->vcpu.xsave;

    if (!cpu_features.xsave)
        le64_put(area + XSTATE_BV, 3); /* FXSAVE leaves no header: x87 and SSE are in use */
    xsave_save(area, &k->vm->model.xsave, w);
}

static void get_xsave(struct save_walk *k, struct stream_reader *r)
{
    struct vcpu *vcpu = &k->cpu->vcpu;
    const struct xsave_layout *layout = &k->vm->model.xsave;

    xsave_restore(vcpu->xsave, layout, r);
    if ((vcpu->state.cr4 & CR4_PKE) && (layout->components & BIT(PKRU_COMPONENT)))
        vcpu->state.pkru = le32_get((const uint8_t *)vcpu->xsave + layout->component[PKRU_COMPONENT].offset);
}

static void put_msrs(struct stream_writer *w, void *arg)
{
    struct save_walk *k = arg;
    msr_state_save(&k->cpu->msrs, w);
}

static void get_msrs(struct save_walk *k, struct stream_reader *r)
{
    msr_state_restore(&k->cpu->msrs, &k->vm->model, r);
}

static void put_hyperv_vcpu(struct stream_writer *w, void *arg)
{
    struct save_walk *k = arg;
    hyperv_vcpu_save(&k->cpu->hyperv, w);
}

static void get_hyperv_vcpu(struct save_walk *k, struct stream_reader *r)
{
    hyperv_vcpu_init(&k->cpu->hyperv, r->instance);
    hyperv_vcpu_restore(&k->cpu->hyperv, r);
}

static void put_vcpu(struct stream_writer *w, void *arg)
{
    struct save_walk *k = arg;
    struct machine_cpu *cpu = k->cpu;
    uint32_t signals = __atomic_load_n(&cpu->signals, __ATOMIC_ACQUIRE);
    struct save_vcpu vcpu = {
        .guest_tsc = machine_tsc(k->vm) + cpu->vcpu.tsc_offset,
        .tsc_adjust = cpu->tsc_adjust,
        .nmi_pending = cpu->vcpu.nmi_pending,
        .waits_for_sipi = cpu->waits_for_sipi,
        .init_signal = signals & SIGNAL_INIT,
        .sipi_signal = signals & SIGNAL_SIPI,
        .sipi_vector = cpu->sipi_vector,
    };
    save_vcpu_put(&vcpu, w);
}

static void get_vcpu(struct save_walk *k, struct stream_reader *r)
{
    struct machine_cpu *cpu = k->cpu;
    struct save_vcpu vcpu;

    save_vcpu_get(&vcpu, r);
    if (r->error)
        return;
    cpu->vcpu.tsc_offset = vcpu.guest_tsc - machine_tsc(k->vm);
    cpu->vcpu.tsc_offset_changed = true;
    cpu->tsc_adjust = vcpu.tsc_adjust;
    cpu->vcpu.nmi_pending = vcpu.nmi_pending;
    cpu->waits_for_sipi = vcpu.waits_for_sipi;
    cpu->signals = (uint32_t)((vcpu.init_signal ? SIGNAL_INIT : 0) | (vcpu.sipi_signal ? SIGNAL_SIPI : 0));
    cpu->sipi_vector = vcpu.sipi_vector;
}

static void put_apic(struct stream_writer *w, void *arg)
{
    struct save_walk *k = arg;
    vlapic_save(&k->cpu->apic, w, k->now);
}

static void get_apic(struct save_walk *k, struct stream_reader *r)
{
    vlapic_restore(&k->cpu->apic, r, k->now);
}

/* ---- Disks and memory ---- */

static void put_disk(struct stream_writer *w, void *arg)
{
    struct save_walk *k = arg;
    struct save_disk disk;

    machine_disk_tell(k->vm, k->disk_number, &disk);
    save_disk_put(&disk, w);
}

static void get_disk(struct save_walk *k, struct stream_reader *r)
{
    struct save_disk disk;

    machine_disk_tell(k->vm, k->disk_number, &disk);
    save_disk_get(&disk, r);
}

/* What the guest has changed of a chunk: against the image, so that a disk that was only read takes nothing. */
static void put_chunk(struct stream_writer *w, void *arg)
{
    struct save_walk *k = arg;
    stream_put_u64(w, k->offset);
    save_pages_put(&k->map, k->frame, w, thread_yield);
}

static void whole_disk(struct save_walk *k, struct stream_writer *w, uint32_t number)
{
    struct machine_disk *disk = k->vm->disk[number];

    for (uint64_t i = 0; i < disk->chunk_count && !w->error; i++) {
        if (!disk->chunks[i].v)
            continue;
        k->offset = i * LARGE_PAGE_BYTES;
        k->frame = phys_to_virt(disk->chunks[i]);
        uint64_t base_bytes = MIN(LARGE_PAGE_BYTES, disk->image_bytes - k->offset);
        if (save_map_make(&k->map, k->frame, disk->image + k->offset, base_bytes, thread_yield))
            stream_section(w, SAVE_CHUNK_TAG, number, 1, STREAM_MANDATORY, put_chunk, k);
    }
}

static void whole_disks(struct save_walk *k, struct stream_writer *w)
{
    for (uint32_t i = 0; i < k->vm->config.disk_count; i++)
        whole_disk(k, w, i);
}

static void get_chunk(struct save_walk *k, struct stream_reader *r)
{
    struct machine_disk *disk = r->instance < k->vm->config.disk_count ? k->vm->disk[r->instance] : NULL;
    uint64_t offset = stream_get_u64(r);

    if (!disk)
        stream_fail(r, ERR_CORRUPT, "this VM has no such disk");
    else if (!r->error && (offset % LARGE_PAGE_BYTES || offset / LARGE_PAGE_BYTES >= disk->chunk_count))
        stream_fail(r, ERR_CORRUPT, "offset 0x%lx is not on the disk", offset);
    if (r->error)
        return;
    void *chunk = disk->ram.chunk(disk->ram.context, offset / LARGE_PAGE_BYTES, true);
    if (!chunk)
        stream_fail(r, ERR_NO_MEMORY, "the node has no memory left for it");
    else
        save_pages_get(chunk, r, thread_yield);
}

static void put_frame(struct stream_writer *w, void *arg)
{
    struct save_walk *k = arg;
    save_pages_put(&k->map, k->frame, w, thread_yield);
}

/* Frames that nobody touched may still hold somebody else's bytes: they are zero for the guest, and left out. */
static void whole_memory(struct save_walk *k, struct stream_writer *w)
{
    struct gmem *gmem = &k->vm->gmem;

    for (uint64_t frame = 0, index; frame < gmem_end(gmem) / LARGE_PAGE_BYTES && !w->error; frame++) {
        if (!gmem_index(gmem, frame * LARGE_PAGE_BYTES, &index) ||
            (__atomic_load_n(&gmem->frames[index], __ATOMIC_ACQUIRE) & GMEM_UNTOUCHED))
            continue;
        k->frame = gmem_window(gmem_frame(gmem, index));
        if (save_map_make(&k->map, k->frame, NULL, 0, thread_yield))
            stream_section(w, SAVE_MEMORY_TAG, (uint32_t)frame, 1, STREAM_MANDATORY, put_frame, k);
        thread_yield();
    }
}

static void get_frame(struct save_walk *k, struct stream_reader *r)
{
    struct gmem *gmem = &k->vm->gmem;
    uint64_t index = 0;

    if (!gmem_index(gmem, r->instance * LARGE_PAGE_BYTES, &index))
        stream_fail(r, ERR_CORRUPT, "this VM has no memory there");
    else if (r->instance < k->next_frame)
        stream_fail(r, ERR_CORRUPT, "it comes twice, or out of order");
    if (r->error)
        return;
    k->next_frame = (uint64_t)r->instance + 1;
    save_pages_get(gmem_window(gmem_frame(gmem, index)), r, thread_yield);
}

/* ---- The table ---- */

const struct save_part save_parts[SAVE_PARTS] = {
    { SAVE_VM_TAG, 1, SAVE_VM_VERSION, ONCE, put_vm, NULL, NULL },
    { CPUID_SECTION_TAG, CPUID_SECTION_VERSION, CPUID_SECTION_VERSION, ONCE, put_model, NULL, NULL },
    { SAVE_CLOCK_TAG, 1, 1, ONCE, put_clock, NULL, NULL },
    { VPCI_STREAM_TAG, VPCI_STREAM_VERSION, VPCI_STREAM_VERSION, ONCE, NULL, whole_pci, get_pci },
    { VIRTIO_STREAM_TAG, VIRTIO_STREAM_VERSION, VIRTIO_STREAM_VERSION, EACH_DEVICE, NULL, whole_virtio, get_virtio },
    { "PIC", 1, 1, ONCE, put_pic, NULL, get_pic },
    { "IOAPIC", 1, 1, ONCE, put_ioapic, NULL, get_ioapic },
    { "PIT", 1, 1, ONCE, put_pit, NULL, get_pit },
    { "RTC", 1, 1, ONCE, put_rtc, NULL, get_rtc },
    { "UART", 1, 1, ONCE, put_uart, NULL, get_uart },
    { "PM", 1, 1, ONCE, put_pm, NULL, get_pm },
    { HYPERV_SECTION_TAG, HYPERV_SECTION_VERSION, HYPERV_SECTION_VERSION, ONCE, put_hyperv, NULL, get_hyperv },
    { CPU_SECTION_TAG, CPU_SECTION_VERSION, CPU_SECTION_VERSION, EACH_CPU, put_cpu, NULL, get_cpu },
    { XSAVE_SECTION_TAG, XSAVE_SECTION_VERSION, XSAVE_SECTION_VERSION, EACH_CPU, put_xsave, NULL, get_xsave },
    { MSR_SECTION_TAG, MSR_SECTION_VERSION, MSR_SECTION_VERSION, EACH_CPU, put_msrs, NULL, get_msrs },
    { HYPERV_VCPU_SECTION_TAG, HYPERV_SECTION_VERSION, HYPERV_SECTION_VERSION, EACH_CPU, put_hyperv_vcpu, NULL,
      get_hyperv_vcpu },
    { SAVE_VCPU_TAG, 1, 1, EACH_CPU, put_vcpu, NULL, get_vcpu },
    { "APIC", 1, 1, EACH_CPU, put_apic, NULL, get_apic },
    { SAVE_DISK_TAG, 1, SAVE_DISK_VERSION, EACH_DISK, put_disk, NULL, get_disk },
    { SAVE_CHUNK_TAG, 1, 1, ANY, NULL, whole_disks, get_chunk },
    { SAVE_MEMORY_TAG, 1, 1, ANY, NULL, whole_memory, get_frame },
};
_Static_assert(ARRAY_COUNT(save_parts) == SAVE_PARTS, "save_parts.h counts them");

uint64_t save_instances(const struct vm *vm, enum save_scope scope)
{
    uint64_t set = 0;

    switch (scope) {
    case ONCE: return 1;
    case EACH_CPU: return BIT(vm->cpu_count) - 1;
    case EACH_DISK: return BIT(vm->config.disk_count) - 1;
    case EACH_DEVICE:
        for (unsigned i = 0; i < vm->device_count; i++)
            set |= BIT(vm->device[i]->function.slot);
        return set;
    case ANY: break;
    }
    return 0;
}

void save_select(struct save_walk *k, enum save_scope scope, uint32_t instance)
{
    switch (scope) {
    case EACH_CPU: k->cpu = k->vm->cpu[instance]; break;
    case EACH_DISK: k->disk_number = instance; break;
    case EACH_DEVICE:
        for (unsigned i = 0; i < k->vm->device_count; i++)
            if (k->vm->device[i]->function.slot == instance)
                k->device = k->vm->device[i];
        break;
    case ONCE:
    case ANY: break;
    }
}

