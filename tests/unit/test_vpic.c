/* SPDX-License-Identifier: MIT */
/* Promises of the 8259 pair: priorities, the ways to end an interrupt, modes, spurious vectors, levels, state. */
#include "fake_device.h"

#include "vdev/vpic.h"

static struct vpic pic;
static struct vbus ports;
static struct fake_line intr;

static void out(uint16_t port, uint8_t value)
{
    fake_out(&ports, port, 1, value, 0);
}

static uint8_t in(uint16_t port)
{
    return (uint8_t)fake_in(&ports, port, 1, 0);
}

/* As every PC system does it; icw4: 1 plain, 3 automatic EOI. */
static void program(uint8_t icw4)
{
    out(0x20, 0x11);
    out(0x21, 0x30);
    out(0x21, 0x04);
    out(0x21, icw4);
    out(0xa0, 0x11);
    out(0xa1, 0x38);
    out(0xa1, 0x02);
    out(0xa1, icw4);
    out(0x21, 0);
    out(0xa1, 0);
}

static int setup(void **state)
{
    (void)state;
    memset(&ports, 0, sizeof(ports));
    memset(&intr, 0, sizeof(intr));
    vpic_init(&pic, FAKE_LINE(&intr));
    assert_int_equal(vpic_attach(&pic, &ports), OK);
    program(1);
    return 0;
}

static void pulse(unsigned irq)
{
    vpic_set_line(&pic, irq, true);
    vpic_set_line(&pic, irq, false);
}

static void power_up_is_quiet(void **state)
{
    (void)state;
    vpic_init(&pic, FAKE_LINE(&intr));
    for (unsigned irq = 0; irq < 20; irq++)
        pulse(irq);
    assert_false(vpic_output(&pic));
    assert_int_equal(in(0x21), 0xff);
}

static void simple_interrupt(void **state)
{
    (void)state;
    vpic_set_line(&pic, 4, true);
    assert_true(intr.level);
    assert_true(vpic_output(&pic));
    assert_int_equal(in(0x20), 0x10); /* IRR */
    assert_int_equal(vpic_acknowledge(&pic), 0x34);
    assert_false(intr.level);
    out(0x20, 0x0b);
    assert_int_equal(in(0x20), 0x10); /* ISR */
    out(0x20, 0x0a);
    assert_int_equal(in(0x20), 0);
    vpic_set_line(&pic, 4, true); /* no edge */
    assert_false(intr.level);
    vpic_set_line(&pic, 4, false);
    vpic_set_line(&pic, 4, true); /* its own level is in service */
    assert_false(intr.level);
    out(0x20, 0x20);
    assert_true(intr.level);
    assert_int_equal(vpic_acknowledge(&pic), 0x34);
}

static void cascade(void **state)
{
    (void)state;
    pulse(12);
    assert_int_equal(in(0xa0), 0x10);
    assert_int_equal(in(0x20), 0x04);
    assert_int_equal(vpic_acknowledge(&pic), 0x3c);
    pulse(9);  /* the slave would, but the master's input 2 is in service */
    assert_false(intr.level);
    pulse(5);
    assert_false(intr.level); /* lower than 2 */
    pulse(1);
    assert_true(intr.level);
    assert_int_equal(vpic_acknowledge(&pic), 0x31);
    out(0x20, 0x20);
    out(0xa0, 0x64); /* specific EOI of 12 */
    out(0x20, 0x62); /* and of the cascade */
    assert_int_equal(vpic_acknowledge(&pic), 0x39);
    out(0xa0, 0x20);
    out(0x20, 0x20);
    assert_int_equal(vpic_acknowledge(&pic), 0x35);
    vpic_set_line(&pic, 2, true); /* not an input */
    assert_int_equal(pic.chip[0].irr, 0);
}

static void masks(void **state)
{
    (void)state;
    out(0x21, 0x10);
    pulse(4);
    assert_false(intr.level);
    pulse(5);
    assert_int_equal(vpic_acknowledge(&pic), 0x35);
    out(0x20, 0x20);
    out(0x21, 0); /* edges are remembered behind the mask */
    assert_int_equal(vpic_acknowledge(&pic), 0x34);
    assert_int_equal(in(0x21), 0);
}

static void what_did_not_reach_the_guest_asks_again(void **state)
{
    (void)state;
    pulse(4);
    assert_int_equal(vpic_acknowledge(&pic), 0x34);
    assert_false(intr.level);
    vpic_return(&pic, 0x34);
    assert_true(intr.level);
    assert_int_equal(pic.chip[0].isr, 0);
    pulse(1); /* in between one that goes first */
    assert_int_equal(vpic_acknowledge(&pic), 0x31);
    out(0x20, 0x20);
    assert_int_equal(vpic_acknowledge(&pic), 0x34);
    out(0x20, 0x20);
    assert_false(intr.level);
    pulse(12);
    assert_int_equal(vpic_acknowledge(&pic), 0x3c);
    vpic_return(&pic, 0x3c);
    assert_int_equal(pic.chip[0].isr | pic.chip[1].isr, 0);
    assert_int_equal(vpic_acknowledge(&pic), 0x3c);
    out(0xa0, 0x20);
    out(0x20, 0x20);
    assert_false(intr.level);
    vpic_return(&pic, 0x3c); /* ended already */
    vpic_return(&pic, 0x37); /* spurious */
    vpic_return(&pic, 0x80); /* nobody's */
    assert_false(intr.level);
    out(0x4d1, 0x08);
    vpic_set_line(&pic, 11, true);
    assert_int_equal(vpic_acknowledge(&pic), 0x3b);
    vpic_set_line(&pic, 11, false); /* a level that has gone does not ask again */
    vpic_return(&pic, 0x3b);
    assert_false(intr.level);
    program(3); /* automatic EOI */
    pulse(6);
    assert_int_equal(vpic_acknowledge(&pic), 0x36);
    vpic_return(&pic, 0x36);
    assert_int_equal(vpic_acknowledge(&pic), 0x36);
    pulse(14);
    assert_int_equal(vpic_acknowledge(&pic), 0x3e);
    vpic_return(&pic, 0x3e);
    assert_int_equal(vpic_acknowledge(&pic), 0x3e);
    assert_false(intr.level);
}

/* A vector of the local APIC changes neither chip, whatever they have in service. */
static void a_vector_of_somebody_else_is_not_returned(void **state)
{
    (void)state;
    for (unsigned automatic = 0; automatic < 2; automatic++) {
        if (automatic)
            program(3);
        for (unsigned serving = 0; serving < 2; serving++) {
            if (serving) { /* one of each chip */
                pulse(12);
                assert_int_equal(vpic_acknowledge(&pic), 0x3c);
                pulse(1);
                assert_int_equal(vpic_acknowledge(&pic), 0x31);
            }
            struct vpic before = pic;
            for (unsigned vector = 0; vector < 256; vector++) {
                if (vector >= 0x30 && vector < 0x40)
                    continue;
                vpic_return(&pic, (uint8_t)vector);
                assert_memory_equal(&pic, &before, sizeof pic);
            }
            if (serving && !automatic) {
                out(0x20, 0x20);
                out(0xa0, 0x20);
                out(0x20, 0x20);
            }
            assert_false(intr.level);
        }
    }
}

static void spurious(void **state)
{
    (void)state;
    assert_int_equal(vpic_acknowledge(&pic), 0x37);
    assert_int_equal(pic.chip[0].isr, 0);
    pulse(4);
    out(0x21, 0x10); /* masked between INTR and the acknowledge */
    assert_int_equal(vpic_acknowledge(&pic), 0x37);
    assert_int_equal(pic.chip[0].isr, 0);
    out(0x21, 0xff);
    out(0x4d1, 0x08);
    out(0x21, 0);
    vpic_set_line(&pic, 11, true);
    assert_true(intr.level);
    pic.chip[1].irr = 0; /* gone before the second acknowledge pulse, as a race would have it */
    assert_int_equal(vpic_acknowledge(&pic), 0x3f);
    assert_int_equal(pic.chip[0].isr, 4); /* the master wants an EOI, the slave does not */
    assert_int_equal(pic.chip[1].isr, 0);
}

static void levels(void **state)
{
    (void)state;
    out(0x4d0, 0xff);
    out(0x4d1, 0xff);
    assert_int_equal(in(0x4d0), 0xf8); /* 0, 1, 2 are always edges */
    assert_int_equal(in(0x4d1), 0xde); /* 8 and 13 too */
    assert_int_equal(fake_in(&ports, 0x4d0, 2, 0), 0xdef8);
    vpic_set_line(&pic, 5, true);
    assert_int_equal(vpic_acknowledge(&pic), 0x35);
    out(0x20, 0x20);
    assert_true(intr.level); /* still asserted */
    vpic_set_line(&pic, 5, false);
    assert_false(intr.level);
    vpic_set_line(&pic, 10, true);
    assert_int_equal(vpic_acknowledge(&pic), 0x3a);
    vpic_set_line(&pic, 10, false);
    out(0xa0, 0x20);
    out(0x20, 0x20);
    assert_false(intr.level);
    vpic_set_line(&pic, 5, true);
    program(1); /* levels survive initialisation */
    assert_int_equal(vpic_acknowledge(&pic), 0x35);
    out(0x20, 0x20);
    out(0x4d0, 0);
    assert_false(intr.level);
}

static void auto_eoi(void **state)
{
    (void)state;
    program(3);
    pulse(4);
    pulse(3);
    assert_int_equal(vpic_acknowledge(&pic), 0x33);
    assert_int_equal(pic.chip[0].isr, 0);
    assert_int_equal(vpic_acknowledge(&pic), 0x34);
    out(0x20, 0x80); /* rotate */
    pulse(4);
    assert_int_equal(vpic_acknowledge(&pic), 0x34);
    pulse(4);
    pulse(5);
    assert_int_equal(vpic_acknowledge(&pic), 0x35); /* 4 is the lowest now */
    out(0x20, 0x00);
    pulse(9);
    assert_int_equal(vpic_acknowledge(&pic), 0x39); /* by the cascade: 6, 7, 0, 1, 2, ... */
    assert_int_equal(vpic_acknowledge(&pic), 0x34);
}

static void rotation(void **state)
{
    (void)state;
    out(0x20, 0xc3); /* 3 is the lowest: 4 the highest */
    pulse(3);
    pulse(0);
    pulse(4);
    assert_int_equal(vpic_acknowledge(&pic), 0x34);
    out(0x20, 0xa0); /* rotate on EOI: 4 the lowest */
    assert_int_equal(pic.chip[0].lowest, 4);
    assert_int_equal(vpic_acknowledge(&pic), 0x30);
    out(0x20, 0xe0); /* rotate on specific EOI of 0 */
    assert_int_equal(pic.chip[0].lowest, 0);
    assert_int_equal(vpic_acknowledge(&pic), 0x33);
    out(0x20, 0x40); /* no operation */
    assert_int_equal(pic.chip[0].isr, 8);
    out(0x20, 0x20);
    out(0x20, 0x20);
    assert_int_equal(pic.chip[0].isr, 0);
}

static void special_mask(void **state)
{
    (void)state;
    pulse(1);
    assert_int_equal(vpic_acknowledge(&pic), 0x31);
    pulse(6);
    assert_false(intr.level);
    out(0x21, 0x02);
    assert_false(intr.level);
    out(0x20, 0x68); /* special mask mode: a masked level in service holds nobody back */
    assert_int_equal(vpic_acknowledge(&pic), 0x36);
    out(0x20, 0x20);
    assert_int_equal(pic.chip[0].isr, 2); /* the EOI was for 6 */
    out(0x20, 0x48);
    pulse(6);
    assert_false(intr.level);
}

static void special_nested(void **state)
{
    (void)state;
    program(0x11);
    pulse(12);
    assert_int_equal(vpic_acknowledge(&pic), 0x3c);
    pulse(9); /* higher within the slave: comes through */
    assert_int_equal(vpic_acknowledge(&pic), 0x39);
    pulse(15);
    assert_false(intr.level);
}

static void poll(void **state)
{
    (void)state;
    out(0x20, 0x0c);
    assert_int_equal(in(0x20) & 0x80, 0);
    pulse(3);
    out(0x20, 0x0c);
    assert_int_equal(in(0x20), 0x83);
    assert_int_equal(pic.chip[0].isr, 8);
    assert_int_equal(in(0x20), 0); /* IRR again */
    out(0x20, 0x20);
    pulse(10);
    out(0x20, 0x0c);
    assert_int_equal(in(0x20), 0x82);
    out(0xa0, 0x0c);
    assert_int_equal(in(0xa0), 0x82);
    assert_int_equal(pic.chip[1].isr, 4);
}

/* What firmware sets, a guest reads and changes; a reset undoes it, the guest's initialisation does not. */
static void levels_of_firmware(void **state)
{
    (void)state;
    vpic_set_levels(&pic, 0xffff);
    assert_int_equal(fake_in(&ports, 0x4d0, 2, 0), 0xdef8);
    vpic_set_levels(&pic, 0x0c00);
    assert_int_equal(fake_in(&ports, 0x4d0, 2, 0), 0x0c00);
    program(1);
    assert_int_equal(in(0x4d1), 0x0c);
    fake_out(&ports, 0x4d0, 2, 0x0420, 0);
    assert_int_equal(in(0x4d0), 0x20);
    assert_int_equal(in(0x4d1), 0x04);
    vpic_set_line(&pic, 11, true); /* an edge now */
    assert_int_equal(vpic_acknowledge(&pic), 0x3b);
    out(0xa0, 0x20);
    out(0x20, 0x20);
    assert_false(intr.level);
    vpic_set_levels(&pic, 0x0c00); /* the line is still up */
    assert_int_equal(vpic_acknowledge(&pic), 0x3b);
    vpic_reset(&pic);
    assert_int_equal(fake_in(&ports, 0x4d0, 2, 0), 0);
}

static void initialisation_steps(void **state)
{
    (void)state;
    pulse(4);
    out(0x20, 0x13); /* single, with ICW4 */
    assert_int_equal(pic.chip[0].irr, 0);
    pulse(4);
    assert_false(intr.level); /* not in the middle of it */
    out(0x21, 0x47);
    out(0x21, 0x01);
    assert_int_equal(pic.chip[0].base, 0x40);
    assert_int_equal(in(0x21), 0);
    assert_int_equal(vpic_acknowledge(&pic), 0x44);
    out(0x20, 0x12); /* single, no ICW4 */
    out(0x21, 0x50);
    out(0x21, 0x80);
    assert_int_equal(in(0x21), 0x80);
    fake_out(&ports, 0x20, 2, 0x5511, 0); /* one word over both ports */
    assert_int_equal(pic.chip[0].base, 0x50);
    assert_int_equal(pic.chip[0].init_step, 3);
}

FAKE_ADAPT(vpic)

static void state_goes_on(void **state)
{
    (void)state;
    static struct fake_state saved, again;
    out(0x4d1, 0x0c);
    pulse(12);
    assert_int_equal(vpic_acknowledge(&pic), 0x3c);
    vpic_set_line(&pic, 10, true);
    pulse(1);
    fake_save(vpic_do_save, &pic, 0, &saved);
    vpic_init(&pic, FAKE_LINE(&intr));
    assert_int_equal(fake_restore(vpic_do_restore, &pic, 0, &saved), OK);
    fake_save(vpic_do_save, &pic, 0, &again);
    assert_memory_equal(again.bytes, saved.bytes, saved.count);
    assert_true(vpic_output(&pic));
    assert_int_equal(vpic_acknowledge(&pic), 0x31);
    out(0x20, 0x20);
    out(0xa0, 0x20);
    out(0x20, 0x20);
    assert_int_equal(vpic_acknowledge(&pic), 0x3a);
}

static void hostile_state(void **state)
{
    (void)state;
    static struct fake_state saved, bad;
    static const uint16_t port[] = { 0x20, 0x21, 0xa0, 0xa1, 0x4d0, 0x4d1 };
    uint64_t seed = 5;
    fake_save(vpic_do_save, &pic, 0, &saved);
    bad = saved;
    bad.count--;
    assert_int_not_equal(fake_restore(vpic_do_restore, &pic, 0, &bad), OK);
    for (unsigned n = 0; n < 20000; n++) {
        bad = saved;
        fake_mutate(&bad, &seed);
        if (fake_restore(vpic_do_restore, &pic, 0, &bad) != OK)
            continue;
        for (unsigned k = 0; k < 12; k++) {
            out(port[fake_random(&seed) % 6], (uint8_t)fake_random(&seed));
            in(port[fake_random(&seed) % 6]);
            vpic_set_line(&pic, (unsigned)(fake_random(&seed) % 20), fake_random(&seed) & 1);
            if (fake_random(&seed) & 1)
                assert_in_range(vpic_acknowledge(&pic), 0, 255);
        }
    }
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup(f, setup)
    const struct CMUnitTest tests[] = {
        TEST(power_up_is_quiet), TEST(simple_interrupt), TEST(cascade), TEST(masks), TEST(spurious), TEST(levels),
        TEST(levels_of_firmware),
        TEST(what_did_not_reach_the_guest_asks_again),
        TEST(a_vector_of_somebody_else_is_not_returned),
        TEST(auto_eoi), TEST(rotation), TEST(special_mask), TEST(special_nested), TEST(poll),
        TEST(initialisation_steps), TEST(state_goes_on), TEST(hostile_state),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
