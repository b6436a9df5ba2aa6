/* SPDX-License-Identifier: MIT */
/*
 * The driver's side of a virtqueue, against a device that the test plays, honest and not. Guarded: every chain comes back
 * once with its cookie, in whatever order the device likes; indices go round 2^16; nothing that the device writes is
 * believed further than what was given to it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "drivers/virtio_ring.h"

#define SIZE 8

static struct virtio_ring ring;
static struct virtio_desc desc[SIZE];
static struct virtio_slot slot[SIZE];
static union { struct virtio_avail avail; uint8_t bytes[4 + 2 * SIZE]; } driver ALIGNED(16);
static union { struct virtio_used used; uint8_t bytes[4 + 8 * SIZE]; } device ALIGNED(16);
static uint16_t seen; /* of avail, by the device */

static int setup(void **state)
{
    (void)state;
    memset(desc, 0, sizeof desc);
    memset(&driver, 0, sizeof driver);
    memset(&device, 0, sizeof device);
    virtio_ring_init(&ring, desc, &driver, &device, slot, SIZE);
    seen = 0;
    return 0;
}

static bool put(unsigned out, unsigned in, uintptr_t cookie)
{
    struct virtio_piece piece[SIZE + 1];

    for (unsigned i = 0; i < SIZE + 1; i++)
        piece[i] = (struct virtio_piece){ 0x1000 * (i + 1), 100 };
    return virtio_ring_put(&ring, piece, out, in, (void *)cookie);
}

/* The device takes a chain; returns its head. */
static uint16_t device_takes(void)
{
    assert_int_not_equal(seen, driver.avail.idx);
    return driver.avail.ring[seen++ % SIZE];
}

static void device_returns(uint32_t id, uint32_t bytes)
{
    device.used.ring[device.used.idx % SIZE].id = id;
    device.used.ring[device.used.idx % SIZE].bytes = bytes;
    device.used.idx++;
}

static void expect(uintptr_t cookie, uint32_t bytes)
{
    void *got;
    uint32_t count;

    assert_int_equal(virtio_ring_take(&ring, &got, &count), VIRTIO_TAKEN);
    assert_int_equal((uintptr_t)got, cookie);
    assert_int_equal(count, bytes);
}

static void expect_none(enum virtio_taken what)
{
    void *got;
    uint32_t count;

    assert_int_equal(virtio_ring_take(&ring, &got, &count), what);
}

static void a_chain_is_what_the_standard_says(void **state)
{
    (void)state;
    assert_true(put(1, 2, 7));
    uint16_t at = device_takes();
    assert_int_equal(desc[at].address, 0x1000);
    assert_int_equal(desc[at].flags, VIRTIO_DESC_NEXT);
    at = desc[at].next;
    assert_int_equal(desc[at].flags, VIRTIO_DESC_NEXT | VIRTIO_DESC_WRITE);
    at = desc[at].next;
    assert_int_equal(desc[at].address, 0x3000);
    assert_int_equal(desc[at].flags, VIRTIO_DESC_WRITE);
    assert_int_equal(ring.free_count, SIZE - 3);
}

static void indices_go_round(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 200000; i++) {
        unsigned in = i % 3;
        assert_true(put(1, in, i + 1));
        device_returns(device_takes(), in * 100);
        expect(i + 1, in * 100);
        expect_none(VIRTIO_NONE);
        assert_int_equal(ring.free_count, SIZE);
    }
}

static void chains_come_back_in_any_order(void **state)
{
    uint16_t head[4];
    (void)state;

    for (unsigned round = 0; round < 100; round++) {
        for (unsigned i = 0; i < 4; i++) {
            assert_true(put(1, 1, i + 1));
            head[i] = device_takes();
        }
        assert_false(put(1, 0, 9));
        for (unsigned i = 0; i < 4; i++)
            device_returns(head[(i * 3 + round) % 4], i);
        for (unsigned i = 0; i < 4; i++)
            expect((i * 3 + round) % 4 + 1, i);
        assert_int_equal(ring.free_count, SIZE);
    }
}

static void what_does_not_fit_changes_nothing(void **state)
{
    (void)state;
    assert_false(put(0, 0, 1));
    assert_false(put(SIZE + 1, 0, 1));
    assert_true(put(SIZE - 1, 0, 1));
    assert_false(put(1, 1, 1));
    assert_int_equal(driver.avail.idx, 1);
    assert_true(put(1, 0, 1));
    assert_int_equal(ring.free_count, 0);
}

static void lies_are_nonsense(void **state)
{
    void *cookie;
    (void)state;

    for (unsigned lie = 0; lie < 6; lie++) {
        setup(NULL);
        assert_true(put(0, 2, 1));
        uint16_t head = device_takes();
        switch (lie) {
        case 0: device_returns(SIZE, 0); break;
        case 1: device_returns(0xffffffff, 0); break;
        case 2: device_returns(desc[head].next, 0); break; /* in the middle of a chain */
        case 3: device_returns(head, 201); break;          /* more than there is room for */
        case 4: device_returns((head + 4) % SIZE, 0); break;
        case 5: device.used.idx = SIZE + 1; break;         /* more than the ring has */
        }
        expect_none(VIRTIO_NONSENSE);
        assert_true(virtio_ring_drop(&ring, &cookie));
        assert_int_equal((uintptr_t)cookie, 1);
        assert_false(virtio_ring_drop(&ring, &cookie));
        assert_int_equal(ring.free_count, SIZE);
    }
    setup(NULL);
    assert_true(put(1, 0, 1));
    uint16_t head = device_takes();
    device_returns(head, 0);
    device_returns(head, 0); /* twice */
    expect(1, 0);
    expect_none(VIRTIO_NONSENSE);
    setup(NULL);
    assert_true(put(2, 1, 1));
    memset(desc, 0xff, sizeof desc); /* chains are not read back from where the device can write */
    device_returns(device_takes(), 100);
    expect(1, 100);
    assert_int_equal(ring.free_count, SIZE);
    assert_true(put(SIZE, 0, 2));
}

static void notices_and_interrupts(void **state)
{
    (void)state;
    assert_true(virtio_ring_wants_notice(&ring));
    device.used.flags = VIRTIO_USED_NO_NOTIFY;
    assert_false(virtio_ring_wants_notice(&ring));
    virtio_ring_interrupt(&ring, false);
    assert_int_equal(driver.avail.flags, VIRTIO_AVAIL_NO_INTERRUPT);
    virtio_ring_interrupt(&ring, true);
    assert_int_equal(driver.avail.flags, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(a_chain_is_what_the_standard_says, setup),
        cmocka_unit_test_setup(indices_go_round, setup),
        cmocka_unit_test_setup(chains_come_back_in_any_order, setup),
        cmocka_unit_test_setup(what_does_not_fit_changes_nothing, setup),
        cmocka_unit_test_setup(lies_are_nonsense, setup),
        cmocka_unit_test_setup(notices_and_interrupts, setup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
