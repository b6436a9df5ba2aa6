/* SPDX-License-Identifier: MIT */
/*
 * The dirty log as orders of the VM's thread: start, collect, stop. vmm/dirty.c does it; here is what it needs of the
 * machine, which is to bring every vCPU out of the guest.
 *
 * Each vCPU has to leave the guest once and to flush before it enters again. With page-modification logging it brings what
 * its CPU has logged into the dirty log at that moment, or that is done for it while it is out.
 */
#include <stdio.h>
#include <string.h>

#include "vm/machine.h"

#define YIELD_PAGES 64     /* of the bitmap: cleared at a stretch */
#define YIELD_WORDS 32768u /* of it: looked at */

const char *vm_dirty_engine_name(enum dirty_engine engine)
{
    static const char *const names[] = { "off", "wp", "ad", "pml" };
    return names[engine];
}

static void flush_all(struct vm_core *core)
{
    struct vm *vm = CONTAINER_OF(core, struct vm, core);

    for (unsigned i = 0; i < vm->cpu_count; i++)
        vcpu_flush_wait(vm->vcpu[i]);
}

static void drain_all(struct vm_core *core)
{
    struct vm *vm = CONTAINER_OF(core, struct vm, core);

    for (unsigned i = 0; i < vm->cpu_count; i++) {
        vcpu_flush_wait(vm->vcpu[i]);
        vmm->pml_drain(vm->vcpu[i]);
    }
}

static const struct dirty_ops ops = { .flush_all = flush_all, .drain_all = drain_all, .yield = thread_yield };

static bool has_engine(enum dirty_engine engine)
{
    switch (engine) {
    case DIRTY_PML: return vmm->features->pml;
    case DIRTY_ACCESSED_DIRTY: return vmm->features->second_stage_ad;
    case DIRTY_WRITE_PROTECT: return true;
    case DIRTY_OFF: break;
    }
    return false;
}

static enum dirty_engine best_engine(void)
{
    enum dirty_engine engine = DIRTY_PML;

    while (!has_engine(engine))
        engine--;
    return engine;
}

static enum status need_machine(const struct vm *vm, char *text, size_t text_bytes)
{
    if (vm->built)
        return OK;
    snprintf(text, text_bytes, "vm %s: it is %s and writes nothing; start it first", vm->name,
             vm_state_name(vm->state));
    return ERR_BUSY;
}

static enum status need_log(const struct vm *vm, char *text, size_t text_bytes)
{
    enum status status = need_machine(vm, text, text_bytes);

    if (status == OK && vm->dirty_engine == DIRTY_OFF) {
        snprintf(text, text_bytes, "vm %s: its dirty log is off; `vm dirty %s start` begins one", vm->name, vm->name);
        status = ERR_BUSY;
    }
    return status;
}

/* Page-modification logging on or off for every vCPU. It takes effect at their next entry. */
static void switch_pml(struct vm *vm, bool on)
{
    bool park = vm->state == VM_RUNNING;

    if (park)
        vm_park_all(vm);
    for (unsigned i = 0; i < vm->cpu_count; i++)
        vmm->pml(vm->vcpu[i], on);
    if (park)
        vm_unpark_all(vm);
}

enum status track_start(struct vm *vm, char *text, size_t text_bytes)
{
    struct vm_dirty *dirty = vm->order_argument;
    enum status status = need_machine(vm, text, text_bytes);

    if (status != OK)
        return status;
    if (vm->dirty_engine != DIRTY_OFF) {
        snprintf(text, text_bytes, "vm %s: its dirty log is on already, by %s; `vm dirty %s stop` ends it", vm->name,
                 vm_dirty_engine_name(vm->dirty_engine), vm->name);
        return ERR_BUSY;
    }
    if (dirty->engine == DIRTY_OFF)
        dirty->engine = best_engine();
    if (!has_engine(dirty->engine)) {
        snprintf(text, text_bytes, "vm %s: this node's CPU has no dirty log by %s; without --engine it takes the best",
                 vm->name, vm_dirty_engine_name(dirty->engine));
        return ERR_UNSUPPORTED;
    }
    vm->dirty_engine = dirty->engine;
    if (dirty->engine == DIRTY_PML)
        switch_pml(vm, true);
    status = dirty_log_start(&vm->stage2, dirty->engine, &ops);
    if (status != OK) {
        if (dirty->engine == DIRTY_PML)
            switch_pml(vm, false);
        vm->dirty_engine = DIRTY_OFF;
        snprintf(text, text_bytes, "vm %s: no memory for its dirty log (%s); stop another VM", vm->name,
                 status_name(status));
    }
    return status;
}

/* The pages of a bitmap as ranges. */
static void list_ranges(const uint64_t *bitmap, uint64_t bits, struct vm_dirty *dirty)
{
    uint64_t first = 0, count = 0;

    dirty->range_count = 0;
    for (uint64_t gfn = 0; gfn <= bits; gfn++) {
        if (gfn < bits && gfn % 64 == 0 && !bitmap[gfn / 64] && !count) {
            if (gfn / 64 % YIELD_WORDS == 0)
                thread_yield();
            gfn += 63;
            continue;
        }
        if (gfn < bits && (bitmap[gfn / 64] >> gfn % 64 & 1)) {
            if (!count++)
                first = gfn;
            continue;
        }
        if (!count)
            continue;
        if (dirty->range_count < VM_DIRTY_RANGES) {
            dirty->range[dirty->range_count].gfn = first;
            dirty->range[dirty->range_count].count = count;
        }
        dirty->range_count++;
        count = 0;
    }
}

enum status track_collect(struct vm *vm, char *text, size_t text_bytes)
{
    struct vm_dirty *dirty = vm->order_argument;
    enum status status = need_log(vm, text, text_bytes);
    hpa_t run;

    if (status != OK)
        return status;
    uint64_t bits = dirty_log_bits(&vm->stage2), pages = ALIGN_UP(bits / 8, PAGE_BYTES) / PAGE_BYTES;
    if (!page_alloc_run(pages, vm->core.owner, 0, &run)) {
        snprintf(text, text_bytes, "vm %s: no memory for a bitmap of %lu pages; stop another VM", vm->name, bits);
        return ERR_NO_MEMORY;
    }
    uint64_t *bitmap = phys_to_virt(run);
    for (uint64_t page = 0; page < pages; page++) { /* a guest of a TiB has 32 MiB of it */
        memset((char *)bitmap + page * PAGE_BYTES, 0, PAGE_BYTES);
        if (page % YIELD_PAGES == YIELD_PAGES - 1)
            thread_yield();
    }
    uint64_t start = rdtsc();
    status = dirty_log_collect(&vm->stage2, bitmap, &dirty->page_count);
    dirty->ticks = rdtsc() - start;
    dirty->engine = vm->dirty_engine;
    if (status == OK)
        list_ranges(bitmap, bits, dirty);
    else
        snprintf(text, text_bytes, "vm %s: its dirty log cannot be collected (%s); stop the log and start it anew", vm->name,
                 status_name(status));
    page_free_run(run, pages, vm->core.owner);
    return status;
}

enum status track_stop(struct vm *vm, char *text, size_t text_bytes)
{
    struct vm_dirty *dirty = vm->order_argument;
    enum status status = need_log(vm, text, text_bytes);

    if (status != OK)
        return status;
    dirty->engine = vm->dirty_engine;
    dirty_log_stop(&vm->stage2);
    if (vm->dirty_engine == DIRTY_PML)
        switch_pml(vm, false);
    vm->dirty_engine = DIRTY_OFF;
    return OK;
}
