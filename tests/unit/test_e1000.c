/* SPDX-License-Identifier: MIT */
/*
 * The driver of the Intel gigabit cards, against a card that the test plays: registers in memory, a reset that ends while
 * the driver waits, rings that it walks itself. Guarded: a card that dies, hangs or lies costs itself and nothing else; its
 * memory is given back only after it cannot reach memory any more; every frame that was taken comes back; no interrupt is
 * unmasked while there is work, nor left masked when there is none.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "drivers/e1000_ring.h"
#include "drivers/nic.h"
#include "fake_kernel.h"
#include "kernel/log.h"
#include "kernel/page.h"
#include "kernel/thread.h"
#include "kernel/time.h"

#define RING 256
#define BUDGET 64

/* Registers as the manual numbers them. */
enum { CTRL = 0, STATUS = 8, EERD = 0x14, ICR = 0xc0, IMS = 0xd0, IMC = 0xd8, RCTL = 0x100, TCTL = 0x400, RDBAL = 0x2800,
       RDBAH = 0x2804, RDLEN = 0x2808, RDH = 0x2810, RDT = 0x2818, TDBAL = 0x3800, TDBAH = 0x3804, TDLEN = 0x3808, TDT = 0x3818,
       MTA = 0x5200, RAL = 0x5400, RAH = 0x5404 };
#define CTRL_RST (1u << 26)
#define LINK_1000 0x83u /* up, full duplex, 1000 Mbit/s */

static uint32_t reg[0x10000 / 4];
static uint16_t eeprom[3];
static bool loads_mac, new_eeprom, resets_end, master;
static unsigned pages_out, receive_at, send_at;
static uint64_t now;
static struct pci_function function;
static bool (*handler)(void *arg);
static void *handler_arg;
static unsigned released, links, wakes;
static void *back[4 * RING];
static unsigned back_count;
static struct nic_received last;
static uint8_t last_bytes[16384];
static unsigned frames;

static uint32_t *r(unsigned offset)
{
    return &reg[offset / 4];
}

/* ---- What the driver calls ---- */

/* The card goes on for a moment. */
static void step(void)
{
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

void time_spin_ns(uint64_t ns)
{
    now += ns;
    step();
}
void thread_sleep_ns(uint64_t ns)
{
    time_spin_ns(ns);
}
uint64_t time_now_ns(void)
{
    return now;
}
bool thread_should_yield(void)
{
    return false;
}
void thread_yield(void)
{
}
bool page_alloc(uint64_t bytes, page_owner_t owner, unsigned flags, hpa_t *out)
{
    assert_true(bytes == PAGE_BYTES && owner == PAGE_OWNER_HV && (flags & PAGE_ZERO));
    out->v = (uint64_t)aligned_alloc(PAGE_BYTES, PAGE_BYTES);
    memset((void *)out->v, 0, PAGE_BYTES);
    pages_out++;
    return true;
}
void page_free(hpa_t hpa, uint64_t bytes, page_owner_t owner)
{
    (void)bytes;
    (void)owner;
    assert_false(master); /* the card could still write there */
    free((void *)hpa.v);
    pages_out--;
}
void *phys_to_virt(hpa_t hpa)
{
    return (void *)hpa.v;
}
void pci_name(const struct pci_function *f, char name[PCI_NAME_BYTES])
{
    (void)f;
    strcpy(name, "00:02.0");
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
void pci_release(struct pci_function *f)
{
    f->driver = NULL;
    master = false;
    released++;
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

/* ---- The driver's user ---- */

static void receive(struct nic *nic, const struct nic_received *frame)
{
    unsigned at = 0;
    (void)nic;

    last = *frame;
    frames++;
    for (unsigned i = 0; i < frame->piece_count; at += frame->piece[i++].bytes)
        memcpy(last_bytes + at, frame->piece[i].data, frame->piece[i].bytes);
    assert_int_equal(at, frame->bytes);
}
static void sent(struct nic *nic, void *cookie)
{
    (void)nic;
    back[back_count++] = cookie;
}
static void link_changed(struct nic *nic)
{
    (void)nic;
    links++;
}
static void wake(struct nic *nic)
{
    (void)nic;
    wakes++;
}
static const struct nic_user user = { receive, sent, link_changed, wake };

static int setup(void **state)
{
    (void)state;
    memset(reg, 0, sizeof reg);
    *r(STATUS) = LINK_1000;
    function = (struct pci_function){ .vendor = 0x8086, .device = 0x100e };
    loads_mac = resets_end = true;
    new_eeprom = master = false;
    pages_out = receive_at = send_at = released = links = wakes = back_count = frames = 0;
    now = 1000000;
    memset(fake_log_counts, 0, sizeof fake_log_counts);
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

static void close_card(struct nic *nic)
{
    nic->ops->close(nic);
    assert_int_equal(pages_out, 0);
    assert_false(master);
    assert_null(function.driver);
    assert_int_equal(fake_heap_count, 0);
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

static bool send_frame(struct nic *nic, void *cookie)
{
    struct nic_send frame = { .piece_count = 2, .piece = { { HPA(0x1000), 14 }, { HPA(0x2000), 100 } }, .cookie = cookie };

    return nic->ops->send(nic, &frame);
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
    for (unsigned i = 0; i < 5; i++) {
        setup(NULL);
        switch (i) {
        case 0: memset(reg, 0xff, sizeof reg); break;          /* nobody there */
        case 1: resets_end = false; break;
        case 2: loads_mac = false; memset(eeprom, 0, 6); break;
        case 3: loads_mac = false; memset(eeprom, 0xff, 6); break; /* a multicast address */
        case 4: function.device = 0x1234; break;
        }
        size_t heap = fake_heap_count;
        assert_null(e1000_open(&function, 1500, &user));
        assert_int_equal(fake_heap_count, heap);
        assert_int_equal(pages_out, 0);
        assert_false(master);
        assert_null(function.driver);
        assert_int_equal(fake_log_counts[LOG_ERROR], 1);
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
    *r(STATUS) = 0; /* the link is down; only its interrupt has it looked at */
    assert_false(nic->ops->poll(nic, BUDGET));
    assert_true(nic->link_up);
    *r(ICR) = 4;
    assert_true(handler(handler_arg));
    assert_false(nic->ops->poll(nic, BUDGET));
    assert_false(nic->link_up);
    assert_int_equal(links, 2);
    assert_false(send_frame(nic, NULL));
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
    nic->ops->tick(nic, now);
    assert_true(nic->failed);
    assert_false(nic->link_up);
    assert_false(master);
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
        cmocka_unit_test_setup(a_full_ring_says_no, setup),
        cmocka_unit_test_setup(interrupts_are_acknowledged_or_somebody_elses, setup),
        cmocka_unit_test_setup(a_tick_sees_the_link_without_an_interrupt, setup),
        cmocka_unit_test_setup(a_card_that_hangs_is_reset_and_goes_on, setup),
        cmocka_unit_test_setup(time_that_went_on_during_a_round_is_no_hang, setup),
        cmocka_unit_test_setup(resets_in_vain_end, setup),
        cmocka_unit_test_setup(a_card_that_is_pulled_out_is_given_up, setup),
        cmocka_unit_test_setup(a_length_beyond_the_buffer_costs_the_card_a_reset, setup),
        cmocka_unit_test_setup(filters_are_what_is_asked_for, setup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
