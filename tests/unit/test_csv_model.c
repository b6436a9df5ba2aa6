/* SPDX-License-Identifier: MIT */
/*
 * Random operations on a volume and on a plain model, whose answers must agree; with remounts, fsck and comparisons of
 * everything, and with crashes: the disk keeps what it must and some of the rest, and what comes back is one of the
 * states since the last sync. CSV_MODEL_STEPS: how many operations (default 100000); CSV_MODEL_EVERY: all is compared
 * after so many (default 100); CSV_SEED.
 */
#include "csv_fixture.h"
#include "fake_csv_model.h"

#define MODELS 24 /* states since the last sync that are kept: a sync comes before there are more */

struct run {
    struct bench b;
    struct model model[MODELS];
    size_t count; /* model[count - 1] is now */
    struct fake_csv_disk *start; /* the disk at the last sync */
    uint64_t seed;
};

/* From now on what is written is recorded, over a copy of the disk as it is. */
static void freeze(struct run *r)
{
    if (r->start)
        fake_disk_free(r->start);
    r->start = fake_disk_copy(r->b.disk);
    fake_disk_record(r->b.disk);
}

static void only_now(struct run *r)
{
    struct model now = r->model[r->count - 1];
    for (size_t i = 0; i + 1 < r->count; i++)
        model_free(&r->model[i]);
    r->model[0] = now;
    r->count = 1;
}

static void compare(struct run *r)
{
    bench_check(&r->b);
    assert_string_equal(model_matches(&r->model[r->count - 1], r->b.volume), "");
}

static void crash(struct run *r)
{
    size_t at_write = r->b.disk->record_count;
    csv_abandon(r->b.volume);
    assert_int_equal(r->b.memory.used, 0);
    struct fake_csv_disk *left = fake_disk_cut(r->start, r->b.disk, at_write, FAKE_CUT_RANDOM, &r->seed);
    fake_disk_free(r->b.disk);
    r->b.disk = fake_disk_copy(left);
    fake_disk_free(left);
    ok(bench_mount(&r->b));
    bench_check(&r->b);
    assert_string_equal(model_matches_any(r->model, r->count, r->b.volume), "");
    /* Which one was it? The newest that agrees in everything; sectors may be mixed, so then start from scratch. */
    size_t found = r->count;
    while (found-- && model_matches(&r->model[found], r->b.volume)[0])
        ;
    if (found == (size_t)-1) {
        for (size_t i = 0; i < r->count; i++)
            model_free(&r->model[i]);
        ok(csv_unmount(r->b.volume));
        fake_disk_free(r->b.disk);
        bench_init(&r->b, 64 * MIB);
        model_init(&r->model[0]);
        r->count = 1;
    } else {
        struct model now = r->model[found];
        for (size_t i = 0; i < r->count; i++)
            if (i != found)
                model_free(&r->model[i]);
        r->model[0] = now;
        r->count = 1;
    }
    ok(csv_sync(r->b.volume));
    freeze(r);
}

static void step(struct run *r)
{
    char text[2][128];
    struct model_op op = model_random_op(&r->model[r->count - 1], &r->seed, text);
    if (r->count == MODELS)
        op.kind = OP_SYNC;
    if (op.kind == OP_SYNC) {
        model_do(&r->model[r->count - 1], r->b.volume, &op);
        only_now(r);
        return;
    }
    model_copy(&r->model[r->count], &r->model[r->count - 1]);
    model_do(&r->model[r->count++], r->b.volume, &op);
}

static void test_model(void **state)
{
    const char *steps_text = getenv("CSV_MODEL_STEPS"), *seed_text = getenv("CSV_SEED");
    unsigned long every = getenv("CSV_MODEL_EVERY") ? strtoul(getenv("CSV_MODEL_EVERY"), NULL, 0) : 100;
    unsigned long steps = steps_text ? strtoul(steps_text, NULL, 0) : 100000;
    struct run *r = calloc(1, sizeof(*r));
    (void)state;
    r->seed = seed_text ? strtoull(seed_text, NULL, 0) : 1;
    bench_init(&r->b, 64 * MIB);
    model_init(&r->model[0]);
    r->count = 1;
    freeze(r);
    for (unsigned long i = 1; i <= steps; i++) {
        step(r);
        if (i % every == 0)
            compare(r);
        if (i % 400 == 0) {
            bench_remount(&r->b);
            only_now(r);
            compare(r);
            freeze(r);
        }
        if (fake_random(&r->seed) % 150 == 0)
            crash(r);
    }
    compare(r);
    only_now(r);
    model_free(&r->model[0]);
    bench_end(&r->b);
    fake_disk_free(r->start);
    free(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_model) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
