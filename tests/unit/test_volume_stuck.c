/* SPDX-License-Identifier: MIT */
/* Files of a volume as disks: requests that cannot be done for now, and what makes them go on. */
#include "volume_fixture.h"

#include "csv/volume.h"
#include "volume/volume_private.h"

#define SIZE (64 * MIB)
#define BLOCK 4096u

static enum status remove_here(struct csv *csv, void *arg)
{
    enum status status = csv_unlink(csv, csv_root(csv), arg, strlen(arg));

    return status == OK ? csv_sync(csv) : status;
}

static unsigned count_of(const unsigned *count)
{
    return __atomic_load_n(count, __ATOMIC_ACQUIRE);
}

/* ---- Shortage ---- */

/* A change that is taken back throws the map in memory away; it is read again, by nobody who holds a lock meanwhile. */
static void a_map_that_was_dropped_is_read_again(void **state)
{
    static uint8_t bytes[BLOCK], back[BLOCK];
    struct guest guest;
    (void)state;

    set_up(SIZE);
    struct volume_file *file = make_file("disk", 8 * MIB, &guest);
    for (long left = 0; left < 30; left++) {
        struct asked asked;
        fill(bytes, BLOCK, (uint32_t)left);
        __atomic_store_n(&fake_heap_fail_after, left, __ATOMIC_SEQ_CST);
        unsigned stuck = __atomic_load_n(&guest.stuck, __ATOMIC_ACQUIRE);
        ask(file, &asked, DISK_WRITE, (uint64_t)left * 3 * BLOCK, bytes, BLOCK);
        wait_until(is_done(&asked) || __atomic_load_n(&guest.stuck, __ATOMIC_ACQUIRE) > stuck);
        __atomic_store_n(&fake_heap_fail_after, -1, __ATOMIC_SEQ_CST);
        if (!is_done(&asked)) {
            assert_non_null(strstr(guest.why, "memory"));
            volume_file_retry(file);
        }
        ok(answer(&asked));
        ok(request(file, DISK_READ, (uint64_t)left * 3 * BLOCK, back, BLOCK));
        assert_memory_equal(back, bytes, BLOCK);
    }
    assert_true(__atomic_load_n(&guest.stuck, __ATOMIC_ACQUIRE));
    wait_until(__atomic_load_n(&guest.freed, __ATOMIC_ACQUIRE));
    volume_file_close(file);
    check_volume();
    tear_down();
}

static void a_full_volume_keeps_the_write_waiting(void **state)
{
    static uint8_t bytes[MIB], back[MIB];
    struct asked asked, behind;
    struct guest guest, other;
    uint64_t at = 0;
    (void)state;

    set_up(SIZE);
    struct volume_file *file = make_file("disk", 128 * MIB, &guest), *ballast = make_file("ballast", 8 * MIB, &other);
    fill(bytes, MIB, 77);
    for (unsigned i = 0; i < 8; i++)
        ok(request(ballast, DISK_WRITE, i * MIB, bytes, MIB));
    volume_file_close(ballast);
    for (;; at += MIB) {
        fill(bytes, MIB, (uint32_t)(at / MIB));
        ask(file, &asked, DISK_WRITE, at, bytes, MIB);
        wait_until(is_done(&asked) || __atomic_load_n(&guest.stuck, __ATOMIC_ACQUIRE));
        if (!is_done(&asked))
            break;
        ok(asked.status);
    }
    assert_true(at > 8 * MIB);
    assert_non_null(strstr(guest.why, "Volume1 is full"));
    assert_non_null(strstr(guest.why, "/disk"));
    assert_non_null(strstr(guest.why, "remove files"));
    /* As long as it is full, each try says so; what comes behind waits. */
    ask(file, &behind, DISK_READ, 0, back, BLOCK);
    unsigned stuck = __atomic_load_n(&guest.stuck, __ATOMIC_ACQUIRE);
    volume_file_retry(file);
    wait_until(__atomic_load_n(&guest.stuck, __ATOMIC_ACQUIRE) > stuck);
    assert_false(is_done(&asked) || is_done(&behind));
    assert_int_equal(guest.freed, 0);
    ok(on_volume(remove_here, (char[]){ "ballast" }));
    ok(answer(&asked));
    ok(answer(&behind));
    wait_until(__atomic_load_n(&guest.freed, __ATOMIC_ACQUIRE) == 1);
    ok(request(file, DISK_FLUSH, 0, NULL, 0));
    for (uint64_t from = 0; from <= at; from += MIB) {
        fill(bytes, MIB, (uint32_t)(from / MIB));
        ok(request(file, DISK_READ, from, back, MIB));
        assert_memory_equal(back, bytes, MIB);
    }
    volume_file_close(file);
    check_volume();
    tear_down();
}

static void a_stuck_write_can_be_cancelled(void **state)
{
    static uint8_t bytes[MIB];
    struct asked asked;
    struct guest guest;
    (void)state;

    set_up(SIZE);
    struct volume_file *file = make_file("disk", 128 * MIB, &guest);
    for (uint64_t at = 0; !__atomic_load_n(&guest.stuck, __ATOMIC_ACQUIRE); at += MIB) {
        ask(file, &asked, DISK_WRITE, at, bytes, MIB);
        wait_until(is_done(&asked) || __atomic_load_n(&guest.stuck, __ATOMIC_ACQUIRE));
    }
    volume_file_cancel(file);
    assert_int_equal(answer(&asked), ERR_CANCELLED);
    ok(request(file, DISK_READ, 0, bytes, BLOCK));
    ok(request(file, DISK_DISCARD, 0, NULL, 4 * MIB));
    ok(request(file, DISK_WRITE, 0, bytes, MIB));
    volume_file_close(file);
    tear_down();
}

/* Writes the file from `at` on until a write is stuck, which is *asked; where that is. */
static uint64_t write_until_stuck(struct volume_file *file, const struct guest *guest, struct asked *asked, uint8_t *bytes,
                                  uint64_t count)
{
    uint64_t at = 0;

    for (;; at += count) {
        ask(file, asked, DISK_WRITE, at, bytes, count);
        wait_until(is_done(asked) || count_of(&guest->stuck));
        if (!is_done(asked))
            return at;
        ok(asked->status);
    }
}

/* Nobody asks for another try, and yet there is one. */
static enum status answer_after_a_while(struct asked *asked)
{
    for (unsigned i = 0; i < 1000 && !is_done(asked); i++) {
        pass_time(NS_PER_S);
        nanosleep(&(struct timespec){ .tv_nsec = 10000000 }, NULL);
    }
    return answer(asked);
}

/* Space comes from another VM's discard, which it makes durable by a flush of its own: nobody calls the volume. */
static void space_that_another_file_gives_back_is_enough(void **state)
{
    static uint8_t bytes[MIB];
    struct guest guest, giver;
    struct asked asked;
    (void)state;

    set_up(SIZE);
    struct volume_file *file = make_file("disk", 128 * MIB, &guest), *other = make_file("other", 8 * MIB, &giver);
    for (unsigned i = 0; i < 8; i++)
        ok(request(other, DISK_WRITE, i * MIB, bytes, MIB));
    (void)write_until_stuck(file, &guest, &asked, bytes, MIB);
    ok(request(other, DISK_DISCARD, 0, NULL, 8 * MIB));
    ok(request(other, DISK_FLUSH, 0, NULL, 0));
    ok(answer_after_a_while(&asked));
    wait_until(count_of(&guest.freed));
    volume_file_close(file);
    volume_file_close(other);
    check_volume();
    tear_down();
}

/* The volume's only group is not in memory, and there is none for it. */
static enum status forget_group_here(struct csv *csv, void *arg)
{
    struct csv_block *group = csv_block_find(csv, csv_group_block(0));
    (void)arg;

    if (!group || group->is_changed || group->is_logged)
        return ERR_BUSY;
    csv_block_drop(csv, group);
    return OK;
}

static enum status checkpoint_here(struct csv *csv, void *arg)
{
    enum status status = csv_sync(csv);
    (void)arg;

    return status == OK ? csv_checkpoint(csv) : status;
}

/* A flush that finds no memory is neither answered nor blamed on the disk, and is tried again without being asked. */
static void a_flush_without_memory_waits_for_it(void **state)
{
    static uint8_t bytes[MIB];
    struct guest guest;
    struct asked asked;
    (void)state;

    set_up(SIZE);
    struct volume_file *file = make_file("disk", 8 * MIB, &guest);
    ok(request(file, DISK_WRITE, 0, bytes, MIB));
    ok(on_volume(checkpoint_here, NULL));
    ok(request(file, DISK_DISCARD, 0, NULL, MIB));
    ok(on_volume(forget_group_here, NULL));
    __atomic_store_n(&fake_heap_fail_after, 0, __ATOMIC_SEQ_CST);
    ask(file, &asked, DISK_FLUSH, 0, NULL, 0);
    wait_until(is_done(&asked) || count_of(&guest.stuck));
    __atomic_store_n(&fake_heap_fail_after, -1, __ATOMIC_SEQ_CST);
    assert_false(is_done(&asked));
    assert_non_null(strstr(guest.why, "memory"));
    ok(answer_after_a_while(&asked));
    wait_until(count_of(&guest.freed));
    volume_file_close(file);
    check_volume();
    tear_down();
}

/* However a request ends that was stuck, its user hears that it no longer is. */
static void an_error_ends_being_stuck_too(void **state)
{
    static uint8_t bytes[MIB];
    struct guest guest, other;
    struct asked asked;
    (void)state;

    set_up(SIZE);
    struct volume_file *file = make_file("disk", 128 * MIB, &guest), *ballast = make_file("ballast", 8 * MIB, &other);
    for (unsigned i = 0; i < 8; i++)
        ok(request(ballast, DISK_WRITE, i * MIB, bytes, MIB));
    volume_file_close(ballast);
    (void)write_until_stuck(file, &guest, &asked, bytes, MIB);
    san.data_fails = true;
    ok(on_volume(remove_here, (char[]){ "ballast" }));
    assert_int_equal(answer(&asked), ERR_IO);
    wait_until(count_of(&guest.freed));
    san.data_fails = false;
    ok(request(file, DISK_WRITE, 0, bytes, BLOCK));
    assert_int_equal(guest.freed, 1);
    volume_file_close(file);
    check_volume();
    tear_down();
}

/* A request that then goes straight to the disk. */
static void a_read_ends_being_stuck_too(void **state)
{
    static uint8_t bytes[BLOCK], back[BLOCK];
    struct guest guest;
    struct asked asked;
    (void)state;

    set_up(SIZE);
    struct volume_file *file = make_file("disk", 8 * MIB, &guest);
    fill(bytes, BLOCK, 3);
    ok(request(file, DISK_WRITE, 0, bytes, BLOCK));
    csv_map_drop(file->csv); /* nothing is under way */
    __atomic_store_n(&fake_heap_fail_after, 0, __ATOMIC_SEQ_CST);
    ask(file, &asked, DISK_READ, 0, back, BLOCK);
    wait_until(count_of(&guest.stuck));
    __atomic_store_n(&fake_heap_fail_after, -1, __ATOMIC_SEQ_CST);
    ok(answer_after_a_while(&asked));
    assert_memory_equal(back, bytes, BLOCK);
    wait_until(count_of(&guest.freed));
    volume_file_close(file);
    tear_down();
}

/* ---- Calls ---- */

#define CALLERS 4u
#define CALLS_MOST 500u

static unsigned calls_made;
static const struct asked *awaited;

static enum status dawdle_here(struct csv *csv, void *arg)
{
    (void)csv, (void)arg;
    nanosleep(&(struct timespec){ .tv_nsec = 300000 }, NULL); /* so that the next callers are there */
    return OK;
}

static void *call_on(void *arg)
{
    (void)arg;
    while (__atomic_add_fetch(&calls_made, 1, __ATOMIC_SEQ_CST) < CALLS_MOST && !is_done(awaited))
        if (on_volume(dawdle_here, NULL) != OK)
            break;
    return NULL;
}

/* Callers who come one after the other keep neither a guest's first write nor the commit away. */
static void calls_do_not_keep_requests_waiting(void **state)
{
    static uint8_t bytes[BLOCK];
    pthread_t caller[CALLERS];
    struct guest guest;
    struct asked asked = { .done = false };
    (void)state;

    set_up(SIZE);
    struct volume_file *file = make_file("disk", 8 * MIB, &guest);
    calls_made = 0;
    awaited = &asked;
    for (unsigned i = 0; i < CALLERS; i++)
        assert_int_equal(pthread_create(&caller[i], NULL, call_on, NULL), 0);
    wait_until(__atomic_load_n(&calls_made, __ATOMIC_SEQ_CST) > 2 * CALLERS);
    ask(file, &asked, DISK_WRITE, 0, bytes, BLOCK);
    for (unsigned i = 0; i < CALLERS; i++)
        pthread_join(caller[i], NULL);
    ok(answer(&asked));
    assert_true(calls_made < CALLS_MOST);
    volume_file_close(file);
    tear_down();
}

/* ---- Cancelling ---- */

static enum status clone_here(struct csv *csv, void *arg)
{
    struct csv_file *file;
    uint64_t inode, copy;
    (void)arg;
    ok(csv_walk(csv, "disk", &inode));
    ok(csv_open(csv, inode, &file));
    volume_file_hold(csv, inode);
    enum status status = csv_clone(file, csv_root(csv), "copy", 4, &copy);
    volume_file_release(csv, inode);
    ok(csv_close(file));
    return status;
}

/* A write of shared blocks that is cancelled on its way is no error, and is not logged as one. */
static void a_cancelled_copy_is_no_error(void **state)
{
    static uint8_t bytes[4 * VOLUME_BUFFER_BYTES];
    struct guest guest;
    struct asked asked;
    (void)state;

    set_up(SIZE);
    struct volume_file *file = make_file("disk", 8 * MIB, &guest);
    ok(request(file, DISK_WRITE, 0, bytes, sizeof bytes));
    ok(on_volume(clone_here, NULL));
    wait_until(idle());
    unsigned errors = fake_log_counts[LOG_ERROR];
    hold(false, true);
    ask(file, &asked, DISK_WRITE, 0, bytes, sizeof bytes);
    wait_until(san.count == 1);
    volume_file_cancel(file);
    assert_int_equal(answer(&asked), ERR_CANCELLED);
    hold(false, false);
    ok(request(file, DISK_READ, 0, bytes, BLOCK));
    assert_int_equal(fake_log_counts[LOG_ERROR], errors);
    volume_file_close(file);
    check_volume();
    tear_down();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_map_that_was_dropped_is_read_again),
        cmocka_unit_test(a_full_volume_keeps_the_write_waiting),
        cmocka_unit_test(a_stuck_write_can_be_cancelled),
        cmocka_unit_test(space_that_another_file_gives_back_is_enough),
        cmocka_unit_test(a_flush_without_memory_waits_for_it),
        cmocka_unit_test(an_error_ends_being_stuck_too),
        cmocka_unit_test(a_read_ends_being_stuck_too),
        cmocka_unit_test(calls_do_not_keep_requests_waiting),
        cmocka_unit_test(a_cancelled_copy_is_no_error),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
