/* SPDX-License-Identifier: MIT */
/*
 * The 8254. A channel's count and output are functions of the ticks since its load (`elapsed`), and only channel 0 has
 * a timer, for its rising edges. An edge is shown to the line as low, then high: ISA interrupt 0 is edge-triggered at
 * both controllers, and the length of the low time means nothing to them.
 *
 * The one liberty taken: a count is loaded when it is written, not at the next tick.
 */
#include "vdev/vpit.h"

#include <string.h>

#include "vdev/vtime.h"

#define STATUS_OUT 0x80u
#define STATUS_NULL 0x40u

#define PORT61_WRITABLE 0x0fu
#define PORT61_GATE2 0x01u
#define PORT61_REFRESH 0x10u
#define PORT61_OUT2 0x20u
#define REFRESH_TICKS 18u /* 15 microseconds: DRAM refresh, which some delay loops count */

#define AGE_MAX BIT(62)

static uint64_t tick_now(const struct vpit *pit, uint64_t now_ns)
{
    return vtime_ticks(now_ns - pit->origin_ns, VPIT_HZ);
}

static bool periodic(const struct vpit_channel *c)
{
    return c->mode == 2 || c->mode == 3;
}

/* Modes whose counting starts with the gate's rising edge. */
static bool triggered(const struct vpit_channel *c)
{
    return c->mode == 1 || c->mode == 5;
}

static uint64_t elapsed(const struct vpit_channel *c, uint64_t tick)
{
    return c->gate || triggered(c) ? tick - c->start_tick : c->paused_ticks;
}

/* Brings a periodic channel to its current period, which is where a new count comes in. */
static void settle(struct vpit_channel *c, uint64_t tick)
{
    if (!periodic(c) || !c->counting || !c->gate)
        return;
    uint64_t ticks = tick - c->start_tick;
    if (ticks < c->count)
        return;
    if (c->next_count) {
        c->start_tick += c->count;
        ticks -= c->count;
        c->count = c->next_count;
        c->next_count = 0;
    }
    c->start_tick += ticks / c->count * c->count;
}

static bool output(const struct vpit_channel *c, uint64_t tick)
{
    uint64_t ticks = elapsed(c, tick);
    if (!c->counting)
        return c->mode != 0;
    switch (c->mode) {
    case 0: return ticks >= c->count;
    case 1: return ticks >= c->count;
    case 2: return !c->gate || ticks % c->count != c->count - 1;
    case 3: return !c->gate || ticks % c->count < (c->count + 1) / 2;
    default: return ticks != c->count; /* 4, 5: one tick low */
    }
}

/* The counter as the guest reads it. */
static uint16_t count_value(const struct vpit_channel *c, uint64_t tick)
{
    uint64_t ticks = elapsed(c, tick);
    uint32_t wrap = c->bcd ? 10000 : 65536, value, phase;
    if (!c->counting) {
        value = c->count ? c->count : c->next_count;
    } else if (c->mode == 2) {
        value = c->count - (uint32_t)(ticks % c->count);
    } else if (c->mode == 3) { /* counts by two, twice a period */
        phase = (uint32_t)(ticks % c->count);
        uint32_t half = (c->count + 1) / 2;
        value = (c->count & ~1u) - 2 * (phase < half ? phase : phase - half);
    } else { /* goes on below zero */
        value = (c->count + wrap - (uint32_t)(ticks % wrap)) % wrap;
    }
    value %= wrap;
    if (c->bcd)
        value = value / 1000 << 12 | value / 100 % 10 << 8 | value / 10 % 10 << 4 | value % 10;
    return (uint16_t)value;
}

/* ---- Channel 0's interrupt ---- */

static void arm_irq(struct vpit *pit, uint64_t earliest_ns)
{
    struct vpit_channel *c = &pit->channel[0];
    uint64_t edge = c->start_tick + c->count + (c->mode == 4); /* mode 4 rises after its one low tick */
    if (!c->counting || triggered(c)) {
        vtimer_arm(&pit->timer, VTIMER_OFF);
        return;
    }
    if (periodic(c)) {
        uint64_t floor_tick = tick_now(pit, earliest_ns);
        if (edge <= floor_tick)
            edge += (floor_tick - edge + c->count) / c->count * c->count;
    }
    vtimer_arm(&pit->timer, MIN(pit->origin_ns + vtime_ns(edge, VPIT_HZ), VTIMER_OFF - 1));
}

static void fire(struct vtimer *timer, uint64_t now_ns)
{
    struct vpit *pit = CONTAINER_OF(timer, struct vpit, timer);
    struct vpit_channel *c = &pit->channel[0];
    settle(c, tick_now(pit, now_ns));
    if (periodic(c))
        arm_irq(pit, now_ns + VPIT_MIN_PERIOD_NS);
    vline_set(&pit->irq, false);
    vline_set(&pit->irq, true);
}

/* ---- Programming ---- */

static void write_mode(struct vpit *pit, unsigned index, uint8_t control)
{
    struct vpit_channel *c = &pit->channel[index];
    bool gate = c->gate;
    uint8_t mode = control >> 1 & 7;
    *c = (struct vpit_channel){ .mode = mode > 5 ? mode - 4 : mode, .access = control >> 4 & 3, .bcd = control & 1,
                                .gate = gate };
    if (index)
        return;
    vtimer_arm(&pit->timer, VTIMER_OFF);
    vline_set(&pit->irq, c->mode != 0);
}

static void start(struct vpit *pit, unsigned index, uint64_t now_ns)
{
    struct vpit_channel *c = &pit->channel[index];
    if (c->next_count)
        c->count = c->next_count;
    c->next_count = 0;
    c->counting = true;
    c->start_tick = tick_now(pit, now_ns);
    c->paused_ticks = 0;
    if (index == 0) {
        if (c->mode == 0)
            vline_set(&pit->irq, false);
        arm_irq(pit, now_ns);
    }
}

static void load(struct vpit *pit, unsigned index, uint16_t value, uint64_t now_ns)
{
    struct vpit_channel *c = &pit->channel[index];
    uint32_t count = value;
    if (c->bcd)
        count = (value >> 12 & 15) * 1000u + (value >> 8 & 15) * 100u + (value >> 4 & 15) * 10u + (value & 15u);
    if (!count)
        count = c->bcd ? 10000 : 65536;
    settle(c, tick_now(pit, now_ns)); /* the new count is for the period after the one that runs now */
    c->loaded = true;
    c->next_count = count;
    if (!triggered(c) && !(periodic(c) && c->counting))
        start(pit, index, now_ns);
}

static void write_count(struct vpit *pit, unsigned index, uint8_t value, uint64_t now_ns)
{
    struct vpit_channel *c = &pit->channel[index];
    if (c->access == 1) {
        load(pit, index, value, now_ns);
    } else if (c->access == 2) {
        load(pit, index, (uint16_t)(value << 8), now_ns);
    } else if (!c->write_high) {
        c->write_low = value;
        c->write_high = true;
    } else {
        c->write_high = false;
        load(pit, index, (uint16_t)(value << 8 | c->write_low), now_ns);
    }
}

static void latch_count(struct vpit_channel *c, uint64_t tick)
{
    if (c->latched)
        return; /* the first latch stays until it has been read */
    c->latch = count_value(c, tick);
    c->latched = c->access == 3 ? 2 : 1;
}

static void latch_status(struct vpit_channel *c, uint64_t tick)
{
    if (c->status_latched)
        return;
    bool null = !c->loaded || c->next_count;
    c->status = (uint8_t)((output(c, tick) ? STATUS_OUT : 0) | (null ? STATUS_NULL : 0) | (unsigned)c->access << 4
                          | (unsigned)c->mode << 1 | (unsigned)c->bcd);
    c->status_latched = true;
}

static void write_control(struct vpit *pit, uint8_t value, uint64_t now_ns)
{
    unsigned index = value >> 6;
    uint64_t tick = tick_now(pit, now_ns);
    for (unsigned i = 0; i < 3; i++)
        settle(&pit->channel[i], tick);
    if (index == 3) { /* read back; the commands are low-active */
        for (unsigned i = 0; i < 3; i++) {
            if (!(value & 2u << i))
                continue;
            if (!(value & 0x20))
                latch_count(&pit->channel[i], tick);
            if (!(value & 0x10))
                latch_status(&pit->channel[i], tick);
        }
    } else if (!(value & 0x30)) {
        latch_count(&pit->channel[index], tick);
    } else {
        write_mode(pit, index, value);
    }
}

static uint8_t read_count(struct vpit *pit, unsigned index, uint64_t now_ns)
{
    struct vpit_channel *c = &pit->channel[index];
    uint64_t tick = tick_now(pit, now_ns);
    settle(c, tick);
    if (c->status_latched) {
        c->status_latched = false;
        return c->status;
    }
    uint16_t value = c->latched ? c->latch : count_value(c, tick);
    bool high = c->access == 2;
    if (c->access == 3) {
        high = c->read_high;
        c->read_high = !c->read_high;
    }
    if (c->latched)
        c->latched--;
    return (uint8_t)(high ? value >> 8 : value);
}

static void set_gate(struct vpit *pit, unsigned index, bool gate, uint64_t now_ns)
{
    struct vpit_channel *c = &pit->channel[index];
    uint64_t tick = tick_now(pit, now_ns);
    if (gate == c->gate)
        return;
    settle(c, tick);
    if (!gate && !triggered(c) && c->counting)
        c->paused_ticks = elapsed(c, tick);
    c->gate = gate;
    if (!gate)
        return;
    if (triggered(c) || periodic(c)) { /* the rising edge loads the count */
        if (c->loaded)
            start(pit, index, now_ns);
    } else {
        c->start_tick = tick - c->paused_ticks;
    }
}

void vpit_init(struct vpit *pit, struct vtimer_queue *queue, struct vline irq, uint64_t now_ns)
{
    memset(pit, 0, sizeof(*pit));
    pit->irq = irq;
    vtimer_init(&pit->timer, queue, fire);
    vpit_reset(pit, now_ns);
}

void vpit_reset(struct vpit *pit, uint64_t now_ns)
{
    pit->origin_ns = now_ns;
    pit->port61 = 0;
    for (unsigned i = 0; i < 3; i++)
        pit->channel[i] = (struct vpit_channel){ .access = 3, .gate = i != 2 };
    vtimer_arm(&pit->timer, VTIMER_OFF);
    vline_set(&pit->irq, false);
}

/* ---- Ports ---- */

static uint64_t pit_read(void *device, uint64_t offset, unsigned size, uint64_t now_ns)
{
    struct vpit *pit = device;
    uint64_t value = 0;
    for (unsigned i = 0; i < size; i++) {
        uint8_t byte = offset + i < 3 ? read_count(pit, (unsigned)offset + i, now_ns) : 0xff;
        value |= (uint64_t)byte << 8 * i;
    }
    return value;
}

static void pit_write(void *device, uint64_t offset, unsigned size, uint64_t value, uint64_t now_ns)
{
    struct vpit *pit = device;
    for (unsigned i = 0; i < size; i++) {
        uint8_t byte = (uint8_t)(value >> 8 * i);
        if (offset + i < 3)
            write_count(pit, (unsigned)offset + i, byte, now_ns);
        else
            write_control(pit, byte, now_ns);
    }
}

static uint64_t port61_read(void *device, uint64_t offset, unsigned size, uint64_t now_ns)
{
    struct vpit *pit = device;
    uint64_t tick = tick_now(pit, now_ns);
    (void)offset;
    (void)size;
    settle(&pit->channel[2], tick);
    return pit->port61 | (tick / REFRESH_TICKS & 1 ? PORT61_REFRESH : 0)
         | (output(&pit->channel[2], tick) ? PORT61_OUT2 : 0);
}

static void port61_write(void *device, uint64_t offset, unsigned size, uint64_t value, uint64_t now_ns)
{
    struct vpit *pit = device;
    (void)offset;
    (void)size;
    pit->port61 = value & PORT61_WRITABLE;
    set_gate(pit, 2, value & PORT61_GATE2, now_ns);
}

const struct vdev_ops vpit_ops = { .read = pit_read, .write = pit_write };
const struct vdev_ops vpit_port61_ops = { .read = port61_read, .write = port61_write };

enum status vpit_attach(struct vpit *pit, struct vbus *ports)
{
    enum status status = vbus_add(ports, 0x40, 4, &vpit_ops, pit);
    return status == OK ? vbus_add(ports, 0x61, 1, &vpit_port61_ops, pit) : status;
}

/* ---- Save and restore ---- */

static unsigned pack_flags(const struct vpit_channel *c)
{
    return (unsigned)c->bcd | (unsigned)c->gate << 1 | (unsigned)c->loaded << 2 | (unsigned)c->counting << 3
         | (unsigned)c->write_high << 4 | (unsigned)c->read_high << 5 | (unsigned)c->status_latched << 6;
}

static void unpack_flags(struct vpit_channel *c, unsigned flags)
{
    c->bcd = flags & 1;
    c->gate = flags & 2;
    c->loaded = flags & 4;
    c->counting = flags & 8;
    c->write_high = flags & 0x10;
    c->read_high = flags & 0x20;
    c->status_latched = flags & 0x40;
}

void vpit_save(const struct vpit *pit, struct stream_writer *w, uint64_t now_ns)
{
    uint64_t due = pit->timer.deadline_ns;
    stream_put_u64(w, now_ns - pit->origin_ns);
    stream_put_u8(w, pit->port61);
    stream_put_u8(w, due != VTIMER_OFF);
    stream_put_u64(w, due != VTIMER_OFF && due > now_ns ? due - now_ns : 0);
    for (unsigned i = 0; i < 3; i++) {
        const struct vpit_channel *c = &pit->channel[i];
        stream_put_u8(w, c->mode);
        stream_put_u8(w, c->access);
        stream_put_u8(w, (uint8_t)pack_flags(c));
        stream_put_u8(w, c->write_low);
        stream_put_u8(w, c->latched);
        stream_put_u16(w, c->latch);
        stream_put_u8(w, c->status);
        stream_put_u32(w, c->count);
        stream_put_u32(w, c->next_count);
        stream_put_u64(w, c->start_tick);
        stream_put_u64(w, c->paused_ticks);
    }
}

static bool channel_valid(const struct vpit_channel *c, uint64_t tick)
{
    return c->mode <= 5 && c->access >= 1 && c->access <= 3 && c->latched <= 2 && c->count <= 65536
        && c->next_count <= 65536 && (c->count || !c->counting) && (c->count || c->next_count || !c->loaded)
        && (!c->counting || c->start_tick <= tick) && c->paused_ticks <= tick;
}

void vpit_restore(struct vpit *pit, struct stream_reader *r, uint64_t now_ns)
{
    struct vpit new = *pit;
    uint64_t age = stream_get_u64(r);
    new.origin_ns = now_ns - age;
    new.port61 = stream_get_u8(r);
    bool armed = stream_get_u8(r) != 0;
    uint64_t left = stream_get_u64(r);
    bool good = age <= AGE_MAX && !(new.port61 & ~PORT61_WRITABLE) && left <= NS_PER_SECOND;
    for (unsigned i = 0; i < 3; i++) {
        struct vpit_channel *c = &new.channel[i];
        c->mode = stream_get_u8(r);
        c->access = stream_get_u8(r);
        unpack_flags(c, stream_get_u8(r));
        c->write_low = stream_get_u8(r);
        c->latched = stream_get_u8(r);
        c->latch = stream_get_u16(r);
        c->status = stream_get_u8(r);
        c->count = stream_get_u32(r);
        c->next_count = stream_get_u32(r);
        c->start_tick = stream_get_u64(r);
        c->paused_ticks = stream_get_u64(r);
        good &= channel_valid(c, vtime_ticks(age, VPIT_HZ)) && (i == 2 || c->gate);
    }
    good &= !armed || (new.channel[0].counting && !triggered(&new.channel[0]));
    if (r->error != OK)
        return;
    if (!good) {
        stream_fail(r, ERR_CORRUPT, "8254: value out of range");
        return;
    }
    vtimer_arm(&pit->timer, VTIMER_OFF);
    new.timer = pit->timer;
    *pit = new;
    if (armed)
        vtimer_arm(&pit->timer, now_ns + left);
}
