/* SPDX-License-Identifier: MIT */
/*
 * Writes ACPI Machine Language (ACPI 6.4, chapter 20) and resource descriptors (6.4) into a buffer: just the
 * constructs that our DSDT is made of. Names are single segments, written as in ASL ("_SB", "_HID").
 *
 * Things with a body are opened and closed; the length in front is put in when they are closed, in its shortest form.
 * A full buffer is remembered in `overflow`, and everything goes on without writing.
 */
#ifndef VDEV_VACPI_AML_H
#define VDEV_VACPI_AML_H

#include "kernel/types.h"

struct aml {
    uint8_t *bytes;
    size_t capacity, used;
    bool overflow;
};

/* Where an open construct's body begins; hand it to aml_close. */
typedef size_t aml_mark;

void aml_u8(struct aml *a, uint8_t value);
void aml_u16(struct aml *a, uint16_t value);
void aml_u32(struct aml *a, uint32_t value);
void aml_u64(struct aml *a, uint64_t value);

aml_mark aml_scope(struct aml *a, const char *name);
aml_mark aml_device(struct aml *a, const char *name);
/* Method (name, arguments), not serialized: the terms follow. At most 7 arguments. */
aml_mark aml_method(struct aml *a, const char *name, uint8_t arguments);
/* If (name): the terms follow. The name is an integer's. */
aml_mark aml_if(struct aml *a, const char *name);
/* Return (name). */
void aml_return(struct aml *a, const char *name);
/* Store (Arg0, name). */
void aml_store_arg0(struct aml *a, const char *name);
/* Name (name, ...): the object follows. */
void aml_name(struct aml *a, const char *name);
/* As an object: elements follow. At most 255. */
aml_mark aml_package(struct aml *a, uint8_t count);
void aml_close(struct aml *a, aml_mark mark);

void aml_integer(struct aml *a, uint64_t value);
/* A compressed EISA ID: three capital letters and four hexadecimal digits. */
void aml_eisa_id(struct aml *a, const char *id);

/* ResourceTemplate as an object: up to 253 bytes of descriptors follow, then aml_resources_close. */
struct aml_resources { aml_mark buffer; size_t first; };
struct aml_resources aml_resources(struct aml *a);
void aml_resources_close(struct aml *a, struct aml_resources resources);
void aml_bus_range(struct aml *a, uint16_t first, uint16_t last);
void aml_io_window(struct aml *a, uint16_t first, uint16_t last);
void aml_memory32_window(struct aml *a, uint32_t first, uint32_t last);
void aml_memory64_window(struct aml *a, uint64_t first, uint64_t last);
void aml_io_ports(struct aml *a, uint16_t base, uint8_t count);
void aml_irq(struct aml *a, unsigned irq);

#endif
