/* SPDX-License-Identifier: MIT */
/*
 * Save and restore of a local APIC, and what is shown of it. Times are written relative to the moment of the save, so that
 * the restored machine's clock may start anywhere. Everything read is checked before any of it is used: a value that the
 * registers could not have shows a damaged or a made-up stream.
 */
#include "vdev/vlapic_private.h"

#include <string.h>

/* A timer loaded longer ago than this was not loaded by a guest: 146 years. */
#define ELAPSED_MAX BIT(62)

void vlapic_summarize(const struct vlapic *apic, struct vlapic_summary *summary)
{
    struct vlapic whole = *apic;

    vlapic_page_read_back(&whole);
    int requested = vlapic_highest_request(&whole);
    *summary = (struct vlapic_summary){
        .base_msr = whole.base_msr, .tpr = whole.tpr, .ppr = vlapic_ppr(&whole), .svr = whole.svr,
        .lvt_timer = whole.lvt[LVT_TIMER], .requested = (uint8_t)MAX(requested, 0), .in_service = whole.highest_isr,
        .lent = apic->lent, .timer_ns = apic->timer.deadline_ns,
    };
}

void vlapic_save(const struct vlapic *from, struct stream_writer *w, uint64_t now_ns)
{
    struct vlapic whole = *from; /* with what is in the page, which stays lent */
    const struct vlapic *apic = &whole;

    vlapic_page_read_back(&whole);
    stream_put_u32(w, apic->id);
    stream_put_u64(w, apic->base_msr);
    stream_put_u32(w, apic->tpr);
    stream_put_u32(w, apic->ldr);
    stream_put_u32(w, apic->dfr);
    stream_put_u32(w, apic->svr);
    stream_put_u32(w, apic->esr);
    stream_put_u32(w, __atomic_load_n(&apic->esr_pending, __ATOMIC_RELAXED));
    stream_put_u32(w, apic->icr_low);
    stream_put_u32(w, apic->icr_high);
    for (unsigned i = 0; i < LVT_COUNT; i++)
        stream_put_u32(w, apic->lvt[i]);
    stream_put_u32(w, apic->timer_initial);
    stream_put_u32(w, apic->timer_divide);
    stream_put_u8(w, apic->timer_running);
    stream_put_u64(w, apic->timer_running ? now_ns - apic->timer_start_ns : 0);
    stream_put_u64(w, apic->tsc_deadline);
    for (unsigned i = 0; i < 8; i++) {
        stream_put_u32(w, apic->isr[i]);
        stream_put_u32(w, __atomic_load_n(&apic->tmr[i], __ATOMIC_SEQ_CST));
        stream_put_u32(w, __atomic_load_n(&apic->irr[i], __ATOMIC_SEQ_CST));
    }
    stream_put_u8(w, __atomic_load_n(&apic->extint, __ATOMIC_SEQ_CST) != 0);
}

/* What is wrong with a restored APIC, or NULL. */
static const char *check(const struct vlapic *apic, const struct vlapic *before, uint64_t elapsed)
{
    uint64_t mode = apic->base_msr & (APIC_BASE_ENABLE | APIC_BASE_X2APIC);
    if (apic->id != before->id)
        return "the APIC ID is another vCPU's";
    if ((apic->base_msr & ~(mode | APIC_BASE_BSP)) != APIC_BASE_DEFAULT || mode == APIC_BASE_X2APIC)
        return "IA32_APIC_BASE";
    if ((apic->base_msr ^ before->base_msr) & APIC_BASE_BSP)
        return "the boot processor is another vCPU";
    if (apic->tpr > 0xff || apic->ldr & 0xffffff || ~apic->dfr & 0x0fffffff || apic->svr & ~0x3ffu)
        return "TPR, LDR, DFR or SVR";
    if ((apic->esr | apic->esr_pending) & ~0xffu || apic->icr_low & ~ICR_WRITABLE)
        return "ESR or ICR";
    for (unsigned i = 0; i < LVT_COUNT; i++)
        if (apic->lvt[i] & ~vlapic_lvt_writable(i))
            return "LVT";
    if (apic->timer_divide & ~0xbu || elapsed > ELAPSED_MAX)
        return "the timer";
    bool deadline_mode = (apic->lvt[LVT_TIMER] & LVT_TIMER_MODE) == TIMER_TSC_DEADLINE;
    if (apic->timer_running && !(deadline_mode ? apic->tsc_deadline : apic->timer_initial))
        return "a running timer without a count";
    if ((apic->isr[0] | apic->irr[0] | apic->tmr[0]) & 0xffff)
        return "a vector below 16";
    return NULL;
}

void vlapic_restore(struct vlapic *apic, struct stream_reader *r, uint64_t now_ns)
{
    vlapic_recall(apic);
    struct vlapic new = *apic;
    new.id = stream_get_u32(r);
    new.base_msr = stream_get_u64(r);
    new.tpr = stream_get_u32(r);
    new.ldr = stream_get_u32(r);
    new.dfr = stream_get_u32(r);
    new.svr = stream_get_u32(r);
    new.esr = stream_get_u32(r);
    new.esr_pending = stream_get_u32(r);
    new.icr_low = stream_get_u32(r);
    new.icr_high = stream_get_u32(r);
    for (unsigned i = 0; i < LVT_COUNT; i++)
        new.lvt[i] = stream_get_u32(r);
    new.timer_initial = stream_get_u32(r);
    new.timer_divide = stream_get_u32(r);
    new.timer_running = stream_get_u8(r) != 0;
    uint64_t elapsed = stream_get_u64(r);
    new.timer_start_ns = now_ns - elapsed;
    new.tsc_deadline = stream_get_u64(r);
    new.irr_words = 0;
    new.highest_isr = 0;
    for (unsigned i = 0; i < 8; i++) {
        new.isr[i] = stream_get_u32(r);
        new.tmr[i] = stream_get_u32(r);
        new.irr[i] = stream_get_u32(r);
        if (new.isr[i])
            new.highest_isr = (uint8_t)(i * 32 + 31 - (unsigned)__builtin_clz(new.isr[i]));
        if (new.irr[i])
            new.irr_words |= 1u << i;
    }
    new.extint = stream_get_u8(r) != 0;
    if (r->error != OK)
        return;
    const char *wrong = check(&new, apic, elapsed);
    if (wrong) {
        stream_fail(r, ERR_CORRUPT, "vCPU %u's local APIC: value out of range: %s", (unsigned)apic->id, wrong);
        return;
    }
    vtimer_arm(&apic->timer, VTIMER_OFF);
    new.timer = apic->timer;
    *apic = new;
    vlapic_timer_rearm(apic, now_ns);
}
