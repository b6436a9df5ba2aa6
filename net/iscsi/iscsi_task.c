/* SPDX-License-Identifier: MIT */
/*
 * Commands of the full feature phase: tags, CmdSN, data both ways, answers; and task management requests.
 *
 * A command is on one of three lists: waiting (in the order of submission), sent (in the order of CmdSN), finished
 * (done() is due). A tag is a slot's number plus a multiple of the number of slots, counted up at each use, with bit 31
 * clear; so an answer with an old tag finds nothing, and never another command.
 *
 * A command that is answered while one of its Data-Out PDUs is being sent stays until that PDU is out: the stream must
 * keep its framing, and the bytes are the command's (see deliver() in iscsi_session.c).
 */
#include <string.h>

#include "net/iscsi/iscsi_session.h"

/* ---- Lists ---- */

void iscsi_list_push(struct iscsi_list *list, struct iscsi_command *command)
{
    command->next = NULL;
    command->previous = list->last;
    if (list->last)
        list->last->next = command;
    else
        list->first = command;
    list->last = command;
}

static void push_front(struct iscsi_list *list, struct iscsi_command *command)
{
    command->previous = NULL;
    command->next = list->first;
    if (list->first)
        list->first->previous = command;
    else
        list->last = command;
    list->first = command;
}

void iscsi_list_remove(struct iscsi_list *list, struct iscsi_command *command)
{
    if (command->previous)
        command->previous->next = command->next;
    else
        list->first = command->next;
    if (command->next)
        command->next->previous = command->previous;
    else
        list->last = command->previous;
    command->next = command->previous = NULL;
}

static void output_push(struct iscsi_session *session, struct iscsi_command *command)
{
    if (command->has_output)
        return;
    command->has_output = true;
    command->output_next = NULL;
    if (session->output_last)
        session->output_last->output_next = command;
    else
        session->output_first = command;
    session->output_last = command;
}

static void output_remove(struct iscsi_session *session, struct iscsi_command *command)
{
    struct iscsi_command *before = NULL, *at = session->output_first;
    if (!command->has_output)
        return;
    for (; at != command; at = at->output_next)
        before = at;
    if (before)
        before->output_next = command->output_next;
    else
        session->output_first = command->output_next;
    if (session->output_last == command)
        session->output_last = before;
    command->has_output = false;
    command->output_next = NULL;
}

/* ---- Tags ---- */

static bool take_slot(struct iscsi_session *session, struct iscsi_command *command)
{
    if (session->slots_used == session->slot_count)
        return false;
    unsigned i = session->next_slot;
    while (session->slots[i].command)
        i = (i + 1) & (session->slot_count - 1);
    session->next_slot = (i + 1) & (session->slot_count - 1);
    struct iscsi_slot *slot = &session->slots[i];
    slot->itt = (slot->itt + session->slot_count) & 0x7fffffffu;
    slot->command = command;
    session->slots_used++;
    command->itt = slot->itt;
    return true;
}

static void free_slot(struct iscsi_session *session, struct iscsi_command *command)
{
    struct iscsi_slot *slot = &session->slots[command->itt & (session->slot_count - 1)];
    if (slot->command == command) {
        slot->command = NULL;
        session->slots_used--;
    }
}

struct iscsi_command *iscsi_find_command(struct iscsi_session *session, uint32_t itt)
{
    struct iscsi_slot *slot = &session->slots[itt & (session->slot_count - 1)];
    return slot->command && slot->itt == itt ? slot->command : NULL;
}

/* ---- Ends ---- */

void iscsi_finish(struct iscsi_session *session, struct iscsi_command *command, enum iscsi_outcome outcome)
{
    if (command->place == ISCSI_COMMAND_WAITING) {
        iscsi_list_remove(&session->waiting, command);
    } else {
        iscsi_list_remove(&session->sent, command);
        output_remove(session, command);
        free_slot(session, command);
    }
    /* A request to abort it has nothing to refer to any more; its structure may be gone before the answer comes. */
    for (struct iscsi_task *task = session->tasks; task; task = task->next)
        if (task->command == command)
            task->command = NULL;
    command->outcome = outcome;
    session->progress |= outcome == ISCSI_ANSWERED && !command->probe;
    command->place = ISCSI_COMMAND_FINISHED;
    iscsi_list_push(&session->finished, command);
}

void iscsi_requeue(struct iscsi_session *session)
{
    struct iscsi_command *command, *previous;
    for (command = session->finished.first; command; command = command->next)
        command->referenced_until = 0;
    for (command = session->sent.last; command; command = previous) {
        previous = command->previous;
        session->unanswered = true;
        command->referenced_until = 0;
        if (command->refused_now || command->cancelled || command->probe) {
            iscsi_finish(session, command, command->refused_now ? ISCSI_REFUSED : ISCSI_LOST);
            continue;
        }
        iscsi_list_remove(&session->sent, command);
        output_remove(session, command);
        free_slot(session, command);
        command->place = ISCSI_COMMAND_WAITING;
        push_front(&session->waiting, command);
        session->counts.retried++;
    }
    for (command = session->waiting.first; command; command = previous) {
        previous = command->next;
        if (command->probe)
            iscsi_finish(session, command, ISCSI_LOST);
    }
}

void iscsi_abort_lun(struct iscsi_session *session, const uint8_t *lun, uint32_t before_cmd_sn, bool all)
{
    struct iscsi_command *next;
    for (struct iscsi_command *command = session->sent.first; command; command = next) {
        next = command->next;
        if ((all || !memcmp(command->lun, lun, 8)) && serial_before(command->cmd_sn, before_cmd_sn))
            iscsi_finish(session, command, ISCSI_ABORTED);
    }
}

/* ---- To another path ---- */

enum status iscsi_session_take_over(struct iscsi_session *to, struct iscsi_session *from, uint64_t now_ns)
{
    struct iscsi_command *command, *next;
    if (to->depth || from->depth || to->state != ISCSI_READY || to->waiting.first || to->sent.first || to->finished.first ||
        to->tasks || to->stopping || iscsi_in_full_feature(from))
        return ERR_BUSY;
    for (command = from->waiting.first; command; command = next) {
        next = command->next;
        if (command->probe)
            continue;
        iscsi_list_remove(&from->waiting, command);
        iscsi_list_push(&to->waiting, command);
    }
    to->strays = to->unanswered = from->unanswered;
    from->strays = from->unanswered = false;
    to->want_prove = true;
    iscsi_session_writable(to, to->connection, now_ns); /* carries the wish out */
    to->unusable_since_ns = from->unusable_since_ns;
    to->timed_out = from->timed_out;
    from->timed_out = false;
    from->unusable_since_ns = to->now_ns;
    return OK;
}

/* ---- Commands out ---- */

/*
 * Notes that the bytes from `start` on came, or were asked for, and joins them with their neighbours. NULL, or what is
 * wrong with them. Only where any order is agreed: else next_offset says it all. Without it a piece that comes twice
 * and one that never comes would add up to a whole command.
 */
static const char *cover(struct iscsi_command *command, uint32_t start, uint32_t bytes)
{
    struct iscsi_piece *piece = command->piece;
    uint32_t end = start + bytes, i = 0, count = command->piece_count;
    if (!bytes)
        return NULL;
    while (i < count && piece[i].end < start)
        i++;
    bool joins = i < count && piece[i].end == start;
    uint32_t after = joins ? i + 1 : i; /* the first piece that begins behind `start` */
    if (after < count && piece[after].start < end)
        return "overlap";
    bool joins_next = after < count && piece[after].start == end;
    if (joins && joins_next) {
        piece[i].end = piece[after].end;
        command->piece_count--;
        memmove(&piece[after], &piece[after + 1], (command->piece_count - after) * sizeof(*piece));
    } else if (joins) {
        piece[i].end = end;
    } else if (joins_next) {
        piece[after].start = start;
    } else {
        if (count == ISCSI_COMMAND_PIECES)
            return "lie in too many places at once";
        memmove(&piece[i + 1], &piece[i], (count - i) * sizeof(*piece));
        piece[i] = (struct iscsi_piece){ start, end };
        command->piece_count++;
    }
    return NULL;
}

static struct iscsi_command *next_to_send(const struct iscsi_session *session)
{
    struct iscsi_command *command = session->waiting.first;
    if (session->draining || session->settings->login.discovery)
        return NULL;
    if (session->state == ISCSI_PROVING)
        while (command && !command->probe)
            command = command->next;
    else if (session->state != ISCSI_READY)
        return NULL;
    return command;
}

bool iscsi_build_command(struct iscsi_session *session, union iscsi_bhs *bhs)
{
    const struct iscsi_parameters *p = &session->parameters;
    struct iscsi_command *command;
    if (serial_before(session->max_cmd_sn, session->cmd_sn))
        return false;
    /* However long it waited for the window: what may not be sent now is stale. */
    while ((command = next_to_send(session)) && !command->probe && session->ops->may_send &&
           !session->ops->may_send(session->context, command))
        iscsi_finish(session, command, ISCSI_STALE);
    if (!command || !take_slot(session, command))
        return false;
    iscsi_list_remove(&session->waiting, command);
    iscsi_list_push(&session->sent, command);
    command->place = ISCSI_COMMAND_SENT;
    command->was_sent = true;
    command->told_slow = command->refused_now = false;
    command->next_data_sn = command->next_r2t_sn = command->next_offset = command->r2t_count = 0;
    command->piece_count = 0;
    command->transferred = 0;
    command->sent_ns = session->now_ns;
    command->cmd_sn = session->cmd_sn++;
    session->sent_group = p->portal_group;

    uint32_t immediate = 0;
    command->unsolicited_left = command->unsolicited_sn = 0;
    if (command->write_bytes) {
        uint32_t burst = MIN(command->write_bytes, p->first_burst_bytes);
        if (p->immediate_data)
            immediate = MIN(burst, p->max_send_bytes);
        if (!p->initial_r2t)
            command->unsolicited_left = burst - immediate;
        command->unsolicited_offset = immediate;
        command->next_offset = immediate + command->unsolicited_left;
        if (!p->data_sequence_in_order)
            (void)cover(command, 0, command->next_offset); /* the first piece of all */
        command->transferred = immediate;
        if (command->unsolicited_left)
            output_push(session, command);
    }
    unsigned flags = (command->unsolicited_left ? 0 : ISCSI_FINAL) | (command->read_bytes ? ISCSI_COMMAND_READ : 0) |
                     (command->write_bytes ? ISCSI_COMMAND_WRITE : 0) | (command->attribute & ISCSI_ATTRIBUTE_MASK);
    iscsi_bhs_init(bhs, ISCSI_SCSI_COMMAND, flags, command->itt);
    be24_put(bhs->command.data_length, immediate);
    memcpy(bhs->command.lun, command->lun, 8);
    be32_put(bhs->command.expected_length, command->read_bytes | command->write_bytes);
    be32_put(bhs->command.cmd_sn, command->cmd_sn);
    be32_put(bhs->command.exp_stat_sn, session->exp_stat_sn);
    memcpy(bhs->command.cdb, command->cdb, ISCSI_CDB_BYTES);
    session->tx.command = immediate ? command : NULL;
    session->tx.offset = 0;
    session->counts.commands++;
    return true;
}

bool iscsi_build_data_out(struct iscsi_session *session, union iscsi_bhs *bhs)
{
    struct iscsi_command *command = session->output_first;
    if (!command)
        return false;
    uint32_t ttt = ISCSI_TAG_NONE, offset, count, data_sn;
    bool final;
    if (command->unsolicited_left) {
        count = MIN(command->unsolicited_left, session->parameters.max_send_bytes);
        offset = command->unsolicited_offset;
        data_sn = command->unsolicited_sn++;
        command->unsolicited_offset += count;
        command->unsolicited_left -= count;
        final = !command->unsolicited_left;
    } else {
        struct iscsi_r2t_state *r2t = &command->r2t[0];
        count = MIN(r2t->bytes - r2t->sent, session->parameters.max_send_bytes);
        ttt = r2t->ttt;
        offset = r2t->offset + r2t->sent;
        data_sn = r2t->data_sn++;
        r2t->sent += count;
        final = r2t->sent == r2t->bytes;
        if (final) {
            command->r2t_count--;
            memmove(r2t, r2t + 1, command->r2t_count * sizeof(*r2t));
        }
    }
    command->transferred += count;
    iscsi_bhs_init(bhs, ISCSI_DATA_OUT, final ? ISCSI_FINAL : 0, command->itt);
    be24_put(bhs->data_out.data_length, count);
    memcpy(bhs->data_out.lun, command->lun, 8);
    be32_put(bhs->data_out.ttt, ttt);
    be32_put(bhs->data_out.exp_stat_sn, session->exp_stat_sn);
    be32_put(bhs->data_out.data_sn, data_sn);
    be32_put(bhs->data_out.offset, offset);
    session->tx.command = command;
    session->tx.offset = offset;
    if (final) { /* others get their turn */
        output_remove(session, command);
        if (command->r2t_count)
            output_push(session, command);
    }
    return true;
}

/* ---- Data and answers in ---- */

#define FAIL(...) iscsi_fail(session, ISCSI_EVENT_DOWN, __VA_ARGS__)

static struct iscsi_command *command_of(struct iscsi_session *session)
{
    const union iscsi_bhs *bhs = &session->rx.bhs;
    struct iscsi_command *command = iscsi_find_command(session, iscsi_itt(bhs));
    if (!command)
        FAIL("the target sent a %s for the tag 0x%08x, which is not in use", iscsi_opcode_name(bhs->header.opcode),
             iscsi_itt(bhs));
    return command;
}

/*
 * MaxBurstLength also limits a sequence of Data-In, but is not held against the target: tgt 1.0.85 sends all of a read
 * as one sequence, and nothing here depends on it. Everything that decides where bytes land is.
 */
bool iscsi_data_in_header(struct iscsi_session *session)
{
    struct iscsi_receiver *rx = &session->rx;
    const struct iscsi_data_in *in = &rx->bhs.data_in;
    const struct iscsi_parameters *p = &session->parameters;
    struct iscsi_command *command = command_of(session);
    uint32_t offset = be32_get(in->offset), length = iscsi_data_length(&rx->bhs), data_sn = be32_get(in->data_sn);
    bool in_order = p->data_pdu_in_order && p->data_sequence_in_order;
    const char *why;
    if (!command)
        return false;
    if (!range_within(offset, length, command->read_bytes))
        FAIL("the target sent data at %u to %lu of a command that reads %u bytes", offset,
             (unsigned long)offset + length, command->read_bytes);
    else if (data_sn != command->next_data_sn)
        FAIL("DataSN %u came where %u was due", data_sn, command->next_data_sn);
    else if (in_order && offset != command->next_offset)
        FAIL("data at offset %u came where %u was due", offset, command->next_offset);
    else if ((in->flags & (ISCSI_DATA_STATUS | ISCSI_FINAL)) == ISCSI_DATA_STATUS)
        FAIL("a Data-In with status has no F bit");
    else if (length > command->read_bytes - command->transferred)
        FAIL("the target sent more data than the command reads (%u)", command->read_bytes);
    else if (!in_order && (why = cover(command, offset, length)))
        FAIL("the pieces of data that the target sent %s", why);
    else {
        rx->command = length ? command : NULL;
        rx->offset = offset;
        return true;
    }
    return false;
}

/* Residual counts as both kinds of answers have them (11.4.5). False: they contradict what was transferred. */
static bool take_residual(struct iscsi_session *session, struct iscsi_command *command, unsigned flags,
                          uint32_t residual)
{
    uint32_t expected = command->read_bytes | command->write_bytes;
    command->overflow = flags & ISCSI_RESIDUAL_OVERFLOW;
    command->underflow = flags & ISCSI_RESIDUAL_UNDERFLOW;
    command->residual = command->overflow || command->underflow ? residual : 0;
    if (command->overflow && command->underflow) {
        FAIL("the target answered with an overflow and an underflow at once");
        return false;
    }
    if (command->underflow && residual > expected) {
        FAIL("the target answered with a residual of %u for a command of %u bytes", residual, expected);
        return false;
    }
    /* A good status for data that did not come, or that were not taken, would be silent corruption. */
    uint32_t missing = command->underflow ? residual : 0;
    bool sending = command->write_bytes && session->tx.command == command;
    command->complete = command->transferred == expected && !missing && !sending;
    if (command->status == 0 && command->response == 0 && (command->transferred < expected - missing || sending)) {
        FAIL("the target answered GOOD after %u of %u bytes", command->transferred, expected - missing);
        return false;
    }
    return true;
}

void iscsi_data_in_done(struct iscsi_session *session)
{
    struct iscsi_receiver *rx = &session->rx;
    const struct iscsi_data_in *in = &rx->bhs.data_in;
    struct iscsi_command *command = command_of(session);
    uint32_t length = iscsi_data_length(&rx->bhs);
    rx->command = NULL;
    if (!command)
        return;
    command->next_data_sn++;
    command->transferred += length;
    command->next_offset = be32_get(in->offset) + length;
    if (!(in->flags & ISCSI_DATA_STATUS))
        return;
    if (!iscsi_take_stat_sn(session, in->stat_sn))
        return;
    command->response = 0;
    command->status = in->status;
    command->sense_bytes = 0;
    if (take_residual(session, command, in->flags, be32_get(in->residual)))
        iscsi_finish(session, command, ISCSI_ANSWERED);
}

void iscsi_response_pdu(struct iscsi_session *session)
{
    struct iscsi_receiver *rx = &session->rx;
    const struct iscsi_scsi_response *answer = &rx->bhs.response;
    struct iscsi_command *command = command_of(session);
    if (!command || !iscsi_take_stat_sn(session, answer->stat_sn))
        return;
    command->response = answer->response;
    command->status = answer->status;
    command->sense_bytes = 0;
    if (rx->kept >= 2) { /* SenseLength, sense data (11.4.7) */
        uint32_t bytes = MIN((uint32_t)be16_get(rx->data), rx->kept - 2);
        command->sense_bytes = (uint16_t)MIN(bytes, ISCSI_SENSE_MAX);
        memcpy(command->sense, rx->data + 2, command->sense_bytes);
    }
    if (take_residual(session, command, answer->flags, be32_get(answer->residual)))
        iscsi_finish(session, command, command->response ? ISCSI_FAILED : ISCSI_ANSWERED);
}

void iscsi_r2t_pdu(struct iscsi_session *session)
{
    const struct iscsi_r2t *r2t = &session->rx.bhs.r2t;
    const struct iscsi_parameters *p = &session->parameters;
    struct iscsi_command *command = command_of(session);
    const char *why;
    uint32_t offset = be32_get(r2t->offset), bytes = be32_get(r2t->desired_length), sn = be32_get(r2t->r2t_sn);
    if (!command)
        return;
    if (!bytes || bytes > p->max_burst_bytes)
        FAIL("the target asked for %u bytes at once, and MaxBurstLength is %u", bytes, p->max_burst_bytes);
    else if (!range_within(offset, bytes, command->write_bytes))
        FAIL("the target asked for data at %u to %lu of a command that writes %u bytes", offset,
             (unsigned long)offset + bytes, command->write_bytes);
    else if (sn != command->next_r2t_sn)
        FAIL("R2TSN %u came where %u was due", sn, command->next_r2t_sn);
    else if (command->r2t_count >= MIN(p->max_outstanding_r2t, ISCSI_COMMAND_R2TS))
        FAIL("the target asked for more than %u pieces of data of a command at a time", p->max_outstanding_r2t);
    else if (be32_get(r2t->ttt) == ISCSI_TAG_NONE)
        FAIL("the target asked for data without a tag");
    else if (p->data_sequence_in_order && offset != command->next_offset)
        FAIL("the target asked for data at offset %u where %u was due", offset, command->next_offset);
    else if (!p->data_sequence_in_order && (why = cover(command, offset, bytes)))
        FAIL("the pieces of data that the target asked for %s", why);
    else {
        command->next_r2t_sn++;
        command->next_offset = offset + bytes;
        command->r2t[command->r2t_count++] = (struct iscsi_r2t_state){ .ttt = be32_get(r2t->ttt), .offset = offset,
                                                                       .bytes = bytes };
        output_push(session, command);
    }
}

/* ---- Task management ---- */

bool iscsi_build_task(struct iscsi_session *session, union iscsi_bhs *bhs)
{
    struct iscsi_task *task = session->tasks;
    for (; task; task = task->next) {
        if (task->sent || task->finished)
            continue;
        if (task->function != ISCSI_ABORT_TASK || task->command)
            break;
        task->response = ISCSI_TASK_NO_TASK; /* its command was answered meanwhile */
        task->finished = true;
    }
    if (!task || session->logout_sent)
        return false;
    struct iscsi_command *command = task->function == ISCSI_ABORT_TASK ? task->command : NULL;
    task->sent = true;
    task->sent_ns = session->now_ns;
    task->itt = iscsi_own_tag(session);
    task->cmd_sn = session->cmd_sn;
    iscsi_bhs_init(bhs, ISCSI_TASK_REQUEST | ISCSI_IMMEDIATE, ISCSI_FINAL | task->function, task->itt);
    memcpy(bhs->task_request.lun, command ? command->lun : task->lun, 8);
    be32_put(bhs->task_request.referenced_tag, command ? command->itt : ISCSI_TAG_NONE);
    be32_put(bhs->task_request.ref_cmd_sn, command ? command->cmd_sn : 0);
    be32_put(bhs->task_request.cmd_sn, session->cmd_sn);
    be32_put(bhs->task_request.exp_stat_sn, session->exp_stat_sn);
    return true;
}

/* The target says that it did it: what it ended is over. */
static void task_effect(struct iscsi_session *session, struct iscsi_task *task)
{
    switch (task->function) {
    case ISCSI_ABORT_TASK: /* "no such task" is as good: what was answered before it was read before it */
        if (task->response <= ISCSI_TASK_NO_TASK && task->command)
            iscsi_finish(session, task->command, ISCSI_ABORTED);
        break;
    case ISCSI_ABORT_TASK_SET:
    case ISCSI_CLEAR_TASK_SET:
    case ISCSI_LOGICAL_UNIT_RESET:
        if (task->response == ISCSI_TASK_COMPLETE)
            iscsi_abort_lun(session, task->lun, task->cmd_sn, false);
        break;
    case ISCSI_TARGET_WARM_RESET:
    case ISCSI_TARGET_COLD_RESET:
        if (task->response == ISCSI_TASK_COMPLETE)
            iscsi_abort_lun(session, NULL, task->cmd_sn, true);
        break;
    case ISCSI_CLEAR_ACA:
        break;
    }
}

void iscsi_task_response_pdu(struct iscsi_session *session)
{
    const struct iscsi_task_response *answer = &session->rx.bhs.task_response;
    struct iscsi_task *task = session->tasks;
    while (task && (!task->sent || task->finished || task->itt != be32_get(answer->itt)))
        task = task->next;
    if (!task) {
        FAIL("the target answered a task request that was not made (tag 0x%08x)", be32_get(answer->itt));
        return;
    }
    if (!iscsi_take_stat_sn(session, answer->stat_sn))
        return;
    task->response = answer->response;
    task->finished = true;
    /* An abort that was not done leaves the command as it was. */
    if (task->command && task->response > ISCSI_TASK_NO_TASK)
        task->command->cancelled = false;
    task_effect(session, task);
}
