/* SPDX-License-Identifier: MIT */
/*
 * Turns of VMs on a core. Guarded: two VMs are never inside at the same moment, whatever the order of events; a turn is
 * ended only when its time is over and somebody else waits; nobody starves; a turn that was kept for one who went away
 * is passed on.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "vmm/core_turn.h"

static void test_free_core(void **state)
{
    struct core_turn turn = { 0 };
    struct core_waiter a = { 0 }, b = { 0 };
    (void)state;

    assert_true(core_turn_enter(&turn, &a, 7, 100));
    assert_true(core_turn_enter(&turn, &b, 7, 200)); /* the same VM on the other thread */
    assert_int_equal(turn.inside, 2);
    assert_false(core_turn_leave(&turn, 300).wake);
    assert_false(core_turn_leave(&turn, 300).wake);
    assert_int_equal(turn.vm, 0);
    assert_int_equal(turn.inside, 0);
}

static void test_other_waits_for_its_time(void **state)
{
    struct core_turn turn = { 0 };
    struct core_waiter a = { 0 }, b = { 0 }, a2 = { 0 };
    struct core_order order;
    (void)state;

    assert_true(core_turn_enter(&turn, &a, 1, 0));
    assert_false(core_turn_enter(&turn, &b, 2, 10));
    order = core_turn_press(&turn, &b, CORE_TURN_NS - 1);
    assert_false(order.leave);
    order = core_turn_press(&turn, &b, CORE_TURN_NS);
    assert_true(order.leave);
    assert_false(order.wake);
    assert_false(core_turn_press(&turn, &b, CORE_TURN_NS + 1).leave); /* asked once */
    assert_false(core_turn_enter(&turn, &a2, 1, CORE_TURN_NS));           /* nobody joins a turn that ends */
    assert_false(core_turn_enter(&turn, &b, 2, CORE_TURN_NS));            /* and the last one is still inside */
    order = core_turn_leave(&turn, CORE_TURN_NS + 5);
    assert_true(order.wake);
    assert_int_equal(turn.vm, 2);
    assert_false(core_turn_enter(&turn, &a, 1, CORE_TURN_NS + 5));
    assert_true(core_turn_enter(&turn, &b, 2, CORE_TURN_NS + 6));
    assert_true(core_turn_leave(&turn, CORE_TURN_NS + 7).wake);
    assert_int_equal(turn.vm, 1);
    assert_true(core_turn_enter(&turn, &a2, 1, CORE_TURN_NS + 8));
    assert_true(core_turn_enter(&turn, &a, 1, CORE_TURN_NS + 8));
}

static void test_one_vm_alone_is_not_interrupted(void **state)
{
    struct core_turn turn = { 0 };
    struct core_waiter a = { 0 }, b = { 0 };
    (void)state;

    assert_true(core_turn_enter(&turn, &a, 1, 0));
    assert_false(core_turn_enter(&turn, &b, 2, 1));
    assert_false(core_turn_cancel(&turn, &b, 2).wake);
    assert_false(b.queued);
    assert_null(turn.first);
    assert_false(core_turn_press(&turn, &b, 10 * CORE_TURN_NS).leave);
    assert_int_equal(turn.vm, 1);
}

static void test_a_kept_turn_is_passed_on(void **state)
{
    struct core_turn turn = { 0 };
    struct core_waiter a = { 0 }, b = { 0 }, c = { 0 };
    struct core_order order;
    (void)state;

    assert_true(core_turn_enter(&turn, &a, 1, 0));
    assert_false(core_turn_enter(&turn, &b, 2, 1));
    assert_false(core_turn_enter(&turn, &c, 3, 2));
    assert_true(core_turn_leave(&turn, 3).wake);
    assert_int_equal(turn.vm, 2);
    order = core_turn_cancel(&turn, &b, 4); /* parked before it came in */
    assert_true(order.wake);
    assert_int_equal(turn.vm, 3);
    assert_false(core_turn_cancel(&turn, &c, 5).wake);
    assert_int_equal(turn.vm, 0);

    /* One that does not come, and does not cancel either: the next one need not wait for longer than a turn. */
    assert_true(core_turn_enter(&turn, &a, 1, 0));
    assert_false(core_turn_enter(&turn, &b, 2, 1));
    assert_false(core_turn_enter(&turn, &c, 3, 2));
    (void)core_turn_leave(&turn, 3);
    order = core_turn_press(&turn, &c, 3 + CORE_TURN_NS);
    assert_true(order.wake);
    assert_int_equal(turn.vm, 3);
}

/*
 * Random schedules: CPUS threads of one core, on each a few vCPUs of VMS VMs, which run, wait, are taken off, go to sleep
 * and wake up. All that is checked comes from what was granted here, not from struct core_turn.
 */
#define THREADS 4
#define VMS 5
#define VCPUS 10

struct vcpu_model {
    struct core_waiter waiter;
    uint64_t vm;
    unsigned thread;
    bool wants, inside;
    unsigned passed; /* turns of others since it began to wait */
};

static struct vcpu_model vcpus[VCPUS];
static struct core_turn turn;
static uint32_t asked; /* threads that were asked to leave */

static struct vcpu_model *inside_on(unsigned thread)
{
    for (unsigned i = 0; i < VCPUS; i++)
        if (vcpus[i].inside && vcpus[i].thread == thread)
            return &vcpus[i];
    return NULL;
}

static void obey(struct core_order order)
{
    for (unsigned i = 0; order.leave && i < VCPUS; i++)
        if (vcpus[i].inside)
            asked |= 1u << vcpus[i].thread;
}

static void step(uint64_t now, bool sleepless)
{
    struct vcpu_model *v = &vcpus[rand() % VCPUS];

    if (v->inside) {
        if (!(asked & 1u << v->thread) && rand() % 4)
            return;
        v->inside = false;
        v->wants = sleepless || rand() % 2;
        asked &= ~(1u << v->thread);
        obey(core_turn_leave(&turn, now));
        return;
    }
    if (v->wants && !sleepless && rand() % 8 == 0) {
        v->wants = false;
        obey(core_turn_cancel(&turn, &v->waiter, now));
        return;
    }
    v->wants = true;
    if (inside_on(v->thread))
        return; /* its CPU is busy with another vCPU */
    bool was_queued = v->waiter.queued;
    if (core_turn_enter(&turn, &v->waiter, v->vm, now)) {
        v->inside = true;
        assert_false(v->waiter.queued);
        for (unsigned i = 0; i < VCPUS; i++)
            assert_true(!vcpus[i].inside || vcpus[i].vm == v->vm);
    } else {
        assert_true(v->waiter.queued);
        if (!was_queued)
            v->passed = 0;
        obey(core_turn_press(&turn, &v->waiter, now));
    }
}

static void simulate(unsigned seed, bool sleepless)
{
    uint64_t now = 0, entered[VMS + 1] = { 0 }, last_vm = 0;

    srand(seed);
    memset(vcpus, 0, sizeof vcpus);
    memset(&turn, 0, sizeof turn);
    asked = 0;
    for (unsigned i = 0; i < VCPUS; i++) {
        vcpus[i].vm = 1 + i % VMS;
        vcpus[i].thread = (unsigned)rand() % THREADS;
    }
    for (unsigned i = 0; i < 20000; i++) {
        now += (uint64_t)rand() % (CORE_TURN_NS / 8);
        step(now, sleepless);
        for (unsigned j = 0; j < VCPUS; j++)
            if (!vcpus[j].waiter.queued || vcpus[j].vm == turn.vm)
                vcpus[j].passed = 0; /* it is its turn, even if nobody comes */
        uint64_t vm = 0;
        for (unsigned t = 0; t < THREADS; t++)
            vm = inside_on(t) ? inside_on(t)->vm : vm;
        if (!vm || vm == last_vm)
            continue;
        last_vm = vm;
        entered[vm]++;
        for (unsigned j = 0; j < VCPUS; j++)
            if (vcpus[j].waiter.queued && vcpus[j].vm != vm)
                assert_true(++vcpus[j].passed <= VMS);
    }
    for (unsigned vm = 1; vm <= VMS; vm++)
        assert_true(entered[vm] > 20);
}

static void test_random_schedules(void **state)
{
    (void)state;
    for (unsigned seed = 1; seed <= 60; seed++)
        simulate(seed, seed % 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_free_core),
        cmocka_unit_test(test_other_waits_for_its_time),
        cmocka_unit_test(test_one_vm_alone_is_not_interrupted),
        cmocka_unit_test(test_a_kept_turn_is_passed_on),
        cmocka_unit_test(test_random_schedules),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
