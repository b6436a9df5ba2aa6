/* SPDX-License-Identifier: MIT */
/*
 * A virtio 1.x device and its PCI transport, modern only (VIRTIO 1.2, chapters 2, 3 and 4.1). A device model (block,
 * entropy, console) brings a struct virtio_model and handles chains; status, features, queues, interrupts, reset,
 * saving and the lies of drivers are handled here.
 *
 * One 32-bit BAR of 16 KiB: page 0 common configuration, ISR and device configuration; page 1 doorbells (4 bytes a
 * queue); page 2 the MSI-X table; page 3 its pending bits. PCI ID 1af4:1040 + type, revision 1.
 *
 * Two contexts. virtio_notify() is for the exit path: it sets one bit and calls owner->doorbell, needs no lock and may
 * run on any vCPU's thread. Everything else runs with the machine's device lock held: register accesses, and
 * virtio_process(), which the owner's I/O thread calls after a doorbell and which does the work.
 *
 * Broken: a driver that violates the protocol gets DEVICE_NEEDS_RESET and a configuration interrupt, the reason is
 * logged with the device's name (the first few times), and nothing moves until it resets the device.
 *
 * Reset with requests in flight: their chains belong to an older generation at once, so no completion touches a ring;
 * the status register reads nonzero until the last of them has ended, as VIRTIO 1.2, 4.1.4.3.1 lets a driver expect, so
 * that no data lands in memory that the driver has given to something else.
 */
#ifndef VDEV_VIRTIO_PCI_H
#define VDEV_VIRTIO_PCI_H

#include "vdev/vdev.h"
#include "vdev/virtqueue.h"
#include "vdev/vpci.h"

#define VIRTIO_QUEUES_MAX (VPCI_MSIX_MAX - 1)
#define VIRTIO_BAR_BYTES 0x4000u
#define VIRTIO_NOTIFY_OFFSET 0x1000u
#define VIRTIO_NOTIFY_MULTIPLIER 4u

/* Device types (VIRTIO 1.2, 5). */
#define VIRTIO_TYPE_NET 1
#define VIRTIO_TYPE_BLOCK 2
#define VIRTIO_TYPE_CONSOLE 3
#define VIRTIO_TYPE_ENTROPY 4

/* Feature bits of the transport and the ring (VIRTIO 1.2, 6). */
#define VIRTIO_F_INDIRECT_DESC BIT(28)
#define VIRTIO_F_EVENT_IDX BIT(29)
#define VIRTIO_F_VERSION_1 BIT(32)

/* Device status (VIRTIO 1.2, 2.1). */
#define VIRTIO_STATUS_ACKNOWLEDGE 0x01u
#define VIRTIO_STATUS_DRIVER 0x02u
#define VIRTIO_STATUS_DRIVER_OK 0x04u
#define VIRTIO_STATUS_FEATURES_OK 0x08u
#define VIRTIO_STATUS_NEEDS_RESET 0x40u
#define VIRTIO_STATUS_FAILED 0x80u

struct virtio_device;

/* What a kind of device brings. */
struct virtio_model {
    const char *kind; /* "virtio-blk" */
    uint16_t type;
    uint32_t class_code;
    unsigned queue_count;
    uint16_t queue_size;
    unsigned config_bytes; /* device configuration, at most 1024 */
    /*
     * Takes chains from the queue with virtio_pop and gives them back with virtio_push, now or later. Returns true if
     * it stopped for fairness with work left: it will be called again. Must not loop without bound.
     */
    bool (*process)(struct virtio_device *dev, unsigned queue, uint64_t now_ns);
    /* False: these features, all of them offered, do not go together (one needs another). NULL: any do. */
    bool (*features_ok)(uint64_t accepted);
    /* Bytes of the device configuration; offset + size is within config_bytes. NULL where there is none. */
    void (*config_read)(struct virtio_device *dev, unsigned offset, unsigned size, uint8_t *bytes);
    void (*config_write)(struct virtio_device *dev, unsigned offset, unsigned size, const uint8_t *bytes);
    /* The driver reset the device: forget what belongs to it. Chains in flight stay owned until they are pushed. */
    void (*reset)(struct virtio_device *dev);
    /* The model's own state, behind the transport's in the same section. Either both or none. */
    void (*save)(const struct virtio_device *dev, struct stream_writer *w);
    void (*restore)(struct virtio_device *dev, struct stream_reader *r);
};

/* What the machine gives to a device. Copied. */
struct virtio_owner {
    const char *name;               /* for logs: "vm demo: disk 0"; must stay */
    const struct gmem_ops *memory;  /* must stay */
    /* A queue needs virtio_process soon. Any context, with or without the device lock: only wake somebody. */
    void (*doorbell)(void *context, struct virtio_device *dev);
    /* The doorbell page was mapped, moved or taken away (see virtio_notify_range). May be NULL. Device lock held. */
    void (*notify_moved)(void *context, struct virtio_device *dev);
    void *context;
};

struct virtio_device {
    const struct virtio_model *model;
    struct virtio_owner owner;
    struct vpci_function function;
    struct virtq_shared shared;
    struct virtqueue *queue; /* model->queue_count of them, the model's memory */
    uint64_t offered, accepted;     /* features */
    uint32_t offered_select, accepted_select;
    uint16_t queue_select, config_vector;
    uint8_t status, config_generation, isr;
    bool resetting;  /* waits for in_flight to become 0 */
    bool quiesced;
    bool processing; /* inside virtio_process: interrupts are raised at its end */
    uint32_t generation;
    unsigned in_flight;    /* chains popped and not pushed, of all generations */
    unsigned break_count;
    uint64_t notified;     /* atomic: bit q, queue q has been notified */
    unsigned cfg_cap;      /* offset of the PCI configuration access capability */
    uint64_t now_ns;       /* of the access or processing under way, for the model */
};

/*
 * Builds the device and attaches it to a slot of the bus. `queues`: room for model->queue_count. `features`: the
 * model's own bits; those of ring and transport are added. Errors as vpci_attach.
 */
enum status virtio_init(struct virtio_device *dev, const struct virtio_model *model, const struct virtio_owner *owner,
                        struct virtqueue *queues, uint64_t features, struct vpci *pci, unsigned slot) MUST_CHECK;

/* ---- For the machine ---- */

/* Doorbell at `offset` into the doorbell page. Lock-free, any context. */
void virtio_notify(struct virtio_device *dev, uint64_t offset);
/* Where the doorbell page is now; false: not decoded. */
bool virtio_notify_range(const struct virtio_device *dev, uint64_t *gpa, uint64_t *bytes);
/* Works off what was notified. True: stopped for fairness, call again (a doorbell is not rung for it). */
bool virtio_process(struct virtio_device *dev, uint64_t now_ns);
/* Machine reset. The owner has drained the device before (virtio_quiesce, virtio_in_flight). */
void virtio_reset(struct virtio_device *dev);
/* Takes no new chains from now on. Before a save or a machine reset: then wait until virtio_in_flight is 0. */
void virtio_quiesce(struct virtio_device *dev);
unsigned virtio_in_flight(const struct virtio_device *dev);
/* Goes on after virtio_quiesce or a restore: rings its own doorbell for all queues. */
void virtio_resume(struct virtio_device *dev);

/*
 * One mandatory section "VIRTIO", instance = slot, with the transport, its queues and the model's state. PCI state is
 * in vpci's section. Saving with chains in flight fails the writer with ERR_BUSY. The restored device is quiesced until
 * virtio_resume.
 */
#define VIRTIO_STREAM_TAG "VIRTIO"
#define VIRTIO_STREAM_VERSION 1
void virtio_save(struct virtio_device *dev, struct stream_writer *w);
void virtio_restore(struct virtio_device *dev, struct stream_reader *r);

/* ---- For models ---- */

/*
 * As virtq_pop; counts the chain as in flight, breaks the device where the queue is broken, and asks for another turn
 * where it says later (VIRTQ_EMPTY for the caller).
 */
enum virtq_result virtio_pop(struct virtio_device *dev, unsigned queue, struct virtq_chain *chain);
/* Gives a chain back, any time later; the driver is told at the end of virtio_process or, outside of it, at once. */
void virtio_push(struct virtio_device *dev, unsigned queue, const struct virtq_chain *chain, uint32_t written);
/* False: the chain is of an earlier life of the device, or it is broken: its memory must not be touched any more. */
bool virtio_owns(const struct virtio_device *dev, const struct virtq_chain *chain);
/* The driver broke the rules. `reason` is a literal. */
void virtio_break(struct virtio_device *dev, const char *reason);
/* Asks for virtio_process of this queue (input came, a resource is free again). */
void virtio_want(struct virtio_device *dev, unsigned queue);
/* The device configuration changed: new generation, interrupt. */
void virtio_config_changed(struct virtio_device *dev);
/* True while a driver runs the device. */
bool virtio_is_live(const struct virtio_device *dev);
/* True while chains may be taken: live, not quiesced, bus master. Any context: how it was a moment ago. */
bool virtio_may_work(const struct virtio_device *dev);
/*
 * Inside of model->process: where a queue stands, and back to there (virtq_rollback), for chains that turn out to be
 * too few or too large. Of one queue, and nothing of another may have been taken or pushed in between.
 */
struct virtio_mark { struct virtq_mark queue; unsigned in_flight; };
struct virtio_mark virtio_mark(const struct virtio_device *dev, unsigned queue);
void virtio_rollback(struct virtio_device *dev, unsigned queue, const struct virtio_mark *mark);

#endif
