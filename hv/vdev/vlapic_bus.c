/* SPDX-License-Identifier: MIT */
/*
 * How interrupt messages find their APICs: MSIs and IOAPIC messages by address and data (SDM vol. 3A, 11.11), IPIs by
 * the ICR (11.6). Any context: nothing here is written but by atomic operations.
 *
 * A destination is 32 bits wide. The 8-bit destinations of MSIs and of the xAPIC's ICR are widened, 0xff to all ones,
 * which is everybody in physical and in logical mode.
 */
#include "vdev/vlapic_private.h"

struct message {
    uint32_t destination;
    bool logical;
    uint8_t mode, vector;
    bool level;
    bool lowest;                  /* one of those named, whatever the mode says */
    const struct vlapic *except;  /* not to this one */
};

static bool matches(const struct vlapic *apic, const struct message *m)
{
    uint64_t base = __atomic_load_n(&apic->base_msr, __ATOMIC_RELAXED);
    if (!(base & APIC_BASE_ENABLE) || apic == m->except)
        return false;
    if (m->destination == UINT32_MAX)
        return true;
    if (!m->logical)
        return apic->id == m->destination;
    uint32_t mine = vlapic_logical_id(apic);
    if (base & APIC_BASE_X2APIC)
        return mine >> 16 == m->destination >> 16 && (mine & m->destination & 0xffff);
    if (m->destination > 0xff)
        return false;
    mine >>= 24;
    if (__atomic_load_n(&apic->dfr, __ATOMIC_RELAXED) >> 28 == 0xf)
        return mine & m->destination;
    return mine >> 4 == m->destination >> 4 && (mine & m->destination & 0xf);
}

static void post(struct vlapic *apic, const struct message *m)
{
    if (m->vector < 16)
        vlapic_error(apic, ESR_RECEIVE_VECTOR);
    else
        vlapic_post(apic, m->vector, m->level);
}

/* Among those named, the one with the lowest processor priority; equals take turns (SDM vol. 3A, 11.6.2.4). */
static bool post_lowest(struct vlapic_bus *bus, const struct message *m)
{
    struct vlapic *best = NULL;
    uint32_t best_priority = 0, first = __atomic_load_n(&bus->next_lowest, __ATOMIC_RELAXED);
    for (uint32_t i = 0; i < bus->count; i++) {
        struct vlapic *apic = bus->apic[(first + i) % bus->count];
        if (!apic || !matches(apic, m) || !vlapic_takes_fixed(apic))
            continue;
        uint32_t priority = vlapic_ppr(apic) >> 4;
        if (!best || priority < best_priority) {
            best = apic;
            best_priority = priority;
        }
    }
    if (!best)
        return false;
    __atomic_store_n(&bus->next_lowest, best->id + 1, __ATOMIC_RELAXED);
    post(best, m);
    return true;
}

static bool deliver_one(struct vlapic *apic, const struct message *m)
{
    switch (m->mode) {
    case DELIVER_FIXED:
        if (!vlapic_takes_fixed(apic))
            return false;
        post(apic, m);
        return true;
    case DELIVER_SMI: return true; /* there is no SMM to enter */
    case DELIVER_NMI: apic->ops->nmi(apic->vcpu); return true;
    case DELIVER_INIT: apic->ops->init(apic->vcpu); return true;
    case DELIVER_SIPI: apic->ops->sipi(apic->vcpu, m->vector); return true;
    case DELIVER_EXTINT:
        __atomic_store_n(&apic->extint, 1, __ATOMIC_SEQ_CST);
        apic->ops->kick(apic->vcpu);
        return true;
    default: return false; /* reserved */
    }
}

static bool deliver(struct vlapic_bus *bus, const struct message *m)
{
    if (m->mode == DELIVER_LOWEST || (m->lowest && m->mode == DELIVER_FIXED))
        return post_lowest(bus, m);
    bool taken = false;
    for (unsigned i = 0; i < bus->count; i++)
        if (bus->apic[i] && matches(bus->apic[i], m))
            taken |= deliver_one(bus->apic[i], m);
    return taken;
}

bool vlapic_bus_message(struct vlapic_bus *bus, uint64_t address, uint32_t data)
{
    uint32_t destination = (uint32_t)(address >> 12 & 0xff);
    struct message m = {
        .destination = destination == 0xff ? UINT32_MAX : destination,
        .logical = address & 4,
        .mode = data >> 8 & 7,
        .vector = (uint8_t)data,
        .level = data & 0x8000,
        .lowest = (address & 0xc) == 0xc, /* redirection hint with logical destinations */
    };
    if (address >> 20 != 0xfee)
        return false;
    return deliver(bus, &m);
}

void vlapic_send_ipi(struct vlapic *apic, uint32_t icr, uint32_t destination)
{
    struct message m = {
        .destination = destination,
        .logical = icr & ICR_LOGICAL,
        .mode = icr >> 8 & 7,
        .vector = (uint8_t)icr,
        .level = false, /* fixed IPIs are edge-triggered whatever ICR says */
    };
    if ((m.mode == DELIVER_FIXED || m.mode == DELIVER_LOWEST) && m.vector < 16) {
        vlapic_error(apic, ESR_SEND_VECTOR);
        return;
    }
    if (m.mode == DELIVER_EXTINT)
        return; /* not for IPIs */
    if (m.mode == DELIVER_INIT && (icr & (ICR_LEVEL | ICR_ASSERT)) == ICR_LEVEL)
        return; /* INIT level de-assert: nothing to do since the Pentium 4 */
    switch (icr & ICR_SHORTHAND) {
    case ICR_SELF:
        if (m.mode == DELIVER_LOWEST)
            m.mode = DELIVER_FIXED;
        deliver_one(apic, &m);
        return;
    case ICR_OTHERS:
        m.except = apic;
        m.destination = UINT32_MAX;
        break;
    case ICR_ALL:
        m.destination = UINT32_MAX;
        break;
    default:
        break;
    }
    deliver(apic->bus, &m);
}
