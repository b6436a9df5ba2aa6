/* SPDX-License-Identifier: MIT */
/*
 * Guests' cards at the node's networks: joining and leaving, announcing, and giving back the memory of those that are
 * gone. See guest.h. What is called from other threads goes to the service by net_call().
 */
#include "net/guest.h"

#include <stdio.h>
#include <string.h>

#include "kernel/log.h"
#include "kernel/spinlock.h"
#include "kernel/time.h"
#include "net/card.h"
#include "net/network.h"

#define ANNOUNCEMENTS 5
#define ANNOUNCE_NS (50 * NS_PER_MS) /* to the second one; then twice as long each time */

static struct spinlock graves_lock = SPINLOCK_INIT("net graves");
static struct net_guest *graves;

/* ---- Joining and leaving ---- */

struct join {
    struct net_guest *guest;
    enum status status;
    const char *problem;
};

static void attach(void *arg)
{
    struct join *join = arg;
    struct net_guest *guest = join->guest;
    struct network *n = network_find(guest->network);

    join->status = OK;
    if (!n)
        join->status = ERR_NOT_FOUND;
    else if (n->problem)
        join->problem = n->problem;
    else
        join->status = card_attach(n->card, n, guest, network_kicked, NULL, time_now_ns());
}

enum status net_guest_attach(struct net_guest *guest, char *text, size_t text_bytes)
{
    struct join join = { .guest = guest };

    text[0] = '\0';
    guest->at = NULL;
    guest->card = NULL;
    guest->announcements = 0;
    if (!net_call(attach, &join)) {
        if (!net_is_configured(guest->network))
            join.status = ERR_NOT_FOUND;
        else
            join.problem = "the node's network service could not be started";
    }
    if (join.status == OK && join.problem)
        snprintf(text, text_bytes, "network %s does not work: %s; its link is down", guest->network, join.problem);
    else if (join.status == ERR_NOT_FOUND)
        snprintf(text, text_bytes, "there is no network %s; `net show` lists those that there are", guest->network);
    else if (join.status == ERR_EXISTS)
        snprintf(text, text_bytes, "its address %012lx is another's in network %s; give it another one behind the network's name",
                 guest->port->mac, guest->network);
    else if (join.status != OK)
        snprintf(text, text_bytes, "it cannot be joined to network %s (%s); stop another VM", guest->network,
                 status_name(join.status));
    return join.status;
}

static void detach(void *arg)
{
    struct net_guest *guest = arg;

    if (guest->card)
        card_detach(guest->card, guest);
}

void net_guest_detach(struct net_guest *guest)
{
    (void)!net_call(detach, guest); /* no service: it was never attached */
}

/* ---- Announcing ---- */

static void announce(void *arg)
{
    struct net_guest *guest = arg;

    if (!guest->card)
        return;
    guest->announcements = ANNOUNCEMENTS;
    guest->announce_ns = time_now_ns();
}

void net_guest_announce(struct net_guest *guest)
{
    (void)!net_call(announce, guest);
}

/* One round's announcements at a card. A station that is not heard of now is at the next. */
static void announce_due(struct card *card, uint64_t now_ns)
{
    for (struct net_guest *guest = card->guests; guest; guest = guest->next) {
        if (!guest->announcements || now_ns < guest->announce_ns)
            continue;
        if (vswitch_announce(&card->sw, &guest->vport, now_ns) == ERR_NO_MEMORY)
            log_debug("net: no memory to announce %s", guest->port->name);
        guest->announcements--;
        guest->announce_ns = now_ns + (ANNOUNCE_NS << (ANNOUNCEMENTS - 1 - guest->announcements));
    }
}

/* ---- Graves ---- */

void net_guest_bury(struct net_guest *guest, struct frame_pool *pool, void (*gone)(struct net_guest *guest))
{
    if (frame_pool_idle(pool)) {
        gone(guest);
        return;
    }
    guest->pool = pool;
    guest->gone = gone;
    uint64_t flags = spin_lock_irqsave(&graves_lock);
    guest->next_buried = graves;
    graves = guest;
    spin_unlock_irqrestore(&graves_lock, flags);
    network_kicked(NULL);
}

static void give_back(void)
{
    uint64_t flags = spin_lock_irqsave(&graves_lock);
    struct net_guest *all = graves, *next;

    graves = NULL;
    spin_unlock_irqrestore(&graves_lock, flags);
    for (; all; all = next) {
        next = all->next_buried;
        if (frame_pool_idle(all->pool)) {
            all->gone(all);
            continue;
        }
        flags = spin_lock_irqsave(&graves_lock);
        all->next_buried = graves;
        graves = all;
        spin_unlock_irqrestore(&graves_lock, flags);
    }
}

/* ---- The service's rounds ---- */

bool guests_wait(const struct card *cards)
{
    if (__atomic_load_n(&graves, __ATOMIC_ACQUIRE))
        return true;
    for (; cards; cards = cards->next)
        if (cards->guests)
            return true;
    return false;
}

void guests_tick(struct card *cards, uint64_t now_ns)
{
    for (struct card *card = cards; card; card = card->next) {
        if (!card->joined)
            continue;
        announce_due(card, now_ns);
        vswitch_tick(&card->sw, now_ns);
    }
    give_back();
}
