/* SPDX-License-Identifier: MIT */
/*
 * The node's storages: for each [storage NAME] of the configuration a session with its target, and the disk behind it. They
 * belong to the network service's thread; what others ask of them goes there by net_call(), requests by a queue.
 *
 * A disk has one user at a time, a VM. Its requests wait as long as the storage is away; the user is told when that takes
 * longer than the storage's timeout (`lost`), and when it is over (`back`), so that it can stand still meanwhile.
 */
#ifndef NET_STORAGE_H
#define NET_STORAGE_H

#include "net/scsi/scsi_disk.h"
#include "vm/config.h"

#define STORAGE_TEXT 240

struct storage;

/* ---- The service's thread ---- */

/* Once, when there is a network. */
void storage_set_up(const struct config *config);
/* Once a round. */
void storage_poll(uint64_t now_ns);
/* When to call it at the latest; UINT64_MAX: never. */
uint64_t storage_deadline(void);

/* ---- Any other thread ---- */

/* What is configured, whether there is a network or not. Boot, before net_start. */
void storage_configure(const struct config *config);

struct storage_info {
    const char *name, *target;
    unsigned lun;
    const char *state;              /* "up", or how far it is */
    char problem[STORAGE_TEXT];     /* why it is not up; "": nothing to say */
    char portal[64];                /* in use, or tried last */
    unsigned portal_count;
    unsigned chap;                  /* 0 none, 1 one way, 2 both ways */
    bool header_digest, data_digest;
    uint64_t since_ns;              /* host time at which it came up; 0: it is not */
    uint64_t logins, retried, received_bytes, sent_bytes;
    struct scsi_disk_info disk;
    uint64_t reads, writes, flushes, errors, waiting_ns; /* waiting_ns: age of the oldest request; 0: none */
    char user[CONFIG_MAX_NAME_BYTES + 1];                /* the VM that has it; "": nobody */
};
/* Storage number i, in the order of the configuration; false behind the last. */
bool storage_info_get(unsigned i, struct storage_info *info);

/* Logs in again, now; logs out until the next login. With text where it fails. */
enum status storage_login(const char *name, char *text, size_t text_bytes) MUST_CHECK;
enum status storage_logout(const char *name, char *text, size_t text_bytes) MUST_CHECK;
/* Logs out everywhere, for the node goes down; waits for it a few seconds at most. */
void storage_stop(void);

/* ---- Users of disks ---- */

struct storage_user {
    char name[CONFIG_MAX_NAME_BYTES + 1];
    /* In the service's thread. `why` is for people. */
    void (*lost)(struct storage_user *user, const char *why);
    void (*back)(struct storage_user *user);
};
/* The storage is configured, can work and is logged in or tries to, and its disk is not known yet. */
bool storage_will_come(const char *name);
/*
 * Takes the storage for `user`, which stays until storage_close. ERR_NOT_FOUND, ERR_BUSY (somebody has it), ERR_IO (its disk
 * is not known yet: *text says why).
 */
enum status storage_open(const char *name, struct storage_user *user, struct storage **storage, struct scsi_disk_info *info,
                         char *text, size_t text_bytes) MUST_CHECK;
/* Ends what is left of the user's requests as ERR_CANCELLED; afterwards nothing of his is touched. */
void storage_cancel(struct storage *storage);
/* The same, and gives the storage back. */
void storage_close(struct storage *storage);
/* Hands a request over; done() is called in the service's thread. No wait; under the machine's device lock too. */
void storage_submit(struct storage *storage, struct disk_request *request);

#endif
