/* SPDX-License-Identifier: MIT */
/*
 * AML and resource descriptors, byte by byte. A construct's length is not known when it is opened, so its place is kept
 * free of bytes until the close, which moves the body up by the length's own size (1 to 4 bytes).
 */
#include "vdev/vacpi_aml.h"

#include <string.h>

#define OP_NAME 0x08u
#define OP_BYTE 0x0au
#define OP_WORD 0x0bu
#define OP_DWORD 0x0cu
#define OP_QWORD 0x0eu
#define OP_SCOPE 0x10u
#define OP_BUFFER 0x11u
#define OP_PACKAGE 0x12u
#define OP_METHOD 0x14u
#define OP_EXTENDED 0x5bu
#define OP_ARG0 0x68u
#define OP_STORE 0x70u
#define OP_DEVICE 0x82u
#define OP_IF 0xa0u
#define OP_RETURN 0xa4u

#define SPACE_MEMORY 0u
#define SPACE_IO 1u
#define SPACE_BUS 2u
#define FIXED_PRODUCER 0x0cu /* minimum and maximum fixed, positive decode, resource producer */

void aml_u8(struct aml *a, uint8_t value)
{
    if (a->used == a->capacity) {
        a->overflow = true;
        return;
    }
    a->bytes[a->used++] = value;
}

static void put(struct aml *a, uint64_t value, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i++)
        aml_u8(a, (uint8_t)(value >> 8 * i));
}

void aml_u16(struct aml *a, uint16_t value)
{
    put(a, value, 2);
}

void aml_u32(struct aml *a, uint32_t value)
{
    put(a, value, 4);
}

void aml_u64(struct aml *a, uint64_t value)
{
    put(a, value, 8);
}

/* A name of one segment, padded with '_'. */
static void put_name(struct aml *a, const char *name)
{
    for (unsigned i = 0; i < 4; i++)
        aml_u8(a, (uint8_t)(*name ? *name++ : '_'));
}

/* What is open from its opcode on, and begins with a name. */
static aml_mark open_named(struct aml *a, uint8_t opcode, const char *name)
{
    aml_u8(a, opcode);
    aml_mark mark = a->used;
    put_name(a, name);
    return mark;
}

aml_mark aml_scope(struct aml *a, const char *name)
{
    return open_named(a, OP_SCOPE, name);
}

aml_mark aml_device(struct aml *a, const char *name)
{
    aml_u8(a, OP_EXTENDED);
    return open_named(a, OP_DEVICE, name);
}

aml_mark aml_method(struct aml *a, const char *name, uint8_t arguments)
{
    aml_mark mark = open_named(a, OP_METHOD, name);
    aml_u8(a, arguments & 7); /* synchronization level 0 */
    return mark;
}

aml_mark aml_if(struct aml *a, const char *name)
{
    return open_named(a, OP_IF, name);
}

void aml_return(struct aml *a, const char *name)
{
    aml_u8(a, OP_RETURN);
    put_name(a, name);
}

void aml_store_arg0(struct aml *a, const char *name)
{
    aml_u8(a, OP_STORE);
    aml_u8(a, OP_ARG0);
    put_name(a, name);
}

void aml_name(struct aml *a, const char *name)
{
    aml_u8(a, OP_NAME);
    put_name(a, name);
}

aml_mark aml_package(struct aml *a, uint8_t count)
{
    aml_u8(a, OP_PACKAGE);
    aml_mark mark = a->used;
    aml_u8(a, count);
    return mark;
}

/* PkgLength counts itself: one byte holds 6 bits, two to four hold 4 + 8n (ACPI 6.4, 20.2.4). */
void aml_close(struct aml *a, aml_mark mark)
{
    size_t body = a->used - mark;
    unsigned extra = body + 1 < 0x40 ? 0 : body + 2 < 0x1000 ? 1 : body + 3 < 0x100000 ? 2 : 3;
    size_t total = body + 1 + extra;
    if (a->overflow || extra + 1 > a->capacity - a->used) {
        a->overflow = true;
        return;
    }
    uint8_t *at = a->bytes + mark;
    memmove(at + 1 + extra, at, body);
    a->used += 1 + extra;
    if (!extra) {
        at[0] = (uint8_t)total;
        return;
    }
    at[0] = (uint8_t)(extra << 6 | (total & 15));
    for (unsigned i = 0; i < extra; i++)
        at[1 + i] = (uint8_t)(total >> (4 + 8 * i));
}

void aml_integer(struct aml *a, uint64_t value)
{
    if (value <= 1) {
        aml_u8(a, (uint8_t)value); /* ZeroOp and OneOp */
    } else if (value <= UINT8_MAX) {
        aml_u8(a, OP_BYTE);
        put(a, value, 1);
    } else if (value <= UINT16_MAX) {
        aml_u8(a, OP_WORD);
        put(a, value, 2);
    } else if (value <= UINT32_MAX) {
        aml_u8(a, OP_DWORD);
        put(a, value, 4);
    } else {
        aml_u8(a, OP_QWORD);
        put(a, value, 8);
    }
}

static unsigned hex_digit(char c)
{
    return c <= '9' ? (unsigned)(c - '0') : (unsigned)(c - 'A' + 10);
}

void aml_eisa_id(struct aml *a, const char *id)
{
    uint32_t value = 0;
    for (unsigned i = 0; i < 3; i++)
        value = value << 5 | (uint32_t)(id[i] - 'A' + 1);
    for (unsigned i = 3; i < 7; i++)
        value = value << 4 | hex_digit(id[i]);
    aml_u8(a, OP_DWORD);
    for (unsigned i = 0; i < 4; i++) /* its bytes are in the order of the letters */
        aml_u8(a, (uint8_t)(value >> (24 - 8 * i)));
}

/* ---- Resource descriptors ---- */

/* The size of the buffer is an integer of its own, here always of one byte: 255 bytes are a dozen descriptors. */
struct aml_resources aml_resources(struct aml *a)
{
    struct aml_resources resources;
    aml_u8(a, OP_BUFFER);
    resources.buffer = a->used;
    aml_u8(a, OP_BYTE);
    aml_u8(a, 0);
    resources.first = a->used;
    return resources;
}

void aml_resources_close(struct aml *a, struct aml_resources resources)
{
    aml_u8(a, 0x79); /* end tag, */
    aml_u8(a, 0);    /* whose checksum is not used */
    size_t size = a->used - resources.first;
    if (a->overflow || size > UINT8_MAX) {
        a->overflow = true;
        return;
    }
    a->bytes[resources.first - 1] = (uint8_t)size;
    aml_close(a, resources.buffer);
}

static void window(struct aml *a, uint8_t tag, unsigned width, uint8_t space, uint8_t specific, uint64_t first,
                   uint64_t last)
{
    aml_u8(a, tag);
    aml_u16(a, (uint16_t)(3 + 5 * width));
    aml_u8(a, space);
    aml_u8(a, FIXED_PRODUCER);
    aml_u8(a, specific);
    put(a, 0, width); /* granularity */
    put(a, first, width);
    put(a, last, width);
    put(a, 0, width); /* translation */
    put(a, last - first + 1, width);
}

void aml_bus_range(struct aml *a, uint16_t first, uint16_t last)
{
    window(a, 0x88, 2, SPACE_BUS, 0, first, last);
}

void aml_io_window(struct aml *a, uint16_t first, uint16_t last)
{
    window(a, 0x88, 2, SPACE_IO, 3, first, last); /* ISA and non-ISA addresses */
}

void aml_memory32_window(struct aml *a, uint32_t first, uint32_t last)
{
    window(a, 0x87, 4, SPACE_MEMORY, 1, first, last); /* read-write, not cacheable */
}

void aml_memory64_window(struct aml *a, uint64_t first, uint64_t last)
{
    window(a, 0x8a, 8, SPACE_MEMORY, 1, first, last);
}

void aml_io_ports(struct aml *a, uint16_t base, uint8_t count)
{
    aml_u8(a, 0x47);
    aml_u8(a, 1); /* decodes 16 bits */
    aml_u16(a, base);
    aml_u16(a, base);
    aml_u8(a, 1);
    aml_u8(a, count);
}

void aml_irq(struct aml *a, unsigned irq)
{
    aml_u8(a, 0x22); /* edge-triggered, active high, not shared */
    aml_u16(a, (uint16_t)(1u << irq));
}
