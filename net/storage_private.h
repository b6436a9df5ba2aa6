/* SPDX-License-Identifier: MIT */
/*
 * Private to net/storage.c, which keeps the session in use going, net/storage_paths.c, which has those that stand by,
 * net/storage_orders.c, which tells of them and takes orders, and
 * net/storage_fence.c and net/storage_validate.c, which have the reservations.
 * A struct storage belongs to the service's thread, but for its queue.
 */
#ifndef NET_STORAGE_PRIVATE_H
#define NET_STORAGE_PRIVATE_H

#include "net/iscsi_tcp.h"
#include "net/scsi/scsi_path.h"
#include "net/storage.h"

#define STORAGE_SLOTS 128u  /* of commands: those of a disk and its probe, a power of two */
#define STORAGE_PIECES 64u  /* of memory from which is sent: 1 MiB */

/*
 * A session, and which portals it uses. In callbacks of the session the context is the path. `path` is its part while it is not
 * the one in use.
 */
struct storage_path {
    struct storage *storage;
    unsigned number;                /* in storage->path[]; makes its ISID */
    struct iscsi_session session;
    struct iscsi_settings settings; /* its portal is that of the next try */
    struct iscsi_slot slots[STORAGE_SLOTS];
    struct iscsi_tcp tcp;
    struct scsi_path path;
    unsigned portal, next_portal;   /* connected to or tried last; of the next try */
    uint64_t up_since_ns;
    char problem[STORAGE_TEXT];     /* while it is not in use: why it cannot stand by; "" */
};

struct storage {
    const struct config_storage *config;
    char problem[STORAGE_TEXT];     /* why it cannot or does not work; "" */
    bool broken;                    /* it is never logged in */
    struct iscsi_wishes wishes;
    struct iscsi_chap_account account;
    struct storage_path *active;    /* the one in use: the disk's session */
    struct storage_path *path[CONFIG_MAX_PORTALS]; /* all; the first is `first` */
    unsigned path_count;            /* 1 where there is one portal */
    bool split;                     /* each portal is one path's: owner[] says whose; else all are the active one's, in turn */
    bool moved;                     /* the path in use stood by, and is not proven yet */
    bool single;                    /* no path is to stand by: the reservation is being given back */
    uint8_t owner[CONFIG_MAX_PORTALS];
    struct storage_path first;
    struct scsi_disk disk;
    struct scsi_disk_piece pieces[STORAGE_PIECES];
    bool was_up;
    /* What the log was told. */
    unsigned failures;
    uint64_t said_ns;
    /* Its user. */
    struct storage_user *user;
    uint64_t user_bytes;            /* the size of the disk, as far as he knows */
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

/* storage_paths.c */
/* Of the configured portals, none of which is used yet; s->settings of the first path is complete but for its portal. */
void storage_paths_set_up(struct storage *storage, const struct iscsi_ops *ops);
/* A session that is not in use says something. */
void storage_path_event(struct storage_path *path, const struct iscsi_event *event);
/* The member `connect` of struct iscsi_ops: also chooses the portal of the next try. */
void storage_path_connect(void *path, uint32_t connection, const struct iscsi_portal *portal);
/* The path in use was proven: the keys of the others may be gone. */
void storage_paths_proven(struct storage *storage);
/* The path in use has logged in, at whatever portal group. */
void storage_paths_logged_in(struct storage_path *path);
void storage_paths_poll(struct storage *storage, uint64_t now_ns);
uint64_t storage_paths_deadline(const struct storage *storage);
/* No path stands by until the next claim. True: none does any more. */
bool storage_paths_end(struct storage *storage);
/* Row i of *info is about portal i. */
void storage_paths_info(const struct storage *storage, struct storage_info *info);

/* storage_fence.c */
/* The disk has moved to another path: an order of the one that was lost is over. */
void storage_fence_moved(struct storage *storage);
/* What the key's last bits are on a path that is logged in. */
uint64_t storage_fence_key(const struct storage_path *path);
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
const char *storage_session_name(const struct iscsi_session *session);
/* The address and port of a portal, IPv6 in brackets; "": it is none. */
void storage_portal_text(const struct iscsi_portal *portal, char *text, size_t text_bytes);
/* The portal of that number in the configuration. */
void storage_portal(const struct storage *storage, unsigned number, struct iscsi_portal *portal);

/* What other threads have handed over goes to the disk. */
void storage_take_queue(struct storage *storage, uint64_t now_ns);

#endif
