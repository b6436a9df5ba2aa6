/* SPDX-License-Identifier: MIT */
/*
 * The local APIC of one vCPU (SDM vol. 3A, chapter 11; AMD APM vol. 2, chapter 16), xAPIC page and x2APIC MSRs.
 *
 * Two sides. The vCPU side (register accesses, picking an interrupt, the timer) is called by the thread that runs the
 * vCPU only. The posting side (vlapic_post) may be called by any CPU in any context: it sets bits of IRR atomically and
 * calls ops->kick. The machine (vlapic_bus) routes messages to the APICs that they name.
 *
 * Where the CPU can work on a guest's APIC by itself (SDM vol. 3C, chapter 30), the APIC has a page for it, laid out as
 * that of the xAPIC (vlapic_page.c). While it is lent to the CPU, TPR, PPR, ISR and the requests that were handed over live
 * in the page and the CPU changes them there; all other registers keep their home in struct vlapic and are shown in the
 * page, where the guest reads them without an exit. irr[] then holds what was posted since the last vlapic_lend. What the
 * functions below need they take back by themselves, so that callers notice nothing but speed.
 */
#ifndef VDEV_VLAPIC_H
#define VDEV_VLAPIC_H

#include "kernel/types.h"
#include "vdev/vdev.h"

#define VLAPIC_MAX 32
#define APIC_BASE_DEFAULT 0xfee00000ull
#define APIC_BASE_BSP BIT(8)
#define APIC_BASE_X2APIC BIT(10)
#define APIC_BASE_ENABLE BIT(11)

struct vlapic;

/* What the APIC asks of its vCPU. kick, init, sipi, nmi: any context. */
struct vlapic_ops {
    void (*kick)(void *vcpu);                     /* something became pending: leave the guest or HLT and look */
    void (*nmi)(void *vcpu);
    void (*init)(void *vcpu);
    void (*sipi)(void *vcpu, uint8_t vector);
    uint64_t (*tsc)(void *vcpu);                  /* the guest's TSC now, for TSC-deadline mode */
    uint64_t (*tsc_to_ns)(void *vcpu, uint64_t tsc); /* guest time at which the guest's TSC has that value */
};

/* All APICs of a machine, and where an EOI of a level-triggered vector is told (the IOAPIC). */
struct vlapic_bus {
    struct vlapic *apic[VLAPIC_MAX]; /* by vCPU number */
    unsigned count;
    void (*eoi)(void *context, uint8_t vector); /* called in vCPU context without the device lock */
    void *context;
    uint32_t next_lowest; /* atomic; where the next lowest-priority arbitration begins among equals */
};

enum vlapic_lvt { LVT_TIMER, LVT_THERMAL, LVT_PERF, LVT_LINT0, LVT_LINT1, LVT_ERROR, LVT_COUNT };

struct vlapic {
    struct vlapic_bus *bus;
    const struct vlapic_ops *ops;
    void *vcpu;
    uint32_t id;            /* xAPIC ID = x2APIC ID = vCPU number */
    uint64_t base_msr;      /* IA32_APIC_BASE */
    uint32_t tpr, ldr, dfr, svr, esr, esr_pending, icr_low, icr_high;
    uint32_t lvt[LVT_COUNT];
    uint32_t timer_initial, timer_divide; /* as written: count and divide configuration */
    bool timer_running;     /* counting (one-shot, periodic) or armed (TSC deadline), masked or not */
    uint64_t timer_start_ns, tsc_deadline;
    struct vtimer timer;
    uint32_t isr[8];
    uint32_t tmr[8];        /* atomic */
    uint32_t irr[8];        /* atomic */
    uint32_t irr_words;     /* atomic; bit n: irr[n] may be non-zero */
    uint32_t extint;        /* atomic; an ExtINT message waits */
    uint8_t highest_isr;    /* cached, 0 = none */
    bool lent;              /* atomic; the page is the CPU's */
    uint32_t *page;         /* VLAPIC_PAGE_WORDS words, or NULL */
};

#define VLAPIC_PAGE_WORDS 1024
/* The word of a register in the page, by the register's number (offset divided by 16). */
#define VLAPIC_PAGE_WORD(reg) ((reg) * 4u)
#define VLAPIC_PAGE_TPR VLAPIC_PAGE_WORD(0x08)
#define VLAPIC_PAGE_ISR VLAPIC_PAGE_WORD(0x10) /* eight words of 32 vectors each, four apart; likewise: */
#define VLAPIC_PAGE_TMR VLAPIC_PAGE_WORD(0x18)
#define VLAPIC_PAGE_IRR VLAPIC_PAGE_WORD(0x20)

/*
 * The timer counts at 1 GHz divided by the divide configuration: one count of divisor 1 is one guest nanosecond.
 * A periodic timer keeps its phase for ever. One that was served late (a pause, a busy host) interrupts once for all
 * the periods that it missed, and never more often than once in this time, however short its period is.
 */
#define VLAPIC_MIN_PERIOD_NS 20000

/*
 * Power-up state; the APIC is added to the bus. `bsp`: the boot vCPU. The timer lives on `queue`: as the timer belongs
 * to the vCPU side, vtimer_run on that queue is called where the vCPU side is.
 */
void vlapic_init(struct vlapic *apic, struct vlapic_bus *bus, const struct vlapic_ops *ops, void *vcpu, uint32_t id,
                 bool bsp, struct vtimer_queue *queue);
/* Back to power-up, as a reset of the whole machine does: unlike vlapic_reset, also IA32_APIC_BASE (xAPIC mode). */
void vlapic_power_on(struct vlapic *apic);
/* What firmware leaves behind on the boot vCPU: enabled, LINT0 = ExtINT, LINT1 = NMI. For a direct kernel boot. */
void vlapic_virtual_wire(struct vlapic *apic);
/* What an INIT does to the APIC (SDM vol. 3A, 11.4.7.3). */
void vlapic_reset(struct vlapic *apic);

/* Posts a fixed interrupt. Any context. */
void vlapic_post(struct vlapic *apic, uint8_t vector, bool level);
/*
 * Routes an MSI or an IOAPIC message: destination and delivery modes, physical and logical. Any context. True if at
 * least one APIC took it; an IOAPIC keeps a level-triggered request that nobody took.
 */
bool vlapic_bus_message(struct vlapic_bus *bus, uint64_t address, uint32_t data);
/* The 8259's INTR line on LINT0 of every APIC that accepts ExtINT. */
bool vlapic_accepts_extint(const struct vlapic *apic);
/* True once for an ExtINT message (IOAPIC entry or IPI): the caller then acknowledges the 8259. vCPU side. */
bool vlapic_take_extint(struct vlapic *apic);
bool vlapic_has_extint(const struct vlapic *apic);
/* The 8259's INTR line rose, for LINT0 entries that are fixed or NMI (ExtINT: see above). */
void vlapic_lint0(struct vlapic *apic);
/* An NMI on LINT1. */
void vlapic_lint1(struct vlapic *apic);

/* The vector to inject next, above the processor priority, or -1. Lean: it is on the entry path. */
int vlapic_pending(const struct vlapic *apic);
/* Moves that vector from IRR to ISR: it has been handed to the CPU. */
void vlapic_accept(struct vlapic *apic, uint8_t vector);
/* Takes vlapic_accept back: the interrupt is requested again, and nothing is in service by it. False: it was not. */
bool vlapic_return(struct vlapic *apic, uint8_t vector);
/* The guest's TSC was set anew: an armed TSC deadline is worked out again. */
void vlapic_tsc_changed(struct vlapic *apic, uint64_t now_ns);
/*
 * For TPR intercepts: the request that only TPR holds back can go as soon as CR8 is below the returned value (1..15).
 * 16: there is none (nothing requested, it can go now, or an interrupt in service holds it back).
 */
unsigned vlapic_tpr_threshold(const struct vlapic *apic);
static inline uint64_t vlapic_cr8(const struct vlapic *apic) { return apic->tpr >> 4; }
/* The guest has moved CR8. True if requests are to be looked at again: not while the page is lent, the CPU does it. */
bool vlapic_set_cr8(struct vlapic *apic, uint64_t value);

/* The xAPIC page; offset 0..0xfff. 4-byte accesses; others as the SDM leaves undefined: read 0, write ignored. */
uint64_t vlapic_mmio_read(struct vlapic *apic, uint64_t offset, unsigned size, uint64_t now_ns);
void vlapic_mmio_write(struct vlapic *apic, uint64_t offset, unsigned size, uint64_t value, uint64_t now_ns);
/*
 * MSRs 0x1b, 0x6e0, 0x800..0x8ff; false: #GP. The page of the xAPIC does not move: a base other than
 * APIC_BASE_DEFAULT is refused.
 */
bool vlapic_msr_read(struct vlapic *apic, uint32_t msr, uint64_t *value, uint64_t now_ns);
bool vlapic_msr_write(struct vlapic *apic, uint32_t msr, uint64_t value, uint64_t now_ns);
/* x2APIC EOI without the switch through msr_write; same effect as writing 0 to 0x80b. */
void vlapic_eoi(struct vlapic *apic);

/* ---- The page for the CPU; vCPU side. vlapic_page.c ---- */

/* Gives the APIC a page of zeros, aligned to its size, that outlives it. Once, after vlapic_init. */
void vlapic_set_page(struct vlapic *apic, uint32_t *page);
/* Before an entry with the CPU's help: what is requested goes into the page, and all the rest if it was not lent. True:
 * the page changed, the CPU's idea of what is requested and in service must be made anew from it. The APIC is not off. */
bool vlapic_lend(struct vlapic *apic) MUST_CHECK;
/* Takes everything back, and kicks, so that it is lent again before the next entry; not lent: nothing. The CPU is not in
 * the guest. */
void vlapic_recall(struct vlapic *apic);
/* The guest has written the register at this offset of the page, and the CPU leaves its effect to us. */
void vlapic_page_written(struct vlapic *apic, unsigned offset, uint64_t now_ns);
/* The CPU has ended this level-triggered interrupt: those who wait for that are told. */
void vlapic_page_eoi(struct vlapic *apic, uint8_t vector);

/* What an admin may want to see of it. The vCPU is parked. */
struct vlapic_summary {
    uint64_t base_msr;
    uint32_t tpr, ppr, svr, lvt_timer;
    uint8_t requested, in_service; /* the highest vectors, 0 = none */
    bool lent;
    uint64_t timer_ns;             /* when the timer interrupts, VTIMER_OFF: never */
};
void vlapic_summarize(const struct vlapic *apic, struct vlapic_summary *summary);

/*
 * Section bodies. Restore takes all or nothing: after a stream error the APIC is as before. The guest's TSC must be
 * right when restore is called (ops->tsc_to_ns is used to arm a TSC deadline). Lines and messages are not sent again. The
 * stream knows nothing of the page.
 */
void vlapic_save(const struct vlapic *apic, struct stream_writer *w, uint64_t now_ns);
void vlapic_restore(struct vlapic *apic, struct stream_reader *r, uint64_t now_ns);

#endif
