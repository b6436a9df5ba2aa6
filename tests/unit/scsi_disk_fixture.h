/* SPDX-License-Identifier: MIT */
/*
 * The disk above a session, against the target in memory with a logical unit of this file's: what the unit has (block size,
 * limits, UNMAP, WRITE SAME, FUA, a write cache, a reservation) and how it misbehaves are switches in `t`, which each test
 * has anew.
 */
#ifndef SCSI_DISK_FIXTURE_H
#define SCSI_DISK_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "fake_target.h"
#include "net/scsi/scsi_disk.h"

#define SECOND UINT64_C(1000000000)
#define REQUESTS 200u

struct request {
    struct disk_request r;
    uint8_t *buffer;
    unsigned done_count;
    enum status status;
    bool gone;              /* its memory is not there */
};

static struct {
    struct bench *bench;
    struct scsi_disk disk;
    struct iscsi_ops ops;
    const struct iscsi_ops *bench_ops;
    struct request request[REQUESTS];
    unsigned count, proofs, drops;
    char dropped[300], news[300];
    /* The unit. */
    uint32_t block_bytes, transfer_max, unmap_max, same_max;
    uint64_t blocks;
    bool resized;           /* the next command is told of it */
    bool unmap, write_same, fua, no_cache, no_pages, short_reads;
    char serial;
    uint64_t reserved;      /* key; 0: nobody */
    unsigned attentions, busy, conflicts, bad_reads; /* how many commands get them */
    uint64_t bad_block;     /* a medium error there; UINT64_MAX: nowhere */
    unsigned commands[256]; /* by operation code */
    struct scsi_disk_piece pieces[4];
    uint8_t memory[4][SCSI_DISK_PIECE_BYTES];
    unsigned fua_writes;
} t;

/* ---- The unit ---- */

static void fail_sense(struct fake_target *target, struct fake_task *task, uint8_t key, uint8_t asc, uint8_t ascq)
{
    uint8_t sense[18] = { 0x70, 0, key, 0, 0, 0, 0, 10, 0, 0, 0, 0, asc, ascq };
    fake_target_status(target, task, SCSI_CHECK_CONDITION, sense);
}

static void inquiry(struct fake_target *target, struct fake_task *task)
{
    uint8_t data[64] = { 0 };
    uint32_t count = 0;

    if (!(task->cdb[1] & 1)) {
        uint8_t standard[36] = { 0, 0, 6, 2, 31 };
        memcpy(standard + 8, "FAKE    MEMORY DISK     0001", 28);
        fake_target_data(target, task, standard, sizeof standard);
        return;
    }
    if (t.no_pages) {
        fail_sense(target, task, 5, 0x24, 0);
        return;
    }
    data[1] = task->cdb[2];
    switch (task->cdb[2]) {
    case 0x00:
        memcpy(data + 4, (uint8_t[]){ 0x00, 0x83, 0xb0, 0xb2 }, 4);
        count = data[3] = 4;
        break;
    case 0x83: /* an NAA designator of the unit */
        memcpy(data + 4, (uint8_t[]){ 1, 3, 0, 8, 0x50, 0, 0, 0, 0, 0, 0, (uint8_t)t.serial }, 12);
        count = data[3] = 12;
        break;
    case 0xb0:
        count = data[3] = 60;
        be32_put(data + 8, t.transfer_max);
        be32_put(data + 20, t.unmap_max);
        be32_put(data + 24, 1);
        be64_put(data + 36, t.same_max);
        break;
    case 0xb2:
        count = data[3] = 4;
        data[5] = t.unmap ? 0x80 : 0;
        data[6] = 2;
        break;
    default:
        fail_sense(target, task, 5, 0x24, 0);
        return;
    }
    fake_target_data(target, task, data, count + 4);
}

static void read_or_write(struct fake_target *target, struct fake_task *task)
{
    uint64_t block = be64_get(task->cdb + 2), at = block * t.block_bytes;
    uint32_t blocks = be32_get(task->cdb + 10);
    uint64_t bytes = (uint64_t)blocks * t.block_bytes;

    if (task->cdb[0] != 0x93 && t.transfer_max && blocks > t.transfer_max)
        fake_target_complain(target, "%u blocks at once", blocks);
    if (!range_within(at, bytes, t.blocks * t.block_bytes) || t.blocks * t.block_bytes > FAKE_DISK_BYTES) {
        fake_target_complain(target, "blocks beyond the end");
        fail_sense(target, task, 5, 0x21, 0);
    } else if (t.bad_block >= block && t.bad_block < block + blocks) {
        fail_sense(target, task, 3, 0x11, 0);
    } else if (task->cdb[0] == 0x88 && t.short_reads && t.bad_reads) {
        t.bad_reads--;
        fake_target_data(target, task, target->disk + at, (uint32_t)bytes - t.block_bytes);
    } else if (task->cdb[0] == 0x88) {
        fake_target_data(target, task, target->disk + at, (uint32_t)bytes);
    } else if (task->cdb[0] == 0x93) {
        if (t.same_max && blocks > t.same_max)
            fake_target_complain(target, "WRITE SAME of %u blocks", blocks);
        for (uint32_t i = 0; i < blocks; i++)
            memcpy(target->disk + at + (uint64_t)i * t.block_bytes, task->data, t.block_bytes);
        fake_target_status(target, task, 0, NULL);
    } else {
        t.fua_writes += task->cdb[1] >> 3 & 1;
        memcpy(target->disk + at, task->data, bytes);
        fake_target_status(target, task, 0, NULL);
    }
}

static void unmap(struct fake_target *target, struct fake_task *task)
{
    uint64_t at = be64_get(task->data + 8) * t.block_bytes;
    uint32_t blocks = be32_get(task->data + 16);

    if (task->expected != 24 || be16_get(task->data + 2) != 16 || (t.unmap_max && blocks > t.unmap_max))
        fake_target_complain(target, "a wrong UNMAP list");
    else
        memset(target->disk + at, 0xdd, (uint64_t)blocks * t.block_bytes); /* whatever it likes */
    fake_target_status(target, task, 0, NULL);
}

static void scsi(struct fake_target *target, struct fake_task *task)
{
    uint8_t data[32] = { 0 }, code = task->cdb[0];

    t.commands[code]++;
    if (code != 0x12 && t.resized) {
        t.resized = false;
        fail_sense(target, task, 6, 0x2a, 0x09);
        return;
    }
    if (code != 0x12 && t.attentions) {
        t.attentions--;
        fail_sense(target, task, 6, 0x29, 0);
        return;
    }
    if (code != 0x12 && code != 0x5e && code != 0x9e && t.busy) {
        fake_target_status(target, task, t.busy-- % 2 ? SCSI_BUSY : SCSI_TASK_SET_FULL, NULL);
        return;
    }
    if ((code == 0x88 || code == 0x8a) && t.conflicts) {
        t.conflicts--;
        fake_target_status(target, task, SCSI_RESERVATION_CONFLICT, NULL);
        return;
    }
    switch (code) {
    case 0x00:
        fake_target_status(target, task, 0, NULL);
        return;
    case 0x12:
        inquiry(target, task);
        return;
    case 0x1a:
        data[0] = 3;
        data[2] = t.fua ? 0x10 : 0;
        fake_target_data(target, task, data, 4);
        return;
    case 0x5e:
        be32_put(data, 7);
        if ((task->cdb[1] & 31) == SCSI_PR_READ_KEYS) {
            data[7] = t.reserved ? 8 : 0;
            be64_put(data + 8, t.reserved);
            fake_target_data(target, task, data, 8u + data[7]);
            return;
        }
        if ((task->cdb[1] & 31) == SCSI_PR_READ_FULL_STATUS)
            break;
        if (t.reserved) {
            data[7] = 16;
            be64_put(data + 8, t.reserved);
            data[21] = 5;
        }
        fake_target_data(target, task, data, t.reserved ? 24 : 8);
        return;
    case 0x9e:
        be64_put(data, t.blocks - 1);
        be32_put(data + 8, t.block_bytes);
        fake_target_data(target, task, data, 32);
        return;
    case 0x91:
        if (!t.no_cache) {
            fake_target_status(target, task, 0, NULL);
            return;
        }
        break;
    case 0x42:
        if (t.unmap) {
            unmap(target, task);
            return;
        }
        break;
    case 0x93:
        if (!t.write_same)
            break;
        read_or_write(target, task);
        return;
    case 0x88:
    case 0x8a:
        read_or_write(target, task);
        return;
    default:
        break;
    }
    fail_sense(target, task, 5, 0x20, 0);
}

/* ---- The owner ---- */

static void on_event(void *context, const struct iscsi_event *event)
{
    t.bench_ops->event(context, event);
    if (event->kind == ISCSI_EVENT_PROVE)
        scsi_disk_prove(&t.disk, event->code == ISCSI_PROVE_STRAYS, t.bench->now_ns);
    if (event->kind == ISCSI_EVENT_READY)
        scsi_disk_ready(&t.disk, t.bench->now_ns);
    if (event->kind == ISCSI_EVENT_SLOW)
        scsi_disk_slow(&t.disk, event->command, t.bench->now_ns);
}

static bool may_send(void *context, const struct iscsi_command *command)
{
    (void)context;
    return scsi_disk_may_send(command);
}

static void proved(void *context)
{
    (void)context;
    t.proofs++;
    iscsi_session_resume(&t.bench->session, t.bench->now_ns);
}

static void drop(void *context, const char *why)
{
    (void)context;
    t.drops++;
    snprintf(t.dropped, sizeof t.dropped, "%s", why);
    iscsi_session_drop(&t.bench->session, why, t.bench->now_ns);
}

static void news(void *context, unsigned what, const char *text)
{
    (void)context;
    (void)what;
    snprintf(t.news, sizeof t.news, "%s", text);
}

static const struct scsi_disk_ops disk_ops = { .proved = proved, .drop = drop, .news = news };

/* Lets time pass until `end`, or all requests are done. */
static inline void pass(uint64_t ns, bool until_done)
{
    uint64_t end = t.bench->now_ns + ns;

    for (;;) {
        bench_settle(t.bench);
        bool busy = false;
        for (unsigned i = 0; i < t.count; i++)
            busy |= !t.request[i].done_count;
        if ((until_done && !busy) || t.bench->now_ns >= end)
            return;
        uint64_t next = MIN(MIN(scsi_disk_deadline(&t.disk), iscsi_session_deadline(&t.bench->session)), end);
        t.bench->now_ns = MAX(t.bench->now_ns, next);
        iscsi_session_tick(&t.bench->session, t.bench->now_ns);
        scsi_disk_tick(&t.disk, t.bench->now_ns);
    }
}

static inline int set_up(void **state)
{
    (void)state;
    memset(&t, 0, sizeof t);
    t.bench = bench_new();
    t.block_bytes = 512;
    t.blocks = 1024;
    t.unmap = t.write_same = true;
    t.serial = 1;
    t.bad_block = UINT64_MAX;
    t.bench->auto_resume = false;
    t.bench->target.manners.scsi = scsi;
    return 0;
}

static inline int tear_down(void **state)
{
    unsigned complaints = t.bench->target.complaints;
    (void)state;

    if (complaints)
        print_error("the target: %s\n", t.bench->target.complaint);
    unsigned pieces = 0;
    for (const struct scsi_disk_piece *p = t.disk.free_pieces; p; p = p->next)
        pieces++;
    if (!t.disk.busy && t.bench_ops && pieces != ARRAY_COUNT(t.pieces))
        print_error("%u pieces came back\n", pieces);
    complaints += !t.disk.busy && t.bench_ops && pieces != ARRAY_COUNT(t.pieces);
    for (unsigned i = 0; i < t.count; i++)
        free(t.request[i].buffer);
    bench_free(t.bench);
    return complaints != 0;
}

/* Starts the session; the disk is there, or is not. */
static inline void start(void)
{
    bench_start(t.bench);
    t.bench_ops = t.bench->session.ops;
    t.ops = *t.bench_ops;
    t.ops.event = on_event;
    t.ops.may_send = may_send;
    t.bench->session.ops = &t.ops;
    scsi_disk_init(&t.disk, &t.bench->session, 1, &disk_ops, NULL);
    for (unsigned i = 0; i < ARRAY_COUNT(t.pieces); i++) {
        t.pieces[i].memory = t.memory[i];
        scsi_disk_lend(&t.disk, &t.pieces[i]);
    }
    bench_settle(t.bench);
}

static inline void start_good(void)
{
    start();
    assert_int_equal(t.proofs, 1);
    assert_int_equal(t.bench->session.state, ISCSI_READY);
    assert_true(t.disk.info.known);
}

static bool get(struct disk_request *r, uint64_t at, void *bytes, uint32_t count)
{
    struct request *request = r->owner;
    assert_int_equal(request->done_count, 0);
    assert_true(range_within(at, count, r->bytes));
    memcpy(bytes, request->buffer + at, count);
    return !request->gone;
}

static bool put(struct disk_request *r, uint64_t at, const void *bytes, uint32_t count)
{
    struct request *request = r->owner;
    assert_int_equal(request->done_count, 0);
    assert_true(range_within(at, count, r->bytes));
    memcpy(request->buffer + at, bytes, count);
    return !request->gone;
}

static void done(struct disk_request *r, enum status status)
{
    struct request *request = r->owner;
    assert_int_equal(request->done_count, 0);
    request->done_count++;
    request->status = status;
}

static inline struct request *submit(enum disk_op op, uint64_t offset, uint64_t bytes, uint8_t seed)
{
    struct request *request = &t.request[t.count++];

    assert_true(t.count <= REQUESTS);
    request->buffer = malloc(bytes + 1);
    for (uint64_t i = 0; i < bytes; i++)
        request->buffer[i] = bench_byte(seed, (uint32_t)i);
    request->r = (struct disk_request){ .op = op, .offset = offset, .bytes = bytes, .get = get, .put = put, .done = done,
                                        .owner = request };
    scsi_disk_submit(&t.disk, &request->r, t.bench->now_ns);
    return request;
}

static inline struct request *finished(struct request *request, enum status status)
{
    pass(100 * SECOND, true);
    assert_int_equal(request->done_count, 1);
    assert_int_equal(request->status, status);
    return request;
}

static inline void on_disk(uint64_t offset, uint64_t bytes, uint8_t seed)
{
    for (uint64_t i = 0; i < bytes; i++)
        assert_int_equal(t.bench->target.disk[offset + i], bench_byte(seed, (uint32_t)i));
}

static inline void all_are(uint64_t offset, uint64_t bytes, uint8_t value)
{
    for (uint64_t i = 0; i < bytes; i++)
        assert_int_equal(t.bench->target.disk[offset + i], value);
}

static inline void cut(void)
{
    bench_cut(t.bench);
    pass(SECOND, false);
}

#endif
