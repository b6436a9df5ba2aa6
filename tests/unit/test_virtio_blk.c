/* SPDX-License-Identifier: MIT */
/*
 * Promises of the virtio disk over a ramdisk and over a backend that answers late: bytes go where they belong, what is
 * outside of the disk is an I/O error, what is malformed breaks the device, and a reset keeps late answers away.
 */
#include "fake_guest.h"
#include "vdev/ramdisk.h"
#include "vdev/virtio_blk.h"

#define SLOT 1
#define RING 0x100000ull
#define HEADER 0x180000ull
#define STATUS 0x181000ull
#define DATA 0x200000ull
#define DISK_BYTES (5 * MIB + 512) /* three chunks, the last one short */

#define F_RO BIT(5)
#define F_FLUSH BIT(9)
#define F_DISCARD BIT(13)
#define F_WRITE_ZEROES BIT(14)

struct bench {
    struct fake_guest *guest;
    struct virtio_blk disk;
    struct virtio_blk_slot slot[2];
    struct ramdisk ram;
    void *chunk[3];
    struct virtio_device *dev;
    struct fake_queue q;
    /* A backend that keeps requests until the test answers. */
    struct blkdev late;
    struct blk_request *waiting[4];
    unsigned waiting_count;
};

static void late_submit(struct blkdev *dev, struct blk_request *request)
{
    struct bench *b = dev->context;

    assert_true(b->waiting_count < ARRAY_COUNT(b->waiting));
    b->waiting[b->waiting_count++] = request;
}

static struct blk_request *take(struct bench *b)
{
    struct blk_request *request = b->waiting[0];

    assert_true(b->waiting_count);
    memmove(b->waiting, b->waiting + 1, --b->waiting_count * sizeof(b->waiting[0]));
    return request;
}

static struct bench *bench_new(bool late, bool read_only, uint64_t features)
{
    struct bench *b = calloc(1, sizeof(*b));
    struct virtio_owner owner;

    b->guest = fake_guest_new();
    owner = fake_owner(b->guest);
    for (unsigned i = 0; i < 3; i++) {
        size_t bytes = MIN(RAMDISK_CHUNK_BYTES, DISK_BYTES - i * RAMDISK_CHUNK_BYTES);

        b->chunk[i] = malloc(bytes); /* of the exact size, so that the sanitizer sees a step beyond */
        for (size_t j = 0; j < bytes; j++)
            ((uint8_t *)b->chunk[i])[j] = (uint8_t)(j / 512 + i * 3 + j);
    }
    ramdisk_init_array(&b->ram, DISK_BYTES, read_only, b->chunk);
    b->late = (struct blkdev){ .bytes = DISK_BYTES, .read_only = read_only, .submit = late_submit, .context = b };
    assert_int_equal(virtio_blk_init(&b->disk, &owner, &b->guest->pci, SLOT, late ? &b->late : &b->ram.dev, "serial-1",
                                     b->slot, 2), OK);
    b->dev = &b->disk.device;
    b->q = fake_queue_at(b->guest, RING, 16);
    fake_negotiate(b->guest, b->dev, features);
    fake_setup_queue(b->guest, b->dev, 0, &b->q);
    fake_driver_ok(b->guest, b->dev);
    fake_run(b->guest, b->dev, 0);
    return b;
}

static void bench_free(struct bench *b)
{
    for (unsigned i = 0; i < 3; i++)
        free(b->chunk[i]);
    free(b->guest);
    free(b);
}

static uint8_t disk_byte(struct bench *b, uint64_t offset)
{
    return ((uint8_t *)b->chunk[offset / RAMDISK_CHUNK_BYTES])[offset % RAMDISK_CHUNK_BYTES];
}

/* Puts a request into the ring: header, data segments, status byte. */
static void offer(struct bench *b, uint32_t type, uint64_t sector, const struct gmem_segment *data, unsigned out,
                  unsigned in)
{
    struct gmem_segment s[12] = { { GPA(HEADER), 16 } };

    memcpy(b->guest->ram + HEADER, &type, 4);
    memcpy(b->guest->ram + HEADER + 8, &sector, 8);
    for (unsigned i = 0; i < out + in; i++)
        s[1 + i] = data[i];
    s[1 + out + in] = (struct gmem_segment){ GPA(STATUS), 1 };
    b->guest->ram[STATUS] = 0xee;
    fake_chain(&b->q, s, 1 + out, in + 1);
}

/* One request to its end; returns the status byte, and the used length if it is asked for. */
static unsigned request(struct bench *b, uint32_t type, uint64_t sector, const struct gmem_segment *data, unsigned out,
                        unsigned in, uint32_t *written)
{
    uint32_t id, length;

    offer(b, type, sector, data, out, in);
    fake_run(b->guest, b->dev, 0);
    assert_true(fake_used(&b->q, &id, &length));
    assert_false(fake_used(&b->q, &id, &length));
    if (written)
        *written = length;
    return b->guest->ram[STATUS];
}

static void test_config(void **state)
{
    struct bench *b = bench_new(false, false, ~0ull);
    uint64_t config = fake_bar(b->guest, SLOT) + REG_DEVICE;

    (void)state;
    assert_int_equal(fake_config_read(b->guest, SLOT, 0, 4), 0x10421af4);
    assert_int_equal(fake_mmio_read(b->guest, config, 8), DISK_BYTES / 512);
    assert_int_equal(fake_mmio_read(b->guest, config + 8, 4), 65536);
    assert_int_equal(fake_mmio_read(b->guest, config + 12, 4), 126);
    assert_int_equal(fake_mmio_read(b->guest, config + 20, 4), 512);
    assert_int_equal(fake_mmio_read(b->guest, config + 24, 1), 3);
    assert_int_equal(fake_mmio_read(b->guest, config + 36, 4), 126 * 128);
    assert_int_equal(fake_mmio_read(b->guest, config + 40, 4), 1);
    assert_int_equal(fake_mmio_read(b->guest, config + 48, 4), 126 * 128);
    assert_int_equal(fake_mmio_read(b->guest, config + 56, 1), 1);
    assert_int_equal(fake_mmio_read(b->guest, config + 60, 4), 0);
    assert_true(b->dev->offered & F_DISCARD && b->dev->offered & F_WRITE_ZEROES && !(b->dev->offered & F_RO));
    bench_free(b);
}

/* The driver gets its configuration interrupt, reads a new generation and the new size, and reaches what is new. */
static void test_grown(void **state)
{
    struct bench *b = bench_new(true, false, ~0ull);
    uint64_t config = fake_bar(b->guest, SLOT) + REG_DEVICE, last = DISK_BYTES / 512;
    const struct gmem_segment one[] = { { GPA(DATA), 512 } };
    (void)state;
    fake_msix_on(b->guest, b->dev);
    assert_int_equal(request(b, 0, last, one, 0, 1, NULL), 1);
    unsigned generation = (unsigned)fake_reg(b->guest, b->dev, REG_GENERATION, 1), msis = b->guest->msi_count;
    b->late.bytes = DISK_BYTES + 2 * MIB;
    virtio_blk_grown(&b->disk);
    assert_int_equal(b->guest->msi_count, msis + 1);
    assert_int_equal(b->guest->msi_data[msis], 0x40);
    assert_int_equal(fake_reg(b->guest, b->dev, REG_GENERATION, 1), (generation + 1) & 0xff);
    assert_int_equal(fake_mmio_read(b->guest, config, 8), last + 2 * MIB / 512);
    offer(b, 0, last + 2 * MIB / 512 - 1, one, 0, 1);
    fake_run(b->guest, b->dev, 0);
    struct blk_request *r = take(b);
    assert_int_equal(r->offset, DISK_BYTES + 2 * MIB - 512);
    r->done(r, OK);
    assert_int_equal(b->guest->ram[STATUS], 0);
    bench_free(b);
}

static void test_read_write(void **state)
{
    struct bench *b = bench_new(false, false, ~0ull);
    uint64_t sector = 2 * MIB / 512 - 1; /* its data crosses a chunk */
    const struct gmem_segment data[] = { { GPA(DATA), 700 }, { GPA(DATA + 0x10000), 836 } };
    uint32_t written;

    (void)state;
    assert_int_equal(request(b, 0, sector, data, 0, 2, &written), 0);
    assert_int_equal(written, 1537);
    for (unsigned i = 0; i < 1536; i++)
        assert_int_equal(b->guest->ram[i < 700 ? DATA + i : DATA + 0x10000 + i - 700],
                         disk_byte(b, sector * 512 + i));
    for (unsigned i = 0; i < 1536; i++)
        b->guest->ram[i < 700 ? DATA + i : DATA + 0x10000 + i - 700] = (uint8_t)(i * 13 + 1);
    assert_int_equal(request(b, 1, sector, data, 2, 0, &written), 0);
    assert_int_equal(written, 1);
    for (unsigned i = 0; i < 1536; i++)
        assert_int_equal(disk_byte(b, sector * 512 + i), (uint8_t)(i * 13 + 1));
    /* The last sector, and one further. */
    const struct gmem_segment one[] = { { GPA(DATA), 512 } };
    assert_int_equal(request(b, 0, DISK_BYTES / 512 - 1, one, 0, 1, NULL), 0);
    assert_int_equal(request(b, 0, DISK_BYTES / 512, one, 0, 1, NULL), 1);
    assert_int_equal(request(b, 1, DISK_BYTES / 512, one, 1, 0, NULL), 1);
    assert_int_equal(b->disk.read_bytes, 1536 + 512);
    assert_int_equal(b->disk.error_count, 2);
    bench_free(b);
}

static void test_framing(void **state)
{
    /* A driver may cut header, data and status anywhere (VIRTIO 1.2, 2.7.4). */
    struct bench *b = bench_new(false, false, ~0ull);
    const uint32_t type_out = 1, type_in = 0;
    const uint64_t sector = 4;
    uint32_t id, written;

    (void)state;
    memset(b->guest->ram + HEADER, 0, 16);
    memcpy(b->guest->ram + HEADER, &type_out, 4);
    memcpy(b->guest->ram + HEADER + 8, &sector, 8);
    memset(b->guest->ram + HEADER + 16, 0x5a, 512);
    const struct gmem_segment out[] = { { GPA(HEADER), 3 }, { GPA(HEADER + 3), 6 }, { GPA(HEADER + 9), 100 },
                                        { GPA(HEADER + 109), 528 - 109 }, { GPA(STATUS), 1 } };
    fake_chain(&b->q, out, 4, 1);
    fake_run(b->guest, b->dev, 0);
    assert_true(fake_used(&b->q, &id, &written));
    assert_int_equal(b->guest->ram[STATUS], 0);
    for (unsigned i = 0; i < 512; i++)
        assert_int_equal(disk_byte(b, 2048 + i), 0x5a);
    /* Header and data of a write in one buffer; data and status of a read in one buffer. */
    const struct gmem_segment joined[] = { { GPA(HEADER), 528 }, { GPA(STATUS), 1 } };
    memset(b->guest->ram + HEADER + 16, 0xa5, 512);
    fake_chain(&b->q, joined, 1, 1);
    fake_run(b->guest, b->dev, 0);
    assert_true(fake_used(&b->q, &id, &written));
    assert_int_equal(disk_byte(b, 2048), 0xa5);
    assert_int_equal(disk_byte(b, 2048 + 511), 0xa5);
    memcpy(b->guest->ram + HEADER, &type_in, 4);
    const struct gmem_segment in[] = { { GPA(HEADER), 16 }, { GPA(DATA), 513 } };
    b->guest->ram[DATA + 512] = 0xee;
    fake_chain(&b->q, in, 1, 1);
    fake_run(b->guest, b->dev, 0);
    assert_true(fake_used(&b->q, &id, &written));
    assert_int_equal(written, 513);
    assert_int_equal(b->guest->ram[DATA + 511], 0xa5);
    assert_int_equal(b->guest->ram[DATA + 512], 0);
    bench_free(b);
}

static void test_refused(void **state)
{
    struct bench *b = bench_new(false, false, ~0ull);
    const struct gmem_segment one[] = { { GPA(DATA), 512 } }, odd[] = { { GPA(DATA), 511 } };
    const struct gmem_segment big[] = { { GPA(0), 4 * MIB }, { GPA(0), 4 * MIB } };

    (void)state;
    /* Sectors whose byte address overflows 64 bits. */
    assert_int_equal(request(b, 0, UINT64_MAX, one, 0, 1, NULL), 1);
    assert_int_equal(request(b, 0, 1ull << 55, one, 0, 1, NULL), 1);
    assert_int_equal(request(b, 1, (1ull << 55) + 1, one, 1, 0, NULL), 1);
    assert_int_equal(request(b, 0, 0, odd, 0, 1, NULL), 1);
    assert_int_equal(request(b, 1, 0, odd, 1, 0, NULL), 1);
    assert_int_equal(request(b, 0, 0, big, 0, 2, NULL), 1); /* more than the offered sizes allow */
    assert_int_equal(request(b, 99, 0, one, 0, 1, NULL), 2);
    assert_int_equal(request(b, 2, 0, NULL, 0, 0, NULL), 2);
    assert_true(virtio_is_live(b->dev));
    /* No data at all is a read of nothing. */
    assert_int_equal(request(b, 0, 0, NULL, 0, 0, NULL), 0);
    /* A chunk that cannot be had. */
    void *chunk = b->chunk[1];
    b->chunk[1] = NULL;
    assert_int_equal(request(b, 0, 2 * MIB / 512, one, 0, 1, NULL), 1);
    b->chunk[1] = chunk;
    bench_free(b);

    b = bench_new(false, true, ~0ull);
    assert_true(b->dev->offered & F_RO && !(b->dev->offered & (F_DISCARD | F_WRITE_ZEROES)));
    assert_int_equal(request(b, 0, 0, one, 0, 1, NULL), 0);
    assert_int_equal(request(b, 1, 0, one, 1, 0, NULL), 1);
    assert_int_equal(disk_byte(b, 1), 1);
    bench_free(b);
}

static void test_malformed(void **state)
{
    static const struct { uint32_t readable, writable; } bad[] = { { 0, 1 }, { 15, 1 }, { 16, 0 }, { 0, 0 } };

    (void)state;
    for (unsigned i = 0; i < ARRAY_COUNT(bad); i++) {
        struct bench *b = bench_new(false, false, ~0ull);
        const struct gmem_segment s[] = { { GPA(HEADER), bad[i].readable }, { GPA(STATUS), bad[i].writable } };

        b->guest->ram[STATUS] = 0xee;
        fake_chain(&b->q, s, 1, 1);
        fake_run(b->guest, b->dev, 0);
        assert_int_equal(fake_reg(b->guest, b->dev, REG_STATUS, 1), 0x4f);
        assert_int_equal(virtio_in_flight(b->dev), 0);
        assert_int_equal(b->guest->ram[STATUS], 0xee);
        assert_int_equal(fake_get16(b->guest, b->q.used + 2), 0);
        assert_false(b->slot[0].busy);
        bench_free(b);
    }
}

static void test_id(void **state)
{
    struct bench *b = bench_new(false, false, ~0ull);
    const struct gmem_segment twenty[] = { { GPA(DATA), 20 } }, five[] = { { GPA(DATA + 100), 5 } };
    uint32_t written;

    (void)state;
    memset(b->guest->ram + DATA, 0xff, 200);
    assert_int_equal(request(b, 8, 0, twenty, 0, 1, &written), 0);
    assert_memory_equal(b->guest->ram + DATA, "serial-1\0\0\0\0\0\0\0\0\0\0\0\0\xff", 21);
    assert_int_equal(written, 21);
    assert_int_equal(request(b, 8, 0, five, 0, 1, NULL), 0);
    assert_memory_equal(b->guest->ram + DATA + 100, "seria\xff", 6);
    bench_free(b);
}

static void test_zeroes(void **state)
{
    struct bench *b = bench_new(false, false, ~0ull);
    const struct gmem_segment s[] = { { GPA(DATA), 16 } };
    struct { uint64_t sector; uint32_t sectors, flags; } z = { 4095, 2, 0 };

    (void)state;
    for (uint32_t type = 11; type <= 13; type += 2) {
        z.sector = type == 11 ? 4095 : 100;
        z.sectors = 2;
        z.flags = 0;
        memcpy(b->guest->ram + DATA, &z, 16);
        assert_int_equal(request(b, type, 0, s, 1, 0, NULL), 0);
        for (unsigned i = 0; i < 1024; i++)
            assert_int_equal(disk_byte(b, z.sector * 512 + i), 0);
        assert_int_equal(disk_byte(b, z.sector * 512 + 1025) || disk_byte(b, z.sector * 512 + 1026), 1);
        /* UNMAP is for write zeroes only; other flags are for nobody. */
        z.flags = 1;
        memcpy(b->guest->ram + DATA, &z, 16);
        assert_int_equal(request(b, type, 0, s, 1, 0, NULL), type == 11 ? 2 : 0);
        z.flags = 2;
        memcpy(b->guest->ram + DATA, &z, 16);
        assert_int_equal(request(b, type, 0, s, 1, 0, NULL), 2);
        z.flags = 0;
        z.sector = DISK_BYTES / 512 - 1;
        memcpy(b->guest->ram + DATA, &z, 16);
        assert_int_equal(request(b, type, 0, s, 1, 0, NULL), 1);
        z.sector = UINT64_MAX;
        memcpy(b->guest->ram + DATA, &z, 16);
        assert_int_equal(request(b, type, 0, s, 1, 0, NULL), 1);
        z.sector = 0;
        z.sectors = 126 * 128 + 1;
        memcpy(b->guest->ram + DATA, &z, 16);
        assert_int_equal(request(b, type, 0, s, 1, 0, NULL), 1);
        const struct gmem_segment two[] = { { GPA(DATA), 32 } };
        assert_int_equal(request(b, type, 0, two, 1, 0, NULL), 1);
    }
    bench_free(b);
    /* Not negotiated: unsupported. */
    b = bench_new(false, false, F_FLUSH);
    z.sector = 0;
    z.sectors = 1;
    memcpy(b->guest->ram + DATA, &z, 16);
    assert_int_equal(request(b, 11, 0, s, 1, 0, NULL), 2);
    assert_int_equal(request(b, 13, 0, s, 1, 0, NULL), 2);
    assert_int_equal(disk_byte(b, 1), 1);
    bench_free(b);
}

static void test_late_answers(void **state)
{
    struct bench *b = bench_new(true, false, F_FLUSH);
    const struct gmem_segment one[] = { { GPA(DATA), 512 } };
    uint32_t id, written;

    (void)state;
    /* Three requests, two slots: the third waits in the ring, and comes when a slot is free. Answers out of order. */
    offer(b, 0, 0, one, 0, 1);
    offer(b, 0, 0, one, 0, 1);
    offer(b, 0, 0, one, 0, 1);
    fake_run(b->guest, b->dev, 0);
    assert_int_equal(b->waiting_count, 2);
    assert_int_equal(virtio_in_flight(b->dev), 2);
    assert_int_equal(fake_get16(b->guest, b->q.used + 2), 0);
    b->guest->doorbells = 0;
    struct blk_request *first = take(b), *second = take(b);
    second->done(second, ERR_IO);
    assert_int_equal(b->guest->ram[STATUS], 1);
    assert_true(b->guest->gsi[17]); /* at once: nobody is inside virtio_process */
    assert_int_equal(b->guest->doorbells, 1);
    assert_true(fake_used(&b->q, &id, &written));
    assert_int_equal(id, 3);
    virtio_process(b->dev, 0);
    assert_int_equal(b->waiting_count, 1);
    first->done(first, OK);
    assert_true(fake_used(&b->q, &id, &written));
    assert_int_equal(id, 0);
    first = take(b);
    first->done(first, ERR_UNSUPPORTED);
    assert_int_equal(b->guest->ram[STATUS], 2);
    assert_int_equal(virtio_in_flight(b->dev), 0);
    bench_free(b);
}

static void test_flush(void **state)
{
    struct bench *b = bench_new(true, false, F_FLUSH);
    const struct gmem_segment one[] = { { GPA(DATA), 512 } };
    struct blk_request *r;

    (void)state;
    offer(b, 4, 0, NULL, 0, 0);
    fake_run(b->guest, b->dev, 0);
    r = take(b);
    assert_int_equal(r->op, BLK_FLUSH);
    r->done(r, OK);
    assert_int_equal(b->guest->ram[STATUS], 0);
    /* With FLUSH negotiated a write is answered when the backend has it. */
    offer(b, 1, 0, one, 1, 0);
    fake_run(b->guest, b->dev, 0);
    r = take(b);
    assert_int_equal(r->segment_count, 1); /* the data alone, no rest of the header */
    assert_int_equal(r->segments[0].gpa.v, DATA);
    assert_int_equal(r->segments[0].bytes, 512);
    r->done(r, OK);
    assert_int_equal(b->guest->ram[STATUS], 0);
    assert_int_equal(b->waiting_count, 0);
    bench_free(b);
    /* Without it, only when it is durable too. */
    b = bench_new(true, false, 0);
    offer(b, 1, 0, one, 1, 0);
    fake_run(b->guest, b->dev, 0);
    r = take(b);
    assert_int_equal(r->op, BLK_WRITE);
    r->done(r, OK);
    assert_int_equal(b->guest->ram[STATUS], 0xee);
    r = take(b);
    assert_int_equal(r->op, BLK_FLUSH);
    r->done(r, ERR_IO);
    assert_int_equal(b->guest->ram[STATUS], 1);
    bench_free(b);
}

static void test_reset_in_flight(void **state)
{
    struct bench *b = bench_new(true, false, 0);
    const struct gmem_segment one[] = { { GPA(DATA), 512 } };
    struct blk_request *r;

    (void)state;
    offer(b, 1, 0, one, 1, 0);
    fake_run(b->guest, b->dev, 0);
    fake_set_reg(b->guest, b->dev, REG_STATUS, 1, 0);
    assert_int_not_equal(fake_reg(b->guest, b->dev, REG_STATUS, 1), 0);
    b->guest->trace_count = 0;
    r = take(b);
    r->done(r, OK);
    assert_int_equal(b->waiting_count, 0); /* no flush for a driver that is gone */
    assert_int_equal(b->guest->trace_count, 0);
    assert_int_equal(b->guest->ram[STATUS], 0xee);
    assert_int_equal(fake_reg(b->guest, b->dev, REG_STATUS, 1), 0);
    assert_false(b->slot[0].busy);
    /* And the disk works again. */
    memset(b->guest->ram + RING, 0, 0x10000);
    b->q = fake_queue_at(b->guest, RING, 16);
    fake_negotiate(b->guest, b->dev, F_FLUSH);
    fake_setup_queue(b->guest, b->dev, 0, &b->q);
    fake_driver_ok(b->guest, b->dev);
    offer(b, 0, 0, one, 0, 1);
    fake_run(b->guest, b->dev, 0);
    r = take(b);
    r->done(r, OK);
    assert_int_equal(b->guest->ram[STATUS], 0);
    bench_free(b);
}

static void test_header_changed(void **state)
{
    (void)state;
    /* Segments handed to the backend are the checked copies: a driver that rewrites its descriptors changes nothing. */
    struct bench *b = bench_new(true, false, F_FLUSH);
    const struct gmem_segment one[] = { { GPA(DATA), 512 } };
    struct blk_request *r;

    offer(b, 0, 7, one, 0, 1);
    fake_run(b->guest, b->dev, 0);
    memset(b->guest->ram + RING, 0xff, 16 * 16);
    memset(b->guest->ram + HEADER, 0xff, 16);
    r = take(b);
    assert_int_equal(r->op, BLK_READ);
    assert_int_equal(r->offset, 7 * 512);
    assert_int_equal(r->segment_count, 1);
    assert_int_equal(r->segments[0].gpa.v, DATA);
    assert_int_equal(r->segments[0].bytes, 512);
    r->done(r, OK);
    assert_int_equal(b->guest->ram[STATUS], 0);
    bench_free(b);
}

static void test_state(void **state)
{
    struct bench *b = bench_new(false, false, ~0ull), *c = bench_new(false, false, ~0ull);
    const struct gmem_segment one[] = { { GPA(DATA), 512 } };

    (void)state;
    assert_int_equal(request(b, 0, 0, one, 0, 1, NULL), 0);
    virtio_quiesce(b->dev);
    offer(b, 0, 1, one, 0, 1);
    fake_run(b->guest, b->dev, 0);
    assert_int_equal(fake_save(b->guest, b->dev), OK);
    memcpy(c->guest->ram, b->guest->ram, sizeof(c->guest->ram));
    assert_int_equal(fake_restore(c->guest, c->dev, b->guest), OK);
    virtio_resume(c->dev);
    virtio_process(c->dev, 0);
    assert_int_equal(fake_get16(c->guest, b->q.used + 2), 2);
    assert_int_equal(c->guest->ram[STATUS], 0);
    c->ram.dev.bytes -= 512; /* a disk of another size is another disk */
    assert_int_equal(fake_restore(c->guest, c->dev, b->guest), ERR_RANGE);
    bench_free(b);
    bench_free(c);
}

/* ---- Turns ---- */

static bool cold[FAKE_RAM_BYTES / PAGE_BYTES];
static unsigned warmed;

/* Pages that have not been used yet stand for frames: each costs one of the budget. */
static bool prepare(void *context, gpa_t gpa, uint64_t count, unsigned *budget)
{
    (void)context;
    for (uint64_t page = gpa.v / PAGE_BYTES; page <= (gpa.v + count - 1) / PAGE_BYTES; page++) {
        if (!cold[page])
            continue;
        if (!*budget)
            return false;
        --*budget;
        cold[page] = false;
        warmed++;
    }
    return true;
}

static void a_scattered_request_takes_many_short_turns(void **state)
{
    struct bench *b = bench_new(false, false, 0);
    struct gmem_segment data[10];
    unsigned turns = 0, most = 0;
    uint32_t id, written;
    bool more;

    (void)state;
    for (unsigned i = 0; i < 10; i++) {
        data[i] = (struct gmem_segment){ GPA(0x600000 + i * 3 * PAGE_BYTES), 512 };
        cold[data[i].gpa.v / PAGE_BYTES] = true;
    }
    b->guest->memory.prepare = prepare;
    offer(b, 0, 1, data, 0, 10);
    fake_kick(b->guest, b->dev, 0);
    warmed = 0;
    do {
        unsigned before = warmed;
        more = virtio_process(b->dev, 0);
        most = MAX(most, warmed - before);
        assert_int_equal(virtio_in_flight(b->dev), 0); /* not taken before all of it is there */
        assert_true(turns++ < 100);
    } while (more);
    assert_int_equal(warmed, 10);
    assert_true(most <= 2);
    assert_true(turns >= 5);
    assert_true(fake_used(&b->q, &id, &written));
    assert_false(fake_used(&b->q, &id, &written));
    assert_int_equal(b->guest->ram[STATUS], 0);
    for (unsigned i = 0; i < 10; i++)
        assert_int_equal(b->guest->ram[data[i].gpa.v + i], disk_byte(b, (1 + i) * 512 + i));
    bench_free(b);
}

/* A backend with larger blocks: the driver is told, and what is not made of whole ones never reaches the backend. */
static void test_large_blocks(void **state)
{
    struct bench *b = bench_new(true, false, F_FLUSH | F_DISCARD);
    uint64_t config = fake_bar(b->guest, SLOT) + REG_DEVICE;
    const struct gmem_segment small[] = { { GPA(DATA), 512 } }, large[] = { { GPA(DATA), 4096 } };
    (void)state;

    b->late.block_bytes = 4096;
    assert_int_equal(fake_mmio_read(b->guest, config + 20, 4), 4096);
    assert_int_equal(fake_mmio_read(b->guest, config + 24, 1), 0); /* blocks of that size in a physical one: 2^0 */
    assert_int_equal(fake_mmio_read(b->guest, config + 26, 2), 1);
    assert_int_equal(fake_mmio_read(b->guest, config + 44, 4), 8);
    assert_int_equal(request(b, 0, 8, small, 0, 1, NULL), 1);
    assert_int_equal(request(b, 1, 4, large, 1, 0, NULL), 1);
    assert_int_equal(b->waiting_count, 0);
    offer(b, 1, 16, large, 1, 0);
    fake_run(b->guest, b->dev, 0);
    struct blk_request *r = take(b);
    assert_int_equal(r->offset, 8192);
    assert_int_equal(r->bytes, 4096);
    r->done(r, OK);
    assert_int_equal(b->guest->ram[STATUS], 0);
    bench_free(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_config), cmocka_unit_test(test_grown),       cmocka_unit_test(test_read_write),
        cmocka_unit_test(test_framing),      cmocka_unit_test(test_refused),
        cmocka_unit_test(test_malformed),    cmocka_unit_test(test_id),
        cmocka_unit_test(test_zeroes),       cmocka_unit_test(test_late_answers),
        cmocka_unit_test(test_flush),        cmocka_unit_test(test_reset_in_flight),
        cmocka_unit_test(test_header_changed), cmocka_unit_test(test_state),
        cmocka_unit_test(test_large_blocks),
        cmocka_unit_test(a_scattered_request_takes_many_short_turns),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
