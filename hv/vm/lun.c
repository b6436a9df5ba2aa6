/* SPDX-License-Identifier: MIT */
/* Disks of VMs that are logical units. See lun.h. */
#include "vm/lun.h"

#include <stdio.h>
#include <string.h>

#include "kernel/text.h"
#include "kernel/thread.h"
#include "kernel/time.h"
#include "vm/machine.h"

#define DRAIN_STEP_NS NS_PER_MS

_Static_assert(LUN_REQUESTS <= VOLUME_FILE_REQUESTS, "a file takes as many requests as a disk has under way");

/* ---- Data: the storage's thread ---- */

/*
 * The part of a segment that holds byte `at` of the request; its length. Pieces come in order nearly always, so the search
 * goes on where it ended.
 */
static uint32_t locate(struct lun_request *r, uint64_t at, gpa_t *gpa)
{
    const struct blk_request *blk = r->blk;

    if (at < r->segment_at)
        r->segment = 0, r->segment_at = 0;
    while (r->segment < blk->segment_count && at - r->segment_at >= blk->segments[r->segment].bytes)
        r->segment_at += blk->segments[r->segment++].bytes;
    if (r->segment == blk->segment_count)
        return 0;
    const struct gmem_segment *segment = &blk->segments[r->segment];
    *gpa = GPA(segment->gpa.v + (at - r->segment_at));
    return segment->bytes - (uint32_t)(at - r->segment_at);
}

static bool get(struct disk_request *request, uint64_t at, void *bytes, uint32_t count)
{
    struct lun_request *r = request->owner;
    const struct gmem_ops *memory = r->blk->memory;
    uint8_t *to = bytes;
    gpa_t gpa;

    for (uint32_t part; count; at += part, to += part, count -= part) {
        part = MIN(locate(r, at, &gpa), count);
        if (!part || !memory->read(memory->context, gpa, to, part))
            return false;
    }
    return true;
}

static bool put(struct disk_request *request, uint64_t at, const void *bytes, uint32_t count)
{
    struct lun_request *r = request->owner;
    const struct gmem_ops *memory = r->blk->memory;
    const uint8_t *from = bytes;
    gpa_t gpa;

    for (uint32_t part; count; at += part, from += part, count -= part) {
        part = MIN(locate(r, at, &gpa), count);
        if (!part || !memory->write(memory->context, gpa, from, part))
            return false;
    }
    return true;
}

static void done(struct disk_request *request, enum status status)
{
    struct lun_request *r = request->owner;
    struct lun *lun = r->lun;

    spin_lock(&lun->lock);
    r->status = status;
    r->next = NULL;
    *lun->done_end = r;
    lun->done_end = &r->next;
    spin_unlock(&lun->lock);
    vm_signal(lun->vm, ORDER_WORK);
}

static void lost(struct storage_user *user, const char *why)
{
    struct lun *lun = CONTAINER_OF(user, struct lun, user.disk);

    spin_lock(&lun->lock);
    str_copy(lun->why, sizeof lun->why, why);
    spin_unlock(&lun->lock);
    __atomic_store_n(&lun->lost, true, __ATOMIC_RELEASE);
    vm_signal(lun->vm, ORDER_DISKS);
}

static void fenced(struct storage_user *user, const char *why)
{
    __atomic_store_n(&CONTAINER_OF(user, struct lun, user.disk)->fenced, true, __ATOMIC_RELEASE);
    lost(user, why);
}

static void back(struct storage_user *user)
{
    struct lun *lun = CONTAINER_OF(user, struct lun, user.disk);

    __atomic_store_n(&lun->lost, false, __ATOMIC_RELEASE);
    vm_signal(lun->vm, ORDER_DISKS);
}

static void grown(struct storage_user *user, uint64_t bytes)
{
    struct lun *lun = CONTAINER_OF(user, struct lun, user.disk);

    __atomic_store_n(&lun->grown, bytes, __ATOMIC_RELEASE);
    vm_signal(lun->vm, ORDER_DISKS);
}

static void stuck(struct volume_file_user *user, const char *why)
{
    struct lun *lun = CONTAINER_OF(user, struct lun, user);

    spin_lock(&lun->lock);
    str_copy(lun->why_stuck, sizeof lun->why_stuck, why);
    spin_unlock(&lun->lock);
    __atomic_store_n(&lun->stuck, true, __ATOMIC_RELEASE);
    vm_signal(lun->vm, ORDER_DISKS);
}

static void freed(struct volume_file_user *user)
{
    struct lun *lun = CONTAINER_OF(user, struct lun, user);

    __atomic_store_n(&lun->stuck, false, __ATOMIC_RELEASE);
    vm_signal(lun->vm, ORDER_DISKS);
}

static bool is_so(struct lun *lun, const bool *flag, const char *reason, char *why)
{
    if (!__atomic_load_n(flag, __ATOMIC_ACQUIRE))
        return false;
    spin_lock(&lun->lock);
    str_copy(why, STORAGE_TEXT, reason);
    spin_unlock(&lun->lock);
    return true;
}

bool lun_is_fenced(const struct lun *lun)
{
    return __atomic_load_n(&lun->fenced, __ATOMIC_ACQUIRE);
}

bool lun_is_lost(struct lun *lun, char *why)
{
    return is_so(lun, &lun->lost, lun->why, why);
}

bool lun_is_stuck(struct lun *lun, char *why)
{
    return is_so(lun, &lun->stuck, lun->why_stuck, why);
}

void lun_retry(struct lun *lun)
{
    if (__atomic_exchange_n(&lun->stuck, false, __ATOMIC_ACQ_REL))
        volume_file_retry(lun->file);
}

/* ---- Requests: the machine ---- */

static void submit(struct blkdev *dev, struct blk_request *blk)
{
    static const enum disk_op ops[] = { [BLK_READ] = DISK_READ, [BLK_WRITE] = DISK_WRITE, [BLK_FLUSH] = DISK_FLUSH,
                                        [BLK_DISCARD] = DISK_DISCARD, [BLK_WRITE_ZEROES] = DISK_WRITE_ZEROES };
    struct lun *lun = dev->context;
    unsigned i = 0;

    while (i < LUN_REQUESTS && lun->request[i].blk)
        i++;
    if (i == LUN_REQUESTS) { /* the device model has no more requests under way than there are here */
        blk->done(blk, ERR_BUSY);
        return;
    }
    struct lun_request *r = &lun->request[i];
    *r = (struct lun_request){ .blk = blk, .lun = lun };
    r->disk = (struct disk_request){ .op = ops[blk->op], .fua = blk->fua, .offset = blk->offset, .bytes = blk->bytes,
                                     .get = get, .put = put, .done = done, .owner = r };
    lun->in_flight++;
    if (lun->file)
        volume_file_submit(lun->file, &r->disk);
    else
        storage_submit(lun->storage, &r->disk);
}

void lun_complete(struct lun *lun)
{
    for (;;) {
        spin_lock(&lun->lock);
        struct lun_request *r = lun->done;
        if (r && !(lun->done = r->next))
            lun->done_end = &lun->done;
        spin_unlock(&lun->lock);
        if (!r)
            return;
        struct blk_request *blk = r->blk;
        r->blk = NULL;
        lun->in_flight--;
        blk->done(blk, r->status);
    }
}

static void prepare(struct lun *lun, struct vm *vm)
{
    memset(lun, 0, sizeof *lun);
    lun->vm = vm;
    lun->lock = (struct spinlock)SPINLOCK_INIT("vm disk");
    lun->done_end = &lun->done;
    lun->user = (struct volume_file_user){ .disk = { .lost = lost, .back = back, .fenced = fenced }, .stuck = stuck,
                                           .freed = freed };
    str_copy(lun->user.disk.name, sizeof lun->user.disk.name, vm->name);
}

enum status lun_open(struct lun *lun, struct vm *vm, const char *storage, char *text, size_t text_bytes)
{
    struct scsi_disk_info info;
    char why[STORAGE_TEXT];

    prepare(lun, vm);
    lun->user.disk.grown = grown; /* not for a file: its volume's disk is another's size */
    enum status status = storage_open(storage, &lun->user.disk, &lun->storage, &info, why, sizeof why);
    if (status != OK) {
        snprintf(text, text_bytes, "vm %s: %s", vm->name, why);
        return status;
    }
    lun->dev = (struct blkdev){ .bytes = info.bytes, .block_bytes = info.block_bytes, .read_only = info.read_only,
                                .submit = submit, .context = lun };
    str_copy(lun->identity, sizeof lun->identity, info.identity);
    return OK;
}

enum status lun_open_file(struct lun *lun, struct vm *vm, const char *path, char *text, size_t text_bytes)
{
    struct volume_file_info info;
    char why[VOLUME_TEXT];

    prepare(lun, vm);
    enum status status = volume_file_open(path, &lun->user, &lun->file, &info, why, sizeof why);
    if (status != OK) {
        snprintf(text, text_bytes, "vm %s: %s", vm->name, why);
        return status;
    }
    lun->dev = (struct blkdev){ .bytes = info.bytes, .block_bytes = info.block_bytes, .submit = submit, .context = lun };
    return OK;
}

static enum status say(const struct lun *lun, enum status status, const char *why, char *text, size_t text_bytes)
{
    if (status != OK)
        snprintf(text, text_bytes, "vm %s: %s", lun->vm->name, why);
    return status;
}

enum status lun_note(struct lun *lun, char *text, size_t text_bytes)
{
    char why[VOLUME_TEXT] = "";

    return lun->file ? say(lun, volume_file_stat(lun->file, &lun->noted, why, sizeof why), why, text, text_bytes) : OK;
}

enum status lun_mark(struct lun *lun, char *text, size_t text_bytes)
{
    char why[VOLUME_TEXT] = "";

    return lun->file ? say(lun, volume_file_mark(lun->file, why, sizeof why), why, text, text_bytes) : OK;
}

enum status lun_grow(struct lun *lun, uint64_t bytes, char *text, size_t text_bytes)
{
    char why[VOLUME_TEXT] = "";
    enum status status = volume_file_grow(lun->file, &bytes, why, sizeof why);

    if (status == OK) {
        spin_lock(&lun->vm->lock);
        lun->dev.bytes = MAX(lun->dev.bytes, bytes);
        spin_unlock(&lun->vm->lock);
    }
    return say(lun, status, why, text, text_bytes);
}

bool lun_has_grown(struct lun *lun)
{
    uint64_t bytes = __atomic_exchange_n(&lun->grown, 0, __ATOMIC_ACQ_REL);

    if (bytes <= lun->dev.bytes)
        return false;
    lun->dev.bytes = bytes;
    return true;
}

static unsigned waiting(struct lun *lun)
{
    spin_lock(&lun->vm->lock);
    lun_complete(lun);
    unsigned count = lun->in_flight;
    spin_unlock(&lun->vm->lock);
    return count;
}

void lun_drain(struct lun *lun, uint64_t ns)
{
    uint64_t deadline = time_now_ns() + ns;

    if (!lun->storage && !lun->file)
        return;
    while (waiting(lun) && !__atomic_load_n(&lun->lost, __ATOMIC_ACQUIRE) && !__atomic_load_n(&lun->stuck, __ATOMIC_ACQUIRE) &&
           time_now_ns() < deadline)
        thread_sleep_ns(DRAIN_STEP_NS);
    if (waiting(lun)) {
        if (lun->file)
            volume_file_cancel(lun->file);
        else
            storage_cancel(lun->storage);
        __atomic_store_n(&lun->stuck, false, __ATOMIC_RELEASE);
        (void)waiting(lun);
    }
}

void lun_close(struct lun *lun)
{
    if (lun->storage)
        storage_close(lun->storage);
    lun->storage = NULL;
    if (lun->file)
        volume_file_close(lun->file);
    lun->file = NULL;
}
