/* SPDX-License-Identifier: MIT */
/*
 * A machine's disks: each is a virtio disk, and behind it the RAM copy of a boot module, or a storage (lun.h). Everything
 * here runs on the VM's own thread.
 */
#include <stdio.h>
#include <string.h>

#include "kernel/heap.h"
#include "kernel/index_mask.h"
#include "kernel/log.h"
#include "vm/kernel_image.h"
#include "vm/machine.h"
#include "vm/save_stream.h"

#define DISK_FLOOR_BYTES (32 * MIB)
#define SECTOR_BYTES 512u
#define TOLD_PATH 80 /* bytes that a message shows of a path: what helps comes behind it */

_Static_assert(MACHINE_DISK_SLOTS <= LUN_REQUESTS, "each request of the device model finds a place in front of its storage");

/* ---- The copy in RAM ---- */

/*
 * A chunk of the disk: the image's own bytes until the VM writes there, then a copy of its own. The last chunk's end lies
 * behind the disk's end and is never asked for. Disks grow by what a guest writes, so they stop while the node still
 * has memory for everything else; the guest gets an I/O error.
 */
static void *disk_chunk(void *context, uint64_t index, bool write)
{
    struct machine_disk *disk = context;

    if (index >= disk->chunk_count)
        return NULL;
    index = index_mask(index, disk->chunk_count);
    uint64_t offset = index * LARGE_PAGE_BYTES;
    if (!disk->chunks[index].v && !write)
        return (void *)(disk->image + offset);
    if (!disk->chunks[index].v) {
        struct page_totals totals;
        hpa_t chunk;
        page_totals_get(&totals);
        if (totals.free_bytes < DISK_FLOOR_BYTES || !page_alloc(LARGE_PAGE_BYTES, disk->owner, 0, &chunk))
            return NULL;
        uint64_t count = MIN(LARGE_PAGE_BYTES, disk->image_bytes - offset);
        memcpy(phys_to_virt(chunk), disk->image + offset, count);
        memset((char *)phys_to_virt(chunk) + count, 0, LARGE_PAGE_BYTES - count);
        disk->chunks[index] = chunk;
    }
    return phys_to_virt(disk->chunks[index]);
}

static const char *dots(const char *path)
{
    return strlen(path) > TOLD_PATH ? "..." : "";
}

static enum status no_memory(const struct vm *vm, char *text, size_t text_bytes)
{
    snprintf(text, text_bytes, "vm %s: the node has no memory left for its disks; stop another VM", vm->name);
    return ERR_NO_MEMORY;
}

static enum status open_image(struct vm *vm, struct machine_disk *disk, const char *path, struct blkdev **dev, char *text,
                              size_t text_bytes)
{
    struct boot_file file;
    enum status status = machine_file(vm, "disk", path, &file, text, text_bytes);

    if (status != OK)
        return status;
    if (file.count < SECTOR_BYTES) {
        snprintf(text, text_bytes, "vm %s: disk %.*s%s has %lu bytes, less than a sector of %u; put an image there and "
                                   "reboot the node", vm->name, TOLD_PATH, path, dots(path), file.count, SECTOR_BYTES);
        return ERR_INVALID;
    }
    if (file.count % SECTOR_BYTES)
        log_warning("vm %s: disk %.*s%s has %lu bytes, no multiple of %u: the guest does not see the last %lu", vm->name,
                    TOLD_PATH, path, dots(path), file.count, SECTOR_BYTES, file.count % SECTOR_BYTES);
    disk->image = file.bytes;
    disk->image_bytes = file.count;
    disk->owner = vm->core.owner;
    disk->chunk_count = (file.count + LARGE_PAGE_BYTES - 1) / LARGE_PAGE_BYTES;
    if (!(disk->chunks = kzalloc(disk->chunk_count * sizeof *disk->chunks)))
        return no_memory(vm, text, text_bytes);
    ramdisk_init(&disk->ram, ALIGN_DOWN(file.count, SECTOR_BYTES), false, disk_chunk, disk);
    *dev = &disk->ram.dev;
    return OK;
}

/* ---- The machine's side ---- */

/* A storage by its name, or a file on a volume by its path. */
static enum status open_lun(struct vm *vm, struct machine_disk *disk, const char *storage, const char *path,
                            struct blkdev **dev, char *text, size_t text_bytes)
{
    struct lun *lun = kzalloc(sizeof *lun);

    if (!lun)
        return no_memory(vm, text, text_bytes);
    enum status status = storage ? lun_open(lun, vm, storage, text, text_bytes)
                                 : lun_open_file(lun, vm, path, text, text_bytes);
    if (status != OK) {
        kfree(lun, sizeof *lun);
        return status;
    }
    disk->lun = lun;
    *dev = &lun->dev;
    return OK;
}

enum status machine_build_disks(struct vm *vm, const struct virtio_owner *owner, unsigned first_slot, char *text,
                                size_t text_bytes)
{
    struct virtio_owner own = *owner;

    for (uint32_t i = 0; i < vm->config.disk_count; i++) {
        const char *path = vm->config.disks[i], *storage = config_disk_storage(path);
        struct blkdev *dev = NULL;
        struct machine_disk *disk = vm->disk[i] = kzalloc(sizeof *disk);
        char id[20];
        if (!disk)
            return no_memory(vm, text, text_bytes);
        enum status status = storage || config_disk_on_volume(path)
                                 ? open_lun(vm, disk, storage, path, &dev, text, text_bytes)
                                 : open_image(vm, disk, path, &dev, text, text_bytes);
        if (status != OK)
            return status;
        snprintf(disk->name, sizeof disk->name, "%s: disk %u", vm->name, i);
        own.name = disk->name;
        snprintf(id, sizeof id, "disk%u", i);
        status = virtio_blk_init(&disk->blk, &own, &vm->pci, first_slot + i, dev, id, disk->slots, MACHINE_DISK_SLOTS);
        if (status != OK) {
            snprintf(text, text_bytes, "vm %s: disk %.*s%s cannot be attached (%s); stop another VM if memory is short",
                     vm->name, TOLD_PATH, path, dots(path), status_name(status));
            return status;
        }
        vm->device[vm->device_count++] = &disk->blk.device;
    }
    return OK;
}

static void destroy(struct machine_disk *disk)
{
    if (!disk)
        return;
    if (disk->lun) {
        lun_close(disk->lun);
        kfree(disk->lun, sizeof *disk->lun);
    }
    for (uint64_t i = 0; disk->chunks && i < disk->chunk_count; i++)
        if (disk->chunks[i].v)
            page_free(disk->chunks[i], LARGE_PAGE_BYTES, disk->owner);
    kfree(disk->chunks, disk->chunk_count * sizeof *disk->chunks);
    kfree(disk, sizeof *disk);
}

void machine_destroy_disks(struct vm *vm)
{
    for (unsigned i = 0; i < CONFIG_MAX_DISKS; i++) {
        destroy(vm->disk[i]);
        vm->disk[i] = NULL;
    }
}

static struct lun *lun_of(struct vm *vm, unsigned i)
{
    return vm->disk[i] ? vm->disk[i]->lun : NULL;
}

void machine_complete_disks(struct vm *vm)
{
    for (unsigned i = 0; i < vm->config.disk_count; i++)
        if (lun_of(vm, i))
            lun_complete(lun_of(vm, i));
}

void machine_drain_disks(struct vm *vm, uint64_t ns)
{
    for (unsigned i = 0; i < vm->config.disk_count; i++)
        if (lun_of(vm, i))
            lun_drain(lun_of(vm, i), ns);
}

bool machine_disk_fenced(struct vm *vm)
{
    for (unsigned i = 0; vm->built && i < vm->config.disk_count; i++)
        if (lun_of(vm, i) && lun_is_fenced(lun_of(vm, i)))
            return true;
    return false;
}

bool machine_disk_lost(struct vm *vm, char *why)
{
    for (unsigned i = 0; vm->built && i < vm->config.disk_count; i++)
        if (lun_of(vm, i) && lun_is_lost(lun_of(vm, i), why))
            return true;
    return false;
}

bool machine_disk_stuck(struct vm *vm, char *why)
{
    for (unsigned i = 0; vm->built && i < vm->config.disk_count; i++)
        if (lun_of(vm, i) && lun_is_stuck(lun_of(vm, i), why))
            return true;
    return false;
}

void machine_tell_grown_disks(struct vm *vm)
{
    for (unsigned i = 0; vm->built && i < vm->config.disk_count; i++) {
        struct lun *lun = lun_of(vm, i);
        if (!lun)
            continue;
        spin_lock(&vm->lock);
        bool grown = lun_has_grown(lun);
        if (grown)
            virtio_blk_grown(&vm->disk[i]->blk);
        spin_unlock(&vm->lock);
        if (grown)
            log_info("vm %s: its disk %u has grown to %lu MiB, and the guest was told", vm->name, i, lun->dev.bytes / MIB);
    }
}

void machine_retry_disks(struct vm *vm)
{
    for (unsigned i = 0; i < vm->config.disk_count; i++)
        if (lun_of(vm, i))
            lun_retry(lun_of(vm, i));
}

enum status machine_grow_disk(struct vm *vm, unsigned i, uint64_t bytes, char *text, size_t text_bytes)
{
    enum status status = lun_grow(lun_of(vm, i), bytes, text, text_bytes);

    if (status != OK)
        return status;
    spin_lock(&vm->lock);
    virtio_blk_grown(&vm->disk[i]->blk);
    spin_unlock(&vm->lock);
    return OK;
}

/* ---- How they are, for a saved state ---- */

enum status machine_note_disks(struct vm *vm, char *text, size_t text_bytes)
{
    enum status status = OK;

    for (unsigned i = 0; i < vm->config.disk_count && status == OK; i++)
        if (lun_of(vm, i))
            status = lun_note(lun_of(vm, i), text, text_bytes);
    return status;
}

void machine_disk_tell(const struct vm *vm, unsigned i, struct save_disk *disk)
{
    const struct machine_disk *d = vm->disk[i];
    const struct lun *lun = d->lun;

    *disk = (struct save_disk){ .path = vm->config.disks[i], .bytes = d->image_bytes };
    if (lun && lun->file) {
        disk->kind = SAVE_DISK_FILE;
        disk->bytes = lun->noted.size;
        disk->inode = lun->noted.inode;
        disk->generation = lun->noted.generation;
        disk->modified_ns = lun->noted.modified_ns;
    } else if (lun) {
        disk->kind = SAVE_DISK_UNIT;
        disk->bytes = lun->dev.bytes;
        disk->identity = lun->identity;
    }
}

enum status machine_mark_disks(struct vm *vm, char *text, size_t text_bytes)
{
    enum status status = OK;

    for (unsigned i = 0; i < vm->config.disk_count && status == OK; i++)
        if (lun_of(vm, i))
            status = lun_mark(lun_of(vm, i), text, text_bytes);
    return status;
}
