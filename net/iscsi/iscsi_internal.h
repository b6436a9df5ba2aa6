/* SPDX-License-Identifier: MIT */
/*
 * The inside of a session, for the files iscsi_session.c (life of the connection), iscsi_receive.c (bytes to PDUs),
 * iscsi_send.c (PDUs to bytes), iscsi_task.c (commands and their data) and iscsi_other.c (all other PDUs). Owners use
 * it for its size only, and read `state`, `counts`, `parameters` and `connection`.
 *
 * Included by iscsi_session.h, and by nothing else.
 */
#ifndef NET_ISCSI_ISCSI_INTERNAL_H
#define NET_ISCSI_ISCSI_INTERNAL_H

enum iscsi_state {
    ISCSI_IDLE,
    ISCSI_WAITING,    /* for the next try */
    ISCSI_CONNECTING,
    ISCSI_LOGIN,
    ISCSI_PROVING,
    ISCSI_READY,
    ISCSI_LEAVING,    /* a logout is under way */
};

#define ISCSI_PINGS_MAX 16u /* NOP-Ins that wait for our answer */
#define ISCSI_RECEIVE_BYTES ISCSI_LOGIN_TEXT

struct iscsi_list {
    struct iscsi_command *first, *last;
};

/* The PDU that is being received. */
struct iscsi_receiver {
    enum { RX_HEADER, RX_AHS, RX_HEADER_DIGEST, RX_DATA, RX_PADDING, RX_DATA_DIGEST } stage;
    uint32_t have, need;            /* bytes of this stage */
    uint32_t crc;
    union iscsi_bhs bhs;
    uint8_t digest[ISCSI_DIGEST_BYTES];
    struct iscsi_command *command;  /* Data-In: whose data it is */
    uint32_t offset;                /* ... and where they begin */
    uint32_t kept;                  /* bytes in `data`; what is beyond its size is dropped */
    uint8_t data[ISCSI_RECEIVE_BYTES];
};

/* The PDU that is being sent. */
struct iscsi_sender {
    bool active, digest_data;
    uint8_t head[ISCSI_BHS_BYTES + ISCSI_DIGEST_BYTES], tail[3 + ISCSI_DIGEST_BYTES];
    uint32_t head_bytes, head_sent, tail_bytes, tail_sent;
    struct iscsi_command *command;  /* whose data follow, from `offset` on; or NULL: `text` */
    uint32_t offset, left;          /* data that were not asked for yet */
    const uint8_t *piece;           /* data that were, and are not sent */
    uint32_t piece_left, crc, data_bytes;
    bool piece_stays;
    const uint8_t *text;
    uint64_t position;              /* bytes of the connection that were taken by ops->send */
    uint8_t bounce[ISCSI_BOUNCE_BYTES];
};

struct iscsi_ping { /* a NOP-In to be answered */
    uint8_t lun[8];
    uint32_t ttt;
};

struct iscsi_session {
    const struct iscsi_settings *settings;
    const struct iscsi_ops *ops;
    void *context;
    struct iscsi_slot *slots;
    unsigned slot_count, slots_used, next_slot;

    enum iscsi_state state;
    uint32_t connection;        /* number of the present or last one */
    bool open;                  /* ops->connect was called: ops->close is due when it ends */
    bool connected;
    bool login_ready;           /* a Login Request is to be sent */
    uint64_t now_ns;
    unsigned depth;             /* calls of the owner that are in progress */
    bool want_stop, want_resume, want_prove;
    const char *want_drop;

    struct iscsi_parameters parameters;
    uint32_t cmd_sn, exp_cmd_sn, max_cmd_sn, exp_stat_sn;
    uint32_t own_tag;           /* last tag of a PDU that is no command: bit 31 is set in them */
    struct iscsi_list waiting, sent, finished;
    struct iscsi_command *output_first, *output_last; /* commands that owe data */
    struct iscsi_task *tasks;   /* in order, sent or not */

    struct iscsi_ping ping[ISCSI_PINGS_MAX];
    unsigned ping_first, ping_count;
    bool ping_wanted, ping_sent;
    uint32_t ping_itt;
    uint64_t heard_ns, ping_ns; /* last byte from the target; when our ping was wanted */

    bool draining;              /* no new commands: a logout is due */
    bool logout_wanted, logout_sent, stopping;
    uint32_t logout_itt;
    uint64_t drain_deadline_ns, leave_deadline_ns;

    bool text_wanted, text_sent;
    bool target_named;          /* discovery: the last TargetName was one */
    uint32_t text_itt, text_ttt;
    unsigned text_rounds;
    size_t text_count;

    uint64_t state_deadline_ns; /* of CONNECTING, LOGIN, PROVING, WAITING */
    uint64_t unusable_since_ns;
    bool progress;              /* READY, and a command was answered */
    uint32_t sent_group;        /* portal group that the last command was sent to */
    bool unanswered;            /* commands of an earlier connection may be at the target ... */
    bool strays;                /* ... and a login at another portal group has not ended them */
    bool timed_out;
    uint64_t retry_ns, wait_floor_ns; /* next back-off; the target's Time2Wait */
    unsigned moves;
    bool md5_only;               /* CHAP: SHA-256 was refused */
    struct iscsi_portal portal;  /* where to connect to now */
    uint64_t ready_since_ns;
    uint64_t acknowledged;      /* bytes of the connection that the peer's TCP has */
    struct iscsi_counts counts;
    char message[ISCSI_ERROR_TEXT + 240];

    struct iscsi_login login;
    struct iscsi_receiver rx;
    struct iscsi_sender tx;
};

/* ---- Between the files ---- */

/* iscsi_session.c */
/*
 * Ends the connection for a fault of it or of the target's. The caller must touch nothing of the connection after
 * it.
 */
void iscsi_fail(struct iscsi_session *session, enum iscsi_event_kind kind, const char *format, ...) PRINTF_LIKE(3, 4);
void iscsi_raise(struct iscsi_session *session, const struct iscsi_event *event);
void iscsi_note(struct iscsi_session *session, enum iscsi_event_kind kind, const char *text);
void iscsi_login_pdu(struct iscsi_session *session);
/* A logout is over, or need not be waited for: ends the connection, and the session if it is to stop. */
void iscsi_left(struct iscsi_session *session);
/* Stops sending commands; the logout follows when all are answered, or when half of the patience is over. */
void iscsi_leave(struct iscsi_session *session, uint64_t patience_ns);
bool iscsi_in_full_feature(const struct iscsi_session *session);

/* iscsi_receive.c */
void iscsi_receive_reset(struct iscsi_session *session);
void iscsi_receive(struct iscsi_session *session, const uint8_t *bytes, size_t count);

/* iscsi_send.c */
void iscsi_send_reset(struct iscsi_session *session);
void iscsi_send(struct iscsi_session *session);
uint32_t iscsi_own_tag(struct iscsi_session *session);

/* iscsi_task.c */
/* False: the header is wrong, and the connection was dropped. */
bool iscsi_data_in_header(struct iscsi_session *session);
void iscsi_data_in_done(struct iscsi_session *session);
void iscsi_r2t_pdu(struct iscsi_session *session);
void iscsi_response_pdu(struct iscsi_session *session);
void iscsi_task_response_pdu(struct iscsi_session *session);
bool iscsi_build_task(struct iscsi_session *session, union iscsi_bhs *bhs);
bool iscsi_build_data_out(struct iscsi_session *session, union iscsi_bhs *bhs);
bool iscsi_build_command(struct iscsi_session *session, union iscsi_bhs *bhs);
/* Takes the command out of where it is, and hands it to done() soon. */
void iscsi_finish(struct iscsi_session *session, struct iscsi_command *command, enum iscsi_outcome outcome);
struct iscsi_command *iscsi_find_command(struct iscsi_session *session, uint32_t itt);
/* After the connection is gone: sent commands go back to the front of those that wait, or end. */
void iscsi_requeue(struct iscsi_session *session);
void iscsi_abort_lun(struct iscsi_session *session, const uint8_t *lun, uint32_t before_cmd_sn, bool all);
void iscsi_list_push(struct iscsi_list *list, struct iscsi_command *command);
void iscsi_list_remove(struct iscsi_list *list, struct iscsi_command *command);

/* iscsi_other.c */
void iscsi_other_pdu(struct iscsi_session *session);
/* Takes the window that every PDU of the target carries. */
void iscsi_take_window(struct iscsi_session *session);
bool iscsi_build_other(struct iscsi_session *session, union iscsi_bhs *bhs, const void **text, uint32_t *bytes);
/* Takes the StatSN of an answer; false: it is not the one that is due, and the connection was dropped. */
bool iscsi_take_stat_sn(struct iscsi_session *session, const uint8_t *stat_sn);

#endif
