/* SPDX-License-Identifier: MIT */
/*
 * The local APIC: its state, requests and service, and the registers behind the xAPIC page and the x2APIC MSRs. The
 * timer is vlapic_timer.c, the way of messages between APICs vlapic_bus.c, save and restore vlapic_state.c, the page that a
 * CPU works on vlapic_page.c.
 *
 * Invariants:
 *  - While irr[n] has a bit set, irr_words has bit n (it may have it without need): "nothing requested" is one load.
 *  - highest_isr is the highest vector in service, 0 if none.
 *  - While `lent` is set, tpr, isr, highest_isr and, in xAPIC mode, ICR are out of date: what reads or writes them recalls
 *    the page first. tmr is not: the CPU does not change it.
 *  - Only irr, irr_words, tmr, esr_pending and extint are written by other CPUs; all with atomic operations. What other
 *    CPUs read of the rest (id, ldr, dfr, svr, base) are single words.
 *  - While IA32_APIC_BASE has the APIC off, all state is that of a reset and nothing is accepted.
 *
 * Registers are known by their x2APIC number (MSR minus 0x800), which is the xAPIC page offset divided by 16.
 */
#include "vdev/vlapic.h"
#include "vdev/vlapic_private.h"

#include <string.h>

#include "kernel/index_mask.h"

/* ---- Requests and service ---- */

static void reset_registers(struct vlapic *apic)
{
    __atomic_store_n(&apic->lent, false, __ATOMIC_RELAXED); /* what is in the page does not count any more */
    apic->tpr = 0;
    apic->ldr = 0;
    apic->dfr = UINT32_MAX;
    apic->svr = 0xff;
    apic->esr = 0;
    __atomic_store_n(&apic->esr_pending, 0, __ATOMIC_RELAXED);
    apic->icr_low = 0;
    apic->icr_high = 0;
    for (unsigned i = 0; i < LVT_COUNT; i++)
        apic->lvt[i] = LVT_MASKED;
    apic->timer_initial = 0;
    apic->timer_divide = 0;
    apic->tsc_deadline = 0;
    apic->timer_start_ns = 0;
    vlapic_timer_stop(apic);
    /* The summary first: a poster sets it last, so a request that comes in between stays visible. */
    __atomic_store_n(&apic->irr_words, 0, __ATOMIC_SEQ_CST);
    for (unsigned i = 0; i < 8; i++) {
        apic->isr[i] = 0;
        __atomic_store_n(&apic->tmr[i], 0, __ATOMIC_RELAXED);
        __atomic_store_n(&apic->irr[i], 0, __ATOMIC_SEQ_CST);
    }
    __atomic_store_n(&apic->extint, 0, __ATOMIC_SEQ_CST);
    apic->highest_isr = 0;
}

void vlapic_init(struct vlapic *apic, struct vlapic_bus *bus, const struct vlapic_ops *ops, void *vcpu, uint32_t id,
                 bool bsp, struct vtimer_queue *queue)
{
    memset(apic, 0, sizeof(*apic));
    apic->bus = bus;
    apic->ops = ops;
    apic->vcpu = vcpu;
    apic->id = id;
    apic->base_msr = APIC_BASE_DEFAULT | APIC_BASE_ENABLE | (bsp ? APIC_BASE_BSP : 0);
    vtimer_init(&apic->timer, queue, vlapic_timer_fire);
    reset_registers(apic);
    if (id < VLAPIC_MAX) {
        bus->apic[id] = apic;
        if (bus->count <= id)
            bus->count = id + 1;
    }
}

void vlapic_reset(struct vlapic *apic)
{
    reset_registers(apic);
}

void vlapic_power_on(struct vlapic *apic)
{
    uint64_t base = APIC_BASE_DEFAULT | APIC_BASE_ENABLE | (apic->base_msr & APIC_BASE_BSP);
    __atomic_store_n(&apic->base_msr, base, __ATOMIC_SEQ_CST);
    reset_registers(apic);
}

void vlapic_virtual_wire(struct vlapic *apic)
{
    apic->svr = SVR_ENABLE | 0xff;
    apic->lvt[LVT_LINT0] = DELIVER_EXTINT << 8;
    apic->lvt[LVT_LINT1] = DELIVER_NMI << 8;
}

bool vlapic_takes_fixed(const struct vlapic *apic)
{
    return (__atomic_load_n(&apic->base_msr, __ATOMIC_RELAXED) & APIC_BASE_ENABLE)
        && (__atomic_load_n(&apic->svr, __ATOMIC_RELAXED) & SVR_ENABLE);
}

void vlapic_error(struct vlapic *apic, uint32_t bit)
{
    /* The interrupt is for the first error since the guest last wrote ESR (SDM vol. 3A, 11.5.3). */
    if (!__atomic_fetch_or(&apic->esr_pending, bit, __ATOMIC_SEQ_CST))
        vlapic_local(apic, LVT_ERROR);
}

void vlapic_post(struct vlapic *apic, uint8_t vector, bool level)
{
    unsigned word = vector / 32;
    uint32_t bit = 1u << vector % 32;
    if (!vlapic_takes_fixed(apic))
        return;
    if (vector < 16) {
        /* An LVT error entry with such a vector would only report itself: the error is noted, no interrupt. */
        __atomic_fetch_or(&apic->esr_pending, ESR_RECEIVE_VECTOR, __ATOMIC_SEQ_CST);
        return;
    }
    /* TMR tells how the latest request came, and must be right before the request can be seen. */
    if (level)
        __atomic_fetch_or(&apic->tmr[word], bit, __ATOMIC_SEQ_CST);
    else if (__atomic_load_n(&apic->tmr[word], __ATOMIC_RELAXED) & bit)
        __atomic_fetch_and(&apic->tmr[word], ~bit, __ATOMIC_SEQ_CST);
    uint32_t before = __atomic_fetch_or(&apic->irr[word], bit, __ATOMIC_SEQ_CST);
    __atomic_fetch_or(&apic->irr_words, 1u << word, __ATOMIC_SEQ_CST);
    if (!(before & bit))
        apic->ops->kick(apic->vcpu);
}

void vlapic_local(struct vlapic *apic, enum vlapic_lvt entry)
{
    uint32_t lvt = __atomic_load_n(&apic->lvt[entry], __ATOMIC_RELAXED);
    if ((lvt & LVT_MASKED) || !(apic->base_msr & APIC_BASE_ENABLE))
        return;
    unsigned mode = entry == LVT_TIMER || entry == LVT_ERROR ? DELIVER_FIXED : lvt >> 8 & 7;
    if (mode == DELIVER_FIXED) {
        if ((lvt & 0xff) < 16 && entry != LVT_ERROR)
            vlapic_error(apic, ESR_RECEIVE_VECTOR);
        else
            vlapic_post(apic, (uint8_t)lvt, false);
    } else if (mode == DELIVER_NMI) {
        apic->ops->nmi(apic->vcpu);
    }
}

bool vlapic_accepts_extint(const struct vlapic *apic)
{
    if (!(apic->base_msr & APIC_BASE_ENABLE)) /* without an APIC, LINT0 is the INTR pin */
        return apic->base_msr & APIC_BASE_BSP;
    return (apic->lvt[LVT_LINT0] & (LVT_MASKED | 7u << 8)) == DELIVER_EXTINT << 8;
}

bool vlapic_has_extint(const struct vlapic *apic)
{
    return __atomic_load_n(&apic->extint, __ATOMIC_SEQ_CST) != 0;
}

bool vlapic_take_extint(struct vlapic *apic)
{
    return vlapic_has_extint(apic) && __atomic_exchange_n(&apic->extint, 0, __ATOMIC_SEQ_CST);
}

void vlapic_lint0(struct vlapic *apic)
{
    vlapic_local(apic, LVT_LINT0); /* an ExtINT entry does nothing there */
}

void vlapic_lint1(struct vlapic *apic)
{
    if (apic->base_msr & APIC_BASE_ENABLE)
        vlapic_local(apic, LVT_LINT1);
    else
        apic->ops->nmi(apic->vcpu);
}

int vlapic_highest(const uint32_t words[8])
{
    for (int i = 7; i >= 0; i--)
        if (words[i])
            return i * 32 + 31 - __builtin_clz(words[i]);
    return -1;
}

int vlapic_highest_request(const struct vlapic *apic)
{
    uint32_t words = __atomic_load_n(&apic->irr_words, __ATOMIC_SEQ_CST);
    while (words) {
        int word = 31 - __builtin_clz(words);
        uint32_t bits = __atomic_load_n(&apic->irr[word], __ATOMIC_SEQ_CST);
        if (bits)
            return word * 32 + 31 - __builtin_clz(bits);
        words &= ~(1u << word);
    }
    return -1;
}

/* SDM vol. 3A, 11.8.3.1. */
uint32_t vlapic_ppr(const struct vlapic *apic)
{
    if (unlikely(vlapic_lent(apic)))
        return __atomic_load_n(&apic->page[VLAPIC_PAGE_WORD(REG_PPR)], __ATOMIC_RELAXED) & 0xff;
    uint32_t tpr = __atomic_load_n(&apic->tpr, __ATOMIC_RELAXED);
    uint32_t served = __atomic_load_n(&apic->highest_isr, __ATOMIC_RELAXED) & 0xf0u;
    return (tpr & 0xf0) >= served ? tpr : served;
}

int vlapic_pending(const struct vlapic *apic)
{
    if (unlikely(vlapic_lent(apic)))
        return vlapic_page_pending(apic);
    if (likely(!__atomic_load_n(&apic->irr_words, __ATOMIC_SEQ_CST)))
        return -1;
    int vector = vlapic_highest_request(apic);
    if (vector < 0 || (unsigned)vector >> 4 <= vlapic_ppr(apic) >> 4 || !(apic->base_msr & APIC_BASE_ENABLE))
        return -1;
    return vector;
}

void vlapic_accept(struct vlapic *apic, uint8_t vector)
{
    unsigned word = vector / 32;
    uint32_t bit = 1u << vector % 32;
    vlapic_recall(apic);
    if (!(__atomic_and_fetch(&apic->irr[word], ~bit, __ATOMIC_SEQ_CST))) {
        /* A poster sets its bit first and the summary then: whatever comes between is seen here or set by it. */
        __atomic_fetch_and(&apic->irr_words, ~(1u << word), __ATOMIC_SEQ_CST);
        if (__atomic_load_n(&apic->irr[word], __ATOMIC_SEQ_CST))
            __atomic_fetch_or(&apic->irr_words, 1u << word, __ATOMIC_SEQ_CST);
    }
    apic->isr[word] |= bit;
    if (vector > apic->highest_isr)
        apic->highest_isr = vector;
}

bool vlapic_return(struct vlapic *apic, uint8_t vector)
{
    unsigned word = vector / 32;
    uint32_t bit = 1u << vector % 32;
    vlapic_recall(apic);
    if (!(apic->isr[word] & bit))
        return false; /* it came from the 8259, or has been reset away */
    apic->isr[word] &= ~bit;
    int next = vlapic_highest(apic->isr);
    apic->highest_isr = (uint8_t)(next < 0 ? 0 : next);
    __atomic_fetch_or(&apic->irr[word], bit, __ATOMIC_SEQ_CST);
    __atomic_fetch_or(&apic->irr_words, 1u << word, __ATOMIC_SEQ_CST);
    return true;
}

void vlapic_eoi(struct vlapic *apic)
{
    vlapic_recall(apic);
    uint8_t vector = apic->highest_isr;
    if (!vector)
        return;
    apic->isr[vector / 32] &= ~(1u << vector % 32);
    int next = vlapic_highest(apic->isr);
    apic->highest_isr = (uint8_t)(next < 0 ? 0 : next);
    if ((__atomic_load_n(&apic->tmr[vector / 32], __ATOMIC_SEQ_CST) & 1u << vector % 32) && apic->bus->eoi)
        apic->bus->eoi(apic->bus->context, vector);
}

unsigned vlapic_tpr_threshold(const struct vlapic *apic)
{
    if (vlapic_lent(apic))
        return 16; /* the CPU sees by itself */
    int vector = vlapic_highest_request(apic);
    if (vector < 0)
        return 16;
    unsigned class = (unsigned)vector >> 4;
    if (class > apic->tpr >> 4 || class <= apic->highest_isr >> 4)
        return 16;
    return class;
}

bool vlapic_set_cr8(struct vlapic *apic, uint64_t value)
{
    if (vlapic_lent(apic)) {
        apic->tpr = apic->page[VLAPIC_PAGE_TPR] & 0xff;
        return false;
    }
    apic->tpr = (uint32_t)(value & 15) << 4;
    return true;
}

/* ---- Registers ---- */

bool vlapic_is_x2(const struct vlapic *apic)
{
    return apic->base_msr & APIC_BASE_X2APIC;
}

uint32_t vlapic_logical_id(const struct vlapic *apic)
{
    if (vlapic_is_x2(apic))
        return (apic->id & ~15u) << 12 | 1u << (apic->id & 15);
    return __atomic_load_n(&apic->ldr, __ATOMIC_RELAXED);
}

static int lvt_of(unsigned reg)
{
    return reg >= REG_LVT_TIMER && reg <= REG_LVT_ERROR ? (int)index_mask(reg - REG_LVT_TIMER, LVT_COUNT) : -1;
}

bool vlapic_read_register(struct vlapic *apic, unsigned reg, uint32_t *value, uint64_t now_ns)
{
    *value = 0;
    if (lvt_of(reg) >= 0) {
        *value = apic->lvt[lvt_of(reg)];
        return true;
    }
    if (reg >= REG_ISR && reg < REG_ISR + 8) {
        *value = apic->isr[index_mask(reg - REG_ISR, 8)];
        return true;
    }
    if (reg >= REG_TMR && reg < REG_TMR + 8) {
        *value = __atomic_load_n(&apic->tmr[index_mask(reg - REG_TMR, 8)], __ATOMIC_RELAXED);
        return true;
    }
    if (reg >= REG_IRR && reg < REG_IRR + 8) {
        *value = __atomic_load_n(&apic->irr[index_mask(reg - REG_IRR, 8)], __ATOMIC_RELAXED);
        return true;
    }
    switch (reg) {
    case REG_ID: *value = vlapic_is_x2(apic) ? apic->id : apic->id << 24; break;
    case REG_VERSION: *value = VLAPIC_VERSION; break;
    case REG_TPR: *value = apic->tpr; break;
    case REG_PPR: *value = vlapic_ppr(apic); break;
    case REG_LDR: *value = vlapic_logical_id(apic); break;
    case REG_SVR: *value = apic->svr; break;
    case REG_ESR: *value = apic->esr; break;
    case REG_ICR: *value = apic->icr_low; break;
    case REG_TIMER_INITIAL: *value = apic->timer_initial; break;
    case REG_TIMER_CURRENT: *value = vlapic_timer_current(apic, now_ns); break;
    case REG_TIMER_DIVIDE: *value = apic->timer_divide; break;
    default: return false;
    }
    return true;
}

static void write_svr(struct vlapic *apic, uint32_t value)
{
    __atomic_store_n(&apic->svr, value & 0x3ff, __ATOMIC_RELAXED);
    if (!(value & SVR_ENABLE))
        for (unsigned i = 0; i < LVT_COUNT; i++)
            apic->lvt[i] |= LVT_MASKED;
}

/* Bits of each LVT entry that can be written; delivery status and remote IRR cannot. */
static const uint32_t lvt_writable[LVT_COUNT] = {
    [LVT_TIMER] = 0x000700ff, [LVT_THERMAL] = 0x000107ff, [LVT_PERF] = 0x000107ff,
    [LVT_LINT0] = 0x0001a7ff, [LVT_LINT1] = 0x0001a7ff, [LVT_ERROR] = 0x000100ff,
};

uint32_t vlapic_lvt_writable(unsigned entry)
{
    return lvt_writable[entry];
}

static void write_lvt(struct vlapic *apic, unsigned entry, uint32_t value, uint64_t now_ns)
{
    value &= lvt_writable[entry];
    if (!(apic->svr & SVR_ENABLE))
        value |= LVT_MASKED; /* SDM vol. 3A, 11.4.7.2: cannot be unmasked while the APIC is software-disabled */
    if (entry == LVT_TIMER)
        vlapic_timer_write_lvt(apic, value, now_ns);
    else
        apic->lvt[entry] = value;
}

/* Writes a register that both modes have, reserved bits ignored. False: none of that number can be written. */
static bool write_register(struct vlapic *apic, unsigned reg, uint32_t value, uint64_t now_ns)
{
    if (lvt_of(reg) >= 0) {
        write_lvt(apic, (unsigned)lvt_of(reg), value, now_ns);
        return true;
    }
    switch (reg) {
    case REG_TPR:
        vlapic_recall(apic);
        apic->tpr = value & 0xff;
        break;
    case REG_EOI: vlapic_eoi(apic); break;
    case REG_SVR:
        write_svr(apic, value);
        vlapic_timer_rearm(apic, now_ns);
        break;
    case REG_ESR: apic->esr = __atomic_exchange_n(&apic->esr_pending, 0, __ATOMIC_SEQ_CST); break;
    case REG_TIMER_INITIAL: vlapic_timer_write_initial(apic, value, now_ns); break;
    case REG_TIMER_DIVIDE: vlapic_timer_write_divide(apic, value & 0xb, now_ns); break;
    default: return false;
    }
    return true;
}

uint64_t vlapic_mmio_read(struct vlapic *apic, uint64_t offset, unsigned size, uint64_t now_ns)
{
    if ((apic->base_msr & (APIC_BASE_ENABLE | APIC_BASE_X2APIC)) != APIC_BASE_ENABLE)
        return size >= 8 ? UINT64_MAX : BIT(size * 8) - 1;
    if (size != 4 || offset % 16 || offset > 0xff0)
        return 0;
    unsigned reg = (unsigned)(offset / 16);
    uint32_t value = 0;
    if (reg != REG_TIMER_CURRENT) /* the one that is read often and is not in the page */
        vlapic_recall(apic);
    switch (reg) {
    case REG_APR: return 0;
    case REG_EOI: return 0;
    case REG_RRD: return 0;
    case REG_DFR: return apic->dfr;
    case REG_ICR_HIGH: return apic->icr_high;
    default:
        if (!vlapic_read_register(apic, reg, &value, now_ns))
            vlapic_error(apic, ESR_REGISTER);
        return value;
    }
}

static void mmio_write_register(struct vlapic *apic, unsigned reg, uint32_t bits, uint64_t now_ns)
{
    switch (reg) {
    case REG_ID: return; /* the ID does not change: x2APIC ID, MADT and CPUID say the same */
    case REG_LDR: __atomic_store_n(&apic->ldr, bits & 0xff000000, __ATOMIC_RELAXED); return;
    case REG_DFR: __atomic_store_n(&apic->dfr, bits | 0x0fffffff, __ATOMIC_RELAXED); return;
    case REG_ICR_HIGH: apic->icr_high = bits & 0xff000000; return;
    case REG_ICR:
        apic->icr_low = bits & ICR_WRITABLE;
        vlapic_send_ipi(apic, apic->icr_low, apic->icr_high >> 24 == 0xff ? UINT32_MAX : apic->icr_high >> 24);
        return;
    default:
        if (!write_register(apic, reg, bits, now_ns))
            vlapic_error(apic, ESR_REGISTER);
    }
}

void vlapic_mmio_write(struct vlapic *apic, uint64_t offset, unsigned size, uint64_t value, uint64_t now_ns)
{
    unsigned reg = (unsigned)(offset / 16);
    if ((apic->base_msr & (APIC_BASE_ENABLE | APIC_BASE_X2APIC)) != APIC_BASE_ENABLE)
        return;
    if (size != 4 || offset % 16 || offset > 0xff0)
        return;
    mmio_write_register(apic, reg, (uint32_t)value, now_ns);
    if (vlapic_lent(apic))
        vlapic_page_show(apic, reg);
}

/* ---- MSRs ---- */

/* The modes that IA32_APIC_BASE may go between (SDM vol. 3A, 11.12.5). */
static bool write_base(struct vlapic *apic, uint64_t value)
{
    uint64_t mode = value & (APIC_BASE_ENABLE | APIC_BASE_X2APIC);
    uint64_t old = apic->base_msr & (APIC_BASE_ENABLE | APIC_BASE_X2APIC);
    if ((value & ~(mode | APIC_BASE_BSP)) != APIC_BASE_DEFAULT)
        return false;
    if (mode == APIC_BASE_X2APIC)
        return false;
    if (old & APIC_BASE_X2APIC && mode == APIC_BASE_ENABLE)
        return false;
    if (!old && mode & APIC_BASE_X2APIC)
        return false;
    uint64_t base = APIC_BASE_DEFAULT | mode | (apic->base_msr & APIC_BASE_BSP);
    vlapic_recall(apic);
    __atomic_store_n(&apic->base_msr, base, __ATOMIC_SEQ_CST);
    if (mode == old)
        return true;
    if (!mode || !old) /* at both ends: a message may have slipped in just as it was switched off */
        reset_registers(apic);
    apic->icr_high = 0;
    return true;
}

bool vlapic_msr_read(struct vlapic *apic, uint32_t msr, uint64_t *value, uint64_t now_ns)
{
    uint32_t low = 0;
    *value = 0;
    if (msr == MSR_APIC_BASE) {
        *value = apic->base_msr;
        return true;
    }
    if (msr == MSR_TSC_DEADLINE) {
        *value = vlapic_timer_deadline(apic);
        return true;
    }
    if (msr < MSR_X2APIC || msr > MSR_X2APIC + 0xff || !vlapic_is_x2(apic))
        return false;
    unsigned reg = msr - MSR_X2APIC;
    if (reg != REG_TIMER_CURRENT)
        vlapic_recall(apic);
    if (!vlapic_read_register(apic, reg, &low, now_ns))
        return false;
    *value = low;
    if (reg == REG_ICR)
        *value |= (uint64_t)apic->icr_high << 32;
    return true;
}

/* Bits that may be written to a register as an MSR: others are reserved and fault (SDM vol. 3A, 11.12.1.3). */
static uint64_t msr_writable(unsigned reg)
{
    if (lvt_of(reg) >= 0)
        return lvt_writable[lvt_of(reg)] | LVT_READ_ONLY;
    switch (reg) {
    case REG_TPR: return 0xff;
    case REG_SVR: return 0x3ff;
    case REG_TIMER_INITIAL: return 0xffffffff;
    case REG_TIMER_DIVIDE: return 0xb;
    case REG_ICR: return 0xffffffff00000000 | ICR_WRITABLE | ICR_BUSY;
    case REG_SELF_IPI: return 0xff;
    default: return 0; /* EOI and ESR take zero only */
    }
}

bool vlapic_msr_write(struct vlapic *apic, uint32_t msr, uint64_t value, uint64_t now_ns)
{
    if (msr == MSR_APIC_BASE)
        return write_base(apic, value);
    if (msr == MSR_TSC_DEADLINE) {
        vlapic_timer_write_deadline(apic, value, now_ns);
        return true;
    }
    if (msr < MSR_X2APIC || msr > MSR_X2APIC + 0xff || !vlapic_is_x2(apic))
        return false;
    unsigned reg = msr - MSR_X2APIC;
    if (value & ~msr_writable(reg))
        return false;
    if (reg == REG_ICR) {
        apic->icr_low = (uint32_t)value & ICR_WRITABLE;
        apic->icr_high = (uint32_t)(value >> 32);
        vlapic_send_ipi(apic, apic->icr_low, apic->icr_high);
        return true;
    }
    if (reg == REG_SELF_IPI) {
        vlapic_send_ipi(apic, ICR_SELF | (uint32_t)value, 0);
        return true;
    }
    if (!write_register(apic, reg, (uint32_t)value, now_ns))
        return false;
    if (vlapic_lent(apic))
        vlapic_page_show(apic, reg);
    return true;
}
