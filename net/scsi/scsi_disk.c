/* SPDX-License-Identifier: MIT */
/*
 * Requests to commands and back. See scsi_disk.h; the proof is in scsi_probe.c, aborts and resets are in scsi_recover.c.
 *
 * A request is in the list of all from submit to done, by age. `issuing` is the first one of which parts are still to be
 * made commands; parts are made as long as commands are free, so one large request does not need more than there are.
 */
#include "net/scsi/scsi_disk.h"

#include <stdio.h>
#include <string.h>

#define ZERO_BYTES 4096u
#define NO_SPACE_NS UINT64_C(2000000000)
#define FAILED_NS UINT64_C(100000000)
#define FAILED_MAX 5u
#define DESCRIBED 160u

static const uint8_t zeroes[ZERO_BYTES];

/* ---- Data ---- */

/* Bytes at `offset` that were copied before, for an earlier try; NULL: none. */
static const uint8_t *copied(const struct scsi_disk_command *c, uint32_t offset, uint32_t *count)
{
    for (const struct scsi_disk_piece *p = c->pieces; p; p = p->next)
        if (offset >= p->offset && offset - p->offset < p->count) {
            *count = MIN(*count, p->count - (offset - p->offset));
            return p->memory + (offset - p->offset);
        }
    return NULL;
}

static const void *give(struct iscsi_command *command, uint32_t offset, uint32_t *count, void *bounce, bool *stays)
{
    struct scsi_disk_command *c = command->owner;
    struct scsi_disk_piece *piece = c->disk->free_pieces;
    const uint8_t *before;

    switch (c->kind) {
    case SCSI_DISK_ZEROES:
        *count = MIN(*count, ZERO_BYTES);
        *stays = true;
        return zeroes;
    case SCSI_DISK_LIST:
        *stays = true;
        return c->list + offset;
    default:
        break;
    }
    if (!c->request)
        return NULL;
    if ((before = copied(c, offset, count))) {
        *stays = true;
        return before;
    }
    *count = MIN(*count, SCSI_DISK_PIECE_BYTES);
    if (!c->request->get(c->request, c->offset + offset, piece ? piece->memory : bounce, *count)) {
        c->request->status = ERR_IO;
        return NULL;
    }
    if (!piece)
        return bounce;
    c->disk->free_pieces = piece->next;
    piece->next = c->pieces;
    piece->offset = offset;
    piece->count = *count;
    c->pieces = piece;
    *stays = true;
    return piece->memory;
}

void scsi_disk_lend(struct scsi_disk *disk, struct scsi_disk_piece *piece)
{
    piece->next = disk->free_pieces;
    disk->free_pieces = piece;
}

static bool take(struct iscsi_command *command, uint32_t offset, const void *bytes, uint32_t count)
{
    struct scsi_disk_command *c = command->owner;

    if (!c->request) /* cancelled: the target may still send what it was asked for */
        return true;
    if (c->request->put(c->request, c->offset + offset, bytes, count))
        return true;
    c->request->status = ERR_IO;
    return false;
}

static const struct iscsi_data_ops data_ops = { .give = give, .take = take };

/* ---- Requests ---- */

static void end(struct scsi_disk *disk, struct disk_request *request, enum status status)
{
    if (disk->issuing == request)
        disk->issuing = request->next;
    *(request->previous ? &request->previous->next : &disk->first) = request->next;
    *(request->next ? &request->next->previous : &disk->last) = request->previous;
    request->next = request->previous = NULL;
    disk->errors += status != OK && status != ERR_CANCELLED;
    request->done(request, status);
}

/* One that is nobody's, or NULL; it is the caller's to use. */
static struct scsi_disk_command *take_command(struct scsi_disk *disk)
{
    struct scsi_disk_command *c = disk->free_commands;

    if (c)
        disk->free_commands = c->next;
    return c;
}

static void set_held(struct scsi_disk *disk, struct scsi_disk_command *c, bool held)
{
    disk->held += (unsigned)held - (unsigned)c->held;
    c->held = held;
}

static void release(struct scsi_disk *disk, struct scsi_disk_command *c)
{
    for (struct scsi_disk_piece *piece; (piece = c->pieces);) {
        c->pieces = piece->next;
        scsi_disk_lend(disk, piece);
    }
    set_held(disk, c, false);
    c->busy = false;
    c->request = NULL;
    c->next = disk->free_commands;
    disk->free_commands = c;
    disk->busy--;
}

/* The largest part of what is left that is one command. */
static uint64_t part_bytes(const struct scsi_disk *disk, const struct disk_request *request)
{
    uint64_t left = request->bytes - request->issued, most = disk->info.transfer_max_blocks;

    if (request->op == DISK_DISCARD)
        most = disk->info.unmap_max_blocks;
    else if (request->op == DISK_WRITE_ZEROES && disk->info.can_write_same)
        most = disk->info.same_max_blocks;
    return MIN(left, most * disk->info.block_bytes);
}

static void build(struct scsi_disk *disk, struct scsi_disk_command *c)
{
    const struct disk_request *request = c->request;
    const struct scsi_disk_info *info = &disk->info;
    uint64_t block = (request->offset + c->offset) / info->block_bytes;
    uint32_t blocks = (uint32_t)(c->bytes / info->block_bytes);
    bool fua = request->fua && info->fua;
    struct scsi_cdb cdb;

    c->kind = SCSI_DISK_DATA;
    if (request->flushing || request->op == DISK_FLUSH) {
        scsi_synchronize_cache16(&cdb, 0, 0);
    } else if (request->op == DISK_READ) {
        scsi_read16(&cdb, block, blocks, info->block_bytes, false);
    } else if (request->op == DISK_WRITE) {
        scsi_write16(&cdb, block, blocks, info->block_bytes, fua);
    } else if (request->op == DISK_DISCARD) {
        struct scsi_range range = { block, blocks };
        c->kind = SCSI_DISK_LIST;
        scsi_unmap(&cdb, 1);
        scsi_unmap_list(c->list, &range, 1);
    } else {
        c->kind = SCSI_DISK_ZEROES;
        if (info->can_write_same)
            scsi_write_same16(&cdb, block, blocks, info->block_bytes, info->same_may_unmap);
        else
            scsi_write16(&cdb, block, blocks, info->block_bytes, fua);
    }
    memcpy(c->iscsi.cdb, cdb.bytes, ISCSI_CDB_BYTES);
    c->iscsi.read_bytes = cdb.read_bytes;
    c->iscsi.write_bytes = cdb.write_bytes;
}

/* Where there is no session that takes it, it is held until one is there. */
static void send(struct scsi_disk *disk, struct scsi_disk_command *c, uint64_t now_ns)
{
    set_held(disk, c, iscsi_submit(disk->session, &c->iscsi, now_ns) != OK);
    c->retry_ns = UINT64_MAX;
}

static void hold(struct scsi_disk *disk, struct scsi_disk_command *c, uint64_t until_ns)
{
    set_held(disk, c, true);
    c->retry_ns = until_ns;
}

static void done(struct iscsi_command *command);

static void issue(struct scsi_disk *disk, struct disk_request *request, struct scsi_disk_command *c, uint64_t now_ns)
{
    memset(&c->iscsi, 0, sizeof c->iscsi);
    memcpy(c->iscsi.lun, disk->lun, sizeof disk->lun);
    c->iscsi.attribute = ISCSI_SIMPLE;
    c->iscsi.data = &data_ops;
    c->iscsi.done = done;
    c->iscsi.owner = c;
    c->iscsi.epoch = request->epoch;
    c->busy = true;
    c->request = request;
    c->attempts = 0;
    c->offset = request->issued;
    c->bytes = request->flushing ? 0 : part_bytes(disk, request);
    request->issued += c->bytes;
    request->outstanding++;
    disk->busy++;
    build(disk, c);
    send(disk, c, now_ns);
}

/* Nothing of it is to be made a command any more. */
static bool issued_all(const struct disk_request *request)
{
    return request->status != OK || (request->issued == request->bytes && (request->bytes || request->outstanding));
}

static void pump(struct scsi_disk *disk, uint64_t now_ns)
{
    struct scsi_disk_command *c;

    while (disk->issuing) {
        if (issued_all(disk->issuing))
            disk->issuing = disk->issuing->next;
        else if ((c = take_command(disk)))
            issue(disk, disk->issuing, c, now_ns);
        else
            break;
    }
}

/* A part of a request is over; the command that it had is free again. */
static void part_over(struct scsi_disk *disk, struct disk_request *request, uint64_t now_ns)
{
    request->outstanding--;
    if (request->outstanding)
        return;
    if (request->status != OK) {
        end(disk, request, request->status); /* whatever of it was not issued is not any more */
        return;
    }
    if (request->bytes != request->issued)
        return;
    if (request->fua && !request->flushing && (!disk->info.fua || request->op == DISK_WRITE_ZEROES)) {
        request->flushing = true;
        issue(disk, request, take_command(disk), now_ns);
        return;
    }
    end(disk, request, OK);
}

/* ---- How a command ended ---- */

/* The unit does not have it. True: the request goes on without; false: it cannot. */
static bool without(struct scsi_disk *disk, struct scsi_disk_command *c)
{
    struct disk_request *request = c->request;

    if (request->flushing || request->op == DISK_FLUSH) {
        disk->info.has_cache_control = false;
    } else if (request->op == DISK_DISCARD) {
        disk->info.can_unmap = false;
    } else if (request->op == DISK_WRITE_ZEROES && c->iscsi.cdb[0] == 0x93) {
        /* This part, and what else is to come, is written; in as many commands as it takes. */
        disk->info.can_write_same = false;
        request->issued = MIN(request->issued, c->offset);
        disk->issuing = request; /* what is behind it and was issued already is passed over */
    } else {
        return false;
    }
    return true;
}

static void tell_failure(struct scsi_disk *disk, const struct scsi_disk_command *c, const char *words)
{
    static const char *const names[] = { "read", "write", "flush", "discard", "zeroing" };

    snprintf(disk->text, sizeof disk->text, "a %s of %lu bytes at %lu failed: %.160s", names[c->request->op],
             (unsigned long)c->bytes, (unsigned long)(c->request->offset + c->offset), words);
    disk->ops->news(disk->context, 0, disk->text);
}

/* What the unit answered; false: it is not over. */
static bool judge(struct scsi_disk *disk, struct scsi_disk_command *c, uint64_t now_ns)
{
    struct iscsi_command *command = &c->iscsi;
    struct scsi_sense sense;
    char words[DESCRIBED];

    if (!command->status && !command->sense_bytes && command->complete) /* nearly all of them */
        return true;
    scsi_parse_sense(command->sense, command->sense_bytes, &sense);
    struct scsi_verdict verdict = scsi_decide(command->status, &sense, c->attempts);
    if (verdict.action == SCSI_DONE && !command->complete) /* it was done in part only */
        verdict.action = c->attempts < FAILED_MAX ? SCSI_RETRY : SCSI_FAIL;
    scsi_describe(command->status, &sense, words, sizeof words);
    if (verdict.news)
        disk->ops->news(disk->context, verdict.news, words);
    c->attempts++;
    /* Who may write may be another now, or what was before is gone: it is looked at before this, or a write, goes out again. */
    bool again = verdict.action == SCSI_RETRY || verdict.action == SCSI_RETRY_LATER;
    if (again && verdict.news & SCSI_NEWS_PROVE && (command->write_bytes || disk->claim)) {
        hold(disk, c, UINT64_MAX);
        disk->ops->drop(disk->context, "the unit was reset, or another initiator has ended commands");
        return false;
    }
    if (again && verdict.news & SCSI_NEWS_CAPACITY) { /* asked for anew with the rest, before anything goes out again */
        hold(disk, c, UINT64_MAX);
        disk->ops->drop(disk->context, "the unit says that its capacity has changed");
        return false;
    }
    switch (verdict.action) {
    case SCSI_DONE:
        return true;
    case SCSI_RETRY:
        send(disk, c, now_ns);
        return false;
    case SCSI_RETRY_LATER:
        hold(disk, c, now_ns + verdict.delay_ns);
        return false;
    case SCSI_OUT_OF_SPACE: /* a writer is paused, not failed */
        disk->ops->news(disk->context, SCSI_NEWS_SPACE_LOW, words);
        hold(disk, c, now_ns + NO_SPACE_NS);
        return false;
    case SCSI_CONFLICT:
        hold(disk, c, UINT64_MAX);
        disk->ops->drop(disk->context, "another initiator has reserved the unit");
        return false;
    case SCSI_UNSUPPORTED:
        if (without(disk, c))
            return true;
        break;
    default:
        break;
    }
    c->request->status = ERR_IO;
    tell_failure(disk, c, words);
    return true;
}

static void done(struct iscsi_command *command)
{
    struct scsi_disk_command *c = command->owner;
    struct scsi_disk *disk = c->disk;
    struct disk_request *request = c->request;
    uint64_t now_ns = disk->session->now_ns;
    bool over = true;

    if (!request) {
        release(disk, c);
        pump(disk, now_ns);
        return;
    }
    switch (command->outcome) {
    case ISCSI_ANSWERED:
        over = judge(disk, c, now_ns);
        break;
    case ISCSI_FAILED:
    case ISCSI_REFUSED:
        if (++c->attempts < FAILED_MAX) {
            hold(disk, c, now_ns + FAILED_NS);
            over = false;
        } else {
            request->status = ERR_IO;
            tell_failure(disk, c, iscsi_outcome_words(command->outcome));
        }
        break;
    case ISCSI_ABORTED: /* a reset, or an abort because it took too long: it has no effect any more */
        send(disk, c, now_ns);
        over = false;
        break;
    case ISCSI_STOPPED:
        hold(disk, c, UINT64_MAX);
        over = false;
        break;
    case ISCSI_LOST: /* its memory was gone, which `status` says, or it was just being aborted when the connection went */
        if (request->status == OK) {
            send(disk, c, now_ns);
            over = false;
        }
        break;
    case ISCSI_STALE: /* its epoch is over (scsi_disk_may_send); what was cancelled or fenced has no request any more */
        request->status = ERR_FENCED;
        break;
    }
    if (!over) {
        disk->retries++;
        return;
    }
    release(disk, c);
    part_over(disk, request, now_ns);
    pump(disk, now_ns);
}

/* ---- The owner's calls ---- */

void scsi_disk_init(struct scsi_disk *disk, struct iscsi_session *session, unsigned lun, const struct scsi_disk_ops *ops,
                    void *context)
{
    memset(disk, 0, sizeof *disk);
    disk->session = session;
    disk->ops = ops;
    disk->context = context;
    (void)iscsi_lun_encode(disk->lun, lun);
    for (unsigned i = SCSI_DISK_COMMANDS; i-- > 0;) {
        disk->command[i].disk = disk;
        disk->command[i].next = disk->free_commands;
        disk->free_commands = &disk->command[i];
    }
    disk->probe.disk = disk;
}

void scsi_disk_submit(struct scsi_disk *disk, struct disk_request *request, uint64_t now_ns)
{
    const struct scsi_disk_info *info = &disk->info;
    enum status status = OK;

    request->issued = 0;
    request->outstanding = 0;
    request->flushing = false;
    request->status = OK;
    request->submitted_ns = now_ns;
    request->epoch = disk->claim ? disk->claim->epoch : 0;
    if (disk->fenced) {
        status = ERR_FENCED;
    } else if (request->op != DISK_FLUSH) {
        if (!info->known || (request->offset | request->bytes) % info->block_bytes)
            status = ERR_INVALID;
        else if (!range_within(request->offset, request->bytes, info->bytes))
            status = ERR_RANGE;
        else if (request->op != DISK_READ && info->read_only)
            status = ERR_READ_ONLY;
    } else if (request->bytes) {
        status = ERR_INVALID;
    }
    bool nothing = request->op == DISK_FLUSH ? !info->has_cache_control
                                             : !request->bytes || (request->op == DISK_DISCARD && !info->can_unmap);
    request->next = request->previous = NULL;
    if (status != OK || nothing) {
        request->done(request, status);
        return;
    }
    disk->reads += request->op == DISK_READ;
    disk->writes += request->op == DISK_WRITE;
    disk->flushes += request->op == DISK_FLUSH;
    request->previous = disk->last;
    *(disk->last ? &disk->last->next : &disk->first) = request;
    disk->last = request;
    if (!disk->issuing)
        disk->issuing = request;
    pump(disk, now_ns);
}

void scsi_disk_ready(struct scsi_disk *disk, uint64_t now_ns)
{
    for (unsigned i = 0; i < SCSI_DISK_COMMANDS; i++)
        if (disk->command[i].busy && disk->command[i].held && disk->command[i].retry_ns == UINT64_MAX)
            send(disk, &disk->command[i], now_ns);
}

static void end_all(struct scsi_disk *disk, enum status status)
{
    disk->issuing = NULL;
    for (unsigned i = 0; i < SCSI_DISK_COMMANDS; i++) {
        struct scsi_disk_command *c = &disk->command[i];
        if (!c->busy)
            continue;
        c->request = NULL;
        if (c->held || iscsi_withdraw(disk->session, &c->iscsi) == OK)
            release(disk, c);
    }
    for (; disk->first; disk->discarded += status == ERR_FENCED)
        end(disk, disk->first, status);
}

void scsi_disk_cancel(struct scsi_disk *disk, uint64_t now_ns)
{
    (void)now_ns;
    end_all(disk, ERR_CANCELLED);
}

bool scsi_disk_may_send(const struct iscsi_command *command)
{
    const struct scsi_disk_command *c = command->owner;

    return c->request && !c->disk->fenced && (!c->disk->claim || scsi_proof_allows(&c->disk->proof, command->epoch));
}

/* ---- The claim ---- */

void scsi_disk_claim(struct scsi_disk *disk, const struct scsi_claim *claim, uint64_t now_ns)
{
    (void)now_ns;
    disk->claim = claim;
    disk->fenced = false;
    disk->proof = (struct scsi_proof){ .claim = claim, .verdict = SCSI_PROOF_HOLDS };
    if (disk->proving) /* what was asked until now was for another claim */
        disk->ops->drop(disk->context, "what is to be proven has changed");
}

/* For good: nothing of before is sent any more. */
void scsi_disk_fence(struct scsi_disk *disk, const char *why)
{
    disk->fenced = true;
    disk->ops->fenced(disk->context, why);
    end_all(disk, ERR_FENCED);
}

uint64_t scsi_disk_oldest_ns(const struct scsi_disk *disk)
{
    return disk->first ? disk->first->submitted_ns : UINT64_MAX;
}

void scsi_disk_tick(struct scsi_disk *disk, uint64_t now_ns)
{
    scsi_talk_tick(&disk->talk, now_ns);
    if (disk->proving && disk->probe.held && now_ns >= disk->probe.retry_ns) {
        if (disk->session->state == ISCSI_PROVING)
            send(disk, &disk->probe, now_ns);
        else
            disk->proving = false; /* the connection is gone; the next one proves anew */
    }
    for (unsigned i = 0; i < SCSI_DISK_COMMANDS; i++) {
        struct scsi_disk_command *c = &disk->command[i];
        if (c->busy && c->held && now_ns >= c->retry_ns)
            send(disk, c, now_ns);
    }
    if (disk->task_busy && now_ns >= disk->task_deadline_ns) {
        disk->task_deadline_ns = UINT64_MAX;
        disk->ops->drop(disk->context, "the target answers neither a command nor its abort");
    }
}

uint64_t scsi_disk_deadline(const struct scsi_disk *disk)
{
    uint64_t at = disk->proving && disk->probe.held ? disk->probe.retry_ns : UINT64_MAX;

    at = MIN(at, scsi_talk_deadline(&disk->talk));
    if (disk->task_busy)
        at = MIN(at, disk->task_deadline_ns);
    for (unsigned i = 0, left = disk->held; left && i < SCSI_DISK_COMMANDS; i++) {
        if (!disk->command[i].held)
            continue;
        left--;
        at = MIN(at, disk->command[i].retry_ns);
    }
    return at;
}
