/* SPDX-License-Identifier: MIT */
/*
 * A virtio console with one port (VIRTIO 1.2, 5.3): hvc0 of a Linux guest. Output goes to a char_sink as the guest
 * sends it. Input waits in a small ring until the guest has given buffers; what does not fit is not taken, and the
 * caller keeps it.
 */
#ifndef VDEV_VIRTIO_CONSOLE_H
#define VDEV_VIRTIO_CONSOLE_H

#include "vdev/virtio_pci.h"

#define VIRTIO_CONSOLE_INPUT_BYTES 1024
#define VIRTIO_CONSOLE_QUEUE_SIZE 64

struct virtio_console {
    struct virtio_device device;
    struct virtqueue queue[2]; /* 0: to the guest, 1: from the guest */
    struct char_sink sink;
    struct virtq_chain chain; /* the one being worked on */
    unsigned input_first, input_count;
    uint8_t input[VIRTIO_CONSOLE_INPUT_BYTES];
};

/* sink is copied. Errors as virtio_init. */
enum status virtio_console_init(struct virtio_console *console, const struct virtio_owner *owner, struct vpci *pci,
                                unsigned slot, const struct char_sink *sink) MUST_CHECK;
/* Input for the guest; returns the bytes taken. Rings the doorbell. Device lock held. */
size_t virtio_console_input(struct virtio_console *console, const void *bytes, size_t count);

#endif
