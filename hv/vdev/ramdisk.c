/* SPDX-License-Identifier: MIT */
/* The disk in memory (see ramdisk.h). The device model has checked the request's range; this checks it again. */
#include <string.h>

#include "vdev/ramdisk.h"

/* One piece that lies within a chunk. `gpa` matters for READ and WRITE only. */
static bool move(struct ramdisk *disk, const struct blk_request *request, uint64_t offset, gpa_t gpa, uint64_t bytes)
{
    const struct gmem_ops *memory = request->memory;
    uint8_t *chunk = disk->chunk(disk->context, offset / RAMDISK_CHUNK_BYTES, request->op != BLK_READ);

    if (!chunk)
        return false;
    chunk += offset % RAMDISK_CHUNK_BYTES;
    switch (request->op) {
    case BLK_READ: return memory->write(memory->context, gpa, chunk, bytes);
    case BLK_WRITE: return memory->read(memory->context, gpa, chunk, bytes);
    default: memset(chunk, 0, bytes); return true;
    }
}

/* A contiguous range of the disk, chunk by chunk. */
static bool move_range(struct ramdisk *disk, const struct blk_request *request, uint64_t offset, gpa_t gpa,
                       uint64_t bytes)
{
    while (bytes) {
        uint64_t part = MIN(bytes, RAMDISK_CHUNK_BYTES - offset % RAMDISK_CHUNK_BYTES);

        if (!move(disk, request, offset, gpa, part))
            return false;
        offset += part;
        gpa.v += part;
        bytes -= part;
    }
    return true;
}

static enum status run(struct ramdisk *disk, const struct blk_request *request)
{
    uint64_t done = 0;

    if (request->op == BLK_FLUSH)
        return OK;
    if (!range_within(request->offset, request->bytes, disk->dev.bytes))
        return ERR_RANGE;
    if (request->op != BLK_READ && disk->dev.read_only)
        return ERR_INVALID;
    if (request->op != BLK_READ && request->op != BLK_WRITE)
        return move_range(disk, request, request->offset, GPA(0), request->bytes) ? OK : ERR_IO;
    for (unsigned i = 0; i < request->segment_count; i++) {
        const struct gmem_segment *segment = &request->segments[i];

        if (segment->bytes > request->bytes - done)
            return ERR_RANGE;
        if (!move_range(disk, request, request->offset + done, segment->gpa, segment->bytes))
            return ERR_IO;
        done += segment->bytes;
    }
    return done == request->bytes ? OK : ERR_RANGE;
}

static void submit(struct blkdev *dev, struct blk_request *request)
{
    request->done(request, run(dev->context, request));
}

static void *array_chunk(void *context, uint64_t index, bool write)
{
    void **chunks = context;
    (void)write;

    return chunks[index];
}

void ramdisk_init(struct ramdisk *disk, uint64_t bytes, bool read_only, void *(*chunk)(void *context, uint64_t index, bool write),
                  void *context)
{
    memset(disk, 0, sizeof(*disk));
    disk->dev = (struct blkdev){ .bytes = bytes, .read_only = read_only, .submit = submit, .context = disk };
    disk->chunk = chunk;
    disk->context = context;
}

void ramdisk_init_array(struct ramdisk *disk, uint64_t bytes, bool read_only, void **chunks)
{
    ramdisk_init(disk, bytes, read_only, array_chunk, chunks);
}
