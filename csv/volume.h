/* SPDX-License-Identifier: MIT */
/*
 * What the parts of csv/ share, from the disk upwards:
 *
 *   blocks.c   metadata blocks in memory: reading with checks, changing, taking back
 *   journal.c  commit and checkpoint;  replay.c: the log at mount
 *   alloc.c    groups and bitmaps
 *   node.c     one node of a tree;  tree.c: trees;  the four kinds of trees are described in tree.c
 *   counts.c   references of shared blocks
 *   map.c      a file's extents: the tree on disk and the sorted array in memory
 *   file.c     reading, writing;  space.c: sizes, holes, orphans;  clone.c
 *   inode.c, names.c, directory.c
 *   mkfs.c, mount.c, super.c, grow.c, check.c, scrub.c, repair.c
 *
 * Every change of metadata happens within an operation:
 *
 *     csv_begin(v); ... csv_block_change(v, block); (change block->bytes) ...; return csv_end(v, status);
 *
 * csv_end() with an error puts back every block that the operation changed, and all that is derived from them. With OK
 * the changes belong to the running transaction. Blocks are only evicted by csv_begin() and csv_breathe(), so a pointer
 * to a block holds until then. Space that is freed is only entered in a list; its bits are cleared at commit.
 */
#ifndef CSV_VOLUME_H
#define CSV_VOLUME_H

#include "csv/csv.h"

struct csv_link {
    struct csv_link *prev, *next;
};

struct csv_block {
    uint64_t number;
    struct csv_block *hash_next;
    struct csv_link recent;  /* all blocks, the one used last first */
    struct csv_link changed; /* in the running transaction */
    struct csv_link logged;  /* in the log, not yet home */
    struct csv_link undo;    /* changed by this operation */
    bool is_changed, is_logged, is_freed;
    bool was_changed;        /* before this operation */
    bool is_new;             /* made by this operation */
    uint64_t operation;      /* the last one that changed it */
    uint64_t seen;           /* the last one that got it */
    uint8_t *before;         /* its bytes before this operation */
    uint8_t *bytes;
};

struct csv_run {
    uint64_t start, count;
};

struct csv_runs {
    struct csv_run *run;
    size_t count, room;
};

/* An extent in memory. */
struct csv_extent {
    uint64_t file, disk, count; /* blocks */
    uint64_t flags;             /* CSV_EXTENT_UNWRITTEN, CSV_EXTENT_SHARED */
};

struct csv_file {
    struct csv *volume;
    struct csv_file *next;
    uint64_t inode;
    uint64_t opens;
    /* The map: sorted by `file`, no overlaps. */
    struct csv_extent *extent;
    size_t extent_count, extent_room, last;
    bool mapped;
    struct csv_map_lock lock;   /* of the map; no functions: only the volume's thread looks at it */
    uint64_t changed_operation; /* the last operation that changed the map */
};

struct csv {
    struct csv_disk *disk;
    struct csv_memory memory;
    bool read_only, discard;
    enum status failed;
    char problem[CSV_MESSAGE_BYTES];
    int64_t now_ns;

    /* From the superblock. */
    uint8_t uuid[16], hash_key[16];
    char label[CSV_LABEL_BYTES];
    uint64_t blocks, groups;
    uint64_t journal, journal_blocks;
    uint64_t database, database_blocks;
    uint32_t crc_seed; /* of the UUID */
    uint64_t super_sequence;
    uint8_t *super;      /* as it was read, a block */
    unsigned super_good; /* copies of it that were found at mount */
    uint64_t root_directory; /* from the volume root, at mount */

    /* The mount record. */
    uint64_t mount_sequence, generation, unclean;
    uint8_t owner_uuid[16];
    char owner_name[CSV_OWNER_NAME_BYTES];
    uint32_t owner_kind;
    uint64_t owner_key;

    /* Blocks in memory. */
    struct csv_block **hash;
    size_t hash_size, block_count, block_limit;
    struct csv_link recent, changed, logged, undo;
    size_t changed_count, logged_count, undo_count;
    uint8_t *io; /* CSV_IO_BLOCKS blocks for disk transfers, also when no more memory can be had */

    /* The running operation and transaction. */
    bool in_operation;
    uint64_t operation;
    struct csv_runs freed;    /* data and metadata, cleared at commit */
    struct csv_runs revoked;  /* metadata among them */
    size_t freed_before, revoked_before;
    uint64_t freed_groups, freed_groups_before;
    uint64_t pending_free, pending_free_before;
    bool was_cut;  /* a file was cut within a block in this transaction: on the disk its bytes there may still count */
    bool unshared; /* a count was lowered in this transaction: another file may still have the block on the disk */
    size_t transaction_limit;

    /* The journal. */
    uint64_t head_sequence; /* of the journal head */
    uint64_t head, used;    /* position of the next transaction; blocks from the tail to it */
    uint64_t number;        /* of the next transaction */
    uint64_t replayed;

    /* Allocation. */
    uint16_t *group_free; /* CSV_UNKNOWN_FREE until the group was read */
    uint8_t *group_granted; /* bits: granted to somebody */
    uint64_t data_goal, meta_goal;

    struct csv_file *files;
    bool unfinished; /* orphans that could not be freed */
    bool checking;   /* fsck: inodes are read whatever the bitmaps say */
};

#define CSV_IO_BLOCKS 64u
#define CSV_UNKNOWN_FREE 0xffffu

/* ---- blocks.c ---- */

static inline void csv_link_init(struct csv_link *list) { list->prev = list->next = list; }
static inline void csv_link_add(struct csv_link *list, struct csv_link *link)
{
    link->next = list->next;
    link->prev = list;
    list->next->prev = link;
    list->next = link;
}
static inline void csv_link_remove(struct csv_link *link)
{
    link->prev->next = link->next;
    link->next->prev = link->prev;
    link->prev = link->next = link;
}

void *csv_alloc(struct csv *v, size_t bytes);
void *csv_alloc_zeroed(struct csv *v, size_t bytes);
void csv_free(struct csv *v, void *ptr, size_t bytes);

/* Records a problem in words and returns ERR_CORRUPT. */
enum status csv_corrupt(struct csv *v, uint64_t number, const char *what) MUST_CHECK;

/* The checksum of a block's bytes as block `number` of this volume. */
uint32_t csv_checksum(uint32_t crc_seed, uint64_t number, const uint8_t *bytes);
/* Writes the header into bytes, the checksum last. */
void csv_seal(const struct csv *v, uint8_t *bytes, uint32_t type, uint64_t number, uint64_t owner, uint64_t sequence);
/* True if the header and checksum are those of a block of this type and number. */
bool csv_sealed(const struct csv *v, const uint8_t *bytes, uint32_t type, uint64_t number);

enum status csv_read_blocks(struct csv *v, uint64_t number, void *bytes, uint64_t count) MUST_CHECK;
enum status csv_write_blocks(struct csv *v, uint64_t number, const void *bytes, uint64_t count, bool fua) MUST_CHECK;
enum status csv_flush(struct csv *v) MUST_CHECK;

/* The block, read and checked if need be. `owner` as in its header. */
enum status csv_block_get(struct csv *v, uint64_t number, uint32_t type, uint64_t owner, struct csv_block **block)
    MUST_CHECK;
/* A block that was just allocated: zeros, with a header, changed. */
enum status csv_block_new(struct csv *v, uint64_t number, uint32_t type, uint64_t owner, struct csv_block **block)
    MUST_CHECK;
/* To be called before bytes are changed. */
enum status csv_block_change(struct csv *v, struct csv_block *block) MUST_CHECK;
/* Enters a metadata block in the list of what is freed. */
enum status csv_block_free(struct csv *v, struct csv_block *block) MUST_CHECK;
/* Puts bytes in memory as a block of the log (replay). */
enum status csv_block_logged(struct csv *v, uint64_t number, const uint8_t *bytes) MUST_CHECK;
struct csv_block *csv_block_find(struct csv *v, uint64_t number);
/* What is wrong with the bytes of block `number`, or NULL: its checksum, and beyond the header what walks rely on. */
const char *csv_block_fault(struct csv *v, uint64_t number, const uint8_t *bytes);
/* Takes a block (or NULL) that nobody points to out of memory, if there are too many, and it can be read again. */
void csv_block_shed(struct csv *v, struct csv_block *block);
/* Takes a block out of memory, whatever its state. */
void csv_block_drop(struct csv *v, struct csv_block *block);
void csv_blocks_drop_all(struct csv *v);

enum status csv_begin(struct csv *v) MUST_CHECK;
enum status csv_end(struct csv *v, enum status status) MUST_CHECK;
/*
 * After an operation: true if it found no space, but there will be some when the transaction is committed, which was
 * done now: it is worth another try. `tries` begins with 0.
 */
bool csv_worth_again(struct csv *v, enum status *status, unsigned *tries);
/*
 * For loops that may be long: the disk's rest(). csv_has_room() and csv_breathe() do it too, one of which is in nearly all of
 * them.
 */
void csv_rest(const struct csv *v);
/* False if this operation should end here and go on with another one: it has changed enough blocks. */
bool csv_has_room(const struct csv *v);
/* Blocks that the running transaction would log. */
size_t csv_weight(const struct csv *v);
/* For long reads outside of an operation: evicts. Pointers to blocks are invalid afterwards. */
void csv_breathe(struct csv *v);

enum status csv_runs_add(struct csv *v, struct csv_runs *runs, uint64_t start, uint64_t count) MUST_CHECK;
void csv_runs_free(struct csv *v, struct csv_runs *runs);

/* Sorts `count` elements of `bytes` (at most 64) bytes by the 64-bit number that each begins with. */
void csv_sort(void *elements, size_t count, size_t bytes);

/* ---- journal.c, replay.c ---- */

/* Blocks that a transaction may have, descriptors and the like not counted. */
size_t csv_transaction_limit(uint64_t journal_blocks);
enum status csv_commit(struct csv *v) MUST_CHECK;
enum status csv_checkpoint(struct csv *v) MUST_CHECK;
enum status csv_write_head(struct csv *v) MUST_CHECK;
/*
 * Reads the journal head and puts the log's blocks into memory as logged. `unclean`: the volume was not unmounted, so
 * it is worth proving that nothing newer lies behind the log's end.
 */
enum status csv_replay(struct csv *v, bool unclean) MUST_CHECK;
/* After a replay that found the log damaged: an empty log, whose numbers are above all that lie there. */
enum status csv_journal_reset(struct csv *v) MUST_CHECK;

/* ---- alloc.c ---- */

enum status csv_alloc_init(struct csv *v) MUST_CHECK;
/* Blocks for data: one run of 1 to `want` blocks, near goal (0: anywhere). */
enum status csv_alloc_data(struct csv *v, uint64_t goal, uint64_t want, uint64_t *start, uint64_t *count) MUST_CHECK;
enum status csv_alloc_meta(struct csv *v, uint64_t *number) MUST_CHECK;
/* Enters blocks in the list of what is freed; they must be in use. */
enum status csv_free_blocks(struct csv *v, uint64_t start, uint64_t count) MUST_CHECK;
/* True if a block is in use in its group's bitmap. */
enum status csv_in_use(struct csv *v, uint64_t number, bool *used) MUST_CHECK;
/* True if what is left is for the metadata of files that are there: no new inodes, no more sharing. */
bool csv_nearly_full(const struct csv *v, const struct csv_block *root);
/* At commit, first: what csv_apply_freed() needs comes into memory; nothing is changed if there is too little. */
enum status csv_load_freed(struct csv *v) MUST_CHECK;
/* At commit: clears the bits of all freed blocks. */
enum status csv_apply_freed(struct csv *v) MUST_CHECK;
/* After an operation was taken back: the group's free count in memory is that of its block again. */
void csv_alloc_reload(struct csv *v, const struct csv_block *block);
/* Blocks kept back for metadata. */
uint64_t csv_reserve(const struct csv *v);
/* True if [start, start + count) has no fixed place and lies in the volume. */
bool csv_may_hold(const struct csv *v, uint64_t start, uint64_t count);

/* ---- inode.c ---- */

enum status csv_root_block(struct csv *v, struct csv_block **block) MUST_CHECK;
/* Adds to a 64-bit field of the volume root. */
enum status csv_root_add(struct csv *v, unsigned offset, int64_t delta) MUST_CHECK;
/* The inode, of this type (0: any). ERR_INVALID: it is of another type, or was freed. */
enum status csv_inode_get(struct csv *v, uint64_t inode, uint32_t type, struct csv_block **block) MUST_CHECK;
enum status csv_inode_new(struct csv *v, uint32_t type, uint64_t parent, uint32_t mode, struct csv_block **block)
    MUST_CHECK;
/* Frees the inode's block; its tree is empty. */
enum status csv_inode_free(struct csv *v, struct csv_block *block) MUST_CHECK;
/* Sets the time of change, and of modification. The block is changed already. */
void csv_touch(struct csv *v, struct csv_block *inode, bool modified);
enum status csv_orphan_add(struct csv *v, uint64_t inode, uint8_t kind) MUST_CHECK;
enum status csv_orphan_remove(struct csv *v, uint64_t inode) MUST_CHECK;
/* The orphan record of an inode; 0: none. */
enum status csv_orphan_kind(struct csv *v, uint64_t inode, uint8_t *kind) MUST_CHECK;

/* ---- directory.c ---- */

bool csv_name_ok(const char *name, size_t bytes);
uint64_t csv_name_hash(const uint8_t key[16], const char *name, size_t bytes);
enum status csv_entry_find(struct csv *v, uint64_t directory, const char *name, size_t bytes, struct csv_entry *entry,
                           uint64_t *key) MUST_CHECK;
enum status csv_entry_add(struct csv *v, uint64_t directory, const char *name, size_t bytes, uint64_t inode,
                          uint32_t type) MUST_CHECK;
enum status csv_entry_remove(struct csv *v, uint64_t directory, uint64_t key) MUST_CHECK;
/* What the entry at a key says, the name unchanged. */
enum status csv_entry_set(struct csv *v, uint64_t directory, uint64_t key, uint64_t inode, uint32_t type) MUST_CHECK;

/* ---- map.c ---- */

/* The extent that holds `block`, or the first one after it. ERR_NOT_FOUND. */
enum status csv_extent_find(struct csv *v, uint64_t inode, uint64_t block, struct csv_extent *extent) MUST_CHECK;
/* The last extent. ERR_NOT_FOUND. */
enum status csv_extent_last(struct csv *v, uint64_t inode, struct csv_extent *extent) MUST_CHECK;
/* Takes [first, end), which lies within `extent`, out of the map; the blocks stay in use. */
enum status csv_extent_cut(struct csv *v, uint64_t inode, const struct csv_extent *extent, uint64_t first, uint64_t end)
    MUST_CHECK;
/* Enters an extent into a hole, joined with its neighbours where they fit. */
enum status csv_extent_add(struct csv *v, uint64_t inode, const struct csv_extent *extent) MUST_CHECK;
/* The open file of an inode, or NULL. */
struct csv_file *csv_file_find(struct csv *v, uint64_t inode);
/* Counts up the map version of an inode, which is changed already. */
void csv_map_bump(struct csv_block *inode);
/* Forgets the maps that the operation which is taken back has changed. */
void csv_maps_forget(struct csv *v);
/* Forgets a map; the next csv_map_load() reads it again. */
void csv_map_drop(struct csv_file *file);
/* Reads the map of a file, up to its size, into memory if it is not there. */
enum status csv_map_load(struct csv_file *file) MUST_CHECK;

/* ---- counts.c ---- */

/* One reference more for each of the first *done (1 or more) blocks of a run: as many as the operation has room for. */
enum status csv_share(struct csv *v, uint64_t start, uint64_t count, uint64_t *done) MUST_CHECK;
/* One reference less, likewise; blocks without one are freed. */
enum status csv_release(struct csv *v, uint64_t start, uint64_t count, uint64_t *done) MUST_CHECK;
/* The references of block `start`, and how many of the `count` blocks from it on have as many (*alike). */
enum status csv_references(struct csv *v, uint64_t start, uint64_t count, uint64_t *alike, uint64_t *references)
    MUST_CHECK;

/* ---- space.c ---- */

/* Frees what a file has beyond its size, or all of it and the inode, piece by piece; the orphan record goes last. */
enum status csv_orphan_finish(struct csv *v, uint64_t inode, uint8_t kind) MUST_CHECK;
/* The same, left for later if it fails. */
void csv_orphan_try(struct csv *v, uint64_t inode, uint8_t kind);
/* All that nobody has open. Goes through all of them; the first error is the answer. */
enum status csv_orphans_finish(struct csv *v) MUST_CHECK;
/* Before a file gets longer or is cloned: frees what an earlier cut has left beyond its size. */
enum status csv_settle(struct csv_file *file) MUST_CHECK;

/* ---- file.c ---- */

/* The size of a file in bytes. */
enum status csv_size_of(struct csv_file *file, uint64_t *size) MUST_CHECK;
/* Zeroes the file's bytes [from, to), within one block, where they are mapped and written; the size stays. */
enum status csv_zero_part(struct csv_file *file, uint64_t from, uint64_t to) MUST_CHECK;
/* Before the file gets longer: zeros from its end to the end of that block. */
enum status csv_zero_tail(struct csv_file *file) MUST_CHECK;

/* ---- grow.c ---- */

/* Finishes a growth that a power cut has ended; OK if there was none. */
enum status csv_grow_finish(struct csv *v) MUST_CHECK;

/* ---- super.c ---- */

/* The last block that mkfs uses on a disk of so many bytes, + 1. */
uint64_t csv_usable_blocks(uint64_t disk_bytes);
/* Finds the newest superblock and takes it over into v; `message` as csv_mount(). */
enum status csv_super_read(struct csv *v, bool read_only, char *message) MUST_CHECK;
/* What the disk holds instead of a volume, for a sentence; NULL: zeros. */
const char *csv_foreign(struct csv *v);
/* After csv_super_read(): what lies over the beginning of the volume; NULL: nothing that is known. */
const char *csv_overwritten(struct csv *v);
/* How many of the three copies are there and as new as the one in use. */
void csv_super_count(struct csv *v, unsigned *good);
/* Writes a superblock to all three places. */
enum status csv_super_write(struct csv *v, uint8_t *bytes) MUST_CHECK;
enum status csv_mount_record_read(struct csv *v, uint32_t *state) MUST_CHECK;
enum status csv_mount_record_write(struct csv *v, uint32_t state) MUST_CHECK;

/* ---- mkfs.c, mount.c: what the repair needs too ---- */

/* The root directory's inode: the first block that may hold one. */
uint64_t csv_root_place(const struct csv *v);
/* A group's block, sealed, in which nothing but fixed places and the root directory is in use; its free blocks. */
uint32_t csv_group_make(const struct csv *v, uint64_t group, uint8_t *bytes);
/* The inode of an empty root directory, v->root_directory, without the header. */
void csv_root_directory_make(const struct csv *v, uint8_t *bytes);
/* A volume that nothing was read of yet. NULL: no memory. */
struct csv *csv_volume_new(struct csv_disk *disk, const struct csv_memory *memory,
                           const struct csv_mount_options *options);
void csv_volume_free(struct csv *v);
/* Who has it? The mount record, as it was read, is in v. ERR_BUSY: another one, with a message. */
enum status csv_may_own(struct csv *v, const struct csv_mount_options *options, uint32_t state, char *message)
    MUST_CHECK;
/* Writes the mount record: mounted by the one whom the options name. `state`: what it said before. */
enum status csv_own(struct csv *v, const struct csv_mount_options *options, uint32_t state) MUST_CHECK;

#endif
