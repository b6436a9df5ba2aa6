/* SPDX-License-Identifier: MIT */
/*
 * The cluster shared volume: what a coordinator, the host tool and the tests do with one. docs/csv-format.md is the
 * format; DESIGN section 9 says who calls.
 *
 * A volume belongs to one thread: no function here may run while another one runs on the same volume. Functions wait
 * for the disk. Metadata operations are collected into transactions: each is atomic, they become durable in their
 * order, and csv_sync() returns when all are. After an operation that failed nothing of it is left, except where its
 * comment says that it works piece by piece. Blocks are freed after the operation that gave them up, and not as a part
 * of it: if that fails, the operation has succeeded all the same, and csv_sync(), csv_unmount() or the next mount
 * frees them.
 *
 * Common errors, which the comments do not repeat: ERR_IO and ERR_NO_MEMORY (the disk, memory), ERR_CORRUPT (a block is
 * wrong; csv_problem() says which), ERR_READ_ONLY (mounted so, or after an error of the disk in a commit or a flush),
 * ERR_NO_SPACE. A file or directory is named by its inode number; the number of one that is gone gives ERR_INVALID, or
 * ERR_CORRUPT where its block became something else, or another file: who keeps numbers compares the generation.
 *
 * The data path does not come through here: csv_map() gives extents from memory, the caller sends its I/O to the disk
 * itself (in place where the range is CSV_MAP_WRITTEN), and calls csv_write() or csv_converted() for everything else.
 * A mapping is good until the next call that changes this part of the file's map (csv_set_size() what lies beyond the
 * new size, csv_preallocate(), csv_write(), csv_punch() and csv_converted() the blocks of their range, csv_clone() all of
 * it), deletes the file, or unmounts: the caller's own I/O on it must have been answered before that call, and data
 * written to unwritten blocks must have been told by csv_converted().
 */
#ifndef CSV_CSV_H
#define CSV_CSV_H

#include "csv/disk.h"
#include "csv/format.h"

struct csv;
struct csv_file;

/* ---- Making and mounting ---- */

struct csv_mkfs_options {
    uint8_t uuid[16];     /* random, of the caller */
    uint8_t hash_key[16]; /* random, of the caller */
    const char *label;    /* UTF-8, at most 63 bytes */
    int64_t now_ns;       /* since 1970, like all times here */
};

/*
 * Makes an empty volume; what was on the disk is lost. ERR_RANGE: a disk below 64 MiB or above 64 TiB; ERR_INVALID: the
 * label is not UTF-8 or too long, or the sectors are neither 512 nor 4096 bytes.
 */
enum status csv_mkfs(struct csv_disk *disk, const struct csv_memory *memory, const struct csv_mkfs_options *options)
    MUST_CHECK;

/*
 * What a disk holds, for a sentence ("an XFS file system", "a volume"): *what; NULL: nothing but zeros where anything would
 * be looked for, at its beginning, in its middle and at its end. ERR_IO, ERR_NO_MEMORY.
 */
enum status csv_content(struct csv_disk *disk, const struct csv_memory *memory, const char **what) MUST_CHECK;

struct csv_mount_options {
    bool read_only;
    uint8_t owner_uuid[16];
    const char *owner_name; /* at most 63 bytes */
    uint32_t owner_kind;    /* 0 node, 1 host tool */
    uint64_t owner_key;     /* reservation key; 0: none */
    bool take_over;         /* the caller has fenced whoever had it mounted, or is alone by an exclusive reservation */
    int64_t now_ns;
    uint32_t cache_blocks;  /* metadata blocks of 4 KiB kept in memory, at least 256; 0: 4096 */
    bool discard;           /* tell the disk of freed blocks */
};

#define CSV_MESSAGE_BYTES 200

/*
 * Mounts: replays the journal and finishes orphans (unless read-only: then what the journal says is kept in memory, and
 * nothing is written). On failure `message` (CSV_MESSAGE_BYTES) says object, cause and cure. ERR_NOT_FOUND: no volume
 * here; ERR_VERSION: newer format; ERR_UNSUPPORTED: an unknown feature; ERR_BUSY: mounted by another owner, named in
 * the message; ERR_RANGE: the disk is smaller than the volume.
 */
enum status csv_mount(struct csv_disk *disk, const struct csv_memory *memory, const struct csv_mount_options *options,
                      struct csv **volume, char *message) MUST_CHECK;

/*
 * Commits, writes everything home, marks the volume clean and frees all memory. All files must be closed (ERR_BUSY). On
 * another error the memory is freed as well, and the next mount replays.
 */
enum status csv_unmount(struct csv *volume) MUST_CHECK;

/* Frees the memory and writes nothing: for a volume whose disk is gone or was taken over. Open files become invalid. */
void csv_abandon(struct csv *volume);

/*
 * Whose volume it is, from the bytes of the two mount records: CSV_OWNER_BYTES of them, CSV_OWNER_OFFSET bytes from the
 * beginning of the disk. The generation of the mount that wrote last: as long as it is csv_info's, nobody else has mounted
 * the volume for writing. False: that is no record of the volume of that UUID. Any thread.
 */
#define CSV_OWNER_OFFSET (CSV_AT_MOUNT_RECORD * CSV_BLOCK_BYTES)
#define CSV_OWNER_BYTES (2u * CSV_BLOCK_BYTES)
bool csv_owner_generation(const uint8_t uuid[16], const uint8_t *bytes, uint64_t *generation) MUST_CHECK;

/* The time that the next operations write into inodes. */
void csv_set_time(struct csv *volume, int64_t now_ns);

/*
 * All operations so far, and all data written so far, are durable when it returns OK. After ERR_NO_MEMORY it may be
 * called again; after an error of the disk nobody knows what is durable, and the volume takes no more changes.
 */
enum status csv_sync(struct csv *volume) MUST_CHECK;

/* What was last found wrong with a block, in words; "" if nothing. Valid until the next call. */
const char *csv_problem(const struct csv *volume);

struct csv_info {
    uint8_t uuid[16];
    char label[CSV_LABEL_BYTES];
    uint64_t blocks, free_blocks; /* free for files: without what is kept back for metadata */
    uint64_t inodes;
    uint64_t generation;          /* of this mount */
    uint64_t journal_blocks;
    uint64_t replayed;            /* transactions that this mount found in the journal */
    bool read_only;
};
void csv_statfs(struct csv *volume, struct csv_info *info);

/*
 * Makes the volume as large as its disk, at most 64 TiB; open files stay open. OK also if there is nothing to gain.
 * After an error or a power cut the volume has its old size or the new one; the next mount finishes what was begun.
 */
enum status csv_grow(struct csv *volume) MUST_CHECK;

/* ---- Names. `name` is `bytes` long; see the specification for what is one (ERR_INVALID). ---- */

struct csv_stat {
    uint64_t inode, generation;
    uint32_t type; /* CSV_IS_FILE, CSV_IS_DIRECTORY */
    uint32_t links, mode, uid, gid;
    uint64_t size; /* a directory's: entries */
    uint64_t blocks;
    uint64_t parent; /* a directory's */
    uint64_t map_version;
    int64_t created_ns, modified_ns, changed_ns;
};

struct csv_entry {
    uint64_t inode;
    uint32_t type;
    uint32_t name_bytes;
    char name[CSV_NAME_BYTES + 1]; /* with a NUL */
};

uint64_t csv_root(const struct csv *volume);

/* ERR_NOT_FOUND; ERR_INVALID: `directory` is not one. */
enum status csv_lookup(struct csv *volume, uint64_t directory, const char *name, size_t bytes, struct csv_entry *entry)
    MUST_CHECK;
/* A path of names with '/' between them, from the root directory; empty parts are ignored. */
enum status csv_walk(struct csv *volume, const char *path, uint64_t *inode) MUST_CHECK;
enum status csv_stat(struct csv *volume, uint64_t inode, struct csv_stat *stat) MUST_CHECK;

/* ERR_EXISTS. `mode`: permission bits. */
enum status csv_create(struct csv *volume, uint64_t directory, const char *name, size_t bytes, uint32_t mode,
                       uint64_t *inode) MUST_CHECK;
enum status csv_mkdir(struct csv *volume, uint64_t directory, const char *name, size_t bytes, uint32_t mode,
                      uint64_t *inode) MUST_CHECK;

/* Takes a file's name away. Its blocks are freed now, or at the last csv_close() if it is open. */
enum status csv_unlink(struct csv *volume, uint64_t directory, const char *name, size_t bytes) MUST_CHECK;
/* ERR_NOT_EMPTY. */
enum status csv_rmdir(struct csv *volume, uint64_t directory, const char *name, size_t bytes) MUST_CHECK;

/*
 * Renames, atomically replacing a file (by a file) or an empty directory (by a directory). ERR_INVALID: a directory
 * would move below itself, or the kinds differ.
 */
enum status csv_rename(struct csv *volume, uint64_t from, const char *from_name, size_t from_bytes, uint64_t to,
                       const char *to_name, size_t to_bytes) MUST_CHECK;

/*
 * The first entry at or after *cursor (0: the beginning), and moves the cursor behind it. ERR_NOT_FOUND: no more. A
 * cursor stays good whatever changes, and over remounts.
 */
enum status csv_readdir(struct csv *volume, uint64_t directory, uint64_t *cursor, struct csv_entry *entry) MUST_CHECK;

struct csv_attributes {
    bool set_mode, set_owner, set_modified;
    uint32_t mode, uid, gid;
    int64_t modified_ns;
};
enum status csv_set_attributes(struct csv *volume, uint64_t inode, const struct csv_attributes *attributes) MUST_CHECK;

/* ---- Files ---- */

/* ERR_INVALID: not a file. Opening it again gives the same struct; each open needs a close. */
enum status csv_open(struct csv *volume, uint64_t inode, struct csv_file **file) MUST_CHECK;
/* The last close of a file without a name deletes it. */
enum status csv_close(struct csv_file *file) MUST_CHECK;

uint64_t csv_inode_of(const struct csv_file *file);
/* In bytes; 0 also where the inode cannot be read (csv_stat() tells). */
uint64_t csv_size(struct csv_file *file);

/* Grows (sparse) or cuts. ERR_RANGE: above 64 TiB. Cutting is atomic; the blocks are freed piece by piece. */
enum status csv_set_size(struct csv_file *file, uint64_t bytes) MUST_CHECK;

/*
 * Gives all holes in a range blocks, unwritten, and makes the file reach to its end. Piece by piece: after an error
 * some of it is done. ERR_NO_SPACE is found before the first piece, as far as the count of free blocks tells.
 */
enum status csv_preallocate(struct csv_file *file, uint64_t offset, uint64_t count) MUST_CHECK;

/* Any bytes. A write makes the file longer where needed; piece by piece. A read ends at the file's size: *done. */
enum status csv_write(struct csv_file *file, uint64_t offset, const void *bytes, uint64_t count) MUST_CHECK;
enum status csv_read(struct csv_file *file, uint64_t offset, void *bytes, uint64_t count, uint64_t *done) MUST_CHECK;

/* Frees the whole blocks of a range and zeroes the rest of it; piece by piece. The size stays. */
enum status csv_punch(struct csv_file *file, uint64_t offset, uint64_t count) MUST_CHECK;

/* A new file that shares all written blocks. Nobody may write the old one meanwhile. ERR_EXISTS. */
enum status csv_clone(struct csv_file *file, uint64_t directory, const char *name, size_t bytes, uint64_t *inode)
    MUST_CHECK;

/* ---- The data path ---- */

enum csv_map_kind {
    CSV_MAP_HOLE,      /* reads as zeros; write by csv_write() */
    CSV_MAP_UNWRITTEN, /* reads as zeros; whole blocks may be written in place, then csv_converted() */
    CSV_MAP_WRITTEN,   /* read and write in place */
    CSV_MAP_SHARED,    /* read in place; write by csv_write() */
};
struct csv_mapping {
    enum csv_map_kind kind;
    uint64_t file_offset, bytes;
    uint64_t disk_offset; /* not for holes */
};

/*
 * The mapping at `offset`, at most `count` (1 or more) bytes of it. No disk access once the file's map is in memory
 * (the first call reads it); then it cannot fail. Beyond the block with the last byte everything is a hole.
 */
enum status csv_map(struct csv_file *file, uint64_t offset, uint64_t count, struct csv_mapping *mapping) MUST_CHECK;

/*
 * For a file whose map other threads than the volume's look at: from now on every change of the map in memory is made
 * under this lock, each within a moment (never while the disk is waited for). Until the last csv_close().
 */
struct csv_map_lock {
    void (*take)(void *context);
    void (*give)(void *context);
    void *context;
};
void csv_map_share(struct csv_file *file, const struct csv_map_lock *lock);

/*
 * csv_map() for whoever holds that lock, in any thread. False: the map is not in memory, and the volume's thread has to
 * call csv_map().
 */
bool csv_map_now(struct csv_file *file, uint64_t offset, uint64_t count, struct csv_mapping *mapping) MUST_CHECK;

/*
 * Data was written in place to unwritten blocks and the disk has answered: they read as written from now on, and will
 * after a crash when csv_sync() returned (its flush comes before the commit). The range is rounded outwards to blocks,
 * which must have been written whole; holes and written blocks in it stay what they are.
 */
enum status csv_converted(struct csv_file *file, uint64_t offset, uint64_t count) MUST_CHECK;

/* ---- Grants ---- */

/*
 * Gives node slot `slot` (0 to 63) all free blocks of a group that has at least `bytes` free and none granted: nobody
 * else allocates there until it is taken back. *first and *blocks are the group's. ERR_NO_SPACE.
 */
enum status csv_grant(struct csv *volume, uint32_t slot, uint64_t bytes, uint64_t *first, uint64_t *blocks) MUST_CHECK;
/* Takes all grants of a slot back; of all slots, if it is CSV_NO_GRANT. */
enum status csv_grant_end(struct csv *volume, uint32_t slot) MUST_CHECK;

/* ---- Checking ---- */

struct csv_check {
    void (*report)(void *context, const char *text); /* called for each problem */
    void *context;
    uint64_t problems;
    uint64_t files, directories, extents, shared_blocks, used_blocks, orphans; /* used: with fixed places */
};

/*
 * Reads all metadata and proves what the end of the specification lists. Commits first. OK with problems == 0: sound.
 * Takes memory: a bit for each block of the volume, and 32 bytes for each extent.
 */
enum status csv_check(struct csv *volume, struct csv_check *check) MUST_CHECK;

/*
 * The scrub: reads all metadata of a volume in use from the disk, a few blocks at a time, between other operations. A
 * block that is damaged on the disk and whole in memory is written anew. What is renamed meanwhile may be missed.
 */
struct csv_scrub {
    void (*report)(void *context, const char *text); /* called for each problem */
    void *context;
    uint64_t blocks;   /* read so far */
    uint64_t problems; /* told */
    uint64_t mended;   /* of them, written anew */
    bool done;
    struct csv_scrub_state *state; /* not for the caller; NULL before the first step */
};

/* Reads about `blocks` (1 or more) blocks more. Errors: ERR_IO, ERR_NO_MEMORY; it may be called again. */
enum status csv_scrub_step(struct csv *volume, struct csv_scrub *scrub, unsigned blocks) MUST_CHECK;
/* Frees the state, at any time; any thread while no step runs, also after the volume is gone. */
void csv_scrub_end(struct csv_scrub *scrub);

/* ---- Repair ---- */

struct csv_repair {
    void (*report)(void *context, const char *text); /* called for each thing that is mended */
    void *context;
    bool discard_journal; /* if the journal is damaged, go on without what it can no longer tell */
    uint64_t mended;      /* things that were told */
    uint64_t lost;        /* files and directories whose inode is damaged */
    uint64_t rescued;     /* that lost their name: they are in /lost+found now */
};

/*
 * Mends an unmounted volume; section 16 of the specification says what it may do. `options` as for csv_mount(), which
 * it is to other nodes: take_over is needed where somebody else had it mounted. OK: fsck finds nothing any more.
 * ERR_CORRUPT: the journal is damaged, and discard_journal is not set; or something is left. ERR_BUSY, ERR_NOT_FOUND,
 * ERR_RANGE, ERR_VERSION: as csv_mount(). On failure `message` (CSV_MESSAGE_BYTES) says object, cause and cure; what
 * was mended before stays so. Takes memory: four bits for each block of the volume, 32 bytes for each extent and file.
 */
enum status csv_repair(struct csv_disk *disk, const struct csv_memory *memory, const struct csv_mount_options *options,
                       struct csv_repair *repair, char *message) MUST_CHECK;

#endif
