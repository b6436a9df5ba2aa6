/* SPDX-License-Identifier: MIT */
/* The login dialogue. See iscsi_login.h. Pure. */
#include "net/iscsi/iscsi_login.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "kernel/text.h"

static struct iscsi_text_writer writer_of(struct iscsi_login *login)
{
    return (struct iscsi_text_writer){ .text = login->out, .bytes = sizeof(login->out) };
}

void iscsi_login_start(struct iscsi_login *login, const struct iscsi_login_setup *setup, uint32_t itt, uint32_t cmd_sn)
{
    memset(login, 0, offsetof(struct iscsi_login, in));
    login->setup = setup;
    login->itt = itt;
    login->cmd_sn = cmd_sn;
    login->stage = ISCSI_STAGE_SECURITY;
    login->first_response = true;
    iscsi_negotiation_start(&login->negotiation, setup->wishes, setup->discovery);
    if (setup->chap)
        iscsi_chap_start(&login->chap, setup->chap);

    struct iscsi_text_writer writer = writer_of(login);
    iscsi_text_put(&writer, "InitiatorName", setup->initiator);
    iscsi_text_put(&writer, "SessionType", setup->discovery ? "Discovery" : "Normal");
    if (!setup->discovery)
        iscsi_text_put(&writer, "TargetName", setup->target);
    iscsi_text_put(&writer, "AuthMethod", !setup->chap ? "None" : setup->chap->mutual ? "CHAP" : "CHAP,None");
    login->asked_method = true;
    login->transit = !setup->chap;
    login->out_count = writer.count;
}

void iscsi_login_request(struct iscsi_login *login, union iscsi_bhs *bhs, const void **text, uint32_t *bytes)
{
    unsigned flags = (unsigned)login->stage << 2;
    if (login->transit)
        flags |= ISCSI_LOGIN_TRANSIT | (login->stage == ISCSI_STAGE_SECURITY ? ISCSI_STAGE_OPERATIONAL
                                                                             : ISCSI_STAGE_FULL);
    iscsi_bhs_init(bhs, ISCSI_LOGIN_REQUEST | ISCSI_IMMEDIATE, flags, login->itt);
    memcpy(bhs->login_request.isid, login->setup->isid, sizeof(bhs->login_request.isid));
    be16_put(bhs->login_request.tsih, 0);
    be32_put(bhs->login_request.cmd_sn, login->cmd_sn);
    be32_put(bhs->login_request.exp_stat_sn, login->exp_stat_sn);
    be24_put(bhs->login_request.data_length, (uint32_t)login->out_count);
    *text = login->out;
    *bytes = (uint32_t)login->out_count;
    login->waiting = true;
}

static enum iscsi_login_result stop(struct iscsi_login *login, enum iscsi_login_result result, const char *format, ...)
    PRINTF_LIKE(3, 4);
static enum iscsi_login_result stop(struct iscsi_login *login, enum iscsi_login_result result, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(login->error, sizeof(login->error), format, arguments);
    va_end(arguments);
    return result;
}
#define BROKEN(...) stop(login, ISCSI_LOGIN_BROKEN, __VA_ARGS__)
#define REFUSED(...) stop(login, ISCSI_LOGIN_REFUSED, __VA_ARGS__)

/* A status other than success ends the login. */
static enum iscsi_login_result take_status(struct iscsi_login *login)
{
    struct iscsi_text_reader reader = iscsi_text_reader(login->in, login->in_count);
    const char *key, *value, *cure, *words;
    size_t key_bytes;
    words = iscsi_login_words(login->status_class, login->status_detail, &cure, &login->again);
    if (login->status_class != 1)
        return REFUSED("%s (login status %02x%02x)%s%s", words, login->status_class, login->status_detail,
                       *cure ? ": " : "", cure);
    while (iscsi_text_next(&reader, &key, &key_bytes, &value) == OK)
        if (iscsi_key_is(key, key_bytes, "TargetAddress"))
            login->portal_known = iscsi_portal_parse(value, &login->portal) == OK;
    login->moved_for_good = login->status_detail == 2;
    if (!login->portal_known)
        return BROKEN("the target says that it has moved, but not where to");
    return ISCSI_LOGIN_MOVED;
}

/* Reads all pairs of a whole answer. */
static enum iscsi_login_result take_text(struct iscsi_login *login, struct iscsi_text_writer *writer)
{
    struct iscsi_text_reader reader = iscsi_text_reader(login->in, login->in_count);
    const char *key, *value;
    size_t key_bytes;
    enum status status;
    while ((status = iscsi_text_next(&reader, &key, &key_bytes, &value)) == OK) {
        if (iscsi_key_is(key, key_bytes, "AuthMethod")) {
            if (!login->asked_method || login->stage != ISCSI_STAGE_SECURITY)
                return BROKEN("AuthMethod came at the wrong time");
            login->asked_method = false;
            if (str_equal(value, "CHAP") && login->setup->chap)
                login->chap_chosen = true;
            else if (!str_equal(value, "None") || (login->setup->chap && login->setup->chap->mutual))
                return REFUSED("no way to authenticate in common: the target answered AuthMethod=%.40s%s", value,
                               login->setup->chap ? ": compare the CHAP settings here and on the target"
                                                  : ": configure CHAP here, as the target asks for it");
        } else if (login->chap_chosen && login->stage == ISCSI_STAGE_SECURITY &&
                   iscsi_chap_take(&login->chap, key, key_bytes, value)) {
            continue;
        } else if (iscsi_negotiation_take(&login->negotiation, key, key_bytes, value, writer) != OK) {
            return BROKEN("%s", login->negotiation.error);
        }
    }
    if (status != ERR_NOT_FOUND)
        return BROKEN("text that is not made of key=value pairs");
    return ISCSI_LOGIN_GO_ON;
}

static enum iscsi_login_result security_step(struct iscsi_login *login, bool transit, const uint8_t *fresh,
                                             struct iscsi_text_writer *writer)
{
    /* A target that does not name the method it chose has chosen none (12.1). */
    bool must_prove = login->setup->chap && login->setup->chap->mutual;
    if (login->chap_chosen) {
        if (iscsi_chap_step(&login->chap, fresh, writer) != OK)
            return REFUSED("%s", login->chap.error);
        login->security_over = login->chap.state == CHAP_DONE;
        login->transit = login->chap.state >= CHAP_ANSWER_SENT;
    } else {
        if (must_prove)
            return REFUSED("the target chose no authentication, and mutual CHAP is asked for: give it accounts, or leave "
                           "chap-mutual out");
        login->security_over = login->transit = true;
    }
    if (transit) {
        if (!login->security_over)
            return BROKEN("the target went on before authentication was over");
        login->stage = ISCSI_STAGE_OPERATIONAL;
    }
    return ISCSI_LOGIN_GO_ON;
}

static enum iscsi_login_result finish(struct iscsi_login *login, const union iscsi_bhs *bhs)
{
    login->tsih = be16_get(bhs->login_response.tsih);
    if (!login->tsih)
        return BROKEN("the target ended the login without a session handle");
    if (iscsi_negotiation_finish(&login->negotiation) != OK)
        return REFUSED("%s", login->negotiation.error);
    return ISCSI_LOGIN_DONE;
}

/* Header fields that any response must have right. */
static enum iscsi_login_result check_header(struct iscsi_login *login, const union iscsi_bhs *bhs)
{
    const struct iscsi_login_response *r = &bhs->login_response;
    if (iscsi_opcode(bhs) != ISCSI_LOGIN_RESPONSE)
        return BROKEN("a %s came during the login", iscsi_opcode_name(r->opcode));
    if (!login->waiting)
        return BROKEN("a Login Response came that nothing asked for");
    if (iscsi_itt(bhs) != login->itt)
        return BROKEN("a Login Response with the tag 0x%08x came in answer to 0x%08x", iscsi_itt(bhs), login->itt);
    login->waiting = false;
    login->status_class = r->status_class;
    login->status_detail = r->status_detail;
    if (r->status_class)
        return ISCSI_LOGIN_GO_ON; /* the other fields need not be valid */
    if (memcmp(r->isid, login->setup->isid, sizeof(r->isid)))
        return BROKEN("the Login Response is for another session (ISID)");
    if (r->version_active)
        return BROKEN("the target chose version %u of iSCSI, which does not exist", r->version_active);
    uint32_t stat_sn = be32_get(r->stat_sn);
    if (!login->first_response && stat_sn != login->exp_stat_sn)
        return BROKEN("StatSN %u came where %u was due", stat_sn, login->exp_stat_sn);
    login->first_response = false;
    login->exp_stat_sn = stat_sn + 1;
    login->exp_cmd_sn = be32_get(r->exp_cmd_sn);
    login->max_cmd_sn = be32_get(r->max_cmd_sn);
    if (ISCSI_LOGIN_CSG(r->flags) != login->stage)
        return BROKEN("a Login Response of stage %u came in stage %u", ISCSI_LOGIN_CSG(r->flags), login->stage);
    if (r->flags & ISCSI_LOGIN_TRANSIT) {
        unsigned next = login->stage == ISCSI_STAGE_SECURITY ? ISCSI_STAGE_OPERATIONAL : ISCSI_STAGE_FULL;
        if (!login->transit || r->flags & ISCSI_CONTINUE || ISCSI_LOGIN_NSG(r->flags) != next)
            return BROKEN("the target changed the stage where it may not");
    }
    return ISCSI_LOGIN_GO_ON;
}

enum iscsi_login_result iscsi_login_response(struct iscsi_login *login, const union iscsi_bhs *bhs, const void *text,
                                             uint32_t bytes, const uint8_t fresh[ISCSI_CHAP_CHALLENGE_OURS + 1])
{
    enum iscsi_login_result result = check_header(login, bhs);
    if (result != ISCSI_LOGIN_GO_ON)
        return result;
    if (++login->rounds > ISCSI_LOGIN_ROUNDS)
        return BROKEN("the login takes more than %u rounds", ISCSI_LOGIN_ROUNDS);
    if (bytes > sizeof(login->in) - login->in_count)
        return BROKEN("the target sent more than %u bytes of text", ISCSI_LOGIN_TEXT);
    if (bytes)
        memcpy(login->in + login->in_count, text, bytes);
    login->in_count += bytes;
    if (login->status_class)
        return take_status(login);

    struct iscsi_text_writer writer = writer_of(login);
    bool transit = bhs->login_response.flags & ISCSI_LOGIN_TRANSIT;
    if (bhs->login_response.flags & ISCSI_CONTINUE) { /* an empty request asks for the rest (11.13.3) */
        login->transit = false;
        login->out_count = 0;
        return ISCSI_LOGIN_GO_ON;
    }
    result = take_text(login, &writer);
    login->in_count = 0;
    if (result == ISCSI_LOGIN_GO_ON && login->stage == ISCSI_STAGE_SECURITY)
        result = security_step(login, transit, fresh, &writer);
    else if (result == ISCSI_LOGIN_GO_ON && transit)
        return finish(login, bhs); /* an answer that cannot be given any more changes nothing: both know the result */
    if (result != ISCSI_LOGIN_GO_ON)
        return result;
    if (login->stage == ISCSI_STAGE_OPERATIONAL) {
        if (!login->offered)
            iscsi_negotiation_offer(&login->negotiation, &writer);
        login->offered = login->transit = true;
    }
    if (writer.full)
        return BROKEN("the answers to the target's offers do not fit into a request");
    login->out_count = writer.count;
    return ISCSI_LOGIN_GO_ON;
}
