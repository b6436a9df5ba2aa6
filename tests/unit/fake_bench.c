/* SPDX-License-Identifier: MIT */
/* The world around a session and a target in memory: connections, a clock, bytes in pieces. See fake_target.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fake_target.h"

#define SECOND UINT64_C(1000000000)

static struct bench_command *of(struct iscsi_command *command)
{
    return CONTAINER_OF(command, struct bench_command, command);
}

/* ---- What the session asks of its owner ---- */

static void on_connect(void *context, uint32_t connection, const struct iscsi_portal *portal)
{
    struct bench *b = context;
    (void)portal;
    b->connection = connection;
    b->connect_asked = true;
    b->in_total = b->out_total = b->stalled_until = 0;
}

static size_t on_send(void *context, uint32_t connection, const struct iscsi_vec *vec, unsigned count)
{
    struct bench *b = context;
    size_t taken = 0;
    if (connection != b->connection || !b->up)
        abort(); /* bytes for a connection that is gone */
    for (unsigned i = 0; i < count; i++) {
        size_t part = MIN(vec[i].count, b->room - b->pending_count);
        memcpy(b->pending + b->pending_count, vec[i].bytes, part);
        b->pending_count += part;
        taken += part;
        if (part < vec[i].count)
            break;
    }
    return taken;
}

static void on_close(void *context, uint32_t connection)
{
    struct bench *b = context;
    if (connection != b->connection)
        abort();
    if (b->up)
        fake_target_disconnect(&b->target);
    b->up = b->connect_asked = false;
    b->pending_count = 0;
}

static void on_event(void *context, const struct iscsi_event *event)
{
    struct bench *b = context;
    if (b->event_count < BENCH_EVENTS)
        b->event[b->event_count++] = event->kind;
    if (event->text && event->text[0])
        snprintf(b->text, sizeof(b->text), "%s", event->text);
    if (event->kind == ISCSI_EVENT_PROVE) {
        b->prove_calls++;
        b->prove_code = event->code;
        if (b->on_prove)
            b->on_prove(b);
        else if (b->auto_resume)
            iscsi_session_resume(&b->session, b->now_ns);
    }
    if (event->kind == ISCSI_EVENT_ASYNC)
        b->async_code = event->code;
    size_t n = strlen(b->found);
    if (event->kind == ISCSI_EVENT_TARGET)
        snprintf(b->found + n, sizeof(b->found) - n, "[%s]", event->text);
    if (event->kind == ISCSI_EVENT_ADDRESS)
        snprintf(b->found + n, sizeof(b->found) - n, "%s:%u,%u;", event->portal->host, event->portal->port,
                 event->portal->group);
    if (b->on_event)
        b->on_event(b, event);
}

static bool on_may_send(void *context, const struct iscsi_command *command)
{
    struct bench *b = context;
    if (b->may_send)
        return b->may_send(b, command);
    return !b->refuse_stale || command->epoch >= b->epoch;
}

static void on_random(void *context, void *bytes, size_t count)
{
    static uint8_t next;
    (void)context;
    for (size_t i = 0; i < count; i++)
        ((uint8_t *)bytes)[i] = (uint8_t)(next += 37);
}

static const struct iscsi_ops ops = {
    .connect = on_connect, .send = on_send, .close = on_close, .event = on_event, .may_send = on_may_send,
        .random = on_random,
};

/* ---- Data of commands ---- */

static const void *give(struct iscsi_command *command, uint32_t offset, uint32_t *count, void *bounce, bool *stays)
{
    struct bench_command *c = of(command);
    if (!*count || *count > ISCSI_BOUNCE_BYTES || !range_within(offset, *count, command->write_bytes))
        abort(); /* more than there is, or than there is room for */
    if (c->stays) {
        *stays = true;
        return c->buffer + offset;
    }
    *count = MIN(*count, 1000); /* pieces */
    memcpy(bounce, c->buffer + offset, *count);
    return bounce;
}

static bool take(struct iscsi_command *command, uint32_t offset, const void *bytes, uint32_t count)
{
    struct bench_command *c = of(command);
    if (c->done_count || !range_within(offset, count, command->read_bytes))
        abort(); /* data for a command that is over, or outside of it */
    memcpy(c->buffer + offset, bytes, count);
    return true;
}

static const struct iscsi_data_ops data_ops = { .give = give, .take = take };

static void done(struct iscsi_command *command)
{
    struct bench_command *c = of(command);
    c->done_count++;
    if (c->then)
        c->then(c);
}

uint8_t bench_byte(uint8_t seed, uint32_t offset)
{
    return (uint8_t)(seed + offset * 31 + (offset >> 9) * 7);
}

static struct bench_command *prepare(struct bench *b, unsigned index, uint8_t opcode, uint32_t block, uint32_t blocks)
{
    struct bench_command *c = &b->command[index];
    free(c->buffer);
    memset(c, 0, sizeof(*c));
    c->bench = b;
    c->stays = b->stays;
    c->buffer = calloc(1, blocks * 512 + 1);
    c->command = (struct iscsi_command){ .attribute = ISCSI_SIMPLE, .data = &data_ops, .done = done, .epoch = b->epoch,
                                         .probe = b->probes };
    iscsi_lun_encode(c->command.lun, 1);
    c->command.cdb[0] = opcode;
    be64_put(c->command.cdb + 2, block);
    be32_put(c->command.cdb + 10, blocks);
    return c;
}

struct bench_command *bench_read(struct bench *b, unsigned index, uint32_t block, uint32_t blocks)
{
    struct bench_command *c = prepare(b, index, 0x88, block, blocks);
    c->command.read_bytes = blocks * 512;
    if (iscsi_submit(&b->session, &c->command, b->now_ns) != OK)
        abort();
    return c;
}

struct bench_command *bench_write(struct bench *b, unsigned index, uint32_t block, uint32_t blocks, uint8_t seed)
{
    struct bench_command *c = prepare(b, index, 0x8a, block, blocks);
    c->command.write_bytes = blocks * 512;
    for (uint32_t i = 0; i < blocks * 512; i++)
        c->buffer[i] = bench_byte(seed, i);
    if (iscsi_submit(&b->session, &c->command, b->now_ns) != OK)
        abort();
    return c;
}

/* ---- The clock and the wire ---- */

struct bench *bench_new(void)
{
    static uint8_t streams[3][FAKE_STREAM_BYTES]; /* not cleared for each of some ten thousand benches */
    struct bench *b = calloc(1, sizeof(*b));
    b->target.in = streams[0];
    b->target.out = streams[1];
    b->pending = streams[2];
    fake_target_init(&b->target);
    iscsi_wishes_default(&b->wishes);
    iscsi_settings_default(&b->settings);
    b->settings.login = (struct iscsi_login_setup){
        .initiator = "iqn.2026-11.example:alpha", .target = "iqn.2026-11.example:lun", .wishes = &b->wishes,
        .isid = { 0x80, 1, 2, 3, 4, 5 },
    };
    snprintf(b->settings.portal.host, sizeof(b->settings.portal.host), "10.0.0.5");
    b->settings.portal.port = 3260;
    b->room = FAKE_STREAM_BYTES;
    b->auto_resume = true;
    b->now_ns = 1000 * SECOND;
    return b;
}

void bench_free(struct bench *b)
{
    fake_target_disconnect(&b->target);
    for (unsigned i = 0; i < BENCH_COMMANDS; i++)
        free(b->command[i].buffer);
    free(b);
}

void bench_start(struct bench *b)
{
    iscsi_session_init(&b->session, &b->settings, &ops, b, b->slots, ARRAY_COUNT(b->slots));
    iscsi_session_start(&b->session, b->now_ns);
}

void bench_cut(struct bench *b)
{
    uint32_t connection = b->connection;
    if (!b->up)
        return;
    fake_target_disconnect(&b->target);
    b->up = false;
    iscsi_session_closed(&b->session, connection, "the target closed the connection", b->now_ns);
}

/* One move: true if something moved. */
static bool step(struct bench *b)
{
    if (b->connect_asked && !b->absent) {
        b->connect_asked = false;
        b->up = true;
        fake_target_connect(&b->target);
        iscsi_session_connected(&b->session, b->connection, b->now_ns);
        return true;
    }
    if (!b->up)
        return false;
    if (b->pending_count && !b->freeze_out) {
        size_t part = MIN(b->pending_count, b->out_chunk ? b->out_chunk : SIZE_MAX);
        if (b->cut_out && b->out_total + part >= b->cut_out) {
            part = (size_t)(b->cut_out - b->out_total);
            b->cut_out = 0;
            fake_target_input(&b->target, b->pending, part);
            bench_cut(b);
            return true;
        }
        fake_target_input(&b->target, b->pending, part);
        memmove(b->pending, b->pending + part, b->pending_count - part);
        b->pending_count -= part;
        b->out_total += part;
        iscsi_session_acknowledged(&b->session, b->connection, b->out_total, b->now_ns);
        if (b->up)
            iscsi_session_writable(&b->session, b->connection, b->now_ns);
        return true;
    }
    if (b->stall_in && b->in_total >= b->stall_in) {
        b->stall_in = 0;
        b->stalled_until = b->now_ns + b->stall_ns;
    }
    if (b->target.out_taken < b->target.out_count && b->now_ns >= b->stalled_until) {
        size_t part = MIN(b->target.out_count - b->target.out_taken, b->in_chunk ? b->in_chunk : SIZE_MAX);
        if (b->stall_in && b->in_total + part > b->stall_in)
            part = (size_t)(b->stall_in - b->in_total);
        bool cut = b->cut_in && b->in_total + part >= b->cut_in;
        if (cut)
            part = (size_t)(b->cut_in - b->in_total);
        uint8_t *piece = malloc(part + 1); /* so that a sanitizer sees the end */
        memcpy(piece, b->target.out + b->target.out_taken, part);
        if (b->flip_in && b->flip_in > b->in_total && b->flip_in <= b->in_total + part) {
            piece[b->flip_in - b->in_total - 1] ^= 0x10;
            b->flip_in = 0;
        }
        b->target.out_taken += part;
        b->in_total += part;
        /* Now and then as what came together with what comes next. */
        bool more = b->target.out_taken < b->target.out_count && !cut && !b->stall_in && b->in_total & 1;
        iscsi_session_received(&b->session, b->connection, piece, part, more, b->now_ns);
        free(piece);
        if (cut) {
            b->cut_in = 0;
            bench_cut(b);
        }
        return true;
    }
    return false;
}

void bench_settle(struct bench *b)
{
    while (step(b))
        ;
}

/* When something happens next, if nothing moves. */
static uint64_t next_time(const struct bench *b)
{
    uint64_t next = iscsi_session_deadline(&b->session);
    return b->stalled_until > b->now_ns ? MIN(next, b->stalled_until) : next;
}

void bench_pass(struct bench *b, uint64_t ns)
{
    uint64_t end = b->now_ns + ns;
    for (;;) {
        bench_settle(b);
        uint64_t next = next_time(b);
        if (next > end)
            break;
        b->now_ns = MAX(b->now_ns, next);
        iscsi_session_tick(&b->session, b->now_ns);
    }
    b->now_ns = end;
    iscsi_session_tick(&b->session, b->now_ns);
    bench_settle(b);
}

bool bench_idle(const struct bench *b)
{
    for (unsigned i = 0; i < BENCH_COMMANDS; i++)
        if (b->command[i].bench && !b->command[i].done_count)
            return false;
    return true;
}

/* Until all commands are done; false: 200 s were not enough. */
bool bench_run(struct bench *b)
{
    uint64_t end = b->now_ns + 200 * SECOND;
    for (;;) {
        bench_settle(b);
        if (bench_idle(b))
            return true;
        uint64_t next = next_time(b);
        if (next >= end)
            return false;
        b->now_ns = MAX(b->now_ns, next);
        iscsi_session_tick(&b->session, b->now_ns);
    }
}

unsigned bench_events(const struct bench *b, enum iscsi_event_kind kind)
{
    unsigned n = 0;
    for (unsigned i = 0; i < b->event_count; i++)
        n += b->event[i] == kind;
    return n;
}
