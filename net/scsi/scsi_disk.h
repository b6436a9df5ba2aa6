/* SPDX-License-Identifier: MIT */
/*
 * A disk: one logical unit behind an iSCSI session. Requests of any size become SCSI commands as the unit wants them; how
 * each command ended is decided here (net/scsi/scsi_sense.h), so that a request ends as it was wished, or by an error of
 * the medium itself, and never because the way to the unit was lost: then it waits, as long as it takes. Who asked finds out
 * by scsi_disk_oldest_ns() that it takes long.
 *
 * The proof. After each login the owner calls scsi_disk_prove(): the unit is asked what it is, how large, what it can, and
 * who reserves it. It must be the unit that it was, not smaller, and nobody else's; only then ops->proved() tells the owner
 * that commands may flow (iscsi_session_resume). Else ops->drop() says what is wrong: the session is to be dropped and tried
 * again later (iscsi_session_drop).
 *
 * The claim. Who has reserved the unit says so by scsi_disk_claim(). From then on the look is followed by the proof that this
 * node may still write (scsi_proof.h), after each login, and so after all news of SCSI_NEWS_PROVE, for which the session is
 * dropped. A request has the epoch in which it was submitted, and its commands are sent in that epoch only. Where the proof
 * says that this node was fenced, all requests end as ERR_FENCED, those to come too, and no command of before is ever sent
 * again; that is for good, until the next scsi_disk_claim().
 *
 * Without a claim a reserved unit is looked at and not written: where requests wait the session is dropped and tried again.
 *
 * A command without an answer for long (scsi_disk_slow) is aborted; where the target does not do that, the unit is reset;
 * where it does not do that either, the session is dropped. Each leads to the command being sent again, and each makes sure
 * before that it does not land twice.
 *
 *   - Data of a request are asked from, and given to, the request's owner by offset. What is read goes there as it comes.
 *     What is written is copied once, into pieces of memory that the owner of the disk has lent (scsi_disk_lend), and sent
 *     from there: whoever changes his memory meanwhile changes neither a digest nor what is sent again. Where no piece is
 *     free it is copied once more.
 *   - A flush covers what was answered before it was submitted; FUA is the unit's where it has that, else a flush behind.
 *   - Discards are UNMAP, or nothing. Zeroes are WRITE SAME, or written where the unit cannot do that.
 *   - A command that the session has given up (logout by the admin, a reset of the unit) is submitted again.
 *   - After scsi_disk_cancel() no request is touched any more; what the unit still has of them is waited for in silence.
 *
 * Pure: nothing is allocated, time is the session's or an argument. One context, the session's; callbacks may call
 * scsi_disk_submit(). Above: the node's storages (net/storage.c); below: net/iscsi.
 */
#ifndef NET_SCSI_SCSI_DISK_H
#define NET_SCSI_SCSI_DISK_H

#include "net/iscsi/iscsi_session.h"
#include "net/scsi/scsi_proof.h"
#include "net/scsi/scsi_reserve.h"
#include "net/scsi/scsi_sense.h"

#define SCSI_DISK_COMMANDS 64u /* outstanding at once */
#define SCSI_DISK_TEXT 240u
#define SCSI_DISK_ANSWER 8192u /* bytes of a probe's answer; of the proof's buffer */

enum disk_op { DISK_READ, DISK_WRITE, DISK_FLUSH, DISK_DISCARD, DISK_WRITE_ZEROES };

/* The caller's, until done(). */
struct disk_request {
    enum disk_op op;
    bool fua;                /* WRITE, WRITE_ZEROES: durable when it is answered */
    uint64_t offset, bytes;  /* multiples of the block size; 0 for FLUSH */
    /*
     * WRITE: copies `count` bytes from `at` bytes into the request; READ: the other way. False: that memory cannot be
     * had; the request fails.
     */
    bool (*get)(struct disk_request *request, uint64_t at, void *bytes, uint32_t count);
    bool (*put)(struct disk_request *request, uint64_t at, const void *bytes, uint32_t count);
    /* OK; ERR_IO: the unit cannot do it; ERR_FENCED: another node has fenced this one; ERR_RANGE, ERR_INVALID, ERR_READ_ONLY: it is none for this disk. */
    void (*done)(struct disk_request *request, enum status status);
    void *owner;
    /* The disk's. */
    struct disk_request *next, *previous;
    uint64_t issued, submitted_ns, epoch;
    unsigned outstanding;
    bool flushing;
    enum status status;
};

/* What the unit said of itself. */
struct scsi_disk_info {
    bool known;              /* it was proven once; else what stands below is for people only */
    uint64_t bytes;
    uint32_t block_bytes, physical_block_bytes;
    bool read_only, thin, fua, has_cache_control, can_unmap, can_write_same;
    bool same_may_unmap;     /* WRITE SAME of zeroes may give the blocks back */
    uint32_t transfer_max_blocks, unmap_max_blocks, same_max_blocks; /* of one command; not 0 once it is known */
    char vendor[9], product[17], revision[5];
    char identity[SCSI_NAME_BYTES];
    struct scsi_holding holding; /* of keys and the reservation; of when it was looked at last */
};

struct scsi_disk;
struct scsi_disk_ops {
    void (*proved)(void *context);
    /* The session is to be dropped, so that it is made and proven anew; why, valid until the next call. */
    void (*drop)(void *context, const char *why);
    /* What the unit has reported (a set of enum scsi_news); 0: what went wrong with a command. */
    void (*news)(void *context, unsigned news, const char *text);
    /* This node was fenced, by whom info.holding says; called before the requests are ended. NULL where nothing is claimed. */
    void (*fenced)(void *context, const char *why);
};

#define SCSI_DISK_PIECE_BYTES ISCSI_BOUNCE_BYTES
struct scsi_disk_piece {
    uint8_t *memory;        /* SCSI_DISK_PIECE_BYTES; the owner's */
    uint32_t offset, count; /* what it has of a command's data */
    struct scsi_disk_piece *next;
};

struct scsi_disk_command {
    struct iscsi_command iscsi;
    struct scsi_disk *disk;
    struct scsi_disk_command *next; /* of those that are free */
    struct disk_request *request;   /* NULL: it was cancelled */
    enum { SCSI_DISK_DATA, SCSI_DISK_ZEROES, SCSI_DISK_LIST } kind; /* what it gives */
    bool busy, held;
    uint64_t offset, bytes;       /* of the request */
    uint64_t retry_ns;            /* held: when it is sent again; UINT64_MAX: when the session is there */
    unsigned attempts;
    struct scsi_disk_piece *pieces; /* of its data, the last first */
    uint8_t list[SCSI_UNMAP_LIST_BYTES(1)];
};

struct scsi_disk {
    struct iscsi_session *session;
    const struct scsi_disk_ops *ops;
    void *context;
    uint8_t lun[8];
    struct scsi_disk_info info;
    struct disk_request *first, *last, *issuing; /* all, by age; the first that is not issued as a whole */
    struct scsi_disk_command command[SCSI_DISK_COMMANDS];
    unsigned busy, held;         /* how many of command[] are */
    struct scsi_disk_command *free_commands;
    struct scsi_disk_piece *free_pieces;
    /* The proof under way. */
    struct scsi_disk_command probe;
    unsigned step;
    bool proving;
    struct scsi_disk_info found;
    struct scsi_page_set pages;
    uint8_t answer[SCSI_DISK_ANSWER];
    struct scsi_talk talk;       /* of the look at the reservation, then of the proof */
    struct scsi_reserve look;
    const struct scsi_claim *claim; /* NULL: none */
    struct scsi_proof proof;
    bool fenced;
    uint64_t discarded;          /* requests that a fence has ended */
    char text[SCSI_DISK_TEXT];
    /* The abort or the reset under way. */
    struct iscsi_task task;
    bool task_busy, reset_before_proof;
    uint64_t task_deadline_ns;
    /* For `disk list` and tests. */
    uint64_t reads, writes, flushes, retries, errors;
};

/* `lun` below 16384. The session must outlive it. */
void scsi_disk_init(struct scsi_disk *disk, struct iscsi_session *session, unsigned lun, const struct scsi_disk_ops *ops,
                    void *context);
/* Lends a piece, whose memory is set; for as long as there is the disk. */
void scsi_disk_lend(struct scsi_disk *disk, struct scsi_disk_piece *piece);
/*
 * At ISCSI_EVENT_PROVE. `strays`: its code was ISCSI_PROVE_STRAYS, so copies of earlier commands may still land; the unit is
 * reset before anything else. Allowed in callbacks of the session.
 */
void scsi_disk_prove(struct scsi_disk *disk, bool strays, uint64_t now_ns);
/* At ISCSI_EVENT_SLOW. Likewise. */
void scsi_disk_slow(struct scsi_disk *disk, struct iscsi_command *command, uint64_t now_ns);
/* At ISCSI_EVENT_READY: what was held for want of a session goes out. Likewise. */
void scsi_disk_ready(struct scsi_disk *disk, uint64_t now_ns);
/*
 * The disk goes on by another session, with the same unit, as iscsi_session_take_over() says, whose ISCSI_EVENT_PROVE is raised
 * from within. Not in callbacks.
 */
enum status scsi_disk_move(struct scsi_disk *disk, struct iscsi_session *to, uint64_t now_ns) MUST_CHECK;
/* Only once info.known; done() may be called from within. */
void scsi_disk_submit(struct scsi_disk *disk, struct disk_request *request, uint64_t now_ns);
/*
 * Sets what is to be proven (it must stay; it may be the same one, changed), or NULL. The caller has just taken the
 * reservation on this session, or begins a new epoch: no request is under way. A proof that is under way begins anew.
 */
void scsi_disk_claim(struct scsi_disk *disk, const struct scsi_claim *claim, uint64_t now_ns);
/* Ends all requests as ERR_CANCELLED, now. */
void scsi_disk_cancel(struct scsi_disk *disk, uint64_t now_ns);
/* The member may_send of struct iscsi_ops: what was cancelled is not sent again. */
bool scsi_disk_may_send(const struct iscsi_command *command);
/* When the oldest request that has no answer was submitted; UINT64_MAX: there is none. */
uint64_t scsi_disk_oldest_ns(const struct scsi_disk *disk);
void scsi_disk_tick(struct scsi_disk *disk, uint64_t now_ns);
/* When to call scsi_disk_tick() at the latest; UINT64_MAX: never. */
uint64_t scsi_disk_deadline(const struct scsi_disk *disk);

/* Between the files: scsi_probe.c, scsi_recover.c. */
void scsi_probe_start(struct scsi_disk *disk);
void scsi_disk_fence(struct scsi_disk *disk, const char *why);

#endif
