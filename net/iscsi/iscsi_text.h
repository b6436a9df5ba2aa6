/* SPDX-License-Identifier: MIT */
/*
 * Text of login and text requests (RFC 7143 section 6.1): key=value pairs, each ended by a NUL. This file knows how
 * pairs, numbers and binary values are spelled; which keys there are and what they mean is in iscsi_keys.h and
 * iscsi_chap.h.
 *
 * Everything read here came from the network: nothing is believed, no read leaves the given bytes, and what is handed
 * out points into the reader's text, which has a NUL after each value because the reader insists on it.
 *
 * Pure; any context.
 */
#ifndef NET_ISCSI_ISCSI_TEXT_H
#define NET_ISCSI_ISCSI_TEXT_H

#include "kernel/status.h"
#include "kernel/types.h"

#define ISCSI_KEY_MAX 63u     /* characters of a key's name (6.1) */
#define ISCSI_VALUE_MAX 8192u /* characters of a value; the RFC asks for 255, and more for binary values */
#define ISCSI_NAME_MAX 223u   /* bytes of an iSCSI name (4.2.7) */

struct iscsi_text_reader {
    const char *at, *end;
};

static inline struct iscsi_text_reader iscsi_text_reader(const void *text, size_t bytes)
{
    return (struct iscsi_text_reader){ .at = text, .end = (const char *)text + bytes };
}

/*
 * Takes the next pair. OK: *key (not terminated, *key_bytes long) and *value (ends in a NUL) point into the text.
 * ERR_NOT_FOUND: no more pairs. ERR_INVALID: not a pair (no `=`, no NUL at its end, a key with characters other than
 * letters, digits and `.-+@_#`, or with none or more than 63 of them; a value of more than ISCSI_VALUE_MAX).
 */
enum status iscsi_text_next(struct iscsi_text_reader *reader, const char **key, size_t *key_bytes, const char **value)
    MUST_CHECK;

/* True if the key of that length is `name`. Keys are case sensitive. */
bool iscsi_key_is(const char *key, size_t key_bytes, const char *name);

struct iscsi_text_writer {
    char *text;
    size_t bytes, count; /* capacity, used */
    bool full;           /* a pair did not fit: nothing of it was written */
};
/* Appends key=value and the NUL. */
void iscsi_text_put(struct iscsi_text_writer *writer, const char *key, const char *value);
void iscsi_text_put_number(struct iscsi_text_writer *writer, const char *key, uint64_t number);
/* The same for a key that is not terminated. */
void iscsi_text_put_key(struct iscsi_text_writer *writer, const char *key, size_t key_bytes, const char *value);
/* Appends key=0x... */
void iscsi_text_put_binary(struct iscsi_text_writer *writer, const char *key, const uint8_t *bytes, size_t count);

/* A number, decimal or 0x hexadecimal, of at most 64 bits; ERR_INVALID for anything else. */
enum status iscsi_text_number(const char *value, uint64_t *number) MUST_CHECK;

/*
 * A binary value: 0x and hexadecimal digits (an odd count begins with half a byte), or 0b and base64 (RFC 4648, padding
 * required). OK: *count bytes are in `bytes`. ERR_RANGE: there are more than `capacity`. ERR_INVALID: not one.
 */
enum status iscsi_text_binary(const char *value, uint8_t *bytes, size_t capacity, size_t *count) MUST_CHECK;

/*
 * Walks a comma-separated list: *list advances, *item (not terminated) is *item_bytes long. False at the end.
 */
bool iscsi_list_next(const char **list, const char **item, size_t *item_bytes);
/* True if the list has that item. */
bool iscsi_list_has(const char *list, const char *item, size_t item_bytes);

/*
 * An address as TargetAddress has it (13.8): host or [IPv6], then :port, then ,portal-group-tag, the last two
 * optional.
 */
struct iscsi_portal {
    char host[256]; /* name, IPv4, or IPv6 without brackets */
    uint16_t port;  /* 3260 where none was given */
    uint16_t group; /* portal group tag; 0 where none was given (tags begin at 0 too: it is not used to choose) */
};
enum status iscsi_portal_parse(const char *text, struct iscsi_portal *portal) MUST_CHECK;

/* True for a name of type iqn., eui. or naa. with the allowed characters and length (4.2.7). Case is not judged. */
bool iscsi_name_valid(const char *name);

#endif
