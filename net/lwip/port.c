/* SPDX-License-Identifier: MIT */
/* What lwIP calls of the hypervisor: the clock, random numbers, and the end where one of its invariants is broken. */
#include "arch/cc.h"
#include "kernel/log.h"
#include "kernel/random.h"
#include "kernel/time.h"
#include "lwip/sys.h"

u32_t sys_now(void)
{
    return (u32_t)(time_now_ns() / NS_PER_MS); /* wraps, as lwIP expects */
}

uint32_t net_random32(void)
{
    uint32_t value;

    random_bytes(&value, sizeof value);
    return value;
}

void net_assert_failed(const char *what, const char *file, int line)
{
    panic("lwip: %s:%d: %s", file, line, what);
}
