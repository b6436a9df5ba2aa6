/* SPDX-License-Identifier: MIT */
/*
 * The network service's thread: it polls the cards that have interrupted, runs lwIP's timers and what other threads have
 * asked for, and sleeps until the next of these is due. lwIP has no locks because all of it runs here.
 *
 * A round gives each card and each switch a bounded number of frames and then lets others run if they want to, so that no
 * flood keeps a guest on this CPU from its turn. Doorbells are rung once a round, guests' and cards'. A card without an interrupt is polled every
 * millisecond.
 *
 * `net_lock` guards the list of calls alone. What the shell shows of cards and networks is copied here, in the service.
 */
#include "net/service.h"

#include <stdio.h>
#include <string.h>

#include "drivers/nic.h"
#include "kernel/heap.h"
#include "kernel/layout.h"
#include "kernel/log.h"
#include "kernel/page.h"
#include "kernel/spinlock.h"
#include "kernel/text.h"
#include "kernel/thread.h"
#include "kernel/time.h"
#include "kernel/vmap.h"
#include "net/card.h"
#include "net/discover.h"
#include "net/network.h"
#include "net/storage.h"

#include "lwip/init.h"
#include "lwip/memp.h"
#include "lwip/priv/tcp_priv.h"
#include "lwip/stats.h"
#include "lwip/timeouts.h"

#define BUDGET 64
#define TICK_NS (100 * NS_PER_MS)
#define GUESTS_NS (50 * NS_PER_MS)
#define POLL_NS (1 * NS_PER_MS)
#define FAST_TIMER_NS (10 * NS_PER_MS) /* delayed acknowledgements wait no longer (lwipopts.h) */

extern char __net_pools_start[], __net_pools_end[];

struct call {
    void (*fn)(void *arg);
    void *arg;
    bool done, refused;
    struct call *next;
};

static const struct config *config;
static struct thread *thread;
static struct card *cards;
static struct network *networks;
static hpa_t pools;
static struct spinlock net_lock = SPINLOCK_INIT("net calls");
static struct wait_queue wake = WAIT_QUEUE_INIT("net");
static struct wait_queue callers = WAIT_QUEUE_INIT("net callers");
static struct call *first_call, **last_call = &first_call;
static bool ready;   /* set_up worked; without lwIP nothing is called */
static bool pending; /* something happened since the thread looked */

bool net_physical(const void *address, uint64_t bytes, hpa_t *hpa)
{
    uint64_t va = (uint64_t)address, start = (uint64_t)__net_pools_start;

    if (va >= start && range_within(va - start, bytes, (uint64_t)(__net_pools_end - __net_pools_start))) {
        *hpa = HPA(pools.v + (va - start));
        return true;
    }
    if ((va >= HV_DIRECT_BASE && va < HV_GUEST_BASE) || (va >= HV_IMAGE_BASE && va < (uint64_t)__image_end)) {
        *hpa = virt_to_phys(address);
        return true;
    }
    return false;
}

/* ---- Waking and calling ---- */

void net_poke(void)
{
    __atomic_store_n(&pending, true, __ATOMIC_RELEASE);
    wake_all(&wake);
}

void network_kicked(void *unused)
{
    (void)unused;
    net_poke();
}

static void card_wants(struct nic *nic)
{
    struct card *card = nic->user_data;

    if (!card)
        return; /* it is just being opened */
    __atomic_store_n(&card->wanted, true, __ATOMIC_RELEASE);
    net_poke();
}

bool net_call(void (*fn)(void *arg), void *arg)
{
    struct call call = { .fn = fn, .arg = arg };

    if (!thread)
        return false;
    uint64_t flags = spin_lock_irqsave(&net_lock);
    *last_call = &call;
    last_call = &call.next;
    spin_unlock_irqrestore(&net_lock, flags);
    net_poke();
    wait_event(&callers, __atomic_load_n(&call.done, __ATOMIC_ACQUIRE));
    return !call.refused;
}

static void run_calls(void)
{
    for (;;) {
        uint64_t flags = spin_lock_irqsave(&net_lock);
        struct call *call = first_call;
        if (call && !(first_call = call->next))
            last_call = &first_call;
        spin_unlock_irqrestore(&net_lock, flags);
        if (!call)
            return;
        if (ready)
            call->fn(call->arg);
        else
            call->refused = true;
        wake_all_set(&callers, &call->done); /* *call is the caller's stack, and gone after this */
    }
}

void net_notify(void)
{
    wake_all(&callers);
}

bool net_wait(const bool *done, uint64_t deadline_ns)
{
    return wait_event_until(&callers, __atomic_load_n(done, __ATOMIC_ACQUIRE), deadline_ns);
}

/* ---- Setting up ---- */

static const struct nic_user user = {
    .receive = card_receive, .sent = card_sent, .link = card_link, .wake = card_wants,
};

static const struct {
    bool (*knows)(const struct pci_function *function);
    struct nic *(*open)(struct pci_function *function, uint32_t mtu, const struct nic_user *user);
} drivers[] = { { e1000_knows, e1000_open }, { virtio_nic_knows, virtio_nic_open } };

static bool is_card(const struct config_network *c, const struct pci_function *f)
{
    return c->card == CONFIG_CARD_PCI && f->at.bus == c->pci_bus && f->at.device == c->pci_device &&
           f->at.function == c->pci_function;
}

/* Opens every card that a driver knows: which of them has a MAC address is known only then. */
static void open_cards(void)
{
    struct card **last = &cards;
    struct pci_function *f;
    uint32_t mtu = 0;

    for (uint32_t i = 0; i < config->network_count; i++)
        mtu = MAX(mtu, config->networks[i].mtu);
    for (unsigned i = 0; (f = pci_get(i)) != NULL; i++) {
        unsigned driver = 0;
        while (driver < ARRAY_COUNT(drivers) && !drivers[driver].knows(f))
            driver++;
        if (driver == ARRAY_COUNT(drivers))
            continue;
        struct card *card = kzalloc(sizeof *card);
        if (!card)
            return;
        card->nic = drivers[driver].open(f, mtu, &user);
        if (!card->nic) {
            kfree(card, sizeof *card);
            continue;
        }
        card->nic->user_data = card;
        card->wanted = true;
        *last = card;
        last = &card->next;
        thread_yield();
        log_info("%s: %s, %02x:%02x:%02x:%02x:%02x:%02x, interrupts by %s", card->nic->name, card->nic->model,
                 card->nic->mac[0], card->nic->mac[1], card->nic->mac[2], card->nic->mac[3], card->nic->mac[4],
                 card->nic->mac[5], pci_interrupt_name(f->interrupt));
    }
}

static struct card *find_card(const struct config_network *c)
{
    for (struct card *card = cards; card; card = card->next)
        if (c->card == CONFIG_CARD_FIRST || is_card(c, card->nic->pci) ||
            (c->card == CONFIG_CARD_MAC && !memcmp(c->mac, card->nic->mac, 6)))
            return card;
    return NULL;
}

/* A card that no network uses is left as it was found. */
static void close_unused(void)
{
    for (struct card **link = &cards; *link;) {
        struct card *card = *link;
        if (card->networks) {
            link = &card->next;
            continue;
        }
        *link = card->next;
        card->nic->ops->close(card->nic);
        kfree(card, sizeof *card);
    }
}

static void open_network(struct network *n)
{
    const struct config_network *c = n->config;
    struct card *card = find_card(c);

    if (c->error_count) {
        n->problem = "its section in the configuration has errors; `config show` lists them";
    } else if (!card) {
        n->problem = c->card == CONFIG_CARD_FIRST ? "this node has no card that a driver knows; `pci list` shows what there is"
                                                  : "no such card is here; `pci list` and `net show` tell which there are";
    } else if (network_open(n, card, config->node.name)) {
        name_servers_add(c);
        if (!netif_default)
            netif_set_default(&n->netif);
    }
    if (n->problem)
        log_error("network %s: it does not work: %s", c->name, n->problem);
}

static bool set_up(void)
{
    struct network **last = &networks;

    if (!vmap_back(__net_pools_start, __net_pools_end, &pools))
        return false;
    lwip_init();
    ping_init();
    open_cards();
    for (uint32_t i = 0; i < config->network_count; i++) {
        struct network *n = kzalloc(sizeof *n);
        if (!n)
            return false;
        n->config = &config->networks[i];
        *last = n;
        last = &n->next;
        open_network(n);
        thread_yield();
    }
    close_unused();
    storage_set_up(config);
    return true;
}

struct network *network_find(const char *name)
{
    struct network *n = networks;

    while (n && strcmp(n->config->name, name))
        n = n->next;
    return n;
}

const char *net_no_way(void)
{
    for (const struct network *n = networks; n; n = n->next)
        if (!n->problem && n->card->nic->link_up)
            return "there is no way there: no network that has a link has an address and a gateway for it; `net show` tells them";
    return "no network has a link; check cable and switch";
}

bool net_is_configured(const char *name)
{
    return config && config_find_network(config, name);
}

/* ---- The loop ---- */

/* One look at each card that wants it; true: one has more. */
static bool poll_cards(void)
{
    bool more = false;

    for (struct card *card = cards; card; card = card->next) {
        bool wanted = __atomic_exchange_n(&card->wanted, false, __ATOMIC_ACQUIRE);
        if (wanted || card->more || card->nic->pci->interrupt == PCI_INTERRUPT_POLLED)
            card->more = card->nic->ops->poll(card->nic, BUDGET);
        for (struct network *n = card->networks; n; n = n->next_on_card)
            network_flush(n);
        more |= card->more;
    }
    return more;
}

/* What waits in guests' queues, and then the doorbells of all that was given in this round; true: there is more. */
static bool run_switches(uint64_t now)
{
    bool more = false;

    for (struct card *card = cards; card; card = card->next) {
        if (!card->joined)
            continue;
        more |= vswitch_run(&card->sw, now);
        card->nic->ops->flush(card->nic);
    }
    network_collect();
    return more;
}

static uint64_t next_deadline(uint64_t now, uint64_t next_tick, uint64_t next_fast, uint64_t next_guests)
{
    uint32_t sleep_ms = sys_timeouts_sleeptime();
    uint64_t deadline = MIN(MIN(next_tick, next_guests), MIN(storage_deadline(), net_discover_deadline()));

    if (sleep_ms != SYS_TIMEOUTS_SLEEPTIME_INFINITE)
        deadline = MIN(deadline, now + sleep_ms * NS_PER_MS);
    if (tcp_active_pcbs)
        deadline = MIN(deadline, next_fast);
    for (const struct card *card = cards; card; card = card->next)
        if (card->nic->pci->interrupt == PCI_INTERRUPT_POLLED && !card->nic->failed)
            deadline = MIN(deadline, now + POLL_NS);
    return deadline;
}

static void service(void *arg)
{
    uint64_t next_tick = 0, next_fast = 0, next_guests = 0;
    (void)arg;

    ready = set_up();
    if (!ready)
        log_error("net: no memory, so there is no network. Give the VMs less memory");
    for (;;) {
        uint64_t now = time_now_ns();
        __atomic_store_n(&pending, false, __ATOMIC_SEQ_CST);
        bool more = poll_cards();
        name_servers_keep();
        run_calls();
        if (now >= next_tick) {
            for (struct card *card = cards; card; card = card->next)
                card->nic->ops->tick(card->nic, now);
            for (struct network *n = networks; n; n = n->next)
                network_tick(n, now);
            next_tick = now + TICK_NS;
        }
        if (tcp_active_pcbs && now >= next_fast) {
            tcp_fasttmr();
            next_fast = now + FAST_TIMER_NS;
        }
        sys_check_timeouts();
        storage_poll(time_now_ns());
        net_discover_poll(time_now_ns());
        netif_poll_all(); /* what the node sent to itself */
        if (now >= next_guests) {
            guests_tick(cards, now);
            next_guests = now + GUESTS_NS;
        }
        more |= run_switches(now);
        if (more) {
            if (thread_should_yield())
                thread_yield();
            continue;
        }
        (void)wait_event_until(&wake, __atomic_load_n(&pending, __ATOMIC_ACQUIRE),
                               next_deadline(now, next_tick, next_fast, guests_wait(cards) ? next_guests : next_tick));
    }
}

void net_start(const struct config *node_config)
{
    config = node_config;
    storage_configure(config);
    if (!config->network_count)
        return;
    thread = thread_create("net", thread_pick_cpu(), service, NULL);
    if (!thread)
        log_error("net: no memory for its thread, so there is no network");
}

/* ---- What there is ---- */

struct query {
    unsigned i;
    void *info;
    bool found;
};

static void get_network(void *arg)
{
    struct query *query = arg;
    struct net_info *info = query->info;
    const struct network *n = networks;

    for (unsigned i = 0; n && i < query->i; i++)
        n = n->next;
    if (!n)
        return;
    query->found = true;
    *info = (struct net_info){
        .name = n->config->name, .problem = n->problem, .ipv4 = n->config->ipv4, .vlan = n->config->vlan,
        .mtu = n->config->mtu, .received_frames = n->received_frames, .received_bytes = n->received_bytes,
        .sent_frames = n->sent_frames, .sent_bytes = n->sent_bytes, .dropped = n->dropped,
    };
    if (!n->card)
        return;
    str_copy(info->card, sizeof info->card, n->card->nic->name);
    memcpy(info->mac, n->card->nic->mac, 6);
    info->link_up = n->card->nic->link_up;
    if (n->card->nic->failed)
        info->problem = "its card failed; `log show` tells how";
    network_address_get(n, info);
    network_notice(n, time_now_ns(), info->notice, sizeof info->notice);
    info->taken = n->duplicate.taken;
}

bool net_info_get(unsigned i, struct net_info *info)
{
    struct query query = { .i = i, .info = info };

    return net_call(get_network, &query) && query.found;
}

static void get_card(void *arg)
{
    struct query *query = arg;
    struct net_card_info *info = query->info;
    const struct card *card = cards;

    for (unsigned i = 0; card && i < query->i; i++)
        card = card->next;
    if (!card)
        return;
    const struct nic *nic = card->nic;
    const struct nic_counters *c = &nic->counters;
    query->found = true;
    *info = (struct net_card_info){
        .interrupt = pci_interrupt_name(nic->pci->interrupt), .link_up = nic->link_up, .full_duplex = nic->full_duplex,
        .failed = nic->failed, .mbps = nic->mbps, .received_frames = c->received_frames,
        .received_bytes = c->received_bytes, .sent_frames = c->sent_frames, .sent_bytes = c->sent_bytes,
        .receive_errors = c->receive_errors, .receive_missed = c->receive_missed, .send_refused = c->send_refused,
        .interrupts = c->interrupts, .link_changes = c->link_changes, .resets = c->resets, .no_memory = card->no_room,
    };
    str_copy(info->name, sizeof info->name, nic->name);
    str_copy(info->model, sizeof info->model, nic->model);
    memcpy(info->mac, nic->mac, 6);
}

bool net_card_get(unsigned i, struct net_card_info *info)
{
    struct query query = { .i = i, .info = info };

    return net_call(get_card, &query) && query.found;
}

/* Which network a port is of; NULL: the card's own, and of all. */
static const struct network *network_of(const struct card *card, const struct vswitch_port *vp)
{
    for (const struct network *n = card->networks; n; n = n->next_on_card)
        if (vp == &n->vport)
            return n;
    for (const struct net_guest *guest = card->guests; guest; guest = guest->next)
        if (vp == &guest->vport)
            return guest->at;
    return NULL;
}

static void get_port(void *arg)
{
    struct query *query = arg;
    struct net_port_info *info = query->info;
    const struct vswitch_port *vp = NULL;
    const struct card *card;
    unsigned left = query->i, count;

    for (card = cards; card; left -= count, card = card->next) {
        for (vp = card->sw.first, count = 0; vp; vp = vp->next)
            count++;
        if (left < count)
            break;
    }
    if (!card)
        return;
    vp = card->sw.first; /* the newest; the card's is the oldest */
    for (left = count - 1 - left; left; left--)
        vp = vp->next;
    const struct network *n = network_of(card, vp);
    query->found = true;
    *info = (struct net_port_info){
        .network = n ? n->config->name : NULL, .mac = vp->port->mac, .vlan = vp->vlan, .link_up = netport_is_up(vp->port),
        .expired = time_now_ns() >= __atomic_load_n(&vp->deadline_ns, __ATOMIC_RELAXED), .counters = vp->counters,
    };
    if (n && vp == &n->vport)
        snprintf(info->name, sizeof info->name, "node: %s", n->config->name);
    else
        str_copy(info->name, sizeof info->name, vp->port->name);
}

bool net_port_get(unsigned i, struct net_port_info *info)
{
    struct query query = { .i = i, .info = info };

    return net_call(get_port, &query) && query.found;
}

static void get_pool(void *arg)
{
    struct query *query = arg;
    struct net_pool_info *info = query->info;
    static const char *const names[MEMP_MAX] = {
#define LWIP_MEMPOOL(name, num, size, desc) desc,
#include "lwip/priv/memp_std.h"
    };

    if (query->i > MEMP_MAX)
        return;
    query->found = true;
    const struct stats_mem *m = query->i ? lwip_stats.memp[query->i - 1] : &lwip_stats.mem;
    *info = (struct net_pool_info){ .name = query->i ? names[query->i - 1] : "HEAP", .size = m->avail, .used = m->used,
                                    .most = m->max, .refused = m->err };
}

bool net_pool_get(unsigned i, struct net_pool_info *info)
{
    struct query query = { .i = i, .info = info };

    return net_call(get_pool, &query) && query.found;
}
