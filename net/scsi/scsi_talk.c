/* SPDX-License-Identifier: MIT */
/* Conversations with a unit, command by command. See scsi_talk.h. */
#include "net/scsi/scsi_talk.h"

#include <string.h>

#define LOGIN_NS UINT64_C(20000000000) /* patience for a session that is to be made anew */

static bool take(struct iscsi_command *command, uint32_t offset, const void *bytes, uint32_t count)
{
    struct scsi_talk *talk = command->owner;

    if (!range_within(offset, count, command->read_bytes))
        return false;
    memcpy(talk->step.buffer + offset, bytes, count);
    return true;
}

static const void *give(struct iscsi_command *command, uint32_t offset, uint32_t *count, void *bounce, bool *stays)
{
    struct scsi_talk *talk = command->owner;
    (void)count;
    (void)stays; /* what comes next uses the same buffer, and a retransmission may come later */

    memcpy(bounce, talk->step.buffer + offset, *count);
    return bounce;
}

static const struct iscsi_data_ops data_ops = { .give = give, .take = take };

static void finish(struct scsi_talk *talk, bool lost)
{
    talk->active = false;
    talk->state = SCSI_TALK_IDLE;
    talk->over(talk, lost);
}

static void go_on(struct scsi_talk *talk, uint64_t now_ns);

static void answered(struct iscsi_command *command)
{
    struct scsi_talk *talk = command->owner;

    talk->state = SCSI_TALK_IDLE;
    if (!talk->active)
        return;
    if (command->outcome != ISCSI_ANSWERED) {
        talk->refused = command->outcome == ISCSI_FAILED || command->outcome == ISCSI_REFUSED;
        finish(talk, true);
        return;
    }
    talk->ops->answer(talk->core, command->status, command->sense, command->sense_bytes, command->transferred);
    go_on(talk, talk->session[talk->step.nexus]->now_ns);
}

static void was_reset(struct iscsi_task *task)
{
    struct scsi_talk *talk = task->owner;

    talk->state = SCSI_TALK_IDLE;
    if (!talk->active)
        return;
    if (task->lost) {
        finish(talk, true);
        return;
    }
    talk->ops->reset(talk->core, task->response == ISCSI_TASK_COMPLETE);
    go_on(talk, talk->session[talk->step.nexus]->now_ns);
}

static bool send(struct scsi_talk *talk, uint64_t now_ns)
{
    struct iscsi_command *c = &talk->command;

    *c = (struct iscsi_command){ .attribute = ISCSI_SIMPLE, .probe = true, .read_bytes = talk->step.cdb->read_bytes,
                                 .write_bytes = talk->step.cdb->write_bytes, .data = &data_ops, .done = answered, .owner = talk };
    memcpy(c->lun, talk->lun, sizeof talk->lun);
    memcpy(c->cdb, talk->step.cdb->bytes, ISCSI_CDB_BYTES);
    talk->state = SCSI_TALK_ASKED;
    return iscsi_submit(talk->session[talk->step.nexus], c, now_ns) == OK;
}

static bool reset(struct scsi_talk *talk, uint64_t now_ns)
{
    talk->task = (struct iscsi_task){ .function = ISCSI_LOGICAL_UNIT_RESET, .done = was_reset, .owner = talk };
    memcpy(talk->task.lun, talk->lun, sizeof talk->lun);
    talk->state = SCSI_TALK_RESETTING;
    return iscsi_task_submit(talk->session[talk->step.nexus], &talk->task, now_ns) == OK;
}

static void log_in(struct scsi_talk *talk, uint64_t now_ns)
{
    struct iscsi_session *session = talk->session[talk->step.nexus];

    talk->state = SCSI_TALK_LOGGING_IN;
    talk->until_ns = now_ns + LOGIN_NS;
    if (session->state == ISCSI_IDLE)
        iscsi_session_start(session, now_ns);
    else
        iscsi_session_drop(session, "its reservation is to be seen to outlive the connection", now_ns);
}

static void go_on(struct scsi_talk *talk, uint64_t now_ns)
{
    bool good = true;

    switch (talk->ops->next(talk->core, &talk->step)) {
    case SCSI_TALK_SEND:
        good = send(talk, now_ns);
        break;
    case SCSI_TALK_RESET:
        good = reset(talk, now_ns);
        break;
    case SCSI_TALK_WAIT:
        talk->state = SCSI_TALK_WAITING;
        talk->until_ns = now_ns + talk->step.delay_ns;
        break;
    case SCSI_TALK_LOGIN:
        log_in(talk, now_ns);
        break;
    case SCSI_TALK_OVER:
        finish(talk, false);
        break;
    }
    if (!good)
        finish(talk, true);
}

void scsi_talk_start(struct scsi_talk *talk, uint64_t now_ns)
{
    talk->active = true;
    talk->refused = false;
    talk->state = SCSI_TALK_IDLE;
    go_on(talk, now_ns);
}

static bool can_send(const struct iscsi_session *session)
{
    return session->state == ISCSI_PROVING || session->state == ISCSI_READY;
}

void scsi_talk_tick(struct scsi_talk *talk, uint64_t now_ns)
{
    if (!talk->active || now_ns < scsi_talk_deadline(talk))
        return;
    bool waited = talk->state == SCSI_TALK_WAITING && can_send(talk->session[talk->step.nexus]);
    talk->state = SCSI_TALK_IDLE;
    if (!waited) { /* the connection is gone, or does not come */
        finish(talk, true);
        return;
    }
    talk->ops->waited(talk->core);
    go_on(talk, now_ns);
}

uint64_t scsi_talk_deadline(const struct scsi_talk *talk)
{
    bool waits = talk->state == SCSI_TALK_WAITING || talk->state == SCSI_TALK_LOGGING_IN;

    return talk->active && waits ? talk->until_ns : UINT64_MAX;
}

void scsi_talk_logged_in(struct scsi_talk *talk, struct iscsi_session *session, uint64_t now_ns)
{
    if (!talk->active || talk->state != SCSI_TALK_LOGGING_IN || session != talk->session[talk->step.nexus])
        return;
    talk->state = SCSI_TALK_IDLE;
    talk->ops->logged_in(talk->core);
    go_on(talk, now_ns);
}

bool scsi_talk_forget(struct scsi_talk *talk)
{
    talk->active = false;
    return talk->state != SCSI_TALK_ASKED && talk->state != SCSI_TALK_RESETTING;
}
