/* SPDX-License-Identifier: MIT */
/*
 * How a function says that it failed. The list is short on purpose: a status steers the caller; the words for a person
 * (object, cause, cure) are logged or returned where the failure is born.
 */
#ifndef KERNEL_STATUS_H
#define KERNEL_STATUS_H

enum status {
    OK = 0,
    ERR_NO_MEMORY,   /* memory, or a fixed table, is used up */
    ERR_INVALID,     /* an argument, a format or a configuration is wrong */
    ERR_RANGE,       /* an address or a size is outside its object */
    ERR_NOT_FOUND,   /* no object of that name */
    ERR_EXISTS,      /* an object of that name is there already */
    ERR_BUSY,        /* the object is in use, or in a state that does not allow this */
    ERR_UNSUPPORTED, /* this CPU, firmware or version cannot do it */
    ERR_CORRUPT,     /* a checksum or a structure is wrong */
    ERR_TRUNCATED,   /* the input ended too early */
    ERR_VERSION,     /* a newer format than this one knows */
    ERR_IO,          /* a device failed */
    ERR_TIMEOUT,
    ERR_CANCELLED,
    ERR_NO_SPACE,    /* a volume is full */
    ERR_READ_ONLY,   /* the object may not be changed */
    ERR_NOT_EMPTY,   /* a directory that has entries */
    ERR_FENCED,      /* another node has taken the object over from this one */
};

/* The name of a status, lower case, for logs. Never NULL. */
const char *status_name(enum status status);

#endif
