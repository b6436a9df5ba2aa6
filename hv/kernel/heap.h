/* SPDX-License-Identifier: MIT */
/* Small objects for the hypervisor's own use. Thread context; not from interrupt handlers. */
#ifndef KERNEL_HEAP_H
#define KERNEL_HEAP_H

#include "kernel/types.h"

/* bytes of zeroed memory, aligned to 16 (to 4096 from 4096 bytes on), or NULL where memory ran out. */
void *kzalloc(size_t bytes) MUST_CHECK;

/* Gives memory of kzalloc back; NULL is allowed. bytes is the size that was asked for. */
void kfree(void *ptr, size_t bytes);

#endif
