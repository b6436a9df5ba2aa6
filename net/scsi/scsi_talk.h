/* SPDX-License-Identifier: MIT */
/*
 * What carries out a conversation with a logical unit: a core (a proof, an order about the reservation, a validation) says
 * what is next, one command at a time; this sends it on a session, and brings the core the answer. Commands go as probes
 * (iscsi_command.probe): also while the session is proving, and never twice. Where one is not answered, the conversation
 * ends as lost; whoever began it begins another one.
 *
 * Pure, as the session is; the session's context. Above net/iscsi; used by the disk and by the node's storages.
 */
#ifndef NET_SCSI_SCSI_TALK_H
#define NET_SCSI_SCSI_TALK_H

#include "net/iscsi/iscsi_session.h"
#include "net/scsi/scsi_cdb.h"

enum scsi_talk_action {
    SCSI_TALK_SEND,  /* the step's command */
    SCSI_TALK_RESET, /* LOGICAL UNIT RESET */
    SCSI_TALK_WAIT,  /* for delay_ns */
    SCSI_TALK_LOGIN, /* the step's session is dropped, or started; goes on when it may send again */
    SCSI_TALK_OVER,
};

struct scsi_talk_step {
    const struct scsi_cdb *cdb;
    uint8_t *buffer;     /* data of the command; enough for what the CDB says */
    uint64_t delay_ns;
    unsigned nexus;      /* which of the sessions; 0 for who has one only */
};

struct scsi_talk_ops {
    enum scsi_talk_action (*next)(void *core, struct scsi_talk_step *step);
    void (*answer)(void *core, unsigned status, const uint8_t *sense, size_t sense_bytes, uint32_t transferred);
    void (*reset)(void *core, bool done);
    void (*waited)(void *core);
    void (*logged_in)(void *core); /* NULL where SCSI_TALK_LOGIN is never said */
};

#define SCSI_TALK_SESSIONS 2u

struct scsi_talk {
    const struct scsi_talk_ops *ops;
    void *core;
    struct iscsi_session *session[SCSI_TALK_SESSIONS];
    uint8_t lun[8];
    /* The core has nothing more to ask (`lost` false), or a command got no answer. In a callback of the session, or in a tick. */
    void (*over)(struct scsi_talk *talk, bool lost);
    void *owner;
    /* The conversation's own. */
    bool active, refused; /* refused: ended as lost, and yet the connection is there */
    struct scsi_talk_step step;
    enum { SCSI_TALK_IDLE, SCSI_TALK_ASKED, SCSI_TALK_RESETTING, SCSI_TALK_WAITING, SCSI_TALK_LOGGING_IN } state;
    struct iscsi_command command;
    struct iscsi_task task;
    uint64_t until_ns;
};

/*
 * Begins; what stands before "The conversation's own" is set, and no earlier one is active. over() may be called from
 * within. Allowed in callbacks of the session.
 */
void scsi_talk_start(struct scsi_talk *talk, uint64_t now_ns);
void scsi_talk_tick(struct scsi_talk *talk, uint64_t now_ns);
/* When to call scsi_talk_tick() at the latest; UINT64_MAX: never. */
uint64_t scsi_talk_deadline(const struct scsi_talk *talk);
/* The session of SCSI_TALK_LOGIN may send: ISCSI_EVENT_PROVE has come, or _READY. Others are ignored. */
void scsi_talk_logged_in(struct scsi_talk *talk, struct iscsi_session *session, uint64_t now_ns);
/*
 * Ends it as lost if it waits for time or for a login; a command under way ends by itself. Without over(). True: nothing of
 * it is under way any more.
 */
bool scsi_talk_forget(struct scsi_talk *talk);

#endif
