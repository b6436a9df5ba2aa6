/* SPDX-License-Identifier: MIT */
/*
 * Intel gigabit cards: the 8254x, their PCI Express successors, and what descends from them. All of them still take the
 * legacy descriptors (e1000_ring.h) and the registers below at these places; what differs stands in a table. Run so far:
 * 82540EM and 82574L, as two emulators have them. The others were written from their data sheets and have not run.
 *
 * A card is in one of three states: running; being reset (the reset bit is set in one tick and the rings are built anew in
 * a later one, so that nobody waits); failed (it does not answer, or resets did not help), which is final.
 *
 * Memory: the rings, and a buffer of 2 KiB for each receive descriptor, come from the page allocator and are given back
 * after the card was stopped and its bus mastering is off. A buffer goes back into the ring as soon as the user has looked
 * at the frame. What is sent is never copied: its pieces go into the ring, and the cookie comes back when the card is done.
 *
 * Interrupts: the handler reads the cause, which takes the line down, masks all and wakes; poll() unmasks when it found
 * nothing more. A cause that came meanwhile interrupts at once, because causes are kept: nobody reads them while all are
 * masked, for then the card cannot be the one that holds a shared line up.
 *
 * Frames do not wait for a link: those that the card has when the link goes are given up after a while, so that nobody
 * hears in ten minutes what was said before the cable was pulled.
 *
 * Section numbers: 8254x Software Developer's Manual, 317453-006, where nothing else is said.
 */
#include <string.h>

#include "drivers/e1000_ring.h"
#include "drivers/nic.h"
#include "kernel/heap.h"
#include "kernel/log.h"
#include "kernel/page.h"
#include "kernel/thread.h"
#include "kernel/time.h"

#define REG_CTRL 0x0000
#define REG_STATUS 0x0008
#define REG_EERD 0x0014
#define REG_CTRL_EXT 0x0018
#define REG_ICR 0x00c0
#define REG_ITR 0x00c4
#define REG_IMS 0x00d0
#define REG_IMC 0x00d8
#define REG_IVAR 0x00e4
#define REG_EITR 0x00e8 /* of message 0 */
#define REG_RCTL 0x0100
#define REG_TCTL 0x0400
#define REG_TIPG 0x0410
#define REG_RDBAL 0x2800
#define REG_RDBAH 0x2804
#define REG_RDLEN 0x2808
#define REG_RDH 0x2810
#define REG_RDT 0x2818
#define REG_RDTR 0x2820
#define REG_RXDCTL 0x2828
#define REG_RADV 0x282c
#define REG_TDBAL 0x3800
#define REG_TDBAH 0x3804
#define REG_TDLEN 0x3808
#define REG_TDH 0x3810
#define REG_TDT 0x3818
#define REG_TIDV 0x3820
#define REG_TXDCTL 0x3828
#define REG_TADV 0x382c
#define REG_CRCERRS 0x4000
#define REG_RXERRC 0x400c
#define REG_MPC 0x4010
#define REG_RNBC 0x40a0
#define REG_RXCSUM 0x5000
#define REG_RLPML 0x5004
#define REG_MTA 0x5200
#define REG_RAL 0x5400
#define REG_RAH 0x5404
#define REGISTER_BYTES 0x10000

#define CTRL_MASTER_OFF BIT(2) /* PCI Express: no new requests */
#define CTRL_LINK_RESET BIT(3)
#define CTRL_AUTO_SPEED BIT(5)
#define CTRL_LINK_UP BIT(6)
#define CTRL_INVERT_LOSS BIT(7)
#define CTRL_FORCE_SPEED BIT(11)
#define CTRL_FORCE_DUPLEX BIT(12)
#define CTRL_RESET BIT(26)
#define CTRL_VLAN BIT(30)
#define STATUS_FULL_DUPLEX BIT(0)
#define STATUS_LINK_UP BIT(1)
#define STATUS_MASTER_ON BIT(19) /* PCI Express: requests may be on their way */
#define CAUSE_SENT BIT(0)
#define CAUSE_LINK BIT(2)
#define CAUSE_RECEIVE_LOW BIT(4)
#define CAUSE_OVERRUN BIT(6)
#define CAUSE_RECEIVED BIT(7)
#define CAUSE_QUEUES (BIT(20) | BIT(22) | BIT(24)) /* 82574 with MSI-X: receive 0, transmit 0, other */
#define RCTL_ENABLE BIT(1)
#define RCTL_ALL_UNICAST BIT(3)
#define RCTL_ALL_MULTICAST BIT(4)
#define RCTL_LONG BIT(5)
#define RCTL_BROADCAST BIT(15)
#define RCTL_STRIP_FCS BIT(26)
#define TCTL_ENABLE BIT(1)
#define TCTL_PAD BIT(3)
#define TCTL_COLLISION_BITS 0x003ffff0u
#define TCTL_COLLISIONS (15u << 4 | 64u << 12)
#define TIPG_COPPER (8u | 8u << 10 | 6u << 20)
#define RXCSUM_ON (BIT(8) | BIT(9))
#define RAH_VALID BIT(31)
#define QUEUE_ENABLE BIT(25)
#define TXDCTL_COUNT_DESCRIPTORS BIT(22)
/* 82574 data sheet, 10.2.4.10: receive queue 0, transmit queue 0 and all else are message 0; on every write-back. */
#define IVAR_ALL_TO_0 (8u | 8u << 8 | 8u << 16 | BIT(31))

#define RING 256
#define BUFFER_BYTES 2048
#define MTA_WORDS 128
#define INTERRUPT_GAP 195      /* of 256 ns: 20,000 a second at most */
#define SENT_DELAY 128         /* of 1.024 us */
#define MASTER_OFF_SPINS 100   /* of 5 us */
#define RESET_NS (20 * NS_PER_MS)
#define STUCK_NS (2 * NS_PER_S)
#define LINK_NS (100 * NS_PER_MS) /* from one change of the link to the next that is told */
#define RESETS_IN_VAIN 5
#define JUMBO_FRAME 9022u
#define SHORTEST_FRAME 60u     /* without the checksum at the end */
#define GONE 0xffffffffu

enum quirk {
    EEPROM_NEW = 1,     /* EERD as the 82541 and later have it: done is bit 1, the word's number begins at bit 2 */
    EXPRESS = 2,        /* PCI Express: requests are stopped before a reset */
    IVAR = 4,           /* MSI-X by the IVAR register */
    QUEUE_SWITCH = 8,   /* queues have a switch of their own */
    COUNT_BIT = 16,     /* TXDCTL bit 22 must be one */
    SHARED_PHY = 32,    /* the chipset's firmware uses the PHY too; its NVM is not read */
};
static const struct model {
    uint16_t device;
    uint16_t quirks;
    const char *name;
} models[] = {
    { 0x100e, 0, "82540EM" },
    { 0x100f, 0, "82545EM" },
    { 0x1026, 0, "82545GM" },
    { 0x10d3, EEPROM_NEW | EXPRESS | IVAR | COUNT_BIT, "82574L" },
    { 0x10f6, EEPROM_NEW | EXPRESS | IVAR | COUNT_BIT, "82574LA" },
    { 0x1533, EEPROM_NEW | EXPRESS | QUEUE_SWITCH, "I210" },
    { 0x1539, EEPROM_NEW | EXPRESS | QUEUE_SWITCH, "I211" },
    { 0x153a, EXPRESS | COUNT_BIT | SHARED_PHY, "I217-LM" },
    { 0x153b, EXPRESS | COUNT_BIT | SHARED_PHY, "I217-V" },
    { 0x156f, EXPRESS | COUNT_BIT | SHARED_PHY, "I219-LM" },
    { 0x1570, EXPRESS | COUNT_BIT | SHARED_PHY, "I219-V" },
    { 0x15b7, EXPRESS | COUNT_BIT | SHARED_PHY, "I219-LM" },
    { 0x15b8, EXPRESS | COUNT_BIT | SHARED_PHY, "I219-V" },
};

struct e1000 {
    struct nic nic;              /* first */
    const struct model *model;
    volatile uint32_t *reg;
    enum pci_interrupt interrupt;
    uint32_t causes;             /* what is unmasked */
    bool unmasked;               /* the card may interrupt */
    struct e1000_receive_ring rx;
    struct e1000_transmit_ring tx;
    hpa_t rx_ring, tx_ring, zeros, buffer_pages[RING / 2];
    hpa_t buffer[RING];          /* by its place in the ring */
    struct e1000_sent sent[RING];
    uint32_t rctl;               /* as the filter wants it */
    uint32_t multicast[MTA_WORDS];
    bool resetting, unflushed, link_changed;
    uint64_t reset_ns;           /* when the reset is over */
    uint64_t link_ns;            /* when the link changed last */
    uint64_t progress_ns;        /* when a frame was sent last, or the ring was empty */
    unsigned resets_in_vain;
};

static uint32_t get(const struct e1000 *e, unsigned reg)
{
    return e->reg[reg / 4];
}

static void put(const struct e1000 *e, unsigned reg, uint32_t value)
{
    e->reg[reg / 4] = value;
}

static struct e1000 *of(struct nic *nic)
{
    return CONTAINER_OF(nic, struct e1000, nic);
}

static const struct model *find_model(const struct pci_function *f)
{
    for (unsigned i = 0; f->vendor == 0x8086 && i < ARRAY_COUNT(models); i++)
        if (models[i].device == f->device)
            return &models[i];
    return NULL;
}

bool e1000_knows(const struct pci_function *function)
{
    return find_model(function);
}

/* ---- Stopping and starting ---- */

static void stop(const struct e1000 *e)
{
    put(e, REG_IMC, GONE);
    put(e, REG_RCTL, 0);
    put(e, REG_TCTL, (uint32_t)TCTL_PAD);
    (void)get(e, REG_STATUS); /* the writes have arrived */
}

/* On PCI Express what is on its way comes to its end first, as the 82574 data sheet has it: a reset would cut it off. */
static void begin_reset(struct e1000 *e)
{
    e->unmasked = false;
    stop(e);
    if (e->model->quirks & EXPRESS) {
        put(e, REG_CTRL, get(e, REG_CTRL) | (uint32_t)CTRL_MASTER_OFF);
        for (unsigned i = 0; i < MASTER_OFF_SPINS && (get(e, REG_STATUS) & STATUS_MASTER_ON); i++)
            time_spin_ns(5000);
    }
    put(e, REG_CTRL, get(e, REG_CTRL) | (uint32_t)CTRL_RESET);
}

static void unmask(struct e1000 *e)
{
    e->unmasked = true;
    put(e, REG_IMS, e->causes);
}

/* A ring's registers (3.2.6, 3.4): empty, as it is after a reset, which not every emulator does for these. */
static void set_ring(const struct e1000 *e, unsigned base, hpa_t ring)
{
    put(e, base, (uint32_t)ring.v);
    put(e, base + (REG_RDBAH - REG_RDBAL), (uint32_t)(ring.v >> 32));
    put(e, base + (REG_RDLEN - REG_RDBAL), RING * 16);
    put(e, base + (REG_RDH - REG_RDBAL), 0);
    put(e, base + (REG_RDT - REG_RDBAL), 0);
}

static void set_filter(const struct e1000 *e)
{
    for (unsigned i = 0; i < MTA_WORDS; i++)
        put(e, REG_MTA + 4 * i, e->multicast[i]);
    put(e, REG_RCTL, e->rctl);
}

/* A queue with a switch answers it within a few microseconds, or has a switch that does nothing. */
static void enable_queue(const struct e1000 *e, unsigned reg)
{
    put(e, reg, get(e, reg) | (uint32_t)QUEUE_ENABLE);
    for (unsigned i = 0; i < 100 && !(get(e, reg) & QUEUE_ENABLE); i++)
        time_spin_ns(1000);
}

/* After a reset: rings, filters, checksums, interrupts (14.3 to 14.5). */
static void start(struct e1000 *e)
{
    uint32_t ctrl;

    put(e, REG_IMC, GONE);
    (void)get(e, REG_ICR);
    ctrl = get(e, REG_CTRL);
    ctrl &= ~(uint32_t)(CTRL_LINK_RESET | CTRL_INVERT_LOSS | CTRL_FORCE_SPEED | CTRL_FORCE_DUPLEX | CTRL_VLAN | CTRL_RESET |
                        CTRL_MASTER_OFF);
    put(e, REG_CTRL, ctrl | (uint32_t)(CTRL_LINK_UP | CTRL_AUTO_SPEED));

    put(e, REG_RAL, (uint32_t)e->nic.mac[0] | (uint32_t)e->nic.mac[1] << 8 | (uint32_t)e->nic.mac[2] << 16 |
                        (uint32_t)e->nic.mac[3] << 24);
    put(e, REG_RAH, (uint32_t)(e->nic.mac[4] | e->nic.mac[5] << 8) | (uint32_t)RAH_VALID);
    e1000_receive_init(&e->rx, phys_to_virt(e->rx_ring), RING, BUFFER_BYTES);
    e1000_transmit_init(&e->tx, phys_to_virt(e->tx_ring), e->sent, RING);
    set_ring(e, REG_RDBAL, e->rx_ring);
    set_ring(e, REG_TDBAL, e->tx_ring);
    put(e, REG_RDTR, 0);
    put(e, REG_RADV, 0);
    put(e, REG_TIDV, SENT_DELAY);
    put(e, REG_TADV, SENT_DELAY);
    put(e, REG_ITR, INTERRUPT_GAP);
    if (e->interrupt == PCI_INTERRUPT_MSIX)
        put(e, REG_EITR, INTERRUPT_GAP); /* ITR is not for messages of MSI-X */
    put(e, REG_TIPG, TIPG_COPPER);
    put(e, REG_RXCSUM, RXCSUM_ON);
    if (e->model->quirks & IVAR)
        put(e, REG_IVAR, e->interrupt == PCI_INTERRUPT_MSIX ? (uint32_t)IVAR_ALL_TO_0 : 0);
    if (e->model->quirks & COUNT_BIT)
        put(e, REG_TXDCTL, get(e, REG_TXDCTL) | (uint32_t)TXDCTL_COUNT_DESCRIPTORS);
    pci_master(e->nic.pci, true);
    put(e, REG_TCTL, (get(e, REG_TCTL) & ~TCTL_COLLISION_BITS) | (uint32_t)(TCTL_ENABLE | TCTL_PAD) | TCTL_COLLISIONS);
    set_filter(e);
    if (e->model->quirks & QUEUE_SWITCH) {
        put(e, REG_RLPML, e->nic.max_frame + 4);
        enable_queue(e, REG_RXDCTL);
        enable_queue(e, REG_TXDCTL);
    }
    for (unsigned i = 0; i + 1 < RING; i++) {
        hpa_t buffer = HPA(e->buffer_pages[i / 2].v + i % 2 * BUFFER_BYTES);
        e->buffer[e1000_receive_give(&e->rx, buffer.v)] = buffer;
    }
    put(e, REG_RDT, e->rx.tail);
    e->resetting = false;
    e->unflushed = false;
    e->link_changed = true;
    e->progress_ns = time_now_ns();
    unmask(e);
}

static void give_up_sent(struct e1000 *e)
{
    void *cookie;

    while (e1000_transmit_drop(&e->tx, &cookie))
        e->nic.user->sent(&e->nic, cookie);
}

static void set_link(struct e1000 *e, bool up, uint32_t status)
{
    static const uint16_t speeds[] = { 10, 100, 1000, 1000 };
    uint32_t mbps = up ? speeds[status >> 6 & 3] : 0;
    bool full = up && (status & STATUS_FULL_DUPLEX);

    if (up == e->nic.link_up && mbps == e->nic.mbps && full == e->nic.full_duplex)
        return;
    e->link_ns = time_now_ns();
    if (up && !e->nic.link_up)
        e->progress_ns = e->link_ns; /* what waited for the link has its time from here on */
    e->nic.link_up = up;
    e->nic.mbps = mbps;
    e->nic.full_duplex = full;
    e->nic.counters.link_changes++;
    e->nic.user->link(&e->nic);
}

/* The end of a card that does not work any more. It may still answer: then it is kept from holding up a shared line. */
static void fail(struct e1000 *e, const char *why)
{
    log_error("%s (%s): %s; it is not used any more until the node restarts. Check the card and its slot", e->nic.name,
              e->nic.model, why);
    e->nic.failed = true;
    e->unmasked = false;
    stop(e);
    pci_master(e->nic.pci, false);
    give_up_sent(e);
    set_link(e, false, 0);
}

static void restart(struct e1000 *e, uint64_t now_ns)
{
    begin_reset(e);
    e->resetting = true;
    e->reset_ns = now_ns + RESET_NS;
    give_up_sent(e);
}

static void reset(struct e1000 *e, const char *why, uint64_t now_ns)
{
    if (e->nic.failed || e->resetting)
        return;
    if (e->resets_in_vain++ == RESETS_IN_VAIN) {
        fail(e, "it stopped answering, and resets did not help");
        return;
    }
    log_warning("%s (%s): %s, so it is reset", e->nic.name, e->nic.model, why);
    e->nic.counters.resets++;
    restart(e, now_ns);
}

/* ---- Operations ---- */

static bool interrupted(void *arg)
{
    struct e1000 *e = arg;
    uint32_t cause;

    if (e->nic.failed || !e->unmasked)
        return false;
    cause = get(e, REG_ICR);
    if (!(cause & e->causes) || cause == GONE)
        return false;
    e->unmasked = false;
    put(e, REG_IMC, GONE);
    put(e, REG_ICR, cause); /* with MSI-X reading alone does not clear it (82574 data sheet, 7.4.3) */
    e->nic.counters.interrupts++;
    if (cause & CAUSE_LINK)
        __atomic_store_n(&e->link_changed, true, __ATOMIC_RELEASE);
    e->nic.user->wake(&e->nic);
    return true;
}

/* Hands the frame up and its buffers back to the card. */
static void receive(struct e1000 *e, enum e1000_frame kind, const struct e1000_received *got)
{
    struct nic_received frame = { .bytes = got->bytes, .checksum_good = got->checksum_good };

    if (kind == E1000_FRAME_GOOD && got->bytes >= NIC_HEADER_BYTES) {
        for (unsigned i = 0; i < got->count; i++) {
            unsigned at = (got->first + i) % RING;
            frame.piece[i].data = phys_to_virt(e->buffer[at]);
            frame.piece[i].bytes = e1000_receive_bytes(&e->rx, at);
        }
        frame.piece_count = got->count;
        e->nic.counters.received_frames++;
        e->nic.counters.received_bytes += got->bytes;
        e->nic.user->receive(&e->nic, &frame);
    } else {
        e->nic.counters.receive_errors++;
    }
    for (unsigned i = 0; i < got->count; i++) {
        hpa_t buffer = e->buffer[(got->first + i) % RING];
        e->buffer[e1000_receive_give(&e->rx, buffer.v)] = buffer;
    }
}

static bool poll(struct nic *nic, unsigned budget)
{
    struct e1000 *e = of(nic);
    struct e1000_received got;
    enum e1000_frame kind = E1000_FRAME_NONE;
    unsigned frames = 0;
    void *cookie;

    if (nic->failed || e->resetting)
        return false;
    /* A link that shakes is looked at by the tick only: each change is work for all who hear of it. */
    if (__atomic_exchange_n(&e->link_changed, false, __ATOMIC_ACQUIRE) && time_now_ns() >= e->link_ns + LINK_NS) {
        uint32_t status = get(e, REG_STATUS);
        if (status != GONE)
            set_link(e, status & STATUS_LINK_UP, status);
    }
    while (frames < budget &&
           (kind = e1000_receive_take(&e->rx, NIC_MAX_PIECES, nic->max_frame, &got)) != E1000_FRAME_NONE) {
        receive(e, kind, &got);
        if (kind == E1000_FRAME_NONSENSE) {
            reset(e, "it reported a frame longer than its buffer", time_now_ns());
            return false;
        }
        frames++;
    }
    if (frames)
        put(e, REG_RDT, e->rx.tail);
    while (e1000_transmit_take(&e->tx, &cookie)) {
        e->progress_ns = time_now_ns();
        e->resets_in_vain = 0;
        nic->user->sent(nic, cookie);
    }
    if (frames == budget)
        return true;
    unmask(e);
    return false;
}

static bool send(struct nic *nic, const struct nic_send *frame)
{
    struct e1000 *e = of(nic);
    struct e1000_piece piece[NIC_MAX_PIECES + 1];
    unsigned count = frame->piece_count;
    uint64_t bytes = 0;

    if (nic->failed || e->resetting || !nic->link_up)
        return false;
    for (unsigned i = 0; i < frame->piece_count; i++) {
        piece[i] = (struct e1000_piece){ frame->piece[i].hpa.v, frame->piece[i].bytes };
        bytes += frame->piece[i].bytes;
    }
    /* The card pads too, but not what is very short (it may hang of it), and some cards' padding harms the frame. */
    if (bytes < SHORTEST_FRAME)
        piece[count++] = (struct e1000_piece){ e->zeros.v, (uint32_t)(SHORTEST_FRAME - bytes) };
    if (e->tx.next == e->tx.tail)
        e->progress_ns = time_now_ns();
    if (!e1000_transmit_put(&e->tx, piece, count, frame->cookie, frame->checksum_start, frame->checksum_at)) {
        nic->counters.send_refused++;
        return false;
    }
    nic->counters.sent_frames++;
    nic->counters.sent_bytes += bytes;
    e->unflushed = true;
    return true;
}

static void flush(struct nic *nic)
{
    struct e1000 *e = of(nic);

    if (e->unflushed && !nic->failed && !e->resetting) {
        __atomic_thread_fence(__ATOMIC_RELEASE);
        put(e, REG_TDT, e->tx.tail);
    }
    e->unflushed = false;
}

static void tick(struct nic *nic, uint64_t now_ns)
{
    struct e1000 *e = of(nic);
    uint32_t status, errors, missed;

    if (nic->failed)
        return;
    /* The card's counters are cleared by reading; whether it is there is asked behind them, for a missing one reads as ones. */
    errors = get(e, REG_CRCERRS) + get(e, REG_RXERRC);
    missed = get(e, REG_MPC) + get(e, REG_RNBC);
    status = get(e, REG_STATUS);
    if (status == GONE) {
        fail(e, "it does not answer");
    } else if (e->resetting) {
        if (now_ns >= e->reset_ns && !(get(e, REG_CTRL) & CTRL_RESET))
            start(e);
        else if (now_ns > e->reset_ns + STUCK_NS)
            fail(e, "it does not come out of its reset");
    } else {
        nic->counters.receive_errors += errors;
        nic->counters.receive_missed += missed;
        set_link(e, status & STATUS_LINK_UP, status);
        if (e->tx.next == e->tx.tail)
            e->progress_ns = now_ns;
        else if (now_ns > e->progress_ns + STUCK_NS && nic->link_up)
            reset(e, "it has not sent what it was given for 2 s", now_ns);
        else if (now_ns > e->progress_ns + STUCK_NS)
            restart(e, now_ns); /* nothing is wrong with it, but its frames are old */
        nic->user->wake(nic);
    }
}

static void filter(struct nic *nic, bool promiscuous, const uint8_t (*multicast)[6], unsigned count)
{
    struct e1000 *e = of(nic);

    memset(e->multicast, 0, sizeof e->multicast);
    for (unsigned i = 0; i < count && count <= NIC_MAX_MULTICAST; i++) {
        unsigned hash = (unsigned)multicast[i][4] >> 4 | (unsigned)multicast[i][5] << 4; /* RCTL.MO = 0: 13.5.1 */
        e->multicast[hash / 32] |= 1u << hash % 32;
    }
    e->rctl = (uint32_t)(RCTL_ENABLE | RCTL_BROADCAST | RCTL_STRIP_FCS) | (nic->max_frame > 1518 ? (uint32_t)RCTL_LONG : 0) |
              (promiscuous ? (uint32_t)(RCTL_ALL_UNICAST | RCTL_ALL_MULTICAST) : 0) |
              (count > NIC_MAX_MULTICAST ? (uint32_t)RCTL_ALL_MULTICAST : 0);
    if (!nic->failed && !e->resetting)
        set_filter(e);
}

/* ---- Taking a card and giving it back ---- */

static hpa_t *page_number(struct e1000 *e, unsigned i)
{
    hpa_t *others[] = { &e->rx_ring, &e->tx_ring, &e->zeros };

    return i < RING / 2 ? &e->buffer_pages[i] : i - RING / 2 < ARRAY_COUNT(others) ? others[i - RING / 2] : NULL;
}

static void free_memory(struct e1000 *e)
{
    hpa_t *page;

    for (unsigned i = 0; (page = page_number(e, i)) != NULL; i++)
        if (page->v)
            page_free(*page, PAGE_BYTES, PAGE_OWNER_HV);
}

static bool take_memory(struct e1000 *e)
{
    hpa_t *page;

    _Static_assert(RING * sizeof(struct e1000_receive) == PAGE_BYTES && RING % 8 == 0, "a ring is a page");
    for (unsigned i = 0; (page = page_number(e, i)) != NULL; i++) {
        if (!page_alloc(PAGE_BYTES, PAGE_OWNER_HV, PAGE_ZERO, page))
            return false;
        if (thread_should_yield())
            thread_yield();
    }
    return true;
}

static void close(struct nic *nic)
{
    struct e1000 *e = of(nic);

    stop(e);
    pci_release(nic->pci);
    give_up_sent(e);
    free_memory(e);
    kfree(e, sizeof *e);
}

/* One word of the card's EEPROM (5.3.1); false where it does not answer. */
static bool read_eeprom(const struct e1000 *e, unsigned word, uint16_t *value)
{
    bool new = e->model->quirks & EEPROM_NEW;
    uint32_t done = new ? 2 : 16, answer = 0;

    put(e, REG_EERD, 1u | word << (new ? 2 : 8));
    for (unsigned i = 0; i < 1000 && !((answer = get(e, REG_EERD)) & done); i++)
        time_spin_ns(5000);
    *value = (uint16_t)(answer >> 16);
    return answer != GONE && (answer & done);
}

static bool mac_valid(const uint8_t mac[6])
{
    return !(mac[0] & 1) && (mac[0] | mac[1] | mac[2] | mac[3] | mac[4] | mac[5]);
}

/* The reset has loaded the address from the EEPROM; if not, it is read by hand. */
static bool read_mac(struct e1000 *e)
{
    uint32_t low = get(e, REG_RAL), high = get(e, REG_RAH);
    uint16_t word[3];

    for (unsigned i = 0; i < 6; i++)
        e->nic.mac[i] = (uint8_t)(i < 4 ? low >> 8 * i : high >> 8 * (i - 4));
    if ((high & RAH_VALID) && mac_valid(e->nic.mac))
        return true;
    if (e->model->quirks & SHARED_PHY)
        return false;
    for (unsigned i = 0; i < 3; i++) {
        if (!read_eeprom(e, i, &word[i]))
            return false;
        e->nic.mac[2 * i] = (uint8_t)word[i];
        e->nic.mac[2 * i + 1] = (uint8_t)(word[i] >> 8);
    }
    return mac_valid(e->nic.mac);
}

static const struct nic_ops e1000_ops = {
    .poll = poll, .send = send, .flush = flush, .tick = tick, .filter = filter, .close = close,
};

struct nic *e1000_open(struct pci_function *f, uint32_t mtu, const struct nic_user *user)
{
    struct pci_bar bar[PCI_BARS];
    struct nic *nic = nic_begin(f, "e1000", sizeof(struct e1000), &e1000_ops, user, bar);
    const char *why = "there is no memory for it";

    if (!nic)
        return NULL;
    struct e1000 *e = of(nic);
    e->model = find_model(f);
    if (!e->model) {
        why = "the driver does not know it";
        goto refuse;
    }
    nic->model = e->model->name;
    nic->max_frame = MIN(mtu + NIC_HEADER_BYTES + NIC_VLAN_BYTES, JUMBO_FRAME);
    nic->offers_checksum = true;
    e->reg = pci_map(&bar[0], REGISTER_BYTES);
    if (!e->reg) {
        why = "its registers have no address; the firmware did not set it up";
        goto refuse;
    }
    if (get(e, REG_STATUS) == GONE) {
        why = "it does not answer";
        goto refuse;
    }
    if (!take_memory(e))
        goto refuse;
    begin_reset(e);
    thread_sleep_ns(RESET_NS);
    if (get(e, REG_CTRL) & CTRL_RESET) {
        why = "it does not come out of its reset";
        goto refuse;
    }
    if (!read_mac(e)) {
        why = "it has no address of its own (its EEPROM is empty or does not answer)";
        goto refuse;
    }
    put(e, REG_IMC, GONE);
    (void)get(e, REG_ICR);
    e->interrupt = pci_listen(f, bar, PCI_ALLOW_MSI | (e->model->quirks & IVAR ? PCI_ALLOW_MSIX : 0), interrupted, e);
    e->causes = (uint32_t)(CAUSE_SENT | CAUSE_LINK | CAUSE_RECEIVE_LOW | CAUSE_OVERRUN | CAUSE_RECEIVED) |
                (e->interrupt == PCI_INTERRUPT_MSIX ? (uint32_t)CAUSE_QUEUES : 0);
    e->resetting = true;
    filter(nic, false, NULL, 0);
    start(e);
    return nic;
refuse:
    pci_release(f);
    free_memory(e);
    return nic_refuse(nic, sizeof *e, why);
}
