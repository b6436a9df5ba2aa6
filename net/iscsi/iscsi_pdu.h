/* SPDX-License-Identifier: MIT */
/*
 * The basic header segments of iSCSI (RFC 7143 section 11): every PDU begins with 48 bytes, laid out here byte by byte
 * for each opcode. All fields are arrays of bytes, so a header has no alignment and no padding; numbers are big-endian
 * and are read and written by be*_get and be*_put.
 *
 * A PDU on the wire:  header (48) | additional header segments (TotalAHSLength words) | header digest (0 or 4)
 *                     | data (DataSegmentLength, padded with zeroes to a word) | data digest (0 or 4, if there is data)
 *
 * Sequence numbers are 32 bits and wrap; they are compared by serial number arithmetic (RFC 1982), never by `<`.
 *
 * Pure. Used by the whole of net/iscsi, and by the target that its tests are made against.
 */
#ifndef NET_ISCSI_ISCSI_PDU_H
#define NET_ISCSI_ISCSI_PDU_H

#include <assert.h>

#include "kernel/bytes.h"
#include "kernel/types.h"

#define ISCSI_BHS_BYTES 48u
#define ISCSI_DIGEST_BYTES 4u
#define ISCSI_AHS_MAX_BYTES (255u * 4)
#define ISCSI_DATA_MAX 0xffffffu   /* DataSegmentLength is 24 bits */
#define ISCSI_TAG_NONE 0xffffffffu /* the reserved Initiator and Target Transfer Tag */

/* Opcodes (11.2.1.2); bit 6 of the byte is "immediate". */
enum iscsi_opcode {
    ISCSI_NOP_OUT = 0x00,
    ISCSI_SCSI_COMMAND = 0x01,
    ISCSI_TASK_REQUEST = 0x02,
    ISCSI_LOGIN_REQUEST = 0x03,
    ISCSI_TEXT_REQUEST = 0x04,
    ISCSI_DATA_OUT = 0x05,
    ISCSI_LOGOUT_REQUEST = 0x06,
    ISCSI_SNACK = 0x10,
    ISCSI_NOP_IN = 0x20,
    ISCSI_SCSI_RESPONSE = 0x21,
    ISCSI_TASK_RESPONSE = 0x22,
    ISCSI_LOGIN_RESPONSE = 0x23,
    ISCSI_TEXT_RESPONSE = 0x24,
    ISCSI_DATA_IN = 0x25,
    ISCSI_LOGOUT_RESPONSE = 0x26,
    ISCSI_R2T = 0x31,
    ISCSI_ASYNC = 0x32,
    ISCSI_REJECT = 0x3f,
};
#define ISCSI_OPCODE_MASK 0x3f
#define ISCSI_IMMEDIATE 0x40

#define ISCSI_FINAL 0x80            /* F, in byte 1 of most PDUs */
/* SCSI Command (11.3.1) */
#define ISCSI_COMMAND_READ 0x40
#define ISCSI_COMMAND_WRITE 0x20
#define ISCSI_ATTRIBUTE_MASK 0x07
/* SCSI Response (11.4.1) and Data-In (11.7.1) */
#define ISCSI_RESIDUAL_OVERFLOW 0x04
#define ISCSI_RESIDUAL_UNDERFLOW 0x02
#define ISCSI_BIDI_OVERFLOW 0x10
#define ISCSI_BIDI_UNDERFLOW 0x08
#define ISCSI_DATA_ACK 0x40
#define ISCSI_DATA_STATUS 0x01
/* Login (11.12, 11.13) and Text (11.10): T, C, stages */
#define ISCSI_LOGIN_TRANSIT 0x80
#define ISCSI_CONTINUE 0x40
#define ISCSI_LOGIN_CSG(flags) ((flags) >> 2 & 3)
#define ISCSI_LOGIN_NSG(flags) ((flags) & 3)
enum iscsi_stage { ISCSI_STAGE_SECURITY = 0, ISCSI_STAGE_OPERATIONAL = 1, ISCSI_STAGE_FULL = 3 };

/* Task management functions (11.5.1) and their answers (11.6.1). */
enum iscsi_task_function {
    ISCSI_ABORT_TASK = 1,
    ISCSI_ABORT_TASK_SET = 2,
    ISCSI_CLEAR_ACA = 3,
    ISCSI_CLEAR_TASK_SET = 4,
    ISCSI_LOGICAL_UNIT_RESET = 5,
    ISCSI_TARGET_WARM_RESET = 6,
    ISCSI_TARGET_COLD_RESET = 7,
};
enum iscsi_task_answer {
    ISCSI_TASK_COMPLETE = 0,
    ISCSI_TASK_NO_TASK = 1,
    ISCSI_TASK_NO_LUN = 2,
    ISCSI_TASK_STILL_ALLEGIANT = 3,
    ISCSI_TASK_NO_REASSIGN = 4,
    ISCSI_TASK_UNSUPPORTED = 5,
    ISCSI_TASK_UNAUTHORIZED = 6,
    ISCSI_TASK_REJECTED = 255,
};

/* Logout: reasons (11.14.1) and responses (11.15.1). */
enum iscsi_logout_reason { ISCSI_LOGOUT_SESSION = 0, ISCSI_LOGOUT_CONNECTION = 1, ISCSI_LOGOUT_RECOVERY = 2 };

/* Asynchronous events (11.9.1). */
enum iscsi_async_event {
    ISCSI_ASYNC_SCSI = 0,           /* sense data follows: a unit attention or the like */
    ISCSI_ASYNC_LOGOUT = 1,         /* the target asks for a logout within Parameter3 seconds */
    ISCSI_ASYNC_DROP_CONNECTION = 2,
    ISCSI_ASYNC_DROP_SESSION = 3,
    ISCSI_ASYNC_NEGOTIATE = 4,
    ISCSI_ASYNC_TASKS_TERMINATED = 5,
    ISCSI_ASYNC_VENDOR = 255,
};

/* Reasons of a Reject (11.17.1). */
enum iscsi_reject_reason {
    ISCSI_REJECT_DATA_DIGEST = 0x02,
    ISCSI_REJECT_SNACK = 0x03,
    ISCSI_REJECT_PROTOCOL = 0x04,
    ISCSI_REJECT_UNSUPPORTED = 0x05,
    ISCSI_REJECT_TOO_MANY_IMMEDIATE = 0x06,
    ISCSI_REJECT_TASK_IN_PROGRESS = 0x07,
    ISCSI_REJECT_DATA_ACK = 0x08,
    ISCSI_REJECT_FIELD = 0x09,
    ISCSI_REJECT_RESOURCES = 0x0a,
    ISCSI_REJECT_NEGOTIATION_RESET = 0x0b,
    ISCSI_REJECT_WAITING_FOR_LOGOUT = 0x0c,
};

/* What every header has at the same place (11.2.1). */
struct iscsi_header {
    uint8_t opcode, flags, reserved[2], ahs_words, data_length[3], lun[8], itt[4], specific[28];
};

struct iscsi_scsi_command {
    uint8_t opcode, flags, reserved[2], ahs_words, data_length[3], lun[8], itt[4];
    uint8_t expected_length[4], cmd_sn[4], exp_stat_sn[4], cdb[16];
};
struct iscsi_scsi_response {
    uint8_t opcode, flags, response, status, ahs_words, data_length[3], reserved[8], itt[4];
    uint8_t snack_tag[4], stat_sn[4], exp_cmd_sn[4], max_cmd_sn[4], exp_data_sn[4], bidi_residual[4], residual[4];
};
struct iscsi_task_request {
    uint8_t opcode, function, reserved[2], ahs_words, data_length[3], lun[8], itt[4];
    uint8_t referenced_tag[4], cmd_sn[4], exp_stat_sn[4], ref_cmd_sn[4], exp_data_sn[4], reserved2[8];
};
struct iscsi_task_response {
    uint8_t opcode, flags, response, reserved, ahs_words, data_length[3], reserved2[8], itt[4];
    uint8_t reserved3[4], stat_sn[4], exp_cmd_sn[4], max_cmd_sn[4], reserved4[12];
};
struct iscsi_data_out {
    uint8_t opcode, flags, reserved[2], ahs_words, data_length[3], lun[8], itt[4];
    uint8_t ttt[4], reserved2[4], exp_stat_sn[4], reserved3[4], data_sn[4], offset[4], reserved4[4];
};
struct iscsi_data_in {
    uint8_t opcode, flags, reserved, status, ahs_words, data_length[3], lun[8], itt[4];
    uint8_t ttt[4], stat_sn[4], exp_cmd_sn[4], max_cmd_sn[4], data_sn[4], offset[4], residual[4];
};
struct iscsi_r2t {
    uint8_t opcode, flags, reserved[2], ahs_words, data_length[3], lun[8], itt[4];
    uint8_t ttt[4], stat_sn[4], exp_cmd_sn[4], max_cmd_sn[4], r2t_sn[4], offset[4], desired_length[4];
};
struct iscsi_async {
    uint8_t opcode, flags, reserved[2], ahs_words, data_length[3], lun[8], itt[4];
    uint8_t reserved2[4], stat_sn[4], exp_cmd_sn[4], max_cmd_sn[4], event, vendor, parameter[3][2], reserved3[4];
};
struct iscsi_text_request {
    uint8_t opcode, flags, reserved[2], ahs_words, data_length[3], lun[8], itt[4];
    uint8_t ttt[4], cmd_sn[4], exp_stat_sn[4], reserved2[16];
};
struct iscsi_text_response {
    uint8_t opcode, flags, reserved[2], ahs_words, data_length[3], lun[8], itt[4];
    uint8_t ttt[4], stat_sn[4], exp_cmd_sn[4], max_cmd_sn[4], reserved2[12];
};
struct iscsi_login_request {
    uint8_t opcode, flags, version_max, version_min, ahs_words, data_length[3], isid[6], tsih[2], itt[4];
    uint8_t cid[2], reserved[2], cmd_sn[4], exp_stat_sn[4], reserved2[16];
};
struct iscsi_login_response {
    uint8_t opcode, flags, version_max, version_active, ahs_words, data_length[3], isid[6], tsih[2], itt[4];
    uint8_t reserved[4], stat_sn[4], exp_cmd_sn[4], max_cmd_sn[4], status_class, status_detail, reserved2[10];
};
struct iscsi_logout_request {
    uint8_t opcode, reason, reserved[2], ahs_words, data_length[3], reserved2[8], itt[4];
    uint8_t cid[2], reserved3[2], cmd_sn[4], exp_stat_sn[4], reserved4[16];
};
struct iscsi_logout_response {
    uint8_t opcode, flags, response, reserved, ahs_words, data_length[3], reserved2[8], itt[4];
    uint8_t reserved3[4], stat_sn[4], exp_cmd_sn[4], max_cmd_sn[4], reserved4[4], time_to_wait[2], time_to_retain[2];
    uint8_t reserved5[4];
};
struct iscsi_reject {
    uint8_t opcode, flags, reason, reserved, ahs_words, data_length[3], reserved2[8], itt[4];
    uint8_t reserved3[4], stat_sn[4], exp_cmd_sn[4], max_cmd_sn[4], data_sn[4], reserved4[8];
};
struct iscsi_nop_out {
    uint8_t opcode, flags, reserved[2], ahs_words, data_length[3], lun[8], itt[4];
    uint8_t ttt[4], cmd_sn[4], exp_stat_sn[4], reserved2[16];
};
struct iscsi_nop_in {
    uint8_t opcode, flags, reserved[2], ahs_words, data_length[3], lun[8], itt[4];
    uint8_t ttt[4], stat_sn[4], exp_cmd_sn[4], max_cmd_sn[4], reserved2[12];
};

/* One header, whichever it is. Reading any member is reading the bytes. */
union iscsi_bhs {
    uint8_t bytes[ISCSI_BHS_BYTES];
    struct iscsi_header header;
    struct iscsi_scsi_command command;
    struct iscsi_scsi_response response;
    struct iscsi_task_request task_request;
    struct iscsi_task_response task_response;
    struct iscsi_data_out data_out;
    struct iscsi_data_in data_in;
    struct iscsi_r2t r2t;
    struct iscsi_async async;
    struct iscsi_text_request text_request;
    struct iscsi_text_response text_response;
    struct iscsi_login_request login_request;
    struct iscsi_login_response login_response;
    struct iscsi_logout_request logout_request;
    struct iscsi_logout_response logout_response;
    struct iscsi_reject reject;
    struct iscsi_nop_out nop_out;
    struct iscsi_nop_in nop_in;
};

#define ISCSI_HEADER_CHECK(type) static_assert(sizeof(struct type) == ISCSI_BHS_BYTES, #type " is a header of 48 bytes")
ISCSI_HEADER_CHECK(iscsi_header);
ISCSI_HEADER_CHECK(iscsi_scsi_command);
ISCSI_HEADER_CHECK(iscsi_scsi_response);
ISCSI_HEADER_CHECK(iscsi_task_request);
ISCSI_HEADER_CHECK(iscsi_task_response);
ISCSI_HEADER_CHECK(iscsi_data_out);
ISCSI_HEADER_CHECK(iscsi_data_in);
ISCSI_HEADER_CHECK(iscsi_r2t);
ISCSI_HEADER_CHECK(iscsi_async);
ISCSI_HEADER_CHECK(iscsi_text_request);
ISCSI_HEADER_CHECK(iscsi_text_response);
ISCSI_HEADER_CHECK(iscsi_login_request);
ISCSI_HEADER_CHECK(iscsi_login_response);
ISCSI_HEADER_CHECK(iscsi_logout_request);
ISCSI_HEADER_CHECK(iscsi_logout_response);
ISCSI_HEADER_CHECK(iscsi_reject);
ISCSI_HEADER_CHECK(iscsi_nop_out);
ISCSI_HEADER_CHECK(iscsi_nop_in);
static_assert(sizeof(union iscsi_bhs) == ISCSI_BHS_BYTES && _Alignof(union iscsi_bhs) == 1,
              "headers lie at any address");
/* The numbers that all answers carry stand where the RFC has them. */
static_assert(offsetof(struct iscsi_scsi_response, stat_sn) == 24 && offsetof(struct iscsi_r2t, stat_sn) == 24,
              "StatSN");
static_assert(offsetof(struct iscsi_login_response, status_class) == 36, "Status-Class");
static_assert(offsetof(struct iscsi_async, event) == 36, "AsyncEvent");
static_assert(offsetof(struct iscsi_logout_response, time_to_wait) == 40, "Time2Wait");
static_assert(offsetof(struct iscsi_data_in, data_sn) == 36 && offsetof(struct iscsi_data_out, data_sn) == 36,
              "DataSN");

static inline enum iscsi_opcode iscsi_opcode(const union iscsi_bhs *bhs)
{
    return (enum iscsi_opcode)(bhs->header.opcode & ISCSI_OPCODE_MASK);
}
static inline uint32_t iscsi_data_length(const union iscsi_bhs *bhs) { return be24_get(bhs->header.data_length); }
static inline uint32_t iscsi_itt(const union iscsi_bhs *bhs) { return be32_get(bhs->header.itt); }
/* Zero bytes that fill a data segment of that length to a word. */
static inline uint32_t iscsi_padding(uint32_t data_length) { return -data_length & 3; }

/* Serial number arithmetic over 32 bits (RFC 7143 section 4.2.2.1, RFC 1982): a is before b. */
static inline bool serial_before(uint32_t a, uint32_t b) { return (int32_t)(a - b) < 0; }

/* Starts a header: opcode and flags set, ITT as given, all else zero. */
void iscsi_bhs_init(union iscsi_bhs *bhs, unsigned opcode, unsigned flags, uint32_t itt);

/*
 * The eight bytes of a logical unit number below 16384 (SAM-5 4.7): peripheral device addressing below 256, flat space
 * addressing above. Returns false if the number is too large.
 */
bool iscsi_lun_encode(uint8_t lun[8], unsigned number);
/* The number of a logical unit in single-level addressing, or -1 for a form that iscsi_lun_encode does not make. */
int iscsi_lun_decode(const uint8_t lun[8]);

/* Words for messages; never NULL. `value` is what stood on the wire, known or not. */
const char *iscsi_opcode_name(unsigned opcode);
const char *iscsi_reject_words(unsigned reason);
const char *iscsi_async_words(unsigned event);
const char *iscsi_task_answer_words(unsigned response);
/*
 * Login status (11.13.5): what happened, and what an admin can do about it ("" where there is nothing to say).
 * *again: the same login may succeed later; else only after something was changed.
 */
const char *iscsi_login_words(unsigned status_class, unsigned status_detail, const char **cure, bool *again);

#endif
