/* SPDX-License-Identifier: MIT */
/* Promises of the I/O APIC and the wires to it: edges, levels, remote IRR, rewritten entries, state. */
#include "fake_device.h"

#include "vdev/vgsi.h"

static struct vlapic apic[2];
static struct vlapic_bus bus;
static struct vtimer_queue queue;
static struct vioapic io;
static struct vbus mmio;
static unsigned nmis;

static void nothing(void *c)
{
    (void)c;
}

static void nmi(void *c)
{
    (void)c;
    nmis++;
}

static void sipi(void *c, uint8_t vector)
{
    (void)c, (void)vector;
}

static const struct vlapic_ops ops = { .kick = nothing, .nmi = nmi, .init = nothing, .sipi = sipi };

static void eoi(void *context, uint8_t vector)
{
    vioapic_eoi(context, vector);
}

static int setup(void **state)
{
    (void)state;
    memset(&bus, 0, sizeof(bus));
    memset(&mmio, 0, sizeof(mmio));
    bus.eoi = eoi;
    bus.context = &io;
    nmis = 0;
    for (unsigned i = 0; i < 2; i++) {
        vlapic_init(&apic[i], &bus, &ops, NULL, i, i == 0, &queue);
        vlapic_mmio_write(&apic[i], 0xf0, 4, 0x1ff, 0);
    }
    vioapic_init(&io, &bus, 5);
    assert_int_equal(vbus_add(&mmio, VIOAPIC_BASE, VIOAPIC_BYTES, &vioapic_ops, &io), OK);
    return 0;
}

static uint32_t get(unsigned index)
{
    fake_out(&mmio, VIOAPIC_BASE, 4, index, 0);
    return (uint32_t)fake_in(&mmio, VIOAPIC_BASE + 0x10, 4, 0);
}

static void set(unsigned index, uint32_t value)
{
    fake_out(&mmio, VIOAPIC_BASE, 4, index, 0);
    fake_out(&mmio, VIOAPIC_BASE + 0x10, 4, value, 0);
}

static int take(unsigned i)
{
    int vector = vlapic_pending(&apic[i]);
    if (vector >= 0)
        vlapic_accept(&apic[i], (uint8_t)vector);
    return vector;
}

static void line(unsigned pin, bool level)
{
    vioapic_set_line(&io, pin, level);
}

#define LEVEL 0x8000u
#define MASK 0x10000u
#define REMOTE 0x4000u

static void registers(void **state)
{
    (void)state;
    assert_int_equal(get(0), 5u << 24);
    assert_int_equal(get(1), 0x170020);
    assert_int_equal(get(2), 5u << 24);
    set(0, 0xffffffff);
    assert_int_equal(get(0), 15u << 24);
    set(1, 0xffffffff);
    assert_int_equal(get(1), 0x170020);
    for (unsigned pin = 0; pin < 24; pin++) {
        assert_int_equal(get(0x10 + 2 * pin), MASK);
        assert_int_equal(get(0x11 + 2 * pin), 0);
    }
    assert_int_equal(get(0x40), 0);
    set(0x40, 1);
    set(0xff, 1);
    set(0x10, 0xffffffff);
    assert_int_equal(get(0x10), 0x1afff); /* delivery status and remote IRR are read-only */
    set(0x11, 0xffffffff);
    assert_int_equal(get(0x11), 0xff000000);
    fake_out(&mmio, VIOAPIC_BASE + 0x10, 1, 0, 0); /* not a register write */
    assert_int_equal(get(0x11), 0xff000000);
    assert_int_equal(fake_in(&mmio, VIOAPIC_BASE + 0x20, 4, 0), 0);
    assert_int_equal(fake_in(&mmio, VIOAPIC_BASE, 4, 0), 0x11);
}

static void edges(void **state)
{
    (void)state;
    set(0x10 + 2 * 4, 0x44);
    set(0x11 + 2 * 4, 1u << 24);
    line(4, true);
    assert_int_equal(take(0), -1);
    assert_int_equal(take(1), 0x44);
    vlapic_eoi(&apic[1]);
    line(4, true); /* the same level again is no edge */
    assert_int_equal(take(1), -1);
    line(4, false);
    assert_int_equal(take(1), -1);
    line(4, true);
    assert_int_equal(take(1), 0x44);
    assert_int_equal(get(0x10 + 2 * 4), 0x44);
    vlapic_eoi(&apic[1]);
    line(4, false);
    set(0x10 + 2 * 4, 0x44 | MASK);
    line(4, true); /* lost: masked */
    set(0x10 + 2 * 4, 0x44);
    assert_int_equal(take(1), -1);
    set(0x10 + 2 * 3, 0x400); /* an NMI */
    line(3, true);
    assert_int_equal(nmis, 1);
    set(0x10 + 2 * 5, 0x745); /* the 8259 behind the I/O APIC */
    line(5, true);
    assert_true(vlapic_take_extint(&apic[0]));
    line(24, true);
    line(1000, true);
}

static void levels(void **state)
{
    (void)state;
    set(0x10 + 2 * 17, 0x71 | LEVEL);
    line(17, true);
    assert_int_equal(get(0x10 + 2 * 17), 0x71 | LEVEL | REMOTE);
    assert_int_equal(take(0), 0x71);
    line(17, false);
    line(17, true); /* in service: nothing is sent */
    assert_int_equal(vlapic_pending(&apic[0]), -1);
    vlapic_eoi(&apic[0]); /* still asserted: again */
    assert_int_equal(take(0), 0x71);
    line(17, false);
    vlapic_eoi(&apic[0]);
    assert_int_equal(take(0), -1);
    assert_int_equal(get(0x10 + 2 * 17), 0x71 | LEVEL);
    set(0x10 + 2 * 17, 0x71 | LEVEL | MASK);
    line(17, true);
    assert_int_equal(take(0), -1);
    set(0x10 + 2 * 17, 0x71 | LEVEL); /* unmasking finds it */
    assert_int_equal(take(0), 0x71);
    set(0x10 + 2 * 17, 0x71 | LEVEL | MASK); /* masked in service, as a driver thread does */
    vlapic_eoi(&apic[0]);
    assert_int_equal(take(0), -1);
    assert_int_equal(get(0x10 + 2 * 17), 0x71 | LEVEL | MASK);
    set(0x10 + 2 * 17, 0x71 | LEVEL);
    assert_int_equal(take(0), 0x71);
}

static void eoi_register(void **state)
{
    (void)state;
    set(0x10 + 2 * 17, 0x71 | LEVEL);
    line(17, true);
    line(17, false);
    fake_out(&mmio, VIOAPIC_BASE + 0x40, 4, 0x70, 0);
    assert_int_equal(get(0x10 + 2 * 17) & REMOTE, REMOTE);
    fake_out(&mmio, VIOAPIC_BASE + 0x40, 4, 0x71, 0);
    assert_int_equal(get(0x10 + 2 * 17) & REMOTE, 0);
}

static void rewritten_in_service(void **state)
{
    (void)state;
    set(0x10 + 2 * 17, 0x71 | LEVEL);
    line(17, true);
    assert_int_equal(take(0), 0x71);
    set(0x10 + 2 * 17, 0x81 | LEVEL); /* another vector, another CPU */
    set(0x11 + 2 * 17, 1u << 24);
    assert_int_equal(get(0x10 + 2 * 17), 0x81 | LEVEL | REMOTE);
    assert_int_equal(take(1), -1);
    vlapic_eoi(&apic[0]); /* of the old vector */
    assert_int_equal(take(1), 0x81);
    set(0x10 + 2 * 17, 0x81 | MASK); /* to edge: remote IRR is gone */
    assert_int_equal(get(0x10 + 2 * 17), 0x81 | MASK);
    set(0x10 + 2 * 17, 0x81 | LEVEL);
    assert_int_equal(get(0x10 + 2 * 17), 0x81 | LEVEL | REMOTE);
}

static void nobody_took_it(void **state)
{
    (void)state;
    vlapic_mmio_write(&apic[0], 0xf0, 4, 0xff, 0);
    set(0x10 + 2 * 17, 0x71 | LEVEL);
    line(17, true);
    assert_int_equal(get(0x10 + 2 * 17), 0x71 | LEVEL); /* not stuck */
    vlapic_mmio_write(&apic[0], 0xf0, 4, 0x1ff, 0);
    line(17, true);
    assert_int_equal(take(0), 0x71);
}

FAKE_ADAPT(vioapic)
FAKE_ADAPT(vpic)

static void wires(void **state)
{
    (void)state;
    struct fake_line intr = { 0 };
    struct vpic pic;
    struct vgsi gsi = { &pic, &io };
    vpic_init(&pic, FAKE_LINE(&intr));
    struct vline pit = vgsi_line(&gsi, GSI_PIT), com1 = vgsi_line(&gsi, GSI_COM1), pci = vgsi_line(&gsi, 19);
    vline_set(&pit, true);
    vline_set(&com1, true);
    vline_set(&pci, true);
    assert_int_equal(pic.chip[0].irr, 0x11);
    assert_int_equal(io.lines, 1u << 2 | 1u << 4 | 1u << 11 | 1u << 19);
    vline_set(&com1, false);
    assert_int_equal(io.lines, 1u << 2 | 1u << 11 | 1u << 19);
    for (unsigned slot = 0; slot < 32; slot++) {
        assert_in_range(vgsi_pci(slot, 3), 16, 23);
        /* What the PCI bus drives and says of itself is what _PRT says. */
        assert_int_equal(vgsi_pci(slot, 0), vpci_gsi(slot));
        assert_int_equal(vgsi_pci_irq(vpci_gsi(slot)), vpci_irq(slot));
    }
}

static uint8_t in_service(const struct vpic *pic)
{
    return pic->chip[1].isr;
}

/* Lines of the PCI bus at the 8259s: shared, and levels, as firmware set them. */
static void pci_lines_reach_the_8259s(void **state)
{
    (void)state;
    struct fake_line intr = { 0 };
    struct vbus ports = { 0 };
    struct vpic pic;
    struct vgsi gsi = { &pic, &io };
    static const uint8_t program[][2] = { { 0x20, 0x11 }, { 0x21, 0x30 }, { 0x21, 4 }, { 0x21, 1 }, { 0xa0, 0x11 },
                                          { 0xa1, 0x38 }, { 0xa1, 2 },    { 0xa1, 1 }, { 0x21, 0 }, { 0xa1, 0 } };
    vpic_init(&pic, FAKE_LINE(&intr));
    assert_int_equal(vpic_attach(&pic, &ports), OK);
    assert_int_equal(fake_in(&ports, 0x4d0, 2, 0), 0);
    vpic_set_levels(&pic, GSI_LEVEL_INPUTS);
    assert_int_equal(fake_in(&ports, 0x4d0, 2, 0), 0x0e00); /* 9, 10, 11 */
    for (unsigned i = 0; i < ARRAY_COUNT(program); i++)
        fake_out(&ports, program[i][0], 1, program[i][1], 0);

    struct vline pin[8], none = vgsi_line(&gsi, 24);
    for (unsigned i = 0; i < 8; i++)
        pin[i] = vgsi_line(&gsi, 16 + i);
    vline_set(&none, true);
    assert_int_equal(io.lines, 0);
    assert_int_equal(pic.chip[1].irr, 0);
    for (unsigned i = 0; i < 8; i++) {
        vline_set(&pin[i], true);
        assert_int_equal(io.lines, 1u << (16 + i) | 1u << (10 + i % 2));
        assert_int_equal(vpic_acknowledge(&pic), 0x3a + i % 2);
        assert_int_equal(in_service(&pic), 4u << i % 2);
        /* The end of the interrupt raises it again, as long as the device asks. */
        fake_out(&ports, 0xa0, 1, 0x20, 0);
        fake_out(&ports, 0x20, 1, 0x20, 0);
        assert_true(intr.level);
        assert_int_equal(vpic_acknowledge(&pic), 0x3a + i % 2);
        vline_set(&pin[i], false);
        fake_out(&ports, 0xa0, 1, 0x20, 0);
        fake_out(&ports, 0x20, 1, 0x20, 0);
        assert_false(intr.level);
        assert_int_equal(io.lines, 0);
    }
    /* 17 and 23 share 11: it falls with the last of them, and 16 is not of it. */
    vline_set(&pin[1], true);
    vline_set(&pin[7], true);
    vline_set(&pin[0], true);
    vline_set(&pin[1], false);
    vline_set(&pin[0], false);
    assert_int_equal(io.lines, 1u << 23 | 1u << 11);
    assert_int_equal(vpic_acknowledge(&pic), 0x3b);
    /* Saved and restored in the middle of it, the other way round than the bus does it. */
    static struct fake_state saved_pic, saved_io;
    fake_save(vpic_do_save, &pic, 0, &saved_pic);
    fake_save(vioapic_do_save, &io, 0, &saved_io);
    vpic_init(&pic, FAKE_LINE(&intr));
    vioapic_init(&io, &bus, 5);
    vline_set(&pin[7], true); /* as vpci_restore does before either of them is restored */
    assert_int_equal(fake_restore(vpic_do_restore, &pic, 0, &saved_pic), OK);
    assert_int_equal(fake_restore(vioapic_do_restore, &io, 0, &saved_io), OK);
    fake_out(&ports, 0xa0, 1, 0x20, 0);
    fake_out(&ports, 0x20, 1, 0x20, 0);
    assert_int_equal(vpic_acknowledge(&pic), 0x3b);
    vline_set(&pin[7], false);
    fake_out(&ports, 0xa0, 1, 0x20, 0);
    fake_out(&ports, 0x20, 1, 0x20, 0);
    assert_false(vpic_output(&pic));
    assert_int_equal(io.lines, 0);
}

static void state_goes_on(void **state)
{
    (void)state;
    static struct fake_state saved, again;
    set(0x10 + 2 * 17, 0x71 | LEVEL);
    set(0x10 + 2 * 4, 0x44);
    line(17, true);
    line(4, true);
    assert_int_equal(take(0), 0x71);
    fake_save(vioapic_do_save, &io, 0, &saved);
    vioapic_init(&io, &bus, 5);
    assert_int_equal(fake_restore(vioapic_do_restore, &io, 0, &saved), OK);
    fake_save(vioapic_do_save, &io, 0, &again);
    assert_memory_equal(again.bytes, saved.bytes, saved.count);
    line(4, true); /* was high: no edge */
    line(17, true);
    vlapic_eoi(&apic[0]);
    assert_int_equal(take(0), 0x71);
    vlapic_eoi(&apic[0]);
    assert_int_equal(take(0), 0x71);
    line(17, false);
    vlapic_eoi(&apic[0]);
    assert_int_equal(take(0), 0x44); /* the edge from before, once */
    vlapic_eoi(&apic[0]);
    assert_int_equal(take(0), -1);
}

static void hostile_state(void **state)
{
    (void)state;
    static struct fake_state saved, bad;
    uint64_t seed = 3;
    fake_save(vioapic_do_save, &io, 0, &saved);
    bad = saved;
    bad.count -= 3;
    assert_int_not_equal(fake_restore(vioapic_do_restore, &io, 0, &bad), OK);
    for (unsigned n = 0; n < 5000; n++) {
        bad = saved;
        fake_mutate(&bad, &seed);
        if (fake_restore(vioapic_do_restore, &io, 0, &bad) != OK)
            continue;
        for (unsigned k = 0; k < 8; k++) {
            set((uint8_t)fake_random(&seed), (uint32_t)fake_random(&seed));
            line((unsigned)(fake_random(&seed) % 32), fake_random(&seed) & 1);
            vioapic_eoi(&io, (uint8_t)fake_random(&seed));
            for (unsigned i = 0; i < 2; i++)
                if (take(i) >= 0)
                    vlapic_eoi(&apic[i]);
        }
    }
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup(f, setup)
    const struct CMUnitTest tests[] = {
        TEST(registers), TEST(edges), TEST(levels), TEST(eoi_register), TEST(rewritten_in_service),
        TEST(nobody_took_it), TEST(wires), TEST(pci_lines_reach_the_8259s), TEST(state_goes_on), TEST(hostile_state),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
