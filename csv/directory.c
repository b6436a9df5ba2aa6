/* SPDX-License-Identifier: MIT */
/*
 * Directories: a tree by the hash of the name. Names of one hash have keys that differ in the last byte; a name's key
 * never changes while the entry is there, so a key is also a lasting position in a listing.
 */
#include <string.h>

#include "csv/tree.h"
#include "csv/volume.h"
#include "kernel/text.h"

bool csv_name_ok(const char *name, size_t bytes)
{
    if (!bytes || bytes > CSV_NAME_BYTES || (bytes == 1 && name[0] == '.') ||
        (bytes == 2 && name[0] == '.' && name[1] == '.'))
        return false;
    for (size_t at = 0; at < bytes;) {
        uint32_t code;
        unsigned length = utf8_decode(name + at, bytes - at, &code);
        if (!length || code < 32 || code == 127 || code == '/')
            return false;
        at += length;
    }
    return true;
}

/* ---- SipHash-2-4 (Aumasson, Bernstein: SipHash: a fast short-input PRF, 2012) ---- */

static uint64_t rotate(uint64_t x, unsigned bits)
{
    return x << bits | x >> (64 - bits);
}

static void sip_rounds(uint64_t s[4], unsigned rounds)
{
    while (rounds--) {
        s[0] += s[1];
        s[2] += s[3];
        s[1] = rotate(s[1], 13) ^ s[0];
        s[3] = rotate(s[3], 16) ^ s[2];
        s[0] = rotate(s[0], 32) + s[3];
        s[2] += s[1];
        s[3] = rotate(s[3], 21) ^ s[0];
        s[1] = rotate(s[1], 17) ^ s[2];
        s[2] = rotate(s[2], 32);
    }
}

uint64_t csv_name_hash(const uint8_t key[16], const char *name, size_t bytes)
{
    uint64_t k0 = le64_get(key), k1 = le64_get(key + 8);
    uint64_t s[4] = { k0 ^ 0x736f6d6570736575, k1 ^ 0x646f72616e646f6d, k0 ^ 0x6c7967656e657261,
                      k1 ^ 0x7465646279746573 };
    size_t whole = bytes & ~(size_t)7;
    for (size_t at = 0; at < whole; at += 8) {
        uint64_t word = le64_get((const uint8_t *)name + at);
        s[3] ^= word;
        sip_rounds(s, 2);
        s[0] ^= word;
    }
    uint64_t last = (uint64_t)bytes << 56 | le_get((const uint8_t *)name + whole, bytes & 7);
    s[3] ^= last;
    sip_rounds(s, 2);
    s[0] ^= last;
    s[2] ^= 0xff;
    sip_rounds(s, 4);
    return s[0] ^ s[1] ^ s[2] ^ s[3];
}

/* ---- Entries ---- */

static enum status entry_take(struct csv *v, uint64_t directory, const struct csv_record *record,
                              struct csv_entry *entry)
{
    entry->inode = le64_get(record->value);
    entry->type = record->value[8];
    entry->name_bytes = record->bytes - CSV_ENTRY_FIXED_BYTES;
    memcpy(entry->name, record->value + CSV_ENTRY_FIXED_BYTES, entry->name_bytes);
    entry->name[entry->name_bytes] = 0;
    if (!csv_name_ok(entry->name, entry->name_bytes))
        return csv_corrupt(v, directory, "a directory has an entry whose name is none");
    if (entry->type != CSV_IS_FILE && entry->type != CSV_IS_DIRECTORY)
        return csv_corrupt(v, directory, "a directory has an entry of an unknown type");
    return OK;
}

/*
 * Finds a name, or, *key with ERR_NOT_FOUND, the lowest key that is free for it (CSV_HASH_SLOTS in its last byte:
 * none).
 */
enum status csv_entry_find(struct csv *v, uint64_t directory, const char *name, size_t bytes, struct csv_entry *entry,
                           uint64_t *key)
{
    struct csv_block *inode;
    struct csv_record record;
    if (!csv_name_ok(name, bytes))
        return ERR_INVALID;
    enum status status = csv_inode_get(v, directory, CSV_IS_DIRECTORY, &inode);
    if (status)
        return status;
    struct csv_tree tree = csv_inode_tree(v, inode);
    uint64_t base = csv_name_hash(v->hash_key, name, bytes) & ~UINT64_C(0xff), free = base;
    for (uint64_t at = base; at < base + CSV_HASH_SLOTS; at = record.key + 1) {
        status = csv_tree_from(&tree, at, &record);
        if (status == ERR_NOT_FOUND || (!status && record.key >= base + CSV_HASH_SLOTS))
            break;
        if (!status)
            status = entry_take(v, directory, &record, entry);
        if (status)
            return status;
        if (record.key == free)
            free++;
        if (entry->name_bytes == bytes && !memcmp(entry->name, name, bytes)) {
            *key = record.key;
            return OK;
        }
    }
    *key = free;
    return ERR_NOT_FOUND;
}

static enum status entries_changed(struct csv *v, struct csv_block *inode, int delta)
{
    enum status status = csv_block_change(v, inode);
    if (status)
        return status;
    le64_put(inode->bytes + CSV_IN_SIZE, le64_get(inode->bytes + CSV_IN_SIZE) + (uint64_t)(int64_t)delta);
    csv_touch(v, inode, true);
    return OK;
}

static void entry_fixed(uint8_t *value, uint64_t inode, uint32_t type)
{
    le64_put(value, inode);
    value[8] = (uint8_t)type;
}

enum status csv_entry_add(struct csv *v, uint64_t directory, const char *name, size_t bytes, uint64_t inode,
                          uint32_t type)
{
    struct csv_entry entry;
    struct csv_block *block;
    uint8_t value[CSV_VALUE_BYTES];
    uint64_t key;
    enum status status = csv_entry_find(v, directory, name, bytes, &entry, &key);
    if (status != ERR_NOT_FOUND)
        return status ? status : ERR_EXISTS;
    if ((key & 0xff) == CSV_HASH_SLOTS)
        return ERR_NO_SPACE;
    status = csv_inode_get(v, directory, CSV_IS_DIRECTORY, &block);
    if (!status)
        status = entries_changed(v, block, 1);
    if (status)
        return status;
    struct csv_tree tree = csv_inode_tree(v, block);
    entry_fixed(value, inode, type);
    memcpy(value + CSV_ENTRY_FIXED_BYTES, name, bytes);
    return csv_tree_insert(&tree, key, value, (unsigned)(CSV_ENTRY_FIXED_BYTES + bytes));
}

enum status csv_entry_remove(struct csv *v, uint64_t directory, uint64_t key)
{
    struct csv_block *block;
    enum status status = csv_inode_get(v, directory, CSV_IS_DIRECTORY, &block);
    if (!status)
        status = entries_changed(v, block, -1);
    if (status)
        return status;
    struct csv_tree tree = csv_inode_tree(v, block);
    return csv_tree_remove(&tree, key);
}

enum status csv_entry_set(struct csv *v, uint64_t directory, uint64_t key, uint64_t inode, uint32_t type)
{
    struct csv_block *block;
    struct csv_record record;
    enum status status = csv_inode_get(v, directory, CSV_IS_DIRECTORY, &block);
    if (!status)
        status = entries_changed(v, block, 0);
    if (status)
        return status;
    struct csv_tree tree = csv_inode_tree(v, block);
    status = csv_tree_from(&tree, key, &record);
    if (status)
        return status;
    entry_fixed(record.value, inode, type);
    return csv_tree_replace(&tree, key, record.value, record.bytes);
}

enum status csv_readdir(struct csv *v, uint64_t directory, uint64_t *cursor, struct csv_entry *entry)
{
    struct csv_block *inode;
    struct csv_record record;
    csv_breathe(v);
    enum status status = csv_inode_get(v, directory, CSV_IS_DIRECTORY, &inode);
    if (status)
        return status;
    struct csv_tree tree = csv_inode_tree(v, inode);
    status = csv_tree_from(&tree, *cursor, &record);
    if (!status)
        status = entry_take(v, directory, &record, entry);
    if (!status && record.key == UINT64_MAX)
        return csv_corrupt(v, directory, "a directory has an entry with an impossible key");
    if (!status)
        *cursor = record.key + 1;
    return status;
}
