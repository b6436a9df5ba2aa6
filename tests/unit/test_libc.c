/* SPDX-License-Identifier: MIT */
/*
 * The hypervisor's C library against the C library of the machine that runs the tests. The sources under test are
 * included with their functions renamed, so that both can be called side by side; their headers are read here too.
 * Also the pure helpers of kernel/text.h and kernel/status.h.
 */
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernel/status.h"
#include "kernel/text.h"

/* ---- The library under test, as hv_NAME ---- */

#undef strchr
#undef strrchr
#undef strstr
#define memcpy hv_memcpy
#define memmove hv_memmove
#define memset hv_memset
#define memcmp hv_memcmp
#define memchr hv_memchr
#define strlen hv_strlen
#define strnlen hv_strnlen
#define strcmp hv_strcmp
#define strncmp hv_strncmp
#define strchr hv_strchr
#define strrchr hv_strrchr
#define strstr hv_strstr
#define strspn hv_strspn
#define strcspn hv_strcspn
#define snprintf hv_snprintf
#define vsnprintf hv_vsnprintf
#define strtoul hv_strtoul
#define strtoull hv_strtoull
#define strtol hv_strtol
#define abs hv_abs
#define LIBC_PLAIN_NAMES
#include "kernel/libc/stdio.h"
#include "kernel/libc/stdlib.h"
#include "kernel/libc/string.h"

#include "kernel/libc/printf.c"
#define digit_value stdlib_digit_value
#include "kernel/libc/stdlib.c"
#include "kernel/libc/string.c"
#undef digit_value
#undef memcpy
#undef memmove
#undef memset
#undef memcmp
#undef memchr
#undef strlen
#undef strnlen
#undef strcmp
#undef strncmp
#undef strchr
#undef strrchr
#undef strstr
#undef strspn
#undef strcspn
#undef snprintf
#undef vsnprintf
#undef strtoul
#undef strtoull
#undef strtol
#undef abs

/* ---- Repeatable random numbers (xorshift64*) ---- */

static uint64_t seed = 0x7461737569ull;

static uint64_t next_random(void)
{
    seed ^= seed >> 12;
    seed ^= seed << 25;
    seed ^= seed >> 27;
    return seed * 0x2545f4914f6cdd1dull;
}

static unsigned below(unsigned limit)
{
    return (unsigned)((next_random() >> 32) % limit);
}

/* ---- Memory ---- */

enum { AREA = 700 };

static void fill_random(unsigned char *bytes, size_t count)
{
    for (size_t i = 0; i < count; i++)
        bytes[i] = (unsigned char)next_random();
}

static void copies_equal_the_hosts_and_touch_nothing_else(void **state)
{
    static unsigned char from[AREA], mine[AREA], host[AREA];

    (void)state;
    for (unsigned round = 0; round < 20000; round++) {
        size_t count = below(round & 1 ? 40 : 320);
        size_t source = below(300), target = below(300);

        fill_random(from, sizeof(from));
        fill_random(mine, sizeof(mine));
        memcpy(host, mine, sizeof(host));
        memcpy(host + target, from + source, count);
        assert_ptr_equal(hv_memcpy(mine + target, from + source, count), mine + target);
        assert_memory_equal(mine, host, sizeof(host));
    }
}

static void moves_are_right_at_every_overlap(void **state)
{
    static unsigned char mine[AREA], host[AREA];

    (void)state;
    for (size_t count = 0; count < 300; count += count < 40 ? 1 : 13) {
        for (int distance = -150; distance <= 150; distance++) {
            size_t source = 200, target = (size_t)(200 + distance);

            fill_random(mine, sizeof(mine));
            memcpy(host, mine, sizeof(host));
            memmove(host + target, host + source, count);
            assert_ptr_equal(hv_memmove(mine + target, mine + source, count), mine + target);
            assert_memory_equal(mine, host, sizeof(host));
        }
    }
}

static void fills_equal_the_hosts(void **state)
{
    static unsigned char mine[AREA], host[AREA];

    (void)state;
    for (size_t count = 0; count < 400; count++) {
        size_t target = below(200);
        int byte = (int)next_random();

        fill_random(mine, sizeof(mine));
        memcpy(host, mine, sizeof(host));
        memset(host + target, byte, count);
        assert_ptr_equal(hv_memset(mine + target, byte, count), mine + target);
        assert_memory_equal(mine, host, sizeof(host));
    }
}

static int sign(int value)
{
    return (value > 0) - (value < 0);
}

static void comparisons_and_searches_equal_the_hosts(void **state)
{
    char a[80], b[80];

    (void)state;
    for (unsigned round = 0; round < 50000; round++) {
        unsigned letters = 2 + below(3);
        size_t count = below(70);
        size_t shift = below(8);
        int wanted = 'a' + (int)below(5);

        for (size_t i = 0; i < sizeof(a); i++)
            a[i] = b[i] = (char)((round & 1 ? 'a' : 0xfe) + (int)below(letters));
        if (round & 2)
            b[below(sizeof(b))] = (char)below(256);
        assert_int_equal(sign(hv_memcmp(a + shift, b + shift, count)), sign(memcmp(a + shift, b + shift, count)));
        assert_ptr_equal(hv_memchr(b, wanted, count), memchr(b, wanted, count));
        a[below(sizeof(a))] = 0;
        b[below(sizeof(b))] = 0;
        a[79] = b[79] = 0;
        assert_int_equal(hv_strlen(a), strlen(a));
        assert_int_equal(hv_strnlen(a, count), strnlen(a, count));
        assert_int_equal(sign(hv_strcmp(a, b)), sign(strcmp(a, b)));
        assert_int_equal(sign(hv_strncmp(a, b, count)), sign(strncmp(a, b, count)));
        assert_ptr_equal(hv_strchr(a, wanted), strchr(a, wanted));
        assert_ptr_equal(hv_strchr(a, 0), strchr(a, 0));
        assert_ptr_equal(hv_strrchr(a, wanted), strrchr(a, wanted));
        assert_ptr_equal(hv_strrchr(a, 0), strrchr(a, 0));
        b[below(6)] = 0;
        assert_ptr_equal(hv_strstr(a, b), strstr(a, b));
        assert_int_equal(hv_strspn(a, b), strspn(a, b));
        assert_int_equal(hv_strcspn(a, b), strcspn(a, b));
    }
}

/* ---- Formatting ---- */

static void __attribute__((format(printf, 1, 2))) same_text(const char *format, ...)
{
    size_t sizes[] = { 0, 1, 2, 5 + below(30), 400 };

    for (size_t i = 0; i < ARRAY_COUNT(sizes); i++) {
        char mine[400], host[400];
        va_list args;
        int mine_length, host_length;

        memset(mine, 0x5a, sizeof(mine));
        memset(host, 0x5a, sizeof(host));
        va_start(args, format);
        mine_length = hv_vsnprintf(mine, sizes[i], format, args);
        va_end(args);
        va_start(args, format);
        host_length = vsnprintf(host, sizes[i], format, args);
        va_end(args);
        if (mine_length != host_length || memcmp(mine, host, sizeof(mine)) != 0)
            fail_msg("format \"%s\", %zu bytes: \"%.*s\" (%d) and not \"%.*s\" (%d)", format, sizes[i],
                     (int)(sizes[i] ? sizes[i] : 0), mine, mine_length, (int)(sizes[i] ? sizes[i] : 0), host,
                     host_length);
    }
}

#pragma GCC diagnostic ignored "-Wformat-nonliteral"
#pragma GCC diagnostic ignored "-Wformat-security"

static void formats_equal_the_hosts(void **state)
{
    static const char *const lengths[] = { "", "hh", "h", "l", "ll", "z", "j", "t" };
    static const char *const texts[] = { "", "x", "hello", "a text that is longer than the others",
                                         "gr\xc3\xbc\xc3\x9f" };
    static const char conversions[] = "diuxXocsp%";

    (void)state;
    for (unsigned round = 0; round < 60000; round++) {
        char c = conversions[below(sizeof(conversions) - 1)];
        bool number = strchr("diuxXo", c) != NULL;
        const char *flags = number ? (strchr("di", c) ? "-+ 0" : strchr("xXo", c) ? "-#0" : "-0") : "-";
        unsigned stars = 0;
        int star[2];
        uint64_t value = next_random() >> below(64);
        char format[80];
        size_t length = 0;

        if (below(8) == 0)
            value = (uint64_t)0 - (value & 0xff);
        if (below(16) == 0)
            value = 0;
        format[length++] = '<';
        format[length++] = '%';
        for (unsigned i = below(4); i && c != '%'; i--)
            format[length++] = flags[below((unsigned)strlen(flags))];
        if (c != '%' && below(2)) {
            if (below(3) == 0) {
                format[length++] = '*';
                star[stars++] = (int)below(80) - 40;
            } else {
                length += (size_t)sprintf(format + length, "%u", 1 + below(40));
            }
        }
        if ((number || c == 's') && below(2)) {
            format[length++] = '.';
            if (below(3) == 0) {
                format[length++] = '*';
                star[stars++] = (int)below(50) - 10;
            } else if (below(4)) {
                length += (size_t)sprintf(format + length, "%u", below(40));
            }
        }
        if (number)
            length += (size_t)sprintf(format + length, "%s", lengths[below(ARRAY_COUNT(lengths))]);
        format[length++] = c;
        format[length++] = '>';
        format[length] = 0;
        if (c == 's') {
            const char *text = below(10) ? texts[below(ARRAY_COUNT(texts))] : NULL;

            if (stars == 2)
                same_text(format, star[0], star[1], text);
            else if (stars == 1)
                same_text(format, star[0], text);
            else
                same_text(format, text);
        } else {
            if (c == 'c')
                value = 1 + below(255);
            if (stars == 2)
                same_text(format, star[0], star[1], value);
            else if (stars == 1)
                same_text(format, star[0], value);
            else
                same_text(format, value);
        }
    }
}

static void formats_with_edges_equal_the_hosts(void **state)
{
    (void)state;
    same_text("nothing");
    same_text("%d %d %u", INT_MIN, INT_MAX, UINT_MAX);
    same_text("%ld %ld %lu", LONG_MIN, LONG_MAX, ULONG_MAX);
    same_text("%" PRIx64 "-%" PRIu8 "-%zu-%td", UINT64_MAX, (uint8_t)200, (size_t)7, (ptrdiff_t)-7);
    same_text("%.0d|%.0x|%#.0o|%#o|%#x", 0, 0, 0, 0, 0);
    same_text("%p %p", NULL, (void *)0x1234);
    same_text("%5s|%-5s|%.2s|%c%c", "abc", "abc", "abc", 'x', 'y');
    same_text("100%%");
}

static void a_conversion_that_is_not_known_stays_as_text(void **state)
{
    char text[40];
    const char *volatile format = "a%qb%";

    (void)state;
    assert_int_equal(hv_snprintf(text, sizeof(text), format, 1), 5);
    assert_string_equal(text, "a%qb%");
}

static void a_length_beyond_int_is_refused(void **state)
{
    char text[8];
    const char *volatile format = "%2147483647d%d"; /* volatile: the compiler would warn of just this */

    (void)state;
    assert_int_equal(hv_snprintf(text, sizeof(text), format, 1, 2), -1);
    assert_int_equal(strlen(text), 7);
}

/* ---- Numbers from text ---- */

static void numbers_from_text_equal_the_hosts(void **state)
{
    static const char alphabet[] = "0123456789abxXfFzZ+- \t0008";

    (void)state;
    for (unsigned round = 0; round < 50000; round++) {
        static const int bases[] = { 0, 2, 8, 10, 16, 36 };
        int base = bases[below(ARRAY_COUNT(bases))];
        char text[30];
        char *mine, *host;
        size_t length = below(sizeof(text) - 1);

        for (size_t i = 0; i < length; i++)
            text[i] = alphabet[below(round % 3 ? 10 : sizeof(alphabet) - 1)];
        text[length] = 0;
        if (length > 2 && below(4) == 0)
            memcpy(text, "0x", 2);
        if (length > 2 && below(4) == 0)
            text[0] = '-';
        assert_int_equal(hv_strtoul(text, &mine, base), strtoul(text, &host, base));
        assert_ptr_equal(mine, host);
        assert_int_equal(hv_strtoull(text, NULL, base), strtoull(text, NULL, base));
        assert_int_equal(hv_strtol(text, &mine, base), strtol(text, &host, base));
        assert_ptr_equal(mine, host);
    }
    assert_int_equal(hv_abs(-3), 3);
}

/* ---- kernel/text.h ---- */

static void bounded_copies_always_end_and_never_split_a_character(void **state)
{
    char text[8];

    (void)state;
    assert_true(str_copy(text, sizeof(text), "1234567"));
    assert_string_equal(text, "1234567");
    assert_false(str_copy(text, sizeof(text), "12345678"));
    assert_string_equal(text, "1234567");
    assert_false(str_copy(text, sizeof(text), "123456\xc3\xbcx"));
    assert_string_equal(text, "123456");
    assert_false(str_copy(text, 1, "x"));
    assert_string_equal(text, "");
    assert_true(str_append(text, sizeof(text), "abc"));
    assert_true(str_append(text, sizeof(text), "defg"));
    assert_false(str_append(text, sizeof(text), "h"));
    assert_string_equal(text, "abcdefg");
    assert_true(str_starts_with("--json", "--"));
    assert_false(str_starts_with("-", "--"));
}

static void numbers_must_be_numbers_to_the_last_character(void **state)
{
    uint64_t value = 77;

    (void)state;
    assert_int_equal(text_to_u64("18446744073709551615", &value), OK);
    assert_int_equal(value, UINT64_MAX);
    assert_int_equal(text_to_u64("18446744073709551616", &value), ERR_RANGE);
    assert_int_equal(text_to_u64("0xFfff", &value), OK);
    assert_int_equal(value, 0xffff);
    assert_int_equal(text_to_u64("010", &value), OK);
    assert_int_equal(value, 10);
    assert_int_equal(text_to_u64("", &value), ERR_INVALID);
    assert_int_equal(text_to_u64("0x", &value), ERR_INVALID);
    assert_int_equal(text_to_u64("-1", &value), ERR_INVALID);
    assert_int_equal(text_to_u64(" 1", &value), ERR_INVALID);
    assert_int_equal(text_to_u64("1 ", &value), ERR_INVALID);
    assert_int_equal(value, 10);
}

static void sizes_are_read_as_an_admin_writes_them(void **state)
{
    uint64_t bytes = 0;

    (void)state;
    assert_int_equal(text_to_bytes("256M", &bytes), OK);
    assert_int_equal(bytes, 256 * MIB);
    assert_int_equal(text_to_bytes("1GiB", &bytes), OK);
    assert_int_equal(bytes, GIB);
    assert_int_equal(text_to_bytes("4096", &bytes), OK);
    assert_int_equal(bytes, 4096);
    assert_int_equal(text_to_bytes("16777215T", &bytes), OK);
    assert_int_equal(text_to_bytes("16777216T", &bytes), ERR_RANGE);
    assert_int_equal(text_to_bytes("1X", &bytes), ERR_INVALID);
    assert_int_equal(text_to_bytes("1Mx", &bytes), ERR_INVALID);
    assert_int_equal(text_to_bytes("M", &bytes), ERR_INVALID);
}

static void frequencies_are_whole_kilohertz(void **state)
{
    static const struct {
        const char *text;
        uint32_t khz; /* with ERR_...: unchanged */
        enum status status;
    } cases[] = {
        { "2400 MHz", 2400000, OK },
        { "2400MHz", 2400000, OK },
        { "2.4 GHz", 2400000, OK },
        { "2.596054 GHz", 2596054, OK },
        { "2.596054000 GHz", 2596054, OK },
        { "200006\tkhz", 200006, OK },
        { "0.5 mhz", 500, OK },
        { "1.000 kHz", 1, OK },
        { "4294967295 kHz", UINT32_MAX, OK },
        { "4.294967295 GHz", 7, ERR_INVALID },
        { "4294.967296 GHz", 7, ERR_RANGE },
        { "4294967296 kHz", 7, ERR_RANGE },
        { "99999999999999999999999 kHz", 7, ERR_RANGE },
        { "4295 GHz", 7, ERR_RANGE },
        { "2.5960541 GHz", 7, ERR_INVALID },
        { "1.5 kHz", 7, ERR_INVALID },
        { "1.0005 MHz", 7, ERR_INVALID },
        { "2400", 7, ERR_INVALID },
        { "2400 Hz", 7, ERR_INVALID },
        { "2400 MH", 7, ERR_INVALID },
        { "2400 MHzz", 7, ERR_INVALID },
        { "2. GHz", 7, ERR_INVALID },
        { ".5 GHz", 7, ERR_INVALID },
        { "1.2.3 GHz", 7, ERR_INVALID },
        { "-1 GHz", 7, ERR_INVALID },
        { "0x10 MHz", 7, ERR_INVALID },
        { "M", 7, ERR_INVALID },
        { "", 7, ERR_INVALID },
    };

    (void)state;
    for (unsigned i = 0; i < ARRAY_COUNT(cases); i++) {
        uint32_t khz = 7;
        assert_int_equal(text_to_khz(cases[i].text, &khz), cases[i].status);
        assert_int_equal(khz, cases[i].khz);
    }
}

static void utf8_is_checked_by_rfc_3629(void **state)
{
    static const char *const bad[] = {
        "\x80", "\xc0\x80", "\xc1\xbf", "\xe0\x80\x80", "\xed\xa0\x80", "\xf0\x80\x80\x80", "\xf4\x90\x80\x80",
        "\xf5\x80\x80\x80", "\xff", "\xc3", "\xe2\x82", "\xe2\x28\xa1",
    };
    uint32_t code_point;

    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(bad); i++)
        assert_int_equal(utf8_decode(bad[i], strlen(bad[i]), &code_point), 0);
    assert_int_equal(utf8_decode("\xe2\x82\xac", 3, &code_point), 3);
    assert_int_equal(code_point, 0x20ac);
    assert_int_equal(utf8_decode("\xf0\x9f\x98\x80", 4, &code_point), 4);
    assert_int_equal(code_point, 0x1f600);
    assert_int_equal(utf8_columns('x'), 1);
    assert_int_equal(utf8_columns(0x301), 0);
    assert_int_equal(utf8_columns(0x6f22), 2);
}

static void every_status_has_a_name_of_its_own(void **state)
{
    (void)state;
    for (int i = OK; i <= ERR_FENCED; i++) {
        assert_string_not_equal(status_name((enum status)i), "unknown status");
        for (int j = OK; j < i; j++)
            assert_string_not_equal(status_name((enum status)i), status_name((enum status)j));
    }
    assert_string_equal(status_name((enum status)(ERR_FENCED + 1)), "unknown status");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(copies_equal_the_hosts_and_touch_nothing_else),
        cmocka_unit_test(moves_are_right_at_every_overlap),
        cmocka_unit_test(fills_equal_the_hosts),
        cmocka_unit_test(comparisons_and_searches_equal_the_hosts),
        cmocka_unit_test(formats_equal_the_hosts),
        cmocka_unit_test(formats_with_edges_equal_the_hosts),
        cmocka_unit_test(a_conversion_that_is_not_known_stays_as_text),
        cmocka_unit_test(a_length_beyond_int_is_refused),
        cmocka_unit_test(numbers_from_text_equal_the_hosts),
        cmocka_unit_test(bounded_copies_always_end_and_never_split_a_character),
        cmocka_unit_test(numbers_must_be_numbers_to_the_last_character),
        cmocka_unit_test(sizes_are_read_as_an_admin_writes_them),
        cmocka_unit_test(frequencies_are_whole_kilohertz),
        cmocka_unit_test(utf8_is_checked_by_rfc_3629),
        cmocka_unit_test(every_status_has_a_name_of_its_own),
    };

    return cmocka_run_group_tests_name("libc", tests, NULL, NULL);
}
