/* SPDX-License-Identifier: MIT */
/*
 * The proof of a disk (scsi_disk.h): one question after the other, each a probe, which the session sends while nothing else
 * may go out. What a unit need not have is passed over; without an answer to INQUIRY or READ CAPACITY there is no disk.
 *
 * Of the whole answer nothing is believed but by the parsers of scsi_data.h. The unit that is found is then compared with
 * the one that it was.
 */
#include <stdio.h>
#include <string.h>

#include "net/scsi/scsi_disk.h"

#define TRANSFER_MAX (1u << 20) /* bytes of one command, where the unit has no smaller limit */
#define SAME_MAX (64u << 20)    /* bytes of one WRITE SAME: not all units are quick about it */
#define UNMAP_MAX (1u << 30)
#define AGAIN_MAX 40u           /* answers such as "busy" to one question */
#define VPD_BYTES 512u         /* room for a VPD page */
#define PAGE_IDENTITY 0x83
#define PAGE_LIMITS 0xb0
#define PAGE_PROVISIONING 0xb2

/* INQUIRY first: it is answered where there is no unit, and never by a unit attention. */
enum step { STEP_INQUIRY, STEP_READY, STEP_PAGES, STEP_IDENTITY, STEP_LIMITS, STEP_PROVISIONING, STEP_CAPACITY, STEP_MODE, STEP_END };

static void refuse(struct scsi_disk *disk, const char *why)
{
    disk->proving = false;
    disk->ops->drop(disk->context, why);
}

#define REFUSE(...) \
    (snprintf(disk->text, sizeof(disk->text), __VA_ARGS__), refuse(disk, disk->text))

/* ---- Questions ---- */

static bool take(struct iscsi_command *command, uint32_t offset, const void *bytes, uint32_t count)
{
    struct scsi_disk *disk = ((struct scsi_disk_command *)command->owner)->disk;

    if (!range_within(offset, count, sizeof disk->answer))
        return false;
    memcpy(disk->answer + offset, bytes, count);
    return true;
}

static const struct iscsi_data_ops data_ops = { .take = take };

static void build(struct scsi_disk *disk, struct scsi_cdb *cdb)
{
    switch ((enum step)disk->step) {
    case STEP_INQUIRY: scsi_inquiry(cdb, SCSI_STANDARD_INQUIRY, 96); break;
    case STEP_PAGES: scsi_inquiry(cdb, 0, VPD_BYTES); break;
    case STEP_IDENTITY: scsi_inquiry(cdb, PAGE_IDENTITY, VPD_BYTES); break;
    case STEP_LIMITS: scsi_inquiry(cdb, PAGE_LIMITS, VPD_BYTES); break;
    case STEP_PROVISIONING: scsi_inquiry(cdb, PAGE_PROVISIONING, VPD_BYTES); break;
    case STEP_CAPACITY: scsi_read_capacity16(cdb); break;
    case STEP_MODE: scsi_mode_sense6(cdb, 192); break;
    default: scsi_test_unit_ready(cdb); break;
    }
}

static void done(struct iscsi_command *command);

static void ask(struct scsi_disk *disk)
{
    struct scsi_disk_command *probe = &disk->probe;
    struct iscsi_command *command = &probe->iscsi;
    struct scsi_cdb cdb;

    if (disk->step == STEP_LIMITS && !scsi_has_page(&disk->pages, PAGE_LIMITS))
        disk->step++;
    if (disk->step == STEP_PROVISIONING && !scsi_has_page(&disk->pages, PAGE_PROVISIONING))
        disk->step++;
    build(disk, &cdb);
    memset(command, 0, sizeof *command);
    memcpy(command->lun, disk->lun, sizeof disk->lun);
    memcpy(command->cdb, cdb.bytes, ISCSI_CDB_BYTES);
    command->attribute = ISCSI_SIMPLE;
    command->probe = true;
    command->read_bytes = cdb.read_bytes;
    command->data = &data_ops;
    command->done = done;
    command->owner = probe;
    probe->attempts = 0;
    probe->held = false;
    if (iscsi_submit(disk->session, command, disk->session->now_ns) != OK)
        disk->proving = false; /* the session stops */
}

/* ---- Answers ---- */

static void take_provisioning(struct scsi_disk *disk, uint32_t bytes)
{
    struct scsi_provisioning p;

    if (scsi_parse_provisioning(disk->answer, bytes, &p) != OK)
        return;
    disk->found.can_unmap = p.unmap;
    disk->found.thin = p.kind == 2;
    disk->found.same_may_unmap = p.write_same16_unmap && p.reads_zero;
}

static void take_limits(struct scsi_disk *disk, uint32_t bytes)
{
    struct scsi_limits limits;

    if (scsi_parse_limits(disk->answer, bytes, &limits) != OK)
        return;
    disk->found.transfer_max_blocks = limits.transfer_max;
    disk->found.unmap_max_blocks = limits.unmap_blocks_max;
    disk->found.same_max_blocks = (uint32_t)MIN(limits.write_same_max, (uint64_t)UINT32_MAX);
}

/* The answer to the present question; false: there is no disk, and the proof is over. */
static bool understand(struct scsi_disk *disk, uint32_t bytes)
{
    struct scsi_disk_info *found = &disk->found;
    struct scsi_inquiry inquiry;
    struct scsi_identity identity;
    struct scsi_capacity capacity;
    struct scsi_mode mode;

    switch ((enum step)disk->step) {
    case STEP_INQUIRY:
        if (scsi_parse_inquiry(disk->answer, bytes, &inquiry) != OK) {
            REFUSE("the unit's answer to INQUIRY is cut short");
            return false;
        }
        if (inquiry.qualifier || inquiry.device_type) {
            REFUSE(inquiry.qualifier ? "the target has no such logical unit; correct lun, or map the unit for this initiator"
                                     : "the logical unit is no disk; correct lun");
            return false;
        }
        memcpy(found->vendor, inquiry.vendor, sizeof found->vendor);
        memcpy(found->product, inquiry.product, sizeof found->product);
        memcpy(found->revision, inquiry.revision, sizeof found->revision);
        break;
    case STEP_PAGES:
        if (scsi_parse_pages(disk->answer, bytes, &disk->pages) != OK)
            memset(&disk->pages, 0, sizeof disk->pages);
        break;
    case STEP_IDENTITY:
        if (scsi_parse_identity(disk->answer, bytes, &identity) == OK)
            memcpy(found->identity, identity.name, sizeof found->identity);
        break;
    case STEP_LIMITS:
        take_limits(disk, bytes);
        break;
    case STEP_PROVISIONING:
        take_provisioning(disk, bytes);
        break;
    case STEP_CAPACITY:
        if (scsi_parse_capacity16(disk->answer, bytes, &capacity) != OK) {
            REFUSE("the unit's answer to READ CAPACITY cannot be used: its blocks are none, or not of 512 bytes to 64 KiB");
            return false;
        }
        found->bytes = capacity.blocks * capacity.block_bytes;
        found->block_bytes = capacity.block_bytes;
        found->physical_block_bytes = capacity.physical_block_bytes;
        break;
    case STEP_MODE:
        if (scsi_parse_mode6(disk->answer, bytes, &mode) == OK) {
            found->read_only = mode.write_protected;
            found->fua = mode.fua;
        }
        break;
    default:
        break;
    }
    return true;
}

static uint32_t blocks_of(uint32_t limit_blocks, uint32_t most_bytes, uint32_t block_bytes)
{
    uint32_t most = MAX(most_bytes / block_bytes, 1u);

    return limit_blocks ? MIN(limit_blocks, most) : most;
}

/* ---- Who may write ---- */

static void proven(struct scsi_disk *disk)
{
    disk->proving = false;
    disk->ops->proved(disk->context);
}

static void proof_over(struct scsi_talk *talk, bool lost)
{
    struct scsi_disk *disk = talk->owner;
    const struct scsi_proof *proof = &disk->proof;

    if (lost || !disk->proving) {
        disk->proving = false;
        if (talk->refused)
            disk->ops->drop(disk->context, "the target does not carry out the commands that tell who may write");
    } else if (proof->verdict == SCSI_PROOF_HOLDS) {
        if (proof->restored && !proof->moved)
            disk->ops->news(disk->context, 0, "the target had forgotten the reservation, nobody else has come: it is there again");
        proven(disk);
    } else if (proof->verdict == SCSI_PROOF_FENCED) {
        snprintf(disk->text, sizeof disk->text, "%s", proof->why);
        scsi_disk_fence(disk, disk->text);
        proven(disk); /* for looking */
    } else {
        REFUSE("%s", proof->why);
    }
}

/* What the look has found is taken over; a claim is proven, and a unit without one is nobody else's where requests wait. */
static void looked(struct scsi_talk *talk, bool lost)
{
    struct scsi_disk *disk = talk->owner;
    struct scsi_disk_info *found = &disk->found;
    const struct scsi_holding *h = &disk->look.holding;

    if (lost || !disk->proving) {
        disk->proving = false;
        if (talk->refused)
            disk->ops->drop(disk->context, "the target does not carry out the commands that tell who may write");
        return;
    }
    found->holding = *h;
    if (!disk->claim && h->held && disk->first) {
        found->known = disk->info.known;
        disk->info = *found;
        REFUSE("the unit is reserved by another initiator, key 0x%lx, %s; let that one release it", (unsigned long)h->key,
               scsi_pr_type_name(h->type));
        return;
    }
    found->known = true;
    disk->info = *found;
    if (!disk->claim || disk->fenced) {
        proven(disk);
        return;
    }
    scsi_proof_start(&disk->proof, disk->claim, disk->answer, sizeof disk->answer, false);
    talk->ops = &scsi_proof_talk;
    talk->core = &disk->proof;
    talk->over = proof_over;
    scsi_talk_start(talk, disk->session->now_ns);
}

static void look(struct scsi_disk *disk)
{
    disk->look = (struct scsi_reserve){ .order = SCSI_RESERVE_LOOK, .key = disk->claim ? disk->claim->key : 0,
                                        .buffer = disk->answer };
    disk->talk.ops = &scsi_reserve_ops;
    disk->talk.core = &disk->look;
    disk->talk.over = looked;
    disk->talk.owner = disk;
    disk->talk.session[0] = disk->session;
    memcpy(disk->talk.lun, disk->lun, sizeof disk->lun);
    scsi_reserve_start(&disk->look);
    scsi_talk_start(&disk->talk, disk->session->now_ns);
}

/* All is asked: is it the unit that it was? */
static void conclude(struct scsi_disk *disk)
{
    struct scsi_disk_info *found = &disk->found, *was = &disk->info;

    if (was->known && strcmp(was->identity, found->identity)) {
        REFUSE("another unit is there: it was %.80s, and is %.80s; nothing is written to it. Correct target or lun, or "
               "restart the node", was->identity, found->identity);
        return;
    }
    if (was->known && (found->bytes < was->bytes || found->block_bytes != was->block_bytes)) {
        REFUSE("the unit has changed from %lu bytes in blocks of %u to %lu in blocks of %u; nothing is written to it. Give "
               "it back its size", (unsigned long)was->bytes, was->block_bytes, (unsigned long)found->bytes,
               found->block_bytes);
        return;
    }
    found->transfer_max_blocks = blocks_of(found->transfer_max_blocks, TRANSFER_MAX, found->block_bytes);
    found->unmap_max_blocks = blocks_of(found->unmap_max_blocks, UNMAP_MAX, found->block_bytes);
    found->same_max_blocks = blocks_of(found->same_max_blocks, SAME_MAX, found->block_bytes);
    /* Until the unit says that it has them not. */
    found->has_cache_control = !was->known || was->has_cache_control;
    found->can_write_same = !was->known || was->can_write_same;
    look(disk);
}

/* A question that the unit does not answer. */
static void unanswered(struct scsi_disk *disk, const struct scsi_sense *sense)
{
    char words[160];

    scsi_describe(disk->probe.iscsi.status, sense, words, sizeof words);
    if (disk->step == STEP_READY && disk->probe.iscsi.status == SCSI_RESERVATION_CONFLICT) {
        disk->step++; /* who it is that has reserved it is asked for later */
        ask(disk);
        return;
    }
    switch ((enum step)disk->step) {
    case STEP_READY: REFUSE("the unit is not ready: %.140s", words); break;
    case STEP_INQUIRY: REFUSE("the unit does not answer INQUIRY: %.140s", words); break;
    case STEP_CAPACITY: REFUSE("the unit does not tell its capacity: %.140s", words); break;
    default:
        if (++disk->step == STEP_END)
            conclude(disk);
        else
            ask(disk);
    }
}

static void done(struct iscsi_command *command)
{
    struct scsi_disk_command *probe = command->owner;
    struct scsi_disk *disk = probe->disk;
    struct scsi_sense sense;

    if (!disk->proving)
        return;
    if (command->outcome != ISCSI_ANSWERED) {
        disk->proving = false;
        if (command->outcome == ISCSI_FAILED || command->outcome == ISCSI_REFUSED)
            refuse(disk, "the target does not carry out the commands that tell what the unit is");
        return;
    }
    scsi_parse_sense(command->sense, command->sense_bytes, &sense);
    struct scsi_verdict verdict = scsi_decide(command->status, &sense, probe->attempts);
    /* What the unit has to report (verdict.news) is asked for here anyway. */
    if (verdict.action == SCSI_RETRY || verdict.action == SCSI_RETRY_LATER) {
        if (++probe->attempts > AGAIN_MAX) {
            unanswered(disk, &sense);
        } else if (verdict.action == SCSI_RETRY_LATER) {
            probe->held = true;
            probe->retry_ns = disk->session->now_ns + verdict.delay_ns;
        } else if (iscsi_submit(disk->session, command, disk->session->now_ns) != OK) {
            disk->proving = false;
        }
        return;
    }
    if (verdict.action != SCSI_DONE) {
        unanswered(disk, &sense);
        return;
    }
    if (!understand(disk, command->transferred))
        return;
    if (++disk->step == STEP_END)
        conclude(disk);
    else
        ask(disk);
}

void scsi_probe_start(struct scsi_disk *disk)
{
    memset(&disk->found, 0, sizeof disk->found);
    memset(&disk->pages, 0, sizeof disk->pages);
    disk->step = STEP_INQUIRY;
    disk->proving = true;
    (void)scsi_talk_forget(&disk->talk); /* of an earlier connection; its commands ended with that */
    ask(disk);
}
