/* SPDX-License-Identifier: MIT */
/*
 * The disk above a session, against the target in memory with a logical unit of this file's: what the unit has (block size,
 * limits, UNMAP, WRITE SAME, FUA, a write cache, a reservation) and how it misbehaves are switches. Guarded: each request
 * ends as it was wished, with its data where they belong, or by the medium's own error; the loss of a session, a busy unit,
 * an attention, a conflict or an abort costs time only; another unit, a smaller one or a reserved one is never written to;
 * and no memory of a cancelled request is touched.
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
static void pass(uint64_t ns, bool until_done)
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

static int set_up(void **state)
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

static int tear_down(void **state)
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
static void start(void)
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

static void start_good(void)
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

static struct request *submit(enum disk_op op, uint64_t offset, uint64_t bytes, uint8_t seed)
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

static struct request *finished(struct request *request, enum status status)
{
    pass(100 * SECOND, true);
    assert_int_equal(request->done_count, 1);
    assert_int_equal(request->status, status);
    return request;
}

static void on_disk(uint64_t offset, uint64_t bytes, uint8_t seed)
{
    for (uint64_t i = 0; i < bytes; i++)
        assert_int_equal(t.bench->target.disk[offset + i], bench_byte(seed, (uint32_t)i));
}

static void all_are(uint64_t offset, uint64_t bytes, uint8_t value)
{
    for (uint64_t i = 0; i < bytes; i++)
        assert_int_equal(t.bench->target.disk[offset + i], value);
}

/* ---- The proof ---- */

static void it_finds_what_there_is(void **state)
{
    (void)state;
    t.transfer_max = 100;
    t.fua = true;
    start_good();
    const struct scsi_disk_info *info = &t.disk.info;
    assert_int_equal(info->bytes, 1024 * 512);
    assert_int_equal(info->block_bytes, 512);
    assert_true(info->can_unmap && info->thin && !info->read_only && info->holding.known && !info->holding.held);
    assert_string_equal(info->vendor, "FAKE");
    assert_string_equal(info->product, "MEMORY DISK");
    assert_string_equal(info->identity, "naa.5000000000000001");
    assert_int_equal(t.disk.info.transfer_max_blocks, 100);
    assert_true(t.disk.info.fua);
    assert_int_equal(t.commands[0x88] + t.commands[0x8a], 0);
}

static void it_does_without_pages(void **state)
{
    (void)state;
    t.no_pages = true;
    start_good();
    assert_int_equal(t.disk.info.bytes, 1024 * 512);
    assert_false(t.disk.info.can_unmap);
    finished(submit(DISK_WRITE, 0, 4096, 3), OK);
    on_disk(0, 4096, 3);
}

static void attentions_and_busy_are_waited_for(void **state)
{
    (void)state;
    t.attentions = 3;
    start_good();
    unsigned proofs = t.proofs;
    t.attentions = 9; /* the unit was reset: a write is not sent again before the unit was looked at anew */
    struct request *one = submit(DISK_WRITE, 0, 65536, 5);
    finished(one, OK);
    on_disk(0, 65536, 5);
    assert_int_equal(t.proofs, proofs + 1);
    assert_non_null(strstr(t.dropped, "the unit was reset"));
    t.attentions = 3; /* a read is */
    proofs = t.proofs;
    finished(submit(DISK_READ, 0, 65536, 0), OK);
    assert_int_equal(t.proofs, proofs);
    t.busy = 12;
    finished(submit(DISK_READ, 0, 65536, 0), OK);
    assert_memory_equal(t.request[2].buffer, one->buffer, 65536);
    assert_true(t.disk.retries >= 15);
    assert_int_equal(t.disk.errors, 0);
}

static void cut(void)
{
    bench_cut(t.bench);
    pass(SECOND, false);
}

static void another_unit_is_refused(void **state)
{
    (void)state;
    start_good();
    t.serial = 2;
    cut();
    assert_non_null(strstr(t.dropped, "another unit is there"));
    assert_int_equal(t.proofs, 1);
    struct request *r = submit(DISK_WRITE, 0, 512, 1);
    pass(20 * SECOND, true);
    assert_int_equal(r->done_count, 0);
    assert_int_equal(t.commands[0x8a], 0);
    t.serial = 1;
    finished(r, OK);
    on_disk(0, 512, 1);
}

static void a_smaller_unit_is_refused(void **state)
{
    (void)state;
    start_good();
    t.blocks = 1000;
    cut();
    assert_non_null(strstr(t.dropped, "524288"));
    assert_non_null(strstr(t.dropped, "512000"));
    t.blocks = 1024;
    pass(10 * SECOND, false);
    assert_int_equal(t.proofs, 2);
    t.blocks = 2048;
    t.block_bytes = 256; /* as many bytes */
    cut();
    assert_int_equal(t.proofs, 2);
    t.block_bytes = 512;
    pass(10 * SECOND, false);
    assert_int_equal(t.proofs, 3); /* it may grow */
    assert_int_equal(t.disk.info.bytes, 2048 * 512);
}

static void a_reserved_unit_is_left_alone(void **state)
{
    (void)state;
    t.reserved = 0xabcd; /* who wants to use it looks at that first */
    start_good();
    assert_true(t.disk.info.holding.held && t.disk.info.holding.key == 0xabcd && t.disk.info.holding.type == 5);
    t.reserved = 5;
    t.conflicts = 4;
    struct request *r = submit(DISK_WRITE, 512, 512, 9);
    pass(30 * SECOND, true);
    assert_int_equal(r->done_count, 0);
    assert_int_equal(t.conflicts, 3); /* it was not sent again */
    assert_non_null(strstr(t.dropped, "0x5"));
    struct request *later = submit(DISK_WRITE, 8192, 8192, 2);
    pass(30 * SECOND, true);
    assert_int_equal(later->done_count, 0);
    t.reserved = 0;
    t.conflicts = 1;
    finished(r, OK);
    on_disk(512, 512, 9);
    on_disk(8192, 8192, 2);
}

static void no_unit(void **state)
{
    (void)state;
    t.blocks = 0; /* READ CAPACITY of 2^64 blocks */
    start();
    assert_int_equal(t.proofs, 0);
    assert_non_null(strstr(t.dropped, "READ CAPACITY"));
}

/* ---- Requests ---- */

static void sizes(uint32_t block_bytes, uint32_t transfer_max)
{
    static const uint32_t blocks[] = { 1, 2, 7, 64, 65, 100 };
    t.block_bytes = block_bytes;
    t.blocks = FAKE_DISK_BYTES / 2 / block_bytes;
    t.transfer_max = transfer_max;
    start_good();
    for (unsigned i = 0; i < ARRAY_COUNT(blocks); i++) {
        uint64_t bytes = (uint64_t)blocks[i] * block_bytes, offset = (uint64_t)i * block_bytes;
        struct request *w = finished(submit(DISK_WRITE, offset, bytes, (uint8_t)(i + 1)), OK);
        on_disk(offset, bytes, (uint8_t)(i + 1));
        struct request *r = finished(submit(DISK_READ, offset, bytes, 0), OK);
        assert_memory_equal(r->buffer, w->buffer, bytes);
    }
}

static void blocks_of_512(void **state)
{
    (void)state;
    sizes(512, 0);
}

static void blocks_of_4096(void **state)
{
    (void)state;
    sizes(4096, 0);
}

static void a_small_limit(void **state)
{
    (void)state;
    sizes(512, 3); /* 100 blocks are 34 commands */
}

static void more_than_fits_at_once(void **state)
{
    (void)state;
    t.transfer_max = 2;
    start_good();
    for (unsigned i = 0; i < 100; i++)
        submit(DISK_WRITE, i * 5120u, 5120, (uint8_t)i);
    assert_int_equal(scsi_disk_oldest_ns(&t.disk), t.bench->now_ns);
    pass(100 * SECOND, true);
    for (unsigned i = 0; i < 100; i++) {
        assert_int_equal(t.request[i].status, OK);
        on_disk(i * 5120u, 5120, (uint8_t)i);
    }
    assert_int_equal(t.disk.busy, 0);
    assert_null(t.disk.first);
    assert_int_equal(scsi_disk_oldest_ns(&t.disk), UINT64_MAX);
}

static void what_is_none_for_this_disk(void **state)
{
    (void)state;
    t.block_bytes = 4096;
    t.blocks = 100;
    start_good();
    assert_int_equal(submit(DISK_WRITE, 409600, 4096, 0)->status, ERR_RANGE);
    assert_int_equal(submit(DISK_READ, UINT64_MAX - 4095, 8192, 0)->status, ERR_RANGE);
    assert_int_equal(submit(DISK_READ, 512, 4096, 0)->status, ERR_INVALID);
    assert_int_equal(submit(DISK_READ, 4096, 512, 0)->status, ERR_INVALID);
    t.disk.info.read_only = true;
    assert_int_equal(submit(DISK_WRITE, 0, 4096, 0)->status, ERR_READ_ONLY);
    assert_int_equal(submit(DISK_DISCARD, 0, 4096, 0)->status, ERR_READ_ONLY);
    finished(submit(DISK_READ, 0, 4096, 0), OK);
}

static void an_error_of_the_medium(void **state)
{
    (void)state;
    t.transfer_max = 8;
    start_good();
    t.bad_block = 20;
    struct request *bad = submit(DISK_READ, 0, 64 * 512, 0), *good = submit(DISK_READ, 32 * 512, 8 * 512, 0);
    finished(good, OK);
    assert_int_equal(bad->status, ERR_IO);
    assert_int_equal(t.disk.errors, 1);
    assert_non_null(strstr(t.news, "a read of 4096 bytes at 8192 failed"));
    assert_non_null(strstr(t.news, "MEDIUM ERROR"));
    assert_int_equal(t.drops, 0);
}

static void good_with_too_little(void **state)
{
    (void)state;
    t.short_reads = true;
    start_good();
    t.bad_reads = 2;
    finished(submit(DISK_READ, 0, 8192, 0), OK);
    t.bad_reads = 1000;
    finished(submit(DISK_READ, 0, 8192, 0), ERR_IO);
}

static void flushes(void **state)
{
    (void)state;
    start_good();
    finished(submit(DISK_FLUSH, 0, 0, 0), OK);
    assert_int_equal(t.commands[0x91], 1);
    t.request[t.count].r.fua = false;
    struct request *r = &t.request[t.count++]; /* FUA on a unit without it: a flush behind the write */
    r->buffer = calloc(1, 4096);
    r->r = (struct disk_request){ .op = DISK_WRITE, .fua = true, .bytes = 4096, .get = get, .done = done, .owner = r };
    scsi_disk_submit(&t.disk, &r->r, t.bench->now_ns);
    finished(r, OK);
    assert_int_equal(t.commands[0x91], 2);
    assert_int_equal(t.fua_writes, 0);
    t.fua = true;
    cut();
    r->done_count = 0;
    scsi_disk_submit(&t.disk, &r->r, t.bench->now_ns);
    finished(r, OK);
    assert_int_equal(t.commands[0x91], 2);
    assert_int_equal(t.fua_writes, 1);
    t.no_cache = true;
    finished(submit(DISK_FLUSH, 0, 0, 0), OK); /* the unit has nothing to flush, and says so once */
    finished(submit(DISK_FLUSH, 0, 0, 0), OK);
    assert_int_equal(t.commands[0x91], 3);
}

static void discards(void **state)
{
    (void)state;
    t.unmap_max = 10;
    start_good();
    finished(submit(DISK_WRITE, 0, 65536, 4), OK);
    finished(submit(DISK_DISCARD, 512, 25 * 512, 0), OK);
    assert_int_equal(t.commands[0x42], 3);
    on_disk(0, 512, 4);
    all_are(512, 25 * 512, 0xdd);
    t.unmap = false;
    cut();
    finished(submit(DISK_DISCARD, 0, 65536, 0), OK);
    assert_int_equal(t.commands[0x42], 3);
}

static void zeroes(void **state)
{
    (void)state;
    t.same_max = 16;
    start_good();
    finished(submit(DISK_WRITE, 0, 256 * 512, 4), OK);
    finished(submit(DISK_WRITE_ZEROES, 512, 100 * 512, 0), OK);
    assert_int_equal(t.commands[0x93], 7);
    on_disk(0, 512, 4);
    all_are(512, 100 * 512, 0);
    assert_int_equal(t.bench->target.disk[101 * 512], bench_byte(4, 101 * 512));
    /* Without WRITE SAME they are written, whole, however many of them were under way. */
    t.write_same = false;
    finished(submit(DISK_WRITE, 0, 256 * 512, 7), OK);
    struct request *z = submit(DISK_WRITE_ZEROES, 1024, 200 * 512, 0), *w = submit(DISK_WRITE, 400 * 512, 8192, 2);
    finished(z, OK);
    assert_int_equal(w->status, OK);
    all_are(1024, 200 * 512, 0);
    on_disk(400 * 512, 8192, 2);
    assert_int_equal(t.bench->target.disk[202 * 512], bench_byte(7, 202 * 512));
    unsigned asked = t.commands[0x93];
    finished(submit(DISK_WRITE_ZEROES, 0, 1024, 0), OK);
    assert_int_equal(t.commands[0x93], asked);
    assert_int_equal(t.disk.errors, 0);
}

/* What is sent again is what was sent, whatever the owner's memory says by then: digests hold, and no mixture lands. */
static void memory_that_changes(void **state)
{
    (void)state;
    start_good();
    t.bench->target.manners.hold = true;
    struct request *w = submit(DISK_WRITE, 0, 40000 / 512 * 512, 6); /* fits into the pieces */
    bench_settle(t.bench);
    memset(w->buffer, 0xee, 39936);
    t.bench->target.manners.hold = false;
    cut();
    finished(w, OK);
    on_disk(0, 39936, 6);
}

/* ---- Loss ---- */

static void a_cut_costs_time_only(void **state)
{
    (void)state;
    for (unsigned at = 1; at < 60; at++) {
        if (at > 1)
            assert_int_equal(set_up(state), 0);
        t.transfer_max = 64;
        start_good();
        t.bench->cut_out = t.bench->out_total + at * 4001;
        for (unsigned i = 0; i < 6; i++)
            submit(DISK_WRITE, i * 81920u, 81920, (uint8_t)(i + at));
        struct request *flush = submit(DISK_FLUSH, 0, 0, 0);
        pass(100 * SECOND, true);
        assert_int_equal(flush->status, OK);
        for (unsigned i = 0; i < 6; i++) {
            assert_int_equal(t.request[i].status, OK);
            on_disk(i * 81920u, 81920, (uint8_t)(i + at));
        }
        assert_int_equal(t.proofs, t.bench->cut_out ? 1 : 2);
        if (at < 59)
            assert_int_equal(tear_down(state), 0);
    }
}

static void a_target_that_is_away(void **state)
{
    (void)state;
    start_good();
    t.bench->absent = true;
    bench_cut(t.bench);
    uint64_t since = t.bench->now_ns;
    struct request *w = submit(DISK_WRITE, 0, 4096, 6);
    pass(600 * SECOND, true);
    assert_int_equal(w->done_count, 0);
    assert_int_equal(scsi_disk_oldest_ns(&t.disk), since);
    assert_true(t.bench->session.timed_out);
    t.bench->absent = false;
    finished(w, OK);
    on_disk(0, 4096, 6);
}

static void a_stopped_session_goes_on(void **state)
{
    (void)state;
    start_good();
    t.bench->target.manners.hold = true;
    struct request *w = submit(DISK_WRITE, 0, 4096, 6);
    bench_settle(t.bench);
    iscsi_session_stop(&t.bench->session, t.bench->now_ns);
    pass(20 * SECOND, true);
    assert_int_equal(t.bench->session.state, ISCSI_IDLE);
    assert_int_equal(w->done_count, 0);
    t.bench->target.manners.hold = false;
    iscsi_session_start(&t.bench->session, t.bench->now_ns);
    finished(w, OK);
    on_disk(0, 4096, 6);
}

static void cancelled_requests_are_not_touched(void **state)
{
    (void)state;
    start_good();
    t.bench->target.manners.hold = true;
    struct request *w = submit(DISK_WRITE, 0, 200000 / 512 * 512, 6), *r = submit(DISK_READ, 0, 65536, 7);
    bench_settle(t.bench);
    scsi_disk_cancel(&t.disk, t.bench->now_ns);
    assert_int_equal(w->status, ERR_CANCELLED);
    assert_int_equal(r->status, ERR_CANCELLED);
    assert_null(t.disk.first);
    t.bench->target.manners.hold = false;
    fake_target_release(&t.bench->target, false); /* get() and put() fail the test from now on */
    pass(10 * SECOND, false);
    assert_int_equal(t.disk.busy, 0);
    for (unsigned i = 0; i < 65536; i++)
        assert_int_equal(r->buffer[i], bench_byte(7, i));
    finished(submit(DISK_WRITE, 4096, 4096, 8), OK);
    on_disk(4096, 4096, 8);
}

static void cancelled_while_away(void **state)
{
    (void)state;
    start_good();
    t.bench->target.manners.hold = true;
    submit(DISK_WRITE, 0, 65536, 6);
    bench_settle(t.bench);
    t.bench->absent = true;
    bench_cut(t.bench);
    submit(DISK_WRITE, 65536, 65536, 6);
    pass(SECOND, false);
    scsi_disk_cancel(&t.disk, t.bench->now_ns);
    assert_int_equal(t.disk.busy, 0);
    t.bench->absent = t.bench->target.manners.hold = false;
    pass(20 * SECOND, false);
    assert_int_equal(t.bench->session.state, ISCSI_READY);
    all_are(0, 131072, 0);
}

static void memory_that_is_gone(void **state)
{
    (void)state;
    start_good();
    struct request *bad = &t.request[t.count++], *good;
    bad->buffer = calloc(1, 65536);
    bad->gone = true;
    bad->r = (struct disk_request){ .op = DISK_WRITE, .bytes = 65536, .get = get, .done = done, .owner = bad };
    scsi_disk_submit(&t.disk, &bad->r, t.bench->now_ns);
    good = submit(DISK_WRITE, 65536, 65536, 3);
    finished(good, OK);
    assert_int_equal(bad->status, ERR_IO);
    on_disk(65536, 65536, 3);
}

/* ---- Slow targets ---- */

static void a_slow_command_is_aborted(void **state)
{
    (void)state;
    start_good();
    t.bench->target.manners.hold = true;
    struct request *w = submit(DISK_WRITE, 0, 4096, 6);
    pass(10 * SECOND, true);
    t.bench->target.manners.hold = false;
    pass(15 * SECOND, true);
    assert_int_equal(t.bench->target.tasks_seen, 1);
    assert_int_equal(w->status, OK);
    assert_int_equal(w->done_count, 1);
    on_disk(0, 4096, 6);
    assert_non_null(strstr(t.news, "it was aborted"));
    assert_int_equal(t.drops, 0);
}

static void where_nothing_is_aborted_the_session_ends(void **state)
{
    (void)state;
    start_good();
    t.bench->target.manners.hold = t.bench->target.manners.refuse_tasks = true;
    struct request *w = submit(DISK_WRITE, 0, 4096, 6);
    pass(21 * SECOND, true);
    assert_int_equal(t.bench->target.tasks_seen, 2); /* the abort, the reset */
    assert_non_null(strstr(t.dropped, "aborts nothing"));
    t.bench->target.manners.hold = false;
    finished(w, OK);
    on_disk(0, 4096, 6);
}

/* A command whose abort is under way when the connection goes is sent again, too. */
static void an_abort_that_is_lost(void **state)
{
    (void)state;
    start_good();
    t.bench->target.manners.hold = true;
    struct request *w = submit(DISK_WRITE, 0, 4096, 6);
    pass(20 * SECOND - 1, true);
    t.bench->target.manners.mute = true; /* the abort goes out, and nothing comes back */
    t.bench->freeze_out = true;
    pass(2 * SECOND, true);
    assert_true(t.disk.task_busy);
    bench_cut(t.bench);
    assert_false(t.disk.task_busy);
    t.bench->target.manners.hold = t.bench->target.manners.mute = t.bench->freeze_out = false;
    finished(w, OK);
    on_disk(0, 4096, 6);
}

static void a_reset_comes_before_a_proof_elsewhere(void **state)
{
    (void)state;
    start_good();
    t.bench->target.manners.hold = true;
    struct request *w = submit(DISK_WRITE, 0, 4096, 6);
    bench_settle(t.bench);
    t.bench->target.manners.hold = false;
    t.bench->target.manners.portal_group = 2;
    cut();
    finished(w, OK);
    on_disk(0, 4096, 6);
    assert_int_equal(t.bench->target.tasks_seen, 1);
    t.bench->target.manners.portal_group = 3;
    cut(); /* nothing is under way: nothing to reset */
    assert_int_equal(t.bench->target.tasks_seen, 1);
    assert_int_equal(t.proofs, 3);
    finished(submit(DISK_READ, 0, 512, 0), OK);
    t.bench->target.manners.hold = t.bench->target.manners.refuse_tasks = true;
    w = submit(DISK_WRITE, 0, 4096, 7);
    bench_settle(t.bench);
    t.bench->target.manners.hold = false;
    t.bench->target.manners.portal_group = 4;
    cut();
    assert_non_null(strstr(t.dropped, "by another portal may still land"));
    pass(20 * SECOND, true);
    assert_int_equal(w->done_count, 0);
    t.bench->target.manners.refuse_tasks = false;
    finished(w, OK);
    on_disk(0, 4096, 7);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(it_finds_what_there_is),
        TEST(it_does_without_pages),
        TEST(attentions_and_busy_are_waited_for),
        TEST(another_unit_is_refused),
        TEST(a_smaller_unit_is_refused),
        TEST(a_reserved_unit_is_left_alone),
        TEST(no_unit),
        TEST(blocks_of_512),
        TEST(blocks_of_4096),
        TEST(a_small_limit),
        TEST(more_than_fits_at_once),
        TEST(what_is_none_for_this_disk),
        TEST(an_error_of_the_medium),
        TEST(good_with_too_little),
        TEST(flushes),
        TEST(discards),
        TEST(zeroes),
        TEST(memory_that_changes),
        TEST(a_cut_costs_time_only),
        TEST(a_target_that_is_away),
        TEST(a_stopped_session_goes_on),
        TEST(cancelled_requests_are_not_touched),
        TEST(cancelled_while_away),
        TEST(memory_that_is_gone),
        TEST(a_slow_command_is_aborted),
        TEST(where_nothing_is_aborted_the_session_ends),
        TEST(an_abort_that_is_lost),
        TEST(a_reset_comes_before_a_proof_elsewhere),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
