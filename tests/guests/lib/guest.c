/* SPDX-License-Identifier: MIT */
/* The library of the small guests (guest.h): serial output, results, memory, ACPI's list of CPUs, time. */
#include "guest.h"

#define COM1 0x3f8
#define PM1_CONTROL 0x604
#define MSR_TSC_FREQUENCY 0x40000022u

uint32_t guest_boot_magic, guest_boot_info; /* set by guest_entry */
void guest_interrupts_init(void);
void guest_start(void);
extern char guest_end[];

static char command_line[512];
static uint64_t passed, failed, ram_end, module_start, module_end;
static uint64_t tsc_hz;

/* ---- Small library ---- */

void *memset(void *to, int byte, size_t count)
{
    void *d = to;
    __asm__ volatile("rep stosb" : "+D"(d), "+c"(count) : "a"(byte) : "memory");
    return to;
}

void *memcpy(void *to, const void *from, size_t count)
{
    void *d = to;
    __asm__ volatile("rep movsb" : "+D"(d), "+S"(from), "+c"(count) : : "memory");
    return to;
}

void *memmove(void *to, const void *from, size_t count)
{
    uint8_t *d = to;
    const uint8_t *s = from;
    if (d <= s || d >= s + count)
        return memcpy(to, from, count);
    while (count--)
        d[count] = ((const volatile uint8_t *)s)[count];
    return to;
}

int memcmp(const void *a, const void *b, size_t count)
{
    const uint8_t *p = a, *q = b;
    for (; count; count--, p++, q++)
        if (*p != *q)
            return *p - *q;
    return 0;
}

size_t strlen(const char *text)
{
    const volatile char *p = text;
    while (*p)
        p++;
    return (size_t)((const char *)p - text);
}

int strncmp(const char *a, const char *b, size_t count)
{
    for (; count; count--, a++, b++)
        if (*a != *b || !*a)
            return (uint8_t)*a - (uint8_t)*b;
    return 0;
}

uint64_t guest_random(uint64_t *state)
{
    uint64_t x = *state;
    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    *state = x;
    return x * 0x2545f4914f6cdd1dull;
}

/* ---- Serial output ---- */

static unsigned fifo_room;

static void put(char c)
{
    if (!fifo_room) {
        while (!(inb(COM1 + 5) & 0x20))
            cpu_pause();
        fifo_room = 16;
    }
    fifo_room--;
    outb(COM1, (uint8_t)c);
}

void guest_puts(const char *text)
{
    for (; *text; text++) {
        if (*text == '\n')
            put('\r');
        put(*text);
    }
}

static void put_number(uint64_t value, unsigned base, bool negative, unsigned width, bool zero, bool left)
{
    char digits[24];
    unsigned count = 0;
    do
        digits[count++] = "0123456789abcdef"[value % base];
    while (value /= base);
    unsigned length = count + negative;
    if (!zero && !left)
        for (; width > length; width--)
            put(' ');
    if (negative)
        put('-');
    if (zero && !left)
        for (; width > length; width--)
            put('0');
    while (count)
        put(digits[--count]);
    if (left)
        for (; width > length; width--)
            put(' ');
}

static void vprint(const char *f, va_list args)
{
    for (; *f; f++) {
        if (*f != '%') {
            put(*f);
            continue;
        }
        bool zero = false, left = false, wide = false;
        unsigned width = 0;
        for (f++; *f == '0' || *f == '-'; f++)
            *f == '0' ? (zero = true) : (left = true);
        for (; *f >= '0' && *f <= '9'; f++)
            width = width * 10 + (unsigned)(*f - '0');
        for (; *f == 'l'; f++)
            wide = true;
        if (*f == 'd') {
            int64_t v = wide ? va_arg(args, int64_t) : va_arg(args, int);
            put_number(v < 0 ? 0 - (uint64_t)v : (uint64_t)v, 10, v < 0, width, zero, left);
        } else if (*f == 'u' || *f == 'x') {
            uint64_t v = wide ? va_arg(args, uint64_t) : va_arg(args, unsigned);
            put_number(v, *f == 'u' ? 10 : 16, false, width, zero, left);
        } else if (*f == 'p') {
            put_number((uint64_t)va_arg(args, void *), 16, false, width, zero, left);
        } else if (*f == 'c') {
            put((char)va_arg(args, int));
        } else if (*f == 's') {
            const char *s = va_arg(args, const char *);
            size_t length = strlen(s);
            guest_puts(s);
            for (; width > length; width--)
                put(' ');
        } else if (*f) {
            put(*f);
        } else {
            return;
        }
    }
}

void guest_printf(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vprint(format, args);
    va_end(args);
}

void guest_note(const char *format, ...)
{
    va_list args;
    guest_puts("note ");
    va_start(args, format);
    vprint(format, args);
    va_end(args);
    guest_puts("\n");
}

bool guest_equal(const char *text, uint64_t want, uint64_t got)
{
    if (want == got) {
        passed++;
        guest_printf("ok %s\r\n", text);
        return true;
    }
    failed++;
    guest_printf("fail %s: expected 0x%lx, got 0x%lx\r\n", text, want, got);
    return false;
}

bool guest_check(const char *text, bool condition)
{
    return guest_equal(text, 1, condition);
}

void guest_halt(void)
{
    for (;;)
        __asm__ volatile("cli; hlt");
}

/* SLP_TYP 5 (soft off) and SLP_EN (ACPI 6.4, 4.8.3.2.1). */
void guest_power_off(void)
{
    outw(PM1_CONTROL, 5 << 10 | 1 << 13);
    guest_halt();
}

void guest_finish(void)
{
    guest_printf("done %lu passed %lu failed\r\n", passed, failed);
    guest_power_off();
}

/* ---- Command line, memory, module: what Multiboot tells (specification 0.6.96, 3.3) ---- */

static void read_boot_info(void)
{
    const uint32_t *info = (const uint32_t *)(uint64_t)guest_boot_info;
    if (guest_boot_magic != 0x2badb002)
        return;
    if (info[0] & BIT(0))
        ram_end = 0x100000 + (uint64_t)info[2] * 1024;
    if (info[0] & BIT(2)) {
        const char *text = (const char *)(uint64_t)info[4];
        for (unsigned i = 0; i < sizeof(command_line) - 1 && text[i]; i++)
            command_line[i] = text[i];
    }
    if ((info[0] & BIT(3)) && info[5]) {
        const uint32_t *module = (const uint32_t *)(uint64_t)info[6];
        module_start = module[0];
        module_end = module[1];
    }
}

const char *guest_argument(const char *key)
{
    static char value[64];
    size_t length = strlen(key);
    for (const char *p = command_line; *p; p++) {
        if ((p == command_line || p[-1] == ' ') && !strncmp(p, key, length) && p[length] == '=') {
            unsigned i = 0;
            for (p += length + 1; *p && *p != ' ' && i < sizeof(value) - 1; p++)
                value[i++] = *p;
            value[i] = 0;
            return value;
        }
    }
    return NULL;
}

uint64_t guest_argument_number(const char *key, uint64_t otherwise)
{
    const char *text = guest_argument(key);
    uint64_t number = 0;
    if (!text)
        return otherwise;
    for (; *text >= '0' && *text <= '9'; text++)
        number = number * 10 + (uint64_t)(*text - '0');
    return number;
}

uint64_t guest_ram_end(void)
{
    return ram_end;
}

uint64_t guest_program_end(void)
{
    uint64_t end = (uint64_t)guest_end;
    return module_end > end ? (module_end + 0xfff) & ~0xfffull : end;
}

const void *guest_module(uint64_t *bytes)
{
    *bytes = module_end - module_start;
    return module_end ? (const void *)module_start : NULL;
}

/* ---- CPU, ACPI, time ---- */

static bool vendor_is(const char *name)
{
    struct guest_cpuid r = cpuid(0, 0);
    uint32_t text[3] = { r.ebx, r.edx, r.ecx };
    return !memcmp(text, name, 12);
}

bool guest_amd(void)
{
    return vendor_is("AuthenticAMD");
}

bool guest_intel(void)
{
    return vendor_is("GenuineIntel");
}

static uint32_t word_at(uint64_t address)
{
    uint32_t value;
    memcpy(&value, (const void *)address, sizeof(value));
    return value;
}

/* Counts the enabled processors of the MADT (ACPI 6.4, 5.2.12): types 0 and 9. */
static unsigned count_madt(uint64_t table)
{
    unsigned count = 0;
    const uint8_t *end = (const uint8_t *)table + word_at(table + 4);
    for (const uint8_t *p = (const uint8_t *)table + 44; p + 2 <= end && p[1]; p += p[1])
        count += (p[0] == 0 && (p[4] & 1)) || (p[0] == 9 && (p[8] & 1));
    return count;
}

unsigned guest_cpu_count(void)
{
    for (uint64_t at = 0xe0000; at < 0x100000; at += 16) {
        if (memcmp((const void *)at, "RSD PTR ", 8))
            continue;
        uint64_t rsdt = word_at(at + 16);
        for (uint64_t i = 36; i + 4 <= word_at(rsdt + 4); i += 4)
            if (!memcmp((const void *)(uint64_t)word_at(rsdt + i), "APIC", 4))
                return count_madt(word_at(rsdt + i));
    }
    return 1;
}

uint64_t guest_tsc_hz(void)
{
    if (!tsc_hz)
        tsc_hz = rdmsr(MSR_TSC_FREQUENCY);
    return tsc_hz;
}

void guest_delay_us(uint64_t us)
{
    uint64_t began = rdtsc(), ticks = guest_tsc_hz() / 1000000 * us;
    while (rdtsc() - began < ticks)
        cpu_pause();
}

bool guest_wait(const volatile uint64_t *flag, uint64_t value, uint64_t timeout_us)
{
    uint64_t began = rdtsc(), ticks = guest_tsc_hz() / 1000000 * timeout_us;
    while (*flag < value)
        if (rdtsc() - began >= ticks)
            return *flag >= value;
        else
            cpu_pause();
    return true;
}

void guest_start(void)
{
    read_boot_info();
    guest_interrupts_init();
    outb(COM1 + 1, 0);
    outb(COM1 + 3, 3);
    outb(COM1 + 2, 7);
    guest_printf("guest %s\r\n", GUEST_NAME);
    guest_main();
    guest_finish();
}
