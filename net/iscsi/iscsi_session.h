/* SPDX-License-Identifier: MIT */
/*
 * An iSCSI session of one connection (RFC 7143), as a pure state machine: the owner feeds it with what happened
 * (connected, bytes came, there is room to send, closed, time passed), and it calls the owner's `iscsi_ops` with what
 * is to be done. Time is an argument (monotonic ns). Nothing is allocated: the session is one structure, tags live in a
 * table that the owner gives, commands and task requests are the callers' own structures.
 *
 * What it promises
 *   - A lost, stuck or corrupted connection is not an error of a command. Error recovery level 0: anything wrong with
 *     the connection (a protocol error, a wrong digest, silence) drops it, is reported once, and the session is rebuilt
 *     with back-off. Commands that have no answer wait, in order, and are sent again.
 *   - Before anything that waited goes out again, the owner proves that it may still write: after a login the session
 *     is in ISCSI_PROVING, where only commands marked `probe` and task requests are sent. iscsi_session_resume() ends
 *     that; it asks ops->may_send() for each command that waits, and what may not be sent is ended as ISCSI_STALE. How
 *     to prove it: net/scsi/scsi_proof.h.
 *   - A command's buffers are touched only between iscsi_submit() and its done(). An abort ends a command only when the
 *     target has confirmed it, or when the connection is gone and no byte of it is read any more. A tag is not used
 *     again on a connection within 2^31 / slot_count uses of its slot.
 *   - After `timeout_ns` without a usable session ISCSI_EVENT_TIMED_OUT is raised once (the owner pauses VMs); commands
 *     wait on. ISCSI_EVENT_READY ends it.
 *   - Whatever the target sends, only this session suffers.
 *
 * States
 *   IDLE -> CONNECTING -> LOGIN -> PROVING -> READY -> (LEAVING) -> IDLE;   from any of them, on failure, -> WAITING ->
 *   CONNECTING. `start` leaves IDLE, `stop` leads to it. A discovery session goes LOGIN -> READY without proving, asks
 *   for SendTargets, reports what it hears, and stops.
 *
 * Several paths
 *   A session is one path, and one of them is used at a time: writes of two paths would race each other. The others stand
 *   by: logged in, READY, with nothing to do. A layer above chooses, and has a registered key for each path. When the
 *   path in use is lost, iscsi_session_take_over() moves its commands, in their order, to a session that stands by, and
 *   asks for the proof there (ISCSI_EVENT_PROVE), as after a login: nothing but probes goes out before the copies on the lost
 *   path can land no more. Where commands had no answer the code is ISCSI_PROVE_STRAYS: the unit is reset, and the lost
 *   path's key preempted and its commands aborted. What the lost path may have left behind is from then on the matter of the
 *   session that took over, also if that one is lost before it was proven. iscsi_withdraw() takes back single commands.
 *
 * Context: one; no call may be made while another is in progress, except from the callbacks: there iscsi_submit(),
 * iscsi_task_submit() and the session_* calls that say so may be called, and act when the outer call ends.
 *
 * The owner is glue (TCP by lwIP in the hypervisor, a socket pump in tests); above are net/scsi and the disk.
 */
#ifndef NET_ISCSI_ISCSI_SESSION_H
#define NET_ISCSI_ISCSI_SESSION_H

#include "net/iscsi/iscsi_login.h"

struct iscsi_session;
struct iscsi_command;

/* ---- Commands ---- */

#define ISCSI_SENSE_MAX 252u
#define ISCSI_COMMAND_R2TS 8u   /* outstanding R2Ts of a command: the most that is offered */
#define ISCSI_COMMAND_PIECES 16u /* separate pieces of data that came, or were asked for, where any order is agreed */
#define ISCSI_CDB_BYTES 16u

enum iscsi_attribute { ISCSI_UNTAGGED = 0, ISCSI_SIMPLE = 1, ISCSI_ORDERED = 2, ISCSI_HEAD_OF_QUEUE = 3,
                       ISCSI_ACA = 4 };

/* How a command ended. */
enum iscsi_outcome {
    ISCSI_ANSWERED,  /* `status`, sense and residual are the target's */
    ISCSI_FAILED,    /* the target could not do it, or not to the end: `response` (11.4.3) is not 0 */
    ISCSI_STALE,     /* waited, and may_send() said no: never sent since */
    ISCSI_ABORTED,   /* a task request ended it: it has no effect any more from now on */
    ISCSI_LOST,      /* a probe or a cancelled command: the connection went; it may have been done and may still be */
    ISCSI_REFUSED,   /* the target rejected its PDU three times */
    ISCSI_STOPPED,   /* the session was stopped; as LOST if it was sent */
};
const char *iscsi_outcome_words(enum iscsi_outcome outcome);

/*
 * Where a command's data are. Offsets are in the command's data, never beyond its length.
 *   give: bytes of a write at `offset`, at most *count (1 or more; set to how many are given, 1 or more). Either a
 *     pointer to them, unchanged until done(), with *stays set, or they are copied to `bounce` (room for *count), which
 *     is returned. NULL: they cannot be had any more (the session then drops the connection and ends the command as
 *     LOST).
 *   take: bytes of a read. False: they cannot be put there (as above).
 */
struct iscsi_data_ops {
    const void *(*give)(struct iscsi_command *command, uint32_t offset, uint32_t *count, void *bounce, bool *stays);
    bool (*take)(struct iscsi_command *command, uint32_t offset, const void *bytes, uint32_t count);
};

struct iscsi_piece {
    uint32_t start, end;
};
struct iscsi_r2t_state {
    uint32_t ttt, offset, bytes, sent, data_sn;
};

struct iscsi_command {
    /*
     * The caller's: set before iscsi_submit(), unchanged until done(). The rest must be zero before the first
     * submit.
     */
    uint8_t lun[8], cdb[ISCSI_CDB_BYTES];
    enum iscsi_attribute attribute;
    /*
     * Is sent while proving, and never sent again: ends as ISCSI_LOST where the connection goes. Also for what must not
     * be done twice, whatever the state: COMPARE AND WRITE, PERSISTENT RESERVE OUT.
     */
    bool probe;
    uint32_t read_bytes, write_bytes; /* at most one of them is not 0 (no bidirectional commands) */
    const struct iscsi_data_ops *data;
    void (*done)(struct iscsi_command *command); /* the command is the caller's again; may submit it anew */
    void *owner;
    uint64_t epoch;            /* for may_send() */

    /* The result, when done() is called. */
    enum iscsi_outcome outcome;
    uint8_t status, response;  /* SCSI status (SAM-5 5.3.1); iSCSI response */
    bool overflow, underflow;
    /*
     * All of its data came, or were taken. A status that is no error (GOOD with a residual, RECOVERED ERROR, ...) does
     * not say that: a read or a write is done only with this set. Commands with room for an answer look at
     * `transferred`.
     */
    bool complete;
    uint32_t residual;
    uint32_t transferred;      /* bytes of data that came or were sent */
    uint8_t sense[ISCSI_SENSE_MAX];
    uint16_t sense_bytes;
    bool was_sent;             /* its PDU went out at least once (in part or whole), on any connection */

    /* The session's. */
    struct iscsi_command *next, *previous, *output_next;
    enum { ISCSI_COMMAND_FREE, ISCSI_COMMAND_WAITING, ISCSI_COMMAND_SENT, ISCSI_COMMAND_FINISHED } place;
    bool cancelled, has_output, answered, told_slow, refused_now;
    uint8_t refusals;
    uint32_t itt, cmd_sn, next_data_sn, next_r2t_sn, next_offset, unsolicited_left, unsolicited_offset, unsolicited_sn;
    uint32_t r2t_count, piece_count;
    struct iscsi_r2t_state r2t[ISCSI_COMMAND_R2TS];
    struct iscsi_piece piece[ISCSI_COMMAND_PIECES];
    uint64_t sent_ns, referenced_until;
};

/* A task management function request (11.5). The caller's own; unchanged until done(). */
struct iscsi_task {
    enum iscsi_task_function function; /* TASK REASSIGN is not offered: it needs error recovery level 2 */
    uint8_t lun[8];                    /* not for target resets */
    struct iscsi_command *command;     /* ABORT TASK: which one */
    void (*done)(struct iscsi_task *task);
    void *owner;
    /* The result: the target's answer, or `lost`: the connection went before it came. */
    uint8_t response;
    bool lost;
    /* The session's. */
    struct iscsi_task *next;
    bool sent, finished;
    uint32_t itt, cmd_sn;
    uint64_t sent_ns;
};

/* ---- The owner's side ---- */

struct iscsi_vec {
    const void *bytes;
    size_t count;
    bool stays; /* may be referred to until it is acknowledged (iscsi_session_acknowledged); else copy it now */
};

enum iscsi_event_kind {
    ISCSI_EVENT_PROVE,     /* logged in: prove, then iscsi_session_resume() or _drop(); code: enum iscsi_prove_code */
    ISCSI_EVENT_READY,     /* commands flow */
    ISCSI_EVENT_DOWN,      /* the connection is gone or was not made; text; it is tried again at retry_ns */
    ISCSI_EVENT_REFUSED,   /* as DOWN, but a change is needed here or on the target before it can work */
    ISCSI_EVENT_TIMED_OUT, /* `timeout_ns` without a usable session: one that is READY, and answers or lasts */
    ISCSI_EVENT_STOPPED,   /* IDLE again: after stop, or after a discovery */
    ISCSI_EVENT_MOVED,     /* the target's answer sends us to `portal`; text says whether for good */
    ISCSI_EVENT_ASYNC,     /* code (enum iscsi_async_event), lun, sense, vendor; text */
    ISCSI_EVENT_SLOW,      /* `command` has no answer after slow_ns, or could not be sent for so long as the target's
                              window is shut; raised once for each time it is sent or begins to wait */
    ISCSI_EVENT_TARGET,    /* discovery: text is a target's name */
    ISCSI_EVENT_ADDRESS,   /* discovery: portal of the target named last */
    ISCSI_EVENT_IGNORED,   /* discovery: text, as it came, stands where a name or an address should, and is none; what
                              follows such a name is nobody's, and not told */
};
/*
 * Code of ISCSI_EVENT_PROVE. A login ends the session that the target still has of the same initiator name, ISID and
 * portal group, and its tasks with it (6.3.5), so no earlier copy of a command lands any more. A login at another
 * portal group (after a redirection, or at another address behind the same name) does not: with ISCSI_PROVE_STRAYS the
 * proof must end them first (PREEMPT AND ABORT of this path's key, or a reset of the logical unit), as it is said under
 * "Several paths". It stays until iscsi_session_resume().
 */
enum iscsi_prove_code { ISCSI_PROVE_PLAIN, ISCSI_PROVE_STRAYS };

struct iscsi_event {
    enum iscsi_event_kind kind;
    const char *text;      /* what happened, for people: cause and cure; or "" */
    uint64_t retry_ns;
    unsigned code, vendor;
    const uint8_t *lun, *sense;
    size_t sense_bytes;
    const struct iscsi_portal *portal;
    struct iscsi_command *command;
};

struct iscsi_ops {
    /* Begins to connect; answered by iscsi_session_connected() or _closed() with that connection number. */
    void (*connect)(void *context, uint32_t connection, const struct iscsi_portal *portal);
    /*
     * Takes bytes in order, as many as there is room for, and returns how many (0: none; iscsi_session_writable() is
     * called when there is room again). Bytes that do not stay are copied before it returns.
     */
    size_t (*send)(void *context, uint32_t connection, const struct iscsi_vec *vec, unsigned count);
    /* Ends it at once (a reset). Nothing refers to bytes of ours afterwards; no answer is needed. */
    void (*close)(void *context, uint32_t connection);
    void (*event)(void *context, const struct iscsi_event *event);
    /*
     * Whether a command may still be sent: asked of all that wait when the session becomes READY, and of each again
     * when it goes out, never of a probe. Calls nothing of the session. NULL: always.
     */
    bool (*may_send)(void *context, const struct iscsi_command *command);
    /* Random bytes fit for secrets. */
    void (*random)(void *context, void *bytes, size_t count);
};

struct iscsi_settings {
    struct iscsi_login_setup login;
    struct iscsi_portal portal;
    bool prove;                    /* stop in ISCSI_PROVING after each login */
    uint64_t connect_ns, login_ns; /* patience for the connection, for the whole login, and for proving */
    uint64_t prove_ns;
    uint64_t idle_ns, answer_ns;   /* a ping after so much silence; the connection is lost after so much more */
    uint64_t slow_ns;              /* ISCSI_EVENT_SLOW; 0: never */
    uint64_t timeout_ns;           /* ISCSI_EVENT_TIMED_OUT */
    uint64_t retry_first_ns, retry_last_ns; /* back-off: doubles from one to the other */
    uint64_t leave_ns;             /* patience for a logout */
    uint32_t first_cmd_sn;
};
/* Times: connect 10 s, login 15 s, prove 20 s, idle 5 s, answer 5 s, slow 20 s, timeout 60 s, retry 0.1 to 5 s. */
void iscsi_settings_default(struct iscsi_settings *settings);

struct iscsi_slot {
    struct iscsi_command *command;
    uint32_t itt;
};
#define ISCSI_BOUNCE_BYTES 16384u

/* Counters for `iscsi list` and tests. */
struct iscsi_counts {
    uint64_t logins, drops, pdus_in, pdus_out, bytes_in, bytes_out, commands, retried, pings;
};

#include "net/iscsi/iscsi_internal.h"

/* ---- The session ---- */

/* `settings`, `ops` and what they point to, and `slots` (a power of two, 1 to 4096, of them) must outlive it. */
void iscsi_session_init(struct iscsi_session *session, const struct iscsi_settings *settings,
                        const struct iscsi_ops *ops,
                        void *context, struct iscsi_slot *slots, unsigned slot_count);

void iscsi_session_start(struct iscsi_session *session, uint64_t now_ns);
/* Logs out where there is a session, and ends all commands as ISCSI_STOPPED. Allowed in callbacks. */
void iscsi_session_stop(struct iscsi_session *session, uint64_t now_ns);
/* What was to be proven is: commands flow again. Only in ISCSI_PROVING. Allowed in callbacks. */
void iscsi_session_resume(struct iscsi_session *session, uint64_t now_ns);
/*
 * Drops the connection for a reason of the owner's (the proof failed, the path is bad) and tries again later. Allowed
 * in callbacks. `why` must stay until the call, or the outer one, returns.
 */
void iscsi_session_drop(struct iscsi_session *session, const char *why, uint64_t now_ns);

/* Queues a command; done() is called later, never from within. Allowed in callbacks. ERR_INVALID: both directions have
 * bytes, or the session is IDLE or stopping. ERR_BUSY: it is queued already. (done() is not called then.) */
enum status iscsi_submit(struct iscsi_session *session, struct iscsi_command *command, uint64_t now_ns) MUST_CHECK;
/*
 * Queues a task request; it goes out before all commands. A command that was not sent is aborted at once. ERR_BUSY:
 * there is no connection to send it on, or it is queued already. ERR_NOT_FOUND: the command is not in this session.
 * Allowed in callbacks.
 */
enum status iscsi_task_submit(struct iscsi_session *session, struct iscsi_task *task, uint64_t now_ns) MUST_CHECK;
/*
 * Takes back a command of a session that has no use of it now (ISCSI_WAITING, ISCSI_CONNECTING, ISCSI_LOGIN) without a
 * call of done(); command->was_sent says whether a copy of it may be at the target. ERR_BUSY: it is in use.
 */
enum status iscsi_withdraw(struct iscsi_session *session, struct iscsi_command *command) MUST_CHECK;

/*
 * `to`, which is READY and has nothing to do, takes the place of `from`, which has no use of its commands now (as for
 * iscsi_withdraw): they wait in `to`, in order, which becomes PROVING and raises ISCSI_EVENT_PROVE. The time without a usable
 * session goes on. Probes stay where they are. ERR_BUSY: one of them is in another state, or in a call; nothing has changed.
 * Not in callbacks of either.
 */
enum status iscsi_session_take_over(struct iscsi_session *to, struct iscsi_session *from, uint64_t now_ns) MUST_CHECK;

/* What happened; calls with the number of an earlier connection do nothing. */
void iscsi_session_connected(struct iscsi_session *session, uint32_t connection, uint64_t now_ns);
/*
 * Bytes came. `more`: others came with them, and the next call has them: nothing that these lead to is handed out or sent
 * before that, so that it is done once.
 */
void iscsi_session_received(struct iscsi_session *session, uint32_t connection, const void *bytes, size_t count,
                            bool more, uint64_t now_ns);
void iscsi_session_writable(struct iscsi_session *session, uint32_t connection, uint64_t now_ns);
/*
 * The peer's TCP has acknowledged `total` bytes of this connection in all. Only where bytes that stay are referred
 * to.
 */
void iscsi_session_acknowledged(struct iscsi_session *session, uint32_t connection, uint64_t total, uint64_t now_ns);
/* The connection ended or was not made; `why` in words. */
void iscsi_session_closed(struct iscsi_session *session, uint32_t connection, const char *why, uint64_t now_ns);
void iscsi_session_tick(struct iscsi_session *session, uint64_t now_ns);
/* When to call iscsi_session_tick() at the latest; UINT64_MAX: never. */
uint64_t iscsi_session_deadline(const struct iscsi_session *session);

const char *iscsi_state_name(enum iscsi_state state);

#endif
