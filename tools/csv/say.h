/* SPDX-License-Identifier: MIT */
/*
 * What tasuki-csv says to a person: errors with object, cause and cure, sizes, progress. Any file of the tool.
 */
#ifndef TOOLS_CSV_SAY_H
#define TOOLS_CSV_SAY_H

#include "kernel/status.h"
#include "kernel/types.h"

#define SAY_SIZE_BYTES 24

/* An error, as one line: `tasuki-csv: ...` on standard error, or in the system's log after say_to_syslog(). */
void say_error(const char *format, ...) PRINTF_LIKE(1, 2);
/* A note that is no error, to the same place. */
void say_note(const char *format, ...) PRINTF_LIKE(1, 2);
void say_to_syslog(void);

/* Cause and cure of a status of the volume's core, in words. Never NULL. */
const char *say_status(enum status status);

/*
 * `from` (a label, a name that somebody else wrote) with '?' for all that is no character, so that it does nothing to a
 * terminal; into `text` of `bytes` bytes, which is returned.
 */
const char *say_text(const char *from, char *text, size_t bytes);

/* "3.2 GiB" and the like, into `text`, which is returned. */
const char *say_size(uint64_t bytes, char text[SAY_SIZE_BYTES]);

/* True once SIGINT, SIGTERM or SIGHUP came: long work ends, cleans up and fails. */
bool say_interrupted(void);
/* From now on these set a flag instead of ending the program. */
void say_catch_interrupts(void);

/*
 * A bar on standard error, if that is a terminal and `wanted`; otherwise nothing is shown. `total` 0: unknown. One at a
 * time; begin, any number of steps, end.
 */
void progress_begin(const char *what, uint64_t total, bool wanted);
void progress_step(uint64_t done);
void progress_end(void);

#endif
