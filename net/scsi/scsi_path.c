/* SPDX-License-Identifier: MIT */
/* Paths that stand by. See scsi_path.h. */
#include "net/scsi/scsi_path.h"

#include <stdio.h>
#include <string.h>

#define AGAIN_NS UINT64_C(5000000000) /* until a path that could not be registered is tried once more */

/* Registered or not, the path can be used: the proof on it says whether it may. Not if the unit is another one. */
static void over(struct scsi_talk *talk, bool lost)
{
    struct scsi_path *path = talk->owner;
    const struct scsi_standby *core = &path->core;
    uint64_t now_ns = path->session->now_ns;

    path->registered = !lost && core->registered;
    path->again_ns = path->registered ? UINT64_MAX : now_ns + AGAIN_NS;
    snprintf(path->problem, sizeof path->problem, "%s", lost ? "the target does not carry out its commands" : core->why);
    if (lost ? talk->refused : core->other)
        iscsi_session_drop(path->session, path->problem, now_ns);
    else if (!lost && path->session->state == ISCSI_PROVING)
        iscsi_session_resume(path->session, now_ns);
}

void scsi_path_init(struct scsi_path *path, struct iscsi_session *session, struct scsi_disk *disk)
{
    *path = (struct scsi_path){ .session = session, .disk = disk, .again_ns = UINT64_MAX };
}

void scsi_path_prepare(struct scsi_path *path, uint64_t key, uint64_t now_ns)
{
    const struct scsi_claim *claim = path->disk->claim;

    (void)scsi_talk_forget(&path->talk); /* of an earlier connection */
    path->registered = false;
    path->again_ns = UINT64_MAX;
    path->key = key;
    path->core = (struct scsi_standby){ .identity = path->disk->info.identity, .key = key, .used = claim->key,
                                        .keep = claim->keep, .buffer = path->buffer };
    path->talk.ops = &scsi_standby_ops;
    path->talk.core = &path->core;
    path->talk.session[0] = path->session;
    memcpy(path->talk.lun, path->disk->lun, sizeof path->disk->lun);
    path->talk.over = over;
    path->talk.owner = path;
    scsi_standby_start(&path->core);
    scsi_talk_start(&path->talk, now_ns);
}

void scsi_path_again(struct scsi_path *path, uint64_t now_ns)
{
    path->again_ns = now_ns;
}

void scsi_path_forget(struct scsi_path *path)
{
    (void)scsi_talk_forget(&path->talk);
    path->registered = false;
    path->again_ns = UINT64_MAX;
}

bool scsi_path_ready(const struct scsi_path *path)
{
    const struct iscsi_session *session = path->session;

    return session->state == ISCSI_READY && !path->talk.active && !session->sent.first && !session->waiting.first;
}

enum status scsi_path_take_over(struct scsi_path *path, uint64_t now_ns)
{
    if (!scsi_path_ready(path))
        return ERR_BUSY;
    enum status status = scsi_disk_move(path->disk, path->session, now_ns);
    if (status == OK)
        scsi_path_forget(path);
    return status;
}

/* It stands by, and could be prepared. */
static bool due(const struct scsi_path *path)
{
    return scsi_path_ready(path) && path->disk->claim && !path->disk->fenced;
}

void scsi_path_tick(struct scsi_path *path, uint64_t now_ns)
{
    scsi_talk_tick(&path->talk, now_ns);
    if (due(path) && now_ns >= path->again_ns)
        scsi_path_prepare(path, path->key, now_ns);
}

uint64_t scsi_path_deadline(const struct scsi_path *path)
{
    return MIN(due(path) ? path->again_ns : UINT64_MAX, scsi_talk_deadline(&path->talk));
}
