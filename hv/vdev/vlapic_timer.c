/* SPDX-License-Identifier: MIT */
/*
 * The local APIC's timer (SDM vol. 3A, 11.5.4): one-shot, periodic and TSC-deadline, changed at any time.
 *
 * The count is never counted down: timer_start_ns is the time of the last load (a periodic timer's last boundary), and
 * the count is a function of now. Time differences are taken modulo 2^64, so that a timer that was loaded before the
 * guest's clock was set back by a restore still counts right. The host-side vtimer is armed only when an interrupt
 * would come of it, that is, not while the entry is masked: what expires then is lost, as on the real one.
 *
 * Late service. A write to a timer register first delivers an expiry that is due but was not served yet, so that no
 * interrupt is lost between the host's timer and the guest's write. A periodic timer that missed several boundaries
 * interrupts once for all of them, keeps its phase, and interrupts at most once in VLAPIC_MIN_PERIOD_NS.
 */
#include "vdev/vlapic_private.h"

static uint32_t timer_mode(const struct vlapic *apic)
{
    return apic->lvt[LVT_TIMER] & LVT_TIMER_MODE;
}

static bool masked(const struct vlapic *apic)
{
    return apic->lvt[LVT_TIMER] & LVT_MASKED;
}

/* 1 to 128: the divide configuration is bits 3, 1 and 0, and 7 means 1. */
static uint64_t divisor(const struct vlapic *apic)
{
    unsigned code = (apic->timer_divide >> 1 & 4) | (apic->timer_divide & 3);
    return 1u << ((code + 1) & 7);
}

static uint64_t period_ns(const struct vlapic *apic)
{
    return apic->timer_initial * divisor(apic);
}

static bool deadline_passed(const struct vlapic *apic)
{
    return apic->ops->tsc(apic->vcpu) >= apic->tsc_deadline;
}

void vlapic_timer_stop(struct vlapic *apic)
{
    apic->timer_running = false;
    vtimer_arm(&apic->timer, VTIMER_OFF);
}

void vlapic_timer_rearm(struct vlapic *apic, uint64_t now_ns)
{
    uint64_t deadline = VTIMER_OFF;
    if (apic->timer_running && !masked(apic)) {
        if (timer_mode(apic) == TIMER_TSC_DEADLINE)
            deadline = MAX(apic->ops->tsc_to_ns(apic->vcpu, apic->tsc_deadline), now_ns);
        else {
            uint64_t elapsed = now_ns - apic->timer_start_ns, period = period_ns(apic);
            deadline = now_ns + (elapsed < period ? period - elapsed : 0);
        }
        deadline = MIN(deadline, VTIMER_OFF - 1);
    }
    vtimer_arm(&apic->timer, deadline);
}

void vlapic_tsc_changed(struct vlapic *apic, uint64_t now_ns)
{
    if (apic->timer_running && timer_mode(apic) == TIMER_TSC_DEADLINE)
        vlapic_timer_rearm(apic, now_ns);
}

/* Moves a periodic timer's start to its latest boundary; lets what expired while masked be gone. */
static void settle(struct vlapic *apic, uint64_t now_ns)
{
    if (!apic->timer_running)
        return;
    uint64_t elapsed = now_ns - apic->timer_start_ns, period = period_ns(apic);
    if (timer_mode(apic) == TIMER_PERIODIC) {
        apic->timer_start_ns += elapsed / period * period;
    } else if (timer_mode(apic) == TIMER_TSC_DEADLINE ? deadline_passed(apic) : elapsed >= period) {
        apic->timer_running = false;
        apic->tsc_deadline = 0;
    }
}

/* The timer has expired and is not masked. */
static void expire(struct vlapic *apic, uint64_t now_ns)
{
    if (timer_mode(apic) == TIMER_PERIODIC) {
        settle(apic, now_ns);
        uint64_t period = period_ns(apic), elapsed = now_ns - apic->timer_start_ns, wait = period - elapsed;
        if (wait < VLAPIC_MIN_PERIOD_NS)
            wait += (VLAPIC_MIN_PERIOD_NS - wait + period - 1) / period * period;
        vtimer_arm(&apic->timer, MIN(now_ns + wait, VTIMER_OFF - 1));
    } else {
        apic->tsc_deadline = 0;
        vlapic_timer_stop(apic);
    }
    vlapic_local(apic, LVT_TIMER);
}

void vlapic_timer_fire(struct vtimer *timer, uint64_t now_ns)
{
    struct vlapic *apic = CONTAINER_OF(timer, struct vlapic, timer);
    if (timer_mode(apic) == TIMER_TSC_DEADLINE && !deadline_passed(apic)) {
        /* The conversion rounded down: the guest must not see the interrupt before its TSC has the value. */
        uint64_t deadline = apic->ops->tsc_to_ns(apic->vcpu, apic->tsc_deadline);
        vtimer_arm(timer, MIN(MAX(deadline, now_ns + 1), VTIMER_OFF - 1));
        return;
    }
    expire(apic, now_ns);
}

/* Before a register changes: what was due comes first. */
static void catch_up(struct vlapic *apic, uint64_t now_ns)
{
    if (apic->timer.deadline_ns <= now_ns) {
        vtimer_arm(&apic->timer, VTIMER_OFF);
        vlapic_timer_fire(&apic->timer, now_ns);
    }
}

uint32_t vlapic_timer_current(const struct vlapic *apic, uint64_t now_ns)
{
    if (!apic->timer_running || timer_mode(apic) == TIMER_TSC_DEADLINE)
        return 0;
    uint64_t elapsed = now_ns - apic->timer_start_ns;
    if (timer_mode(apic) == TIMER_PERIODIC)
        elapsed %= period_ns(apic);
    uint64_t counted = elapsed / divisor(apic);
    return counted >= apic->timer_initial ? 0 : apic->timer_initial - (uint32_t)counted;
}

uint64_t vlapic_timer_deadline(const struct vlapic *apic)
{
    return apic->timer_running && timer_mode(apic) == TIMER_TSC_DEADLINE && !deadline_passed(apic) ? apic->tsc_deadline
                                                                                                  : 0;
}

void vlapic_timer_write_lvt(struct vlapic *apic, uint32_t value, uint64_t now_ns)
{
    catch_up(apic, now_ns);
    settle(apic, now_ns);
    bool was_deadline = timer_mode(apic) == TIMER_TSC_DEADLINE;
    apic->lvt[LVT_TIMER] = value;
    if (was_deadline != (timer_mode(apic) == TIMER_TSC_DEADLINE)) {
        apic->timer_initial = 0;
        apic->tsc_deadline = 0;
        apic->timer_running = false;
    }
    vlapic_timer_rearm(apic, now_ns);
}

void vlapic_timer_write_initial(struct vlapic *apic, uint32_t value, uint64_t now_ns)
{
    if (timer_mode(apic) == TIMER_TSC_DEADLINE)
        return;
    catch_up(apic, now_ns);
    apic->timer_initial = value;
    apic->timer_start_ns = now_ns;
    apic->timer_running = value != 0;
    vlapic_timer_rearm(apic, now_ns);
}

void vlapic_timer_write_divide(struct vlapic *apic, uint32_t value, uint64_t now_ns)
{
    if (timer_mode(apic) == TIMER_TSC_DEADLINE) {
        apic->timer_divide = value;
        return;
    }
    catch_up(apic, now_ns);
    settle(apic, now_ns);
    uint64_t counted = apic->timer_initial - vlapic_timer_current(apic, now_ns);
    apic->timer_divide = value;
    if (apic->timer_running)
        apic->timer_start_ns = now_ns - counted * divisor(apic);
    vlapic_timer_rearm(apic, now_ns);
}

void vlapic_timer_write_deadline(struct vlapic *apic, uint64_t tsc, uint64_t now_ns)
{
    if (timer_mode(apic) != TIMER_TSC_DEADLINE)
        return;
    catch_up(apic, now_ns);
    apic->tsc_deadline = tsc;
    apic->timer_running = tsc != 0;
    if (!tsc || !deadline_passed(apic)) {
        vlapic_timer_rearm(apic, now_ns);
        return;
    }
    apic->tsc_deadline = 0;
    vlapic_timer_stop(apic);
    vlapic_local(apic, LVT_TIMER);
}
