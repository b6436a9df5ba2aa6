/* SPDX-License-Identifier: MIT */
/*
 * Payloads of the sections that vm/ writes itself. See save_stream.h, and docs/state-stream.md for the bytes.
 *
 * What a stream says about a VM (memory, vCPUs, disks) is never used to build one: it is compared with the VM's own
 * configuration, so that a stream of another VM is refused by the first thing that differs.
 */
#include "vm/save_stream.h"

#include <string.h>

#define NO_STRING UINT32_MAX
/* A guest that has run for longer than this, 146 years, has not. */
#define GUEST_NS_MAX BIT(62)
#define FLAG_PAUSED BIT(0)
#define FLAG_NMI BIT(0)
#define FLAG_WAITS BIT(1)
#define FLAG_INIT BIT(2)
#define FLAG_SIPI BIT(3)
#define YIELD_PAGES 16u
#define TOLD_PATH 80u /* bytes that a message shows of a path */

void save_version(struct stream_reader *r, uint16_t oldest, uint16_t newest)
{
    if (r->version > newest)
        stream_fail(r, ERR_VERSION, "version %u, this node reads %u: update it", r->version, newest);
    else if (r->version < oldest)
        stream_fail(r, ERR_VERSION, "version %u, this node reads %u: an older one wrote it", r->version, newest);
}

/* ---- VM ---- */

static void put_string(struct stream_writer *w, const char *string)
{
    if (!string) {
        stream_put_u32(w, NO_STRING);
        return;
    }
    stream_put_u32(w, (uint32_t)strlen(string));
    stream_put_bytes(w, string, strlen(string));
}

void save_vm_put(const struct save_vm *vm, struct stream_writer *w)
{
    const struct config_vm *config = vm->config;

    put_string(w, config->name);
    stream_put_u64(w, vm->memory_bytes);
    stream_put_u32(w, config->vcpus);
    stream_put_u32(w, vm->reset_count);
    stream_put_u32(w, vm->paused ? (uint32_t)FLAG_PAUSED : 0);
    put_string(w, config->kernel);
    put_string(w, config->initrd);
    put_string(w, config->cmdline);
    put_string(w, config->cpu);
    stream_put_u32(w, config->disk_count);
    for (uint32_t i = 0; i < config->disk_count; i++)
        put_string(w, config->disks[i]);
    put_string(w, config->uuid);
}

/* Compares piece by piece: no string of the stream is ever held. */
static void match_string(struct stream_reader *r, const char *expected, const char *what)
{
    uint32_t count = stream_get_u32(r);
    bool same = expected ? count == strlen(expected) : count == NO_STRING;
    char bytes[64];

    if (count == NO_STRING)
        count = 0;
    for (uint32_t done = 0, step; done < count && !r->error && same; done += step) {
        step = MIN(count - done, (uint32_t)sizeof bytes);
        stream_get_bytes(r, bytes, step);
        same = !memcmp(bytes, expected + done, step);
    }
    if (!same)
        stream_fail(r, ERR_INVALID, "its %s is not that of this VM: the state is of another one", what);
}

void save_vm_get(struct save_vm *vm, struct stream_reader *r)
{
    const struct config_vm *config = vm->config;

    match_string(r, config->name, "name");
    uint64_t memory = stream_get_u64(r);
    uint32_t vcpus = stream_get_u32(r);
    vm->reset_count = stream_get_u32(r);
    uint32_t flags = stream_get_u32(r);
    vm->paused = flags & FLAG_PAUSED;
    if (r->error)
        return;
    if (memory != vm->memory_bytes)
        stream_fail(r, ERR_INVALID, "%llu bytes of memory, this VM has %llu", (unsigned long long)memory,
                    (unsigned long long)vm->memory_bytes);
    if (vcpus != config->vcpus)
        stream_fail(r, ERR_INVALID, "%u vCPUs, this VM has %u", vcpus, config->vcpus);
    if (flags & ~FLAG_PAUSED)
        stream_fail(r, ERR_CORRUPT, "unknown flags 0x%x", flags);
    match_string(r, config->kernel, "kernel");
    match_string(r, config->initrd, "initrd");
    match_string(r, config->cmdline, "cmdline");
    match_string(r, config->cpu, "cpu");
    uint32_t disks = stream_get_u32(r);
    if (!r->error && disks != config->disk_count)
        stream_fail(r, ERR_INVALID, "%u disks, this VM has %u", disks, config->disk_count);
    for (uint32_t i = 0; i < config->disk_count && !r->error; i++)
        match_string(r, config->disks[i], "disk");
    if (r->version >= 2)
        match_string(r, config->uuid, "uuid");
    if (stream_left(r))
        stream_fail(r, ERR_CORRUPT, "it is longer than its fields");
}

/* ---- CLOCK ---- */

void save_clock_put(const struct save_clock *clock, struct stream_writer *w)
{
    stream_put_u64(w, clock->guest_ns);
    stream_put_u64(w, clock->guest_tsc);
    stream_put_u64(w, clock->unix_ns);
    stream_put_u32(w, clock->tsc_khz);
}

void save_clock_get(struct save_clock *clock, struct stream_reader *r, uint32_t tsc_khz)
{
    clock->guest_ns = stream_get_u64(r);
    clock->guest_tsc = stream_get_u64(r);
    clock->unix_ns = stream_get_u64(r);
    clock->tsc_khz = stream_get_u32(r);
    if (r->error)
        return;
    if (clock->guest_ns > GUEST_NS_MAX)
        stream_fail(r, ERR_CORRUPT, "a guest's clock at %llu ns", (unsigned long long)clock->guest_ns);
    if (clock->tsc_khz != tsc_khz)
        stream_fail(r, ERR_CORRUPT, "a TSC of %u kHz, the CPU model has %u", clock->tsc_khz, tsc_khz);
    if (stream_left(r))
        stream_fail(r, ERR_CORRUPT, "it is longer than its fields");
}

/* ---- VCPU ---- */

void save_vcpu_put(const struct save_vcpu *vcpu, struct stream_writer *w)
{
    stream_put_u64(w, vcpu->guest_tsc);
    stream_put_u64(w, vcpu->tsc_adjust);
    stream_put_u8(w, (uint8_t)((vcpu->nmi_pending ? FLAG_NMI : 0) | (vcpu->waits_for_sipi ? FLAG_WAITS : 0) |
                               (vcpu->init_signal ? FLAG_INIT : 0) | (vcpu->sipi_signal ? FLAG_SIPI : 0)));
    stream_put_u8(w, vcpu->sipi_vector);
}

void save_vcpu_get(struct save_vcpu *vcpu, struct stream_reader *r)
{
    vcpu->guest_tsc = stream_get_u64(r);
    vcpu->tsc_adjust = stream_get_u64(r);
    uint8_t flags = stream_get_u8(r);
    vcpu->nmi_pending = flags & FLAG_NMI;
    vcpu->waits_for_sipi = flags & FLAG_WAITS;
    vcpu->init_signal = flags & FLAG_INIT;
    vcpu->sipi_signal = flags & FLAG_SIPI;
    vcpu->sipi_vector = stream_get_u8(r);
    if (r->error)
        return;
    if (flags & ~(FLAG_NMI | FLAG_WAITS | FLAG_INIT | FLAG_SIPI))
        stream_fail(r, ERR_CORRUPT, "unknown flags 0x%x", flags);
    if (vcpu->waits_for_sipi && r->instance == 0)
        stream_fail(r, ERR_CORRUPT, "the boot vCPU waits for a start-up message");
    if (stream_left(r))
        stream_fail(r, ERR_CORRUPT, "it is longer than its fields");
}

/* ---- DISK ---- */

void save_disk_put(const struct save_disk *disk, struct stream_writer *w)
{
    stream_put_u64(w, disk->bytes);
    stream_put_u32(w, disk->kind);
    if (disk->kind == SAVE_DISK_FILE) {
        stream_put_u64(w, disk->inode);
        stream_put_u64(w, disk->generation);
        stream_put_u64(w, (uint64_t)disk->modified_ns);
    } else if (disk->kind == SAVE_DISK_UNIT) {
        put_string(w, disk->identity);
    }
}

/* Its end tells most. */
static const char *told_path(const struct save_disk *disk)
{
    size_t bytes = strlen(disk->path);

    return disk->path + (bytes > TOLD_PATH ? bytes - TOLD_PATH : 0);
}

static void match_file(const struct save_disk *disk, struct stream_reader *r, uint64_t bytes)
{
    uint64_t inode = stream_get_u64(r), generation = stream_get_u64(r);
    int64_t modified_ns = (int64_t)stream_get_u64(r);

    if (r->error)
        return;
    if (inode != disk->inode || generation != disk->generation)
        stream_fail(r, ERR_INVALID, "%s is another file now, put there since", told_path(disk));
    else if (bytes != disk->bytes)
        stream_fail(r, ERR_INVALID, "%s had %llu bytes and has %llu now", told_path(disk), (unsigned long long)bytes,
                    (unsigned long long)disk->bytes);
    else if (modified_ns != disk->modified_ns)
        stream_fail(r, ERR_INVALID, "%s was written to, or was a running VM's disk, since", told_path(disk));
}

static void match_unit(const struct save_disk *disk, struct stream_reader *r, uint64_t bytes)
{
    uint32_t count = stream_get_u32(r);
    bool same = count == strlen(disk->identity);
    char piece[64];

    for (uint32_t done = 0, step; done < count && !r->error && same; done += step) {
        step = MIN(count - done, (uint32_t)sizeof piece);
        stream_get_bytes(r, piece, step);
        same = !memcmp(piece, disk->identity + done, step);
    }
    if (!same)
        stream_fail(r, ERR_INVALID, "%s is another unit now: %.40s", told_path(disk), disk->identity);
    else if (bytes != disk->bytes)
        stream_fail(r, ERR_INVALID, "%s had %llu bytes and has %llu now", told_path(disk), (unsigned long long)bytes,
                    (unsigned long long)disk->bytes);
}

void save_disk_get(const struct save_disk *disk, struct stream_reader *r)
{
    uint64_t bytes = stream_get_u64(r);
    uint32_t kind = r->version >= 2 ? stream_get_u32(r) : disk->kind;

    if (r->error)
        return;
    if (kind != disk->kind) {
        stream_fail(r, ERR_CORRUPT, "it is of another kind of disk than %s", told_path(disk));
    } else if (kind == SAVE_DISK_IMAGE) {
        if (bytes != disk->bytes)
            stream_fail(r, ERR_INVALID, "its image had %llu bytes, the one that this node has read has %llu",
                        (unsigned long long)bytes, (unsigned long long)disk->bytes);
    } else if (r->version >= 2) {
        (kind == SAVE_DISK_FILE ? match_file : match_unit)(disk, r, bytes);
    }
    if (stream_left(r))
        stream_fail(r, ERR_CORRUPT, "it is longer than its fields");
}

/* ---- Pages ---- */

static bool page_differs(const uint8_t *page, const uint8_t *base, uint64_t base_bytes)
{
    uint64_t same = MIN(base_bytes, PAGE_BYTES);
    uint64_t word;

    if (same && memcmp(page, base, same))
        return true;
    for (; same % sizeof word && same < PAGE_BYTES; same++)
        if (page[same])
            return true;
    for (; same < PAGE_BYTES; same += sizeof word) {
        memcpy(&word, page + same, sizeof word);
        if (word)
            return true;
    }
    return false;
}

static void maybe_yield(unsigned page, void (*yield)(void))
{
    if (yield && page % YIELD_PAGES == YIELD_PAGES - 1)
        yield();
}

static bool has(const struct save_map *map, unsigned page)
{
    return map->bits[page / 64] >> page % 64 & 1;
}

unsigned save_map_make(struct save_map *map, const void *frame, const void *base, uint64_t base_bytes,
                       void (*yield)(void))
{
    unsigned count = 0;

    memset(map, 0, sizeof *map);
    for (unsigned n = 0; n < SAVE_FRAME_PAGES; n++) {
        uint64_t offset = n * PAGE_BYTES, left = base_bytes > offset ? base_bytes - offset : 0;
        if (page_differs((const uint8_t *)frame + offset, left ? (const uint8_t *)base + offset : NULL, left)) {
            map->bits[n / 64] |= BIT(n % 64);
            count++;
        }
        maybe_yield(n, yield);
    }
    return count;
}

void save_pages_put(const struct save_map *map, const void *frame, struct stream_writer *w, void (*yield)(void))
{
    for (unsigned i = 0; i < ARRAY_COUNT(map->bits); i++)
        stream_put_u64(w, map->bits[i]);
    for (unsigned n = 0; n < SAVE_FRAME_PAGES; n++) {
        if (!has(map, n))
            continue;
        stream_put_bytes(w, (const uint8_t *)frame + n * PAGE_BYTES, PAGE_BYTES);
        maybe_yield(n, yield);
    }
}

void save_pages_get(void *frame, struct stream_reader *r, void (*yield)(void))
{
    struct save_map map;
    unsigned count = 0;

    for (unsigned i = 0; i < ARRAY_COUNT(map.bits); i++)
        map.bits[i] = stream_get_u64(r);
    for (unsigned n = 0; n < SAVE_FRAME_PAGES; n++)
        count += has(&map, n);
    if (!r->error && stream_left(r) != count * PAGE_BYTES)
        stream_fail(r, ERR_CORRUPT, "%llu bytes of pages, its map says %u pages", (unsigned long long)stream_left(r),
                    count);
    for (unsigned n = 0; n < SAVE_FRAME_PAGES && !r->error; n++) {
        if (!has(&map, n))
            continue;
        stream_get_bytes(r, (uint8_t *)frame + n * PAGE_BYTES, PAGE_BYTES);
        maybe_yield(n, yield);
    }
}

/* ---- A list ---- */

unsigned save_list(struct stream_reader *r, struct save_row *row, unsigned room, void (*yield)(void))
{
    struct save_row *last = NULL;
    unsigned count = 0;

    while (stream_next(r)) {
        bool mandatory = r->flags & STREAM_MANDATORY;
        if (!last || strcmp(last->tag, r->tag) || last->version != r->version || last->mandatory != mandatory) {
            if (count == room)
                break;
            last = &row[count++];
            *last = (struct save_row){ .first = r->instance, .version = r->version, .mandatory = mandatory };
            memcpy(last->tag, r->tag, sizeof last->tag);
        }
        last->last = r->instance;
        last->count++;
        last->bytes += stream_left(r);
        if (yield)
            yield();
    }
    return count;
}
