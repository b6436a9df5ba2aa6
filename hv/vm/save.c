/* SPDX-License-Identifier: MIT */
/*
 * Saving and restoring a machine. See save.h.
 *
 * save_parts.c has a table of every section in the order of the stream: who writes it and who takes it back. Here is the
 * walk along it, and what comes before and after.
 *
 * The guest's clocks stand from before the first section is written until after the last is read: machine_now() and
 * machine_tsc() give one and the same moment to every device, so that no timer is moved against another.
 */
#include "vm/save.h"

#include <stdio.h>
#include <string.h>

#include "kernel/heap.h"
#include "kernel/log.h"
#include "vm/save_parts.h"
#include "vm/saved.h"

#define DRAIN_NS (5 * NS_PER_S)
#define DRAIN_STEP_NS NS_PER_MS

/* ---- Devices at rest ---- */

bool save_quiesce(struct vm *vm, char *text, size_t text_bytes)
{
    uint64_t deadline = time_now_ns() + DRAIN_NS;
    const char *busy;

    do {
        busy = NULL;
        spin_lock(&vm->lock);
        for (unsigned i = 0; i < vm->device_count; i++)
            virtio_quiesce(vm->device[i]);
        machine_complete_disks(vm);
        for (unsigned i = 0; i < vm->device_count; i++) {
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

static void write_part(struct save_walk *k, struct stream_writer *w, const struct save_part *part)
{
    uint64_t set = save_instances(k->vm, part->scope);
    struct saved *saved = w->context;

    saved->may_wait = part->scope == ANY; /* else the device lock is held */
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
            save_select(k, part->scope, i);
            stream_section(w, part->tag, i, part->version, STREAM_MANDATORY, part->put, k);
        }
    }
    spin_unlock(&k->vm->lock);
    thread_yield();
}

enum status save_write(struct vm *vm, bool paused, const struct saved_spill *spill, char *text, size_t text_bytes)
{
    struct page_totals totals;
    struct stream_writer w;
    struct save_walk k = {
        .vm = vm,
        .now = machine_now(vm),
        .info = { &vm->config, vm->gmem.bytes, vm->reset_count, paused },
    };

    enum status status = machine_note_disks(vm, text, text_bytes);
    if (status != OK)
        return status;
    page_totals_get(&totals);
    struct saved *saved = saved_create(vm->name);
    if (!saved)
        goto no_memory;
    if (spill)
        saved->out = *spill;
    stream_writer_init(&w, saved_sink, saved);
    for (unsigned i = 0; i < SAVE_PARTS; i++)
        write_part(&k, &w, &save_parts[i]);
    status = stream_finish(&w);
    if (status == OK) {
        vm->saved = saved;
        vm->saved_owner = saved->owner;
        return OK;
    }
    saved_destroy(saved);
    if (text[0])
        return status;
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
static void read_head(struct save_walk *k, struct stream_reader *r, struct cpuid_model *model, struct save_clock *clock)
{
    struct cpuid_model *host = kzalloc(sizeof *host);
    char text[VM_TEXT_BYTES] = "";

    for (unsigned i = 0; i < SAVE_HEAD_PARTS && !r->error; i++) {
        if (!stream_next(r))
            stream_fail(r, ERR_CORRUPT, "the section %s is missing", save_parts[i].tag);
        else if (strcmp(r->tag, save_parts[i].tag) || r->instance)
            stream_fail(r, ERR_CORRUPT, "the section %s is to be in its place", save_parts[i].tag);
        save_version(r, save_parts[i].oldest, save_parts[i].version);
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

static void read_section(struct save_walk *k, struct stream_reader *r, uint64_t seen[SAVE_PARTS], unsigned *last)
{
    unsigned n = 0;

    while (n < SAVE_PARTS && strcmp(save_parts[n].tag, r->tag))
        n++;
    if (n == SAVE_PARTS) {
        stream_unknown(r);
        return;
    }
    const struct save_part *part = &save_parts[n];
    save_version(r, part->oldest, part->version);
    if (n < *last || !part->get)
        stream_fail(r, ERR_CORRUPT, "it is out of order");
    if (part->scope != ANY && !r->error) {
        if (r->instance >= 64 || !(save_instances(k->vm, part->scope) >> r->instance & 1))
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
        save_select(k, part->scope, r->instance);
        spin_lock(&k->vm->lock);
        part->get(k, r);
        spin_unlock(&k->vm->lock);
    }
    if (!r->error && stream_left(r))
        stream_fail(r, ERR_CORRUPT, "it is longer than its fields");
}

static void read_rest(struct save_walk *k, struct stream_reader *r)
{
    uint64_t seen[SAVE_PARTS] = { 0 };
    unsigned last = 0;

    while (stream_next(r)) {
        read_section(k, r, seen, &last);
        thread_yield();
    }
    for (unsigned n = SAVE_HEAD_PARTS; n < SAVE_PARTS && !r->error; n++) {
        uint64_t missing = save_instances(k->vm, save_parts[n].scope) & ~seen[n];
        if (missing)
            stream_fail(r, ERR_CORRUPT, "the section %s %u is missing", save_parts[n].tag,
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

/*
 * Every checksum, before anything is built. A stream that comes from elsewhere is read once only: what is wrong with it is found
 * before a vCPU runs, too.
 */
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

static enum status read_all(struct vm *vm, struct save_walk *k, struct stream_reader *r, struct cpuid_model *model,
                            char *text, size_t text_bytes)
{
    struct save_clock clock;

    if (!vm->saved->source.at && saved_reader(vm->saved, r) == OK)
        verify(r);
    if (!r->error && saved_reader(vm->saved, r) == OK)
        read_head(k, r, model, &clock);
    if (r->error)
        return refuse(vm, r, text, text_bytes);
    enum status status = machine_build(vm, model, text, text_bytes);
    if (status == OK)
        status = machine_note_disks(vm, text, text_bytes);
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
    struct save_walk k = { .vm = vm, .info = { .config = &vm->config,
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
