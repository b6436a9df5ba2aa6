/* SPDX-License-Identifier: MIT */
/* What the files of the local APIC share among themselves: register numbers, bits, and their internal calls. */
#ifndef VDEV_VLAPIC_PRIVATE_H
#define VDEV_VLAPIC_PRIVATE_H

#include "vdev/vlapic.h"

#define MSR_APIC_BASE 0x1bu
#define MSR_TSC_DEADLINE 0x6e0u
#define MSR_X2APIC 0x800u

/* Register numbers: MSR minus 0x800, xAPIC page offset divided by 16 (SDM vol. 3A, tables 11-1 and 11-6). */
enum {
    REG_ID = 0x02, REG_VERSION = 0x03, REG_TPR = 0x08, REG_APR = 0x09, REG_PPR = 0x0a, REG_EOI = 0x0b, REG_RRD = 0x0c,
    REG_LDR = 0x0d, REG_DFR = 0x0e, REG_SVR = 0x0f, REG_ISR = 0x10, REG_TMR = 0x18, REG_IRR = 0x20, REG_ESR = 0x28,
    REG_ICR = 0x30, REG_ICR_HIGH = 0x31, REG_LVT_TIMER = 0x32, REG_LVT_ERROR = 0x37, REG_TIMER_INITIAL = 0x38,
    REG_TIMER_CURRENT = 0x39, REG_TIMER_DIVIDE = 0x3e, REG_SELF_IPI = 0x3f,
};

/* An integrated APIC, its LVT entries, no suppression of EOI broadcasts. */
#define VLAPIC_VERSION (0x14u | (LVT_COUNT - 1u) << 16)

#define SVR_ENABLE 0x100u
#define LVT_MASKED 0x10000u
#define LVT_READ_ONLY 0x5000u /* delivery status and remote IRR: ignored, not reserved */
#define LVT_TIMER_MODE 0x60000u
#define TIMER_ONE_SHOT 0u
#define TIMER_PERIODIC 0x20000u
#define TIMER_TSC_DEADLINE 0x40000u

#define DELIVER_FIXED 0u
#define DELIVER_LOWEST 1u
#define DELIVER_SMI 2u
#define DELIVER_NMI 4u
#define DELIVER_INIT 5u
#define DELIVER_SIPI 6u
#define DELIVER_EXTINT 7u

#define ICR_LOGICAL 0x800u
#define ICR_BUSY 0x1000u
#define ICR_ASSERT 0x4000u
#define ICR_LEVEL 0x8000u
#define ICR_SHORTHAND 0xc0000u
#define ICR_SELF 0x40000u
#define ICR_ALL 0x80000u
#define ICR_OTHERS 0xc0000u
#define ICR_WRITABLE 0xccfffu

#define ESR_SEND_VECTOR 0x20u
#define ESR_RECEIVE_VECTOR 0x40u
#define ESR_REGISTER 0x80u

/* vlapic.c */
bool vlapic_is_x2(const struct vlapic *apic);
uint32_t vlapic_logical_id(const struct vlapic *apic);
/* Software- and hardware-enabled: takes fixed and lowest-priority messages. */
bool vlapic_takes_fixed(const struct vlapic *apic);
uint32_t vlapic_ppr(const struct vlapic *apic);
/* Notes an error in ESR and raises the LVT's error interrupt if it is the first one. */
void vlapic_error(struct vlapic *apic, uint32_t bit);
/* An interrupt from a local source. */
void vlapic_local(struct vlapic *apic, enum vlapic_lvt entry);
uint32_t vlapic_lvt_writable(unsigned entry);
/* Reads a register that both modes have, from its home. False: there is none of that number. */
bool vlapic_read_register(struct vlapic *apic, unsigned reg, uint32_t *value, uint64_t now_ns);
/* Highest set bit of a 256-bit register, -1 if there is none. */
int vlapic_highest(const uint32_t words[8]);
/* The highest vector of irr[], -1 if there is none. */
int vlapic_highest_request(const struct vlapic *apic);

/* vlapic_page.c. */
/* What vlapic_recall does but for the kick: of a copy that shall hold everything, too. */
void vlapic_page_read_back(struct vlapic *apic);
/* Both: the page is lent. */
/* After a write to a register: the page shows it, and what changed with it. */
void vlapic_page_show(struct vlapic *apic, unsigned reg);
/* vlapic_pending. */
int vlapic_page_pending(const struct vlapic *apic);
static inline bool vlapic_lent(const struct vlapic *apic) { return __atomic_load_n(&apic->lent, __ATOMIC_RELAXED); }

/* vlapic_bus.c: sends what was written to ICR; a destination of all ones is everybody, in both modes. */
void vlapic_send_ipi(struct vlapic *apic, uint32_t icr, uint32_t destination);

/* vlapic_timer.c */
void vlapic_timer_fire(struct vtimer *timer, uint64_t now_ns);
void vlapic_timer_stop(struct vlapic *apic);
/* Arms the host side for the state of the registers. */
void vlapic_timer_rearm(struct vlapic *apic, uint64_t now_ns);
uint32_t vlapic_timer_current(const struct vlapic *apic, uint64_t now_ns);
uint64_t vlapic_timer_deadline(const struct vlapic *apic);
void vlapic_timer_write_lvt(struct vlapic *apic, uint32_t value, uint64_t now_ns);
void vlapic_timer_write_initial(struct vlapic *apic, uint32_t value, uint64_t now_ns);
void vlapic_timer_write_divide(struct vlapic *apic, uint32_t value, uint64_t now_ns);
void vlapic_timer_write_deadline(struct vlapic *apic, uint64_t tsc, uint64_t now_ns);

#endif
