/* SPDX-License-Identifier: MIT */
/* What a test can see and steer of the fake kernel. */
#ifndef TESTS_FAKE_KERNEL_H
#define TESTS_FAKE_KERNEL_H

#include <stddef.h>

/* Bytes and pieces of kzalloc that were not freed yet. */
extern size_t fake_heap_bytes;
extern size_t fake_heap_count;

/* kzalloc succeeds so many times more, then returns NULL; negative (at the start): never fails. */
extern long fake_heap_fail_after;

/* Lines logged so far, for each enum log_level. Set FAKE_LOG_QUIET in the environment to keep them off stderr. */
extern unsigned fake_log_counts[4];

#endif
