/* SPDX-License-Identifier: MIT */
/* A tgtd of our own, and the socket pump around a session. See iscsi_pump.h. */
#include "iscsi_pump.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "net/scsi/scsi_sense.h"

/* ---- The target ---- */

static pid_t tgtd;
static char folder[] = "/tmp/iscsi-vs-tgt-XXXXXX", control[64];
char disk_file[64];

static int run(const char *const *arguments)
{
    pid_t child = fork();
    int status;
    if (!child) {
        int null = open("/dev/null", O_RDWR);
        dup2(null, 1);
        dup2(null, 2);
        execvp(arguments[0], (char *const *)(uintptr_t)arguments);
        _exit(127);
    }
    waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}
#define TGTADM(...) run((const char *const[]){ "tgtadm", "-C", control, "--lld", "iscsi", __VA_ARGS__, NULL })

/* A port that nobody has now. */
static int pump_free_port(void)
{
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t length = sizeof(address);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (bind(fd, (struct sockaddr *)&address, length) || getsockname(fd, (struct sockaddr *)&address, &length))
        return -1;
    close(fd);
    return ntohs(address.sin_port);
}

void target_start(unsigned chap)
{
    char portal[64];
    snprintf(portal, sizeof(portal), "portal=127.0.0.1:%d", pump.port);
    fflush(NULL);
    tgtd = fork();
    if (!tgtd) {
        int log = open("tgtd.log", O_CREAT | O_WRONLY | O_APPEND, 0600);
        dup2(log, 1);
        dup2(log, 2);
        execlp("tgtd", "tgtd", "-f", "-C", control, "--iscsi", portal, NULL);
        _exit(127);
    }
    int tries = 0;
    while (TGTADM("--op", "show", "--mode", "system")) {
        assert_int_equal(waitpid(tgtd, NULL, WNOHANG), 0); /* tgtd is installed, and runs */
        assert_true(++tries < 100);
        nanosleep(&(struct timespec){ .tv_nsec = 50000000 }, NULL);
    }
    assert_int_equal(TGTADM("--op", "new", "--mode", "target", "--tid", "1", "-T", TARGET), 0);
    assert_int_equal(TGTADM("--op", "new", "--mode", "logicalunit", "--tid", "1", "--lun", "1", "-b", disk_file), 0);
    assert_int_equal(TGTADM("--op", "bind", "--mode", "target", "--tid", "1", "-I", "ALL"), 0);
    static const char *const digests[] = { "HeaderDigest", "DataDigest" };
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(TGTADM("--op", "update", "--mode", "target", "--tid", "1", "-n", digests[i], "-v",
                                "CRC32C,None"), 0);
    if (chap) {
        assert_int_equal(TGTADM("--op", "new", "--mode", "account", "--user", "alpha", "--password",
                                "a-secret-of-ours"), 0);
        assert_int_equal(TGTADM("--op", "bind", "--mode", "account", "--tid", "1", "--user", "alpha"), 0);
    }
    if (chap == 2) {
        assert_int_equal(TGTADM("--op", "new", "--mode", "account", "--user", "disk", "--password",
                                "a-secret-of-theirs"), 0);
        assert_int_equal(TGTADM("--op", "bind", "--mode", "account", "--tid", "1", "--user", "disk", "--outgoing"), 0);
    }
}

void target_set(const char *key, const char *value)
{
    assert_int_equal(TGTADM("--op", "update", "--mode", "target", "--tid", "1", "-n", key, "-v", value), 0);
}

void target_kill(void)
{
    if (tgtd > 0) {
        kill(tgtd, SIGKILL);
        waitpid(tgtd, NULL, 0);
    }
    tgtd = 0;
}

/* ---- The pump ---- */

struct pump pump;

uint64_t pump_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * SECOND + (uint64_t)t.tv_nsec;
}

static void on_connect(void *context, uint32_t connection, const struct iscsi_portal *portal)
{
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons(portal->port) };
    (void)context;
    inet_pton(AF_INET, portal->host, &address.sin_addr);
    pump.fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    setsockopt(pump.fd, IPPROTO_TCP, TCP_NODELAY, &(int){ 1 }, sizeof(int));
    pump.connection = connection;
    pump.connecting = true;
    (void)!connect(pump.fd, (struct sockaddr *)&address, sizeof(address)); /* the answer comes by poll() */
}

static size_t on_send(void *context, uint32_t connection, const struct iscsi_vec *vec, unsigned count)
{
    struct iovec iov[8];
    (void)context;
    (void)connection;
    for (unsigned i = 0; i < count; i++)
        iov[i] = (struct iovec){ .iov_base = (void *)(uintptr_t)vec[i].bytes, .iov_len = vec[i].count };
    ssize_t sent = writev(pump.fd, iov, (int)count);
    size_t all = 0;
    for (unsigned i = 0; i < count; i++)
        all += vec[i].count;
    pump.blocked = sent < (ssize_t)all;
    return sent > 0 ? (size_t)sent : 0;
}

static void on_close(void *context, uint32_t connection)
{
    (void)context;
    (void)connection;
    if (pump.fd >= 0)
        close(pump.fd);
    pump.fd = -1;
}

static void on_event(void *context, const struct iscsi_event *event)
{
    (void)context;
    if (event->text && *event->text) {
        snprintf(pump.text, sizeof(pump.text), "%s", event->text);
        if (pump.say)
            print_message("    %s\n", event->text);
    }
    if (event->kind == ISCSI_EVENT_REFUSED)
        pump.refused = true;
    if (event->kind == ISCSI_EVENT_PROVE) {
        pump.proofs++;
        if (pump.prove)
            pump.prove(event->code);
        else
            iscsi_session_resume(&pump.session, pump_now());
    }
    size_t n = strlen(pump.found);
    if (event->kind == ISCSI_EVENT_TARGET)
        snprintf(pump.found + n, sizeof(pump.found) - n, "[%s]", event->text);
    if (event->kind == ISCSI_EVENT_ADDRESS)
        snprintf(pump.found + n, sizeof(pump.found) - n, "%s:%u;", event->portal->host, event->portal->port);
}

static bool on_may_send(void *context, const struct iscsi_command *command)
{
    (void)context;
    return !pump.may_send || pump.may_send(command);
}

static void on_random(void *context, void *bytes, size_t count)
{
    int fd = open("/dev/urandom", O_RDONLY);
    (void)context;
    assert_int_equal(read(fd, bytes, count), (ssize_t)count);
    close(fd);
}

static const struct iscsi_ops ops = {
    .connect = on_connect, .send = on_send, .close = on_close, .event = on_event, .may_send = on_may_send,
    .random = on_random,
};

void pump_once(uint64_t most)
{
    static uint8_t bytes[1 << 16];
    uint64_t at = iscsi_session_deadline(&pump.session), present = pump_now();
    uint64_t wait = MIN(most, at > present ? at - present : 0);
    bool wants_room = pump.connecting || pump.blocked;
    struct pollfd poll_fd = { .fd = pump.fd, .events = (short)(POLLIN | (wants_room ? POLLOUT : 0)) };
    poll(&poll_fd, 1, (int)(wait / 1000000) + 1);
    if (pump.fd >= 0 && pump.connecting && poll_fd.revents) {
        int error = 0;
        socklen_t length = sizeof(error);
        getsockopt(pump.fd, SOL_SOCKET, SO_ERROR, &error, &length);
        pump.connecting = false;
        if (error)
            iscsi_session_closed(&pump.session, pump.connection, strerror(error), pump_now());
        else
            iscsi_session_connected(&pump.session, pump.connection, pump_now());
    } else if (pump.fd >= 0 && poll_fd.revents) {
        if (poll_fd.revents & POLLOUT) {
            pump.blocked = false;
            iscsi_session_writable(&pump.session, pump.connection, pump_now());
        }
        ssize_t count = pump.fd >= 0 ? recv(pump.fd, bytes, sizeof(bytes), MSG_DONTWAIT) : -1;
        if (count > 0)
            iscsi_session_received(&pump.session, pump.connection, bytes, (size_t)count, false, pump_now());
        else if (pump.fd >= 0 && (count == 0 || errno != EAGAIN))
            iscsi_session_closed(&pump.session, pump.connection, "the target closed the connection",
                                 pump_now());
    }
    iscsi_session_tick(&pump.session, pump_now());
}

static const void *give(struct iscsi_command *command, uint32_t offset, uint32_t *count, void *bounce, bool *stays)
{
    (void)stays;
    memcpy(bounce, ((struct request *)command->owner)->data + offset, *count);
    return bounce;
}

static bool take(struct iscsi_command *command, uint32_t offset, const void *bytes, uint32_t count)
{
    memcpy(((struct request *)command->owner)->data + offset, bytes, count);
    return true;
}

static const struct iscsi_data_ops data_ops = { .give = give, .take = take };

/* What the SCSI layer would do: unit attentions come after each login, and what they hit goes out again. */
static void done(struct iscsi_command *command)
{
    struct request *request = command->owner;
    struct scsi_sense sense;
    if (request->then) {
        request->busy = false;
        pump.busy--;
        request->then(request);
        return;
    }
    scsi_parse_sense(command->sense, command->sense_bytes, &sense);
    if (command->outcome == ISCSI_ANSWERED && command->status) {
        char text[200];
        scsi_describe(command->status, &sense, text, sizeof(text));
        if (pump.say)
            print_message("    opcode %02x: %s\n", command->cdb[0], text);
        if (scsi_decide(command->status, &sense, request->attempts++).action == SCSI_RETRY) {
            pump.attentions++;
            assert_int_equal(iscsi_submit(&pump.session, command, pump_now()), OK);
            return;
        }
    }
    request->good = command->outcome == ISCSI_ANSWERED && !command->status;
    request->busy = false;
    pump.busy--;
}

struct request *pump_submit(const struct scsi_cdb *cdb, struct request *request)
{
    memset(&request->command, 0, sizeof(request->command));
    request->command = (struct iscsi_command){
        .attribute = ISCSI_SIMPLE, .read_bytes = cdb->read_bytes, .write_bytes = cdb->write_bytes, .data = &data_ops,
        .done = done, .owner = request, .probe = request->then, .epoch = pump.epoch,
    };
    iscsi_lun_encode(request->command.lun, 1);
    memcpy(request->command.cdb, cdb->bytes, 16);
    request->busy = true;
    request->good = false;
    request->attempts = 0;
    pump.busy++;
    assert_int_equal(iscsi_submit(&pump.session, &request->command, pump_now()), OK);
    return request;
}

struct request *pump_idle(void)
{
    uint64_t end = pump_now() + 40 * SECOND;
    for (;;) {
        for (unsigned i = 0; i < DEPTH; i++)
            if (!pump.request[i].busy) {
                assert_true(pump.request[i].good || pump.request[i].command.cdb[0] != 0x8a);
                return &pump.request[i];
            }
        assert_true(pump_now() < end);
        pump_once(SECOND);
    }
}

void pump_drain(void)
{
    uint64_t end = pump_now() + 40 * SECOND;
    while (pump.busy) {
        if (pump_now() > end)
            print_error("%u commands have no answer, %s: %s\n", pump.busy, iscsi_state_name(pump.session.state),
                        pump.text);
        assert_true(pump_now() < end);
        pump_once(SECOND);
    }
}

struct request *pump_command(const struct scsi_cdb *cdb)
{
    struct request *request = pump_submit(cdb, pump_idle());
    pump_drain();
    assert_int_equal(request->command.outcome, ISCSI_ANSWERED);
    return request;
}

void pump_begin(unsigned chap, enum iscsi_digest_wish header, enum iscsi_digest_wish data, bool discovery)
{
    iscsi_wishes_default(&pump.wishes);
    iscsi_settings_default(&pump.settings);
    pump.wishes.header_digest = header;
    pump.wishes.data_digest = data;
    pump.settings.login = (struct iscsi_login_setup){
        .initiator = "iqn.2026-11.example:alpha", .target = TARGET, .wishes = &pump.wishes, .discovery = discovery,
        .isid = { 0x80, 0x12, 0x34, 0x56, 0, 1 },
    };
    snprintf(pump.settings.portal.host, sizeof(pump.settings.portal.host), "127.0.0.1");
    pump.settings.portal.port = (uint16_t)pump.port;
    if (chap) {
        const char *why, ours[] = "a-secret-of-ours", theirs[] = "a-secret-of-theirs";
        pump.account = (struct iscsi_chap_account){ .mutual = chap == 2, .name = "alpha", .mutual_name = "disk" };
        memcpy(pump.account.secret.bytes, ours, pump.account.secret.count = sizeof(ours) - 1);
        memcpy(pump.account.mutual_secret.bytes, theirs, pump.account.mutual_secret.count = sizeof(theirs) - 1);
        assert_int_equal(iscsi_chap_check(&pump.account, &why), OK);
        pump.settings.login.chap = &pump.account;
    }
    pump.fd = -1;
    pump.refused = false;
    pump.proofs = 0;
    pump.found[0] = pump.text[0] = 0;
    pump.prove = NULL;
    pump.may_send = NULL;
    iscsi_session_init(&pump.session, &pump.settings, &ops, NULL, pump.slots, ARRAY_COUNT(pump.slots));
    iscsi_session_start(&pump.session, pump_now());
}

void pump_until(enum iscsi_state state)
{
    uint64_t end = pump_now() + 30 * SECOND;
    while (pump.session.state != state) {
        if (pump_now() > end)
            print_error("still %s: %s\n", iscsi_state_name(pump.session.state), pump.text);
        assert_true(pump_now() < end);
        pump_once(SECOND);
    }
}

void pump_until_refused(void)
{
    uint64_t end = pump_now() + 30 * SECOND;
    while (!pump.refused) {
        assert_true(pump_now() < end);
        pump_once(SECOND);
    }
    print_message("    %s\n", pump.text);
}

void pump_finish(void)
{
    iscsi_session_stop(&pump.session, pump_now());
    pump_until(ISCSI_IDLE);
}

int pump_set_up(void **state)
{
    (void)state;
    if (!mkdtemp(folder) || chdir(folder))
        return -1;
    snprintf(disk_file, sizeof(disk_file), "%s/disk", folder);
    pump.port = pump_free_port();
    strcpy(control, "1"); /* a number of its own is not needed: the socket is in our folder */
    char socket_path[80];
    snprintf(socket_path, sizeof(socket_path), "%s/control", folder);
    setenv("TGT_IPC_SOCKET", socket_path, 1);
    int fd = open(disk_file, O_CREAT | O_RDWR, 0600);
    for (unsigned i = 0; i < DEPTH; i++)
        pump.request[i].data = calloc(1, COMMAND_BYTES);
    return pump.port < 0 || ftruncate(fd, DISK_BYTES) || close(fd);
}

int pump_tear_down(void **state)
{
    char command[100];
    (void)state;
    target_kill();
    for (unsigned i = 0; i < DEPTH; i++)
        free(pump.request[i].data);
    snprintf(command, sizeof(command), "rm -rf '%s'", folder);
    return chdir("/") || system(command);
}
