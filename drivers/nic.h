/* SPDX-License-Identifier: MIT */
/*
 * A physical network card, as its users see it: frames in, frames out, a link, counters. Each driver fills one struct nic
 * and one table of operations. Frames are Ethernet frames from the destination address on, without the checksum at their
 * end; VLAN tags stay where they are in the frame.
 *
 * Everything but the interrupt runs in one thread, the user's (net/service.c): it polls after wake() was called, and no
 * operation waits. Physical addresses are what a card is told; who sends a frame promises that its bytes stay until
 * sent() is called for it.
 */
#ifndef DRIVERS_NIC_H
#define DRIVERS_NIC_H

#include "drivers/pci_host.h"
#include "kernel/status.h"
#include "kernel/types.h"

#define NIC_MAX_PIECES 20        /* of a frame that is sent */
#define NIC_HEADER_BYTES 14
#define NIC_VLAN_BYTES 4
#define NIC_MAX_MULTICAST 64

struct nic;

struct nic_piece {
    hpa_t hpa;
    uint32_t bytes; /* 1 or more */
};

/* A frame to send. */
struct nic_send {
    unsigned piece_count; /* 1..NIC_MAX_PIECES */
    struct nic_piece piece[NIC_MAX_PIECES];
    void *cookie;         /* for sent() */
    /*
     * Where not 0: the card adds the checksum over the bytes from `checksum_start` to the end, and puts it at
     * `checksum_at`, where the sum of the pseudo-header is already. Cards say in `offers_checksum` whether they can.
     */
    uint16_t checksum_start, checksum_at;
};

/* A frame that came; the bytes are there until the call returns. */
struct nic_received {
    unsigned piece_count;
    struct { const void *data; uint32_t bytes; } piece[NIC_MAX_PIECES];
    uint32_t bytes;         /* of all pieces */
    bool checksum_good;     /* the TCP or UDP checksum need not be looked at; nothing is said of IPv4's own */
    /*
     * Where not 0: the frame comes from the same machine and never was on a wire; its checksum is still to be made, as in
     * nic_send. checksum_good is set too, for a receiver needs none; who passes the frame on has to make it.
     */
    uint16_t checksum_start, checksum_at;
};

/* The user's side; called from within poll(), send() and tick(). */
struct nic_user {
    void (*receive)(struct nic *nic, const struct nic_received *frame);
    /* The card is done with a frame, or gave it up. */
    void (*sent)(struct nic *nic, void *cookie);
    /* nic->link_up or nic->mbps changed. */
    void (*link)(struct nic *nic);
    /* There is, or may be, something to poll for. Interrupt context, and within tick(). */
    void (*wake)(struct nic *nic);
};

struct nic_counters {
    uint64_t received_frames, received_bytes, sent_frames, sent_bytes;
    uint64_t receive_errors;  /* damaged on the wire, or longer than the card takes */
    uint64_t receive_missed;  /* the card had no room */
    uint64_t send_refused;    /* the ring was full */
    uint64_t interrupts, link_changes, resets;
};

struct nic_ops {
    /*
     * Serves what the card has done, up to `budget` frames received. True: there is more, poll again. False: the card
     * will interrupt (where it can), so waiting is safe.
     */
    bool (*poll)(struct nic *nic, unsigned budget);
    /* Hands a frame to the card. False: no room; poll and try again. */
    bool (*send)(struct nic *nic, const struct nic_send *frame);
    /* Tells the card of the frames handed over since the last flush. */
    void (*flush)(struct nic *nic);
    /*
     * About every 100 ms: the link, the card's own counters, and whether it is alive. Wakes the user as well, so that an
     * interrupt that got lost on its way costs no more than the time to the next tick.
     */
    void (*tick)(struct nic *nic, uint64_t now_ns);
    /* What to receive beside the card's own address and broadcasts: all; or these multicast addresses. */
    void (*filter)(struct nic *nic, bool promiscuous, const uint8_t (*multicast)[6], unsigned multicast_count);
    /* Stops the card; its memory (*nic too) and its device are given back. Frames not sent yet are given up. On the CPU that opened it. */
    void (*close)(struct nic *nic);
};

struct nic {
    const struct nic_ops *ops;
    struct pci_function *pci;
    char name[24];          /* "e1000 00:02.0" */
    const char *model;      /* "82540EM" */
    uint8_t mac[6];
    bool link_up, full_duplex;
    uint32_t mbps;          /* while the link is up */
    uint32_t max_frame;     /* bytes, header and VLAN tag included */
    bool offers_checksum;
    bool failed;            /* does not answer; the reason was logged */
    bool sent_late;         /* the user's: sent() may wait for the next frame that comes, or for a tick */
    struct nic_counters counters;
    const struct nic_user *user;
    void *user_data;
    struct nic *next;       /* the user's */
};

/*
 * Takes a card that this driver knows: `mtu` is the largest IP packet it shall pass. NULL: no such card, or it does not
 * work (the reason was logged). The calling CPU gets its interrupts. Thread context; may wait.
 */
struct nic *e1000_open(struct pci_function *function, uint32_t mtu, const struct nic_user *user) MUST_CHECK;
struct nic *virtio_nic_open(struct pci_function *function, uint32_t mtu, const struct nic_user *user) MUST_CHECK;
/* True if the driver takes such a device. */
bool e1000_knows(const struct pci_function *function);
bool virtio_nic_knows(const struct pci_function *function);

/*
 * For drivers. The beginning of an open: `bytes` of zeroed memory for the driver's own structure, whose first member is its
 * struct nic, filled in as far as all drivers do it alike; and the device claimed, its registers in `bar`. NULL: no memory,
 * or it has an owner; the reason was logged. Thread context.
 */
struct nic *nic_begin(struct pci_function *function, const char *driver, size_t bytes, const struct nic_ops *ops,
                      const struct nic_user *user, struct pci_bar bar[PCI_BARS]) MUST_CHECK;
/* And its end where the card turns out not to work: logs why, and frees what nic_begin gave. The device was released. NULL. */
struct nic *nic_refuse(struct nic *nic, size_t bytes, const char *why);

#endif
