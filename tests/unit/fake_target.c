/* SPDX-License-Identifier: MIT */
/* The target in memory: framing, commands, data both ways. See fake_target.h. */
#include "fake_target.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fake_unit.h"
#include "kernel/crc32c.h"

void fake_target_complain(struct fake_target *t, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    if (!t->complaints++)
        vsnprintf(t->complaint, sizeof(t->complaint), format, arguments);
    va_end(arguments);
}

void fake_target_init(struct fake_target *t)
{
    t->manners.want = (struct iscsi_parameters){
        .header_digest = 1, .data_digest = 1, .max_recv_bytes = 65536, .initial_r2t = 0, .immediate_data = 1,
        .max_burst_bytes = 131072, .first_burst_bytes = 32768, .max_outstanding_r2t = 4, .data_pdu_in_order = 1,
        .data_sequence_in_order = 1,
    };
    t->manners.window = 16;
    t->manners.portal_group = 1;
    t->manners.targets = "";
}

static void forget_tasks(struct fake_target *t)
{
    for (unsigned i = 0; i < FAKE_TASKS; i++) {
        free(t->task[i].data);
        memset(&t->task[i], 0, sizeof(t->task[i]));
    }
}

void fake_target_connect(struct fake_target *t)
{
    t->connected = true;
    t->full = t->closing = t->discovery = t->extra_sent = false;
    t->in_count = t->out_count = t->out_taken = 0;
    t->stage = t->chap_step = 0;
    t->text_count = t->text_sent = 0;
    t->their_challenge_bytes = 0;
    t->stat_sn = t->manners.first_stat_sn;
    memset(&t->agreed, 0, sizeof(t->agreed));
    t->agreed.max_send_bytes = 8192;
    t->agreed.max_burst_bytes = 262144;
    forget_tasks(t); /* session reinstatement: all tasks end */
}

void fake_target_disconnect(struct fake_target *t)
{
    t->connected = false;
    free(t->swapped);
    t->swapped = NULL;
    forget_tasks(t);
}

/* ---- Out ---- */

static void append(struct fake_target *t, const void *bytes, size_t count)
{
    if (t->out_taken == t->out_count)
        t->out_taken = t->out_count = 0;
    if (count > FAKE_STREAM_BYTES - t->out_count)
        abort(); /* the test is too large */
    memcpy(t->out + t->out_count, bytes, count);
    t->out_count += count;
}

/* What one PDU, which begins at `start` of the stream, is to suffer. */
static void make_trouble(struct fake_target *t, size_t start)
{
    size_t bytes = t->out_count - start;
    if (t->swapped) {
        uint8_t *late = t->swapped;
        t->swapped = NULL;
        append(t, late, t->swapped_bytes);
        free(late);
        return;
    }
    if (!t->full || ++t->full_pdus != t->manners.trouble_at || t->manners.trouble == FAKE_PLAIN)
        return;
    if (t->manners.trouble == FAKE_SWAP) {
        t->swapped = malloc(bytes);
        t->swapped_bytes = bytes;
        memcpy(t->swapped, t->out + start, bytes);
    }
    t->out_count = start;
}

void fake_target_send(struct fake_target *t, union iscsi_bhs *bhs, const void *data, uint32_t bytes, bool stat_sn)
{
    static uint8_t body[FAKE_DISK_BYTES + 64];
    static const uint8_t zero[4];
    uint8_t digest[4];
    be32_put(bhs->nop_in.stat_sn, t->stat_sn);
    if (stat_sn)
        t->stat_sn++;
    be32_put(bhs->nop_in.exp_cmd_sn, t->cmd_sn);
    be32_put(bhs->nop_in.max_cmd_sn, t->cmd_sn + t->manners.window - 1);
    if (bytes)
        memcpy(body, data, bytes);
    be24_put(bhs->header.data_length, bytes);
    if (t->manners.mangle)
        t->manners.mangle(t, bhs, body, &bytes);
    t->pdus_out++;
    append(t, bhs, ISCSI_BHS_BYTES);
    size_t start = t->out_count - ISCSI_BHS_BYTES;
    if (t->full && t->agreed.header_digest) {
        le32_put(digest, crc32c(0, bhs, ISCSI_BHS_BYTES));
        append(t, digest, 4);
    }
    if (bytes) {
        append(t, body, bytes);
        append(t, zero, -bytes & 3);
    }
    if (bytes && t->full && t->agreed.data_digest) {
        le32_put(digest, crc32c(crc32c(0, body, bytes), zero, -bytes & 3));
        append(t, digest, 4);
    }
    make_trouble(t, start);
}

void fake_target_ping(struct fake_target *t)
{
    union iscsi_bhs bhs;
    iscsi_bhs_init(&bhs, ISCSI_NOP_IN, ISCSI_FINAL, ISCSI_TAG_NONE);
    be32_put(bhs.nop_in.ttt, 0x4000 + ++t->nop_ins);
    iscsi_lun_encode(bhs.nop_in.lun, 5 + t->nop_ins % 3);
    fake_target_send(t, &bhs, NULL, 0, false);
}

static void finish(struct fake_target *t, struct fake_task *task, uint8_t status, const uint8_t *sense,
                   uint32_t residual)
{
    union iscsi_bhs bhs;
    uint8_t data[20] = { 0, 18 };
    iscsi_bhs_init(&bhs, ISCSI_SCSI_RESPONSE, ISCSI_FINAL | (residual ? ISCSI_RESIDUAL_UNDERFLOW : 0), task->itt);
    bhs.response.status = status;
    be32_put(bhs.response.residual, residual);
    if (sense)
        memcpy(data + 2, sense, 18);
    task->active = false;
    free(task->data);
    task->data = NULL;
    fake_target_send(t, &bhs, data, sense ? sizeof(data) : 0, true);
}

static void check_condition(struct fake_target *t, struct fake_task *task, uint8_t key, uint8_t asc, uint8_t ascq)
{
    uint8_t sense[18] = { 0x70, 0, key, 0, 0, 0, 0, 10, 0, 0, 0, 0, asc, ascq };
    finish(t, task, 2, sense, task->expected);
}

/* Sends `count` bytes as Data-In; the last one has the status unless it goes apart. */
static void send_data(struct fake_target *t, struct fake_task *task, const uint8_t *bytes, uint32_t count)
{
    uint32_t step = MIN(t->agreed.max_send_bytes, t->manners.data_in_bytes ? t->manners.data_in_bytes : UINT32_MAX);
    uint32_t burst = t->agreed.max_burst_bytes, data_sn = 0, residual = task->expected - count;
    bool backwards = t->manners.reverse && !t->agreed.data_pdu_in_order, apart = t->manners.status_apart || !count;
    for (uint32_t at = 0; at < count; at += burst) {
        uint32_t in_burst = MIN(burst, count - at), pieces = (in_burst + step - 1) / step;
        for (uint32_t i = 0; i < pieces; i++) {
            uint32_t piece = backwards ? pieces - 1 - i : i, offset = at + piece * step;
            uint32_t length = MIN(step, at + in_burst - offset);
            bool end = i == pieces - 1, last = end && at + in_burst == count && !apart;
            union iscsi_bhs bhs;
            iscsi_bhs_init(&bhs, ISCSI_DATA_IN,
                           (end ? ISCSI_FINAL : 0) | (last ? ISCSI_DATA_STATUS | (residual
                                                                                  ? ISCSI_RESIDUAL_UNDERFLOW : 0) : 0),
                           task->itt);
            be32_put(bhs.data_in.ttt, ISCSI_TAG_NONE);
            be32_put(bhs.data_in.data_sn, data_sn++);
            be32_put(bhs.data_in.offset, offset);
            be32_put(bhs.data_in.residual, last ? residual : 0);
            if (last) {
                task->active = false;
                free(task->data);
                task->data = NULL;
            }
            fake_target_send(t, &bhs, bytes + offset, length, last);
        }
    }
    if (apart)
        finish(t, task, 0, NULL, residual);
}

static void execute_by_unit(struct fake_target *t, struct fake_task *task)
{
    static uint8_t in[FAKE_DISK_BYTES];
    uint8_t sense[18];
    uint32_t bytes;
    bool writes = task->flags & ISCSI_COMMAND_WRITE;
    unsigned status = fake_unit_execute(t->unit, 0, task->cdb, task->data, writes ? task->expected : 0, in,
                                        writes ? 0 : task->expected, &bytes, sense);
    if (status == 0 && !writes && task->expected)
        send_data(t, task, in, bytes);
    else
        finish(t, task, (uint8_t)status, status == 2 ? sense : NULL, status ? task->expected : 0);
}

void fake_target_status(struct fake_target *t, struct fake_task *task, uint8_t status, const uint8_t *sense)
{
    finish(t, task, status, sense, status ? task->expected : 0);
}

void fake_target_data(struct fake_target *t, struct fake_task *task, const uint8_t *bytes, uint32_t count)
{
    send_data(t, task, bytes, MIN(count, task->expected));
}

static void execute(struct fake_target *t, struct fake_task *task)
{
    uint64_t at = be64_get(task->cdb + 2) * 512, bytes = be32_get(task->cdb + 10) * 512ull;
    if (t->manners.hold && !task->held) {
        task->held = task->done = true;
        return;
    }
    if (t->manners.mute)
        return;
    if (t->unit) {
        execute_by_unit(t, task);
        return;
    }
    if (t->manners.scsi) {
        t->manners.scsi(t, task);
        return;
    }
    switch (task->cdb[0]) {
    case 0x00:
        finish(t, task, 0, NULL, 0);
        return;
    case 0x12: {
        uint8_t data[36] = { 0, 0, 6, 2, 31 };
        memcpy(data + 8, "FAKE    MEMORY DISK     0001", 28);
        send_data(t, task, data, MIN(36, task->expected));
        return;
    }
    case 0x88:
    case 0x8a:
        if (!range_within(at, bytes, FAKE_DISK_BYTES)) {
            check_condition(t, task, 5, 0x21, 0);
        } else if (task->cdb[0] == 0x88) {
            send_data(t, task, t->disk + at, (uint32_t)MIN(bytes, task->expected));
        } else {
            memcpy(t->disk + at, task->data, MIN(bytes, task->expected));
            finish(t, task, 0, NULL, 0);
        }
        return;
    default:
        check_condition(t, task, 5, 0x20, 0);
    }
}

void fake_target_release(struct fake_target *t, bool backwards)
{
    for (unsigned i = 0; i < FAKE_TASKS; i++) {
        struct fake_task *task = &t->task[backwards ? FAKE_TASKS - 1 - i : i];
        if (task->active && task->done && task->held) {
            task->done = false;
            execute(t, task);
        }
    }
}

/* ---- Commands and data in ---- */

static struct fake_task *find(struct fake_target *t, uint32_t itt)
{
    for (unsigned i = 0; i < FAKE_TASKS; i++)
        if (t->task[i].active && t->task[i].itt == itt)
            return &t->task[i];
    return NULL;
}

/* Asks for what is still missing, as many pieces at once as is agreed. */
static void ask(struct fake_target *t, struct fake_task *task)
{
    uint32_t step = MIN(t->agreed.max_burst_bytes, t->manners.r2t_bytes ? t->manners.r2t_bytes : UINT32_MAX);
    uint32_t first = task->unsolicited_offset, total = task->expected - first;
    bool backwards = t->manners.reverse && !t->agreed.data_sequence_in_order;
    while (task->r2t_count < MIN(t->agreed.max_outstanding_r2t, FAKE_R2TS) && task->asked < total) {
        uint32_t length = MIN(step, total - task->asked);
        uint32_t offset = backwards ? task->expected - task->asked - length : first + task->asked;
        struct fake_r2t *r2t = &task->r2t[task->r2t_count++];
        *r2t = (struct fake_r2t){ .ttt = ++t->ttt, .offset = offset, .bytes = length };
        task->asked += length;
        t->r2ts++;
        t->most_outstanding = MAX(t->most_outstanding, task->r2t_count);
        union iscsi_bhs bhs;
        iscsi_bhs_init(&bhs, ISCSI_R2T, ISCSI_FINAL, task->itt);
        memcpy(bhs.r2t.lun, task->lun, 8);
        be32_put(bhs.r2t.ttt, r2t->ttt);
        be32_put(bhs.r2t.r2t_sn, task->r2t_sn++);
        be32_put(bhs.r2t.offset, offset);
        be32_put(bhs.r2t.desired_length, length);
        fake_target_send(t, &bhs, NULL, 0, false);
    }
}

static void proceed(struct fake_target *t, struct fake_task *task)
{
    if (task->unsolicited_left || task->done)
        return;
    if (task->flags & ISCSI_COMMAND_WRITE && task->got < task->expected)
        ask(t, task);
    else
        execute(t, task);
}

static void take_cmd_sn(struct fake_target *t, const union iscsi_bhs *bhs)
{
    uint32_t sn = be32_get(bhs->command.cmd_sn);
    if (sn != t->cmd_sn)
        fake_target_complain(t, "CmdSN %u where %u was due", sn, t->cmd_sn);
    if (bhs->header.opcode & ISCSI_IMMEDIATE)
        return;
    t->cmd_sn++;
}

static void command(struct fake_target *t, const union iscsi_bhs *bhs, const uint8_t *data, uint32_t bytes)
{
    struct fake_task *task = NULL;
    unsigned active = 0;
    take_cmd_sn(t, bhs);
    if (find(t, iscsi_itt(bhs)))
        fake_target_complain(t, "tag %08x is in use", iscsi_itt(bhs));
    for (unsigned i = 0; i < FAKE_TASKS; i++) {
        if (!t->task[i].active)
            task = &t->task[i];
        active += t->task[i].active;
    }
    if (active >= t->manners.window + 8 || !task) {
        fake_target_complain(t, "more commands than the window allows");
        return;
    }
    memset(task, 0, sizeof(*task));
    task->active = true;
    task->itt = iscsi_itt(bhs);
    task->cmd_sn = be32_get(bhs->command.cmd_sn);
    task->flags = bhs->command.flags;
    task->expected = be32_get(bhs->command.expected_length);
    memcpy(task->lun, bhs->command.lun, 8);
    memcpy(task->cdb, bhs->command.cdb, 16);
    t->commands++;
    t->immediate_bytes += bytes;
    if (task->flags & ISCSI_COMMAND_WRITE) {
        uint32_t first = MIN(task->expected, t->agreed.first_burst_bytes);
        task->data = calloc(1, task->expected + 1);
        if (bytes && !t->agreed.immediate_data)
            fake_target_complain(t, "immediate data without leave");
        if (bytes > first)
            fake_target_complain(t, "%u bytes of immediate data, FirstBurstLength %u", bytes, first);
        else if (bytes)
            memcpy(task->data, data, bytes);
        task->got = task->unsolicited_offset = bytes;
        if (!(task->flags & ISCSI_FINAL)) {
            if (t->agreed.initial_r2t)
                fake_target_complain(t, "unsolicited data without leave");
            task->unsolicited_left = first - bytes;
            if (!task->unsolicited_left)
                fake_target_complain(t, "no F bit, and nothing is left to send");
        }
    } else if (bytes || !(task->flags & ISCSI_FINAL)) {
        fake_target_complain(t, "a command that writes nothing has data, or no F bit");
    }
    proceed(t, task);
}

static void data_out(struct fake_target *t, const union iscsi_bhs *bhs, const uint8_t *data, uint32_t bytes)
{
    const struct iscsi_data_out *out = &bhs->data_out;
    struct fake_task *task = find(t, iscsi_itt(bhs));
    uint32_t ttt = be32_get(out->ttt), offset = be32_get(out->offset), sn = be32_get(out->data_sn);
    bool final = out->flags & ISCSI_FINAL;
    if (!task)
        return; /* it was aborted, or answered early */
    if (memcmp(out->lun, task->lun, 8))
        fake_target_complain(t, "Data-Out for another LUN than its command's");
    if (ttt == ISCSI_TAG_NONE) {
        t->unsolicited_pdus++;
        if (bytes > task->unsolicited_left || offset != task->unsolicited_offset || sn != task->unsolicited_sn++ ||
            final != (bytes == task->unsolicited_left)) {
            fake_target_complain(t, "unsolicited data: %u bytes at %u, DataSN %u, F %d", bytes, offset, sn, final);
            return;
        }
        memcpy(task->data + offset, data, bytes);
        task->unsolicited_left -= bytes;
        task->unsolicited_offset += bytes;
        task->got += bytes;
        if (final)
            proceed(t, task);
        return;
    }
    struct fake_r2t *r2t = &task->r2t[0]; /* in the order of asking (11.8) */
    if (!task->r2t_count || ttt != r2t->ttt || offset != r2t->offset + r2t->got || sn != r2t->data_sn++ ||
        bytes > r2t->bytes - r2t->got || final != (bytes == r2t->bytes - r2t->got)) {
        fake_target_complain(t, "solicited data: %u bytes at %u, DataSN %u, F %d, tag %08x", bytes, offset, sn, final,
                             ttt);
        return;
    }
    memcpy(task->data + offset, data, bytes);
    r2t->got += bytes;
    task->got += bytes;
    if (final) {
        memmove(r2t, r2t + 1, --task->r2t_count * sizeof(*r2t));
        proceed(t, task);
    }
}

static void task_request(struct fake_target *t, const union iscsi_bhs *bhs)
{
    union iscsi_bhs answer;
    unsigned function = bhs->task_request.function & 0x7f, response = ISCSI_TASK_COMPLETE;
    take_cmd_sn(t, bhs);
    t->tasks_seen++;
    if (t->manners.refuse_tasks) {
        response = ISCSI_TASK_REJECTED;
    } else if (function == ISCSI_ABORT_TASK) {
        struct fake_task *task = find(t, be32_get(bhs->task_request.referenced_tag));
        if (!task) {
            response = ISCSI_TASK_NO_TASK;
        } else {
            if (task->cmd_sn != be32_get(bhs->task_request.ref_cmd_sn))
                fake_target_complain(t, "RefCmdSN is not the task's CmdSN");
            free(task->data);
            memset(task, 0, sizeof(*task));
        }
    } else {
        for (unsigned i = 0; i < FAKE_TASKS; i++)
            if (function >= ISCSI_TARGET_WARM_RESET || !memcmp(t->task[i].lun, bhs->task_request.lun, 8)) {
                free(t->task[i].data);
                memset(&t->task[i], 0, sizeof(t->task[i]));
            }
    }
    iscsi_bhs_init(&answer, ISCSI_TASK_RESPONSE, ISCSI_FINAL, iscsi_itt(bhs));
    answer.task_response.response = (uint8_t)response;
    fake_target_send(t, &answer, NULL, 0, true);
}

static void nop_out(struct fake_target *t, const union iscsi_bhs *bhs)
{
    union iscsi_bhs answer;
    take_cmd_sn(t, bhs);
    if (iscsi_itt(bhs) == ISCSI_TAG_NONE) {
        if (be32_get(bhs->nop_out.ttt) < 0x4000 || be32_get(bhs->nop_out.ttt) > 0x4000 + t->nop_ins)
            fake_target_complain(t, "NOP-Out with a tag that was not given");
        else if (iscsi_lun_decode(bhs->nop_out.lun) != (int)(5 + (be32_get(bhs->nop_out.ttt) - 0x4000) % 3))
            fake_target_complain(t, "NOP-Out with another LUN than its NOP-In");
        t->pings_answered++;
        return;
    }
    if (t->manners.mute)
        return;
    iscsi_bhs_init(&answer, ISCSI_NOP_IN, ISCSI_FINAL, iscsi_itt(bhs));
    be32_put(answer.nop_in.ttt, ISCSI_TAG_NONE);
    fake_target_send(t, &answer, NULL, 0, true);
}

static void text_request(struct fake_target *t, const union iscsi_bhs *bhs, uint32_t bytes)
{
    union iscsi_bhs answer;
    take_cmd_sn(t, bhs);
    if (bytes)
        t->text_sent = 0;
    size_t rest = t->manners.targets_bytes - t->text_sent;
    size_t most = MIN(t->manners.text_chunk ? t->manners.text_chunk : SIZE_MAX, (size_t)t->agreed.max_send_bytes);
    uint32_t part = (uint32_t)MIN(rest, most);
    bool last = part == rest;
    iscsi_bhs_init(&answer, ISCSI_TEXT_RESPONSE, last ? ISCSI_FINAL : ISCSI_CONTINUE, iscsi_itt(bhs));
    be32_put(answer.text_response.ttt, last ? ISCSI_TAG_NONE : 0x99);
    if (t->text_sent && be32_get(bhs->text_request.ttt) != 0x99)
        fake_target_complain(t, "text goes on without its tag");
    t->text_sent += part;
    fake_target_send(t, &answer, t->manners.targets + t->text_sent - part, part, true);
}

static void handle(struct fake_target *t, const union iscsi_bhs *bhs, const uint8_t *data, uint32_t bytes)
{
    t->pdus_in++;
    if (!t->full) {
        if (iscsi_opcode(bhs) != ISCSI_LOGIN_REQUEST)
            fake_target_complain(t, "%s before the login", iscsi_opcode_name(bhs->header.opcode));
        else
            fake_target_login(t, bhs, data, bytes);
        return;
    }
    if (t->closing && iscsi_opcode(bhs) != ISCSI_DATA_OUT)
        fake_target_complain(t, "%s after the logout", iscsi_opcode_name(bhs->header.opcode));
    if (serial_before(t->stat_sn, be32_get(bhs->command.exp_stat_sn)))
        fake_target_complain(t, "ExpStatSN %u is ahead of StatSN %u", be32_get(bhs->command.exp_stat_sn), t->stat_sn);
    if (bytes > t->manners.want.max_recv_bytes)
        fake_target_complain(t, "%u bytes in a PDU", bytes);
    switch (iscsi_opcode(bhs)) {
    case ISCSI_SCSI_COMMAND: command(t, bhs, data, bytes); break;
    case ISCSI_DATA_OUT: data_out(t, bhs, data, bytes); break;
    case ISCSI_TASK_REQUEST: task_request(t, bhs); break;
    case ISCSI_NOP_OUT: nop_out(t, bhs); break;
    case ISCSI_TEXT_REQUEST: text_request(t, bhs, bytes); break;
    case ISCSI_LOGOUT_REQUEST: {
        union iscsi_bhs answer;
        take_cmd_sn(t, bhs);
        t->logouts++;
        t->closing = true;
        if (t->manners.mute)
            break;
        iscsi_bhs_init(&answer, ISCSI_LOGOUT_RESPONSE, ISCSI_FINAL, iscsi_itt(bhs));
        be16_put(answer.logout_response.time_to_wait, (uint16_t)t->manners.logout_wait);
        fake_target_send(t, &answer, NULL, 0, true);
        break;
    }
    default:
        fake_target_complain(t, "%s is not for a target", iscsi_opcode_name(bhs->header.opcode));
    }
}

void fake_target_input(struct fake_target *t, const uint8_t *bytes, size_t count)
{
    if (count > FAKE_STREAM_BYTES - t->in_count)
        abort();
    memcpy(t->in + t->in_count, bytes, count);
    t->in_count += count;
    for (;;) {
        union iscsi_bhs bhs;
        uint32_t head = ISCSI_BHS_BYTES, tail = 0;
        if (t->in_count < ISCSI_BHS_BYTES)
            return;
        memcpy(&bhs, t->in, sizeof(bhs));
        uint32_t length = iscsi_data_length(&bhs);
        if (t->full && t->agreed.header_digest)
            head += 4;
        if (t->full && t->agreed.data_digest && length)
            tail = 4;
        size_t total = head + length + (-length & 3) + tail;
        if (t->in_count < total)
            return;
        if (head > ISCSI_BHS_BYTES && le32_get(t->in + ISCSI_BHS_BYTES) != crc32c(0, t->in, ISCSI_BHS_BYTES))
            fake_target_complain(t, "a wrong header digest");
        if (tail && le32_get(t->in + total - 4) != crc32c(0, t->in + head, total - head - 4))
            fake_target_complain(t, "a wrong data digest");
        uint8_t *data = malloc(length + 1);
        memcpy(data, t->in + head, length);
        memmove(t->in, t->in + total, t->in_count - total);
        t->in_count -= total;
        handle(t, &bhs, data, length);
        free(data);
    }
}
