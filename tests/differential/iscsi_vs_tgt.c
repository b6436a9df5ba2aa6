/* SPDX-License-Identifier: MIT */
/*
 * The iSCSI core against a real target: Debian's tgt. Digests in all combinations, CHAP not at all, one way and both
 * ways, many commands at once with data compared, what tgt says of itself, persistent reservations, a connection that
 * is cut and a target that is killed and started again in the middle of writes, with the proof that they may be
 * written.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "iscsi_pump.h"
#include "net/scsi/scsi_data.h"
#include "net/scsi/scsi_proof.h"
#include "net/scsi/scsi_sense.h"

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
        struct request *request = pump_idle();
        uint32_t count = MIN(sizes[n % ARRAY_COUNT(sizes)], blocks - at);
        for (uint32_t i = 0; i < count * 512; i++)
            request->data[i] = byte_at((uint64_t)at * 512 + i, generation);
        scsi_write16(&cdb, at, count, 512, false);
        pump_submit(&cdb, request);
        at += count;
        if (between)
            between(n);
    }
    pump_drain();
    for (unsigned i = 0; i < DEPTH; i++)
        assert_true(pump.request[i].good || pump.request[i].command.cdb[0] != 0x8a);
}

static void verify(uint32_t blocks, unsigned generation)
{
    struct scsi_cdb cdb;
    for (uint32_t at = 0; at < blocks; at += 600) {
        uint32_t count = MIN(600, blocks - at);
        scsi_read16(&cdb, at, count, 512, false);
        struct request *request = pump_command(&cdb);
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
        target_start(chap);
        for (unsigned digests = 0; digests < 4; digests++) {
            pump_begin(chap, digests & 1 ? ISCSI_DIGEST_REQUIRED : ISCSI_DIGEST_OFF,
                  digests & 2 ? ISCSI_DIGEST_REQUIRED : ISCSI_DIGEST_OFF, false);
            pump_until(ISCSI_READY);
            assert_int_equal(pump.session.parameters.header_digest, digests & 1);
            assert_int_equal(pump.session.parameters.data_digest, digests >> 1);
            uint64_t began = pump_now();
            fill(8192, chap * 4 + digests, NULL);
            verify(8192, chap * 4 + digests);
            print_message("    CHAP %u, header digest %u, data digest %u: 4 MiB both ways in %lu ms; "
                          "InitialR2T %u, immediate %u, "
                          "burst %u/%u, R2Ts %u, to the target %u\n", chap, digests & 1, digests >> 1,
                          (unsigned long)((pump_now() - began) / 1000000), pump.session.parameters.initial_r2t,
                          pump.session.parameters.immediate_data, pump.session.parameters.first_burst_bytes,
                          pump.session.parameters.max_burst_bytes, pump.session.parameters.max_outstanding_r2t,
                          pump.session.parameters.max_send_bytes);
            assert_int_equal(pump.session.counts.drops, chap ? 1 : 0); /* it takes SHA-256 for SHA-1 */
            pump_finish();
        }
        target_kill();
    }
}

/*
 * Data that the target has not asked for: with the command, after it, both, or none, in bursts of two sizes; and that it comes
 * so: a write of 32 KiB is answered at once where it may all be sent unasked, else after one R2T.
 */
static void data_that_was_not_asked_for(void **state)
{
    static const char *const words[] = { "No", "Yes" };
    static const struct {
        const char *text;
        uint32_t bytes;
    } bursts[] = { { "16384", 16384 }, { "65536", 65536 } };
    struct scsi_cdb cdb;
    (void)state;
    target_start(0);
    for (unsigned i = 0; i < 8; i++) {
        bool r2t = i & 1, immediate = i & 2, digests = i & 1;
        uint32_t first = bursts[i >> 2].bytes;
        target_set("InitialR2T", words[r2t]);
        target_set("ImmediateData", words[immediate]);
        target_set("FirstBurstLength", bursts[i >> 2].text);
        pump_begin(0, digests ? ISCSI_DIGEST_REQUIRED : ISCSI_DIGEST_OFF, digests ? ISCSI_DIGEST_REQUIRED : ISCSI_DIGEST_OFF,
                   false);
        pump_until(ISCSI_READY);
        const struct iscsi_parameters *agreed = &pump.session.parameters;
        assert_true(agreed->initial_r2t == r2t && agreed->immediate_data == immediate && agreed->first_burst_bytes == first);
        fill(8192, 20 + i, NULL);
        verify(8192, 20 + i);
        struct request *request = pump_idle();
        for (uint32_t at = 0; at < 32768; at++)
            request->data[at] = byte_at(at, 20 + i);
        uint64_t in = pump.session.counts.pdus_in;
        scsi_write16(&cdb, 0, 64, 512, false);
        pump_submit(&cdb, request);
        pump_drain();
        uint32_t unasked = r2t ? immediate ? MIN(first, agreed->max_send_bytes) : 0 : first;
        assert_int_equal(pump.session.counts.pdus_in - in, unasked >= 32768 ? 1 : 2);
        verify(8192, 20 + i);
        assert_int_equal(pump.session.counts.drops, 0);
        pump_finish();
    }
    target_kill();
}

static void wrong_secrets(void **state)
{
    (void)state;
    target_start(2);
    pump_begin(2, ISCSI_DIGEST_OFF, ISCSI_DIGEST_OFF, false);
    pump.account.secret.bytes[0] ^= 1;
    pump_until_refused();
    assert_non_null(strstr(pump.text, "login status 02"));
    pump_finish();
    pump_begin(2, ISCSI_DIGEST_OFF, ISCSI_DIGEST_OFF, false);
    pump.account.mutual_secret.bytes[0] ^= 1;
    pump_until_refused();
    assert_non_null(strstr(pump.text, "does not know the secret"));
    pump_finish();
    pump_begin(0, ISCSI_DIGEST_OFF, ISCSI_DIGEST_OFF, false);
    pump_until_refused();
    pump_finish();
    target_kill();
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
    target_start(0);
    pump_begin(0, ISCSI_DIGEST_PREFERRED, ISCSI_DIGEST_PREFERRED, true);
    pump_until(ISCSI_IDLE);
    char expected[200];
    snprintf(expected, sizeof(expected), "[" TARGET "]127.0.0.1:%d;", pump.port);
    assert_string_equal(pump.found, expected);

    pump_begin(0, ISCSI_DIGEST_PREFERRED, ISCSI_DIGEST_PREFERRED, false);
    pump_until(ISCSI_READY);
    pump.say = true;
    scsi_test_unit_ready(&cdb);
    assert_int_equal(pump_command(&cdb)->command.status, 0);
    scsi_inquiry(&cdb, SCSI_STANDARD_INQUIRY, 255);
    struct request *r = pump_command(&cdb);
    assert_int_equal(scsi_parse_inquiry(r->data, r->command.transferred, &inquiry), OK);
    assert_string_equal(inquiry.vendor, "IET");
    assert_int_equal(inquiry.device_type, 0);
    scsi_inquiry(&cdb, 0, 255);
    r = pump_command(&cdb);
    assert_int_equal(scsi_parse_pages(r->data, r->command.transferred, &pages), OK);
    assert_true(scsi_has_page(&pages, 0x83));
    scsi_inquiry(&cdb, 0x83, 255);
    r = pump_command(&cdb);
    assert_int_equal(scsi_parse_identity(r->data, r->command.transferred, &identity), OK);
    print_message("    %s %s %s, %s\n", inquiry.vendor, inquiry.product, inquiry.revision, identity.name);
    scsi_read_capacity16(&cdb);
    r = pump_command(&cdb);
    assert_int_equal(scsi_parse_capacity16(r->data, r->command.transferred, &capacity), OK);
    assert_true(capacity.blocks * capacity.block_bytes == DISK_BYTES);
    scsi_report_luns(&cdb, 256);
    r = pump_command(&cdb);
    assert_int_equal(scsi_parse_luns(r->data, r->command.transferred, luns, 8, &count, &listed), OK);
    assert_int_equal(listed, 2); /* 0 is its controller */
    scsi_mode_sense6(&cdb, 192);
    r = pump_command(&cdb);
    assert_int_equal(scsi_parse_mode6(r->data, r->command.transferred, &mode), OK);
    assert_false(mode.write_protected);
    scsi_synchronize_cache16(&cdb, 0, 0);
    assert_int_equal(pump_command(&cdb)->command.status, 0);
    scsi_read16(&cdb, DISK_BYTES / 512, 1, 512, false); /* beyond the end */
    assert_int_equal(pump_command(&cdb)->command.status, SCSI_CHECK_CONDITION);
    scsi_compare_and_write(&cdb, 0, 1, 512);
    r = pump_command(&cdb);
    print_message("    COMPARE AND WRITE: %s\n", scsi_status_name(r->command.status));
    pump.say = false;
    pump_finish();
    target_kill();
}

static struct request *reserve_out(enum scsi_pr_out_action action, uint64_t key, uint64_t action_key)
{
    struct scsi_cdb cdb;
    struct request *request = pump_idle(); /* all are idle: pump_command() takes the same */
    scsi_persistent_reserve_out(&cdb, action, SCSI_PR_WRITE_EXCLUSIVE_REGISTRANTS, SCSI_PR_OUT_BYTES);
    scsi_pr_out_list(request->data, key, action_key, false);
    return pump_command(&cdb);
}

static void reservations(void **state)
{
    struct scsi_cdb cdb;
    struct scsi_reservation held;
    uint64_t keys[4];
    uint32_t generation;
    unsigned count, listed;
    (void)state;
    target_start(0);
    pump_begin(0, ISCSI_DIGEST_PREFERRED, ISCSI_DIGEST_PREFERRED, false);
    pump_until(ISCSI_READY);
    scsi_test_unit_ready(&cdb);
    pump_command(&cdb);
    assert_int_equal(reserve_out(SCSI_PR_REGISTER, 0, 0x1122)->command.status, 0);
    assert_int_equal(reserve_out(SCSI_PR_RESERVE, 0x1122, 0)->command.status, 0);
    scsi_persistent_reserve_in(&cdb, SCSI_PR_READ_KEYS, 128);
    struct request *r = pump_command(&cdb);
    assert_int_equal(scsi_parse_keys(r->data, r->command.transferred, &generation, keys, 4, &count, &listed), OK);
    assert_true(listed == 1 && keys[0] == 0x1122);
    scsi_persistent_reserve_in(&cdb, SCSI_PR_READ_RESERVATION, 128);
    r = pump_command(&cdb);
    assert_int_equal(scsi_parse_reservation(r->data, r->command.transferred, &held), OK);
    assert_true(held.held && held.key == 0x1122 && held.type == SCSI_PR_WRITE_EXCLUSIVE_REGISTRANTS);
    assert_int_equal(reserve_out(SCSI_PR_REGISTER, 0x9999, 0x3344)->command.status, SCSI_RESERVATION_CONFLICT);
    assert_int_equal(reserve_out(SCSI_PR_RELEASE, 0x1122, 0)->command.status, 0);
    assert_int_equal(reserve_out(SCSI_PR_REGISTER, 0x1122, 0)->command.status, 0);
    pump_finish();
    target_kill();
}

static void cut(unsigned n)
{
    if (n % 40 == 39 && pump.fd >= 0 && !pump.connecting)
        shutdown(pump.fd, SHUT_RDWR);
}

static void restart(unsigned n)
{
    if (n == 60 || n == 200) {
        target_kill();
        target_start(0);
    }
}

static void cuts_and_restarts_in_the_middle_of_writes(void **state)
{
    (void)state;
    target_start(0);
    pump_begin(0, ISCSI_DIGEST_PREFERRED, ISCSI_DIGEST_PREFERRED, false);
    pump_until(ISCSI_READY);
    fill(32768, 77, cut);
    verify(32768, 77);
    print_message("    cut %lu times, %lu commands sent again, %u unit attentions\n",
                  (unsigned long)pump.session.counts.drops,
                  (unsigned long)pump.session.counts.retried, pump.attentions);
    assert_true(pump.session.counts.drops >= 4);
    assert_true(pump.session.counts.retried >= 4);
    fill(32768, 78, restart);
    verify(32768, 78);
    assert_true(pump.proofs > 5);
    pump_finish();
    target_kill();
}

/* ---- The proof ---- */

#define KEY_A 0xa111u
#define KEY_B 0xb222u
#define RECORD 60000u /* block of the epoch */

static struct scsi_claim claim;
static struct scsi_proof proof;
static struct request prober;
static unsigned proven, refusals;

static bool read_epoch(const struct scsi_claim *c, const uint8_t *bytes, size_t count, uint64_t *epoch)
{
    (void)c;
    (void)count;
    *epoch = be64_get(bytes);
    return true;
}

static void go_on(void);

static void probed(struct request *request)
{
    const struct iscsi_command *command = &request->command;
    if (command->outcome != ISCSI_ANSWERED)
        return; /* the next login begins another proof */
    scsi_proof_answer(&proof, command->status, command->sense, command->sense_bytes, command->transferred);
    go_on();
}

static void go_on(void)
{
    while (scsi_proof_next(&proof) == SCSI_PROOF_WAIT)
        scsi_proof_waited(&proof);
    if (scsi_proof_next(&proof) == SCSI_PROOF_OVER) {
        proven += proof.verdict == SCSI_PROOF_HOLDS;
        refusals += proof.verdict != SCSI_PROOF_HOLDS;
        iscsi_session_resume(&pump.session, pump_now());
        return;
    }
    assert_int_equal(scsi_proof_next(&proof), SCSI_PROOF_SEND);
    pump_submit(&proof.cdb, &prober);
}

static void prove(unsigned code)
{
    assert_false(prober.busy);
    scsi_proof_start(&proof, &claim, prober.data, COMMAND_BYTES, code == ISCSI_PROVE_STRAYS);
    go_on();
}

static bool may_send(const struct iscsi_command *command)
{
    return scsi_proof_allows(&proof, command->epoch);
}

static void write_epoch(uint64_t epoch)
{
    uint8_t record[512] = { 0 };
    int fd = open(disk_file, O_WRONLY);
    be64_put(record, epoch);
    assert_int_equal(pwrite(fd, record, sizeof(record), RECORD * 512), sizeof(record));
    close(fd);
}

static void kill_it(unsigned n)
{
    if (n != 150)
        return;
    target_kill();
    target_start(0);
}

/* tgt forgets its registrations when it ends: they are taken again, and nothing that was queued is lost. */
static void proofs(void **state)
{
    struct scsi_cdb cdb;
    uint8_t file[512];
    (void)state;
    prober = (struct request){ .data = calloc(1, COMMAND_BYTES), .then = probed };
    claim = (struct scsi_claim){ .key = KEY_A, .type = SCSI_PR_WRITE_EXCLUSIVE_REGISTRANTS, .restore = true, .epoch = 5,
                                 .block = RECORD, .blocks = 1, .block_bytes = 512, .read_epoch = read_epoch };
    write_epoch(5);
    target_start(0);
    pump_begin(0, ISCSI_DIGEST_PREFERRED, ISCSI_DIGEST_PREFERRED, false);
    pump.prove = prove;
    pump.may_send = may_send;
    pump.epoch = 5;
    proven = refusals = 0;
    pump_until(ISCSI_READY);
    assert_int_equal(proof.verdict, SCSI_PROOF_HOLDS);
    assert_true(proof.restored); /* the first registration of all is made the same way */
    fill(32768, 79, kill_it);
    verify(32768, 79);
    assert_true(proven >= 2 && proof.restored);
    assert_int_equal(refusals, 0);

    /* The connection goes with writes under way, and somebody takes the volume over: not one of them is written. */
    for (unsigned i = 0; i < 8; i++) {
        struct request *request = pump_idle();
        memset(request->data, 0x66, 512);
        scsi_write16(&cdb, 40000 + i, 1, 512, false);
        if (i == 4)
            shutdown(pump.fd, SHUT_RDWR);
        if (i >= 4) { /* these are surely not sent before the new login */
            while (pump.session.state == ISCSI_READY)
                pump_once(SECOND);
            write_epoch(6);
        }
        pump_submit(&cdb, request);
    }
    pump_drain();
    assert_int_equal(proof.verdict, SCSI_PROOF_FENCED);
    print_message("    %s\n", proof.why);
    int fd = open(disk_file, O_RDONLY);
    for (unsigned i = 4; i < 8; i++) {
        assert_int_equal(pread(fd, file, 512, (40000 + i) * 512), 512);
        assert_int_equal(file[0] | file[511], 0);
    }
    close(fd);
    unsigned stale = 0;
    for (unsigned i = 0; i < DEPTH; i++) {
        stale += pump.request[i].command.outcome == ISCSI_STALE;
        pump.request[i].command.cdb[0] = 0; /* what was not written is not held against the next test */
    }
    assert_true(stale >= 4);

    /* Another key in the place of ours; what tgt still has of ours belongs to a session that is gone. */
    claim.epoch = pump.epoch = 6;
    iscsi_session_drop(&pump.session, "another proof", pump_now());
    pump_until(ISCSI_READY);
    assert_int_equal(proof.verdict, SCSI_PROOF_HOLDS);
    assert_int_equal(reserve_out(SCSI_PR_REGISTER, KEY_A, KEY_B)->command.status, 0);
    iscsi_session_drop(&pump.session, "another proof", pump_now());
    pump_until(ISCSI_READY);
    assert_true(proof.verdict == SCSI_PROOF_FENCED || proof.verdict == SCSI_PROOF_UNPROTECTED);
    print_message("    %s\n", proof.why);
    pump_finish();
    target_kill();
    free(prober.data);
}

static int end_target(void **state)
{
    (void)state;
    target_kill();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(data_with_all_digests_and_chap, end_target),
        cmocka_unit_test_teardown(data_that_was_not_asked_for, end_target),
        cmocka_unit_test_teardown(wrong_secrets, end_target),
        cmocka_unit_test_teardown(what_it_says_of_itself, end_target),
        cmocka_unit_test_teardown(reservations, end_target),
        cmocka_unit_test_teardown(cuts_and_restarts_in_the_middle_of_writes, end_target),
        cmocka_unit_test_teardown(proofs, end_target),
    };
    signal(SIGPIPE, SIG_IGN);
    alarm(300);
    return cmocka_run_group_tests(tests, pump_set_up, pump_tear_down);
}
