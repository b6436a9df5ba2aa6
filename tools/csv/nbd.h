/* SPDX-License-Identifier: MIT */
/*
 * The server's side of NBD, for one client over one socket: how qemu-img writes an image straight into a file of the
 * volume. Only what it needs: the fixed newstyle handshake with NBD_OPT_GO or NBD_OPT_EXPORT_NAME, simple replies;
 * read, write, flush, trim, write zeroes.
 */
#ifndef TOOLS_CSV_NBD_H
#define TOOLS_CSV_NBD_H

#include "csv/csv.h"

struct nbd {
    int fd;
    struct csv_file *file; /* of the export's size, and sparse */
    uint64_t size;
    void (*progress)(uint64_t written); /* bytes of data that were written so far */
    uint64_t written;
    enum status failed;    /* the first request that failed; ERR_RANGE: it was none, or beyond the export */
};

/* Until the client has taken its leave or is gone. ERR_INVALID: it broke the protocol; ERR_CANCELLED: interrupted. */
enum status nbd_serve(struct nbd *n) MUST_CHECK;

#endif
