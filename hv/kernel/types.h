/* SPDX-License-Identifier: MIT */
/*
 * Words that every part uses: address types that cannot be mixed up, the one place for range checks, small macros.
 * Pure: compiles into the hypervisor and into Linux test programs alike.
 */
#ifndef KERNEL_TYPES_H
#define KERNEL_TYPES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A guest physical, a host physical and a guest virtual (linear) address. Host virtual addresses are plain pointers. */
typedef struct { uint64_t v; } gpa_t;
typedef struct { uint64_t v; } hpa_t;
typedef struct { uint64_t v; } gva_t;
#define GPA(x) ((gpa_t){ (x) })
#define HPA(x) ((hpa_t){ (x) })
#define GVA(x) ((gva_t){ (x) })

#define KIB UINT64_C(1024)
#define MIB (1024 * KIB)
#define GIB (1024 * MIB)
#define PAGE_SHIFT 12
#define PAGE_BYTES UINT64_C(4096)
#define LARGE_PAGE_BYTES (2 * MIB)
#define HUGE_PAGE_BYTES (1 * GIB)

#define MUST_CHECK __attribute__((warn_unused_result))
#define NORETURN __attribute__((noreturn))
#define PRINTF_LIKE(fmt, args) __attribute__((format(printf, fmt, args)))
#define ALIGNED(n) __attribute__((aligned(n)))
#define PACKED __attribute__((packed))
#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

#define ARRAY_COUNT(a) (sizeof(a) / sizeof((a)[0]))
#define BIT(n) (UINT64_C(1) << (n))
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))
#define ALIGN_DOWN(x, a) ((x) & ~((uint64_t)(a) - 1))
#define ALIGN_UP(x, a) (((x) + ((uint64_t)(a) - 1)) & ~((uint64_t)(a) - 1))
#define CONTAINER_OF(ptr, type, member) ((type *)((char *)(ptr) - offsetof(type, member)))

/* True if [base, base + len) lies within [0, limit). Cannot overflow. An empty range at limit is within. */
static inline bool range_within(uint64_t base, uint64_t len, uint64_t limit)
{
    return len <= limit && base <= limit - len;
}

/* True if [a, a + a_len) and [b, b + b_len) share a byte. Neither range may wrap. */
static inline bool range_overlaps(uint64_t a, uint64_t a_len, uint64_t b, uint64_t b_len)
{
    return a_len && b_len && a <= b + (b_len - 1) && b <= a + (a_len - 1);
}

#endif
