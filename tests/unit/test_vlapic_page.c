/* SPDX-License-Identifier: MIT */
/*
 * Promises of the page that a CPU works on for a local APIC: a guest sees the same APIC with it and without it.
 *
 * The CPU is a model after SDM vol. 3C, 30.1 to 30.5: what it reads from the page, which writes it carries out by itself,
 * delivery, EOI. Two APICs, one with it and one by software alone, get the same requests and the same guest.
 */
#include "fake_device.h"

#include "vdev/vlapic.h"

#include <pthread.h>

#define PLAIN 0 /* software alone */
#define PAGED 1
#define APICS 2
#define NO_ACCESS 0xffffffffu

static struct vlapic apic[APICS];
static struct vlapic_bus bus[APICS];
static struct vtimer_queue queue;
static _Alignas(4096) uint32_t page[VLAPIC_PAGE_WORDS];
static uint64_t now;
static unsigned kicks[APICS], nmis[APICS], eois[APICS][256], writes_left;
static uint8_t rvi, svi;       /* guest interrupt status */
static uint64_t eoi_exit[4];

static void kick(void *c) { __atomic_fetch_add((unsigned *)c, 1, __ATOMIC_SEQ_CST); }
static void nmi(void *c) { nmis[(unsigned *)c - kicks]++; }
static void init(void *c) { (void)c; }
static void sipi(void *c, uint8_t vector) { (void)c; (void)vector; }
static uint64_t tsc(void *c) { (void)c; return now; }
static uint64_t tsc_to_ns(void *c, uint64_t value) { (void)c; return value; }
static const struct vlapic_ops ops = { kick, nmi, init, sipi, tsc, tsc_to_ns };

static void told(void *context, uint8_t vector)
{
    eois[(struct vlapic_bus *)context - bus][vector]++;
}

static int setup(void **state)
{
    (void)state;
    memset(bus, 0, sizeof bus);
    memset(&queue, 0, sizeof queue);
    memset(page, 0, sizeof page);
    memset(kicks, 0, sizeof kicks);
    memset(nmis, 0, sizeof nmis);
    memset(eois, 0, sizeof eois);
    memset(eoi_exit, 0, sizeof eoi_exit);
    now = 1000;
    rvi = svi = 0;
    writes_left = 0;
    for (unsigned i = 0; i < APICS; i++) {
        bus[i] = (struct vlapic_bus){ .eoi = told, .context = &bus[i] };
        vlapic_init(&apic[i], &bus[i], &ops, &kicks[i], 0, true, &queue);
        if (i == PAGED)
            vlapic_set_page(&apic[i], page);
        vlapic_mmio_write(&apic[i], 0xf0, 4, 0x1ff, now);
    }
    return 0;
}

/* ---- The CPU ---- */

static uint8_t top(unsigned first)
{
    for (unsigned v = 256; v-- > 0;)
        if (page[first + v / 32 * 4] >> v % 32 & 1)
            return (uint8_t)v;
    return 0;
}

static bool x2(void) { return apic[PAGED].base_msr & APIC_BASE_X2APIC; }
static bool enabled(void) { return apic[PAGED].base_msr & APIC_BASE_ENABLE; }

static void ppr_virtualization(void)
{
    uint8_t vtpr = (uint8_t)page[VLAPIC_PAGE_TPR];
    page[VLAPIC_PAGE_WORD(0x0a)] = vtpr >> 4 >= svi >> 4 ? vtpr : svi & 0xf0u;
}

/* What the backend and the CPU do at an entry. */
static void enter(void)
{
    if (!enabled())
        return;
    if (vlapic_lend(&apic[PAGED])) {
        rvi = top(VLAPIC_PAGE_IRR);
        svi = top(VLAPIC_PAGE_ISR);
        for (unsigned i = 0; i < 8; i++)
            eoi_exit[i / 2] = i % 2 ? (eoi_exit[i / 2] & UINT32_MAX) | (uint64_t)page[VLAPIC_PAGE_TMR + i * 4] << 32
                                    : page[VLAPIC_PAGE_TMR + i * 4];
    }
    assert_int_equal(rvi, top(VLAPIC_PAGE_IRR)); /* nothing changes what is pending without telling */
    assert_int_equal(svi, top(VLAPIC_PAGE_ISR));
    ppr_virtualization();
}

/* The vector that is delivered to a guest with interrupts on, or -1. */
static int deliver(void)
{
    enter();
    if (!enabled())
        return vlapic_pending(&apic[PAGED]);
    if (rvi >> 4 <= (page[VLAPIC_PAGE_WORD(0x0a)] & 0xff) >> 4)
        return -1;
    uint8_t vector = rvi;
    page[VLAPIC_PAGE_ISR + vector / 32 * 4] |= 1u << vector % 32;
    page[VLAPIC_PAGE_IRR + vector / 32 * 4] &= ~(1u << vector % 32);
    svi = vector;
    rvi = top(VLAPIC_PAGE_IRR);
    page[VLAPIC_PAGE_WORD(0x0a)] = vector & 0xf0u;
    return vector;
}

static void eoi_virtualization(void)
{
    uint8_t vector = svi;
    page[VLAPIC_PAGE_WORD(0x0b)] = 0;
    page[VLAPIC_PAGE_ISR + vector / 32 * 4] &= ~(1u << vector % 32);
    svi = top(VLAPIC_PAGE_ISR);
    ppr_virtualization();
    if (eoi_exit[vector / 64] >> vector % 64 & 1)
        vlapic_page_eoi(&apic[PAGED], vector);
}

static void self_ipi_virtualization(uint8_t vector)
{
    page[VLAPIC_PAGE_IRR + vector / 32 * 4] |= 1u << vector % 32;
    rvi = MAX(rvi, vector);
}

/* Registers that are read from the page (30.4.2). */
static bool reads(unsigned reg)
{
    return reg == 2 || reg == 3 || reg == 8 || reg == 0xb || (reg >= 0xd && reg <= 0xf) || (reg >= 0x10 && reg <= 0x28) ||
           (reg >= 0x30 && reg <= 0x38) || reg == 0x3e;
}

/* Registers that are written to the page (30.4.3). */
static bool takes(unsigned reg)
{
    return reg == 2 || reg == 8 || reg == 0xb || (reg >= 0xd && reg <= 0xf) || reg == 0x28 ||
           (reg >= 0x30 && reg <= 0x38) || reg == 0x3e;
}

static uint32_t cpu_read(unsigned reg)
{
    enter();
    return enabled() && reads(reg) ? page[VLAPIC_PAGE_WORD(reg)]
                                   : (uint32_t)vlapic_mmio_read(&apic[PAGED], reg * 16, 4, now);
}

static void cpu_write(unsigned reg, uint32_t value)
{
    enter();
    if (!enabled() || !takes(reg)) {
        writes_left++;
        vlapic_mmio_write(&apic[PAGED], reg * 16, 4, value, now);
        return;
    }
    page[VLAPIC_PAGE_WORD(reg)] = value;
    if (reg == 0x08) {
        page[VLAPIC_PAGE_TPR] &= 0xff;
        ppr_virtualization();
    } else if (reg == 0x0b) {
        eoi_virtualization();
    } else if (reg == 0x31) {
        page[VLAPIC_PAGE_WORD(reg)] &= 0xff000000;
    } else if (reg == 0x30 && !(value & 0xfff3b700) && (value >> 18 & 3) == 1 && (value & 0xf0)) {
        self_ipi_virtualization((uint8_t)value);
    } else {
        writes_left++;
        vlapic_page_written(&apic[PAGED], reg * 16, now);
    }
}

/* False: #GP. In x2APIC mode with the MSRs open that vmx_apic_open_msrs names. */
static bool cpu_wrmsr(uint32_t msr, uint64_t value)
{
    enter();
    if (enabled() && x2() && (msr == 0x808 || msr == 0x80b || msr == 0x83f)) {
        if (value >> (msr == 0x80b ? 0 : 8))
            return false;
        if (msr == 0x808) {
            page[VLAPIC_PAGE_TPR] = (uint32_t)value;
            ppr_virtualization();
        } else if (msr == 0x80b) {
            eoi_virtualization();
        } else if (value >= 16) {
            self_ipi_virtualization((uint8_t)value);
        } else {
            page[VLAPIC_PAGE_WORD(0x3f)] = (uint32_t)value;
            vlapic_page_written(&apic[PAGED], 0x3f0, now);
        }
        return true;
    }
    return vlapic_msr_write(&apic[PAGED], msr, value, now);
}

static bool cpu_rdmsr(uint32_t msr, uint64_t *value)
{
    unsigned reg = msr - 0x800;
    enter();
    if (enabled() && x2() && msr >= 0x800 && ((reads(reg) && reg != 0xb && reg != 0xe && reg != 0x30 && reg != 0x31) || reg == 0xa)) {
        *value = page[VLAPIC_PAGE_WORD(reg)] | (uint64_t)page[VLAPIC_PAGE_WORD(reg) + 1] << 32;
        return true;
    }
    return vlapic_msr_read(&apic[PAGED], msr, value, now);
}

/* ---- Both ---- */

static void set(unsigned reg, uint32_t value)
{
    vlapic_mmio_write(&apic[PLAIN], reg * 16, 4, value, now);
    cpu_write(reg, value);
}

static void same(unsigned reg)
{
    uint32_t plain = (uint32_t)vlapic_mmio_read(&apic[PLAIN], reg * 16, 4, now), paged = cpu_read(reg);
    if (plain != paged)
        fail_msg("register 0x%x is 0x%x in software, 0x%x with the page", reg, plain, paged);
}

static void same_msr(uint32_t msr)
{
    uint64_t plain = 0, paged = 0;
    bool ok = vlapic_msr_read(&apic[PLAIN], msr, &plain, now), ok_paged = cpu_rdmsr(msr, &paged);
    assert_int_equal(ok, ok_paged);
    if (plain != paged)
        fail_msg("MSR 0x%x is 0x%lx in software, 0x%lx with the page", msr, plain, paged);
}

static void wr(uint32_t msr, uint64_t value)
{
    bool ok = vlapic_msr_write(&apic[PLAIN], msr, value, now);
    assert_int_equal(cpu_wrmsr(msr, value), ok);
}

static void post(uint8_t vector, bool level)
{
    for (unsigned i = 0; i < APICS; i++)
        vlapic_post(&apic[i], vector, level);
}

static int take_plain(void)
{
    int vector = vlapic_pending(&apic[PLAIN]);
    if (vector >= 0)
        vlapic_accept(&apic[PLAIN], (uint8_t)vector);
    return vector;
}

static int take(void)
{
    int plain = take_plain();
    assert_int_equal(vlapic_pending(&apic[PAGED]), plain); /* what ends HLT */
    assert_int_equal(deliver(), plain);
    return plain;
}

static void same_eois(void)
{
    assert_memory_equal(eois[PLAIN], eois[PAGED], sizeof eois[PLAIN]);
}

static void the_cpu_does_the_usual(void **state)
{
    (void)state;
    enter();
    set(0x08, 0x10);
    post(0x51, false);
    assert_int_equal(take(), 0x51);
    set(0x0b, 0);
    set(0x30, 0x40061);
    assert_int_equal(take(), 0x61);
    set(0x0b, 0);
    assert_int_equal(writes_left, 0); /* TPR, EOI and a self-IPI without software */
    for (unsigned reg = 0; reg < 0x40; reg++)
        same(reg);
}

static void level_vectors_are_told(void **state)
{
    (void)state;
    post(0x51, true);
    post(0x41, false);
    assert_int_equal(take(), 0x51);
    set(0x0b, 0);
    assert_int_equal(eois[PAGED][0x51], 1);
    assert_int_equal(take(), 0x41);
    set(0x0b, 0);
    assert_int_equal(eois[PAGED][0x41], 0);
    post(0x51, false); /* the same vector, edge-triggered now */
    assert_int_equal(take(), 0x51);
    set(0x0b, 0);
    assert_int_equal(eois[PAGED][0x51], 1);
    same_eois();
}

static void requests_before_and_while_lent(void **state)
{
    (void)state;
    post(0x41, false);
    enter();
    post(0x41, false); /* once more, before it was taken: one request */
    post(0x92, false);
    assert_int_equal(take(), 0x92);
    post(0xa3, false); /* interrupts the handler */
    assert_int_equal(take(), 0xa3);
    set(0x0b, 0);
    set(0x0b, 0);
    assert_int_equal(take(), 0x41);
    set(0x0b, 0);
    assert_int_equal(take(), -1);
}

/* An event whose delivery is cut short by an exception goes back. */
static void a_delivery_taken_back(void **state)
{
    (void)state;
    post(0x51, false);
    post(0x71, false);
    assert_int_equal(take(), 0x71);
    for (unsigned i = 0; i < APICS; i++)
        vlapic_return(&apic[i], 0x71);
    assert_int_equal(take(), 0x71);
    assert_int_equal(take(), -1);
    set(0x0b, 0);
    assert_int_equal(take(), 0x51);
}

static void cr8_is_the_high_half_of_tpr(void **state)
{
    (void)state;
    enter();
    post(0x41, false);
    page[VLAPIC_PAGE_TPR] = 0x50; /* MOV CR8 */
    ppr_virtualization();
    assert_false(vlapic_set_cr8(&apic[PAGED], 5));
    assert_int_equal(vlapic_cr8(&apic[PAGED]), 5);
    assert_int_equal(deliver(), -1);
    cpu_write(8, 0x35);
    assert_false(vlapic_set_cr8(&apic[PAGED], 3));
    assert_int_equal(cpu_read(8), 0x35); /* the low half is kept */
    assert_int_equal(deliver(), 0x41);
}

static void reset_forgets_the_page(void **state)
{
    (void)state;
    post(0x51, true);
    set(0x08, 0x60);
    enter();
    for (unsigned i = 0; i < APICS; i++) {
        vlapic_reset(&apic[i]);
        assert_int_equal(vlapic_pending(&apic[i]), -1);
    }
    for (unsigned reg = 0; reg < 0x40; reg++)
        same(reg);
    assert_int_equal(take(), -1);
}

static void modes(void **state)
{
    (void)state;
    const uint64_t base = APIC_BASE_DEFAULT | APIC_BASE_ENABLE | APIC_BASE_BSP;
    post(0x41, true);
    post(0x81, false);
    assert_int_equal(take(), 0x81);
    wr(0x1b, base | APIC_BASE_X2APIC); /* what is requested and in service stays */
    for (uint32_t msr = 0x800; msr < 0x840; msr++)
        same_msr(msr);
    wr(0x80b, 0);
    assert_int_equal(take(), 0x41);
    wr(0x80b, 0);
    same_eois();
    wr(0x80b, 1);
    wr(0x808, 0x100);
    wr(0x83f, 0x62);
    assert_int_equal(take(), 0x62);
    wr(0x80b, 0);
    wr(0x828, 0);
    wr(0x83f, 5); /* there is no such vector */
    wr(0x828, 0);
    same_msr(0x828);
    wr(0x1b, base & ~APIC_BASE_ENABLE); /* off */
    post(0x51, false);
    assert_int_equal(take_plain(), -1);
    assert_int_equal(deliver(), -1);
    wr(0x1b, base);
    set(0x0f, 0x1ff);
    post(0x51, false);
    assert_int_equal(take(), 0x51);
    for (unsigned reg = 0; reg < 0x40; reg++)
        same(reg);
}

FAKE_ADAPT(vlapic)

/* A stream of the one is a stream of the other, byte for byte, and either takes it. */
static void state_is_the_same(void **state)
{
    (void)state;
    static struct fake_state saved[APICS];
    set(0x08, 0x35);
    post(0x51, true);
    post(0xa1, false);
    assert_int_equal(take(), 0xa1);
    set(0x31, 0x05000000);
    set(0x30, 0x40062);
    post(0xb1, false);
    for (unsigned i = 0; i < APICS; i++)
        fake_save(vlapic_do_save, &apic[i], now, &saved[i]);
    assert_int_equal(saved[PLAIN].count, saved[PAGED].count);
    assert_memory_equal(saved[PLAIN].bytes, saved[PAGED].bytes, saved[PLAIN].count);
    assert_int_equal(take(), 0xb1); /* a save disturbs nothing */
    setup(NULL);
    enter();
    assert_int_equal(fake_restore(vlapic_do_restore, &apic[PLAIN], now, &saved[PAGED]), OK);
    assert_int_equal(fake_restore(vlapic_do_restore, &apic[PAGED], now, &saved[PLAIN]), OK);
    for (unsigned reg = 0; reg < 0x40; reg++)
        same(reg);
    assert_int_equal(take(), 0xb1);
    set(0x0b, 0);
    set(0x0b, 0);
    assert_int_equal(take(), 0x62);
    set(0x0b, 0);
    assert_int_equal(take(), 0x51);
    set(0x0b, 0);
    same_eois();
    assert_int_equal(eois[PAGED][0x51], 1);
}

/* An entry that lends nothing would let the CPU work on a page that does not count. */
static void what_is_taken_back_is_asked_for(void **state)
{
    (void)state;
    enter();
    unsigned before = kicks[PAGED];
    (void)vlapic_mmio_read(&apic[PAGED], 0xa0, 4, now);
    assert_int_equal(kicks[PAGED], before + 1);
    assert_true(vlapic_lend(&apic[PAGED]));
    assert_false(vlapic_lend(&apic[PAGED]));
    (void)vlapic_mmio_read(&apic[PAGED], 0x390, 4, now); /* the timer's count is not in the page */
    assert_false(vlapic_lend(&apic[PAGED]));
    assert_int_equal(kicks[PAGED], before + 1);
}

/* Anything at all, in any order. */
static void one_step(uint64_t *seed)
{
    static const uint8_t regs[] = { 2, 3, 8, 8, 0xb, 0xb, 0xb, 0xd, 0xe, 0xf, 0x10, 0x12, 0x1a, 0x22, 0x28, 0x30, 0x31, 0x32,
                                    0x33, 0x35, 0x36, 0x37, 0x38, 0x39, 0x3e, 0x3f, 0x0a, 4 };
    static struct fake_state saved;
    const uint64_t base = APIC_BASE_DEFAULT | APIC_BASE_BSP;
    static const uint64_t mode[] = { 0, APIC_BASE_ENABLE, APIC_BASE_ENABLE, APIC_BASE_ENABLE | APIC_BASE_X2APIC };
    unsigned reg = regs[fake_random(seed) % sizeof regs];
    bool level;
    uint32_t value = (uint32_t)(fake_random(seed) >> fake_random(seed) % 32);

    if (reg == 0xf && fake_random(seed) % 8)
        value |= 0x100;
    if (reg == 0x30) /* to itself, often: no timer and no other APIC is in this */
        value = (value & 0xff) | 1 | (fake_random(seed) % 8 ? 0x40000 : 0x44000 | (value & 0x8700));
    if (reg >= 0x32 && reg <= 0x38)
        value |= 0x10000;
    if ((reg == 0x30 || reg == 0x3f) && !(apic[PLAIN].svr & 0x100))
        reg = 8; /* an APIC that is switched off by SVR sends itself nothing, but the CPU does not look */
    switch (fake_random(seed) % 16) {
    case 0: case 1: case 2: case 3:
        /* Level-triggered ones have vectors that it does not send itself: TMR is not the CPU's to change. */
        level = fake_random(seed) % 4 == 0;
        post((uint8_t)(level ? value & 0xfe : value), level);
        break;
    case 4: case 5: case 6: take(); break;
    case 7: case 8: case 9:
        if (!x2())
            set(reg, value);
        else if (reg == 0x30)
            wr(0x830, value);
        else
            wr(0x800 + reg, reg == 0xb || reg == 0x28 ? value & 1
                           : reg == 0x3f              ? (value & 0xff) | 1
                                                      : value & (fake_random(seed) % 8 ? 0xff : 0xfff));
        break;
    case 10: case 11:
        if (x2())
            same_msr(0x800 + reg);
        else
            same(reg);
        break;
    case 12:
        if (fake_random(seed) % 32 == 0)
            wr(0x1b, base | mode[fake_random(seed) % 4]);
        if (fake_random(seed) % 2 && !x2())
            set(0xf, 0x1ff);
        else if (x2())
            wr(0x80f, 0x1ff);
        break;
    case 13:
        if (fake_random(seed) % 16 == 0)
            for (unsigned i = 0; i < APICS; i++)
                vlapic_reset(&apic[i]);
        break;
    case 14:
        vlapic_recall(&apic[PAGED]);
        break;
    case 15:
        if (fake_random(seed) % 4 == 0) {
            unsigned from = fake_random(seed) % 2;
            fake_save(vlapic_do_save, &apic[from], now, &saved);
            assert_int_equal(fake_restore(vlapic_do_restore, &apic[1 - from], now, &saved), OK);
        }
        break;
    }
}

static void anything_in_any_order(void **state)
{
    (void)state;
    for (uint64_t run = 1; run <= 200; run++) {
        uint64_t seed = run;
        setup(NULL);
        for (unsigned step = 0; step < 2000; step++) {
            one_step(&seed);
            same_eois();
            assert_int_equal(nmis[PLAIN], nmis[PAGED]);
        }
    }
}

#define ROUNDS 200000
static unsigned delivered[256];

static void *poster(void *arg)
{
    uint64_t seed = (uintptr_t)arg;
    for (unsigned i = 0; i < ROUNDS; i++)
        vlapic_post(&apic[PAGED], (uint8_t)(32 + fake_random(&seed) % 200), i & 1);
    return NULL;
}

static void nothing_posted_is_lost(void **state)
{
    (void)state;
    pthread_t threads[2];
    memset(delivered, 0, sizeof delivered);
    for (uintptr_t i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, poster, (void *)(i + 1)), 0);
    for (unsigned i = 0; i < ROUNDS; i++) {
        int vector = deliver();
        if (vector >= 0) {
            delivered[vector]++;
            cpu_write(0x0b, 0);
        }
    }
    pthread_join(threads[0], NULL);
    pthread_join(threads[1], NULL);
    for (int vector; (vector = deliver()) >= 0; cpu_write(0x0b, 0))
        delivered[vector]++;
    for (unsigned i = 0; i < 8; i++)
        assert_int_equal(apic[PAGED].irr[i], 0);
    for (unsigned v = 32; v < 232; v++)
        assert_true(delivered[v] > 0);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup(f, setup)
    const struct CMUnitTest tests[] = {
        TEST(the_cpu_does_the_usual), TEST(level_vectors_are_told), TEST(requests_before_and_while_lent),
        TEST(a_delivery_taken_back), TEST(cr8_is_the_high_half_of_tpr), TEST(reset_forgets_the_page), TEST(modes),
        TEST(state_is_the_same), TEST(what_is_taken_back_is_asked_for), TEST(anything_in_any_order), TEST(nothing_posted_is_lost),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
