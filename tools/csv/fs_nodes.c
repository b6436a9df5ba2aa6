/* SPDX-License-Identifier: MIT */
/*
 * What the kernel knows of a mounted volume. A node stands for an inode from the first answer that names it until the
 * kernel has forgotten it as often as it was told; FUSE's node number is its address. Its point is what happens after
 * the last name is gone: the volume may use the inode's number for something else at once, while the kernel may still
 * ask for the old one (a program's current directory, a descriptor of O_PATH). Such a node is dead, or, a file that is
 * open, dead after its last close: it answers with the attributes that it had, and takes no changes.
 *
 * Nodes that have a name are in a hash table by their inode number; dead ones are only known by their address.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fs.h"

static struct fs_node **bucket_of(struct fs *fs, uint64_t inode)
{
    return &fs->bucket[(inode * UINT64_C(0x9e3779b97f4a7c15)) >> (64 - fs->bucket_bits)];
}

static bool grow(struct fs *fs)
{
    struct fs_node **old = fs->bucket;
    size_t count = old ? (size_t)1 << fs->bucket_bits : 0;
    struct fs_node **larger = calloc(count ? count * 2 : 1024, sizeof(*larger));
    if (!larger)
        return old != NULL; /* the chains get longer */
    fs->bucket = larger;
    fs->bucket_bits = old ? fs->bucket_bits + 1 : 10;
    for (size_t i = 0; i < count; i++)
        while (old[i]) {
            struct fs_node *node = old[i], **to = bucket_of(fs, node->inode);
            old[i] = node->next;
            node->next = *to;
            *to = node;
        }
    free(old);
    return true;
}

static struct fs_node *find(struct fs *fs, uint64_t inode)
{
    struct fs_node *node = fs->bucket ? *bucket_of(fs, inode) : NULL;
    while (node && node->inode != inode)
        node = node->next;
    return node;
}

static void take_out(struct fs *fs, struct fs_node *node)
{
    struct fs_node **at = bucket_of(fs, node->inode);
    while (*at != node)
        at = &(*at)->next;
    *at = node->next;
    fs->node_count--;
}

struct fs_node *fs_node(struct fs *fs, fuse_ino_t number)
{
    return number == FUSE_ROOT_ID ? &fs->root : (struct fs_node *)(uintptr_t)number;
}

fuse_ino_t fs_node_take(struct fs *fs, uint64_t inode)
{
    if (inode == fs->root.inode)
        return FUSE_ROOT_ID;
    struct fs_node *node = find(fs, inode);
    if (!node) {
        if ((!fs->bucket || fs->node_count > (size_t)1 << fs->bucket_bits) && !grow(fs))
            return 0;
        node = calloc(1, sizeof(*node));
        if (!node)
            return 0;
        struct fs_node **at = bucket_of(fs, inode);
        node->inode = inode;
        node->next = *at;
        *at = node;
        fs->node_count++;
    }
    node->known++;
    return (fuse_ino_t)(uintptr_t)node;
}

static void forget(struct fs *fs, fuse_ino_t number, uint64_t count)
{
    struct fs_node *node = fs_node(fs, number);
    if (node == &fs->root)
        return;
    node->known -= MIN(node->known, count);
    if (node->known)
        return;
    if (!node->removed)
        take_out(fs, node);
    free(node);
}

void fs_node_lost_name(struct fs *fs, const struct csv_stat *last)
{
    struct fs_node *node = find(fs, last->inode);
    if (!node)
        return;
    take_out(fs, node);
    node->removed = true;
    node->last = *last;
    node->last.links = 0;
    node->last.changed_ns = tool_now_ns();
}

enum status fs_node_stat(struct fs *fs, const struct fs_node *node, struct csv_stat *stat)
{
    if (!fs_node_is_dead(node))
        return csv_stat(fs->tool.volume, node->inode, stat);
    *stat = node->last;
    return OK;
}

void fs_nodes_free(struct fs *fs)
{
    for (size_t i = 0; fs->bucket && i < (size_t)1 << fs->bucket_bits; i++)
        while (fs->bucket[i]) {
            struct fs_node *node = fs->bucket[i];
            fs->bucket[i] = node->next;
            free(node);
        }
    free(fs->bucket);
}

static void op_forget(fuse_req_t req, fuse_ino_t number, uint64_t count)
{
    forget(fs_of(req), number, count);
    fuse_reply_none(req);
}

static void op_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *data)
{
    for (size_t i = 0; i < count; i++)
        forget(fs_of(req), data[i].ino, data[i].nlookup);
    fuse_reply_none(req);
}

void fs_nodes_operations(struct fuse_lowlevel_ops *operations)
{
    operations->forget = op_forget;
    operations->forget_multi = op_forget_multi;
}
