/* SPDX-License-Identifier: MIT */
/* The logical unit in memory. See fake_unit.h. */
#include "fake_unit.h"

#include <string.h>

#include "kernel/bytes.h"
#include "net/scsi/scsi_sense.h"

static unsigned check(uint8_t sense[18], uint8_t key, unsigned code)
{
    memset(sense, 0, 18);
    sense[0] = 0x70;
    sense[2] = key;
    sense[7] = 10;
    sense[12] = (uint8_t)(code >> 8);
    sense[13] = (uint8_t)code;
    return SCSI_CHECK_CONDITION;
}

static bool for_all(unsigned type)
{
    return type == SCSI_PR_WRITE_EXCLUSIVE_ALL || type == SCSI_PR_EXCLUSIVE_ACCESS_ALL;
}

/* Whether the reservation keeps a nexus from reading or writing (SPC-4 table 68). */
static bool kept_out(const struct fake_unit *u, unsigned nexus, bool writes)
{
    bool exclusive = u->type == SCSI_PR_EXCLUSIVE_ACCESS || u->type == SCSI_PR_EXCLUSIVE_ACCESS_REGISTRANTS ||
                     u->type == SCSI_PR_EXCLUSIVE_ACCESS_ALL;
    bool alone = u->type == SCSI_PR_WRITE_EXCLUSIVE || u->type == SCSI_PR_EXCLUSIVE_ACCESS;
    if (!u->held || (!writes && !exclusive))
        return false;
    return alone ? u->holder != nexus : !u->key[nexus];
}

static unsigned reserve_in(struct fake_unit *u, const uint8_t *cdb, uint8_t *in, uint32_t *bytes)
{
    uint32_t length = 0;
    be32_put(in, u->generation);
    if ((cdb[1] & 31) == SCSI_PR_READ_KEYS) {
        for (unsigned i = 0; i < FAKE_NEXUSES; i++)
            if (u->key[i]) {
                be64_put(in + 8 + length, u->key[i]);
                length += 8;
            }
    } else if (u->held) {
        memset(in + 8, 0, 16);
        be64_put(in + 8, for_all(u->type) ? 0 : u->key[u->holder]);
        in[21] = (uint8_t)u->type;
        length = 16;
    }
    be32_put(in + 4, length);
    *bytes = 8 + length;
    return SCSI_GOOD;
}

static void remove_key(struct fake_unit *u, unsigned nexus)
{
    u->key[nexus] = 0;
    if (u->held && !for_all(u->type) && u->holder == nexus)
        u->held = false;
}

static unsigned preempt(struct fake_unit *u, unsigned nexus, unsigned type, uint64_t victim)
{
    bool takes = u->held && (for_all(u->type) ? !victim : u->key[u->holder] == victim);
    for (unsigned i = 0; i < FAKE_NEXUSES; i++)
        if (i != nexus && u->key[i] && (u->key[i] == victim || (takes && !victim))) {
            u->key[i] = 0;
            u->attention[i] = 0x2a05;
        }
    if (takes) {
        u->holder = nexus;
        u->type = type;
    }
    u->generation++;
    return SCSI_GOOD;
}

static unsigned reserve_out(struct fake_unit *u, unsigned nexus, const uint8_t *cdb, const uint8_t *list)
{
    unsigned action = cdb[1] & 31, type = cdb[2] & 15;
    uint64_t key = be64_get(list), action_key = be64_get(list + 8);
    if (action != SCSI_PR_REGISTER_AND_IGNORE && key != u->key[nexus])
        return SCSI_RESERVATION_CONFLICT;
    if (action != SCSI_PR_REGISTER && action != SCSI_PR_REGISTER_AND_IGNORE && !u->key[nexus])
        return SCSI_RESERVATION_CONFLICT;
    switch (action) {
    case SCSI_PR_REGISTER:
    case SCSI_PR_REGISTER_AND_IGNORE:
        if (action_key)
            u->key[nexus] = action_key;
        else
            remove_key(u, nexus);
        u->keeps = list[20] & 1;
        u->generation++;
        return SCSI_GOOD;
    case SCSI_PR_RESERVE:
        if (u->held && (u->type != type || (!for_all(type) && u->holder != nexus)))
            return SCSI_RESERVATION_CONFLICT;
        u->held = true;
        u->type = type;
        u->holder = nexus;
        return SCSI_GOOD;
    case SCSI_PR_RELEASE:
        if (u->held && (for_all(u->type) || u->holder == nexus))
            u->held = false;
        return SCSI_GOOD;
    case SCSI_PR_CLEAR:
        memset(u->key, 0, sizeof(u->key));
        u->held = false;
        u->generation++;
        return SCSI_GOOD;
    default:
        return preempt(u, nexus, type, action_key);
    }
}

unsigned fake_unit_execute(struct fake_unit *u, unsigned nexus, const uint8_t cdb[16], const uint8_t *out,
                           uint32_t out_bytes, uint8_t *in, uint32_t room, uint32_t *in_bytes, uint8_t sense[18])
{
    uint8_t answer[4096];
    uint64_t at = be64_get(cdb + 2) * 512, bytes = be32_get(cdb + 10) * 512ull;
    uint32_t count = 0;
    unsigned status = SCSI_GOOD;
    *in_bytes = 0;
    u->commands++;
    if (u->busy) {
        u->busy--;
        return SCSI_BUSY;
    }
    if (u->attention[nexus]) {
        unsigned code = u->attention[nexus];
        u->attention[nexus] = 0;
        return check(sense, SCSI_UNIT_ATTENTION, code);
    }
    switch (cdb[0]) {
    case 0x00:
        return SCSI_GOOD;
    case 0x5e:
    case 0x5f:
        if (u->no_reservations)
            return check(sense, SCSI_ILLEGAL_REQUEST, 0x2000);
        if (cdb[0] == 0x5f)
            return out_bytes < SCSI_PR_OUT_BYTES ? check(sense, SCSI_ILLEGAL_REQUEST, 0x1a00)
                                                 : reserve_out(u, nexus, cdb, out);
        if (u->extras && (cdb[1] & 31) == SCSI_PR_REPORT_CAPABILITIES) {
            memcpy(in, (uint8_t[]){ 0, 8, 1, 0x80, 0xea, 1, 0, 0 }, 8);
            *in_bytes = 8;
            return SCSI_GOOD;
        }
        if ((cdb[1] & 31) > SCSI_PR_READ_RESERVATION) /* it tells neither capabilities nor who has which key */
            return check(sense, SCSI_ILLEGAL_REQUEST, 0x2400);
        status = reserve_in(u, cdb, answer, &count);
        *in_bytes = MIN(MIN(count, room), (uint32_t)be16_get(cdb + 7));
        memcpy(in, answer, *in_bytes);
        return status;
    case 0x42: /* UNMAP, of one range: what is there afterwards is not zero */
    case 0x89:
    case 0x93:
        if (!u->extras)
            return check(sense, SCSI_ILLEGAL_REQUEST, 0x2000);
        if (kept_out(u, nexus, true) && u->leaks != cdb[0]) {
            u->conflicts++;
            return SCSI_RESERVATION_CONFLICT;
        }
        u->writes++;
        if (cdb[0] == 0x42)
            memset(u->disk + be64_get(out + 8) * 512, 0xdd, be32_get(out + 16) * 512ull);
        else if (cdb[0] == 0x93)
            memcpy(u->disk + at, out, 512);
        else if (memcmp(u->disk + at, out, 512))
            return check(sense, SCSI_MISCOMPARE, 0x1d00);
        else
            memcpy(u->disk + at, out + 512, 512);
        return SCSI_GOOD;
    case 0x88:
    case 0x8a:
        if (kept_out(u, nexus, cdb[0] == 0x8a) && u->leaks != cdb[0]) {
            u->conflicts++;
            return SCSI_RESERVATION_CONFLICT;
        }
        if (!range_within(at, bytes, u->disk_bytes))
            return check(sense, SCSI_ILLEGAL_REQUEST, 0x2100);
        if (cdb[0] == 0x88) {
            *in_bytes = (uint32_t)MIN(bytes, (uint64_t)room);
            memcpy(in, u->disk + at, *in_bytes);
        } else {
            memcpy(u->disk + at, out, MIN(bytes, (uint64_t)out_bytes));
            u->writes++;
        }
        return SCSI_GOOD;
    default:
        return check(sense, SCSI_ILLEGAL_REQUEST, 0x2000);
    }
}

void fake_unit_power_loss(struct fake_unit *u)
{
    u->generation = 0;
    for (unsigned i = 0; i < FAKE_NEXUSES; i++) {
        u->attention[i] = 0x2900;
        if (!u->keeps)
            u->key[i] = 0;
    }
    u->held &= u->keeps;
}
