/* SPDX-License-Identifier: MIT */
/*
 * The driver of the Intel gigabit cards, against a card that the test plays: registers in memory, a reset that ends while
 * the driver waits, rings that it walks itself. Guarded: a card that dies, hangs or lies costs itself and nothing else; its
 * memory is given back only after it cannot reach memory any more; every frame that was taken comes back; no interrupt is
 * unmasked while there is work, nor left masked when there is none.
 */
#include "drivers/e1000_ring.h"
#include "nic_fixture.h"

#define RING 256
#define BUDGET 64

/* Registers as the manual numbers them. */
enum { CTRL = 0, STATUS = 8, EERD = 0x14, ICR = 0xc0, ITR = 0xc4, IMS = 0xd0, IMC = 0xd8, EITR = 0xe8, RCTL = 0x100, TCTL = 0x400, RDBAL = 0x2800,
       RDBAH = 0x2804, RDLEN = 0x2808, RDH = 0x2810, RDT = 0x2818, TDBAL = 0x3800, TDBAH = 0x3804, TDLEN = 0x3808, TDT = 0x3818,
       MTA = 0x5200, RAL = 0x5400, RAH = 0x5404 };
#define CTRL_MASTER_OFF (1u << 2)
#define CTRL_RST (1u << 26)
#define STATUS_MASTER (1u << 19)
#define LINK_1000 0x83u /* up, full duplex, 1000 Mbit/s */

static uint32_t reg[0x10000 / 4];
static uint16_t eeprom[3];
static bool loads_mac, new_eeprom, resets_end, cut_off;
static unsigned receive_at, send_at;

static uint32_t *r(unsigned offset)
{
    return &reg[offset / 4];
}

/* ---- What the driver calls ---- */

/* The card goes on for a moment. */
static void step(void)
{
    if ((*r(CTRL) & CTRL_MASTER_OFF) && !(*r(CTRL) & CTRL_RST))
        *r(STATUS) &= ~STATUS_MASTER;
    cut_off |= (*r(CTRL) & CTRL_RST) && (*r(STATUS) & STATUS_MASTER);
    if ((*r(CTRL) & CTRL_RST) && resets_end) {
        *r(CTRL) &= ~CTRL_RST;
        *r(RCTL) = *r(TCTL) = 0;
        *r(RAL) = loads_mac ? 0x12005452 : 0;
        *r(RAH) = loads_mac ? 0x80005634 : 0;
    }
    if (*r(EERD) & 1) {
        unsigned word = *r(EERD) >> (new_eeprom ? 2 : 8) & 0xff;
        *r(EERD) = (uint32_t)eeprom[word % 3] << 16 | (new_eeprom ? 2 : 16);
    }
}

enum status pci_claim(struct pci_function *f, const char *driver, struct pci_bar bar[PCI_BARS])
{
    if (f->driver)
        return ERR_BUSY;
    f->driver = driver;
    memset(bar, 0, sizeof(struct pci_bar) * PCI_BARS);
    return OK;
}
volatile void *pci_map(const struct pci_bar *bar, uint64_t bytes)
{
    (void)bar;
    assert_true(bytes <= sizeof reg);
    return reg;
}
void pci_master(const struct pci_function *f, bool on)
{
    (void)f;
    assert_false(on && (*r(CTRL) & CTRL_RST)); /* only after the reset */
    master = on;
}
enum pci_interrupt pci_listen(struct pci_function *f, const struct pci_bar bar[PCI_BARS], unsigned allow,
                              bool (*function_handler)(void *arg), void *arg)
{
    (void)bar;
    handler = function_handler;
    handler_arg = arg;
    f->interrupt = allow & PCI_ALLOW_MSIX ? PCI_INTERRUPT_MSIX : PCI_INTERRUPT_INTX;
    return f->interrupt;
}

static int setup(void **state)
{
    (void)state;
    memset(reg, 0, sizeof reg);
    *r(STATUS) = LINK_1000;
    nic_fixture_setup(0x8086, 0x100e);
    time_passes = step;
    loads_mac = resets_end = true;
    new_eeprom = cut_off = false;
    return 0;
}

static struct nic *open_card(uint32_t mtu)
{
    struct nic *nic = e1000_open(&function, mtu, &user);

    assert_non_null(nic);
    receive_at = send_at = 0;
    assert_false(nic->ops->poll(nic, BUDGET)); /* takes the link's state */
    return nic;
}

/* ---- The card's side of the rings ---- */

static volatile struct e1000_receive *receive_ring(void)
{
    return (void *)((uint64_t)*r(RDBAH) << 32 | *r(RDBAL));
}
static volatile struct e1000_transmit *transmit_ring(void)
{
    return (void *)((uint64_t)*r(TDBAH) << 32 | *r(TDBAL));
}

/* The card receives a frame of `bytes` bytes, all `value`. */
static void arrive(unsigned bytes, uint8_t value)
{
    assert_true(master && (*r(RCTL) & 2));
    do {
        volatile struct e1000_receive *d = &receive_ring()[receive_at];
        unsigned here = bytes > 2048 ? 2048 : bytes;
        assert_int_not_equal(receive_at, *r(RDT)); /* a descriptor that is the card's */
        memset((void *)d->address, value, here);
        d->bytes = (uint16_t)here;
        bytes -= here;
        d->status = (uint8_t)(E1000_RECEIVE_DONE | (bytes ? 0 : E1000_RECEIVE_END));
        receive_at = (receive_at + 1) % RING;
    } while (bytes);
}

/* The card sends all that its tail register shows; returns the descriptors. */
static unsigned send_all(void)
{
    unsigned count = 0;

    for (; send_at != *r(TDT); send_at = (send_at + 1) % RING, count++)
        if (transmit_ring()[send_at].command & E1000_TRANSMIT_REPORT)
            transmit_ring()[send_at].status = E1000_TRANSMIT_DONE;
    return count;
}

/* ---- Tests ---- */

static void a_card_is_set_up(void **state)
{
    struct nic *nic = open_card(1500);
    (void)state;

    assert_memory_equal(nic->mac, "\x52\x54\x00\x12\x34\x56", 6);
    assert_string_equal(nic->name, "e1000 00:02.0");
    assert_string_equal(nic->model, "82540EM");
    assert_true(nic->link_up && nic->full_duplex && nic->mbps == 1000);
    assert_int_equal(nic->max_frame, 1518);
    assert_int_equal(*r(RDLEN), RING * 16);
    assert_int_equal(*r(RDT), RING - 1);
    assert_true(*r(RCTL) & 2 && *r(TCTL) & 2 && !(*r(RCTL) & 0x38)); /* on; not promiscuous, no long frames */
    assert_true(*r(IMS) & 0x80 && *r(IMS) & 4 && master);
    assert_int_equal(links, 1);
    close_card(nic);
}

static void the_address_is_in_the_eeprom_too(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        setup(NULL);
        loads_mac = false;
        new_eeprom = i;
        function.device = i ? 0x10d3 : 0x100e;
        memcpy(eeprom, "\x02\x11\x22\x33\x44\x55", 6);
        struct nic *nic = open_card(1500);
        assert_memory_equal(nic->mac, "\x02\x11\x22\x33\x44\x55", 6);
        assert_int_equal(function.interrupt, i ? PCI_INTERRUPT_MSIX : PCI_INTERRUPT_INTX);
        close_card(nic);
    }
}

static void a_card_that_does_not_work_is_refused(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 7; i++) {
        setup(NULL);
        switch (i) {
        case 0: memset(reg, 0xff, sizeof reg); break;          /* nobody there */
        case 1: resets_end = false; break;
        case 2: loads_mac = false; memset(eeprom, 0, 6); break;
        case 3: loads_mac = false; memset(eeprom, 0xff, 6); break; /* a multicast address */
        case 4: function.device = 0x1234; break;
        case 5: function.driver = "another"; break;
        case 6: pages_left = 100; break;
        }
        assert_refused(e1000_open(&function, 1500, &user));
        assert_int_equal(function.driver != NULL, i == 5);
    }
}

static void frames_come_in_and_their_buffers_go_back(void **state)
{
    struct nic *nic = open_card(1500);
    (void)state;

    for (unsigned i = 0; i < 3 * RING; i++) {
        arrive(60 + i, (uint8_t)i);
        *r(IMS) = 0;
        assert_false(nic->ops->poll(nic, BUDGET));
        assert_true(*r(IMS)); /* nothing is left, so the next one interrupts */
        assert_int_equal(frames, i + 1);
        assert_int_equal(last.bytes, 60 + i);
        assert_int_equal(last_bytes[59 + i], (uint8_t)i);
        assert_int_equal(*r(RDT), (RING - 1 + i + 1) % RING);
    }
    assert_int_equal(nic->counters.received_frames, 3 * RING);
    close_card(nic);
}

static void a_flood_is_taken_in_turns(void **state)
{
    struct nic *nic = open_card(1500);
    (void)state;

    for (unsigned i = 0; i < 150; i++)
        arrive(60, 1);
    *r(IMS) = 0;
    assert_true(nic->ops->poll(nic, BUDGET));
    assert_int_equal(frames, BUDGET);
    assert_int_equal(*r(IMS), 0); /* still masked: it is polled again */
    assert_true(nic->ops->poll(nic, BUDGET));
    assert_false(nic->ops->poll(nic, BUDGET));
    assert_int_equal(frames, 150);
    assert_true(*r(IMS));
    close_card(nic);
}

static void long_frames_come_in_several_buffers(void **state)
{
    struct nic *nic = open_card(9000);
    (void)state;

    assert_true(*r(RCTL) & 0x20);
    arrive(9018, 0x5a);
    assert_false(nic->ops->poll(nic, BUDGET));
    assert_int_equal(last.bytes, 9018);
    assert_int_equal(last.piece_count, 5);
    arrive(9019, 0x5a); /* longer than asked for */
    arrive(60, 0x5b);
    assert_false(nic->ops->poll(nic, BUDGET));
    assert_int_equal(frames, 2);
    assert_int_equal(last.bytes, 60);
    assert_int_equal(nic->counters.receive_errors, 1);
    assert_int_equal(*r(RDT), (RING - 1 + 11) % RING);
    close_card(nic);
}

static void frames_go_out_with_one_ring_of_the_bell(void **state)
{
    static int cookie[3];
    struct nic *nic = open_card(1500);
    (void)state;

    for (unsigned i = 0; i < 3; i++)
        assert_true(send_frame(nic, &cookie[i]));
    assert_int_equal(*r(TDT), 0);
    nic->ops->flush(nic);
    assert_int_equal(*r(TDT), 6);
    assert_int_equal(transmit_ring()[0].address, 0x1000);
    assert_int_equal(transmit_ring()[1].bytes, 100);
    for (unsigned i = 0; i < 6; i++) { /* each descriptor tells of the checksum, and the last one of the end */
        assert_int_equal(transmit_ring()[i].command & E1000_TRANSMIT_CHECKSUM, E1000_TRANSMIT_CHECKSUM);
        assert_true(transmit_ring()[i].checksum_start == 34 && transmit_ring()[i].checksum_at == 50);
        assert_int_equal(!!(transmit_ring()[i].command & E1000_TRANSMIT_END), i % 2);
    }
    assert_false(nic->ops->poll(nic, BUDGET));
    assert_int_equal(back_count, 0); /* not sent yet */
    assert_int_equal(send_all(), 6);
    assert_false(nic->ops->poll(nic, BUDGET));
    assert_int_equal(back_count, 3);
    assert_ptr_equal(back[2], &cookie[2]);
    assert_int_equal(nic->counters.sent_frames, 3);
    assert_int_equal(nic->counters.sent_bytes, 342);
    close_card(nic);
}

/* Guests send frames as short as they like, and cards are known to hang of that. */
static void short_frames_are_padded_with_zeros(void **state)
{
    static uint8_t bytes[100];
    struct nic *nic = open_card(1500);
    (void)state;

    for (unsigned length = 14; length < 70; length++) {
        struct nic_send frame = { .piece_count = 2, .piece = { { HPA((uint64_t)bytes), 12 },
                                  { HPA((uint64_t)bytes + 12), length - 12 } } };
        unsigned total = 0, at = send_at;
        uint64_t sent_bytes = nic->counters.sent_bytes;

        assert_true(nic->ops->send(nic, &frame));
        assert_int_equal(nic->counters.sent_bytes, sent_bytes + length);
        nic->ops->flush(nic);
        for (unsigned i = 0; i < length + 1; i++) {
            volatile struct e1000_transmit *d = &transmit_ring()[(at + i) % RING];
            for (unsigned j = 0; i == 2 && j < d->bytes; j++)
                assert_int_equal(((uint8_t *)d->address)[j], 0);
            total += d->bytes;
            if (d->command & E1000_TRANSMIT_END)
                break;
        }
        assert_int_equal(total, MAX(length, 60u));
        (void)send_all();
        assert_false(nic->ops->poll(nic, BUDGET));
    }
    close_card(nic);
}

static void a_full_ring_says_no(void **state)
{
    struct nic *nic = open_card(1500);
    unsigned given = 0;
    (void)state;

    while (send_frame(nic, NULL))
        given++;
    assert_int_equal(given, (RING - 1) / 2);
    assert_int_equal(nic->counters.send_refused, 1);
    nic->ops->flush(nic);
    (void)send_all();
    assert_false(nic->ops->poll(nic, BUDGET));
    assert_true(send_frame(nic, NULL));
    close_card(nic);
    assert_int_equal(back_count, given + 1); /* what was not sent comes back too */
}

static void interrupts_are_acknowledged_or_somebody_elses(void **state)
{
    struct nic *nic = open_card(1500);
    (void)state;

    *r(ICR) = 0;
    *r(IMC) = 0;
    assert_false(handler(handler_arg));
    assert_int_equal(wakes, 0);
    *r(ICR) = 0x80;
    assert_true(handler(handler_arg));
    assert_int_equal(*r(IMC), 0xffffffff);
    assert_int_equal(wakes, 1);
    assert_int_equal(nic->counters.interrupts, 1);
    assert_false(handler(handler_arg)); /* masked: somebody else holds the line up */
    assert_int_equal(nic->counters.interrupts, 1);
    assert_int_equal(wakes, 1);
    now += NS_PER_S;
    *r(STATUS) = 0; /* the link is down; only its interrupt has it looked at */
    assert_false(nic->ops->poll(nic, BUDGET));
    assert_true(nic->link_up);
    *r(ICR) = 4;
    assert_true(handler(handler_arg));
    assert_false(nic->ops->poll(nic, BUDGET));
    assert_false(nic->link_up);
    assert_int_equal(links, 2);
    assert_false(send_frame(nic, NULL));
    for (unsigned i = 0; i < 1000; i++) { /* a plug that shakes */
        *r(STATUS) = i % 2 ? 0 : LINK_1000;
        *r(ICR) = 4;
        (void)handler(handler_arg);
        assert_false(nic->ops->poll(nic, BUDGET));
        now += NS_PER_MS;
    }
    assert_true(links > 5 && links <= 2 + 11);
    *r(STATUS) = LINK_1000;
    nic->ops->tick(nic, now); /* and what it ends as is seen */
    assert_true(nic->link_up);
    close_card(nic);
}

static void a_tick_sees_the_link_without_an_interrupt(void **state)
{
    struct nic *nic = open_card(1500);
    (void)state;

    *r(STATUS) = 0;
    nic->ops->tick(nic, now);
    assert_false(nic->link_up);
    *r(STATUS) = 0x42; /* 100 Mbit/s, half duplex */
    nic->ops->tick(nic, now);
    assert_true(nic->link_up && !nic->full_duplex && nic->mbps == 100);
    nic->ops->tick(nic, now);
    assert_int_equal(links, 3);
    assert_int_equal(nic->counters.link_changes, 3);
    close_card(nic);
}

/* One hang and the reset after it, up to where the card runs again. */
static void hang(struct nic *nic)
{
    nic->ops->flush(nic);
    now += 2100 * NS_PER_MS;
    nic->ops->tick(nic, now);
    assert_true(*r(CTRL) & CTRL_RST);
    assert_int_equal(*r(RCTL), 0);
    assert_false(send_frame(nic, NULL));
    assert_false(nic->ops->poll(nic, BUDGET));
    step();
    nic->ops->tick(nic, now + NS_PER_MS); /* too early */
    assert_int_equal(*r(RCTL), 0);
    now += 100 * NS_PER_MS;
    nic->ops->tick(nic, now);
    assert_true(*r(RCTL) & 2);
    receive_at = send_at = 0;
    assert_int_equal(*r(RDT), RING - 1);
    assert_int_equal(*r(TDT), 0);
}

static void a_card_that_hangs_is_reset_and_goes_on(void **state)
{
    static int cookie[2];
    struct nic *nic = open_card(1500);
    (void)state;

    now += 1000 * NS_PER_S; /* long idle is no hang */
    nic->ops->tick(nic, now);
    assert_true(send_frame(nic, &cookie[0]));
    now += 1900 * NS_PER_MS;
    nic->ops->flush(nic);
    nic->ops->tick(nic, now);
    assert_int_equal(nic->counters.resets, 0);
    now -= 1900 * NS_PER_MS;
    hang(nic);
    assert_int_equal(nic->counters.resets, 1);
    assert_int_equal(fake_log_counts[LOG_WARNING], 1);
    assert_int_equal(back_count, 1); /* its frame came back, once */
    assert_ptr_equal(back[0], &cookie[0]);
    assert_true(send_frame(nic, &cookie[1]));
    nic->ops->flush(nic);
    (void)send_all();
    arrive(64, 7);
    assert_false(nic->ops->poll(nic, BUDGET));
    assert_int_equal(back_count, 2);
    assert_int_equal(frames, 1);
    close_card(nic);
}

static void time_that_went_on_during_a_round_is_no_hang(void **state)
{
    struct nic *nic = open_card(1500);
    uint64_t before = now;
    (void)state;

    now += NS_PER_S;
    assert_true(send_frame(nic, NULL));
    nic->ops->flush(nic);
    nic->ops->tick(nic, before);
    assert_int_equal(nic->counters.resets, 0);
    close_card(nic);
}

static void a_reset_that_does_not_end_is_waited_for_and_then_given_up(void **state)
{
    struct nic *nic = open_card(1500);
    (void)state;

    assert_true(send_frame(nic, NULL));
    nic->ops->flush(nic);
    resets_end = false;
    now += 3 * NS_PER_S;
    nic->ops->tick(nic, now);
    for (unsigned i = 0; i < 20; i++) {
        now += 100 * NS_PER_MS;
        nic->ops->tick(nic, now);
        assert_true((*r(CTRL) & CTRL_RST) && !(*r(RCTL) & 2) && !nic->failed);
    }
    now += 100 * NS_PER_MS;
    nic->ops->tick(nic, now);
    assert_true(nic->failed && !master);
    assert_int_equal(back_count, 1);
    close_card(nic);
}

/* What waits for a link that does not come back is given up, and a card whose link was away is not taken for dead. */
static void frames_do_not_wait_for_a_link(void **state)
{
    static int cookie[2];
    struct nic *nic = open_card(1500);
    (void)state;

    assert_true(send_frame(nic, &cookie[0]));
    nic->ops->flush(nic);
    *r(STATUS) = 0;
    nic->ops->tick(nic, now);
    assert_false(nic->link_up);
    now += 1900 * NS_PER_MS;
    nic->ops->tick(nic, now);
    assert_int_equal(back_count, 0);
    *r(STATUS) = LINK_1000;
    now += 200 * NS_PER_MS;
    nic->ops->tick(nic, now); /* it is back, and has its time from here on */
    assert_int_equal(nic->counters.resets, 0);
    assert_int_equal(back_count, 0);
    assert_false(*r(CTRL) & CTRL_RST);
    *r(STATUS) = 0;
    now += 100 * NS_PER_MS;
    nic->ops->tick(nic, now);
    now += 2000 * NS_PER_MS;
    nic->ops->tick(nic, now);
    assert_int_equal(back_count, 1);
    assert_ptr_equal(back[0], &cookie[0]);
    assert_true(*r(CTRL) & CTRL_RST); /* so that the card forgets it too */
    step();
    for (unsigned i = 0; i < 100; i++) { /* once is enough */
        now += 100 * NS_PER_MS;
        nic->ops->tick(nic, now);
        assert_false(*r(CTRL) & CTRL_RST);
    }
    receive_at = send_at = 0;
    *r(STATUS) = LINK_1000;
    nic->ops->tick(nic, now);
    assert_true(send_frame(nic, &cookie[1]));
    nic->ops->flush(nic);
    assert_int_equal(send_all(), 2);
    assert_false(nic->ops->poll(nic, BUDGET));
    assert_int_equal(back_count, 2);
    assert_int_equal(nic->counters.resets, 0);
    assert_int_equal(fake_log_counts[LOG_WARNING] + fake_log_counts[LOG_ERROR], 0);
    close_card(nic);
}

/* An interrupt that never arrived costs the time to the next tick, and the card is not taken for dead. */
static void a_tick_has_the_user_look(void **state)
{
    struct nic *nic = open_card(1500);
    (void)state;

    for (unsigned i = 0; i < 50; i++) {
        unsigned before = wakes;
        assert_true(send_frame(nic, NULL));
        nic->ops->flush(nic);
        assert_int_equal(send_all(), 2);
        arrive(60, 1);
        now += 100 * NS_PER_MS;
        nic->ops->tick(nic, now);
        assert_int_equal(wakes, before + 1);
        assert_false(nic->ops->poll(nic, BUDGET));
        assert_int_equal(frames, i + 1);
        assert_int_equal(back_count, i + 1);
    }
    assert_int_equal(nic->counters.resets, 0);
    close_card(nic);
}

static void messages_of_msix_are_not_more_than_others(void **state)
{
    (void)state;
    function.device = 0x10d3;
    struct nic *nic = open_card(1500);
    assert_int_equal(function.interrupt, PCI_INTERRUPT_MSIX);
    assert_true(*r(ITR) >= 100 && *r(EITR) == *r(ITR));
    close_card(nic);
}

static void what_is_on_its_way_is_not_cut_off_by_a_reset(void **state)
{
    (void)state;
    function.device = 0x10d3;
    *r(STATUS) |= STATUS_MASTER;
    struct nic *nic = open_card(1500);
    assert_false(cut_off);
    *r(STATUS) |= STATUS_MASTER;
    assert_true(send_frame(nic, NULL));
    hang(nic);
    assert_false(cut_off);
    close_card(nic);
}

static void resets_in_vain_end(void **state)
{
    struct nic *nic = open_card(1500);
    (void)state;

    for (unsigned i = 0; i < 5; i++) {
        assert_true(send_frame(nic, NULL));
        hang(nic);
    }
    assert_true(send_frame(nic, NULL));
    nic->ops->flush(nic);
    now += 3 * NS_PER_S;
    *r(IMC) = 0;
    nic->ops->tick(nic, now);
    assert_true(nic->failed);
    assert_false(nic->link_up);
    assert_false(master);
    assert_int_equal(*r(IMC), 0xffffffff); /* it holds no line up */
    assert_int_equal(nic->counters.resets, 5);
    assert_int_equal(back_count, 6);
    assert_int_equal(fake_log_counts[LOG_ERROR], 1);
    now += 3 * NS_PER_S;
    nic->ops->tick(nic, now); /* and no more is said about it */
    assert_false(nic->ops->poll(nic, BUDGET));
    assert_false(send_frame(nic, NULL));
    assert_int_equal(fake_log_counts[LOG_ERROR], 1);
    close_card(nic);
}

static void a_card_that_is_pulled_out_is_given_up(void **state)
{
    struct nic *nic = open_card(1500);
    (void)state;

    assert_true(send_frame(nic, NULL));
    memset(reg, 0xff, sizeof reg);
    assert_false(handler(handler_arg));
    nic->ops->tick(nic, now);
    assert_true(nic->failed);
    assert_int_equal(nic->counters.receive_errors + nic->counters.receive_missed, 0);
    assert_int_equal(back_count, 1);
    assert_int_equal(fake_log_counts[LOG_ERROR], 1);
    close_card(nic);
}

static void a_length_beyond_the_buffer_costs_the_card_a_reset(void **state)
{
    struct nic *nic = open_card(1500);
    (void)state;

    arrive(60, 1);
    receive_ring()[0].bytes = 4000;
    assert_false(nic->ops->poll(nic, BUDGET));
    assert_int_equal(frames, 0);
    assert_int_equal(nic->counters.resets, 1);
    assert_true(*r(CTRL) & CTRL_RST);
    step();
    close_card(nic);
}

static void filters_are_what_is_asked_for(void **state)
{
    static const uint8_t groups[2][6] = { { 0x33, 0x33, 0, 0, 0, 1 }, { 0x01, 0, 0x5e, 0x7f, 0xff, 0xfa } };
    uint8_t many[NIC_MAX_MULTICAST + 1][6] = { 0 };
    struct nic *nic = open_card(1500);
    (void)state;

    nic->ops->filter(nic, false, groups, 2);
    assert_int_equal(*r(MTA + 0), 1u << 16);                          /* hash 0x010 */
    assert_int_equal(*r(MTA + 4 * (0xfaf >> 5)), 1u << (0xfaf & 31)); /* hash 0xfaf */
    assert_false(*r(RCTL) & 0x18);
    nic->ops->filter(nic, true, NULL, 0);
    assert_int_equal(*r(RCTL) & 0x18, 0x18);
    assert_int_equal(*r(MTA + 0), 0);
    nic->ops->filter(nic, false, (const uint8_t (*)[6])many, NIC_MAX_MULTICAST + 1);
    assert_int_equal(*r(RCTL) & 0x18, 0x10);
    close_card(nic);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(a_card_is_set_up, setup),
        cmocka_unit_test_setup(the_address_is_in_the_eeprom_too, setup),
        cmocka_unit_test_setup(a_card_that_does_not_work_is_refused, setup),
        cmocka_unit_test_setup(frames_come_in_and_their_buffers_go_back, setup),
        cmocka_unit_test_setup(a_flood_is_taken_in_turns, setup),
        cmocka_unit_test_setup(long_frames_come_in_several_buffers, setup),
        cmocka_unit_test_setup(frames_go_out_with_one_ring_of_the_bell, setup),
        cmocka_unit_test_setup(short_frames_are_padded_with_zeros, setup),
        cmocka_unit_test_setup(a_full_ring_says_no, setup),
        cmocka_unit_test_setup(interrupts_are_acknowledged_or_somebody_elses, setup),
        cmocka_unit_test_setup(a_tick_sees_the_link_without_an_interrupt, setup),
        cmocka_unit_test_setup(a_card_that_hangs_is_reset_and_goes_on, setup),
        cmocka_unit_test_setup(time_that_went_on_during_a_round_is_no_hang, setup),
        cmocka_unit_test_setup(a_reset_that_does_not_end_is_waited_for_and_then_given_up, setup),
        cmocka_unit_test_setup(frames_do_not_wait_for_a_link, setup),
        cmocka_unit_test_setup(a_tick_has_the_user_look, setup),
        cmocka_unit_test_setup(messages_of_msix_are_not_more_than_others, setup),
        cmocka_unit_test_setup(what_is_on_its_way_is_not_cut_off_by_a_reset, setup),
        cmocka_unit_test_setup(resets_in_vain_end, setup),
        cmocka_unit_test_setup(a_card_that_is_pulled_out_is_given_up, setup),
        cmocka_unit_test_setup(a_length_beyond_the_buffer_costs_the_card_a_reset, setup),
        cmocka_unit_test_setup(filters_are_what_is_asked_for, setup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
