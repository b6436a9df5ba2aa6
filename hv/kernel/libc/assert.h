/* SPDX-License-Identifier: MIT */
/*
 * assert for the hypervisor's own invariants (and for libraries that use it): a failure is a panic. Never for what a
 * guest, a peer, a disk or an admin supplied. NDEBUG switches it off, as ISO C 7.2 says.
 */
#undef assert
#ifdef NDEBUG
#define assert(condition) ((void)0)
#else
#include "kernel/log.h"
#define assert(condition) \
    ((condition) ? (void)0 : panic("%s:%d: %s: assertion failed: %s", __FILE__, __LINE__, __func__, #condition))
#endif
#ifndef static_assert
#define static_assert _Static_assert
#endif
