/* SPDX-License-Identifier: MIT */
/*
 * A logical unit in memory with persistent reservations, written from SPC-4 sections 5.9 and 6.16: registrations by
 * nexus, generation, reservation with all its types, preemption, unit attentions, loss of power with and without APTPL.
 * What the proof is tested against, alone and behind the target in memory.
 */
#ifndef TESTS_UNIT_FAKE_UNIT_H
#define TESTS_UNIT_FAKE_UNIT_H

#include "net/scsi/scsi_cdb.h"

#define FAKE_NEXUSES 4u

struct fake_unit {
    uint8_t *disk;
    size_t disk_bytes;              /* blocks of 512 bytes */
    uint64_t key[FAKE_NEXUSES];     /* 0: not registered */
    bool held, keeps;               /* keeps: APTPL, registrations outlive power */
    unsigned type, holder;
    uint32_t generation;
    uint16_t attention[FAKE_NEXUSES]; /* ASC and ASCQ that wait; one each */
    bool no_reservations;           /* has no PERSISTENT RESERVE */
    bool extras;                    /* has UNMAP, WRITE SAME and COMPARE AND WRITE, and tells capabilities, PTPL_C among them */
    uint8_t leaks;                  /* an operation code that is carried out whatever the reservation says; 0: none */
    unsigned busy;                  /* so many commands are answered BUSY */
    unsigned commands, writes, conflicts;
};

/*
 * Executes a command of that nexus: `out` are its data, or its answer is put into `in` (at most `room` bytes, *in_bytes
 * of them). Returns the SCSI status; with CHECK CONDITION `sense` is filled.
 */
unsigned fake_unit_execute(struct fake_unit *unit, unsigned nexus, const uint8_t cdb[16], const uint8_t *out,
                           uint32_t out_bytes, uint8_t *in, uint32_t room, uint32_t *in_bytes, uint8_t sense[18]);
/* The power goes and comes back. The disk stays. */
void fake_unit_power_loss(struct fake_unit *unit);

#endif
