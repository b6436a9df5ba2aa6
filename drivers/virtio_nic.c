/* SPDX-License-Identifier: MIT */
/*
 * The card of a node that is itself a guest: virtio-net over PCI (virtio 1.2, 4.1 and 5.1), the modern interface, also of
 * transitional devices. One queue pair. Each frame received is a chain of buffers long enough for the MTU, behind a header
 * of twelve bytes; a sent one is such a header, constant but for the checksum, and the frame's pieces as they lie.
 *
 * A reset is written in one tick and looked for in later ones, as in e1000.c, whose states these are. The device's words
 * (lengths, chains) are checked by virtio_ring.c; what it says that cannot be is answered by a reset.
 */
#include <string.h>

#include "drivers/nic.h"
#include "drivers/virtio_ring.h"
#include "kernel/heap.h"
#include "kernel/log.h"
#include "kernel/page.h"
#include "kernel/thread.h"
#include "kernel/time.h"

/* Capabilities (4.1.4). */
#define CAP_TYPE 3
#define CAP_BAR 4
#define CAP_OFFSET 8
#define CAP_LENGTH 12
#define CAP_NOTIFY_MULTIPLIER 16
#define CAPS_MAX 48 /* that fit into configuration space: more is a list that loops */
enum { TYPE_COMMON = 1, TYPE_NOTIFY, TYPE_ISR, TYPE_DEVICE };

struct common { /* 4.1.4.3 */
    uint32_t device_feature_select, device_feature, driver_feature_select, driver_feature;
    uint16_t config_msix_vector, num_queues;
    uint8_t status, config_generation;
    uint16_t queue_select, queue_size, queue_msix_vector, queue_enable, queue_notify_off;
    uint32_t queue_desc[2], queue_driver[2], queue_device[2];
};
_Static_assert(sizeof(struct common) == 56, "virtio 1.2, 4.1.4.3");

#define STATUS_ACKNOWLEDGE 1
#define STATUS_DRIVER 2
#define STATUS_DRIVER_OK 4
#define STATUS_FEATURES_OK 8
#define STATUS_NEEDS_RESET 64
#define FEATURE_CSUM BIT(0)
#define FEATURE_GUEST_CSUM BIT(1)
#define FEATURE_MAC BIT(5)
#define FEATURE_STATUS BIT(16)
#define FEATURE_VERSION_1 BIT(32)
#define DEVICE_STATUS 6 /* behind the MAC address (5.1.4) */
#define LINK_UP 1

struct header { /* 5.1.6 */
    uint8_t flags, gso_type;
    uint16_t hdr_len, gso_size, csum_start, csum_offset, num_buffers;
};
_Static_assert(sizeof(struct header) == 12, "virtio 1.2, 5.1.6");
#define HEADER_NEEDS_CSUM 1
#define HEADER_DATA_VALID 2

#define RING VIRTIO_RING_MAX
#define QUEUES 2
#define RECEIVE 0
#define TRANSMIT 1
#define PART_BYTES 2048
#define BUFFER_PAGES 128 /* of two parts each */
#define RESET_SPINS 100
#define RESET_NS (20 * NS_PER_MS)
#define STUCK_NS (2 * NS_PER_S)
#define RESETS_IN_VAIN 5
#define NO_VECTOR 0xffff
#define ISR_QUEUE 1
#define ISR_CONFIG 2

struct queue {
    struct virtio_ring ring;
    hpa_t desc, avail, used;
    struct virtio_slot slot[RING];
    volatile uint16_t *notify;
};
/* A header to send with, by its number; and the cookie of its frame. */
struct sending {
    void *cookie;
    uint16_t next; /* free */
};

struct virtio_nic {
    struct nic nic;                   /* first */
    volatile struct common *common;
    volatile uint8_t *notify, *isr, *device;
    uint32_t notify_multiplier;
    uint64_t notify_bytes, features;
    struct queue queue[QUEUES];
    hpa_t buffer_pages[BUFFER_PAGES], headers;
    unsigned parts;                   /* of each receive chain */
    struct sending sending[RING];
    uint16_t free_sending;
    bool resetting, unflushed, config_changed;
    bool sent_silent; /* the device does not interrupt for what it has sent */
    uint64_t reset_ns, progress_ns;
    unsigned resets_in_vain;
};

static struct virtio_nic *of(struct nic *nic)
{
    return CONTAINER_OF(nic, struct virtio_nic, nic);
}

bool virtio_nic_knows(const struct pci_function *f)
{
    return f->vendor == 0x1af4 && (f->device == 0x1041 || f->device == 0x1000);
}

/* ---- Buffers ---- */

static hpa_t part_of(const struct virtio_nic *v, unsigned number)
{
    return HPA(v->buffer_pages[number / 2].v + number % 2 * PART_BYTES);
}

/* Receive chain `chain`, whose cookie is its number + 1. */
static bool give_chain(struct virtio_nic *v, unsigned chain)
{
    struct virtio_piece piece[NIC_MAX_PIECES];

    for (unsigned i = 0; i < v->parts; i++)
        piece[i] = (struct virtio_piece){ part_of(v, chain * v->parts + i).v, PART_BYTES };
    return virtio_ring_put(&v->queue[RECEIVE].ring, piece, 0, v->parts, (void *)(uintptr_t)(chain + 1));
}

static void notify(struct virtio_nic *v, unsigned queue)
{
    if (virtio_ring_wants_notice(&v->queue[queue].ring))
        *v->queue[queue].notify = (uint16_t)queue;
}

/* ---- Stopping and starting ---- */

static void set_link(struct virtio_nic *v, bool up)
{
    if (up == v->nic.link_up)
        return;
    if (up)
        v->progress_ns = time_now_ns(); /* what waited for the link has its time from here on */
    v->nic.link_up = v->nic.full_duplex = up;
    v->nic.mbps = up ? 10000 : 0; /* it has no speed of its own */
    v->nic.counters.link_changes++;
    v->nic.user->link(&v->nic);
}

static void look_at_link(struct virtio_nic *v)
{
    set_link(v, !(v->features & FEATURE_STATUS) || (*(volatile uint16_t *)(v->device + DEVICE_STATUS) & LINK_UP));
}

static void give_up_sent(struct virtio_nic *v)
{
    void *cookie;

    while (virtio_ring_drop(&v->queue[TRANSMIT].ring, &cookie)) {
        struct sending *sending = cookie;
        v->nic.user->sent(&v->nic, sending->cookie);
        sending->next = v->free_sending;
        v->free_sending = (uint16_t)(sending - v->sending);
    }
}

static uint64_t read_features(const struct virtio_nic *v)
{
    v->common->device_feature_select = 0;
    uint64_t low = v->common->device_feature;
    v->common->device_feature_select = 1;
    return (uint64_t)v->common->device_feature << 32 | low;
}

/* The device says by the register itself whether it has the vector (4.1.5.1.2.1). */
static bool set_vector(const struct virtio_nic *v, volatile uint16_t *to)
{
    uint16_t vector = v->nic.pci->interrupt == PCI_INTERRUPT_MSIX ? 0 : NO_VECTOR;

    *to = vector;
    return *to == vector;
}

static bool set_queue(struct virtio_nic *v, unsigned number)
{
    struct queue *q = &v->queue[number];
    volatile struct common *c = v->common;

    c->queue_select = (uint16_t)number;
    uint16_t size = MIN(c->queue_size, RING);
    if (size < 2 * NIC_MAX_PIECES || (size & (size - 1)))
        return false;
    c->queue_size = size;
    memset(phys_to_virt(q->desc), 0, PAGE_BYTES);
    memset(phys_to_virt(q->avail), 0, PAGE_BYTES);
    memset(phys_to_virt(q->used), 0, PAGE_BYTES);
    virtio_ring_init(&q->ring, phys_to_virt(q->desc), phys_to_virt(q->avail), phys_to_virt(q->used), q->slot, size);
    if (!set_vector(v, &c->queue_msix_vector))
        return false;
    const hpa_t where[] = { q->desc, q->avail, q->used };
    volatile uint32_t *to[] = { c->queue_desc, c->queue_driver, c->queue_device };
    for (unsigned i = 0; i < ARRAY_COUNT(where); i++) {
        to[i][0] = (uint32_t)where[i].v;
        to[i][1] = (uint32_t)(where[i].v >> 32);
    }
    uint64_t doorbell = (uint64_t)c->queue_notify_off * v->notify_multiplier;
    if (!range_within(doorbell, sizeof *q->notify, v->notify_bytes) || doorbell % sizeof *q->notify)
        return false;
    q->notify = (volatile uint16_t *)(v->notify + doorbell);
    c->queue_enable = 1;
    return true;
}

/* The device is reset: the steps of 3.1.1. False: it does not take them. */
static bool start(struct virtio_nic *v)
{
    volatile struct common *c = v->common;

    c->status = STATUS_ACKNOWLEDGE;
    c->status = STATUS_ACKNOWLEDGE | STATUS_DRIVER;
    v->features = read_features(v) & (FEATURE_CSUM | FEATURE_GUEST_CSUM | FEATURE_MAC | FEATURE_STATUS | FEATURE_VERSION_1);
    if (!(v->features & FEATURE_VERSION_1))
        return false;
    for (uint32_t i = 0; i < 2; i++) {
        c->driver_feature_select = i;
        c->driver_feature = (uint32_t)(v->features >> 32 * i);
    }
    c->status = STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_FEATURES_OK;
    if (!(c->status & STATUS_FEATURES_OK))
        return false;
    c->config_msix_vector = NO_VECTOR; /* messages are for frames; the tick looks at the link */
    for (unsigned i = 0; i < QUEUES; i++)
        if (!set_queue(v, i))
            return false;
    for (unsigned i = 0; i < RING; i++)
        v->sending[i].next = (uint16_t)(i + 1);
    v->free_sending = 0;
    v->nic.offers_checksum = v->features & FEATURE_CSUM;
    pci_master(v->nic.pci, true);
    c->status = STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_FEATURES_OK | STATUS_DRIVER_OK;
    for (unsigned i = 0; (i + 1) * v->parts <= 2 * BUFFER_PAGES && give_chain(v, i); i++)
        ;
    notify(v, RECEIVE);
    v->resetting = v->unflushed = false;
    v->config_changed = true;
    v->progress_ns = time_now_ns();
    return true;
}

static void fail(struct virtio_nic *v, const char *why)
{
    log_error("%s: %s; it is not used any more until the node restarts. Check the host that this node runs on", v->nic.name,
              why);
    v->nic.failed = true;
    v->common->status = 0; /* if it still listens: so that it does not hold up a line that others share */
    pci_master(v->nic.pci, false);
    give_up_sent(v);
    set_link(v, false);
}

static void restart(struct virtio_nic *v, uint64_t now_ns)
{
    v->common->status = 0;
    v->resetting = true;
    v->reset_ns = now_ns + RESET_NS;
    give_up_sent(v);
}

static void reset(struct virtio_nic *v, const char *why, uint64_t now_ns)
{
    if (v->nic.failed || v->resetting)
        return;
    if (v->resets_in_vain++ == RESETS_IN_VAIN) {
        fail(v, "it stopped answering, and resets did not help");
        return;
    }
    log_warning("%s: %s, so it is reset", v->nic.name, why);
    v->nic.counters.resets++;
    restart(v, now_ns);
}

/* ---- Operations ---- */

static bool interrupted(void *arg)
{
    struct virtio_nic *v = arg;

    /* With messages there is no cause to read; INTx is taken down by reading it (4.1.4.5). */
    uint8_t cause = v->nic.pci->interrupt == PCI_INTERRUPT_INTX ? *v->isr : ISR_QUEUE;
    if (!cause)
        return false;
    virtio_ring_interrupt(&v->queue[RECEIVE].ring, false);
    virtio_ring_interrupt(&v->queue[TRANSMIT].ring, false);
    v->nic.counters.interrupts++;
    if (cause & ISR_CONFIG)
        __atomic_store_n(&v->config_changed, true, __ATOMIC_RELEASE);
    v->nic.user->wake(&v->nic);
    return true;
}

static void receive(struct virtio_nic *v, unsigned chain, uint32_t bytes)
{
    struct nic_received frame = { .piece_count = 0 };
    const volatile struct header *header = phys_to_virt(part_of(v, chain * v->parts));
    uint32_t left = bytes;
    uint8_t flags;

    if (bytes < sizeof *header + NIC_HEADER_BYTES || bytes - sizeof *header > v->nic.max_frame) {
        v->nic.counters.receive_errors++;
        return;
    }
    for (unsigned i = 0; left; i++) {
        uint32_t skip = i ? 0 : (uint32_t)sizeof *header, here = MIN(left, PART_BYTES);
        frame.piece[i].data = (const uint8_t *)phys_to_virt(part_of(v, chain * v->parts + i)) + skip;
        frame.piece[i].bytes = here - skip;
        frame.piece_count = i + 1;
        left -= here;
    }
    frame.bytes = bytes - (uint32_t)sizeof *header;
    flags = header->flags;
    frame.checksum_good = flags & (HEADER_NEEDS_CSUM | HEADER_DATA_VALID);
    if (flags & HEADER_NEEDS_CSUM) { /* it never was on a wire, and its checksum is not made yet (5.1.6.4.2) */
        uint32_t start = header->csum_start, at = start + header->csum_offset;
        if (start < NIC_HEADER_BYTES || at + 2 > frame.bytes) {
            v->nic.counters.receive_errors++;
            return;
        }
        frame.checksum_start = (uint16_t)start;
        frame.checksum_at = (uint16_t)at;
    }
    v->nic.counters.received_frames++;
    v->nic.counters.received_bytes += frame.bytes;
    v->nic.user->receive(&v->nic, &frame);
}

static bool is_half_full(const struct virtio_nic *v)
{
    return v->queue[TRANSMIT].ring.free_count < v->queue[TRANSMIT].ring.size / 2;
}

/* Frames that the device is done with. False: it was reset. */
static bool take_sent(struct virtio_nic *v)
{
    enum virtio_taken taken;
    void *cookie;
    uint32_t bytes;

    while ((taken = virtio_ring_take(&v->queue[TRANSMIT].ring, &cookie, &bytes)) == VIRTIO_TAKEN) {
        struct sending *sending = cookie;
        v->progress_ns = time_now_ns();
        v->resets_in_vain = 0;
        sending->next = v->free_sending;
        v->free_sending = (uint16_t)(sending - v->sending);
        v->nic.user->sent(&v->nic, sending->cookie);
    }
    if (taken == VIRTIO_NONSENSE)
        reset(v, "it gave back what it did not have", time_now_ns());
    return taken == VIRTIO_NONE;
}

/* Up to `budget` frames; *count says how many. False: it was reset. */
static bool take_received(struct virtio_nic *v, unsigned budget, unsigned *count)
{
    enum virtio_taken taken = VIRTIO_NONE;
    void *cookie;
    uint32_t bytes;

    for (*count = 0; *count < budget; (*count)++) {
        taken = virtio_ring_take(&v->queue[RECEIVE].ring, &cookie, &bytes);
        if (taken != VIRTIO_TAKEN)
            break;
        unsigned chain = (unsigned)((uintptr_t)cookie - 1);
        receive(v, chain, bytes);
        (void)give_chain(v, chain); /* there is room: it was just taken out */
    }
    if (*count)
        notify(v, RECEIVE);
    if (taken == VIRTIO_NONSENSE)
        reset(v, "it gave back what it did not have", time_now_ns());
    return taken != VIRTIO_NONSENSE;
}

static bool poll(struct nic *nic, unsigned budget)
{
    struct virtio_nic *v = of(nic);
    unsigned count, more;

    if (nic->failed || v->resetting)
        return false;
    if (__atomic_exchange_n(&v->config_changed, false, __ATOMIC_ACQUIRE))
        look_at_link(v);
    if (!take_sent(v) || !take_received(v, budget, &count))
        return false;
    if (count == budget)
        return true;
    virtio_ring_interrupt(&v->queue[RECEIVE].ring, true);
    v->sent_silent = nic->sent_late && !is_half_full(v);
    virtio_ring_interrupt(&v->queue[TRANSMIT].ring, !v->sent_silent);
    /* Once more: what was done while it did not interrupt. */
    if (!take_sent(v) || !take_received(v, budget, &more))
        return false;
    return more == budget;
}

static bool send(struct nic *nic, const struct nic_send *frame)
{
    struct virtio_nic *v = of(nic);
    struct virtio_piece piece[NIC_MAX_PIECES + 1];
    uint16_t number = v->free_sending;
    uint64_t bytes = 0;

    if (nic->failed || v->resetting || !nic->link_up)
        return false;
    for (unsigned i = 0; i < frame->piece_count; i++) {
        piece[i + 1] = (struct virtio_piece){ frame->piece[i].hpa.v, frame->piece[i].bytes };
        bytes += frame->piece[i].bytes;
    }
    if (v->queue[TRANSMIT].ring.free_count == v->queue[TRANSMIT].ring.size)
        v->progress_ns = time_now_ns();
    if (number < RING) {
        struct header *header = (struct header *)phys_to_virt(v->headers) + number;
        memset(header, 0, sizeof *header);
        if (frame->checksum_at) {
            header->flags = HEADER_NEEDS_CSUM;
            header->csum_start = frame->checksum_start;
            header->csum_offset = (uint16_t)(frame->checksum_at - frame->checksum_start);
        }
        piece[0] = (struct virtio_piece){ v->headers.v + number * sizeof *header, sizeof *header };
    }
    if (number >= RING ||
        !virtio_ring_put(&v->queue[TRANSMIT].ring, piece, frame->piece_count + 1, 0, &v->sending[number])) {
        nic->counters.send_refused++;
        return false;
    }
    v->free_sending = v->sending[number].next;
    v->sending[number].cookie = frame->cookie;
    nic->counters.sent_frames++;
    nic->counters.sent_bytes += bytes;
    v->unflushed = true;
    if (v->sent_silent && is_half_full(v)) { /* from the next poll on it interrupts */
        v->sent_silent = false;
        nic->user->wake(nic);
    }
    return true;
}

static void flush(struct nic *nic)
{
    struct virtio_nic *v = of(nic);

    if (v->unflushed && !nic->failed && !v->resetting)
        notify(v, TRANSMIT);
    v->unflushed = false;
}

static void tick(struct nic *nic, uint64_t now_ns)
{
    struct virtio_nic *v = of(nic);
    uint8_t status;

    if (nic->failed)
        return;
    status = v->common->status;
    if (v->resetting) {
        if (now_ns >= v->reset_ns && status == 0 && !start(v))
            fail(v, "it does not take its set-up any more");
        else if (v->resetting && now_ns > v->reset_ns + STUCK_NS)
            fail(v, "it does not come out of its reset");
        return;
    }
    if (status == 0xff) {
        fail(v, "it does not answer");
        return;
    }
    look_at_link(v);
    if (status & STATUS_NEEDS_RESET)
        reset(v, "it asks for a reset", now_ns);
    else if (v->queue[TRANSMIT].ring.free_count == v->queue[TRANSMIT].ring.size)
        v->progress_ns = now_ns;
    else if (now_ns > v->progress_ns + STUCK_NS && nic->link_up)
        reset(v, "it has not sent what it was given for 2 s", now_ns);
    else if (now_ns > v->progress_ns + STUCK_NS)
        restart(v, now_ns); /* nothing is wrong with it, but its frames are old */
    nic->user->wake(nic);
}

/* Without a control queue the device passes all that reaches it (5.1.6.5.1); what is not ours lwIP or the switch drops. */
static void filter(struct nic *nic, bool promiscuous, const uint8_t (*multicast)[6], unsigned multicast_count)
{
    (void)nic;
    (void)promiscuous;
    (void)multicast;
    (void)multicast_count;
}

/* ---- Taking a card and giving it back ---- */

static hpa_t *page_number(struct virtio_nic *v, unsigned i)
{
    hpa_t *others[] = { &v->headers, &v->queue[0].desc, &v->queue[0].avail, &v->queue[0].used, &v->queue[1].desc,
                        &v->queue[1].avail, &v->queue[1].used };

    return i < BUFFER_PAGES ? &v->buffer_pages[i] : i - BUFFER_PAGES < ARRAY_COUNT(others) ? others[i - BUFFER_PAGES] : NULL;
}

static void free_memory(struct virtio_nic *v)
{
    hpa_t *page;

    for (unsigned i = 0; (page = page_number(v, i)) != NULL; i++)
        if (page->v)
            page_free(*page, PAGE_BYTES, PAGE_OWNER_HV);
}

static bool take_memory(struct virtio_nic *v)
{
    hpa_t *page;

    for (unsigned i = 0; (page = page_number(v, i)) != NULL; i++) {
        if (!page_alloc(PAGE_BYTES, PAGE_OWNER_HV, PAGE_ZERO, page))
            return false;
        if (thread_should_yield())
            thread_yield();
    }
    return true;
}

static void close(struct nic *nic)
{
    struct virtio_nic *v = of(nic);

    v->common->status = 0;
    pci_release(nic->pci);
    give_up_sent(v);
    free_memory(v);
    kfree(v, sizeof *v);
}

/* Maps the four structures that the capabilities name. */
static bool find_registers(struct virtio_nic *v, const struct pci_function *f, const struct pci_bar bar[PCI_BARS])
{
    static const uint32_t needed[] = { [TYPE_COMMON] = sizeof(struct common), [TYPE_NOTIFY] = 2, [TYPE_ISR] = 1, [TYPE_DEVICE] = 8 };
    volatile uint8_t *found[TYPE_DEVICE + 1] = { NULL };

    unsigned cap = 0;

    for (unsigned i = 0; i < CAPS_MAX && (cap = pci_find_capability(pci_access(), f, PCI_CAP_VENDOR, cap)) != 0; i++) {
        unsigned type = pci_read(f, cap + CAP_TYPE, 1), number = pci_read(f, cap + CAP_BAR, 1);
        uint32_t offset = pci_read(f, cap + CAP_OFFSET, 4), bytes = pci_read(f, cap + CAP_LENGTH, 4);
        if (type < TYPE_COMMON || type > TYPE_DEVICE || found[type] || number >= PCI_BARS || bytes < needed[type] ||
            !range_within(offset, bytes, bar[number].bytes))
            continue;
        struct pci_bar part = { bar[number].kind, false, bar[number].base + offset, bytes };
        found[type] = pci_map(&part, MIN(bytes, 64 * KIB));
        if (type == TYPE_NOTIFY) {
            v->notify_multiplier = pci_read(f, cap + CAP_NOTIFY_MULTIPLIER, 4);
            v->notify_bytes = MIN(bytes, 64 * KIB);
        }
    }
    v->common = (volatile struct common *)found[TYPE_COMMON];
    v->notify = found[TYPE_NOTIFY];
    v->isr = found[TYPE_ISR];
    v->device = found[TYPE_DEVICE];
    return v->common && v->notify && v->isr && v->device;
}

static const struct nic_ops virtio_ops = {
    .poll = poll, .send = send, .flush = flush, .tick = tick, .filter = filter, .close = close,
};

struct nic *virtio_nic_open(struct pci_function *f, uint32_t mtu, const struct nic_user *user)
{
    struct pci_bar bar[PCI_BARS];
    struct nic *nic = nic_begin(f, "virtio-net", sizeof(struct virtio_nic), &virtio_ops, user, bar);
    const char *why = "there is no memory for it";

    if (!nic)
        return NULL;
    struct virtio_nic *v = of(nic);
    nic->model = "virtio";
    nic->max_frame = mtu + NIC_HEADER_BYTES + NIC_VLAN_BYTES;
    v->parts = (unsigned)((sizeof(struct header) + nic->max_frame + PART_BYTES - 1) / PART_BYTES);
    if (!find_registers(v, f, bar)) {
        why = "it has no modern interface (virtio 1.0)";
        goto refuse;
    }
    if (!take_memory(v))
        goto refuse;
    v->common->status = 0;
    for (unsigned i = 0; i < RESET_SPINS && v->common->status; i++)
        thread_sleep_ns(NS_PER_MS);
    if (v->common->status) {
        why = "it does not come out of its reset";
        goto refuse;
    }
    /* The handler is called for nothing that was before: the rings are made first. */
    for (unsigned i = 0; i < QUEUES; i++)
        virtio_ring_init(&v->queue[i].ring, phys_to_virt(v->queue[i].desc), phys_to_virt(v->queue[i].avail),
                         phys_to_virt(v->queue[i].used), v->queue[i].slot, RING);
    (void)pci_listen(f, bar, PCI_ALLOW_MSIX, interrupted, v);
    if (!start(v) || !(v->features & FEATURE_MAC)) {
        why = "it refuses what it offered, or has no address of its own";
        goto refuse;
    }
    for (unsigned i = 0; i < 6; i++)
        nic->mac[i] = v->device[i];
    return nic;
refuse:
    if (v->common)
        v->common->status = 0;
    pci_release(f);
    free_memory(v);
    return nic_refuse(nic, sizeof *v, why);
}
