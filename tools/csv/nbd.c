/* SPDX-License-Identifier: MIT */
/*
 * NBD as its protocol document (doc/proto.md of the nbd project) has it; all integers are big-endian. The client is a
 * child of this program, and is not trusted all the same: lengths and ranges are checked before they are used.
 *
 * Writes that the volume refuses are answered with an error, which ends qemu-img; the reason is kept for the caller.
 */
#include "nbd.h"

#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "say.h"

#define MAGIC UINT64_C(0x4e42444d41474943)        /* NBDMAGIC */
#define OPTION_MAGIC UINT64_C(0x49484156454f5054) /* IHAVEOPT */
#define OPTION_REPLY_MAGIC UINT64_C(0x0003e889045565a9)
#define REQUEST_MAGIC 0x25609513u
#define REPLY_MAGIC 0x67446698u

#define HANDSHAKE_FIXED 1u
#define HANDSHAKE_NO_ZEROES 2u
#define OPTION_EXPORT_NAME 1u
#define OPTION_ABORT 2u
#define OPTION_GO 7u
#define REPLY_ACK 1u
#define REPLY_INFO 3u
#define REPLY_UNSUPPORTED 0x80000001u
#define EXPORT_FLAGS (1u | 4u | 32u | 64u) /* there are flags; flush, trim, write zeroes */
#define MOST_OPTION_BYTES 4096u
#define MOST_BYTES (32u << 20) /* of a request: what clients may take for granted */

enum command { NBD_READ, NBD_WRITE, NBD_DISCONNECT, NBD_FLUSH, NBD_TRIM, NBD_CACHE, NBD_WRITE_ZEROES };

struct option_head {
    uint64_t magic;
    uint32_t option, bytes;
} PACKED;

struct option_reply {
    uint64_t magic;
    uint32_t option, type, bytes;
} PACKED;

struct export_info {
    uint16_t type;
    uint64_t size;
    uint16_t flags;
} PACKED;

struct request {
    uint32_t magic;
    uint16_t flags, command;
    uint64_t cookie, offset;
    uint32_t bytes;
} PACKED;

struct reply {
    uint32_t magic, error;
    uint64_t cookie;
} PACKED;

_Static_assert(sizeof(struct option_head) == 16 && sizeof(struct option_reply) == 20 &&
                   sizeof(struct export_info) == 12 && sizeof(struct request) == 28 && sizeof(struct reply) == 16,
               "as on the wire");

/* ERR_TRUNCATED: the client is gone. */
static enum status receive(struct nbd *n, void *bytes, size_t count)
{
    for (size_t done = 0; done < count;) {
        ssize_t part = read(n->fd, (char *)bytes + done, count - done);
        if (say_interrupted())
            return ERR_CANCELLED;
        if (part < 0 && errno == EINTR)
            continue;
        if (part <= 0)
            return ERR_TRUNCATED;
        done += (size_t)part;
    }
    return OK;
}

static enum status reply_with(struct nbd *n, const void *bytes, size_t count)
{
    for (size_t done = 0; done < count;) {
        ssize_t part = write(n->fd, (const char *)bytes + done, count - done);
        if (say_interrupted())
            return ERR_CANCELLED;
        if (part < 0 && errno == EINTR)
            continue;
        if (part < 0)
            return ERR_TRUNCATED;
        done += (size_t)part;
    }
    return OK;
}

/* ---- Handshake ---- */

static enum status answer_option(struct nbd *n, uint32_t option, uint32_t type, const void *bytes, uint32_t count)
{
    struct option_reply head = { htobe64(OPTION_REPLY_MAGIC), htobe32(option), htobe32(type), htobe32(count) };
    enum status status = reply_with(n, &head, sizeof(head));
    return status || !count ? status : reply_with(n, bytes, count);
}

/* Until the client asks for the export, whatever it calls it. */
static enum status options(struct nbd *n, bool no_zeroes)
{
    static const uint8_t zeros[124];
    uint8_t data[MOST_OPTION_BYTES];
    struct export_info info = { 0, htobe64(n->size), htobe16(EXPORT_FLAGS) };
    for (;;) {
        struct option_head head;
        enum status status = receive(n, &head, sizeof(head));
        if (!status && (be64toh(head.magic) != OPTION_MAGIC || be32toh(head.bytes) > sizeof(data)))
            status = ERR_INVALID;
        if (!status)
            status = receive(n, data, be32toh(head.bytes));
        if (status)
            return status;
        uint32_t option = be32toh(head.option);
        switch (option) {
        case OPTION_EXPORT_NAME:
            status = reply_with(n, &info.size, sizeof(info.size) + sizeof(info.flags));
            return status || no_zeroes ? status : reply_with(n, zeros, sizeof(zeros));
        case OPTION_GO:
            status = answer_option(n, option, REPLY_INFO, &info, sizeof(info));
            return status ? status : answer_option(n, option, REPLY_ACK, NULL, 0);
        case OPTION_ABORT:
            return ERR_TRUNCATED;
        default:
            status = answer_option(n, option, REPLY_UNSUPPORTED, NULL, 0);
        }
        if (status)
            return status;
    }
}

static enum status handshake(struct nbd *n)
{
    struct {
        uint64_t magic, option_magic;
        uint16_t flags;
    } PACKED hello = { htobe64(MAGIC), htobe64(OPTION_MAGIC), htobe16(HANDSHAKE_FIXED | HANDSHAKE_NO_ZEROES) };
    uint32_t flags;
    enum status status = reply_with(n, &hello, sizeof(hello));
    if (!status)
        status = receive(n, &flags, sizeof(flags));
    return status ? status : options(n, be32toh(flags) & HANDSHAKE_NO_ZEROES);
}

/* ---- Requests ---- */

static uint32_t error_of(enum status status)
{
    return status == OK             ? 0
         : status == ERR_NO_SPACE ? 28 /* ENOSPC */
         : status == ERR_RANGE    ? 22 /* EINVAL */
                                  : 5 /* EIO */;
}

static enum status carry_out(struct nbd *n, const struct request *request, uint8_t *data)
{
    uint64_t offset = be64toh(request->offset), done;
    uint32_t bytes = be32toh(request->bytes);
    if (!range_within(offset, bytes, n->size))
        return ERR_RANGE;
    switch (be16toh(request->command)) {
    case NBD_READ: {
        enum status status = csv_read(n->file, offset, data, bytes, &done);
        if (!status)
            memset(data + done, 0, bytes - done);
        return status;
    }
    case NBD_WRITE:
        n->written += bytes;
        return csv_write(n->file, offset, data, bytes);
    case NBD_FLUSH:
        return OK; /* the whole file is made durable when it is complete */
    case NBD_TRIM:
    case NBD_WRITE_ZEROES:
        return csv_punch(n->file, offset, bytes);
    default:
        return ERR_RANGE;
    }
}

static enum status serve_requests(struct nbd *n, uint8_t *data)
{
    for (;;) {
        struct request request;
        enum status status = receive(n, &request, sizeof(request));
        if (status)
            return status;
        uint16_t command = be16toh(request.command);
        uint32_t bytes = be32toh(request.bytes);
        bool has_data = command == NBD_READ || command == NBD_WRITE;
        if (be32toh(request.magic) != REQUEST_MAGIC || (has_data && bytes > MOST_BYTES))
            return ERR_INVALID;
        if (command == NBD_DISCONNECT)
            return OK;
        if (command == NBD_WRITE)
            status = receive(n, data, bytes);
        if (status)
            return status;
        enum status done = carry_out(n, &request, data);
        if (done && !n->failed)
            n->failed = done;
        struct reply reply = { htobe32(REPLY_MAGIC), htobe32(error_of(done)), request.cookie };
        status = reply_with(n, &reply, sizeof(reply));
        if (!status && !done && command == NBD_READ)
            status = reply_with(n, data, bytes);
        if (status)
            return status;
        if (n->progress)
            n->progress(n->written);
    }
}

enum status nbd_serve(struct nbd *n)
{
    uint8_t *data = malloc(MOST_BYTES);
    if (!data)
        return ERR_NO_MEMORY;
    enum status status = handshake(n);
    if (!status)
        status = serve_requests(n, data);
    free(data);
    return status;
}
