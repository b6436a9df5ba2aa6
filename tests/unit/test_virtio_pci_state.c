/* SPDX-License-Identifier: MIT */
/* Promises of virtio-pci about its state: saved and restored it goes on, and a stream that lies does no harm. */
#include "toy_device.h"

static void test_state(void **state)
{
    struct bench *b = bench_live(~0ull), *c = bench_new();

    (void)state;
    fake_msix_on(b->guest, b->dev);
    fake_put16(b->guest, b->q[0].avail + 4 + 16, 0);
    add(b, 0);
    fake_run(b->guest, b->dev, 0);
    b->toy.saved = 0x12345678;
    virtio_config_changed(b->dev);
    /* With a request in flight there is nothing to save; quiesce stops new ones. */
    add(b, 1);
    fake_run(b->guest, b->dev, 1);
    assert_int_equal(fake_save(b->guest, b->dev), ERR_BUSY);
    virtio_quiesce(b->dev);
    add(b, 1);
    fake_run(b->guest, b->dev, 1);
    assert_int_equal(b->toy.held_count, 1);
    virtio_push(b->dev, 1, &b->toy.held[0], 1);
    assert_int_equal(virtio_in_flight(b->dev), 0);
    assert_int_equal(fake_save(b->guest, b->dev), OK);

    memcpy(c->guest->ram, b->guest->ram, sizeof(c->guest->ram));
    assert_int_equal(fake_restore(c->guest, c->dev, b->guest), OK);
    assert_int_equal(c->toy.saved, 0x12345678);
    assert_int_equal(c->toy.resets, 1); /* whatever the device did before is forgotten first */
    assert_int_equal(status(c), 0xf);
    assert_int_equal(c->dev->accepted, b->dev->accepted);
    assert_true(c->dev->shared.event_idx);
    assert_int_equal(fake_reg(c->guest, c->dev, REG_GENERATION, 1), 1);
    /* It waits until it is resumed, then takes the chain that was left in the ring, and interrupts as agreed. */
    fake_run(c->guest, c->dev, 1);
    assert_int_equal(c->toy.held_count, 0);
    c->guest->doorbells = 0;
    virtio_resume(c->dev);
    assert_int_equal(c->guest->doorbells, 1);
    virtio_process(c->dev, 0);
    assert_int_equal(c->toy.held_count, 1);
    fake_put16(c->guest, b->q[1].avail + 4 + 16, 1);
    virtio_push(c->dev, 1, &c->toy.held[0], 1);
    assert_int_equal(c->guest->msi_count, 1);
    assert_int_equal(c->guest->msi_data[0], 0x42);
    assert_int_equal(fake_get16(c->guest, b->q[1].used + 2), 2);
    bench_free(b);
    bench_free(c);
}

/* A stream whose device section is changed at `offset` and sealed again; the payload starts with the type. */
struct forged { const uint8_t *bytes; size_t count; };

static void forged_body(struct stream_writer *w, void *arg)
{
    const struct forged *forged = arg;

    stream_put_bytes(w, forged->bytes, forged->count);
}

static uint8_t collected[1024];
static size_t collected_bytes;

static enum status collect(void *context, const void *bytes, size_t count)
{
    (void)context;
    assert_true(collected_bytes + count <= sizeof(collected));
    memcpy(collected + collected_bytes, bytes, count);
    collected_bytes += count;
    return OK;
}

static enum status restore_forged(struct bench *b, const uint8_t *payload, size_t count, uint16_t version)
{
    const struct forged forged = { payload, count };
    struct stream_writer w;
    struct stream_reader r;

    collected_bytes = 0;
    stream_writer_init(&w, collect, NULL);
    stream_section(&w, VIRTIO_STREAM_TAG, SLOT, version, STREAM_MANDATORY, forged_body, (void *)&forged);
    assert_int_equal(stream_finish(&w), OK);
    assert_int_equal(stream_reader_init(&r, collected, collected_bytes), OK);
    assert_true(stream_next(&r));
    virtio_restore(b->dev, &r);
    return r.error;
}

static void test_hostile_stream(void **state)
{
    struct bench *b = bench_live(~0ull), *c = bench_new();
    uint8_t payload[128];
    size_t count;
    struct stream_reader r;

    (void)state;
    assert_int_equal(fake_save(b->guest, b->dev), OK);
    assert_int_equal(stream_reader_init(&r, b->guest->stream, b->guest->stream_bytes), OK);
    while (stream_next(&r) && strcmp(r.tag, VIRTIO_STREAM_TAG))
        ;
    count = stream_left(&r);
    assert_true(count <= sizeof(payload));
    stream_get_bytes(&r, payload, count);
    assert_int_equal(restore_forged(c, payload, count, 1), OK);
    assert_int_equal(restore_forged(c, payload, count, 2), ERR_VERSION);

    /* Cut at every byte: refused, and the device is reset, not half restored. */
    for (size_t cut = 0; cut < count; cut++) {
        assert_int_not_equal(restore_forged(c, payload, cut, 1), OK);
        assert_int_equal(c->dev->status, 0);
        assert_false(c->dev->queue[0].enabled);
    }
    /* Every byte with every bit turned: refused, or a state in which it runs without harm. */
    for (size_t i = 0; i < count; i++) {
        for (unsigned bit = 0; bit < 8; bit++) {
            enum status result;

            payload[i] ^= (uint8_t)(1u << bit);
            result = restore_forged(c, payload, count, 1);
            assert_int_equal(c->dev->in_flight, 0);
            if (result != OK)
                assert_int_equal(c->dev->status, 0);
            if (c->dev->status & VIRTIO_STATUS_DRIVER_OK)
                assert_true(c->dev->status & VIRTIO_STATUS_FEATURES_OK);
            for (unsigned q = 0; q < 2; q++) {
                assert_true(c->dev->queue[q].vector < 3 || c->dev->queue[q].vector == VIRTQ_NO_VECTOR);
                if (c->dev->queue[q].enabled)
                    assert_true(c->dev->queue[q].size && c->dev->queue[q].size <= 64);
            }
            virtio_resume(c->dev);
            c->toy.held_count = 0;
            for (unsigned n = 0; n < 4 && virtio_process(c->dev, 0); n++)
                ;
            while (c->toy.held_count)
                virtio_push(c->dev, 1, &c->toy.held[--c->toy.held_count], 0);
            payload[i] ^= (uint8_t)(1u << bit);
        }
    }
    bench_free(b);
    bench_free(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_state), cmocka_unit_test(test_hostile_stream) };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
