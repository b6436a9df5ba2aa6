/* SPDX-License-Identifier: MIT */
/*
 * The network service: one thread in which cards, lwIP and everything that is driven by them run (DESIGN, section 4). It
 * exists only where the configuration has a [network]; without one no memory is taken and no card is touched.
 *
 * Other threads reach it by net_call(), which runs a function there and waits for it.
 */
#ifndef NET_SERVICE_H
#define NET_SERVICE_H

#include "kernel/status.h"
#include "net/address.h"
#include "net/vswitch.h"
#include "vm/config.h"

/* Starts the service if `config` has a network. The configuration must stay. Boot, once, after pci_init. */
void net_start(const struct config *config);

/*
 * Runs fn(arg) in the service's thread and returns when it has. False, and fn is not called: there is no service. Thread
 * context, not from the service itself.
 */
bool net_call(void (*fn)(void *arg), void *arg) MUST_CHECK;
/* Makes the service look around: something was put where it looks. Any context. */
void net_poke(void);
/* Whoever waits for something that fn began (a reply) is woken by this, from the service's thread. */
void net_notify(void);
/* Waits until net_notify() was called and *done is set, or the deadline passed; the value of *done. Not from the service. */
bool net_wait(const bool *done, uint64_t deadline_ns);

/* ---- What there is; any thread ---- */

#define NET_NOTICE 240

struct net_info {
    const char *name;
    const char *problem;      /* why it does not work; NULL: it does */
    char notice[NET_NOTICE];  /* what is wrong though it works: another station has its address; "": nothing */
    bool taken;               /* so the address is not used here */
    char card[24];            /* "" where there is none */
    uint8_t mac[6];
    bool link_up;
    struct net_address address, gateway;
    struct net_address address6[4]; /* the valid ones first, then NET_NONE */
    enum config_addressing ipv4;
    uint16_t vlan, mtu;
    uint64_t received_frames, received_bytes, sent_frames, sent_bytes, dropped;
};
/* Network number i, in the order of the configuration; false behind the last. */
bool net_info_get(unsigned i, struct net_info *info);

struct net_card_info {
    char name[24], model[16];
    const char *interrupt;
    uint8_t mac[6];
    bool link_up, full_duplex, failed;
    uint32_t mbps;
    uint64_t received_frames, received_bytes, sent_frames, sent_bytes;
    uint64_t receive_errors, receive_missed, send_refused, interrupts, link_changes, resets;
    uint64_t no_memory;       /* frames for guests that no copy could be made of */
};
bool net_card_get(unsigned i, struct net_card_info *info);

/* A port of a card's switch. */
struct net_port_info {
    char name[80];            /* the card's, "node: NETWORK", or "VM: card N" */
    const char *network;      /* NULL: the card's port, which is in all of them */
    uint64_t mac;             /* 0: the card's port */
    uint16_t vlan;            /* 0: untagged */
    bool link_up, expired;    /* expired: its VM's run deadline has passed */
    struct vswitch_counters counters;
};
/* Port number i, switch by switch, the card's first; false behind the last. */
bool net_port_get(unsigned i, struct net_port_info *info);

/* lwIP's memory, for `net show`: pool number i. False behind the last. */
struct net_pool_info {
    const char *name;
    uint64_t size, used, most, refused; /* elements, or bytes for the heap */
};
bool net_pool_get(unsigned i, struct net_pool_info *info);

/* ---- Echo requests ---- */

#define NET_PING_BYTES_MAX 16000

struct net_ping {
    struct net_address to;
    uint16_t sequence;
    uint16_t bytes;           /* of data in it; at most NET_PING_BYTES_MAX */
    bool sent, done;          /* done: the reply came */
    const char *problem;      /* why it could not be sent */
    uint64_t sent_ns, answered_ns;
    uint16_t id;
    struct net_ping *next;    /* private */
};
/* Sends one request; a reply sets done and calls net_notify(). In the service (net_call). *ping stays until net_ping_end. */
void net_ping_begin(void *ping);
void net_ping_end(void *ping);

#endif
