/* SPDX-License-Identifier: MIT */
/*
 * Power cuts. Each operation, and each pair of operations, is done to a volume while the disk records; then the power
 * goes at every single write, with every subset of the writes that were not yet flushed (where they are more than
 * CSV_CRASH_ALL: with all and with none of them), and with random parts of them, torn at sectors. Every disk that may be
 * left is mounted: fsck finds nothing, what was synced is there, and everything is as before or after an operation. Some
 * of them are cut again while they recover, and some are used afterwards.
 *
 * No work is done twice: a disk that was seen before for the same workload and moment is not recovered again, and what
 * a recovery has left (the blocks in use after an unmount) is compared with the model once.
 *
 * CSV_CRASH_ALL (default 10); CSV_CRASH_RANDOM: random images for each write (default 60); CSV_CRASH_PAIRS: one in so many
 * pairs (default 1), CSV_CRASH_FIRST: from this one on (default 0); CSV_CRASH_LEAST: distinct
 * disks that there must be where all pairs are tried (default 100000); CSV_SEED.
 */
#include "csv_fixture.h"
#include "fake_csv_model.h"

#define STATES 3

static struct fake_csv_disk *base; /* after the setup, unmounted */
static struct model base_model;
static unsigned long images;

/* A file in pieces, a clone, holes, unwritten blocks, directories. */
static const struct model_op setup[] = {
    { OP_MKDIR, "d", NULL, 0, 0, 0 },
    { OP_MKDIR, "d/e", NULL, 0, 0, 0 },
    { OP_MKDIR, "o", NULL, 0, 0, 0 },
    { OP_CREATE, "o/x", NULL, 0, 0, 0 },
    { OP_CREATE, "f", NULL, 0, 0, 0 },
    { OP_WRITE, "f", NULL, 0, 30000, 1 },
    { OP_CREATE, "gone", NULL, 0, 0, 0 },
    { OP_WRITE, "gone", NULL, 0, 50000, 7 },
    { OP_CREATE, "i", NULL, 0, 0, 0 },
    { OP_WRITE, "i", NULL, 100, 6000, 2 },
    { OP_CREATE, "h", NULL, 0, 0, 0 },
    { OP_UNLINK, "gone", NULL, 0, 0, 0 }, /* its bytes are on the disk, below what comes */
    { OP_SYNC, "", NULL, 0, 0, 0 },
    { OP_PREALLOCATE, "h", NULL, 4096, 40960, 0 },
    { OP_WRITE, "h", NULL, 12288, 4096, 3 },
    { OP_WRITE, "f", NULL, 40960, 8192, 4 },
    { OP_CLONE, "f", "g", 0, 0, 0 },
    { OP_CREATE, "j", NULL, 0, 0, 0 },
    { OP_WRITE, "j", NULL, 0, 20480, 5 },
};

static const struct model_op operations[] = {
    { OP_CREATE, "d/new", NULL, 0, 0, 0 },
    { OP_MKDIR, "d/newer", NULL, 0, 0, 0 },
    { OP_UNLINK, "f", NULL, 0, 0, 0 },
    { OP_UNLINK, "j", NULL, 0, 0, 0 },
    { OP_RMDIR, "d/e", NULL, 0, 0, 0 },
    { OP_RENAME, "j", "d/j2", 0, 0, 0 },
    { OP_RENAME, "j", "i", 0, 0, 0 },
    { OP_RENAME, "o", "d/e", 0, 0, 0 },
    { OP_RENAME, "d", "dd", 0, 0, 0 },
    { OP_WRITE, "j", NULL, 4096, 8192, 11 },
    { OP_WRITE, "j", NULL, 20000, 7000, 12 },
    { OP_WRITE, "j", NULL, 90000, 1000, 13 },
    { OP_WRITE, "g", NULL, 5000, 6000, 14 },
    { OP_WRITE, "h", NULL, 17000, 9000, 15 },
    { OP_SET_SIZE, "j", NULL, 5000, 0, 0 },
    { OP_SET_SIZE, "j", NULL, 100000, 0, 0 },
    { OP_SET_SIZE, "g", NULL, 4097, 0, 0 },
    { OP_PUNCH, "j", NULL, 4096, 8192, 0 },
    { OP_PUNCH, "g", NULL, 0, 200000, 0 },
    { OP_PREALLOCATE, "j", NULL, 0, 70000, 0 },
    { OP_CLONE, "j", "d/c", 0, 0, 0 },
    { OP_CLONE, "h", "hc", 0, 0, 0 },
};

static void build(void)
{
    struct bench b;
    bench_init(&b, 64 * MIB);
    model_init(&base_model);
    for (size_t i = 0; i < ARRAY_COUNT(setup); i++)
        ok(model_do(&base_model, b.volume, &setup[i]));
    assert_string_equal(model_matches(&base_model, b.volume), "");
    bench_check(&b);
    ok(csv_unmount(b.volume));
    base = b.disk;
}

/* ---- What was seen before ---- */

/* A set of hashes. */
struct seen {
    uint64_t *hash; /* 0: none */
    size_t count, room;
};
static struct seen distinct; /* disks */
static struct seen verified; /* what recovery made of one, for what it should be */
static unsigned long workloads;
static unsigned long moments, moments_whole; /* at which the power was cut; all subsets of them tried */

/* True if it was not in the set. */
static bool seen_add(struct seen *s, uint64_t hash)
{
    if (s->count * 2 >= s->room) {
        struct seen larger = { .room = s->room ? s->room * 2 : 1 << 16 };
        larger.hash = calloc(larger.room, sizeof(*larger.hash));
        for (size_t i = 0; i < s->room; i++)
            if (s->hash[i])
                (void)seen_add(&larger, s->hash[i]);
        free(s->hash);
        *s = larger;
    }
    size_t at = (hash | 1) & (s->room - 1);
    while (s->hash[at] && s->hash[at] != (hash | 1))
        at = (at + 1) & (s->room - 1);
    if (s->hash[at])
        return false;
    s->hash[at] = hash | 1;
    s->count++;
    return true;
}

/* After a clean unmount nothing counts but the blocks in use, without the log and what says who had it when. */
static bool page_counts(const struct fake_csv_disk *disk, uint64_t page)
{
    uint8_t bitmap;
    if ((page >= CSV_AT_MOUNT_RECORD && page <= CSV_AT_MOUNT_RECORD + 1) ||
        (page >= CSV_AT_JOURNAL_HEAD && page <= CSV_AT_JOURNAL_HEAD + 1) || (page >= 2080 && page < 3104))
        return false;
    fake_disk_peek(disk, CSV_BLOCK_BYTES + CSV_GR_BITMAP + page / 8, &bitmap, 1); /* the one group */
    return bitmap >> page % 8 & 1;
}

/* The volume after recovery is as good as any. */
static void use(struct bench *b)
{
    static uint8_t data[30000];
    uint64_t inode;
    struct csv_file *file;
    ok(bench_mount(b));
    ok(create(b, csv_root(b->volume), "used", &inode));
    ok(csv_open(b->volume, inode, &file));
    ok(csv_write(file, 3, data, sizeof(data)));
    ok(csv_close(file));
    bench_check(b);
    ok(csv_unlink(b->volume, csv_root(b->volume), "used", 4));
    bench_remount(b);
    bench_check(b);
    ok(csv_unmount(b->volume));
}

/*
 * Recovers the disk, and unmounts it; what it is then is looked at, unless the very same was looked at before. `what`
 * names the workload.
 */
static void verify(struct bench *b, const struct model *model, size_t low, size_t high, const char *what)
{
    struct csv_check check = { .report = bench_report };
    enum status status = bench_mount(b);
    if (status)
        print_error("%s: %s\n", what, b->message);
    ok(status);
    ok(csv_unmount(b->volume));
    images++;
    if (!seen_add(&verified, fake_disk_hash(b->disk, page_counts) * 31 + (workloads * STATES + low) * STATES + high))
        return;
    ok(bench_mount(b));
    assert_int_equal(b->volume->replayed, 0);
    ok(csv_check(b->volume, &check));
    const char *fault = model_matches_any(model + low, high - low + 1, b->volume);
    if (fault[0] || check.problems || check.orphans)
        print_error("%s: %s\n", what, fault);
    assert_string_equal(fault, "");
    assert_int_equal(check.problems, 0);
    assert_int_equal(check.orphans, 0);
    ok(csv_unmount(b->volume));
}

/* Writes what a disk has of its own to another one. */
static void pour(struct fake_csv_disk *to, const struct fake_csv_disk *from)
{
    for (size_t i = 0; i < from->touched_count; i++)
        if (from->page[from->touched[i]])
            fake_disk_poke(to, from->touched[i] * (uint64_t)CSV_BLOCK_BYTES, from->page[from->touched[i]],
                           CSV_BLOCK_BYTES);
}

/* Cuts the power once more, at each write of the recovery. */
static void cut_again(const struct fake_csv_disk *left, const struct model *model, size_t low, size_t high,
                      uint64_t *seed)
{
    struct bench b = { .disk = fake_disk_over(left) };
    fake_memory_init(&b.memory);
    fake_disk_record(b.disk);
    ok(bench_mount(&b));
    csv_abandon(b.volume);
    struct fake_csv_disk *recovery = b.disk;
    for (size_t count = 0; count <= recovery->record_count; count++) {
        struct fake_csv_disk *cut = fake_disk_cut(left, recovery, count, FAKE_CUT_RANDOM, seed);
        b.disk = fake_disk_over(base);
        pour(b.disk, left);
        pour(b.disk, cut);
        fake_disk_free(cut);
        (void)seen_add(&distinct, fake_disk_hash(b.disk, NULL));
        verify(&b, model, low, high, "cut in the recovery");
        fake_disk_free(b.disk);
    }
    fake_disk_free(recovery);
}

struct recorded {
    struct fake_csv_disk *disk;
    struct model model[STATES];
    size_t states;
    size_t begun[STATES];  /* entries of the record when the operation before this state began */
    size_t synced[STATES]; /* entries when it was durable */
};

static unsigned long number(const char *name, unsigned long otherwise)
{
    const char *text = getenv(name);
    return text ? strtoul(text, NULL, 0) : otherwise;
}

/* What is left by one cut, unless it was seen before. */
static void try_cut(struct recorded *r, size_t count, size_t low, size_t high, enum fake_cut cut, uint64_t *cut_seed,
                    uint64_t *seed, const char *what)
{
    struct bench b = { .disk = fake_disk_cut(base, r->disk, count, cut, cut_seed) };
    fake_memory_init(&b.memory);
    uint64_t hash = fake_disk_hash(b.disk, NULL);
    (void)seen_add(&distinct, hash);
    if (seen_add(&verified, hash * 37 + (workloads * STATES + low) * STATES + high)) {
        if (images % 128 == 127)
            cut_again(b.disk, r->model, low, high, seed);
        verify(&b, r->model, low, high, what);
        if (images % 32 == 0)
            use(&b);
    }
    fake_disk_free(b.disk);
}

static void cut_everywhere(struct recorded *r, unsigned random, uint64_t *seed, const char *what)
{
    unsigned long all = number("CSV_CRASH_ALL", 10);
    for (size_t count = 0; count <= r->disk->record_count; count++) {
        size_t low = 0, high = 0, loose = fake_disk_loose(r->disk, count);
        for (size_t i = 1; i < r->states; i++) {
            low = count >= r->synced[i] ? i : low;
            high = count >= r->begun[i] ? i : high;
        }
        moments++;
        moments_whole += loose <= all;
        for (uint64_t subset = 0; loose <= all && subset < UINT64_C(1) << loose; subset++) {
            uint64_t bits = subset;
            try_cut(r, count, low, high, FAKE_CUT_CHOSEN, &bits, seed, what);
        }
        for (unsigned i = 0; i < 2 && loose > all; i++)
            try_cut(r, count, low, high, i ? FAKE_CUT_NONE : FAKE_CUT_ALL, seed, seed, what);
        for (unsigned i = 0; i < random; i++)
            try_cut(r, count, low, high, FAKE_CUT_RANDOM, seed, seed, what);
    }
}

/* One or two operations; `between`: the first one is durable before the second one begins. */
static void workload(const struct model_op *first, const struct model_op *second, bool between, unsigned random,
                     uint64_t *seed)
{
    struct recorded r = { .disk = fake_disk_over(base), .states = second ? 3 : 2 };
    struct bench b = { .disk = r.disk };
    char what[200];
    fake_memory_init(&b.memory);
    model_copy(&r.model[0], &base_model);
    fake_disk_record(b.disk);
    ok(bench_mount(&b));
    for (size_t i = 1; i < r.states; i++) {
        model_copy(&r.model[i], &r.model[i - 1]);
        r.begun[i] = b.disk->record_count;
        (void)model_do(&r.model[i], b.volume, i == 1 ? first : second);
        if (between || i + 1 == r.states) {
            ok(csv_sync(b.volume));
            for (size_t j = 1; j <= i; j++)
                r.synced[j] = r.synced[j] ? r.synced[j] : b.disk->record_count;
        }
    }
    ok(csv_unmount(b.volume));
    assert_int_equal(b.memory.used, 0);
    snprintf(what, sizeof(what), "operation %d on %s, then %d on %s%s", first->kind, first->path,
             second ? (int)second->kind : -1, second ? second->path : "", between ? ", synced between" : "");
    workloads++;
    cut_everywhere(&r, random, seed, what);
    for (size_t i = 0; i < r.states; i++)
        model_free(&r.model[i]);
    fake_disk_free(r.disk);
}

static void test_single(void **state)
{
    uint64_t seed = number("CSV_SEED", 1);
    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(operations); i++)
        workload(&operations[i], NULL, false, (unsigned)number("CSV_CRASH_RANDOM", 60) * 2, &seed);
}

static void test_pairs(void **state)
{
    uint64_t seed = number("CSV_SEED", 1);
    size_t every = number("CSV_CRASH_PAIRS", 1), first = number("CSV_CRASH_FIRST", 0), pair = 0;
    unsigned random = (unsigned)number("CSV_CRASH_RANDOM", 60);
    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(operations); i++)
        for (size_t j = 0; j < ARRAY_COUNT(operations); j++)
            if (pair++ % every == first % every)
                workload(&operations[i], &operations[j], fake_random(&seed) % 2, random, &seed);
    print_message("%zu distinct disks after a power cut, of %lu workloads; %lu recovered; at %lu of %lu moments every subset "
                  "of what was not flushed\n", distinct.count, workloads, images, moments_whole, moments);
    if (!getenv("CSV_CRASH_PAIRS")) {
        assert_true(distinct.count >= number("CSV_CRASH_LEAST", 100000));
        assert_true(workloads >= 500);
        assert_true(moments_whole * 100 >= moments * 95);
    }
}

/* What a file gave up may be written by another one, or by itself as something else, only when that is durable. */
static void test_given_up(void **state)
{
    static const struct model_op pair[][2] = {
        { { OP_UNLINK, "f", NULL, 0, 0, 0 }, { OP_WRITE, "g", NULL, 5000, 6000, 21 } },
        { { OP_PUNCH, "f", NULL, 0, 30000, 0 }, { OP_WRITE, "g", NULL, 4096, 8192, 22 } },
        { { OP_SET_SIZE, "g", NULL, 0, 0, 0 }, { OP_WRITE, "f", NULL, 0, 30000, 23 } },
        { { OP_RENAME, "j", "g", 0, 0, 0 }, { OP_WRITE, "f", NULL, 0, 20000, 24 } },
        { { OP_WRITE, "g", NULL, 0, 30000, 25 }, { OP_WRITE, "f", NULL, 0, 30000, 26 } },
        { { OP_UNLINK, "j", NULL, 0, 0, 0 }, { OP_WRITE, "i", NULL, 40000, 50000, 27 } },
        /* The block, and the sector, that the new size is in. */
        { { OP_SET_SIZE, "j", NULL, 5000, 0, 0 }, { OP_WRITE, "j", NULL, 4200, 850, 28 } },
        { { OP_SET_SIZE, "j", NULL, 5000, 0, 0 }, { OP_WRITE, "j", NULL, 4700, 100, 29 } },
        { { OP_SET_SIZE, "j", NULL, 5000, 0, 0 }, { OP_PUNCH, "j", NULL, 4700, 100, 0 } },
        { { OP_SET_SIZE, "j", NULL, 5000, 0, 0 }, { OP_PUNCH, "j", NULL, 4700, 5000, 0 } },
        { { OP_SET_SIZE, "j", NULL, 5000, 0, 0 }, { OP_PREALLOCATE, "j", NULL, 0, 5050, 0 } },
        { { OP_SET_SIZE, "g", NULL, 5000, 0, 0 }, { OP_WRITE, "g", NULL, 4200, 850, 30 } },
    };
    uint64_t seed = number("CSV_SEED", 1);
    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(pair); i++)
        for (unsigned between = 0; between < 2; between++)
            workload(&pair[i][0], &pair[i][1], between, (unsigned)number("CSV_CRASH_RANDOM", 60) * 2, &seed);
}

static int build_base(void **state)
{
    (void)state;
    build();
    return 0;
}

static int free_base(void **state)
{
    (void)state;
    fake_disk_free(base);
    model_free(&base_model);
    free(distinct.hash);
    free(verified.hash);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_single), cmocka_unit_test(test_given_up),
                                        cmocka_unit_test(test_pairs) };
    return cmocka_run_group_tests(tests, build_base, free_base);
}
