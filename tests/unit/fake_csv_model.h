/* SPDX-License-Identifier: MIT */
/*
 * What a volume should hold, kept in plain memory: at most MODEL_NODES files and directories with their bytes. The
 * same operation is done to the model and to a volume, and their answers must agree; model_matches() compares a whole
 * volume with it.
 *
 * After a power cut a volume may be in any of several states. model_matches_any() takes the models of all of them:
 * names, kinds and sizes must be those of one; each 512-byte sector of a file must be that of the file in one of them.
 */
#ifndef FAKE_CSV_MODEL_H
#define FAKE_CSV_MODEL_H

#include "csv/csv.h"
#include "fake_csv_disk.h"

#define MODEL_NODES 48
#define MODEL_FILE_BYTES (160 * 1024)

struct model_node {
    bool used, directory;
    unsigned parent; /* index; the root directory is 0 */
    unsigned id;     /* of the file, over renames */
    char name[32];
    uint32_t size;
    uint8_t *bytes; /* MODEL_FILE_BYTES */
};
struct model {
    struct model_node node[MODEL_NODES];
    unsigned next_id;
};

void model_init(struct model *m);
void model_copy(struct model *to, const struct model *from);
void model_free(struct model *m);

enum model_op_kind {
    OP_CREATE, OP_MKDIR, OP_UNLINK, OP_RMDIR, OP_RENAME, OP_WRITE, OP_SET_SIZE, OP_PUNCH, OP_PREALLOCATE, OP_CLONE,
    OP_SYNC, OP_KINDS,
};
/* Paths have no '/' at the beginning: "a/b". */
struct model_op {
    enum model_op_kind kind;
    const char *path, *to;
    uint64_t offset, count;
    uint32_t tag; /* of the bytes that are written */
};

/* The volume's answer; it ends the program if the model's is another one. OP_SYNC: nothing for the model. */
enum status model_do(struct model *m, struct csv *volume, const struct model_op *op);

/* "" if it agrees, else what does not. */
const char *model_matches(const struct model *m, struct csv *volume);
const char *model_matches_any(const struct model *models, size_t count, struct csv *volume);

/* A random operation on what there is; paths are kept in `text` (two of 128 bytes). */
struct model_op model_random_op(const struct model *m, uint64_t *seed, char text[2][128]);

#endif
