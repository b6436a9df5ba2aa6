/* SPDX-License-Identifier: MIT */
/* Promises of the entropy device: each request gets bytes from the generator, never more than it has room for. */
#include "fake_guest.h"
#include "vdev/virtio_rng.h"

#define SLOT 2
#define RING 0x100000ull
#define DATA 0x200000ull

static uint8_t next_byte;

static void fill(void *context, void *bytes, size_t count)
{
    uint8_t *to = bytes;

    assert_ptr_equal(context, &next_byte);
    for (size_t i = 0; i < count; i++)
        to[i] = ++next_byte;
}

static void test_entropy(void **state)
{
    struct fake_guest *guest = fake_guest_new();
    struct virtio_rng *rng = calloc(1, sizeof(*rng));
    struct virtio_owner owner = fake_owner(guest);
    struct fake_queue q = fake_queue_at(guest, RING, 8);
    struct virtio_device *dev = &rng->device;
    uint32_t id, written;

    (void)state;
    next_byte = 0;
    assert_int_equal(virtio_rng_init(rng, &owner, &guest->pci, SLOT, fill, &next_byte), OK);
    assert_int_equal(fake_config_read(guest, SLOT, 0, 4), 0x10441af4);
    fake_negotiate(guest, dev, ~0ull);
    fake_setup_queue(guest, dev, 0, &q);
    fake_driver_ok(guest, dev);

    const struct gmem_segment small[] = { { GPA(DATA), 3 }, { GPA(DATA + 100), 5 } };
    fake_chain(&q, small, 0, 2);
    fake_run(guest, dev, 0);
    assert_true(fake_used(&q, &id, &written));
    assert_int_equal(written, 8);
    assert_memory_equal(guest->ram + DATA, "\1\2\3\0", 4);
    assert_memory_equal(guest->ram + DATA + 100, "\4\5\6\7\10\0", 6);

    const struct gmem_segment large[] = { { GPA(DATA), 1 * MIB } };
    fake_chain(&q, large, 0, 1);
    fake_run(guest, dev, 0);
    assert_true(fake_used(&q, &id, &written));
    assert_int_equal(written, VIRTIO_RNG_BYTES);
    assert_int_equal(guest->ram[DATA + VIRTIO_RNG_BYTES], 0);

    /* Nothing to write to: answered with nothing; the generator is not asked for bytes. */
    const struct gmem_segment readable[] = { { GPA(DATA), 16 } };
    uint8_t before = next_byte;
    fake_chain(&q, readable, 1, 0);
    fake_run(guest, dev, 0);
    assert_true(fake_used(&q, &id, &written));
    assert_int_equal(written, 0);
    assert_int_equal(next_byte, before);

    assert_int_equal(fake_save(guest, dev), OK);
    assert_int_equal(fake_restore(guest, dev, guest), OK);
    free(rng);
    free(guest);
}

/* A driver that refills its ring for ever does not keep the machine's I/O thread: each turn ends. */
static struct fake_queue *refilled;

static void refill(struct fake_guest *guest, uint64_t gpa, uint64_t count)
{
    (void)count;
    if (gpa == refilled->avail + 2)
        fake_put16(guest, refilled->avail + 2, (uint16_t)(fake_get16(guest, refilled->avail + 2) + 1));
}

static void test_fair(void **state)
{
    struct fake_guest *guest = fake_guest_new();
    struct virtio_rng *rng = calloc(1, sizeof(*rng));
    struct virtio_owner owner = fake_owner(guest);
    struct fake_queue q = fake_queue_at(guest, RING, 8);

    (void)state;
    assert_int_equal(virtio_rng_init(rng, &owner, &guest->pci, SLOT, fill, &next_byte), OK);
    fake_negotiate(guest, &rng->device, 0);
    fake_setup_queue(guest, &rng->device, 0, &q);
    fake_driver_ok(guest, &rng->device);
    for (uint16_t i = 0; i < 8; i++) {
        fake_desc(guest, q.desc, i, DATA, 64, VIRTQ_DESC_WRITE, 0);
        fake_put16(guest, q.avail + 4 + 2ull * i, i);
    }
    fake_put16(guest, q.avail + 2, 8);
    refilled = &q;
    guest->after_read = refill;
    fake_kick(guest, &rng->device, 0);
    for (unsigned i = 1; i <= 10; i++) {
        assert_true(virtio_process(&rng->device, 0)); /* there is more, and the caller decides when */
        assert_int_equal(fake_get16(guest, q.used + 2), 32 * i);
    }
    free(rng);
    free(guest);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_entropy), cmocka_unit_test(test_fair) };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
