/* SPDX-License-Identifier: MIT */
/*
 * ACPI fixed hardware: events (status and enable), control, the PM timer, and the ways to reset a PC.
 *
 * The machine is in ACPI mode from the start (SCI_EN always reads 1, there is no SMI command port). SCI is asserted
 * while an enabled event is set; a guest clears an event by writing 1 to it.
 */
#include "vdev/vpm.h"

#include <string.h>

#include "vdev/vtime.h"

#define PM1_TIMER 0x0001u
#define PM1_BUTTON 0x0100u
#define PM1_EVENTS (PM1_TIMER | 0x0020u | PM1_BUTTON | 0x0400u) /* with global lock and RTC, which never happen */
#define PM1_WAKE 0x8000u

#define CONTROL_SCI 0x0001u
#define CONTROL_KEPT 0x1c02u /* SLP_TYP, bus master reload */
#define CONTROL_SLEEP 0x2000u

#define RESET_CPU 0x04u
#define RESET_KEPT 0x0eu
#define PORT92_RESET 0x01u
#define PORT92_A20 0x02u

#define AGE_MAX BIT(62)

static uint64_t timer_ticks(const struct vpm *pm, uint64_t now_ns)
{
    return vtime_ticks(now_ns - pm->origin_ns, VPM_TIMER_HZ);
}

/* Sets the timer's event if its top bit has changed since the last look; arms the next change if it interrupts. */
static void work(struct vpm *pm, uint64_t now_ns)
{
    uint64_t half = timer_ticks(pm, now_ns) >> 31;
    uint64_t deadline = VTIMER_OFF;
    if (half != pm->seen_half)
        pm->status |= PM1_TIMER;
    pm->seen_half = half;
    if (pm->enable & PM1_TIMER && !(pm->status & PM1_TIMER))
        deadline = MIN(pm->origin_ns + vtime_ns((half + 1) << 31, VPM_TIMER_HZ), VTIMER_OFF - 1);
    vtimer_arm(&pm->timer, deadline);
    vline_set(&pm->sci, (pm->status & pm->enable & PM1_EVENTS) != 0);
}

static void fire(struct vtimer *timer, uint64_t now_ns)
{
    work(CONTAINER_OF(timer, struct vpm, timer), now_ns);
}

void vpm_init(struct vpm *pm, struct vtimer_queue *queue, struct vline sci, struct vpm_events events, uint64_t now_ns)
{
    memset(pm, 0, sizeof(*pm));
    pm->sci = sci;
    pm->events = events;
    vtimer_init(&pm->timer, queue, fire);
    vpm_reset(pm, now_ns);
}

void vpm_reset(struct vpm *pm, uint64_t now_ns)
{
    pm->origin_ns = now_ns;
    pm->seen_half = 0;
    pm->status = pm->enable = pm->control = 0;
    pm->reset_register = 0;
    pm->port92 = PORT92_A20;
    vtimer_arm(&pm->timer, VTIMER_OFF);
    vline_set(&pm->sci, false);
}

void vpm_power_button(struct vpm *pm)
{
    pm->status |= PM1_BUTTON;
    vline_set(&pm->sci, (pm->status & pm->enable & PM1_EVENTS) != 0);
}

bool vpm_button_enabled(const struct vpm *pm)
{
    return pm->enable & PM1_BUTTON;
}

/* ---- Registers ---- */

static void ask_reset(struct vpm *pm)
{
    if (pm->events.reset)
        pm->events.reset(pm->events.context);
}

static void write_reset_register(struct vpm *pm, uint8_t value)
{
    bool rising = value & RESET_CPU && !(pm->reset_register & RESET_CPU);
    pm->reset_register = value & RESET_KEPT;
    if (rising)
        ask_reset(pm);
}

static void write_control_high(struct vpm *pm)
{
    if (pm->control >> 10 == VPM_SLP_TYP_S5 && pm->events.power_off)
        pm->events.power_off(pm->events.context);
}

/* All registers by bytes; `shift` is the byte's place in its 16-bit register. */
static void write_byte(struct vpm *pm, uint64_t offset, uint8_t value, uint64_t now_ns)
{
    unsigned shift = (unsigned)(offset & 1) * 8, bits = (unsigned)value << shift;
    switch (offset) {
    case 0: case 1:
        pm->status &= (uint16_t)~(bits & (PM1_EVENTS | PM1_WAKE));
        break;
    case 2: case 3:
        pm->enable = (uint16_t)((pm->enable & ~(0xffu << shift)) | (bits & PM1_EVENTS));
        break;
    case 4: case 5:
        pm->control = (uint16_t)((pm->control & ~(0xffu << shift)) | (bits & CONTROL_KEPT));
        if (bits & CONTROL_SLEEP)
            write_control_high(pm);
        break;
    case VPM_RESET_OFFSET:
        write_reset_register(pm, value);
        return;
    default:
        return; /* the PM timer is read-only */
    }
    work(pm, now_ns);
}

static void port_write(void *device, uint64_t offset, unsigned size, uint64_t value, uint64_t now_ns)
{
    struct vpm *pm = device;
    work(pm, now_ns);
    for (unsigned i = 0; i < size; i++)
        write_byte(pm, offset + i, (uint8_t)(value >> 8 * i), now_ns);
}

static uint64_t port_read(void *device, uint64_t offset, unsigned size, uint64_t now_ns)
{
    struct vpm *pm = device;
    uint64_t ticks = timer_ticks(pm, now_ns) & UINT32_MAX;
    if (offset == 8 && size == 4) /* the timer is read in tight loops */
        return ticks;
    work(pm, now_ns);
    uint64_t low = (uint64_t)pm->status | (uint64_t)pm->enable << 16 | (uint64_t)(pm->control | CONTROL_SCI) << 32;
    uint64_t high = ticks | (uint64_t)pm->reset_register << 32;
    uint64_t value = 0;
    for (unsigned i = 0; i < size; i++) {
        uint64_t at = offset + i;
        value |= ((at < 8 ? low >> 8 * at : high >> 8 * (at - 8)) & 0xff) << 8 * i;
    }
    return value;
}

static uint64_t cf9_read(void *device, uint64_t offset, unsigned size, uint64_t now_ns)
{
    const struct vpm *pm = device;
    (void)offset;
    (void)size;
    (void)now_ns;
    return pm->reset_register;
}

static void cf9_write(void *device, uint64_t offset, unsigned size, uint64_t value, uint64_t now_ns)
{
    (void)offset;
    (void)size;
    (void)now_ns;
    write_reset_register(device, (uint8_t)value);
}

/* All ones, as from an empty socket: a guest sees that there is no controller. */
static uint64_t keyboard_read(void *device, uint64_t offset, unsigned size, uint64_t now_ns)
{
    (void)device;
    (void)offset;
    (void)size;
    (void)now_ns;
    return UINT64_MAX;
}

/* Commands 0xf0-0xff pulse the output lines whose bit is clear; line 0 is the reset. */
static void keyboard_write(void *device, uint64_t offset, unsigned size, uint64_t value, uint64_t now_ns)
{
    (void)offset;
    (void)size;
    (void)now_ns;
    if ((value & 0xf1) == 0xf0)
        ask_reset(device);
}

static uint64_t port92_read(void *device, uint64_t offset, unsigned size, uint64_t now_ns)
{
    const struct vpm *pm = device;
    (void)offset;
    (void)size;
    (void)now_ns;
    return pm->port92;
}

/* The A20 gate is a bit that reads back: addresses are never cut. */
static void port92_write(void *device, uint64_t offset, unsigned size, uint64_t value, uint64_t now_ns)
{
    struct vpm *pm = device;
    bool rising = value & PORT92_RESET && !(pm->port92 & PORT92_RESET);
    (void)offset;
    (void)size;
    (void)now_ns;
    pm->port92 = value & (PORT92_A20 | PORT92_RESET);
    if (rising)
        ask_reset(pm);
}

const struct vdev_ops vpm_ops = { .read = port_read, .write = port_write };
const struct vdev_ops vpm_cf9_ops = { .read = cf9_read, .write = cf9_write };
const struct vdev_ops vpm_keyboard_ops = { .read = keyboard_read, .write = keyboard_write };
const struct vdev_ops vpm_port92_ops = { .read = port92_read, .write = port92_write };

enum status vpm_attach(struct vpm *pm, struct vbus *ports)
{
    enum status status = vbus_add(ports, VPM_BASE, VPM_PORTS, &vpm_ops, pm);
    if (status == OK)
        status = vbus_add(ports, 0x64, 1, &vpm_keyboard_ops, pm);
    if (status == OK)
        status = vbus_add(ports, 0x92, 1, &vpm_port92_ops, pm);
    return status;
}

/* ---- Save and restore ---- */

void vpm_save(const struct vpm *pm, struct stream_writer *w, uint64_t now_ns)
{
    stream_put_u64(w, now_ns - pm->origin_ns);
    stream_put_u64(w, pm->seen_half);
    stream_put_u16(w, pm->status);
    stream_put_u16(w, pm->enable);
    stream_put_u16(w, pm->control);
    stream_put_u8(w, pm->reset_register);
    stream_put_u8(w, pm->port92);
}

void vpm_restore(struct vpm *pm, struct stream_reader *r, uint64_t now_ns)
{
    struct vpm new = *pm;
    uint64_t age = stream_get_u64(r);
    new.origin_ns = now_ns - age;
    new.seen_half = stream_get_u64(r);
    new.status = stream_get_u16(r);
    new.enable = stream_get_u16(r);
    new.control = stream_get_u16(r);
    new.reset_register = stream_get_u8(r);
    new.port92 = stream_get_u8(r);
    if (r->error != OK)
        return;
    if (age > AGE_MAX || new.seen_half > timer_ticks(&new, now_ns) >> 31 || new.status & ~(PM1_EVENTS | PM1_WAKE)
        || new.enable & ~PM1_EVENTS || new.control & ~CONTROL_KEPT || new.reset_register & ~RESET_KEPT
        || new.port92 & ~(PORT92_A20 | PORT92_RESET)) {
        stream_fail(r, ERR_CORRUPT, "power management: value out of range");
        return;
    }
    vtimer_arm(&pm->timer, VTIMER_OFF);
    new.timer = pm->timer;
    *pm = new;
    /* The timer looks as soon as the machine runs: a change that was not served before the save is served then. */
    if (pm->enable & PM1_TIMER && !(pm->status & PM1_TIMER))
        vtimer_arm(&pm->timer, now_ns);
}
