/* SPDX-License-Identifier: MIT */
/*
 * What a disk above a session is, and its requests (scsi_disk_fixture.h; the loss of sessions is test_scsi_disk_loss.c's).
 * Guarded: each request ends as it was wished, with its data where they belong, or by the medium's own error; a busy unit,
 * an attention or a conflict costs time only; and another unit, a smaller one or a reserved one is never written to.
 */
#include "scsi_disk_fixture.h"

/* ---- The proof ---- */

static void it_finds_what_there_is(void **state)
{
    (void)state;
    t.transfer_max = 100;
    t.fua = true;
    start_good();
    const struct scsi_disk_info *info = &t.disk.info;
    assert_int_equal(info->bytes, 1024 * 512);
    assert_int_equal(info->block_bytes, 512);
    assert_true(info->can_unmap && info->thin && !info->read_only && info->holding.known && !info->holding.held);
    assert_string_equal(info->vendor, "FAKE");
    assert_string_equal(info->product, "MEMORY DISK");
    assert_string_equal(info->identity, "naa.5000000000000001");
    assert_int_equal(t.disk.info.transfer_max_blocks, 100);
    assert_true(t.disk.info.fua);
    assert_int_equal(t.commands[0x88] + t.commands[0x8a], 0);
}

static void it_does_without_pages(void **state)
{
    (void)state;
    t.no_pages = true;
    start_good();
    assert_int_equal(t.disk.info.bytes, 1024 * 512);
    assert_false(t.disk.info.can_unmap);
    finished(submit(DISK_WRITE, 0, 4096, 3), OK);
    on_disk(0, 4096, 3);
}

static void attentions_and_busy_are_waited_for(void **state)
{
    (void)state;
    t.attentions = 3;
    start_good();
    unsigned proofs = t.proofs;
    t.attentions = 9; /* the unit was reset: a write is not sent again before the unit was looked at anew */
    struct request *one = submit(DISK_WRITE, 0, 65536, 5);
    finished(one, OK);
    on_disk(0, 65536, 5);
    assert_int_equal(t.proofs, proofs + 1);
    assert_non_null(strstr(t.dropped, "the unit was reset"));
    t.attentions = 3; /* a read is */
    proofs = t.proofs;
    finished(submit(DISK_READ, 0, 65536, 0), OK);
    assert_int_equal(t.proofs, proofs);
    t.busy = 12;
    finished(submit(DISK_READ, 0, 65536, 0), OK);
    assert_memory_equal(t.request[2].buffer, one->buffer, 65536);
    assert_true(t.disk.retries >= 15);
    assert_int_equal(t.disk.errors, 0);
}

static void another_unit_is_refused(void **state)
{
    (void)state;
    start_good();
    t.serial = 2;
    cut();
    assert_non_null(strstr(t.dropped, "another unit is there"));
    assert_int_equal(t.proofs, 1);
    struct request *r = submit(DISK_WRITE, 0, 512, 1);
    pass(20 * SECOND, true);
    assert_int_equal(r->done_count, 0);
    assert_int_equal(t.commands[0x8a], 0);
    t.serial = 1;
    finished(r, OK);
    on_disk(0, 512, 1);
}

static void a_smaller_unit_is_refused(void **state)
{
    (void)state;
    start_good();
    t.blocks = 1000;
    cut();
    assert_non_null(strstr(t.dropped, "524288"));
    assert_non_null(strstr(t.dropped, "512000"));
    t.blocks = 1024;
    pass(10 * SECOND, false);
    assert_int_equal(t.proofs, 2);
    t.blocks = 2048;
    t.block_bytes = 256; /* as many bytes */
    cut();
    assert_int_equal(t.proofs, 2);
    t.block_bytes = 512;
    pass(10 * SECOND, false);
    assert_int_equal(t.proofs, 3); /* it may grow */
    assert_int_equal(t.disk.info.bytes, 2048 * 512);
}

/* It tells of it by a unit attention: its size is asked for before anything, a read too, goes out again. */
static void a_unit_is_resized_in_use(void **state)
{
    (void)state;
    t.blocks = FAKE_DISK_BYTES / 512 / 4;
    start_good();
    finished(submit(DISK_WRITE, 0, 4096, 1), OK);
    for (unsigned i = 0; i < 2; i++) {
        unsigned proofs = t.proofs;
        t.blocks *= 2;
        t.resized = true;
        finished(submit(i ? DISK_WRITE : DISK_READ, 0, 4096, 1), OK);
        assert_int_equal(t.proofs, proofs + 1);
        assert_non_null(strstr(t.dropped, "its capacity has changed"));
        assert_int_equal(t.disk.info.bytes, t.blocks * 512);
        assert_int_equal(t.disk.errors, 0);
    }
    struct request *last = submit(DISK_READ, t.blocks * 512 - 4096, 4096, 0);
    assert_int_equal(finished(last, OK)->status, OK);
    t.blocks /= 2; /* and it says so: nothing is read or written any more, wherever it is */
    t.resized = true;
    struct request *read = submit(DISK_READ, 0, 4096, 0);
    pass(20 * SECOND, true);
    struct request *write = submit(DISK_WRITE, 0, 4096, 2);
    unsigned reads = t.commands[0x88], writes = t.commands[0x8a];
    pass(20 * SECOND, true);
    assert_int_equal(read->done_count + write->done_count, 0);
    assert_int_equal(t.commands[0x88], reads);
    assert_int_equal(t.commands[0x8a], writes);
    assert_non_null(strstr(t.dropped, "the unit has changed from"));
    on_disk(0, 4096, 1);
    t.blocks *= 2;
    finished(read, OK);
    finished(write, OK);
    on_disk(0, 4096, 2);
}

static void a_reserved_unit_is_left_alone(void **state)
{
    (void)state;
    t.reserved = 0xabcd; /* who wants to use it looks at that first */
    start_good();
    assert_true(t.disk.info.holding.held && t.disk.info.holding.key == 0xabcd && t.disk.info.holding.type == 5);
    t.reserved = 5;
    t.conflicts = 4;
    struct request *r = submit(DISK_WRITE, 512, 512, 9);
    pass(30 * SECOND, true);
    assert_int_equal(r->done_count, 0);
    assert_int_equal(t.conflicts, 3); /* it was not sent again */
    assert_non_null(strstr(t.dropped, "0x5"));
    struct request *later = submit(DISK_WRITE, 8192, 8192, 2);
    pass(30 * SECOND, true);
    assert_int_equal(later->done_count, 0);
    t.reserved = 0;
    t.conflicts = 1;
    finished(r, OK);
    on_disk(512, 512, 9);
    on_disk(8192, 8192, 2);
}

static void no_unit(void **state)
{
    (void)state;
    t.blocks = 0; /* READ CAPACITY of 2^64 blocks */
    start();
    assert_int_equal(t.proofs, 0);
    assert_non_null(strstr(t.dropped, "READ CAPACITY"));
}

/* ---- Requests ---- */

static void sizes(uint32_t block_bytes, uint32_t transfer_max)
{
    static const uint32_t blocks[] = { 1, 2, 7, 64, 65, 100 };
    t.block_bytes = block_bytes;
    t.blocks = FAKE_DISK_BYTES / 2 / block_bytes;
    t.transfer_max = transfer_max;
    start_good();
    for (unsigned i = 0; i < ARRAY_COUNT(blocks); i++) {
        uint64_t bytes = (uint64_t)blocks[i] * block_bytes, offset = (uint64_t)i * block_bytes;
        struct request *w = finished(submit(DISK_WRITE, offset, bytes, (uint8_t)(i + 1)), OK);
        on_disk(offset, bytes, (uint8_t)(i + 1));
        struct request *r = finished(submit(DISK_READ, offset, bytes, 0), OK);
        assert_memory_equal(r->buffer, w->buffer, bytes);
    }
}

static void blocks_of_512(void **state)
{
    (void)state;
    sizes(512, 0);
}

static void blocks_of_4096(void **state)
{
    (void)state;
    sizes(4096, 0);
}

static void a_small_limit(void **state)
{
    (void)state;
    sizes(512, 3); /* 100 blocks are 34 commands */
}

static void more_than_fits_at_once(void **state)
{
    (void)state;
    t.transfer_max = 2;
    start_good();
    for (unsigned i = 0; i < 100; i++)
        submit(DISK_WRITE, i * 5120u, 5120, (uint8_t)i);
    assert_int_equal(scsi_disk_oldest_ns(&t.disk), t.bench->now_ns);
    pass(100 * SECOND, true);
    for (unsigned i = 0; i < 100; i++) {
        assert_int_equal(t.request[i].status, OK);
        on_disk(i * 5120u, 5120, (uint8_t)i);
    }
    assert_int_equal(t.disk.busy, 0);
    assert_null(t.disk.first);
    assert_int_equal(scsi_disk_oldest_ns(&t.disk), UINT64_MAX);
}

static void what_is_none_for_this_disk(void **state)
{
    (void)state;
    t.block_bytes = 4096;
    t.blocks = 100;
    start_good();
    assert_int_equal(submit(DISK_WRITE, 409600, 4096, 0)->status, ERR_RANGE);
    assert_int_equal(submit(DISK_READ, UINT64_MAX - 4095, 8192, 0)->status, ERR_RANGE);
    assert_int_equal(submit(DISK_READ, 512, 4096, 0)->status, ERR_INVALID);
    assert_int_equal(submit(DISK_READ, 4096, 512, 0)->status, ERR_INVALID);
    t.disk.info.read_only = true;
    assert_int_equal(submit(DISK_WRITE, 0, 4096, 0)->status, ERR_READ_ONLY);
    assert_int_equal(submit(DISK_DISCARD, 0, 4096, 0)->status, ERR_READ_ONLY);
    finished(submit(DISK_READ, 0, 4096, 0), OK);
}

static void an_error_of_the_medium(void **state)
{
    (void)state;
    t.transfer_max = 8;
    start_good();
    t.bad_block = 20;
    struct request *bad = submit(DISK_READ, 0, 64 * 512, 0), *good = submit(DISK_READ, 32 * 512, 8 * 512, 0);
    finished(good, OK);
    assert_int_equal(bad->status, ERR_IO);
    assert_int_equal(t.disk.errors, 1);
    assert_non_null(strstr(t.news, "a read of 4096 bytes at 8192 failed"));
    assert_non_null(strstr(t.news, "MEDIUM ERROR"));
    assert_int_equal(t.drops, 0);
}

static void good_with_too_little(void **state)
{
    (void)state;
    t.short_reads = true;
    start_good();
    t.bad_reads = 2;
    finished(submit(DISK_READ, 0, 8192, 0), OK);
    t.bad_reads = 1000;
    finished(submit(DISK_READ, 0, 8192, 0), ERR_IO);
}

static void flushes(void **state)
{
    (void)state;
    start_good();
    finished(submit(DISK_FLUSH, 0, 0, 0), OK);
    assert_int_equal(t.commands[0x91], 1);
    t.request[t.count].r.fua = false;
    struct request *r = &t.request[t.count++]; /* FUA on a unit without it: a flush behind the write */
    r->buffer = calloc(1, 4096);
    r->r = (struct disk_request){ .op = DISK_WRITE, .fua = true, .bytes = 4096, .get = get, .done = done, .owner = r };
    scsi_disk_submit(&t.disk, &r->r, t.bench->now_ns);
    finished(r, OK);
    assert_int_equal(t.commands[0x91], 2);
    assert_int_equal(t.fua_writes, 0);
    t.fua = true;
    cut();
    r->done_count = 0;
    scsi_disk_submit(&t.disk, &r->r, t.bench->now_ns);
    finished(r, OK);
    assert_int_equal(t.commands[0x91], 2);
    assert_int_equal(t.fua_writes, 1);
    t.no_cache = true;
    finished(submit(DISK_FLUSH, 0, 0, 0), OK); /* the unit has nothing to flush, and says so once */
    finished(submit(DISK_FLUSH, 0, 0, 0), OK);
    assert_int_equal(t.commands[0x91], 3);
}

static void discards(void **state)
{
    (void)state;
    t.unmap_max = 10;
    start_good();
    finished(submit(DISK_WRITE, 0, 65536, 4), OK);
    finished(submit(DISK_DISCARD, 512, 25 * 512, 0), OK);
    assert_int_equal(t.commands[0x42], 3);
    on_disk(0, 512, 4);
    all_are(512, 25 * 512, 0xdd);
    t.unmap = false;
    cut();
    finished(submit(DISK_DISCARD, 0, 65536, 0), OK);
    assert_int_equal(t.commands[0x42], 3);
}

static void zeroes(void **state)
{
    (void)state;
    t.same_max = 16;
    start_good();
    finished(submit(DISK_WRITE, 0, 256 * 512, 4), OK);
    finished(submit(DISK_WRITE_ZEROES, 512, 100 * 512, 0), OK);
    assert_int_equal(t.commands[0x93], 7);
    on_disk(0, 512, 4);
    all_are(512, 100 * 512, 0);
    assert_int_equal(t.bench->target.disk[101 * 512], bench_byte(4, 101 * 512));
    /* Without WRITE SAME they are written, whole, however many of them were under way. */
    t.write_same = false;
    finished(submit(DISK_WRITE, 0, 256 * 512, 7), OK);
    struct request *z = submit(DISK_WRITE_ZEROES, 1024, 200 * 512, 0), *w = submit(DISK_WRITE, 400 * 512, 8192, 2);
    finished(z, OK);
    assert_int_equal(w->status, OK);
    all_are(1024, 200 * 512, 0);
    on_disk(400 * 512, 8192, 2);
    assert_int_equal(t.bench->target.disk[202 * 512], bench_byte(7, 202 * 512));
    unsigned asked = t.commands[0x93];
    finished(submit(DISK_WRITE_ZEROES, 0, 1024, 0), OK);
    assert_int_equal(t.commands[0x93], asked);
    assert_int_equal(t.disk.errors, 0);
}

/* What is sent again is what was sent, whatever the owner's memory says by then: digests hold, and no mixture lands. */
static void memory_that_changes(void **state)
{
    (void)state;
    start_good();
    t.bench->target.manners.hold = true;
    struct request *w = submit(DISK_WRITE, 0, 40000 / 512 * 512, 6); /* fits into the pieces */
    bench_settle(t.bench);
    memset(w->buffer, 0xee, 39936);
    t.bench->target.manners.hold = false;
    cut();
    finished(w, OK);
    on_disk(0, 39936, 6);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(it_finds_what_there_is),
        TEST(it_does_without_pages),
        TEST(attentions_and_busy_are_waited_for),
        TEST(another_unit_is_refused),
        TEST(a_smaller_unit_is_refused),
        TEST(a_unit_is_resized_in_use),
        TEST(a_reserved_unit_is_left_alone),
        TEST(no_unit),
        TEST(blocks_of_512),
        TEST(blocks_of_4096),
        TEST(a_small_limit),
        TEST(more_than_fits_at_once),
        TEST(what_is_none_for_this_disk),
        TEST(an_error_of_the_medium),
        TEST(good_with_too_little),
        TEST(flushes),
        TEST(discards),
        TEST(zeroes),
        TEST(memory_that_changes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
