/* SPDX-License-Identifier: MIT */
/*
 * Saving and restoring a machine. See save.h.
 *
 * One table, parts[], names every section in the order of the stream: who writes it and who takes it back. The order
 * says what needs what: the VM, its CPU model and its clock stand first, because a machine is built from them; PCI and
 * virtio before the interrupt controllers, because restoring them moves lines whose state comes with the controllers;
 * the controllers before the APICs for the same reason; a vCPU's TSC before its APIC, which arms TSC deadlines; memory
 * last, since it is most of the stream. The Hyper-V clock page is written anew when memory is there.
 *
 * The guest's clocks stand from before the first section is written until after the last is read: machine_now() and
 * machine_tsc() give one and the same moment to every device, so that no timer is moved against another.
 */
#include "vm/save.h"

#include <stdio.h>
#include <string.h>

#include "kernel/bytes.h"
#include "kernel/heap.h"
#include "kernel/log.h"
#include "vm/saved.h"
#include "vmm/cpu_state_stream.h"

#define DRAIN_NS (5 * NS_PER_S)
#define DRAIN_STEP_NS NS_PER_MS
#define XSTATE_BV 512 /* in an XSAVE area */
#define PKRU_COMPONENT 9

/* Where a save or a restore is. */
struct walk {
    struct vm *vm;
    uint64_t now;             /* guest ns */
    struct machine_cpu *cpu;  /* of a section of a vCPU */
    struct machine_disk *disk;
    struct virtio_device *device;
    struct save_vm info;
    struct save_map map;      /* of the frame or the chunk under way */
    const void *frame;
    uint64_t offset;
    uint64_t next_frame;      /* restoring memory: frames come in ascending order */
};

/* ---- The bodies, and who takes them back ---- */

static void put_vm(struct stream_writer *w, void *arg)
{
    struct walk *k = arg;
    save_vm_put(&k->info, w);
}

static void put_model(struct stream_writer *w, void *arg)
{
    struct walk *k = arg;
    cpuid_model_save(&k->vm->model, w);
}

static void put_clock(struct stream_writer *w, void *arg)
{
    struct walk *k = arg;
    struct save_clock clock = { k->now, machine_tsc(k->vm) + k->vm->tsc_offset, time_unix_ns(), k->vm->model.tsc_khz };
    save_clock_put(&clock, w);
}

static void put_pic(struct stream_writer *w, void *arg)
{
    struct walk *k = arg;
    vpic_save(&k->vm->pic, w, k->now);
}

static void get_pic(struct walk *k, struct stream_reader *r)
{
    vpic_restore(&k->vm->pic, r, k->now);
}

static void put_ioapic(struct stream_writer *w, void *arg)
{
    struct walk *k = arg;
    vioapic_save(&k->vm->ioapic, w, k->now);
}

static void get_ioapic(struct walk *k, struct stream_reader *r)
{
    vioapic_restore(&k->vm->ioapic, r, k->now);
}

static void put_pit(struct stream_writer *w, void *arg)
{
    struct walk *k = arg;
    vpit_save(&k->vm->pit, w, k->now);
}

static void get_pit(struct walk *k, struct stream_reader *r)
{
    vpit_restore(&k->vm->pit, r, k->now);
}

static void put_rtc(struct stream_writer *w, void *arg)
{
    struct walk *k = arg;
    vrtc_save(&k->vm->rtc, w, k->now);
}

static void get_rtc(struct walk *k, struct stream_reader *r)
{
    vrtc_restore(&k->vm->rtc, r, time_unix_ns(), k->now);
}

static void put_uart(struct stream_writer *w, void *arg)
{
    struct walk *k = arg;
    vuart_save(&k->vm->com1, w, k->now);
}

static void get_uart(struct walk *k, struct stream_reader *r)
{
    vuart_restore(&k->vm->com1, r, k->now);
}

static void put_pm(struct stream_writer *w, void *arg)
{
    struct walk *k = arg;
    vpm_save(&k->vm->pm, w, k->now);
}

static void get_pm(struct walk *k, struct stream_reader *r)
{
    vpm_restore(&k->vm->pm, r, k->now);
}

static void put_hyperv(struct stream_writer *w, void *arg)
{
    struct walk *k = arg;
    hyperv_save(&k->vm->hyperv, w);
}

static void get_hyperv(struct walk *k, struct stream_reader *r)
{
    hyperv_restore(&k->vm->hyperv, r);
}

static void whole_pci(struct walk *k, struct stream_writer *w)
{
    vpci_save(&k->vm->pci, w);
}

static void get_pci(struct walk *k, struct stream_reader *r)
{
    vpci_restore(&k->vm->pci, r);
}

static void whole_virtio(struct walk *k, struct stream_writer *w)
{
    for (unsigned i = 0; i < k->vm->device_count; i++)
        virtio_save(k->vm->device[i], w);
}

static void get_virtio(struct walk *k, struct stream_reader *r)
{
    virtio_restore(k->device, r);
}

/* ---- vCPUs ---- */

static void put_cpu(struct stream_writer *w, void *arg)
{
    struct walk *k = arg;
    cpu_state_save(&k->cpu->vcpu.state, w);
}

static void get_cpu(struct walk *k, struct stream_reader *r)
{
    cpu_state_restore(&k->cpu->vcpu.state, r, &k->vm->model.limits);
    vcpu_debugctl_limit(vmm, &k->cpu->vcpu.state);
}

static void put_xsave(struct stream_writer *w, void *arg)
{
    struct walk *k = arg;
    uint8_t *area = k->cpu->vcpu.xsave;

    if (!cpu_features.xsave)
        le64_put(area + XSTATE_BV, 3); /* FXSAVE leaves no header: x87 and SSE are in use */
    xsave_save(area, &k->vm->model.xsave, w);
}

static void get_xsave(struct walk *k, struct stream_reader *r)
{
    struct vcpu *vcpu = &k->cpu->vcpu;
    const struct xsave_layout *layout = &k->vm->model.xsave;

    xsave_restore(vcpu->xsave, layout, r);
    if ((vcpu->state.cr4 & CR4_PKE) && (layout->components & BIT(PKRU_COMPONENT)))
        vcpu->state.pkru = le32_get((const uint8_t *)vcpu->xsave + layout->component[PKRU_COMPONENT].offset);
}

static void put_msrs(struct stream_writer *w, void *arg)
{
    struct walk *k = arg;
    msr_state_save(&k->cpu->msrs, w);
}

static void get_msrs(struct walk *k, struct stream_reader *r)
{
    msr_state_restore(&k->cpu->msrs, &k->vm->model, r);
}

static void put_hyperv_vcpu(struct stream_writer *w, void *arg)
{
    struct walk *k = arg;
    hyperv_vcpu_save(&k->cpu->hyperv, w);
}

static void get_hyperv_vcpu(struct walk *k, struct stream_reader *r)
{
    hyperv_vcpu_init(&k->cpu->hyperv, r->instance);
    hyperv_vcpu_restore(&k->cpu->hyperv, r);
}

static void put_vcpu(struct stream_writer *w, void *arg)
{
    struct walk *k = arg;
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

static void get_vcpu(struct walk *k, struct stream_reader *r)
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
    struct walk *k = arg;
    vlapic_save(&k->cpu->apic, w, k->now);
}

static void get_apic(struct walk *k, struct stream_reader *r)
{
    vlapic_restore(&k->cpu->apic, r, k->now);
}

/* ---- Disks and memory ---- */

static void put_disk(struct stream_writer *w, void *arg)
{
    struct walk *k = arg;
    stream_put_u64(w, k->disk->image_bytes);
}

static void get_disk(struct walk *k, struct stream_reader *r)
{
    uint64_t bytes = stream_get_u64(r);

    if (!r->error && bytes != k->disk->image_bytes)
        stream_fail(r, ERR_INVALID, "its image had %lu bytes, the one that this node has read has %lu", bytes,
                    k->disk->image_bytes);
}

/* What the guest has changed of a chunk: against the image, so that a disk that was only read takes nothing. */
static void put_chunk(struct stream_writer *w, void *arg)
{
    struct walk *k = arg;
    stream_put_u64(w, k->offset);
    save_pages_put(&k->map, k->frame, w, thread_yield);
}

static void whole_disk(struct walk *k, struct stream_writer *w, uint32_t number)
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

static void whole_disks(struct walk *k, struct stream_writer *w)
{
    for (uint32_t i = 0; i < k->vm->config.disk_count; i++)
        whole_disk(k, w, i);
}

static void get_chunk(struct walk *k, struct stream_reader *r)
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
    struct walk *k = arg;
    save_pages_put(&k->map, k->frame, w, thread_yield);
}

/* Frames that nobody touched may still hold somebody else's bytes: they are zero for the guest, and left out. */
static void whole_memory(struct walk *k, struct stream_writer *w)
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

static void get_frame(struct walk *k, struct stream_reader *r)
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

enum scope { ONCE, EACH_CPU, EACH_DEVICE, EACH_DISK, ANY };

static const struct part {
    const char *tag;
    uint16_t version;
    enum scope scope; /* which instances there must be */
    void (*put)(struct stream_writer *w, void *walk);           /* the body of one section, or */
    void (*whole)(struct walk *walk, struct stream_writer *w); /* writes them itself; locked but for ANY */
    void (*get)(struct walk *walk, struct stream_reader *r);    /* NULL: read_head does it */
} parts[] = {
    { SAVE_VM_TAG, 1, ONCE, put_vm, NULL, NULL },
    { CPUID_SECTION_TAG, CPUID_SECTION_VERSION, ONCE, put_model, NULL, NULL },
    { SAVE_CLOCK_TAG, 1, ONCE, put_clock, NULL, NULL },
    { VPCI_STREAM_TAG, VPCI_STREAM_VERSION, ONCE, NULL, whole_pci, get_pci },
    { VIRTIO_STREAM_TAG, VIRTIO_STREAM_VERSION, EACH_DEVICE, NULL, whole_virtio, get_virtio },
    { "PIC", 1, ONCE, put_pic, NULL, get_pic },
    { "IOAPIC", 1, ONCE, put_ioapic, NULL, get_ioapic },
    { "PIT", 1, ONCE, put_pit, NULL, get_pit },
    { "RTC", 1, ONCE, put_rtc, NULL, get_rtc },
    { "UART", 1, ONCE, put_uart, NULL, get_uart },
    { "PM", 1, ONCE, put_pm, NULL, get_pm },
    { HYPERV_SECTION_TAG, HYPERV_SECTION_VERSION, ONCE, put_hyperv, NULL, get_hyperv },
    { CPU_SECTION_TAG, CPU_SECTION_VERSION, EACH_CPU, put_cpu, NULL, get_cpu },
    { XSAVE_SECTION_TAG, XSAVE_SECTION_VERSION, EACH_CPU, put_xsave, NULL, get_xsave },
    { MSR_SECTION_TAG, MSR_SECTION_VERSION, EACH_CPU, put_msrs, NULL, get_msrs },
    { HYPERV_VCPU_SECTION_TAG, HYPERV_SECTION_VERSION, EACH_CPU, put_hyperv_vcpu, NULL, get_hyperv_vcpu },
    { SAVE_VCPU_TAG, 1, EACH_CPU, put_vcpu, NULL, get_vcpu },
    { "APIC", 1, EACH_CPU, put_apic, NULL, get_apic },
    { SAVE_DISK_TAG, 1, EACH_DISK, put_disk, NULL, get_disk },
    { SAVE_CHUNK_TAG, 1, ANY, NULL, whole_disks, get_chunk },
    { SAVE_MEMORY_TAG, 1, ANY, NULL, whole_memory, get_frame },
};
#define PARTS ARRAY_COUNT(parts)
#define HEAD_PARTS 3

/* The instances that a part must have, a bit each. */
static uint64_t instances(const struct vm *vm, enum scope scope)
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

/* Points the walk at what the section is about. */
static void select(struct walk *k, enum scope scope, uint32_t instance)
{
    switch (scope) {
    case EACH_CPU: k->cpu = k->vm->cpu[instance]; break;
    case EACH_DISK: k->disk = k->vm->disk[instance]; break;
    case EACH_DEVICE:
        for (unsigned i = 0; i < k->vm->device_count; i++)
            if (k->vm->device[i]->function.slot == instance)
                k->device = k->vm->device[i];
        break;
    case ONCE:
    case ANY: break;
    }
}

/* ---- Devices at rest ---- */

bool save_quiesce(struct vm *vm, char *text, size_t text_bytes)
{
    uint64_t deadline = time_now_ns() + DRAIN_NS;
    const char *busy;

    do {
        busy = NULL;
        spin_lock(&vm->lock);
        for (unsigned i = 0; i < vm->device_count; i++) {
            virtio_quiesce(vm->device[i]);
            (void)virtio_process(vm->device[i], machine_now(vm));
            if (virtio_in_flight(vm->device[i]))
                busy = vm->device[i]->owner.name;
        }
        spin_unlock(&vm->lock);
        if (busy)
            thread_sleep_ns(DRAIN_STEP_NS);
    } while (busy && time_now_ns() < deadline);
    if (busy) {
        snprintf(text, text_bytes, "vm %s: %s has requests that do not end; the VM goes on, try again later", vm->name,
                 busy);
        save_resume_devices(vm);
    }
    return !busy;
}

void save_resume_devices(struct vm *vm)
{
    spin_lock(&vm->lock);
    for (unsigned i = 0; i < vm->device_count; i++)
        virtio_resume(vm->device[i]);
    spin_unlock(&vm->lock);
}

/* ---- Saving ---- */

static void write_part(struct walk *k, struct stream_writer *w, const struct part *part)
{
    uint64_t set = instances(k->vm, part->scope);

    if (part->scope == ANY) {
        part->whole(k, w);
        return;
    }
    spin_lock(&k->vm->lock);
    if (part->whole) {
        part->whole(k, w);
    } else {
        for (uint32_t i = 0; i < 64 && set >> i; i++) {
            if (!(set >> i & 1))
                continue;
            select(k, part->scope, i);
            stream_section(w, part->tag, i, part->version, STREAM_MANDATORY, part->put, k);
        }
    }
    spin_unlock(&k->vm->lock);
    thread_yield();
}

enum status save_write(struct vm *vm, bool paused, char *text, size_t text_bytes)
{
    struct page_totals totals;
    struct stream_writer w;
    struct walk k = {
        .vm = vm,
        .now = machine_now(vm),
        .info = { &vm->config, vm->gmem.bytes, vm->reset_count, paused },
    };

    page_totals_get(&totals);
    struct saved *saved = saved_create(vm->name);
    if (!saved)
        goto no_memory;
    stream_writer_init(&w, saved_sink, saved);
    for (unsigned i = 0; i < PARTS; i++)
        write_part(&k, &w, &parts[i]);
    enum status status = stream_finish(&w);
    if (status == OK) {
        vm->saved = saved;
        vm->saved_owner = saved->owner;
        return OK;
    }
    saved_destroy(saved);
    if (status != ERR_NO_MEMORY) {
        snprintf(text, text_bytes, "vm %s: its state could not be written (%s); it goes on", vm->name,
                 status_name(status));
        return status;
    }
no_memory:
    snprintf(text, text_bytes, "vm %s: the node has %lu MiB free, and its state takes more; it goes on. Stop another VM",
             vm->name, totals.free_bytes / MIB);
    return ERR_NO_MEMORY;
}

/* ---- Restoring ---- */

/* The first sections: what the machine is built from. */
static void read_head(struct walk *k, struct stream_reader *r, struct cpuid_model *model, struct save_clock *clock)
{
    struct cpuid_model *host = kzalloc(sizeof *host);
    char text[VM_TEXT_BYTES] = "";

    for (unsigned i = 0; i < HEAD_PARTS && !r->error; i++) {
        if (!stream_next(r))
            stream_fail(r, ERR_CORRUPT, "the section %s is missing", parts[i].tag);
        else if (strcmp(r->tag, parts[i].tag) || r->instance)
            stream_fail(r, ERR_CORRUPT, "the section %s is to be in its place", parts[i].tag);
        save_version(r, parts[i].version);
        if (r->error)
            break;
        if (i == 0)
            save_vm_get(&k->info, r);
        else if (i == 2)
            save_clock_get(clock, r, model->tsc_khz);
        else if (!host)
            stream_fail(r, ERR_NO_MEMORY, "the node has no memory left to read it");
        else if (machine_model(k->vm, NULL, host, text, sizeof text) != OK)
            stream_fail(r, ERR_UNSUPPORTED, "%s", text);
        else
            cpuid_model_restore(model, r, host);
        if (i == 1 && !r->error && model->vcpu_count != k->vm->config.vcpus)
            stream_fail(r, ERR_CORRUPT, "it is of %u vCPUs", model->vcpu_count);
    }
    kfree(host, sizeof *host);
}

static void read_section(struct walk *k, struct stream_reader *r, uint64_t seen[PARTS], unsigned *last)
{
    unsigned n = 0;

    while (n < PARTS && strcmp(parts[n].tag, r->tag))
        n++;
    if (n == PARTS) {
        stream_unknown(r);
        return;
    }
    const struct part *part = &parts[n];
    save_version(r, part->version);
    if (n < *last || !part->get)
        stream_fail(r, ERR_CORRUPT, "it is out of order");
    if (part->scope != ANY && !r->error) {
        if (r->instance >= 64 || !(instances(k->vm, part->scope) >> r->instance & 1))
            stream_fail(r, ERR_CORRUPT, "this VM has none of that number");
        else if (seen[n] >> r->instance & 1)
            stream_fail(r, ERR_CORRUPT, "it comes twice");
    }
    if (r->error)
        return;
    *last = n;
    if (part->scope == ANY) {
        part->get(k, r);
    } else {
        seen[n] |= BIT(r->instance);
        select(k, part->scope, r->instance);
        spin_lock(&k->vm->lock);
        part->get(k, r);
        spin_unlock(&k->vm->lock);
    }
    if (!r->error && stream_left(r))
        stream_fail(r, ERR_CORRUPT, "it is longer than its fields");
}

static void read_rest(struct walk *k, struct stream_reader *r)
{
    uint64_t seen[PARTS] = { 0 };
    unsigned last = 0;

    while (stream_next(r)) {
        read_section(k, r, seen, &last);
        thread_yield();
    }
    for (unsigned n = HEAD_PARTS; n < PARTS && !r->error; n++) {
        uint64_t missing = instances(k->vm, parts[n].scope) & ~seen[n];
        if (missing)
            stream_fail(r, ERR_CORRUPT, "the section %s %u is missing", parts[n].tag,
                        (unsigned)__builtin_ctzll(missing));
    }
}

/* The guest's clocks begin where they stood. */
static void set_clocks(struct vm *vm, const struct save_clock *clock)
{
    vm->paused_at_tsc = rdtsc();
    vm->paused_at_ns = time_tsc_to_ns(vm->paused_at_tsc);
    vm->clock_stopped = true;
    vm->clock_base_ns = vm->paused_at_ns - clock->guest_ns;
    vm->tsc_offset = clock->guest_tsc - machine_tsc(vm);
}

/* Every checksum, before anything is built. */
static void verify(struct stream_reader *r)
{
    while (stream_next(r))
        thread_yield();
}

static enum status refuse(const struct vm *vm, const struct stream_reader *r, char *text, size_t text_bytes)
{
    snprintf(text, text_bytes, "vm %s: its saved state is refused: %s; the state is kept, `vm stop %s --hard` drops it",
             vm->name, r->error_text, vm->name);
    return r->error;
}

static enum status read_all(struct vm *vm, struct walk *k, struct stream_reader *r, struct cpuid_model *model,
                            char *text, size_t text_bytes)
{
    struct save_clock clock;

    if (saved_reader(vm->saved, r) == OK)
        verify(r);
    if (!r->error && saved_reader(vm->saved, r) == OK)
        read_head(k, r, model, &clock);
    if (r->error)
        return refuse(vm, r, text, text_bytes);
    enum status status = machine_build(vm, model, text, text_bytes);
    if (status != OK)
        return status;
    set_clocks(vm, &clock);
    k->now = clock.guest_ns;
    machine_hyperv_init(vm);
    read_rest(k, r);
    if (r->error)
        return refuse(vm, r, text, text_bytes);
    uint64_t least = hyperv_time(&vm->hyperv, clock.guest_tsc);
    hyperv_retime(&vm->hyperv, vm->tsc_rate_khz, clock.guest_tsc, clock.guest_ns, least);
    for (unsigned i = 0; i < vm->cpu_count; i++)
        vm->vcpu[i]->valid = vm->vcpu[i]->dirty = STATE_ALL;
    return OK;
}

enum status save_read(struct vm *vm, bool *paused, char *text, size_t text_bytes)
{
    struct walk k = { .vm = vm, .info = { .config = &vm->config,
                                          .memory_bytes = ALIGN_UP(vm->config.memory_bytes, LARGE_PAGE_BYTES) } };
    struct cpuid_model *model = kzalloc(sizeof *model);
    struct stream_reader *r = kzalloc(sizeof *r);
    enum status status = ERR_NO_MEMORY;

    if (model && r)
        status = read_all(vm, &k, r, model, text, text_bytes);
    else
        snprintf(text, text_bytes, "vm %s: the node has no memory left to read its state; stop another VM", vm->name);
    *paused = k.info.paused;
    if (status == OK)
        vm->reset_count = k.info.reset_count;
    kfree(r, sizeof *r);
    kfree(model, sizeof *model);
    return status;
}

/* ---- For the admin ---- */

void save_describe(struct vm *vm, struct vm_saved *description)
{
    struct stream_reader r;

    description->bytes = vm->saved->bytes;
    description->row_count = 0;
    if (saved_reader(vm->saved, &r) == OK)
        description->row_count = save_list(&r, description->row, VM_SAVED_ROWS, thread_yield);
    description->section_count = r.section_count;
    snprintf(description->error, sizeof description->error, "%s", r.error_text);
}
