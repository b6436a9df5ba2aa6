/* SPDX-License-Identifier: MIT */
/*
 * What a volume costs a request over the disk below it, in instructions: the node's own code (hv/volume, csv), compiled for
 * Linux without sanitizers (`make build/volume_path`), on a storage that answers at once. Prints lines `NAME,UNIT,VALUE`:
 *
 *   volume_EXTENTS_OP_depthN,instructions,...   a 4 KiB request of a file of so many extents, all that the volume adds to
 *                                               storage_submit(), the storage's work and its answer
 *
 * A child does the requests; its parent lets it go instruction by instruction (PTRACE_SINGLESTEP) between two traps, and
 * counts. So the figures are exact, and the same on each machine.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include "volume/volume_file.c"
#include "volume/volume_io.c"

#include "csv/tree.h"
#include "csv/volume.h"
#include "fake_csv_disk.h"
#include "kernel/log.h"

#define BLOCK 4096u
#define REQUESTS 64u
#define MAX_DEPTH 32u

static struct volume volume;
static struct fake_memory memory;

/* ---- What the files above stand on ---- */

static struct disk_request *sent[MAX_DEPTH];
static unsigned sent_count;

void storage_submit(struct storage *storage, struct disk_request *request)
{
    (void)storage;
    sent[sent_count++] = request;
}

/* The storage's thread: the data in one piece, and the answer. */
static void answer_all(void)
{
    static uint8_t bytes[BLOCK];

    for (unsigned i = 0; i < sent_count; i++) {
        struct disk_request *request = sent[i];
        if (request->op == DISK_READ)
            (void)!request->put(request, 0, bytes, BLOCK);
        else
            (void)!request->get(request, 0, bytes, BLOCK);
        request->done(request, OK);
    }
    sent_count = 0;
}

void wake_all(struct wait_queue *queue) { (void)queue; }
void wait_prepare(struct wait_queue *queue) { (void)queue; }
void wait_finish(struct wait_queue *queue) { (void)queue; }
void wait_block(uint64_t deadline_ns) { (void)deadline_ns; }
uint64_t time_now_ns(void) { return 1000; }
uint64_t time_unix_ns(void) { return 1000; }
bool storage_will_come(const char *name) { return (void)name, false; }
bool storage_info_get(unsigned i, struct storage_info *info) { return (void)i, (void)info, false; }
bool volume_disk_is_fenced(const struct volume_disk *disk) { return (void)disk, false; }
bool volume_disk_is_lost(struct volume_disk *disk, char *why) { return (void)disk, (void)why, false; }
bool volume_info_get(unsigned i, struct volume_info *info) { return (void)i, (void)info, false; }
struct volume *volume_first(void) { return &volume; }
struct volume *volume_find(const char *name, size_t bytes) { return (void)name, (void)bytes, &volume; }

enum status volume_call(const char *name, size_t bytes, volume_fn *fn, void *arg, char *text, size_t text_bytes)
{
    (void)name, (void)bytes, (void)text, (void)text_bytes;
    return fn(volume.csv, arg);
}

bool volume_path(const char *text, const char **name, size_t *bytes, const char **path)
{
    *name = "Volume1";
    *bytes = 7;
    *path = text;
    return true;
}

/* ---- A user, with as little work as there can be ---- */

static bool user_get(struct disk_request *request, uint64_t at, void *bytes, uint32_t count)
{
    (void)request, (void)at, (void)bytes, (void)count;
    return true;
}

static bool user_put(struct disk_request *request, uint64_t at, const void *bytes, uint32_t count)
{
    (void)request, (void)at, (void)bytes, (void)count;
    return true;
}

static void user_done(struct disk_request *request, enum status status)
{
    (void)request;
    if (status != OK)
        abort();
}

static void must(enum status status)
{
    if (status == OK)
        return;
    fprintf(stderr, "volume_path: %s\n", status_name(status));
    exit(1);
}

/* ---- The volume ---- */

/* A file of so many written extents, a block each: their blocks lie between those of another file. */
static struct volume_file *make_disk(const char *name, uint64_t extents)
{
    static uint8_t bytes[BLOCK];
    struct volume_file_user user = { .disk = { .name = "bench" } };
    static struct volume_file_user users[4];
    static unsigned used;
    struct volume_file_info info;
    struct volume_file *file;
    struct csv_file *one, *other;
    uint64_t inode;
    char text[200], between[32];

    snprintf(between, sizeof between, "%s-between", name);
    must(csv_create(volume.csv, csv_root(volume.csv), name, strlen(name), 0644, &inode));
    must(csv_open(volume.csv, inode, &one));
    must(csv_create(volume.csv, csv_root(volume.csv), between, strlen(between), 0644, &inode));
    must(csv_open(volume.csv, inode, &other));
    for (uint64_t i = 0; i < (extents > 1 ? extents : 10000); i++) {
        must(csv_write(one, i * BLOCK, bytes, BLOCK));
        if (extents > 1)
            must(csv_write(other, i * BLOCK, bytes, BLOCK));
    }
    must(csv_sync(volume.csv));
    if (one->mapped && one->extent_count != extents)
        exit(1);
    users[used] = user;
    must(volume_file_open(name, &users[used++], &file, &info, text, sizeof text));
    if (file->csv->extent_count != extents) {
        fprintf(stderr, "volume_path: %s has %zu extents\n", name, file->csv->extent_count);
        exit(1);
    }
    return file;
}

static void set_up(void)
{
    struct csv_mkfs_options options = { .uuid = "a volume's uuid", .hash_key = "0123456789abcde", .label = "Volume1" };
    struct csv_mount_options mount = { .owner_name = "bench", .cache_blocks = 4096 };
    char message[CSV_MESSAGE_BYTES];
    struct fake_csv_disk *disk = fake_disk_new(1 * GIB);

    fake_memory_init(&memory);
    must(csv_mkfs(&disk->disk, &memory.memory, &options));
    must(csv_mount(&disk->disk, &memory.memory, &mount, &volume.csv, message));
    volume.name = "Volume1";
}

/* ---- What is measured ---- */

static uint64_t place(bool random, unsigned i)
{
    return (random ? i * 2654435761u : i) % 10000 * BLOCK;
}

static struct disk_request requests[MAX_DEPTH];

static void prepare(enum disk_op op, bool random, unsigned first, unsigned depth)
{
    for (unsigned i = 0; i < depth; i++)
        requests[i] = (struct disk_request){ .op = op, .offset = place(random, first + i), .bytes = BLOCK, .get = user_get,
                                             .put = user_put, .done = user_done };
}

#define TRAP __asm__ volatile("int3")

/* REQUESTS of them, `depth` at a time; file NULL: the disk itself. Only what lies between the traps counts. */
static void run(struct volume_file *file, enum disk_op op, bool random, unsigned depth)
{
    for (unsigned done = 0; done < REQUESTS; done += depth) {
        prepare(op, random, done, depth);
        TRAP;
        for (unsigned i = 0; i < depth; i++) {
            if (file)
                volume_file_submit(file, &requests[i]);
            else
                storage_submit(NULL, &requests[i]);
        }
        answer_all();
        TRAP;
    }
}

static const struct { const char *name; enum disk_op op; bool random; } kinds[] = {
    { "read", DISK_READ, true }, { "write", DISK_WRITE, true }, { "sequential", DISK_READ, false },
};
static const unsigned depths[] = { 1, MAX_DEPTH };
static const uint64_t extents[] = { 0, 1, 10000 }; /* 0: the disk itself */

static void child(void)
{
    struct volume_file *files[ARRAY_COUNT(extents)] = { NULL };

    set_up();
    for (size_t e = 1; e < ARRAY_COUNT(extents); e++)
        files[e] = make_disk(extents[e] == 1 ? "one" : "many", extents[e]);
    for (size_t k = 0; k < ARRAY_COUNT(kinds); k++)
        for (size_t d = 0; d < ARRAY_COUNT(depths); d++)
            for (size_t e = 0; e < ARRAY_COUNT(extents); e++)
                run(files[e], kinds[k].op, kinds[k].random, depths[d]);
    if (volume.csv->failed)
        exit(1);
    exit(0);
}

/* ---- The parent ---- */

static void stopped(pid_t pid)
{
    int status;

    if (waitpid(pid, &status, 0) != pid || !WIFSTOPPED(status) || WSTOPSIG(status) != SIGTRAP) {
        fprintf(stderr, "volume_path: the measured program ended by itself\n");
        exit(1);
    }
}

static unsigned char next_byte(pid_t pid)
{
    long rip = ptrace(PTRACE_PEEKUSER, pid, 16 * 8 /* RIP in struct user_regs_struct */, NULL);

    return (unsigned char)ptrace(PTRACE_PEEKTEXT, pid, rip, NULL);
}

/* Instructions of one run. */
static uint64_t count(pid_t pid, unsigned depth)
{
    uint64_t steps = 0;

    for (unsigned done = 0; done < REQUESTS; done += depth) {
        ptrace(PTRACE_CONT, pid, NULL, NULL);
        stopped(pid);
        while (next_byte(pid) != 0xcc) {
            ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL);
            stopped(pid);
            steps++;
        }
        ptrace(PTRACE_CONT, pid, NULL, NULL);
        stopped(pid);
    }
    return steps;
}

int main(void)
{
    pid_t pid = fork();

    if (!pid) {
        ptrace(PTRACE_TRACEME, 0, NULL, NULL);
        raise(SIGTRAP);
        child();
    }
    stopped(pid);
    for (size_t k = 0; k < ARRAY_COUNT(kinds); k++)
        for (size_t d = 0; d < ARRAY_COUNT(depths); d++) {
            uint64_t raw = count(pid, depths[d]);
            for (size_t e = 1; e < ARRAY_COUNT(extents); e++)
                printf("volume_%lu_%s_depth%u,instructions,%lu\n", extents[e], kinds[k].name, depths[d],
                       (count(pid, depths[d]) - raw) / REQUESTS);
        }
    ptrace(PTRACE_CONT, pid, NULL, NULL);
    int status;
    return waitpid(pid, &status, 0) == pid && WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}
