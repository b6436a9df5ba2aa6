/* SPDX-License-Identifier: MIT */
/*
 * SCSI: descriptor blocks byte by byte, parameter lists, answers taken apart, each cut at every length (in memory of
 * exactly that length, so that a sanitizer sees a read too far) and filled with noise, sense in both formats,
 * decisions.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "kernel/bytes.h"
#include "net/scsi/scsi_data.h"
#include "net/scsi/scsi_sense.h"

#define CDB(cdb, length_, read_, write_, ...) \
    do { \
        static const uint8_t expected[16] = { __VA_ARGS__ }; \
        assert_memory_equal((cdb).bytes, expected, 16); \
        assert_int_equal((cdb).length, length_); \
        assert_int_equal((cdb).read_bytes, read_); \
        assert_int_equal((cdb).write_bytes, write_); \
    } while (0)

static void descriptor_blocks(void **state)
{
    struct scsi_cdb c;
    (void)state;
    scsi_test_unit_ready(&c);
    CDB(c, 6, 0, 0, 0);
    scsi_inquiry(&c, SCSI_STANDARD_INQUIRY, 255);
    CDB(c, 6, 255, 0, 0x12, 0, 0, 0, 255);
    scsi_inquiry(&c, 0x83, 0x1234);
    CDB(c, 6, 0x1234, 0, 0x12, 1, 0x83, 0x12, 0x34);
    scsi_inquiry(&c, 0, 64);
    CDB(c, 6, 64, 0, 0x12, 1, 0, 0, 64);
    scsi_request_sense(&c, true, 252);
    CDB(c, 6, 252, 0, 0x03, 1, 0, 0, 252);
    scsi_report_luns(&c, 0x1000);
    CDB(c, 12, 0x1000, 0, 0xa0, 0, 0, 0, 0, 0, 0, 0, 0x10, 0);
    scsi_mode_sense6(&c, 192);
    CDB(c, 6, 192, 0, 0x1a, 8, 0x3f, 0, 192);
    scsi_mode_sense10(&c, 0x200);
    CDB(c, 10, 0x200, 0, 0x5a, 8, 0x3f, 0, 0, 0, 0, 2, 0);
    scsi_read_capacity10(&c);
    CDB(c, 10, 8, 0, 0x25);
    scsi_read_capacity16(&c);
    CDB(c, 16, 32, 0, 0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32);
    scsi_read16(&c, 0x0102030405060708, 0x10, 512, false);
    CDB(c, 16, 8192, 0, 0x88, 0, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 0x10);
    scsi_write16(&c, 5, 2, 4096, true);
    CDB(c, 16, 0, 8192, 0x8a, 8, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 2);
    scsi_synchronize_cache16(&c, 0, 0);
    CDB(c, 16, 0, 0, 0x91);
    scsi_write_same16(&c, 7, 0x10000, 512, true);
    CDB(c, 16, 0, 512, 0x93, 8, 0, 0, 0, 0, 0, 0, 0, 7, 0, 1, 0, 0);
    scsi_compare_and_write(&c, 9, 1, 512);
    CDB(c, 16, 0, 1024, 0x89, 0, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 1);
    scsi_unmap(&c, 2);
    CDB(c, 10, 0, 40, 0x42, 0, 0, 0, 0, 0, 0, 0, 40);
    scsi_persistent_reserve_in(&c, SCSI_PR_READ_FULL_STATUS, 8192);
    CDB(c, 10, 8192, 0, 0x5e, 3, 0, 0, 0, 0, 0, 0x20, 0);
    scsi_persistent_reserve_out(&c, SCSI_PR_PREEMPT_AND_ABORT, SCSI_PR_WRITE_EXCLUSIVE_REGISTRANTS, 24);
    CDB(c, 10, 0, 24, 0x5f, 5, 5, 0, 0, 0, 0, 0, 24);
    scsi_persistent_reserve_out(&c, SCSI_PR_REGISTER_AND_IGNORE, SCSI_PR_WRITE_EXCLUSIVE, 24);
    CDB(c, 10, 0, 24, 0x5f, 6, 0, 0, 0, 0, 0, 0, 24);
}

static void parameter_lists(void **state)
{
    uint8_t list[300];
    uint32_t bytes;
    static const uint8_t isid[6] = { 0x80, 1, 2, 3, 4, 0xff };
    (void)state;
    scsi_pr_out_list(list, 0x1122334455667788, 0x99, true);
    static const uint8_t pr[24] = { 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0, 0, 0, 0, 0, 0, 0, 0x99, 0, 0, 0,
                                    0, 1 };
    assert_memory_equal(list, pr, 24);
    const struct scsi_range ranges[] = { { 0x10, 0x20 }, { 0x100000000, 1 } };
    scsi_unmap_list(list, ranges, 2);
    static const uint8_t unmap[40] = { 0, 38, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10, 0, 0, 0, 0x20, 0, 0, 0, 0,
                                       0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1 };
    assert_memory_equal(list, unmap, 40);
    /* What is written is what READ FULL STATUS would give back: the TransportID is read by the other parser. */
    assert_int_equal(scsi_pr_move_list(list, sizeof(list), 1, 2, true, true, 3, "iqn.2026-11.example:b", isid, &bytes),
                     OK);
    assert_int_equal(bytes % 4, 0);
    assert_int_equal(list[17], 3);
    assert_int_equal(be16_get(list + 18), 3);
    assert_int_equal(be32_get(list + 20), bytes - 24);
    assert_string_equal((char *)list + 28, "iqn.2026-11.example:b,i,0x8001020304ff");
    assert_int_equal(scsi_pr_move_list(list, bytes - 1, 1, 2, true, true, 3, "iqn.2026-11.example:b", isid, &bytes),
                     ERR_RANGE);
    uint8_t full[400] = { 0, 0, 0, 7 };
    be32_put(full + 4, 24 + bytes - 24);
    be64_put(full + 8, 0xabc);
    full[8 + 12] = 1;
    full[8 + 13] = 5;
    be16_put(full + 8 + 18, 9);
    be32_put(full + 8 + 20, bytes - 24);
    memcpy(full + 32, list + 24, bytes - 24);
    struct scsi_full_status status;
    struct scsi_registration r;
    assert_int_equal(scsi_full_status_start(&status, full, 8 + bytes), OK);
    assert_int_equal(status.generation, 7);
    assert_int_equal(scsi_full_status_next(&status, &r), OK);
    assert_true(r.key == 0xabc && r.holder && r.type == 5 && r.relative_port == 9 && !r.all_ports);
    assert_string_equal(r.initiator, "iqn.2026-11.example:b,i,0x8001020304ff");
    assert_int_equal(scsi_full_status_next(&status, &r), ERR_NOT_FOUND);
    /* The target has more than fitted into the answer: a registration that is not seen is not one that is gone. */
    be32_put(full + 4, bytes - 24 + 24 + 24);
    assert_int_equal(scsi_full_status_start(&status, full, 8 + bytes), OK);
    assert_int_equal(scsi_full_status_next(&status, &r), OK);
    assert_int_equal(scsi_full_status_next(&status, &r), ERR_TRUNCATED);
    assert_int_equal(scsi_full_status_next(&status, &r), ERR_TRUNCATED);
    /* A TransportID that says it is longer than its registration: the next one's bytes are no part of the name. */
    uint8_t two[8 + 28 + 24] = { 0, 0, 0, 7, 0, 0, 0, 52 };
    be32_put(two + 8 + 20, 8);
    memcpy(two + 32, (const uint8_t[]){ 0x45, 0, 0, 255, 'a', 'b', 'c', 'd' }, 8);
    be32_put(two + 4, 24 + 8 + 20);
    memset(two + 40, 'X', 20);
    assert_int_equal(scsi_full_status_start(&status, two, 8 + 24 + 8 + 20), OK);
    assert_int_equal(scsi_full_status_next(&status, &r), OK);
    assert_string_equal(r.initiator, "abcd");
    assert_int_equal(scsi_full_status_next(&status, &r), ERR_TRUNCATED);
}

static void answers(void **state)
{
    (void)state;
    uint8_t inquiry[96] = { 0, 0x80, 6, 2, 91, 0x10, 0, 2 };
    memcpy(inquiry + 8, "LIO-ORG disk \x01          4.0 ", 28);
    struct scsi_inquiry i;
    assert_int_equal(scsi_parse_inquiry(inquiry, 96, &i), OK);
    assert_true(i.removable && i.version == 6 && i.command_queueing && i.port_groups == 1 && i.device_type == 0);
    assert_string_equal(i.vendor, "LIO-ORG");
    assert_string_equal(i.product, "disk .");
    assert_string_equal(i.revision, "4.0");
    assert_int_equal(scsi_parse_inquiry(inquiry, 4, &i), ERR_TRUNCATED);
    inquiry[4] = 3; /* the rest is there, but it does not say so */
    assert_int_equal(scsi_parse_inquiry(inquiry, 96, &i), OK);
    assert_true(!i.vendor[0] && !i.product[0] && i.command_queueing);
    inquiry[4] = 1;
    assert_int_equal(scsi_parse_inquiry(inquiry, 96, &i), OK);
    assert_true(!i.command_queueing && i.port_groups == 1);

    static const uint8_t pages[] = { 0, 0, 0, 5, 0, 0x80, 0x83, 0xb0, 0xff };
    struct scsi_page_set set;
    assert_int_equal(scsi_parse_pages(pages, sizeof(pages), &set), OK);
    assert_true(scsi_has_page(&set, 0x83) && scsi_has_page(&set, 0xff) && scsi_has_page(&set, 0) &&
                !scsi_has_page(&set, 0xb2));
    assert_int_equal(scsi_parse_pages(pages, 6, &set), OK);
    assert_false(scsi_has_page(&set, 0x83));
    static const uint8_t fewer[] = { 0, 0, 0, 2, 0, 0x80, 0x83, 0xb0 }; /* bytes behind the page are not of it */
    assert_int_equal(scsi_parse_pages(fewer, sizeof(fewer), &set), OK);
    assert_true(scsi_has_page(&set, 0x80) && !scsi_has_page(&set, 0x83) && !scsi_has_page(&set, 0xb0));

    static const uint8_t serial[] = { 0, 0x80, 0, 8, ' ', ' ', 'A', 'B', '1', ' ', 0, 0 };
    char text[16];
    assert_int_equal(scsi_parse_serial(serial, sizeof(serial), text, sizeof(text)), OK);
    assert_string_equal(text, "AB1");
    assert_int_equal(scsi_parse_serial(serial, sizeof(serial), text, 3), OK);
    assert_string_equal(text, "AB");
    assert_int_equal(scsi_parse_serial(pages, sizeof(pages), text, sizeof(text)), ERR_INVALID);

    uint8_t id[] = { 0, 0x83, 0, 44, 0x02, 0x01, 0, 12, 'I', 'E', 'T', ' ', ' ', ' ', ' ', ' ', 'd', 'i', 's', 'k',
                     0x01, 0x03, 0, 8, 0x50, 1, 2, 3, 4, 5, 6, 7, 0x51, 0x14, 0, 4, 0, 0, 0, 9, 0x01, 0x13, 0, 4, 0xff,
                         0xff, 0xff, 0xff };
    struct scsi_identity identity;
    assert_int_equal(scsi_parse_identity(id, sizeof(id), &identity), OK);
    assert_string_equal(identity.name, "naa.5001020304050607");
    assert_int_equal(identity.relative_port, 9);
    id[23] = 255; /* a length beyond the page: what came before it counts */
    assert_int_equal(scsi_parse_identity(id, sizeof(id), &identity), OK);
    assert_string_equal(identity.name, "t10.IET     disk");
    /* The port's name, however good, is not the unit's. */
    static const uint8_t port[] = { 0, 0x83, 0, 28, 0x61, 0x93, 0, 8, 0x50, 1, 2, 3, 4, 5, 6, 7,
                                    0x02, 0x01, 0, 12, 'I', 'E', 'T', ' ', ' ', ' ', ' ', ' ', 'd', 'i', 's', 'k' };
    assert_int_equal(scsi_parse_identity(port, sizeof(port), &identity), OK);
    assert_string_equal(identity.name, "t10.IET     disk");
    for (uint8_t beyond = 9; beyond < 13; beyond++) { /* one to four bytes more than there are */
        uint8_t *exact = malloc(16);
        memcpy(exact, "\0\x83\0\x0c\x03\x08\0\0iqn.abcd", 16);
        exact[7] = beyond;
        assert_int_equal(scsi_parse_identity(exact, 16, &identity), ERR_NOT_FOUND);
        free(exact);
    }
    static const uint8_t nameless[] = { 0, 0x83, 0, 8, 0x03, 0x08, 0, 4, 0, 0, 0, 0 };
    assert_int_equal(scsi_parse_identity(nameless, sizeof(nameless), &identity), ERR_NOT_FOUND);
    id[7] = 255;
    assert_int_equal(scsi_parse_identity(id, sizeof(id), &identity), ERR_NOT_FOUND);

    uint8_t limits[64] = { 0, 0xb0, 0, 60, 1, 1, 0, 8 };
    be32_put(limits + 8, 8192);
    be32_put(limits + 12, 128);
    be32_put(limits + 20, 65536);
    be32_put(limits + 24, 256);
    be32_put(limits + 28, 8);
    be32_put(limits + 32, 0x80000003);
    be64_put(limits + 36, 0x10000);
    struct scsi_limits l;
    assert_int_equal(scsi_parse_limits(limits, 64, &l), OK);
    assert_true(l.write_same_nonzero_only && l.compare_and_write_max == 1 && l.transfer_max == 8192 &&
                l.transfer_best == 128 &&
                l.unmap_blocks_max == 65536 && l.unmap_ranges_max == 256 && l.unmap_granularity == 8 &&
                    l.unmap_alignment == 3 &&
                l.write_same_max == 0x10000);
    limits[32] = 0; /* UGAVALID */
    assert_int_equal(scsi_parse_limits(limits, 64, &l), OK);
    assert_int_equal(l.unmap_alignment, 0);
    assert_int_equal(scsi_parse_limits(limits, 16, &l), OK);
    assert_int_equal(l.unmap_blocks_max, 0);
    limits[3] = 12; /* the page ends there */
    assert_int_equal(scsi_parse_limits(limits, 64, &l), OK);
    assert_true(l.unmap_blocks_max == 0 && l.write_same_max == 0 && l.transfer_max == 8192);

    static const uint8_t b1[] = { 0, 0xb1, 0, 60, 0, 1 }, b2[] = { 0, 0xb2, 0, 4, 3, 0xe4, 2, 0 };
    uint16_t rotation;
    assert_int_equal(scsi_parse_characteristics(b1, sizeof(b1), &rotation), OK);
    assert_int_equal(rotation, 1);
    struct scsi_provisioning p;
    assert_int_equal(scsi_parse_provisioning(b2, sizeof(b2), &p), OK);
    assert_true(p.unmap && p.write_same16_unmap && p.write_same10_unmap && p.reads_zero && !p.anchors && p.kind == 2 &&
                p.threshold_exponent == 3);
    uint8_t pattern[] = { 0, 0xb2, 0, 4, 3, 0xe8, 2, 0 }; /* LBPRZ 010b: unmapped blocks read as a pattern */
    assert_int_equal(scsi_parse_provisioning(pattern, sizeof(pattern), &p), OK);
    assert_false(p.reads_zero);
    pattern[5] = 0xf4; /* 1x1b: zeros */
    assert_int_equal(scsi_parse_provisioning(pattern, sizeof(pattern), &p), OK);
    assert_true(p.reads_zero);

    static const uint8_t modes[] = { 3, 0, 0x90, 0 }, modes10[] = { 0, 6, 0, 0x80, 0, 0, 0, 0 };
    struct scsi_mode m;
    assert_int_equal(scsi_parse_mode6(modes, 4, &m), OK);
    assert_true(m.write_protected && m.fua);
    assert_int_equal(scsi_parse_mode10(modes10, 8, &m), OK);
    assert_true(m.write_protected && !m.fua);

    uint8_t luns[24] = { 0, 0, 0, 32, 0, 0, 0, 0, 0, 1 }, got[8][8];
    unsigned count, listed;
    assert_int_equal(scsi_parse_luns(luns, 24, got, 8, &count, &listed), OK);
    assert_int_equal(count, 2);
    assert_int_equal(listed, 4);
    assert_int_equal(got[0][1], 1);
    luns[0] = 0xff;
    assert_int_equal(scsi_parse_luns(luns, 24, got, 1, &count, &listed), OK);
    assert_int_equal(count, 1);
}

/* Two units must never get one name: a name that is not whole, or that is nothing but zeros, is none. */
static void names_that_name_nothing(void **state)
{
    static const struct { const char *why; uint8_t bytes[32]; size_t count; } bad[] = {
        { "NAA of zeros", { 0, 0x83, 0, 12, 1, 3, 0, 8 }, 16 },
        { "EUI-64 of zeros", { 0, 0x83, 0, 12, 1, 2, 0, 8 }, 16 },
        { "NAA of an unknown format", { 0, 0x83, 0, 12, 1, 3, 0, 8, 0x10, 1, 2, 3, 4, 5, 6, 7 }, 16 },
        { "NAA 6 in 8 bytes", { 0, 0x83, 0, 12, 1, 3, 0, 8, 0x60, 1, 2, 3, 4, 5, 6, 7 }, 16 },
        { "vendor's text that is none", { 0, 0x83, 0, 16, 2, 1, 0, 12, 'V', 'E', 'N', 'D', 'O', 'R', ' ', ' ', 1, 2, 3,
                                          4 }, 20 },
        { "vendor and nothing else", { 0, 0x83, 0, 16, 2, 1, 0, 12, 'V', 'E', 'N', 'D', 'O', 'R', ' ', ' ', ' ', ' ',
                                       ' ', ' ' }, 20 },
        { "a name string with a control character", { 0, 0x83, 0, 12, 3, 8, 0, 8, 'i', 'q', 'n', '.', 7, 'a', 0, 0 },
          16 },
    };
    struct scsi_identity identity;
    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(bad); i++) {
        enum status status = scsi_parse_identity(bad[i].bytes, bad[i].count, &identity);
        if (status != ERR_NOT_FOUND)
            print_error("%s: %s\n", bad[i].why, identity.name);
        assert_int_equal(status, ERR_NOT_FOUND);
    }
    static const uint8_t names[] = { 0, 0x83, 0, 40, 3, 8, 0, 12, 'i', 'q', 'n', '.', 'a', ':', 'b', 0, 0, 0, 0, 0,
                                     1, 3, 0, 16, 0x60, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 1, 4, 0, 0 };
    assert_int_equal(scsi_parse_identity(names, 24, &identity), OK);
    assert_string_equal(identity.name, "iqn.a:b");
    assert_int_equal(scsi_parse_identity(names, sizeof(names), &identity), OK);
    assert_string_equal(identity.name, "naa.600102030405060708090a0b0c0d0e0f");
}

static void capacities(void **state)
{
    uint8_t data[32] = { 0, 0, 0, 0, 0, 1, 0xff, 0xff, 0, 0, 2, 0, 1, 3, 0xc0, 7 };
    struct scsi_capacity c;
    (void)state;
    assert_int_equal(scsi_parse_capacity16(data, 32, &c), OK);
    assert_true(c.blocks == 0x20000 && c.block_bytes == 512 && c.physical_block_bytes == 4096 && c.provisioned &&
                c.reads_zero &&
                c.lowest_aligned == 7 && c.protected_data);
    data[13] = 0x23; /* the exponent of protection intervals is another one */
    data[14] = 0xff;
    assert_int_equal(scsi_parse_capacity16(data, 32, &c), OK);
    assert_true(c.physical_block_bytes == 4096 && c.lowest_aligned == 0x3f07);
    assert_int_equal(scsi_parse_capacity16(data, 12, &c), OK);
    assert_int_equal(scsi_parse_capacity16(data, 11, &c), ERR_TRUNCATED);
    static const uint32_t sizes[] = { 0, 1, 256, 520, 4095, 131072, 0xffffffff };
    for (size_t i = 0; i < ARRAY_COUNT(sizes); i++) {
        be32_put(data + 8, sizes[i]);
        assert_int_equal(scsi_parse_capacity16(data, 32, &c), ERR_INVALID);
    }
    be32_put(data + 8, 512);
    memset(data, 0xff, 8);
    assert_int_equal(scsi_parse_capacity16(data, 32, &c), ERR_INVALID);
    be64_put(data, (UINT64_C(1) << 54) - 1);
    assert_int_equal(scsi_parse_capacity16(data, 32, &c), OK);
    be64_put(data, UINT64_C(1) << 54);
    assert_int_equal(scsi_parse_capacity16(data, 32, &c), ERR_INVALID);
    static const uint8_t ten[] = { 0, 0, 0xff, 0xff, 0, 0, 16, 0 }, huge[] = { 255, 255, 255, 255, 0, 0, 2, 0 };
    assert_int_equal(scsi_parse_capacity10(ten, 8, &c), OK);
    assert_true(c.blocks == 65536 && c.block_bytes == 4096);
    assert_int_equal(scsi_parse_capacity10(huge, 8, &c), ERR_RANGE);
}

static void reservations(void **state)
{
    uint8_t keys[24] = { 0, 0, 0, 5, 0, 0, 0, 24 };
    uint32_t generation;
    uint64_t got[8];
    unsigned count, listed;
    (void)state;
    be64_put(keys + 8, 0x1111);
    be64_put(keys + 16, 0x2222);
    assert_int_equal(scsi_parse_keys(keys, 24, &generation, got, 8, &count, &listed), OK);
    assert_true(generation == 5 && count == 2 && listed == 3 && got[1] == 0x2222);
    keys[7] = 8; /* bytes behind the list are not of it */
    got[1] = 0;
    assert_int_equal(scsi_parse_keys(keys, 24, &generation, got, 8, &count, &listed), OK);
    assert_true(count == 1 && listed == 1 && got[1] == 0);
    keys[7] = 24;
    assert_int_equal(scsi_parse_keys(keys, 24, &generation, got, 1, &count, &listed), OK); /* room for fewer */
    assert_true(count == 1 && listed == 3 && got[1] == 0);
    uint8_t held[24] = { 0, 0, 0, 6, 0, 0, 0, 16 };
    struct scsi_reservation r;
    be64_put(held + 8, 0x77);
    held[21] = 0x05;
    assert_int_equal(scsi_parse_reservation(held, 24, &r), OK);
    assert_true(r.held && r.key == 0x77 && r.type == 5 && r.generation == 6);
    assert_int_equal(scsi_parse_reservation(held, 23, &r), ERR_TRUNCATED);
    held[21] = 0x17; /* scope and type */
    assert_int_equal(scsi_parse_reservation(held, 24, &r), OK);
    assert_int_equal(r.type, 7);
    held[7] = 15;
    assert_int_equal(scsi_parse_reservation(held, 24, &r), ERR_TRUNCATED);
    held[7] = 0;
    assert_int_equal(scsi_parse_reservation(held, 8, &r), OK);
    assert_false(r.held);
    static const uint8_t caps[] = { 0, 8, 0x1d, 0x81, 0xea, 0x01, 0, 0 };
    struct scsi_pr_capabilities c;
    assert_int_equal(scsi_parse_pr_capabilities(caps, 8, &c), OK);
    assert_true(c.keeps && c.keeps_now && c.all_ports && c.specify_initiators && c.types_valid);
    assert_int_equal(c.types, 1 << 1 | 1 << 3 | 1 << 5 | 1 << 6 | 1 << 7 | 1 << 8);
    static const uint8_t few[] = { 0, 4, 0x1d, 0x81, 0xea, 0x01, 0, 0 };
    assert_int_equal(scsi_parse_pr_capabilities(few, 8, &c), ERR_TRUNCATED);
    for (unsigned type = 0; type < 16; type++)
        assert_true(strlen(scsi_pr_type_name(type)) > 0);
}

/* Every parser on noise and on every length of it, in memory of exactly that length. */
static void noise(void **state)
{
    static uint8_t luns[16][8];
    (void)state;
    for (unsigned run = 0; run < 3000; run++) {
        size_t bytes = run % 100;
        uint8_t *data = malloc(bytes + !bytes);
        uint32_t seed = run * 2654435761u + 1;
        for (size_t i = 0; i < bytes; i++) {
            seed = seed * 1664525 + 1013904223;
            data[i] = (uint8_t)(seed >> 24);
        }
        static const uint8_t page[] = { 0, 0x80, 0x83, 0xb0, 0xb1, 0xb2 };
        if (bytes > 6) {
            data[1] = page[run / 100 % 6];
            if (run & 1)
                data[2] = data[4] = data[6] = 0;
        }
        struct scsi_inquiry i;
        struct scsi_page_set set;
        struct scsi_identity identity;
        struct scsi_limits l;
        struct scsi_provisioning p;
        struct scsi_capacity c;
        struct scsi_mode m;
        struct scsi_reservation r;
        struct scsi_pr_capabilities caps;
        struct scsi_full_status status;
        struct scsi_registration registration;
        struct scsi_sense sense;
        uint64_t keys[4];
        uint32_t generation;
        uint16_t rotation;
        unsigned count, listed;
        char text[64];
        (void)!scsi_parse_inquiry(data, bytes, &i);
        (void)!scsi_parse_pages(data, bytes, &set);
        (void)!scsi_parse_serial(data, bytes, text, sizeof(text));
        if (scsi_parse_identity(data, bytes, &identity) == OK)
            assert_true(strlen(identity.name) > 0);
        (void)!scsi_parse_limits(data, bytes, &l);
        (void)!scsi_parse_characteristics(data, bytes, &rotation);
        (void)!scsi_parse_provisioning(data, bytes, &p);
        if (scsi_parse_capacity16(data, bytes, &c) == OK)
            assert_true(c.blocks <= (UINT64_C(1) << 63) / c.block_bytes);
        (void)!scsi_parse_capacity10(data, bytes, &c);
        (void)!scsi_parse_mode6(data, bytes, &m);
        (void)!scsi_parse_mode10(data, bytes, &m);
        if (scsi_parse_luns(data, bytes, luns, 16, &count, &listed) == OK)
            assert_true(count <= 16 && 8 + 8 * count <= bytes);
        if (scsi_parse_keys(data, bytes, &generation, keys, 4, &count, &listed) == OK)
            assert_true(count <= 4 && 8 + 8 * count <= bytes);
        (void)!scsi_parse_reservation(data, bytes, &r);
        (void)!scsi_parse_pr_capabilities(data, bytes, &caps);
        if (scsi_full_status_start(&status, data, bytes) == OK)
            while (scsi_full_status_next(&status, &registration) == OK)
                ;
        if (bytes)
            data[0] = (uint8_t)(0x70 + run % 4);
        scsi_parse_sense(data, bytes, &sense);
        scsi_describe(SCSI_CHECK_CONDITION, &sense, text, sizeof(text));
        scsi_decide(SCSI_CHECK_CONDITION, &sense, run % 10);
        free(data);
    }
}

static void sense_in_both_formats(void **state)
{
    uint8_t fixed[18] = { 0xf0, 0, 3, 0, 0, 0, 123, 10, 0, 0, 0, 0, 0x11, 0 };
    uint8_t described[8 + 12 + 8] = { 0x72, 5, 0x24, 0, 0, 0, 0, 20, 0, 10, 0x80, 0, 0, 0, 0, 1, 0, 0, 0, 2, 2, 6, 0,
                                      0, 0xc0, 0, 5 };
    struct scsi_sense s;
    char text[128];
    (void)state;
    scsi_parse_sense(fixed, 18, &s);
    assert_true(s.valid && !s.deferred && s.key == 3 && s.asc == 0x11 && s.ascq == 0 && s.has_information &&
                s.information == 123);
    scsi_describe(2, &s, text, sizeof(text));
    assert_string_equal(text, "MEDIUM ERROR, unrecovered read error (11h/00h), at block 123");
    fixed[0] = 0x71;
    scsi_parse_sense(fixed, 18, &s);
    assert_true(s.deferred && !s.has_information);
    assert_true(scsi_decide(2, &s, 0).news & SCSI_NEWS_DEFERRED_ERROR);
    assert_int_equal(scsi_decide(2, &s, 0).action, SCSI_RETRY_LATER);
    fixed[7] = 2; /* no ASC */
    scsi_parse_sense(fixed, 18, &s);
    assert_true(s.valid && s.asc == 0);
    fixed[2] = 0xe3; /* FILEMARK, EOM, ILI */
    scsi_parse_sense(fixed, 18, &s);
    assert_int_equal(s.key, 3);
    described[0] = 0x73;
    described[10] = 0; /* information that is not valid */
    scsi_parse_sense(described, sizeof(described), &s);
    assert_true(s.valid && s.deferred && !s.has_information && s.has_field);
    described[0] = 0x72;
    described[10] = 0x80;
    described[7] = 12; /* the second descriptor is behind the end */
    scsi_parse_sense(described, sizeof(described), &s);
    assert_true(s.valid && !s.deferred && s.has_information && !s.has_field);
    described[7] = 20;
    scsi_parse_sense(described, sizeof(described), &s);
    assert_true(s.valid && s.key == 5 && s.asc == 0x24 && s.information == 0x100000002 && s.has_field &&
                s.field_in_cdb && s.field_byte == 5);
    scsi_describe(2, &s, text, sizeof(text));
    assert_string_equal(text, "ILLEGAL REQUEST, invalid field in CDB (24h/00h), byte 5 of the CDB");
    described[9] = 200; /* a descriptor that is longer than all */
    scsi_parse_sense(described, sizeof(described), &s);
    assert_true(s.valid && !s.has_information && !s.has_field);
    scsi_parse_sense((const uint8_t *)"\x7f", 1, &s);
    assert_false(s.valid);
    scsi_describe(0x18, &s, text, sizeof(text));
    assert_string_equal(text, "RESERVATION CONFLICT");
    scsi_describe(2, &s, text, sizeof(text));
    assert_non_null(strstr(text, "without sense"));
}

static struct scsi_verdict verdict(unsigned key, unsigned asc, unsigned ascq, unsigned attempts)
{
    struct scsi_sense s = { .valid = true, .key = (uint8_t)key, .asc = (uint8_t)asc, .ascq = (uint8_t)ascq };
    return scsi_decide(SCSI_CHECK_CONDITION, &s, attempts);
}

static void decisions(void **state)
{
    struct scsi_sense none = { 0 };
    (void)state;
    assert_int_equal(scsi_decide(SCSI_GOOD, &none, 0).action, SCSI_DONE);
    assert_int_equal(scsi_decide(SCSI_RESERVATION_CONFLICT, &none, 0).action, SCSI_CONFLICT);
    uint64_t before = 0;
    for (unsigned i = 0; i < 100; i++) { /* busy: for ever, slower and slower, with an end to the slowness */
        struct scsi_verdict v = scsi_decide(i % 2 ? SCSI_BUSY : SCSI_TASK_SET_FULL, &none, i);
        assert_int_equal(v.action, SCSI_RETRY_LATER);
        assert_true(v.delay_ns >= before && v.delay_ns <= 2000000000u);
        before = v.delay_ns;
    }
    assert_true(before == 2000000000u);
    assert_int_equal(verdict(SCSI_RECOVERED_ERROR, 0x17, 0, 0).action, SCSI_DONE);
    assert_int_equal(verdict(SCSI_NOT_READY, 0x04, 0x01, 50).action, SCSI_RETRY_LATER);
    assert_int_equal(verdict(SCSI_NOT_READY, 0x04, 0x03, 0).action, SCSI_FAIL);
    assert_int_equal(verdict(SCSI_NOT_READY, 0x3a, 0, 0).action, SCSI_FAIL);
    assert_int_equal(verdict(SCSI_MEDIUM_ERROR, 0x11, 0, 0).action, SCSI_FAIL);
    assert_int_equal(verdict(SCSI_HARDWARE_ERROR, 0x44, 0, 0).action, SCSI_FAIL);
    assert_int_equal(verdict(SCSI_ILLEGAL_REQUEST, 0x20, 0, 0).action, SCSI_UNSUPPORTED);
    assert_int_equal(verdict(SCSI_ILLEGAL_REQUEST, 0x21, 0, 0).action, SCSI_FAIL);
    assert_int_equal(verdict(SCSI_DATA_PROTECT, 0x27, 0, 0).action, SCSI_FAIL);
    assert_int_equal(verdict(SCSI_DATA_PROTECT, 0x27, 7, 0).action, SCSI_OUT_OF_SPACE);
    assert_int_equal(verdict(SCSI_MISCOMPARE, 0x1d, 0, 0).action, SCSI_DIFFERS);
    assert_int_equal(verdict(SCSI_ABORTED_COMMAND, 0x47, 5, 0).action, SCSI_RETRY_LATER);
    assert_int_equal(verdict(SCSI_ABORTED_COMMAND, 0x47, 5, 5).action, SCSI_FAIL);
    static const struct { uint8_t asc, ascq; unsigned news; } attentions[] = {
        { 0x29, 0x00, SCSI_NEWS_RESET }, { 0x29, 0x07, SCSI_NEWS_NEXUS_LOSS }, { 0x2a, 0x09, SCSI_NEWS_CAPACITY },
        { 0x3f, 0x0e, SCSI_NEWS_UNITS }, { 0x3f, 0x03, SCSI_NEWS_INQUIRY }, { 0x2a, 0x01, SCSI_NEWS_MODE },
        { 0x2a, 0x03, SCSI_NEWS_RESERVATION_PREEMPTED }, { 0x2a, 0x04, SCSI_NEWS_RESERVATION_RELEASED },
        { 0x2a, 0x05, SCSI_NEWS_REGISTRATION_PREEMPTED }, { 0x2f, 0x00, SCSI_NEWS_COMMANDS_CLEARED },
        { 0x38, 0x07, SCSI_NEWS_SPACE_LOW }, { 0x2a, 0x06, SCSI_NEWS_ACCESS_STATE }, { 0x77, 0x77, SCSI_NEWS_OTHER },
    };
    for (size_t i = 0; i < ARRAY_COUNT(attentions); i++) {
        struct scsi_verdict v = verdict(SCSI_UNIT_ATTENTION, attentions[i].asc, attentions[i].ascq, 0);
        bool fenced = attentions[i].asc == 0x2a && attentions[i].ascq >= 3 && attentions[i].ascq <= 5;
        assert_int_equal(v.action, fenced ? SCSI_CONFLICT : SCSI_RETRY); /* who may be fenced out writes no more */
        assert_int_equal(v.news, attentions[i].news);
        bool anew = fenced || attentions[i].asc == 0x29 || attentions[i].asc == 0x2f;
        assert_int_equal(!!(v.news & SCSI_NEWS_PROVE), anew);
    }
    assert_int_equal(scsi_decide(SCSI_TASK_ABORTED, &none, 0).news, SCSI_NEWS_COMMANDS_CLEARED);
    /* A unit that is not there (its target was just started), or not on this path now, may come. */
    assert_int_equal(verdict(SCSI_ILLEGAL_REQUEST, 0x25, 0, 50).action, SCSI_RETRY_LATER);
    assert_int_equal(verdict(SCSI_ILLEGAL_REQUEST, 0x25, 0, 50).news, SCSI_NEWS_UNITS);
    assert_int_equal(verdict(SCSI_NOT_READY, 0x04, 0x0b, 50).action, SCSI_RETRY_LATER);
    assert_int_equal(verdict(SCSI_NOT_READY, 0x04, 0x0c, 50).action, SCSI_RETRY_LATER);
    assert_int_equal(verdict(SCSI_NOT_READY, 0x04, 0x0c, 50).news, SCSI_NEWS_ACCESS_STATE);
    assert_int_equal(verdict(SCSI_UNIT_ATTENTION, 0x29, 0, 9).action, SCSI_RETRY_LATER);
    assert_int_equal(scsi_decide(SCSI_CHECK_CONDITION, &none, 0).action, SCSI_RETRY_LATER);
    assert_int_equal(scsi_decide(SCSI_CHECK_CONDITION, &none, 9).action, SCSI_FAIL);
    assert_int_equal(scsi_decide(0x77, &none, 9).action, SCSI_FAIL);
    for (unsigned i = 0; i < 256; i++)
        assert_true(*scsi_status_name(i) && *scsi_key_name(i) && scsi_sense_words(i, i));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(descriptor_blocks),
        cmocka_unit_test(parameter_lists),
        cmocka_unit_test(answers),
        cmocka_unit_test(names_that_name_nothing),
        cmocka_unit_test(capacities),
        cmocka_unit_test(reservations),
        cmocka_unit_test(noise),
        cmocka_unit_test(sense_in_both_formats),
        cmocka_unit_test(decisions),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
