/* SPDX-License-Identifier: MIT */
/*
 * The sections of a saved VM that are vm/'s own: which VM it is, its clock, what a vCPU has beside its registers, and
 * pages of memory and of disks. Pure core: structs in, payloads out, and back. docs/state-stream.md has the layouts.
 *
 * Every get function reads the payload of the section in which the reader stands, checks each value, and leaves words in
 * the reader's sticky error where one is wrong. The caller opens or has found the section and has checked its version.
 */
#ifndef VM_SAVE_STREAM_H
#define VM_SAVE_STREAM_H

#include "kernel/types.h"
#include "vm/config.h"
#include "vm/stream.h"

#define SAVE_VM_TAG "VM"
#define SAVE_CLOCK_TAG "CLOCK"
#define SAVE_VCPU_TAG "VCPU"
#define SAVE_DISK_TAG "DISK"
#define SAVE_CHUNK_TAG "DISKDATA"
#define SAVE_MEMORY_TAG "MEMORY"

/* Fails the reader, with the section's name, if its version is not among those that this node reads. */
void save_version(struct stream_reader *r, uint16_t oldest, uint16_t newest);

/* ---- "VM": whose state it is. Version 1 has no UUID ---- */

#define SAVE_VM_VERSION 2

struct save_vm {
    const struct config_vm *config;
    uint64_t memory_bytes; /* as the guest has it: whole 2 MiB frames */
    uint32_t reset_count;
    bool paused;           /* it was paused when it was saved */
};
void save_vm_put(const struct save_vm *vm, struct stream_writer *w);
/* The stream must be of a VM with the name, UUID and configuration of vm->config; fills in the rest. */
void save_vm_get(struct save_vm *vm, struct stream_reader *r);

/* ---- "CLOCK" ---- */

struct save_clock {
    uint64_t guest_ns;  /* the guest's monotonic clock when it was stopped */
    uint64_t guest_tsc; /* the TSC of a vCPU that never wrote its own, at the same moment */
    uint64_t unix_ns;   /* the world's time then: for a person */
    uint32_t tsc_khz;   /* as the CPU model has it */
};
void save_clock_put(const struct save_clock *clock, struct stream_writer *w);
/* tsc_khz: of the CPU model of the same stream. */
void save_clock_get(struct save_clock *clock, struct stream_reader *r, uint32_t tsc_khz);

/* ---- "VCPU": beside registers, APIC and MSRs ---- */

struct save_vcpu {
    uint64_t guest_tsc, tsc_adjust;
    bool nmi_pending;
    bool waits_for_sipi;
    bool init_signal, sipi_signal; /* arrived, not yet carried out */
    uint8_t sipi_vector;
};
void save_vcpu_put(const struct save_vcpu *vcpu, struct stream_writer *w);
void save_vcpu_get(struct save_vcpu *vcpu, struct stream_reader *r);

/* ---- "DISK": which disk it was, and how it was left. Version 1 has the bytes of an image alone ---- */

#define SAVE_DISK_VERSION 2
enum save_disk_kind {
    SAVE_DISK_IMAGE, /* a boot module, whose changes are in "DISKDATA" */
    SAVE_DISK_FILE,  /* a file on a volume */
    SAVE_DISK_UNIT,  /* a logical unit */
};
struct save_disk {
    enum save_disk_kind kind;
    const char *path;            /* as it is configured: for words, not in the stream */
    uint64_t bytes;
    uint64_t inode, generation;  /* a file's */
    int64_t modified_ns;         /* likewise */
    const char *identity;        /* a unit's; "": it tells none */
};
void save_disk_put(const struct save_disk *disk, struct stream_writer *w);
/* The stream must be of just this disk, which nobody has written since. */
void save_disk_get(const struct save_disk *disk, struct stream_reader *r);

/* ---- Pages: "MEMORY" (instance = guest physical address / 2 MiB) and "DISKDATA" ---- */

#define SAVE_FRAME_PAGES 512u
/* The pages of a frame of 2 MiB that a section holds: bit n of the map, page n. */
struct save_map {
    uint64_t bits[SAVE_FRAME_PAGES / 64];
};
/*
 * The pages of `frame` that are not the same as those of `base`: `base_bytes` bytes, zeros behind them (NULL with 0:
 * zeros only). Returns how many there are. `yield` is called between pages now and then; may be NULL.
 */
unsigned save_map_make(struct save_map *map, const void *frame, const void *base, uint64_t base_bytes,
                       void (*yield)(void));
/* Writes the map and its pages. */
void save_pages_put(const struct save_map *map, const void *frame, struct stream_writer *w, void (*yield)(void));
/* Reads them into `frame`, 2 MiB. Pages that are not in the map are left as they are. */
void save_pages_get(void *frame, struct stream_reader *r, void (*yield)(void));

/* ---- What is in a stream, for a person ---- */

/* Sections of one tag and version that follow each other. */
struct save_row {
    char tag[STREAM_TAG_BYTES + 1];
    uint32_t first, last; /* instances */
    uint16_t version;
    bool mandatory;
    uint64_t count, bytes; /* of payload */
};
/*
 * Lists the sections of which the reader (just initialised) can give out, into up to `room` rows; returns the rows. A
 * broken section is not in a row: r->error and r->error_text tell which it is.
 */
unsigned save_list(struct stream_reader *r, struct save_row *row, unsigned room, void (*yield)(void));

#endif
