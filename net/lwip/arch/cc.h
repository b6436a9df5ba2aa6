/* SPDX-License-Identifier: MIT */
/*
 * What lwIP wants to know of its compiler and its surroundings (its doc/sys_arch.txt). Included by every file of lwIP and
 * by the files of net/ that call it. There are no threads in here: lwIP runs in the network service's thread alone.
 */
#ifndef NET_LWIP_ARCH_CC_H
#define NET_LWIP_ARCH_CC_H

#include <stddef.h>
#include <stdint.h>

/* net/lwip/port.c */
uint32_t net_random32(void);
uint16_t net_checksum(const void *bytes, int count);
void net_assert_failed(const char *what, const char *file, int line) __attribute__((noreturn));

/* One instruction each; lwIP's own are functions, and it calls them for every field of a header. */
#define lwip_htons(x) ((uint16_t)__builtin_bswap16((uint16_t)(x)))
#define lwip_htonl(x) ((uint32_t)__builtin_bswap32((uint32_t)(x)))

#define LWIP_RAND() net_random32()
#define LWIP_CHKSUM net_checksum
#define LWIP_PLATFORM_DIAG(x) ((void)0)
/* An invariant of lwIP's own that does not hold: going on would mean writing into memory that belongs to others. */
#define LWIP_PLATFORM_ASSERT(what) net_assert_failed(what, __FILE__, __LINE__)

/*
 * Pools and heap of lwIP are arrays of fixed size in a section that has addresses and no memory (linker.ld): pages are put
 * there when the configuration has a network, and not otherwise (net/service.c).
 */
#define LWIP_DECLARE_MEMORY_ALIGNED(variable_name, size) \
    u8_t variable_name[LWIP_MEM_ALIGN_BUFFER(size)] __attribute__((section(".net_pools"), aligned(16)))

#endif
