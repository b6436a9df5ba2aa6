/* SPDX-License-Identifier: MIT */
/*
 * A node's volume on a fake storage, with real threads: the volume's own, and the service's, in which the storage carries
 * out what it was handed, in any order, on a fake disk (fake_csv_disk.h). A test is the user's thread. It can hold the
 * data of files, or all, at the storage, and let it go one by one.
 *
 * Includes volume.c, so that each test has volumes of its own.
 */
#ifndef VOLUME_FIXTURE_H
#define VOLUME_FIXTURE_H

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <time.h>
/* clang-format off */
#include <cmocka.h>
/* clang-format on */

#include "volume/volume.c"

#include "fake_csv_disk.h"
#include "fake_kernel.h"
#include "kernel/bytes.h"
#include "kernel/random.h"
#include "volume/volume_file.h"

#define ok(call) assert_int_equal((call), OK)
#ifndef PATIENCE_S
#define PATIENCE_S 30
#endif
#define ROOT "/ClusterStorage/Volume1/"
#define PATIENCE_NS (PATIENCE_S * NS_PER_S)
#define HELD_MAX 256

/* ---- Threads ---- */

static pthread_mutex_t world = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t news = PTHREAD_COND_INITIALIZER;
static uint64_t wakes;
static __thread uint64_t wakes_seen;
static pthread_t volume_thread;
static bool threads_run;
static uint64_t skipped_ns; /* that passed in no time */

uint64_t time_now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec + __atomic_load_n(&skipped_ns, __ATOMIC_ACQUIRE);
}

uint64_t time_unix_ns(void) { return 1000; }
void random_bytes(void *bytes, size_t count) { memset(bytes, 0x5a, count); }
void thread_yield(void) { sched_yield(); }
unsigned thread_pick_cpu(void) { return 0; }
void wait_queue_init(struct wait_queue *queue, const char *name) { (void)queue, (void)name; }
void wait_finish(struct wait_queue *queue) { (void)queue; }
void wait_prepare(struct wait_queue *queue)
{
    (void)queue;
    wakes_seen = __atomic_load_n(&wakes, __ATOMIC_SEQ_CST);
}

static void sleep_locked(uint64_t deadline_ns)
{
    uint64_t at = MIN(deadline_ns, time_now_ns() + PATIENCE_NS), now = time_now_ns();
    struct timespec real;

    clock_gettime(CLOCK_REALTIME, &real);
    uint64_t then = (uint64_t)real.tv_sec * NS_PER_S + (uint64_t)real.tv_nsec + (at > now ? at - now : 0);
    pthread_cond_timedwait(&news, &world, &(struct timespec){ (time_t)(then / NS_PER_S), (long)(then % NS_PER_S) });
}

void wait_block(uint64_t deadline_ns)
{
    pthread_mutex_lock(&world);
    if (wakes_seen == wakes)
        sleep_locked(deadline_ns);
    pthread_mutex_unlock(&world);
}

static void tell(void)
{
    __atomic_fetch_add(&wakes, 1, __ATOMIC_SEQ_CST);
    pthread_cond_broadcast(&news);
}

void wake_all(struct wait_queue *queue)
{
    (void)queue;
    pthread_mutex_lock(&world);
    tell();
    pthread_mutex_unlock(&world);
}

void wake_all_set(struct wait_queue *queue, bool *flag)
{
    (void)queue;
    pthread_mutex_lock(&world);
    __atomic_store_n(flag, true, __ATOMIC_RELEASE);
    tell();
    pthread_mutex_unlock(&world);
}

static struct { void (*fn)(void *arg); void *arg; } volume_start_routine;

static void *volume_main(void *arg)
{
    (void)arg;
    volume_start_routine.fn(volume_start_routine.arg);
    return NULL;
}

struct thread *thread_create(const char *name, unsigned cpu, void (*fn)(void *arg), void *arg)
{
    (void)name, (void)cpu;
    volume_start_routine.fn = fn;
    volume_start_routine.arg = arg;
    threads_run = true;
    return pthread_create(&volume_thread, NULL, volume_main, NULL) ? NULL : (struct thread *)&volume_thread;
}

static inline void pass_time(uint64_t ns)
{
    pthread_mutex_lock(&world);
    __atomic_fetch_add(&skipped_ns, ns, __ATOMIC_RELEASE);
    tell();
    pthread_mutex_unlock(&world);
}

/* Waits, in the test's thread, for what another one does. */
#define wait_until(condition)                                                                                       \
    do {                                                                                                            \
        uint64_t limit_ = time_now_ns() + PATIENCE_NS;                                                              \
        pthread_mutex_lock(&world);                                                                                 \
        while (!(condition) && time_now_ns() < limit_)                                                              \
            sleep_locked(time_now_ns() + NS_PER_S / 20);                                                            \
        bool so_ = (condition);                                                                                     \
        pthread_mutex_unlock(&world);                                                                               \
        if (!so_)                                                                                                   \
            fail_msg("waited in vain for %s", #condition);                                                          \
    } while (0)

/* ---- The storage ---- */

static struct {
    struct fake_csv_disk *disk;
    struct disk_request *queue[HELD_MAX]; /* handed over, not carried out; in any order */
    unsigned count;
    void (*of_volume)(struct disk_request *request, enum status status); /* done() of the volume's own requests */
    bool hold_data, hold_all, stop, busy, fua;
    bool data_fails; /* of files: each is answered by an error */
    bool taken; /* reserved */
    bool stranger; /* somebody else has it reserved */
    uint64_t seed;
    uint64_t bytes; /* how large the disk says that it is; 0: as it is */
    struct storage_user *user;
    pthread_t thread;
    unsigned data_reads, data_writes, data_flushes; /* of files, carried out */
} san;

/* One that may go: a random one. */
static struct disk_request *choose(void)
{
    unsigned first = san.count ? (unsigned)(fake_random(&san.seed) % san.count) : 0;

    for (unsigned i = 0; i < san.count && !san.hold_all; i++) {
        unsigned at = (first + i) % san.count;
        struct disk_request *request = san.queue[at];
        if (san.hold_data && request->done != san.of_volume)
            continue;
        san.queue[at] = san.queue[--san.count];
        return request;
    }
    return NULL;
}

static enum status transfer(struct disk_request *request)
{
    uint8_t *bytes = malloc(request->bytes);
    struct csv_disk *disk = &san.disk->disk;
    enum status status = OK;

    for (uint64_t at = 0, part; at < request->bytes && status == OK && request->op == DISK_WRITE; at += part) {
        part = 512 * (1 + fake_random(&san.seed) % 40);
        part = MIN(part, request->bytes - at);
        status = request->get(request, at, bytes + at, (uint32_t)part) ? OK : ERR_IO;
    }
    if (status == OK)
        status = request->op == DISK_WRITE ? disk->write(disk, request->offset, bytes, request->bytes, request->fua)
                                           : disk->read(disk, request->offset, bytes, request->bytes);
    for (uint64_t at = 0, part; at < request->bytes && status == OK && request->op == DISK_READ; at += part) {
        part = 512 * (1 + fake_random(&san.seed) % 40);
        part = MIN(part, request->bytes - at);
        status = request->put(request, at, bytes + at, (uint32_t)part) ? OK : ERR_IO;
    }
    free(bytes);
    return status;
}

static void carry_out_one(struct disk_request *request)
{
    bool data = request->done != san.of_volume;
    enum status status = OK;

    assert_true(range_within(request->offset, request->bytes, san.disk->disk.bytes));
    assert_true(san.taken || request->op == DISK_READ);
    if (data && san.data_fails)
        status = ERR_IO;
    else if (request->op == DISK_FLUSH)
        status = san.disk->disk.flush(&san.disk->disk);
    else if (request->op != DISK_DISCARD)
        status = transfer(request);
    san.data_reads += data && request->op == DISK_READ;
    san.data_writes += data && request->op == DISK_WRITE;
    san.data_flushes += data && request->op == DISK_FLUSH;
    request->done(request, status);
}

static void *service(void *arg)
{
    (void)arg;
    pthread_mutex_lock(&world);
    while (!san.stop) {
        struct disk_request *request = choose();
        if (!request) {
            sleep_locked(UINT64_MAX);
            continue;
        }
        san.busy = true;
        pthread_mutex_unlock(&world);
        carry_out_one(request);
        pthread_mutex_lock(&world);
        san.busy = false;
        tell();
    }
    pthread_mutex_unlock(&world);
    return NULL;
}

static uint64_t san_bytes(void)
{
    return san.bytes ? san.bytes : san.disk->disk.bytes;
}

enum status storage_open(const char *name, struct storage_user *user, struct storage **storage, struct scsi_disk_info *info,
                         char *text, size_t text_bytes)
{
    if (strcmp(name, "san") || san.user) {
        snprintf(text, text_bytes, "storage %s: somebody has it, or there is none", name);
        return ERR_BUSY;
    }
    *storage = (struct storage *)&san;
    *info = (struct scsi_disk_info){ .known = true, .bytes = san_bytes(), .block_bytes = 512, .fua = san.fua };
    san.user = user;
    return OK;
}

void storage_submit(struct storage *storage, struct disk_request *request)
{
    assert_ptr_equal(storage, &san);
    pthread_mutex_lock(&world);
    if (!san.of_volume)
        san.of_volume = request->done; /* the mount's first */
    assert_true(san.count < HELD_MAX);
    san.queue[san.count++] = request;
    tell();
    pthread_mutex_unlock(&world);
}

void storage_close(struct storage *storage)
{
    (void)storage;
    pthread_mutex_lock(&world);
    while (san.count) {
        struct disk_request *request = san.queue[--san.count];
        pthread_mutex_unlock(&world);
        request->done(request, ERR_CANCELLED);
        pthread_mutex_lock(&world);
    }
    san.user = NULL;
    pthread_mutex_unlock(&world);
}

bool storage_info_get(unsigned i, struct storage_info *info)
{
    *info = (struct storage_info){ .name = "san", .disk = { .known = true, .bytes = san_bytes() } };
    return !i;
}

enum status storage_take(struct storage *storage, bool take_over, uint64_t *key, bool *taken_over, char *text, size_t text_bytes)
{
    (void)storage;
    assert_false(san.taken);
    if (__atomic_load_n(&san.stranger, __ATOMIC_ACQUIRE) && !take_over) {
        snprintf(text, text_bytes, "storage san: reserved by a stranger");
        return ERR_BUSY;
    }
    san.taken = true;
    *taken_over = false;
    *key = 1;
    return OK;
}

enum status storage_give_back(struct storage *storage)
{
    (void)storage;
    san.taken = false;
    return OK;
}

void storage_set_epoch(struct storage *storage, const struct storage_epoch *epoch) { (void)storage, (void)epoch; }

bool storage_will_come(const char *name)
{
    (void)name;
    return false;
}

/* How many of files' requests are at the storage. */
static inline unsigned held(void)
{
    unsigned count = 0;

    for (unsigned i = 0; i < san.count; i++)
        count += san.queue[i]->done != san.of_volume;
    return count;
}

static inline void hold(bool data, bool all)
{
    pthread_mutex_lock(&world);
    san.hold_data = data;
    san.hold_all = all;
    tell();
    pthread_mutex_unlock(&world);
}

/* Nothing is at the storage, or what is there is held. */
static inline bool idle(void)
{
    return !san.busy && (san.hold_all || san.count == (san.hold_data ? held() : 0));
}

/* ---- The user ---- */

struct guest {
    struct volume_file_user user;
    unsigned lost, back, stuck, freed;
    char why[STORAGE_TEXT];
};

static void guest_lost(struct storage_user *user, const char *why)
{
    struct guest *g = CONTAINER_OF(user, struct guest, user.disk);

    snprintf(g->why, sizeof g->why, "%s", why);
    __atomic_fetch_add(&g->lost, 1, __ATOMIC_RELEASE);
}

static void guest_back(struct storage_user *user)
{
    __atomic_fetch_add(&CONTAINER_OF(user, struct guest, user.disk)->back, 1, __ATOMIC_RELEASE);
}

static void guest_stuck(struct volume_file_user *user, const char *why)
{
    struct guest *g = CONTAINER_OF(user, struct guest, user);

    snprintf(g->why, sizeof g->why, "%s", why);
    __atomic_fetch_add(&g->stuck, 1, __ATOMIC_RELEASE);
}

static void guest_freed(struct volume_file_user *user)
{
    __atomic_fetch_add(&CONTAINER_OF(user, struct guest, user)->freed, 1, __ATOMIC_RELEASE);
}

static struct guest new_guest(void)
{
    return (struct guest){ .user = { .disk = { .name = "demo", .lost = guest_lost, .back = guest_back },
                                     .stuck = guest_stuck, .freed = guest_freed } };
}

struct asked {
    struct disk_request request;
    uint8_t *bytes;
    enum status status;
    bool done;
};

static bool asked_get(struct disk_request *request, uint64_t at, void *bytes, uint32_t count)
{
    const struct asked *a = request->owner;

    assert_true(range_within(at, count, request->bytes) && !a->done);
    memcpy(bytes, a->bytes + at, count);
    return true;
}

static bool asked_put(struct disk_request *request, uint64_t at, const void *bytes, uint32_t count)
{
    const struct asked *a = request->owner;

    assert_true(range_within(at, count, request->bytes) && !a->done);
    memcpy(a->bytes + at, bytes, count);
    return true;
}

static void asked_done(struct disk_request *request, enum status status)
{
    struct asked *a = request->owner;

    assert_false(a->done);
    a->status = status;
    wake_all_set(NULL, &a->done);
}

static void ask(struct volume_file *file, struct asked *a, enum disk_op op, uint64_t offset, void *bytes, uint64_t count)
{
    *a = (struct asked){ .bytes = bytes, .request = { .op = op, .offset = offset, .bytes = count, .get = asked_get,
                                                      .put = asked_put, .done = asked_done, .owner = a } };
    volume_file_submit(file, &a->request);
}

static bool is_done(const struct asked *a)
{
    return __atomic_load_n(&a->done, __ATOMIC_ACQUIRE);
}

static enum status answer(struct asked *a)
{
    wait_until(is_done(a));
    return a->status;
}

/* Asks, and waits for the answer. */
static inline enum status request(struct volume_file *file, enum disk_op op, uint64_t offset, void *bytes, uint64_t count)
{
    struct asked a;

    ask(file, &a, op, offset, bytes, count);
    return answer(&a);
}

/* ---- The volume ---- */

static struct config node_config;
static struct fake_memory plain_memory;

static struct volume_info volume_now(void)
{
    struct volume_info info;

    assert_true(volume_info_get(0, &info));
    return info;
}

static inline unsigned files_open(void)
{
    unsigned count = 0;

    spin_lock(&volumes->lock);
    for (const struct volume_file *f = volumes->files; f; f = f->next)
        count++;
    spin_unlock(&volumes->lock);
    return count;
}

/* The node, whose storage is to hold this volume (NULL: none). */
static void start_node(const char *volume)
{
    memset(&node_config, 0, sizeof node_config);
    node_config.storages[0] = (struct config_storage){ .name = "san", .volume = volume };
    node_config.storage_count = 1;
    san.of_volume = NULL;
    san.stop = false;
    volumes = NULL;
    assert_int_equal(pthread_create(&san.thread, NULL, service, NULL), 0);
    volume_start(&node_config);
}

static void start_volume(void)
{
    start_node("Volume1");
    wait_until(volume_now().state != VOLUME_WAITS);
    if (volume_now().state != VOLUME_MOUNTED)
        fail_msg("%s", volume_now().problem);
}

static void new_san(uint64_t bytes)
{
    memset(&san, 0, sizeof san);
    san.seed = 1;
    san.fua = true;
    san.disk = fake_disk_new(bytes);
}

/* A disk full of bytes that nobody may see, with an empty volume. */
static void set_up(uint64_t bytes)
{
    struct csv_mkfs_options options = { .uuid = "a volume's uuid", .hash_key = "0123456789abcde", .label = "Volume1" };
    uint8_t junk[4096];

    new_san(bytes);
    memset(junk, 0xee, sizeof junk);
    for (uint64_t at = 0; at < bytes; at += sizeof junk)
        fake_disk_poke(san.disk, at, junk, sizeof junk);
    fake_memory_init(&plain_memory);
    ok(csv_mkfs(&san.disk->disk, &plain_memory.memory, &options));
    start_volume();
}

static void stop_service(void)
{
    pthread_mutex_lock(&world);
    san.stop = true;
    tell();
    pthread_mutex_unlock(&world);
    pthread_join(san.thread, NULL);
}

static void stop_volume(void)
{
    volume_stop();
    pthread_join(volume_thread, NULL);
    stop_service();
    kfree(volumes->buffer, VOLUME_BUFFER_BYTES);
    kfree(volumes, sizeof *volumes);
    volumes = NULL;
}

static void tear_down(void)
{
    stop_volume();
    fake_disk_free(san.disk);
    assert_int_equal(fake_heap_count, 0);
}

struct making {
    const char *name;
    uint64_t bytes, inode;
};

static enum status make_here(struct csv *csv, void *arg)
{
    struct making *m = arg;
    struct csv_file *file;
    enum status status = csv_create(csv, csv_root(csv), m->name, strlen(m->name), 0644, &m->inode);

    if (status == OK)
        status = csv_open(csv, m->inode, &file);
    if (status != OK)
        return status;
    status = csv_set_size(file, m->bytes);
    enum status closed = csv_close(file);
    return status == OK ? closed : status;
}

static enum status on_volume(volume_fn *fn, void *arg)
{
    char text[VOLUME_TEXT];

    return volume_call("Volume1", 7, fn, arg, text, sizeof text);
}

static struct volume_file *open_as(const char *path, struct guest *guest)
{
    struct volume_file_info info;
    struct volume_file *file;
    char text[VOLUME_TEXT];

    if (volume_file_open(path, &guest->user, &file, &info, text, sizeof text) != OK)
        fail_msg("%s", text);
    return file;
}

static struct volume_file *make_file(const char *name, uint64_t bytes, struct guest *guest)
{
    char path[64];

    *guest = new_guest();
    ok(on_volume(make_here, &(struct making){ .name = name, .bytes = bytes }));
    snprintf(path, sizeof path, ROOT "%s", name);
    return open_as(path, guest);
}

static enum status check_here(struct csv *csv, void *arg)
{
    struct csv_check *check = arg;

    return csv_check(csv, check);
}

static void print_problem(void *context, const char *text)
{
    (void)context;
    print_error("check: %s\n", text);
}

static struct csv_check check_volume(void)
{
    struct csv_check check = { .report = print_problem };

    ok(on_volume(check_here, &check));
    assert_int_equal(check.problems, 0);
    return check;
}

/* Bytes that tell where they belong. */
static inline void fill(uint8_t *bytes, uint64_t count, uint32_t tag)
{
    for (uint64_t i = 0; i < count; i++)
        bytes[i] = (uint8_t)((tag * 2654435761u >> 8) + i / 512 * 7 + i % 251) | 1;
}

static inline bool all(const uint8_t *bytes, uint64_t count, uint8_t value)
{
    for (uint64_t i = 0; i < count; i++)
        if (bytes[i] != value)
            return false;
    return true;
}

#endif
