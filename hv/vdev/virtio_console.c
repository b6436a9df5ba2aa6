/* SPDX-License-Identifier: MIT */
/*
 * The virtio console (see virtio_console.h). Output is copied through a small buffer; one chain brings at most
 * CHAIN_BYTES_MAX, so that a guest cannot hold the device lock with one gigantic write.
 */
#include <string.h>

#include "vdev/virtio_console.h"

#define QUEUE_INPUT 0
#define QUEUE_OUTPUT 1
#define CHAINS_PER_TURN 32
#define BYTES_PER_TURN (64 * KIB)
#define SEGMENT_COST 256 /* what finding the place of a segment costs, in bytes printed */
#define CHAIN_BYTES_MAX (256 * KIB)

static struct virtio_console *console_of(struct virtio_device *dev)
{
    return CONTAINER_OF(dev, struct virtio_console, device);
}

/* Moves waiting input into one chain; returns the bytes moved. */
static uint32_t fill(struct virtio_console *console, const struct virtq_chain *chain)
{
    uint32_t done = 0;

    while (console->input_count && done < chain->writable_bytes) {
        size_t part = MIN(console->input_count, VIRTIO_CONSOLE_INPUT_BYTES - console->input_first);
        size_t moved = virtq_write(&console->queue[QUEUE_INPUT], chain, done, console->input + console->input_first,
                                   part);

        console->input_first = (unsigned)((console->input_first + moved) % VIRTIO_CONSOLE_INPUT_BYTES);
        console->input_count -= (unsigned)moved;
        done += (uint32_t)moved;
        if (moved < part)
            break;
    }
    return done;
}

static bool process_input(struct virtio_console *console)
{
    struct virtio_device *dev = &console->device;
    struct virtq_chain *chain = &console->chain;

    for (unsigned i = 0; i < CHAINS_PER_TURN && console->input_count; i++) {
        if (virtio_pop(dev, QUEUE_INPUT, chain) != VIRTQ_CHAIN)
            return false;
        virtio_push(dev, QUEUE_INPUT, chain, fill(console, chain));
    }
    return console->input_count != 0;
}

static void print(struct virtio_console *console, const struct virtq_chain *chain)
{
    uint64_t done = 0;

    while (done < chain->readable_bytes) {
        uint8_t bytes[256];
        size_t count = virtq_read(&console->queue[QUEUE_OUTPUT], chain, done, bytes, sizeof(bytes));

        if (!count)
            break;
        if (console->sink.write)
            console->sink.write(console->sink.context, bytes, count);
        done += count;
    }
}

static bool process_output(struct virtio_console *console)
{
    struct virtio_device *dev = &console->device;
    struct virtq_chain *chain = &console->chain;
    uint64_t bytes = 0;

    for (unsigned i = 0; i < CHAINS_PER_TURN && bytes < BYTES_PER_TURN; i++) {
        if (virtio_pop(dev, QUEUE_OUTPUT, chain) != VIRTQ_CHAIN)
            return false;
        bytes += chain->readable_bytes + (uint64_t)chain->readable_count * SEGMENT_COST;
        if (chain->readable_bytes > CHAIN_BYTES_MAX)
            virtio_break(dev, "one write to the console of more than 256 KiB");
        else
            print(console, chain);
        virtio_push(dev, QUEUE_OUTPUT, chain, 0);
    }
    return true;
}

static bool process(struct virtio_device *dev, unsigned queue, uint64_t now_ns)
{
    (void)now_ns;
    return queue == QUEUE_INPUT ? process_input(console_of(dev)) : process_output(console_of(dev));
}

size_t virtio_console_input(struct virtio_console *console, const void *bytes, size_t count)
{
    const uint8_t *from = bytes;
    size_t room = VIRTIO_CONSOLE_INPUT_BYTES - console->input_count;

    count = MIN(count, room);
    for (size_t i = 0; i < count; i++)
        console->input[(console->input_first + console->input_count++) % VIRTIO_CONSOLE_INPUT_BYTES] = from[i];
    if (count)
        virtio_want(&console->device, QUEUE_INPUT);
    return count;
}

static void save(const struct virtio_device *dev, struct stream_writer *w)
{
    const struct virtio_console *console = CONTAINER_OF(dev, const struct virtio_console, device);

    stream_put_u32(w, console->input_count);
    for (unsigned i = 0; i < console->input_count; i++)
        stream_put_u8(w, console->input[(console->input_first + i) % VIRTIO_CONSOLE_INPUT_BYTES]);
}

static void restore(struct virtio_device *dev, struct stream_reader *r)
{
    struct virtio_console *console = console_of(dev);
    uint32_t count = stream_get_u32(r);

    console->input_first = console->input_count = 0;
    if (r->error)
        return;
    if (count > VIRTIO_CONSOLE_INPUT_BYTES) {
        stream_fail(r, ERR_RANGE, "%s: %u bytes of waiting input", dev->owner.name, count);
        return;
    }
    stream_get_bytes(r, console->input, count);
    if (!r->error)
        console->input_count = count;
}

static const struct virtio_model console_model = {
    .kind = "virtio-console",
    .type = VIRTIO_TYPE_CONSOLE,
    .class_code = 0x078000, /* communication controller, other */
    .queue_count = 2,
    .queue_size = VIRTIO_CONSOLE_QUEUE_SIZE,
    .process = process,
    .save = save,
    .restore = restore,
};

enum status virtio_console_init(struct virtio_console *console, const struct virtio_owner *owner, struct vpci *pci,
                                unsigned slot, const struct char_sink *sink)
{
    memset(console, 0, sizeof(*console));
    console->sink = *sink;
    return virtio_init(&console->device, &console_model, owner, console->queue, 0, pci, slot);
}
