/* SPDX-License-Identifier: MIT */
/*
 * INS and OUTS, and string moves to and from device memory: every size, both directions, with REP, over a page's end,
 * and stopped by a page fault in the middle. The port is the CMOS (a byte that keeps what is written), the device page
 * the IOAPIC's, whose index register does likewise.
 */
#include "guest.h"

#define WINDOW (1ull << 39)
#define IOAPIC 0xfec00000ull
#define CMOS_BYTE 0x40

extern volatile uint64_t guest_pml4[512];
static volatile uint64_t pdpt[512] __attribute__((aligned(4096))), pd[512] __attribute__((aligned(4096))),
    pt[512] __attribute__((aligned(4096)));
static uint8_t pages[8192] __attribute__((aligned(4096)));

/* Pages of the window; two that are side by side there lie apart in RAM. */
static uint8_t *map(unsigned index, uint64_t entry)
{
    guest_pml4[1] = (uint64_t)pdpt | 7;
    pdpt[0] = (uint64_t)pd | 7;
    pd[0] = (uint64_t)pt | 7;
    pt[index] = entry;
    uint8_t *at = (uint8_t *)(WINDOW + index * 4096ull);
    __asm__ volatile("invlpg (%0)" : : "r"(at) : "memory");
    return at;
}

static void set_cmos(uint8_t value)
{
    outb(0x70, CMOS_BYTE);
    outb(0x71, value);
}

struct string { uint64_t di, si, count; uint16_t port; unsigned size; bool in; };

/* One REP INS or REP OUTS; the registers after it. */
static void string_io(void *argument)
{
    struct string *s = argument;
#define ONE(width, suffix)                                                                                             \
    if (s->size == width && s->in)                                                                                     \
        __asm__ volatile("rep ins" suffix : "+D"(s->di), "+c"(s->count) : "d"(s->port) : "memory");                    \
    if (s->size == width && !s->in)                                                                                    \
        __asm__ volatile("rep outs" suffix : "+S"(s->si), "+c"(s->count) : "d"(s->port) : "memory")
    ONE(1, "b");
    ONE(2, "w");
    ONE(4, "l");
#undef ONE
}

static void ins(void)
{
    uint8_t *low = map(0, (uint64_t)pages + 4096 + 3), *high = map(1, (uint64_t)pages + 3);
    (void)high;
    set_cmos(0xa7);
    memset(pages, 0x11, sizeof(pages));
    struct string s = { .di = (uint64_t)low + 4090, .count = 12, .port = 0x71, .size = 1, .in = true };
    string_io(&s);
    guest_equal("REP INSB over a page's end: RDI", (uint64_t)low + 4102, s.di);
    guest_equal("RCX", 0, s.count);
    uint64_t wrong = 0;
    for (unsigned i = 0; i < 6; i++)
        wrong += pages[4096 + 4090 + i] != 0xa7;
    for (unsigned i = 0; i < 6; i++)
        wrong += pages[i] != 0xa7;
    wrong += pages[6] != 0x11 || pages[4096 + 4089] != 0x11;
    guest_equal("its bytes, and none beside them", 0, wrong);

    s = (struct string){ .di = (uint64_t)low + 16, .count = 3, .port = 0x608, .size = 4, .in = true };
    string_io(&s);
    uint32_t *timer = (uint32_t *)(low + 16);
    guest_check("REP INSL reads the PM timer three times",
                timer[1] - timer[0] < 0x1000000 && timer[2] - timer[1] < 0x1000000);
    guest_equal("REP INSL: RDI", (uint64_t)low + 28, s.di);

    /* Each a word that straddles the page's end. */
    memset(pages, 0x11, sizeof(pages));
    s = (struct string){ .di = (uint64_t)low + 4095, .count = 1, .port = 0xffe0, .size = 2, .in = true };
    string_io(&s);
    guest_equal("INSW that straddles the page's end", 0xffff, pages[4096 + 4095] | pages[0] << 8);

    /* Backwards. */
    memset(pages, 0x11, sizeof(pages));
    s = (struct string){ .di = (uint64_t)low + 4098, .count = 6, .port = 0x71, .size = 1, .in = true };
    outb(0x70, CMOS_BYTE);
    __asm__ volatile("std" : : : "cc");
    string_io(&s);
    __asm__ volatile("cld" : : : "cc");
    guest_equal("REP INSB backwards: RDI", (uint64_t)low + 4092, s.di);
    guest_check("its bytes",
                pages[2] == 0xa7 && pages[4096 + 4093] == 0xa7 && pages[3] == 0x11 && pages[4096 + 4092] == 0x11);

    /* Into a page that is not there. */
    map(1, 0);
    memset(pages, 0x11, sizeof(pages));
    s = (struct string){ .di = (uint64_t)low + 4092, .count = 100, .port = 0x71, .size = 1, .in = true };
    struct guest_fault fault = guest_try(string_io, &s);
    guest_equal("REP INSB into a page that is not there: #PF", 14, (uint64_t)fault.vector);
    guest_equal("CR2", (uint64_t)low + 4096, fault.cr2);
    guest_check("what came before it is there", pages[4096 + 4095] == 0xa7 && pages[4096 + 4092] == 0xa7);
    s = (struct string){ .di = (uint64_t)low + 16, .count = 0, .port = 0x71, .size = 1, .in = true };
    string_io(&s);
    guest_equal("REP with RCX 0 does nothing", (uint64_t)low + 16, s.di);
}

static void outs(void)
{
    uint8_t *low = map(0, (uint64_t)pages + 4096 + 3);
    map(1, (uint64_t)pages + 3);
    for (unsigned i = 0; i < sizeof(pages); i++)
        pages[i] = (uint8_t)(i * 7);
    set_cmos(0);
    struct string s = { .si = (uint64_t)low + 4090, .count = 12, .port = 0x71, .size = 1 };
    outb(0x70, CMOS_BYTE);
    string_io(&s);
    guest_equal("REP OUTSB over a page's end: RSI", (uint64_t)low + 4102, s.si);
    outb(0x70, CMOS_BYTE);
    guest_equal("the last byte is in the port", pages[5], inb(0x71));
    map(1, 0);
    s = (struct string){ .si = (uint64_t)low + 4093, .count = 9, .port = 0x71, .size = 1 };
    outb(0x70, CMOS_BYTE);
    struct guest_fault fault = guest_try(string_io, &s);
    guest_equal("REP OUTSB from a page that is not there: #PF", 14, (uint64_t)fault.vector);
    outb(0x70, CMOS_BYTE);
    guest_equal("the last byte before it went out", pages[4096 + 4095], inb(0x71));
    s = (struct string){ .si = (uint64_t)low, .count = 5, .port = 0x80, .size = 4 };
    string_io(&s);
    guest_equal("REP OUTSL: RSI", (uint64_t)low + 20, s.si);
    s = (struct string){ .si = (uint64_t)low, .count = 5, .port = 0x80, .size = 2 };
    string_io(&s);
    guest_equal("REP OUTSW: RSI", (uint64_t)low + 10, s.si);
}

static void moves(void)
{
    uint64_t di, si, count;
    uint8_t *low = map(0, (uint64_t)pages + 4096 + 3);
    map(1, (uint64_t)pages + 3);
    mmio_write32(IOAPIC, 0x2a);
    /* Device to RAM, over the page's end: the index register again and again, since only whole dwords at 0 answer. */
    memset(pages, 0x11, sizeof(pages));
    di = (uint64_t)low + 4094, si = IOAPIC, count = 1;
    __asm__ volatile("rep movsl" : "+D"(di), "+S"(si), "+c"(count) : : "memory");
    guest_equal("MOVSL from device memory to a place over a page's end", 0x2a,
                pages[4096 + 4094] | (uint32_t)pages[4096 + 4095] << 8 | (uint32_t)pages[0] << 16 |
                    (uint32_t)pages[1] << 24);
    guest_equal("RSI", IOAPIC + 4, si);
    *(uint32_t *)(low + 32) = 0x15;
    di = IOAPIC, si = (uint64_t)low + 32, count = 1;
    __asm__ volatile("rep movsl" : "+D"(di), "+S"(si), "+c"(count) : : "memory");
    guest_equal("MOVSL from RAM to device memory", 0x15, mmio_read32(IOAPIC));
    di = IOAPIC, count = 1;
    __asm__ volatile("rep stosl" : "+D"(di), "+c"(count) : "a"(0x17) : "memory");
    guest_equal("STOSL to device memory", 0x17, mmio_read32(IOAPIC));
    uint32_t value;
    si = IOAPIC;
    __asm__ volatile("lodsl" : "=a"(value), "+S"(si) : : "memory");
    guest_equal("LODSL from device memory", 0x17, value);
    uint8_t equal;
    di = IOAPIC;
    __asm__ volatile("scasl; sete %1" : "+D"(di), "=q"(equal) : "a"(0x17) : "memory", "cc");
    guest_equal("SCASL on device memory", 1, equal);
    *(uint32_t *)(low + 32) = 0x17;
    di = IOAPIC, si = (uint64_t)low + 32;
    __asm__ volatile("cmpsl; sete %2" : "+D"(di), "+S"(si), "=q"(equal) : : "memory", "cc");
    guest_equal("CMPSL on device memory", 1, equal);
    /* Arithmetic and the rest with device memory. */
    mmio_write32(IOAPIC, 0x10);
    __asm__ volatile("addl $3, (%0)" : : "r"(IOAPIC) : "memory", "cc");
    guest_equal("ADD to device memory", 0x13, mmio_read32(IOAPIC));
    value = 0x21;
    __asm__ volatile("xchgl %0, (%1)" : "+r"(value) : "r"(IOAPIC) : "memory");
    guest_equal("XCHG gives the old", 0x13, value);
    guest_equal("XCHG stores the new", 0x21, mmio_read32(IOAPIC));
    __asm__ volatile("lock btsl $1, (%0)" : : "r"(IOAPIC) : "memory", "cc");
    guest_equal("LOCK BTS", 0x23, mmio_read32(IOAPIC));
    value = 0x23;
    __asm__ volatile("lock cmpxchgl %2, (%1)" : "+a"(value) : "r"(IOAPIC), "r"(0x2b) : "memory", "cc");
    guest_equal("LOCK CMPXCHG", 0x2b, mmio_read32(IOAPIC));
    uint64_t wide;
    __asm__ volatile("movzbl (%1), %k0" : "=r"(wide) : "r"(IOAPIC) : "memory");
    guest_equal("MOVZX of a byte", 0x2b, wide & 0xff);
    __asm__ volatile("pushw (%1); popw %w0" : "=r"(wide) : "r"(IOAPIC) : "memory");
    guest_equal("PUSH from device memory", 0x2b, wide & 0xffff);
}

void guest_main(void)
{
    ins();
    outs();
    moves();
}
