/* SPDX-License-Identifier: MIT */
/* Promises of the local APIC: who gets a message, what is injected when, registers and modes. */
#include "vlapic_fixture.h"

#include <pthread.h>
#include <sched.h>

static void power_up(void **state)
{
    (void)state;
    struct vlapic fresh;
    vlapic_init(&fresh, &bus, &ops, &cpu[1], 1, false, &queue);
    assert_int_equal(fresh.base_msr, ENABLED);
    assert_int_equal(apic[0].base_msr, ENABLED | APIC_BASE_BSP);
    assert_int_equal(vlapic_mmio_read(&fresh, 0xf0, 4, now), 0xff);
    assert_int_equal(vlapic_mmio_read(&fresh, 0x20, 4, now), 1u << 24);
    assert_int_equal(vlapic_mmio_read(&fresh, 0x30, 4, now), 0x50014);
    assert_int_equal(vlapic_mmio_read(&fresh, 0xe0, 4, now), 0xffffffff);
    for (unsigned offset = 0x320; offset <= 0x370; offset += 16)
        assert_int_equal(vlapic_mmio_read(&fresh, offset, 4, now), 0x10000);
    vlapic_post(&fresh, 0x40, false); /* software-disabled */
    assert_int_equal(vlapic_pending(&fresh), -1);
    vlapic_mmio_write(&fresh, 0x350, 4, 0x700, now); /* cannot be unmasked either */
    assert_int_equal(vlapic_mmio_read(&fresh, 0x350, 4, now), 0x10700);
    assert_false(vlapic_accepts_extint(&fresh));
    vlapic_virtual_wire(&fresh);
    assert_true(vlapic_accepts_extint(&fresh));
    bus.apic[1] = &apic[1];
}

static void priorities(void **state)
{
    (void)state;
    assert_int_equal(vlapic_pending(&apic[0]), -1);
    vlapic_post(&apic[0], 0x45, false);
    vlapic_post(&apic[0], 0x91, false);
    vlapic_post(&apic[0], 0x91, false);
    assert_int_equal(cpu[0].kicks, 2); /* a request that stands already kicks nobody */
    assert_int_equal(take(0), 0x91);
    assert_int_equal(get(0, 0xa0), 0x90);
    assert_int_equal(vlapic_pending(&apic[0]), -1);
    vlapic_post(&apic[0], 0x9f, false); /* same class as in service */
    assert_int_equal(vlapic_pending(&apic[0]), -1);
    assert_int_equal(vlapic_tpr_threshold(&apic[0]), 16);
    vlapic_post(&apic[0], 0xa0, false);
    assert_int_equal(take(0), 0xa0);
    assert_int_equal(get(0, 0x100 + 16 * 5), 1); /* ISR word of 0xa0 */
    set(0, 0xb0, 0);
    set(0, 0xb0, 0);
    assert_int_equal(take(0), 0x9f);
    set(0, 0xb0, 0);
    set(0, 0x80, 0x40); /* TPR holds class 4 back */
    assert_int_equal(vlapic_pending(&apic[0]), -1);
    assert_int_equal(vlapic_tpr_threshold(&apic[0]), 4);
    assert_int_equal(vlapic_cr8(&apic[0]), 4);
    vlapic_set_cr8(&apic[0], 3);
    assert_int_equal(get(0, 0x80), 0x30);
    assert_int_equal(vlapic_tpr_threshold(&apic[0]), 16);
    assert_int_equal(take(0), 0x45);
    vlapic_set_cr8(&apic[0], 10);
    vlapic_post(&apic[0], 0x4f, false); /* what is in service would hold it back anyway */
    assert_int_equal(vlapic_tpr_threshold(&apic[0]), 16);
    vlapic_post(&apic[0], 0x52, false);
    assert_int_equal(vlapic_tpr_threshold(&apic[0]), 5);
    vlapic_set_cr8(&apic[0], 3);
    assert_int_equal(take(0), 0x52);
    set(0, 0xb0, 0);
    set(0, 0xb0, 0);
    assert_int_equal(take(0), 0x4f);
    set(0, 0xb0, 0);
    assert_int_equal(vlapic_pending(&apic[0]), -1);
    assert_int_equal(get(0, 0xa0), 0x30);
    set(0, 0xb0, 0); /* nothing in service */
    assert_int_equal(eois, 0);
}

static void every_vector_comes_once(void **state)
{
    (void)state;
    for (unsigned v = 0; v < 256; v++)
        vlapic_post(&apic[0], (uint8_t)v, false);
    for (int v = 255; v >= 16; v--) {
        assert_int_equal(take(0), v);
        set(0, 0xb0, 0);
    }
    assert_int_equal(take(0), -1);
    assert_int_equal(apic[0].irr_words, 0);
    assert_int_equal(apic[0].highest_isr, 0);
}

static void level_vectors_are_told(void **state)
{
    (void)state;
    vlapic_post(&apic[0], 0x51, true);
    assert_int_equal(get(0, 0x180 + 16 * 2), 1u << 17);
    take(0);
    set(0, 0xb0, 0);
    assert_int_equal(eois, 1);
    assert_int_equal(eoi_vector, 0x51);
    vlapic_post(&apic[0], 0x51, false); /* the same vector by an edge now */
    take(0);
    set(0, 0xb0, 0);
    assert_int_equal(eois, 1);
    assert_int_equal(get(0, 0x180 + 16 * 2), 0);
}

static bool msi(unsigned destination, bool logical, uint32_t data)
{
    return vlapic_bus_message(&bus, 0xfee00000 | destination << 12 | (logical ? 4 : 0), data);
}

static void messages_find_their_apic(void **state)
{
    (void)state;
    assert_true(msi(2, false, 0x31));
    assert_int_equal(who(0x31), 4);
    assert_false(msi(9, false, 0x31));
    assert_true(msi(0xff, false, 0x31));
    assert_int_equal(who(0x31), 15);
    assert_true(msi(0xff, true, 0x31));
    assert_int_equal(who(0x31), 15);
    assert_false(vlapic_bus_message(&bus, 0xfed00000, 0x31));
    for (unsigned i = 0; i < CPUS; i++)
        set(i, 0xd0, 1u << (24 + i)); /* flat */
    assert_true(msi(0x0a, true, 0x32));
    assert_int_equal(who(0x32), 10);
    for (unsigned i = 0; i < CPUS; i++) { /* clusters of two */
        set(i, 0xe0, 0x0fffffff);
        set(i, 0xd0, (i / 2) << 28 | 1u << (24 + i % 2));
    }
    assert_true(msi(0x13, true, 0x33));
    assert_int_equal(who(0x33), 12);
    assert_true(msi(0x02, true, 0x33));
    assert_int_equal(who(0x33), 2);
    assert_false(msi(0x23, true, 0x33));
    assert_true(msi(0xff, true, 0x33));
    assert_int_equal(who(0x33), 15);
    assert_true(msi(1, false, 0x400));
    assert_int_equal(cpu[1].nmis, 1);
    assert_true(msi(1, false, 0x500));
    assert_int_equal(cpu[1].inits, 1);
    assert_true(msi(1, false, 0x69a));
    assert_int_equal(cpu[1].sipi_vector, 0x9a);
    assert_false(msi(1, false, 0x331)); /* reserved mode */
    assert_false(vlapic_has_extint(&apic[1]));
    assert_true(msi(1, false, 0x700));
    assert_true(vlapic_has_extint(&apic[1]));
    assert_true(vlapic_take_extint(&apic[1]));
    assert_false(vlapic_take_extint(&apic[1]));
}

static void disabled_apics(void **state)
{
    (void)state;
    set(1, 0xf0, 0xff); /* by software */
    assert_false(msi(1, false, 0x31));
    assert_true(msi(1, false, 0x400)); /* takes NMI, INIT, SIPI all the same */
    assert_int_equal(cpu[1].nmis, 1);
    vlapic_post(&apic[2], 0x77, false);
    assert_true(wr(2, 0x1b, APIC_BASE_DEFAULT)); /* by hardware */
    assert_int_equal(vlapic_pending(&apic[2]), -1);
    assert_false(msi(2, false, 0x400));
    assert_int_equal(cpu[2].nmis, 0);
    assert_int_equal(get(2, 0x20), 0xffffffff);
    set(2, 0xf0, 0x1ff);
    assert_true(wr(2, 0x1b, ENABLED));
    assert_int_equal(get(2, 0xf0), 0xff); /* as after a reset */
    assert_int_equal(vlapic_pending(&apic[2]), -1);
    assert_true(wr(0, 0x1b, APIC_BASE_DEFAULT | APIC_BASE_BSP));
    assert_true(vlapic_accepts_extint(&apic[0])); /* without an APIC INTR goes to the boot CPU */
    vlapic_lint1(&apic[0]);
    assert_int_equal(cpu[0].nmis, 1);
}

static void lowest_priority(void **state)
{
    (void)state;
    for (unsigned i = 0; i < CPUS; i++) {
        set(i, 0xd0, 1u << (24 + i));
        set(i, 0x80, i == 1 || i == 2 ? 0x20 : 0x50);
    }
    unsigned taken[CPUS] = { 0 };
    for (unsigned n = 0; n < 10; n++) {
        assert_true(msi(0x0f, true, 0x131));
        unsigned mask = who(0x31);
        assert_true(mask == 2 || mask == 4);
        taken[mask == 2 ? 1 : 2]++;
    }
    assert_int_equal(taken[1], 5); /* equals take turns */
    assert_int_equal(taken[2], 5);
    set(1, 0xf0, 0);
    assert_true(msi(0x0f, true, 0x131));
    assert_int_equal(who(0x31), 4); /* not one that is off */
    assert_true(msi(0x09, true, 0x131));
    unsigned mask = who(0x31);
    assert_true(mask == 1 || mask == 8);
    assert_true(vlapic_bus_message(&bus, 0xfee0f00c, 0x31)); /* redirection hint */
    assert_int_equal(who(0x31), 4);
    assert_false(msi(0x02, true, 0x131));
}

static void ipis(void **state)
{
    (void)state;
    set(0, 0x310, 3u << 24);
    set(0, 0x300, 0x40);
    assert_int_equal(who(0x40), 8);
    assert_int_equal(get(0, 0x300), 0x40); /* delivery status idle */
    set(0, 0x300, 0x40040);
    assert_int_equal(who(0x40), 1);
    set(0, 0x300, 0x80040);
    assert_int_equal(who(0x40), 15);
    set(0, 0x300, 0xc0040);
    assert_int_equal(who(0x40), 14);
    set(0, 0x310, 0xff000000);
    set(0, 0x300, 0x40);
    assert_int_equal(who(0x40), 15);
    set(0, 0x300, 0xc4500); /* INIT, then SIPI, to all others */
    set(0, 0x300, 0xc8500); /* de-assert */
    set(0, 0x300, 0xc4608);
    for (unsigned i = 0; i < CPUS; i++) {
        assert_int_equal(cpu[i].inits, i != 0);
        assert_int_equal(cpu[i].sipis, i != 0);
    }
    assert_int_equal(cpu[3].sipi_vector, 8);
    set(0, 0x300, 0xc4400);
    assert_int_equal(cpu[1].nmis, 1);
    set(0, 0x300, LEVEL | 0x4000 | 0x40060); /* a fixed IPI is an edge whatever it says */
    take(0);
    set(0, 0xb0, 0);
    assert_int_equal(eois, 0);
}

static void errors(void **state)
{
    (void)state;
    set(0, 0x370, 0xe5);
    set(0, 0x300, 0x40005); /* vector 5 cannot be sent */
    assert_int_equal(get(0, 0x280), 0);
    assert_int_equal(take(0), 0xe5);
    set(0, 0xb0, 0);
    set(0, 0x300, 0x40005);
    assert_int_equal(take(0), -1); /* one interrupt until ESR is written */
    set(0, 0x280, 0);
    assert_int_equal(get(0, 0x280), 0x20);
    assert_true(msi(0, false, 0x03));
    assert_int_equal(take(0), 0xe5);
    set(0, 0xb0, 0);
    set(0, 0x280, 0);
    assert_int_equal(get(0, 0x280), 0x40);
    get(0, 0x3f0);
    set(0, 0x2f0, 1);
    set(0, 0x280, 0);
    assert_int_equal(get(0, 0x280), 0x80);
    set(0, 0x280, 0);
    assert_int_equal(get(0, 0x280), 0);
    assert_int_equal(take(0), 0xe5);
    set(0, 0x370, 0x02); /* an error vector that is itself illegal must not run in circles */
    set(0, 0x300, 0x40005);
    set(0, 0x280, 0);
    assert_int_equal(get(0, 0x280) & 0x60, 0x60);
}

static void page_accesses(void **state)
{
    (void)state;
    assert_int_equal(vlapic_mmio_read(&apic[1], 0x20, 1, now), 0);
    assert_int_equal(vlapic_mmio_read(&apic[1], 0x20, 8, now), 0);
    assert_int_equal(vlapic_mmio_read(&apic[1], 0x24, 4, now), 0);
    vlapic_mmio_write(&apic[1], 0x80, 8, 0x50, now);
    vlapic_mmio_write(&apic[1], 0x82, 4, 0x50, now);
    assert_int_equal(get(1, 0x80), 0);
    set(1, 0x20, 7u << 24);
    assert_int_equal(get(1, 0x20), 1u << 24);
    set(1, 0xd0, 0xffffffff);
    assert_int_equal(get(1, 0xd0), 0xff000000);
    set(1, 0xf0, 0xffffffff);
    assert_int_equal(get(1, 0xf0), 0x3ff);
    set(1, 0x350, 0xffffffff);
    assert_int_equal(get(1, 0x350), 0x1a7ff);
    set(1, 0xf0, 0xff); /* off: all masked */
    assert_int_equal(get(1, 0x360) & 0x10000, 0x10000);
}

static void mode_changes(void **state)
{
    (void)state;
    const uint64_t x2 = ENABLED | APIC_BASE_X2APIC;
    assert_false(wr(1, 0x1b, APIC_BASE_DEFAULT | APIC_BASE_X2APIC)); /* EXTD without EN */
    assert_false(wr(1, 0x1b, ENABLED | 1));
    assert_false(wr(1, 0x1b, ENABLED | BIT(9)));
    assert_false(wr(1, 0x1b, ENABLED | BIT(40)));
    assert_false(wr(1, 0x1b, ENABLED + 0x1000));
    assert_false(readable(1, 0x802));
    assert_false(wr(1, 0x80b, 0));
    set(1, 0xd0, 0x02000000);
    set(1, 0x80, 0x30);
    assert_true(wr(1, 0x1b, x2 | APIC_BASE_BSP)); /* who the boot CPU is cannot be written */
    assert_int_equal(rd(1, 0x1b), x2);
    assert_int_equal(rd(1, 0x802), 1);
    assert_int_equal(rd(1, 0x808), 0x30);
    assert_int_equal(rd(1, 0x80d), 2);
    assert_int_equal(get(1, 0x20), 0xffffffff); /* the page is gone */
    assert_false(wr(1, 0x1b, ENABLED)); /* x2APIC to xAPIC only by way of off */
    assert_true(wr(1, 0x1b, APIC_BASE_DEFAULT));
    assert_false(wr(1, 0x1b, x2));
    assert_true(wr(1, 0x1b, ENABLED));
    assert_true(wr(1, 0x1b, x2));
    vlapic_reset(&apic[1]); /* INIT keeps the mode */
    assert_int_equal(rd(1, 0x1b), x2);
    assert_int_equal(rd(1, 0x80f), 0xff);
    vlapic_power_on(&apic[1]); /* a reset of the machine does not */
    assert_int_equal(rd(1, 0x1b), ENABLED);
    assert_int_equal(get(1, 0x20), 1u << 24);
}

static void x2apic_registers(void **state)
{
    (void)state;
    for (unsigned i = 0; i < CPUS; i++)
        assert_true(wr(i, 0x1b, rd(i, 0x1b) | APIC_BASE_X2APIC));
    static const uint16_t none[] = { 0x800, 0x801, 0x804, 0x809, 0x80c, 0x80e, 0x82f, 0x831, 0x83a, 0x840, 0x8ff };
    for (unsigned i = 0; i < ARRAY_COUNT(none); i++) {
        assert_false(readable(0, none[i]));
        assert_false(wr(0, none[i], 0));
    }
    static const uint16_t read_only[] = { 0x802, 0x803, 0x80a, 0x80d, 0x810, 0x81f, 0x820, 0x827, 0x839 };
    for (unsigned i = 0; i < ARRAY_COUNT(read_only); i++) {
        assert_true(readable(0, read_only[i]));
        assert_false(wr(0, read_only[i], 0));
    }
    assert_false(readable(0, 0x80b));
    assert_false(readable(0, 0x83f));
    assert_false(wr(0, 0x80b, 1));
    assert_true(wr(0, 0x80b, 0));
    assert_false(wr(0, 0x828, 1));
    assert_true(wr(0, 0x828, 0));
    assert_false(wr(0, 0x808, 0x100));
    assert_false(wr(0, 0x80f, 0x1000));
    assert_false(wr(0, 0x832, BIT(20)));
    assert_false(wr(0, 0x83e, 4));
    assert_false(wr(0, 0x838, BIT(32)));
    assert_true(wr(0, 0x830, (uint64_t)3 << 32 | 0x40));
    assert_int_equal(who(0x40), 8);
    assert_int_equal(rd(0, 0x830), (uint64_t)3 << 32 | 0x40);
    assert_false(wr(0, 0x830, 0x100000));
    assert_true(wr(0, 0x830, (uint64_t)0xffffffff << 32 | 0x40));
    assert_int_equal(who(0x40), 15);
    assert_true(wr(0, 0x830, (uint64_t)0x0006 << 32 | 0x840)); /* logical: cluster 0, members 1 and 2 */
    assert_int_equal(who(0x40), 6);
    assert_true(wr(0, 0x830, (uint64_t)0x10006 << 32 | 0x840));
    assert_int_equal(who(0x40), 0);
    assert_true(wr(0, 0x83f, 0x66));
    assert_int_equal(who(0x66), 1);
    assert_false(wr(0, 0x83f, 0x166));
    assert_true(msi(3, false, 0x31));
    assert_int_equal(who(0x31), 8);
    assert_true(msi(3, true, 0x31)); /* members 0 and 1 of cluster 0 */
    assert_int_equal(who(0x31), 3);
}

static void x2apic_clusters(void **state)
{
    (void)state;
    setup_count(VLAPIC_MAX);
    for (unsigned i = 0; i < VLAPIC_MAX; i++)
        assert_true(wr(i, 0x1b, rd(i, 0x1b) | APIC_BASE_X2APIC));
    assert_int_equal(rd(31, 0x80d), 0x18000);
    assert_true(wr(0, 0x830, (uint64_t)0x18001 << 32 | 0x840));
    assert_int_equal(who(0x40), 1u << 31 | 1u << 16);
    assert_true(wr(7, 0x830, 0xc0041));
    assert_int_equal(who(0x41), ~(1u << 7));
}

static void lint_pins(void **state)
{
    (void)state;
    vlapic_lint1(&apic[0]);
    assert_int_equal(cpu[0].nmis, 0);
    set(0, 0x360, 0x400);
    vlapic_lint1(&apic[0]);
    assert_int_equal(cpu[0].nmis, 1);
    set(0, 0x350, 0x700);
    assert_true(vlapic_accepts_extint(&apic[0]));
    vlapic_lint0(&apic[0]);
    assert_int_equal(vlapic_pending(&apic[0]), -1);
    set(0, 0x350, 0x10700);
    assert_false(vlapic_accepts_extint(&apic[0]));
    set(0, 0x350, 0x51);
    vlapic_lint0(&apic[0]);
    assert_int_equal(take(0), 0x51);
}

/* ---- Posting from elsewhere ---- */

#define ROUNDS 200000
static unsigned seen[256];

static void *poster(void *arg)
{
    uint64_t seed = (uintptr_t)arg;
    for (unsigned i = 0; i < ROUNDS; i++)
        vlapic_post(&apic[0], (uint8_t)(32 + fake_random(&seed) % 200), i & 1);
    return NULL;
}

static void nothing_posted_is_lost(void **state)
{
    (void)state;
    pthread_t threads[2];
    memset(seen, 0, sizeof(seen));
    for (uintptr_t i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, poster, (void *)(i + 1)), 0);
    unsigned taken = 0;
    for (unsigned i = 0; i < ROUNDS; i++) {
        int vector = take(0);
        if (vector >= 0) {
            seen[vector]++;
            taken++;
            vlapic_eoi(&apic[0]);
        }
    }
    pthread_join(threads[0], NULL);
    pthread_join(threads[1], NULL);
    for (int vector; (vector = take(0)) >= 0; taken++) {
        seen[vector]++;
        vlapic_eoi(&apic[0]);
    }
    assert_int_equal(taken, cpu[0].kicks); /* each kick is one request that was not there before */
    for (unsigned i = 0; i < 8; i++)
        assert_int_equal(apic[0].irr[i], 0);
    for (unsigned v = 32; v < 232; v++)
        assert_true(seen[v] > 0);
}

static unsigned handed_out[2];

/* Two vectors of one word close together, then waits until both have been taken. */
static void *pair_poster(void *arg)
{
    (void)arg;
    for (unsigned i = 1; i <= 50000; i++) {
        vlapic_post(&apic[0], 0x41, false);
        for (unsigned gap = 0; gap < i % 128; gap++)
            __atomic_signal_fence(__ATOMIC_SEQ_CST);
        vlapic_post(&apic[0], 0x40, false);
        for (unsigned v = 0; v < 2; v++)
            while (__atomic_load_n(&handed_out[v], __ATOMIC_SEQ_CST) < i)
                sched_yield();
    }
    return NULL;
}

static void last_request_stays_visible(void **state)
{
    (void)state;
    pthread_t thread;
    unsigned idle = 0;
    handed_out[0] = handed_out[1] = 0;
    assert_int_equal(pthread_create(&thread, NULL, pair_poster, NULL), 0);
    while (handed_out[0] < 50000 || handed_out[1] < 50000) {
        int vector = take(0);
        if (vector < 0) {
            if (++idle % 4096 == 0)
                sched_yield();
            assert_true(idle < 1000000000); /* a request that nobody sees ends here */
            continue;
        }
        idle = 0;
        vlapic_eoi(&apic[0]);
        __atomic_fetch_add(&handed_out[0x41 - vector], 1, __ATOMIC_SEQ_CST);
    }
    pthread_join(thread, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(power_up), TEST(priorities), TEST(every_vector_comes_once), TEST(level_vectors_are_told),
        TEST(messages_find_their_apic), TEST(disabled_apics), TEST(lowest_priority), TEST(ipis), TEST(errors),
        TEST(page_accesses), TEST(mode_changes), TEST(x2apic_registers), TEST(x2apic_clusters), TEST(lint_pins),
        TEST(nothing_posted_is_lost), TEST(last_request_stays_visible),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
