/* SPDX-License-Identifier: MIT */
/*
 * The repair: every single block of metadata is damaged in turn, and each lie that fsck knows is told once. After the
 * repair fsck finds nothing, and every file whose own blocks were not damaged is there with all its bytes: under its
 * name, or, if that was lost, in /lost+found. A repair that is cut off at any write is done again, and ends as well.
 * And the scrub: it reads what fsck reads, piece by piece.
 */
#include "csv/tree.h"
#include "csv_fixture.h"

#define SMALL (64 * MIB)
#define BLOCK 4096ull
#define FILES 200
#define NAMED 60 /* of them with long names, in one directory */

struct file {
    uint64_t inode, size;
    uint32_t crc;
};

static struct fake_csv_disk *base;
static struct file file[FILES];
static size_t file_count;
static uint64_t directory[3], clone_inode, holes_inode;

static uint32_t bytes_of(struct bench *b, uint64_t inode, uint64_t *size)
{
    static uint8_t bytes[65536];
    struct csv_file *f;
    uint64_t done;
    uint32_t crc = 0;
    ok(csv_open(b->volume, inode, &f));
    *size = csv_size(f);
    for (uint64_t at_byte = 0; at_byte < *size; at_byte += done) {
        ok(csv_read(f, at_byte, bytes, sizeof(bytes), &done));
        assert_true(done > 0);
        crc = crc32c(crc, bytes, done);
    }
    ok(csv_close(f));
    return crc;
}

static void note(struct bench *b, uint64_t inode)
{
    file[file_count].inode = inode;
    file[file_count].crc = bytes_of(b, inode, &file[file_count].size);
    file_count++;
}

/* Directories with nodes of their own, files with nodes, clones, preallocated and sparse ones, and an orphan. */
static void fill(struct bench *b)
{
    static uint8_t data[100 * 4096];
    uint64_t root = csv_root(b->volume), inode;
    char name[CSV_NAME_BYTES + 1];
    struct csv_file *f;
    ok(csv_mkdir(b->volume, root, "d", 1, 0755, &directory[0]));
    ok(csv_mkdir(b->volume, directory[0], "e", 1, 0755, &directory[1]));
    ok(csv_mkdir(b->volume, directory[1], "g", 1, 0755, &directory[2]));
    for (unsigned i = 0; i < NAMED; i++) {
        snprintf(name, sizeof(name), "%0190u", i);
        ok(create(b, directory[i % 4 ? 0 : 2], name, &inode));
        ok(csv_open(b->volume, inode, &f));
        pattern(data, sizeof(data), i);
        ok(csv_write(f, i * 13, data, 5000 + i * 100));
        ok(csv_close(f));
        note(b, inode);
    }
    f = make_file(b, "pieces");
    for (unsigned i = 0; i < 500; i++) {
        pattern(data, 4096, i);
        ok(csv_write(f, i * 8192ull, data, 100));
    }
    ok(csv_clone(f, directory[1], "clone", 5, &clone_inode));
    for (unsigned i = 0; i < 500; i += 2)
        ok(csv_write(f, i * 8192ull, data, 50));
    note(b, csv_inode_of(f));
    note(b, clone_inode);
    ok(csv_close(f));
    f = make_file(b, "holes");
    holes_inode = csv_inode_of(f);
    ok(csv_preallocate(f, 0, MIB));
    ok(csv_write(f, 3 * MIB, data, 9000));
    note(b, holes_inode);
    ok(csv_close(f));
    ok(csv_sync(b->volume));
    f = make_file(b, "orphan");
    ok(csv_write(f, 0, data, sizeof(data)));
    ok(csv_unlink(b->volume, root, "orphan", 6));
    ok(csv_sync(b->volume));
    ok(csv_checkpoint(b->volume));
}

static int make(void **state)
{
    struct bench b;
    (void)state;
    bench_init(&b, SMALL);
    fill(&b);
    csv_abandon(b.volume); /* with an orphan, and mounted */
    base = b.disk;
    return 0;
}

static int unmake(void **state)
{
    (void)state;
    fake_disk_free(base);
    return 0;
}

static char told[8192];

static void hear(void *context, const char *text)
{
    (void)context;
    size_t used = strlen(told);
    snprintf(told + used, sizeof(told) - used, "%s\n", text);
}

static enum status mend(struct bench *b, struct csv_repair *repair)
{
    struct csv_mount_options options = bench_options();
    told[0] = 0;
    options.take_over = true;
    *repair = (struct csv_repair){ .report = hear, .discard_journal = true };
    enum status status = csv_repair(&b->disk->disk, &b->memory.memory, &options, repair, b->message);
    assert_true((status == OK) == !b->message[0]);
    assert_int_equal(b->memory.used, 0);
    return status;
}

/* True if the inode is in this directory, or below it. */
static bool below(struct bench *b, uint64_t from, uint64_t inode)
{
    struct csv_entry entry;
    uint64_t cursor = 0;
    while (csv_readdir(b->volume, from, &cursor, &entry) == OK)
        if (entry.inode == inode || (entry.type == CSV_IS_DIRECTORY && below(b, entry.inode, inode)))
            return true;
    return false;
}

/* What was not damaged is there. `damaged`: a block; the inode that owns it need not have all its bytes. */
static void all_there(struct bench *b, uint64_t owner)
{
    for (size_t i = 0; i < file_count; i++) {
        uint64_t size;
        if (file[i].inode == owner)
            continue;
        if (!below(b, csv_root(b->volume), file[i].inode)) {
            print_error("inode %llu is gone\n%s", (unsigned long long)file[i].inode, told);
            fail();
        }
        uint32_t crc = bytes_of(b, file[i].inode, &size);
        assert_int_equal(size, file[i].size);
        assert_int_equal(crc, file[i].crc);
    }
}

static void over(struct bench *b, const struct fake_csv_disk *disk)
{
    *b = (struct bench){ .disk = fake_disk_over(disk) };
    fake_memory_init(&b->memory);
}

static void expect_sound(struct bench *b, uint64_t owner)
{
    ok(bench_mount(b));
    bench_check(b);
    all_there(b, owner);
    bench_end(b);
}

/* A sound volume stays as it is, but for the orphan that a mount would have deleted. */
static void test_nothing(void **state)
{
    struct bench b;
    over(&b, base);
    struct csv_repair repair;
    (void)state;
    ok(mend(&b, &repair));
    if (repair.mended)
        print_error("%s", told);
    assert_int_equal(repair.mended, 0);
    expect_sound(&b, 0);
}

static bool is_metadata(uint64_t number, uint8_t *block)
{
    fake_disk_peek(base, number * BLOCK, block, BLOCK);
    return block[0] == 'T' && block[1] == 'C' && le64_get(block + CSV_H_NUMBER) == number &&
           le32_get(block + CSV_H_CRC) ==
               csv_checksum(crc32c(0, (const uint8_t *)"a volume's uuid", 16), number, block);
}

static void test_every_block(void **state)
{
    uint8_t block[BLOCK], junk[BLOCK] = { 1 };
    unsigned kinds = 0, told_count = 0, rescued = 0, lost = 0;
    (void)state;
    for (uint64_t number = 0; number < SMALL / BLOCK; number++) {
        if (!is_metadata(number, block) || (number >= 2080 && number < 3104)) /* the log: a test of its own */
            continue;
        struct bench b;
        over(&b, base);
        struct csv_repair repair;
        uint64_t owner = le64_get(block + CSV_H_OWNER);
        fake_disk_poke(b.disk, number * BLOCK, junk, sizeof(junk));
        enum status status = mend(&b, &repair);
        if (status)
            print_error("block %llu: %s\n%s", (unsigned long long)number, b.message, told);
        ok(status);
        expect_sound(&b, owner);
        kinds++;
        told_count += repair.mended > 0;
        rescued += repair.rescued > 0;
        lost += repair.lost > 0;
    }
    assert_true(kinds > 80 && told_count > 70 && rescued > 3 && lost > 60);
}

/* Bits that are wrong, with checksums that are right. */
static void test_wrong_bitmaps(void **state)
{
    struct bench b;
    over(&b, base);
    struct csv_repair repair;
    uint8_t block[BLOCK];
    (void)state;
    fake_disk_peek(b.disk, BLOCK, block, BLOCK);
    memset(block + CSV_GR_BITMAP + 3104 / 8, 0, 40);
    memset(block + CSV_GR_BITMAP + 1900, 0xff, 20);
    le32_put(block + CSV_GR_FREE, 77);
    le16_put(block + CSV_GR_GRANT, 5);
    bench_seal(&b, 1, block);
    fake_disk_peek(b.disk, CSV_AT_ROOT * BLOCK, block, BLOCK);
    le64_put(block + CSV_RT_FREE, 5);
    le64_put(block + CSV_RT_INODES, 5);
    le64_put(block + CSV_RT_GENERATION, 5);
    csv_node_init(block + CSV_RT_COUNTS_NODE, CSV_RT_COUNTS_BYTES, 0);
    bench_seal(&b, CSV_AT_ROOT, block);
    ok(mend(&b, &repair));
    assert_non_null(strstr(told, "in use were free"));
    assert_non_null(strstr(told, "reference counts"));
    assert_non_null(strstr(told, "generations"));
    expect_sound(&b, 0);
}

/* Two files with one block, a file with a directory's block: the bytes of both files stay readable. */
static void test_claimed_twice(void **state)
{
    struct bench b;
    over(&b, base);
    struct csv_repair repair;
    uint8_t block[BLOCK];
    (void)state;
    fake_disk_peek(b.disk, file[1].inode * BLOCK, block, BLOCK);
    uint8_t *mine = csv_node_value(block + CSV_IN_NODE, 0, NULL);
    uint8_t other[BLOCK];
    fake_disk_peek(b.disk, file[2].inode * BLOCK, other, BLOCK);
    memcpy(mine, csv_node_value(other + CSV_IN_NODE, 0, NULL), 8);
    bench_seal(&b, file[1].inode, block);
    fake_disk_peek(b.disk, file[3].inode * BLOCK, block, BLOCK);
    mine = csv_node_value(block + CSV_IN_NODE, 0, NULL);
    le64_put(mine, directory[1]);
    bench_seal(&b, file[3].inode, block);
    ok(mend(&b, &repair));
    assert_non_null(strstr(told, "shared from now on"));
    assert_non_null(strstr(told, "somebody else's"));
    ok(bench_mount(&b));
    bench_check(&b);
    uint64_t size;
    assert_int_equal(bytes_of(&b, file[2].inode, &size), file[2].crc);
    (void)bytes_of(&b, file[1].inode, &size);
    assert_int_equal(size, file[1].size);
    struct csv_file *f;
    ok(csv_open(b.volume, file[1].inode, &f));
    ok(csv_write(f, 0, "written", 7)); /* and separated by a write */
    ok(csv_close(f));
    assert_int_equal(bytes_of(&b, file[2].inode, &size), file[2].crc);
    bench_end(&b);
}

/* Entries that are wrong in every way: the files stay. */
static void test_wrong_entries(void **state)
{
    struct bench b;
    over(&b, base);
    struct csv_repair repair;
    uint8_t block[BLOCK], value[CSV_VALUE_BYTES];
    uint64_t root, inode;
    (void)state;
    fake_disk_peek(b.disk, CSV_AT_ROOT * BLOCK, block, BLOCK);
    root = le64_get(block + CSV_RT_DIRECTORY);
    fake_disk_peek(b.disk, root * BLOCK, block, BLOCK);
    uint8_t *area = block + CSV_IN_NODE;
    for (unsigned i = 0; i < csv_node_count(area); i++) { /* a name that is none, a type that is wrong */
        uint8_t *entry = csv_node_value(area, i, NULL);
        if (le64_get(entry) == holes_inode)
            entry[CSV_ENTRY_FIXED_BYTES] = '/';
        else
            entry[8] ^= 3;
    }
    le64_put(value, clone_inode); /* a second name, where its hash does not say */
    value[8] = CSV_IS_FILE;
    memcpy(value + CSV_ENTRY_FIXED_BYTES, "twice", 5);
    csv_node_insert(area, 0, 5, value, CSV_ENTRY_FIXED_BYTES + 5);
    le64_put(value, root); /* a way back */
    csv_node_insert(area, 0, 4, value, CSV_ENTRY_FIXED_BYTES + 5);
    le64_put(block + CSV_IN_SIZE, 99);
    bench_seal(&b, root, block);
    fake_disk_peek(b.disk, directory[1] * BLOCK, block, BLOCK);
    le64_put(block + CSV_IN_PARENT, directory[2]);
    le32_put(block + CSV_IN_LINKS, 9);
    bench_seal(&b, directory[1], block);
    ok(mend(&b, &repair));
    assert_non_null(strstr(told, "gets the type of its inode"));
    assert_non_null(strstr(told, "whose name is none"));
    ok(bench_mount(&b));
    bench_check(&b);
    all_there(&b, 0);
    char name[32];
    snprintf(name, sizeof(name), "#%llu", (unsigned long long)holes_inode);
    ok(csv_walk(b.volume, name, &inode));
    assert_int_equal(inode, holes_inode);
    bench_end(&b);
}

/* A damaged journal is not thrown away unless that is allowed. */
static void test_journal(void **state)
{
    struct csv_mount_options options = bench_options();
    (void)state;
    options.take_over = true;
    for (unsigned kind = 0; kind < 2; kind++) {
        struct bench b;
        uint64_t inode, first = 0;
        struct csv_repair repair = { 0 };
        char name[8];
        bench_init(&b, SMALL);
        for (unsigned i = 0; i < 5; i++) {
            snprintf(name, sizeof(name), "n%u", i);
            if (i == 2)
                first = b.volume->journal + b.volume->head;
            ok(create(&b, csv_root(b.volume), name, &inode));
            ok(csv_sync(b.volume));
        }
        csv_abandon(b.volume);
        uint8_t junk[BLOCK] = { 1 };
        if (kind == 0) {
            fake_disk_poke(b.disk, (first + 1) * BLOCK, junk, BLOCK);
        } else {
            fake_disk_poke(b.disk, CSV_AT_JOURNAL_HEAD * BLOCK, junk, BLOCK);
            fake_disk_poke(b.disk, (CSV_AT_JOURNAL_HEAD + 1) * BLOCK, junk, BLOCK);
        }
        assert_int_equal(csv_repair(&b.disk->disk, &b.memory.memory, &options, &repair, b.message), ERR_CORRUPT);
        assert_non_null(strstr(b.message, "journal is damaged"));
        assert_int_equal(b.memory.used, 0);
        ok(mend(&b, &repair));
        ok(bench_mount(&b));
        if (kind == 0) { /* what came before the damage */
            at(&b, "n1");
            assert_int_equal(csv_walk(b.volume, "n2", &inode), ERR_NOT_FOUND);
        }
        ok(create(&b, csv_root(b.volume), "next", &inode)); /* what lies in the journal is not newer than this */
        ok(csv_sync(b.volume));
        csv_abandon(b.volume);
        ok(bench_mount(&b));
        for (unsigned i = 0; i < 100; i++) { /* and the log goes on, over a crash */
            snprintf(name, sizeof(name), "m%u", i);
            ok(create(&b, csv_root(b.volume), name, &inode));
            ok(csv_sync(b.volume));
        }
        csv_abandon(b.volume);
        ok(bench_mount(&b));
        at(&b, "m99");
        bench_end(&b);
    }
}

static void test_mount_records(void **state)
{
    struct csv_mount_options options = bench_options();
    struct csv_repair repair = { 0 };
    uint8_t junk[BLOCK] = { 1 };
    (void)state;
    for (unsigned both = 0; both < 2; both++) {
        struct bench b;
        over(&b, base);
        options.owner_uuid[0] = 'x';
        options.take_over = false;
        if (both) {
            fake_disk_poke(b.disk, CSV_AT_MOUNT_RECORD * BLOCK, junk, BLOCK);
            fake_disk_poke(b.disk, (CSV_AT_MOUNT_RECORD + 1) * BLOCK, junk, BLOCK);
        }
        assert_int_equal(csv_repair(&b.disk->disk, &b.memory.memory, &options, &repair, b.message), ERR_BUSY);
        assert_int_equal(b.disk->writes, 0);
        assert_non_null(strstr(b.message, both ? "not known" : "alpha"));
        ok(mend(&b, &repair));
        assert_int_equal(repair.mended, both);
        expect_sound(&b, 0);
    }
}

/* A repair that the power ends, at each of its writes. */
static void test_cut_off(void **state)
{
    uint8_t junk[BLOCK] = { 1 };
    uint64_t seed = 3;
    struct csv_repair repair;
    (void)state;
    struct bench b;
    over(&b, base);
    fake_disk_poke(b.disk, BLOCK, junk, BLOCK);
    fake_disk_poke(b.disk, directory[0] * BLOCK, junk, BLOCK);
    struct fake_csv_disk *start = fake_disk_copy(b.disk);
    fake_disk_record(b.disk);
    ok(mend(&b, &repair));
    assert_true(repair.rescued > 0);
    for (size_t count = 0; count <= b.disk->record_count; count++)
        for (unsigned i = 0; i < 2; i++) {
            enum fake_cut cut = i ? FAKE_CUT_RANDOM : FAKE_CUT_ALL;
            struct bench left = { .disk = fake_disk_cut(start, b.disk, count, cut, &seed) };
            fake_memory_init(&left.memory);
            enum status status = mend(&left, &repair);
            if (status)
                print_error("cut at %zu: %s\n", count, left.message);
            ok(status);
            expect_sound(&left, 0);
        }
    fake_disk_free(start);
    bench_end((ok(bench_mount(&b)), &b));
}

/* Anything, anywhere, with checksums that are right: the repair ends, and if it says OK it is. */
static void test_random_lies(void **state)
{
    uint64_t seed = 11, place[600];
    uint8_t block[BLOCK];
    size_t count = 0;
    unsigned mended = 0;
    (void)state;
    for (uint64_t number = 0; number < SMALL / BLOCK && count < ARRAY_COUNT(place); number++)
        if (is_metadata(number, block) && number != 0 && number != CSV_AT_SUPER_MIDDLE && number != SMALL / BLOCK - 1)
            place[count++] = number;
    for (unsigned round = 0; round < 300; round++) {
        struct bench b;
        over(&b, base);
        struct csv_repair repair;
        for (unsigned i = 0; i < 1 + round % 5; i++) {
            uint64_t number = place[fake_random(&seed) % count];
            fake_disk_peek(b.disk, number * BLOCK, block, BLOCK);
            size_t bytes = 1 + fake_random(&seed) % 8, offset = fake_random(&seed) % 2 ? fake_random(&seed) % 400
                                                                                      : fake_random(&seed) % 4000;
            for (size_t j = 0; j < bytes; j++)
                block[offset + j] = fake_random(&seed) % 3 ? (uint8_t)fake_random(&seed) : 0;
            bench_seal(&b, number, block);
        }
        enum status status = mend(&b, &repair);
        if (status)
            print_message("round %u: %s\n", round, b.message);
        if (!status) {
            ok(bench_mount(&b));
            bench_end(&b);
            mended++;
        } else {
            fake_disk_free(b.disk);
        }
    }
    assert_true(mended > 290);
}

/* ---- The scrub ---- */

static uint64_t scrub(struct bench *b, struct csv_scrub *s, unsigned blocks)
{
    uint64_t steps = 0;
    told[0] = 0;
    *s = (struct csv_scrub){ .report = hear };
    for (; !s->done && steps < 100000; steps++)
        ok(csv_scrub_step(b->volume, s, blocks));
    assert_true(s->done);
    assert_null(s->state);
    return steps;
}

/* All metadata is read, in small steps, and nothing is found. */
static void test_scrub_sound(void **state)
{
    struct bench b;
    over(&b, base);
    struct csv_scrub s;
    uint8_t block[BLOCK];
    uint64_t metadata = 0, inode;
    (void)state;
    ok(bench_mount(&b));
    ok(csv_unmount(b.volume));
    for (uint64_t number = 0; number < SMALL / BLOCK; number++)
        metadata += is_metadata(number, block) && (number < 2080 || number >= 3104) && block[2] != 'J' &&
                    block[2] != 'M';
    ok(bench_mount(&b));
    uint64_t steps = scrub(&b, &s, 5);
    assert_int_equal(s.problems, 0);
    assert_true(s.blocks > metadata - 20 && steps > metadata / 6);
    /* While the volume is in use. */
    s = (struct csv_scrub){ .report = hear };
    for (unsigned i = 0; !s.done; i++) {
        char name[32];
        ok(csv_scrub_step(b.volume, &s, 3));
        snprintf(name, sizeof(name), "new%u", i);
        ok(create(&b, directory[i % 3], name, &inode));
        if (i % 5 == 0)
            ok(csv_unlink(b.volume, directory[i % 3], name, strlen(name)));
        if (i % 7 == 0)
            ok(csv_sync(b.volume));
        assert_true(i < 1000);
    }
    assert_int_equal(s.problems, 0);
    s = (struct csv_scrub){ .report = hear };
    ok(csv_scrub_step(b.volume, &s, 10));
    csv_scrub_end(&s); /* given up in the midst */
    bench_end(&b);
}

/* Each block that is damaged on the disk is told; what memory still has is written anew. */
static void test_scrub_damage(void **state)
{
    uint8_t block[BLOCK], junk[BLOCK] = { 1 };
    unsigned cold = 0, warm = 0;
    (void)state;
    struct bench clean;
    over(&clean, base);
    ok(bench_mount(&clean));
    ok(csv_unmount(clean.volume));
    for (uint64_t number = 19; number < SMALL / BLOCK - 1; number++) {
        fake_disk_peek(clean.disk, number * BLOCK, block, BLOCK);
        if (!is_metadata(number, block) || (number >= 2080 && number < 3104) || block[2] == 'J' || block[2] == 'S')
            continue;
        struct bench b = { .disk = fake_disk_over(clean.disk) };
        struct csv_scrub s;
        bool used;
        fake_memory_init(&b.memory);
        ok(bench_mount(&b));
        ok(csv_in_use(b.volume, number, &used));
        struct csv_block *held = csv_block_find(b.volume, number);
        if (!used || (held && (held->is_changed || held->is_logged))) {
            ok(csv_unmount(b.volume));
            fake_disk_free(b.disk);
            continue;
        }
        if (number % 2) { /* memory has all of it */
            scrub(&b, &s, 100);
            assert_int_equal(s.problems, 0);
        }
        held = csv_block_find(b.volume, number);
        fake_disk_poke(b.disk, number * BLOCK, junk, BLOCK);
        scrub(&b, &s, 100);
        assert_true(s.problems > 0);
        assert_int_equal(s.mended, held != NULL);
        warm += held != NULL;
        cold += held == NULL;
        csv_abandon(b.volume);
        if (held) {
            ok(bench_mount(&b));
            bench_check(&b);
            ok(csv_unmount(b.volume));
        }
        fake_disk_free(b.disk);
    }
    assert_true(cold > 30 && warm > 30);
    fake_disk_free(clean.disk);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nothing),       cmocka_unit_test(test_every_block), cmocka_unit_test(test_wrong_bitmaps),
        cmocka_unit_test(test_claimed_twice), cmocka_unit_test(test_wrong_entries), cmocka_unit_test(test_journal),
        cmocka_unit_test(test_mount_records), cmocka_unit_test(test_cut_off),     cmocka_unit_test(test_random_lies),
        cmocka_unit_test(test_scrub_sound),   cmocka_unit_test(test_scrub_damage),
    };
    return cmocka_run_group_tests(tests, make, unmake);
}
