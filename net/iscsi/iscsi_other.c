/* SPDX-License-Identifier: MIT */
/*
 * PDUs of the full feature phase that are no commands and no data: pings both ways, asynchronous messages, Reject, text
 * (SendTargets, and the empty request that a target may ask for), logout. And the numbers that all answers carry.
 */
#include <string.h>

#include "net/iscsi/iscsi_session.h"

#define TEXT_ROUNDS 4096u
#define SECOND_NS UINT64_C(1000000000)
#define REFUSALS_MAX 3u
#define FAIL(...) iscsi_fail(session, ISCSI_EVENT_DOWN, __VA_ARGS__)

static const char send_targets[] = "SendTargets=All";

bool iscsi_take_stat_sn(struct iscsi_session *session, const uint8_t *stat_sn)
{
    uint32_t number = be32_get(stat_sn);
    if (number != session->exp_stat_sn) {
        FAIL("StatSN %u came where %u was due", number, session->exp_stat_sn);
        return false;
    }
    session->exp_stat_sn++;
    return true;
}

/*
 * ExpCmdSN and MaxCmdSN stand at the same place in every answer (4.2.2.1): older numbers and nonsense change
 * nothing. A target cannot expect a number that was not given yet.
 */
void iscsi_take_window(struct iscsi_session *session)
{
    const struct iscsi_nop_in *in = &session->rx.bhs.nop_in;
    uint32_t exp = be32_get(in->exp_cmd_sn), max = be32_get(in->max_cmd_sn);
    if (serial_before(max, exp - 1) || serial_before(session->cmd_sn, exp))
        return;
    if (serial_before(session->exp_cmd_sn, exp))
        session->exp_cmd_sn = exp;
    if (serial_before(session->max_cmd_sn, max))
        session->max_cmd_sn = max;
}

/* ---- Pings ---- */

static void nop_in(struct iscsi_session *session)
{
    const struct iscsi_nop_in *in = &session->rx.bhs.nop_in;
    if (be32_get(in->itt) != ISCSI_TAG_NONE) {
        if (!session->ping_sent || be32_get(in->itt) != session->ping_itt) {
            FAIL("the target answered a ping that was not sent (tag 0x%08x)", be32_get(in->itt));
            return;
        }
        if (iscsi_take_stat_sn(session, in->stat_sn))
            session->ping_sent = session->ping_wanted = false;
        return;
    }
    if (be32_get(in->ttt) == ISCSI_TAG_NONE)
        return; /* it told us its numbers, no more */
    if (session->ping_count == ISCSI_PINGS_MAX) {
        FAIL("the target sent more than %u pings without waiting for an answer", ISCSI_PINGS_MAX);
        return;
    }
    struct iscsi_ping *ping = &session->ping[(session->ping_first + session->ping_count++) % ISCSI_PINGS_MAX];
    memcpy(ping->lun, in->lun, sizeof(ping->lun));
    ping->ttt = be32_get(in->ttt);
}

/* ---- Asynchronous messages and Reject ---- */

static void async(struct iscsi_session *session)
{
    struct iscsi_receiver *rx = &session->rx;
    const struct iscsi_async message = rx->bhs.async;
    uint64_t wait_ns = be16_get(message.parameter[1]) * SECOND_NS,
        limit_ns = be16_get(message.parameter[2]) * SECOND_NS;
    if (!iscsi_take_stat_sn(session, message.stat_sn))
        return;
    struct iscsi_event event = {
        .kind = ISCSI_EVENT_ASYNC,
        .text = iscsi_async_words(message.event),
        .code = message.event,
        .vendor = message.vendor,
        .lun = message.lun,
    };
    if (message.event == ISCSI_ASYNC_SCSI && rx->kept >= 2) {
        event.sense = rx->data + 2;
        event.sense_bytes = MIN((size_t)be16_get(rx->data), (size_t)rx->kept - 2);
    }
    iscsi_raise(session, &event);
    switch (message.event) {
    case ISCSI_ASYNC_LOGOUT: /* until then nothing new goes out: not as late as the target allows */
        iscsi_leave(session, MIN(MAX(limit_ns, SECOND_NS), session->settings->leave_ns));
        break;
    case ISCSI_ASYNC_DROP_CONNECTION:
    case ISCSI_ASYNC_DROP_SESSION:
        session->wait_floor_ns = wait_ns;
        FAIL("%s", iscsi_async_words(message.event));
        break;
    case ISCSI_ASYNC_NEGOTIATE:
        session->text_wanted = true;
        break;
    case ISCSI_ASYNC_TASKS_TERMINATED:
        /*
         * Only after TaskReporting=FastAbort, which was not agreed. It does not say that nothing of them lands any
         * more; a new session does.
         */
        FAIL("%s, as was not agreed", iscsi_async_words(message.event));
        break;
    default:
        break;
    }
}

static void reject(struct iscsi_session *session)
{
    struct iscsi_receiver *rx = &session->rx;
    unsigned reason = rx->bhs.reject.reason;
    union iscsi_bhs ours;
    if (!iscsi_take_stat_sn(session, rx->bhs.reject.stat_sn))
        return;
    if (rx->kept < sizeof(ours)) {
        FAIL("the target rejected a PDU: %s", iscsi_reject_words(reason));
        return;
    }
    memcpy(&ours, rx->data, sizeof(ours));
    if (reason == ISCSI_REJECT_TOO_MANY_IMMEDIATE) { /* no fault of the connection */
        if (iscsi_opcode(&ours) == ISCSI_NOP_OUT && session->ping_sent && iscsi_itt(&ours) == session->ping_itt) {
            session->ping_sent = session->ping_wanted = false;
            return;
        }
        for (struct iscsi_task *task = session->tasks; task; task = task->next)
            if (iscsi_opcode(&ours) == ISCSI_TASK_REQUEST && task->sent && !task->finished &&
                task->itt == iscsi_itt(&ours)) {
                task->response = ISCSI_TASK_REJECTED;
                task->finished = true;
                if (task->command) /* it lives on, and is sent again after a loss */
                    task->command->cancelled = false;
                return;
            }
    }
    if (iscsi_opcode(&ours) == ISCSI_SCSI_COMMAND) {
        /*
         * Whether it counts in CmdSN is not certain: begin anew. A command that always ends so must not do it for
         * ever.
         */
        struct iscsi_command *command = iscsi_find_command(session, iscsi_itt(&ours));
        if (command)
            command->refused_now = ++command->refusals >= REFUSALS_MAX;
    }
    FAIL("the target rejected a %s: %s", iscsi_opcode_name(ours.header.opcode), iscsi_reject_words(reason));
}

/* ---- Text ---- */

static void take_pair(struct iscsi_session *session, const char *key, size_t key_bytes, const char *value)
{
    struct iscsi_event event = { .text = value };
    struct iscsi_portal portal;
    uint64_t number;
    if (session->settings->login.discovery) {
        if (iscsi_key_is(key, key_bytes, "TargetName")) {
            session->target_named = iscsi_name_valid(value); /* else the addresses that follow are nobody's */
            event.kind = session->target_named ? ISCSI_EVENT_TARGET : ISCSI_EVENT_IGNORED;
            iscsi_raise(session, &event);
        } else if (iscsi_key_is(key, key_bytes, "TargetAddress") && session->target_named) {
            event.portal = &portal;
            event.kind = iscsi_portal_parse(value, &portal) == OK ? ISCSI_EVENT_ADDRESS : ISCSI_EVENT_IGNORED;
            iscsi_raise(session, &event);
        }
    } else if (iscsi_key_is(key, key_bytes, "MaxRecvDataSegmentLength") && iscsi_text_number(value, &number) == OK &&
               number >= 512 && number <= ISCSI_DATA_MAX) {
        session->parameters.max_send_bytes = (uint32_t)number;
    }
}

/* Reads the pairs that are whole; what follows the last NUL waits for the next response. */
static bool read_pairs(struct iscsi_session *session, const uint8_t *bytes, size_t count)
{
    char *text = session->login.in;
    if (count > sizeof(session->login.in) - session->text_count) {
        FAIL("the target sent a pair of text longer than %u bytes", ISCSI_LOGIN_TEXT);
        return false;
    }
    memcpy(text + session->text_count, bytes, count);
    session->text_count += count;
    size_t whole = session->text_count;
    while (whole && text[whole - 1])
        whole--;
    struct iscsi_text_reader reader = iscsi_text_reader(text, whole);
    const char *key, *value;
    size_t key_bytes;
    enum status status;
    while ((status = iscsi_text_next(&reader, &key, &key_bytes, &value)) == OK)
        take_pair(session, key, key_bytes, value);
    if (status != ERR_NOT_FOUND) {
        FAIL("the target sent text that is not made of key=value pairs");
        return false;
    }
    memmove(text, text + whole, session->text_count - whole);
    session->text_count -= whole;
    return true;
}

static void text_response(struct iscsi_session *session)
{
    struct iscsi_receiver *rx = &session->rx;
    const struct iscsi_text_response *answer = &rx->bhs.text_response;
    bool final = answer->flags & ISCSI_FINAL && !(answer->flags & ISCSI_CONTINUE);
    if (!session->text_sent || be32_get(answer->itt) != session->text_itt) {
        FAIL("the target answered a text request that was not made (tag 0x%08x)", be32_get(answer->itt));
        return;
    }
    if (!iscsi_take_stat_sn(session, answer->stat_sn))
        return;
    session->text_sent = false;
    session->text_ttt = be32_get(answer->ttt);
    if (rx->kept < iscsi_data_length(&rx->bhs)) {
        FAIL("the target sent more than %u bytes of text at once", ISCSI_RECEIVE_BYTES);
        return;
    }
    if (!read_pairs(session, rx->data, rx->kept))
        return;
    if (final) {
        session->text_rounds = 0;
        if (session->text_count)
            FAIL("the target ended its text in the middle of a pair");
        else if (session->settings->login.discovery)
            session->want_stop = true;
    } else if (session->text_ttt == ISCSI_TAG_NONE || ++session->text_rounds > TEXT_ROUNDS) {
        FAIL("the target's text does not end");
    } else {
        session->text_wanted = true; /* an empty request with its tag asks for the rest */
    }
}

/* ---- Logout ---- */

static void logout_response(struct iscsi_session *session)
{
    const struct iscsi_logout_response *answer = &session->rx.bhs.logout_response;
    if (!session->logout_sent || be32_get(answer->itt) != session->logout_itt) {
        FAIL("the target answered a logout that was not asked for");
        return;
    }
    if (!iscsi_take_stat_sn(session, answer->stat_sn))
        return;
    session->wait_floor_ns = be16_get(answer->time_to_wait) * SECOND_NS;
    iscsi_left(session);
}

void iscsi_other_pdu(struct iscsi_session *session)
{
    const union iscsi_bhs *bhs = &session->rx.bhs;
    switch (iscsi_opcode(bhs)) {
    case ISCSI_NOP_IN: nop_in(session); break;
    case ISCSI_ASYNC: async(session); break;
    case ISCSI_REJECT: reject(session); break;
    case ISCSI_TEXT_RESPONSE: text_response(session); break;
    case ISCSI_LOGOUT_RESPONSE: logout_response(session); break;
    default:
        FAIL("the target sent a %s (opcode 0x%02x), which has no place here", iscsi_opcode_name(bhs->header.opcode),
             bhs->header.opcode);
        break;
    }
}

/* ---- Out ---- */

static void ping_answer(struct iscsi_session *session, union iscsi_bhs *bhs)
{
    const struct iscsi_ping *ping = &session->ping[session->ping_first];
    iscsi_bhs_init(bhs, ISCSI_NOP_OUT | ISCSI_IMMEDIATE, ISCSI_FINAL, ISCSI_TAG_NONE);
    memcpy(bhs->nop_out.lun, ping->lun, sizeof(ping->lun));
    be32_put(bhs->nop_out.ttt, ping->ttt);
    session->ping_first = (session->ping_first + 1) % ISCSI_PINGS_MAX;
    session->ping_count--;
}

bool iscsi_build_other(struct iscsi_session *session, union iscsi_bhs *bhs, const void **text, uint32_t *bytes)
{
    if (session->logout_sent) /* nothing may follow it (11.14) */
        return false;
    if (session->ping_count) {
        ping_answer(session, bhs);
    } else if (session->ping_wanted && !session->ping_sent) {
        session->ping_sent = true;
        session->ping_itt = iscsi_own_tag(session);
        session->counts.pings++;
        iscsi_bhs_init(bhs, ISCSI_NOP_OUT | ISCSI_IMMEDIATE, ISCSI_FINAL, session->ping_itt);
        be32_put(bhs->nop_out.ttt, ISCSI_TAG_NONE);
    } else if (session->logout_wanted) {
        session->logout_sent = true;
        session->logout_itt = iscsi_own_tag(session);
        iscsi_bhs_init(bhs, ISCSI_LOGOUT_REQUEST | ISCSI_IMMEDIATE, ISCSI_FINAL | ISCSI_LOGOUT_SESSION,
                       session->logout_itt);
    } else if (session->text_wanted && !session->text_sent) {
        bool first = session->text_rounds == 0;
        session->text_sent = true;
        session->text_wanted = false;
        if (first) {
            session->text_itt = iscsi_own_tag(session);
            session->text_ttt = ISCSI_TAG_NONE;
            session->text_count = 0;
            session->target_named = false;
        }
        iscsi_bhs_init(bhs, ISCSI_TEXT_REQUEST | ISCSI_IMMEDIATE, ISCSI_FINAL, session->text_itt);
        be32_put(bhs->text_request.ttt, session->text_ttt);
        if (first && session->settings->login.discovery) {
            *text = send_targets;
            *bytes = sizeof(send_targets);
            be24_put(bhs->text_request.data_length, *bytes);
        }
    } else {
        return false;
    }
    /* CmdSN and ExpStatSN stand at the same place in all of these. */
    be32_put(bhs->nop_out.cmd_sn, session->cmd_sn);
    be32_put(bhs->nop_out.exp_stat_sn, session->exp_stat_sn);
    return true;
}
