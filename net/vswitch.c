/* SPDX-License-Identifier: MIT */
/*
 * The virtual switch (see vswitch.h). The file goes with a frame: which VLAN it is in and whether its port may send it;
 * who sent it (learning); where it goes; what it needs before the port takes it.
 *
 * The table holds two kinds of entries. What was learnt has its VLAN in the key. What a port owns has OWNED there, and
 * is good in all VLANs that the port is in; it wins over what was learnt while the port is alive.
 *
 * What the table answered for a flow is remembered at the port that it comes in by, if only a change of the table could make
 * the answer another one. Each such change has a new `generation`.
 */
#include "kernel/time.h"
#include "net/announce.h"
#include "net/offload.h"
#include "net/vswitch.h"

#define OWNED VLAN_ID_RESERVED
#define SWEEP_NS UINT64_C(1000000000)
#define RECENT_NS UINT64_C(1000000000) /* what is remembered of a flow is looked up again after this */
#define FRAME_COST 512u /* what a frame costs each port, beside its bytes: in bytes */
#define PIECE_COST 256u /* and each piece that is cut from it */

const char *vswitch_drop_name(enum vswitch_drop drop)
{
    static const char *const names[VSWITCH_DROP_COUNT] = {
        [VSWITCH_DROP_DOWN] = "down",           [VSWITCH_DROP_DEADLINE] = "deadline",
        [VSWITCH_DROP_MALFORMED] = "malformed", [VSWITCH_DROP_SOURCE] = "source",
        [VSWITCH_DROP_VLAN] = "vlan",           [VSWITCH_DROP_CONTROL] = "control",
        [VSWITCH_DROP_LOCAL] = "local",         [VSWITCH_DROP_BUSY] = "busy",
        [VSWITCH_DROP_TOO_BIG] = "too-big",     [VSWITCH_DROP_MEMORY] = "memory",
        [VSWITCH_DROP_STALLED] = "stalled",
    };

    return (unsigned)drop < VSWITCH_DROP_COUNT ? names[drop] : "unknown";
}

static void count(uint64_t *counter, uint64_t amount)
{
    /* One writer; the store is whole for who reads it elsewhere. */
    __atomic_store_n(counter, *counter + amount, __ATOMIC_RELAXED);
}

static void drop(struct vswitch_port *vp, enum vswitch_drop reason, uint64_t frames)
{
    count(&vp->counters.drop[reason], frames);
}

static bool is_member(const struct vswitch_port *vp, uint16_t vlan)
{
    return vp->member[vlan / 64] >> vlan % 64 & 1;
}

static bool is_expired(const struct vswitch_port *vp, uint64_t now_ns)
{
    return now_ns >= __atomic_load_n(&vp->deadline_ns, __ATOMIC_RELAXED);
}

static bool is_alive(const struct vswitch_port *vp, uint64_t now_ns)
{
    return netport_is_up(vp->port) && !is_expired(vp, now_ns);
}

/* ---- Ports ---- */

void vswitch_init(struct vswitch *sw, struct mac_entry *entries, uint32_t capacity, uint32_t *buckets,
                  uint32_t bucket_count, uint64_t seed, struct frame_pool *pool)
{
    *sw = (struct vswitch){ .pool = pool };
    mac_table_init(&sw->table, entries, capacity, buckets, bucket_count, seed);
}

static void set_members(struct vswitch_port *vp, const struct vswitch_port_config *config)
{
    memset(vp->member, 0, sizeof(vp->member));
    if (config->trunk) {
        for (unsigned i = 0; i < ARRAY_COUNT(vp->member); i++)
            vp->member[i] = config->trunk_set ? config->trunk_set[i] : UINT64_MAX;
        vp->member[0] &= ~BIT(0); /* there is no tag for it */
        vp->member[VLAN_ID_RESERVED / 64] &= ~BIT(VLAN_ID_RESERVED % 64);
    }
    vp->member[config->vlan / 64] |= BIT(config->vlan % 64);
}

static bool address_taken(const struct vswitch *sw, const struct vswitch_port *vp)
{
    for (const struct vswitch_port *other = sw->first; other; other = other->next) {
        for (unsigned i = 0; other->port->mac == vp->port->mac && i < ARRAY_COUNT(vp->member); i++) {
            if (vp->member[i] & other->member[i])
                return true;
        }
    }
    return false;
}

enum status vswitch_attach(struct vswitch *sw, struct vswitch_port *vp, struct netport *port,
                           const struct vswitch_port_config *config, uint64_t now_ns)
{
    uint32_t promise = config->quota + (port->mac != 0);

    if (config->vlan >= VLAN_ID_RESERVED || port->mtu < NETPORT_MTU_MIN || port->mtu > NETPORT_MTU_MAX ||
        (port->mac && !eth_is_station(port->mac)) || (!port->mac && !config->any_source) ||
        (config->quota && !config->any_source))
        return ERR_INVALID;
    *vp = (struct vswitch_port){ .port = port, .vlan = config->vlan, .trunk = config->trunk,
                                 .single = !config->any_source, .group = config->group, .quota = config->quota,
                                 .deadline_ns = TIME_NEVER, .stall_ns = now_ns };
    set_members(vp, config);
    if (port->mac && address_taken(sw, vp))
        return ERR_EXISTS;
    if (promise < config->quota || promise > sw->table.capacity - sw->promised)
        return ERR_NO_MEMORY;
    if (port->mac && !mac_table_add(&sw->table, mac_key(OWNED, port->mac), vp, now_ns))
        return ERR_NO_MEMORY;
    sw->promised += promise;
    sw->port_count++;
    sw->generation++;
    vp->next = sw->first;
    sw->first = vp;
    return OK;
}

static bool of_port(void *context, const struct mac_entry *entry)
{
    return entry->port == context;
}

static void purge(struct vswitch_port *vp, enum vswitch_drop reason)
{
    bool wake = false;

    if (!vp->port->outbox.size)
        return;
    drop(vp, reason, frame_queue_purge(&vp->port->outbox, &wake));
}

void vswitch_detach(struct vswitch *sw, struct vswitch_port *vp)
{
    struct vswitch_port **link = &sw->first;
    bool wake = false;

    while (*link && *link != vp)
        link = &(*link)->next;
    if (!*link)
        return;
    *link = vp->next;
    sw->port_count--;
    sw->generation++;
    if (sw->turn == vp)
        sw->turn = NULL;
    mac_table_sweep(&sw->table, of_port, vp);
    sw->promised -= vp->quota + (vp->port->mac != 0);
    purge(vp, VSWITCH_DROP_DOWN);
    drop(vp, VSWITCH_DROP_DOWN, frame_queue_purge(&vp->port->inbox, &wake));
    if (wake && vp->port->ops->room)
        vp->port->ops->room(vp->port);
}

void vswitch_port_deadline(struct vswitch_port *vp, uint64_t deadline_ns)
{
    __atomic_store_n(&vp->deadline_ns, deadline_ns, __ATOMIC_RELEASE);
}

/* ---- Stations ---- */

/* The living port that owns the address in that VLAN. */
static struct vswitch_port *owner_of(struct vswitch *sw, uint16_t vlan, uint64_t address, uint64_t now_ns)
{
    struct mac_entry *entry = mac_table_find(&sw->table, mac_key(OWNED, address));

    for (; entry; entry = mac_table_find_next(&sw->table, entry)) {
        struct vswitch_port *vp = entry->port;

        if (is_member(vp, vlan) && is_alive(vp, now_ns))
            return vp;
    }
    return NULL;
}

struct vswitch_port *vswitch_where(struct vswitch *sw, uint16_t vlan, uint64_t address, uint64_t now_ns)
{
    struct vswitch_port *vp = owner_of(sw, vlan, address, now_ns);
    struct mac_entry *entry;

    if (vp || vlan == OWNED) /* nothing is known in a VLAN that there cannot be, though the number is used here */
        return vp;
    entry = mac_table_find(&sw->table, mac_key(vlan, address));
    if (!entry || now_ns - entry->seen_ns >= VSWITCH_AGE_NS || !is_alive(entry->port, now_ns))
        return NULL;
    return entry->port;
}

/* A station was seen at a port that others may be behind. */
static void learn(struct vswitch *sw, struct vswitch_port *vp, uint16_t vlan, uint64_t address, uint64_t now_ns)
{
    struct mac_entry *entry = mac_table_find(&sw->table, mac_key(vlan, address));

    if (address == vp->port->mac)
        return; /* it is owned */
    if (entry && entry->port == vp) {
        entry->seen_ns = now_ns;
    } else if (vp->learnt >= vp->quota) {
        count(&vp->counters.learn_refused, 1);
    } else if (entry) {
        ((struct vswitch_port *)entry->port)->learnt--;
        vp->learnt++;
        entry->port = vp;
        entry->seen_ns = now_ns;
        sw->generation++;
    } else if (mac_table_add(&sw->table, mac_key(vlan, address), vp, now_ns)) {
        vp->learnt++;
        sw->generation++;
    }
}

struct ageing { uint64_t now_ns; };

static bool is_old(void *context, const struct mac_entry *entry)
{
    const struct ageing *ageing = context;

    if (entry->key >> 48 == OWNED || ageing->now_ns - entry->seen_ns < VSWITCH_AGE_NS)
        return false;
    ((struct vswitch_port *)entry->port)->learnt--;
    return true;
}

/* ---- Out ---- */

static bool give(struct vswitch_port *vp, struct frame *frame)
{
    if (!vp->port->ops->give(vp->port, frame)) {
        drop(vp, VSWITCH_DROP_BUSY, 1);
        return false;
    }
    vp->touched = true;
    count(&vp->counters.out_frames, 1);
    count(&vp->counters.out_bytes, frame->bytes);
    return true;
}

/* Cuts a frame for a port that cannot; a port that is full in the middle loses the rest. */
static void give_pieces(struct vswitch *sw, struct vswitch_port *vp, struct frame *frame, uint32_t offloads)
{
    struct offload_cut cut;
    struct frame *piece;
    bool taken = true;

    if (!offload_cut_begin(&cut, frame, !(offloads & NETPORT_CHECKSUM)))
        cut.failed = true;
    else
        while (taken && (piece = offload_cut_next(&cut, sw->pool))) {
            sw->work += PIECE_COST;
            taken = give(vp, piece);
            frame_put(piece);
        }
    if (cut.failed)
        drop(vp, VSWITCH_DROP_MEMORY, 1);
}

static void finish_and_give(struct vswitch *sw, struct vswitch_port *vp, struct frame *frame)
{
    uint32_t offloads = __atomic_load_n(&vp->port->offloads, __ATOMIC_RELAXED);

    if (netport_takes(offloads, frame)) {
        give(vp, frame);
        return;
    }
    count(&vp->counters.finished, 1);
    sw->work += frame->bytes;
    if (frame->gso != FRAME_GSO_NONE) {
        give_pieces(sw, vp, frame, offloads);
        return;
    }
    frame = offload_checksum(sw->pool, frame);
    if (frame) {
        give(vp, frame);
        frame_put(frame);
    } else {
        drop(vp, VSWITCH_DROP_MEMORY, 1);
    }
}

static bool fits(const struct vswitch_port *vp, const struct frame *frame)
{
    uint32_t largest = frame->bytes;

    if (frame->gso != FRAME_GSO_NONE)
        largest = MIN(largest, (uint32_t)frame->header_bytes + frame->gso_bytes);
    return largest - ETH_HEADER_BYTES <= vp->port->mtu;
}

/* The same bytes with another tag. */
static struct frame *retagged(struct frame_pool *pool, struct frame *frame, bool tagged, uint16_t tci)
{
    struct frame *copy = frame_pool_get(pool, 0);

    if (!copy)
        return NULL;
    frame_copy_facts(copy, frame);
    copy->tagged = tagged;
    copy->tci = tci;
    if (!frame_append_part(copy, frame, 0, frame->bytes)) {
        frame_put(copy);
        return NULL;
    }
    return copy;
}

/*
 * Frames that the switch makes for a port may wait in its outbox. Half of the pool is anybody's, a quarter is shared out
 * evenly, the rest is for ports that keep nothing waiting: so who is slow to take its frames leaves enough for all others.
 */
static bool may_make(const struct vswitch *sw, const struct vswitch_port *vp)
{
    return !vp->port->outbox.size || frame_pool_in_use(sw->pool) <= sw->pool->frame_count / 2 ||
           frame_queue_count(&vp->port->outbox) < sw->pool->frame_count / 4 / sw->port_count;
}

/* A port that is alive, in the VLAN, and may hear the sender. `type` is what the frame's bytes say. */
static void output(struct vswitch *sw, struct vswitch_port *vp, struct frame *frame, uint16_t vlan, uint16_t type)
{
    bool tagged = vlan != vp->vlan;
    uint16_t tci = tagged ? (uint16_t)((frame->tci & ~VLAN_ID_MASK) | vlan) : 0;
    struct frame *copy = NULL;

    sw->work += FRAME_COST;
    if (!tagged && type == ETH_TYPE_VLAN) {
        drop(vp, VSWITCH_DROP_VLAN, 1);
        return;
    }
    if (!fits(vp, frame)) {
        drop(vp, VSWITCH_DROP_TOO_BIG, 1);
        return;
    }
    bool retag = tagged != frame->tagged || tci != frame->tci;
    if ((retag || !netport_takes(__atomic_load_n(&vp->port->offloads, __ATOMIC_RELAXED), frame)) && !may_make(sw, vp)) {
        drop(vp, VSWITCH_DROP_BUSY, 1);
        return;
    }
    if (retag) {
        copy = retagged(sw->pool, frame, tagged, tci);
        if (!copy) {
            drop(vp, VSWITCH_DROP_MEMORY, 1);
            return;
        }
        frame = copy;
    }
    finish_and_give(sw, vp, frame);
    frame_put(copy);
}

/* ---- In ---- */

static bool may_reach(const struct vswitch_port *from, const struct vswitch_port *to)
{
    return from != to && !(from->group && from->group == to->group);
}

static void flood(struct vswitch *sw, struct vswitch_port *from, struct frame *frame, uint16_t vlan,
                  const uint8_t *header, uint64_t now_ns)
{
    bool to_group = eth_is_group(eth_address(header));
    unsigned ports = 0;

    for (struct vswitch_port *vp = sw->first; vp; vp = vp->next) {
        if (!may_reach(from, vp) || !is_member(vp, vlan) || !is_alive(vp, now_ns) || (vp->single && !to_group))
            continue;
        output(sw, vp, frame, vlan, be16_get(header + ETH_TYPE_OFFSET));
        ports++;
    }
    count(&from->counters.flooded, ports > 1);
}

/* The VLAN that a frame from the port is in. False: none that the port is in. */
static bool vlan_of(const struct vswitch_port *vp, const struct frame *frame, uint16_t *vlan)
{
    uint16_t id = frame->tagged ? frame->tci & VLAN_ID_MASK : 0;

    *vlan = id ? id : vp->vlan;
    return !id || (vp->trunk && is_member(vp, id));
}

/* Which rule the frame, whose first bytes are at `header`, breaks; or VSWITCH_DROP_COUNT. */
static enum vswitch_drop refusal(struct vswitch *sw, struct vswitch_port *vp, const struct frame *frame,
                                 const uint8_t *header, uint16_t vlan, uint64_t now_ns)
{
    uint64_t destination = eth_address(header), source = eth_address(header + ETH_ADDRESS_BYTES);
    uint16_t type = be16_get(header + ETH_TYPE_OFFSET);
    struct vswitch_port *owner;

    /* There is no TCP with groups, and cutting a large packet anew for each port would be much work for a lie. */
    if (!eth_is_station(source) || (frame->gso != FRAME_GSO_NONE && eth_is_group(destination)))
        return VSWITCH_DROP_MALFORMED;
    if (vp->single && source != vp->port->mac)
        return VSWITCH_DROP_SOURCE;
    if (eth_is_link_local(destination) || type == ETH_TYPE_MAC_CONTROL)
        return VSWITCH_DROP_CONTROL;
    owner = owner_of(sw, vlan, source, now_ns);
    return owner && owner != vp ? VSWITCH_DROP_SOURCE : VSWITCH_DROP_COUNT;
}

static struct vswitch_recent *recent_of(struct vswitch_port *vp, const uint8_t *header, uint64_t *addresses, uint32_t *more)
{
    memcpy(addresses, header, sizeof *addresses);
    memcpy(more, header + sizeof *addresses, sizeof *more);
    return &vp->recent[(header[ETH_ADDRESS_BYTES - 1] ^ header[2 * ETH_ADDRESS_BYTES - 1]) % VSWITCH_RECENT];
}

/* Where frames of this flow went, if that still holds; else NULL. */
static struct vswitch_port *recall(struct vswitch *sw, struct vswitch_port *vp, const uint8_t *header, uint16_t vlan,
                                   uint64_t now_ns)
{
    uint64_t addresses;
    uint32_t more;
    const struct vswitch_recent *recent = recent_of(vp, header, &addresses, &more);

    if (recent->addresses != addresses || recent->more_addresses != more || recent->vlan != vlan ||
        recent->generation != sw->generation || now_ns >= recent->until_ns ||
        be16_get(header + ETH_TYPE_OFFSET) == ETH_TYPE_MAC_CONTROL || !is_alive(recent->to, now_ns))
        return NULL;
    return recent->to;
}

/* The port has the address of its own, or nobody has: whether ports are alive makes no difference to that. */
static bool is_owned_by_at_most(struct vswitch *sw, uint64_t address, const struct vswitch_port *vp)
{
    struct mac_entry *entry = mac_table_find(&sw->table, mac_key(OWNED, address));

    return !entry || (entry->port == vp && !mac_table_find_next(&sw->table, entry));
}

/* A frame from `vp` was let in, and goes to `to` alone. */
static void remember(struct vswitch *sw, struct vswitch_port *vp, struct vswitch_port *to, const uint8_t *header, uint16_t vlan,
                     uint64_t now_ns)
{
    uint64_t destination = eth_address(header), source = eth_address(header + ETH_ADDRESS_BYTES), until_ns = now_ns + RECENT_NS;
    struct mac_entry *learnt = mac_table_find(&sw->table, mac_key(vlan, source));
    struct vswitch_recent recent = { .vlan = vlan, .generation = sw->generation, .to = to };

    if (!is_owned_by_at_most(sw, source, vp) || !is_owned_by_at_most(sw, destination, to) ||
        (!vp->single && source != vp->port->mac && !(learnt && learnt->port == vp)))
        return;
    if (to->port->mac != destination) { /* learnt, and forgotten in time */
        learnt = mac_table_find(&sw->table, mac_key(vlan, destination));
        if (!learnt || learnt->port != to)
            return;
        until_ns = MIN(until_ns, learnt->seen_ns + VSWITCH_AGE_NS);
    }
    recent.until_ns = until_ns;
    struct vswitch_recent *place = recent_of(vp, header, &recent.addresses, &recent.more_addresses);
    *place = recent;
}

void vswitch_input(struct vswitch *sw, struct vswitch_port *vp, struct frame *frame, uint64_t now_ns)
{
    uint8_t header[ETH_HEADER_BYTES];
    uint64_t destination;
    enum vswitch_drop refused;
    struct vswitch_port *to;
    uint16_t vlan;

    count(&vp->counters.in_frames, 1);
    count(&vp->counters.in_bytes, frame->bytes);
    if (!is_alive(vp, now_ns)) {
        drop(vp, is_expired(vp, now_ns) ? VSWITCH_DROP_DEADLINE : VSWITCH_DROP_DOWN, 1);
        return;
    }
    if (frame_read(frame, 0, header, sizeof(header)) < sizeof(header)) {
        drop(vp, VSWITCH_DROP_MALFORMED, 1);
        return;
    }
    if (!vlan_of(vp, frame, &vlan)) {
        drop(vp, VSWITCH_DROP_VLAN, 1);
        return;
    }
    to = recall(sw, vp, header, vlan, now_ns);
    if (to) {
        output(sw, to, frame, vlan, be16_get(header + ETH_TYPE_OFFSET));
        return;
    }
    refused = refusal(sw, vp, frame, header, vlan, now_ns);
    if (refused != VSWITCH_DROP_COUNT) {
        drop(vp, refused, 1);
        return;
    }
    if (!vp->single)
        learn(sw, vp, vlan, eth_address(header + ETH_ADDRESS_BYTES), now_ns);
    destination = eth_address(header);
    to = eth_is_group(destination) ? NULL : vswitch_where(sw, vlan, destination, now_ns);
    if (!to) {
        flood(sw, vp, frame, vlan, header, now_ns);
    } else if (may_reach(vp, to)) { /* and is in the VLAN, or it would not be known there */
        remember(sw, vp, to, header, vlan, now_ns);
        output(sw, to, frame, vlan, be16_get(header + ETH_TYPE_OFFSET));
    } else {
        drop(vp, VSWITCH_DROP_LOCAL, 1);
    }
}

void vswitch_flush(struct vswitch *sw)
{
    for (struct vswitch_port *vp = sw->first; vp; vp = vp->next) {
        if (!vp->touched)
            continue;
        vp->touched = false;
        if (vp->port->ops->flush)
            vp->port->ops->flush(vp->port);
    }
}

/* One port's burst. True: it has more. */
static bool serve(struct vswitch *sw, struct vswitch_port *vp, uint64_t now_ns)
{
    struct frame_queue *inbox = &vp->port->inbox;
    bool more;

    if (!inbox->size || !frame_queue_count(inbox) || !frame_queue_begin(inbox))
        return false;
    for (unsigned i = 0; i < VSWITCH_BURST && sw->work < VSWITCH_TURN_BYTES && frame_queue_first(inbox); i++) {
        struct frame *frame = frame_queue_take(inbox);

        sw->work += frame->bytes + FRAME_COST;
        vswitch_input(sw, vp, frame, now_ns);
        frame_put(frame);
    }
    more = frame_queue_first(inbox) != NULL;
    if (frame_queue_end(inbox) && vp->port->ops->room)
        vp->port->ops->room(vp->port);
    return more;
}

static struct vswitch_port *after(const struct vswitch *sw, const struct vswitch_port *vp)
{
    return vp->next ? vp->next : sw->first;
}

bool vswitch_run(struct vswitch *sw, uint64_t now_ns)
{
    struct vswitch_port *first = sw->turn ? sw->turn : sw->first, *vp = first;
    bool more = false;

    sw->work = 0;
    while (vp) {
        more |= serve(sw, vp, now_ns);
        vp = after(sw, vp);
        if (vp == first) {
            vp = after(sw, first); /* so that nobody is always the first to use what room there is */
            break;
        }
        if (sw->work >= VSWITCH_TURN_BYTES) {
            more = true;
            break;
        }
    }
    sw->turn = vp;
    vswitch_flush(sw);
    return more;
}

/* ---- Time ---- */

static void look_after(struct vswitch_port *vp, uint64_t now_ns)
{
    struct frame_queue *outbox = &vp->port->outbox;
    uint32_t taken;

    if (!outbox->size)
        return;
    taken = __atomic_load_n(&outbox->taken, __ATOMIC_RELAXED);
    if (is_expired(vp, now_ns)) {
        purge(vp, VSWITCH_DROP_DEADLINE);
    } else if (!netport_is_up(vp->port)) {
        purge(vp, VSWITCH_DROP_STALLED);
    } else if (taken != vp->stall_taken || !frame_queue_count(outbox)) {
        vp->stall_taken = taken;
        vp->stall_ns = now_ns;
    } else if (now_ns - vp->stall_ns >= VSWITCH_STALL_NS) {
        purge(vp, VSWITCH_DROP_STALLED);
    }
}

void vswitch_tick(struct vswitch *sw, uint64_t now_ns)
{
    for (struct vswitch_port *vp = sw->first; vp; vp = vp->next)
        look_after(vp, now_ns);
    if (now_ns - sw->swept_ns >= SWEEP_NS) {
        struct ageing ageing = { now_ns };

        sw->generation++;
        mac_table_sweep(&sw->table, is_old, &ageing);
        sw->swept_ns = now_ns;
    }
}

enum status vswitch_announce(struct vswitch *sw, struct vswitch_port *vp, uint64_t now_ns)
{
    struct frame *frame;

    if (!vp->port->mac)
        return ERR_INVALID;
    if (!is_alive(vp, now_ns))
        return ERR_BUSY;
    frame = frame_pool_get(sw->pool, ANNOUNCE_BYTES);
    if (!frame)
        return ERR_NO_MEMORY;
    announce_rarp(frame->segment[0].at, vp->port->mac);
    frame->checksum = FRAME_CHECKSUM_GOOD;
    vswitch_input(sw, vp, frame, now_ns);
    frame_put(frame);
    vswitch_flush(sw);
    return OK;
}
