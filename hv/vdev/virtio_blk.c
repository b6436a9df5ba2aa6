/* SPDX-License-Identifier: MIT */
/*
 * The virtio disk (see virtio_blk.h). A request's life: a free slot takes a chain; the header is copied out of it and
 * checked against the copy; the chain is trimmed to the data, so that the backend works on the guest's own segments;
 * the backend answers once, now or later; the status byte and the used entry go out and the slot is free.
 *
 * A chain whose device was reset meanwhile is dropped at that point: neither status nor used entry is written.
 */
#include <string.h>

#include "vdev/virtio_blk.h"

/* Feature bits (VIRTIO 1.2, 5.2.3). */
#define F_SIZE_MAX BIT(1)
#define F_SEG_MAX BIT(2)
#define F_RO BIT(5)
#define F_BLK_SIZE BIT(6)
#define F_FLUSH BIT(9)
#define F_TOPOLOGY BIT(10)
#define F_DISCARD BIT(13)
#define F_WRITE_ZEROES BIT(14)

/* Request types (5.2.6). */
#define TYPE_IN 0u
#define TYPE_OUT 1u
#define TYPE_FLUSH 4u
#define TYPE_GET_ID 8u
#define TYPE_DISCARD 11u
#define TYPE_WRITE_ZEROES 13u

#define STATUS_OK 0u
#define STATUS_IOERR 1u
#define STATUS_UNSUPP 2u

struct request_header { uint32_t type, reserved; uint64_t sector; };
_Static_assert(sizeof(struct request_header) == 16, "request_header is 16 bytes in guest memory");
struct zero_segment { uint64_t sector; uint32_t sectors, flags; };
_Static_assert(sizeof(struct zero_segment) == 16, "zero_segment is 16 bytes in guest memory");
#define ZERO_UNMAP 1u

/* struct virtio_blk_config (5.2.4), up to where our features reach. */
struct blk_config {
    uint64_t capacity;
    uint32_t size_max, seg_max;
    uint16_t cylinders;
    uint8_t heads, sectors;
    uint32_t blk_size;
    uint8_t physical_block_exp, alignment_offset;
    uint16_t min_io_size;
    uint32_t opt_io_size;
    uint8_t writeback, unused0;
    uint16_t num_queues;
    uint32_t max_discard_sectors, max_discard_seg, discard_sector_alignment;
    uint32_t max_write_zeroes_sectors, max_write_zeroes_seg;
    uint8_t write_zeroes_may_unmap, unused1[3];
};
_Static_assert(sizeof(struct blk_config) == 64, "blk_config has 60 bytes and the tail of its 8-byte alignment");
#define CONFIG_BYTES 60

/* Fairness: what one virtio_process does before it lets others have the device lock. */
#define CHAINS_PER_TURN 32
#define BYTES_PER_TURN (1 * MIB)
#define SEGMENT_COST (1 * KIB) /* what finding the place of a segment costs, in bytes copied */
#define ZERO_SECTORS_MAX (VIRTIO_BLK_BYTES_MAX / VIRTIO_BLK_SECTOR)
#define PHYSICAL_BLOCK 4096u /* one page, one block of a volume */

static struct virtio_blk *disk_of(struct virtio_device *dev)
{
    return CONTAINER_OF(dev, struct virtio_blk, device);
}

/* ---- Ends of requests ---- */

static void finish(struct virtio_blk_slot *slot, uint8_t status)
{
    struct virtio_blk *disk = slot->disk;
    struct virtio_device *dev = &disk->device;

    disk->error_count += status != STATUS_OK;
    if (virtio_owns(dev, &slot->chain)) {
        const struct gmem_ops *memory = dev->shared.memory;

        if (!memory->write(memory->context, slot->status, &status, sizeof(status)))
            virtio_break(dev, "the status byte of a request is not in RAM any more");
    }
    slot->busy = false;
    virtio_push(dev, 0, &slot->chain, slot->written);
    if (disk->starved) {
        disk->starved = false;
        virtio_want(dev, 0);
    }
}

static void request_done(struct blk_request *request, enum status status)
{
    struct virtio_blk_slot *slot = request->owner;
    struct virtio_blk *disk = slot->disk;

    /* A driver that cannot flush relies on each write being durable when it is answered (5.2.6.2). */
    if (status == OK && request->op != BLK_READ && request->op != BLK_FLUSH &&
        !(disk->device.accepted & F_FLUSH) && virtio_owns(&disk->device, &slot->chain)) {
        request->op = BLK_FLUSH;
        request->offset = request->bytes = 0;
        request->segment_count = 0;
        disk->backend->submit(disk->backend, request);
        return;
    }
    finish(slot, status == OK ? STATUS_OK : status == ERR_UNSUPPORTED ? STATUS_UNSUPP : STATUS_IOERR);
}

static void submit(struct virtio_blk_slot *slot, enum blk_op op, uint64_t offset, uint64_t bytes,
                   const struct gmem_segment *segments, unsigned segment_count)
{
    slot->request = (struct blk_request){
        .op = op,
        .offset = offset,
        .bytes = bytes,
        .segments = segments,
        .segment_count = segment_count,
        .memory = slot->disk->device.shared.memory,
        .done = request_done,
        .owner = slot,
    };
    slot->disk->backend->submit(slot->disk->backend, &slot->request);
}

/* ---- Kinds of requests ---- */

static uint32_t block_bytes(const struct virtio_blk *disk)
{
    return disk->backend->block_bytes ? disk->backend->block_bytes : VIRTIO_BLK_SECTOR;
}

static bool sectors_valid(const struct virtio_blk *disk, uint64_t sector, uint64_t bytes)
{
    return !(bytes % block_bytes(disk)) && !(sector % (block_bytes(disk) / VIRTIO_BLK_SECTOR)) &&
           range_within(sector, bytes / VIRTIO_BLK_SECTOR, disk->backend->bytes / VIRTIO_BLK_SECTOR);
}

/* Takes the status byte off the end of the writable segments; there is at least that byte. */
static void trim_status(struct virtio_blk_slot *slot)
{
    struct virtq_chain *chain = &slot->chain;
    struct gmem_segment *last = &chain->segment[chain->readable_count + chain->writable_count - 1];

    last->bytes--;
    slot->status = GPA(last->gpa.v + last->bytes);
    chain->writable_bytes--;
    if (!last->bytes)
        chain->writable_count--;
}

static void read_data(struct virtio_blk_slot *slot, uint64_t sector)
{
    struct virtq_chain *chain = &slot->chain;
    uint64_t bytes = chain->writable_bytes;

    if (bytes > VIRTIO_BLK_BYTES_MAX || !sectors_valid(slot->disk, sector, bytes)) {
        finish(slot, STATUS_IOERR);
        return;
    }
    slot->written = (uint32_t)bytes + 1;
    slot->disk->read_bytes += bytes;
    submit(slot, BLK_READ, sector * VIRTIO_BLK_SECTOR, bytes, chain->segment + chain->readable_count,
           chain->writable_count);
}

static void write_data(struct virtio_blk_slot *slot, uint64_t sector)
{
    struct virtq_chain *chain = &slot->chain;
    uint64_t bytes = chain->readable_bytes - sizeof(struct request_header);
    uint32_t skip = sizeof(struct request_header);
    unsigned first = 0;

    if (slot->disk->backend->read_only || bytes > VIRTIO_BLK_BYTES_MAX || !sectors_valid(slot->disk, sector, bytes)) {
        finish(slot, STATUS_IOERR);
        return;
    }
    /* The header may be spread over several segments, and may share one with data (2.7.4). */
    while (first < chain->readable_count && skip >= chain->segment[first].bytes)
        skip -= chain->segment[first++].bytes;
    if (first < chain->readable_count) {
        chain->segment[first].gpa.v += skip;
        chain->segment[first].bytes -= skip;
    }
    slot->disk->written_bytes += bytes;
    submit(slot, BLK_WRITE, sector * VIRTIO_BLK_SECTOR, bytes, chain->segment + first, chain->readable_count - first);
}

static void get_id(struct virtio_blk_slot *slot)
{
    struct virtq_chain *chain = &slot->chain;
    size_t bytes = virtq_write(&slot->disk->queue[0], chain, 0, slot->disk->id, VIRTIO_BLK_ID_BYTES);

    slot->written = (uint32_t)bytes + 1;
    finish(slot, STATUS_OK);
}

static void zero(struct virtio_blk_slot *slot, uint32_t type)
{
    struct virtio_blk *disk = slot->disk;
    bool discard = type == TYPE_DISCARD;
    struct zero_segment zeroes;

    if (!(disk->device.accepted & (discard ? F_DISCARD : F_WRITE_ZEROES))) {
        finish(slot, STATUS_UNSUPP);
        return;
    }
    if (slot->chain.readable_bytes != sizeof(struct request_header) + sizeof(zeroes) ||
        virtq_read(&disk->queue[0], &slot->chain, sizeof(struct request_header), &zeroes, sizeof(zeroes)) !=
            sizeof(zeroes)) {
        finish(slot, STATUS_IOERR);
        return;
    }
    if (zeroes.flags & ~(discard ? 0 : ZERO_UNMAP)) {
        finish(slot, STATUS_UNSUPP);
        return;
    }
    if (disk->backend->read_only || zeroes.sectors > ZERO_SECTORS_MAX ||
        !sectors_valid(disk, zeroes.sector, (uint64_t)zeroes.sectors * VIRTIO_BLK_SECTOR)) {
        finish(slot, STATUS_IOERR);
        return;
    }
    submit(slot, discard ? BLK_DISCARD : BLK_WRITE_ZEROES, zeroes.sector * VIRTIO_BLK_SECTOR,
           (uint64_t)zeroes.sectors * VIRTIO_BLK_SECTOR, NULL, 0);
}

/* Works one chain off, or hands it to the backend; returns what it costs in bytes copied, for fairness. */
static uint64_t start(struct virtio_blk_slot *slot)
{
    struct virtio_blk *disk = slot->disk;
    struct request_header header;
    unsigned segments = slot->chain.readable_count + slot->chain.writable_count;
    uint64_t cost = slot->chain.readable_bytes + slot->chain.writable_bytes + segments * SEGMENT_COST;

    slot->busy = true;
    slot->written = 1;
    disk->request_count++;
    if (!slot->chain.writable_bytes || slot->chain.readable_bytes < sizeof(header) ||
        virtq_read(&disk->queue[0], &slot->chain, 0, &header, sizeof(header)) != sizeof(header)) {
        virtio_break(&disk->device, "a disk request without header or status");
        finish(slot, STATUS_IOERR); /* gives the chain back; a broken device writes nothing */
        return 0;
    }
    trim_status(slot);
    switch (header.type) {
    case TYPE_IN: read_data(slot, header.sector); break;
    case TYPE_OUT: write_data(slot, header.sector); break;
    case TYPE_FLUSH: submit(slot, BLK_FLUSH, 0, 0, NULL, 0); break;
    case TYPE_GET_ID: get_id(slot); break;
    case TYPE_DISCARD:
    case TYPE_WRITE_ZEROES: zero(slot, header.type); break;
    default: finish(slot, STATUS_UNSUPP);
    }
    return cost;
}

static struct virtio_blk_slot *free_slot(struct virtio_blk *disk)
{
    for (unsigned i = 0; i < disk->slot_count; i++) {
        if (!disk->slot[i].busy)
            return &disk->slot[i];
    }
    return NULL;
}

static bool process(struct virtio_device *dev, unsigned queue, uint64_t now_ns)
{
    struct virtio_blk *disk = disk_of(dev);
    uint64_t bytes = 0;

    (void)now_ns;
    for (unsigned i = 0; i < CHAINS_PER_TURN && bytes < BYTES_PER_TURN; i++) {
        struct virtio_blk_slot *slot = free_slot(disk);

        if (!slot) {
            disk->starved = true; /* whoever frees a slot asks for another turn */
            return false;
        }
        if (virtio_pop(dev, queue, &slot->chain) != VIRTQ_CHAIN)
            return false;
        bytes += start(slot);
    }
    return true;
}

/* ---- Configuration and state ---- */

static void config_read(struct virtio_device *dev, unsigned offset, unsigned size, uint8_t *bytes)
{
    const uint32_t block = block_bytes(disk_of(dev));
    const struct blk_config config = {
        .capacity = disk_of(dev)->backend->bytes / VIRTIO_BLK_SECTOR,
        .size_max = VIRTIO_BLK_SIZE_MAX,
        .seg_max = VIRTIO_BLK_SEG_MAX,
        .blk_size = block,
        .physical_block_exp = block < PHYSICAL_BLOCK ? (uint8_t)__builtin_ctz(PHYSICAL_BLOCK / block) : 0,
        .min_io_size = (uint16_t)MAX(PHYSICAL_BLOCK / block, 1u),
        .writeback = 1,
        .num_queues = 1,
        .max_discard_sectors = ZERO_SECTORS_MAX,
        .max_discard_seg = 1,
        .discard_sector_alignment = MAX(PHYSICAL_BLOCK, block) / VIRTIO_BLK_SECTOR,
        .max_write_zeroes_sectors = ZERO_SECTORS_MAX,
        .max_write_zeroes_seg = 1,
        .write_zeroes_may_unmap = 1,
    };

    memcpy(bytes, (const uint8_t *)&config + offset, size);
}

static void reset(struct virtio_device *dev)
{
    disk_of(dev)->starved = false;
}

static void save(const struct virtio_device *dev, struct stream_writer *w)
{
    stream_put_u64(w, CONTAINER_OF(dev, const struct virtio_blk, device)->backend->bytes);
}

static void restore(struct virtio_device *dev, struct stream_reader *r)
{
    uint64_t bytes = stream_get_u64(r), have = disk_of(dev)->backend->bytes;

    if (!r->error && bytes != have)
        stream_fail(r, ERR_RANGE, "%s: the disk had %llu bytes, this one has %llu", dev->owner.name,
                    (unsigned long long)bytes, (unsigned long long)have);
}

static const struct virtio_model blk_model = {
    .kind = "virtio-blk",
    .type = VIRTIO_TYPE_BLOCK,
    .class_code = 0x010000, /* SCSI controller: what operating systems know a virtio disk by */
    .queue_count = 1,
    .queue_size = VIRTIO_BLK_QUEUE_SIZE,
    .config_bytes = CONFIG_BYTES,
    .process = process,
    .config_read = config_read,
    .reset = reset,
    .save = save,
    .restore = restore,
};

enum status virtio_blk_init(struct virtio_blk *disk, const struct virtio_owner *owner, struct vpci *pci,
                            unsigned pci_slot, struct blkdev *backend, const char *id, struct virtio_blk_slot *slots,
                            unsigned slot_count)
{
    uint64_t features = F_SIZE_MAX | F_SEG_MAX | F_BLK_SIZE | F_FLUSH | F_TOPOLOGY;

    uint32_t block = backend->block_bytes ? backend->block_bytes : VIRTIO_BLK_SECTOR;

    if (!slot_count || !backend->bytes || block % VIRTIO_BLK_SECTOR || backend->bytes % block)
        return ERR_INVALID;
    memset(disk, 0, sizeof(*disk));
    disk->backend = backend;
    disk->slot = slots;
    disk->slot_count = slot_count;
    for (unsigned i = 0; i < slot_count; i++) {
        slots[i].disk = disk;
        slots[i].busy = false;
    }
    for (unsigned i = 0; i < VIRTIO_BLK_ID_BYTES && id[i]; i++)
        disk->id[i] = id[i];
    features |= backend->read_only ? F_RO : F_DISCARD | F_WRITE_ZEROES;
    return virtio_init(&disk->device, &blk_model, owner, disk->queue, features, pci, pci_slot);
}

void virtio_blk_grown(struct virtio_blk *disk)
{
    virtio_config_changed(&disk->device);
}
