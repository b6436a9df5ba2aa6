/* SPDX-License-Identifier: MIT */
/*
 * A virtio entropy device (VIRTIO 1.2, 5.4). Each request is answered at once with up to VIRTIO_RNG_BYTES bytes from
 * the owner's generator; a driver that wants more asks again.
 */
#ifndef VDEV_VIRTIO_RNG_H
#define VDEV_VIRTIO_RNG_H

#include "vdev/virtio_pci.h"

#define VIRTIO_RNG_BYTES 256
#define VIRTIO_RNG_QUEUE_SIZE 64

struct virtio_rng {
    struct virtio_device device;
    struct virtqueue queue[1];
    void (*fill)(void *context, void *bytes, size_t count);
    void *context;
    struct virtq_chain chain; /* the one being worked on */
};

/* `fill` gives random bytes fit for keys; called with the device lock held. Errors as virtio_init. */
enum status virtio_rng_init(struct virtio_rng *rng, const struct virtio_owner *owner, struct vpci *pci, unsigned slot,
                            void (*fill)(void *context, void *bytes, size_t count), void *context) MUST_CHECK;

#endif
