/* SPDX-License-Identifier: MIT */
/*
 * The load for the storage part of `make bench`: a static program in a Linux guest, the same under Tasuki and under
 * KVM.
 *
 *     load disk DEVICE NAME read|write BYTES DEPTH COUNT MARK [sequential]
 *     load send|receive ADDRESS PORT NAME BYTES MARK
 *
 * `disk` keeps DEPTH requests of BYTES each under way (O_DIRECT, Linux's asynchronous I/O), at random places or one
 * behind the other, until COUNT are done. It begins with a tenth of them, unmeasured. Before and after the rest it
 * executes the marks MARK and MARK + 1, which tests/peer/count_plugin.c sees in QEMU, and where Bochs' debugger stops.
 * `send` and `receive` move BYTES by TCP. Each says "load: NAME REQUESTS MICROSECONDS" by the guest's clock.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <linux/fs.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define DEPTH_MAX 128u
#define CHUNK (256u << 10) /* of one read or write of a connection */

static _Noreturn void fail(const char *what)
{
    perror(what);
    printf("load: failed\n");
    exit(1);
}

/*
 * A mark's number is part of its instruction, so there is one for each. Behind it XCHG BX, BX, which changes nothing
 * either: Bochs' debugger takes it for a breakpoint ("magic_break").
 */
#define MARK(n)                                                                                                        \
    case n:                                                                                                            \
        __asm__ volatile(".byte 0x0f, 0x1f, 0x84, 0x00; .long 0x7a500000 + " #n "; xchgw %%bx, %%bx" : : : "memory");  \
        break
static void mark(unsigned n)
{
    switch (n) {
    MARK(0); MARK(1); MARK(2); MARK(3); MARK(4); MARK(5); MARK(6); MARK(7); MARK(8); MARK(9); MARK(10); MARK(11);
    MARK(12); MARK(13); MARK(14); MARK(15); MARK(16); MARK(17); MARK(18); MARK(19); MARK(20); MARK(21); MARK(22);
    MARK(23); MARK(24); MARK(25); MARK(26); MARK(27); MARK(28); MARK(29); MARK(30); MARK(31); MARK(32); MARK(33);
    MARK(34); MARK(35);
    default: printf("load: no mark %u\n", n); exit(1);
    }
}

static uint64_t now_us(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

/* ---- Disks ---- */

struct disk {
    int file;
    bool write, sequential;
    uint32_t bytes;
    uint64_t places, next, random; /* places of `bytes` each */
    aio_context_t context;
    struct iocb request[DEPTH_MAX];
    uint8_t *memory;
};

static uint64_t place(struct disk *disk)
{
    if (disk->sequential)
        return disk->next++ % disk->places;
    disk->random = disk->random * 6364136223846793005u + 1442695040888963407u;
    return (disk->random >> 24) % disk->places;
}

static void submit(struct disk *disk, unsigned i)
{
    struct iocb *request = &disk->request[i];

    *request = (struct iocb){
        .aio_fildes = (uint32_t)disk->file, .aio_lio_opcode = disk->write ? IOCB_CMD_PWRITE : IOCB_CMD_PREAD,
        .aio_buf = (uintptr_t)disk->memory + (uint64_t)i * disk->bytes, .aio_nbytes = disk->bytes,
        .aio_offset = (int64_t)(place(disk) * disk->bytes), .aio_data = i,
    };
    if (syscall(SYS_io_submit, disk->context, 1, &request) != 1)
        fail("io_submit");
}

static void run(struct disk *disk, unsigned depth, unsigned count)
{
    struct io_event events[DEPTH_MAX];
    unsigned begun = 0, ended = 0;

    for (; begun < depth && begun < count; begun++)
        submit(disk, begun);
    while (ended < count) {
        long got = syscall(SYS_io_getevents, disk->context, 1, DEPTH_MAX, events, NULL);
        if (got < 1)
            fail("io_getevents");
        for (long i = 0; i < got; i++, ended++) {
            if (events[i].res != disk->bytes)
                fail("a request");
            if (begun < count) {
                submit(disk, (unsigned)events[i].data);
                begun++;
            }
        }
    }
}

static int run_disk(char **argument, bool sequential)
{
    struct disk disk = { .write = !strcmp(argument[2], "write"), .bytes = (uint32_t)atoi(argument[3]), .random = 1,
                         .sequential = sequential };
    unsigned depth = (unsigned)atoi(argument[4]), count = (unsigned)atoi(argument[5]), n = (unsigned)atoi(argument[6]);
    uint64_t size;

    disk.file = open(argument[0], O_RDWR | O_DIRECT);
    if (disk.file < 0 || ioctl(disk.file, BLKGETSIZE64, &size) < 0)
        fail(argument[0]);
    disk.places = size / disk.bytes;
    disk.memory = mmap(NULL, (size_t)depth * disk.bytes, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (depth > DEPTH_MAX || disk.memory == MAP_FAILED || syscall(SYS_io_setup, DEPTH_MAX, &disk.context) < 0)
        fail("setting up");
    memset(disk.memory, 0x5a, (size_t)depth * disk.bytes);
    run(&disk, depth, count / 10 + 1);
    uint64_t begin = now_us();
    mark(n);
    run(&disk, depth, count);
    mark(n + 1);
    printf("load: %s %u %lu\n", argument[1], count, now_us() - begin);
    return 0;
}

/* ---- TCP ---- */

static int run_tcp(char **argument, bool sends)
{
    struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argument[1])) };
    uint64_t bytes = strtoull(argument[3], NULL, 10), done = 0;
    unsigned n = (unsigned)atoi(argument[4]);
    uint8_t *memory = calloc(1, CHUNK);
    int one = socket(AF_INET, SOCK_STREAM, 0);

    inet_pton(AF_INET, argument[0], &to.sin_addr);
    if (!memory || connect(one, (struct sockaddr *)&to, sizeof to) < 0)
        fail("connect");
    uint64_t begin = now_us();
    mark(n);
    while (done < bytes) {
        uint64_t part = bytes - done < CHUNK ? bytes - done : CHUNK;
        ssize_t got = sends ? write(one, memory, part) : read(one, memory, part);
        if (got <= 0)
            fail("the connection");
        done += (uint64_t)got;
    }
    if (sends) { /* until the other end has all of it: it answers with one byte */
        shutdown(one, SHUT_WR);
        if (read(one, memory, 1) != 1)
            fail("the answer");
    }
    mark(n + 1);
    printf("load: %s %lu %lu\n", argument[2], (unsigned long)(bytes >> 20), now_us() - begin);
    return 0;
}

int main(int count, char **argument)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    if ((count == 9 || count == 10) && !strcmp(argument[1], "disk"))
        return run_disk(argument + 2, count == 10);
    if (count == 7 && (!strcmp(argument[1], "send") || !strcmp(argument[1], "receive")))
        return run_tcp(argument + 2, argument[1][0] == 's');
    fprintf(stderr, "load: see the head of load.c for its arguments\n");
    return 1;
}
