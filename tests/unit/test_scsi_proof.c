/* SPDX-License-Identifier: MIT */
/*
 * The proof against a unit with persistent reservations: each verdict, each way to be refused, each answer cut or
 * wrong; then every interleaving of a node that comes back, one that fences it, and losses of power; then the whole of
 * it under a session, where a node that was fenced and healed must not write what it had queued.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "fake_target.h"
#include "fake_unit.h"
#include "kernel/bytes.h"
#include "net/scsi/scsi_proof.h"
#include "net/scsi/scsi_sense.h"

#define SECOND UINT64_C(1000000000)
#define RECORD 16u /* block of the epoch */
#define DATA 40u   /* block of the data */
#define KEY_A 0xa000000000000001u
#define KEY_B 0xb000000000000002u
#define RO SCSI_PR_WRITE_EXCLUSIVE_REGISTRANTS

static uint8_t disk[64 * 512];

static void put_epoch(uint8_t *to, uint64_t epoch)
{
    memcpy(to + RECORD * 512, "EPOCHREC", 8);
    be64_put(to + RECORD * 512 + 8, epoch);
}

static bool read_epoch(const struct scsi_claim *claim, const uint8_t *bytes, size_t count, uint64_t *epoch)
{
    (void)claim;
    if (count < 16 || memcmp(bytes, "EPOCHREC", 8))
        return false;
    *epoch = be64_get(bytes + 8);
    return true;
}

static struct scsi_claim claim_of(uint64_t key, uint64_t epoch)
{
    return (struct scsi_claim){ .key = key, .type = RO, .epoch = epoch, .block = RECORD, .blocks = 1,
                                .block_bytes = 512, .read_epoch = read_epoch };
}

/* A unit whose nexus 0 is registered and holds the reservation, in epoch 5. */
static struct fake_unit ours(void)
{
    struct fake_unit u = { .disk = disk, .disk_bytes = sizeof(disk), .held = true, .type = RO, .generation = 3 };
    memset(disk, 0, sizeof(disk));
    put_epoch(disk, 5);
    u.key[0] = KEY_A;
    return u;
}

static uint8_t buffer[SCSI_PROOF_ROOM_MIN];

/* One step: the command is executed, or the wait is over. `cut`: so many bytes of the answer get lost. */
static void step(struct scsi_proof *proof, struct fake_unit *unit, unsigned nexus, uint32_t cut)
{
    uint8_t sense[18] = { 0 }, answer[4096];
    uint32_t bytes;
    switch (scsi_proof_next(proof)) {
    case SCSI_PROOF_SEND: {
        assert_true(!proof->cdb.read_bytes || !proof->cdb.write_bytes);
        assert_true(proof->cdb.read_bytes <= proof->room && proof->cdb.write_bytes <= proof->room);
        unsigned status = fake_unit_execute(unit, nexus, proof->cdb.bytes, proof->buffer, proof->cdb.write_bytes,
                                            answer, proof->cdb.read_bytes, &bytes, sense);
        memset(proof->buffer, 0xee, proof->room);
        bytes -= MIN(bytes, cut);
        memcpy(proof->buffer, answer, bytes);
        scsi_proof_answer(proof, status, sense, status == SCSI_CHECK_CONDITION ? 18 : 0,
                          proof->cdb.write_bytes ? proof->cdb.write_bytes : bytes);
        break;
    }
    case SCSI_PROOF_WAIT:
        assert_true(proof->delay_ns > 0 && proof->delay_ns <= 2 * SECOND);
        scsi_proof_waited(proof);
        break;
    case SCSI_PROOF_RESET:
        scsi_proof_reset(proof, true);
        break;
    case SCSI_PROOF_OVER:
        break;
    }
}

static enum scsi_proof_verdict prove(struct scsi_proof *proof, const struct scsi_claim *claim, struct fake_unit *unit)
{
    scsi_proof_start(proof, claim, buffer, sizeof(buffer), false);
    for (unsigned i = 0; i < 2000 && scsi_proof_next(proof) != SCSI_PROOF_OVER; i++)
        step(proof, unit, 0, 0);
    assert_int_not_equal(proof->verdict, SCSI_PROOF_PENDING);
    assert_int_equal(proof->verdict == SCSI_PROOF_HOLDS, !proof->why[0]);
    return proof->verdict;
}

static void it_holds(void **state)
{
    struct scsi_claim claim = claim_of(KEY_A, 5);
    struct scsi_proof proof;
    struct fake_unit u = ours();
    (void)state;
    assert_int_equal(prove(&proof, &claim, &u), SCSI_PROOF_HOLDS);
    assert_int_equal(u.commands, 4);
    assert_int_equal(u.writes, 0);
    assert_int_equal(proof.generation, 3);
    assert_true(scsi_proof_allows(&proof, 5));
    assert_false(scsi_proof_allows(&proof, 4)); /* of an earlier life */
    assert_false(scsi_proof_allows(&proof, 6));
    u.key[1] = KEY_B; /* others are there, one of them holds the reservation */
    u.holder = 1;
    assert_int_equal(prove(&proof, &claim, &u), SCSI_PROOF_HOLDS);
    u.type = claim.type = SCSI_PR_WRITE_EXCLUSIVE_ALL;
    assert_int_equal(prove(&proof, &claim, &u), SCSI_PROOF_HOLDS);
    claim.key = 0; /* a target without reservations: the epoch is all there is */
    u.no_reservations = true;
    assert_int_equal(prove(&proof, &claim, &u), SCSI_PROOF_HOLDS);
    claim = claim_of(KEY_A, 0); /* no volume yet */
    claim.blocks = 0;
    u = ours();
    assert_int_equal(prove(&proof, &claim, &u), SCSI_PROOF_HOLDS);
    assert_int_equal(u.commands, 3);
    claim.key = 0;
    assert_int_equal(prove(&proof, &claim, &u), SCSI_PROOF_UNSURE);
    claim = claim_of(KEY_A, 5);
    claim.blocks = 9;
    assert_int_equal(prove(&proof, &claim, &u), SCSI_PROOF_UNSURE);
    assert_non_null(strstr(proof.why, "too small"));
}

static void fences_are_seen(void **state)
{
    struct scsi_claim claim = claim_of(KEY_A, 5);
    struct scsi_proof proof;
    struct fake_unit u = ours();
    (void)state;
    u.key[0] = 0; /* preempted */
    u.key[1] = KEY_B;
    u.holder = 1;
    assert_int_equal(prove(&proof, &claim, &u), SCSI_PROOF_FENCED);
    assert_non_null(strstr(proof.why, "0xa000000000000001 is not registered"));
    assert_false(scsi_proof_allows(&proof, 5));
    claim.restore = true; /* changes nothing: somebody is registered */
    assert_int_equal(prove(&proof, &claim, &u), SCSI_PROOF_FENCED);
    assert_int_equal(u.key[0], 0);

    u = ours(); /* the key is there, another one has the volume */
    put_epoch(disk, 6);
    assert_int_equal(prove(&proof, &claim, &u), SCSI_PROOF_FENCED);
    assert_non_null(strstr(proof.why, "epoch is 6"));
    assert_int_equal(proof.found_epoch, 6);
    put_epoch(disk, 4); /* an older one is as wrong */
    assert_int_equal(prove(&proof, &claim, &u), SCSI_PROOF_FENCED);

    u = ours(); /* not even reading is allowed */
    u.type = claim.type = SCSI_PR_EXCLUSIVE_ACCESS_REGISTRANTS;
    u.key[0] = 0;
    u.key[1] = KEY_B;
    u.holder = 1;
    assert_int_equal(prove(&proof, &claim, &u), SCSI_PROOF_FENCED);
    u.key[2] = KEY_A; /* the key is there, on another nexus */
    assert_int_equal(prove(&proof, &claim, &u), SCSI_PROOF_UNPROTECTED);
    assert_non_null(strstr(proof.why, "not on this path"));
    claim.restore = true; /* the other one may have preempted it */
    assert_int_equal(prove(&proof, &claim, &u), SCSI_PROOF_UNPROTECTED);
    u.key[1] = 0; /* nobody else: a target that knows us by another name now */
    u.holder = 2;
    assert_int_equal(prove(&proof, &claim, &u), SCSI_PROOF_HOLDS);
    assert_true(proof.restored && u.key[0] == KEY_A);
    claim.restore = false;
    u = ours();
    u.key[2] = KEY_A;
    u.key[0] = 0;
    u.holder = 2;
    claim.type = RO;
    assert_int_equal(prove(&proof, &claim, &u), SCSI_PROOF_UNPROTECTED);
    claim.restore = true;
    put_epoch(disk, 6); /* what is registered anew is judged by the epoch */
    assert_int_equal(prove(&proof, &claim, &u), SCSI_PROOF_FENCED);
    claim.restore = false;
    claim.type = RO; /* the record was refused once, and then all looks well: it is read before anything else */
    u = ours();
    put_epoch(disk, 6);
    scsi_proof_start(&proof, &claim, buffer, sizeof(buffer), false);
    scsi_proof_answer(&proof, SCSI_RESERVATION_CONFLICT, NULL, 0, 0);
    for (unsigned i = 0; i < 20; i++)
        step(&proof, &u, 0, 0);
    assert_int_equal(proof.verdict, SCSI_PROOF_FENCED);
    u = ours(); /* one alone may write, and it is not this node */
    u.type = claim.type = SCSI_PR_WRITE_EXCLUSIVE;
    u.key[1] = KEY_B;
    u.holder = 1;
    assert_int_equal(prove(&proof, &claim, &u), SCSI_PROOF_FENCED);
    u.holder = 0;
    assert_int_equal(prove(&proof, &claim, &u), SCSI_PROOF_HOLDS);
}

static void protection_is_asked_for(void **state)
{
    struct scsi_claim claim = claim_of(KEY_A, 5);
    struct scsi_proof proof;
    struct fake_unit u = ours();
    (void)state;
    u.held = false;
    assert_int_equal(prove(&proof, &claim, &u), SCSI_PROOF_UNPROTECTED);
    claim.restore = true;
    u.key[1] = KEY_B; /* somebody else is there: it is not for us to reserve */
    assert_int_equal(prove(&proof, &claim, &u), SCSI_PROOF_UNPROTECTED);
    u.key[1] = 0;
    assert_int_equal(prove(&proof, &claim, &u), SCSI_PROOF_HOLDS);
    assert_true(proof.restored && u.held && u.type == RO);
    u = ours();
    u.type = SCSI_PR_EXCLUSIVE_ACCESS_ALL;
    assert_int_equal(prove(&proof, &claim, &u), SCSI_PROOF_UNPROTECTED);
    assert_non_null(strstr(proof.why, "exclusive access, all registrants"));
    u = ours();
    u.no_reservations = true;
    assert_int_equal(prove(&proof, &claim, &u), SCSI_PROOF_UNPROTECTED);
    assert_non_null(strstr(proof.why, "no persistent reservations"));
    claim = claim_of(0, 5); /* reserved by a stranger, and we use none */
    u = ours();
    u.key[0] = 0;
    u.key[1] = KEY_B;
    u.holder = 1;
    u.type = SCSI_PR_EXCLUSIVE_ACCESS;
    assert_int_equal(prove(&proof, &claim, &u), SCSI_PROOF_UNPROTECTED);
}

static void keys_that_the_target_forgot(void **state)
{
    struct scsi_claim claim = claim_of(KEY_A, 5);
    struct scsi_proof proof;
    struct fake_unit u = ours();
    (void)state;
    fake_unit_power_loss(&u);
    assert_int_equal(prove(&proof, &claim, &u), SCSI_PROOF_FENCED);
    assert_non_null(strstr(proof.why, "forgotten"));
    assert_true(proof.news & SCSI_NEWS_RESET);
    claim.restore = claim.keep = true;
    assert_int_equal(prove(&proof, &claim, &u), SCSI_PROOF_HOLDS);
    assert_true(proof.restored && u.held && u.type == RO && u.key[0] == KEY_A && u.keeps);
    fake_unit_power_loss(&u); /* now it keeps them; the generation begins anew */
    assert_int_equal(prove(&proof, &claim, &u), SCSI_PROOF_HOLDS);
    assert_false(proof.restored);
    u = ours(); /* fenced, then the keys were forgotten: the epoch remembers */
    put_epoch(disk, 6);
    fake_unit_power_loss(&u);
    assert_int_equal(prove(&proof, &claim, &u), SCSI_PROOF_FENCED);
    assert_int_equal(u.key[0], 0);
    for (unsigned first = 0; first < 2; first++) { /* each command meets news, or a busy unit: its list is made anew */
        u = ours();
        fake_unit_power_loss(&u);
        scsi_proof_start(&proof, &claim, buffer, sizeof(buffer), false);
        for (unsigned i = 0; scsi_proof_next(&proof) != SCSI_PROOF_OVER; i++) {
            assert_true(i < 100);
            u.attention[0] = proof.attempts == 0 && !first ? 0x2a01 : 0;
            u.busy = proof.attempts == 0 && first;
            step(&proof, &u, 0, 0);
        }
        assert_int_equal(proof.verdict, SCSI_PROOF_HOLDS);
        assert_int_equal(proof.rounds, 0);
    }
    u = ours(); /* the takeover is written between the two looks at the epoch */
    fake_unit_power_loss(&u);
    u.attention[0] = 0;
    scsi_proof_start(&proof, &claim, buffer, sizeof(buffer), false);
    step(&proof, &u, 0, 0); /* epoch */
    step(&proof, &u, 0, 0); /* keys */
    step(&proof, &u, 0, 0); /* register */
    put_epoch(disk, 6);
    while (scsi_proof_next(&proof) != SCSI_PROOF_OVER)
        step(&proof, &u, 0, 0);
    assert_int_equal(proof.verdict, SCSI_PROOF_FENCED);
}

static void news_and_delays(void **state)
{
    struct scsi_claim claim = claim_of(KEY_A, 5);
    struct scsi_proof proof;
    struct fake_unit u = ours();
    (void)state;
    for (unsigned code = 0x2a03; code <= 0x2a05; code++) { /* told once more: the list says what is true */
        u.attention[0] = (uint16_t)code;
        assert_int_equal(prove(&proof, &claim, &u), SCSI_PROOF_HOLDS);
        assert_true(proof.news & SCSI_NEWS_PROVE);
    }
    u.busy = 20;
    assert_int_equal(prove(&proof, &claim, &u), SCSI_PROOF_HOLDS);
    u.busy = 1000;
    assert_int_equal(prove(&proof, &claim, &u), SCSI_PROOF_UNSURE);
    u.busy = 0;
    scsi_proof_start(&proof, &claim, buffer, sizeof(buffer), false); /* keys that change under the proof: read again */
    step(&proof, &u, 0, 0);
    step(&proof, &u, 0, 0);
    u.generation++;
    step(&proof, &u, 0, 0);
    assert_int_equal(proof.verdict, SCSI_PROOF_PENDING);
    step(&proof, &u, 0, 0);
    step(&proof, &u, 0, 0);
    step(&proof, &u, 0, 0);
    assert_int_equal(proof.verdict, SCSI_PROOF_HOLDS);
    assert_int_equal(proof.generation, 8); /* of four proofs before, and one change */
    scsi_proof_start(&proof, &claim, buffer, sizeof(buffer), false); /* for ever */
    for (unsigned i = 0; i < 100; i++, u.generation++)
        step(&proof, &u, 0, 0);
    assert_int_equal(proof.verdict, SCSI_PROOF_UNSURE);
    /* Strays are ended first, or nothing is proven. */
    scsi_proof_start(&proof, &claim, buffer, sizeof(buffer), true);
    assert_int_equal(scsi_proof_next(&proof), SCSI_PROOF_RESET);
    unsigned commands = u.commands;
    scsi_proof_answer(&proof, SCSI_GOOD, NULL, 0, 0); /* not what was asked for */
    assert_int_equal(scsi_proof_next(&proof), SCSI_PROOF_RESET);
    scsi_proof_reset(&proof, false);
    assert_int_equal(proof.verdict, SCSI_PROOF_UNSURE);
    assert_int_equal(u.commands, commands);
    scsi_proof_start(&proof, &claim, buffer, sizeof(buffer), true);
    for (unsigned i = 0; i < 5; i++)
        step(&proof, &u, 0, 0);
    assert_int_equal(proof.verdict, SCSI_PROOF_HOLDS);
}

/* An answer that is cut anywhere, or whose list is longer than what came, never makes it hold, and is never a fence. */
static void answers_that_are_cut(void **state)
{
    struct scsi_claim claim = claim_of(KEY_A, 5);
    struct scsi_proof proof;
    (void)state;
    for (unsigned which = 0; which < 3; which++)
        for (uint32_t cut = 1; cut < 520; cut++) {
            struct fake_unit u = ours();
            u.key[1] = KEY_B; /* ours comes first in the list: cut it away with an order of its own */
            u.key[0] = KEY_B;
            u.key[1] = KEY_A;
            scsi_proof_start(&proof, &claim, buffer, sizeof(buffer), false);
            for (unsigned i = 0; i < 20; i++)
                step(&proof, &u, 0, i == which ? cut : 0);
            assert_int_equal(proof.verdict, SCSI_PROOF_UNSURE);
        }
}

static uint32_t seed = 1;
static uint32_t next_random(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 17;
    seed ^= seed << 5;
    return seed;
}

/* Any status, sense and bytes: it comes to an end, and holds only by the three answers that say so. */
static void noise(void **state)
{
    static const uint8_t statuses[] = { 0, 0, 0, 2, 2, 4, 8, 0x18, 0x28, 0x40, 0x7f };
    struct scsi_claim claim = claim_of(KEY_A, 5);
    struct scsi_proof proof;
    (void)state;
    for (unsigned run = 0; run < 20000; run++) {
        claim.restore = run & 1;
        scsi_proof_start(&proof, &claim, buffer, sizeof(buffer), run & 2);
        for (unsigned i = 0; i < 300 && scsi_proof_next(&proof) != SCSI_PROOF_OVER; i++) {
            uint8_t sense[18];
            for (unsigned k = 0; k < 64; k++)
                buffer[k] = (uint8_t)(next_random() % 3 ? 0 : next_random());
            for (unsigned k = 0; k < 18; k++)
                sense[k] = (uint8_t)next_random();
            sense[0] = 0x70;
            if (scsi_proof_next(&proof) == SCSI_PROOF_RESET)
                scsi_proof_reset(&proof, true);
            else if (scsi_proof_next(&proof) == SCSI_PROOF_WAIT)
                scsi_proof_waited(&proof);
            else
                scsi_proof_answer(&proof, statuses[next_random() % sizeof(statuses)], sense, next_random() % 19,
                                  next_random() % 600);
        }
        assert_int_not_equal(proof.verdict, SCSI_PROOF_PENDING);
        assert_int_not_equal(proof.verdict, SCSI_PROOF_HOLDS);
    }
}

/* ---- Two nodes ---- */

/*
 * A node in the model: proves, then does its work, one command a step. Node A (0) writes in epoch 5 as long as it may.
 * Node B (1) takes the volume over: preempts A's key, writes epoch 6, looks at the list once more. Then it is B's.
 */
struct node {
    struct scsi_claim claim;
    struct scsi_proof proof;
    uint8_t buffer[SCSI_PROOF_ROOM_MIN];
    unsigned index;
    bool started, over, preempted, written;
};

static bool landed_late, taken;
static unsigned landed;

static unsigned send(struct node *n, struct fake_unit *u, struct scsi_cdb *cdb, const uint8_t *out, uint8_t in[128])
{
    uint8_t sense[18];
    uint32_t bytes;
    return fake_unit_execute(u, n->index, cdb->bytes, out, cdb->write_bytes, in, 128, &bytes, sense);
}

static void work(struct node *n, struct fake_unit *u)
{
    struct scsi_cdb cdb;
    uint8_t out[512] = { 0 }, in[128];
    unsigned status;
    if (n->index == 0) {
        scsi_write16(&cdb, DATA, 1, 512, false);
        status = send(n, u, &cdb, out, in);
        landed += status == SCSI_GOOD;
        landed_late |= status == SCSI_GOOD && taken;
    } else if (!n->preempted) {
        scsi_persistent_reserve_out(&cdb, SCSI_PR_PREEMPT, RO, SCSI_PR_OUT_BYTES);
        scsi_pr_out_list(out, KEY_B, KEY_A, false);
        status = send(n, u, &cdb, out, in);
        n->preempted = status == SCSI_GOOD;
    } else if (!n->written) {
        uint8_t record[(RECORD + 1) * 512] = { 0 };
        put_epoch(record, 6);
        scsi_write16(&cdb, RECORD, 1, 512, true);
        status = send(n, u, &cdb, record + RECORD * 512, in);
        n->written = status == SCSI_GOOD;
    } else {
        scsi_persistent_reserve_in(&cdb, SCSI_PR_READ_KEYS, 128);
        status = send(n, u, &cdb, NULL, in);
        n->preempted = true;
        for (unsigned i = 0; status == SCSI_GOOD && i < be32_get(in + 4) / 8; i++)
            n->preempted &= be64_get(in + 8 + 8 * i) != KEY_A;
        taken = n->over = status == SCSI_GOOD && n->preempted;
    }
    if (status != SCSI_GOOD)
        n->started = false; /* a conflict or news: prove anew */
}

static void advance(struct node *n, struct fake_unit *u)
{
    if (n->over)
        return;
    if (!n->started) {
        n->started = true;
        scsi_proof_start(&n->proof, &n->claim, n->buffer, sizeof(n->buffer), false);
        n->preempted = false; /* what was done before is not known to hold any more */
        n->claim.epoch = n->written ? 6 : 5;
    } else if (scsi_proof_next(&n->proof) != SCSI_PROOF_OVER) {
        step(&n->proof, u, n->index, 0);
    } else if (n->proof.verdict == SCSI_PROOF_HOLDS) {
        work(n, u);
    } else if (n->proof.verdict == SCSI_PROOF_UNSURE) {
        n->started = false;
    } else {
        n->over = true; /* fenced, or unprotected: what is queued is discarded */
    }
}

static void every_interleaving(void **state)
{
    unsigned takeovers = 0, writes = 0, restorations = 0;
    (void)state;
    /* Each bit of a schedule: whose turn it is. At two steps of it the power may go. */
    for (unsigned keeps = 0; keeps < 2; keeps++)
        for (unsigned loss = 0; loss < 15; loss++)
            for (unsigned again = loss; again < 15; again += 3)
                for (uint32_t schedule = 0; schedule < 1u << 14; schedule += 1 + (loss > 0) * 6) {
                    struct fake_unit u = ours();
                    struct node a = { .claim = claim_of(KEY_A, 5) }, b = { .claim = claim_of(KEY_B, 5), .index = 1 };
                    u.keeps = keeps;
                    u.key[1] = KEY_B;
                    a.claim.restore = b.claim.restore = true;
                    a.claim.keep = b.claim.keep = keeps;
                    landed_late = taken = false;
                    landed = 0;
                    for (unsigned i = 0; i < 70; i++) {
                        if ((loss && i == loss) || (loss && again != loss && i == again)) {
                            fake_unit_power_loss(&u);
                            a.started = b.started = false; /* connections went with it */
                        }
                        advance(i < 14 ? (schedule >> i & 1 ? &b : &a) : i % 2 ? &a : &b, &u);
                    }
                    assert_false(landed_late);
                    takeovers += taken;
                    writes += landed > 0;
                    restorations += a.proof.restored || b.proof.restored;
                }
    assert_true(takeovers > 10000 && writes > 10000 && restorations > 1000); /* the model does what it is meant to */
}

/* ---- Under a session ---- */

static struct prover {
    struct bench *bench;
    struct scsi_claim claim;
    struct scsi_proof proof;
    struct iscsi_command command;
    bool busy;
} prover;

static void pump(struct prover *p);

static const void *give(struct iscsi_command *command, uint32_t offset, uint32_t *count, void *bounce, bool *stays)
{
    (void)command;
    (void)stays;
    memcpy(bounce, buffer + offset, *count);
    return bounce;
}

static bool take(struct iscsi_command *command, uint32_t offset, const void *bytes, uint32_t count)
{
    assert_true(range_within(offset, count, command->read_bytes));
    memcpy(buffer + offset, bytes, count);
    return true;
}

static void answered(struct iscsi_command *command)
{
    struct prover *p = command->owner;
    p->busy = false;
    if (command->outcome != ISCSI_ANSWERED)
        return; /* the next login begins another proof */
    scsi_proof_answer(&p->proof, command->status, command->sense, command->sense_bytes, command->transferred);
    pump(p);
}

static void pump(struct prover *p)
{
    static const struct iscsi_data_ops ops = { .give = give, .take = take };
    enum scsi_proof_action action;
    while ((action = scsi_proof_next(&p->proof)) == SCSI_PROOF_WAIT)
        scsi_proof_waited(&p->proof);
    if (action == SCSI_PROOF_OVER) {
        iscsi_session_resume(&p->bench->session, p->bench->now_ns);
        return;
    }
    assert_int_equal(action, SCSI_PROOF_SEND);
    p->command = (struct iscsi_command){
        .attribute = ISCSI_SIMPLE, .probe = true, .read_bytes = p->proof.cdb.read_bytes,
        .write_bytes = p->proof.cdb.write_bytes, .data = &ops, .done = answered, .owner = p,
    };
    iscsi_lun_encode(p->command.lun, 1);
    memcpy(p->command.cdb, p->proof.cdb.bytes, sizeof(p->command.cdb));
    p->busy = true;
    assert_int_equal(iscsi_submit(&p->bench->session, &p->command, p->bench->now_ns), OK);
}

static void on_prove(struct bench *b)
{
    (void)b;
    assert_false(prover.busy);
    scsi_proof_start(&prover.proof, &prover.claim, buffer, sizeof(buffer), b->prove_code == ISCSI_PROVE_STRAYS);
    pump(&prover);
}

static bool may_send(struct bench *b, const struct iscsi_command *command)
{
    (void)b;
    return scsi_proof_allows(&prover.proof, command->epoch);
}

static struct bench *proving_bench(struct fake_unit *u)
{
    struct bench *b = bench_new();
    *u = ours();
    u->disk = b->target.disk;
    u->disk_bytes = sizeof(b->target.disk);
    put_epoch(u->disk, 5);
    b->target.unit = u;
    b->on_prove = on_prove;
    b->may_send = may_send;
    b->epoch = 5;
    prover = (struct prover){ .bench = b, .claim = claim_of(KEY_A, 5) };
    bench_start(b);
    bench_settle(b);
    assert_int_equal(b->session.state, ISCSI_READY);
    b->target.manners.hold = true; /* four writes are under way when the connection goes */
    for (unsigned i = 0; i < 4; i++)
        bench_write(b, i, DATA + i, 1, (uint8_t)(0x50 + i));
    bench_settle(b);
    b->absent = true;
    bench_cut(b);
    b->target.manners.hold = false;
    bench_write(b, 4, DATA + 4, 1, 0x54); /* and one waits */
    return b;
}

static void a_node_that_was_fenced_and_healed(void **state)
{
    struct fake_unit u;
    uint32_t bytes;
    uint8_t list[SCSI_PR_OUT_BYTES], sense[18];
    struct scsi_cdb cdb;
    (void)state;
    struct bench *b = proving_bench(&u); /* nobody fenced it: all is written, once and in order */
    bench_pass(b, 20 * SECOND);
    b->absent = false;
    assert_true(bench_run(b));
    for (unsigned i = 0; i < 5; i++) {
        assert_int_equal(b->command[i].command.outcome, ISCSI_ANSWERED);
        assert_int_equal(b->target.disk[(DATA + i) * 512], bench_byte((uint8_t)(0x50 + i), 0));
    }
    assert_int_equal(b->target.complaints, 0);
    bench_free(b);

    for (unsigned power = 0; power < 2; power++) {
        b = proving_bench(&u);
        prover.claim.restore = true;
        u.key[1] = KEY_B;
        scsi_persistent_reserve_out(&cdb, SCSI_PR_PREEMPT_AND_ABORT, RO, SCSI_PR_OUT_BYTES);
        scsi_pr_out_list(list, KEY_B, KEY_A, false);
        assert_int_equal(fake_unit_execute(&u, 1, cdb.bytes, list, 24, NULL, 0, &bytes, sense), SCSI_GOOD);
        put_epoch(b->target.disk, 6);
        memset(b->target.disk + DATA * 512, 0x99, 5 * 512); /* the new owner's */
        unsigned writes = u.writes;
        if (power)
            fake_unit_power_loss(&u); /* the unit has forgotten the fence; the volume has not */
        b->absent = false;
        assert_true(bench_run(b));
        assert_int_equal(prover.proof.verdict, SCSI_PROOF_FENCED);
        for (unsigned i = 0; i < 5; i++)
            assert_int_equal(b->command[i].command.outcome, ISCSI_STALE);
        for (unsigned i = 0; i < 5 * 512; i++)
            assert_int_equal(b->target.disk[DATA * 512 + i], 0x99);
        assert_int_equal(u.writes, writes);
        assert_int_equal(u.conflicts, 0); /* not one of them was even tried */
        bench_free(b);
    }
}

/* The connection goes in the middle of each step of the proof: another proof, and the writes are done once. */
static void proofs_that_are_cut(void **state)
{
    (void)state;
    struct fake_unit u;
    for (uint64_t at = 400; at < 2200; at += 7) {
        struct bench *b = proving_bench(&u);
        b->absent = false;
        b->cut_in = at;
        assert_true(bench_run(b));
        for (unsigned i = 0; i < 5; i++)
            assert_int_equal(b->command[i].command.outcome, ISCSI_ANSWERED);
        assert_int_equal(b->session.counts.drops, b->cut_in ? 1 : 2);
        assert_int_equal(b->target.complaints, 0);
        bench_free(b);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_holds),
        cmocka_unit_test(fences_are_seen),
        cmocka_unit_test(protection_is_asked_for),
        cmocka_unit_test(keys_that_the_target_forgot),
        cmocka_unit_test(news_and_delays),
        cmocka_unit_test(answers_that_are_cut),
        cmocka_unit_test(noise),
        cmocka_unit_test(every_interleaving),
        cmocka_unit_test(a_node_that_was_fenced_and_healed),
        cmocka_unit_test(proofs_that_are_cut),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
