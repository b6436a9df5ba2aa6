/* SPDX-License-Identifier: MIT */
/*
 * The Multiboot loader: ELF32, ELF64 and flat kernels land where they say, the information structure tells the truth,
 * and headers that are damaged, overlap nothing they should, or ask for what is not there are refused.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "fake_boot.h"
#include "kernel/bytes.h"
#include "vm/boot_multiboot.h"
#include "vmm/cpu_state_stream.h"

#define IMAGE_BYTES 0x3000u
#define CODE 0x1000u /* file offset of the first segment: 0x800 bytes, 0x1800 in memory */
#define DATA 0x2000u /* of the second: 0x1000 bytes */

static uint8_t image[IMAGE_BYTES];
static char error[BOOT_ERROR_BYTES];

static void put_header(uint32_t at, uint32_t flags)
{
    le32_put(image + at, MULTIBOOT_HEADER_MAGIC);
    le32_put(image + at + 4, flags);
    le32_put(image + at + 8, 0u - MULTIBOOT_HEADER_MAGIC - flags);
}

static void start_image(void)
{
    for (unsigned i = 0; i < IMAGE_BYTES; i++)
        image[i] = i < CODE ? 0 : (uint8_t)(i * 5 + i / 256);
    error[0] = 0;
}

static int make_elf32(void **state)
{
    (void)state;
    start_image();
    memcpy(image, "\177ELF\1\1\1", 7);
    le16_put(image + 16, 2), le16_put(image + 18, 3);
    le32_put(image + 24, 0x100010); /* entry */
    le32_put(image + 28, 52);
    le16_put(image + 42, 32), le16_put(image + 44, 2);
    static const uint32_t segments[2][8] = { { 1, CODE, 0x100000, 0x100000, 0x800, 0x1800, 5, 0 },
                                             { 1, DATA, 0x200000, 0x200000, 0x1000, 0x1000, 6, 0 } };
    for (unsigned i = 0; i < 16; i++)
        le32_put(image + 52 + 4 * i, segments[i / 8][i % 8]);
    put_header(0x100, MULTIBOOT_FLAG_PAGE_ALIGN | MULTIBOOT_FLAG_MEMORY_INFO);
    return 0;
}

static int make_elf64(void **state)
{
    (void)state;
    start_image();
    memcpy(image, "\177ELF\2\1\1", 7);
    le16_put(image + 16, 2), le16_put(image + 18, 62);
    le64_put(image + 24, 0xffffffff80100010); /* a virtual address */
    le64_put(image + 32, 64);
    le16_put(image + 54, 56), le16_put(image + 56, 1);
    uint8_t *p = image + 64;
    le32_put(p, 1);
    le64_put(p + 8, CODE), le64_put(p + 16, 0xffffffff80100000), le64_put(p + 24, 0x100000);
    le64_put(p + 32, 0x800), le64_put(p + 40, 0x1800);
    put_header(0x100, 0);
    return 0;
}

static int make_flat(void **state)
{
    (void)state;
    start_image();
    put_header(0x40, MULTIBOOT_FLAG_ADDRESSES);
    static const uint32_t addresses[] = { 0x200040, 0x200000, 0x202000, 0x205000, 0x201008 };
    for (unsigned i = 0; i < 5; i++)
        le32_put(image + 0x4c + 4 * i, addresses[i]);
    return 0;
}

static const char *text_at(struct fake_boot *f, uint32_t gpa)
{
    return (const char *)f->ram + gpa;
}

static void check_entry(const struct cpu_state *s, uint64_t rip)
{
    assert_int_equal(s->rip, rip);
    assert_int_equal(s->gpr[GPR_RAX], MULTIBOOT_ENTRY_MAGIC);
    assert_int_equal(s->cr0 & (CR0_PE | CR0_PG), CR0_PE);
    assert_int_equal(s->rflags & (RFLAGS_IF | RFLAGS_VM), 0);
    assert_int_equal(s->seg[SEG_CS].attributes & (SEG_DB | SEG_L), SEG_DB);
    assert_int_equal(s->seg[SEG_CS].limit, 0xffffffff);
    assert_int_equal(cpu_state_check(s, &fake_boot_limits, error, sizeof(error)), OK);
}

static void elf32_boots_with_modules(void **state)
{
    (void)state;
    struct fake_boot f;
    struct cpu_state s;
    static const uint8_t one[] = "module one", two[5000] = { 1, 2, 3 };
    struct boot_file modules[] = { { one, sizeof(one), "one.img", NULL },
                                   { two, sizeof(two), "two.img", "two with args" } };
    fake_boot_start(&f, 64 * MIB);
    struct boot_request r = fake_boot_request(&f, image, IMAGE_BYTES);
    r.modules = modules, r.module_count = 2, r.cmdline = "verbose";
    assert_int_equal(kernel_image_boot(&r, &s, error), OK);
    check_entry(&s, 0x100010);
    assert_memory_equal(f.ram + 0x100000, image + CODE, 0x800);
    assert_int_equal(f.ram[0x100800], 0);
    assert_memory_equal(f.ram + 0x200000, image + DATA, 0x1000);

    const uint8_t *info = f.ram + s.gpr[GPR_RBX];
    assert_true(s.gpr[GPR_RBX] < MEMORY_MAP_EBDA);
    assert_int_equal(le32_get(info), BIT(0) | BIT(2) | BIT(3) | BIT(6) | BIT(9));
    assert_int_equal(le32_get(info + 4), 639);
    assert_int_equal(le32_get(info + 8), 63 * 1024);
    assert_string_equal(text_at(&f, le32_get(info + 16)), "verbose");
    assert_string_equal(text_at(&f, le32_get(info + 64)), "Tasuki");
    assert_int_equal(le32_get(info + 20), 2);
    const uint8_t *mods = f.ram + le32_get(info + 24);
    assert_int_equal(le32_get(mods), 0x201000);
    assert_int_equal(le32_get(mods + 4), 0x201000 + sizeof(one));
    assert_string_equal(text_at(&f, le32_get(mods + 8)), "one.img");
    assert_memory_equal(f.ram + le32_get(mods), one, sizeof(one));
    assert_int_equal(le32_get(mods + 16), 0x202000);
    assert_string_equal(text_at(&f, le32_get(mods + 24)), "two with args");
    assert_memory_equal(f.ram + 0x202000, two, sizeof(two));

    uint32_t map = le32_get(info + 48), end = map + le32_get(info + 44);
    unsigned entries = 0;
    for (; map < end; map += le32_get(f.ram + map) + 4, entries++) {
        assert_int_equal(le64_get(f.ram + map + 4), f.map[entries].base);
        assert_int_equal(le64_get(f.ram + map + 12), f.map[entries].bytes);
        assert_int_equal(le32_get(f.ram + map + 20), f.map[entries].type);
    }
    assert_int_equal(entries, f.map_count);
    fake_boot_stop(&f);
}

static void elf64_enters_at_the_physical_place_of_its_entry(void **state)
{
    (void)state;
    struct fake_boot f;
    struct cpu_state s;
    fake_boot_start(&f, 16 * MIB);
    struct boot_request r = fake_boot_request(&f, image, IMAGE_BYTES);
    assert_int_equal(kernel_image_boot(&r, &s, error), OK);
    check_entry(&s, 0x100010);
    assert_memory_equal(f.ram + 0x100000, image + CODE, 0x800);
    fake_boot_stop(&f);
}

static void flat_kernels_load_by_the_headers_addresses(void **state)
{
    (void)state;
    struct fake_boot f;
    struct cpu_state s;
    fake_boot_start(&f, 16 * MIB);
    struct boot_request r = fake_boot_request(&f, image, IMAGE_BYTES);
    assert_int_equal(kernel_image_boot(&r, &s, error), OK);
    check_entry(&s, 0x201008);
    assert_memory_equal(f.ram + 0x200000, image, 0x2000);
    assert_int_equal(f.ram[0x202000], 0);
    le32_put(image + 0x54, 0), le32_put(image + 0x58, 0); /* to the end of the file, no BSS */
    assert_int_equal(kernel_image_boot(&r, &s, error), OK);
    assert_memory_equal(f.ram + 0x200000, image, IMAGE_BYTES);
    fake_boot_stop(&f);
}

static enum status try_boot(uint64_t count)
{
    struct fake_boot f;
    struct cpu_state s;
    fake_boot_start(&f, 16 * MIB);
    uint8_t *copy = malloc(count ? count : 1);
    memcpy(copy, image, count);
    struct boot_request r = fake_boot_request(&f, copy, count);
    enum status status = boot_multiboot(&r, &s, error);
    free(copy);
    fake_boot_stop(&f);
    return status;
}

static void cut_files_are_refused(void **state)
{
    (void)state;
    for (uint64_t count = 0; count < IMAGE_BYTES; count += count < 0x180 ? 1 : 61) {
        assert_int_not_equal(try_boot(count), OK);
        assert_non_null(strstr(error, "vmlinuz"));
    }
    assert_int_equal(try_boot(IMAGE_BYTES), OK);
}

struct damage { unsigned at, width; uint64_t value; enum status status; const char *word; };

static void check_damages(int (*make)(void **), const struct damage *damages, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        make(NULL);
        le_put(image + damages[i].at, damages[i].value, damages[i].width);
        assert_int_equal(try_boot(IMAGE_BYTES), damages[i].status);
        assert_non_null(strstr(error, damages[i].word));
    }
}

static void damaged_headers_are_refused(void **state)
{
    (void)state;
    static const struct damage elf32[] = {
        { 0x108, 4, 0, ERR_INVALID, "no Multiboot header" },   { 4, 1, 3, ERR_UNSUPPORTED, "not an ELF file for x86" },
        { 5, 1, 2, ERR_UNSUPPORTED, "x86" },                   { 18, 2, 40, ERR_UNSUPPORTED, "x86" },
        { 16, 2, 3, ERR_UNSUPPORTED, "no executable" },        { 0, 1, 0, ERR_INVALID, "not ELF" },
        { 28, 4, 0xfffffff0, ERR_INVALID, "program headers" }, { 42, 2, 31, ERR_INVALID, "program headers" },
        { 44, 2, 0xffff, ERR_INVALID, "program headers" },     { 44, 2, 0, ERR_INVALID, "entry" },
        { 24, 4, 0x100800, ERR_INVALID, "entry" },             { 24, 4, 0, ERR_INVALID, "entry" },
        { 56, 4, 0xffffffff, ERR_INVALID, "outside the file" }, { 68, 4, 0xffffffff, ERR_INVALID, "outside the file" },
        { 72, 4, 0x7ff, ERR_INVALID, "outside the file" },     { 72, 4, 0xffffffff, ERR_RANGE, "memory" },
        { 64, 4, 0x9f000, ERR_RANGE, "0x9f000" },              { 64, 4, 0x1000000, ERR_RANGE, "memory" },
        { 64, 4, 0xfffff000, ERR_RANGE, "memory" },
    };
    static const struct damage elf64[] = {
        { 32, 8, UINT64_MAX, ERR_INVALID, "program headers" }, { 64 + 8, 8, UINT64_MAX, ERR_INVALID, "outside" },
        { 64 + 24, 8, UINT64_MAX, ERR_RANGE, "memory" },       { 64 + 24, 8, 0x100000000, ERR_RANGE, "memory" },
        { 64 + 40, 8, UINT64_MAX, ERR_RANGE, "memory" },       { 24, 8, 0xffffffff80100800, ERR_INVALID, "entry" },
    };
    static const struct damage flat[] = {
        { 0x4c, 4, 0x1fffff, ERR_INVALID, "before the file" }, { 0x4c, 4, 0x300000, ERR_INVALID, "before the file" },
        { 0x54, 4, 0x1fffff, ERR_INVALID, "load end" },        { 0x54, 4, 0x204000, ERR_INVALID, "outside the file" },
        { 0x58, 4, 0x201000, ERR_INVALID, "BSS" },             { 0x58, 4, 0xffffffff, ERR_RANGE, "memory" },
        { 0x5c, 4, 0x202000, ERR_INVALID, "entry" },
    };
    check_damages(make_elf32, elf32, ARRAY_COUNT(elf32));
    check_damages(make_elf64, elf64, ARRAY_COUNT(elf64));
    check_damages(make_flat, flat, ARRAY_COUNT(flat));
    make_elf32(NULL);
    put_header(0x100, BIT(5));
    assert_int_equal(try_boot(IMAGE_BYTES), ERR_UNSUPPORTED);
    assert_non_null(strstr(error, "0x20"));
    put_header(0x100, BIT(17)); /* a wish that may be ignored */
    assert_int_equal(try_boot(IMAGE_BYTES), OK);
}

static void modules_that_do_not_fit_are_named(void **state)
{
    (void)state;
    struct fake_boot f;
    struct cpu_state s;
    fake_boot_start(&f, 16 * MIB);
    uint8_t *big = calloc(1, 15 * MIB);
    struct boot_file module = { big, 15 * MIB, "big.img", NULL }, many[BOOT_MODULES_MAX + 1];
    struct boot_request r = fake_boot_request(&f, image, IMAGE_BYTES);
    r.modules = &module, r.module_count = 1;
    assert_int_equal(boot_multiboot(&r, &s, error), ERR_RANGE);
    assert_non_null(strstr(error, "big.img"));
    for (unsigned i = 0; i < ARRAY_COUNT(many); i++)
        many[i] = (struct boot_file){ big, 0, "m", NULL };
    r.modules = many, r.module_count = BOOT_MODULES_MAX + 1;
    assert_int_equal(boot_multiboot(&r, &s, error), ERR_INVALID);
    r.module_count = BOOT_MODULES_MAX;
    assert_int_equal(boot_multiboot(&r, &s, error), OK);
    free(big);
    fake_boot_stop(&f);
}

static void the_header_is_found_where_it_may_be(void **state)
{
    (void)state;
    struct multiboot_header h;
    static uint8_t file[16384];
    start_image();
    put_header(0, 0);
    for (unsigned at = 0; at < sizeof(file) - 12; at++) {
        memset(file, 0, sizeof(file));
        memcpy(file + at, image, 12);
        assert_int_equal(multiboot_find_header(&h, file, sizeof(file)),
                         at % 4 == 0 && at + 12 <= MULTIBOOT_SEARCH_BYTES);
    }
    assert_false(multiboot_find_header(&h, file, 0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(elf32_boots_with_modules, make_elf32),
        cmocka_unit_test_setup(elf64_enters_at_the_physical_place_of_its_entry, make_elf64),
        cmocka_unit_test_setup(flat_kernels_load_by_the_headers_addresses, make_flat),
        cmocka_unit_test_setup(cut_files_are_refused, make_elf32),
        cmocka_unit_test(damaged_headers_are_refused),
        cmocka_unit_test_setup(modules_that_do_not_fit_are_named, make_elf32),
        cmocka_unit_test(the_header_is_found_where_it_may_be),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
