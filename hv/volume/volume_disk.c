/* SPDX-License-Identifier: MIT */
/* The storage below a volume. See volume_disk.h. */
#include "volume/volume_private.h"

#include <stdio.h>
#include <string.h>

#include "kernel/bytes.h"
#include "kernel/heap.h"
#include "kernel/log.h"
#include "kernel/text.h"
#include "kernel/time.h"

#define REST_NS (NS_PER_MS / 2)

/* One call, on the stack of who waits. */
struct call {
    struct disk_request request;
    struct volume_disk *disk;
    const uint8_t *from;
    uint8_t *to;
    bool done;
    enum status status;
};

/* ---- The network service's thread ---- */

static bool get(struct disk_request *request, uint64_t at, void *bytes, uint32_t count)
{
    const struct call *call = request->owner;

    memcpy(bytes, call->from + at, count);
    return true;
}

static bool put(struct disk_request *request, uint64_t at, const void *bytes, uint32_t count)
{
    const struct call *call = request->owner;

    memcpy(call->to + at, bytes, count);
    return true;
}

static void done(struct disk_request *request, enum status status)
{
    struct call *call = request->owner;

    call->status = status;
    wake_all_set(&call->disk->answered, &call->done); /* *call is the other thread's stack, and gone after this */
}

static void lost(struct storage_user *user, const char *why)
{
    struct volume_disk *disk = CONTAINER_OF(user, struct volume_disk, user);

    spin_lock(&disk->lock);
    str_copy(disk->why, sizeof disk->why, why);
    spin_unlock(&disk->lock);
    __atomic_store_n(&disk->lost, true, __ATOMIC_RELEASE);
    log_warning("volume %s: its disk is away: %s", user->name, why);
    volume_files_tell(disk->volume, true, why);
}

static void fenced(struct storage_user *user, const char *why)
{
    struct volume_disk *disk = CONTAINER_OF(user, struct volume_disk, user);

    __atomic_store_n(&disk->fenced, true, __ATOMIC_RELEASE);
    lost(user, why);
    wake_all(&disk->volume->wake);
}

static void grown(struct storage_user *user, uint64_t bytes)
{
    log_info("volume %s: its disk has %lu MiB now; `csv grow %s` makes the volume as large", user->name, bytes / MIB, user->name);
}

static void back(struct storage_user *user)
{
    struct volume_disk *disk = CONTAINER_OF(user, struct volume_disk, user);

    __atomic_store_n(&disk->lost, false, __ATOMIC_RELEASE);
    log_info("volume %s: its disk is back", user->name);
    volume_files_tell(disk->volume, false, "");
}

/* ---- The volume's thread ---- */

static enum status carry_out(struct csv_disk *csv, struct call *call)
{
    call->disk = csv->context;
    call->request.get = get;
    call->request.put = put;
    call->request.done = done;
    call->request.owner = call;
    storage_submit(call->disk->storage, &call->request);
    wait_event(&call->disk->answered, __atomic_load_n(&call->done, __ATOMIC_ACQUIRE));
    return call->status;
}

static enum status disk_read(struct csv_disk *csv, uint64_t offset, void *bytes, uint64_t count)
{
    struct call call = { .request = { .op = DISK_READ, .offset = offset, .bytes = count }, .to = bytes };

    return count ? carry_out(csv, &call) : OK;
}

static enum status disk_flush(struct csv_disk *csv)
{
    struct call call = { .request = { .op = DISK_FLUSH } };

    return carry_out(csv, &call);
}

/* A unit without FUA is flushed instead. */
static enum status disk_write(struct csv_disk *csv, uint64_t offset, const void *bytes, uint64_t count, bool fua)
{
    const struct volume_disk *disk = csv->context;
    struct call call = { .request = { .op = DISK_WRITE, .fua = fua && disk->fua, .offset = offset, .bytes = count },
                         .from = bytes };
    enum status status = count ? carry_out(csv, &call) : OK;

    return status == OK && fua && !disk->fua ? disk_flush(csv) : status;
}

static enum status disk_write_zeroes(struct csv_disk *csv, uint64_t offset, uint64_t count)
{
    struct call call = { .request = { .op = DISK_WRITE_ZEROES, .offset = offset, .bytes = count } };

    return count ? carry_out(csv, &call) : OK;
}

static enum status disk_discard(struct csv_disk *csv, uint64_t offset, uint64_t count)
{
    struct call call = { .request = { .op = DISK_DISCARD, .offset = offset, .bytes = count } };

    return count ? carry_out(csv, &call) : OK;
}

/* A clone of a file of many extents, for one, keeps the CPU for a tenth of a second else, and whoever has to run there waits. */
static void disk_rest(struct csv_disk *csv)
{
    struct volume_disk *disk = csv->context;

    if (time_now_ns() - disk->rested_ns < REST_NS)
        return;
    thread_yield();
    disk->rested_ns = time_now_ns();
}

enum status volume_disk_open(struct volume_disk *disk, struct volume *volume, const char *storage, const char *name, char *text,
                             size_t text_bytes)
{
    struct scsi_disk_info info;

    memset(disk, 0, sizeof *disk);
    wait_queue_init(&disk->answered, "volume disk");
    disk->lock = (struct spinlock)SPINLOCK_INIT("volume disk");
    disk->user.lost = lost;
    disk->user.back = back;
    disk->user.grown = grown;
    disk->user.fenced = fenced;
    disk->user.reserves = true;
    snprintf(disk->user.name, sizeof disk->user.name, "%s", name);
    disk->volume = volume;
    enum status status = storage_open(storage, &disk->user, &disk->storage, &info, text, text_bytes);
    if (status != OK) {
        disk->storage = NULL;
        return status;
    }
    if (info.read_only) {
        volume_disk_close(disk);
        snprintf(text, text_bytes, "storage %s: its unit is write-protected; allow writes to it on the target, then `iscsi logout "
                                   "%s`, `iscsi login %s` and `csv mount %s`", storage, storage, storage, name);
        return ERR_READ_ONLY;
    }
    disk->fua = info.fua;
    disk->csv = (struct csv_disk){ .bytes = info.bytes, .sector_bytes = info.block_bytes, .context = disk, .read = disk_read,
                                   .write = disk_write, .flush = disk_flush, .write_zeroes = disk_write_zeroes,
                                   .discard = info.can_unmap ? disk_discard : NULL, .rest = disk_rest };
    return OK;
}

enum status volume_disk_reserve(struct volume_disk *disk, bool take_over, uint64_t *key, char *text, size_t text_bytes)
{
    bool taken_over;

    return storage_take(disk->storage, take_over, key, &taken_over, text, text_bytes);
}

void volume_disk_mounted(struct volume_disk *disk, const struct csv_info *info)
{
    struct storage_epoch epoch = { .offset = CSV_OWNER_OFFSET, .bytes = CSV_OWNER_BYTES, .epoch = info->generation,
                                   .read = csv_owner_generation };

    memcpy(epoch.uuid, info->uuid, sizeof epoch.uuid);
    storage_set_epoch(disk->storage, &epoch);
}

void volume_disk_release(struct volume_disk *disk)
{
    if (storage_give_back(disk->storage) != OK)
        log_warning("volume %s: its reservation stays at the target; this node takes it back when it mounts next",
                    disk->user.name);
}

bool volume_disk_is_fenced(const struct volume_disk *disk)
{
    return __atomic_load_n(&disk->fenced, __ATOMIC_ACQUIRE);
}

void volume_disk_measure(struct volume_disk *disk, const char *storage)
{
    struct storage_info *info = kzalloc(sizeof *info);

    for (unsigned i = 0; info && storage_info_get(i, info); i++)
        if (!strcmp(info->name, storage) && info->disk.known)
            disk->csv.bytes = MAX(disk->csv.bytes, info->disk.bytes);
    kfree(info, sizeof *info);
}

void volume_disk_close(struct volume_disk *disk)
{
    if (disk->storage)
        storage_close(disk->storage);
    disk->storage = NULL;
}

bool volume_disk_is_lost(struct volume_disk *disk, char *why)
{
    if (!__atomic_load_n(&disk->lost, __ATOMIC_ACQUIRE))
        return false;
    spin_lock(&disk->lock);
    str_copy(why, STORAGE_TEXT, disk->why);
    spin_unlock(&disk->lock);
    return true;
}
