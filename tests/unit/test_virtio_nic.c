/* SPDX-License-Identifier: MIT */
/*
 * The driver of virtio-net cards, against a device that the test plays: registers in memory, rings that it walks itself.
 * Guarded: the device is set up in the standard's order; what it says that cannot be costs it a reset and nobody else
 * anything; its memory is given back only after it cannot reach memory any more; every frame that was taken comes back.
 */
#include "drivers/virtio_ring.h"
#include "nic_fixture.h"

#define RING 256
#define HEADER 12

static struct {
    uint8_t common[0x1000], isr[0x1000], device[0x1000], notify[0x1000];
} ALIGNED(4096) bar_space;
static uint8_t config[256];
static uint16_t seen[2];
static bool intx;

/* Where the common configuration has things (virtio 1.2, 4.1.4.3). */
#define FEATURES (*(uint32_t *)(bar_space.common + 4))
#define STATUS (bar_space.common[20])
#define QUEUE_SIZE (*(uint16_t *)(bar_space.common + 24))

static uint32_t config_read(const struct pci_access *access, struct pci_address at, unsigned offset, unsigned bytes)
{
    uint32_t value = 0;
    (void)access;
    (void)at;
    memcpy(&value, config + offset, bytes);
    return value;
}
static const struct pci_access fake_access = { config_read, NULL };
const struct pci_access *pci_access(void)
{
    return &fake_access;
}
uint32_t pci_read(const struct pci_function *f, unsigned offset, unsigned bytes)
{
    return config_read(NULL, f->at, offset, bytes);
}
enum status pci_claim(struct pci_function *f, const char *driver, struct pci_bar bar[PCI_BARS])
{
    if (f->driver)
        return ERR_BUSY;
    f->driver = driver;
    memset(bar, 0, sizeof(struct pci_bar) * PCI_BARS);
    bar[4] = (struct pci_bar){ PCI_BAR_MEMORY, true, 0x1000000, sizeof bar_space };
    return OK;
}
volatile void *pci_map(const struct pci_bar *bar, uint64_t bytes)
{
    assert_true(range_within(bar->base - 0x1000000, bytes, sizeof bar_space));
    return (uint8_t *)&bar_space + (bar->base - 0x1000000);
}
void pci_master(const struct pci_function *f, bool on)
{
    (void)f;
    master = on;
}
enum pci_interrupt pci_listen(struct pci_function *f, const struct pci_bar bar[PCI_BARS], unsigned allow,
                              bool (*function_handler)(void *arg), void *arg)
{
    (void)bar;
    assert_true(allow & PCI_ALLOW_MSIX);
    handler = function_handler;
    handler_arg = arg;
    return f->interrupt = intx ? PCI_INTERRUPT_INTX : PCI_INTERRUPT_MSIX;
}

static void capability(unsigned at, unsigned next, unsigned type, uint32_t offset, uint32_t bytes)
{
    config[at] = PCI_CAP_VENDOR;
    config[at + 1] = (uint8_t)next;
    config[at + 3] = (uint8_t)type;
    config[at + 4] = 4;
    memcpy(config + at + 8, &offset, 4);
    memcpy(config + at + 12, &bytes, 4);
}

static int setup(void **state)
{
    (void)state;
    memset(&bar_space, 0, sizeof bar_space);
    memset(config, 0, sizeof config);
    memset(seen, 0, sizeof seen);
    intx = false;
    nic_fixture_setup(0x1af4, 0x1041);
    config[PCI_STATUS] = PCI_STATUS_CAPABILITIES;
    config[PCI_CAPABILITIES] = 0x40;
    capability(0x40, 0x50, 1, 0, 0x1000);
    capability(0x50, 0x60, 3, 0x1000, 0x1000);
    capability(0x60, 0x70, 4, 0x2000, 0x1000);
    capability(0x70, 0, 2, 0x3000, 0x1000);
    config[0x80] = 4; /* the notify multiplier */
    FEATURES = 1 | 1u << 5 | 1u << 16; /* CSUM, MAC, STATUS; and, in the second word, VERSION_1 */
    QUEUE_SIZE = RING;
    memcpy(bar_space.device, "\x52\x54\x00\x12\x34\x56\x01\x00", 8);
    return 0;
}

/* The pages of queue q, in the order in which they are taken: descriptors, available, used. */
static volatile struct virtio_desc *desc(unsigned q)
{
    return (void *)pages[129 + 3 * q].v;
}
static volatile struct virtio_avail *avail(unsigned q)
{
    return (void *)pages[130 + 3 * q].v;
}
static volatile struct virtio_used *used(unsigned q)
{
    return (void *)pages[131 + 3 * q].v;
}

static void give_back(unsigned q, uint32_t id, uint32_t bytes)
{
    used(q)->ring[used(q)->idx % RING].id = id;
    used(q)->ring[used(q)->idx % RING].bytes = bytes;
    used(q)->idx++;
}

/* The device receives a frame of `bytes` bytes, all `value`. */
static void arrive(unsigned bytes, uint8_t value, uint8_t flags)
{
    uint16_t head, at;
    unsigned left = bytes + HEADER;

    assert_true(master && STATUS == 15);
    assert_int_not_equal(seen[0], avail(0)->idx);
    head = at = avail(0)->ring[seen[0]++ % RING];
    for (bool first = true;; first = false, at = desc(0)[at].next) {
        unsigned here = MIN(left, desc(0)[at].bytes);
        assert_true(desc(0)[at].flags & VIRTIO_DESC_WRITE);
        memset((void *)desc(0)[at].address, value, here);
        if (first) {
            memset((void *)desc(0)[at].address, 0, HEADER);
            *(uint8_t *)desc(0)[at].address = flags;
        }
        left -= here;
        if (!left || !(desc(0)[at].flags & VIRTIO_DESC_NEXT))
            break;
    }
    assert_int_equal(left, 0);
    give_back(0, head, bytes + HEADER);
}

static struct nic *open_card(uint32_t mtu)
{
    struct nic *nic = virtio_nic_open(&function, mtu, &user);

    assert_non_null(nic);
    assert_false(nic->ops->poll(nic, 64));
    return nic;
}

static void a_card_is_set_up(void **state)
{
    struct nic *nic = open_card(1500);
    (void)state;

    assert_int_equal(STATUS, 15);
    assert_memory_equal(nic->mac, "\x52\x54\x00\x12\x34\x56", 6);
    assert_true(nic->link_up && nic->offers_checksum && links == 1);
    assert_int_equal(avail(0)->idx, RING);
    close_card(nic);
}

static void a_device_that_does_not_work_is_refused(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 8; i++) {
        setup(NULL);
        switch (i) {
        case 0: FEATURES = 1u << 5; break;                         /* not VERSION_1 */
        case 1: FEATURES = 1; break;                               /* no address */
        case 2: QUEUE_SIZE = 0; break;
        case 3: QUEUE_SIZE = 100; break;                           /* no power of two */
        case 4: capability(0x40, 0x50, 1, 0x3fff, 0x1000); break;  /* outside of its register */
        case 5: config[0x80] = 0xff; memset(bar_space.common + 30, 0xff, 2); break; /* a doorbell far away */
        case 6: capability(0x60, 0x50, 4, 0x2000, 0x1000); break;  /* a list that loops, and never comes to the doorbells */
        case 7: function.driver = "another"; break;
        }
        assert_refused(virtio_nic_open(&function, 1500, &user));
    }
}

static void frames_come_in_and_their_buffers_go_back(void **state)
{
    struct nic *nic = open_card(1500);
    (void)state;

    for (unsigned i = 0; i < 3 * RING; i++) {
        arrive(60 + i, (uint8_t)i, i % 2 ? 2 : 0);
        assert_true(handler(handler_arg));
        assert_int_equal(avail(0)->flags, VIRTIO_AVAIL_NO_INTERRUPT);
        assert_false(nic->ops->poll(nic, 64));
        assert_int_equal(avail(0)->flags, 0);
        assert_int_equal(last.bytes, 60 + i);
        assert_int_equal(last_bytes[59 + i], (uint8_t)i);
        assert_int_equal(last.checksum_good, i % 2);
    }
    assert_int_equal(frames, 3 * RING);
    close_card(nic);
}

static void long_frames_come_in_several_buffers(void **state)
{
    struct nic *nic = open_card(9000);
    (void)state;

    for (unsigned i = 0; i < 100; i++) {
        arrive(9018, (uint8_t)i, 0);
        assert_false(nic->ops->poll(nic, 64));
        assert_int_equal(last.bytes, 9018);
        assert_int_equal(last_bytes[9017], (uint8_t)i);
    }
    close_card(nic);
}

static void frames_go_out_behind_a_header(void **state)
{
    static int cookie[3];
    struct nic *nic = open_card(1500);
    (void)state;

    for (unsigned i = 0; i < 3; i++)
        assert_true(send_frame(nic, &cookie[i]));
    nic->ops->flush(nic);
    uint16_t head = avail(1)->ring[0], at = desc(1)[head].next;
    const uint8_t *header = (const uint8_t *)desc(1)[head].address;
    assert_int_equal(desc(1)[head].bytes, HEADER);
    assert_true(header[0] == 1 && header[6] == 34 && header[8] == 16); /* needs a checksum, from 34 on, 16 further */
    assert_int_equal(desc(1)[at].address, 0x1000);
    assert_int_equal(desc(1)[desc(1)[at].next].bytes, 100);
    for (unsigned i = 3; i-- > 0;) /* in the order that the device likes */
        give_back(1, avail(1)->ring[i], 0);
    assert_false(nic->ops->poll(nic, 64));
    assert_int_equal(back_count, 3);
    assert_ptr_equal(back[0], &cookie[2]);
    unsigned given = 0;
    while (send_frame(nic, NULL))
        given++;
    assert_int_equal(given, RING / 3);
    close_card(nic);
    assert_int_equal(back_count, 3 + given);
}

/* Where the user can wait the device is not asked to interrupt for what it has sent, but for a ring that fills. */
static void the_device_interrupts_for_what_it_sent_where_it_matters(void **state)
{
    struct nic *nic = open_card(1500);
    unsigned given = 0, before;
    (void)state;

    assert_int_equal(avail(1)->flags, 0);
    nic->sent_late = true;
    assert_false(nic->ops->poll(nic, 64));
    assert_int_equal(avail(1)->flags, VIRTIO_AVAIL_NO_INTERRUPT);
    assert_int_equal(avail(0)->flags, 0);
    for (before = wakes; wakes == before; given++)
        assert_true(send_frame(nic, NULL));
    assert_int_equal(given, RING / 2 / 3 + 1); /* three descriptors each */
    assert_false(nic->ops->poll(nic, 64));
    assert_int_equal(avail(1)->flags, 0);
    for (unsigned i = 0; i < given; i++)
        give_back(1, avail(1)->ring[i], 0);
    assert_true(handler(handler_arg));
    assert_int_equal(avail(1)->flags, VIRTIO_AVAIL_NO_INTERRUPT);
    assert_false(nic->ops->poll(nic, 64));
    assert_int_equal(back_count, given);
    assert_int_equal(avail(1)->flags, VIRTIO_AVAIL_NO_INTERRUPT); /* there is room again */
    nic->sent_late = false;
    assert_false(nic->ops->poll(nic, 64));
    assert_int_equal(avail(1)->flags, 0);
    close_card(nic);
}

/* Frames that come back in any order, many times round the ring: each cookie once, and no header given twice. */
static void headers_are_used_again_only_when_they_are_back(void **state)
{
    struct nic *nic = open_card(1500);
    uint16_t open_heads[8];
    uintptr_t open_cookies[8], next = 1;
    unsigned count = 0, seed = 7;
    (void)state;

    for (unsigned i = 0; i < 5 * RING; i++) {
        assert_true(send_frame(nic, (void *)next));
        open_heads[count] = avail(1)->ring[(uint16_t)(avail(1)->idx - 1) % RING];
        open_cookies[count++] = next++;
        for (unsigned j = 0; j + 1 < count; j++)
            assert_int_not_equal(desc(1)[open_heads[j]].address, desc(1)[open_heads[count - 1]].address);
        if (count < 8)
            continue;
        seed = seed * 1103515245 + 12345;
        for (unsigned some = 1 + (seed >> 20 & 3); some; some--) {
            unsigned which = (seed >> 16) % count;
            give_back(1, open_heads[which], 0);
            back_count = 0;
            assert_false(nic->ops->poll(nic, 64));
            assert_int_equal(back_count, 1);
            assert_int_equal((uintptr_t)back[0], open_cookies[which]);
            open_heads[which] = open_heads[--count];
            open_cookies[which] = open_cookies[count];
        }
    }
    back_count = 0;
    close_card(nic);
    assert_int_equal(back_count, count);
}

/* The device is told of buffers that are its again, unless it does not want to be. */
static void the_device_hears_of_new_buffers(void **state)
{
    struct nic *nic = open_card(1500);
    (void)state;

    for (unsigned wanted = 0; wanted < 2; wanted++) {
        used(0)->flags = wanted ? 0 : VIRTIO_USED_NO_NOTIFY;
        memset(bar_space.notify, 0xff, 4);
        arrive(60, 1, 0);
        assert_false(nic->ops->poll(nic, 64));
        assert_int_equal(bar_space.notify[0], wanted ? 0 : 0xff);
        used(1)->flags = wanted ? 0 : VIRTIO_USED_NO_NOTIFY;
        assert_true(send_frame(nic, NULL));
        nic->ops->flush(nic);
        assert_int_equal(bar_space.notify[0], wanted ? 1 : 0xff);
    }
    close_card(nic);
}

/* The device's configuration is read for a change of it only, and by the tick: each read is dear in a guest. */
static void the_link_is_looked_at_when_it_may_have_changed(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        setup(NULL);
        intx = i;
        struct nic *nic = open_card(1500);
        uint8_t *isr = bar_space.isr;
        assert_int_equal(*(uint16_t *)(bar_space.common + 16), 0xffff); /* no message of its own */
        *isr = 0;
        assert_int_equal(handler(handler_arg), !intx); /* somebody else's */
        bar_space.device[6] = 0;
        *isr = 1;
        assert_true(handler(handler_arg));
        assert_false(nic->ops->poll(nic, 64));
        assert_true(nic->link_up);
        *isr = 3;
        assert_true(handler(handler_arg));
        assert_false(nic->ops->poll(nic, 64));
        assert_int_equal(nic->link_up, !intx);
        nic->ops->tick(nic, now);
        assert_false(nic->link_up);
        close_card(nic);
    }
}

static void lies_and_hangs_cost_a_reset(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 4; i++) {
        setup(NULL);
        struct nic *nic = open_card(1500);
        assert_true(send_frame(nic, NULL));
        nic->ops->flush(nic);
        switch (i) {
        case 0: give_back(0, 0xffff, 60); break;
        case 1: give_back(1, avail(1)->ring[0], 1); break; /* wrote into what it may only read */
        case 2: STATUS |= 64; break;                       /* asks for it */
        case 3: now += 3 * NS_PER_S; break;
        }
        assert_false(nic->ops->poll(nic, 64));
        nic->ops->tick(nic, now);
        assert_int_equal(nic->counters.resets, 1);
        assert_int_equal(back_count, 1);
        assert_false(send_frame(nic, NULL));
        now += 100 * NS_PER_MS;
        nic->ops->tick(nic, now);
        assert_int_equal(STATUS, 15);
        memset(seen, 0, sizeof seen);
        arrive(60, 9, 0);
        assert_true(send_frame(nic, NULL));
        assert_false(nic->ops->poll(nic, 64));
        assert_int_equal(frames, 1);
        close_card(nic);
    }
}

/* A frame that never was on a wire says where its checksum is to be made; one that says nonsense there is an error. */
static void a_checksum_that_is_not_made_yet_is_told(void **state)
{
    static const struct { uint16_t start, offset; bool good; } where[] = {
        { 34, 16, true }, { 14, 0, true }, { 58, 0, true }, { 34, 24, true },
        { 58, 1, false }, { 59, 0, false }, { 13, 16, false }, { 0, 0, false }, { 34, 0xffff, false }, { 0xffff, 0xffff, false },
    };
    struct nic *nic = open_card(1500);
    unsigned errors = 0;
    (void)state;

    for (unsigned i = 0; i < ARRAY_COUNT(where); i++) {
        uint8_t *header = (uint8_t *)desc(0)[avail(0)->ring[seen[0] % RING]].address;
        unsigned before = frames;
        arrive(60, 1, 1);
        memcpy(header + 6, &where[i].start, 2);
        memcpy(header + 8, &where[i].offset, 2);
        assert_false(nic->ops->poll(nic, 64));
        assert_int_equal(frames, before + where[i].good);
        errors += !where[i].good;
        assert_int_equal(nic->counters.receive_errors, errors);
        if (where[i].good)
            assert_true(last.checksum_good && last.checksum_start == where[i].start &&
                        last.checksum_at == where[i].start + where[i].offset);
    }
    arrive(60, 1, 2);
    assert_false(nic->ops->poll(nic, 64));
    assert_true(last.checksum_good && !last.checksum_start && !last.checksum_at);
    close_card(nic);
}

static void frames_do_not_wait_for_a_link(void **state)
{
    struct nic *nic = open_card(1500);
    (void)state;

    assert_true(send_frame(nic, NULL));
    nic->ops->flush(nic);
    bar_space.device[6] = 0;
    nic->ops->tick(nic, now);
    assert_false(nic->link_up);
    now += 1900 * NS_PER_MS;
    nic->ops->tick(nic, now);
    bar_space.device[6] = 1;
    now += 200 * NS_PER_MS;
    nic->ops->tick(nic, now); /* it is back, and has its time from here on */
    assert_true(STATUS == 15 && nic->link_up);
    bar_space.device[6] = 0;
    now += 2100 * NS_PER_MS;
    nic->ops->tick(nic, now);
    assert_int_equal(STATUS, 0);
    assert_int_equal(back_count, 1);
    now += 100 * NS_PER_MS;
    nic->ops->tick(nic, now);
    assert_int_equal(STATUS, 15);
    assert_int_equal(nic->counters.resets, 0);
    assert_int_equal(fake_log_counts[LOG_WARNING] + fake_log_counts[LOG_ERROR], 0);
    close_card(nic);
}

static void a_tick_has_the_user_look(void **state)
{
    struct nic *nic = open_card(1500);
    (void)state;

    for (unsigned i = 0; i < 50; i++) {
        unsigned before = wakes;
        assert_true(send_frame(nic, NULL));
        nic->ops->flush(nic);
        give_back(1, avail(1)->ring[i], 0);
        now += 100 * NS_PER_MS;
        nic->ops->tick(nic, now);
        assert_int_equal(wakes, before + 1);
        assert_false(nic->ops->poll(nic, 64));
        assert_int_equal(back_count, i + 1);
    }
    assert_int_equal(nic->counters.resets, 0);
    close_card(nic);
}

static void resets_in_vain_end(void **state)
{
    struct nic *nic = open_card(1500);
    (void)state;

    for (unsigned i = 0; i < 6; i++) {
        assert_int_equal(nic->counters.resets, i);
        assert_true(send_frame(nic, NULL));
        now += 3 * NS_PER_S;
        nic->ops->tick(nic, now);
        assert_int_equal(STATUS, 0); /* in the end, too: it interrupts nobody any more */
        now += 100 * NS_PER_MS;
        nic->ops->tick(nic, now);
    }
    assert_true(nic->failed && !master && STATUS == 0);
    assert_int_equal(nic->counters.resets, 5);
    assert_int_equal(fake_log_counts[LOG_ERROR], 1);
    close_card(nic);
}

static void short_and_long_frames_are_errors(void **state)
{
    struct nic *nic = open_card(1500);
    (void)state;

    arrive(10, 1, 0);
    arrive(1519, 1, 0);
    assert_false(nic->ops->poll(nic, 64));
    assert_int_equal(frames, 0);
    assert_int_equal(nic->counters.receive_errors, 2);
    assert_int_equal(nic->counters.resets, 0);
    close_card(nic);
}

static void a_device_that_is_gone_is_given_up(void **state)
{
    struct nic *nic = open_card(1500);
    (void)state;

    assert_true(send_frame(nic, NULL));
    STATUS = 0xff;
    nic->ops->tick(nic, now);
    assert_true(nic->failed && !nic->link_up && !master);
    assert_int_equal(back_count, 1);
    nic->ops->tick(nic, now);
    assert_int_equal(fake_log_counts[LOG_ERROR], 1);
    close_card(nic);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(a_card_is_set_up, setup),
        cmocka_unit_test_setup(a_device_that_does_not_work_is_refused, setup),
        cmocka_unit_test_setup(frames_come_in_and_their_buffers_go_back, setup),
        cmocka_unit_test_setup(long_frames_come_in_several_buffers, setup),
        cmocka_unit_test_setup(frames_go_out_behind_a_header, setup),
        cmocka_unit_test_setup(the_device_interrupts_for_what_it_sent_where_it_matters, setup),
        cmocka_unit_test_setup(headers_are_used_again_only_when_they_are_back, setup),
        cmocka_unit_test_setup(the_device_hears_of_new_buffers, setup),
        cmocka_unit_test_setup(the_link_is_looked_at_when_it_may_have_changed, setup),
        cmocka_unit_test_setup(lies_and_hangs_cost_a_reset, setup),
        cmocka_unit_test_setup(a_checksum_that_is_not_made_yet_is_told, setup),
        cmocka_unit_test_setup(frames_do_not_wait_for_a_link, setup),
        cmocka_unit_test_setup(a_tick_has_the_user_look, setup),
        cmocka_unit_test_setup(resets_in_vain_end, setup),
        cmocka_unit_test_setup(short_and_long_frames_are_errors, setup),
        cmocka_unit_test_setup(a_device_that_is_gone_is_given_up, setup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
