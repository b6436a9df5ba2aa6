/* SPDX-License-Identifier: MIT */
/*
 * What the kernel gives to pure cores, for Linux test programs: the log goes to stderr, panic aborts (so a test that
 * expects one runs it in a child or catches SIGABRT), and the heap is the C library's with the kernel's contract
 * checked: zeroed, aligned to 16 (to 4096 from 4096 bytes on), and freed with the size that was asked for.
 *
 * Every unit test, fuzz target and differential test links this file.
 */
#ifndef _POSIX_C_SOURCE
#define _POSIX_C_SOURCE 200809L /* posix_memalign */
#endif
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fake_kernel.h"
#include "kernel/heap.h"
#include "kernel/log.h"

#define HEAP_MAGIC 0x7461736b68656170ull
#define HEAP_FREED 0x6672656564667265ull

/* Lies just before every piece of memory that is given out. */
struct heap_header {
    uint64_t magic;
    size_t bytes;   /* as asked for */
    void *allocation; /* what free() wants */
    uint64_t pad;
};

size_t fake_heap_bytes;
size_t fake_heap_count;
unsigned fake_log_counts[LOG_ERROR + 1];
long fake_heap_fail_after = -1;

void log_line(enum log_level level, const char *format, ...)
{
    static const char *const names[] = { "debug", "info", "warning", "error" };
    static int quiet = -1;
    va_list args;

    fake_log_counts[level]++;
    if (quiet < 0)
        quiet = getenv("FAKE_LOG_QUIET") != NULL;
    if (quiet)
        return;
    fprintf(stderr, "%s: ", names[level]);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
}

NORETURN void panic(const char *format, ...)
{
    va_list args;

    fputs("panic: ", stderr);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    abort();
}

void *kzalloc(size_t bytes)
{
    size_t align = bytes >= PAGE_BYTES ? PAGE_BYTES : 16;
    size_t lead = MAX(align, sizeof(struct heap_header));
    struct heap_header *header;
    void *allocation;

    if (fake_heap_fail_after == 0)
        return NULL;
    if (fake_heap_fail_after > 0)
        fake_heap_fail_after--;
    if (bytes > SIZE_MAX - lead || posix_memalign(&allocation, align, lead + bytes) != 0)
        return NULL;
    memset(allocation, 0, lead + bytes);
    header = (struct heap_header *)((char *)allocation + lead) - 1;
    header->magic = HEAP_MAGIC;
    header->bytes = bytes;
    header->allocation = allocation;
    fake_heap_bytes += bytes;
    fake_heap_count++;
    return header + 1;
}

void kfree(void *ptr, size_t bytes)
{
    struct heap_header *header;

    if (!ptr)
        return;
    header = (struct heap_header *)ptr - 1;
    if (header->magic != HEAP_MAGIC)
        panic("kfree: %p was not given out by kzalloc", ptr);
    if (header->bytes != bytes)
        panic("kfree: %p has %zu bytes and is freed as %zu", ptr, header->bytes, bytes);
    header->magic = HEAP_FREED;
    fake_heap_bytes -= bytes;
    fake_heap_count--;
    free(header->allocation);
}
