/* SPDX-License-Identifier: MIT */
/*
 * What a logical unit answers, taken apart: INQUIRY and its VPD pages, capacities, the list of units, the write-protect
 * bit, persistent reservations. Every parser gets the bytes that came (as many as were transferred, not as were asked
 * for) and believes no length in them: what is beyond the bytes is not there. ERR_TRUNCATED: the part that cannot be
 * done without is missing; ERR_INVALID: the bytes are of something else. On failure nothing is promised about the
 * result.
 *
 * Texts come out printable: other bytes become '.', trailing blanks are cut.
 *
 * Pure; any context. Sections are those of SPC-4 and SBC-3.
 */
#ifndef NET_SCSI_SCSI_DATA_H
#define NET_SCSI_SCSI_DATA_H

#include "net/scsi/scsi_cdb.h"

/* Standard INQUIRY data (SPC-4 6.6.2); 5 bytes are the least. */
struct scsi_inquiry {
    uint8_t qualifier;   /* 0: a unit is there; 1: not now; 3: none can be */
    uint8_t device_type; /* 0: block device */
    uint8_t version;     /* 5: SPC-3, 6: SPC-4 */
    bool removable, command_queueing, three_party_copy;
    uint8_t port_groups; /* asymmetric access: 0 none, 1 implicit, 2 explicit, 3 both */
    char vendor[9], product[17], revision[5];
};
enum status scsi_parse_inquiry(const uint8_t *data, size_t bytes, struct scsi_inquiry *inquiry) MUST_CHECK;

/* VPD page 00h: bit `page` of the set says that the page is there. */
struct scsi_page_set {
    uint64_t bits[4];
};
enum status scsi_parse_pages(const uint8_t *data, size_t bytes, struct scsi_page_set *pages) MUST_CHECK;
static inline bool scsi_has_page(const struct scsi_page_set *pages, uint8_t page)
{
    return pages->bits[page >> 6] >> (page & 63) & 1;
}

/* VPD page 80h: the serial number; cut to fit. */
enum status scsi_parse_serial(const uint8_t *data, size_t bytes, char *serial, size_t room) MUST_CHECK;

/*
 * VPD page 83h: the name that stays the same over all paths. The best designator of the logical unit (association 0):
 * NAA, then EUI-64, SCSI name string, T10 vendor ID; as text "naa.6001...", "eui....", the name, "t10....". What is all
 * zeros, or would lose bytes as text, is no name.
 * ERR_NOT_FOUND: there is none. `relative_port`: that of the port which answered, 0 where it is not said.
 */
#define SCSI_NAME_BYTES 264u
struct scsi_identity {
    char name[SCSI_NAME_BYTES];
    uint16_t relative_port;
};
enum status scsi_parse_identity(const uint8_t *data, size_t bytes, struct scsi_identity *identity) MUST_CHECK;

/*
 * VPD page B0h: limits in blocks; 16 bytes are the least. 0: the unit reports none; but unmap_blocks_max 0 says that it
 * has no UNMAP, and UINT32_MAX there that it has no limit.
 */
struct scsi_limits {
    uint32_t transfer_granularity, transfer_max, transfer_best;
    uint8_t compare_and_write_max;
    uint32_t unmap_blocks_max, unmap_ranges_max, unmap_granularity, unmap_alignment;
    uint64_t write_same_max;
    bool write_same_nonzero_only; /* WRITE SAME of 0 blocks is refused */
};
enum status scsi_parse_limits(const uint8_t *data, size_t bytes, struct scsi_limits *limits) MUST_CHECK;

/* VPD page B1h: rotation rate; 1: does not rotate, 0: not said. */
enum status scsi_parse_characteristics(const uint8_t *data, size_t bytes, uint16_t *rotation) MUST_CHECK;

/* VPD page B2h. */
struct scsi_provisioning {
    bool unmap, write_same16_unmap, write_same10_unmap, reads_zero, anchors;
    uint8_t kind;               /* 0: not said, 1: resource, 2: thin */
    uint8_t threshold_exponent; /* 0: no thresholds */
};
enum status scsi_parse_provisioning(const uint8_t *data, size_t bytes,
                                    struct scsi_provisioning *provisioning) MUST_CHECK;

/*
 * READ CAPACITY. ERR_INVALID: no blocks, or a block size that is not a power of two from 512 to 64 KiB, or a capacity
 * of more than 2^63 bytes.
 */
struct scsi_capacity {
    uint64_t blocks;
    uint32_t block_bytes, physical_block_bytes;
    uint16_t lowest_aligned;
    bool provisioned, reads_zero, protected_data; /* LBPME, LBPRZ, PROT_EN */
};
enum status scsi_parse_capacity16(const uint8_t *data, size_t bytes, struct scsi_capacity *capacity) MUST_CHECK;
/* ERR_RANGE: the unit is too large for READ CAPACITY (10): ask (16). */
enum status scsi_parse_capacity10(const uint8_t *data, size_t bytes, struct scsi_capacity *capacity) MUST_CHECK;

/*
 * REPORT LUNS: eight-byte numbers. *count: how many of them are in the data, at most `room` are copied; *listed: how
 * many the target has (more than *count: ask again with more room).
 */
enum status scsi_parse_luns(const uint8_t *data, size_t bytes, uint8_t (*luns)[8], unsigned room, unsigned *count,
                            unsigned *listed) MUST_CHECK;

/* MODE SENSE (6) and (10): write protection, and whether FUA is obeyed. */
struct scsi_mode {
    bool write_protected, fua;
};
enum status scsi_parse_mode6(const uint8_t *data, size_t bytes, struct scsi_mode *mode) MUST_CHECK;
enum status scsi_parse_mode10(const uint8_t *data, size_t bytes, struct scsi_mode *mode) MUST_CHECK;

/* ---- Persistent reservations (SPC-4 6.15) ---- */

/*
 * READ KEYS. *listed is how many keys the target says it has; *count of them are in `keys`. Where that is fewer, no key
 * is known to be gone.
 */
enum status scsi_parse_keys(const uint8_t *data, size_t bytes, uint32_t *generation, uint64_t *keys, unsigned room,
                            unsigned *count, unsigned *listed) MUST_CHECK;

struct scsi_reservation {
    uint32_t generation;
    bool held;
    uint64_t key; /* 0 for the "all registrants" types */
    uint8_t type; /* enum scsi_pr_type */
};
enum status scsi_parse_reservation(const uint8_t *data, size_t bytes, struct scsi_reservation *reservation) MUST_CHECK;

struct scsi_pr_capabilities {
    bool keeps, keeps_now, all_ports, specify_initiators, replace_lost;
    bool types_valid;
    uint16_t types; /* bit n: enum scsi_pr_type n is supported */
};
enum status scsi_parse_pr_capabilities(const uint8_t *data, size_t bytes, struct scsi_pr_capabilities *capabilities)
    MUST_CHECK;

/* READ FULL STATUS: one registration after the other. */
struct scsi_registration {
    uint64_t key;
    bool all_ports, holder;
    uint8_t type;
    uint16_t relative_port;
    char initiator[SCSI_NAME_BYTES]; /* an iSCSI TransportID's name, ",i,0x..." included; "" for other transports */
};
struct scsi_full_status {
    const uint8_t *at, *end;
    bool cut; /* the target has more than came */
    uint32_t generation;
};
enum status scsi_full_status_start(struct scsi_full_status *status, const uint8_t *data, size_t bytes) MUST_CHECK;
/* ERR_NOT_FOUND: no more; ERR_TRUNCATED: there are more, but the next one is not there or not whole: give more room. */
enum status scsi_full_status_next(struct scsi_full_status *status, struct scsi_registration *registration) MUST_CHECK;

/* The name of a type of reservation, for people; never NULL. */
const char *scsi_pr_type_name(unsigned type);

#endif
