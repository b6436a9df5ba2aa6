/* SPDX-License-Identifier: MIT */
/*
 * What device models are made of, and what they may ask of the world. All of vdev/ is pure: no clock, no thread, no
 * hardware. Time comes in as an argument (guest nanoseconds: monotonic, stands still while the VM is paused or saved),
 * interrupts go out through lines and messages, guest memory is reached through struct gmem_ops, and host work
 * (disks, consoles) through small interfaces.
 *
 * Locking: the owner of a machine (vm/) holds the machine's device lock around every call into a device: port and MMIO
 * accesses, timer expiry, queue processing, save and restore. Devices have no locks of their own. The one exception is
 * the local APIC, whose posting side (vlapic_post) is atomic and may be called from anywhere.
 */
#ifndef VDEV_VDEV_H
#define VDEV_VDEV_H

#include "kernel/status.h"
#include "kernel/types.h"
#include "vm/stream.h"

/* ---- Timers: a small sorted queue per machine; the owner arms one host timer for vtimer_next(). ---- */

#define VTIMER_OFF UINT64_MAX

struct vtimer;
struct vtimer_queue {
    struct vtimer *first;              /* ascending by deadline */
    void (*changed)(void *context);    /* the first deadline moved: the owner re-arms its timer; may be NULL */
    void *context;
    uint64_t run;                      /* number of the last vtimer_run; vdev.c's */
    bool running;                      /* within vtimer_run: `changed` waits for its end */
};
struct vtimer {
    uint64_t deadline_ns; /* VTIMER_OFF: not armed */
    void (*fire)(struct vtimer *timer, uint64_t now_ns);
    struct vtimer_queue *queue;
    struct vtimer *next;
    uint64_t fired_run;   /* the vtimer_run that fired it last */
};

void vtimer_init(struct vtimer *timer, struct vtimer_queue *queue, void (*fire)(struct vtimer *, uint64_t now_ns));
/* (Re)arms; a deadline in the past fires at the next vtimer_run. VTIMER_OFF cancels. */
void vtimer_arm(struct vtimer *timer, uint64_t deadline_ns);
/* Fires all that is due, each at most once per call; a timer may re-arm itself from fire(). */
void vtimer_run(struct vtimer_queue *queue, uint64_t now_ns);
/* Earliest deadline, or VTIMER_OFF. */
uint64_t vtimer_next(const struct vtimer_queue *queue);

/* ---- Interrupts ---- */

/* An interrupt line with a level: `set` may be called with the same level again. */
struct vline {
    void (*set)(void *context, unsigned pin, bool level);
    void *context;
    unsigned pin;
};
static inline void vline_set(const struct vline *line, bool level)
{
    if (line->set)
        line->set(line->context, line->pin, level);
}

/* A message-signalled interrupt, as written by MSI, MSI-X or an IOAPIC entry (SDM vol. 3A, 11.11). */
struct vmsi_sink {
    void (*send)(void *context, uint64_t address, uint32_t data);
    void *context;
};

/* ---- Buses: an access is 1, 2, 4 or 8 bytes. ---- */

/* Reads of what nobody answers give all ones; writes to it are dropped. `now_ns` is the guest's time of the access. */
struct vdev_ops {
    uint64_t (*read)(void *device, uint64_t offset, unsigned size, uint64_t now_ns);
    void (*write)(void *device, uint64_t offset, unsigned size, uint64_t value, uint64_t now_ns);
};

#define VBUS_RANGES 64
struct vbus_range {
    uint64_t base, bytes;
    const struct vdev_ops *ops;
    void *device;
};
/* Ports (base up to 0xffff) or MMIO; ranges are kept sorted and do not overlap. */
struct vbus {
    struct vbus_range range[VBUS_RANGES];
    unsigned count;
};
enum status vbus_add(struct vbus *bus, uint64_t base, uint64_t bytes, const struct vdev_ops *ops, void *device) MUST_CHECK;
/* Takes a range away (a PCI BAR that moved or was switched off). */
void vbus_remove(struct vbus *bus, uint64_t base, const void *device);
/* The range that holds [address, address + size), or NULL. */
const struct vbus_range *vbus_find(const struct vbus *bus, uint64_t address, unsigned size);
/* false if nobody is there (*value is then all ones of that size). */
bool vbus_read(const struct vbus *bus, uint64_t address, unsigned size, uint64_t *value, uint64_t now_ns);
bool vbus_write(const struct vbus *bus, uint64_t address, unsigned size, uint64_t value, uint64_t now_ns);

/* ---- Guest memory, for devices that do DMA. RAM only: MMIO is never a DMA target. ---- */

struct gmem_ops {
    void *context;
    /* Copies; false (and nothing promised about the bytes) if any byte of the range is not guest RAM. Marks dirty. */
    bool (*read)(void *context, gpa_t gpa, void *bytes, uint64_t count);
    bool (*write)(void *context, gpa_t gpa, const void *bytes, uint64_t count);
    /* True if all of the range is RAM. */
    bool (*valid)(void *context, gpa_t gpa, uint64_t count);
    /*
     * Does what would make copying to or from a valid range slow (a frame is zeroed before its first use), but at most
     * `*budget` pieces of it, which it counts off. False: there is more to do. May be NULL: nothing is slow.
     */
    bool (*prepare)(void *context, gpa_t gpa, uint64_t count, unsigned *budget);
};

/* ---- Host side of a disk and of a console ---- */

/*
 * A disk as a device model sees it. submit() may complete at once or later, by calling done(request, status) in the
 * machine's device-lock context. Data goes to and from guest memory by the segments of the request, so that a backend
 * can do it without a bounce.
 */
struct gmem_segment { gpa_t gpa; uint32_t bytes; };
enum blk_op { BLK_READ, BLK_WRITE, BLK_FLUSH, BLK_DISCARD, BLK_WRITE_ZEROES };
struct blk_request {
    enum blk_op op;
    uint64_t offset;                  /* bytes, multiple of the block size */
    uint64_t bytes;                   /* likewise; sum of the segments for READ and WRITE */
    const struct gmem_segment *segments;
    unsigned segment_count;
    bool fua;                         /* WRITE, WRITE_ZEROES: durable when it is answered */
    const struct gmem_ops *memory;
    void (*done)(struct blk_request *request, enum status status);
    void *owner;
};
struct blkdev {
    uint64_t bytes;
    uint32_t block_bytes;             /* what offsets and lengths must be multiples of: a power of two; 0 is 512 */
    bool read_only;
    void (*submit)(struct blkdev *dev, struct blk_request *request);
    void *context;
};

/* A byte pipe for a serial port or a console. Output that nobody reads is the sink's business: never blocks. */
struct char_sink {
    void (*write)(void *context, const void *bytes, size_t count);
    void *context;
};

#endif
