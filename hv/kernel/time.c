/* SPDX-License-Identifier: MIT */
/*
 * Host time. One clock, the invariant TSC; everything else is arithmetic on it. ns = ticks * ns_per_tick in 32.32, with
 * a 128-bit product, so it neither overflows nor drifts.
 *
 * Calibration without CPUID 15H compares the TSC with the ACPI PM timer (3.579545 MHz). A disturbance (an SMI, a busy
 * emulator) between the two reads of a pair spoils it, so each pair of reads is bracketed, and the tightest bracket wins.
 */
#include "kernel/time.h"

#include "kernel/cpu.h"
#include "kernel/log.h"

#define PM_TIMER_HZ 3579545ull
#define PIT_HZ 1193182ull
#define CALIBRATION_PM_TICKS 17898 /* 5 ms */
#define CALIBRATION_LIMIT_TICKS UINT64_C(1000000000) /* of the TSC: more than 100 ms on any CPU */

static uint64_t tsc_khz;
static uint64_t tsc_base;
static uint64_t ns_per_tick;  /* 32.32 */
static uint64_t ticks_per_ns; /* 32.32 */
static uint64_t unix_base_ns;

static uint64_t mul_shift32(uint64_t value, uint64_t factor)
{
    return (uint64_t)((unsigned __int128)value * factor >> 32);
}

/* Reads the counter and the TSC as close together as this machine lets us: the tightest of eight tries. */
static uint32_t read_pair(uint16_t port, uint64_t *tsc)
{
    uint64_t best = UINT64_MAX;
    uint32_t value = 0;

    for (unsigned i = 0; i < 8; i++) {
        uint64_t before = rdtsc_ordered();
        uint32_t pm = in32(port);
        uint64_t after = rdtsc_ordered();
        if (after - before < best) {
            best = after - before;
            value = pm;
            *tsc = before + (after - before) / 2;
        }
    }
    return value & 0xffffff;
}

static uint64_t calibrate_pm(uint16_t port)
{
    uint64_t start_tsc, end_tsc;
    uint32_t start = read_pair(port, &start_tsc), elapsed;

    do {
        elapsed = (in32(port) - start) & 0xffffff;
        if (rdtsc() - start_tsc > CALIBRATION_LIMIT_TICKS)
            return 0; /* it stands still */
    } while (elapsed < CALIBRATION_PM_TICKS);
    elapsed = (read_pair(port, &end_tsc) - start) & 0xffffff;
    return (end_tsc - start_tsc) * PM_TIMER_HZ / elapsed / 1000;
}

/* Channel 2 in mode 0, gated by port 61H: counts down from 5966 (5 ms), then OUT goes high. */
static uint64_t calibrate_pit(void)
{
    const uint16_t count = 5966;

    out8(0x61, (uint8_t)((in8(0x61) & ~2u) | 1));
    out8(0x43, 0xb0);
    out8(0x42, count & 0xff);
    uint64_t start = rdtsc();
    out8(0x42, count >> 8);
    while (!(in8(0x61) & 0x20))
        if (rdtsc() - start > 100000000000ull)
            panic("time: neither CPUID, nor a PM timer, nor the 8254 tells the TSC's frequency");
    return (rdtsc() - start) * PIT_HZ / count / 1000;
}

void time_init(uint16_t pm_timer_port, uint64_t unix_time_s, uint64_t tsc_at_exit)
{
    const char *source = "CPUID";

    if (cpuid(0, 0).eax >= 0x15) {
        struct cpuid_regs r = cpuid(0x15, 0);
        if (r.eax && r.ebx && r.ecx)
            tsc_khz = (uint64_t)r.ecx * r.ebx / r.eax / 1000;
    }
    if (!tsc_khz && pm_timer_port) {
        tsc_khz = calibrate_pm(pm_timer_port);
        source = "ACPI PM timer";
    }
    if (!tsc_khz) {
        tsc_khz = calibrate_pit();
        source = "8254";
    }
    ns_per_tick = (1000000ull << 32) / tsc_khz;
    ticks_per_ns = (tsc_khz << 32) / 1000000;
    tsc_base = tsc_at_exit;
    unix_base_ns = unix_time_s * NS_PER_S;
    log_info("time: TSC at %lu kHz (%s)%s", tsc_khz, source, cpu_features.invariant_tsc ? "" : ", not marked invariant");
}

uint64_t time_tsc_khz(void)
{
    return tsc_khz;
}

uint64_t time_tsc_to_ns(uint64_t tsc)
{
    return tsc <= tsc_base ? 0 : mul_shift32(tsc - tsc_base, ns_per_tick);
}

uint64_t time_now_ns(void)
{
    return time_tsc_to_ns(rdtsc());
}

uint64_t time_ns_to_tsc(uint64_t ns)
{
    if (ns == TIME_NEVER)
        return UINT64_MAX;
    /*
     * The exact inverse of time_tsc_to_ns, rounded up: at the returned value the clock shows ns or more. With a factor
     * of its own the two would drift apart with uptime, and a timer would fire too early again and again.
     */
    unsigned __int128 scaled = (unsigned __int128)ns << 32;
    if (scaled >> 64 >= ns_per_tick)
        return UINT64_MAX - 1;
    uint64_t ticks, rest;
    __asm__("divq %4" : "=a"(ticks), "=d"(rest) : "a"((uint64_t)scaled), "d"((uint64_t)(scaled >> 64)), "r"(ns_per_tick) : "cc");
    ticks += rest != 0;
    return ticks > UINT64_MAX - 1 - tsc_base ? UINT64_MAX - 1 : tsc_base + ticks;
}

uint64_t time_ticks_to_ns(uint64_t ticks)
{
    unsigned __int128 ns = (unsigned __int128)ticks * ns_per_tick >> 32;

    return ns >> 64 ? UINT64_MAX : (uint64_t)ns;
}

uint64_t time_unix_ns(void)
{
    return unix_base_ns + time_now_ns();
}

void time_spin_ns(uint64_t ns)
{
    uint64_t start = rdtsc(), ticks = mul_shift32(ns, ticks_per_ns);
    while (rdtsc() - start < ticks)
        cpu_pause();
}
