/* SPDX-License-Identifier: MIT */
/*
 * Vector state: each CPU fills all registers with a pattern of its own and goes on exiting, halting and being switched
 * beside the others; nothing of it may change, nor may anything of another's appear. Then the same over changes of
 * XCR0. Run with more vCPUs than the machine has CPUs, or beside another VM.
 */
#include "guest.h"

#define AREA_BYTES 4096
#define ROUNDS 300

struct area { uint8_t bytes[AREA_BYTES]; } __attribute__((aligned(64)));
static struct area wanted[GUEST_CPUS], got[GUEST_CPUS];
static volatile uint64_t wrong[GUEST_CPUS], arrived;
static bool have_xsave;
static uint64_t mask;

static uint64_t xcr0_set(uint64_t value)
{
    __asm__ volatile("xsetbv" : : "c"(0), "a"((uint32_t)value), "d"((uint32_t)(value >> 32)) : "memory");
    return value;
}

static uint64_t xcr0_get(void)
{
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
}

static void load(struct area *area)
{
    if (have_xsave)
        __asm__ volatile("xrstor64 %0" : : "m"(*area), "a"((uint32_t)mask), "d"((uint32_t)(mask >> 32)) : "memory");
    else
        __asm__ volatile("fxrstor64 %0" : : "m"(*area) : "memory");
}

static void save(struct area *area)
{
    memset(area, 0, sizeof(*area));
    if (have_xsave)
        __asm__ volatile("xsave64 %0" : "+m"(*area) : "a"((uint32_t)mask), "d"((uint32_t)(mask >> 32)) : "memory");
    else
        __asm__ volatile("fxsave64 %0" : "+m"(*area) : : "memory");
}

static void enable(void)
{
    write_cr0((read_cr0() & ~(BIT(2) | BIT(3))) | BIT(1));
    write_cr4(read_cr4() | BIT(9) | BIT(10));
    if (have_xsave) {
        write_cr4(read_cr4() | BIT(18));
        (void)xcr0_set(mask);
    }
}

/* A pattern in what every area has: MXCSR as at reset, x87 registers, XMM0-15, and the upper halves of YMM0-15. */
static void pattern(struct area *area, uint64_t seed)
{
    memset(area, 0, sizeof(*area));
    *(uint16_t *)area->bytes = 0x37f;
    *(uint32_t *)(area->bytes + 24) = 0x1f80;
    area->bytes[4] = 0xff; /* all x87 registers in use */
    for (unsigned i = 0; i < 8; i++) {
        *(uint64_t *)(area->bytes + 32 + i * 16) = guest_random(&seed) | BIT(63);
        *(uint16_t *)(area->bytes + 40 + i * 16) = 0x3fff;
    }
    for (unsigned i = 160; i < 416; i += 8)
        *(uint64_t *)(area->bytes + i) = guest_random(&seed);
    if (have_xsave) {
        *(uint64_t *)(area->bytes + 512) = mask & 7;
        if (mask & 4)
            for (unsigned i = 576; i < 832; i += 8)
                *(uint64_t *)(area->bytes + i) = guest_random(&seed);
    }
}

static bool same(const struct area *a, const struct area *b)
{
    return !memcmp(a->bytes + 32, b->bytes + 32, 384) &&
           (!(mask & 4) || !memcmp(a->bytes + 576, b->bytes + 576, 256)) &&
           *(const uint32_t *)(a->bytes + 24) == *(const uint32_t *)(b->bytes + 24);
}

static void on_timer(struct guest_frame *frame)
{
    (void)frame;
    apic_eoi();
}

static void work(void *argument)
{
    unsigned me = guest_cpu();
    (void)argument;
    enable();
    apic_enable();
    apic_write(APIC_TIMER_DIVIDE, 0xb);
    apic_write(APIC_LVT_TIMER, 0x60);
    __atomic_add_fetch(&arrived, 1, __ATOMIC_SEQ_CST);
    for (uint64_t round = 1; round <= ROUNDS; round++) {
        pattern(&wanted[me], round * 64 + me + 1);
        load(&wanted[me]);
        switch (round % 4) {
        case 0: (void)cpuid(0, 0); break;
        case 1:
            apic_write(APIC_TIMER_COUNT, 20000);
            wait_for_interrupt();
            break;
        case 2: (void)inb(0x71); break;
        default: for (unsigned i = 0; i < 200; i++) cpu_pause();
        }
        save(&got[me]);
        if (!same(&wanted[me], &got[me]))
            wrong[me]++;
    }
}

static void changes(void)
{
    pattern(&wanted[0], 99);
    load(&wanted[0]);
    (void)xcr0_set(1);
    (void)cpuid(0, 0);
    guest_equal("XCR0 reads what was written", 1, xcr0_get());
    guest_equal("CPUID's size follows XCR0", 576, cpuid(0xd, 0).ebx);
    apic_write(APIC_TIMER_COUNT, 100000);
    wait_for_interrupt();
    (void)xcr0_set(mask);
    save(&got[0]);
    guest_check("state that XCR0 hid for a while is still there", same(&wanted[0], &got[0]));
    guest_equal("CPUID's size follows XCR0 back", cpuid(0xd, 0).ecx, cpuid(0xd, 0).ebx);
    write_cr0(read_cr0() | BIT(3));
    (void)cpuid(0, 0);
    __asm__ volatile("clts");
    save(&got[0]);
    guest_check("CR0.TS in between changes nothing", same(&wanted[0], &got[0]));
}

#define MSR_XSS 0xda0u

static void xsaves(void *area)
{
    __asm__ volatile("xsaves64 (%0)" : : "r"(area), "a"((uint32_t)mask), "d"((uint32_t)(mask >> 32)) : "memory");
}

static void xrstors(void *area)
{
    __asm__ volatile("xrstors64 (%0)" : : "r"(area), "a"((uint32_t)mask), "d"((uint32_t)(mask >> 32)) : "memory");
}

/* XSAVES and XRSTORS: in CPUID, the MSR and the CPU alike, or in none of them. */
static void supervisor(void)
{
    struct area *compacted = &got[1];
    struct guest_cpuid one = cpuid(0xd, 1);
    uint64_t value = 1;
    memset(compacted, 0, sizeof(*compacted));
    if (!(one.eax & BIT(3))) {
        guest_equal("without XSAVES in CPUID it is #UD", 6, (uint64_t)guest_try(xsaves, compacted).vector);
        guest_equal("so is XRSTORS", 6, (uint64_t)guest_try(xrstors, compacted).vector);
        guest_check("and there is no XSS", !guest_rdmsr(MSR_XSS, &value) && !guest_wrmsr(MSR_XSS, 0));
        return;
    }
    guest_check("XSS is 0", guest_rdmsr(MSR_XSS, &value) && !value && guest_wrmsr(MSR_XSS, 0));
    guest_equal("no supervisor component is offered", 0, one.ecx | one.edx);
    bool refused = true;
    for (unsigned bit = 0; bit < 64; bit++)
        refused &= !guest_wrmsr(MSR_XSS, BIT(bit));
    guest_check("and none can be switched on", refused);
    pattern(&wanted[0], 7);
    load(&wanted[0]);
    guest_equal("XSAVES", (uint64_t)-1, (uint64_t)guest_try(xsaves, compacted).vector);
    guest_equal("writes the compacted format of all that it is asked for", BIT(63) | mask, *(uint64_t *)(compacted->bytes + 520));
    guest_check("whose size CPUID tells", one.ebx >= (mask & 4 ? 832u : 576u) && one.ebx <= sizeof(*compacted));
    for (unsigned i = one.ebx; i < sizeof(*compacted); i++)
        refused &= !compacted->bytes[i];
    guest_check("and nothing beyond", refused);
    pattern(&got[0], 8);
    load(&got[0]);
    (void)cpuid(0, 0);
    guest_equal("XRSTORS", (uint64_t)-1, (uint64_t)guest_try(xrstors, compacted).vector);
    save(&got[0]);
    guest_check("brings all of it back", same(&wanted[0], &got[0]));
}

void guest_main(void)
{
    have_xsave = cpuid(1, 0).ecx & BIT(26);
    mask = have_xsave ? ((uint64_t)cpuid(0xd, 0).edx << 32 | cpuid(0xd, 0).eax) : 3;
    guest_note("XCR0 0x%lx", mask);
    guest_handlers[0x60] = on_timer;
    enable();
    apic_enable();
    struct area *fresh = &got[0];
    save(fresh);
    uint64_t leaked = 0;
    for (unsigned i = 160; i < 416; i++)
        leaked += fresh->bytes[i];
    guest_equal("a new CPU's vector registers are zero", 0, leaked);
    unsigned count = guest_cpu_count();
    bool started = true;
    for (unsigned i = 1; i < count; i++)
        started &= guest_start_cpu(i, work, NULL);
    guest_check("all CPUs start", started);
    work(NULL);
    guest_equal("CPU 0: vector state is kept", 0, wrong[0]);
    uint64_t others = 0, began = rdtsc();
    for (unsigned i = 1; i < count; i++) {
        while (!guest_cpu_done(i) && rdtsc() - began < 60 * guest_tsc_hz())
            cpu_pause();
        others += wrong[i] + !guest_cpu_done(i);
    }
    guest_equal("the other CPUs: vector state is kept", 0, others);
    if (have_xsave)
        changes();
    supervisor();
}
