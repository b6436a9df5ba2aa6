/* SPDX-License-Identifier: MIT */
/* Parsers of answers: INQUIRY, capacities, units, modes. See scsi_data.h. Pure. */
#include "net/scsi/scsi_data.h"

#include <string.h>

#include "kernel/bytes.h"

/* Copies text of a fixed width, printable, without blanks at its end. */
static void copy_text(char *to, size_t room, const uint8_t *from, size_t count)
{
    count = MIN(count, room - 1);
    for (size_t i = 0; i < count; i++)
        to[i] = from[i] >= 0x20 && from[i] < 0x7f ? (char)from[i] : '.';
    while (count && (to[count - 1] == ' ' || !from[count - 1]))
        count--;
    to[count] = 0;
}

enum status scsi_parse_inquiry(const uint8_t *data, size_t bytes, struct scsi_inquiry *inquiry)
{
    memset(inquiry, 0, sizeof(*inquiry));
    if (bytes < 5)
        return ERR_TRUNCATED;
    bytes = MIN(bytes, (size_t)data[4] + 5);
    inquiry->qualifier = data[0] >> 5;
    inquiry->device_type = data[0] & 0x1f;
    inquiry->removable = data[1] & 0x80;
    inquiry->version = data[2];
    if (bytes > 5) {
        inquiry->port_groups = data[5] >> 4 & 3;
        inquiry->three_party_copy = data[5] & 8;
    }
    if (bytes > 7)
        inquiry->command_queueing = data[7] & 2;
    if (bytes >= 36) {
        copy_text(inquiry->vendor, sizeof(inquiry->vendor), data + 8, 8);
        copy_text(inquiry->product, sizeof(inquiry->product), data + 16, 16);
        copy_text(inquiry->revision, sizeof(inquiry->revision), data + 32, 4);
    }
    return OK;
}

/* The body of a VPD page: *bytes becomes its length, as far as it is there. */
static enum status vpd(const uint8_t *data, size_t *bytes, uint8_t page)
{
    if (*bytes < 4)
        return ERR_TRUNCATED;
    if (data[1] != page)
        return ERR_INVALID;
    *bytes = MIN(*bytes - 4, (size_t)be16_get(data + 2));
    return OK;
}

enum status scsi_parse_pages(const uint8_t *data, size_t bytes, struct scsi_page_set *pages)
{
    memset(pages, 0, sizeof(*pages));
    enum status status = vpd(data, &bytes, 0x00);
    for (size_t i = 0; status == OK && i < bytes; i++)
        pages->bits[data[4 + i] >> 6] |= BIT(data[4 + i] & 63);
    return status;
}

enum status scsi_parse_serial(const uint8_t *data, size_t bytes, char *serial, size_t room)
{
    enum status status = vpd(data, &bytes, 0x80);
    if (status != OK)
        return status;
    const uint8_t *text = data + 4;
    while (bytes && *text == ' ') {
        text++;
        bytes--;
    }
    copy_text(serial, room, text, bytes);
    return OK;
}

static void put_hex(char *to, const char *prefix, const uint8_t *bytes, size_t count)
{
    static const char digit[] = "0123456789abcdef";
    size_t n = strlen(prefix);
    memcpy(to, prefix, n);
    for (size_t i = 0; i < count; i++) {
        to[n++] = digit[bytes[i] >> 4];
        to[n++] = digit[bytes[i] & 15];
    }
    to[n] = 0;
}

static bool all_zero(const uint8_t *bytes, size_t count)
{
    while (count && !bytes[count - 1])
        count--;
    return !count;
}

/* Text without anything that copy_text() would change, blanks and NULs at its end aside; not empty. */
static bool is_text(const uint8_t *bytes, size_t count)
{
    while (count && (bytes[count - 1] == ' ' || !bytes[count - 1]))
        count--;
    for (size_t i = 0; i < count; i++)
        if (bytes[i] < 0x20 || bytes[i] > 0x7e)
            return false;
    return count;
}

/*
 * How good a designator is as the unit's name; 0: not at all (SPC-4 7.8.5). Two units with one name would be taken for
 * two paths to one unit, so what does not come out whole, or says nothing, does not count.
 */
static unsigned rank(unsigned type, const uint8_t *value, size_t length)
{
    switch (type) {
    case 3: { /* NAA: locally assigned and IEEE formats have 8 bytes, IEEE registered extended has 16 */
        unsigned format = length ? value[0] >> 4 : 0;
        if (all_zero(value, length))
            return 0;
        return length == 16 && format == 6 ? 6 : length == 8 && (format == 2 || format == 3 || format == 5) ? 5 : 0;
    }
    case 2: return (length == 8 || length == 12 || length == 16) && !all_zero(value, length) ? 4 : 0; /* EUI-64 */
    case 8: return length >= 4 && value[0] > ' ' && is_text(value, length) ? 3 : 0; /* SCSI name string */
    case 1: return length > 8 && is_text(value, length) && is_text(value + 8, length - 8) ? 2 : 0; /* T10 vendor ID */
    default: return 0;
    }
}

enum status scsi_parse_identity(const uint8_t *data, size_t bytes, struct scsi_identity *identity)
{
    unsigned best = 0;
    memset(identity, 0, sizeof(*identity));
    enum status status = vpd(data, &bytes, 0x83);
    if (status != OK)
        return status;
    const uint8_t *at = data + 4, *end = at + bytes;
    while (end - at >= 4) {
        size_t length = at[3];
        if (length > (size_t)(end - at - 4))
            break;
        const uint8_t *value = at + 4;
        unsigned association = at[1] >> 4 & 3, type = at[1] & 15, order = rank(type, value, length);
        if (association == 1 && type == 4 && length == 4)
            identity->relative_port = be16_get(value + 2);
        if (association == 0 && order > best) {
            best = order;
            if (type == 3)
                put_hex(identity->name, "naa.", value, length);
            else if (type == 2)
                put_hex(identity->name, "eui.", value, length);
            else if (type == 8)
                copy_text(identity->name, sizeof(identity->name), value, length);
            else {
                memcpy(identity->name, "t10.", 4);
                copy_text(identity->name + 4, sizeof(identity->name) - 4, value, length);
            }
        }
        at += 4 + length;
    }
    return best ? OK : ERR_NOT_FOUND;
}

enum status scsi_parse_limits(const uint8_t *data, size_t bytes, struct scsi_limits *limits)
{
    memset(limits, 0, sizeof(*limits));
    enum status status = vpd(data, &bytes, 0xb0);
    if (status != OK)
        return status;
    bytes += 4;
    if (bytes < 16)
        return ERR_TRUNCATED;
    limits->write_same_nonzero_only = data[4] & 1;
    limits->compare_and_write_max = data[5];
    limits->transfer_granularity = be16_get(data + 6);
    limits->transfer_max = be32_get(data + 8);
    limits->transfer_best = be32_get(data + 12);
    if (bytes >= 36) {
        limits->unmap_blocks_max = be32_get(data + 20);
        limits->unmap_ranges_max = be32_get(data + 24);
        limits->unmap_granularity = be32_get(data + 28);
        if (data[32] & 0x80) /* UGAVALID */
            limits->unmap_alignment = be32_get(data + 32) & 0x7fffffff;
    }
    if (bytes >= 44)
        limits->write_same_max = be64_get(data + 36);
    return OK;
}

enum status scsi_parse_characteristics(const uint8_t *data, size_t bytes, uint16_t *rotation)
{
    enum status status = vpd(data, &bytes, 0xb1);
    if (status != OK)
        return status;
    if (bytes < 2)
        return ERR_TRUNCATED;
    *rotation = be16_get(data + 4);
    return OK;
}

enum status scsi_parse_provisioning(const uint8_t *data, size_t bytes, struct scsi_provisioning *provisioning)
{
    memset(provisioning, 0, sizeof(*provisioning));
    enum status status = vpd(data, &bytes, 0xb2);
    if (status != OK)
        return status;
    if (bytes < 3)
        return ERR_TRUNCATED;
    provisioning->threshold_exponent = data[4];
    provisioning->unmap = data[5] & 0x80;
    provisioning->write_same16_unmap = data[5] & 0x40;
    provisioning->write_same10_unmap = data[5] & 0x20;
    provisioning->reads_zero = data[5] & 0x04; /* LBPRZ xx1b; 010b is a pattern of the unit's own (SBC-4) */
    provisioning->anchors = data[5] & 0x02;
    provisioning->kind = data[6] & 7;
    return OK;
}

static enum status check_capacity(const struct scsi_capacity *capacity)
{
    uint32_t size = capacity->block_bytes;
    if (!capacity->blocks || size < 512 || size > 65536 || size & (size - 1) ||
        capacity->blocks > (UINT64_C(1) << 63) / size)
        return ERR_INVALID;
    return OK;
}

enum status scsi_parse_capacity16(const uint8_t *data, size_t bytes, struct scsi_capacity *capacity)
{
    memset(capacity, 0, sizeof(*capacity));
    if (bytes < 12)
        return ERR_TRUNCATED;
    capacity->blocks = be64_get(data) + 1; /* 0 where the last block is 2^64 - 1 */
    capacity->block_bytes = be32_get(data + 8);
    if (check_capacity(capacity) != OK)
        return ERR_INVALID;
    unsigned exponent = 0;
    if (bytes >= 16) {
        capacity->protected_data = data[12] & 1;
        exponent = data[13] & 15;
        capacity->provisioned = data[14] & 0x80;
        capacity->reads_zero = data[14] & 0x40;
        capacity->lowest_aligned = be16_get(data + 14) & 0x3fff;
    }
    capacity->physical_block_bytes = capacity->block_bytes << exponent;
    return OK;
}

enum status scsi_parse_capacity10(const uint8_t *data, size_t bytes, struct scsi_capacity *capacity)
{
    memset(capacity, 0, sizeof(*capacity));
    if (bytes < 8)
        return ERR_TRUNCATED;
    if (be32_get(data) == UINT32_MAX)
        return ERR_RANGE;
    capacity->blocks = (uint64_t)be32_get(data) + 1;
    capacity->block_bytes = capacity->physical_block_bytes = be32_get(data + 4);
    return check_capacity(capacity);
}

enum status scsi_parse_luns(const uint8_t *data, size_t bytes, uint8_t (*luns)[8], unsigned room, unsigned *count,
                            unsigned *listed)
{
    if (bytes < 8)
        return ERR_TRUNCATED;
    *listed = be32_get(data) / 8;
    *count = (unsigned)MIN((size_t)MIN(*listed, room), (bytes - 8) / 8);
    for (unsigned i = 0; i < *count; i++)
        memcpy(luns[i], data + 8 + 8 * i, 8);
    return OK;
}

static void take_mode(uint8_t parameter, struct scsi_mode *mode)
{
    mode->write_protected = parameter & 0x80;
    mode->fua = parameter & 0x10;
}

enum status scsi_parse_mode6(const uint8_t *data, size_t bytes, struct scsi_mode *mode)
{
    if (bytes < 3)
        return ERR_TRUNCATED;
    take_mode(data[2], mode);
    return OK;
}

enum status scsi_parse_mode10(const uint8_t *data, size_t bytes, struct scsi_mode *mode)
{
    if (bytes < 4)
        return ERR_TRUNCATED;
    take_mode(data[3], mode);
    return OK;
}

/* ---- Persistent reservations ---- */

/* Generation and length at the front of three of the answers; *bytes becomes the length of the rest that is there. */
static enum status pr_header(const uint8_t *data, size_t *bytes, uint32_t *generation, uint32_t *length)
{
    if (*bytes < 8)
        return ERR_TRUNCATED;
    *generation = be32_get(data);
    *length = be32_get(data + 4);
    *bytes = MIN(*bytes - 8, (size_t)*length);
    return OK;
}

enum status scsi_parse_keys(const uint8_t *data, size_t bytes, uint32_t *generation, uint64_t *keys, unsigned room,
                            unsigned *count, unsigned *listed)
{
    uint32_t length;
    enum status status = pr_header(data, &bytes, generation, &length);
    if (status != OK)
        return status;
    *listed = length / 8;
    *count = (unsigned)MIN((size_t)room, bytes / 8);
    for (unsigned i = 0; i < *count; i++)
        keys[i] = be64_get(data + 8 + 8 * i);
    return OK;
}

enum status scsi_parse_reservation(const uint8_t *data, size_t bytes, struct scsi_reservation *reservation)
{
    uint32_t length;
    memset(reservation, 0, sizeof(*reservation));
    enum status status = pr_header(data, &bytes, &reservation->generation, &length);
    if (status != OK || !length)
        return status;
    if (bytes < 16)
        return ERR_TRUNCATED;
    reservation->held = true;
    reservation->key = be64_get(data + 8);
    reservation->type = data[21] & 15;
    return OK;
}

enum status scsi_parse_pr_capabilities(const uint8_t *data, size_t bytes, struct scsi_pr_capabilities *capabilities)
{
    memset(capabilities, 0, sizeof(*capabilities));
    if (bytes < 6 || be16_get(data) < 6)
        return ERR_TRUNCATED;
    capabilities->replace_lost = data[2] & 0x80;
    capabilities->specify_initiators = data[2] & 0x08;
    capabilities->all_ports = data[2] & 0x04;
    capabilities->keeps = data[2] & 0x01;
    capabilities->types_valid = data[3] & 0x80;
    capabilities->keeps_now = data[3] & 0x01;
    /* Byte 4: WR_EX_AR, EX_AC_RO, WR_EX_RO, -, EX_AC, -, WR_EX, -; byte 5 bit 0: EX_AC_AR. */
    capabilities->types = (uint16_t)((data[4] & 0x02 ? 1 << SCSI_PR_WRITE_EXCLUSIVE : 0) |
                                     (data[4] & 0x08 ? 1 << SCSI_PR_EXCLUSIVE_ACCESS : 0) |
                                     (data[4] & 0x20 ? 1 << SCSI_PR_WRITE_EXCLUSIVE_REGISTRANTS : 0) |
                                     (data[4] & 0x40 ? 1 << SCSI_PR_EXCLUSIVE_ACCESS_REGISTRANTS : 0) |
                                     (data[4] & 0x80 ? 1 << SCSI_PR_WRITE_EXCLUSIVE_ALL : 0) |
                                     (data[5] & 0x01 ? 1 << SCSI_PR_EXCLUSIVE_ACCESS_ALL : 0));
    return OK;
}

enum status scsi_full_status_start(struct scsi_full_status *status, const uint8_t *data, size_t bytes)
{
    uint32_t length;
    enum status result = pr_header(data, &bytes, &status->generation, &length);
    status->at = status->end = data;
    status->cut = false;
    if (result == OK) {
        status->at = data + 8;
        status->end = status->at + bytes;
        status->cut = bytes < length;
    }
    return result;
}

enum status scsi_full_status_next(struct scsi_full_status *status, struct scsi_registration *registration)
{
    const uint8_t *at = status->at;
    size_t left = (size_t)(status->end - at);
    memset(registration, 0, sizeof(*registration));
    if (!left)
        return status->cut ? ERR_TRUNCATED : ERR_NOT_FOUND;
    if (left < 24 || be32_get(at + 20) > left - 24) {
        status->at = status->end;
        status->cut = true;
        return ERR_TRUNCATED;
    }
    uint32_t id_bytes = be32_get(at + 20);
    registration->key = be64_get(at);
    registration->all_ports = at[12] & 2;
    registration->holder = at[12] & 1;
    registration->type = at[13] & 15;
    registration->relative_port = be16_get(at + 18);
    const uint8_t *id = at + 24;
    if (id_bytes >= 4 && (id[0] & 15) == 5) { /* iSCSI */
        size_t name_bytes = MIN((size_t)be16_get(id + 2), (size_t)id_bytes - 4);
        name_bytes = strnlen((const char *)id + 4, name_bytes);
        copy_text(registration->initiator, sizeof(registration->initiator), id + 4, name_bytes);
    }
    status->at = id + id_bytes;
    return OK;
}

const char *scsi_pr_type_name(unsigned type)
{
    switch (type) {
    case SCSI_PR_WRITE_EXCLUSIVE: return "write exclusive";
    case SCSI_PR_EXCLUSIVE_ACCESS: return "exclusive access";
    case SCSI_PR_WRITE_EXCLUSIVE_REGISTRANTS: return "write exclusive, registrants only";
    case SCSI_PR_EXCLUSIVE_ACCESS_REGISTRANTS: return "exclusive access, registrants only";
    case SCSI_PR_WRITE_EXCLUSIVE_ALL: return "write exclusive, all registrants";
    case SCSI_PR_EXCLUSIVE_ACCESS_ALL: return "exclusive access, all registrants";
    default: return "of a type that is not in the standard";
    }
}
