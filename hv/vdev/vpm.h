/* SPDX-License-Identifier: MIT */
/*
 * ACPI power management and the ways to reset a PC (ACPI 6.4, 4.8): PM1a event and control registers, the PM timer
 * (3579545 Hz, 32 bits), the fixed power button, the reset register, and the two legacy reset bits of port 0x92 and of
 * the keyboard controller's command port, which has no keyboard behind it. Device lock held.
 *
 * Ports, from VPM_BASE: +0 PM1 status, +2 PM1 enable, +4 PM1 control, +8 PM timer, +12 reset register.
 */
#ifndef VDEV_VPM_H
#define VDEV_VPM_H

#include "vdev/vdev.h"

#define VPM_BASE 0x600u
#define VPM_PORTS 16u
#define VPM_TIMER_HZ 3579545u
#define VPM_RESET_OFFSET 12u
#define VPM_RESET_VALUE 0x06u /* to the reset register, at either of its ports */
#define VPM_SLP_TYP_S5 5u
#define VPM_CF9_PORT 0xcf9u

/* What the guest asked for. Called in the device's context, with the lock held: note it and act later. */
struct vpm_events {
    void (*power_off)(void *context);
    void (*reset)(void *context);
    void *context;
};

struct vpm {
    struct vline sci;             /* level */
    struct vpm_events events;
    struct vtimer timer;          /* the next change of the PM timer's top bit, if its interrupt is on */
    uint64_t origin_ns;           /* PM timer zero */
    uint64_t seen_half;           /* halves of the PM timer's period whose status bit was worked out */
    uint16_t status, enable, control;
    uint8_t reset_register;
    uint8_t port92;
};

void vpm_init(struct vpm *pm, struct vtimer_queue *queue, struct vline sci, struct vpm_events events, uint64_t now_ns);
void vpm_reset(struct vpm *pm, uint64_t now_ns);
/* A press of the power button: asks the guest to shut down. */
void vpm_power_button(struct vpm *pm);
/* The guest listens to the button (it has enabled its event). */
bool vpm_button_enabled(const struct vpm *pm);

/* VPM_PORTS ports at VPM_BASE. */
extern const struct vdev_ops vpm_ops;
/* One port, 0xcf9. If PCI configuration owns 0xcf8-0xcff, it passes byte accesses to 0xcf9 on to this (offset 0). */
extern const struct vdev_ops vpm_cf9_ops;
/* One port each, 0x64 and 0x92. */
extern const struct vdev_ops vpm_keyboard_ops, vpm_port92_ops;
/* Puts all but 0xcf9 on the port bus. */
enum status vpm_attach(struct vpm *pm, struct vbus *ports) MUST_CHECK;

void vpm_save(const struct vpm *pm, struct stream_writer *w, uint64_t now_ns);
void vpm_restore(struct vpm *pm, struct stream_reader *r, uint64_t now_ns);

#endif
