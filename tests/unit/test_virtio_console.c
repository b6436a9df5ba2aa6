/* SPDX-License-Identifier: MIT */
/* Promises of the virtio console: no byte lost, doubled or out of order, in either direction, across a save too. */
#include "fake_guest.h"
#include "vdev/virtio_console.h"

#define SLOT 4
#define RING 0x100000ull
#define DATA 0x200000ull

struct bench {
    struct fake_guest *guest;
    struct virtio_console console;
    struct virtio_device *dev;
    struct fake_queue in, out;
    uint8_t printed[400000];
    size_t printed_count;
};

static void sink(void *context, const void *bytes, size_t count)
{
    struct bench *b = context;

    assert_true(b->printed_count + count <= sizeof(b->printed));
    memcpy(b->printed + b->printed_count, bytes, count);
    b->printed_count += count;
}

static struct bench *bench_new(void)
{
    struct bench *b = calloc(1, sizeof(*b));
    struct virtio_owner owner;
    const struct char_sink out = { sink, b };

    b->guest = fake_guest_new();
    owner = fake_owner(b->guest);
    assert_int_equal(virtio_console_init(&b->console, &owner, &b->guest->pci, SLOT, &out), OK);
    b->dev = &b->console.device;
    b->in = fake_queue_at(b->guest, RING, 16);
    b->out = fake_queue_at(b->guest, RING + 0x10000, 16);
    fake_negotiate(b->guest, b->dev, 0);
    fake_setup_queue(b->guest, b->dev, 0, &b->in);
    fake_setup_queue(b->guest, b->dev, 1, &b->out);
    fake_driver_ok(b->guest, b->dev);
    return b;
}

static void bench_free(struct bench *b)
{
    free(b->guest);
    free(b);
}

static void test_output(void **state)
{
    struct bench *b = bench_new();
    const struct gmem_segment s[] = { { GPA(DATA), 1000 }, { GPA(DATA + 0x1000), 7 } };
    uint32_t id, written;

    (void)state;
    assert_int_equal(fake_config_read(b->guest, SLOT, 0, 4), 0x10431af4);
    for (unsigned i = 0; i < 1007; i++)
        b->guest->ram[i < 1000 ? DATA + i : DATA + 0x1000 + i - 1000] = (uint8_t)(i * 11);
    fake_chain(&b->out, s, 2, 0);
    fake_run(b->guest, b->dev, 1);
    assert_true(fake_used(&b->out, &id, &written));
    assert_int_equal(written, 0);
    assert_int_equal(b->printed_count, 1007);
    for (unsigned i = 0; i < 1007; i++)
        assert_int_equal(b->printed[i], (uint8_t)(i * 11));
    /* Nobody attached: the guest is served all the same. */
    b->console.sink.write = NULL;
    fake_chain(&b->out, s, 2, 0);
    fake_run(b->guest, b->dev, 1);
    assert_true(fake_used(&b->out, &id, &written));
    bench_free(b);
    /* A gigantic write is no way to hold the machine. */
    b = bench_new();
    const struct gmem_segment big[] = { { GPA(0), 4 * MIB } };
    fake_chain(&b->out, big, 1, 0);
    fake_run(b->guest, b->dev, 1);
    assert_int_equal(fake_reg(b->guest, b->dev, REG_STATUS, 1), 0x4f);
    assert_int_equal(b->printed_count, 0);
    assert_int_equal(virtio_in_flight(b->dev), 0);
    bench_free(b);
}

static void test_input(void **state)
{
    struct bench *b = bench_new();
    const struct gmem_segment s[] = { { GPA(DATA), 10 }, { GPA(DATA + 100), 6 } };
    uint8_t bytes[2000];
    uint32_t id, written;

    (void)state;
    for (unsigned i = 0; i < sizeof(bytes); i++)
        bytes[i] = (uint8_t)(i * 3 + i / 256);
    /* No buffers yet: as much as fits is kept, the rest is the caller's. */
    assert_int_equal(virtio_console_input(&b->console, bytes, sizeof(bytes)), VIRTIO_CONSOLE_INPUT_BYTES);
    assert_int_equal(virtio_console_input(&b->console, bytes, 1), 0);
    while (virtio_process(b->dev, 0))
        ;
    /* Buffers come: each is filled, in order; then more input follows at once. */
    unsigned got = 0, given = VIRTIO_CONSOLE_INPUT_BYTES;
    while (got < sizeof(bytes)) {
        fake_chain(&b->in, s, 0, 2);
        fake_run(b->guest, b->dev, 0);
        assert_true(fake_used(&b->in, &id, &written));
        assert_true(written == 16 || got + written == sizeof(bytes));
        for (unsigned i = 0; i < written; i++)
            assert_int_equal(b->guest->ram[i < 10 ? DATA + i : DATA + 100 + i - 10], bytes[got + i]);
        got += written;
        given += (unsigned)virtio_console_input(&b->console, bytes + given, sizeof(bytes) - given);
    }
    /* A buffer without input waits in the ring, and the next byte finds it without a notification. */
    fake_chain(&b->in, s, 0, 2);
    fake_run(b->guest, b->dev, 0);
    assert_false(fake_used(&b->in, &id, &written));
    b->guest->doorbells = 0;
    assert_int_equal(virtio_console_input(&b->console, "x", 1), 1);
    assert_int_equal(b->guest->doorbells, 1);
    virtio_process(b->dev, 0);
    assert_true(fake_used(&b->in, &id, &written));
    assert_int_equal(written, 1);
    assert_int_equal(b->guest->ram[DATA], 'x');
    bench_free(b);
}

static void test_state(void **state)
{
    struct bench *b = bench_new(), *c = bench_new();
    const struct gmem_segment s[] = { { GPA(DATA), 100 } };
    uint32_t id, written;

    (void)state;
    b->console.input_first = VIRTIO_CONSOLE_INPUT_BYTES - 3; /* it wraps in the ring */
    assert_int_equal(virtio_console_input(&b->console, "hello world", 11), 11);
    assert_int_equal(fake_save(b->guest, b->dev), OK);
    memcpy(c->guest->ram, b->guest->ram, sizeof(c->guest->ram));
    assert_int_equal(fake_restore(c->guest, c->dev, b->guest), OK);
    virtio_resume(c->dev);
    fake_chain(&c->in, s, 0, 1);
    fake_run(c->guest, c->dev, 0);
    assert_true(fake_used(&c->in, &id, &written));
    assert_int_equal(written, 11);
    assert_memory_equal(c->guest->ram + DATA, "hello world", 11);
    bench_free(b);
    bench_free(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_output), cmocka_unit_test(test_input),
                                        cmocka_unit_test(test_state) };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
