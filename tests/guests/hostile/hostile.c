/* SPDX-License-Identifier: MIT */
/*
 * A guest that means harm, in the ways that means= names (all that it can survive by default):
 *     msr      any value to any MSR          port     any value to any port
 *     memory   addresses outside its RAM     devices  nonsense in virtio queues
 *     opcodes  random instructions whose operands lie in device memory
 * and those that end it, one way or another:
 *     triple   a triple fault                spin     an endless loop, interrupts off
 *     walk     page tables outside RAM       fetch    code outside RAM
 *     init     INIT to itself                hlt      HLT, interrupts off
 *     stack    a stack outside RAM
 * It is the neighbour and the node that a test looks at; here only what the guest can see of its own cage is checked.
 */
#include "hostile.h"

uint64_t hostile_seed = 0x1234567;
static uint8_t scratch[8192] __attribute__((aligned(4096)));

uint64_t nasty(void)
{
    uint64_t r = any();
    switch (r & 7) {
    case 0: return r >> 8 & 0xff;
    case 1: return UINT64_MAX;
    case 2: return BIT(r >> 8 & 63);
    case 3: return guest_ram_end() - 16 + (r >> 8 & 31);
    case 4: return (r >> 8) % (guest_ram_end() * 2);
    case 5: return 0xfee00000 + (r >> 8 & 0xfff);
    case 6: return r >> 32;
    default: return r;
    }
}

/* ---- MSRs ---- */

/* The three that name a page which the hypervisor then writes get one of no importance, or one outside RAM. */
static uint64_t msr_value(uint32_t msr)
{
    uint64_t value = nasty();
    if (msr == 0x40000001 || msr == 0x40000021 || msr == 0x40000073)
        return (any() & 1 ? (uint64_t)scratch : guest_ram_end() + (value & ~0xfffull)) | (value & 0xfff);
    if (msr == 0x830) /* ICR: not an INIT to itself */
        return value & ~0x500ull;
    return value;
}

static void touch_msr(uint32_t msr)
{
    uint64_t value;
    (void)guest_rdmsr(msr, &value);
    (void)guest_wrmsr(msr, msr_value(msr));
}

static void msrs(void)
{
    static const struct { uint32_t first, last; } ranges[] = {
        { 0, 0x17f },
        { 0x180, 0x7ff },
        { 0x800, 0x8ff },
        { 0xc00, 0xdff },
        { 0x40000000, 0x40000110 },
        { 0xc0000000, 0xc0000110 },
        { 0xc0010000, 0xc0010150 },
        { 0xc0011000, 0xc0011050 },
    };
    for (unsigned i = 0; i < COUNT(ranges); i++)
        for (uint32_t msr = ranges[i].first; msr <= ranges[i].last; msr++)
            touch_msr(msr);
    for (unsigned i = 0; i < 1000; i++)
        touch_msr((uint32_t)any());
    guest_check("it is in long mode still after any value to any MSR", (rdmsr(0xc0000080) & 0x500) == 0x500);
    wrmsr(0x277, 0x0007040600070406);
    (void)guest_wrmsr(MSR_APIC_BASE, APIC_PAGE | BIT(8));
    (void)guest_wrmsr(MSR_APIC_BASE, APIC_PAGE | BIT(8) | BIT(11));
}

/* ---- Ports ---- */

/* Not those that end the guest at once, nor the serial port that tells of it. */
static bool spared(uint32_t port)
{
    return (port >= 0x5fd && port <= 0x60f) || (port >= 0x3f5 && port <= 0x3ff) || (port >= 0x61 && port <= 0x64) ||
           (port >= 0x8f && port <= 0x92) || (port >= 0xcf5 && port <= 0xcf9);
}

static void ports(void)
{
    for (uint32_t port = 0; port < 0x10000; port += port < 0x1000 ? 1 : 1 + (any() & 7)) {
        uint64_t value = nasty();
        if (spared(port))
            continue;
        switch (any() % 3) {
        case 0: (void)inb((uint16_t)port); outb((uint16_t)port, (uint8_t)value); break;
        case 1: (void)inw((uint16_t)port); outw((uint16_t)port, (uint16_t)value); break;
        default: (void)inl((uint16_t)port); outl((uint16_t)port, (uint32_t)value); break;
        }
    }
    /* PCI configuration space of every function, registers at random. */
    for (unsigned i = 0; i < 3000; i++) {
        outl(0xcf8, 0x80000000u | (uint32_t)(any() & 0xfffffc));
        (void)inl(0xcfc);
        outl(0xcfc, (uint32_t)nasty());
    }
    guest_check("any value to any port", true);
}

/* ---- Memory that is not there ---- */

extern volatile uint64_t guest_pml4[512];
static volatile uint64_t far_pdpt[512] __attribute__((aligned(4096))), far_pd[512] __attribute__((aligned(4096)));
#define FAR_WINDOW (1ull << 39)

/* A window of 2 MiB on any guest physical address, at FAR_WINDOW. */
static volatile uint8_t *far_map(uint64_t gpa)
{
    guest_pml4[1] = (uint64_t)far_pdpt | 7;
    far_pdpt[0] = (uint64_t)far_pd | 7;
    far_pd[0] = (gpa & ~0x1fffffull) | 0x87;
    __asm__ volatile("invlpg (%0)" : : "r"(FAR_WINDOW) : "memory");
    return (volatile uint8_t *)(FAR_WINDOW | (gpa & 0x1fffff));
}

static void poke(void *argument)
{
    volatile uint8_t *p = argument;
    (void)*(volatile uint64_t *)p;
    *(volatile uint64_t *)p = 0xbadbadbadbadbadull;
    *p = 0x5a;
    __asm__ volatile("lock xaddq %0, %1" : : "r"(1ull), "m"(*(volatile uint64_t *)p) : "memory");
}

static void memory(void)
{
    unsigned bits = cpuid(0x80000008, 0).eax & 0xff;
    uint64_t end = guest_ram_end(), stray = 0;
    for (unsigned i = 0; i < 400; i++) {
        uint64_t gpa = i < 100   ? end + i * 4096
                       : i < 200 ? BIT(bits) - 8 - i * 0x40000000ull
                                 : (any() & (BIT(bits) - 1)) & ~7ull;
        if (gpa < end || (gpa >= 0xe0000000 && gpa < 0x100000000))
            continue;
        volatile uint64_t *p = (volatile uint64_t *)far_map(gpa);
        struct guest_fault fault = guest_try(poke, (void *)p);
        stray += fault.vector == -1 && *p != UINT64_MAX;
    }
    guest_equal("where no RAM is, writes vanish and reads give ones", 0, stray);
    far_pd[0] = BIT(51) | 0x87; /* beyond the CPU's physical addresses */
    __asm__ volatile("invlpg (%0)" : : "r"(FAR_WINDOW) : "memory");
    guest_equal("a reserved physical address bit is a page fault", 14,
                (uint64_t)guest_try(poke, (void *)FAR_WINDOW).vector);
    /* Across the end of RAM. */
    volatile uint8_t *edge = far_map(end - 4);
    (void)guest_try(poke, (void *)edge);
    for (unsigned i = 0; i < 64; i++) {
        uint64_t from = end - 64 + i, to = end + i, count = 128;
        __asm__ volatile("rep movsb" : "+S"(from), "+D"(to), "+c"(count) : : "memory");
    }
    guest_check("copies over the end of RAM", true);
    guest_pml4[1] = 0;
}

/* ---- Ways to end ---- */

static void end_by(const char *how)
{
    static const uint64_t no_idt[2];
    guest_printf("ending by %s\r\n", how);
    interrupts_off();
    if (!strncmp(how, "triple", 7))
        __asm__ volatile("lidt %0; int3" : : "m"(no_idt));
    if (!strncmp(how, "spin", 5))
        for (;;)
            __asm__ volatile("" : : : "memory");
    if (!strncmp(how, "walk", 5))
        write_cr3(0xd0000000);
    if (!strncmp(how, "fetch", 6))
        ((void (*)(void))0xd0000000)();
    if (!strncmp(how, "stack", 6))
        __asm__ volatile("movq %0, %%rsp; pushq $1; int3" : : "r"(0xd0001000ull) : "memory");
    if (!strncmp(how, "init", 5))
        apic_send(0, 0x4500);
    guest_halt();
}

static void ignore(struct guest_frame *frame)
{
    (void)frame;
}

static bool wanted(const char *means, const char *word)
{
    return !means || !strncmp(means, word, strlen(word) + 1);
}

void guest_main(void)
{
    const char *given = guest_argument("means");
    char means[16] = "";
    if (given) {
        memcpy(means, given, sizeof(means) - 1);
        given = means;
    }
    hostile_seed += guest_argument_number("seed", 0);
    guest_handlers[2] = ignore;
    for (unsigned i = 32; i < 256; i++)
        guest_handlers[i] = ignore;
    if (wanted(given, "memory"))
        memory();
    if (wanted(given, "devices"))
        hostile_devices();
    if (wanted(given, "msr"))
        msrs();
    if (wanted(given, "port"))
        ports();
    if (wanted(given, "opcodes"))
        hostile_opcodes(guest_argument_number("count", 3000));
    if (given && !wanted(given, "memory") && !wanted(given, "devices") && !wanted(given, "msr") &&
        !wanted(given, "port") && !wanted(given, "opcodes"))
        end_by(means);
}
