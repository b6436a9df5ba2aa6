/* SPDX-License-Identifier: MIT */
/* The virtio entropy device (see virtio_rng.h). */
#include <string.h>

#include "vdev/virtio_rng.h"

#define CHAINS_PER_TURN 32

static bool process(struct virtio_device *dev, unsigned queue, uint64_t now_ns)
{
    struct virtio_rng *rng = CONTAINER_OF(dev, struct virtio_rng, device);
    struct virtq_chain *chain = &rng->chain;

    (void)now_ns;
    for (unsigned i = 0; i < CHAINS_PER_TURN; i++) {
        uint8_t bytes[VIRTIO_RNG_BYTES];
        size_t count;

        if (virtio_pop(dev, queue, chain) != VIRTQ_CHAIN)
            return false;
        count = (size_t)MIN(chain->writable_bytes, sizeof(bytes));
        rng->fill(rng->context, bytes, count);
        count = virtq_write(&dev->queue[queue], chain, 0, bytes, count);
        memset(bytes, 0, sizeof(bytes)); /* what may have become a key does not stay on a stack */
        __asm__ volatile("" : : "r"(bytes) : "memory");
        virtio_push(dev, queue, chain, (uint32_t)count);
    }
    return true;
}

static const struct virtio_model rng_model = {
    .kind = "virtio-rng",
    .type = VIRTIO_TYPE_ENTROPY,
    .class_code = 0xff0000,
    .queue_count = 1,
    .queue_size = VIRTIO_RNG_QUEUE_SIZE,
    .process = process,
};

enum status virtio_rng_init(struct virtio_rng *rng, const struct virtio_owner *owner, struct vpci *pci, unsigned slot,
                            void (*fill)(void *context, void *bytes, size_t count), void *context)
{
    memset(rng, 0, sizeof(*rng));
    rng->fill = fill;
    rng->context = context;
    return virtio_init(&rng->device, &rng_model, owner, rng->queue, 0, pci, slot);
}
