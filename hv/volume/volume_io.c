/* SPDX-License-Identifier: MIT */
/*
 * Requests of files. See volume_file.h.
 *
 * A request gets a struct file_io, and has it until it is answered; what was cancelled has it until the disk has answered.
 *
 * Straight on. What lies in blocks that are written needs nothing of the volume but the map in memory, which is looked at
 * under the file's lock: whoever submits sends the first piece to the storage, and the storage's thread the next, one for
 * each stretch of disk.
 *
 * By the volume's thread goes all else, in the order in which it came:
 *   - the first write of blocks: they get a place in the map, as unwritten ones; the data goes to the disk, blocks that are
 *     written in part with zeros around it; when the disk has answered, they are entered as written, and the request is
 *     answered. Any number of requests is under way so, and all that they change is one transaction. A power cut between
 *     leaves blocks that read as zeros, never what they held before.
 *   - writes of blocks that another file shares, and discards, which the thread does alone (csv_write(), csv_punch());
 *   - reads of what is not written, which get zeros.
 * A request of this kind that changes the map waits until nothing is under way in its blocks, and keeps others out of them:
 * so no write lands in a block that has become another file's, and two writes of parts of a new block do not undo each
 * other's zeros.
 *
 * A flush covers what was answered before. Where the map has no changes that are not durable it is the disk's flush; else it
 * is csv_sync(), whose commit comes behind the disk's flush. So the map that leads to acknowledged data is as durable as
 * they are; for a write with FUA likewise.
 *
 * The requester's memory is touched under the file's lock and only while the request is still his: a cancel takes all
 * requests away at once, whatever the disk does. As long as the disk still has a piece of what was cancelled, nothing new is
 * begun: an old write must not land over a newer one.
 */
#include "volume/volume_private.h"

#include <stdio.h>
#include <string.h>

#include "kernel/log.h"
#include "kernel/time.h"

#define ZERO_BYTES 4096u
#define PATH_TOLD 80   /* characters of a file's path that a message shows */
#define TURN 32u /* requests of one file that the thread takes before it looks at others */

static const uint8_t zeroes[ZERO_BYTES];

void volume_io_unlock_and_wake(struct volume_file *f)
{
    struct volume *v = f->volume; /* the file may be gone as soon as it is unlocked */

    __atomic_store_n(&f->work, true, __ATOMIC_RELEASE);
    spin_unlock(&f->lock);
    wake_all(&v->wake);
}

/* ---- Slots; the file's lock is held ---- */

static void put_free(struct file_io *io)
{
    io->state = IO_FREE;
    io->was_stuck = false;
    io->whole = NULL;
    io->next = io->file->free;
    io->file->free = io;
    io->file->busy--;
}

static void append(struct volume_file *f, struct file_io *io)
{
    io->state = IO_WAITS;
    io->next = NULL;
    *f->waiting_end = io;
    f->waiting_end = &io->next;
}

/* One that was taken out of those that wait, and has to wait on. */
static void put_back(struct file_io *io)
{
    struct volume_file *f = io->file;

    f->exclusive -= io->exclusive;
    io->exclusive = io->fill = false;
    io->at = 0;
    io->state = IO_WAITS;
    if (!(io->next = f->waiting))
        f->waiting_end = &io->next;
    f->waiting = io;
}

/* ---- Ends; the file's lock is held, and given back ---- */

static void end(struct file_io *io, enum status status)
{
    struct volume_file *f = io->file;
    struct disk_request *whole = io->whole;

    if (unlikely(io->was_stuck && f->told && !f->stuck)) { /* however it ends */
        f->told = false;
        f->user->freed(f->user);
    }
    f->exclusive -= io->exclusive;
    f->cancelled -= !whole;
    put_free(io);
    bool more = f->waiting || f->exclusive || !f->user;
    if (whole)
        whole->done(whole, status);
    if (more)
        volume_io_unlock_and_wake(f);
    else
        spin_unlock(&f->lock);
}

/* ---- Pieces ---- */

/* Bytes of the piece that are the request's; in front of them and behind them are zeros. */
static bool get(struct disk_request *piece, uint64_t at, void *bytes, uint32_t count)
{
    struct file_io *io = piece->owner;
    uint8_t *to = bytes;
    bool ok = true;

    for (uint32_t part; ok && count; at += part, to += part, count -= part) {
        if (at < io->lead || at >= io->lead + io->part) {
            part = (uint32_t)MIN(count, at < io->lead ? io->lead - at : UINT32_MAX);
            memset(to, 0, part);
            continue;
        }
        part = (uint32_t)MIN(count, io->lead + io->part - at);
        spin_lock(&io->file->lock);
        ok = io->whole && io->whole->get(io->whole, io->at + (at - io->lead), to, part);
        spin_unlock(&io->file->lock);
    }
    return ok;
}

static bool put(struct disk_request *piece, uint64_t at, const void *bytes, uint32_t count)
{
    struct file_io *io = piece->owner;

    spin_lock(&io->file->lock);
    bool ok = io->whole && io->whole->put(io->whole, io->at + at, bytes, count);
    spin_unlock(&io->file->lock);
    return ok;
}

static void set_piece(struct file_io *io, uint64_t disk_offset, uint64_t bytes)
{
    io->piece.op = io->op;
    io->piece.fua = io->fua;
    io->piece.offset = disk_offset;
    io->piece.bytes = bytes;
    io->lead = 0;
    io->part = bytes;
}

/* Makes what comes next of a request a piece, if it can go to the disk as things are. The file's lock is held. */
static bool next_piece(struct file_io *io)
{
    struct csv_mapping map;

    if (unlikely(!csv_map_now(io->file->csv, io->offset + io->at, io->bytes - io->at, &map)))
        return false;
    if (likely(map.kind == CSV_MAP_WRITTEN || (map.kind == CSV_MAP_SHARED && io->op == DISK_READ))) {
        set_piece(io, map.disk_offset, map.bytes);
        return true;
    }
    if (map.kind != CSV_MAP_UNWRITTEN || !io->fill)
        return false;
    uint64_t first = ALIGN_DOWN(map.disk_offset, CSV_BLOCK_BYTES);
    set_piece(io, first, ALIGN_UP(map.disk_offset + map.bytes, CSV_BLOCK_BYTES) - first);
    io->lead = map.disk_offset - first;
    io->part = map.bytes;
    return true;
}

static void send(struct file_io *io)
{
    storage_submit(io->file->volume->disk.storage, &io->piece);
}

/* The storage's thread. */
static void piece_done(struct disk_request *piece, enum status status)
{
    struct file_io *io = piece->owner;
    struct volume_file *f = io->file;

    spin_lock(&f->lock);
    io->at += io->part;
    if (unlikely(status != OK || !io->whole)) {
        end(io, status);
        return;
    }
    if (io->at < io->bytes && next_piece(io)) {
        spin_unlock(&f->lock);
        send(io);
        return;
    }
    if (io->at == io->bytes && !io->fill && !(io->fua && f->changed)) {
        end(io, OK);
        return;
    }
    io->state = IO_THREAD;
    io->next = f->back;
    f->back = io;
    volume_io_unlock_and_wake(f);
}

/* ---- Straight on ---- */

/* Whether a write finds nothing but written blocks. The file's lock is held, and the map is in memory. */
static bool all_written(struct volume_file *f, uint64_t at, uint64_t end)
{
    struct csv_mapping map;

    for (; at < end; at += map.bytes)
        if (!csv_map_now(f->csv, at, end - at, &map) || map.kind != CSV_MAP_WRITTEN)
            return false;
    return true;
}

static bool goes_straight(struct volume_file *f, struct file_io *io)
{
    if (f->waiting || f->exclusive || f->cancelled)
        return false;
    switch (io->op) {
    case DISK_READ:
        return io->bytes && next_piece(io);
    case DISK_WRITE:
        return io->bytes && next_piece(io) && (likely(io->part == io->bytes) ||
                                               all_written(f, io->offset + io->part, io->offset + io->bytes));
    case DISK_FLUSH:
        if (f->changed)
            return false;
        set_piece(io, 0, 0);
        return true;
    default:
        return false;
    }
}

void volume_io_submit(struct volume_file *f, struct disk_request *request)
{
    spin_lock(&f->lock);
    struct file_io *io = f->free;
    if (unlikely(!io || f->over)) {
        spin_unlock(&f->lock);
        request->done(request, io ? ERR_CANCELLED : ERR_BUSY);
        return;
    }
    f->free = io->next;
    f->busy++;
    io->whole = request;
    io->op = request->op;
    io->fua = request->fua;
    io->exclusive = io->fill = false;
    io->offset = request->offset;
    io->bytes = request->bytes;
    io->at = 0;
    if (likely(goes_straight(f, io))) {
        io->state = IO_DISK;
        spin_unlock(&f->lock);
        send(io);
        return;
    }
    append(f, io);
    volume_io_unlock_and_wake(f);
}

void volume_io_cancel(struct volume_file *f)
{
    for (unsigned i = 0; i < VOLUME_IOS; i++) {
        struct file_io *io = &f->io[i];
        struct disk_request *whole = io->whole;
        if (io->state == IO_FREE || !whole)
            continue;
        if (io->state == IO_WAITS)
            put_free(io);
        else
            f->cancelled++;
        io->whole = NULL;
        whole->done(whole, ERR_CANCELLED);
    }
    f->waiting = NULL;
    f->waiting_end = &f->waiting;
    f->stuck = f->told = false;
}

void volume_io_init(struct volume_file *f)
{
    f->waiting_end = &f->waiting;
    f->busy = VOLUME_IOS;
    for (unsigned i = 0; i < VOLUME_IOS; i++) {
        f->io[i].file = f;
        f->io[i].piece.get = get;
        f->io[i].piece.put = put;
        f->io[i].piece.done = piece_done;
        f->io[i].piece.owner = &f->io[i];
        put_free(&f->io[i]);
    }
}

/* ---- What cannot be done ---- */

static const char *cause_of(enum status status)
{
    switch (status) {
    case ERR_NO_SPACE: return "is full; remove files there that are not needed, or give its disk more room";
    case ERR_NO_MEMORY: return "has no memory left on this node; stop another VM";
    default: return "takes no more changes, since its disk failed; see to the disk and restart the node";
    }
}

/* It waits on, and the user is told; what comes behind it waits too. */
static void get_stuck(struct file_io *io, enum status status)
{
    struct volume_file *f = io->file;
    char text[STORAGE_TEXT];

    spin_lock(&f->lock);
    if (!io->whole) {
        end(io, ERR_CANCELLED);
        return;
    }
    put_back(io);
    f->stuck = f->told = io->was_stuck = f->volume->stuck = true;
    snprintf(text, sizeof text, "%.*s: volume %.40s %s", PATH_TOLD, f->path, f->volume->name, cause_of(status));
    f->user->stuck(f->user, text);
    spin_unlock(&f->lock);
}

/* A request of the thread's ends so, or is tried again later where that is of use. */
static void over(struct file_io *io, enum status status)
{
    static const char *const names[] = { "read", "write", "flush", "discard", "zeroing" };
    struct volume_file *f = io->file;

    if (status == ERR_NO_SPACE || status == ERR_NO_MEMORY || status == ERR_READ_ONLY) {
        get_stuck(io, status);
        return;
    }
    if (status != OK && status != ERR_CANCELLED && status != ERR_FENCED)
        log_error("volume %s: a %s of %lu bytes at %lu in %s failed (%s)%s%s", f->volume->name, names[io->op], io->bytes,
                  io->offset, f->path, status_name(status), status == ERR_CORRUPT ? ": " : "",
                  status == ERR_CORRUPT ? csv_problem(f->volume->csv) : "");
    spin_lock(&f->lock);
    end(io, status);
}

/* ---- The volume's thread ---- */

enum status volume_files_sync(struct volume *v)
{
    csv_set_time(v->csv, (int64_t)time_unix_ns());
    enum status status = csv_sync(v->csv);
    v->dirty = status == ERR_NO_MEMORY; /* another time */
    if (status != OK)
        return status;
    for (struct volume_file *f = v->files; f; f = f->next) {
        spin_lock(&f->lock);
        f->changed = false;
        spin_unlock(&f->lock);
    }
    return OK;
}

/* To be called before the request that needs it is answered. */
static void map_changed(struct volume_file *f)
{
    f->volume->dirty = true;
    spin_lock(&f->lock);
    f->changed = true;
    spin_unlock(&f->lock);
}

/* For a request: what cannot be made durable is as if the volume took no changes, for nobody knows what is. */
static enum status make_durable(struct volume *v)
{
    enum status status = volume_files_sync(v);

    return status == OK || status == ERR_NO_MEMORY ? status : ERR_READ_ONLY;
}

/* All pieces are done. */
static void complete(struct file_io *io)
{
    struct volume_file *f = io->file;
    enum status status = OK;

    if (io->fill) {
        csv_set_time(f->volume->csv, (int64_t)time_unix_ns());
        status = csv_converted(f->csv, io->offset, io->bytes);
        map_changed(f);
    }
    if (status == OK && io->fua && f->changed)
        status = make_durable(f->volume);
    over(io, status);
}

static enum status give_zeroes(struct file_io *io, uint64_t bytes)
{
    enum status status = OK;

    for (uint64_t done = 0, part; status == OK && done < bytes; done += part) {
        part = MIN(bytes - done, (uint64_t)ZERO_BYTES);
        spin_lock(&io->file->lock);
        if (!io->whole)
            status = ERR_CANCELLED;
        else if (!io->whole->put(io->whole, io->at + done, zeroes, (uint32_t)part))
            status = ERR_IO;
        spin_unlock(&io->file->lock);
    }
    io->at += bytes;
    return status;
}

/* It waits again, as if nothing of it was done. */
static void begin_anew(struct file_io *io)
{
    struct volume_file *f = io->file;

    spin_lock(&f->lock);
    if (!io->whole) {
        end(io, ERR_CANCELLED);
        return;
    }
    put_back(io);
    volume_io_unlock_and_wake(f);
}

/* Sends the next piece, or ends the request. */
static void go_on(struct file_io *io)
{
    struct volume_file *f = io->file;
    struct csv_mapping map;

    while (io->at < io->bytes) {
        spin_lock(&f->lock);
        if (!io->whole) {
            end(io, ERR_CANCELLED);
            return;
        }
        if (next_piece(io)) {
            io->state = IO_DISK;
            spin_unlock(&f->lock);
            send(io);
            return;
        }
        spin_unlock(&f->lock);
        enum status status = csv_map(f->csv, io->offset + io->at, io->bytes - io->at, &map);
        if (status == OK && (map.kind == CSV_MAP_HOLE || map.kind == CSV_MAP_UNWRITTEN) && io->op == DISK_READ)
            status = give_zeroes(io, map.bytes);
        else if (status == OK && io->op == DISK_WRITE && map.kind != CSV_MAP_WRITTEN && !(io->fill && map.kind == CSV_MAP_UNWRITTEN)) {
            begin_anew(io); /* somebody has held the file, and changed its map */
            return;
        }
        if (status != OK) {
            over(io, status);
            return;
        }
    }
    complete(io);
}

enum way { STRAIGHT, FILL, COPY, PUNCH, FLUSH };

/* How the first request that waits is done. `holes`: some of its blocks have no place yet. */
static enum status way_of(struct file_io *io, enum way *way, bool *holes)
{
    struct csv_mapping map;

    *holes = false;
    *way = io->op == DISK_FLUSH ? FLUSH : io->op == DISK_READ || io->op == DISK_WRITE ? STRAIGHT : PUNCH;
    for (uint64_t at = 0; io->op == DISK_WRITE && at < io->bytes; at += map.bytes) {
        enum status status = csv_map(io->file->csv, io->offset + at, io->bytes - at, &map);
        if (status != OK)
            return status;
        *holes |= map.kind == CSV_MAP_HOLE;
        if (map.kind == CSV_MAP_SHARED)
            *way = COPY;
        else if (map.kind != CSV_MAP_WRITTEN && *way == STRAIGHT)
            *way = FILL;
    }
    return OK;
}

static enum status copy(struct file_io *io)
{
    struct volume_file *f = io->file;
    uint8_t *buffer = f->volume->buffer;
    enum status status = OK;

    for (uint64_t at = 0, part; at < io->bytes && status == OK; at += part) {
        part = MIN(io->bytes - at, (uint64_t)VOLUME_BUFFER_BYTES);
        spin_lock(&f->lock);
        if (!io->whole)
            status = ERR_CANCELLED;
        else if (!io->whole->get(io->whole, at, buffer, (uint32_t)part))
            status = ERR_IO;
        spin_unlock(&f->lock);
        if (status == OK)
            status = csv_write(f->csv, io->offset + at, buffer, part);
    }
    return status;
}

static void flush(struct file_io *io)
{
    struct volume_file *f = io->file;

    if (f->changed) {
        over(io, make_durable(f->volume));
        return;
    }
    spin_lock(&f->lock);
    set_piece(io, 0, 0);
    io->state = IO_DISK;
    spin_unlock(&f->lock);
    send(io);
}

static void carry_out(struct file_io *io, enum way way, bool holes)
{
    struct volume_file *f = io->file;
    enum status status = OK;

    csv_set_time(f->volume->csv, (int64_t)time_unix_ns());
    switch (way) {
    case FLUSH:
        flush(io);
        return;
    case FILL:
        if (holes) {
            status = csv_preallocate(f->csv, io->offset, io->bytes);
            map_changed(f);
        }
        io->fill = true;
        break;
    case COPY:
        status = copy(io);
        break;
    case PUNCH:
        status = csv_punch(f->csv, io->offset, io->bytes);
        break;
    case STRAIGHT:
        break;
    }
    if (way == COPY || way == PUNCH) {
        map_changed(f);
        io->at = io->bytes;
    }
    if (status == OK)
        go_on(io);
    else
        over(io, status);
}

static bool overlap(const struct file_io *a, const struct file_io *b)
{
    uint64_t a_first = a->offset >> CSV_BLOCK_SHIFT, b_first = b->offset >> CSV_BLOCK_SHIFT;
    uint64_t a_end = (a->offset + a->bytes + CSV_BLOCK_BYTES - 1) >> CSV_BLOCK_SHIFT;
    uint64_t b_end = (b->offset + b->bytes + CSV_BLOCK_BYTES - 1) >> CSV_BLOCK_SHIFT;

    return a_first < b_end && b_first < a_end;
}

/* Something is under way in the blocks of a request that must not be. The file's lock is held. */
static bool conflicts(const struct volume_file *f, const struct file_io *io, bool exclusive)
{
    for (unsigned i = 0; i < VOLUME_IOS; i++) {
        const struct file_io *other = &f->io[i];
        if (other != io && (other->state == IO_DISK || other->state == IO_THREAD) && (exclusive || other->exclusive) &&
            overlap(io, other))
            return true;
    }
    return false;
}

static struct file_io *take_first(struct volume_file *f)
{
    spin_lock(&f->lock);
    struct file_io *io = f->cancelled || f->stuck ? NULL : f->waiting;
    if (io) {
        if (!(f->waiting = io->next))
            f->waiting_end = &f->waiting;
        io->state = IO_THREAD;
    }
    spin_unlock(&f->lock);
    return io;
}

/* Begins the first request that waits. False: there is none, or it has to wait on. */
static bool begin(struct volume_file *f)
{
    struct file_io *io = take_first(f);
    bool holes;
    enum way way;

    if (!io)
        return false;
    enum status status = way_of(io, &way, &holes);
    if (status != OK) {
        over(io, status);
        return true;
    }
    bool exclusive = way == FILL || way == COPY || way == PUNCH;
    spin_lock(&f->lock);
    if (!io->whole) {
        end(io, ERR_CANCELLED);
        return true;
    }
    if (conflicts(f, io, exclusive)) {
        put_back(io);
        spin_unlock(&f->lock);
        return false;
    }
    io->exclusive = exclusive;
    f->exclusive += exclusive;
    spin_unlock(&f->lock);
    carry_out(io, way, holes);
    return true;
}

static struct file_io *take_back(struct volume_file *f)
{
    spin_lock(&f->lock);
    struct file_io *io = f->back;
    if (io)
        f->back = io->next;
    spin_unlock(&f->lock);
    return io;
}

bool volume_io_work(struct volume_file *f)
{
    bool did = false;
    unsigned begun = 0;

    if (!__atomic_exchange_n(&f->work, false, __ATOMIC_ACQUIRE))
        return false;
    for (struct file_io *io; (io = take_back(f)) != NULL; did = true)
        go_on(io);
    while (begun < TURN && begin(f))
        begun++;
    if (begun == TURN)
        __atomic_store_n(&f->work, true, __ATOMIC_RELEASE);
    return did || begun;
}

/* ---- Holding ---- */

static bool at_disk(struct volume_file *f)
{
    bool some = false;

    spin_lock(&f->lock);
    for (unsigned i = 0; i < VOLUME_IOS; i++)
        some |= f->io[i].state == IO_DISK && f->io[i].op != DISK_FLUSH;
    spin_unlock(&f->lock);
    return some;
}

void volume_io_hold(struct volume_file *f)
{
    spin_lock(&f->lock);
    f->exclusive++;
    spin_unlock(&f->lock);
    wait_event(&f->volume->wake, !at_disk(f));
}

void volume_io_release(struct volume_file *f)
{
    spin_lock(&f->lock);
    f->exclusive--;
    volume_io_unlock_and_wake(f);
}
