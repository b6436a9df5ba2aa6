/* SPDX-License-Identifier: MIT */
/*
 * Private to net/storage.c, which keeps the sessions going, net/storage_orders.c, which tells of them and takes orders, and
 * net/storage_fence.c and net/storage_validate.c, which have the reservations.
 * A struct storage belongs to the service's thread, but for its queue.
 */
#ifndef NET_STORAGE_PRIVATE_H
#define NET_STORAGE_PRIVATE_H

#include "net/iscsi_tcp.h"
#include "net/storage.h"

#define STORAGE_SLOTS 128u  /* of commands: those of a disk and its probe, a power of two */
#define STORAGE_PIECES 64u  /* of memory from which is sent: 1 MiB */

struct storage {
    const struct config_storage *config;
    char problem[STORAGE_TEXT];     /* why it cannot or does not work; "" */
    bool broken;                    /* it is never logged in */
    struct iscsi_session session;
    struct iscsi_settings settings;
    struct iscsi_wishes wishes;
    struct iscsi_chap_account account;
    struct iscsi_slot slots[STORAGE_SLOTS];
    struct iscsi_tcp tcp;
    struct scsi_disk disk;
    struct scsi_disk_piece pieces[STORAGE_PIECES];
    unsigned next_portal;
    bool was_up;
    uint64_t up_since_ns;
    /* What the log was told. */
    unsigned failures;
    uint64_t said_ns;
    /* Its user. */
    struct storage_user *user;
    bool lost;
    struct disk_request *queue, **queue_end; /* under storage_lock */
    /* Its reservation; storage_fence.c. */
    uint64_t life;                  /* the key's bits but those of the path */
    struct scsi_claim claim;        /* valid while the disk has it */
    bool by_admin;                  /* it stays when the user goes */
    uint64_t epochs;                /* of claims without a record */
    struct storage_epoch epoch;
    char fenced[STORAGE_TEXT];
    struct storage_order *order;    /* under way; NULL: none */
    struct scsi_talk order_talk;
    struct scsi_reserve reserve;
    uint8_t *order_buffer;
    struct storage_validation *validation; /* under way; storage_validate.c */
    struct storage *next;
};

extern struct storage *storages;

/* storage_fence.c */
void storage_fence_set_up(struct storage *storage, const char *node);
/* A proof is due: the key is that of the present path. */
void storage_fence_prove(struct storage *storage);
void storage_fenced(void *storage, const char *why);
/* The user goes. */
void storage_fence_leave(struct storage *storage);
/* Whether an order can be given to it now (NULL: there is none of that name); else with text. */
enum status storage_may_order(const struct storage *storage, const char *name, char *text, size_t text_bytes);
/* storage_validate.c */
void storage_validation_poll(struct storage *storage, uint64_t now_ns);
uint64_t storage_validation_deadline(const struct storage *storage);
/* The member `random` of struct iscsi_ops. */
void storage_random(void *context, void *bytes, size_t count);
/* By its name; NULL: there is none. */
struct storage *storage_find(const char *name);
/* As storage_look(), at one storage; any other thread. */
void storage_look_one(const char *name);
const char *storage_state_name(const struct storage *storage);

/* What other threads have handed over goes to the disk. */
void storage_take_queue(struct storage *storage, uint64_t now_ns);

#endif
