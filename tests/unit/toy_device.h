/* SPDX-License-Identifier: MIT */
/*
 * What the tests of virtio-pci share: a toy device with two queues, on the bus of a fake guest, and a driver's first steps
 * with it. Each test program includes it once.
 */
#ifndef TOY_DEVICE_H
#define TOY_DEVICE_H

#include "fake_guest.h"
#include "fake_kernel.h"

#define SLOT 3
#define RING 0x100000ull
#define DATA 0x200000ull
#define F_TOY BIT(5)

/* A device with two queues. Queue 0 answers at once; chains of queue 1 are held until the test lets them go. */
struct toy {
    struct virtio_device device;
    struct virtqueue queue[2];
    struct virtq_chain held[8], chain;
    unsigned held_count, resets, processed;
    bool unfair;
    uint8_t config[12];
    uint32_t saved;
};

static bool toy_process(struct virtio_device *dev, unsigned queue, uint64_t now_ns)
{
    struct toy *toy = CONTAINER_OF(dev, struct toy, device);

    (void)now_ns;
    toy->processed++;
    for (;;) {
        struct virtq_chain *chain = queue ? &toy->held[toy->held_count] : &toy->chain;

        if (toy->held_count == ARRAY_COUNT(toy->held) || virtio_pop(dev, queue, chain) != VIRTQ_CHAIN)
            return false;
        if (queue)
            toy->held_count++;
        else
            virtio_push(dev, queue, chain, 1);
        if (toy->unfair)
            return true;
    }
}

static void toy_config_read(struct virtio_device *dev, unsigned offset, unsigned size, uint8_t *bytes)
{
    memcpy(bytes, CONTAINER_OF(dev, struct toy, device)->config + offset, size);
}

static void toy_config_write(struct virtio_device *dev, unsigned offset, unsigned size, const uint8_t *bytes)
{
    memcpy(CONTAINER_OF(dev, struct toy, device)->config + offset, bytes, size);
}

static void toy_reset(struct virtio_device *dev)
{
    CONTAINER_OF(dev, struct toy, device)->resets++;
}

static void toy_save(const struct virtio_device *dev, struct stream_writer *w)
{
    stream_put_u32(w, CONTAINER_OF(dev, const struct toy, device)->saved);
}

static void toy_restore(struct virtio_device *dev, struct stream_reader *r)
{
    CONTAINER_OF(dev, struct toy, device)->saved = stream_get_u32(r);
}

static const struct virtio_model toy_model = {
    .kind = "virtio-toy",
    .type = 42,
    .class_code = 0xff0000,
    .queue_count = 2,
    .queue_size = 64,
    .config_bytes = 12,
    .process = toy_process,
    .config_read = toy_config_read,
    .config_write = toy_config_write,
    .reset = toy_reset,
    .save = toy_save,
    .restore = toy_restore,
};

struct bench {
    struct fake_guest *guest;
    struct toy toy;
    struct virtio_device *dev;
    struct fake_queue q[2];
};

static inline struct bench *bench_new(void)
{
    struct bench *b = calloc(1, sizeof(*b));
    struct virtio_owner owner;

    b->guest = fake_guest_new();
    owner = fake_owner(b->guest);
    b->dev = &b->toy.device;
    assert_int_equal(virtio_init(b->dev, &toy_model, &owner, b->toy.queue, F_TOY, &b->guest->pci, SLOT), OK);
    for (unsigned i = 0; i < 2; i++)
        b->q[i] = fake_queue_at(b->guest, RING + i * 0x10000, 8);
    return b;
}

/* The same, with a driver that runs it. */
static inline struct bench *bench_live(uint64_t features)
{
    struct bench *b = bench_new();

    fake_negotiate(b->guest, b->dev, features);
    fake_setup_queue(b->guest, b->dev, 0, &b->q[0]);
    fake_setup_queue(b->guest, b->dev, 1, &b->q[1]);
    fake_driver_ok(b->guest, b->dev);
    assert_int_equal(fake_reg(b->guest, b->dev, REG_STATUS, 1), 0xf);
    while (virtio_process(b->dev, 0))
        ;
    b->guest->doorbells = 0;
    return b;
}

static inline void bench_free(struct bench *b)
{
    free(b->guest);
    free(b);
}

static inline void add(struct bench *b, unsigned queue)
{
    const struct gmem_segment s = { GPA(DATA), 4 };

    fake_chain(&b->q[queue], &s, 0, 1);
}

static inline unsigned status(struct bench *b)
{
    return fake_reg(b->guest, b->dev, REG_STATUS, 1);
}

#endif
