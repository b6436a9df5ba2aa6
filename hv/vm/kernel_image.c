/* SPDX-License-Identifier: MIT */
/*
 * What the two kernel loaders share: telling the formats apart, the CPU's reset state, the BIOS data area, error texts.
 */
#include "vm/kernel_image.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "kernel/bytes.h"
#include "vm/boot_linux.h"
#include "vm/boot_multiboot.h"

enum status boot_error(char error[BOOT_ERROR_BYTES], enum status status, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(error, BOOT_ERROR_BYTES, format, args);
    va_end(args);
    return status;
}

enum kernel_kind kernel_image_kind(const void *bytes, uint64_t count)
{
    const uint8_t *p = bytes;
    struct multiboot_header header;
    if (count >= 0x206 && le16_get(p + 0x1fe) == 0xaa55 && !memcmp(p + 0x202, "HdrS", 4))
        return KERNEL_LINUX;
    return multiboot_find_header(&header, bytes, count) ? KERNEL_MULTIBOOT : KERNEL_UNKNOWN;
}

enum status kernel_image_boot(const struct boot_request *request, struct cpu_state *state, char error[BOOT_ERROR_BYTES])
{
    const struct boot_file *kernel = &request->kernel;
    switch (kernel_image_kind(kernel->bytes, kernel->count)) {
    case KERNEL_LINUX:
        return boot_linux(request, state, error);
    case KERNEL_MULTIBOOT:
        return boot_multiboot(request, state, error);
    case KERNEL_UNKNOWN:
        break;
    }
    const uint8_t *p = kernel->bytes;
    if (kernel->count >= 2 && p[0] == 0x1f && p[1] == 0x8b)
        return boot_error(error, ERR_UNSUPPORTED, "kernel %s is compressed with gzip; unpack it first", kernel->name);
    return boot_error(error, ERR_INVALID,
                      "kernel %s (%llu bytes) is neither a Linux bzImage nor a Multiboot 1 kernel; name one of these",
                      kernel->name, (unsigned long long)kernel->count);
}

void cpu_state_reset(struct cpu_state *state)
{
    memset(state, 0, sizeof(*state));
    state->rip = 0xfff0;
    state->rflags = RFLAGS_FIXED;
    state->cr0 = CR0_CD | CR0_NW | CR0_ET;
    state->xcr0 = 1;
    state->dr6 = 0xffff0ff0;
    state->dr7 = 0x400;
    state->pat = 0x0007040600070406;
    for (unsigned i = 0; i < SEG_COUNT; i++)
        state->seg[i] = (struct segment){ .limit = 0xffff, .attributes = 0x93 };
    state->seg[SEG_CS] =
        (struct segment){ .base = 0xffff0000, .limit = 0xffff, .attributes = 0x9b, .selector = 0xf000 };
    state->seg[SEG_LDTR].attributes = 0x82;
    state->seg[SEG_TR].attributes = 0x8b;
    state->gdtr.limit = state->idtr.limit = 0xffff;
}

bool boot_write_bios_data(const struct gmem_ops *memory)
{
    uint8_t com1[2], ebda[2], base_kib[2];
    le16_put(com1, 0x3f8);
    le16_put(ebda, MEMORY_MAP_EBDA >> 4);
    le16_put(base_kib, MEMORY_MAP_EBDA / KIB);
    return memory->write(memory->context, GPA(0x400), com1, 2) && memory->write(memory->context, GPA(0x40e), ebda, 2) &&
           memory->write(memory->context, GPA(0x413), base_kib, 2);
}
