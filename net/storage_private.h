/* SPDX-License-Identifier: MIT */
/*
 * Private to net/storage.c, which keeps the sessions going, and net/storage_orders.c, which tells of them and takes orders.
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
    struct storage *next;
};

extern struct storage *storages;

/* What other threads have handed over goes to the disk. */
void storage_take_queue(struct storage *storage, uint64_t now_ns);

#endif
