/* SPDX-License-Identifier: MIT */
/*
 * The 16550A. Characters go to the sink the moment they are written, so the transmitter is empty whenever the guest
 * looks, and its interrupt is raised again at once: by writing a character, and by switching the interrupt on. It is
 * taken back by reading IIR while it is the interrupt reported there. A character written while the interrupt is
 * still raised makes the line fall and rise, since at an edge-triggered controller the interrupt would be lost else.
 *
 * As in a PC, OUT2 of the modem control register lets the interrupt through to the bus.
 */
#include "vdev/vuart.h"

#include <string.h>

#include "vdev/vtime.h"

#define IER_RECEIVE 0x01u
#define IER_TRANSMIT 0x02u
#define IER_LINE 0x04u
#define IER_MODEM 0x08u

#define IIR_NONE 0x01u
#define IIR_MODEM 0x00u
#define IIR_TRANSMIT 0x02u
#define IIR_RECEIVE 0x04u
#define IIR_LINE 0x06u
#define IIR_TIMEOUT 0x0cu
#define IIR_FIFOS 0xc0u

#define FCR_ENABLE 0x01u
#define FCR_CLEAR_RX 0x02u
#define FCR_KEPT 0xc9u

#define LCR_DIVISOR 0x80u
#define MCR_OUT2 0x08u
#define MCR_LOOP 0x10u
#define MCR_WRITABLE 0x1fu
#define LSR_READY 0x01u
#define LSR_OVERRUN 0x02u
#define LSR_EMPTY 0x60u /* holding register and transmitter */

#define MSR_RING 0x40u
#define MSR_CONNECTED 0xb0u /* CTS, DSR, DCD: somebody is at the other end */

#define BAUD_BASE 115200u
#define TIMEOUT_BITS 40u /* four characters of ten bits */
#define TIMEOUT_NS_MAX 5000000u

static unsigned trigger_level(const struct vuart *uart)
{
    static const uint8_t levels[4] = { 1, 4, 8, 14 };
    return uart->fcr & FCR_ENABLE ? levels[uart->fcr >> 6] : 1;
}

static unsigned capacity(const struct vuart *uart)
{
    return uart->fcr & FCR_ENABLE ? VUART_FIFO : 1;
}

/* The interrupt of highest priority, as IIR shows it. */
static unsigned interrupt(const struct vuart *uart)
{
    if (uart->ier & IER_LINE && uart->overrun)
        return IIR_LINE;
    if (uart->ier & IER_RECEIVE && uart->rx_count >= trigger_level(uart))
        return IIR_RECEIVE;
    if (uart->ier & IER_RECEIVE && uart->timeout_pending)
        return IIR_TIMEOUT;
    if (uart->ier & IER_TRANSMIT && uart->thre_pending)
        return IIR_TRANSMIT;
    if (uart->ier & IER_MODEM && uart->modem_delta)
        return IIR_MODEM;
    return IIR_NONE;
}

static void update(struct vuart *uart)
{
    vline_set(&uart->irq, uart->mcr & MCR_OUT2 && interrupt(uart) != IIR_NONE);
}

/* MSR bits 4..7. */
static unsigned modem_lines(const struct vuart *uart)
{
    unsigned mcr = uart->mcr;
    if (!(mcr & MCR_LOOP))
        return MSR_CONNECTED;
    /* DTR, RTS, OUT1, OUT2 come back as DSR, CTS, RI, DCD */
    return (mcr & 1) << 5 | (mcr & 2) << 3 | (mcr & 0xc) << 4;
}

/* ---- Receiving ---- */

static void timeout_fired(struct vtimer *timer, uint64_t now_ns)
{
    struct vuart *uart = CONTAINER_OF(timer, struct vuart, timeout);
    (void)now_ns;
    uart->timeout_pending = uart->rx_count != 0;
    update(uart);
}

/* The time without a character begins anew. */
static void restart_timeout(struct vuart *uart, uint64_t now_ns)
{
    uint32_t divisor = uart->divisor ? uart->divisor : 1;
    uint64_t wait = TIMEOUT_BITS * NS_PER_SECOND / BAUD_BASE * divisor;
    uart->timeout_pending = false;
    if (uart->fcr & FCR_ENABLE && uart->rx_count)
        vtimer_arm(&uart->timeout, now_ns + MIN(wait, TIMEOUT_NS_MAX));
    else
        vtimer_arm(&uart->timeout, VTIMER_OFF);
}

static void clear_receiver(struct vuart *uart)
{
    uart->rx_head = uart->rx_count = 0;
    uart->timeout_pending = false;
    vtimer_arm(&uart->timeout, VTIMER_OFF);
}

static void receive(struct vuart *uart, uint8_t byte)
{
    uart->rx[(uart->rx_head + uart->rx_count) % VUART_FIFO] = byte;
    uart->rx_count++;
}

size_t vuart_input(struct vuart *uart, const void *bytes, size_t count, uint64_t now_ns)
{
    size_t taken = 0;
    if (uart->mcr & MCR_LOOP)
        return 0;
    for (; taken < count && uart->rx_count < capacity(uart); taken++)
        receive(uart, ((const uint8_t *)bytes)[taken]);
    if (taken) {
        restart_timeout(uart, now_ns);
        update(uart);
    }
    return taken;
}

/* Input is welcome again: last thing of an access, as the answer may be a call of vuart_input. */
static void tell_room(struct vuart *uart, uint64_t now_ns)
{
    if (uart->room && !(uart->mcr & MCR_LOOP) && !uart->rx_count)
        uart->room(uart->room_context, now_ns);
}

static uint8_t read_character(struct vuart *uart, uint64_t now_ns)
{
    uint8_t byte = uart->rx[uart->rx_head];
    if (!uart->rx_count)
        return 0;
    uart->rx_head = (uint8_t)((uart->rx_head + 1) % VUART_FIFO);
    uart->rx_count--;
    restart_timeout(uart, now_ns);
    update(uart);
    tell_room(uart, now_ns);
    return byte;
}

/* ---- Sending ---- */

static void write_character(struct vuart *uart, uint8_t byte, uint64_t now_ns)
{
    if (uart->thre_pending) {
        uart->thre_pending = false;
        update(uart);
    }
    if (!(uart->mcr & MCR_LOOP)) {
        if (uart->sink.write)
            uart->sink.write(uart->sink.context, &byte, 1);
    } else if (uart->rx_count < capacity(uart)) {
        receive(uart, byte);
        restart_timeout(uart, now_ns);
    } else {
        uart->overrun = LSR_OVERRUN;
        if (!(uart->fcr & FCR_ENABLE)) /* without FIFOs the new one replaces the old one */
            uart->rx[uart->rx_head] = byte;
    }
    uart->thre_pending = true;
    update(uart);
}

/* ---- Registers ---- */

static void write_fcr(struct vuart *uart, uint8_t value, uint64_t now_ns)
{
    if ((value ^ uart->fcr) & FCR_ENABLE || value & FCR_CLEAR_RX)
        clear_receiver(uart);
    uart->fcr = value & FCR_ENABLE ? value & FCR_KEPT : 0;
    update(uart);
    tell_room(uart, now_ns);
}

static void write_mcr(struct vuart *uart, uint8_t value, uint64_t now_ns)
{
    unsigned before = modem_lines(uart);
    uart->mcr = value & MCR_WRITABLE;
    unsigned after = modem_lines(uart);
    uart->modem_delta |= (uint8_t)((before ^ after) >> 4 & 0xb); /* CTS, DSR, DCD: any change */
    uart->modem_delta |= (uint8_t)((before & ~after & MSR_RING) >> 4); /* RI: its end */
    update(uart);
    tell_room(uart, now_ns);
}

static void write_byte(struct vuart *uart, uint64_t offset, uint8_t value, uint64_t now_ns)
{
    bool divisor = uart->lcr & LCR_DIVISOR;
    switch (offset) {
    case 0:
        if (divisor)
            uart->divisor = (uint16_t)((uart->divisor & 0xff00) | value);
        else
            write_character(uart, value, now_ns);
        break;
    case 1:
        if (divisor) {
            uart->divisor = (uint16_t)((uart->divisor & 0xff) | value << 8);
            break;
        }
        if (value & ~uart->ier & IER_TRANSMIT)
            uart->thre_pending = true;
        uart->ier = value & 0x0f;
        update(uart);
        break;
    case 2: write_fcr(uart, value, now_ns); break;
    case 3: uart->lcr = value; break;
    case 4: write_mcr(uart, value, now_ns); break;
    case 7: uart->scratch = value; break;
    default: break; /* LSR and MSR are read-only */
    }
}

static uint8_t read_byte(struct vuart *uart, uint64_t offset, uint64_t now_ns)
{
    bool divisor = uart->lcr & LCR_DIVISOR;
    unsigned value;
    switch (offset) {
    case 0: return divisor ? (uint8_t)uart->divisor : read_character(uart, now_ns);
    case 1: return divisor ? (uint8_t)(uart->divisor >> 8) : uart->ier;
    case 2:
        value = interrupt(uart);
        if (value == IIR_TRANSMIT) {
            uart->thre_pending = false;
            update(uart);
        }
        return (uint8_t)(value | (uart->fcr & FCR_ENABLE ? IIR_FIFOS : 0));
    case 3: return uart->lcr;
    case 4: return uart->mcr;
    case 5:
        value = LSR_EMPTY | uart->overrun | (uart->rx_count ? LSR_READY : 0);
        uart->overrun = 0;
        update(uart);
        return (uint8_t)value;
    case 6:
        value = modem_lines(uart) | uart->modem_delta;
        uart->modem_delta = 0;
        update(uart);
        return (uint8_t)value;
    default: return uart->scratch;
    }
}

static uint64_t port_read(void *device, uint64_t offset, unsigned size, uint64_t now_ns)
{
    uint64_t value = 0;
    for (unsigned i = 0; i < size; i++)
        value |= (uint64_t)read_byte(device, offset + i, now_ns) << 8 * i;
    return value;
}

static void port_write(void *device, uint64_t offset, unsigned size, uint64_t value, uint64_t now_ns)
{
    for (unsigned i = 0; i < size; i++)
        write_byte(device, offset + i, (uint8_t)(value >> 8 * i), now_ns);
}

const struct vdev_ops vuart_ops = { .read = port_read, .write = port_write };

void vuart_init(struct vuart *uart, struct vtimer_queue *queue, struct vline irq, struct char_sink sink,
                void (*room)(void *context, uint64_t now_ns), void *room_context)
{
    memset(uart, 0, sizeof(*uart));
    uart->irq = irq;
    uart->sink = sink;
    uart->room = room;
    uart->room_context = room_context;
    vtimer_init(&uart->timeout, queue, timeout_fired);
    uart->divisor = 1;
}

void vuart_reset(struct vuart *uart)
{
    clear_receiver(uart);
    uart->ier = uart->fcr = uart->lcr = uart->mcr = 0;
    uart->overrun = uart->modem_delta = 0;
    uart->thre_pending = false;
    update(uart);
}

/* ---- Save and restore ---- */

void vuart_save(const struct vuart *uart, struct stream_writer *w, uint64_t now_ns)
{
    uint64_t due = uart->timeout.deadline_ns;
    stream_put_u8(w, uart->ier);
    stream_put_u8(w, uart->fcr);
    stream_put_u8(w, uart->lcr);
    stream_put_u8(w, uart->mcr);
    stream_put_u8(w, uart->scratch);
    stream_put_u8(w, uart->overrun);
    stream_put_u8(w, uart->modem_delta);
    stream_put_u16(w, uart->divisor);
    stream_put_u8(w, uart->thre_pending);
    stream_put_u8(w, uart->timeout_pending);
    stream_put_u8(w, due != VTIMER_OFF);
    stream_put_u64(w, due != VTIMER_OFF && due > now_ns ? due - now_ns : 0);
    stream_put_u8(w, uart->rx_count);
    for (unsigned i = 0; i < VUART_FIFO; i++)
        stream_put_u8(w, i < uart->rx_count ? uart->rx[(uart->rx_head + i) % VUART_FIFO] : 0);
}

void vuart_restore(struct vuart *uart, struct stream_reader *r, uint64_t now_ns)
{
    struct vuart new = *uart;
    new.ier = stream_get_u8(r);
    new.fcr = stream_get_u8(r);
    new.lcr = stream_get_u8(r);
    new.mcr = stream_get_u8(r);
    new.scratch = stream_get_u8(r);
    new.overrun = stream_get_u8(r);
    new.modem_delta = stream_get_u8(r);
    new.divisor = stream_get_u16(r);
    new.thre_pending = stream_get_u8(r) != 0;
    new.timeout_pending = stream_get_u8(r) != 0;
    bool armed = stream_get_u8(r) != 0;
    uint64_t left = stream_get_u64(r);
    new.rx_head = 0;
    new.rx_count = stream_get_u8(r);
    stream_get_bytes(r, new.rx, sizeof(new.rx));
    if (r->error != OK)
        return;
    if (new.ier & 0xf0 || new.fcr & ~FCR_KEPT || (new.fcr && !(new.fcr & FCR_ENABLE)) || new.mcr & ~MCR_WRITABLE
        || new.overrun & ~LSR_OVERRUN || new.modem_delta & 0xf0 || new.rx_count > capacity(&new)
        || left > TIMEOUT_NS_MAX) {
        stream_fail(r, ERR_CORRUPT, "serial port: value out of range");
        return;
    }
    vtimer_arm(&uart->timeout, VTIMER_OFF);
    new.timeout = uart->timeout;
    *uart = new;
    if (armed)
        vtimer_arm(&uart->timeout, now_ns + left);
}
