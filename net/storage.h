/* SPDX-License-Identifier: MIT */
/*
 * The node's storages: for each [storage NAME] of the configuration a session with its target, further ones that stand by where
 * it has portals of several groups and this node has the disk reserved (net/scsi/scsi_path.h), and the disk behind it. They
 * belong to the network service's thread; what others ask of them goes there by net_call(), requests by a queue.
 *
 * A disk has one user at a time, a VM. Its requests wait as long as the storage is away; the user is told when that takes
 * longer than the storage's timeout (`lost`), and when it is over (`back`), so that it can stand still meanwhile.
 *
 * A node's reservation key is made of its name, the initiator's and the storage's (so of what the configuration gives it as
 * its identity), of a number drawn at boot, and of the target's portal group (net/scsi/scsi_reserve.h). A volume takes the
 * reservation before its first write; an admin may take one for a disk without a volume. From then on each login is followed
 * by the proof that this node may still write (net/scsi/scsi_proof.h). A node that was fenced ends the user's requests as
 * ERR_FENCED, and tells him by `fenced`, which `back` never follows: he closes the storage, and may open it again.
 */
#ifndef NET_STORAGE_H
#define NET_STORAGE_H

#include "net/scsi/scsi_disk.h"
#include "net/scsi/scsi_validate.h"
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

/* One portal of a storage. */
struct storage_path_info {
    char portal[64];
    const char *state;              /* "in use", "stands by", "takes turns", or how far its session is */
    bool known_group;
    unsigned group;                 /* of its session's last login */
    uint64_t since_ns;              /* its session is up since; 0: it is not */
    uint64_t logins;
    char problem[STORAGE_TEXT];     /* why it does not stand by; "" */
};

struct storage_info {
    const char *name, *target;
    unsigned lun;
    const char *state;              /* "up", or how far it is */
    char problem[STORAGE_TEXT];     /* why it is not up; "": nothing to say */
    char portal[64];                /* in use, or tried last */
    unsigned portal_count;
    struct storage_path_info path[CONFIG_MAX_PORTALS]; /* in the order of the configuration */
    unsigned chap;                  /* 0 none, 1 one way, 2 both ways */
    bool header_digest, data_digest;
    uint64_t since_ns;              /* host time at which it came up; 0: it is not */
    uint64_t logins, retried, received_bytes, sent_bytes; /* of all its sessions */
    struct scsi_disk_info disk;
    uint64_t reads, writes, flushes, errors, waiting_ns; /* waiting_ns: age of the oldest request; 0: none */
    char user[CONFIG_MAX_NAME_BYTES + 1];                /* the VM or volume that has it; "": nobody */
    bool reserved;                  /* by this node, `key` */
    uint64_t key;                   /* of this node on its present path */
    char fenced[STORAGE_TEXT];      /* by whom, and what became of the requests; "": it was not */
};
/* Storage number i, in the order of the configuration; false behind the last. */
bool storage_info_get(unsigned i, struct storage_info *info);

/* Logs in again, now; logs out until the next login. With text where it fails. */
enum status storage_login(const char *name, char *text, size_t text_bytes) MUST_CHECK;
enum status storage_logout(const char *name, char *text, size_t text_bytes) MUST_CHECK;
/*
 * The reservation, for an admin: takes it, `take_over`: also from strangers; gives it back; with text either way. ERR_BUSY:
 * a stranger has it, or a key, or a user needs it; ERR_UNSUPPORTED: the target has none; ERR_IO, ERR_TIMEOUT: not
 * now, the disk is not there or another order is under way.
 */
enum status storage_reserve(const char *name, bool take_over, char *text, size_t text_bytes) MUST_CHECK;
enum status storage_release(const char *name, char *text, size_t text_bytes) MUST_CHECK;
/*
 * Validates the disk with a second session of that initiator name (NULL: this node's, with ".validate" behind it): `force` of
 * *core is set, the rest is the result. OK: it was tried, core->fit and core->why say how that
 * ended; else with text. ERR_BUSY: somebody uses it.
 */
enum status storage_validate(const char *name, const char *initiator, struct scsi_validate *core, char *text,
                             size_t text_bytes) MUST_CHECK;
/* Looks who has keys and reservations, so that storage_info_get() tells what is so now. Where it cannot, it does not. */
void storage_look(void);
/* Logs out everywhere, for the node goes down; waits for it a few seconds at most. */
void storage_stop(void);

/* ---- Users of disks ---- */

struct storage_user {
    char name[CONFIG_MAX_NAME_BYTES + 1];
    /* In the service's thread. `why` is for people. */
    void (*lost)(struct storage_user *user, const char *why);
    void (*back)(struct storage_user *user);
    void (*fenced)(struct storage_user *user, const char *why); /* NULL: `lost` is called */
    void (*grown)(struct storage_user *user, uint64_t bytes); /* the disk is that large now; NULL: he need not know */
    bool reserves; /* he takes the reservation himself before he writes; else a reserved disk is refused */
};
/* The storage is configured, can work and is logged in or tries to, and its disk is not known yet. */
bool storage_will_come(const char *name);
/*
 * Takes the storage for `user`, which stays until storage_close. ERR_NOT_FOUND, ERR_BUSY (somebody has it), ERR_IO (its disk
 * is not known yet: *text says why).
 */
enum status storage_open(const char *name, struct storage_user *user, struct storage **storage, struct scsi_disk_info *info,
                         char *text, size_t text_bytes) MUST_CHECK;
/*
 * The reservation, for a user: before his first write, and after his last one. As storage_reserve(); *key is what is
 * registered, *taken_over whether a stranger's was preempted.
 */
enum status storage_take(struct storage *storage, bool take_over, uint64_t *key, bool *taken_over, char *text,
                         size_t text_bytes) MUST_CHECK;
enum status storage_give_back(struct storage *storage) MUST_CHECK;
/*
 * The record on the disk that says whose its content is. From now on it is a part of each proof, and a reservation that the
 * target forgets is taken again where the record and the target say that nobody else has come. The user's, until
 * storage_close(); nothing of him is under way.
 */
struct storage_epoch {
    uint64_t offset, bytes, epoch;  /* bytes: at most 8192; both multiples of the block size */
    uint8_t uuid[16];               /* for read() */
    /* Finds the epoch in the record; false: it is none. In the service's thread. */
    bool (*read)(const uint8_t uuid[16], const uint8_t *bytes, uint64_t *epoch);
};
void storage_set_epoch(struct storage *storage, const struct storage_epoch *epoch);
/* Ends what is left of the user's requests as ERR_CANCELLED; afterwards nothing of his is touched. */
void storage_cancel(struct storage *storage);
/* The same, and gives the storage back. A reservation that was not given back stays at the target. */
void storage_close(struct storage *storage);
/* Hands a request over; done() is called in the service's thread. No wait; under the machine's device lock too. */
void storage_submit(struct storage *storage, struct disk_request *request);

#endif
