/* SPDX-License-Identifier: MIT */
/*
 * A pool's memory may go when frame_pool_idle says so, whoever is just giving a frame back: one thread takes frames and
 * waits for them, another gives them back, and the pool is freed the moment that it is idle. The sanitizer sees a touch
 * that comes later.
 */
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "net/frame.h"

#define ROUNDS 20000
#define FRAMES 3

struct memory {
    struct frame_pool pool;
    struct frame frames[FRAMES];
    struct frame_chunk chunks[FRAMES];
    uint32_t numbers[FRAMES];
    unsigned freed;
};

static struct frame *handed[FRAMES]; /* atomic: from the one to the other */
static bool stop;

static void freed(void *context)
{
    struct memory *memory = context;

    memory->freed++;
}

static void *giver(void *arg)
{
    unsigned given = 0;
    (void)arg;

    while (!__atomic_load_n(&stop, __ATOMIC_ACQUIRE)) {
        struct frame *frame = __atomic_exchange_n(&handed[given % FRAMES], NULL, __ATOMIC_ACQUIRE);
        if (frame) {
            frame_put(frame);
            given++;
        } else {
            sched_yield();
        }
    }
    return NULL;
}

static void an_idle_pool_is_touched_by_nobody(void **state)
{
    pthread_t thread;
    (void)state;

    assert_int_equal(pthread_create(&thread, NULL, giver, NULL), 0);
    for (unsigned round = 0; round < ROUNDS; round++) {
        struct memory *m = calloc(1, sizeof *m);
        frame_pool_init(&m->pool, m->frames, FRAMES, m->chunks, m->numbers, FRAMES, freed, m);
        for (unsigned i = 0; i < FRAMES; i++)
            __atomic_store_n(&handed[i], frame_pool_get(&m->pool, 100), __ATOMIC_RELEASE);
        (void)!frame_pool_has(&m->pool, 3 * FRAME_CHUNK_BYTES); /* somebody waits, so `freed` is called */
        while (!frame_pool_idle(&m->pool))
            sched_yield();
        free(m);
    }
    __atomic_store_n(&stop, true, __ATOMIC_RELEASE);
    assert_int_equal(pthread_join(thread, NULL), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(an_idle_pool_is_touched_by_nobody) };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
