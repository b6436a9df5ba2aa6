/* SPDX-License-Identifier: MIT */
/*
 * The page allocator against a model that knows the holder of every 4 KiB page. Promises guarded: no page is given out
 * twice or outside RAM, alignment, zeroing, accounting to the byte, 1 GiB pieces survive small traffic, everything can
 * be got back whole, a wrong free is a panic.
 */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "fake_memory.h"

#define RAM (5 * GIB)
#define PIECES 4096

struct piece {
    uint64_t base, bytes; /* bytes: what to free with; a run has is_run */
    bool is_run;
    page_owner_t owner;
};

static uint16_t *holder; /* of each page: 0 free, else owner + 1 */
static struct piece pieces[PIECES];
static unsigned piece_count;
static uint64_t held[PAGE_OWNERS];
static uint64_t not_ram_from, not_ram_to;

static uint64_t rounded(const struct piece *piece)
{
    return piece->is_run && piece->bytes > LARGE_PAGE_BYTES ? ALIGN_UP(piece->bytes, LARGE_PAGE_BYTES) : piece->bytes;
}

static void model_add(const struct piece *piece)
{
    for (uint64_t at = piece->base; at < piece->base + rounded(piece); at += PAGE_BYTES) {
        assert_int_equal(holder[at / PAGE_BYTES], 0);
        assert_false(at >= not_ram_from && at < not_ram_to);
        holder[at / PAGE_BYTES] = (uint16_t)(piece->owner + 1);
    }
    assert_true(piece->base >= MIB && piece->base + piece->bytes <= RAM);
    held[piece->owner] += rounded(piece);
    pieces[piece_count++] = *piece;
}

static void model_free(unsigned index)
{
    struct piece piece = pieces[index];

    for (uint64_t at = piece.base; at < piece.base + rounded(&piece); at += PAGE_BYTES)
        holder[at / PAGE_BYTES] = 0;
    held[piece.owner] -= rounded(&piece);
    pieces[index] = pieces[--piece_count];
    if (!piece.is_run)
        page_free(HPA(piece.base), piece.bytes, piece.owner);
    else if (piece.bytes <= LARGE_PAGE_BYTES && fake_below(2))
        for (uint64_t at = 0; at < piece.bytes; at += PAGE_BYTES)
            page_free(HPA(piece.base + at), PAGE_BYTES, piece.owner);
    else
        page_free_run(HPA(piece.base), piece.bytes / PAGE_BYTES, piece.owner);
}

static bool try_piece(struct piece *piece, unsigned flags)
{
    hpa_t hpa;
    bool got = piece->is_run ? page_alloc_run(piece->bytes / PAGE_BYTES, piece->owner, flags, &hpa)
                             : page_alloc(piece->bytes, piece->owner, flags, &hpa);

    if (!got)
        return false;
    piece->base = hpa.v;
    assert_int_equal(hpa.v % (piece->is_run ? PAGE_BYTES : piece->bytes), 0);
    return true;
}

static void check_accounts(page_owner_t last)
{
    struct page_totals totals;
    struct page_usage usage;
    uint64_t sum = 0, tables = page_table_bytes(RAM);

    for (page_owner_t owner = 0; owner <= last; owner++) {
        assert_true(page_owner_usage(owner, &usage));
        assert_int_equal(usage.bytes, held[owner]);
        assert_int_equal(usage.small_pages * PAGE_BYTES + usage.large_pages * LARGE_PAGE_BYTES +
                             usage.huge_pages * HUGE_PAGE_BYTES, usage.bytes);
        sum += usage.bytes;
    }
    page_totals_get(&totals);
    assert_int_equal(totals.ram_bytes, totals.free_bytes + sum + totals.table_bytes - tables);
    assert_true(totals.free_large_bytes <= totals.free_bytes);
}

static void start(void)
{
    fake_memory_start(RAM);
    holder = calloc(RAM / PAGE_BYTES, sizeof *holder);
    memset(held, 0, sizeof held);
    piece_count = 0;
    not_ram_from = not_ram_to = 0;
}

static void stop(void)
{
    free(holder);
    fake_memory_stop();
}

static void random_against_model(void **state)
{
    struct page_totals before, after;
    page_owner_t owners[4] = { PAGE_OWNER_HV };

    (void)state;
    start();
    page_totals_get(&before);
    for (unsigned i = 1; i < ARRAY_COUNT(owners); i++)
        assert_true(page_owner_create("vm", &owners[i]));
    for (unsigned round = 0; round < 60000; round++) {
        unsigned what = (unsigned)fake_below(100);
        /* Tides: long stretches that mostly allocate, then some that mostly free. */
        bool grow = round / 5000 % 2 ? what >= 60 : what >= 35;

        if (grow && piece_count < PIECES) {
            struct piece piece = { .owner = owners[fake_below(4)], .bytes = PAGE_BYTES };
            unsigned kind = (unsigned)fake_below(400), flags = fake_below(4) == 0 ? PAGE_ZERO : 0;

            if (kind == 0) {
                piece.bytes = HUGE_PAGE_BYTES;
                flags = 0;
            } else if (kind < 40) {
                piece.bytes = LARGE_PAGE_BYTES;
                flags = 0;
            } else if (kind < 70) {
                piece.is_run = true;
                piece.bytes = (1 + fake_below(kind < 50 ? 512 : 8)) * PAGE_BYTES;
            } else if (kind < 72) {
                piece.is_run = true;
                piece.bytes = (512 + fake_below(2)) * PAGE_BYTES;
            }
            if (try_piece(&piece, flags)) {
                model_add(&piece);
                if (piece.bytes <= 8 * PAGE_BYTES) {
                    const char *bytes = phys_to_virt(HPA(piece.base));
                    for (uint64_t at = 0; flags && at < piece.bytes; at++)
                        assert_int_equal(bytes[at], 0);
                    memset(phys_to_virt(HPA(piece.base)), 0xa5, piece.bytes);
                }
            }
        } else if (piece_count) {
            model_free((unsigned)fake_below(piece_count));
        }
        if (round % 64 == 0)
            check_accounts(owners[3]);
    }
    while (piece_count)
        model_free(0);
    check_accounts(owners[3]);
    page_totals_get(&after);
    assert_memory_equal(&before, &after, sizeof before);
    for (unsigned i = 1; i < ARRAY_COUNT(owners); i++)
        page_owner_destroy(owners[i]);
    stop();
}

static void until_nothing_is_left(uint64_t bytes, bool is_run)
{
    struct page_totals before, after;
    uint64_t got = 0, count = 0;
    uint64_t *bases;
    hpa_t hpa;

    start();
    page_totals_get(&before);
    bases = calloc(RAM / PAGE_BYTES, sizeof *bases);
    while (is_run ? page_alloc_run(bytes / PAGE_BYTES, PAGE_OWNER_HV, 0, &hpa) : page_alloc(bytes, PAGE_OWNER_HV, 0, &hpa)) {
        bases[count++] = hpa.v;
        got += bytes;
    }
    page_totals_get(&after);
    if (bytes == PAGE_BYTES) /* one page in 512 is a record */
        assert_true(got >= before.free_bytes - before.free_bytes / 512 - PAGE_BYTES && after.free_bytes == 0);
    else if (bytes == LARGE_PAGE_BYTES && !is_run)
        assert_int_equal(got, before.free_large_bytes);
    else if (bytes == HUGE_PAGE_BYTES)
        assert_int_equal(got, 4 * GIB); /* the first GiB has the hole below 1 MiB */
    while (count)
        if (is_run)
            page_free_run(HPA(bases[--count]), bytes / PAGE_BYTES, PAGE_OWNER_HV);
        else
            page_free(HPA(bases[--count]), bytes, PAGE_OWNER_HV);
    page_totals_get(&after);
    assert_memory_equal(&before, &after, sizeof before);
    free(bases);
    stop();
}

static void exhaustion(void **state)
{
    (void)state;
    until_nothing_is_left(PAGE_BYTES, false);
    until_nothing_is_left(LARGE_PAGE_BYTES, false);
    until_nothing_is_left(HUGE_PAGE_BYTES, false);
    until_nothing_is_left(LARGE_PAGE_BYTES, true);
    until_nothing_is_left(511 * PAGE_BYTES, true);
    until_nothing_is_left(3 * LARGE_PAGE_BYTES + PAGE_BYTES, true);
}

/* Small and large traffic does not use up 1 GiB pieces while there is room elsewhere. */
static void huge_pieces_survive(void **state)
{
    hpa_t hpa;

    (void)state;
    start();
    for (unsigned i = 0; i < 400; i++) /* fits beside: the first GiB cannot be a 1 GiB piece */
        assert_true(page_alloc(LARGE_PAGE_BYTES, PAGE_OWNER_HV, 0, &hpa));
    for (unsigned i = 0; i < 20000; i++)
        assert_true(page_alloc(PAGE_BYTES, PAGE_OWNER_HV, 0, &hpa));
    for (unsigned i = 0; i < 4; i++)
        assert_true(page_alloc(HUGE_PAGE_BYTES, PAGE_OWNER_HV, 0, &hpa));
    assert_false(page_alloc(HUGE_PAGE_BYTES, PAGE_OWNER_HV, 0, &hpa));
    stop();
}

/* A memory map with unaligned edges, holes within a frame, and pieces that complete a frame. */
static void ragged_memory_map(void **state)
{
    struct page_totals totals;
    uint64_t tables = page_table_bytes(RAM), count = 0;
    hpa_t hpa;

    (void)state;
    start();
    page_init(fake_ram + 3 * GIB, RAM);
    page_add(HPA(0), MIB + 1);                                /* all of it below 1 MiB */
    page_totals_get(&totals);
    assert_int_equal(totals.ram_bytes, 0);
    page_add(HPA(16 * MIB + 1), PAGE_BYTES * 2);              /* one whole page */
    page_add(HPA(16 * MIB + 10 * PAGE_BYTES), PAGE_BYTES * 5);
    page_add(HPA(20 * MIB), MIB);
    page_add(HPA(21 * MIB), MIB);                             /* completes the frame */
    page_add(HPA(RAM - PAGE_BYTES * 3), PAGE_BYTES * 100);    /* cut at the end */
    page_totals_get(&totals);
    assert_int_equal(totals.ram_bytes, (1 + 5 + 512 + 3) * PAGE_BYTES);
    assert_int_equal(totals.free_large_bytes, LARGE_PAGE_BYTES);
    assert_int_equal(totals.table_bytes, tables + 2 * PAGE_BYTES); /* records of the two ragged frames */
    assert_int_equal(totals.free_bytes, totals.ram_bytes - 2 * PAGE_BYTES);
    while (page_alloc(PAGE_BYTES, PAGE_OWNER_HV, 0, &hpa)) {
        uint64_t page = hpa.v / PAGE_BYTES, first = 16 * MIB / PAGE_BYTES;
        assert_true(page == first + 1 || (page >= first + 10 && page < first + 15) ||
                    (hpa.v >= 20 * MIB && hpa.v < 22 * MIB) || hpa.v >= RAM - PAGE_BYTES * 3);
        count++;
    }
    assert_int_equal(count, 6 - 1 + 511 + 2);
    stop();
}

static void owners_come_and_go(void **state)
{
    page_owner_t owner, other;
    struct page_usage usage;
    unsigned count = 0;
    hpa_t hpa;

    (void)state;
    start();
    assert_true(page_owner_usage(PAGE_OWNER_HV, &usage));
    assert_string_equal(usage.name, "hypervisor");
    assert_true(page_owner_create("a name that is longer than the table keeps it", &owner));
    assert_true(page_owner_usage(owner, &usage));
    assert_string_equal(usage.name, "a name that is longer than the ");
    page_owner_destroy(owner);
    assert_false(page_owner_usage(owner, &usage));
    assert_true(page_owner_create("leaker", &other));
    assert_int_equal(owner, other); /* used again */
    assert_true(page_alloc(PAGE_BYTES, other, 0, &hpa));
    page_owner_destroy(other);
    assert_true(page_owner_usage(other, &usage)); /* the leak stays visible */
    assert_int_equal(usage.bytes, PAGE_BYTES);
    while (page_owner_create("many", &owner)) {
        assert_int_not_equal(owner, other);
        count++;
    }
    assert_int_equal(count, PAGE_OWNERS - 2);
    stop();
}

/* Runs fn in a child, which must end by panic. */
static void must_panic(void (*fn)(void))
{
    int status;
    pid_t pid = fork();

    if (pid == 0) {
        signal(SIGABRT, SIG_DFL);
        if (!freopen("/dev/null", "w", stderr))
            _exit(2);
        fn();
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
}

static hpa_t victim, large_victim;
static page_owner_t stranger;

static void free_twice(void) { page_free(victim, PAGE_BYTES, 0); page_free(victim, PAGE_BYTES, 0); }
static void free_of_stranger(void) { page_free(victim, PAGE_BYTES, stranger); }
static void free_of_nobody(void) { page_free(victim, PAGE_BYTES, 77); }
static void free_wrong_size(void) { page_free(large_victim, PAGE_BYTES, 0); }
static void free_never_given(void) { page_free(HPA(3 * GIB), LARGE_PAGE_BYTES, 0); }
static void free_unaligned(void) { page_free(HPA(victim.v + 8), PAGE_BYTES, 0); }
static void free_outside(void) { page_free(HPA(RAM), PAGE_BYTES, 0); }
static void free_record(void) { page_free(HPA(ALIGN_DOWN(victim.v, LARGE_PAGE_BYTES)), PAGE_BYTES, 0); }
static void add_twice(void) { page_add(HPA(3 * GIB), PAGE_BYTES); }

static void wrong_frees_panic(void **state)
{
    (void)state;
    start();
    assert_true(page_owner_create("stranger", &stranger));
    do
        assert_true(page_alloc(PAGE_BYTES, PAGE_OWNER_HV, 0, &victim));
    while (victim.v < 2 * LARGE_PAGE_BYTES || victim.v % LARGE_PAGE_BYTES == 0);
    assert_true(page_alloc(LARGE_PAGE_BYTES, PAGE_OWNER_HV, 0, &large_victim));
    must_panic(free_twice);
    must_panic(free_of_stranger);
    must_panic(free_of_nobody);
    must_panic(free_wrong_size);
    must_panic(free_never_given);
    must_panic(free_unaligned);
    must_panic(free_outside);
    must_panic(free_record);
    must_panic(add_twice);
    stop();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_against_model), cmocka_unit_test(exhaustion),
        cmocka_unit_test(huge_pieces_survive),  cmocka_unit_test(ragged_memory_map),
        cmocka_unit_test(owners_come_and_go),   cmocka_unit_test(wrong_frees_panic),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
