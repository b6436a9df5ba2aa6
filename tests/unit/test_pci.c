/* SPDX-License-Identifier: MIT */
/*
 * PCI configuration space on a machine that the test plays: functions with registers that are read-only where real ones
 * are, bridges and capability lists that lie. Guarded: every function is found once; nothing loops; a size is read without
 * the device decoding meanwhile, and its address is back afterwards; messages go where they were sent.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "drivers/pci.h"

#define FUNCTIONS 300

static struct fake {
    struct pci_address at;
    uint8_t space[256], writable[256];
} fakes[FUNCTIONS];
static unsigned fake_count, reads;
static bool decoded_while_sizing;

static struct fake *find(struct pci_address at)
{
    for (unsigned i = 0; i < fake_count; i++)
        if (fakes[i].at.bus == at.bus && fakes[i].at.device == at.device && fakes[i].at.function == at.function)
            return &fakes[i];
    return NULL;
}

static uint32_t fake_read(const struct pci_access *access, struct pci_address at, unsigned offset, unsigned bytes)
{
    struct fake *f = find(at);
    uint32_t value = 0xffffffff;
    (void)access;

    assert_true(offset % bytes == 0 && offset + bytes <= 256 && at.device < 32 && at.function < 8);
    assert_true(++reads < 200000); /* nothing loops */
    if (f)
        memcpy(&value, f->space + offset, bytes);
    return bytes == 1 ? value & 0xff : bytes == 2 ? value & 0xffff : value;
}

static void fake_write(const struct pci_access *access, struct pci_address at, unsigned offset, unsigned bytes, uint32_t value)
{
    struct fake *f = find(at);
    (void)access;

    assert_true(offset % bytes == 0 && offset + bytes <= 256);
    if (!f)
        return;
    if (offset >= PCI_BAR0 && offset < PCI_BAR0 + 24 && value == 0xffffffff && (f->space[PCI_COMMAND] & 3))
        decoded_while_sizing = true;
    for (unsigned i = 0; i < bytes; i++) {
        uint8_t *byte = &f->space[offset + i], mask = f->writable[offset + i];
        *byte = (uint8_t)((*byte & ~mask) | (value >> 8 * i & mask));
    }
}

static const struct pci_access access = { fake_read, fake_write };
static struct pci_table table;

static void set(struct fake *f, unsigned offset, unsigned bytes, uint64_t value, uint64_t writable)
{
    for (unsigned i = 0; i < bytes; i++) {
        f->space[offset + i] = (uint8_t)(value >> 8 * i);
        f->writable[offset + i] = (uint8_t)(writable >> 8 * i);
    }
}

static struct fake *add(unsigned bus, unsigned device, unsigned function, uint32_t id, uint32_t class)
{
    struct fake *f = &fakes[fake_count++];

    memset(f, 0, sizeof *f);
    f->at = (struct pci_address){ (uint8_t)bus, (uint8_t)device, (uint8_t)function };
    set(f, PCI_VENDOR, 4, id, 0);
    set(f, PCI_REVISION, 4, class << 8, 0);
    set(f, PCI_COMMAND, 2, 7, 0x547);
    return f;
}

static struct fake *bridge(unsigned bus, unsigned device, unsigned behind)
{
    struct fake *f = add(bus, device, 0, 0x24488086, 0x060400);

    f->space[PCI_HEADER_TYPE] = 1;
    f->space[PCI_SECONDARY_BUS] = (uint8_t)behind;
    return f;
}

static int setup(void **state)
{
    (void)state;
    fake_count = reads = 0;
    decoded_while_sizing = false;
    memset(&table, 0, sizeof table);
    return 0;
}

static struct pci_function *the_only(void)
{
    pci_walk(&access, &table, 0);
    assert_int_equal(table.count, 1);
    return &table.function[0];
}

static void every_function_is_found_once(void **state)
{
    (void)state;
    add(0, 0, 0, 0x12378086, 0x060000);
    struct fake *multi = add(0, 1, 0, 0x70008086, 0x060100);
    multi->space[PCI_HEADER_TYPE] = 0x80;
    add(0, 1, 3, 0x71138086, 0x068000); /* a gap before it */
    add(0, 2, 0, 0x100e8086, 0x020000);
    add(0, 2, 1, 0x100e8086, 0x020000); /* not multi-function: this one is a ghost */
    bridge(0, 3, 5);
    add(5, 0, 0, 0x10d38086, 0x020000);
    bridge(5, 1, 9);
    add(9, 31, 0, 0x10418086, 0x020000);
    add(77, 0, 0, 0x10418086, 0x020000); /* nobody leads there */
    pci_walk(&access, &table, 0);
    assert_int_equal(table.count, 8);
    assert_true(pci_bus_seen(&table, 5) && pci_bus_seen(&table, 9) && !pci_bus_seen(&table, 77));
    assert_string_equal(pci_class_name(&table.function[3]), "Ethernet card");
    pci_walk(&access, &table, 77);
    assert_int_equal(table.count, 9);
}

static void bridges_that_point_in_circles_end(void **state)
{
    (void)state;
    bridge(0, 0, 1);
    bridge(1, 0, 0);
    bridge(1, 1, 1);
    bridge(0, 1, 0);
    add(1, 2, 0, 0x10418086, 0x020000);
    pci_walk(&access, &table, 0);
    assert_int_equal(table.count, 5);
}

static void a_full_table_counts_the_rest(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 280; i++) {
        struct fake *f = add(0, i / 8 % 32, i % 8, 0x10418086, 0x020000);
        f->space[PCI_HEADER_TYPE] = 0x80;
        if (i >= 256)
            f->at.bus = 1;
    }
    bridge(2, 0, 1);
    pci_walk(&access, &table, 0);
    pci_walk(&access, &table, 2);
    assert_int_equal(table.count, PCI_MAX_DEVICES);
    assert_int_equal(table.left_out, 25);
}

static void only_what_nobody_drives_is_silenced(void **state)
{
    static const struct { uint32_t class; uint8_t header; bool driver, silenced; } cases[] = {
        { 0x020000, 0, false, true }, { 0x020000, 0, true, false }, { 0x0c0330, 0, false, true },
        { 0x030000, 0, false, false }, { 0x060000, 0, false, false }, { 0x060400, 1, false, false },
    };
    (void)state;

    for (unsigned i = 0; i < ARRAY_COUNT(cases); i++) {
        setup(NULL);
        struct fake *f = add(0, 0, 0, 0x10418086, cases[i].class);
        f->space[PCI_HEADER_TYPE] = cases[i].header;
        the_only()->driver = cases[i].driver ? "test" : NULL;
        assert_int_equal(pci_quiesce(&access, &table.function[0]), cases[i].silenced);
        assert_int_equal(f->space[PCI_COMMAND], cases[i].silenced ? 3 : 7);
        assert_int_equal(f->space[PCI_COMMAND + 1] >> 2 & 1, !cases[i].driver && cases[i].class >> 16 != PCI_CLASS_BRIDGE);
        assert_false(cases[i].silenced && pci_quiesce(&access, &table.function[0]));
    }
}

static void registers_are_sized_and_left_as_they_were(void **state)
{
    struct pci_bar bar[PCI_BARS];
    (void)state;

    struct fake *f = add(0, 0, 0, 0x10418086, 0x020000);
    set(f, PCI_BAR0, 4, 0xfebc0000, 0xfffe0000);                    /* 128 KiB of memory */
    set(f, PCI_BAR0 + 4, 4, 0xc001, 0xffc0);                        /* 64 ports, 16 bits decoded */
    set(f, PCI_BAR0 + 8, 8, 0x38000000000cull, 0xffffffffffffc000ull); /* 64 bits, prefetchable, 16 KiB, above 4 GiB */
    set(f, PCI_BAR0 + 16, 4, 0xfeb01000, 0xfffff000);               /* 4 KiB */
    set(f, PCI_BAR0 + 20, 4, 0, 0xfffff000);                        /* never given an address */
    uint8_t before[256];
    memcpy(before, f->space, 256);
    pci_read_bars(&access, the_only(), bar);
    assert_memory_equal(before, f->space, 256);
    assert_false(decoded_while_sizing);
    assert_true(bar[0].kind == PCI_BAR_MEMORY && bar[0].base == 0xfebc0000 && bar[0].bytes == 0x20000 && !bar[0].prefetchable);
    assert_true(bar[1].kind == PCI_BAR_IO && bar[1].base == 0xc000 && bar[1].bytes == 64);
    assert_true(bar[2].kind == PCI_BAR_MEMORY && bar[2].base == 0x380000000000 && bar[2].bytes == 0x4000 && bar[2].prefetchable);
    assert_true(bar[3].kind == PCI_BAR_NONE);
    assert_true(bar[4].kind == PCI_BAR_MEMORY && bar[4].bytes == 0x1000);
    assert_true(bar[5].kind == PCI_BAR_NONE);
}

static void registers_that_make_no_sense_are_none(void **state)
{
    static const struct { uint32_t value, writable; } cases[] = {
        { 0xfebc0000, 0xff0f0000 }, /* the size has holes */
        { 0xfebc1000, 0xfffe0000 }, /* the address is not a multiple of the size (a bit that cannot be cleared) */
        { 0, 0 },
        { 0xffffffff, 0xffffffff }, /* nobody there */
    };
    struct pci_bar bar[PCI_BARS];
    (void)state;

    for (unsigned i = 0; i < ARRAY_COUNT(cases); i++) {
        setup(NULL);
        struct fake *f = add(0, 0, 0, 0x10418086, 0x020000);
        set(f, PCI_BAR0, 4, cases[i].value, cases[i].writable);
        pci_read_bars(&access, the_only(), bar);
        assert_int_equal(bar[0].kind, PCI_BAR_NONE);
    }
    setup(NULL); /* a 64-bit register in the last place has no other half */
    set(add(0, 0, 0, 0x10418086, 0x020000), PCI_BAR0 + 20, 4, 0xfeb00004, 0xfffff000);
    pci_read_bars(&access, the_only(), bar);
    assert_true(bar[5].kind == PCI_BAR_NONE || bar[5].bytes == 0x1000);
}

static void capability(struct fake *f, unsigned at, unsigned id, unsigned next)
{
    f->space[PCI_STATUS] = PCI_STATUS_CAPABILITIES;
    f->space[at] = (uint8_t)id;
    f->space[at + 1] = (uint8_t)next;
}

static void capabilities_are_found_and_lists_end(void **state)
{
    (void)state;
    struct fake *f = add(0, 0, 0, 0x10418086, 0x020000);
    struct pci_function *p = the_only();
    f->space[PCI_CAPABILITIES] = 0x40;
    capability(f, 0x40, PCI_CAP_VENDOR, 0x50);
    assert_int_equal(pci_find_capability(&access, p, PCI_CAP_VENDOR, 0), 0x40);
    capability(f, 0x50, PCI_CAP_MSI, 0x60);
    capability(f, 0x60, PCI_CAP_VENDOR, 0);
    assert_int_equal(pci_find_capability(&access, p, PCI_CAP_MSI, 0), 0x50);
    assert_int_equal(pci_find_capability(&access, p, PCI_CAP_VENDOR, 0x40), 0x60);
    assert_int_equal(pci_find_capability(&access, p, PCI_CAP_VENDOR, 0x60), 0);
    assert_int_equal(pci_find_capability(&access, p, PCI_CAP_MSIX, 0), 0);
    capability(f, 0x60, PCI_CAP_VENDOR, 0x50); /* a circle */
    assert_int_equal(pci_find_capability(&access, p, PCI_CAP_MSIX, 0), 0);
    f->space[PCI_CAPABILITIES] = 0x10; /* into the header */
    assert_int_equal(pci_find_capability(&access, p, PCI_CAP_VENDOR, 0), 0);
    f->space[PCI_CAPABILITIES] = 0x40;
    f->space[PCI_STATUS] = 0;
    assert_int_equal(pci_find_capability(&access, p, PCI_CAP_VENDOR, 0), 0);
}

/* A device in D3 that forgets its header when it wakes, as one may; and one that is awake is left alone. */
static void a_device_that_sleeps_is_woken(void **state)
{
    (void)state;
    for (unsigned power = 0; power < 4; power++) {
        setup(state);
        struct fake *f = add(0, 0, 0, 0x10d38086, 0x020000);
        struct pci_function *p = the_only();
        uint32_t header[PCI_KEPT];
        uint8_t before[64];
        f->space[PCI_CAPABILITIES] = 0xc8;
        capability(f, 0xc8, PCI_CAP_POWER, 0);
        set(f, 0xcc, 2, 0x8100u | power, 0x8103); /* an event is pending: not ours to clear */
        for (unsigned bar = 0; bar < 6; bar++)
            set(f, PCI_BAR0 + 4 * bar, 4, 0xfe000000u + (bar << 17), 0xfffe0000);
        set(f, PCI_CACHE_LINE, 4, 0x00001040, 0x0000ffff);
        set(f, PCI_INTERRUPT_LINE, 1, 11, 0xff);
        memcpy(before, f->space, sizeof before);
        assert_int_equal(pci_wake_begin(&access, p, header), power != 0);
        if (!power)
            continue;
        assert_int_equal(fake_read(&access, f->at, 0xcc, 2) & 0x8003, 0);
        memset(f->space + PCI_BAR0, 0, 24);
        f->space[PCI_COMMAND] = f->space[PCI_CACHE_LINE] = f->space[PCI_LATENCY] = f->space[PCI_INTERRUPT_LINE] = 0;
        pci_wake_end(&access, p, header);
        assert_memory_equal(f->space, before, sizeof before);
    }
    setup(state);
    struct fake *f = add(0, 0, 0, 0x10d38086, 0x020000); /* gone: all ones */
    struct pci_function *p = the_only();
    uint32_t header[PCI_KEPT];
    f->space[PCI_CAPABILITIES] = 0xc8;
    capability(f, 0xc8, PCI_CAP_POWER, 0);
    set(f, 0xcc, 2, 0xffff, 0);
    assert_false(pci_wake_begin(&access, p, header));
}

static void a_message_is_addressed(void **state)
{
    (void)state;
    for (unsigned wide = 0; wide < 2; wide++) {
        setup(NULL);
        struct fake *f = add(0, 0, 0, 0x10418086, 0x020000);
        f->space[PCI_CAPABILITIES] = 0x50;
        capability(f, 0x50, PCI_CAP_MSI, 0);
        set(f, 0x52, 2, (wide ? 0x80 : 0) | 0x31, 0x71); /* the firmware left three messages on */
        set(f, 0x54, 8, 0, ~0ull);
        set(f, 0x5c, 4, 0, 0xffff);
        assert_int_equal(pci_msi_enable(&access, the_only(), 0x21, 0x55), OK);
        assert_int_equal(fake_read(&access, f->at, 0x54, 4), 0xfee21000);
        assert_int_equal(fake_read(&access, f->at, wide ? 0x5c : 0x58, 2), 0x55);
        assert_int_equal(fake_read(&access, f->at, 0x52, 2), (wide ? 0x80 : 0) | 0x01);
        assert_true(fake_read(&access, f->at, PCI_COMMAND, 2) & PCI_COMMAND_NO_INTX);
        pci_interrupts_off(&access, &table.function[0]);
        assert_false(fake_read(&access, f->at, 0x52, 2) & 1);
    }
    setup(NULL);
    add(0, 0, 0, 0x10418086, 0x020000);
    assert_int_equal(pci_msi_enable(&access, the_only(), 0, 0x55), ERR_UNSUPPORTED);
}

static void a_message_table_is_found_within_its_register(void **state)
{
    struct pci_bar bar[PCI_BARS] = { [3] = { PCI_BAR_MEMORY, false, 0xfeb00000, 0x4000 }, [4] = { PCI_BAR_IO, false, 0xc000, 64 } };
    uint32_t entries[5 * 4];
    struct pci_msix msix;
    (void)state;

    struct fake *f = add(0, 0, 0, 0x10418086, 0x020000);
    struct pci_function *p = the_only();
    f->space[PCI_CAPABILITIES] = 0xa0;
    capability(f, 0xa0, PCI_CAP_MSIX, 0);
    set(f, 0xa2, 2, 4, 0xc000);
    set(f, 0xa4, 4, 0x2000 | 3, 0);
    assert_true(pci_msix_find(&access, p, bar, &msix));
    assert_true(msix.bar == 3 && msix.offset == 0x2000 && msix.entry_count == 5);
    memset(entries, 0, sizeof entries);
    pci_msix_enable(&access, p, &msix, entries, 0x21, 0x55);
    assert_int_equal(entries[0], 0xfee21000);
    assert_int_equal(entries[1], 0);
    assert_int_equal(entries[2], 0x55);
    assert_int_equal(entries[3], 0);
    for (unsigned i = 1; i < 5; i++)
        assert_int_equal(entries[4 * i + 3], 1);
    assert_int_equal(fake_read(&access, f->at, 0xa2, 2), 0x8004);
    set(f, 0xa4, 4, 0x3fc0 | 3, 0); /* five entries do not fit any more */
    assert_false(pci_msix_find(&access, p, bar, &msix));
    set(f, 0xa4, 4, 0xfffffff8 | 3, 0);
    assert_false(pci_msix_find(&access, p, bar, &msix));
    for (unsigned i = 4; i < 8; i++) { /* ports, none, and numbers that no register has */
        set(f, 0xa4, 4, i, 0);
        assert_false(pci_msix_find(&access, p, bar, &msix));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(every_function_is_found_once, setup),
        cmocka_unit_test_setup(bridges_that_point_in_circles_end, setup),
        cmocka_unit_test_setup(a_full_table_counts_the_rest, setup),
        cmocka_unit_test_setup(only_what_nobody_drives_is_silenced, setup),
        cmocka_unit_test_setup(registers_are_sized_and_left_as_they_were, setup),
        cmocka_unit_test_setup(registers_that_make_no_sense_are_none, setup),
        cmocka_unit_test_setup(capabilities_are_found_and_lists_end, setup),
        cmocka_unit_test_setup(a_device_that_sleeps_is_woken, setup),
        cmocka_unit_test_setup(a_message_is_addressed, setup),
        cmocka_unit_test_setup(a_message_table_is_found_within_its_register, setup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
