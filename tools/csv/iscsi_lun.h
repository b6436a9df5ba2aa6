/* SPDX-License-Identifier: MIT */
/*
 * A LUN behind libiscsi, for device_iscsi.c (reading and writing) and iscsi_reservation.c (who may).
 */
#ifndef TOOLS_CSV_ISCSI_LUN_H
#define TOOLS_CSV_ISCSI_LUN_H

#include <iscsi/iscsi.h>
#include <iscsi/scsi-lowlevel.h>

#include "device.h"

#define LUN_MOST_KEYS 64u

struct lun {
    struct device device;
    struct iscsi_context *context; /* NULL: not connected */
    struct iscsi_url url;
    char initiator[224];
    uint32_t isid; /* the same at each login, and for each writer of this host: the target ends what an older one left */
    uint32_t block_bytes, most_blocks, most_unmap; /* of a command */
    uint64_t blocks;
    bool no_fua, no_unmap;
    bool reserves; /* a writer: the reservation is to be held */
    bool keeps;    /* the target is asked to keep registrations over a loss of its power */
    bool lost;     /* it is no longer, or the target is gone: no more commands */
    uint64_t key;  /* that is registered now; its upper 48 bits are this host's */
    uint64_t drawn[LUN_MOST_KEYS]; /* all keys of this run so far */
    unsigned drawn_count;
    int host_lock; /* against other runs on this machine; -1: none */
    /* The command that is under way. */
    bool answered;
    int status;
    char words[256]; /* why the last one failed */
};

enum lun_result {
    LUN_GOOD,
    LUN_ATTENTION, /* something happened to the LUN: look at the reservation, then try again */
    LUN_BUSY,      /* try again later */
    LUN_CONFLICT,  /* a reservation is in the way */
    LUN_REFUSED,   /* the target will not, see lun_words() */
    LUN_GONE,      /* no connection */
};

enum lun_kind { LUN_READ, LUN_WRITE, LUN_FLUSH, LUN_UNMAP, LUN_PR_IN, LUN_PR_OUT, LUN_CAPACITY, LUN_LIMITS };

struct lun_command {
    enum lun_kind kind;
    uint64_t block;
    uint32_t count;      /* blocks; PR_IN: bytes to be answered */
    const void *bytes;   /* to be written */
    bool fua;
    bool keep;           /* PR_OUT: APTPL */
    int action, type;    /* PR_IN, PR_OUT */
    uint64_t key, action_key;
};

/*
 * Runs one command once. With LUN_GOOD *task (NULL: nobody wants it) is the caller's, to be freed. After LUN_GONE there
 * is no connection any more.
 */
enum lun_result lun_run(struct lun *l, const struct lun_command *command, struct scsi_task **task);
/* The same, again as long as the target only asks for it (busy, attention), and not the connection's loss. */
enum lun_result lun_ask(struct lun *l, const struct lun_command *command, struct scsi_task **task);
/* Takes the reservation. False: it is a stranger's, or the target has none; said. */
bool reservation_take(struct lun *l, bool take_over);
/* For a reader: false if a stranger holds one; said. */
bool reservation_absent(struct lun *l);
/* After a login or an attention: true if it is still ours, also on a new connection. False: it is lost; said. */
bool reservation_prove(struct lun *l);
/* Gives it back. False: that failed; said. */
bool reservation_release(struct lun *l);

#endif
