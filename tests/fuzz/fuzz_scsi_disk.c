/* SPDX-License-Identifier: MIT */
/*
 * Fuzzes a whole disk above a session with what a logical unit could answer: from the first question of the proof on, each
 * command gets the answer of a good unit, that answer with bytes changed or cut off, a status with sense data, or none,
 * while requests come, are cancelled, time passes and connections end.
 *
 * Input: steps. A byte whose low three bits say what is done (read, write, flush, discard, zero, cancel, let time pass, end
 * the connection); for requests two more, where and how much. The unit takes its behaviour from the same bytes as it needs
 * it: one of what kind, then what that kind needs. After the last byte it is a good unit.
 *
 * What must hold: no access outside of a request's data, every request ends once; a write that was answered is on the
 * disk, a read gives what is there (unless two overlap); the target finds nothing wrong; all memory that was lent comes back.
 */
#include <stdlib.h>
#include <string.h>

#include "fake_target.h"
#include "net/scsi/scsi_disk.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define SECOND UINT64_C(1000000000)
#define REQUESTS 48u
#define PIECES 4u

struct request {
    struct disk_request r;
    uint8_t *buffer;
    unsigned done_count;
    bool alone; /* no other request has touched what it touches, from its begin to its end */
};

static struct {
    struct bench *bench;
    struct scsi_disk disk;
    struct iscsi_ops ops;
    const struct iscsi_ops *bench_ops;
    struct request request[REQUESTS];
    unsigned count;
    bool strays; /* what was cancelled may still land */
    struct scsi_disk_piece pieces[PIECES];
    uint8_t memory[PIECES][SCSI_DISK_PIECE_BYTES];
    const uint8_t *input;
    size_t left;
} t;

static void require(bool condition)
{
    if (!condition)
        abort();
}

static uint8_t next(void)
{
    if (!t.left)
        return 0;
    t.left--;
    return *t.input++;
}

/* ---- The unit ---- */

static void sense(struct fake_target *target, struct fake_task *task, uint8_t key, uint8_t asc, uint8_t ascq)
{
    uint8_t bytes[18] = { 0x70, 0, key, 0, 0, 0, 0, 10, 0, 0, 0, 0, asc, ascq };
    fake_target_status(target, task, SCSI_CHECK_CONDITION, bytes);
}

/* A good unit's answer to a question; 0: it is none, or the unit does not have it. */
static uint32_t answer(const uint8_t *cdb, uint8_t data[96])
{
    memset(data, 0, 96);
    switch (cdb[0]) {
    case 0x12:
        if (!(cdb[1] & 1)) {
            memcpy(data, (uint8_t[]){ 0, 0, 6, 2, 31, 0, 0, 0 }, 8);
            memcpy(data + 8, "FAKE    MEMORY DISK     0001", 28);
            return 36;
        }
        data[1] = cdb[2];
        data[3] = cdb[2] == 0xb0 ? 60 : cdb[2] == 0x83 ? 12 : 4;
        if (cdb[2] == 0x00)
            memcpy(data + 4, (uint8_t[]){ 0x00, 0x83, 0xb0, 0xb2 }, 4);
        else if (cdb[2] == 0x83)
            memcpy(data + 4, (uint8_t[]){ 1, 3, 0, 8, 0x50, 0, 0, 0, 0, 0, 0, 1 }, 12);
        else if (cdb[2] == 0xb2)
            memcpy(data + 4, (uint8_t[]){ 0, 0xc0, 2, 0 }, 4);
        else if (cdb[2] != 0xb0)
            return 0;
        if (cdb[2] == 0xb0) {
            be32_put(data + 8, 64);
            be32_put(data + 20, 256);
            be32_put(data + 24, 1);
        }
        return data[3] + 4u;
    case 0x1a:
        data[0] = 3;
        data[2] = 0x10;
        return 4;
    case 0x5e:
        be32_put(data, 7);
        return 8;
    case 0x9e:
        be64_put(data, FAKE_DISK_BYTES / 512 - 1);
        be32_put(data + 8, 512);
        return 32;
    default:
        return 0;
    }
}

static void carry_out(struct fake_target *target, struct fake_task *task)
{
    uint64_t block_bytes = t.disk.info.block_bytes, at = be64_get(task->cdb + 2) * block_bytes;
    uint64_t bytes = be32_get(task->cdb + 10) * block_bytes;
    uint8_t data[96];
    uint32_t count = answer(task->cdb, data);

    if (count) {
        fake_target_data(target, task, data, count);
        return;
    }
    if (task->cdb[0] == 0x42 && task->expected == 24) {
        at = be64_get(task->data + 8) * block_bytes;
        bytes = be32_get(task->data + 16) * block_bytes;
    }
    bool data_command = task->cdb[0] == 0x88 || task->cdb[0] == 0x8a || task->cdb[0] == 0x93 || task->cdb[0] == 0x42;
    if (data_command && !range_within(at, bytes, FAKE_DISK_BYTES)) {
        sense(target, task, 5, 0x21, 0); /* it has told a size that it has not */
    } else if (task->cdb[0] == 0x88) {
        fake_target_data(target, task, target->disk + at, (uint32_t)bytes);
    } else if (data_command || task->cdb[0] == 0x00 || task->cdb[0] == 0x91) {
        if (task->cdb[0] == 0x8a)
            memcpy(target->disk + at, task->data, bytes);
        else if (data_command)
            memset(target->disk + at, 0, bytes);
        fake_target_status(target, task, 0, NULL);
    } else {
        sense(target, task, 5, 0x20, 0);
    }
}

static void scsi(struct fake_target *target, struct fake_task *task)
{
    static const uint8_t statuses[] = { 4, 8, 0x18, 0x28, 0x30, 0x40, 0x10, 0x14, 0x22, 0xff };
    uint8_t data[96], how = next();
    uint32_t count;

    switch (how >> 4) {
    case 0xf: /* no answer */
        break;
    case 0xe:
        fake_target_status(target, task, statuses[how % 16 % sizeof statuses], NULL);
        break;
    case 0xd:
    case 0xc: {
        uint8_t key = next() & 15, asc = next();
        sense(target, task, key, asc, next());
        break;
    }
    case 0xb:
    case 0xa: /* other bytes, and fewer */
        if ((count = answer(task->cdb, data))) {
            for (unsigned i = how & 7; i--;) {
                uint8_t at = next();
                data[at % sizeof data] = next();
            }
            fake_target_data(target, task, data, how & 8 ? next() % (count + 1) : count);
            break;
        }
        carry_out(target, task);
        break;
    default:
        carry_out(target, task);
    }
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
    iscsi_session_resume(&t.bench->session, t.bench->now_ns);
}

static void drop(void *context, const char *why)
{
    (void)context;
    require(why[0]);
    iscsi_session_drop(&t.bench->session, why, t.bench->now_ns);
}

static void news(void *context, unsigned what, const char *text)
{
    (void)context;
    require(what || text[0]);
}

static const struct scsi_disk_ops disk_ops = { .proved = proved, .drop = drop, .news = news };

static bool get(struct disk_request *r, uint64_t at, void *bytes, uint32_t count)
{
    struct request *request = r->owner;
    require(!request->done_count && range_within(at, count, r->bytes));
    memcpy(bytes, request->buffer + at, count);
    return true;
}

static bool put(struct disk_request *r, uint64_t at, const void *bytes, uint32_t count)
{
    struct request *request = r->owner;
    require(!request->done_count && range_within(at, count, r->bytes));
    memcpy(request->buffer + at, bytes, count);
    return true;
}

static void done(struct disk_request *r, enum status status)
{
    struct request *request = r->owner;
    require(!request->done_count++);
    if (status == OK && request->alone && !t.strays && (r->op == DISK_WRITE || r->op == DISK_READ) &&
        range_within(r->offset, r->bytes, FAKE_DISK_BYTES))
        require(!memcmp(t.bench->target.disk + r->offset, request->buffer, r->bytes));
}

static void submit(enum disk_op op, uint64_t offset, uint64_t bytes)
{
    struct request *request = &t.request[t.count++];
    request->buffer = malloc(bytes + 1);
    for (uint64_t i = 0; i < bytes; i++)
        request->buffer[i] = bench_byte((uint8_t)t.count, (uint32_t)i);
    request->alone = true;
    for (struct request *other = t.request; other != request; other++)
        if (!other->done_count && range_overlaps(offset, bytes, other->r.offset, other->r.bytes))
            other->alone = request->alone = false;
    request->r = (struct disk_request){ .op = op, .offset = offset, .bytes = bytes, .get = get, .put = put, .done = done,
                                        .owner = request, .fua = bytes & 512 };
    scsi_disk_submit(&t.disk, &request->r, t.bench->now_ns);
}

/* As long as something is to happen until then, and the unit's answers are not worth endless time. */
static void pass(uint64_t ns)
{
    uint64_t end = t.bench->now_ns + ns;

    bench_settle(t.bench);
    for (unsigned steps = 0; t.bench->now_ns < end && steps < 200; steps++) {
        uint64_t at = MIN(MIN(scsi_disk_deadline(&t.disk), iscsi_session_deadline(&t.bench->session)), end);
        t.bench->now_ns = MAX(t.bench->now_ns, at);
        iscsi_session_tick(&t.bench->session, t.bench->now_ns);
        scsi_disk_tick(&t.disk, t.bench->now_ns);
        bench_settle(t.bench);
    }
}

static void step(void)
{
    static const enum disk_op ops[] = { DISK_READ, DISK_WRITE, DISK_FLUSH, DISK_DISCARD, DISK_WRITE_ZEROES };
    const struct scsi_disk_info *info = &t.disk.info;
    uint8_t what = next();

    if (what % 8 < ARRAY_COUNT(ops)) {
        uint64_t where = next(), blocks = next() % 100u;
        enum disk_op op = ops[what % 8];
        if (!info->known || t.count == REQUESTS)
            return;
        require(info->block_bytes && info->bytes && info->transfer_max_blocks && info->unmap_max_blocks && info->same_max_blocks);
        uint64_t all = info->bytes / info->block_bytes;
        uint64_t first = what & 8 ? all - 1 - MIN(all - 1, where) : MIN(where * 8, all - 1);
        blocks = MIN(MIN(blocks, all - first), MIB / info->block_bytes);
        submit(op, op == DISK_FLUSH ? 0 : first * info->block_bytes, op == DISK_FLUSH ? 0 : blocks * info->block_bytes);
        if (what & 16)
            bench_settle(t.bench);
    } else if (what % 8 == 5) {
        t.strays |= t.disk.busy != 0;
        scsi_disk_cancel(&t.disk, t.bench->now_ns);
        for (unsigned i = 0; i < t.count; i++)
            require(t.request[i].done_count == 1);
    } else if (what % 8 == 6) {
        pass((what >> 3) * SECOND);
    } else {
        bench_settle(t.bench);
        bench_cut(t.bench);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    unsigned pieces = 0;

    memset(&t, 0, sizeof t);
    t.input = data;
    t.left = MIN(size, 2000u);
    t.bench = bench_new();
    t.bench->auto_resume = false;
    t.bench->target.manners.scsi = scsi;
    bench_start(t.bench);
    t.bench_ops = t.bench->session.ops;
    t.ops = *t.bench_ops;
    t.ops.event = on_event;
    t.ops.may_send = may_send;
    t.bench->session.ops = &t.ops;
    scsi_disk_init(&t.disk, &t.bench->session, 1, &disk_ops, NULL);
    for (unsigned i = 0; i < PIECES; i++) {
        t.pieces[i].memory = t.memory[i];
        scsi_disk_lend(&t.disk, &t.pieces[i]);
    }
    bench_settle(t.bench);
    while (t.left)
        step();
    pass(20 * SECOND);
    scsi_disk_cancel(&t.disk, t.bench->now_ns);
    iscsi_session_stop(&t.bench->session, t.bench->now_ns);
    pass(60 * SECOND);
    require(t.bench->session.state == ISCSI_IDLE);
    for (unsigned i = 0; i < t.count; i++) {
        require(t.request[i].done_count == 1);
        free(t.request[i].buffer);
    }
    for (const struct scsi_disk_piece *p = t.disk.free_pieces; p; p = p->next)
        pieces++;
    require(!t.disk.busy && pieces == PIECES && !t.bench->target.complaints);
    bench_free(t.bench);
    return 0;
}
