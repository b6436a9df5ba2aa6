/* SPDX-License-Identifier: MIT */
/*
 * The online scrub: superblocks, groups, the volume's own trees, then directory by directory all inodes and what they
 * have. It looks at the disk, not at what memory has of it: a block that is clean in memory is read again, and if the disk's
 * copy is damaged it gets memory's. Blocks that are in the log are newer than home, and are left for another time.
 *
 * Between two steps anything may happen to the volume. So what is kept are numbers and keys, never pointers, and each
 * inode's generation is compared when it is looked at again. Each inode is judged once, when its name is read: what its
 * place holds later may be somebody else's, and is no damage. Even the volume may be another mount's at the next step.
 */
#include <stdio.h>
#include <string.h>

#include "csv/tree.h"

enum phase { SUPERBLOCKS, GROUPS, COUNTS, ORPHANS, INODES, END };

struct place {
    uint64_t inode, generation;
};

struct csv_scrub_state {
    struct csv_memory memory; /* this is from there */
    enum phase phase;
    uint64_t position;     /* group; key in the tree that is walked */
    struct place *queue;   /* directories: [first, count) are to be read */
    size_t first, count, room;
    struct place tree;     /* whose nodes are read now; inode 0: none */
    bool directory_read;   /* of queue[first]: its own inode and nodes */
    uint64_t cursor;       /* in queue[first] */
    uint8_t disk[CSV_BLOCK_BYTES];
};

struct walk {
    struct csv *v;
    struct csv_scrub *scrub;
    unsigned left; /* blocks of this step */
    bool moved;    /* a node was read in this step, and so it got on */
};

static void say(struct walk *w, uint64_t number, const char *what, const char *then)
{
    char text[CSV_MESSAGE_BYTES];
    snprintf(text, sizeof(text), "block %llu: %s%s", (unsigned long long)number, what, then);
    w->scrub->problems++;
    if (w->scrub->report)
        w->scrub->report(w->scrub->context, text);
}

/* The copy at home of a block that memory has too. */
static enum status look_home(struct walk *w, const struct csv_block *block)
{
    struct csv *v = w->v;
    uint8_t *disk = w->scrub->state->disk;
    if (block->is_changed || block->is_logged)
        return OK;
    enum status status = csv_read_blocks(v, block->number, disk, 1);
    if (status)
        return status;
    const char *fault = csv_block_fault(v, block->number, disk);
    if (!fault)
        return OK;
    if (v->read_only || v->failed) {
        say(w, block->number, fault, " on the disk");
        return OK;
    }
    status = csv_write_blocks(v, block->number, block->bytes, 1, true);
    if (!status) {
        w->scrub->mended++;
        say(w, block->number, fault, " on the disk; it was written anew");
    }
    return status;
}

/* Reads a block; *block is NULL if it is damaged. */
static enum status look(struct walk *w, uint64_t number, uint32_t type, uint64_t owner, struct csv_block **block)
{
    w->left -= w->left > 0;
    w->scrub->blocks++;
    csv_breathe(w->v);
    struct csv_block *held = csv_block_find(w->v, number);
    enum status status = held ? look_home(w, held) : OK;
    *block = NULL;
    if (!status)
        status = csv_block_get(w->v, number, type, owner, block);
    if (status != ERR_CORRUPT)
        return status;
    w->scrub->problems++;
    if (w->scrub->report)
        w->scrub->report(w->scrub->context, w->v->problem);
    *block = NULL;
    return OK;
}

/* ---- Trees ---- */

/* The nodes below an area, from key *from on, as many as the step has left; *from is where to go on. */
static enum status look_below(struct walk *w, const struct csv_tree *tree, const uint8_t *area, uint64_t *from,
                              bool *finished)
{
    unsigned level = csv_node_level(area), count = csv_node_count(area);
    uint8_t *copy = level > 1 ? csv_alloc(w->v, CSV_BLOCK_BYTES) : NULL;
    enum status status = level > 1 && !copy ? ERR_NO_MEMORY : OK;
    *finished = true;
    for (unsigned i = 0; level && i < count && !status; i++) {
        struct csv_block *block;
        bool last = i + 1 == count;
        uint64_t next = last ? 0 : csv_node_key(area, i + 1);
        if (!last && next <= *from)
            continue; /* done before */
        if (!w->left && w->moved) {
            *finished = false;
            break;
        }
        uint64_t number = le64_get(csv_node_value((uint8_t *)area, i, NULL));
        status = look(w, number, tree->type, tree->owner, &block);
        if (status)
            break;
        if (block && csv_node_level(block->bytes + CSV_H_BYTES) + 1 != level) {
            say(w, number, "a tree node of another level than its parent says", "");
        } else if (block && level > 1) {
            memcpy(copy, block->bytes, CSV_BLOCK_BYTES);
            status = look_below(w, tree, copy + CSV_H_BYTES, from, finished);
            if (!*finished)
                break;
        }
        *from = last ? *from : next;
        w->moved = true;
    }
    csv_free(w->v, copy, CSV_BLOCK_BYTES);
    return status;
}

static enum status look_tree(struct walk *w, const struct csv_tree *tree, bool *finished)
{
    uint8_t *area = csv_alloc(w->v, tree->bytes);
    if (!area)
        return ERR_NO_MEMORY;
    memcpy(area, tree->root->bytes + tree->offset, tree->bytes);
    enum status status = look_below(w, tree, area, &w->scrub->state->position, finished);
    csv_free(w->v, area, tree->bytes);
    return status;
}

/* ---- The volume's own ---- */

static enum status next_phase(struct csv_scrub_state *s)
{
    s->phase++;
    s->position = 0;
    return OK;
}

static enum status step_superblocks(struct walk *w)
{
    unsigned good;
    csv_super_count(w->v, &good);
    w->scrub->blocks += CSV_SUPER_COPIES;
    w->left -= MIN(w->left, CSV_SUPER_COPIES);
    if (good < CSV_SUPER_COPIES)
        say(w, 0, "not all superblocks are good", "; the next mount writes them anew");
    return next_phase(w->scrub->state);
}

static enum status step_groups(struct walk *w)
{
    struct csv_scrub_state *s = w->scrub->state;
    struct csv_block *block;
    if (s->position >= w->v->groups)
        return next_phase(s);
    enum status status = look(w, csv_group_block(s->position), CSV_GROUP, 0, &block);
    s->position += !status;
    return status;
}

static enum status step_counts(struct walk *w, bool counts)
{
    struct csv_block *root;
    bool finished = true;
    enum status status = look(w, CSV_AT_ROOT, CSV_ROOT, 0, &root);
    if (!status && root) {
        struct csv_tree tree = counts ? csv_counts_tree(w->v, root) : csv_orphans_tree(w->v, root);
        status = look_tree(w, &tree, &finished);
    }
    return status || !finished ? status : next_phase(w->scrub->state);
}

/* ---- Inodes ---- */

static enum status queue_add(struct walk *w, struct place place)
{
    struct csv_scrub_state *s = w->scrub->state;
    if (s->count == s->room) {
        size_t kept = s->count - s->first, room = MAX(kept * 2, 64);
        struct place *larger = csv_alloc(w->v, room * sizeof(*larger));
        if (!larger)
            return ERR_NO_MEMORY;
        if (kept)
            memcpy(larger, s->queue + s->first, kept * sizeof(*larger));
        csv_free(w->v, s->queue, s->room * sizeof(*larger));
        s->queue = larger;
        s->room = room;
        s->first = 0;
        s->count = kept;
    }
    s->queue[s->count++] = place;
    return OK;
}

/* An inode that was looked at before; *block is NULL if it is gone. */
static enum status look_again(struct walk *w, const struct place *place, struct csv_block **block)
{
    *block = NULL;
    w->left -= w->left > 0;
    csv_breathe(w->v);
    enum status status = csv_inode_get(w->v, place->inode, 0, block);
    if (status == ERR_IO || status == ERR_NO_MEMORY)
        return status;
    if (status || le64_get((*block)->bytes + CSV_IN_GENERATION) != place->generation)
        *block = NULL;
    return OK;
}

/* The nodes of an inode's tree, as far as the step goes. */
static enum status step_tree(struct walk *w)
{
    struct csv_scrub_state *s = w->scrub->state;
    struct csv_block *block;
    bool finished = true;
    enum status status = look_again(w, &s->tree, &block);
    if (!status && block) {
        struct csv_tree tree = csv_inode_tree(w->v, block);
        status = look_tree(w, &tree, &finished);
    }
    if (!status && finished)
        s->tree.inode = 0;
    return status;
}

/* An entry's inode: a file is the next tree, a directory waits in the queue. */
static enum status take_entry(struct walk *w, const struct csv_entry *entry)
{
    struct csv_scrub_state *s = w->scrub->state;
    struct csv_block *block;
    if (!csv_may_hold(w->v, entry->inode, 1)) {
        say(w, entry->inode, "it is named as an inode, but is no place for one", "");
        return OK;
    }
    enum status status = look(w, entry->inode, CSV_INODE, entry->inode, &block);
    if (status || !block)
        return status;
    struct place place = { entry->inode, le64_get(block->bytes + CSV_IN_GENERATION) };
    if (le16_get(block->bytes + CSV_IN_TYPE) == CSV_IS_DIRECTORY)
        return queue_add(w, place);
    if (csv_node_level(block->bytes + CSV_IN_NODE)) {
        s->tree = place;
        s->position = 0;
    }
    return OK;
}

static enum status step_inodes(struct walk *w)
{
    struct csv_scrub_state *s = w->scrub->state;
    struct csv_stat stat;
    struct csv_entry entry;
    if (s->tree.inode)
        return step_tree(w);
    if (s->first == s->count)
        return next_phase(s);
    struct place place = s->queue[s->first];
    if (!s->directory_read) {
        s->directory_read = true;
        s->tree = place;
        s->position = s->cursor = 0;
        return OK;
    }
    enum status status = csv_stat(w->v, place.inode, &stat);
    if (!status && stat.generation == place.generation && stat.type == CSV_IS_DIRECTORY)
        status = csv_readdir(w->v, place.inode, &s->cursor, &entry);
    else if (!status)
        status = ERR_NOT_FOUND;
    if (!status)
        return take_entry(w, &entry);
    if (status == ERR_IO || status == ERR_NO_MEMORY)
        return status;
    s->first++; /* its end; or it is gone, or damaged, which was told */
    s->directory_read = false;
    return OK;
}

/* ---- All of it ---- */

static enum status begin(struct walk *w)
{
    struct csv_scrub_state *s = csv_alloc_zeroed(w->v, sizeof(*s));
    struct csv_block *root;
    if (!s)
        return ERR_NO_MEMORY;
    s->memory = w->v->memory;
    w->scrub->state = s;
    w->scrub->blocks = w->scrub->problems = w->scrub->mended = 0;
    enum status status = look(w, w->v->root_directory, CSV_INODE, w->v->root_directory, &root);
    if (!status && root)
        status = queue_add(w, (struct place){ w->v->root_directory, le64_get(root->bytes + CSV_IN_GENERATION) });
    if (status)
        csv_scrub_end(w->scrub);
    return status;
}

enum status csv_scrub_step(struct csv *v, struct csv_scrub *scrub, unsigned blocks)
{
    struct walk w = { .v = v, .scrub = scrub, .left = blocks };
    enum status status = scrub->state || scrub->done ? OK : begin(&w);
    while (!status && w.left && !scrub->done) {
        switch (scrub->state->phase) {
        case SUPERBLOCKS: status = step_superblocks(&w); break;
        case GROUPS: status = step_groups(&w); break;
        case COUNTS: status = step_counts(&w, true); break;
        case ORPHANS: status = step_counts(&w, false); break;
        case INODES: status = step_inodes(&w); break;
        case END: scrub->done = true; break;
        }
    }
    if (scrub->done)
        csv_scrub_end(scrub);
    return status;
}

void csv_scrub_end(struct csv_scrub *scrub)
{
    struct csv_scrub_state *s = scrub->state;
    if (!s)
        return;
    struct csv_memory memory = s->memory;
    if (s->queue)
        memory.free(memory.context, s->queue, s->room * sizeof(*s->queue));
    memory.free(memory.context, s, sizeof(*s));
    scrub->state = NULL;
}
