/* SPDX-License-Identifier: MIT */
/* The names of the statuses, for logs. Pure; any context. */
#include "kernel/status.h"

const char *status_name(enum status status)
{
    switch (status) {
    case OK: return "ok";
    case ERR_NO_MEMORY: return "no memory";
    case ERR_INVALID: return "invalid";
    case ERR_RANGE: return "out of range";
    case ERR_NOT_FOUND: return "not found";
    case ERR_EXISTS: return "exists";
    case ERR_BUSY: return "busy";
    case ERR_UNSUPPORTED: return "unsupported";
    case ERR_CORRUPT: return "corrupt";
    case ERR_TRUNCATED: return "truncated";
    case ERR_VERSION: return "newer version";
    case ERR_IO: return "device error";
    case ERR_TIMEOUT: return "timed out";
    case ERR_CANCELLED: return "cancelled";
    case ERR_NO_SPACE: return "no space";
    case ERR_READ_ONLY: return "read-only";
    case ERR_NOT_EMPTY: return "not empty";
    case ERR_FENCED: return "fenced";
    }
    return "unknown status";
}
