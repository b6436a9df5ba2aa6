/* SPDX-License-Identifier: MIT */
/*
 * The dirty log under real concurrency: each simulated CPU is a thread, and one more is the hypervisor, which writes on a
 * device's behalf. They write at any moment of a collect. Now and then all are held, and then the reports must be exact.
 */
#include <pthread.h>
#include <sched.h>

#include "dirty_fixture.h"

static volatile bool quit, hold;
static unsigned holding;
static pthread_mutex_t hold_mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t hold_changed = PTHREAD_COND_INITIALIZER;
static bool (*wrote)[VCPUS + 1]; /* which pages, since the last time that all were held */

/* A writer waits here, outside of the guest, while all are held. */
static void wait_while_held(void)
{
    pthread_mutex_lock(&hold_mutex);
    holding++;
    pthread_cond_broadcast(&hold_changed);
    while (hold)
        pthread_cond_wait(&hold_changed, &hold_mutex);
    holding--;
    pthread_cond_broadcast(&hold_changed);
    pthread_mutex_unlock(&hold_mutex);
}

static void hold_all(bool on)
{
    pthread_mutex_lock(&hold_mutex);
    hold = on;
    pthread_cond_broadcast(&hold_changed);
    while (holding != (on ? VCPUS + 1 : 0))
        pthread_cond_wait(&hold_changed, &hold_mutex);
    pthread_mutex_unlock(&hold_mutex);
}

static void *vcpu_thread(void *argument)
{
    struct fake_vcpu *vcpu = argument;

    while (!quit) {
        uint64_t frame = vcpu_random(vcpu) % (PAGES / 512), shape = vcpu_random(vcpu) % 4, value;

        for (unsigned i = 0; i < 64 && !hold; i++) {
            uint64_t page = shape == 0 ? vcpu_random(vcpu) % PAGES : frame * 512 + vcpu_random(vcpu) % (shape == 1 ? 512 : 6);
            if (vcpu_random(vcpu) % 64 == 0 &&
                stage2_fault(&stage2, GPA(gpa_of(page)), ACCESS_FETCH) != STAGE2_MAPPED)
                abort();
            if (!vcpu_access(vcpu, gpa_of(page) + vcpu->id * 8, true, &value))
                abort();
            wrote[page][vcpu->id] = true;
            if (vcpu->flush_wanted)
                vcpu_outside(vcpu);
        }
        vcpu_outside(vcpu);
        if (hold)
            wait_while_held();
        sched_yield();
    }
    return NULL;
}

static void *hypervisor_thread(void *argument)
{
    struct fake_vcpu dice = { .seed = 4711 };

    (void)argument;
    while (!quit) {
        uint64_t page = vcpu_random(&dice) % (vcpu_random(&dice) % 2 ? PAGES : 40), value;

        if (!gmem_read(&gmem, GPA(gpa_of(page) + HYPERVISOR * 8), &value, 8))
            abort();
        value++;
        if (!gmem_write(&gmem, GPA(gpa_of(page) + HYPERVISOR * 8), &value, 8))
            abort();
        wrote[page][HYPERVISOR] = true;
        if (hold)
            wait_while_held();
        if (vcpu_random(&dice) % 16 == 0)
            sched_yield();
    }
    return NULL;
}

static void all_outside(bool drain)
{
    uint64_t seen[VCPUS];

    for (unsigned i = 0; i < VCPUS; i++) {
        if (drain)
            vcpus[i].drain_wanted = true;
        vcpus[i].flush_wanted = true;
        seen[i] = __atomic_load_n(&vcpus[i].exits, __ATOMIC_SEQ_CST);
    }
    for (unsigned i = 0; i < VCPUS; i++) {
        if (hold) /* it is outside, and its thread waits */
            vcpu_outside(&vcpus[i]);
        else /* two exits: the first may have begun before */
            while (__atomic_load_n(&vcpus[i].exits, __ATOMIC_SEQ_CST) < seen[i] + 2)
                sched_yield();
    }
}

/* A flush leaves what the vCPUs have logged where it is, or not, as each of them likes. */
static void flush_threads(struct vm_core *of)
{
    (void)of;
    all_outside(false);
}

static void drain_threads(struct vm_core *of)
{
    (void)of;
    all_outside(true);
}

static const struct dirty_ops thread_ops = { flush_threads, drain_threads, NULL };

static void collect_and_copy(uint64_t *count)
{
    memset(out, 0, out_words * 8);
    assert_int_equal(dirty_log_collect(&stage2, out, count), OK);
    for (uint64_t page = 0; page < PAGES; page++)
        if (reported(page))
            copy_page(page);
}

static void threads_variant(const struct variant *variant)
{
    pthread_t threads[VCPUS + 1];
    uint64_t count;

    fixture_start(variant, RAM, 3 * GIB + 16 * MIB);
    wrote = calloc(PAGES, sizeof *wrote);
    quit = hold = false;
    for (unsigned i = 0; i < VCPUS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, vcpu_thread, &vcpus[i]), 0);
    assert_int_equal(pthread_create(&threads[VCPUS], NULL, hypervisor_thread, NULL), 0);
    for (unsigned run = 0; run < 2; run++) {
        assert_int_equal(dirty_log_start(&stage2, variant->engine, &thread_ops), OK);
        for (uint64_t page = 0; page < PAGES; page++)
            copy_page(page);
        for (unsigned round = 0; round < 15; round++) {
            for (unsigned n = 0; n < 8; n++) {
                collect_and_copy(&count);
                sched_yield();
            }
            /* All writers held: one collect has the rest, the next one nothing, and the copy is whole. */
            hold_all(true);
            collect_and_copy(&count);
            check_copy();
            collect_and_copy(&count);
            assert_int_equal(count, 0);
            memset(wrote, 0, PAGES * sizeof *wrote);
            hold_all(false);
            for (unsigned n = 0; n < 20; n++)
                sched_yield();
            /* And what they write until they are held again is reported to the page. */
            hold_all(true);
            collect_and_copy(&count);
            for (uint64_t page = 0; page < PAGES; page++) {
                bool any = false;
                for (unsigned w = 0; w <= VCPUS; w++)
                    any |= wrote[page][w];
                assert_int_equal(any, reported(page));
            }
            hold_all(false);
        }
        dirty_log_stop(&stage2);
    }
    hold_all(true);
    quit = true;
    hold_all(false);
    for (unsigned i = 0; i <= VCPUS; i++)
        pthread_join(threads[i], NULL);
    free(wrote);
    fixture_stop();
}

static void threads(void **state)
{
    (void)state;
    for (unsigned i = 0; i < ARRAY_COUNT(variants); i++)
        threads_variant(&variants[i]);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(threads) };

    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
