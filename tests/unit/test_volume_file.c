/* SPDX-License-Identifier: MIT */
/* Files of a volume as disks: what is under way at once, what must wait, and what is durable. */
#include "volume_fixture.h"

#include "volume/volume_private.h"

#define SIZE (64 * MIB)
#define BLOCK 4096u
#define COUNT 8

/* ---- First writes ---- */

static enum status sync_here(struct csv *csv, void *arg)
{
    (void)arg;
    return csv_sync(csv);
}

/* The volume's thread has looked at all that waits at the file. */
static void have_looked(struct volume_file *file)
{
    wait_until(!__atomic_load_n(&file->work, __ATOMIC_ACQUIRE));
    ok(on_volume(sync_here, NULL));
}

static void first_writes_do_not_wait_for_each_other(void **state)
{
    static uint8_t bytes[COUNT][BLOCK], back[COUNT * BLOCK];
    struct asked asked[COUNT];
    struct guest guest;
    (void)state;

    set_up(SIZE);
    struct volume_file *file = make_file("disk", 8 * MIB, &guest);
    hold(true, false);
    for (unsigned i = 0; i < COUNT; i++) {
        fill(bytes[i], BLOCK, i);
        ask(file, &asked[i], DISK_WRITE, i * 2 * BLOCK, bytes[i], BLOCK);
    }
    wait_until(held() == COUNT);
    for (unsigned i = 0; i < COUNT; i++)
        assert_false(is_done(&asked[i]));
    hold(false, false);
    for (unsigned i = 0; i < COUNT; i++)
        ok(answer(&asked[i]));
    for (unsigned i = 0; i < COUNT; i++) {
        ok(request(file, DISK_READ, i * 2 * BLOCK, back, 2 * BLOCK));
        assert_memory_equal(back, bytes[i], BLOCK);
        assert_true(all(back + BLOCK, BLOCK, 0));
    }
    volume_file_close(file);
    check_volume();
    tear_down();
}

static void parts_of_a_new_block_do_not_undo_each_other(void **state)
{
    static uint8_t bytes[COUNT][512], back[BLOCK];
    struct asked asked[COUNT];
    struct guest guest;
    (void)state;

    set_up(SIZE);
    struct volume_file *file = make_file("disk", 8 * MIB, &guest);
    for (unsigned block = 0; block < 50; block++) {
        hold(true, false);
        for (unsigned i = COUNT; i-- > 0;) {
            fill(bytes[i], 512, block * COUNT + i);
            ask(file, &asked[i], DISK_WRITE, block * BLOCK + i * 512, bytes[i], 512);
        }
        have_looked(file);
        assert_int_equal(held(), 1);
        hold(false, false);
        for (unsigned i = 0; i < COUNT; i++)
            ok(answer(&asked[i]));
        ok(request(file, DISK_READ, block * BLOCK, back, BLOCK));
        for (unsigned i = 0; i < COUNT; i++)
            assert_memory_equal(back + i * 512, bytes[i], 512);
    }
    /* One sector of a new block: zeros around it. */
    ok(request(file, DISK_WRITE, 100 * BLOCK + 1024, bytes[0], 512));
    ok(request(file, DISK_READ, 100 * BLOCK, back, BLOCK));
    assert_true(all(back, 1024, 0) && all(back + 1536, BLOCK - 1536, 0));
    assert_memory_equal(back + 1024, bytes[0], 512);
    volume_file_close(file);
    tear_down();
}

/* ---- Power cuts ---- */

/* Reads a file of what a cut of the disk's record has left. */
static struct csv_stat read_after_cut(const struct fake_csv_disk *start, enum fake_cut cut, uint64_t offset, uint8_t *bytes,
                                      uint64_t count)
{
    struct csv_mount_options options = { .owner_name = "after", .take_over = true, .cache_blocks = 256 };
    char message[CSV_MESSAGE_BYTES] = "";
    struct csv_check check = { .report = print_problem };
    struct csv_stat stat;
    struct csv_file *file;
    struct csv *csv;
    uint64_t inode, done;

    wait_until(idle());
    pthread_mutex_lock(&world);
    struct fake_csv_disk *left = fake_disk_cut(start, san.disk, san.disk->record_count, cut, &san.seed);
    pthread_mutex_unlock(&world);
    enum status status = csv_mount(&left->disk, &plain_memory.memory, &options, &csv, message);
    if (status != OK)
        fail_msg("%s", message);
    ok(csv_check(csv, &check));
    assert_int_equal(check.problems, 0);
    ok(csv_walk(csv, "disk", &inode));
    ok(csv_open(csv, inode, &file));
    ok(csv_read(file, offset, bytes, count, &done));
    assert_int_equal(done, count);
    ok(csv_stat(csv, inode, &stat));
    ok(csv_close(file));
    csv_abandon(csv);
    fake_disk_free(left);
    return stat;
}

static struct fake_csv_disk *begin_record(void)
{
    ok(on_volume(sync_here, NULL));
    wait_until(idle());
    pthread_mutex_lock(&world);
    struct fake_csv_disk *start = fake_disk_copy(san.disk);
    fake_disk_record(san.disk);
    pthread_mutex_unlock(&world);
    return start;
}

/* The map may be durable before the data is: then the blocks read as zeros, never as what they held. */
static void a_cut_shows_no_old_bytes(void **state)
{
    static uint8_t bytes[BLOCK], back[BLOCK];
    struct asked asked;
    struct guest guest, other_guest;
    (void)state;

    set_up(SIZE);
    struct volume_file *file = make_file("disk", 8 * MIB, &guest), *other = make_file("other", MIB, &other_guest);
    ok(request(other, DISK_WRITE, 0, bytes, BLOCK));
    struct fake_csv_disk *start = begin_record();
    hold(true, false);
    fill(bytes, BLOCK, 1);
    ask(file, &asked, DISK_WRITE, 5 * BLOCK, bytes, BLOCK);
    wait_until(held() == 1);
    ok(request(other, DISK_FLUSH, 0, NULL, 0)); /* of the volume's journal, with what this file has in it */
    (void)read_after_cut(start, FAKE_CUT_ALL, 5 * BLOCK, back, BLOCK);
    assert_true(all(back, BLOCK, 0));
    hold(false, false);
    ok(answer(&asked));
    ok(request(file, DISK_FLUSH, 0, NULL, 0));
    (void)read_after_cut(start, FAKE_CUT_NONE, 5 * BLOCK, back, BLOCK);
    assert_memory_equal(back, bytes, BLOCK);
    fake_disk_free(start);
    volume_file_close(file);
    volume_file_close(other);
    tear_down();
}

static enum status share_here(struct csv *csv, void *arg)
{
    struct csv_file *file;
    uint64_t inode;
    enum status status = csv_walk(csv, "disk", &inode);

    (void)arg;
    if (status == OK)
        status = csv_open(csv, inode, &file);
    if (status != OK)
        return status;
    status = csv_clone(file, csv_root(csv), "copy", 4, &inode);
    enum status closed = csv_close(file);
    return status == OK ? closed : status;
}

/* A write to blocks that are shared gets blocks of its own; a flush makes the new map durable too. */
static void a_flush_covers_what_was_copied(void **state)
{
    static uint8_t bytes[BLOCK], back[BLOCK];
    struct guest guest;
    (void)state;

    set_up(SIZE);
    struct volume_file *file = make_file("disk", 8 * MIB, &guest);
    fill(bytes, BLOCK, 1);
    ok(request(file, DISK_WRITE, 5 * BLOCK, bytes, BLOCK));
    ok(request(file, DISK_FLUSH, 0, NULL, 0));
    ok(on_volume(share_here, NULL));
    struct fake_csv_disk *start = begin_record();
    ok(request(file, DISK_FLUSH, 0, NULL, 0));
    for (unsigned i = 0; i < 2; i++) { /* to the shared block, then to the file's own */
        fill(bytes, BLOCK, 2 + i);
        ok(request(file, DISK_WRITE, 5 * BLOCK, bytes, BLOCK));
        ok(request(file, DISK_FLUSH, 0, NULL, 0));
        (void)read_after_cut(start, FAKE_CUT_NONE, 5 * BLOCK, back, BLOCK);
        assert_memory_equal(back, bytes, BLOCK);
    }
    fake_disk_free(start);
    volume_file_close(file);
    tear_down();
}

/* ---- While it is a running guest's ---- */

/* A write in place leaves no trace in the map; the mark does, and a cut does not undo it. */
static void a_mark_is_seen_afterwards(void **state)
{
    static uint8_t bytes[BLOCK], back[BLOCK];
    char text[VOLUME_TEXT];
    struct csv_stat first, written, marked;
    struct guest guest;
    (void)state;

    set_up(SIZE);
    struct volume_file *file = make_file("disk", 8 * MIB, &guest);
    ok(request(file, DISK_WRITE, 0, bytes, BLOCK));
    ok(volume_file_stat(file, &first, text, sizeof text));
    fill(bytes, BLOCK, 1);
    ok(request(file, DISK_WRITE, 0, bytes, BLOCK));
    ok(volume_file_stat(file, &written, text, sizeof text));
    assert_int_equal(written.modified_ns, first.modified_ns);
    struct fake_csv_disk *start = begin_record();
    for (int64_t before = first.modified_ns, i = 0; i < 3; i++, before = marked.modified_ns) {
        ok(volume_file_mark(file, text, sizeof text));
        ok(volume_file_stat(file, &marked, text, sizeof text));
        assert_true(marked.modified_ns > before);
        assert_int_equal(marked.inode, first.inode);
        assert_int_equal(marked.generation, first.generation);
        assert_int_equal(read_after_cut(start, FAKE_CUT_NONE, 0, back, BLOCK).modified_ns, marked.modified_ns);
    }
    fake_disk_free(start);
    volume_file_close(file);
    tear_down();
}

/* With a write under way that is answered afterwards; what is new reads as zeros, takes writes, and outlives a cut. */
static void it_grows_under_its_requests(void **state)
{
    static uint8_t bytes[BLOCK], back[2 * BLOCK];
    char text[VOLUME_TEXT];
    struct asked asked;
    struct guest guest;
    uint64_t larger = 2 * MIB + 512;
    (void)state;

    set_up(SIZE);
    struct volume_file *file = make_file("disk", 1 * MIB + 512, &guest);
    struct fake_csv_disk *start = begin_record();
    fill(bytes, BLOCK, 1);
    hold(true, false);
    ask(file, &asked, DISK_WRITE, MIB - BLOCK, bytes, BLOCK);
    wait_until(held() == 1);
    ok(volume_file_grow(file, &larger, text, sizeof text));
    assert_int_equal(larger, 2 * MIB);
    assert_false(is_done(&asked));
    assert_int_equal(read_after_cut(start, FAKE_CUT_NONE, 0, back, BLOCK).size, 2 * MIB + 512);
    hold(false, false);
    ok(answer(&asked));
    ok(request(file, DISK_READ, MIB - BLOCK, back, 2 * BLOCK));
    assert_memory_equal(back, bytes, BLOCK);
    assert_true(all(back + BLOCK, BLOCK, 0));
    ok(request(file, DISK_WRITE, 2 * MIB - BLOCK, bytes, BLOCK));
    ok(request(file, DISK_FLUSH, 0, NULL, 0));
    (void)read_after_cut(start, FAKE_CUT_NONE, 2 * MIB - BLOCK, back, BLOCK);
    assert_memory_equal(back, bytes, BLOCK);
    larger = 1 * MIB;
    assert_int_equal(volume_file_grow(file, &larger, text, sizeof text), ERR_RANGE);
    assert_non_null(strstr(text, "larger than that"));
    larger = CSV_FILE_BYTES + BLOCK;
    assert_int_not_equal(volume_file_grow(file, &larger, text, sizeof text), OK);
    fake_disk_free(start);
    volume_file_close(file);
    check_volume();
    tear_down();
}

/* Written in place with FUA, to a block whose place in the map is not durable yet. */
static void fua_is_durable_with_the_map(void **state)
{
    static uint8_t bytes[BLOCK], back[BLOCK];
    struct asked asked;
    struct guest guest;
    (void)state;

    for (unsigned has_fua = 0; has_fua < 2; has_fua++) {
        set_up(SIZE);
        san.fua = has_fua;
        struct volume_file *file = make_file("disk", 8 * MIB, &guest);
        struct fake_csv_disk *start = begin_record();
        fill(bytes, BLOCK, 1);
        ok(request(file, DISK_WRITE, 5 * BLOCK, bytes, BLOCK));
        fill(bytes, BLOCK, 2);
        asked = (struct asked){ .bytes = bytes, .request = { .op = DISK_WRITE, .fua = true, .offset = 5 * BLOCK, .bytes = BLOCK,
                                                             .get = asked_get, .done = asked_done, .owner = &asked } };
        volume_file_submit(file, &asked.request);
        ok(answer(&asked));
        (void)read_after_cut(start, FAKE_CUT_NONE, 5 * BLOCK, back, BLOCK);
        assert_memory_equal(back, bytes, BLOCK);
        fake_disk_free(start);
        volume_file_close(file);
        tear_down();
    }
}

/* ---- Flushes ---- */

static void data_in_place_does_not_wait_for_a_commit(void **state)
{
    static uint8_t bytes[2][BLOCK], back[BLOCK];
    struct asked flush, write, read;
    struct guest guest;
    (void)state;

    set_up(SIZE);
    struct volume_file *file = make_file("disk", 8 * MIB, &guest);
    fill(bytes[0], BLOCK, 1);
    fill(bytes[1], BLOCK, 2);
    ok(request(file, DISK_WRITE, 0, bytes[0], BLOCK));
    hold(false, true);
    ask(file, &flush, DISK_FLUSH, 0, NULL, 0);
    wait_until(san.count == 1); /* the journal's */
    ask(file, &write, DISK_WRITE, 0, bytes[1], BLOCK);
    ask(file, &read, DISK_READ, 0, back, BLOCK);
    wait_until(held() == 2);
    hold(false, false);
    ok(answer(&flush));
    ok(answer(&write));
    ok(answer(&read));
    ok(request(file, DISK_READ, 0, back, BLOCK));
    assert_memory_equal(back, bytes[1], BLOCK);
    /* Without a change of the map a flush is the disk's, and nothing else. */
    unsigned flushes = san.data_flushes;
    uint64_t writes = san.disk->writes;
    ok(request(file, DISK_FLUSH, 0, NULL, 0));
    assert_int_equal(san.data_flushes, flushes + 1);
    assert_int_equal(san.disk->writes, writes);
    volume_file_close(file);
    tear_down();
}

static void what_one_flush_commits_another_file_need_not(void **state)
{
    static uint8_t bytes[BLOCK];
    struct guest guests[2];
    (void)state;

    set_up(SIZE);
    struct volume_file *a = make_file("a", 8 * MIB, &guests[0]), *b = make_file("b", 8 * MIB, &guests[1]);
    ok(request(a, DISK_WRITE, 0, bytes, BLOCK));
    ok(request(b, DISK_WRITE, 0, bytes, BLOCK));
    ok(request(a, DISK_FLUSH, 0, NULL, 0));
    unsigned flushes = san.data_flushes;
    ok(request(b, DISK_FLUSH, 0, NULL, 0));
    assert_int_equal(san.data_flushes, flushes + 1);
    volume_file_close(a);
    volume_file_close(b);
    tear_down();
}

/* ---- Cancelling ---- */

static void an_old_write_does_not_land_over_a_newer_one(void **state)
{
    static uint8_t bytes[3][BLOCK], back[BLOCK];
    struct asked old, new;
    struct guest guest;
    (void)state;

    set_up(SIZE);
    struct volume_file *file = make_file("disk", 8 * MIB, &guest);
    for (unsigned i = 0; i < 3; i++)
        fill(bytes[i], BLOCK, i);
    ok(request(file, DISK_WRITE, 0, bytes[0], BLOCK));
    hold(true, false);
    ask(file, &old, DISK_WRITE, 0, bytes[1], BLOCK);
    wait_until(held() == 1);
    volume_file_cancel(file);
    assert_int_equal(answer(&old), ERR_CANCELLED);
    ask(file, &new, DISK_WRITE, 0, bytes[2], BLOCK);
    have_looked(file);
    assert_int_equal(held(), 1);
    hold(false, false);
    ok(answer(&new));
    ok(request(file, DISK_READ, 0, back, BLOCK));
    assert_memory_equal(back, bytes[2], BLOCK);
    volume_file_close(file);
    tear_down();
}

static enum status remove_here(struct csv *csv, void *arg)
{
    enum status status = csv_unlink(csv, csv_root(csv), arg, strlen(arg));

    return status == OK ? csv_sync(csv) : status;
}

/* A closed file keeps its blocks as long as the disk has a write to them. */
static void blocks_under_a_write_are_not_given_away(void **state)
{
    static uint8_t bytes[BLOCK], back[BLOCK];
    struct guest guest, second = new_guest();
    struct volume_file_info info;
    struct volume_file *again;
    struct csv_info before, after;
    char text[VOLUME_TEXT];
    struct asked asked;
    (void)state;

    set_up(SIZE);
    struct volume_file *file = make_file("disk", 8 * MIB, &guest);
    ok(request(file, DISK_WRITE, 0, bytes, BLOCK));
    ok(on_volume(sync_here, NULL));
    before = volume_now().csv;
    hold(true, false);
    ask(file, &asked, DISK_WRITE, 0, bytes, BLOCK);
    wait_until(held() == 1);
    volume_file_close(file);
    assert_int_equal(answer(&asked), ERR_CANCELLED);
    assert_int_equal(volume_file_open(ROOT "disk", &second.user, &again, &info, text, sizeof text), ERR_BUSY);
    assert_non_null(strstr(text, "last user"));
    ok(on_volume(remove_here, (char[]){ "disk" }));
    after = volume_now().csv;
    assert_int_equal(after.free_blocks, before.free_blocks);
    hold(false, false);
    wait_until(!files_open());
    ok(on_volume(sync_here, NULL));
    assert_true(volume_now().csv.free_blocks > before.free_blocks);
    struct volume_file *other = make_file("other", 8 * MIB, &second);
    ok(request(other, DISK_READ, 0, back, BLOCK));
    assert_true(all(back, BLOCK, 0));
    volume_file_close(other);
    tear_down();
}

/* While a discard is under way nothing goes to the blocks that it frees. */
static void what_is_being_freed_is_left_alone(void **state)
{
    static uint8_t bytes[8 * BLOCK], back[BLOCK];
    struct asked discard, write, read;
    struct guest guest;
    (void)state;

    set_up(SIZE);
    struct volume_file *file = make_file("disk", 8 * MIB, &guest);
    fill(bytes, sizeof bytes, 3);
    ok(request(file, DISK_WRITE, 0, bytes, sizeof bytes));
    hold(false, true);
    ask(file, &discard, DISK_DISCARD, 512, NULL, 5 * BLOCK);
    wait_until(san.count == 1); /* a block that loses a part of its bytes */
    ask(file, &write, DISK_WRITE, 2 * BLOCK, bytes, BLOCK);
    ask(file, &read, DISK_READ, 3 * BLOCK, back, BLOCK);
    assert_int_equal(held(), 0);
    hold(false, false);
    ok(answer(&discard));
    ok(answer(&write));
    ok(answer(&read));
    assert_true(all(back, BLOCK, 0));
    ok(request(file, DISK_READ, 2 * BLOCK, back, BLOCK));
    assert_memory_equal(back, bytes, BLOCK);
    ok(request(file, DISK_READ, 0, back, BLOCK));
    assert_memory_equal(back, bytes, 512);
    assert_true(all(back + 512, BLOCK - 512, 0));
    volume_file_close(file);
    check_volume();
    tear_down();
}

/* ---- The disk below ---- */

static void who_opens_a_file_while_the_disk_is_away_is_told(void **state)
{
    struct guest guest;
    (void)state;

    set_up(SIZE);
    san.user->lost(san.user, "cable");
    struct volume_file *file = make_file("disk", 8 * MIB, &guest);
    assert_int_equal(guest.lost, 1);
    assert_string_equal(guest.why, "cable");
    san.user->back(san.user);
    assert_int_equal(guest.back, 1);
    volume_file_close(file);
    tear_down();
}

static void an_error_of_the_disk_is_the_requests_own(void **state)
{
    static uint8_t bytes[4 * BLOCK], back[BLOCK];
    struct guest guest;
    (void)state;

    set_up(SIZE);
    struct volume_file *file = make_file("disk", 8 * MIB, &guest);
    fill(bytes, 4 * BLOCK, 9);
    ok(request(file, DISK_WRITE, 0, bytes, 4 * BLOCK));
    ok(request(file, DISK_FLUSH, 0, NULL, 0));
    wait_until(idle());
    san.disk->fail_after = 0;
    assert_int_equal(request(file, DISK_READ, 0, back, BLOCK), ERR_IO);
    assert_int_equal(request(file, DISK_WRITE, BLOCK, back, BLOCK), ERR_IO);
    assert_int_equal(request(file, DISK_WRITE, MIB, back, BLOCK), ERR_IO); /* a new block's data */
    san.disk->fail_after = -1;
    ok(request(file, DISK_READ, 2 * BLOCK, back, BLOCK));
    assert_memory_equal(back, bytes + 2 * BLOCK, BLOCK);
    volume_file_close(file);
    check_volume();
    tear_down();
}

static void stopping_waits_for_what_is_under_way(void **state)
{
    static uint8_t bytes[BLOCK];
    struct guest guest;
    struct asked asked;
    (void)state;

    set_up(SIZE);
    struct volume_file *file = make_file("disk", 8 * MIB, &guest);
    ok(request(file, DISK_WRITE, 0, bytes, BLOCK));
    hold(true, false);
    ask(file, &asked, DISK_WRITE, 0, bytes, BLOCK);
    wait_until(held() == 1);
    volume_file_close(file);
    __atomic_store_n(&volumes->stop, true, __ATOMIC_RELEASE);
    wake_all(&volumes->wake);
    for (unsigned i = 0; i < 20; i++) { /* it would be over long since, if it did not wait */
        nanosleep(&(struct timespec){ .tv_nsec = 10000000 }, NULL);
        assert_true(!__atomic_load_n(&volumes->stopped, __ATOMIC_ACQUIRE) && san.taken && held() == 1);
    }
    hold(false, false);
    stop_volume();
    start_volume();
    assert_int_equal(volume_now().csv.replayed, 0);
    tear_down();
}

/* ---- All at once ---- */

#define FILES 2
#define FILE_BLOCKS 96u
#define UNITS (FILE_BLOCKS * 8) /* sectors */
#define DEPTH 24
#define ROUNDS 6000u

struct player {
    struct guest guest;
    struct volume_file *file;
    uint8_t model[UNITS];      /* what each sector has; 0: zeros */
    bool taken[UNITS];
    struct asked asked[DEPTH];
    uint8_t *bytes[DEPTH];
    unsigned first[DEPTH], count[DEPTH];
    uint8_t value[DEPTH];
};

static void settle_one(struct player *p, unsigned i)
{
    struct asked *a = &p->asked[i];

    if (!p->count[i])
        return;
    ok(answer(a));
    for (unsigned s = 0; s < p->count[i]; s++) {
        unsigned sector = p->first[i] + s;
        p->taken[sector] = false;
        if (a->request.op == DISK_READ)
            assert_true(all(p->bytes[i] + s * 512, 512, p->model[sector]));
        else
            p->model[sector] = a->request.op == DISK_WRITE ? p->value[i] : 0;
    }
    p->count[i] = 0;
}

/* A request for sectors of which no other one is under way: so it is known what they have afterwards. */
static void play(struct player *p, uint64_t *seed)
{
    static const enum disk_op ops[] = { DISK_WRITE, DISK_WRITE, DISK_WRITE, DISK_READ, DISK_READ, DISK_DISCARD, DISK_WRITE_ZEROES };
    unsigned i = (unsigned)(fake_random(seed) % DEPTH);

    settle_one(p, i);
    if (fake_random(seed) % 12 == 0) {
        ok(request(p->file, DISK_FLUSH, 0, NULL, 0));
        return;
    }
    enum disk_op op = ops[fake_random(seed) % 7];
    unsigned count = 1 + (unsigned)(fake_random(seed) % 40), first = (unsigned)(fake_random(seed) % (UNITS - count));
    for (unsigned s = 0; s < count; s++)
        if (p->taken[first + s])
            return;
    memset(p->taken + first, true, count);
    p->first[i] = first;
    p->count[i] = count;
    p->value[i] = (uint8_t)(1 + fake_random(seed) % 200);
    memset(p->bytes[i], op == DISK_WRITE ? p->value[i] : 0xdd, count * 512);
    ask(p->file, &p->asked[i], op, first * 512, p->bytes[i], count * 512);
}

struct cloning {
    const char *from;
    char to[16];
    uint64_t hash; /* of what it has */
};

static enum status hash_here(struct csv *csv, void *arg)
{
    static uint8_t bytes[UNITS * 512];
    struct cloning *c = arg;
    struct csv_file *file;
    uint64_t inode, done;
    enum status status = csv_walk(csv, c->to, &inode);

    if (status == OK)
        status = csv_open(csv, inode, &file);
    if (status != OK)
        return status;
    status = csv_read(file, 0, bytes, sizeof bytes, &done);
    c->hash = 0;
    for (size_t i = 0; i < sizeof bytes; i++)
        c->hash = c->hash * 0x100000001b3ull + bytes[i];
    enum status closed = csv_close(file);
    return status == OK ? closed : status;
}

/* Whatever is under way at the file. */
static enum status clone_here(struct csv *csv, void *arg)
{
    struct cloning *c = arg;
    struct csv_file *file;
    uint64_t inode, copy;
    enum status status = csv_walk(csv, c->from, &inode);

    if (status == OK)
        status = csv_open(csv, inode, &file);
    if (status != OK)
        return status;
    volume_file_hold(csv, inode);
    status = csv_clone(file, csv_root(csv), c->to, strlen(c->to), &copy);
    if (status == OK)
        status = hash_here(csv, c);
    volume_file_release(csv, inode);
    enum status closed = csv_close(file);
    return status == OK ? closed : status;
}

static void settle_all(struct player *p)
{
    for (unsigned i = 0; i < DEPTH; i++)
        settle_one(p, i);
}

static void random_requests_of_two_files(void **state)
{
    static struct player players[FILES];
    static struct cloning copies[ROUNDS / 300];
    static const char *const names[FILES] = { "a", "b" };
    static uint8_t back[UNITS * 512];
    uint64_t seed = 7;
    unsigned rounds = ROUNDS;
    (void)state;

    set_up(SIZE);
    for (unsigned f = 0; f < FILES; f++) {
        players[f].file = make_file(names[f], FILE_BLOCKS * BLOCK, &players[f].guest);
        for (unsigned i = 0; i < DEPTH; i++)
            players[f].bytes[i] = malloc(40 * 512);
    }
    for (unsigned round = 0; round < rounds; round++) {
        struct player *p = &players[fake_random(&seed) % FILES];
        play(p, &seed);
        if (round % 300 == 299) { /* a copy of one: its blocks are shared from now on */
            struct cloning *copy = &copies[round / 300];
            copy->from = names[round / 300 % FILES];
            snprintf(copy->to, sizeof copy->to, "copy%u", round);
            ok(on_volume(clone_here, copy));
            if (round / 300 % 3 == 2) {
                ok(on_volume(remove_here, copy->to));
                copy->to[0] = '\0';
            }
        }
    }
    for (unsigned i = 0; i < ROUNDS / 300; i++) {
        uint64_t hash = copies[i].hash;
        if (copies[i].to[0]) {
            ok(on_volume(hash_here, &copies[i]));
            assert_true(hash == copies[i].hash);
        }
    }
    for (unsigned f = 0; f < FILES; f++) {
        settle_all(&players[f]);
        ok(request(players[f].file, DISK_READ, 0, back, sizeof back));
        for (unsigned s = 0; s < UNITS; s++)
            assert_true(all(back + s * 512, 512, players[f].model[s]));
        assert_int_equal(players[f].guest.stuck, 0);
        volume_file_close(players[f].file);
        for (unsigned i = 0; i < DEPTH; i++)
            free(players[f].bytes[i]);
    }
    check_volume();
    tear_down();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(first_writes_do_not_wait_for_each_other),
        cmocka_unit_test(parts_of_a_new_block_do_not_undo_each_other),
        cmocka_unit_test(a_cut_shows_no_old_bytes),
        cmocka_unit_test(a_flush_covers_what_was_copied),
        cmocka_unit_test(a_mark_is_seen_afterwards),
        cmocka_unit_test(it_grows_under_its_requests),
        cmocka_unit_test(fua_is_durable_with_the_map),
        cmocka_unit_test(data_in_place_does_not_wait_for_a_commit),
        cmocka_unit_test(what_one_flush_commits_another_file_need_not),
        cmocka_unit_test(an_old_write_does_not_land_over_a_newer_one),
        cmocka_unit_test(blocks_under_a_write_are_not_given_away),
        cmocka_unit_test(what_is_being_freed_is_left_alone),
        cmocka_unit_test(who_opens_a_file_while_the_disk_is_away_is_told),
        cmocka_unit_test(an_error_of_the_disk_is_the_requests_own),
        cmocka_unit_test(stopping_waits_for_what_is_under_way),
        cmocka_unit_test(random_requests_of_two_files),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
