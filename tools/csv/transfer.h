/* SPDX-License-Identifier: MIT */
/*
 * A file that is brought to the volume: it grows under a name of its own, and has its real one only when it is whole
 * and durable. For put and import.
 */
#ifndef TOOLS_CSV_TRANSFER_H
#define TOOLS_CSV_TRANSFER_H

#include "tool.h"

struct growing {
    struct tool *tool;
    uint64_t directory;
    const char *name; /* the real one */
    size_t bytes;
    char temporary[40];
    struct csv_file *file;
};

/* ERR_EXISTS: there is a directory of that name. After a failure nothing has to be ended. */
enum status growing_begin(struct growing *g, struct tool *tool, uint64_t directory, const char *name, size_t bytes,
                          uint32_t mode) MUST_CHECK;
/* With OK the file takes its name, replacing one that is there; otherwise it goes. Returns what went wrong first. */
enum status growing_end(struct growing *g, enum status status) MUST_CHECK;

#endif
