/* SPDX-License-Identifier: MIT */
/*
 * The RTC. While it runs, the time registers are a function of now: world time plus the guest's offset, in the format
 * that register B asks for. While it is stopped (SET, or the divider chain not on 32768 Hz) they are the bytes in
 * cmos[], and the offset is worked out anew when it starts again; after a divider reset the first second is half a
 * second long, as the datasheet promises to those who set the clock.
 *
 * Flags of register C are worked out when somebody looks, from the seconds and ticks that passed since the last look;
 * the timer is armed only for a flag that would raise the interrupt and is not set yet. So a guest that does not
 * acknowledge costs nothing, and however long nobody looked, each flag is raised once.
 */
#include "vdev/vrtc.h"

#include <string.h>

#include "vdev/vtime.h"

enum { SECONDS = 0, SECONDS_ALARM, MINUTES, MINUTES_ALARM, HOURS, HOURS_ALARM, WEEKDAY, DAY, MONTH, YEAR,
       REG_A, REG_B, REG_C, REG_D };

#define A_UIP 0x80u
#define A_DIVIDER 0x70u
#define A_RUNNING 0x20u
#define B_SET 0x80u
#define B_UIE 0x10u
#define B_BINARY 0x04u
#define B_24H 0x02u
#define C_IRQ 0x80u
#define C_PERIODIC 0x40u
#define C_ALARM 0x20u
#define C_UPDATE 0x10u
#define C_EVENTS (C_PERIODIC | C_ALARM | C_UPDATE)
#define D_VALID 0x80u
#define HOUR_PM 0x80u
#define ALARM_ANY 0xc0u

#define CHAIN_HZ 32768u
#define UIP_NS 244141u /* how long before an update UIP warns of it */
#define SECONDS_A_DAY 86400
#define EPOCH_DAY 719528  /* of 1970-01-01, counted from 0000-01-01 */
#define YEARS 10000
#define AGE_MAX BIT(62)

/* ---- The calendar: proleptic Gregorian, years 0 to 9999 ---- */

struct civil { int year, month, day, hour, minute, second, weekday; }; /* month, day from 1; weekday 1 = Sunday */

static bool leap_year(int year)
{
    return year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
}

static int64_t days_before_year(int64_t year)
{
    return year * 365 + (year + 3) / 4 - (year + 99) / 100 + (year + 399) / 400;
}

static int days_in_month(int year, int month)
{
    static const uint8_t days[12] = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 };
    return days[month - 1] + (month == 2 && leap_year(year));
}

static struct civil to_civil(int64_t unix_second)
{
    int64_t second = unix_second + (int64_t)EPOCH_DAY * SECONDS_A_DAY;
    int64_t last = days_before_year(YEARS) * SECONDS_A_DAY - 1;
    second = second < 0 ? 0 : second > last ? last : second;
    int64_t day = second / SECONDS_A_DAY, year = day / 366;
    int rest = (int)(second % SECONDS_A_DAY), month = 1;
    year += (day - days_before_year(year)) / 366; /* twice: the first guess is up to 7 years short */
    while (days_before_year(year + 1) <= day)
        year++;
    int of_year = (int)(day - days_before_year(year));
    while (of_year >= days_in_month((int)year, month))
        of_year -= days_in_month((int)year, month++);
    return (struct civil){ (int)year, month, of_year + 1, rest / 3600, rest / 60 % 60, rest % 60,
                           (int)((day + 6) % 7) + 1 };
}

static int clamp(int value, int low, int high)
{
    return value < low ? low : value > high ? high : value;
}

/* What the guest wrote may be any nonsense: it becomes the nearest time that exists. */
static int64_t to_unix(struct civil t)
{
    t.year = clamp(t.year, 0, YEARS - 1);
    t.month = clamp(t.month, 1, 12);
    t.day = clamp(t.day, 1, days_in_month(t.year, t.month));
    int64_t day = days_before_year(t.year) + t.day - 1;
    for (int month = 1; month < t.month; month++)
        day += days_in_month(t.year, month);
    return (day - EPOCH_DAY) * SECONDS_A_DAY + clamp(t.hour, 0, 23) * 3600 + clamp(t.minute, 0, 59) * 60
         + clamp(t.second, 0, 59);
}

/* ---- Register formats ---- */

static uint8_t encode(const struct vrtc *rtc, int value)
{
    return (uint8_t)(rtc->cmos[REG_B] & B_BINARY ? value : value / 10 << 4 | value % 10);
}

static int decode(const struct vrtc *rtc, uint8_t byte)
{
    return rtc->cmos[REG_B] & B_BINARY ? byte : (byte >> 4) * 10 + (byte & 15);
}

static uint8_t encode_hour(const struct vrtc *rtc, int hour)
{
    if (rtc->cmos[REG_B] & B_24H)
        return encode(rtc, hour);
    return (uint8_t)(encode(rtc, (hour + 11) % 12 + 1) | (hour >= 12 ? HOUR_PM : 0));
}

static int decode_hour(const struct vrtc *rtc, uint8_t byte)
{
    if (rtc->cmos[REG_B] & B_24H)
        return decode(rtc, byte);
    return decode(rtc, byte & 0x7f) % 12 + (byte & HOUR_PM ? 12 : 0);
}

/* ---- The clock ---- */

struct clock { int64_t second; uint32_t ns; };

static struct clock clock_now(const struct vrtc *rtc, uint64_t now_ns)
{
    uint64_t world = rtc->world_ns + (now_ns - rtc->world_at_ns);
    uint64_t ns = world % NS_PER_SECOND + rtc->offset_ns;
    return (struct clock){ (int64_t)(world / NS_PER_SECOND + ns / NS_PER_SECOND) + rtc->offset_seconds,
                           (uint32_t)(ns % NS_PER_SECOND) };
}

/* Makes the clock show `second` and `ns` now. */
static void set_clock(struct vrtc *rtc, int64_t second, uint32_t ns, uint64_t now_ns)
{
    uint64_t world = rtc->world_ns + (now_ns - rtc->world_at_ns);
    uint32_t world_ns = (uint32_t)(world % NS_PER_SECOND);
    bool borrow = ns < world_ns;
    rtc->offset_ns = (uint32_t)(ns + (borrow ? NS_PER_SECOND : 0) - world_ns);
    rtc->offset_seconds = second - (int64_t)(world / NS_PER_SECOND) - borrow;
    rtc->seen_second = second;
}

static void registers_from_clock(struct vrtc *rtc, uint64_t now_ns)
{
    struct civil t = to_civil(clock_now(rtc, now_ns).second);
    rtc->cmos[SECONDS] = encode(rtc, t.second);
    rtc->cmos[MINUTES] = encode(rtc, t.minute);
    rtc->cmos[HOURS] = encode_hour(rtc, t.hour);
    rtc->cmos[WEEKDAY] = encode(rtc, (t.weekday - 1 + rtc->weekday_offset) % 7 + 1);
    rtc->cmos[DAY] = encode(rtc, t.day);
    rtc->cmos[MONTH] = encode(rtc, t.month);
    rtc->cmos[YEAR] = encode(rtc, t.year % 100);
    rtc->cmos[VRTC_CENTURY] = encode(rtc, t.year / 100);
}

static void clock_from_registers(struct vrtc *rtc, uint32_t ns, uint64_t now_ns)
{
    struct civil t = {
        .year = decode(rtc, rtc->cmos[VRTC_CENTURY]) * 100 + decode(rtc, rtc->cmos[YEAR]),
        .month = decode(rtc, rtc->cmos[MONTH]),
        .day = decode(rtc, rtc->cmos[DAY]),
        .hour = decode_hour(rtc, rtc->cmos[HOURS]),
        .minute = decode(rtc, rtc->cmos[MINUTES]),
        .second = decode(rtc, rtc->cmos[SECONDS]),
    };
    int64_t second = to_unix(t);
    int weekday = clamp(decode(rtc, rtc->cmos[WEEKDAY]), 1, 7);
    rtc->weekday_offset = (uint8_t)((weekday + 7 - to_civil(second).weekday) % 7);
    set_clock(rtc, second, ns, now_ns);
}

/* ---- Flags and interrupts ---- */

/* An alarm byte: the value that it waits for, -1 for any. */
static int alarm_value(const struct vrtc *rtc, unsigned index)
{
    uint8_t byte = rtc->cmos[index];
    if ((byte & ALARM_ANY) == ALARM_ANY)
        return -1;
    return index == HOURS_ALARM ? decode_hour(rtc, byte) : decode(rtc, byte);
}

/* The first clock second from `from` on at which the alarm goes off; INT64_MAX: it cannot. */
static int64_t next_alarm(const struct vrtc *rtc, int64_t from)
{
    int hour = alarm_value(rtc, HOURS_ALARM), minute = alarm_value(rtc, MINUTES_ALARM);
    int second = alarm_value(rtc, SECONDS_ALARM);
    if (hour > 23 || minute > 59 || second > 59)
        return INT64_MAX;
    int64_t start = from + (int64_t)EPOCH_DAY * SECONDS_A_DAY;
    start = start < 0 ? 0 : start; /* the calendar stands at its ends */
    int64_t base = start - start % SECONDS_A_DAY;
    for (int at = (int)(start % SECONDS_A_DAY); at < 2 * SECONDS_A_DAY;) {
        if (hour >= 0 && at / 3600 % 24 != hour)
            at = (at / 3600 + 1) * 3600;
        else if (minute >= 0 && at / 60 % 60 != minute)
            at = (at / 60 + 1) * 60;
        else if (second >= 0 && at % 60 != second)
            at++;
        else
            return base + at - (int64_t)EPOCH_DAY * SECONDS_A_DAY;
    }
    return INT64_MAX;
}

/* Ticks of the periodic interrupt's period, 0 = off. */
static uint64_t periodic_ticks(const struct vrtc *rtc)
{
    unsigned rate = rtc->cmos[REG_A] & 15;
    if (!rate || (rtc->cmos[REG_A] & A_DIVIDER) != A_RUNNING)
        return 0;
    return rate <= 2 ? 1u << (rate + 6) : 1u << (rate - 1);
}

static uint64_t chain_ticks(const struct vrtc *rtc, uint64_t now_ns)
{
    return vtime_ticks(now_ns - rtc->origin_ns, CHAIN_HZ);
}

static uint64_t until(const struct clock *clock, int64_t second, uint64_t now_ns)
{
    uint64_t seconds = (uint64_t)second - (uint64_t)clock->second;
    if (seconds > BIT(32))
        return VTIMER_OFF - 1; /* centuries: the timer may as well look again then */
    return now_ns + seconds * NS_PER_SECOND - clock->ns;
}

/* Raises the line if an enabled flag is set; arms the timer for the first enabled one that is not. */
static void arm(struct vrtc *rtc, uint64_t now_ns)
{
    unsigned flags = rtc->cmos[REG_C] & C_EVENTS, wanted = rtc->cmos[REG_B] & C_EVENTS & ~flags;
    uint64_t deadline = VTIMER_OFF, period = periodic_ticks(rtc);
    bool irq = flags & rtc->cmos[REG_B];
    struct clock clock = clock_now(rtc, now_ns);
    rtc->cmos[REG_C] = (uint8_t)(flags | (irq ? C_IRQ : 0));
    vline_set(&rtc->irq, irq);
    if (wanted & C_PERIODIC && period) {
        uint64_t edge = (rtc->seen_tick / period + 1) * period;
        deadline = rtc->origin_ns + vtime_ns(edge, CHAIN_HZ);
    }
    if (!rtc->stopped && wanted & C_UPDATE)
        deadline = MIN(deadline, until(&clock, clock.second + 1, now_ns));
    if (!rtc->stopped && wanted & C_ALARM) {
        int64_t second = next_alarm(rtc, clock.second + 1);
        if (second != INT64_MAX)
            deadline = MIN(deadline, until(&clock, second, now_ns));
    }
    vtimer_arm(&rtc->timer, deadline);
}

/* Works out what happened since the last look. */
static void work(struct vrtc *rtc, uint64_t now_ns)
{
    uint64_t tick = chain_ticks(rtc, now_ns), period = periodic_ticks(rtc);
    if (period && tick / period != rtc->seen_tick / period)
        rtc->cmos[REG_C] |= C_PERIODIC;
    rtc->seen_tick = tick;
    if (!rtc->stopped) {
        int64_t second = clock_now(rtc, now_ns).second;
        if (second > rtc->seen_second) {
            rtc->cmos[REG_C] |= C_UPDATE;
            if (next_alarm(rtc, rtc->seen_second + 1) <= second)
                rtc->cmos[REG_C] |= C_ALARM;
        }
        rtc->seen_second = second;
    }
    arm(rtc, now_ns);
}

static void fire(struct vtimer *timer, uint64_t now_ns)
{
    work(CONTAINER_OF(timer, struct vrtc, timer), now_ns);
}

/* ---- Registers ---- */

static bool is_time(unsigned index)
{
    return index == SECONDS || index == MINUTES || index == HOURS || (index >= WEEKDAY && index <= YEAR)
        || index == VRTC_CENTURY;
}

static void write_control(struct vrtc *rtc, unsigned index, uint8_t value, uint64_t now_ns)
{
    bool chain_was_off = (rtc->cmos[REG_A] & A_DIVIDER) != A_RUNNING;
    if (!rtc->stopped)
        registers_from_clock(rtc, now_ns); /* in the format that was; a new one converts only what comes after */
    uint32_t ns = clock_now(rtc, now_ns).ns;
    int64_t second = clock_now(rtc, now_ns).second;
    if (index == REG_A)
        rtc->cmos[REG_A] = value & 0x7f;
    else
        rtc->cmos[REG_B] = value & B_SET ? value & (uint8_t)~B_UIE : value;
    bool chain_off = (rtc->cmos[REG_A] & A_DIVIDER) != A_RUNNING;
    bool stopped = chain_off || rtc->cmos[REG_B] & B_SET;
    if (rtc->stopped && !stopped)
        clock_from_registers(rtc, chain_was_off ? NS_PER_SECOND / 2 : ns, now_ns);
    else if (!rtc->stopped)
        rtc->seen_second = second;
    if (chain_was_off && !chain_off) {
        rtc->origin_ns = now_ns;
        rtc->seen_tick = 0;
    }
    rtc->stopped = stopped;
    arm(rtc, now_ns);
}

static void write_register(struct vrtc *rtc, unsigned index, uint8_t value, uint64_t now_ns)
{
    work(rtc, now_ns);
    if (is_time(index)) {
        uint32_t ns = clock_now(rtc, now_ns).ns;
        if (!rtc->stopped)
            registers_from_clock(rtc, now_ns);
        rtc->cmos[index] = value;
        if (!rtc->stopped)
            clock_from_registers(rtc, ns, now_ns);
        arm(rtc, now_ns);
    } else if (index == REG_A || index == REG_B) {
        write_control(rtc, index, value, now_ns);
    } else if (index != REG_C && index != REG_D) {
        rtc->cmos[index] = value;
        if (index < REG_A)
            arm(rtc, now_ns);
    }
}

static uint8_t read_register(struct vrtc *rtc, unsigned index, uint64_t now_ns)
{
    uint8_t value;
    if (is_time(index) && !rtc->stopped)
        registers_from_clock(rtc, now_ns);
    switch (index) {
    case REG_A: {
        bool updating = !rtc->stopped && clock_now(rtc, now_ns).ns >= NS_PER_SECOND - UIP_NS;
        return (uint8_t)(rtc->cmos[REG_A] | (updating ? A_UIP : 0));
    }
    case REG_C:
        work(rtc, now_ns);
        value = rtc->cmos[REG_C];
        rtc->cmos[REG_C] = 0;
        arm(rtc, now_ns);
        return value;
    case REG_D: return D_VALID;
    default: return rtc->cmos[index];
    }
}

static void write_port(struct vrtc *rtc, uint64_t port, uint8_t value, uint64_t now_ns)
{
    switch (port) {
    case 0:
        rtc->index = value & 0x7f;
        rtc->nmi_masked = value & 0x80;
        break;
    case 1: write_register(rtc, rtc->index, value, now_ns); break;
    case 2: rtc->index_high = value & 0x7f; break;
    default: rtc->cmos[128 + rtc->index_high] = value;
    }
}

static uint8_t read_port(struct vrtc *rtc, uint64_t port, uint64_t now_ns)
{
    switch (port) {
    case 1: return read_register(rtc, rtc->index, now_ns);
    case 3: return rtc->cmos[128 + rtc->index_high];
    default: return 0xff; /* the index registers are write-only */
    }
}

static uint64_t port_read(void *device, uint64_t offset, unsigned size, uint64_t now_ns)
{
    uint64_t value = 0;
    for (unsigned i = 0; i < size; i++)
        value |= (uint64_t)read_port(device, offset + i, now_ns) << 8 * i;
    return value;
}

static void port_write(void *device, uint64_t offset, unsigned size, uint64_t value, uint64_t now_ns)
{
    for (unsigned i = 0; i < size; i++)
        write_port(device, offset + i, (uint8_t)(value >> 8 * i), now_ns);
}

const struct vdev_ops vrtc_ops = { .read = port_read, .write = port_write };

enum status vrtc_attach(struct vrtc *rtc, struct vbus *ports)
{
    return vbus_add(ports, 0x70, 4, &vrtc_ops, rtc);
}

/* ---- Owner's side ---- */

void vrtc_init(struct vrtc *rtc, struct vtimer_queue *queue, struct vline irq, uint64_t unix_ns, uint64_t now_ns)
{
    memset(rtc, 0, sizeof(*rtc));
    rtc->irq = irq;
    vtimer_init(&rtc->timer, queue, fire);
    rtc->cmos[REG_A] = A_RUNNING | 6;
    rtc->cmos[REG_B] = B_24H;
    rtc->cmos[REG_D] = D_VALID;
    rtc->world_ns = unix_ns;
    rtc->world_at_ns = now_ns;
    rtc->origin_ns = now_ns;
    rtc->seen_second = clock_now(rtc, now_ns).second;
}

void vrtc_reset(struct vrtc *rtc, uint64_t now_ns)
{
    rtc->cmos[REG_B] &= (uint8_t)~C_EVENTS;
    rtc->cmos[REG_C] = 0;
    rtc->index = rtc->index_high = 0;
    rtc->nmi_masked = false;
    work(rtc, now_ns);
}

void vrtc_set_world(struct vrtc *rtc, uint64_t unix_ns, uint64_t now_ns)
{
    rtc->world_ns = unix_ns;
    rtc->world_at_ns = now_ns;
    work(rtc, now_ns);
}

void vrtc_set_cmos(struct vrtc *rtc, uint8_t index, uint8_t value)
{
    if (index > REG_D && index != VRTC_CENTURY)
        rtc->cmos[index] = value;
}

bool vrtc_nmi_masked(const struct vrtc *rtc)
{
    return rtc->nmi_masked;
}

/* ---- Save and restore ---- */

void vrtc_save(const struct vrtc *rtc, struct stream_writer *w, uint64_t now_ns)
{
    stream_put_bytes(w, rtc->cmos, sizeof(rtc->cmos));
    stream_put_u8(w, rtc->index);
    stream_put_u8(w, rtc->index_high);
    stream_put_u8(w, rtc->nmi_masked);
    stream_put_u64(w, (uint64_t)rtc->offset_seconds);
    stream_put_u32(w, rtc->offset_ns);
    stream_put_u8(w, rtc->weekday_offset);
    stream_put_u64(w, (uint64_t)rtc->seen_second);
    stream_put_u64(w, now_ns - rtc->origin_ns);
    stream_put_u64(w, rtc->seen_tick);
}

void vrtc_restore(struct vrtc *rtc, struct stream_reader *r, uint64_t unix_ns, uint64_t now_ns)
{
    struct vrtc new = *rtc;
    const int64_t bound = (int64_t)YEARS * 366 * SECONDS_A_DAY; /* more than the calendar is long */
    stream_get_bytes(r, new.cmos, sizeof(new.cmos));
    new.index = stream_get_u8(r);
    new.index_high = stream_get_u8(r);
    new.nmi_masked = stream_get_u8(r) != 0;
    new.offset_seconds = (int64_t)stream_get_u64(r);
    new.offset_ns = stream_get_u32(r);
    new.weekday_offset = stream_get_u8(r);
    new.seen_second = (int64_t)stream_get_u64(r);
    uint64_t age = stream_get_u64(r);
    new.seen_tick = stream_get_u64(r);
    new.origin_ns = now_ns - age;
    new.world_ns = unix_ns;
    new.world_at_ns = now_ns;
    new.stopped = (new.cmos[REG_A] & A_DIVIDER) != A_RUNNING || new.cmos[REG_B] & B_SET;
    if (r->error != OK)
        return;
    if (new.index > 0x7f || new.index_high > 0x7f || new.cmos[REG_A] & A_UIP || new.cmos[REG_C] & 0x0f
        || new.offset_seconds > bound || new.offset_seconds < -bound || new.offset_ns >= NS_PER_SECOND
        || new.weekday_offset > 6 || new.seen_second > bound || new.seen_second < -bound || age > AGE_MAX
        || new.seen_tick > chain_ticks(&new, now_ns)) {
        stream_fail(r, ERR_CORRUPT, "real-time clock: value out of range");
        return;
    }
    vtimer_arm(&rtc->timer, VTIMER_OFF);
    new.timer = rtc->timer;
    *rtc = new;
    /* Flags that world time brought on meanwhile are raised by the timer, when the machine runs again. */
    if (rtc->cmos[REG_B] & C_EVENTS & ~rtc->cmos[REG_C])
        vtimer_arm(&rtc->timer, now_ns);
}
