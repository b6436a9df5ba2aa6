/* SPDX-License-Identifier: MIT */
/*
 * A 16550. Output is polled: it waits for room in the transmitter, with a bound, so that a port without a listener (flow
 * control wired off, a card that died) costs time but never hangs the node. Input comes by interrupt where the port's line can
 * be routed, into a ring; the FIFO of 16 bytes fills in 1.4 ms.
 */
#include "drivers/uart.h"

#include "kernel/ioapic.h"
#include "kernel/spinlock.h"
#include "kernel/x86.h"

#define REG_DATA 0
#define REG_IER 1
#define REG_FCR 2
#define REG_LCR 3
#define REG_MCR 4
#define REG_LSR 5
#define REG_SCRATCH 7
#define LSR_READY BIT(0)
#define LSR_THR_EMPTY BIT(5)
#define LSR_ALL_SENT BIT(6)
#define FIFO_BYTES 16u
#define SPIN_LIMIT 2000000u /* some seconds: an emulator that is kept from its CPU is slow, not gone */
#define RING_BYTES 1024u

static uint16_t base;
static bool stuck;
static uint8_t ring[RING_BYTES];
static unsigned received, taken; /* counts; under the lock */
static void (*listener)(void);
static struct spinlock uart_lock = SPINLOCK_INIT("serial");

bool uart_init(uint16_t port)
{
    if (!port) {
        base = 0;
        return true;
    }
    out8((uint16_t)(port + REG_SCRATCH), 0x5a);
    if (in8((uint16_t)(port + REG_SCRATCH)) != 0x5a)
        return false;
    out8((uint16_t)(port + REG_IER), 0);
    out8((uint16_t)(port + REG_LCR), 0x80);
    out8((uint16_t)(port + REG_DATA), 1); /* 115200 */
    out8((uint16_t)(port + REG_IER), 0);
    out8((uint16_t)(port + REG_LCR), 0x03);
    out8((uint16_t)(port + REG_FCR), 0x07);
    out8((uint16_t)(port + REG_MCR), 0x0b); /* DTR, RTS, OUT2: the interrupt's gate */
    base = port;
    return true;
}

/* Into the software ring; what does not fit is lost, as it would be in the FIFO. */
static void drain_receiver(void)
{
    while (in8((uint16_t)(base + REG_LSR)) & LSR_READY) {
        uint8_t byte = in8((uint16_t)(base + REG_DATA));
        if (received - taken < RING_BYTES)
            ring[received++ % RING_BYTES] = byte;
    }
}

/* A transmitter that did not empty within SPIN_LIMIT is taken for dead until it is seen empty again. */
static bool wait_for_room(void)
{
    for (unsigned spin = 0; spin < (stuck ? 1 : SPIN_LIMIT); spin++) {
        if (in8((uint16_t)(base + REG_LSR)) & LSR_THR_EMPTY) {
            stuck = false;
            return true;
        }
        cpu_pause();
    }
    stuck = true;
    return false;
}

/* As much as an empty FIFO takes; returns how much that is. */
static size_t fill(const uint8_t *bytes, size_t count)
{
    size_t n = 0;

    for (; n < MIN(count, FIFO_BYTES); n++)
        out8((uint16_t)(base + REG_DATA), bytes[n]);
    return n;
}

size_t uart_write_unlocked(const void *bytes, size_t count)
{
    size_t written = 0;

    if (!base)
        return count;
    while (written < count && wait_for_room()) {
        drain_receiver(); /* its FIFO overflows while a long text goes out */
        written += fill((const uint8_t *)bytes + written, count - written);
    }
    return written;
}

size_t uart_write(const void *bytes, size_t count)
{
    uint64_t flags = spin_lock_irqsave(&uart_lock);
    size_t written = uart_write_unlocked(bytes, count);
    spin_unlock_irqrestore(&uart_lock, flags);
    return written;
}

size_t uart_write_some(const void *bytes, size_t count)
{
    size_t written = 0;

    if (!base)
        return count;
    uint64_t flags = spin_lock_irqsave(&uart_lock);
    drain_receiver();
    if (in8((uint16_t)(base + REG_LSR)) & LSR_THR_EMPTY)
        written = fill(bytes, count);
    spin_unlock_irqrestore(&uart_lock, flags);
    return written;
}

size_t uart_read(void *bytes, size_t count)
{
    uint8_t *byte = bytes;
    size_t n = 0;

    if (!base)
        return 0;
    uint64_t flags = spin_lock_irqsave(&uart_lock);
    drain_receiver();
    while (n < count && taken != received)
        byte[n++] = ring[taken++ % RING_BYTES];
    spin_unlock_irqrestore(&uart_lock, flags);
    return n;
}

void uart_drain(void)
{
    for (unsigned spin = 0; base && spin < SPIN_LIMIT && !(in8((uint16_t)(base + REG_LSR)) & LSR_ALL_SENT); spin++)
        cpu_pause();
}

bool uart_pending(void)
{
    return base && (__atomic_load_n(&received, __ATOMIC_ACQUIRE) != taken || (in8((uint16_t)(base + REG_LSR)) & LSR_READY));
}

/* The line is an edge: the FIFO is emptied, so that the next byte makes another one. */
static void interrupt(void *arg)
{
    uint64_t flags = spin_lock_irqsave(&uart_lock);
    drain_receiver();
    spin_unlock_irqrestore(&uart_lock, flags);
    (void)arg;
    if (listener)
        listener();
}

bool uart_listen(void (*arrived)(void))
{
    /* COM1 and COM3 share ISA interrupt 4, COM2 and COM4 share 3. */
    unsigned irq = base == 0x3f8 || base == 0x3e8 ? 4 : 3;

    if (!base)
        return false;
    listener = arrived;
    if (!ioapic_route_isa(irq, interrupt, NULL))
        return false;
    out8((uint16_t)(base + REG_IER), 1);
    interrupt(NULL); /* what came before the interrupt was on */
    return true;
}
