/* SPDX-License-Identifier: MIT */
/*
 * The PC's other clocks: PIT, RTC, ACPI PM timer, and the Hyper-V clocks, which must tell the same time as the TSC.
 * Interrupts come through the 8259 first, then through the IOAPIC.
 */
#include "guest.h"

#define PM_TIMER 0x608
#define PM_HZ 3579545ull
#define PIT_HZ 1193182ull
#define IOAPIC 0xfec00000ull
#define PIC_BASE 0x30
#define IOAPIC_VECTOR 0x70

static volatile uint64_t pit_count, rtc_count, level_count;
static bool through_ioapic;

static void eoi(unsigned irq)
{
    if (through_ioapic) {
        apic_eoi();
        return;
    }
    if (irq >= 8)
        outb(0xa0, 0x20);
    outb(0x20, 0x20);
}

static void on_pit(struct guest_frame *frame)
{
    (void)frame;
    pit_count++;
    eoi(0);
}

static uint8_t cmos(uint8_t index)
{
    outb(0x70, index);
    return inb(0x71);
}

static void on_rtc(struct guest_frame *frame)
{
    (void)frame;
    (void)cmos(0x0c);
    rtc_count++;
    eoi(8);
}

static void pic_init(void)
{
    outb(0x20, 0x11);
    outb(0xa0, 0x11);
    outb(0x21, PIC_BASE);
    outb(0xa1, PIC_BASE + 8);
    outb(0x21, 4);
    outb(0xa1, 2);
    outb(0x21, 1);
    outb(0xa1, 1);
    outb(0x21, 0xff);
    outb(0xa1, 0xff);
}

static void ioapic_write(unsigned reg, uint32_t value)
{
    mmio_write32(IOAPIC, reg);
    mmio_write32(IOAPIC + 16, value);
}

static uint32_t ioapic_read(unsigned reg)
{
    mmio_write32(IOAPIC, reg);
    return mmio_read32(IOAPIC + 16);
}

static uint64_t us(uint64_t ticks)
{
    return ticks * 1000000 / guest_tsc_hz();
}

/* One clock's time lies between two of another's, whose rates may differ by a thousandth. */
static bool framed(uint64_t low, uint64_t value, uint64_t high)
{
    return value + value / 1000 + 1 >= low && value <= high + high / 1000 + 1;
}

static bool wait_count(volatile uint64_t *count, uint64_t value)
{
    uint64_t began = rdtsc();
    while (*count < value && rdtsc() - began < 10 * guest_tsc_hz())
        wait_for_interrupt();
    return *count >= value;
}

static void pit_periodic(const char *text)
{
    unsigned divisor = PIT_HZ / 500; /* 2 ms */
    outb(0x43, 0x34);
    outb(0x40, divisor & 0xff);
    outb(0x40, divisor >> 8);
    pit_count = 0;
    (void)wait_count(&pit_count, 1);
    uint64_t began = rdtsc();
    (void)wait_count(&pit_count, 26);
    uint64_t took = us(rdtsc() - began);
    guest_check(text, pit_count >= 26);
    guest_check("and 25 periods are not shorter than 50 ms", took >= 46000);
    outb(0x43, 0x30); /* mode 0 stops it */
    outb(0x40, 0);
    outb(0x40, 0);
}

static void rtc_periodic(const char *text)
{
    outb(0x70, 0x0a);
    outb(0x71, 0x26); /* 1024 Hz */
    outb(0x70, 0x0b);
    outb(0x71, 0x42); /* periodic interrupts, 24 hours, BCD */
    (void)cmos(0x0c);
    rtc_count = 0;
    guest_check(text, wait_count(&rtc_count, 10));
    outb(0x70, 0x0b);
    outb(0x71, 0x02);
    (void)cmos(0x0c);
}

static void clocks_agree(void)
{
    wrmsr(0x40000000, 1);
    static uint8_t reference[4096] __attribute__((aligned(4096)));
    wrmsr(0x40000021, (uint64_t)reference | 1);
    volatile uint64_t *scale = (uint64_t *)(reference + 8), *offset = (uint64_t *)(reference + 16);
    guest_check("the reference TSC page is usable", *(volatile uint32_t *)reference != 0);
    uint64_t wrong = 0, early = 0;
    for (unsigned i = 0; i < 200; i++) {
        uint64_t before = rdtsc(), count = rdmsr(0x40000020), after = rdtsc();
        uint64_t low = (uint64_t)(((unsigned __int128)before * *scale) >> 64) + *offset;
        uint64_t high = (uint64_t)(((unsigned __int128)after * *scale) >> 64) + *offset;
        early += count < low;
        wrong += count > high;
    }
    guest_equal("reference count is never behind the page", 0, early);
    guest_equal("nor before it", 0, wrong);
    guest_check("TSC frequency is plausible", guest_tsc_hz() > 10000000 && guest_tsc_hz() < 20000000000ull);

    /* 100 ms by each clock. A reading is framed by the TSC: between the frames passed what the clock says. */
    uint64_t ref_before[2], ref_after[2], ref[2], pm_before[2], pm_after[2];
    uint32_t pm[2];
    for (unsigned i = 0; i < 2; i++) {
        if (i)
            guest_delay_us(100000);
        ref_before[i] = rdtsc();
        ref[i] = rdmsr(0x40000020);
        ref_after[i] = rdtsc();
        pm_before[i] = rdtsc();
        pm[i] = inl(PM_TIMER);
        pm_after[i] = rdtsc();
    }
    guest_check("reference time agrees with the TSC",
                framed(us(ref_before[1] - ref_after[0]), (ref[1] - ref[0]) / 10, us(ref_after[1] - ref_before[0])));
    guest_check("PM timer agrees with the TSC",
                framed(us(pm_before[1] - pm_after[0]), (uint32_t)(pm[1] - pm[0]) * 1000000ull / PM_HZ,
                       us(pm_after[1] - pm_before[0])));

    /* PIT channel 2, one-shot of 20 ms, gated by port 0x61. */
    outb(0x61, (uint8_t)((inb(0x61) & ~3) | 0));
    outb(0x43, 0xb0);
    outb(0x42, (uint8_t)(PIT_HZ / 50));
    outb(0x42, (uint8_t)((PIT_HZ / 50) >> 8));
    uint64_t before = rdtsc();
    outb(0x61, (uint8_t)((inb(0x61) & ~3) | 1));
    uint64_t after = rdtsc(), running = after, over;
    for (;;) {
        uint64_t asked = rdtsc();
        bool out = inb(0x61) & 0x20;
        over = rdtsc();
        if (out || over - before > guest_tsc_hz())
            break;
        running = asked;
    }
    guest_note("PIT channel 2: 20 ms took %lu to %lu us by the TSC", us(running - after), us(over - before));
    guest_check("PIT channel 2 agrees with the TSC", framed(us(running - after), 20000, us(over - before)));
    uint32_t last = inl(PM_TIMER);
    bool forward = true;
    for (unsigned i = 0; i < 1000; i++) {
        uint32_t now = inl(PM_TIMER);
        forward &= now - last < 0x80000000u;
        last = now;
    }
    guest_check("the PM timer only goes forward", forward);
}

static unsigned rtc_second(void)
{
    uint8_t bcd = cmos(0);
    return bcd / 16u * 10 + bcd % 16u;
}

static void rtc_time(void)
{
    while (cmos(0x0a) & 0x80)
        ;
    uint8_t century = cmos(0x32), year = cmos(0x09), month = cmos(0x08), day = cmos(0x07), hour = cmos(0x04);
    guest_note("RTC: %x%02x-%02x-%02x %02x h", century, year, month, day, hour);
    guest_check("the RTC has a date of this century",
                century == 0x20 && month >= 1 && month <= 0x12 && day >= 1 && day <= 0x31);
    uint64_t before[2], after[2];
    unsigned second[3] = { rtc_second() };
    for (unsigned i = 0; i < 2; i++) {
        uint64_t asked, began = rdtsc();
        before[i] = began;
        while ((asked = rdtsc()), (second[i + 1] = rtc_second()) == second[i] && asked - began < 3 * guest_tsc_hz())
            before[i] = asked;
        after[i] = rdtsc();
    }
    unsigned seconds = (second[2] + 60 - second[1]) % 60; /* 1, where nothing kept the guest from seeing each */
    guest_note("RTC: %u s took %lu to %lu us by the TSC", seconds, us(before[1] - after[0]), us(after[1] - before[0]));
    guest_check("its seconds are the TSC's", second[1] != second[0] && seconds &&
                framed(us(before[1] - after[0]), seconds * 1000000, us(after[1] - before[0])));
}

/* The clock's registers hold BCD and 24 hours, as they came up. */
static void rtc_set(const uint8_t time[7])
{
    static const uint8_t registers[] = { 0x32, 0x09, 0x08, 0x07, 0x04, 0x02, 0x00 };

    outb(0x70, 0x0b);
    outb(0x71, 0x82);
    for (unsigned i = 0; i < COUNT(registers); i++) {
        outb(0x70, registers[i]);
        outb(0x71, time[i]);
    }
    outb(0x70, 0x0b);
    outb(0x71, 0x02);
}

static void rtc_write(void)
{
    static const uint8_t eve[] = { 0x20, 0x28, 0x02, 0x28, 0x23, 0x59, 0x58 };
    uint64_t began = rdtsc();

    rtc_set(eve);
    guest_equal("the RTC takes a date: year", 0x2028, (uint64_t)cmos(0x32) << 8 | cmos(0x09));
    guest_equal("and a time: minute", 0x59, cmos(0x02));
    while (cmos(0x07) != 0x29 && rdtsc() - began < 5 * guest_tsc_hz())
        ;
    guest_check("two seconds before midnight it is the next day after two seconds",
                us(rdtsc() - began) > 900000 && us(rdtsc() - began) < 2200000);
    guest_equal("2028 is a leap year: 29 February, 0 h", 0x022900,
                (uint64_t)cmos(0x08) << 16 | (uint64_t)cmos(0x07) << 8 | cmos(0x04));
}

static void ioapic(void)
{
    through_ioapic = true;
    guest_handlers[IOAPIC_VECTOR] = on_pit;
    guest_handlers[IOAPIC_VECTOR + 8] = on_rtc;
    unsigned pins = (ioapic_read(1) >> 16 & 0xff) + 1;
    guest_check("the IOAPIC has 24 pins", pins == 24);
    for (unsigned i = 0; i < pins; i++)
        guest_check("an entry comes up masked", ioapic_read(0x10 + 2 * i) & BIT(16));
    ioapic_write(0x10 + 2 * 2, IOAPIC_VECTOR);
    ioapic_write(0x11 + 2 * 2, 0);
    ioapic_write(0x10 + 2 * 8, IOAPIC_VECTOR + 8);
    ioapic_write(0x11 + 2 * 8, 0);
    pit_periodic("PIT interrupts through the IOAPIC");
    rtc_periodic("RTC interrupts through the IOAPIC");
    ioapic_write(0x10 + 2 * 2, IOAPIC_VECTOR | (uint32_t)BIT(16));
    ioapic_write(0x10 + 2 * 8, (IOAPIC_VECTOR + 8) | (uint32_t)BIT(16));
}

void guest_main(void)
{
    pic_init();
    guest_handlers[PIC_BASE] = on_pit;
    guest_handlers[PIC_BASE + 8] = on_rtc;
    outb(0x21, 0xfa); /* IRQ 0 and the cascade */
    outb(0xa1, 0xfe);
    pit_periodic("PIT interrupts through the 8259");
    rtc_periodic("RTC interrupts through the 8259");
    outb(0x21, 0xff);
    outb(0xa1, 0xff);
    apic_enable();
    ioapic();
    clocks_agree();
    rtc_time();
    rtc_write();
}
