/* SPDX-License-Identifier: MIT */
/* Sense data, its words, and what to do about a status. See scsi_sense.h. Codes: SPC-4 annex D. Pure. */
#include "net/scsi/scsi_sense.h"

#include <stdio.h>
#include <string.h>

#include "kernel/bytes.h"

static void parse_field(const uint8_t *specific, struct scsi_sense *sense)
{
    if (sense->key != SCSI_ILLEGAL_REQUEST || !(specific[0] & 0x80))
        return;
    sense->has_field = true;
    sense->field_in_cdb = specific[0] & 0x40;
    sense->field_byte = be16_get(specific + 1);
}

static void parse_fixed(const uint8_t *data, size_t bytes, struct scsi_sense *sense)
{
    if (bytes < 3)
        return;
    sense->valid = true;
    sense->key = data[2] & 15;
    if (bytes >= 8)
        bytes = MIN(bytes, (size_t)data[7] + 8);
    if (data[0] & 0x80 && bytes >= 7) {
        sense->has_information = true;
        sense->information = be32_get(data + 3);
    }
    if (bytes >= 14) {
        sense->asc = data[12];
        sense->ascq = data[13];
    }
    if (bytes >= 18)
        parse_field(data + 15, sense);
}

static void parse_descriptors(const uint8_t *data, size_t bytes, struct scsi_sense *sense)
{
    if (bytes < 4)
        return;
    sense->valid = true;
    sense->key = data[1] & 15;
    sense->asc = data[2];
    sense->ascq = data[3];
    if (bytes < 8)
        return;
    const uint8_t *at = data + 8, *end = at + MIN(bytes - 8, (size_t)data[7]);
    while (end - at >= 2 && (size_t)(end - at - 2) >= at[1]) {
        if (at[0] == 0 && at[1] >= 10 && at[2] & 0x80) {
            sense->has_information = true;
            sense->information = be64_get(at + 4);
        } else if (at[0] == 2 && at[1] >= 6) {
            parse_field(at + 4, sense);
        }
        at += 2 + at[1];
    }
}

void scsi_parse_sense(const uint8_t *data, size_t bytes, struct scsi_sense *sense)
{
    memset(sense, 0, sizeof(*sense));
    if (!bytes)
        return;
    unsigned format = data[0] & 0x7f;
    sense->deferred = format == 0x71 || format == 0x73;
    if (format == 0x70 || format == 0x71)
        parse_fixed(data, bytes, sense);
    else if (format == 0x72 || format == 0x73)
        parse_descriptors(data, bytes, sense);
    if (!sense->valid)
        sense->deferred = false;
}

/* ---- Words ---- */

const char *scsi_status_name(unsigned status)
{
    switch (status) {
    case SCSI_GOOD: return "GOOD";
    case SCSI_CHECK_CONDITION: return "CHECK CONDITION";
    case SCSI_CONDITION_MET: return "CONDITION MET";
    case SCSI_BUSY: return "BUSY";
    case SCSI_RESERVATION_CONFLICT: return "RESERVATION CONFLICT";
    case SCSI_TASK_SET_FULL: return "TASK SET FULL";
    case SCSI_ACA_ACTIVE: return "ACA ACTIVE";
    case SCSI_TASK_ABORTED: return "TASK ABORTED";
    default: return "a status that is not in the standard";
    }
}

const char *scsi_key_name(unsigned key)
{
    static const char *const names[16] = {
        "NO SENSE", "RECOVERED ERROR", "NOT READY", "MEDIUM ERROR", "HARDWARE ERROR", "ILLEGAL REQUEST",
            "UNIT ATTENTION",
        "DATA PROTECT", "BLANK CHECK", "VENDOR SPECIFIC", "COPY ABORTED", "ABORTED COMMAND", "reserved key",
            "VOLUME OVERFLOW",
        "MISCOMPARE", "COMPLETED",
    };
    return names[key & 15];
}

static const struct code {
    uint8_t asc, ascq;
    uint16_t news;
    const char *words;
} codes[] = {
    { 0x00, 0x00, 0, "no additional sense information" },
    { 0x00, 0x06, 0, "I/O process terminated" },
    { 0x02, 0x00, 0, "no seek complete" },
    { 0x03, 0x00, 0, "peripheral device write fault" },
    { 0x04, 0x00, 0, "not ready, cause not reportable" },
    { 0x04, 0x01, 0, "becoming ready" },
    { 0x04, 0x02, 0, "not ready, initializing command required" },
    { 0x04, 0x03, 0, "not ready, manual intervention required" },
    { 0x04, 0x04, 0, "not ready, format in progress" },
    { 0x04, 0x05, 0, "not ready, rebuild in progress" },
    { 0x04, 0x06, 0, "not ready, recalculation in progress" },
    { 0x04, 0x07, 0, "not ready, operation in progress" },
    { 0x04, 0x09, 0, "not ready, self-test in progress" },
    { 0x04, 0x0a, 0, "not accessible, asymmetric access state transition" },
    { 0x04, 0x0b, 0, "not accessible, target port in standby state" },
    { 0x04, 0x0c, 0, "not accessible, target port in unavailable state" },
    { 0x04, 0x14, 0, "not ready, space allocation in progress" },
    { 0x05, 0x00, 0, "the logical unit does not respond to selection" },
    { 0x08, 0x00, 0, "logical unit communication failure" },
    { 0x08, 0x01, 0, "logical unit communication time-out" },
    { 0x09, 0x00, 0, "track following error" },
    { 0x0b, 0x00, 0, "warning" },
    { 0x0b, 0x01, 0, "warning: specified temperature exceeded" },
    { 0x0c, 0x00, 0, "write error" },
    { 0x0c, 0x02, 0, "write error, auto reallocation failed" },
    { 0x0e, 0x00, 0, "invalid information unit" },
    { 0x10, 0x00, 0, "ID CRC or ECC error" },
    { 0x11, 0x00, 0, "unrecovered read error" },
    { 0x11, 0x04, 0, "unrecovered read error, auto reallocate failed" },
    { 0x14, 0x00, 0, "recorded entity not found" },
    { 0x15, 0x00, 0, "random positioning error" },
    { 0x17, 0x00, 0, "recovered data, no error correction applied" },
    { 0x18, 0x00, 0, "recovered data with error correction applied" },
    { 0x1a, 0x00, 0, "parameter list length error" },
    { 0x1d, 0x00, 0, "miscompare during verify operation" },
    { 0x20, 0x00, 0, "invalid command operation code" },
    { 0x21, 0x00, 0, "logical block address out of range" },
    { 0x24, 0x00, 0, "invalid field in CDB" },
    { 0x25, 0x00, 0, "logical unit not supported" },
    { 0x26, 0x00, 0, "invalid field in parameter list" },
    { 0x26, 0x01, 0, "parameter not supported" },
    { 0x26, 0x02, 0, "parameter value invalid" },
    { 0x26, 0x04, 0, "invalid release of persistent reservation" },
    { 0x27, 0x00, 0, "write protected" },
    { 0x27, 0x01, 0, "hardware write protected" },
    { 0x27, 0x02, 0, "logical unit software write protected" },
    { 0x27, 0x07, 0, "space allocation failed: the thin unit has no room" },
    { 0x28, 0x00, SCSI_NEWS_CAPACITY | SCSI_NEWS_INQUIRY, "not ready to ready change, medium may have changed" },
    { 0x29, 0x00, SCSI_NEWS_RESET, "power on, reset, or bus device reset occurred" },
    { 0x29, 0x01, SCSI_NEWS_RESET, "power on occurred" },
    { 0x29, 0x02, SCSI_NEWS_RESET, "SCSI bus reset occurred" },
    { 0x29, 0x03, SCSI_NEWS_RESET, "bus device reset function occurred" },
    { 0x29, 0x04, SCSI_NEWS_RESET, "device internal reset" },
    { 0x29, 0x07, SCSI_NEWS_NEXUS_LOSS, "I_T nexus loss occurred" },
    { 0x2a, 0x00, SCSI_NEWS_MODE, "parameters changed" },
    { 0x2a, 0x01, SCSI_NEWS_MODE, "mode parameters changed" },
    { 0x2a, 0x02, SCSI_NEWS_OTHER, "log parameters changed" },
    { 0x2a, 0x03, SCSI_NEWS_RESERVATION_PREEMPTED, "reservations preempted" },
    { 0x2a, 0x04, SCSI_NEWS_RESERVATION_RELEASED, "reservations released" },
    { 0x2a, 0x05, SCSI_NEWS_REGISTRATION_PREEMPTED, "registrations preempted" },
    { 0x2a, 0x06, SCSI_NEWS_ACCESS_STATE, "asymmetric access state changed" },
    { 0x2a, 0x07, SCSI_NEWS_ACCESS_STATE, "implicit asymmetric access state transition failed" },
    { 0x2a, 0x09, SCSI_NEWS_CAPACITY, "capacity data has changed" },
    { 0x2c, 0x00, 0, "command sequence error" },
    { 0x2f, 0x00, SCSI_NEWS_COMMANDS_CLEARED, "commands cleared by another initiator" },
    { 0x2f, 0x01, SCSI_NEWS_COMMANDS_CLEARED, "commands cleared by power loss notification" },
    { 0x31, 0x00, 0, "medium format corrupted" },
    { 0x32, 0x00, 0, "no defect spare location available" },
    { 0x38, 0x07, SCSI_NEWS_SPACE_LOW, "thin provisioning soft threshold reached" },
    { 0x3a, 0x00, 0, "medium not present" },
    { 0x3d, 0x00, 0, "invalid bits in identify message" },
    { 0x3e, 0x00, 0, "logical unit has not self-configured yet" },
    { 0x3e, 0x01, 0, "logical unit failure" },
    { 0x3e, 0x02, 0, "time-out on logical unit" },
    { 0x3f, 0x00, SCSI_NEWS_OTHER, "target operating conditions have changed" },
    { 0x3f, 0x01, SCSI_NEWS_INQUIRY, "microcode has been changed" },
    { 0x3f, 0x03, SCSI_NEWS_INQUIRY, "inquiry data has changed" },
    { 0x3f, 0x0e, SCSI_NEWS_UNITS, "reported LUNs data has changed" },
    { 0x43, 0x00, 0, "message error" },
    { 0x44, 0x00, 0, "internal target failure" },
    { 0x45, 0x00, 0, "select or reselect failure" },
    { 0x47, 0x00, 0, "SCSI parity error" },
    { 0x47, 0x05, 0, "protocol service CRC error" },
    { 0x48, 0x00, 0, "initiator detected error message received" },
    { 0x49, 0x00, 0, "invalid message error" },
    { 0x4b, 0x00, 0, "data phase error" },
    { 0x4b, 0x05, 0, "too much write data" },
    { 0x4e, 0x00, 0, "overlapped commands attempted" },
    { 0x55, 0x00, 0, "system resource failure" },
    { 0x55, 0x03, 0, "insufficient resources" },
    { 0x55, 0x04, 0, "insufficient registration resources" },
    { 0x5d, 0x00, 0, "failure prediction threshold exceeded" },
};

static const struct code *find(unsigned asc, unsigned ascq)
{
    for (size_t i = 0; i < ARRAY_COUNT(codes); i++)
        if (codes[i].asc == asc && codes[i].ascq == ascq)
            return &codes[i];
    return NULL;
}

const char *scsi_sense_words(unsigned asc, unsigned ascq)
{
    const struct code *code = find(asc, ascq);
    return code ? code->words : "";
}

void scsi_describe(unsigned status, const struct scsi_sense *sense, char *text, size_t bytes)
{
    if (status != SCSI_CHECK_CONDITION || !sense->valid) {
        snprintf(text, bytes, "%s%s", scsi_status_name(status),
                 status == SCSI_CHECK_CONDITION ? ", without sense data that can be read" : "");
        return;
    }
    char more[48] = "";
    const char *words = scsi_sense_words(sense->asc, sense->ascq);
    if (sense->has_field)
        snprintf(more, sizeof(more), ", byte %u of the %s", sense->field_byte, sense->field_in_cdb
                 ? "CDB" : "parameters");
    else if (sense->has_information && sense->key != SCSI_NO_SENSE)
        snprintf(more, sizeof(more), ", at %s %lu", sense->key == SCSI_MISCOMPARE ? "byte" : "block",
                 (unsigned long)sense->information);
    snprintf(text, bytes, "%s%s%s%s (%02xh/%02xh)%s", sense->deferred ? "of an earlier command: " : "",
             scsi_key_name(sense->key), *words ? ", " : "", words, sense->asc, sense->ascq, more);
}

/* ---- Decisions ---- */

#define ATTEMPTS_MAX 5u
#define DELAY_FIRST_NS UINT64_C(20000000)
#define DELAY_LAST_NS UINT64_C(2000000000)

static struct scsi_verdict later(unsigned attempts)
{
    uint64_t delay = attempts < 7 ? DELAY_FIRST_NS << attempts : DELAY_LAST_NS;
    return (struct scsi_verdict){ .action = SCSI_RETRY_LATER, .delay_ns = MIN(delay, DELAY_LAST_NS) };
}

/* For errors that may pass: a few times. */
static struct scsi_verdict some_times(unsigned attempts)
{
    return attempts < ATTEMPTS_MAX ? later(attempts) : (struct scsi_verdict){ .action = SCSI_FAIL };
}

static struct scsi_verdict of(enum scsi_action action)
{
    return (struct scsi_verdict){ .action = action };
}

static struct scsi_verdict not_ready(const struct scsi_sense *sense, unsigned attempts)
{
    if (sense->asc != 0x04)
        return sense->asc == 0x3a ? of(SCSI_FAIL) : some_times(attempts);
    switch (sense->ascq) {
    case 0x02: /* START UNIT is needed */
    case 0x03:
        return of(SCSI_FAIL);
    default: /* also standby and unavailable (0Bh, 0Ch), which pass, or another path does it */
        return later(attempts);
    }
}

static struct scsi_verdict by_key(const struct scsi_sense *sense, unsigned attempts)
{
    switch (sense->key) {
    case SCSI_NO_SENSE:
    case SCSI_RECOVERED_ERROR:
    case SCSI_COMPLETED:
        return of(SCSI_DONE);
    case SCSI_NOT_READY:
        return not_ready(sense, attempts);
    case SCSI_UNIT_ATTENTION:
        /* Preempted, or the reservation is gone: where nothing keeps this node out any more, a retry would land. */
        if (sense->asc == 0x2a && sense->ascq >= 0x03 && sense->ascq <= 0x05)
            return of(SCSI_CONFLICT);
        return attempts < 4 ? of(SCSI_RETRY) : later(attempts);
    case SCSI_ABORTED_COMMAND:
        return some_times(attempts);
    case SCSI_HARDWARE_ERROR:
        return sense->asc == 0x55 || sense->asc == 0x08 ? some_times(attempts) : of(SCSI_FAIL);
    case SCSI_ILLEGAL_REQUEST:
        if (sense->asc == 0x55)
            return some_times(attempts);
        if (sense->asc == 0x25) /* no such unit: a target that was just started has its units a little later */
            return later(attempts);
        return of(sense->asc == 0x20 || sense->asc == 0x24 || sense->asc == 0x26 ? SCSI_UNSUPPORTED : SCSI_FAIL);
    case SCSI_DATA_PROTECT:
        return of(sense->asc == 0x27 && sense->ascq == 0x07 ? SCSI_OUT_OF_SPACE : SCSI_FAIL);
    case SCSI_MISCOMPARE:
        return of(SCSI_DIFFERS);
    default:
        return of(SCSI_FAIL);
    }
}

struct scsi_verdict scsi_decide(unsigned status, const struct scsi_sense *sense, unsigned attempts)
{
    switch (status) {
    case SCSI_GOOD:
    case SCSI_CONDITION_MET:
        return of(SCSI_DONE);
    case SCSI_RESERVATION_CONFLICT:
        return of(SCSI_CONFLICT);
    case SCSI_BUSY:
    case SCSI_TASK_SET_FULL:
        return later(attempts);
    case SCSI_TASK_ABORTED: {
        struct scsi_verdict verdict = later(attempts);
        verdict.news = SCSI_NEWS_COMMANDS_CLEARED;
        return verdict;
    }
    case SCSI_CHECK_CONDITION:
        break;
    default:
        return some_times(attempts);
    }
    if (!sense->valid)
        return some_times(attempts);
    /*
     * An error of an earlier command says nothing about this one, which was not executed (SPC-4 4.5.5): a write that
     * was answered GOOD is lost, so it is told, and this command goes out again.
     */
    struct scsi_verdict verdict = sense->deferred ? some_times(attempts) : by_key(sense, attempts);
    const struct code *code = find(sense->asc, sense->ascq);
    if (sense->deferred && sense->key != SCSI_NO_SENSE && sense->key != SCSI_RECOVERED_ERROR)
        verdict.news |= SCSI_NEWS_DEFERRED_ERROR;
    if (!sense->deferred && sense->key == SCSI_ILLEGAL_REQUEST && sense->asc == 0x25)
        verdict.news |= SCSI_NEWS_UNITS;
    if (!sense->deferred && sense->key == SCSI_NOT_READY && sense->asc == 0x04 && sense->ascq >= 0x0a &&
        sense->ascq <= 0x0c)
        verdict.news |= SCSI_NEWS_ACCESS_STATE;
    if (sense->key == SCSI_UNIT_ATTENTION)
        verdict.news |= code && code->news ? code->news : SCSI_NEWS_OTHER;
    return verdict;
}
