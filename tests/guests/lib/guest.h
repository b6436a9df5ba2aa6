/* SPDX-License-Identifier: MIT */
/*
 * What a small guest is made of. A guest is one folder: C and assembly that define guest_main(), linked with this
 * library into $(BUILD)/guests/NAME.elf, a Multiboot 1 kernel. guest_main() runs on the first CPU in 64-bit mode,
 * interrupts off, the first 4 GiB mapped one to one (2 MiB pages, user-accessible), an IDT in place.
 *
 * It tells what it found on COM1, a line each:
 *     guest NAME
 *     ok TEXT
 *     fail TEXT: expected X, got Y
 *     note TEXT
 *     done P passed F failed
 * and, when guest_main() returns, powers the machine off.
 */
#ifndef GUEST_H
#define GUEST_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BIT(n) (1ull << (n))
#define COUNT(a) (sizeof(a) / sizeof((a)[0]))
#define GUEST_CPUS 32u
#define GUEST_STACK_BYTES 0x4000ull

void guest_main(void);

/* ---- Telling ---- */

/* %d %u %x %c %s %p, with l, a width and a leading 0 or -. */
void guest_printf(const char *format, ...) __attribute__((format(printf, 1, 2)));
void guest_puts(const char *text);
/* "ok TEXT", or "fail TEXT: expected WANT, got GOT" with both in hex. True if equal. */
bool guest_equal(const char *text, uint64_t want, uint64_t got);
bool guest_check(const char *text, bool condition);
/* A figure or remark; counts nothing. */
void guest_note(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* The `done` line and power-off. */
_Noreturn void guest_finish(void);
_Noreturn void guest_power_off(void);
_Noreturn void guest_halt(void);
/* The value of KEY=VALUE on the command line; NULL or `otherwise` without it. */
const char *guest_argument(const char *key);
uint64_t guest_argument_number(const char *key, uint64_t otherwise);

/* ---- The machine ---- */

static inline void outb(uint16_t port, uint8_t value)
{
    __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port) : "memory");
}
static inline void outw(uint16_t port, uint16_t value)
{
    __asm__ volatile("outw %0, %1" : : "a"(value), "Nd"(port) : "memory");
}
static inline void outl(uint16_t port, uint32_t value)
{
    __asm__ volatile("outl %0, %1" : : "a"(value), "Nd"(port) : "memory");
}
static inline uint8_t inb(uint16_t port)
{
    uint8_t v;
    __asm__ volatile("inb %1, %0" : "=a"(v) : "Nd"(port) : "memory");
    return v;
}
static inline uint16_t inw(uint16_t port)
{
    uint16_t v;
    __asm__ volatile("inw %1, %0" : "=a"(v) : "Nd"(port) : "memory");
    return v;
}
static inline uint32_t inl(uint16_t port)
{
    uint32_t v;
    __asm__ volatile("inl %1, %0" : "=a"(v) : "Nd"(port) : "memory");
    return v;
}

static inline uint64_t rdmsr(uint32_t msr)
{
    uint32_t low, high;
    __asm__ volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(msr) : "memory");
    return (uint64_t)high << 32 | low;
}

static inline void wrmsr(uint32_t msr, uint64_t value)
{
    __asm__ volatile("wrmsr" : : "c"(msr), "a"((uint32_t)value), "d"((uint32_t)(value >> 32)) : "memory");
}

static inline uint64_t rdtsc(void)
{
    uint32_t low, high;
    __asm__ volatile("rdtsc" : "=a"(low), "=d"(high) : : "memory");
    return (uint64_t)high << 32 | low;
}

struct guest_cpuid { uint32_t eax, ebx, ecx, edx; };

static inline struct guest_cpuid cpuid(uint32_t leaf, uint32_t subleaf)
{
    struct guest_cpuid r;
    __asm__ volatile("cpuid" : "=a"(r.eax), "=b"(r.ebx), "=c"(r.ecx), "=d"(r.edx) : "a"(leaf), "c"(subleaf) : "memory");
    return r;
}

#define GUEST_CR(n)                                                                                                    \
    static inline uint64_t read_cr##n(void)                                                                            \
    {                                                                                                                  \
        uint64_t v;                                                                                                    \
        __asm__ volatile("movq %%cr" #n ", %0" : "=r"(v) : : "memory");                                                \
        return v;                                                                                                      \
    }                                                                                                                  \
    static inline void write_cr##n(uint64_t v) { __asm__ volatile("movq %0, %%cr" #n : : "r"(v) : "memory"); }
GUEST_CR(0)
GUEST_CR(2)
GUEST_CR(3)
GUEST_CR(4)
GUEST_CR(8)
#undef GUEST_CR

static inline void cpu_pause(void) { __asm__ volatile("pause" : : : "memory"); }
/* A pending one comes before it returns. (No PAUSE: QEMU 7.2 takes no interrupt at one that follows STI.) */
static inline void interrupts_on(void) { __asm__ volatile("sti; nop; nop" : : : "memory"); }
static inline void interrupts_off(void) { __asm__ volatile("cli" : : : "memory"); }
/* With interrupts off: waits for one and takes it, none can come in between; off again after. */
static inline void wait_for_interrupt(void) { __asm__ volatile("sti; hlt; cli" : : : "memory"); }
/* With interrupts off: takes what is pending. */
static inline void take_interrupts(void) { __asm__ volatile("sti; nop; nop; cli" : : : "memory"); }

static inline uint32_t mmio_read32(uint64_t address) { return *(volatile uint32_t *)address; }
static inline void mmio_write32(uint64_t address, uint32_t value) { *(volatile uint32_t *)address = value; }

/* The vendor is AMD's. */
bool guest_amd(void);
bool guest_intel(void);
/* CPUs that the ACPI tables name; APIC ID = number. */
unsigned guest_cpu_count(void);
/* Ticks of the TSC in a second, as the hypervisor says (Hyper-V MSR 0x40000022). */
uint64_t guest_tsc_hz(void);
/* Waits that many microseconds by the TSC. */
void guest_delay_us(uint64_t us);
/* Waits until *flag is at least `value`, at most that long; true if it came to that. Interrupts as they are. */
bool guest_wait(const volatile uint64_t *flag, uint64_t value, uint64_t timeout_us);
/* First and past-the-last byte of RAM from 1 MiB on, and of this program. */
uint64_t guest_ram_end(void);
uint64_t guest_program_end(void);
/* The first module; NULL without one. */
const void *guest_module(uint64_t *bytes);

/* ---- Interrupts and exceptions ---- */

struct guest_frame {
    uint64_t r15, r14, r13, r12, r11, r10, r9, r8, rbp, rdi, rsi, rdx, rcx, rbx, rax;
    uint64_t vector, error, rip, cs, rflags, rsp, ss;
};

typedef void guest_handler(struct guest_frame *frame);
/* Who is called for a vector. NULL: an exception is caught by guest_try, anything else is a failure and ends the guest.
 */
extern guest_handler *guest_handlers[256];

struct guest_fault { int vector; /* -1: none */ uint64_t error, rip, cr2, rflags, rsp; };
/* Runs function(argument); where it raises an exception, it is ended there and the exception returned. Nests not. */
struct guest_fault guest_try(void (*function)(void *), void *argument);
/* RDMSR and WRMSR; false if they raised #GP. Another fault ends the guest. */
bool guest_rdmsr(uint32_t msr, uint64_t *value);
bool guest_wrmsr(uint32_t msr, uint64_t value);
/* An IDT gate: 64-bit interrupt gate to `entry`; ring: 0 or 3. */
void guest_gate(unsigned vector, const void *entry, unsigned ring);
extern uint8_t guest_vectors[256 * 16];
/* The boot CPU's TSS has this as its stack for entries from ring 3. */
uint64_t guest_ring0_stack(void);

/* ---- Local APIC ---- */

enum guest_apic_register {
    APIC_ID = 0x20,
    APIC_VERSION = 0x30,
    APIC_TPR = 0x80,
    APIC_PPR = 0xa0,
    APIC_EOI = 0xb0,
    APIC_LDR = 0xd0,
    APIC_DFR = 0xe0,
    APIC_SVR = 0xf0,
    APIC_ISR = 0x100,
    APIC_TMR = 0x180,
    APIC_IRR = 0x200,
    APIC_ESR = 0x280,
    APIC_ICR = 0x300,
    APIC_ICR_HIGH = 0x310,
    APIC_LVT_TIMER = 0x320,
    APIC_LVT_LINT0 = 0x350,
    APIC_LVT_LINT1 = 0x360,
    APIC_LVT_ERROR = 0x370,
    APIC_TIMER_COUNT = 0x380,
    APIC_TIMER_NOW = 0x390,
    APIC_TIMER_DIVIDE = 0x3e0,
};
#define APIC_PAGE 0xfee00000ull
#define MSR_APIC_BASE 0x1bu

/* Through the page or the MSRs, as the APIC's mode is. */
uint32_t apic_read(unsigned reg);
void apic_write(unsigned reg, uint32_t value);
bool apic_is_x2(void);
/* Sends an interrupt: `command` is the low half of ICR, `destination` an APIC ID or logical mask. Waits for its
 * delivery. */
void apic_send(uint32_t destination, uint32_t command);
/* Switches the APIC on (software enable, spurious vector 0xff) and silences both 8259s. */
void apic_enable(void);
/* xAPIC to x2APIC mode. */
void apic_enter_x2(void);
static inline void apic_eoi(void) { apic_write(APIC_EOI, 0); }

/* ---- More CPUs ---- */

/* The number (APIC ID) of the CPU that this runs on, by its stack. */
unsigned guest_cpu(void);
/* Starts CPU `id` by INIT and SIPI; it runs function(argument) and then halts. False: it did not come up in 2 s. */
bool guest_start_cpu(unsigned id, void (*function)(void *), void *argument);
/* CPU `id` has returned from its function. */
bool guest_cpu_done(unsigned id);

/* ---- Small library ---- */

void *memset(void *to, int byte, size_t count);
void *memcpy(void *to, const void *from, size_t count);
void *memmove(void *to, const void *from, size_t count);
int memcmp(const void *a, const void *b, size_t count);
size_t strlen(const char *text);
int strncmp(const char *a, const char *b, size_t count);
/* The next number of a fixed sequence (xorshift64*); *state must not be 0. */
uint64_t guest_random(uint64_t *state);

#endif
