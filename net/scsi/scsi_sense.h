/* SPDX-License-Identifier: MIT */
/*
 * Sense data (SPC-4 4.5) and what to do about how a command ended. Sense comes in two formats, fixed (70h, 71h) and
 * descriptor (72h, 73h); both become one struct. scsi_decide() turns status and sense into one of a few actions and a
 * set of news, so that nothing is swallowed: a unit attention is retried and reported, a reservation conflict is never
 * taken for a medium error, a busy target is waited for.
 *
 * Pure; any context.
 */
#ifndef NET_SCSI_SCSI_SENSE_H
#define NET_SCSI_SCSI_SENSE_H

#include "kernel/status.h"
#include "kernel/types.h"

/* SCSI status (SAM-5 5.3.1). */
enum scsi_status {
    SCSI_GOOD = 0x00,
    SCSI_CHECK_CONDITION = 0x02,
    SCSI_CONDITION_MET = 0x04,
    SCSI_BUSY = 0x08,
    SCSI_RESERVATION_CONFLICT = 0x18,
    SCSI_TASK_SET_FULL = 0x28,
    SCSI_ACA_ACTIVE = 0x30,
    SCSI_TASK_ABORTED = 0x40,
};

enum scsi_sense_key {
    SCSI_NO_SENSE = 0,
    SCSI_RECOVERED_ERROR = 1,
    SCSI_NOT_READY = 2,
    SCSI_MEDIUM_ERROR = 3,
    SCSI_HARDWARE_ERROR = 4,
    SCSI_ILLEGAL_REQUEST = 5,
    SCSI_UNIT_ATTENTION = 6,
    SCSI_DATA_PROTECT = 7,
    SCSI_BLANK_CHECK = 8,
    SCSI_VENDOR_SPECIFIC = 9,
    SCSI_COPY_ABORTED = 10,
    SCSI_ABORTED_COMMAND = 11,
    SCSI_VOLUME_OVERFLOW = 13,
    SCSI_MISCOMPARE = 14,
    SCSI_COMPLETED = 15,
};

struct scsi_sense {
    bool valid;           /* there is sense data of a known format */
    bool deferred;        /* of an earlier command */
    uint8_t key, asc, ascq;
    bool has_information; /* the first block that failed, or the offset of a miscompare */
    uint64_t information;
    bool has_field;       /* ILLEGAL REQUEST: where the fault is */
    bool field_in_cdb;
    uint16_t field_byte;
};
/* Never fails: what cannot be understood gives ->valid = false. */
void scsi_parse_sense(const uint8_t *data, size_t bytes, struct scsi_sense *sense);

/* Words for people; never NULL. */
const char *scsi_status_name(unsigned status);
const char *scsi_key_name(unsigned key);
/* The additional sense code; "" where it is not among the known ones. */
const char *scsi_sense_words(unsigned asc, unsigned ascq);
/* One line: "MEDIUM ERROR, unrecovered read error (11h/00h), at block 123". Cut to fit. */
void scsi_describe(unsigned status, const struct scsi_sense *sense, char *text, size_t bytes);

enum scsi_action {
    SCSI_DONE,        /* it was done */
    SCSI_RETRY,       /* send it again at once */
    SCSI_RETRY_LATER, /* send it again after delay_ns */
    SCSI_CONFLICT,    /* a reservation keeps this node out, or is another now: find out whether it was fenced */
    SCSI_UNSUPPORTED, /* the unit does not have this command, or not with these fields */
    SCSI_OUT_OF_SPACE, /* a thin unit has no room: the writer must be paused, not failed */
    SCSI_DIFFERS,     /* COMPARE AND WRITE: the blocks were others */
    SCSI_FAIL,        /* it cannot be done */
};

/* What else a unit has said; a set. */
enum scsi_news {
    SCSI_NEWS_RESET = 1 << 0,               /* power on or reset: caches that were not flushed may be lost */
    SCSI_NEWS_NEXUS_LOSS = 1 << 1,
    SCSI_NEWS_CAPACITY = 1 << 2,
    SCSI_NEWS_UNITS = 1 << 3,               /* REPORT LUNS has changed */
    SCSI_NEWS_INQUIRY = 1 << 4,
    SCSI_NEWS_MODE = 1 << 5,                /* mode parameters, so perhaps write protection */
    SCSI_NEWS_RESERVATION_PREEMPTED = 1 << 6,
    SCSI_NEWS_RESERVATION_RELEASED = 1 << 7,
    SCSI_NEWS_REGISTRATION_PREEMPTED = 1 << 8, /* our key is gone: this node may have been fenced */
    SCSI_NEWS_COMMANDS_CLEARED = 1 << 9,    /* commands of ours were ended by another initiator, without an answer */
    SCSI_NEWS_SPACE_LOW = 1 << 10,          /* thin provisioning threshold */
    SCSI_NEWS_ACCESS_STATE = 1 << 11,       /* asymmetric access changed */
    SCSI_NEWS_OTHER = 1 << 12,
    SCSI_NEWS_DEFERRED_ERROR = 1 << 13,     /* an earlier command that was answered GOOD has failed after all */
};

/*
 * After one of these keys, reservation or earlier commands may be gone: a command that writes is sent again only when
 * the initiator has proven anew that it may (iscsi_session_drop() leads there), whatever the action.
 */
#define SCSI_NEWS_PROVE (SCSI_NEWS_RESET | SCSI_NEWS_NEXUS_LOSS | SCSI_NEWS_RESERVATION_PREEMPTED | \
                         SCSI_NEWS_RESERVATION_RELEASED | SCSI_NEWS_REGISTRATION_PREEMPTED | \
                         SCSI_NEWS_COMMANDS_CLEARED)

struct scsi_verdict {
    enum scsi_action action;
    unsigned news;
    uint64_t delay_ns; /* SCSI_RETRY_LATER */
};
/*
 * `attempts` counts how often this command was answered before (0: never): delays double with it, from 20 ms to 2 s,
 * and an error that may pass by itself becomes SCSI_FAIL after 5. Busy, task set full, "becoming ready", a unit that is
 * not there or not on this path now, and unit attentions are retried without end: that is for the owner's time-out to
 * end, which pauses and does not fail. SCSI_DONE says nothing of the data: a read or a write is done only if all of
 * them came or were taken (iscsi_command's `complete`).
 */
struct scsi_verdict scsi_decide(unsigned status, const struct scsi_sense *sense, unsigned attempts);

#endif
