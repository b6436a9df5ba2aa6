/* SPDX-License-Identifier: MIT */
/*
 * What the programs against a real target share: a tgtd that is started on a port and a control socket of its own and
 * ended by its process id, and a session with nothing around it but a socket pump. One of each; a failed assertion ends
 * the test that called.
 */
#ifndef TESTS_DIFFERENTIAL_ISCSI_PUMP_H
#define TESTS_DIFFERENTIAL_ISCSI_PUMP_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "net/iscsi/iscsi_session.h"
#include "net/scsi/scsi_cdb.h"

#define SECOND UINT64_C(1000000000)
#define TARGET "iqn.2026-11.example:disk"
#define DISK_BYTES (32u << 20)
#define DEPTH 24u
#define COMMAND_BYTES (320u * 1024)

extern char disk_file[64]; /* behind logical unit 1 */

/* `chap`: 0 none, 1 one way, 2 both ways. */
void target_start(unsigned chap);
/* A key of the target's sessions from now on. */
void target_set(const char *key, const char *value);
void target_kill(void);

struct request {
    struct iscsi_command command;
    uint8_t *data; /* COMMAND_BYTES */
    unsigned attempts;
    bool busy, good;
    void (*then)(struct request *request); /* a probe, whose end is its owner's matter */
};

extern struct pump {
    struct iscsi_session session;
    struct iscsi_settings settings;
    struct iscsi_wishes wishes;
    struct iscsi_slot slots[32];
    struct iscsi_chap_account account;
    struct request request[DEPTH];
    int fd, port;
    uint32_t connection;
    bool connecting, blocked, say, refused;
    unsigned busy, proofs, attentions;
    void (*prove)(unsigned code); /* in place of going on at once; set after pump_begin() */
    bool (*may_send)(const struct iscsi_command *command);
    uint64_t epoch;               /* of what is submitted */
    char text[400], found[1024];
} pump;

uint64_t pump_now(void);
/* Starts a session. */
void pump_begin(unsigned chap, enum iscsi_digest_wish header, enum iscsi_digest_wish data, bool discovery);
/* Waits for something to happen, at most `most` ns. */
void pump_once(uint64_t most);
void pump_until(enum iscsi_state state);
/* Until the target, or we, have refused with MD5 too. */
void pump_until_refused(void);
void pump_finish(void);

struct request *pump_submit(const struct scsi_cdb *cdb, struct request *request);
/* A request that is free. A write that was not done is found by its request's next user, or by pump_drain(). */
struct request *pump_idle(void);
void pump_drain(void);
/* Does one command. */
struct request *pump_command(const struct scsi_cdb *cdb);

/* Of a group of tests. */
int pump_set_up(void **state);
int pump_tear_down(void **state);

#endif
