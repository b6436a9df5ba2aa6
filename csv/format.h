/* SPDX-License-Identifier: MIT */
/*
 * The numbers of the volume's on-disk format, version 1. docs/csv-format.md is the specification and explains them;
 * here stand its offsets, so that the code has them by name. Blocks are read and written by kernel/bytes.h at these
 * offsets, never through a struct, so neither alignment nor padding matters.
 */
#ifndef CSV_FORMAT_H
#define CSV_FORMAT_H

#include "kernel/bytes.h"
#include "kernel/types.h"

#define CSV_BLOCK_SHIFT 12
#define CSV_BLOCK_BYTES 4096u
#define CSV_MIN_BYTES (64 * MIB)
#define CSV_MAX_BYTES (64 * 1024 * GIB)
#define CSV_FILE_BYTES (64 * 1024 * GIB)
#define CSV_FILE_BLOCKS (CSV_FILE_BYTES / CSV_BLOCK_BYTES)
#define CSV_NAME_BYTES 255u
#define CSV_FORMAT_VERSION 1u

/* ---- Header of every metadata block ---- */

#define CSV_TYPE(a, b, c, d) ((uint32_t)(a) | (uint32_t)(b) << 8 | (uint32_t)(c) << 16 | (uint32_t)(d) << 24)
#define CSV_SUPER CSV_TYPE('T', 'C', 'S', 'U')
#define CSV_MOUNT_RECORD CSV_TYPE('T', 'C', 'M', 'R')
#define CSV_ROOT CSV_TYPE('T', 'C', 'R', 'T')
#define CSV_GROUP CSV_TYPE('T', 'C', 'G', 'R')
#define CSV_INODE CSV_TYPE('T', 'C', 'I', 'N')
#define CSV_EXTENTS CSV_TYPE('T', 'C', 'E', 'X')
#define CSV_DIRECTORY CSV_TYPE('T', 'C', 'D', 'I')
#define CSV_COUNTS CSV_TYPE('T', 'C', 'R', 'C')
#define CSV_ORPHANS CSV_TYPE('T', 'C', 'O', 'R')
#define CSV_JOURNAL_HEAD CSV_TYPE('T', 'C', 'J', 'H')
#define CSV_DESCRIPTOR CSV_TYPE('T', 'C', 'J', 'D')
#define CSV_REVOCATIONS CSV_TYPE('T', 'C', 'J', 'R')
#define CSV_COMMIT CSV_TYPE('T', 'C', 'J', 'C')

#define CSV_H_TYPE 0
#define CSV_H_CRC 4
#define CSV_H_NUMBER 8
#define CSV_H_OWNER 16
#define CSV_H_SEQUENCE 24
#define CSV_H_BYTES 32
#define CSV_LAST_SEQUENCE (UINT64_MAX >> 1) /* of blocks that are not journaled: one with a higher one is damaged */

/* ---- Fixed places ---- */

#define CSV_AT_MOUNT_RECORD 17u /* and 18 */
#define CSV_AT_ROOT 19u
#define CSV_AT_JOURNAL_HEAD 20u /* and 21 */
#define CSV_AT_SLOTS 32u
#define CSV_SLOTS 64u
#define CSV_SLOT_BLOCKS 16u
#define CSV_AT_SUPER_MIDDLE 8192u
#define CSV_SUPER_COPIES 3u
#define CSV_REGION_LEAST 64u /* blocks of the last region */
#define CSV_AT_FREE (CSV_AT_SLOTS + CSV_SLOTS * CSV_SLOT_BLOCKS) /* what mkfs may use first */

#define CSV_JOURNAL_MIN 1024u
#define CSV_JOURNAL_MAX 65536u

/* ---- Superblock ---- */

#define CSV_SU_MAGIC 32
#define CSV_SU_VERSION 40
#define CSV_SU_COPY 44
#define CSV_SU_UUID 48
#define CSV_SU_LABEL 64
#define CSV_LABEL_BYTES 64u
#define CSV_SU_REFUSE 128
#define CSV_SU_READ_ONLY 136
#define CSV_SU_IGNORE 144
#define CSV_SU_BLOCKS 152
#define CSV_SU_BLOCK_BYTES 160
#define CSV_SU_GROUP_BLOCKS 164
#define CSV_SU_REGION_GROUPS 168
#define CSV_SU_SECTOR_BYTES 172
#define CSV_SU_JOURNAL 176
#define CSV_SU_JOURNAL_BLOCKS 184
#define CSV_SU_SLOTS 192
#define CSV_SU_SLOT_COUNT 200
#define CSV_SU_SLOT_BLOCKS 204
#define CSV_SU_DATABASE 208
#define CSV_SU_DATABASE_BLOCKS 216
#define CSV_SU_HASH_KEY 224
#define CSV_SU_CREATED 240
#define CSV_SU_GROWN_FROM 248

/* ---- Mount record ---- */

#define CSV_MR_STATE 32 /* 0 clean, 1 mounted */
#define CSV_MR_KIND 36
#define CSV_MR_GENERATION 40
#define CSV_MR_UUID 48
#define CSV_MR_NAME 64
#define CSV_OWNER_NAME_BYTES 64u
#define CSV_MR_KEY 128
#define CSV_MR_TIME 136
#define CSV_MR_UNCLEAN 144

/* ---- Volume root ---- */

#define CSV_RT_DIRECTORY 32
#define CSV_RT_FREE 40
#define CSV_RT_INODES 48
#define CSV_RT_GENERATION 56
#define CSV_RT_ORPHANS 64
#define CSV_RT_GRANTED 72
#define CSV_RT_COUNTS_NODE 256
#define CSV_RT_COUNTS_BYTES 2304u
#define CSV_RT_ORPHANS_NODE 2560
#define CSV_RT_ORPHANS_BYTES 1536u

/* ---- Groups ---- */

#define CSV_GROUP_SHIFT 14
#define CSV_GROUP_BLOCKS (1u << CSV_GROUP_SHIFT)
#define CSV_REGION_GROUPS 16u
#define CSV_REGION_BLOCKS (CSV_REGION_GROUPS * CSV_GROUP_BLOCKS)
#define CSV_REGION_FIXED (1u + CSV_REGION_GROUPS) /* blocks in use at the beginning of each region */
#define CSV_GR_NUMBER 32
#define CSV_GR_FREE 36
#define CSV_GR_GRANT 40
#define CSV_GR_GRANT_GENERATION 48
#define CSV_GR_BITMAP 2048
#define CSV_NO_GRANT 0xffffu

/* ---- Inode ---- */

#define CSV_IN_TYPE 32
#define CSV_IN_FLAGS 34
#define CSV_IN_LINKS 36
#define CSV_IN_SIZE 40
#define CSV_IN_BLOCKS 48
#define CSV_IN_GENERATION 56
#define CSV_IN_PARENT 64
#define CSV_IN_CREATED 72
#define CSV_IN_MODIFIED 80
#define CSV_IN_CHANGED 88
#define CSV_IN_MODE 96
#define CSV_IN_UID 100
#define CSV_IN_GID 104
#define CSV_IN_MAP_VERSION 112
#define CSV_IN_NODE 256
#define CSV_IN_NODE_BYTES 3840u
#define CSV_IS_FILE 1u
#define CSV_IS_DIRECTORY 2u

/* ---- Tree nodes ---- */

#define CSV_NODE_BYTES (CSV_BLOCK_BYTES - CSV_H_BYTES) /* the area of a node with a block of its own */
#define CSV_N_LEVEL 0
#define CSV_N_COUNT 2
#define CSV_N_VALUES 4
#define CSV_N_SLOTS 16
#define CSV_N_SLOT_BYTES 12u /* key, offset, bytes */
#define CSV_MAX_LEVEL 7u

#define CSV_EXTENT_VALUE_BYTES 12u
#define CSV_EXTENT_UNWRITTEN BIT(62)
#define CSV_EXTENT_SHARED BIT(63)
#define CSV_EXTENT_BLOCK_MASK (BIT(48) - 1)
#define CSV_COUNT_VALUE_BYTES 8u
#define CSV_ENTRY_FIXED_BYTES 9u
#define CSV_ORPHAN_VALUE_BYTES 1u
#define CSV_ORPHAN_DELETE 1u
#define CSV_ORPHAN_TRUNCATE 2u
#define CSV_HASH_SLOTS 255u /* names of one hash */

/* ---- Journal ---- */

#define CSV_JH_TAIL 32
#define CSV_JH_NUMBER 40
#define CSV_J_COUNT 32
#define CSV_J_LIST 40
#define CSV_JD_IMAGES 250u
#define CSV_JD_ENTRY_BYTES 16u
#define CSV_JR_BLOCKS 500u
#define CSV_JC_BLOCKS 32
#define CSV_JC_CRC 36
#define CSV_JC_GENERATION 40
#define CSV_JC_TIME 48

/* The block that describes group `group`. */
static inline uint64_t csv_group_block(uint64_t group)
{
    return group / CSV_REGION_GROUPS * CSV_REGION_BLOCKS + 1 + group % CSV_REGION_GROUPS;
}

#endif
