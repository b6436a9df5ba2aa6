/* SPDX-License-Identifier: MIT */
/*
 * The saved state of a VM on a volume: the stream goes into the file while it is written, and comes back a section at a
 * time, so that neither takes memory for all of it. The VM's thread; what is read is checked by who reads the stream,
 * each section when it is held, and is then used from where it was checked.
 */
#include <stdio.h>
#include <string.h>

#include "kernel/heap.h"
#include "kernel/log.h"
#include "vm/machine.h"
#include "vm/save.h"
#include "vm/saved.h"
#include "vm/vm_directory_private.h"

#define READ_BYTES (1 * MIB)    /* at least, of one look */
#define SECTION_BYTES (8 * MIB) /* at most, of one that this node writes: a frame of 2 MiB and what it says of it */

/* ---- Writing ---- */

struct spill {
    struct vm_file_writer writer;
    char *text;
    size_t text_bytes;
};

static enum status spill(void *context, struct saved *saved)
{
    struct spill *s = context;
    enum status status = OK;
    uint64_t count;

    for (uint64_t at = saved->spilled; at < saved->bytes && status == OK; at += count) {
        const uint8_t *bytes = saved_at(saved, at, &count);
        status = vm_file_append(&s->writer, bytes, count, s->text, s->text_bytes);
        if (status == OK)
            saved_forget(saved, at + count);
    }
    return status;
}

enum status vm_directory_save(struct vm *vm, bool paused, char *text, size_t text_bytes)
{
    char path[VM_PATH_BYTES];
    struct spill s = { .text = text, .text_bytes = text_bytes };
    struct saved_spill out = { spill, &s };

    vm_directory_path(vm->config.volume, vm->name, VM_STATE_FILE, path);
    enum status status = vm_file_begin(&s.writer, vm->name, path, text, text_bytes);
    if (status != OK)
        return status;
    status = save_write(vm, paused, &out, text, text_bytes);
    if (status == OK) {
        uint64_t bytes = vm->saved->bytes;
        status = spill(&s, vm->saved);
        saved_destroy(vm->saved);
        vm->saved = NULL;
        if (status == OK)
            status = vm_file_commit(&s.writer, text, text_bytes);
        if (status == OK)
            vm->saved_bytes = bytes;
    }
    if (status != OK)
        vm_file_discard(&s.writer);
    return status;
}

/* ---- Reading ---- */

/* A stretch of the file in memory. */
struct window {
    char who[CONFIG_MAX_NAME_BYTES + 1];
    char path[VM_PATH_BYTES];
    struct csv_stat stat;
    uint8_t *bytes;
    uint64_t room, offset, count;
};

static bool widen(struct window *w, uint64_t bytes)
{
    if (bytes <= w->room)
        return true;
    kfree(w->bytes, w->room);
    w->count = 0;
    w->room = ALIGN_UP(bytes, READ_BYTES);
    w->bytes = kzalloc(w->room);
    if (!w->bytes)
        w->room = 0;
    return w->bytes;
}

static enum status hold(void *context, uint64_t offset, uint64_t bytes)
{
    struct window *w = context;
    char text[VM_TEXT_BYTES];

    if (offset >= w->offset && offset - w->offset <= w->count && bytes <= w->count - (offset - w->offset))
        return OK;
    if (bytes > SECTION_BYTES)
        return ERR_CORRUPT;
    if (!widen(w, MAX(bytes, READ_BYTES)))
        return ERR_NO_MEMORY;
    w->count = 0;
    uint64_t count = MIN(MAX(bytes, READ_BYTES), w->stat.size - offset);
    enum status status = vm_file_read_at(w->who, w->path, &w->stat, offset, w->bytes, count, text, sizeof text);
    if (status != OK) {
        log_error("%s", text);
        return status;
    }
    w->offset = offset;
    w->count = count;
    return OK;
}

/* Within what is held. */
static const uint8_t *byte_at(void *context, uint64_t offset, uint64_t *count)
{
    struct window *w = context;

    *count = w->count - (offset - w->offset);
    return w->bytes + (offset - w->offset);
}

static void end(void *context)
{
    struct window *w = context;

    kfree(w->bytes, w->room);
    kfree(w, sizeof *w);
}

enum status vm_directory_fetch(struct vm *vm, char *text, size_t text_bytes)
{
    struct window *w = kzalloc(sizeof *w);
    struct saved *saved = saved_create(vm->name);
    enum status status = ERR_NO_MEMORY;

    if (w && saved) {
        snprintf(w->who, sizeof w->who, "%s", vm->name);
        vm_directory_path(vm->config.volume, vm->name, VM_STATE_FILE, w->path);
        status = vm_file_stat(vm->name, w->path, &w->stat, text, text_bytes);
    } else {
        snprintf(text, text_bytes,
                 "vm %s: the node has no memory left to read its saved state, which stays; stop another VM", vm->name);
    }
    if (status != OK) {
        saved_destroy(saved);
        kfree(w, sizeof *w);
        return status;
    }
    saved->source = (struct stream_source){ byte_at, w, hold };
    saved->end = end;
    saved->bytes = w->stat.size;
    vm->saved = saved;
    vm->saved_owner = saved->owner;
    return OK;
}
