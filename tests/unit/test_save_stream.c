/* SPDX-License-Identifier: MIT */
/*
 * The sections of a saved VM that vm/ writes itself: what is written comes back, and a stream of another VM, a value that
 * no VM could have, and a section that is cut at any byte are refused with words. A stream in pieces reads as one in one.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "fake_stream.h"
#include "vm/save_stream.h"

#define FRAME_BYTES (SAVE_FRAME_PAGES * PAGE_BYTES)

static struct fake_stream stream;

static struct config_vm config(void)
{
    return (struct config_vm){ .name = "demo", .memory_bytes = 64 * MIB, .vcpus = 2, .kernel = "\\kernel", .cmdline = "a b",
                               .disks = { "\\one", "\\two" }, .disk_count = 2, .uuid = "5f0c2f6e" };
}

static void put_vm(struct stream_writer *w, void *arg)
{
    save_vm_put(arg, w);
}

static struct stream_reader *write_vm(const struct config_vm *c, bool paused)
{
    struct save_vm vm = { c, 64 * MIB, 7, paused };
    fake_stream_write(&stream, SAVE_VM_VERSION, put_vm, &vm);
    return fake_stream_read(&stream);
}

/* The state of one VM is read for another. */
static const char *mismatch(const struct config_vm *written, const struct config_vm *here)
{
    struct stream_reader *r = write_vm(written, false);
    struct save_vm vm = { .config = here, .memory_bytes = 64 * MIB };
    save_vm_get(&vm, r);
    assert_int_equal(r->error, ERR_INVALID);
    return r->error_text;
}

static void vm_comes_back(void **state)
{
    struct config_vm c = config();
    (void)state;
    for (unsigned paused = 0; paused < 2; paused++) {
        struct stream_reader *r = write_vm(&c, paused);
        struct save_vm vm = { .config = &c, .memory_bytes = 64 * MIB };
        save_vm_get(&vm, r);
        assert_int_equal(r->error, OK);
        assert_int_equal(vm.paused, paused);
        assert_int_equal(vm.reset_count, 7);
        assert_int_equal(stream_left(r), 0);
    }
}

static void vm_of_another_is_refused(void **state)
{
    struct config_vm c = config(), other = config();
    (void)state;
    other.name = "demp";
    assert_non_null(strstr(mismatch(&other, &c), "name"));
    other = config();
    other.name = "demonstration";
    assert_non_null(strstr(mismatch(&other, &c), "name"));
    other = config();
    other.vcpus = 3;
    assert_non_null(strstr(mismatch(&other, &c), "3 vCPUs, this VM has 2"));
    other = config();
    other.kernel = NULL;
    assert_non_null(strstr(mismatch(&other, &c), "kernel"));
    assert_non_null(strstr(mismatch(&c, &other), "kernel"));
    other = config();
    other.cmdline = "a c";
    assert_non_null(strstr(mismatch(&other, &c), "cmdline"));
    other = config();
    other.disk_count = 1;
    assert_non_null(strstr(mismatch(&other, &c), "1 disks, this VM has 2"));
    other = config();
    other.disks[1] = "\\three";
    assert_non_null(strstr(mismatch(&other, &c), "disk"));
    other = config();
    other.uuid = "5f0c2f6f";
    assert_non_null(strstr(mismatch(&other, &c), "its uuid is not that of this VM"));
    other.uuid = NULL;
    assert_non_null(strstr(mismatch(&other, &c), "uuid"));
    assert_non_null(strstr(mismatch(&c, &other), "uuid"));
    struct stream_reader *r = write_vm(&c, false);
    struct save_vm vm = { .config = &c, .memory_bytes = 66 * MIB };
    save_vm_get(&vm, r);
    assert_int_equal(r->error, ERR_INVALID);
    assert_non_null(strstr(r->error_text, "bytes of memory"));
}

static void vm_cut_or_long_is_refused(void **state)
{
    struct config_vm c = config();
    (void)state;
    (void)write_vm(&c, false);
    size_t whole = fake_stream_payload(&stream);
    for (size_t count = 0; count < whole; count++) {
        (void)write_vm(&c, false);
        fake_stream_cut(&stream, count);
        struct stream_reader *r = fake_stream_read(&stream);
        struct save_vm vm = { .config = &c, .memory_bytes = 64 * MIB };
        save_vm_get(&vm, r);
        assert_int_not_equal(r->error, OK);
        assert_true(r->error_text[0]);
    }
    /* A string that says it is longer than everything. */
    (void)write_vm(&c, false);
    fake_stream_patch(&stream, 0, 0xfffffffe, 4);
    struct stream_reader *r = fake_stream_read(&stream);
    struct save_vm vm = { .config = &c, .memory_bytes = 64 * MIB };
    save_vm_get(&vm, r);
    assert_int_equal(r->error, ERR_INVALID);
}

/* Version 1 ends with the disks. */
static void vm_without_uuid_is_read(void **state)
{
    struct config_vm c = config();
    struct save_vm vm = { &c, 64 * MIB, 7, false };
    (void)state;
    c.uuid = "";
    fake_stream_write(&stream, 1, put_vm, &vm);
    fake_stream_cut(&stream, fake_stream_payload(&stream) - 4);
    c.uuid = "5f0c2f6e";
    struct stream_reader *r = fake_stream_read(&stream);
    save_vm_get(&vm, r);
    assert_int_equal(r->error, OK);
}

/* ---- Disks ---- */

static void put_disk(struct stream_writer *w, void *arg)
{
    save_disk_put(arg, w);
}

static const char *disk_error(const struct save_disk *here, enum status expected)
{
    struct stream_reader *r = fake_stream_read(&stream);
    save_disk_get(here, r);
    assert_int_equal(r->error, expected);
    return r->error_text;
}

static const struct save_disk a_file = { SAVE_DISK_FILE, "/ClusterStorage/V/demo/a.img", 1 * MIB, 77, 5, 1000000007, "" };
static const struct save_disk a_unit = { .kind = SAVE_DISK_UNIT, .path = "storage:san", .bytes = 1 * GIB, .identity = "naa.6001" };

static void disk_that_was_changed_is_told(void **state)
{
    struct save_disk disk = a_file;
    (void)state;
    fake_stream_write(&stream, SAVE_DISK_VERSION, put_disk, &disk);
    disk_error(&a_file, OK);
    disk.inode = 78;
    assert_string_equal(disk_error(&disk, ERR_INVALID),
                        "section TEST 0: /ClusterStorage/V/demo/a.img is another file now, put there since");
    disk = a_file;
    disk.generation = 6;
    assert_non_null(strstr(disk_error(&disk, ERR_INVALID), "another file"));
    disk = a_file;
    disk.bytes = 2 * MIB;
    assert_non_null(strstr(disk_error(&disk, ERR_INVALID), "had 1048576 bytes and has 2097152 now"));
    disk = a_file;
    disk.modified_ns++;
    assert_non_null(strstr(disk_error(&disk, ERR_INVALID), "was written to, or was a running VM's disk, since"));
    disk_error(&a_unit, ERR_CORRUPT);
    disk = (struct save_disk){ .path = "\\image", .bytes = 1 * MIB };
    disk_error(&disk, ERR_CORRUPT);
    fake_stream_write(&stream, SAVE_DISK_VERSION, put_disk, &disk);
    disk_error(&disk, OK);
    disk.bytes++;
    assert_non_null(strstr(disk_error(&disk, ERR_INVALID), "its image had 1048576 bytes"));
}

static void unit_that_was_changed_is_told(void **state)
{
    char longest[264] = { 0 };
    struct save_disk disk = a_unit;
    (void)state;
    memset(longest, 'x', sizeof longest - 1);
    fake_stream_write(&stream, SAVE_DISK_VERSION, put_disk, &disk);
    disk_error(&a_unit, OK);
    disk.identity = "naa.6002";
    assert_non_null(strstr(disk_error(&disk, ERR_INVALID), "storage:san is another unit now: naa.6002"));
    disk.identity = "";
    assert_non_null(strstr(disk_error(&disk, ERR_INVALID), "another unit"));
    disk = a_unit;
    disk.bytes = 2 * GIB;
    assert_non_null(strstr(disk_error(&disk, ERR_INVALID), "had 1073741824 bytes and has 2147483648 now"));
    disk.identity = longest;
    fake_stream_write(&stream, SAVE_DISK_VERSION, put_disk, &disk);
    disk_error(&disk, OK);
    assert_non_null(strstr(disk_error(&a_unit, ERR_INVALID), "another unit"));
}

static void disk_cut_or_long_is_refused(void **state)
{
    const struct save_disk *const disks[] = { &a_file, &a_unit };
    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        struct save_disk disk = *disks[i];
        fake_stream_write(&stream, SAVE_DISK_VERSION, put_disk, &disk);
        size_t whole = fake_stream_payload(&stream);
        for (size_t count = 0; count < whole; count++) {
            fake_stream_write(&stream, SAVE_DISK_VERSION, put_disk, &disk);
            fake_stream_cut(&stream, count);
            struct stream_reader *r = fake_stream_read(&stream);
            save_disk_get(disks[i], r);
            assert_int_not_equal(r->error, OK);
        }
        fake_stream_write(&stream, SAVE_DISK_VERSION, put_disk, &disk);
        fake_stream_patch(&stream, 8, 9, 4);
        disk_error(disks[i], ERR_CORRUPT);
    }
}

/* Version 1: eight bytes, which of a file and a unit say nothing. */
static void disk_of_version_1_is_read(void **state)
{
    struct save_disk image = { .path = "\\image", .bytes = 0 };
    (void)state;
    fake_stream_write(&stream, 1, put_disk, &image);
    fake_stream_cut(&stream, 8);
    disk_error(&a_file, OK);
    disk_error(&a_unit, OK);
    disk_error(&image, OK);
    image.bytes = 5;
    disk_error(&image, ERR_INVALID);
}

static void put_clock(struct stream_writer *w, void *arg)
{
    save_clock_put(arg, w);
}

static void clock_is_checked(void **state)
{
    struct save_clock clock = { 123456789, 42, 1700000000000000000, 2000000 }, back;
    (void)state;
    fake_stream_write(&stream, 1, put_clock, &clock);
    struct stream_reader *r = fake_stream_read(&stream);
    save_clock_get(&back, r, 2000000);
    assert_int_equal(r->error, OK);
    assert_memory_equal(&back, &clock, 3 * sizeof(uint64_t));
    r = fake_stream_read(&stream);
    save_clock_get(&back, r, 2000001);
    assert_int_equal(r->error, ERR_CORRUPT);
    fake_stream_patch(&stream, 0, UINT64_MAX, 8);
    r = fake_stream_read(&stream);
    save_clock_get(&back, r, 2000000);
    assert_int_equal(r->error, ERR_CORRUPT);
    for (size_t count = 0; count < 28; count++) {
        fake_stream_write(&stream, 1, put_clock, &clock);
        fake_stream_cut(&stream, count);
        r = fake_stream_read(&stream);
        save_clock_get(&back, r, 2000000);
        assert_int_equal(r->error, ERR_TRUNCATED);
    }
}

static void put_vcpu(struct stream_writer *w, void *arg)
{
    save_vcpu_put(arg, w);
}

static void vcpu_is_checked(void **state)
{
    struct save_vcpu back;
    (void)state;
    for (unsigned flags = 0; flags < 16; flags++) {
        struct save_vcpu vcpu = { 1ull << 63, 5, flags & 1, flags & 2, flags & 4, flags & 8, 0x99 };
        fake_stream_write(&stream, 1, put_vcpu, &vcpu);
        struct stream_reader *r = fake_stream_read(&stream);
        save_vcpu_get(&back, r);
        /* The reader stands in instance 0, the boot vCPU, which waits for nobody. */
        assert_int_equal(r->error, flags & 2 ? ERR_CORRUPT : OK);
        assert_int_equal(back.guest_tsc, vcpu.guest_tsc);
        assert_int_equal(back.nmi_pending, vcpu.nmi_pending);
        assert_int_equal(back.init_signal, vcpu.init_signal);
        assert_int_equal(back.sipi_signal, vcpu.sipi_signal);
        assert_int_equal(back.sipi_vector, 0x99);
    }
    fake_stream_patch(&stream, 16, 0x10, 1);
    struct stream_reader *r = fake_stream_read(&stream);
    save_vcpu_get(&back, r);
    assert_int_equal(r->error, ERR_CORRUPT);
}

static void version_is_refused_by_name(void **state)
{
    struct save_vcpu vcpu = { 0 };
    (void)state;
    fake_stream_write(&stream, 2, put_vcpu, &vcpu);
    struct stream_reader *r = fake_stream_read(&stream);
    save_version(r, 1, 2);
    assert_int_equal(r->error, OK);
    save_version(r, 1, 1);
    assert_int_equal(r->error, ERR_VERSION);
    assert_string_equal(r->error_text, "section TEST 0: version 2, this node reads 1: update it");
    r = fake_stream_read(&stream);
    save_version(r, 3, 3);
    assert_int_equal(r->error, ERR_VERSION);
    assert_string_equal(r->error_text, "section TEST 0: version 2, this node reads 3: an older one wrote it");
}

/* ---- Pages ---- */

static unsigned yields;

static void count_yield(void)
{
    yields++;
}

struct pages {
    struct save_map map;
    const uint8_t *frame;
};

static void put_pages(struct stream_writer *w, void *arg)
{
    struct pages *p = arg;
    save_pages_put(&p->map, p->frame, w, count_yield);
}

static void map_has_what_differs(void **state)
{
    uint8_t *frame = calloc(1, FRAME_BYTES), *base = malloc(3 * PAGE_BYTES + 100);
    struct save_map map;
    (void)state;
    yields = 0;
    assert_int_equal(save_map_make(&map, frame, NULL, 0, count_yield), 0);
    assert_true(yields > 0);
    frame[0] = 1;
    frame[64 * PAGE_BYTES - 1] = 1;
    frame[FRAME_BYTES - 1] = 1;
    assert_int_equal(save_map_make(&map, frame, NULL, 0, NULL), 3);
    assert_int_equal(map.bits[0], 1 | 1ull << 63);
    assert_int_equal(map.bits[7], 1ull << 63);
    /* Against an image that ends within a page: the rest of the page is zeros. */
    memset(base, 0xaa, 3 * PAGE_BYTES + 100);
    memset(frame, 0, FRAME_BYTES);
    memcpy(frame, base, 3 * PAGE_BYTES + 100);
    assert_int_equal(save_map_make(&map, frame, base, 3 * PAGE_BYTES + 100, NULL), 0);
    frame[PAGE_BYTES + 5] ^= 1;
    frame[3 * PAGE_BYTES + 100] = 1;
    assert_int_equal(save_map_make(&map, frame, base, 3 * PAGE_BYTES + 100, NULL), 2);
    assert_int_equal(map.bits[0], 2 | 8);
    free(base);
    free(frame);
}

static void pages_come_back(void **state)
{
    uint8_t *frame = calloc(1, FRAME_BYTES), *back = calloc(1, FRAME_BYTES);
    struct pages p = { .frame = frame };
    (void)state;
    memset(frame + 5 * PAGE_BYTES, 0x55, PAGE_BYTES);
    memset(frame + 511 * PAGE_BYTES, 0x77, PAGE_BYTES);
    assert_int_equal(save_map_make(&p.map, frame, NULL, 0, NULL), 2);
    fake_stream_write(&stream, 1, put_pages, &p);
    struct stream_reader *r = fake_stream_read(&stream);
    save_pages_get(back, r, count_yield);
    assert_int_equal(r->error, OK);
    assert_int_equal(stream_left(r), 0);
    assert_memory_equal(back, frame, FRAME_BYTES);
    /* A map that promises more or fewer pages than there are. */
    fake_stream_patch(&stream, 0, 0xffffffffffffffff, 8);
    r = fake_stream_read(&stream);
    save_pages_get(back, r, NULL);
    assert_int_equal(r->error, ERR_CORRUPT);
    fake_stream_patch(&stream, 0, 0, 8);
    r = fake_stream_read(&stream);
    save_pages_get(back, r, NULL);
    assert_int_equal(r->error, ERR_CORRUPT);
    for (size_t count = 0; count < 64 + 2 * PAGE_BYTES; count += 61) {
        fake_stream_write(&stream, 1, put_pages, &p);
        fake_stream_cut(&stream, count);
        r = fake_stream_read(&stream);
        save_pages_get(back, r, NULL);
        assert_int_not_equal(r->error, OK);
    }
    free(back);
    free(frame);
}

/* ---- Streams in pieces, and their list ---- */

struct pieces {
    const uint8_t *bytes;
    uint64_t piece;
};

static const uint8_t *piece_at(void *context, uint64_t offset, uint64_t *count)
{
    const struct pieces *p = context;
    *count = p->piece - offset % p->piece;
    return p->bytes + offset;
}

static void write_many(void)
{
    struct save_vcpu vcpu = { .guest_tsc = 77 };
    struct stream_writer w;
    stream.count = 0;
    stream_writer_init(&w, fake_stream_sink, &stream);
    for (uint32_t i = 0; i < 3; i++)
        stream_section(&w, "VCPU", i, 1, STREAM_MANDATORY, put_vcpu, &vcpu);
    stream_section(&w, "NOTE", 0, 4, 0, NULL, NULL);
    for (uint32_t i = 9; i < 11; i++)
        stream_section(&w, "VCPU", i, 1, STREAM_MANDATORY, put_vcpu, &vcpu);
    assert_int_equal(stream_finish(&w), OK);
}

/* A source that has only what is held, in a buffer that ends with it. */
struct held {
    uint8_t *bytes;
    uint64_t offset, count, calls, fails_at;
};

static enum status hold(void *context, uint64_t offset, uint64_t bytes)
{
    struct held *held = context;

    assert_true(offset <= stream.count && bytes <= stream.count - offset);
    free(held->bytes);
    held->bytes = malloc(bytes);
    held->offset = offset;
    held->count = bytes;
    memcpy(held->bytes, stream.bytes + offset, bytes);
    return held->calls++ == held->fails_at ? ERR_IO : OK;
}

static const uint8_t *held_at(void *context, uint64_t offset, uint64_t *count)
{
    struct held *held = context;

    assert_true(offset >= held->offset && offset < held->offset + held->count);
    *count = held->count - (offset - held->offset);
    return held->bytes + (offset - held->offset);
}

static void what_is_read_was_held(void **state)
{
    uint64_t calls = 1;
    struct save_row row[8];
    (void)state;

    write_many();
    for (uint64_t fails = 0; fails <= calls; fails++) {
        struct held held = { .fails_at = fails < calls ? fails : UINT64_MAX };
        struct stream_source source = { held_at, &held, hold };
        struct stream_reader r;
        if (stream_reader_init_source(&r, &source, stream.count) == OK)
            (void)save_list(&r, row, 8, NULL);
        assert_int_equal(r.error, fails < calls ? ERR_IO : OK);
        if (fails < calls)
            assert_non_null(strstr(r.error_text, "could not be read"));
        else
            assert_int_equal(r.section_count, 6);
        if (!fails)
            calls = 1 + 2 * 7; /* the header; of each section its head, and all of it */
        else if (fails == calls)
            assert_int_equal(held.calls, calls);
        free(held.bytes);
    }
}

static void list_is_the_same_in_pieces(void **state)
{
    struct save_row row[8];
    (void)state;
    write_many();
    for (uint64_t size = 1; size <= stream.count; size++) {
        /* The bytes lie in a buffer that ends with them, so that a read beyond is seen. */
        uint8_t *copy = malloc(stream.count);
        memcpy(copy, stream.bytes, stream.count);
        struct pieces pieces = { copy, size };
        struct stream_source source = { piece_at, &pieces, NULL };
        struct stream_reader r;
        assert_int_equal(stream_reader_init_source(&r, &source, stream.count), OK);
        assert_int_equal(save_list(&r, row, 8, NULL), 3);
        assert_int_equal(r.error, OK);
        assert_int_equal(r.section_count, 6);
        assert_string_equal(row[0].tag, "VCPU");
        assert_int_equal(row[0].count, 3);
        assert_int_equal(row[0].last, 2);
        assert_int_equal(row[0].bytes, 3 * 18);
        assert_true(row[0].mandatory);
        assert_string_equal(row[1].tag, "NOTE");
        assert_int_equal(row[1].version, 4);
        assert_false(row[1].mandatory);
        assert_int_equal(row[2].first, 9);
        free(copy);
    }
}

static void damage_in_pieces_is_found(void **state)
{
    struct save_row row[8];
    (void)state;
    write_many();
    for (size_t i = 0; i < stream.count; i++) {
        struct pieces pieces = { stream.bytes, 7 };
        struct stream_source source = { piece_at, &pieces, NULL };
        struct stream_reader r;
        stream.bytes[i] ^= 0x20;
        if (stream_reader_init_source(&r, &source, stream.count) == OK)
            (void)save_list(&r, row, 8, NULL);
        assert_int_not_equal(r.error, OK);
        assert_true(r.error_text[0]);
        stream.bytes[i] ^= 0x20;
    }
    for (size_t count = 0; count < stream.count; count++) {
        uint8_t *copy = malloc(count + 1);
        memcpy(copy, stream.bytes, count);
        struct pieces pieces = { copy, 5 };
        struct stream_source source = { piece_at, &pieces, NULL };
        struct stream_reader r;
        if (stream_reader_init_source(&r, &source, count) == OK)
            (void)save_list(&r, row, 8, NULL);
        assert_int_equal(r.error, ERR_TRUNCATED);
        free(copy);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(vm_comes_back),
        cmocka_unit_test(vm_of_another_is_refused),
        cmocka_unit_test(vm_cut_or_long_is_refused),
        cmocka_unit_test(vm_without_uuid_is_read),
        cmocka_unit_test(disk_that_was_changed_is_told),
        cmocka_unit_test(unit_that_was_changed_is_told),
        cmocka_unit_test(disk_cut_or_long_is_refused),
        cmocka_unit_test(disk_of_version_1_is_read),
        cmocka_unit_test(clock_is_checked),
        cmocka_unit_test(vcpu_is_checked),
        cmocka_unit_test(version_is_refused_by_name),
        cmocka_unit_test(map_has_what_differs),
        cmocka_unit_test(pages_come_back),
        cmocka_unit_test(list_is_the_same_in_pieces),
        cmocka_unit_test(damage_in_pieces_is_found),
        cmocka_unit_test(what_is_read_was_held),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
