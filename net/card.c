/* SPDX-License-Identifier: MIT */
/*
 * A card, its switch, and who is joined to it. See card.h.
 *
 * The wire's frames have their VLAN tag among their bytes; frames in the node have it beside them. Here one becomes the
 * other: a received tag is skipped by a segment that begins behind it, one to be sent is put in by offload_tag().
 */
#include "net/card.h"

#include <string.h>

#include "kernel/bytes.h"
#include "kernel/heap.h"
#include "kernel/log.h"
#include "kernel/panic.h"
#include "kernel/random.h"
#include "kernel/time.h"
#include "net/network.h"
#include "net/offload.h"

#define STATIONS 1024u          /* that are learnt from the wire */
#define TABLE (STATIONS + 640u) /* and an address for each network and each guest's card that there can be */
#define BUCKETS 2048u
#define MADE_FRAMES 256u        /* as many as the card has descriptors */
#define OWN_FRAMES 256u         /* one or two for each frame of the node's in a VLAN */
#define OWN_CHUNKS 128u
#define COPY_FRAMES 256u
#define COPY_CHUNKS 512u        /* frames of the usual size take one, a jumbo frame five */
#define LINK_TOLD_NS (60 * NS_PER_S)
#define LINK_TOLD 10u           /* changes of a link that the log is told of in that time */
#define GUESTS_IN_FLIGHT 192u   /* of the 255 descriptors that a card has at least */

/* ---- Memory ---- */

/* A pool with memory of the heap's, for as long as the node runs. */
static bool make_pool(struct frame_pool *pool, uint32_t frame_count, uint32_t chunk_count)
{
    struct frame *frames = kzalloc(frame_count * sizeof *frames);
    struct frame_chunk *chunks = kzalloc(chunk_count * sizeof *chunks);
    uint32_t *numbers = kzalloc(chunk_count * sizeof *numbers);

    if (!frames || !chunks || !numbers) {
        kfree(frames, frame_count * sizeof *frames);
        kfree(chunks, chunk_count * sizeof *chunks);
        kfree(numbers, chunk_count * sizeof *numbers);
        return false;
    }
    frame_pool_init(pool, frames, frame_count, chunks, numbers, chunk_count, NULL, NULL);
    return true;
}

/* ---- Out by the card ---- */

/* Descriptors: one for each piece, and some cards want one for a header. */
static uint32_t cost_of(const struct frame *frame)
{
    return frame->segment_count + 1u;
}

static bool give(struct netport *port, struct frame *frame)
{
    struct card *card = CONTAINER_OF(port, struct card, port);
    struct frame *whole = frame->tagged ? offload_tag(card->sw.pool, frame) : frame_get(frame);
    struct nic_send send;

    if (!whole)
        return false;
    send.cookie = whole;
    send.checksum_start = send.checksum_at = 0;
    send.piece_count = whole->segment_count;
    bool fits = send.piece_count && send.piece_count <= NIC_MAX_PIECES &&
                (card->own || card->in_flight + cost_of(whole) <= GUESTS_IN_FLIGHT);
    for (unsigned i = 0; fits && i < send.piece_count; i++) {
        send.piece[i].bytes = whole->segment[i].bytes;
        fits = net_physical(whole->segment[i].at, whole->segment[i].bytes, &send.piece[i].hpa);
    }
    if (fits && card->nic->ops->send(card->nic, &send)) {
        card->in_flight += cost_of(whole);
        return true;
    }
    card->refused = true;
    frame_put(whole);
    return false;
}

bool card_own(struct card *card, bool own)
{
    bool was = card->own;

    card->own = own;
    card->sw.pool = own ? &card->own_made : &card->made;
    return was;
}

void card_sent(struct nic *nic, void *cookie)
{
    struct card *card = nic->user_data;

    card->in_flight -= cost_of(cookie);
    frame_put(cookie);
}

static const struct netport_ops card_port = { .give = give };

/* ---- In by the card ---- */

static void keep_nothing(struct frame_owner *owner, struct frame *frame)
{
    (void)owner;
    (void)frame;
}

static struct frame_owner in_place = { keep_nothing };

static void append(struct frame *frame, const void *at, uint32_t bytes)
{
    if (!bytes)
        return;
    frame->segment[frame->segment_count++] = (struct frame_segment){ (uint8_t *)at, bytes };
    frame->bytes += bytes;
}

/* The frame in the card's buffers, without its tag. False: it is none. */
static bool wrap(struct frame *frame, const struct nic_received *got)
{
    const uint8_t *first = got->piece[0].data;
    uint32_t bytes = got->piece_count ? got->piece[0].bytes : 0;

    _Static_assert(NIC_MAX_PIECES + 1 <= FRAME_SEGMENTS_MAX, "each piece is a segment, the first one perhaps two");
    if (bytes < ETH_HEADER_BYTES)
        return false;
    frame_init(frame, &in_place);
    frame->checksum = got->checksum_at ? FRAME_CHECKSUM_MISSING : got->checksum_good ? FRAME_CHECKSUM_GOOD
                                                                                     : FRAME_CHECKSUM_THERE;
    frame->checksum_start = got->checksum_start;
    frame->checksum_offset = (uint16_t)(got->checksum_at - got->checksum_start);
    if (be16_get(first + ETH_TYPE_OFFSET) == ETH_TYPE_VLAN) {
        if (bytes < ETH_HEADER_BYTES + ETH_TAG_BYTES)
            return false;
        frame->tagged = true;
        frame->tci = be16_get(first + ETH_TYPE_OFFSET + 2);
        frame->checksum_start = (uint16_t)(frame->checksum_start - (got->checksum_at ? ETH_TAG_BYTES : 0));
        append(frame, first, ETH_TYPE_OFFSET);
        first += ETH_TYPE_OFFSET + ETH_TAG_BYTES;
        bytes -= ETH_TYPE_OFFSET + ETH_TAG_BYTES;
    }
    append(frame, first, bytes);
    for (unsigned i = 1; i < got->piece_count; i++)
        append(frame, got->piece[i].data, got->piece[i].bytes);
    return !offload_check(frame); /* a checksum within the tag is none, too */
}

/*
 * True: somebody might keep it, a port with a queue, which a guest's has and a network's has not. *to: who alone gets it,
 * NULL: perhaps several.
 */
static bool is_kept(struct card *card, const struct frame *frame, struct vswitch_port **to, uint64_t now_ns)
{
    uint64_t destination = eth_address(frame->segment[0].at);

    *to = NULL;
    if (!card->guests || eth_is_group(destination))
        return card->guests != NULL;
    *to = vswitch_where(&card->sw, frame->tagged ? frame->tci & VLAN_ID_MASK : 0, destination, now_ns);
    return *to && (*to)->port->outbox.size;
}

/*
 * Half of the copies is anybody's. The other half is for frames to one guest that has less than its share of it waiting:
 * so neither a flood to a guest that is slow, nor one to all, takes what the others need.
 */
static bool may_copy(struct card *card, const struct vswitch_port *to)
{
    unsigned guests = 0;

    if (frame_pool_in_use(&card->copies) <= COPY_FRAMES / 2)
        return true;
    for (const struct net_guest *guest = card->guests; guest; guest = guest->next)
        guests++;
    return to && frame_queue_count(&to->port->outbox) < COPY_FRAMES / 2 / guests;
}

static struct frame *copy_of(struct card *card, const struct frame *frame)
{
    struct frame *copy = frame_pool_get(&card->copies, frame->bytes);
    uint32_t at = 0;

    if (!copy)
        return NULL;
    frame_copy_facts(copy, frame);
    for (unsigned i = 0; i < frame->segment_count; i++)
        at += (uint32_t)frame_write(copy, at, frame->segment[i].at, frame->segment[i].bytes);
    return copy;
}

void card_receive(struct nic *nic, const struct nic_received *got)
{
    struct card *card = nic->user_data;
    uint64_t now_ns = time_now_ns();
    struct frame frame, *copy = NULL;
    struct vswitch_port *to;

    if (!card->joined || !wrap(&frame, got))
        return; /* nothing that is sent on Ethernet is so short */
    if (!is_kept(card, &frame, &to, now_ns)) {
        bool was = card_own(card, true);
        vswitch_input(&card->sw, &card->vport, &frame, now_ns);
        (void)card_own(card, was);
        if (frame.references != 1)
            panic("net: %s: a received frame was kept beyond its time", nic->name);
        return;
    }
    if (may_copy(card, to))
        copy = copy_of(card, &frame);
    if (!copy) {
        card->no_room++;
        return;
    }
    vswitch_input(&card->sw, &card->vport, copy, now_ns);
    frame_put(copy);
}

/* ---- What the card lets in ---- */

static void set_filter(struct card *card)
{
    uint8_t list[NIC_MAX_MULTICAST + 1][6];
    unsigned count = card->multicast_count;

    for (unsigned i = 0; i < count; i++)
        memcpy(list[i], card->multicast[i].mac, 6);
    if (card->multicast_left_out)
        count = NIC_MAX_MULTICAST + 1; /* more than a card is told one by one: all */
    card->nic->ops->filter(card->nic, card->guests != NULL, (const uint8_t (*)[6])list, count);
}

void card_multicast(struct card *card, const uint8_t mac[6], bool add)
{
    struct multicast *m = card->multicast, *end = m + card->multicast_count;

    while (m < end && memcmp(m->mac, mac, 6))
        m++;
    if (m < end && add) {
        m->users++;
        return;
    }
    if (add) {
        if (card->multicast_count == NIC_MAX_MULTICAST) {
            card->multicast_left_out++;
        } else {
            memcpy(m->mac, mac, 6);
            m->users = 1;
            card->multicast_count++;
        }
    } else if (m == end) {
        if (card->multicast_left_out)
            card->multicast_left_out--;
    } else if (--m->users == 0) {
        *m = card->multicast[--card->multicast_count];
    } else {
        return;
    }
    set_filter(card);
}

/* ---- Joining ---- */

/*
 * There are guests now, or none any more. The node's own frames may come back late; guests wait for theirs.
 */
static void guests_changed(struct card *card)
{
    set_filter(card);
    card->nic->sent_late = !card->guests;
    __atomic_store_n(&card->wanted, true, __ATOMIC_RELEASE); /* with the next poll the card knows */
}

enum status card_join(struct card *card, uint64_t now_ns)
{
    struct vswitch_port_config config = { .trunk = true, .any_source = true, .quota = STATIONS };
    struct mac_entry *entries;
    uint32_t *buckets;
    uint64_t seed;

    if (card->joined)
        return OK;
    entries = kzalloc(TABLE * sizeof *entries);
    buckets = kzalloc(BUCKETS * sizeof *buckets);
    if (!entries || !buckets || (!card->made.frames && !make_pool(&card->made, MADE_FRAMES, MADE_FRAMES)) ||
        !make_pool(&card->own_made, OWN_FRAMES, OWN_CHUNKS)) {
        kfree(entries, TABLE * sizeof *entries);
        kfree(buckets, BUCKETS * sizeof *buckets);
        return ERR_NO_MEMORY;
    }
    random_bytes(&seed, sizeof seed);
    vswitch_init(&card->sw, entries, TABLE, buckets, BUCKETS, seed, &card->made);
    card->port = (struct netport){ .ops = &card_port, .name = card->nic->name, .link = card->nic->link_up,
                                   .mtu = card->nic->max_frame - ETH_HEADER_BYTES - ETH_TAG_BYTES };
    enum status status = vswitch_attach(&card->sw, &card->vport, &card->port, &config, now_ns);
    if (status != OK)
        panic("net: %s cannot be joined to its switch (%s)", card->nic->name, status_name(status));
    card->joined = true;
    card->nic->sent_late = true;
    return OK;
}

static void tell_link(struct net_guest *guest, bool up)
{
    __atomic_store_n(&guest->link, up, __ATOMIC_RELEASE);
    guest->link_changed(guest->context);
}

enum status card_attach(struct card *card, struct network *network, struct net_guest *guest, void (*kick)(void *context),
                        void *context, uint64_t now_ns)
{
    struct vswitch_port_config config = { .vlan = network->config->vlan };
    enum status status;

    if (!card->copies.frames && !make_pool(&card->copies, COPY_FRAMES, COPY_CHUNKS))
        return ERR_NO_MEMORY;
    guest->port->kick = kick;
    guest->port->kick_context = context;
    status = vswitch_attach(&card->sw, &guest->vport, guest->port, &config, now_ns);
    if (status != OK)
        return status;
    vswitch_port_deadline(&guest->vport, guest->deadline_ns);
    guest->card = card;
    guest->at = network;
    guest->next = card->guests;
    card->guests = guest;
    if (!guest->next)
        guests_changed(card);
    tell_link(guest, card->nic->link_up);
    return OK;
}

void card_detach(struct card *card, struct net_guest *guest)
{
    struct net_guest **link = &card->guests;

    while (*link != guest)
        link = &(*link)->next;
    *link = guest->next;
    vswitch_detach(&card->sw, &guest->vport);
    guest->port->kick = NULL;
    guest->card = NULL;
    guest->at = NULL;
    tell_link(guest, false);
    if (!card->guests)
        guests_changed(card);
}

static void log_link(struct card *card)
{
    const struct nic *nic = card->nic;
    uint64_t now_ns = time_now_ns();

    if (now_ns - card->link_since_ns >= LINK_TOLD_NS) {
        card->link_since_ns = now_ns;
        card->link_told = 0;
    }
    if (card->link_told > LINK_TOLD)
        return;
    if (card->link_told++ == LINK_TOLD)
        log_warning("%s: its link comes and goes, and no more is said of it for a minute; check cable and switch", nic->name);
    else if (nic->link_up)
        log_info("%s: the link is up, %u Mbit/s, %s duplex", nic->name, nic->mbps, nic->full_duplex ? "full" : "half");
    else
        log_warning("%s: the link is down", nic->name);
}

void card_link(struct nic *nic)
{
    struct card *card = nic->user_data;

    log_link(card);
    __atomic_store_n(&card->port.link, nic->link_up, __ATOMIC_RELAXED);
    network_link(card);
    for (struct net_guest *guest = card->guests; guest; guest = guest->next)
        tell_link(guest, nic->link_up);
}
