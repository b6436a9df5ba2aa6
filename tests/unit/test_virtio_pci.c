/* SPDX-License-Identifier: MIT */
/* Promises of virtio-pci: what a driver finds, the order it must keep, interrupts, reset, breaking. */
#include "toy_device.h"

static void test_identity(void **state)
{
    struct bench *b = bench_new();
    unsigned cap = fake_config_read(b->guest, SLOT, PCI_CAP_POINTER, 1), seen = 0;

    (void)state;
    assert_int_equal(fake_config_read(b->guest, SLOT, 0, 4), 0x106a1af4);
    assert_int_equal(fake_config_read(b->guest, SLOT, PCI_REVISION, 1), 1);
    /* Each structure has its capability, inside the BAR, aligned and sized as the specification asks. */
    while (cap) {
        unsigned type = fake_config_read(b->guest, SLOT, cap + 3, 1);
        uint32_t offset = fake_config_read(b->guest, SLOT, cap + 8, 4);
        uint32_t length = fake_config_read(b->guest, SLOT, cap + 12, 4);

        if (fake_config_read(b->guest, SLOT, cap, 1) == PCI_CAP_VENDOR) {
            assert_int_equal(fake_config_read(b->guest, SLOT, cap + 4, 1), 0);
            assert_true(offset + length <= VIRTIO_BAR_BYTES);
            assert_true(type >= 1 && type <= 5);
            seen |= 1u << type;
            if (type == 1)
                assert_true(length >= 56 && offset % 4 == 0);
            if (type == 2) {
                assert_int_equal(offset, VIRTIO_NOTIFY_OFFSET);
                assert_int_equal(fake_config_read(b->guest, SLOT, cap + 16, 4), VIRTIO_NOTIFY_MULTIPLIER);
                assert_true(length >= 2 * VIRTIO_NOTIFY_MULTIPLIER);
            }
            if (type == 4)
                assert_int_equal(length, 12);
        } else {
            assert_int_equal(fake_config_read(b->guest, SLOT, cap, 1), PCI_CAP_MSIX);
            assert_int_equal(fake_config_read(b->guest, SLOT, cap + 2, 2), 2); /* three vectors */
        }
        cap = fake_config_read(b->guest, SLOT, cap + 1, 1);
    }
    assert_int_equal(seen, 0x3e);
    bench_free(b);
}

static void test_common(void **state)
{
    struct bench *b = bench_new();

    (void)state;
    assert_int_equal(status(b), 0);
    assert_int_equal(fake_reg(b->guest, b->dev, REG_QUEUE_COUNT, 2), 2);
    assert_int_equal(fake_features(b->guest, b->dev), F_TOY | BIT(28) | BIT(29) | BIT(32));
    fake_set_reg(b->guest, b->dev, REG_OFFERED_SELECT, 4, 2);
    assert_int_equal(fake_reg(b->guest, b->dev, REG_OFFERED, 4), 0);
    assert_int_equal(fake_reg(b->guest, b->dev, REG_QUEUE_SIZE, 2), 64);
    assert_int_equal(fake_reg(b->guest, b->dev, REG_QUEUE_VECTOR, 2), 0xffff);
    assert_int_equal(fake_reg(b->guest, b->dev, REG_CONFIG_VECTOR, 2), 0xffff);
    fake_set_reg(b->guest, b->dev, REG_QUEUE_SELECT, 2, 1);
    assert_int_equal(fake_reg(b->guest, b->dev, REG_NOTIFY_OFF, 2), 1);
    /* A vector that is not there reads back as none. */
    fake_set_reg(b->guest, b->dev, REG_QUEUE_VECTOR, 2, 2);
    assert_int_equal(fake_reg(b->guest, b->dev, REG_QUEUE_VECTOR, 2), 2);
    fake_set_reg(b->guest, b->dev, REG_QUEUE_VECTOR, 2, 3);
    assert_int_equal(fake_reg(b->guest, b->dev, REG_QUEUE_VECTOR, 2), 0xffff);
    fake_set_reg(b->guest, b->dev, REG_CONFIG_VECTOR, 2, 77);
    assert_int_equal(fake_reg(b->guest, b->dev, REG_CONFIG_VECTOR, 2), 0xffff);
    /* 64-bit fields: by halves and whole. */
    fake_set_reg(b->guest, b->dev, REG_DESC, 4, 0x11111110);
    fake_set_reg(b->guest, b->dev, REG_DESC + 4, 4, 0x22222222);
    fake_mmio_write(b->guest, fake_bar(b->guest, SLOT) + REG_DESC + 8, 8, 0x3333333344444444);
    assert_int_equal(fake_mmio_read(b->guest, fake_bar(b->guest, SLOT) + REG_DESC, 8), 0x2222222211111110);
    assert_int_equal(fake_reg(b->guest, b->dev, REG_DESC + 8, 4), 0x44444444);
    /* A queue that is not there: size 0, and writes change nothing. */
    fake_set_reg(b->guest, b->dev, REG_QUEUE_SELECT, 2, 2);
    assert_int_equal(fake_reg(b->guest, b->dev, REG_QUEUE_SIZE, 2), 0);
    fake_set_reg(b->guest, b->dev, REG_QUEUE_SIZE, 2, 8);
    fake_set_reg(b->guest, b->dev, REG_QUEUE_ENABLE, 2, 1);
    assert_int_equal(fake_reg(b->guest, b->dev, REG_QUEUE_ENABLE, 2), 0);
    /* Accesses of another width than the field's, and everything between the structures. */
    fake_set_reg(b->guest, b->dev, REG_QUEUE_SELECT, 1, 0);
    fake_set_reg(b->guest, b->dev, REG_STATUS, 4, 0x01010101);
    fake_set_reg(b->guest, b->dev, REG_STATUS, 2, 0x0101);
    assert_int_equal(status(b), 0);
    for (unsigned offset = 0x38; offset < 0x4000; offset += 4) {
        if (offset >= REG_DEVICE && offset < REG_DEVICE + 12)
            continue;
        fake_set_reg(b->guest, b->dev, offset, 4, 0xffffffff);
        if (offset < 0x2000 || offset >= 0x2030)
            assert_int_equal(fake_reg(b->guest, b->dev, offset, 4), 0);
    }
    /* Device configuration: its bytes, any width, nothing behind them. */
    memcpy(b->toy.config, "abcdefghijkl", 12);
    assert_int_equal(fake_reg(b->guest, b->dev, REG_DEVICE + 1, 1), 'b');
    assert_int_equal(fake_mmio_read(b->guest, fake_bar(b->guest, SLOT) + REG_DEVICE + 4, 8), 0x6c6b6a6968676665);
    assert_int_equal(fake_mmio_read(b->guest, fake_bar(b->guest, SLOT) + REG_DEVICE + 8, 8), 0);
    fake_set_reg(b->guest, b->dev, REG_DEVICE + 10, 2, 0x4142);
    fake_set_reg(b->guest, b->dev, REG_DEVICE + 11, 2, 0x5555);
    assert_int_equal(b->toy.config[10], 0x42);
    assert_int_equal(b->toy.config[11], 0x41);
    bench_free(b);
}

static void test_negotiation(void **state)
{
    struct bench *b = bench_new();

    (void)state;
    /* A feature that was not offered, or no VERSION_1: FEATURES_OK does not stick, and the driver sees it. */
    fake_set_reg(b->guest, b->dev, REG_STATUS, 1, 3);
    fake_accept(b->guest, b->dev, VIRTIO_F_VERSION_1 | BIT(6));
    fake_set_reg(b->guest, b->dev, REG_STATUS, 1, 0xb);
    assert_int_equal(status(b), 3);
    fake_accept(b->guest, b->dev, VIRTIO_F_VERSION_1 | BIT(34)); /* packed rings are not offered */
    fake_set_reg(b->guest, b->dev, REG_STATUS, 1, 0xb);
    assert_int_equal(status(b), 3);
    fake_accept(b->guest, b->dev, F_TOY);
    fake_set_reg(b->guest, b->dev, REG_STATUS, 1, 0xb);
    assert_int_equal(status(b), 3);
    /* Accepted: from now on the features are frozen. */
    fake_accept(b->guest, b->dev, VIRTIO_F_VERSION_1 | F_TOY);
    fake_set_reg(b->guest, b->dev, REG_STATUS, 1, 0xb);
    assert_int_equal(status(b), 0xb);
    fake_accept(b->guest, b->dev, VIRTIO_F_VERSION_1 | VIRTIO_F_EVENT_IDX);
    assert_int_equal(b->dev->accepted, VIRTIO_F_VERSION_1 | F_TOY);
    assert_false(b->dev->shared.event_idx);
    /* Bits cannot be taken back one by one; NEEDS_RESET cannot be set by a driver. */
    fake_set_reg(b->guest, b->dev, REG_STATUS, 1, 0x41);
    assert_int_equal(status(b), 0xb);
    fake_set_reg(b->guest, b->dev, REG_STATUS, 1, 0);
    assert_int_equal(status(b), 0);
    assert_int_equal(b->dev->accepted, 0);
    assert_int_equal(b->toy.resets, 1);
    bench_free(b);
}

static void test_wrong_order(void **state)
{
    struct bench *b = bench_new();

    (void)state;
    /* DRIVER_OK without FEATURES_OK. */
    fake_set_reg(b->guest, b->dev, REG_STATUS, 1, 7);
    assert_int_equal(status(b), 0x43);
    assert_false(virtio_is_live(b->dev));
    fake_set_reg(b->guest, b->dev, REG_STATUS, 1, 0xf);
    assert_false(virtio_is_live(b->dev));
    /* A queue before FEATURES_OK. */
    fake_set_reg(b->guest, b->dev, REG_STATUS, 1, 0);
    assert_int_equal(status(b), 0);
    fake_set_reg(b->guest, b->dev, REG_STATUS, 1, 3);
    fake_setup_queue(b->guest, b->dev, 0, &b->q[0]);
    assert_int_equal(status(b), 0x43);
    assert_false(b->dev->queue[0].enabled);
    /* Rings that are nonsense. */
    fake_negotiate(b->guest, b->dev, ~0ull);
    b->q[0].used = FAKE_HOLE;
    fake_setup_queue(b->guest, b->dev, 0, &b->q[0]);
    assert_int_equal(status(b), 0x4b);
    /* A doorbell before DRIVER_OK takes nothing; with DRIVER_OK the chain is taken without another one. */
    b->q[0] = fake_queue_at(b->guest, RING, 8);
    fake_negotiate(b->guest, b->dev, 0);
    fake_setup_queue(b->guest, b->dev, 0, &b->q[0]);
    add(b, 0);
    fake_run(b->guest, b->dev, 0);
    assert_int_equal(fake_get16(b->guest, b->q[0].used + 2), 0);
    b->guest->doorbells = 0;
    fake_driver_ok(b->guest, b->dev);
    assert_int_equal(b->guest->doorbells, 1);
    virtio_process(b->dev, 0);
    assert_int_equal(fake_get16(b->guest, b->q[0].used + 2), 1);
    /* Place and size of an enabled queue are frozen. */
    fake_set_reg(b->guest, b->dev, REG_QUEUE_SELECT, 2, 0);
    fake_set_reg(b->guest, b->dev, REG_QUEUE_SIZE, 2, 0x4000);
    fake_set_reg(b->guest, b->dev, REG_DESC, 4, 0xdead0000);
    assert_int_equal(b->dev->queue[0].size, 8);
    assert_int_equal(b->dev->queue[0].desc, RING);
    bench_free(b);
}

static void test_doorbell(void **state)
{
    struct bench *b = bench_live(0);
    uint64_t gpa, bytes;

    (void)state;
    assert_true(virtio_notify_range(b->dev, &gpa, &bytes));
    assert_int_equal(gpa, fake_bar(b->guest, SLOT) + VIRTIO_NOTIFY_OFFSET);
    assert_int_equal(bytes, 4096);
    /* Ringing twice wakes once; queues and pages that are not there wake nobody. */
    fake_kick(b->guest, b->dev, 1);
    fake_kick(b->guest, b->dev, 1);
    assert_int_equal(b->guest->doorbells, 1);
    virtio_notify(b->dev, 8);
    virtio_notify(b->dev, ~0ull);
    fake_mmio_write(b->guest, gpa + 8, 2, 0);
    assert_int_equal(b->guest->doorbells, 1);
    assert_int_equal(b->dev->notified, 2);
    b->toy.processed = 0;
    assert_false(virtio_process(b->dev, 0));
    assert_int_equal(b->toy.processed, 1);
    assert_false(virtio_process(b->dev, 0));
    assert_int_equal(b->toy.processed, 1);
    /* A model that stops for fairness is called again until it is done. */
    b->toy.unfair = true;
    add(b, 0);
    add(b, 0);
    fake_kick(b->guest, b->dev, 0);
    assert_true(virtio_process(b->dev, 0));
    assert_true(virtio_process(b->dev, 0));
    assert_false(virtio_process(b->dev, 0));
    /* The range goes with the BAR, and the owner hears of it. */
    b->guest->moves = 0;
    fake_config_write(b->guest, SLOT, PCI_BAR0, 4, 0xe0800000);
    assert_int_equal(b->guest->moves, 1);
    assert_true(virtio_notify_range(b->dev, &gpa, &bytes));
    assert_int_equal(gpa, 0xe0801000);
    fake_config_write(b->guest, SLOT, PCI_COMMAND, 2, PCI_COMMAND_MASTER);
    assert_false(virtio_notify_range(b->dev, &gpa, &bytes));
    bench_free(b);
}

static void test_bus_master(void **state)
{
    struct bench *b = bench_live(0);

    (void)state;
    /* A function that is no bus master does no DMA; when it becomes one, the waiting doorbell rings again. */
    fake_config_write(b->guest, SLOT, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
    add(b, 0);
    b->guest->trace_count = 0;
    fake_run(b->guest, b->dev, 0);
    assert_int_equal(b->guest->trace_count, 0);
    b->guest->doorbells = 0;
    fake_config_write(b->guest, SLOT, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    assert_int_equal(b->guest->doorbells, 1);
    virtio_process(b->dev, 0);
    assert_int_equal(fake_get16(b->guest, b->q[0].used + 2), 1);
    bench_free(b);
}

static void test_intx(void **state)
{
    struct bench *b = bench_live(0);
    unsigned line = 16 + SLOT;

    (void)state;
    add(b, 0);
    fake_run(b->guest, b->dev, 0);
    assert_true(b->guest->gsi[line]);
    assert_int_equal(b->guest->msi_count, 0);
    /* Reading ISR says why, clears it and takes the line down. */
    assert_int_equal(fake_reg(b->guest, b->dev, REG_ISR, 1), 1);
    assert_false(b->guest->gsi[line]);
    assert_int_equal(fake_reg(b->guest, b->dev, REG_ISR, 1), 0);
    virtio_config_changed(b->dev);
    assert_true(b->guest->gsi[line]);
    add(b, 0);
    fake_run(b->guest, b->dev, 0);
    assert_int_equal(fake_reg(b->guest, b->dev, REG_ISR, 1), 3);
    assert_int_equal(fake_reg(b->guest, b->dev, REG_GENERATION, 1), 1);
    /* A driver that asked for no interrupt gets none. */
    fake_put16(b->guest, b->q[0].avail, VIRTQ_AVAIL_NO_INTERRUPT);
    add(b, 0);
    fake_run(b->guest, b->dev, 0);
    assert_false(b->guest->gsi[line]);
    /* Reset takes the line down. */
    fake_put16(b->guest, b->q[0].avail, 0);
    add(b, 0);
    fake_run(b->guest, b->dev, 0);
    assert_true(b->guest->gsi[line]);
    fake_set_reg(b->guest, b->dev, REG_STATUS, 1, 0);
    assert_false(b->guest->gsi[line]);
    bench_free(b);
}

/* Masked, and then the device is reset: what was to be told is gone, and not sent at the unmask; the table stays. */
static void test_msix_reset(void **state)
{
    struct bench *b = bench_live(0);
    uint64_t table = fake_bar(b->guest, SLOT) + 0x2000, pba = table + 0x1000;

    (void)state;
    fake_msix_on(b->guest, b->dev);
    fake_mmio_write(b->guest, table + 28, 4, 1);
    add(b, 0);
    fake_run(b->guest, b->dev, 0);
    assert_int_equal(fake_mmio_read(b->guest, pba, 4), 2);
    fake_set_reg(b->guest, b->dev, REG_STATUS, 1, 0);
    assert_int_equal(fake_mmio_read(b->guest, pba, 4), 0);
    assert_int_equal(fake_mmio_read(b->guest, table + 24, 4), 0x41);
    assert_int_equal(fake_mmio_read(b->guest, table + 28, 4), 1);
    fake_mmio_write(b->guest, table + 28, 4, 0);
    assert_int_equal(b->guest->msi_count, 0);
    bench_free(b);
}

static void test_msix(void **state)
{
    struct bench *b = bench_live(0);
    uint64_t table = fake_bar(b->guest, SLOT) + 0x2000;

    (void)state;
    fake_msix_on(b->guest, b->dev);
    /* Three chains, one batch, one message: that of the queue. No line, no ISR. */
    for (unsigned i = 0; i < 3; i++)
        add(b, 0);
    fake_run(b->guest, b->dev, 0);
    assert_int_equal(b->guest->msi_count, 1);
    assert_int_equal(b->guest->msi_data[0], 0x41);
    assert_false(b->guest->gsi[16 + SLOT]);
    assert_int_equal(fake_reg(b->guest, b->dev, REG_ISR, 1), 0);
    virtio_config_changed(b->dev);
    assert_int_equal(b->guest->msi_data[1], 0x40);
    /* Masked: remembered, sent at the unmask. */
    fake_mmio_write(b->guest, table + 28, 4, 1);
    add(b, 0);
    fake_run(b->guest, b->dev, 0);
    assert_int_equal(b->guest->msi_count, 2);
    fake_mmio_write(b->guest, table + 28, 4, 0);
    assert_int_equal(b->guest->msi_count, 3);
    /* A later completion, outside of virtio_process, is told at once. */
    add(b, 1);
    fake_run(b->guest, b->dev, 1);
    assert_int_equal(b->guest->msi_count, 3);
    virtio_push(b->dev, 1, &b->toy.held[0], 4);
    assert_int_equal(b->guest->msi_count, 4);
    assert_int_equal(b->guest->msi_data[3], 0x42);
    /* No vector: no message. */
    fake_set_reg(b->guest, b->dev, REG_QUEUE_SELECT, 2, 0);
    fake_set_reg(b->guest, b->dev, REG_QUEUE_VECTOR, 2, 0xffff);
    add(b, 0);
    fake_run(b->guest, b->dev, 0);
    assert_int_equal(b->guest->msi_count, 4);
    assert_int_equal(b->guest->gsi_changes, 0);
    bench_free(b);
}

static void test_broken(void **state)
{
    struct bench *b = bench_live(0);
    unsigned logged = fake_log_counts[2];

    (void)state;
    fake_msix_on(b->guest, b->dev);
    fake_put16(b->guest, b->q[0].avail + 2, 1000);
    fake_run(b->guest, b->dev, 0);
    assert_int_equal(status(b), 0x4f);
    assert_int_equal(b->guest->msi_count, 1);
    assert_int_equal(b->guest->msi_data[0], 0x40); /* the configuration vector tells the driver */
    assert_int_equal(fake_log_counts[2], logged + 1);
    /* The other queue stands still too. */
    add(b, 1);
    fake_run(b->guest, b->dev, 1);
    assert_int_equal(b->toy.held_count, 0);
    /* A reset mends it. */
    b->q[0] = fake_queue_at(b->guest, RING, 8);
    memset(b->guest->ram + RING, 0, 0x10000);
    fake_negotiate(b->guest, b->dev, 0);
    fake_setup_queue(b->guest, b->dev, 0, &b->q[0]);
    fake_driver_ok(b->guest, b->dev);
    add(b, 0);
    fake_run(b->guest, b->dev, 0);
    assert_int_equal(fake_get16(b->guest, b->q[0].used + 2), 1);
    /* Breaking in a loop does not fill the log. */
    for (unsigned i = 0; i < 100; i++) {
        fake_set_reg(b->guest, b->dev, REG_STATUS, 1, 0);
        fake_set_reg(b->guest, b->dev, REG_STATUS, 1, 7);
        assert_int_equal(status(b) & 0x40, 0x40);
    }
    assert_true(fake_log_counts[2] - logged <= 8);
    bench_free(b);
}

static void test_reset_in_flight(void **state)
{
    struct bench *b = bench_live(0);

    (void)state;
    add(b, 1);
    add(b, 1);
    fake_run(b->guest, b->dev, 1);
    assert_int_equal(virtio_in_flight(b->dev), 2);
    b->toy.resets = 0;
    /* The driver resets: the status is not 0 before the last request has ended, and registers do nothing. */
    fake_set_reg(b->guest, b->dev, REG_STATUS, 1, 0);
    assert_int_not_equal(status(b), 0);
    assert_int_equal(b->toy.resets, 1);
    fake_set_reg(b->guest, b->dev, REG_STATUS, 1, 0);
    fake_set_reg(b->guest, b->dev, REG_STATUS, 1, 0xf);
    fake_setup_queue(b->guest, b->dev, 0, &b->q[0]);
    assert_false(b->dev->queue[0].enabled);
    assert_int_equal(b->toy.resets, 1);
    add(b, 0);
    fake_run(b->guest, b->dev, 0);
    b->guest->trace_count = 0;
    virtio_push(b->dev, 1, &b->toy.held[0], 4);
    assert_int_not_equal(status(b), 0);
    virtio_push(b->dev, 1, &b->toy.held[1], 4);
    assert_int_equal(status(b), 0);
    assert_int_equal(b->guest->trace_count, 0); /* neither touched a ring */
    assert_false(b->guest->gsi[16 + SLOT]);
    assert_int_equal(virtio_in_flight(b->dev), 0);
    bench_free(b);
}

static void test_stale_completion(void **state)
{
    struct bench *b = bench_live(0);

    (void)state;
    /* A machine reset that did not wait, and a new driver: a request of the old life ends in the new one. */
    add(b, 1);
    fake_run(b->guest, b->dev, 1);
    virtio_reset(b->dev);
    b->dev->resetting = false; /* as if the wait had been given up */
    b->dev->in_flight = 0;
    b->q[1] = fake_queue_at(b->guest, RING + 0x10000, 8);
    memset(b->guest->ram + RING, 0, 0x20000);
    fake_negotiate(b->guest, b->dev, 0);
    fake_setup_queue(b->guest, b->dev, 1, &b->q[1]);
    fake_driver_ok(b->guest, b->dev);
    assert_false(virtio_owns(b->dev, &b->toy.held[0]));
    b->dev->in_flight = 1;
    virtio_push(b->dev, 1, &b->toy.held[0], 4);
    assert_int_equal(fake_get16(b->guest, b->q[1].used + 2), 0);
    assert_int_equal(b->dev->queue[1].next_used, 0);
    assert_int_equal(b->dev->queue[1].in_flight, 0);
    bench_free(b);
}

static void test_config_window(void **state)
{
    struct bench *b = bench_new();
    unsigned cap = b->dev->cfg_cap;

    (void)state;
    /* The whole device can be driven through configuration space (firmware without MMIO does that). */
    fake_config_write(b->guest, SLOT, cap + 4, 1, 0);
    fake_config_write(b->guest, SLOT, cap + 8, 4, REG_QUEUE_COUNT);
    fake_config_write(b->guest, SLOT, cap + 12, 4, 2);
    assert_int_equal(fake_config_read(b->guest, SLOT, cap + 16, 2), 2);
    fake_config_write(b->guest, SLOT, cap + 8, 4, REG_STATUS);
    fake_config_write(b->guest, SLOT, cap + 12, 4, 1);
    fake_config_write(b->guest, SLOT, cap + 16, 1, 3);
    assert_int_equal(status(b), 3);
    assert_int_equal(fake_config_read(b->guest, SLOT, cap + 16, 1), 3);
    /* Described wrongly: nothing happens. */
    static const uint32_t wrong[][3] = { { 1, REG_STATUS, 1 }, { 0, REG_STATUS, 3 }, { 0, REG_STATUS, 0 },
                                         { 0, 0x4000, 1 },     { 0, 0xffffffff, 1 }, { 0, 2, 4 },
                                         { 0, 0xfffffffc, 4 }, { 0, REG_STATUS, 0xffffffff } };
    for (unsigned i = 0; i < ARRAY_COUNT(wrong); i++) {
        fake_config_write(b->guest, SLOT, cap + 4, 1, wrong[i][0]);
        fake_config_write(b->guest, SLOT, cap + 8, 4, wrong[i][1]);
        fake_config_write(b->guest, SLOT, cap + 12, 4, wrong[i][2]);
        fake_config_write(b->guest, SLOT, cap + 16, 1, 0x80);
        fake_config_write(b->guest, SLOT, cap + 16, 4, 0x80808080);
        (void)fake_config_read(b->guest, SLOT, cap + 16, 4);
        assert_int_equal(status(b), 3);
    }
    bench_free(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_identity),      cmocka_unit_test(test_common),
        cmocka_unit_test(test_negotiation),   cmocka_unit_test(test_wrong_order),
        cmocka_unit_test(test_doorbell),      cmocka_unit_test(test_bus_master),
        cmocka_unit_test(test_intx),          cmocka_unit_test(test_msix),
        cmocka_unit_test(test_msix_reset),
        cmocka_unit_test(test_broken),        cmocka_unit_test(test_reset_in_flight),
        cmocka_unit_test(test_stale_completion), cmocka_unit_test(test_config_window),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
