/* SPDX-License-Identifier: MIT */
/*
 * A virtio disk (VIRTIO 1.2, 5.2) in front of a struct blkdev: read, write, flush, discard, write zeroes, get ID. One
 * queue; as many requests in flight as the owner gives slots. A driver's malformed request breaks the device; one that
 * is well-formed but wrong (beyond the end, unaligned, write to a read-only disk) gets an I/O error, an unknown one
 * "unsupported". Largest transfer: VIRTIO_BLK_BYTES_MAX, which follows from the offered segment count and size.
 */
#ifndef VDEV_VIRTIO_BLK_H
#define VDEV_VIRTIO_BLK_H

#include "vdev/virtio_pci.h"

#define VIRTIO_BLK_SECTOR 512u
#define VIRTIO_BLK_QUEUE_SIZE 128
#define VIRTIO_BLK_SEG_MAX (VIRTQ_SEGMENTS_MAX - 2) /* header and status take one each */
#define VIRTIO_BLK_SIZE_MAX (64 * KIB)
#define VIRTIO_BLK_BYTES_MAX (VIRTIO_BLK_SEG_MAX * VIRTIO_BLK_SIZE_MAX)
#define VIRTIO_BLK_ID_BYTES 20

struct virtio_blk;
struct virtio_blk_slot {
    struct virtio_blk *disk;
    struct virtq_chain chain;
    struct blk_request request;
    gpa_t status;     /* where the status byte goes */
    uint32_t written; /* for the used ring */
    bool busy;
};

struct virtio_blk {
    struct virtio_device device;
    struct virtqueue queue[1];
    struct blkdev *backend;
    struct virtio_blk_slot *slot;
    unsigned slot_count;
    bool starved; /* chains wait for a slot */
    char id[VIRTIO_BLK_ID_BYTES];
    uint64_t read_bytes, written_bytes, request_count, error_count; /* for `vm show`; not saved */
};

/*
 * A disk in that slot of the bus. backend and slots (slot_count of them, at least 1) are the owner's and must stay.
 * `id`: at most 20 bytes, the serial number. Errors: ERR_INVALID if the backend's size is no multiple of 512 or there
 * are no slots; else as virtio_init.
 */
enum status virtio_blk_init(struct virtio_blk *disk, const struct virtio_owner *owner, struct vpci *pci,
                            unsigned pci_slot, struct blkdev *backend, const char *id, struct virtio_blk_slot *slots,
                            unsigned slot_count) MUST_CHECK;

/* backend->bytes has grown, by whole blocks: the driver is told. Device lock. */
void virtio_blk_grown(struct virtio_blk *disk);

#endif
