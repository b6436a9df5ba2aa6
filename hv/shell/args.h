/* SPDX-License-Identifier: MIT */
/*
 * A command line, split into arguments. Pure core; keeps no state.
 *
 * Arguments are separated by spaces and tabs. '...' takes everything as it is; in "..." a backslash before " or \ takes
 * that character as it is. Outside quotes a backslash does so before a space, a tab, a quote or a backslash. Before
 * anything else it stands for itself, so that \tasuki\images\disk.raw needs no quotes. There are no comments, variables
 * or patterns. Quoted and unquoted pieces may touch: --name="web 1".
 */
#ifndef SHELL_ARGS_H
#define SHELL_ARGS_H

#include "kernel/status.h"
#include "kernel/types.h"

#define ARGS_MAX_LINE_BYTES 4000
#define ARGS_MAX_COUNT 64

struct args {
    unsigned count;
    const char *value[ARGS_MAX_COUNT + 1];  /* into storage; NULL behind the last */
    uint16_t start[ARGS_MAX_COUNT];         /* where the argument begins in the line, in bytes */
    uint16_t column[ARGS_MAX_COUNT];        /* the same in characters, from 1 */
    bool quoted[ARGS_MAX_COUNT];            /* it begins with a quote or an escape: never an option */
    const char *error;                      /* what is wrong with the line, or NULL */
    unsigned error_column;                  /* where, in characters, from 1 */
    char storage[ARGS_MAX_LINE_BYTES + 1];
};

/*
 * Splits `line` (NUL-terminated) into *args. ERR_INVALID (an open quote, a control character, bytes that are not UTF-8)
 * and ERR_RANGE (too long, too many arguments) come with args->error and error_column; count and value then hold the
 * arguments before that place.
 */
enum status args_split(struct args *args, const char *line) MUST_CHECK;

/*
 * For completion: splits the first `cursor` bytes of the line. The last argument is the one that the cursor is in or
 * behind: "" where a new one would begin. An open quote is no error. False where nothing can be completed.
 */
bool args_split_partial(struct args *args, const char *line, size_t cursor) MUST_CHECK;

/* Writes `value` so that args_split gives it back, in quotes where it needs them. False: `bytes` bytes are too few. */
bool args_quote(char *to, size_t bytes, const char *value) MUST_CHECK;

#endif
