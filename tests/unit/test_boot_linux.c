/* SPDX-License-Identifier: MIT */
/*
 * The bzImage loader: where everything lands, what the boot parameters say, that the entry state can enter, and that
 * damaged, cut, old and oversized inputs are refused with words. BZIMAGE in the environment names a real kernel to try
 * too.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>

#include "fake_boot.h"
#include "kernel/bytes.h"
#include "vm/boot_linux.h"
#include "vmm/cpu_state_stream.h"

#define SETUP_BYTES 1024u
#define KERNEL_BYTES 8192u
#define IMAGE_BYTES (SETUP_BYTES + KERNEL_BYTES)
#define PREFERRED (16 * MIB)
#define INIT_BYTES (8 * MIB)

static uint8_t image[IMAGE_BYTES];
static char error[BOOT_ERROR_BYTES];

/* A kernel with the header of protocol 2.15 and numbered bytes. */
static int make_image(void **state)
{
    (void)state;
    for (unsigned i = 0; i < IMAGE_BYTES; i++)
        image[i] = i < SETUP_BYTES ? 0 : (uint8_t)(i * 7 + i / 256);
    image[0x1f1] = SETUP_BYTES / 512 - 1;
    le32_put(image + 0x1f4, KERNEL_BYTES / 16);
    le16_put(image + 0x1fe, 0xaa55);
    image[0x200] = 0xeb, image[0x201] = 0x6a; /* the header ends at 0x26c */
    memcpy(image + 0x202, "HdrS", 4);
    le16_put(image + 0x206, 0x020f);
    image[0x211] = 1;
    le32_put(image + 0x22c, 0x7fffffff);
    le32_put(image + 0x230, 2 * MIB);
    image[0x234] = 1;
    le16_put(image + 0x236, 3);
    le32_put(image + 0x238, 2047);
    le64_put(image + 0x258, PREFERRED);
    le32_put(image + 0x260, INIT_BYTES);
    error[0] = 0;
    return 0;
}

static void boots_and_everything_is_in_place(void **state)
{
    (void)state;
    struct fake_boot f;
    struct cpu_state s;
    uint8_t initrd[5000], *p;
    fake_boot_start(&f, 256 * MIB);
    for (unsigned i = 0; i < sizeof(initrd); i++)
        initrd[i] = (uint8_t)(i * 3);
    struct boot_request r = fake_boot_request(&f, image, IMAGE_BYTES);
    struct boot_file module = { .bytes = initrd, .count = sizeof(initrd), .name = "initrd.img" };
    r.modules = &module, r.module_count = 1;
    r.cmdline = "console=ttyS0 quiet";
    r.acpi_rsdp = 0xe0000;
    assert_int_equal(kernel_image_boot(&r, &s, error), OK);

    assert_int_equal(s.rip, PREFERRED + 0x200);
    assert_int_equal(s.gpr[GPR_RSI], BOOT_LINUX_PARAMS);
    assert_int_equal(s.rflags, RFLAGS_FIXED);
    assert_true(cpu_mode64(&s));
    assert_int_equal(s.seg[SEG_CS].selector, 0x10);
    assert_int_equal(s.seg[SEG_DS].selector, 0x18);
    assert_int_equal(cpu_state_check(&s, &fake_boot_limits, error, sizeof(error)), OK);
    assert_memory_equal(f.ram + PREFERRED, image + SETUP_BYTES, KERNEL_BYTES);

    p = f.ram + BOOT_LINUX_PARAMS;
    assert_memory_equal(p + 0x202, image + 0x202, 0x210 - 0x202);
    assert_int_equal(p[0x210], 0xff);
    assert_int_equal(le32_get(p + 0x228), BOOT_LINUX_CMDLINE);
    assert_string_equal((char *)f.ram + BOOT_LINUX_CMDLINE, r.cmdline);
    assert_int_equal(le64_get(p + 0x70), 0xe0000);
    uint32_t at = le32_get(p + 0x218);
    assert_int_equal(le32_get(p + 0x21c), sizeof(initrd));
    assert_int_equal(le32_get(p + 0xc0) | le32_get(p + 0xc4), 0);
    assert_int_equal(at, 256 * MIB - 8192);
    assert_memory_equal(f.ram + at, initrd, sizeof(initrd));
    assert_int_equal(p[0x1e8], f.map_count);
    for (unsigned i = 0; i < f.map_count; i++) {
        assert_int_equal(le64_get(p + 0x2d0 + 20 * i), f.map[i].base);
        assert_int_equal(le64_get(p + 0x2d8 + 20 * i), f.map[i].bytes);
        assert_int_equal(le32_get(p + 0x2e0 + 20 * i), f.map[i].type);
    }
    assert_int_equal(p[0x1ef], 0);                        /* the sentinel: the page was zeroed */
    assert_int_equal(p[0x26c], 0);                        /* nothing behind the header */
    assert_int_equal(le16_get(f.ram + 0x413), 639);
    fake_boot_stop(&f);
}

/* Walks the tables as the CPU would. */
static void low_memory_is_mapped_one_to_one(void **state)
{
    (void)state;
    struct fake_boot f;
    struct cpu_state s;
    fake_boot_start(&f, 64 * MIB);
    struct boot_request r = fake_boot_request(&f, image, IMAGE_BYTES);
    assert_int_equal(boot_linux(&r, &s, error), OK);
    for (uint64_t address = 0; address < 4 * GIB; address += 2 * MIB) {
        uint64_t e = le64_get(f.ram + s.cr3);
        assert_int_equal(e & 0xfff, 3);
        e = le64_get(f.ram + (e & ~0xfffull) + 8 * (address >> 30));
        assert_int_equal(e & 0xfff, 3);
        e = le64_get(f.ram + (e & ~0xfffull) + 8 * (address >> 21 & 511));
        assert_int_equal(e, address | 0x83);
    }
    assert_int_equal(le64_get(f.ram + s.gdtr.base + 0x10), 0x00af9b000000ffff);
    assert_int_equal(le64_get(f.ram + s.gdtr.base + 0x18), 0x00cf93000000ffff);
    assert_int_equal(le64_get(f.ram + s.gdtr.base), 0);
    fake_boot_stop(&f);
}

static enum status try_boot(uint64_t ram, const void *bytes, uint64_t count, uint64_t initrd_bytes, uint64_t *initrd_at)
{
    struct fake_boot f;
    struct cpu_state s;
    fake_boot_start(&f, ram);
    uint8_t *initrd = mmap(NULL, initrd_bytes + 1, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    struct boot_file module = { .bytes = initrd, .count = initrd_bytes, .name = "initrd.img" };
    struct boot_request r = fake_boot_request(&f, bytes, count);
    r.modules = &module, r.module_count = initrd_bytes ? 1 : 0;
    enum status status = boot_linux(&r, &s, error);
    if (status == OK && cpu_state_check(&s, &fake_boot_limits, NULL, 0))
        status = ERR_CORRUPT;
    if (initrd_at && status == OK) {
        const uint8_t *p = f.ram + BOOT_LINUX_PARAMS;
        *initrd_at = (uint64_t)le32_get(p + 0xc0) << 32 | le32_get(p + 0x218);
    }
    munmap(initrd, initrd_bytes + 1);
    fake_boot_stop(&f);
    return status;
}

static void the_initrd_stays_below_its_limit_and_off_the_kernel(void **state)
{
    (void)state;
    uint64_t at = 0;
    assert_int_equal(try_boot(4 * GIB, image, IMAGE_BYTES, MIB, &at), OK);
    assert_int_equal(at, 2 * GIB - MIB);
    le32_put(image + 0x22c, 0x37ffffff);
    assert_int_equal(try_boot(4 * GIB, image, IMAGE_BYTES, MIB, &at), OK);
    assert_int_equal(at, 0x38000000 - MIB);
    /* The kernel is at 16..24 MiB of 32: 8 MiB fit behind it, 15 before it, 16 nowhere. */
    assert_int_equal(try_boot(32 * MIB, image, IMAGE_BYTES, 8 * MIB, &at), OK);
    assert_int_equal(at, 24 * MIB);
    assert_int_equal(try_boot(32 * MIB, image, IMAGE_BYTES, 15 * MIB, &at), OK);
    assert_int_equal(at, 1 * MIB);
    assert_int_equal(try_boot(32 * MIB, image, IMAGE_BYTES, 16 * MIB, &at), ERR_RANGE);
    assert_non_null(strstr(error, "initrd.img"));
    assert_non_null(strstr(error, "memory ="));
}

static void a_large_initrd_goes_above_4_gib_where_the_kernel_allows_it(void **state)
{
    (void)state;
    uint64_t at = 0;
    le32_put(image + 0x22c, 0x01ffffff);
    assert_int_equal(try_boot(5 * GIB, image, IMAGE_BYTES, 64 * MIB, &at), OK);
    assert_int_equal(at, 6 * GIB - 64 * MIB);
    le16_put(image + 0x236, 1);
    assert_int_equal(try_boot(5 * GIB, image, IMAGE_BYTES, 64 * MIB, &at), ERR_RANGE);
}

static void too_little_memory_is_said_with_the_size_that_works(void **state)
{
    (void)state;
    assert_int_equal(try_boot(24 * MIB - PAGE_BYTES, image, IMAGE_BYTES, 0, NULL), ERR_RANGE);
    assert_non_null(strstr(error, "memory = 24M"));
    assert_int_equal(try_boot(24 * MIB, image, IMAGE_BYTES, 0, NULL), OK);
    image[0x234] = 0; /* not relocatable: the same place, or none */
    assert_int_equal(try_boot(24 * MIB, image, IMAGE_BYTES, 0, NULL), OK);
    assert_int_equal(try_boot(24 * MIB - PAGE_BYTES, image, IMAGE_BYTES, 0, NULL), ERR_RANGE);
}

static void every_cut_file_is_refused(void **state)
{
    (void)state;
    struct linux_header h;
    for (uint64_t count = 0; count < IMAGE_BYTES - 15; count++) {
        uint8_t *cut = malloc(count ? count : 1);
        memcpy(cut, image, count);
        struct boot_file file = { .bytes = cut, .count = count, .name = "vmlinuz" };
        assert_int_equal(linux_header_read(&h, &file, error), ERR_TRUNCATED);
        assert_non_null(strstr(error, "vmlinuz"));
        free(cut);
    }
}

struct damage { unsigned at, width; uint64_t value; enum status status; const char *word; };

static void damaged_headers_are_refused(void **state)
{
    static const struct damage damages[] = {
        { 0x1fe, 2, 0, ERR_INVALID, "bzImage" },           { 0x202, 4, 0, ERR_INVALID, "bzImage" },
        { 0x206, 2, 0x020b, ERR_UNSUPPORTED, "2.11" },     { 0x236, 2, 0, ERR_UNSUPPORTED, "64-bit" },
        { 0x211, 1, 0, ERR_INVALID, "damaged" },           { 0x201, 1, 0, ERR_INVALID, "setup header" },
        { 0x201, 1, 0xff, ERR_INVALID, "setup header" },   { 0x1f4, 4, 0, ERR_TRUNCATED, "cut" },
        { 0x1f4, 4, 0xffffffff, ERR_TRUNCATED, "cut" },    { 0x1f4, 4, 0x10000000, ERR_TRUNCATED, "cut" },
        { 0x1f1, 1, 0xff, ERR_TRUNCATED, "cut" },          { 0x230, 4, 0, ERR_INVALID, "alignment" },
        { 0x230, 4, 3, ERR_INVALID, "alignment" },         { 0x230, 4, 0x80000000, ERR_INVALID, "alignment" },
        { 0x258, 8, 0, ERR_INVALID, "preferred" },         { 0x258, 8, UINT64_MAX, ERR_INVALID, "preferred" },
        { 0x258, 8, PREFERRED + 1, ERR_INVALID, "preferred" }, { 0x248, 4, KERNEL_BYTES + 1, ERR_INVALID, "payload" },
        { 0x24c, 4, 0xffffffff, ERR_INVALID, "payload" },  { 0x260, 4, 0xffffffff, ERR_RANGE, "memory =" },
    };
    for (unsigned i = 0; i < ARRAY_COUNT(damages); i++) {
        const struct damage *d = &damages[i];
        make_image(state);
        le_put(image + d->at, d->value, d->width);
        assert_int_equal(try_boot(64 * MIB, image, IMAGE_BYTES, 0, NULL), d->status);
        assert_non_null(strstr(error, d->word));
        assert_non_null(strstr(error, "vmlinuz"));
    }
}

static void a_long_cmdline_is_refused(void **state)
{
    (void)state;
    struct fake_boot f;
    struct cpu_state s;
    char text[4200];
    fake_boot_start(&f, 64 * MIB);
    struct boot_request r = fake_boot_request(&f, image, IMAGE_BYTES);
    memset(text, 'x', sizeof(text));
    text[2048] = 0;
    r.cmdline = text;
    assert_int_equal(boot_linux(&r, &s, error), ERR_RANGE);
    assert_non_null(strstr(error, "2047"));
    text[2047] = 0;
    assert_int_equal(boot_linux(&r, &s, error), OK);
    le32_put(image + 0x238, 0xffffffff); /* a kernel that takes any length gets what the page holds */
    memset(text, 'x', sizeof(text));
    text[4096] = 0;
    assert_int_equal(boot_linux(&r, &s, error), ERR_RANGE);
    text[4095] = 0;
    assert_int_equal(boot_linux(&r, &s, error), OK);
    assert_int_equal(f.ram[BOOT_LINUX_CMDLINE + 4096], 0);
    r.module_count = 2;
    assert_int_equal(boot_linux(&r, &s, error), ERR_INVALID);
    fake_boot_stop(&f);
}

static void what_is_no_kernel_is_named(void **state)
{
    (void)state;
    struct fake_boot f;
    struct cpu_state s;
    static const uint8_t junk[600] = "not a kernel", gzip[600] = { 0x1f, 0x8b };
    fake_boot_start(&f, 64 * MIB);
    struct boot_request r = fake_boot_request(&f, junk, sizeof(junk));
    assert_int_equal(kernel_image_boot(&r, &s, error), ERR_INVALID);
    assert_non_null(strstr(error, "neither"));
    r.kernel.bytes = gzip;
    assert_int_equal(kernel_image_boot(&r, &s, error), ERR_UNSUPPORTED);
    assert_non_null(strstr(error, "gzip"));
    r.kernel.count = 0;
    assert_int_equal(kernel_image_boot(&r, &s, error), ERR_INVALID);
    assert_int_equal(kernel_image_kind(image, IMAGE_BYTES), KERNEL_LINUX);
    assert_int_equal(kernel_image_kind(image, 0x205), KERNEL_UNKNOWN);
    fake_boot_stop(&f);
}

static void a_real_kernel_is_accepted(void **state)
{
    (void)state;
    const char *path = getenv("BZIMAGE");
    if (!path)
        skip();
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    uint8_t *bytes = malloc(64 * MIB);
    size_t count = fread(bytes, 1, 64 * MIB, file);
    fclose(file);
    assert_int_equal(kernel_image_kind(bytes, count), KERNEL_LINUX);
    enum status status = try_boot(256 * MIB, bytes, count, 20 * MIB, NULL);
    if (status)
        fprintf(stderr, "%s\n", error);
    assert_int_equal(status, OK);
    free(bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(boots_and_everything_is_in_place, make_image),
        cmocka_unit_test_setup(low_memory_is_mapped_one_to_one, make_image),
        cmocka_unit_test_setup(the_initrd_stays_below_its_limit_and_off_the_kernel, make_image),
        cmocka_unit_test_setup(a_large_initrd_goes_above_4_gib_where_the_kernel_allows_it, make_image),
        cmocka_unit_test_setup(too_little_memory_is_said_with_the_size_that_works, make_image),
        cmocka_unit_test_setup(every_cut_file_is_refused, make_image),
        cmocka_unit_test_setup(damaged_headers_are_refused, make_image),
        cmocka_unit_test_setup(a_long_cmdline_is_refused, make_image),
        cmocka_unit_test_setup(what_is_no_kernel_is_named, make_image),
        cmocka_unit_test(a_real_kernel_is_accepted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
