/* SPDX-License-Identifier: MIT */
/*
 * What the tests of the network cards' drivers share: the kernel that a driver calls, with memory whose return is checked,
 * the device's place on the bus, and a user that writes down what it is told. Each test program includes it once, and
 * plays the card's registers itself.
 */
#ifndef TESTS_NIC_FIXTURE_H
#define TESTS_NIC_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "drivers/nic.h"
#include "fake_kernel.h"
#include "kernel/log.h"
#include "kernel/page.h"
#include "kernel/thread.h"
#include "kernel/time.h"

static uint64_t now;
static void (*time_passes)(void); /* the card goes on for a moment */
static bool master;               /* the card may reach memory */
static struct pci_function function;
static bool (*handler)(void *arg);
static void *handler_arg;
static hpa_t pages[300];          /* in the order in which they were taken */
static unsigned page_count, pages_out, pages_left;
static unsigned links, wakes, frames, back_count;
static void *back[1024];          /* cookies of frames that came back */
static struct nic_received last;
static uint8_t last_bytes[16384];

/* ---- What a driver calls ---- */

void time_spin_ns(uint64_t ns)
{
    now += ns;
    if (time_passes)
        time_passes();
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
    if (!pages_left)
        return false;
    pages_left--;
    out->v = (uint64_t)aligned_alloc(PAGE_BYTES, PAGE_BYTES);
    memset((void *)out->v, 0, PAGE_BYTES);
    assert_true(page_count < ARRAY_COUNT(pages));
    pages[page_count++] = *out;
    pages_out++;
    return true;
}
void page_free(hpa_t hpa, uint64_t bytes, page_owner_t owner)
{
    assert_true(bytes == PAGE_BYTES && owner == PAGE_OWNER_HV);
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
void pci_release(struct pci_function *f)
{
    f->driver = NULL;
    master = false;
}

/* ---- The driver's user ---- */

static void user_receive(struct nic *nic, const struct nic_received *frame)
{
    unsigned at = 0;
    (void)nic;

    last = *frame;
    frames++;
    for (unsigned i = 0; i < frame->piece_count; at += frame->piece[i++].bytes)
        memcpy(last_bytes + at, frame->piece[i].data, frame->piece[i].bytes);
    assert_int_equal(at, frame->bytes);
}
static void user_sent(struct nic *nic, void *cookie)
{
    (void)nic;
    assert_true(back_count < ARRAY_COUNT(back));
    back[back_count++] = cookie;
}
static void user_link(struct nic *nic)
{
    (void)nic;
    links++;
}
static void user_wake(struct nic *nic)
{
    (void)nic;
    wakes++;
}
static const struct nic_user user = { user_receive, user_sent, user_link, user_wake };

static void nic_fixture_setup(uint16_t vendor, uint16_t device)
{
    function = (struct pci_function){ .vendor = vendor, .device = device };
    time_passes = NULL;
    master = false;
    now = NS_PER_S;
    page_count = pages_out = links = wakes = frames = back_count = 0;
    pages_left = ARRAY_COUNT(pages);
    memset(fake_log_counts, 0, sizeof fake_log_counts);
}

static void close_card(struct nic *nic)
{
    nic->ops->close(nic);
    assert_int_equal(pages_out, 0);
    assert_int_equal(fake_heap_count, 0);
    assert_false(master);
    assert_null(function.driver);
}

/* An open that said no has left nothing behind and said why, once. */
static void assert_refused(const struct nic *nic)
{
    assert_null(nic);
    assert_int_equal(pages_out, 0);
    assert_int_equal(fake_heap_count, 0);
    assert_false(master);
    assert_int_equal(fake_log_counts[LOG_ERROR], 1);
}

/* A frame of two pieces; the checksum at 50 is to be made over all from 34 on. */
static bool send_frame(struct nic *nic, void *cookie)
{
    struct nic_send frame = { .piece_count = 2, .piece = { { HPA(0x1000), 14 }, { HPA(0x2000), 100 } }, .cookie = cookie,
                              .checksum_start = 34, .checksum_at = 50 };

    return nic->ops->send(nic, &frame);
}

#endif
