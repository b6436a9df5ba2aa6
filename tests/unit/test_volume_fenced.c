/* SPDX-License-Identifier: MIT */
/*
 * A volume beside others: another node takes its disk, a clone is made of a file that is being written, and a disk that
 * cannot write through its cache.
 */
#include "volume_fixture.h"

#include "csv/volume.h"
#include "volume/volume_private.h"

#define SIZE (64 * MIB)
#define BLOCK 4096u

static char text[VOLUME_TEXT];

static enum status nothing_here(struct csv *csv, void *arg)
{
    (void)csv, (void)arg;
    return OK;
}

static enum status sync_here(struct csv *csv, void *arg)
{
    (void)arg;
    return csv_sync(csv);
}

/* ---- Fenced ---- */

static unsigned fences;

static void guest_fenced(struct storage_user *user, const char *why)
{
    (void)user;
    assert_string_equal(why, "node beta has it");
    __atomic_fetch_add(&fences, 1, __ATOMIC_RELEASE);
}

/* Nothing is written any more; the volume stays as long as a VM has a file, and its reservation is not given back. */
static void a_fenced_volume_writes_nothing(void **state)
{
    static uint8_t bytes[BLOCK];
    struct guest guest, late = new_guest();
    (void)state;

    set_up(SIZE);
    fences = 0;
    struct volume_file *file = make_file("disk", MIB, &guest);
    guest.user.disk.fenced = guest_fenced;
    ok(request(file, DISK_WRITE, 0, bytes, BLOCK)); /* a change of the map that is not durable */
    wait_until(idle());
    uint64_t writes = san.disk->writes, flushes = san.disk->flushes;
    san.user->fenced(san.user, "node beta has it");
    assert_int_equal(fences, 1);
    assert_int_equal(guest.lost, 0);
    assert_int_equal(volume_call("Volume1", 7, nothing_here, NULL, text, sizeof text), ERR_FENCED);
    assert_non_null(strstr(text, "Volume1"));
    assert_non_null(strstr(text, "stop the VMs"));
    for (unsigned i = 0; i < 10; i++) {
        pass_time(NS_PER_S);
        assert_int_equal(volume_call("Volume1", 7, nothing_here, NULL, text, sizeof text), ERR_FENCED);
    }
    assert_int_equal(volume_now().state, VOLUME_AWAY);
    assert_string_equal(volume_now().problem, "node beta has it");
    volume_file_close(file);
    wait_until(volume_now().state == VOLUME_FAILED);
    assert_string_equal(volume_now().problem, "node beta has it");
    assert_int_equal(san.disk->writes, writes);
    assert_int_equal(san.disk->flushes, flushes);
    assert_true(san.taken);
    assert_int_equal(volume_file_open(ROOT "disk", &late.user, &file, &(struct volume_file_info){ 0 }, text, sizeof text), ERR_BUSY);
    assert_non_null(strstr(text, "csv mount"));
    tear_down();
}

/* ---- Clones ---- */

struct cloning {
    struct volume_file *file;
    bool forget; /* the map in memory */
    uint8_t first[BLOCK]; /* of the copy, when it is made */
};

static enum status clone_here(struct csv *csv, void *arg)
{
    struct cloning *c = arg;
    struct csv_file *file;
    uint64_t inode, copy, done;

    ok(csv_walk(csv, "disk", &inode));
    ok(csv_open(csv, inode, &file));
    if (c->forget)
        csv_map_drop(file);
    volume_file_hold(csv, inode);
    enum status status = csv_clone(file, csv_root(csv), "copy", 4, &copy);
    volume_file_release(csv, inode);
    ok(csv_close(file));
    if (status != OK)
        return status;
    ok(csv_open(csv, copy, &file));
    ok(csv_read(file, 0, c->first, BLOCK, &done));
    return csv_close(file);
}

static void *clone_thread(void *arg)
{
    ok(on_volume(clone_here, arg));
    return NULL;
}

static unsigned exclusive_of(struct volume_file *file)
{
    spin_lock(&file->lock);
    unsigned count = file->exclusive;
    spin_unlock(&file->lock);
    return count;
}

/* A clone has the write that was at the disk when it was asked for, and none that came later. */
static void a_clone_waits_for_what_is_at_the_disk(void **state)
{
    static uint8_t old[2 * BLOCK], new[2 * BLOCK], newer[BLOCK], back[2 * BLOCK];
    (void)state;

    for (unsigned forget = 0; forget < 2; forget++) {
        struct cloning c = { .forget = forget };
        struct asked write, behind;
        struct guest guest;
        pthread_t thread;
        set_up(SIZE);
        c.file = make_file("disk", MIB, &guest);
        fill(old, sizeof old, 1), fill(new, sizeof new, 2), fill(newer, sizeof newer, 3);
        ok(request(c.file, DISK_WRITE, BLOCK, old + BLOCK, BLOCK)); /* two extents: a write of both has two pieces */
        ok(request(c.file, DISK_WRITE, 0, old, BLOCK));
        ok(request(c.file, DISK_FLUSH, 0, NULL, 0));
        hold(true, false);
        ask(c.file, &write, DISK_WRITE, 0, new, sizeof new);
        wait_until(held() == 1);
        assert_int_equal(pthread_create(&thread, NULL, clone_thread, &c), 0);
        wait_until(exclusive_of(c.file) == 1 || all(c.first, 1, old[0]));
        ask(c.file, &behind, DISK_WRITE, 0, newer, BLOCK);
        nanosleep(&(struct timespec){ .tv_nsec = 50000000 }, NULL); /* a clone that does not wait is made by now */
        hold(false, false);
        pthread_join(thread, NULL);
        ok(answer(&write));
        ok(answer(&behind));
        assert_memory_equal(c.first, new, BLOCK);
        ok(request(c.file, DISK_READ, 0, back, sizeof back));
        assert_memory_equal(back, newer, BLOCK);
        assert_memory_equal(back + BLOCK, new + BLOCK, BLOCK);
        volume_file_close(c.file);
        check_volume();
        tear_down();
    }
}

/* ---- Durability ---- */

/* Where the unit has no FUA, what asks for it is followed by a flush. */
static void a_disk_without_fua_is_flushed(void **state)
{
    struct making m = { .name = "a" };
    (void)state;

    set_up(SIZE);
    for (unsigned fua = 0; fua < 2; fua++) {
        stop_volume();
        san.fua = fua;
        start_volume();
        m.name = fua ? "a" : "b";
        ok(on_volume(make_here, &m));
        uint64_t flushes = san.disk->flushes;
        ok(on_volume(sync_here, NULL));
        assert_int_equal(san.disk->flushes - flushes, fua ? 1 : 2);
    }
    tear_down();
}

static enum status remove_here(struct csv *csv, void *arg)
{
    enum status status = csv_unlink(csv, csv_root(csv), arg, strlen(arg));

    return status == OK ? csv_sync(csv) : status;
}

/* A file whose name went while it was a disk is gone for good soon after it is closed, although nobody asks for it. */
static void what_a_close_frees_is_committed(void **state)
{
    struct guest guest;
    (void)state;

    set_up(SIZE);
    struct volume_file *file = make_file("disk", MIB, &guest);
    ok(on_volume(remove_here, (char[]){ "disk" }));
    for (unsigned i = 0; i < 10; i++) { /* the commits of what was before */
        pass_time(NS_PER_S);
        nanosleep(&(struct timespec){ .tv_nsec = 10000000 }, NULL);
    }
    wait_until(idle());
    uint64_t flushes = san.disk->flushes;
    volume_file_close(file);
    for (unsigned i = 0; i < 1000 && __atomic_load_n(&san.disk->flushes, __ATOMIC_ACQUIRE) == flushes; i++) {
        pass_time(NS_PER_S);
        nanosleep(&(struct timespec){ .tv_nsec = 10000000 }, NULL);
    }
    assert_true(san.disk->flushes > flushes);
    tear_down();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_fenced_volume_writes_nothing),
        cmocka_unit_test(a_clone_waits_for_what_is_at_the_disk),
        cmocka_unit_test(a_disk_without_fua_is_flushed),
        cmocka_unit_test(what_a_close_frees_is_committed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
