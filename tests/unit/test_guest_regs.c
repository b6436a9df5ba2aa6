/* SPDX-License-Identifier: MIT */
/*
 * Registers that the hypervisor switches around an entry, on a fake CPU: the host always runs with its own values, a guest
 * that has written its own runs with them, a guest that asks for no more than the host has costs no MSR access at all,
 * and nothing of one guest reaches the host or the next.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "kernel/cpu.h"
#include "kernel/msr.h"

static uint64_t spec_ctrl, xss, tsc_aux;
static unsigned accesses;
struct cpu_features cpu_features;

static uint64_t *fake_msr(uint32_t msr)
{
    assert_true(msr == MSR_SPEC_CTRL || msr == MSR_XSS || msr == MSR_TSC_AUX);
    accesses++;
    return msr == MSR_SPEC_CTRL ? &spec_ctrl : msr == MSR_XSS ? &xss : &tsc_aux;
}

static uint64_t fake_rdmsr(uint32_t msr) { return *fake_msr(msr); }
static void fake_wrmsr(uint32_t msr, uint64_t value) { *fake_msr(msr) = value; }

bool wrmsr_safe(uint32_t msr, uint64_t value)
{
    fake_wrmsr(msr, value);
    return true;
}

#define rdmsr fake_rdmsr
#define wrmsr fake_wrmsr
#include "vmm/guest_regs.c"

#define IBRS 1u
#define STIBP 2u
#define SSBD 4u
#define PSFD 0x80u

static struct guest_regs regs;
static struct cpu_state state;

static void host(bool eibrs)
{
    cpu_features = (struct cpu_features){ .xsaves = true, .rdtscp = true, .speculation = { .always_ibrs = eibrs } };
    xss = 0x1234;
    guest_regs_host_init();
    assert_int_equal(xss, 0);
    spec_ctrl = cpu_host_spec_ctrl();
    regs = (struct guest_regs){ .spec_ctrl_valid = IBRS | STIBP | SSBD };
    state = (struct cpu_state){ 0 };
    assert_false(guest_regs_changed(&regs, &state));
}

/* A write of the guest that exits: what the handler of WRMSR does, and the store at the next entry. */
static bool writes(uint64_t value)
{
    state.spec_ctrl = value;
    return guest_regs_changed(&regs, &state);
}

static void enter(void)
{
    accesses = 0;
    if (regs.swap)
        guest_regs_enter(&regs, &state);
}

static void leave(void)
{
    if (regs.swap)
        guest_regs_leave(&regs, &state);
    assert_int_equal(spec_ctrl, cpu_host_spec_ctrl());
    assert_int_equal(xss, 0);
}

static void who_never_writes_it_pays_nothing(void **unused)
{
    (void)unused;
    for (unsigned eibrs = 0; eibrs < 2; eibrs++) {
        host(eibrs);
        assert_false(regs.swap);
        enter();
        assert_int_equal(spec_ctrl, cpu_host_spec_ctrl());
        leave();
        assert_int_equal(accesses, 0);
        assert_false(writes(0));
        assert_false(regs.swap);
    }
}

static void who_asks_for_what_the_host_has_pays_nothing(void **unused)
{
    (void)unused;
    host(true);
    assert_false(writes(IBRS));
    assert_false(regs.swap);
    enter();
    leave();
    assert_int_equal(accesses, 0);
    assert_int_equal(state.spec_ctrl, IBRS); /* and reads it back */
    assert_false(writes(0));
    assert_false(regs.swap);
}

static void who_asks_for_more_gets_it_and_the_host_keeps_its_own(void **unused)
{
    (void)unused;
    for (unsigned eibrs = 0; eibrs < 2; eibrs++) {
        host(eibrs);
        assert_true(writes(IBRS | SSBD));
        assert_true(regs.swap);
        assert_false(writes(IBRS | SSBD)); /* once */
        enter();
        assert_int_equal(spec_ctrl, IBRS | SSBD);
        leave();
        assert_int_equal(state.spec_ctrl, IBRS | SSBD);
        enter();
        spec_ctrl = 0; /* the guest writes it itself now */
        leave();
        assert_int_equal(state.spec_ctrl, 0);
        enter();
        assert_int_equal(spec_ctrl, 0);
        spec_ctrl = STIBP;
        leave();
        assert_int_equal(state.spec_ctrl, STIBP);
        /* It stays so, whatever is written: the backend has opened the register. */
        assert_false(writes(0));
        assert_true(regs.swap);
    }
}

/* The CPU has bits that the model lacks, and takes them from a guest that writes by itself. */
static void bits_outside_of_the_model_do_not_stay(void **unused)
{
    (void)unused;
    host(false);
    assert_true(writes(SSBD));
    enter();
    spec_ctrl = SSBD | PSFD;
    leave();
    assert_int_equal(state.spec_ctrl, SSBD);
    enter();
    assert_int_equal(spec_ctrl, SSBD);
    leave();
}

static void who_has_none_never_gets_it(void **unused)
{
    (void)unused;
    host(true);
    regs.spec_ctrl_valid = 0; /* a model without, or a CPU that switches it itself */
    assert_false(writes(SSBD));
    assert_false(regs.swap);
}

static void xss_is_switched_where_it_differs(void **unused)
{
    (void)unused;
    host(true);
    state.xss = 0x800;
    assert_false(guest_regs_changed(&regs, &state));
    assert_true(regs.swap);
    enter();
    assert_int_equal(xss, 0x800);
    assert_int_equal(spec_ctrl, cpu_host_spec_ctrl());
    leave();
    assert_int_equal(state.xss, 0x800);
    state.xss = 0;
    assert_false(guest_regs_changed(&regs, &state));
    assert_false(regs.swap);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(who_never_writes_it_pays_nothing),
        cmocka_unit_test(who_asks_for_what_the_host_has_pays_nothing),
        cmocka_unit_test(who_asks_for_more_gets_it_and_the_host_keeps_its_own),
        cmocka_unit_test(bits_outside_of_the_model_do_not_stay),
        cmocka_unit_test(who_has_none_never_gets_it),
        cmocka_unit_test(xss_is_switched_where_it_differs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
