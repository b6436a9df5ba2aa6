/* SPDX-License-Identifier: MIT */
/*
 * The iSCSI core against a real target: Debian's tgt, started here on a port and a control socket of its own, and ended
 * by its process id. A socket pump is all that is around the core. Digests in all combinations, CHAP not at all, one
 * way and both ways, many commands at once with data compared, what tgt says of itself, persistent reservations, a
 * connection that is cut and a target that is killed and started again in the middle of writes.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
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
#include <cmocka.h>

#include "net/iscsi/iscsi_session.h"
#include "net/scsi/scsi_data.h"
#include "net/scsi/scsi_sense.h"

#define SECOND UINT64_C(1000000000)
#define TARGET "iqn.2026-11.example:disk"
#define DISK_BYTES (32u << 20)
#define DEPTH 24u
#define COMMAND_BYTES (320u * 1024)

/* ---- The target ---- */

static pid_t tgtd;
static int port;
static char folder[] = "/tmp/iscsi-vs-tgt-XXXXXX", disk_file[64], control[64];

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
static int free_port(void)
{
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t length = sizeof(address);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (bind(fd, (struct sockaddr *)&address, length) || getsockname(fd, (struct sockaddr *)&address, &length))
        return -1;
    close(fd);
    return ntohs(address.sin_port);
}

/* `chap`: 0 none, 1 one way, 2 both ways. */
static void start_target(unsigned chap)
{
    char portal[64];
    snprintf(portal, sizeof(portal), "portal=127.0.0.1:%d", port);
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

static void kill_target(void)
{
    if (tgtd > 0) {
        kill(tgtd, SIGKILL);
        waitpid(tgtd, NULL, 0);
    }
    tgtd = 0;
}

/* ---- The pump ---- */

struct request {
    struct iscsi_command command;
    uint8_t *data;
    unsigned attempts;
    bool busy, good;
};

static struct {
    struct iscsi_session session;
    struct iscsi_settings settings;
    struct iscsi_wishes wishes;
    struct iscsi_slot slots[32];
    struct iscsi_chap_account account;
    struct request request[DEPTH];
    int fd;
    uint32_t connection;
    bool connecting, blocked, say, refused;
    unsigned busy, proofs, attentions;
    char text[400], found[1024];
} p;

static uint64_t now(void)
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
    p.fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    setsockopt(p.fd, IPPROTO_TCP, TCP_NODELAY, &(int){ 1 }, sizeof(int));
    p.connection = connection;
    p.connecting = true;
    (void)!connect(p.fd, (struct sockaddr *)&address, sizeof(address)); /* the answer comes by poll() */
}

static size_t on_send(void *context, uint32_t connection, const struct iscsi_vec *vec, unsigned count)
{
    struct iovec iov[8];
    (void)context;
    (void)connection;
    for (unsigned i = 0; i < count; i++)
        iov[i] = (struct iovec){ .iov_base = (void *)(uintptr_t)vec[i].bytes, .iov_len = vec[i].count };
    ssize_t sent = writev(p.fd, iov, (int)count);
    size_t all = 0;
    for (unsigned i = 0; i < count; i++)
        all += vec[i].count;
    p.blocked = sent < (ssize_t)all;
    return sent > 0 ? (size_t)sent : 0;
}

static void on_close(void *context, uint32_t connection)
{
    (void)context;
    (void)connection;
    if (p.fd >= 0)
        close(p.fd);
    p.fd = -1;
}

static void on_event(void *context, const struct iscsi_event *event)
{
    (void)context;
    if (event->text && *event->text) {
        snprintf(p.text, sizeof(p.text), "%s", event->text);
        if (p.say)
            print_message("    %s\n", event->text);
    }
    if (event->kind == ISCSI_EVENT_REFUSED)
        p.refused = true;
    if (event->kind == ISCSI_EVENT_PROVE) {
        p.proofs++;
        iscsi_session_resume(&p.session, now());
    }
    size_t n = strlen(p.found);
    if (event->kind == ISCSI_EVENT_TARGET)
        snprintf(p.found + n, sizeof(p.found) - n, "[%s]", event->text);
    if (event->kind == ISCSI_EVENT_ADDRESS)
        snprintf(p.found + n, sizeof(p.found) - n, "%s:%u;", event->portal->host, event->portal->port);
}

static void on_random(void *context, void *bytes, size_t count)
{
    int fd = open("/dev/urandom", O_RDONLY);
    (void)context;
    assert_int_equal(read(fd, bytes, count), (ssize_t)count);
    close(fd);
}

static const struct iscsi_ops ops = {
    .connect = on_connect, .send = on_send, .close = on_close, .event = on_event, .random = on_random,
};

/* Waits for something to happen, at most `most` ns. */
static void pump(uint64_t most)
{
    static uint8_t bytes[1 << 16];
    uint64_t at = iscsi_session_deadline(&p.session), present = now();
    uint64_t wait = MIN(most, at > present ? at - present : 0);
    struct pollfd poll_fd = { .fd = p.fd, .events = (short)(POLLIN | (p.connecting || p.blocked ? POLLOUT : 0)) };
    poll(&poll_fd, 1, (int)(wait / 1000000) + 1);
    if (p.fd >= 0 && p.connecting && poll_fd.revents) {
        int error = 0;
        socklen_t length = sizeof(error);
        getsockopt(p.fd, SOL_SOCKET, SO_ERROR, &error, &length);
        p.connecting = false;
        if (error)
            iscsi_session_closed(&p.session, p.connection, strerror(error), now());
        else
            iscsi_session_connected(&p.session, p.connection, now());
    } else if (p.fd >= 0 && poll_fd.revents) {
        if (poll_fd.revents & POLLOUT) {
            p.blocked = false;
            iscsi_session_writable(&p.session, p.connection, now());
        }
        ssize_t count = p.fd >= 0 ? recv(p.fd, bytes, sizeof(bytes), MSG_DONTWAIT) : -1;
        if (count > 0)
            iscsi_session_received(&p.session, p.connection, bytes, (size_t)count, now());
        else if (p.fd >= 0 && (count == 0 || errno != EAGAIN))
            iscsi_session_closed(&p.session, p.connection, "the target closed the connection", now());
    }
    iscsi_session_tick(&p.session, now());
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
    scsi_parse_sense(command->sense, command->sense_bytes, &sense);
    if (command->outcome == ISCSI_ANSWERED && command->status) {
        char text[200];
        scsi_describe(command->status, &sense, text, sizeof(text));
        if (p.say)
            print_message("    opcode %02x: %s\n", command->cdb[0], text);
        if (scsi_decide(command->status, &sense, request->attempts++).action == SCSI_RETRY) {
            p.attentions++;
            assert_int_equal(iscsi_submit(&p.session, command, now()), OK);
            return;
        }
    }
    request->good = command->outcome == ISCSI_ANSWERED && !command->status;
    request->busy = false;
    p.busy--;
}

static struct request *submit(const struct scsi_cdb *cdb, struct request *request)
{
    memset(&request->command, 0, sizeof(request->command));
    request->command = (struct iscsi_command){
        .attribute = ISCSI_SIMPLE, .read_bytes = cdb->read_bytes, .write_bytes = cdb->write_bytes, .data = &data_ops,
        .done = done, .owner = request,
    };
    iscsi_lun_encode(request->command.lun, 1);
    memcpy(request->command.cdb, cdb->bytes, 16);
    request->busy = true;
    request->good = false;
    request->attempts = 0;
    p.busy++;
    assert_int_equal(iscsi_submit(&p.session, &request->command, now()), OK);
    return request;
}

/* A write that was not done is found by its request's next user, or by drain(). */
static struct request *idle_request(void)
{
    uint64_t end = now() + 40 * SECOND;
    for (;;) {
        for (unsigned i = 0; i < DEPTH; i++)
            if (!p.request[i].busy) {
                assert_true(p.request[i].good || p.request[i].command.cdb[0] != 0x8a);
                return &p.request[i];
            }
        assert_true(now() < end);
        pump(SECOND);
    }
}

static void drain(void)
{
    uint64_t end = now() + 40 * SECOND;
    while (p.busy) {
        if (now() > end)
            print_error("%u commands have no answer, %s: %s\n", p.busy, iscsi_state_name(p.session.state), p.text);
        assert_true(now() < end);
        pump(SECOND);
    }
}

/* Does one command. */
static struct request *one(const struct scsi_cdb *cdb)
{
    struct request *request = submit(cdb, idle_request());
    drain();
    assert_int_equal(request->command.outcome, ISCSI_ANSWERED);
    return request;
}

static void begin(unsigned chap, enum iscsi_digest_wish header, enum iscsi_digest_wish data, bool discovery)
{
    iscsi_wishes_default(&p.wishes);
    iscsi_settings_default(&p.settings);
    p.wishes.header_digest = header;
    p.wishes.data_digest = data;
    p.settings.login = (struct iscsi_login_setup){
        .initiator = "iqn.2026-11.example:alpha", .target = TARGET, .wishes = &p.wishes, .discovery = discovery,
        .isid = { 0x80, 0x12, 0x34, 0x56, 0, 1 },
    };
    snprintf(p.settings.portal.host, sizeof(p.settings.portal.host), "127.0.0.1");
    p.settings.portal.port = (uint16_t)port;
    if (chap) {
        const char *why, ours[] = "a-secret-of-ours", theirs[] = "a-secret-of-theirs";
        p.account = (struct iscsi_chap_account){ .mutual = chap == 2, .name = "alpha", .mutual_name = "disk" };
        memcpy(p.account.secret.bytes, ours, p.account.secret.count = sizeof(ours) - 1);
        memcpy(p.account.mutual_secret.bytes, theirs, p.account.mutual_secret.count = sizeof(theirs) - 1);
        assert_int_equal(iscsi_chap_check(&p.account, &why), OK);
        p.settings.login.chap = &p.account;
    }
    p.fd = -1;
    p.refused = false;
    p.proofs = 0;
    p.found[0] = p.text[0] = 0;
    iscsi_session_init(&p.session, &p.settings, &ops, NULL, p.slots, ARRAY_COUNT(p.slots));
    iscsi_session_start(&p.session, now());
}

static void until(enum iscsi_state state)
{
    uint64_t end = now() + 30 * SECOND;
    while (p.session.state != state) {
        if (now() > end)
            print_error("still %s: %s\n", iscsi_state_name(p.session.state), p.text);
        assert_true(now() < end);
        pump(SECOND);
    }
}

/* Until the target, or we, have refused with MD5 too. */
static void until_refused(void)
{
    uint64_t end = now() + 30 * SECOND;
    while (!p.refused) {
        assert_true(now() < end);
        pump(SECOND);
    }
    print_message("    %s\n", p.text);
}

static void finish(void)
{
    iscsi_session_stop(&p.session, now());
    until(ISCSI_IDLE);
}

/* ---- What is done ---- */

static uint8_t byte_at(uint64_t offset, unsigned generation)
{
    uint64_t x = (offset / 8 + 1) * UINT64_C(0x9e3779b97f4a7c15) + generation;
    return (uint8_t)(x >> (8 * (offset % 8)));
}

/* Writes all of `blocks` from block 0 on in requests of changing sizes, DEPTH at a time. */
static void fill(uint32_t blocks, unsigned generation, void (*between)(unsigned))
{
    static const uint32_t sizes[] = { 1, 8, 3, 128, 17, 64, 512, 9 };
    struct scsi_cdb cdb;
    unsigned n = 0;
    for (uint32_t at = 0; at < blocks; n++) {
        struct request *request = idle_request();
        uint32_t count = MIN(sizes[n % ARRAY_COUNT(sizes)], blocks - at);
        for (uint32_t i = 0; i < count * 512; i++)
            request->data[i] = byte_at((uint64_t)at * 512 + i, generation);
        scsi_write16(&cdb, at, count, 512, false);
        submit(&cdb, request);
        at += count;
        if (between)
            between(n);
    }
    drain();
    for (unsigned i = 0; i < DEPTH; i++)
        assert_true(p.request[i].good || p.request[i].command.cdb[0] != 0x8a);
}

static void verify(uint32_t blocks, unsigned generation)
{
    struct scsi_cdb cdb;
    for (uint32_t at = 0; at < blocks; at += 600) {
        uint32_t count = MIN(600, blocks - at);
        scsi_read16(&cdb, at, count, 512, false);
        struct request *request = one(&cdb);
        assert_int_equal(request->command.status, 0);
        for (uint32_t i = 0; i < count * 512; i++)
            if (request->data[i] != byte_at((uint64_t)at * 512 + i, generation))
                fail_msg("byte %u of block %u is wrong", i % 512, at + i / 512);
    }
    /* And in the file itself, past the initiator. */
    static uint8_t file[4096];
    int fd = open(disk_file, O_RDONLY);
    for (uint32_t at = 0; at < blocks * 512; at += sizeof(file)) {
        assert_int_equal(pread(fd, file, sizeof(file), at), sizeof(file));
        for (uint32_t i = 0; i < sizeof(file); i++)
            assert_int_equal(file[i], byte_at(at + i, generation));
    }
    close(fd);
}

static void data_with_all_digests_and_chap(void **state)
{
    (void)state;
    for (unsigned chap = 0; chap < 3; chap++) {
        start_target(chap);
        for (unsigned digests = 0; digests < 4; digests++) {
            begin(chap, digests & 1 ? ISCSI_DIGEST_REQUIRED : ISCSI_DIGEST_OFF,
                  digests & 2 ? ISCSI_DIGEST_REQUIRED : ISCSI_DIGEST_OFF, false);
            until(ISCSI_READY);
            assert_int_equal(p.session.parameters.header_digest, digests & 1);
            assert_int_equal(p.session.parameters.data_digest, digests >> 1);
            uint64_t began = now();
            fill(8192, chap * 4 + digests, NULL);
            verify(8192, chap * 4 + digests);
            print_message("    CHAP %u, header digest %u, data digest %u: 4 MiB both ways in %lu ms; "
                          "InitialR2T %u, immediate %u, "
                          "burst %u/%u, R2Ts %u, to the target %u\n", chap, digests & 1, digests >> 1,
                          (unsigned long)((now() - began) / 1000000), p.session.parameters.initial_r2t,
                          p.session.parameters.immediate_data, p.session.parameters.first_burst_bytes,
                          p.session.parameters.max_burst_bytes, p.session.parameters.max_outstanding_r2t,
                          p.session.parameters.max_send_bytes);
            assert_int_equal(p.session.counts.drops, chap ? 1 : 0); /* it takes SHA-256 for SHA-1 */
            finish();
        }
        kill_target();
    }
}

static void wrong_secrets(void **state)
{
    (void)state;
    start_target(2);
    begin(2, ISCSI_DIGEST_OFF, ISCSI_DIGEST_OFF, false);
    p.account.secret.bytes[0] ^= 1;
    until_refused();
    assert_non_null(strstr(p.text, "login status 02"));
    finish();
    begin(2, ISCSI_DIGEST_OFF, ISCSI_DIGEST_OFF, false);
    p.account.mutual_secret.bytes[0] ^= 1;
    until_refused();
    assert_non_null(strstr(p.text, "does not know the secret"));
    finish();
    begin(0, ISCSI_DIGEST_OFF, ISCSI_DIGEST_OFF, false);
    until_refused();
    finish();
    kill_target();
}

static void what_it_says_of_itself(void **state)
{
    struct scsi_cdb cdb;
    struct scsi_inquiry inquiry;
    struct scsi_capacity capacity;
    struct scsi_identity identity;
    struct scsi_page_set pages;
    struct scsi_mode mode;
    uint8_t luns[8][8];
    unsigned count, listed;
    (void)state;
    start_target(0);
    begin(0, ISCSI_DIGEST_PREFERRED, ISCSI_DIGEST_PREFERRED, true);
    until(ISCSI_IDLE);
    char expected[200];
    snprintf(expected, sizeof(expected), "[" TARGET "]127.0.0.1:%d;", port);
    assert_string_equal(p.found, expected);

    begin(0, ISCSI_DIGEST_PREFERRED, ISCSI_DIGEST_PREFERRED, false);
    until(ISCSI_READY);
    p.say = true;
    scsi_test_unit_ready(&cdb);
    assert_int_equal(one(&cdb)->command.status, 0);
    scsi_inquiry(&cdb, SCSI_STANDARD_INQUIRY, 255);
    struct request *r = one(&cdb);
    assert_int_equal(scsi_parse_inquiry(r->data, r->command.transferred, &inquiry), OK);
    assert_string_equal(inquiry.vendor, "IET");
    assert_int_equal(inquiry.device_type, 0);
    scsi_inquiry(&cdb, 0, 255);
    r = one(&cdb);
    assert_int_equal(scsi_parse_pages(r->data, r->command.transferred, &pages), OK);
    assert_true(scsi_has_page(&pages, 0x83));
    scsi_inquiry(&cdb, 0x83, 255);
    r = one(&cdb);
    assert_int_equal(scsi_parse_identity(r->data, r->command.transferred, &identity), OK);
    print_message("    %s %s %s, %s\n", inquiry.vendor, inquiry.product, inquiry.revision, identity.name);
    scsi_read_capacity16(&cdb);
    r = one(&cdb);
    assert_int_equal(scsi_parse_capacity16(r->data, r->command.transferred, &capacity), OK);
    assert_true(capacity.blocks * capacity.block_bytes == DISK_BYTES);
    scsi_report_luns(&cdb, 256);
    r = one(&cdb);
    assert_int_equal(scsi_parse_luns(r->data, r->command.transferred, luns, 8, &count, &listed), OK);
    assert_int_equal(listed, 2); /* 0 is its controller */
    scsi_mode_sense6(&cdb, 192);
    r = one(&cdb);
    assert_int_equal(scsi_parse_mode6(r->data, r->command.transferred, &mode), OK);
    assert_false(mode.write_protected);
    scsi_synchronize_cache16(&cdb, 0, 0);
    assert_int_equal(one(&cdb)->command.status, 0);
    scsi_read16(&cdb, DISK_BYTES / 512, 1, 512, false); /* beyond the end */
    assert_int_equal(one(&cdb)->command.status, SCSI_CHECK_CONDITION);
    scsi_compare_and_write(&cdb, 0, 1, 512);
    r = one(&cdb);
    print_message("    COMPARE AND WRITE: %s\n", scsi_status_name(r->command.status));
    p.say = false;
    finish();
    kill_target();
}

static struct request *reserve_out(enum scsi_pr_out_action action, uint64_t key, uint64_t action_key)
{
    struct scsi_cdb cdb;
    struct request *request = idle_request(); /* all are idle: one() takes the same */
    scsi_persistent_reserve_out(&cdb, action, SCSI_PR_WRITE_EXCLUSIVE_REGISTRANTS, SCSI_PR_OUT_BYTES);
    scsi_pr_out_list(request->data, key, action_key, false);
    return one(&cdb);
}

static void reservations(void **state)
{
    struct scsi_cdb cdb;
    struct scsi_reservation held;
    uint64_t keys[4];
    uint32_t generation;
    unsigned count, listed;
    (void)state;
    start_target(0);
    begin(0, ISCSI_DIGEST_PREFERRED, ISCSI_DIGEST_PREFERRED, false);
    until(ISCSI_READY);
    scsi_test_unit_ready(&cdb);
    one(&cdb);
    assert_int_equal(reserve_out(SCSI_PR_REGISTER, 0, 0x1122)->command.status, 0);
    assert_int_equal(reserve_out(SCSI_PR_RESERVE, 0x1122, 0)->command.status, 0);
    scsi_persistent_reserve_in(&cdb, SCSI_PR_READ_KEYS, 128);
    struct request *r = one(&cdb);
    assert_int_equal(scsi_parse_keys(r->data, r->command.transferred, &generation, keys, 4, &count, &listed), OK);
    assert_true(listed == 1 && keys[0] == 0x1122);
    scsi_persistent_reserve_in(&cdb, SCSI_PR_READ_RESERVATION, 128);
    r = one(&cdb);
    assert_int_equal(scsi_parse_reservation(r->data, r->command.transferred, &held), OK);
    assert_true(held.held && held.key == 0x1122 && held.type == SCSI_PR_WRITE_EXCLUSIVE_REGISTRANTS);
    assert_int_equal(reserve_out(SCSI_PR_REGISTER, 0x9999, 0x3344)->command.status, SCSI_RESERVATION_CONFLICT);
    assert_int_equal(reserve_out(SCSI_PR_RELEASE, 0x1122, 0)->command.status, 0);
    assert_int_equal(reserve_out(SCSI_PR_REGISTER, 0x1122, 0)->command.status, 0);
    finish();
    kill_target();
}

static void cut(unsigned n)
{
    if (n % 40 == 39 && p.fd >= 0 && !p.connecting)
        shutdown(p.fd, SHUT_RDWR);
}

static void restart(unsigned n)
{
    if (n == 60 || n == 200) {
        kill_target();
        start_target(0);
    }
}

static void cuts_and_restarts_in_the_middle_of_writes(void **state)
{
    (void)state;
    start_target(0);
    begin(0, ISCSI_DIGEST_PREFERRED, ISCSI_DIGEST_PREFERRED, false);
    until(ISCSI_READY);
    fill(32768, 77, cut);
    verify(32768, 77);
    print_message("    cut %lu times, %lu commands sent again, %u unit attentions\n",
                  (unsigned long)p.session.counts.drops,
                  (unsigned long)p.session.counts.retried, p.attentions);
    assert_true(p.session.counts.drops >= 4);
    assert_true(p.session.counts.retried >= 4);
    fill(32768, 78, restart);
    verify(32768, 78);
    assert_true(p.proofs > 5);
    finish();
    kill_target();
}

static int set_up(void **state)
{
    (void)state;
    if (!mkdtemp(folder) || chdir(folder))
        return -1;
    snprintf(disk_file, sizeof(disk_file), "%s/disk", folder);
    port = free_port();
    strcpy(control, "1"); /* a number of its own is not needed: the socket is in our folder */
    char socket_path[80];
    snprintf(socket_path, sizeof(socket_path), "%s/control", folder);
    setenv("TGT_IPC_SOCKET", socket_path, 1);
    int fd = open(disk_file, O_CREAT | O_RDWR, 0600);
    for (unsigned i = 0; i < DEPTH; i++)
        p.request[i].data = calloc(1, COMMAND_BYTES);
    return port < 0 || ftruncate(fd, DISK_BYTES) || close(fd);
}

static int tear_down(void **state)
{
    char command[100];
    (void)state;
    kill_target();
    for (unsigned i = 0; i < DEPTH; i++)
        free(p.request[i].data);
    snprintf(command, sizeof(command), "rm -rf '%s'", folder);
    return chdir("/") || system(command);
}

static int end_target(void **state)
{
    (void)state;
    kill_target();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(data_with_all_digests_and_chap, end_target),
        cmocka_unit_test_teardown(wrong_secrets, end_target),
        cmocka_unit_test_teardown(what_it_says_of_itself, end_target),
        cmocka_unit_test_teardown(reservations, end_target),
        cmocka_unit_test_teardown(cuts_and_restarts_in_the_middle_of_writes, end_target),
    };
    signal(SIGPIPE, SIG_IGN);
    alarm(300);
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
