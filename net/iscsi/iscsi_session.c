/* SPDX-License-Identifier: MIT */
/*
 * The life of a session: connecting, login, proving, keeping alive, leaving, and beginning anew. See iscsi_session.h.
 *
 * Every call of the owner is wrapped in enter() and leave(). Wishes that come from callbacks (stop, resume, drop) are
 * only noted; the outermost leave() carries them out, hands out what is finished, and sends, until nothing is left to
 * do. So no callback ever runs while a list is walked or a PDU half handled, except give, take, send, event and
 * may_send, which change nothing here but by such wishes and by queueing.
 */
#include "net/iscsi/iscsi_session.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define SECOND_NS UINT64_C(1000000000)
#define MOVES_MAX 4u

void iscsi_settings_default(struct iscsi_settings *settings)
{
    memset(settings, 0, sizeof(*settings));
    settings->prove = true;
    settings->connect_ns = 10 * SECOND_NS;
    settings->login_ns = 15 * SECOND_NS;
    settings->prove_ns = 20 * SECOND_NS;
    settings->idle_ns = settings->answer_ns = 5 * SECOND_NS;
    settings->slow_ns = 20 * SECOND_NS;
    settings->timeout_ns = 60 * SECOND_NS;
    settings->retry_first_ns = SECOND_NS / 10;
    settings->retry_last_ns = 5 * SECOND_NS;
    settings->leave_ns = 5 * SECOND_NS;
    settings->first_cmd_sn = 1;
}

const char *iscsi_state_name(enum iscsi_state state)
{
    static const char *const names[] = {
        [ISCSI_IDLE] = "idle",       [ISCSI_WAITING] = "waiting", [ISCSI_CONNECTING] = "connecting",
        [ISCSI_LOGIN] = "login",     [ISCSI_PROVING] = "proving", [ISCSI_READY] = "ready",
        [ISCSI_LEAVING] = "leaving",
    };
    return (unsigned)state < ARRAY_COUNT(names) ? names[state] : "unknown";
}

const char *iscsi_outcome_words(enum iscsi_outcome outcome)
{
    static const char *const words[] = {
        [ISCSI_ANSWERED] = "answered",
        [ISCSI_FAILED] = "the target could not execute it",
        [ISCSI_STALE] = "discarded: it may not be sent any more",
        [ISCSI_ABORTED] = "aborted",
        [ISCSI_LOST] = "the connection was lost before the answer",
        [ISCSI_REFUSED] = "the target rejects it",
        [ISCSI_STOPPED] = "the session was stopped",
    };
    return (unsigned)outcome < ARRAY_COUNT(words) ? words[outcome] : "unknown";
}

bool iscsi_in_full_feature(const struct iscsi_session *session)
{
    return session->state >= ISCSI_PROVING;
}

void iscsi_raise(struct iscsi_session *session, const struct iscsi_event *event)
{
    session->ops->event(session->context, event);
}

void iscsi_note(struct iscsi_session *session, enum iscsi_event_kind kind, const char *text)
{
    struct iscsi_event event = { .kind = kind, .text = text };
    iscsi_raise(session, &event);
}

/* ---- The end of a connection ---- */

/* Closes it and forgets all that belonged to it; commands wait, task requests are lost. */
static void disconnect(struct iscsi_session *session)
{
    if (session->open)
        session->ops->close(session->context, session->connection);
    session->open = session->connected = session->login_ready = false;
    iscsi_receive_reset(session);
    iscsi_send_reset(session);
    session->acknowledged = UINT64_MAX;
    session->ping_count = 0;
    session->ping_wanted = session->ping_sent = false;
    session->draining = session->logout_wanted = session->logout_sent = false;
    session->text_wanted = session->text_sent = false;
    session->text_rounds = 0;
    session->text_count = 0;
    for (struct iscsi_task *task = session->tasks; task; task = task->next)
        if (!task->finished)
            task->finished = task->lost = true;
    iscsi_requeue(session);
}

/* READY for some time, so that a loss now is a new one. */
static bool lasted(const struct iscsi_session *session)
{
    return session->ready_since_ns && session->now_ns - session->ready_since_ns > session->settings->retry_last_ns;
}

/* A session that was READY, but neither answered a command nor lasted, was not usable: the outage goes on. */
static void set_state(struct iscsi_session *session, enum iscsi_state state, uint64_t patience_ns)
{
    if (session->state == ISCSI_IDLE || (session->state == ISCSI_READY && (session->progress || lasted(session))))
        session->unusable_since_ns = session->now_ns;
    if (state == ISCSI_READY)
        session->progress = false;
    session->state = state;
    session->state_deadline_ns = patience_ns == UINT64_MAX ? UINT64_MAX : session->now_ns + patience_ns;
}

static void become_idle(struct iscsi_session *session)
{
    struct iscsi_command *command;
    disconnect(session);
    while ((command = session->waiting.first))
        iscsi_finish(session, command, ISCSI_STOPPED);
    set_state(session, ISCSI_IDLE, UINT64_MAX);
    session->stopping = session->timed_out = false;
    iscsi_note(session, ISCSI_EVENT_STOPPED, "");
}

/* Waits for the next try. */
static uint64_t back_off(struct iscsi_session *session, bool refused)
{
    const struct iscsi_settings *settings = session->settings;
    if (lasted(session))
        session->retry_ns = settings->retry_first_ns; /* it had worked for a while */
    uint64_t delay = refused ? MAX(session->retry_ns, settings->retry_last_ns) : session->retry_ns;
    session->retry_ns = MIN(session->retry_ns * 2, settings->retry_last_ns);
    delay = MAX(delay, MIN(session->wait_floor_ns, 60 * SECOND_NS));
    session->wait_floor_ns = 0;
    session->portal = settings->portal;
    session->moves = 0;
    set_state(session, ISCSI_WAITING, delay);
    session->ready_since_ns = 0;
    return session->now_ns + delay;
}

void iscsi_fail(struct iscsi_session *session, enum iscsi_event_kind kind, const char *format, ...)
{
    char why[ISCSI_ERROR_TEXT + 160];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(why, sizeof(why), format, arguments);
    va_end(arguments);
    for (char *c = why; *c; c++) /* some of it may be the target's: nothing for a terminal to obey */
        if (*c < 0x20 || *c > 0x7e)
            *c = '.';
    const struct iscsi_settings *settings = session->settings;
    snprintf(session->message, sizeof(session->message), "%.100s at %.60s:%u: %.280s",
             settings->login.discovery ? "discovery" : settings->login.target, session->portal.host,
             session->portal.port, why);
    session->counts.drops++;
    if (iscsi_in_full_feature(session) && session->parameters.time2wait_s && !session->wait_floor_ns)
        session->wait_floor_ns = session->parameters.time2wait_s * SECOND_NS;
    disconnect(session);
    if (session->stopping || session->want_stop) {
        session->want_stop = false;
        become_idle(session);
        return;
    }
    struct iscsi_event event = { .kind = kind, .text = session->message };
    event.retry_ns = back_off(session, kind == ISCSI_EVENT_REFUSED);
    iscsi_raise(session, &event);
}

void iscsi_left(struct iscsi_session *session)
{
    if (session->stopping)
        become_idle(session);
    else
        iscsi_fail(session, ISCSI_EVENT_DOWN, "logged out, as the target asked for it");
}

void iscsi_leave(struct iscsi_session *session, uint64_t patience_ns)
{
    if (session->state == ISCSI_LEAVING)
        return;
    session->draining = true;
    session->drain_deadline_ns = session->now_ns + patience_ns / 2;
    session->leave_deadline_ns = session->now_ns + patience_ns;
    set_state(session, ISCSI_LEAVING, UINT64_MAX);
}

/* ---- The beginning ---- */

static void connect_now(struct iscsi_session *session)
{
    session->connection++;
    session->acknowledged = 0;
    session->open = true;
    set_state(session, ISCSI_CONNECTING, session->settings->connect_ns);
    session->ops->connect(session->context, session->connection, &session->portal);
}

/* Commands flow. Those that waited are asked for first. */
static void become_ready(struct iscsi_session *session)
{
    struct iscsi_command *next;
    for (struct iscsi_command *command = session->waiting.first; command; command = next) {
        next = command->next;
        command->sent_ns = session->now_ns;
        command->told_slow = false;
        if (!command->probe && session->ops->may_send && !session->ops->may_send(session->context, command))
            iscsi_finish(session, command, ISCSI_STALE);
    }
    set_state(session, ISCSI_READY, UINT64_MAX);
    session->ready_since_ns = session->now_ns;
    session->timed_out = false;
    iscsi_note(session, ISCSI_EVENT_READY, "");
}

/* Nothing but probes goes out until the owner has proven that the rest may. */
static void prove(struct iscsi_session *session)
{
    struct iscsi_event event = { .kind = ISCSI_EVENT_PROVE, .text = "" };
    event.code = session->strays ? ISCSI_PROVE_STRAYS : ISCSI_PROVE_PLAIN;
    set_state(session, ISCSI_PROVING, session->settings->prove_ns);
    iscsi_raise(session, &event);
}

static void logged_in(struct iscsi_session *session)
{
    const struct iscsi_login *login = &session->login;
    session->parameters = login->negotiation.result;
    session->cmd_sn = login->cmd_sn;
    session->exp_cmd_sn = login->cmd_sn; /* the window is shut but for what the last response says */
    session->max_cmd_sn = login->cmd_sn - 1;
    iscsi_take_window(session);
    session->exp_stat_sn = login->exp_stat_sn;
    session->heard_ns = session->now_ns;
    session->counts.logins++;
    session->strays |= session->unanswered && session->parameters.portal_group != session->sent_group;
    session->unanswered = session->strays;
    if (session->settings->login.discovery) {
        session->text_wanted = true;
        become_ready(session);
    } else if (session->settings->prove) {
        prove(session);
    } else {
        become_ready(session);
    }
}

static void moved(struct iscsi_session *session)
{
    if (++session->moves > MOVES_MAX) {
        iscsi_fail(session, ISCSI_EVENT_DOWN, "the target sent us on %u times in a row", MOVES_MAX);
        return;
    }
    struct iscsi_event event = {
        .kind = ISCSI_EVENT_MOVED,
        .portal = &session->login.portal,
        .text = session->login.moved_for_good
            ? "the target has moved for good: put its new address into the configuration"
                                              : "the target has moved for now",
    };
    disconnect(session);
    session->portal = session->login.portal;
    iscsi_raise(session, &event);
    connect_now(session);
}

void iscsi_login_pdu(struct iscsi_session *session)
{
    uint8_t fresh[ISCSI_CHAP_CHALLENGE_OURS + 1];
    session->ops->random(session->context, fresh, sizeof(fresh));
    if (session->tx.active) {
        iscsi_fail(session, ISCSI_EVENT_DOWN, "the target answered a login request before it had all of it");
        return;
    }
    switch (iscsi_login_response(&session->login, &session->rx.bhs, session->rx.data, session->rx.kept, fresh)) {
    case ISCSI_LOGIN_GO_ON:
        session->login_ready = true;
        break;
    case ISCSI_LOGIN_DONE:
        logged_in(session);
        break;
    case ISCSI_LOGIN_MOVED:
        moved(session);
        break;
    case ISCSI_LOGIN_REFUSED:
        if (session->login.status_class == 2 && session->login.chap.algorithm == ISCSI_CHAP_SHA256) {
            session->md5_only = true;
            iscsi_fail(session, ISCSI_EVENT_DOWN, "%s; once more with MD5, as some targets do not know SHA-256",
                       session->login.error);
            break;
        }
        session->md5_only = false;
        iscsi_fail(session, session->login.again ? ISCSI_EVENT_DOWN : ISCSI_EVENT_REFUSED, "%s", session->login.error);
        break;
    case ISCSI_LOGIN_BROKEN:
        iscsi_fail(session, ISCSI_EVENT_DOWN, "%s", session->login.error);
        break;
    }
}

/* ---- Calls and callbacks ---- */

static void enter(struct iscsi_session *session, uint64_t now_ns)
{
    session->now_ns = MAX(session->now_ns, now_ns);
    session->depth++;
}

/* Hands out what is finished and may be handed out. True: something was. */
static bool deliver(struct iscsi_session *session)
{
    for (struct iscsi_task **at = &session->tasks, *task; (task = *at); at = &task->next)
        if (task->finished) {
            *at = task->next;
            task->next = NULL;
            task->done(task);
            return true;
        }
    for (struct iscsi_command *command = session->finished.first; command; command = command->next) {
        if (session->tx.command == command || command->referenced_until > session->acknowledged)
            continue;
        iscsi_list_remove(&session->finished, command);
        command->place = ISCSI_COMMAND_FREE;
        command->done(command);
        return true;
    }
    return false;
}

static void stop_now(struct iscsi_session *session)
{
    struct iscsi_command *command;
    session->want_stop = false;
    if (session->state == ISCSI_IDLE)
        return;
    session->stopping = true;
    if (session->state == ISCSI_PROVING || session->state == ISCSI_READY)
        iscsi_leave(session, session->settings->leave_ns);
    if (session->state != ISCSI_LEAVING) {
        become_idle(session);
        return;
    }
    while ((command = session->waiting.first))
        iscsi_finish(session, command, ISCSI_STOPPED);
}

static bool wishes(struct iscsi_session *session)
{
    if (session->want_drop) {
        const char *why = session->want_drop;
        session->want_drop = NULL;
        if (session->open)
            iscsi_fail(session, ISCSI_EVENT_DOWN, "%s", why);
        return true;
    }
    if (session->want_stop) {
        stop_now(session);
        return true;
    }
    if (session->want_prove) {
        session->want_prove = false;
        if (session->state == ISCSI_READY)
            prove(session);
        return true;
    }
    if (session->want_resume) {
        session->want_resume = false;
        if (session->state == ISCSI_PROVING) {
            session->strays = session->unanswered = false;
            become_ready(session);
        }
        return true;
    }
    if (session->state == ISCSI_LEAVING && !session->logout_wanted && !session->sent.first) {
        session->logout_wanted = true;
        return true;
    }
    return false;
}

static void leave(struct iscsi_session *session)
{
    if (session->depth == 1)
        do {
            while (wishes(session) || deliver(session))
                ;
            iscsi_send(session);
        } while (wishes(session) || deliver(session));
    session->depth--;
}

void iscsi_session_init(struct iscsi_session *session, const struct iscsi_settings *settings,
                        const struct iscsi_ops *ops,
                        void *context, struct iscsi_slot *slots, unsigned slot_count)
{
    memset(session, 0, sizeof(*session));
    session->settings = settings;
    session->ops = ops;
    session->context = context;
    session->slots = slots;
    session->slot_count = slot_count;
    for (unsigned i = 0; i < slot_count; i++)
        slots[i] = (struct iscsi_slot){ .itt = i };
    session->state = ISCSI_IDLE;
    session->state_deadline_ns = UINT64_MAX;
    session->own_tag = 0x80000000u;
}

void iscsi_session_start(struct iscsi_session *session, uint64_t now_ns)
{
    enter(session, now_ns);
    if (session->state == ISCSI_IDLE) {
        session->portal = session->settings->portal;
        session->retry_ns = session->settings->retry_first_ns;
        session->moves = 0;
        session->stopping = session->timed_out = false;
        connect_now(session);
    }
    leave(session);
}

void iscsi_session_stop(struct iscsi_session *session, uint64_t now_ns)
{
    enter(session, now_ns);
    session->want_stop = true;
    leave(session);
}

void iscsi_session_resume(struct iscsi_session *session, uint64_t now_ns)
{
    enter(session, now_ns);
    session->want_resume = true;
    leave(session);
}

void iscsi_session_drop(struct iscsi_session *session, const char *why, uint64_t now_ns)
{
    enter(session, now_ns);
    session->want_drop = why;
    leave(session);
}

enum status iscsi_submit(struct iscsi_session *session, struct iscsi_command *command, uint64_t now_ns)
{
    if ((command->read_bytes && command->write_bytes) || session->state == ISCSI_IDLE || session->stopping ||
        session->want_stop)
        return ERR_INVALID;
    if (command->place != ISCSI_COMMAND_FREE)
        return ERR_BUSY;
    enter(session, now_ns);
    command->place = ISCSI_COMMAND_WAITING;
    command->was_sent = command->cancelled = command->has_output = command->refused_now = false;
    command->complete = command->told_slow = false;
    command->sent_ns = session->now_ns;
    command->refusals = 0;
    command->referenced_until = 0;
    command->sense_bytes = 0;
    command->transferred = command->residual = 0;
    iscsi_list_push(&session->waiting, command);
    leave(session);
    return OK;
}

enum status iscsi_task_submit(struct iscsi_session *session, struct iscsi_task *task, uint64_t now_ns)
{
    struct iscsi_command *command = task->function == ISCSI_ABORT_TASK ? task->command : NULL;
    if (task->function == ISCSI_ABORT_TASK &&
        (!command || (command->place != ISCSI_COMMAND_WAITING && command->place != ISCSI_COMMAND_SENT)))
        return ERR_NOT_FOUND;
    bool waits = command && command->place == ISCSI_COMMAND_WAITING;
    if (!waits && (!iscsi_in_full_feature(session) || session->logout_sent))
        return ERR_BUSY;
    for (const struct iscsi_task *queued = session->tasks; queued; queued = queued->next)
        if (queued == task)
            return ERR_BUSY;
    enter(session, now_ns);
    task->command = command;
    task->next = NULL;
    task->sent = task->finished = task->lost = false;
    struct iscsi_task **at = &session->tasks;
    while (*at)
        at = &(*at)->next;
    *at = task;
    if (waits) {
        task->response = ISCSI_TASK_COMPLETE;
        task->finished = true;
        iscsi_finish(session, command, command->was_sent ? ISCSI_LOST : ISCSI_ABORTED);
    } else if (command) {
        command->cancelled = true;
    }
    leave(session);
    return OK;
}

enum status iscsi_withdraw(struct iscsi_session *session, struct iscsi_command *command)
{
    if (command->place != ISCSI_COMMAND_WAITING || iscsi_in_full_feature(session))
        return ERR_BUSY;
    iscsi_list_remove(&session->waiting, command);
    command->place = ISCSI_COMMAND_FREE;
    return OK;
}

/* ---- What happened ---- */

static bool present(const struct iscsi_session *session, uint32_t connection)
{
    return session->open && session->connection == connection;
}

void iscsi_session_connected(struct iscsi_session *session, uint32_t connection, uint64_t now_ns)
{
    if (!present(session, connection) || session->state != ISCSI_CONNECTING)
        return;
    enter(session, now_ns);
    session->connected = true;
    iscsi_receive_reset(session);
    iscsi_send_reset(session);
    iscsi_login_start(&session->login, &session->settings->login, iscsi_own_tag(session),
                      session->settings->first_cmd_sn);
    session->login.chap.md5_only = session->md5_only;
    session->login_ready = true;
    set_state(session, ISCSI_LOGIN, session->settings->login_ns);
    leave(session);
}

void iscsi_session_received(struct iscsi_session *session, uint32_t connection, const void *bytes, size_t count,
                            bool more, uint64_t now_ns)
{
    if (!present(session, connection) || !session->connected)
        return;
    enter(session, now_ns);
    session->heard_ns = session->now_ns;
    iscsi_receive(session, bytes, count);
    if (more && present(session, connection))
        session->depth--;
    else
        leave(session); /* also if the connection ended by these bytes: then the next call finds nothing */
}

void iscsi_session_writable(struct iscsi_session *session, uint32_t connection, uint64_t now_ns)
{
    if (!present(session, connection))
        return;
    enter(session, now_ns);
    leave(session);
}

void iscsi_session_acknowledged(struct iscsi_session *session, uint32_t connection, uint64_t total, uint64_t now_ns)
{
    if (!present(session, connection))
        return;
    session->acknowledged = MAX(session->acknowledged, total);
    if (!session->finished.first)
        return; /* nobody waits for that */
    enter(session, now_ns);
    leave(session);
}

void iscsi_session_closed(struct iscsi_session *session, uint32_t connection, const char *why, uint64_t now_ns)
{
    if (!present(session, connection))
        return;
    enter(session, now_ns);
    if (session->state == ISCSI_LEAVING && session->logout_sent)
        iscsi_left(session);
    else
        iscsi_fail(session, ISCSI_EVENT_DOWN, "%s", why);
    leave(session);
}

/* ---- Time ---- */

/* After a logout only its own deadline counts. */
static bool pings(const struct iscsi_session *session)
{
    return iscsi_in_full_feature(session) && !session->logout_sent;
}

/* Time without a usable session counts. */
static bool missing(const struct iscsi_session *session)
{
    return session->state != ISCSI_IDLE && session->state != ISCSI_READY && !session->stopping && !session->timed_out;
}

/* When the answer to our ping, or any byte of the target's, is overdue. */
static uint64_t silence_deadline(const struct iscsi_session *session)
{
    const struct iscsi_settings *settings = session->settings;
    if (!session->ping_wanted)
        return session->heard_ns + settings->idle_ns;
    return MIN(MAX(session->heard_ns, session->ping_ns) + settings->answer_ns,
               session->ping_ns + 4 * settings->answer_ns);
}

/* The command that has been without an answer for longest, or without a chance to be sent, and was not told yet. */
static struct iscsi_command *oldest_untold(const struct iscsi_session *session)
{
    struct iscsi_command *command = session->sent.first, *waits = session->waiting.first;
    while (command && command->told_slow)
        command = command->next;
    if (session->state == ISCSI_READY && waits && !waits->told_slow && (!command || waits->sent_ns < command->sent_ns))
        return waits;
    return command;
}

static void check_silence(struct iscsi_session *session)
{
    if (session->now_ns < silence_deadline(session))
        return;
    if (!session->ping_wanted) {
        session->ping_wanted = true;
        session->ping_ns = session->now_ns;
        return;
    }
    iscsi_fail(session, ISCSI_EVENT_DOWN, "no answer to a ping for %lu s: the target, or the way to it, is stuck; look at both",
               (unsigned long)((session->now_ns - MIN(session->heard_ns, session->ping_ns)) / SECOND_NS));
}

static void check_slow(struct iscsi_session *session)
{
    struct iscsi_command *command;
    if (!session->settings->slow_ns)
        return;
    while ((command = oldest_untold(session)) && session->now_ns - command->sent_ns >= session->settings->slow_ns) {
        struct iscsi_event event = {
            .kind = ISCSI_EVENT_SLOW,
            .text = command->place == ISCSI_COMMAND_SENT ? "a command has no answer"
                                                         : "the target takes no more commands",
            .command = command,
        };
        command->told_slow = true;
        iscsi_raise(session, &event);
    }
}

static void check_state(struct iscsi_session *session)
{
    if (session->now_ns < session->state_deadline_ns)
        return;
    switch (session->state) {
    case ISCSI_WAITING:
        connect_now(session);
        break;
    case ISCSI_CONNECTING:
        iscsi_fail(session, ISCSI_EVENT_DOWN,
                   "no connection: nobody answers; check the address, the network, and that the "
                   "target runs");
        break;
    case ISCSI_LOGIN:
        iscsi_fail(session, ISCSI_EVENT_DOWN, "the login takes too long");
        break;
    case ISCSI_PROVING:
        iscsi_fail(session, ISCSI_EVENT_DOWN, "it takes too long to prove that this node may still write");
        break;
    default:
        break;
    }
}

void iscsi_session_tick(struct iscsi_session *session, uint64_t now_ns)
{
    enter(session, now_ns);
    check_state(session);
    if (missing(session) && session->now_ns - session->unusable_since_ns >= session->settings->timeout_ns) {
        session->timed_out = true;
        iscsi_note(session, ISCSI_EVENT_TIMED_OUT, session->message);
    }
    if (pings(session))
        check_silence(session);
    if (session->state == ISCSI_LEAVING && session->now_ns >= session->leave_deadline_ns)
        iscsi_left(session);
    else if (session->state == ISCSI_LEAVING && session->now_ns >= session->drain_deadline_ns)
        session->logout_wanted = true;
    check_slow(session);
    leave(session);
}

uint64_t iscsi_session_deadline(const struct iscsi_session *session)
{
    uint64_t at = session->state_deadline_ns;
    if (session->state == ISCSI_IDLE)
        return UINT64_MAX;
    if (missing(session))
        at = MIN(at, session->unusable_since_ns + session->settings->timeout_ns);
    if (pings(session))
        at = MIN(at, silence_deadline(session));
    if (session->state == ISCSI_LEAVING)
        at = MIN(at, session->logout_wanted ? session->leave_deadline_ns : session->drain_deadline_ns);
    const struct iscsi_command *command = session->settings->slow_ns ? oldest_untold(session) : NULL;
    if (command)
        at = MIN(at, command->sent_ns + session->settings->slow_ns);
    return at;
}
