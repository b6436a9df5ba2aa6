/* SPDX-License-Identifier: MIT */
/*
 * What a disk holds that is no volume, in words: so that nobody makes a volume over what he wanted to keep; and so that a
 * volume of which two superblocks are left is not mounted, and thereby written, where another file system has its beginning
 * by now. Only what the beginning of the disk tells.
 */
#include <string.h>

#include "csv/volume.h"

#define LOOK_BLOCKS 17u /* as far as the signatures lie; the first superblock is behind none of them */

struct signature {
    uint32_t at;
    uint8_t bytes;
    const char *value;
    const char *name;
};

/* In this order: a partition table lies in what may once have been something else, and a boot sector is in many. */
static const struct signature signatures[] = {
    { 512, 8, "EFI PART", "a GPT partition table" },
    { 4096, 8, "EFI PART", "a GPT partition table" },
    { 1080, 2, "\x53\xef", "an ext2, ext3 or ext4 file system" },
    { 0, 4, "XFSB", "an XFS file system" },
    { 65600, 8, "_BHRfS_M", "a Btrfs file system" },
    { 3, 8, "NTFS    ", "an NTFS file system" },
    { 3, 4, "ReFS", "a ReFS file system" },
    { 3, 8, "EXFAT   ", "an exFAT file system" },
    { 82, 5, "FAT32", "a FAT file system" },
    { 54, 5, "FAT16", "a FAT file system" },
    { 54, 5, "FAT12", "a FAT file system" },
    { 512, 8, "LABELONE", "an LVM physical volume" },
    { 0, 6, "LUKS\xba\xbe", "a LUKS container" },
    { 4096, 4, "\xfc\x4e\x2b\xa9", "a part of a Linux RAID" },
    { 4086, 10, "SWAPSPACE2", "a swap area" },
    { 32769, 5, "CD001", "an ISO 9660 file system" },
    { 0, 8, "vhdxfile", "a VHDX disk image" },
    { 0, 4, "QFI\xfb", "a qcow2 disk image" },
    { 510, 2, "\x55\xaa", "a boot sector or an MBR partition table" },
};

/* Of LOOK_BLOCKS in v->io; NULL: nothing that is known. */
static const char *known(const struct csv *v)
{
    for (size_t i = 0; i < ARRAY_COUNT(signatures); i++)
        if (!memcmp(v->io + signatures[i].at, signatures[i].value, signatures[i].bytes))
            return signatures[i].name;
    return NULL;
}

static bool look(struct csv *v)
{
    return v->disk->bytes >= LOOK_BLOCKS * CSV_BLOCK_BYTES && !csv_read_blocks(v, 0, v->io, LOOK_BLOCKS);
}

const char *csv_foreign(struct csv *v)
{
    static const char unknown[] = "data that this program does not know";

    if (!look(v))
        return unknown;
    const char *name = known(v);
    for (size_t i = 0; i < LOOK_BLOCKS * CSV_BLOCK_BYTES && !name; i++)
        name = v->io[i] ? unknown : NULL;
    return name;
}

const char *csv_overwritten(struct csv *v)
{
    return v->super_good < CSV_SUPER_COPIES && look(v) && !csv_sealed(v, v->io, CSV_SUPER, 0) ? known(v) : NULL;
}

static enum status is_zero(struct csv *v, uint64_t block, bool *zero)
{
    enum status status = csv_read_blocks(v, block, v->io, LOOK_BLOCKS);
    for (size_t i = 0; i < LOOK_BLOCKS * CSV_BLOCK_BYTES && !status && *zero; i++)
        *zero = !v->io[i];
    return status;
}

enum status csv_content(struct csv_disk *disk, const struct csv_memory *memory, const char **what)
{
    struct csv_mount_options options = { .read_only = true };
    char message[CSV_MESSAGE_BYTES];
    uint64_t blocks = disk->bytes >> CSV_BLOCK_SHIFT;
    bool zero = true;
    struct csv *v = csv_volume_new(disk, memory, &options);
    if (!v)
        return ERR_NO_MEMORY;
    enum status status = csv_super_read(v, true, message);
    *what = status == ERR_NOT_FOUND ? csv_foreign(v) : "a volume";
    if (status == ERR_NOT_FOUND && !*what && blocks >= LOOK_BLOCKS) {
        status = is_zero(v, blocks / 2 - LOOK_BLOCKS / 2, &zero);
        if (!status)
            status = is_zero(v, blocks - LOOK_BLOCKS, &zero);
        *what = zero ? NULL : "data behind its empty beginning";
    } else if (status != ERR_IO && status != ERR_NO_MEMORY) {
        status = OK;
    }
    csv_volume_free(v);
    return status;
}
