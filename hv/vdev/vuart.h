/* SPDX-License-Identifier: MIT */
/*
 * A 16550A serial port (National Semiconductor PC16550D datasheet). Device lock held.
 *
 * Output goes to a struct char_sink at once and never blocks; the transmitter is always empty again. Input is taken as
 * far as the guest's FIFO has room; who feeds it keeps the rest and is told when there is room again.
 */
#ifndef VDEV_VUART_H
#define VDEV_VUART_H

#include "vdev/vdev.h"

#define VUART_FIFO 16
#define VUART_COM1 0x3f8u
#define VUART_PORTS 8u

struct vuart {
    struct vline irq;
    struct char_sink sink;
    void (*room)(void *context, uint64_t now_ns); /* vuart_input would take bytes again; may be NULL, may call it */
    void *room_context;
    struct vtimer timeout;         /* characters waiting below the trigger level */
    uint8_t ier, fcr, lcr, mcr, scratch;
    uint8_t overrun;               /* LSR bit 1 */
    uint8_t modem_delta;           /* MSR bits 0..3 */
    uint16_t divisor;
    uint8_t rx[VUART_FIFO];
    uint8_t rx_head, rx_count;
    bool thre_pending;             /* the transmitter-empty interrupt has not been looked at yet */
    bool timeout_pending;
};

void vuart_init(struct vuart *uart, struct vtimer_queue *queue, struct vline irq, struct char_sink sink,
                void (*room)(void *context, uint64_t now_ns), void *room_context);
void vuart_reset(struct vuart *uart);
/* Characters from the line. Returns how many were taken, 0..count; the others may be offered again at any time. */
size_t vuart_input(struct vuart *uart, const void *bytes, size_t count, uint64_t now_ns);
/* Eight ports, the base chosen by who puts them on the bus. */
extern const struct vdev_ops vuart_ops;

void vuart_save(const struct vuart *uart, struct stream_writer *w, uint64_t now_ns);
void vuart_restore(struct vuart *uart, struct stream_reader *r, uint64_t now_ns);

#endif
