/* SPDX-License-Identifier: MIT */
/* Headers, logical unit numbers, and the words for the codes that targets send (RFC 7143 section 11). Pure. */
#include "net/iscsi/iscsi_pdu.h"

#include <string.h>

void iscsi_bhs_init(union iscsi_bhs *bhs, unsigned opcode, unsigned flags, uint32_t itt)
{
    memset(bhs, 0, sizeof(*bhs));
    bhs->header.opcode = (uint8_t)opcode;
    bhs->header.flags = (uint8_t)flags;
    be32_put(bhs->header.itt, itt);
}

bool iscsi_lun_encode(uint8_t lun[8], unsigned number)
{
    if (number >= 1u << 14)
        return false;
    memset(lun, 0, 8);
    be16_put(lun, (uint16_t)(number < 256 ? number : number | 0x4000));
    return true;
}

int iscsi_lun_decode(const uint8_t lun[8])
{
    static const uint8_t zero[6];
    unsigned first = be16_get(lun);
    if (memcmp(lun + 2, zero, 6))
        return -1;
    if (first < 256)
        return (int)first;
    return first >> 14 == 1 ? (int)(first & 0x3fff) : -1;
}

struct words {
    unsigned code;
    const char *text;
};

static const char *find(const struct words *table, size_t count, unsigned code, const char *otherwise)
{
    for (size_t i = 0; i < count; i++)
        if (table[i].code == code)
            return table[i].text;
    return otherwise;
}

const char *iscsi_opcode_name(unsigned opcode)
{
    static const struct words names[] = {
        { ISCSI_NOP_OUT, "NOP-Out" },
        { ISCSI_SCSI_COMMAND, "SCSI Command" },
        { ISCSI_TASK_REQUEST, "Task Management Function Request" },
        { ISCSI_LOGIN_REQUEST, "Login Request" },
        { ISCSI_TEXT_REQUEST, "Text Request" },
        { ISCSI_DATA_OUT, "SCSI Data-Out" },
        { ISCSI_LOGOUT_REQUEST, "Logout Request" },
        { ISCSI_SNACK, "SNACK Request" },
        { ISCSI_NOP_IN, "NOP-In" },
        { ISCSI_SCSI_RESPONSE, "SCSI Response" },
        { ISCSI_TASK_RESPONSE, "Task Management Function Response" },
        { ISCSI_LOGIN_RESPONSE, "Login Response" },
        { ISCSI_TEXT_RESPONSE, "Text Response" },
        { ISCSI_DATA_IN, "SCSI Data-In" },
        { ISCSI_LOGOUT_RESPONSE, "Logout Response" },
        { ISCSI_R2T, "Ready To Transfer" },
        { ISCSI_ASYNC, "Asynchronous Message" },
        { ISCSI_REJECT, "Reject" },
    };
    return find(names, ARRAY_COUNT(names), opcode & ISCSI_OPCODE_MASK, "PDU of an unknown kind");
}

const char *iscsi_reject_words(unsigned reason)
{
    static const struct words reasons[] = {
        { ISCSI_REJECT_DATA_DIGEST, "the data digest was wrong" },
        { ISCSI_REJECT_SNACK, "a SNACK was rejected" },
        { ISCSI_REJECT_PROTOCOL, "a protocol error" },
        { ISCSI_REJECT_UNSUPPORTED, "the command is not supported" },
        { ISCSI_REJECT_TOO_MANY_IMMEDIATE, "too many immediate commands" },
        { ISCSI_REJECT_TASK_IN_PROGRESS, "the task is in progress" },
        { ISCSI_REJECT_DATA_ACK, "an invalid acknowledgement of data" },
        { ISCSI_REJECT_FIELD, "a field of the PDU is invalid" },
        { ISCSI_REJECT_RESOURCES, "the target is out of resources" },
        { ISCSI_REJECT_NEGOTIATION_RESET, "the negotiation was reset" },
        { ISCSI_REJECT_WAITING_FOR_LOGOUT, "the target waits for a logout" },
    };
    return find(reasons, ARRAY_COUNT(reasons), reason, "a reason that is not in the standard");
}

const char *iscsi_async_words(unsigned event)
{
    static const struct words events[] = {
        { ISCSI_ASYNC_SCSI, "a SCSI event of a logical unit" },
        { ISCSI_ASYNC_LOGOUT, "the target asks for a logout" },
        { ISCSI_ASYNC_DROP_CONNECTION, "the target will drop the connection" },
        { ISCSI_ASYNC_DROP_SESSION, "the target will drop all connections of the session" },
        { ISCSI_ASYNC_NEGOTIATE, "the target asks for a new negotiation" },
        { ISCSI_ASYNC_TASKS_TERMINATED, "the target ended all tasks of a logical unit" },
        { ISCSI_ASYNC_VENDOR, "an event of the vendor's own" },
    };
    return find(events, ARRAY_COUNT(events), event, "an event that is not in the standard");
}

const char *iscsi_task_answer_words(unsigned response)
{
    static const struct words answers[] = {
        { ISCSI_TASK_COMPLETE, "function complete" },
        { ISCSI_TASK_NO_TASK, "the task does not exist" },
        { ISCSI_TASK_NO_LUN, "the logical unit does not exist" },
        { ISCSI_TASK_STILL_ALLEGIANT, "the task is still allegiant" },
        { ISCSI_TASK_NO_REASSIGN, "task reassignment is not supported" },
        { ISCSI_TASK_UNSUPPORTED, "the function is not supported" },
        { ISCSI_TASK_UNAUTHORIZED, "the function is not authorized" },
        { ISCSI_TASK_REJECTED, "the function was rejected" },
    };
    return find(answers, ARRAY_COUNT(answers), response, "an answer that is not in the standard");
}

const char *iscsi_login_words(unsigned status_class, unsigned status_detail, const char **cure, bool *again)
{
    static const struct {
        uint16_t code;
        bool again;
        const char *text, *cure;
    } table[] = {
        { 0x0000, true, "success", "" },
        { 0x0101, true, "the target has moved for now", "" },
        { 0x0102, true, "the target has moved for good", "put the new address into the configuration" },
        { 0x0200, false, "the initiator made an error that the target does not name", "look into the target's log" },
        { 0x0201, false, "authentication failed", "compare the CHAP name and secret here and on the target" },
        { 0x0202, false, "this initiator may not use the target",
          "add the initiator's name to the target's access list" },
        { 0x0203, false, "the target has no target of that name", "compare the target's name here and there" },
        { 0x0204, false, "the target was removed, and no new address is known", "" },
        { 0x0205, false, "the target has no version of iSCSI in common", "" },
        { 0x0206, false, "the target allows no more connections of this session", "" },
        { 0x0207, false, "the target found a parameter missing", "" },
        { 0x0208, false, "the target cannot include the connection in this session", "" },
        { 0x0209, false, "the target does not support this type of session", "" },
        { 0x020a, true, "the session does not exist on the target", "" },
        { 0x020b, false, "the target found a request that is invalid during login", "" },
        { 0x0300, true, "the target has an error of its own", "look into the target's log" },
        { 0x0301, true, "the target's service is not available now", "" },
        { 0x0302, true, "the target is out of resources", "" },
    };
    unsigned code = (status_class & 0xff) << 8 | (status_detail & 0xff);
    for (size_t i = 0; i < ARRAY_COUNT(table); i++)
        if (table[i].code == code) {
            *cure = table[i].cure;
            *again = table[i].again;
            return table[i].text;
        }
    *cure = "look into the target's log";
    *again = status_class != 2;
    return status_class == 1   ? "the target has moved"
           : status_class == 2 ? "the target found an error of the initiator's"
           : status_class == 3 ? "the target has an error of its own"
                               : "a status that is not in the standard";
}
