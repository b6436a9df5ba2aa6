/* SPDX-License-Identifier: MIT */
/* Promises of the PCI bus: what a guest reads and may change, where BARs decode, lines, MSI-X, state. */
#include "fake_guest.h"

struct toy {
    struct vpci_function fn;
    uint64_t last_offset, last_value;
    unsigned command_changes, moves, hook_writes;
};

static uint64_t toy_read(void *device, uint64_t offset, unsigned size, uint64_t now_ns)
{
    struct toy *toy = device;

    (void)now_ns;
    if (offset >= 0x2000)
        return vpci_msix_read(&toy->fn, offset >= 0x3000, offset & 0xfff, size);
    return 0x1100 + offset;
}

static void toy_write(void *device, uint64_t offset, unsigned size, uint64_t value, uint64_t now_ns)
{
    struct toy *toy = device;

    (void)now_ns;
    toy->last_offset = offset;
    toy->last_value = value;
    if (offset >= 0x2000 && offset < 0x3000)
        vpci_msix_write(&toy->fn, offset - 0x2000, size, value);
}

static const struct vdev_ops toy_bar = { .read = toy_read, .write = toy_write };

static void toy_command(void *device)
{
    ((struct toy *)device)->command_changes++;
}

static void toy_moved(void *device, unsigned bar)
{
    assert_true(bar == 0 || bar == 2);
    ((struct toy *)device)->moves++;
}

static uint32_t toy_hook_read(void *device, unsigned offset, unsigned size, uint32_t stored)
{
    (void)device, (void)offset, (void)size;
    return stored ^ 0x55;
}

static void toy_hook_write(void *device, unsigned offset, unsigned size, uint32_t value)
{
    (void)offset, (void)size, (void)value;
    ((struct toy *)device)->hook_writes++;
}

static const struct vpci_function_ops toy_ops = { toy_hook_read, toy_hook_write, toy_command, toy_moved };

static struct toy *toy_new(struct fake_guest *guest, unsigned slot)
{
    static const uint8_t cap[] = { PCI_CAP_VENDOR, 0xee, 8, 1, 2, 3, 4, 5 };
    struct toy *toy = calloc(1, sizeof(*toy));
    unsigned offset;

    vpci_function_init(&toy->fn, &toy_ops, toy, 0x1234, 0x5678, 9, 0xff0102, 0x1af4, 0x1100);
    assert_int_equal(vpci_add_bar(&toy->fn, 0, 0x4000, false, false, &toy_bar), OK);
    assert_int_equal(vpci_add_bar(&toy->fn, 2, 0x10000, true, true, &toy_bar), OK);
    assert_int_equal(vpci_add_bar(&toy->fn, 3, 0x1000, false, false, &toy_bar), ERR_INVALID);
    assert_int_equal(vpci_add_bar(&toy->fn, 5, 0x1000, true, false, &toy_bar), ERR_INVALID);
    assert_int_equal(vpci_add_bar(&toy->fn, 4, 0x1800, false, false, &toy_bar), ERR_INVALID);
    assert_int_equal(vpci_add_cap(&toy->fn, cap, sizeof(cap), &offset), OK);
    toy->fn.writable[offset + 4] = 0xff;
    vpci_hook_config(&toy->fn, offset + 4, 4);
    assert_int_equal(vpci_add_msix(&toy->fn, 3, 0, 0x2000, 0x3000), OK);
    assert_int_equal(vpci_attach(&guest->pci, &toy->fn, slot), OK);
    return toy;
}

static void test_mechanism(void **state)
{
    struct fake_guest *guest = fake_guest_new();
    uint64_t value;

    (void)state;
    /* What an operating system probes for: the address register holds what was written, and a host bridge is there. */
    vbus_write(&guest->ports, 0xcf8, 4, 0x80000000, 0);
    vbus_read(&guest->ports, 0xcf8, 4, &value, 0);
    assert_int_equal(value, 0x80000000);
    assert_int_equal(fake_config_read(guest, 0, 8, 4) >> 8, 0x060000);
    assert_int_equal(fake_config_read(guest, 0, 0, 2), 0x1b36);
    /* Narrow accesses to the address register are not for it. */
    vbus_write(&guest->ports, 0xcf8, 1, 0xff, 0);
    vbus_write(&guest->ports, 0xcf8, 2, 0xffff, 0);
    vbus_read(&guest->ports, 0xcf8, 2, &value, 0);
    assert_int_equal(value, 0xffff);
    assert_int_equal(guest->pci.address, 0x80000000);
    /* Empty slots, other functions, other buses, enable bit off: all ones, and writes are dropped. */
    assert_int_equal(fake_config_read(guest, 5, 0, 4), 0xffffffff);
    assert_int_equal(fake_config_read(guest, 5, 0, 2), 0xffff);
    assert_int_equal(fake_config_read(guest, 5, 0, 1), 0xff);
    fake_config_write(guest, 5, 4, 2, 7);
    for (unsigned bit = 8; bit < 24; bit++) {
        if (bit >= 11 && bit < 16)
            continue;
        vbus_write(&guest->ports, 0xcf8, 4, 0x80000000u | 1u << bit, 0);
        vbus_read(&guest->ports, 0xcfc, 4, &value, 0);
        assert_int_equal(value, 0xffffffff);
    }
    vbus_write(&guest->ports, 0xcf8, 4, 0, 0);
    vbus_read(&guest->ports, 0xcfc, 4, &value, 0);
    assert_int_equal(value, 0xffffffff);
    /* Accesses that leave the dword. */
    assert_false(vbus_read(&guest->ports, 0xcfe, 4, &value, 0));
    assert_int_equal(vpci_config_read(&guest->pci, 0, 0, 3, 2), 0xffff);
    assert_int_equal(vpci_config_read(&guest->pci, 0, 0, 256, 1), 0xff);
    assert_int_equal(vpci_config_read(&guest->pci, 0, 0, 0, 8), 0xffffffff);
    free(guest);
}

static uint64_t cf9_read(void *device, uint64_t offset, unsigned size, uint64_t now_ns)
{
    (void)offset, (void)size, (void)now_ns;
    return *(uint8_t *)device;
}

static void cf9_write(void *device, uint64_t offset, unsigned size, uint64_t value, uint64_t now_ns)
{
    (void)offset, (void)size, (void)now_ns;
    *(uint8_t *)device = (uint8_t)value;
}

static void test_reset_control(void **state)
{
    static const struct vdev_ops ops = { .read = cf9_read, .write = cf9_write };
    struct fake_guest *guest = fake_guest_new();
    uint8_t control = 0;
    uint64_t value;

    (void)state;
    guest->pci.wiring.reset_control = &ops;
    guest->pci.wiring.reset_control_device = &control;
    vbus_write(&guest->ports, 0xcf8, 4, 0x80000600, 0);
    assert_int_equal(control, 0);
    vbus_write(&guest->ports, 0xcf9, 1, 6, 0);
    assert_int_equal(control, 6);
    assert_int_equal(guest->pci.address, 0x80000600);
    vbus_read(&guest->ports, 0xcf9, 1, &value, 0);
    assert_int_equal(value, 6);
    free(guest);
}

static void test_header(void **state)
{
    struct fake_guest *guest = fake_guest_new();
    struct toy *toy = toy_new(guest, 11), *even = toy_new(guest, 4);
    unsigned cap;

    (void)state;
    assert_int_equal(fake_config_read(guest, 11, 0, 4), 0x56781234);
    assert_int_equal(fake_config_read(guest, 11, 8, 4), 0xff010209);
    assert_int_equal(fake_config_read(guest, 11, 0x2c, 4), 0x11001af4);
    /* There is no firmware: decoding is on, the line register names the 8259's input, the pin is INTA. */
    assert_int_equal(fake_config_read(guest, 11, PCI_COMMAND, 2), PCI_COMMAND_MEMORY);
    assert_int_equal(fake_config_read(guest, 11, PCI_INTERRUPT_LINE, 2), 0x0100 | 11);
    assert_int_equal(fake_config_read(guest, 4, PCI_INTERRUPT_LINE, 2), 0x0100 | 10);
    assert_int_equal(fake_config_read(guest, 11, PCI_STATUS, 2), PCI_STATUS_CAPS);
    /* Read-only stays read-only. */
    fake_config_write(guest, 11, 0, 4, 0);
    fake_config_write(guest, 11, 8, 4, 0);
    fake_config_write(guest, 11, PCI_STATUS, 2, 0xffff);
    fake_config_write(guest, 11, 0x30, 4, ~0u);
    assert_int_equal(fake_config_read(guest, 11, 0, 4), 0x56781234);
    assert_int_equal(fake_config_read(guest, 11, 8, 4), 0xff010209);
    assert_int_equal(fake_config_read(guest, 11, PCI_STATUS, 2), PCI_STATUS_CAPS);
    assert_int_equal(fake_config_read(guest, 11, 0x30, 4), 0);
    /* The line register is the guest's to change, and a reset brings it back. */
    fake_config_write(guest, 11, PCI_INTERRUPT_LINE, 1, 17);
    assert_int_equal(fake_config_read(guest, 11, PCI_INTERRUPT_LINE, 1), 17);
    vpci_reset(&guest->pci);
    assert_int_equal(fake_config_read(guest, 11, PCI_INTERRUPT_LINE, 1), 11);
    fake_config_write(guest, 11, PCI_COMMAND, 2, 0xffff);
    assert_int_equal(fake_config_read(guest, 11, PCI_COMMAND, 2), 0x0546);
    assert_int_equal(toy->command_changes, 1);
    /* Capabilities: vendor, then MSI-X with its table size and places, then the end. */
    cap = fake_config_read(guest, 11, PCI_CAP_POINTER, 1);
    assert_int_equal(fake_config_read(guest, 11, cap, 1), PCI_CAP_VENDOR);
    assert_int_equal(fake_config_read(guest, 11, cap + 4, 4), 0x05040302 ^ 0x55);
    fake_config_write(guest, 11, cap + 4, 4, 0xffffffff);
    assert_int_equal(toy->hook_writes, 1);
    assert_int_equal(toy->fn.config[cap + 4], 0xff);
    assert_int_equal(toy->fn.config[cap + 5], 3);
    cap = fake_config_read(guest, 11, cap + 1, 1);
    assert_int_equal(fake_config_read(guest, 11, cap, 4), 0x00020011);
    assert_int_equal(fake_config_read(guest, 11, cap + 4, 4), 0x2000);
    assert_int_equal(fake_config_read(guest, 11, cap + 8, 4), 0x3000);
    free(even);
    free(toy);
    free(guest);
}

static void test_bars(void **state)
{
    struct fake_guest *guest = fake_guest_new();
    struct toy *toy = toy_new(guest, 3), *other = toy_new(guest, 4);
    uint64_t bar0 = fake_bar(guest, 3), bar2 = fake_config_read(guest, 3, 0x18, 4) & ~15u, value;
    uint64_t other0 = fake_bar(guest, 4);

    (void)state;
    /* Addresses are in the window, aligned to the size, apart from each other. */
    assert_true(bar0 >= FAKE_MMIO_BASE && bar0 + 0x4000 <= FAKE_MMIO_END && !(bar0 & 0x3fff));
    assert_true(bar2 >= FAKE_MMIO_BASE && bar2 + 0x10000 <= FAKE_MMIO_END && !(bar2 & 0xffff));
    assert_int_equal(fake_config_read(guest, 3, 0x18, 4) & 15, 0xc);
    assert_int_equal(fake_config_read(guest, 3, 0x1c, 4), 0);
    assert_int_equal(fake_mmio_read(guest, bar0 + 8, 4), 0x1108);
    /* Sizing, with decoding off as Linux does it. */
    fake_config_write(guest, 3, PCI_COMMAND, 2, 0);
    assert_false(vbus_read(&guest->mmio, bar0, 4, &value, 0));
    fake_config_write(guest, 3, 0x10, 4, ~0u);
    assert_int_equal(fake_config_read(guest, 3, 0x10, 4), 0xffffc000);
    fake_config_write(guest, 3, 0x18, 4, ~0u);
    fake_config_write(guest, 3, 0x1c, 4, ~0u);
    assert_int_equal(fake_config_read(guest, 3, 0x18, 4), 0xffff000c);
    assert_int_equal(fake_config_read(guest, 3, 0x1c, 4), 0xffffffff);
    fake_config_write(guest, 3, 0x14, 4, ~0u);
    assert_int_equal(fake_config_read(guest, 3, 0x14, 4), 0);
    /* Back at its place with decoding on: answers again. */
    fake_config_write(guest, 3, 0x10, 4, (uint32_t)bar0);
    fake_config_write(guest, 3, 0x18, 4, (uint32_t)bar2);
    fake_config_write(guest, 3, 0x1c, 4, 0);
    fake_config_write(guest, 3, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
    assert_true(vbus_read(&guest->mmio, bar0, 4, &value, 0));
    assert_true(vbus_read(&guest->mmio, bar2 + 0xfffc, 4, &value, 0));
    /* Moved, with decoding on: old place silent, new place answers. */
    fake_config_write(guest, 3, 0x10, 4, 0xe0800000);
    assert_false(vbus_read(&guest->mmio, bar0, 4, &value, 0));
    assert_int_equal(fake_mmio_read(guest, 0xe0800010, 4), 0x1110);
    /* Onto another function's BAR: silent, the other one lives on; when that moves away, it answers. */
    fake_config_write(guest, 3, 0x10, 4, (uint32_t)other0);
    fake_mmio_write(guest, other0 + 4, 4, 77);
    assert_int_equal(other->last_value, 77);
    assert_int_equal(toy->last_value, 0);
    fake_config_write(guest, 4, 0x10, 4, 0xe0900000);
    fake_mmio_write(guest, other0 + 4, 4, 78);
    assert_int_equal(toy->last_value, 78);
    /* Outside of the window, across its end, above 4 GiB, at the end of the address space: silent. */
    static const uint32_t outside[] = { 0, 0x1000, 0xdffff000, 0xe1000000, 0xfee00000, 0xfffff000 };
    for (unsigned i = 0; i < ARRAY_COUNT(outside); i++) {
        fake_config_write(guest, 3, 0x10, 4, outside[i]);
        assert_false(vbus_read(&guest->mmio, outside[i], 1, &value, 0));
    }
    fake_config_write(guest, 3, 0x1c, 4, 1);
    assert_false(vbus_read(&guest->mmio, bar2, 4, &value, 0));
    fake_config_write(guest, 3, 0x1c, 4, 0xffffffff);
    fake_config_write(guest, 3, 0x18, 4, 0xffffffff);
    assert_false(vbus_read(&guest->mmio, bar2, 4, &value, 0));
    assert_true(toy->moves >= 8);
    /* A reset puts everything back. */
    vpci_reset(&guest->pci);
    assert_int_equal(fake_bar(guest, 3), bar0);
    assert_int_equal(fake_mmio_read(guest, bar0 + 4, 4), 0x1104);
    assert_int_equal(fake_mmio_read(guest, other0 + 4, 4), 0x1104);
    fake_mmio_write(guest, other0 + 4, 4, 80);
    assert_int_equal(other->last_value, 80);
    free(other);
    free(toy);
    free(guest);
}

static void test_window_full(void **state)
{
    struct fake_guest *guest = fake_guest_new();
    struct vpci_function fn;
    unsigned before = guest->mmio.count;

    (void)state;
    vpci_function_init(&fn, NULL, NULL, 1, 2, 0, 0, 0, 0);
    assert_int_equal(vpci_add_bar(&fn, 0, 8 * MIB, false, false, &toy_bar), OK);
    assert_int_equal(vpci_add_bar(&fn, 1, 16 * MIB, false, false, &toy_bar), OK);
    assert_int_equal(vpci_attach(&guest->pci, &fn, 1), ERR_NO_MEMORY);
    assert_int_equal(guest->mmio.count, before);
    assert_null(guest->pci.function[1]);
    vpci_function_init(&fn, NULL, NULL, 1, 2, 0, 0, 0, 0);
    assert_int_equal(vpci_add_bar(&fn, 0, 16 * MIB, false, false, &toy_bar), OK);
    assert_int_equal(vpci_attach(&guest->pci, &fn, 0), ERR_INVALID);
    assert_int_equal(vpci_attach(&guest->pci, &fn, 32), ERR_INVALID);
    assert_int_equal(vpci_attach(&guest->pci, &fn, 1), OK);
    assert_int_equal(vpci_attach(&guest->pci, &fn, 1), ERR_EXISTS);
    free(guest);
}

static void test_intx(void **state)
{
    struct fake_guest *guest = fake_guest_new();
    struct toy *a = toy_new(guest, 2), *b = toy_new(guest, 10);

    (void)state;
    vpci_set_intx(&a->fn, true);
    assert_true(guest->gsi[18]);
    assert_int_equal(fake_config_read(guest, 2, PCI_STATUS, 2) & PCI_STATUS_INTX, PCI_STATUS_INTX);
    /* Slots 2 and 10 share the line: it falls when both are quiet. */
    vpci_set_intx(&b->fn, true);
    vpci_set_intx(&a->fn, false);
    assert_true(guest->gsi[18]);
    vpci_set_intx(&b->fn, false);
    assert_false(guest->gsi[18]);
    /* INTx disable hides the pin, not the status; enabling shows it again. */
    vpci_set_intx(&a->fn, true);
    fake_config_write(guest, 2, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_INTX_OFF);
    assert_false(guest->gsi[18]);
    assert_int_equal(fake_config_read(guest, 2, PCI_STATUS, 2) & PCI_STATUS_INTX, PCI_STATUS_INTX);
    fake_config_write(guest, 2, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
    assert_true(guest->gsi[18]);
    /* MSI-X takes the pin down. */
    fake_config_write(guest, 2, a->fn.msix.offset + 2, 2, 0x8000);
    assert_false(guest->gsi[18]);
    fake_config_write(guest, 2, a->fn.msix.offset + 2, 2, 0);
    assert_true(guest->gsi[18]);
    vpci_reset(&guest->pci);
    assert_false(guest->gsi[18]);
    free(a);
    free(b);
    free(guest);
}

static void test_msix(void **state)
{
    struct fake_guest *guest = fake_guest_new();
    struct toy *toy = toy_new(guest, 2);
    uint64_t table = fake_bar(guest, 2) + 0x2000, pba = table + 0x1000;
    unsigned control = toy->fn.msix.offset + 2;

    (void)state;
    vpci_msix_notify(&toy->fn, 0); /* off: nothing, not even pending */
    assert_int_equal(fake_mmio_read(guest, pba, 8), 0);
    fake_config_write(guest, 2, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    fake_config_write(guest, 2, control, 2, 0xffff);
    assert_int_equal(fake_config_read(guest, 2, control, 2), 0xc002); /* enable, mask; the size is read-only */
    /* The table after power-on: masked, zero. It takes dwords and qwords. */
    assert_int_equal(fake_mmio_read(guest, table + 12, 4), 1);
    fake_mmio_write(guest, table + 16, 8, 0x00000000fee01003);
    fake_mmio_write(guest, table + 24, 8, 0xfffffffe00000041);
    assert_int_equal(fake_mmio_read(guest, table + 16, 4), 0xfee01000);
    fake_mmio_write(guest, table + 24, 4, 0x41);
    fake_mmio_write(guest, table + 28, 4, 0);
    assert_int_equal(fake_mmio_read(guest, table + 24, 8), 0x41);
    assert_int_equal(fake_mmio_read(guest, table + 25, 1), 0);
    fake_mmio_write(guest, table + 24, 2, 0x99);
    fake_mmio_write(guest, table + 22, 4, 0x99);
    assert_int_equal(fake_mmio_read(guest, table + 24, 1), 0x41);
    /* Function mask: remembered once, sent once when it opens. */
    vpci_msix_notify(&toy->fn, 1);
    vpci_msix_notify(&toy->fn, 1);
    assert_int_equal(guest->msi_count, 0);
    assert_int_equal(fake_mmio_read(guest, pba, 8), 2);
    fake_mmio_write(guest, pba, 8, 0); /* read-only */
    fake_config_write(guest, 2, control, 2, 0x8000);
    assert_int_equal(guest->msi_count, 1);
    assert_int_equal(guest->msi_address[0], 0xfee01000);
    assert_int_equal(guest->msi_data[0], 0x41);
    assert_int_equal(fake_mmio_read(guest, pba, 8), 0);
    /* Vector mask. */
    fake_mmio_write(guest, table + 28, 4, 1);
    vpci_msix_notify(&toy->fn, 1);
    assert_int_equal(fake_mmio_read(guest, pba, 4), 2);
    assert_int_equal(guest->msi_count, 1);
    fake_mmio_write(guest, table + 28, 4, 0);
    assert_int_equal(guest->msi_count, 2);
    fake_mmio_write(guest, table + 28, 4, 0);
    assert_int_equal(guest->msi_count, 2);
    /* No bus master: no message until it is one. */
    fake_config_write(guest, 2, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
    vpci_msix_notify(&toy->fn, 1);
    assert_int_equal(guest->msi_count, 2);
    fake_config_write(guest, 2, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    assert_int_equal(guest->msi_count, 3);
    /* A message to anything but the APICs is no write to memory. */
    fake_mmio_write(guest, table + 16, 8, 0x100000);
    vpci_msix_notify(&toy->fn, 1);
    fake_mmio_write(guest, table + 16, 8, 0x1fee00000);
    vpci_msix_notify(&toy->fn, 1);
    assert_int_equal(guest->msi_count, 3);
    /* Behind the table, a vector that is not there. */
    fake_mmio_write(guest, table + 48, 8, ~0ull);
    assert_int_equal(fake_mmio_read(guest, table + 48, 8), 0);
    assert_int_equal(fake_mmio_read(guest, pba + 8, 8), 0);
    vpci_msix_notify(&toy->fn, 3);
    vpci_msix_notify(&toy->fn, ~0u);
    assert_int_equal(guest->msi_count, 3);
    free(toy);
    free(guest);
}

static void test_state(void **state)
{
    struct fake_guest *guest = fake_guest_new(), *copy = fake_guest_new(), *alien = fake_guest_new();
    struct toy *toy = toy_new(guest, 2), *toy_copy = toy_new(copy, 2), *toy_alien = toy_new(alien, 3);
    uint64_t value;

    (void)state;
    fake_config_write(guest, 2, 0x10, 4, 0xe0500000);
    fake_config_write(guest, 2, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    fake_mmio_write(guest, 0xe0502000, 8, 0xfee00000);
    fake_mmio_write(guest, 0xe0502008, 4, 0x77);
    fake_config_write(guest, 2, toy->fn.msix.offset + 2, 2, 0x8000);
    vpci_msix_notify(&toy->fn, 0);
    assert_int_equal(fake_save(guest, NULL), OK);

    assert_int_equal(fake_restore(copy, NULL, guest), OK);
    assert_memory_equal(toy->fn.config, toy_copy->fn.config, 256);
    assert_int_equal(copy->pci.address, guest->pci.address);
    assert_true(vbus_read(&copy->mmio, 0xe0500000, 4, &value, 0));
    assert_int_equal(copy->msi_count, 0);
    fake_mmio_write(copy, 0xe050200c, 4, 0); /* the pending vector survived */
    assert_int_equal(copy->msi_count, 1);
    assert_int_equal(copy->msi_data[0], 0x77);

    /* A line that was up is up again. */
    fake_config_write(guest, 2, toy->fn.msix.offset + 2, 2, 0);
    vpci_set_intx(&toy->fn, true);
    assert_int_equal(fake_save(guest, NULL), OK);
    assert_int_equal(fake_restore(copy, NULL, guest), OK);
    assert_true(copy->gsi[18]);

    /* Another machine: refused, and nothing is half taken over. */
    assert_int_equal(fake_restore(alien, NULL, guest), ERR_RANGE);
    assert_memory_equal(toy_alien->fn.config, toy_alien->fn.initial, 256);
    free(toy);
    free(toy_copy);
    free(toy_alien);
    free(guest);
    free(copy);
    free(alien);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mechanism),   cmocka_unit_test(test_reset_control), cmocka_unit_test(test_header),
        cmocka_unit_test(test_bars),        cmocka_unit_test(test_window_full),   cmocka_unit_test(test_intx),
        cmocka_unit_test(test_msix),        cmocka_unit_test(test_state),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
