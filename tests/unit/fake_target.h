/* SPDX-License-Identifier: MIT */
/*
 * An iSCSI target in memory, written from RFC 7143, with a RAM disk behind it: what the initiator is tested against. It
 * judges every PDU that it gets (numbers, lengths, bits, digests, tags, bursts, windows) and notes what is wrong, so a
 * test asks for `complaints == 0`. It can also be told to misbehave: `mangle` sees each PDU before it goes out, and the
 * bench cuts, delays and corrupts the stream.
 *
 * `struct bench` is the world around one session and one target: connections, a clock, chunks of any size both ways.
 */
#ifndef TESTS_UNIT_FAKE_TARGET_H
#define TESTS_UNIT_FAKE_TARGET_H

#include "net/iscsi/iscsi_session.h"

#define FAKE_DISK_BYTES (1u << 20)
#define FAKE_TASKS 64u
#define FAKE_STREAM_BYTES (1u << 20)
#define FAKE_R2TS 16u

struct fake_target;
struct fake_unit;
struct fake_task;

/* What it wants of the negotiation, and how it behaves. */
struct fake_target_manners {
    struct iscsi_parameters want;     /* header_digest..max_outstanding_r2t: its side of each key */
    const struct iscsi_chap_account *chap; /* asks for CHAP with this account (secret: the initiator's) */
    unsigned chap_algorithm;          /* what it chooses; 0: the first that is offered */
    bool chap_no_sha;                 /* takes 7 for something else, as tgt does */
    bool chap_skip_proof, chap_reflect; /* mutual: leaves its proof out; sends the initiator's answer back */
    unsigned login_status;            /* answers the first login requests of `login_refusals` connections with it */
    unsigned login_refusals, portal_group, logout_wait;
    const char *moved_to;             /* TargetAddress of a redirection */
    unsigned login_chunk;             /* text of a login answer in pieces of so many bytes (C bit); 0: whole */
    const char *login_extra;          /* pairs, each ended by NUL, that it adds to its first operational answer */
    size_t login_extra_bytes;
    uint32_t first_stat_sn, window;   /* commands beyond ExpCmdSN that it takes */
    uint32_t r2t_bytes, data_in_bytes; /* most it asks for at once, most it puts into a Data-In; 0: as negotiated */
    bool reverse;                     /* R2Ts and Data-Ins in descending order, where the negotiation allows it */
    bool status_apart;                /* a SCSI Response for reads, too */
    bool hold;                        /* commands are not answered before fake_target_release() */
    bool mute;                        /* nothing is answered at all */
    bool refuse_tasks;                /* task management: function rejected */
    enum { FAKE_PLAIN, FAKE_LOSE, FAKE_SWAP } trouble; /* one PDU of the full feature phase never goes out, or after the next */
    unsigned trouble_at;              /* which one, from 1 on */
    void (*mangle)(struct fake_target *target, union iscsi_bhs *bhs, uint8_t *data, uint32_t *bytes);
    void (*scsi)(struct fake_target *target, struct fake_task *task); /* carries commands out */
    const char *targets;              /* answer to SendTargets: pairs, each ended by NUL */
    size_t targets_bytes, text_chunk;
};

struct fake_r2t {
    uint32_t ttt, offset, bytes, got, data_sn;
};
struct fake_task {
    bool active, done, held;
    uint32_t itt, cmd_sn, expected, got, unsolicited_left, unsolicited_offset, unsolicited_sn, asked;
    uint8_t lun[8], cdb[16], flags;
    uint8_t *data;
    uint32_t r2t_sn;
    unsigned r2t_count;
    struct fake_r2t r2t[FAKE_R2TS];
};

struct fake_target {
    struct fake_target_manners manners;
    uint8_t disk[FAKE_DISK_BYTES];
    unsigned complaints;
    char complaint[200];               /* the first one */
    /* The connection. */
    bool connected, full, closing;
    uint8_t *in;                       /* FAKE_STREAM_BYTES each, given by the owner */
    size_t in_count;
    uint8_t *out;
    size_t out_count, out_taken;
    struct iscsi_parameters agreed;
    unsigned stage, chap_step;
    char text[ISCSI_LOGIN_TEXT];
    size_t text_count, text_sent;
    unsigned text_flags;
    uint8_t identifier, challenge[16], their_challenge[64], their_identifier, their_answer[32];
    size_t their_challenge_bytes, their_answer_bytes;
    unsigned algorithm;
    bool discovery, extra_sent;
    uint32_t stat_sn, cmd_sn, ttt;
    uint8_t isid[6];
    struct fake_task task[FAKE_TASKS];
    /* Counted over all connections. */
    unsigned full_pdus;                /* sent in the full feature phase */
    uint8_t *swapped;                  /* the PDU that waits for the next one */
    size_t swapped_bytes;
    unsigned logins, pdus_in, pdus_out, commands, pings_answered, nop_ins, unsolicited_pdus, r2ts, tasks_seen, logouts;
    unsigned immediate_bytes, most_outstanding, challenges;
    void *test;
    struct fake_unit *unit;            /* executes the commands, as nexus 0; NULL: a plain disk of its own */
};

/* On memory that is all zero but for the streams. */
void fake_target_init(struct fake_target *target);
void fake_target_connect(struct fake_target *target);
void fake_target_disconnect(struct fake_target *target);
void fake_target_input(struct fake_target *target, const uint8_t *bytes, size_t count);
/* Puts a PDU of the test's own into the stream: numbers are filled in where `numbers`; digests always. */
void fake_target_send(struct fake_target *target, union iscsi_bhs *bhs, const void *data, uint32_t bytes, bool stat_sn);
/* A command's end: its status with sense data (18 bytes, or NULL), or GOOD with `count` bytes of a read's data. */
void fake_target_status(struct fake_target *target, struct fake_task *task, uint8_t status, const uint8_t *sense);
void fake_target_data(struct fake_target *target, struct fake_task *task, const uint8_t *bytes, uint32_t count);
/* Answers what was held, last first if `backwards`. */
void fake_target_release(struct fake_target *target, bool backwards);
/* Asks for an answer. */
void fake_target_ping(struct fake_target *target);

/* In fake_target_login.c */
void fake_target_login(struct fake_target *target, const union iscsi_bhs *bhs, const uint8_t *data, uint32_t bytes);
void fake_target_complain(struct fake_target *target, const char *format, ...) PRINTF_LIKE(2, 3);

/* ---- The bench ---- */

struct bench;
#define BENCH_COMMANDS 64u
#define BENCH_EVENTS 256u

struct bench_command {
    struct iscsi_command command;
    uint8_t *buffer;
    unsigned done_count;
    bool stays;       /* its data may be referred to */
    struct bench *bench;
    void (*then)(struct bench_command *command);
};

struct bench {
    struct iscsi_session session;
    struct iscsi_settings settings;
    struct iscsi_wishes wishes;
    struct iscsi_slot slots[32];
    struct fake_target target;
    uint64_t now_ns;
    uint32_t connection;
    bool connect_asked, up, absent;      /* absent: connections are not answered */
    size_t in_chunk, out_chunk;          /* sizes of pieces both ways; 0: as large as can be */
    uint64_t in_total, out_total;        /* bytes of this connection, to and from the initiator */
    uint64_t cut_in, cut_out;            /* the connection ends after so many; 0: never. Once. */
    uint64_t flip_in;                    /* this byte to the initiator (from 1 on) is flipped. Once. */
    uint8_t *pending;                    /* from the initiator, not yet at the target */
    size_t pending_count, room;          /* room: the most that may be pending */
    bool freeze_out;                     /* nothing gets to the target */
    uint64_t stall_in, stall_ns;         /* after so many bytes to the initiator nothing comes for this time. Once. */
    uint64_t stalled_until;
    struct bench_command command[BENCH_COMMANDS];
    enum iscsi_event_kind event[BENCH_EVENTS];
    unsigned event_count;
    char text[400];                      /* of the last event with words */
    unsigned prove_calls, prove_code;
    bool auto_resume, refuse_stale;
    void (*on_prove)(struct bench *bench); /* in place of auto_resume */
    bool (*may_send)(struct bench *bench, const struct iscsi_command *command); /* in place of refuse_stale */
    bool probes, stays;                  /* what is submitted next is a probe; has data that may be referred to */
    uint64_t epoch;
    unsigned async_code;
    char found[512];                     /* discovery: what was reported */
    void (*on_event)(struct bench *bench, const struct iscsi_event *event); /* after all of these; NULL: nothing more */
};

/* A bench with a session that is ready to start, default wishes and manners. One at a time; free with bench_free(). */
struct bench *bench_new(void);
void bench_free(struct bench *bench);
void bench_start(struct bench *bench);
/* Moves bytes until nothing moves any more; no time passes. */
void bench_settle(struct bench *bench);
/* Lets time pass, in steps of the session's deadlines. */
void bench_pass(struct bench *bench, uint64_t ns);
/* The server end closes. */
void bench_cut(struct bench *bench);
/* Submits READ (16) or WRITE (16) of 512-byte blocks with a buffer of their own. */
struct bench_command *bench_read(struct bench *bench, unsigned index, uint32_t block, uint32_t blocks);
struct bench_command *bench_write(struct bench *bench, unsigned index, uint32_t block, uint32_t blocks, uint8_t seed);
unsigned bench_events(const struct bench *bench, enum iscsi_event_kind kind);
/* The byte that bench_write puts at `offset`. */
uint8_t bench_byte(uint8_t seed, uint32_t offset);
/* All commands that were submitted are done. */
bool bench_idle(const struct bench *bench);
/* Moves bytes, and where nothing moves lets time pass, until that is so; false: 200 s were not enough. */
bool bench_run(struct bench *bench);

#endif
