/* SPDX-License-Identifier: MIT */
/*
 * The sections of a machine's state stream: what each is about, who writes its body and who takes it back. Private to
 * save.c, which walks them in this order.
 */
#ifndef VM_SAVE_PARTS_H
#define VM_SAVE_PARTS_H

#include "vm/machine.h"
#include "vm/save_stream.h"

/* Where a save or a restore is. */
struct save_walk {
    struct vm *vm;
    uint64_t now;             /* guest ns */
    struct machine_cpu *cpu;  /* of a section of a vCPU */
    uint32_t disk_number;
    struct virtio_device *device;
    struct save_vm info;
    struct save_map map;      /* of the frame or the chunk under way */
    const void *frame;
    uint64_t offset;
    uint64_t next_frame;      /* restoring memory: frames come in ascending order */
};

enum save_scope { ONCE, EACH_CPU, EACH_DEVICE, EACH_DISK, ANY };

struct save_part {
    const char *tag;
    uint16_t oldest, version; /* that are read; the latter is written */
    enum save_scope scope; /* which instances there must be */
    void (*put)(struct stream_writer *w, void *walk);           /* the body of one section, or */
    void (*whole)(struct save_walk *walk, struct stream_writer *w); /* writes them itself; locked but for ANY */
    void (*get)(struct save_walk *walk, struct stream_reader *r);    /* NULL: read_head does it */
};

#define SAVE_PARTS 21
#define SAVE_HEAD_PARTS 3 /* the first ones: what a machine is built from */
extern const struct save_part save_parts[SAVE_PARTS];

/* The instances that a section of that scope must have, a bit each; of ANY it may have any, so 0. */
uint64_t save_instances(const struct vm *vm, enum save_scope scope);
/* Points the walk at what the section is about. */
void save_select(struct save_walk *k, enum save_scope scope, uint32_t instance);

#endif
