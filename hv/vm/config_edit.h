/* SPDX-License-Identifier: MIT */
/*
 * Changes to the text of a vm.conf that leave everything else as the admin wrote it: comments, order, blanks, line
 * ends. Pure.
 */
#ifndef VM_CONFIG_EDIT_H
#define VM_CONFIG_EDIT_H

#include "kernel/status.h"
#include "kernel/types.h"

struct config_change {
    const char *key;
    const char *const *values; /* a line each; none: the key's lines go, and with them what they said */
    unsigned count;
    bool add; /* beside the lines that there are; else in their place */
};

/*
 * Writes the changed text to `out` (room bytes, no NUL), its length to *out_bytes. A key's new lines stand where its
 * first one was (with `add`, behind its last), else behind the section's last setting; a comment behind the first one
 * that is replaced stays. ERR_NOT_FOUND: the text has no section [vm ...]; ERR_INVALID: a value cannot be written in
 * one line (a control character, or a '#' that would begin a comment); ERR_RANGE: the room is too small.
 */
enum status config_edit(const char *text, size_t bytes, const struct config_change *change, char *out, size_t room,
                        size_t *out_bytes) MUST_CHECK;

#endif
