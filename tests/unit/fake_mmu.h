/* SPDX-License-Identifier: MIT */
/*
 * A CPU that runs a guest, as far as its second-stage translation goes: it walks the tables as the manuals say, keeps
 * every translation it ever made until it is told to flush (or faults on it), sets accessed and dirty bits with atomic
 * operations, logs by PML, and turns what it may not do into stage2_fault().
 *
 * Where the manuals leave a choice it takes the nastier one at random: with a 4 KiB and a 2 MiB translation of one page
 * it uses either; a cached writable translation whose dirty bit was clear sets the bit in memory without looking again
 * at the rights (SDM vol. 3A, 4.8 warns that some processors do). Most write faults are tried as light exits first.
 *
 * Several of them may run on threads of their own. Include after fake_memory.h.
 */
#ifndef TESTS_FAKE_MMU_H
#define TESTS_FAKE_MMU_H

#include "vmm/gmem.h"
#include "vmm/stage2.h"

#define FAKE_PML_ENTRIES 8 /* hardware has 512; few make the full buffer frequent */

struct fake_translation {
    uint64_t *leaf; /* NULL: none */
    uint64_t generation; /* another than the vCPU's: flushed */
    hpa_t hpa;      /* of the page or frame */
    bool writable, dirty;
};

struct fake_vcpu {
    struct stage2 *stage2;
    unsigned id;
    bool ad, pml;            /* A/D bits enabled; page-modification log enabled */
    bool blind;              /* always sets dirty bits through cached translations, never by walking again */
    struct fake_translation *small, *large, *huge; /* by page, frame, GiB */
    uint64_t log[FAKE_PML_ENTRIES]; /* filled from the last entry down */
    int log_index, log_next;        /* the next that the CPU fills; the next that is drained */
    uint64_t generation;
    uint64_t seed;
    uint64_t fault_count, pml_exit_count;
    volatile bool flush_wanted, drain_wanted;
    volatile uint64_t exits; /* counts every time it is outside of the guest */
};

static uint64_t vcpu_random(struct fake_vcpu *vcpu)
{
    vcpu->seed = vcpu->seed * 6364136223846793005ull + 1442695040888963407ull;
    return vcpu->seed >> 33;
}

static void vcpu_init(struct fake_vcpu *vcpu, struct stage2 *stage2, unsigned id)
{
    uint64_t end = gmem_end(stage2->gmem);

    *vcpu = (struct fake_vcpu){ .stage2 = stage2, .id = id, .seed = id * 77 + 5 };
    memset(vcpu->log, 0xff, sizeof vcpu->log);
    vcpu->log_index = vcpu->log_next = FAKE_PML_ENTRIES - 1;
    vcpu->small = calloc(end / PAGE_BYTES, sizeof *vcpu->small);
    vcpu->large = calloc(end / LARGE_PAGE_BYTES, sizeof *vcpu->large);
    vcpu->huge = calloc(end / GIB + 1, sizeof *vcpu->huge);
}

static void vcpu_done(struct fake_vcpu *vcpu)
{
    free(vcpu->small);
    free(vcpu->large);
    free(vcpu->huge);
}

static void vcpu_drain(struct fake_vcpu *vcpu)
{
    spin_lock(&vcpu->stage2->lock);
    vcpu->log_next = dirty_log_drain(vcpu->stage2, vcpu->log, vcpu->log_next);
    if (vcpu->log_next != vcpu->log_index)
        abort();
    for (unsigned i = 0; i < FAKE_PML_ENTRIES; i++)
        if (vcpu->log[i] != DIRTY_LOG_EMPTY)
            abort();
    if (vcpu->log_next < 0)
        vcpu->log_next = vcpu->log_index = FAKE_PML_ENTRIES - 1;
    spin_unlock(&vcpu->stage2->lock);
}

/* Flushes, if that was asked for, and keeps what it has logged: as where it was outside of the guest all the time. */
static void vcpu_flush(struct fake_vcpu *vcpu)
{
    if (vcpu->flush_wanted) {
        vcpu->flush_wanted = false;
        vcpu->generation++;
    }
    __atomic_fetch_add(&vcpu->exits, 1, __ATOMIC_SEQ_CST);
}

/* What happens between an exit and the next entry. The log is brought in where it has to be, and now and then. */
static void vcpu_outside(struct fake_vcpu *vcpu)
{
    bool must = vcpu->drain_wanted;

    if (must)
        vcpu->drain_wanted = false; /* first: whoever asks from now on waits for the next time */
    if (must || vcpu->log_index < 0 || vcpu_random(vcpu) % 2)
        vcpu_drain(vcpu);
    vcpu_flush(vcpu);
}

enum fake_step { STEP_DONE, STEP_AGAIN, STEP_NOT_RAM };

/* The dirty bit of a leaf goes from 0 to 1: PML logs that, or is full, which is an exit before anything happened. */
static bool vcpu_set_dirty(struct fake_vcpu *vcpu, uint64_t *leaf, uint64_t gpa, uint64_t dirty)
{
    if (vcpu->pml) {
        if (vcpu->log_index < 0) {
            vcpu->pml_exit_count++;
            vcpu_outside(vcpu);
            return false;
        }
        if (!(__atomic_fetch_or(leaf, dirty, __ATOMIC_SEQ_CST) & dirty))
            vcpu->log[vcpu->log_index--] = gpa & ~(PAGE_BYTES - 1);
    } else {
        __atomic_fetch_or(leaf, dirty, __ATOMIC_SEQ_CST);
    }
    return true;
}

static enum fake_step vcpu_fault(struct fake_vcpu *vcpu, uint64_t gpa, bool write)
{
    vcpu->fault_count++;
    /* A light exit (vmm/light.h): nobody has seen it out of the guest, and nothing that was asked for is done. */
    if (write && vcpu_random(vcpu) % 4 && stage2_write_fault_light(vcpu->stage2, gpa))
        return STEP_AGAIN;
    enum stage2_result result = stage2_fault(vcpu->stage2, GPA(gpa), write ? ACCESS_WRITE : ACCESS_READ);

    vcpu_outside(vcpu);
    if (result == STAGE2_NO_MEMORY)
        abort();
    return result == STAGE2_MAPPED ? STEP_AGAIN : STEP_NOT_RAM;
}

/* Walks the table. On success the access may be done at *hpa. */
static enum fake_step vcpu_walk(struct fake_vcpu *vcpu, uint64_t gpa, bool write, hpa_t *hpa)
{
    const struct pt *pt = &vcpu->stage2->core->stage2;
    const struct pt_format *format = pt->format;
    uint64_t *table = phys_to_virt(pt->root), bytes = BIT(39);
    bool writable = true;

    for (;; bytes /= 512) {
        uint64_t *slot = &table[gpa / bytes % 512], entry = __atomic_load_n(slot, __ATOMIC_ACQUIRE);

        writable = writable && (entry & format->write);
        if (!(entry & format->present_mask) || (write && !writable))
            return vcpu_fault(vcpu, gpa, write);
        if (bytes > PAGE_BYTES && !(entry & format->large)) {
            if (vcpu->ad)
                __atomic_fetch_or(slot, format->accessed, __ATOMIC_SEQ_CST);
            table = phys_to_virt(HPA(entry & PT_ADDRESS_MASK));
            continue;
        }
        if (vcpu->ad) {
            uint64_t bits = format->accessed | (write ? format->dirty : 0);

            if (write && !(entry & format->dirty) && !vcpu_set_dirty(vcpu, slot, gpa, format->dirty))
                return STEP_AGAIN;
            /* The whole entry is compared, so that rights that went away in the meantime are seen. */
            if ((entry & bits) != bits) {
                uint64_t now = entry | (write ? format->dirty : 0);
                if (!__atomic_compare_exchange_n(slot, &now, now | bits, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
                    return STEP_AGAIN;
                entry |= bits;
            }
        }
        struct fake_translation *cached = bytes == PAGE_BYTES         ? &vcpu->small[gpa / PAGE_BYTES]
                                          : bytes == LARGE_PAGE_BYTES ? &vcpu->large[gpa / LARGE_PAGE_BYTES]
                                                                      : &vcpu->huge[gpa / GIB];
        hpa_t base = HPA(entry & PT_ADDRESS_MASK & ~(bytes - 1));
        *cached = (struct fake_translation){ slot, vcpu->generation, base, writable, entry & format->dirty };
        *hpa = HPA(base.v + gpa % bytes);
        return STEP_DONE;
    }
}

/* One try of an access: through a cached translation if there is one, else by walking. */
static enum fake_step vcpu_try(struct fake_vcpu *vcpu, uint64_t gpa, bool write, hpa_t *hpa)
{
    struct fake_translation *cached[3] = { &vcpu->small[gpa / PAGE_BYTES], &vcpu->large[gpa / LARGE_PAGE_BYTES],
                                           &vcpu->huge[gpa / GIB] };
    uint64_t bytes[3] = { PAGE_BYTES, LARGE_PAGE_BYTES, GIB };
    unsigned first = (unsigned)(vcpu_random(vcpu) % 3);

    for (unsigned n = 0; n < 3; n++) {
        unsigned i = (first + n) % 3;

        if (!cached[i]->leaf || cached[i]->generation != vcpu->generation)
            continue;
        if (write && !cached[i]->writable) {
            cached[i]->leaf = NULL; /* a fault removes what it used */
            continue;
        }
        if (write && vcpu->ad && !cached[i]->dirty) {
            if (!vcpu->blind && vcpu_random(vcpu) % 2) {
                cached[i]->leaf = NULL; /* walks again */
                continue;
            }
            if (!vcpu_set_dirty(vcpu, cached[i]->leaf, gpa, vcpu->stage2->core->stage2.format->dirty))
                return STEP_AGAIN;
            cached[i]->dirty = true;
        }
        *hpa = HPA(cached[i]->hpa.v + gpa % bytes[i]);
        return STEP_DONE;
    }
    return vcpu_walk(vcpu, gpa, write, hpa);
}

/* Reads or writes 8 bytes. false: not RAM. A write increments the word, which only this vCPU writes. */
static bool vcpu_access(struct fake_vcpu *vcpu, uint64_t gpa, bool write, uint64_t *value)
{
    enum fake_step step;
    hpa_t hpa = { 0 };

    do
        step = vcpu_try(vcpu, gpa, write, &hpa);
    while (step == STEP_AGAIN);
    if (step == STEP_NOT_RAM)
        return false;
    uint64_t *word = gmem_window(hpa);
    if (write)
        __atomic_store_n(word, __atomic_load_n(word, __ATOMIC_RELAXED) + 1, __ATOMIC_RELAXED);
    *value = __atomic_load_n(word, __ATOMIC_RELAXED);
    return true;
}

#endif
