/* SPDX-License-Identifier: MIT */
/* A node's volumes: made, mounted, made larger, scrubbed, and refused. */
#include "volume_fixture.h"

#include "volume/volume_private.h"

#define SIZE (64 * MIB)

/* `csv add`, on a disk that nobody has. Its words in text. */
static char text[VOLUME_TEXT];

static enum status add(const char *name, bool force)
{
    return volume_add("san", name, force, text, sizeof text);
}

static void stop_added(void)
{
    void *names = (void *)(uintptr_t)volumes->name;

    volume_stop();
    pthread_join(volume_thread, NULL);
    stop_service();
    kfree(volumes, sizeof *volumes);
    volumes = NULL;
    kfree(names, sizeof "Volume1" + sizeof "san");
    fake_disk_free(san.disk);
    assert_int_equal(fake_heap_count, 0);
}

static void a_volume_is_made_on_an_empty_disk(void **state)
{
    (void)state;

    new_san(SIZE);
    start_node(NULL);
    assert_false(volume_info_get(0, &(struct volume_info){ 0 }));
    assert_int_equal(add("no name", false), ERR_INVALID);
    assert_int_equal(add("Volume1", false), OK);
    assert_int_equal(volume_now().state, VOLUME_MOUNTED);
    assert_string_equal(volume_now().name, "Volume1");
    assert_string_equal(volume_now().storage, "san");
    assert_string_equal(volume_now().csv.label, "Volume1");
    check_volume();
    /* It is there now: neither twice, nor under another name. */
    assert_int_equal(add("Volume1", true), ERR_EXISTS);
    assert_non_null(strstr(text, "is mounted"));
    assert_int_equal(add("Volume2", true), ERR_EXISTS);
    assert_non_null(strstr(text, "--name Volume1"));
    assert_int_equal(volume_add("other", "Volume1", true, text, sizeof text), ERR_EXISTS);
    stop_added();
}

static void what_a_disk_holds_is_named_and_kept(void **state)
{
    static const struct { uint64_t at; const char *bytes, *words; } held[] = {
        { 1080, "\x53\xef", "ext4" },
        { 512, "EFI PART", "GPT" },
        { 300, "?", "does not know" },
        { SIZE / 2, "?", "behind its empty beginning" },
        { SIZE - 512, "?", "behind its empty beginning" },
    };
    uint8_t bytes[8];
    (void)state;

    for (size_t i = 0; i < ARRAY_COUNT(held); i++) {
        new_san(SIZE);
        start_node(NULL);
        fake_disk_poke(san.disk, held[i].at, held[i].bytes, strlen(held[i].bytes));
        assert_int_equal(add("Volume1", false), ERR_EXISTS);
        if (!strstr(text, held[i].words) || !strstr(text, "--force"))
            fail_msg("%s", text);
        assert_int_equal(san.disk->writes, 0);
        assert_null(san.user);
        fake_disk_peek(san.disk, held[i].at, bytes, strlen(held[i].bytes));
        assert_memory_equal(bytes, held[i].bytes, strlen(held[i].bytes));
        assert_int_equal(add("Volume1", true), OK);
        stop_added();
    }
}

static void a_volume_is_something_too(void **state)
{
    (void)state;

    set_up(SIZE);
    stop_volume();
    start_node(NULL);
    assert_int_equal(add("Volume2", false), ERR_EXISTS);
    assert_non_null(strstr(text, "holds a volume"));
    stop_service();
    fake_disk_free(san.disk);
}

/* The configuration names a volume, and there is none yet. */
static void a_configured_volume_can_be_made(void **state)
{
    (void)state;

    new_san(SIZE);
    start_node("Volume1");
    wait_until(volume_now().state == VOLUME_FAILED);
    assert_int_equal(add("Other", false), ERR_EXISTS);
    assert_int_equal(add("Volume1", false), OK);
    assert_int_equal(volume_now().state, VOLUME_MOUNTED);
    tear_down();
}

/* It is told who has the disk, and the volume is mounted as soon as that one lets it go. */
static void a_strangers_disk_is_waited_for(void **state)
{
    (void)state;

    set_up(SIZE);
    stop_volume();
    san.stranger = true;
    start_node("Volume1");
    wait_until(volume_now().problem[0]);
    assert_int_equal(volume_now().state, VOLUME_WAITS);
    assert_non_null(strstr(volume_now().problem, "stranger"));
    assert_non_null(strstr(volume_now().problem, "--take-over"));
    __atomic_store_n(&san.stranger, false, __ATOMIC_RELEASE);
    wait_until(volume_now().state == VOLUME_MOUNTED);
    assert_string_equal(volume_now().problem, "");
    tear_down();
}

static void a_disk_that_is_too_small_or_fails_is_named(void **state)
{
    (void)state;

    new_san(SIZE);
    san.bytes = 32 * MIB;
    start_node(NULL);
    assert_int_equal(add("Volume1", false), ERR_RANGE);
    assert_non_null(strstr(text, "32 MiB"));
    san.bytes = 0;
    san.disk->fail_after = 0;
    assert_int_equal(add("Volume1", false), ERR_IO);
    assert_non_null(strstr(text, "cannot be read"));
    san.disk->fail_after = -1;
    assert_false(volume_info_get(0, &(struct volume_info){ 0 }));
    stop_service();
    fake_disk_free(san.disk);
    assert_int_equal(fake_heap_count, 0);
}

static void a_volume_grows_with_its_disk(void **state)
{
    uint64_t before, after;
    (void)state;

    new_san(2 * SIZE);
    san.bytes = SIZE;
    start_node(NULL);
    assert_int_equal(add("Volume1", false), OK);
    ok(volume_grow("Volume1", &before, &after, text, sizeof text));
    assert_int_equal(before, after);
    san.bytes = 2 * SIZE;
    ok(volume_grow("Volume1", &before, &after, text, sizeof text));
    assert_int_equal(before, SIZE);
    assert_int_equal(after, 2 * SIZE);
    assert_int_equal(volume_now().csv.blocks * CSV_BLOCK_BYTES, 2 * SIZE);
    check_volume();
    assert_int_equal(volume_grow("Volume9", &before, &after, text, sizeof text), ERR_NOT_FOUND);
    stop_added();
}

/* What guests have changed is durable soon, although nobody asks for it. */
static void what_guests_allocate_is_committed(void **state)
{
    static uint8_t bytes[4096];
    struct guest guest;
    (void)state;

    set_up(SIZE);
    struct volume_file *file = make_file("disk", 8 * MIB, &guest);
    ok(on_volume(check_here, &(struct csv_check){ .report = print_problem })); /* commits */
    uint64_t free = volume_now().csv.free_blocks, flushes = san.disk->flushes;
    ok(request(file, DISK_WRITE, 0, bytes, sizeof bytes));
    wait_until(volume_now().csv.free_blocks == free - 1 && san.disk->flushes > flushes);
    volume_file_close(file);
    tear_down();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_volume_is_made_on_an_empty_disk),
        cmocka_unit_test(what_a_disk_holds_is_named_and_kept),
        cmocka_unit_test(a_volume_is_something_too),
        cmocka_unit_test(a_configured_volume_can_be_made),
        cmocka_unit_test(a_strangers_disk_is_waited_for),
        cmocka_unit_test(a_disk_that_is_too_small_or_fails_is_named),
        cmocka_unit_test(a_volume_grows_with_its_disk),
        cmocka_unit_test(what_guests_allocate_is_committed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
