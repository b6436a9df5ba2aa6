/* SPDX-License-Identifier: MIT */
/*
 * The page in which a CPU works on a guest's local APIC (SDM vol. 3C, 30.1: the virtual-APIC page), and the way of
 * requests into it. See vlapic.h for who owns what while the page is lent.
 *
 * The CPU reads and writes the page only while its vCPU is in the guest, without atomic operations, so nobody else may
 * touch it then. Posters therefore go on setting bits of irr[] and kick; the vCPU's thread, out of the guest, moves them
 * into the page at vlapic_lend. A poster sets the request's bit and then the summary's: a bit that is set after its word
 * was moved has its summary bit set after that too, and a kick with it, so the next vlapic_lend finds it.
 *
 * In x2APIC mode reads of the ICR, whose two halves are then one register, do not come from the page.
 *
 * Two things are not as in software alone: the CPU carries out an interrupt to itself also while SVR has the APIC switched
 * off, and does not clear the vector's bit in TMR for it.
 */
#include "vdev/vlapic_private.h"

/* Registers that the page shows and whose home is struct vlapic, beside the LVT. */
static const uint8_t shown[] = {
    REG_ID, REG_VERSION, REG_LDR, REG_SVR, REG_ESR, REG_ICR, REG_TIMER_INITIAL, REG_TIMER_DIVIDE,
};

static void show(struct vlapic *apic, unsigned reg)
{
    uint32_t value = 0;

    if (reg == REG_DFR)
        value = apic->dfr;
    else if (reg == REG_ICR_HIGH)
        value = apic->icr_high;
    else if (!vlapic_read_register(apic, reg, &value, 0))
        return;
    apic->page[VLAPIC_PAGE_WORD(reg)] = value;
}

static void show_lvt(struct vlapic *apic)
{
    for (unsigned reg = REG_LVT_TIMER; reg <= REG_LVT_ERROR; reg++)
        show(apic, reg);
}

void vlapic_page_show(struct vlapic *apic, unsigned reg)
{
    if ((reg >= REG_TPR && reg <= REG_EOI) || (reg >= REG_ISR && reg < REG_ESR))
        return; /* at home in the page */
    show(apic, reg);
    if (reg == REG_SVR) /* masks the LVT where it switches the APIC off */
        show_lvt(apic);
    else if (reg == REG_LVT_TIMER) /* a change of mode clears the count */
        show(apic, REG_TIMER_INITIAL);
}

void vlapic_set_page(struct vlapic *apic, uint32_t *page)
{
    apic->page = page;
}

/* The highest vector of a register of 256 bits in the page, 0 if there is none. */
static uint8_t page_highest(const uint32_t *page, unsigned first_word)
{
    for (unsigned i = 8; i-- > 0;) {
        uint32_t bits = __atomic_load_n(&page[first_word + i * 4], __ATOMIC_RELAXED);
        if (bits)
            return (uint8_t)(i * 32 + 31 - (unsigned)__builtin_clz(bits));
    }
    return 0;
}

int vlapic_page_pending(const struct vlapic *apic)
{
    int handed = page_highest(apic->page, VLAPIC_PAGE_IRR), posted = vlapic_highest_request(apic);
    int vector = MAX(handed, posted);

    return (unsigned)vector >> 4 > vlapic_ppr(apic) >> 4 ? vector : -1;
}

/* Moves what was posted into the page. How it was posted (TMR) was set before, so it is read after. */
static bool hand_over(struct vlapic *apic)
{
    uint32_t words = __atomic_load_n(&apic->irr_words, __ATOMIC_SEQ_CST);

    if (!words)
        return false;
    words = __atomic_exchange_n(&apic->irr_words, 0, __ATOMIC_SEQ_CST);
    for (unsigned i = 0; i < 8; i++) {
        if (!(words & 1u << i))
            continue;
        apic->page[VLAPIC_PAGE_IRR + i * 4] |= __atomic_exchange_n(&apic->irr[i], 0, __ATOMIC_SEQ_CST);
        apic->page[VLAPIC_PAGE_TMR + i * 4] = __atomic_load_n(&apic->tmr[i], __ATOMIC_SEQ_CST);
    }
    return true;
}

bool vlapic_lend(struct vlapic *apic)
{
    if (vlapic_lent(apic))
        return hand_over(apic);
    for (unsigned i = 0; i < ARRAY_COUNT(shown); i++)
        show(apic, shown[i]);
    show(apic, REG_DFR);
    show(apic, REG_ICR_HIGH);
    show_lvt(apic);
    apic->page[VLAPIC_PAGE_TPR] = apic->tpr;
    apic->page[VLAPIC_PAGE_WORD(REG_PPR)] = vlapic_ppr(apic);
    apic->page[VLAPIC_PAGE_WORD(REG_EOI)] = 0;
    for (unsigned i = 0; i < 8; i++) {
        apic->page[VLAPIC_PAGE_ISR + i * 4] = apic->isr[i];
        apic->page[VLAPIC_PAGE_TMR + i * 4] = __atomic_load_n(&apic->tmr[i], __ATOMIC_SEQ_CST);
        apic->page[VLAPIC_PAGE_IRR + i * 4] = 0;
    }
    (void)hand_over(apic);
    __atomic_store_n(&apic->lent, true, __ATOMIC_RELEASE);
    return true;
}

void vlapic_page_read_back(struct vlapic *apic)
{
    const uint32_t *page = apic->page;

    if (likely(!vlapic_lent(apic)))
        return;
    apic->tpr = page[VLAPIC_PAGE_TPR] & 0xff;
    if (!vlapic_is_x2(apic)) { /* the CPU sends interrupts to itself, and takes the destination, without us */
        apic->icr_low = page[VLAPIC_PAGE_WORD(REG_ICR)] & ICR_WRITABLE;
        apic->icr_high = page[VLAPIC_PAGE_WORD(REG_ICR_HIGH)] & 0xff000000;
    }
    for (unsigned i = 0; i < 8; i++) {
        uint32_t requested = page[VLAPIC_PAGE_IRR + i * 4];
        apic->isr[i] = page[VLAPIC_PAGE_ISR + i * 4];
        if (requested) {
            __atomic_fetch_or(&apic->irr[i], requested, __ATOMIC_SEQ_CST);
            __atomic_fetch_or(&apic->irr_words, 1u << i, __ATOMIC_SEQ_CST);
        }
    }
    apic->highest_isr = page_highest(page, VLAPIC_PAGE_ISR);
    __atomic_store_n(&apic->lent, false, __ATOMIC_RELEASE);
}

void vlapic_recall(struct vlapic *apic)
{
    if (likely(!vlapic_lent(apic)))
        return;
    vlapic_page_read_back(apic);
    apic->ops->kick(apic->vcpu); /* the next entry must not be made without lending it again */
}

void vlapic_page_written(struct vlapic *apic, unsigned offset, uint64_t now_ns)
{
    unsigned reg = offset / 16 & 0x3f;

    if (!vlapic_lent(apic))
        return;
    uint32_t value = apic->page[VLAPIC_PAGE_WORD(reg)];
    if (vlapic_is_x2(apic)) { /* SELF IPI of a vector that there is not (30.5) */
        (void)vlapic_msr_write(apic, MSR_X2APIC + reg, value, now_ns);
    } else if (offset % 16) { /* into the middle of a register: not taken */
        vlapic_page_show(apic, reg);
    } else {
        if (reg == REG_ICR)
            apic->icr_high = apic->page[VLAPIC_PAGE_WORD(REG_ICR_HIGH)] & 0xff000000;
        vlapic_mmio_write(apic, offset, 4, value, now_ns);
    }
}

void vlapic_page_eoi(struct vlapic *apic, uint8_t vector)
{
    if (apic->bus->eoi)
        apic->bus->eoi(apic->bus->context, vector);
}
