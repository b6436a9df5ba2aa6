/* SPDX-License-Identifier: MIT */
/*
 * A path to a disk's unit: a session, and what is done on it while it stands by, which is all of the time but when it is the
 * disk's (scsi_disk.session). One path is in use at a time, so writes of two never race.
 *
 * A path that stands by is logged in, has seen that the unit is the same, and has its key registered (scsi_standby.h);
 * then its session is READY and silent but for pings. When the session in use is lost, scsi_path_take_over() makes
 * the disk go on here without a login: what the lost path left under way is ended (the unit is reset where commands had no
 * answer, then its key is preempted and its commands aborted), the right to write is proven, and what had no answer is sent
 * again, in order; all this is what the disk does after a login by another portal group. The session that was lost
 * is then the one that stands by, as soon as it is logged in again.
 *
 * Only with a claim. It is by the key that what a lost path may still deliver is kept out; where this node has no reservation,
 * only a new login in the lost session's place (the same ISID, the same portal group) ends that session for certain.
 * For the same reason two paths never belong to one portal group; docs/decisions/0011-one-path-for-each-portal-group.md.
 *
 * Pure; the sessions' context. Above: net/storage_paths.c.
 */
#ifndef NET_SCSI_SCSI_PATH_H
#define NET_SCSI_SCSI_PATH_H

#include "net/scsi/scsi_disk.h"
#include "net/scsi/scsi_standby.h"

struct scsi_path {
    struct iscsi_session *session;
    struct scsi_disk *disk;
    bool registered;            /* it stands by with its key */
    char problem[200];          /* why it does not; "" */
    /* The path's own. */
    struct scsi_standby core;
    struct scsi_talk talk;
    uint64_t again_ns;          /* when it is prepared again; UINT64_MAX: not needed */
    uint64_t key;
    uint8_t buffer[SCSI_STANDBY_ROOM];
};

void scsi_path_init(struct scsi_path *path, struct iscsi_session *session, struct scsi_disk *disk);
/*
 * At ISCSI_EVENT_PROVE of a session that is not in use; the disk has a claim. `key` is this path's. It ends in READY, or in a
 * drop of the session where the unit is not the same. Allowed in callbacks of the session.
 */
void scsi_path_prepare(struct scsi_path *path, uint64_t key, uint64_t now_ns);
/* It is prepared once more, soon: a proof of the path in use has taken its key away. */
void scsi_path_again(struct scsi_path *path, uint64_t now_ns);
/* It is not used any more, or its connection is gone, or it is the one in use now. */
void scsi_path_forget(struct scsi_path *path);
/* It can take over at once. */
bool scsi_path_ready(const struct scsi_path *path);
/*
 * The disk, whose session has no connection to the target now, goes on by this path. ISCSI_EVENT_PROVE of this one's session
 * is raised from within: the owner counts it as the one in use before. ERR_BUSY: not now. Not in callbacks.
 */
enum status scsi_path_take_over(struct scsi_path *path, uint64_t now_ns) MUST_CHECK;
void scsi_path_tick(struct scsi_path *path, uint64_t now_ns);
/* When to call scsi_path_tick() at the latest; UINT64_MAX: never. */
uint64_t scsi_path_deadline(const struct scsi_path *path);

#endif
