/* SPDX-License-Identifier: MIT */
/*
 * Panic. In this order: take the right to panic (one CPU wins; a second fault of the winner ends at once), stop all other
 * CPUs by NMI so that no vCPU is entered again, then report: registers, backtrace with function names, the last log
 * lines; then reset or wait, as configured.
 */
#include "kernel/panic.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "drivers/uart.h"
#include "kernel/apic.h"
#include "kernel/cpu.h"
#include "kernel/framebuffer.h"
#include "kernel/ksyms.h"
#include "kernel/layout.h"
#include "kernel/log.h"
#include "kernel/power.h"
#include "kernel/thread.h"
#include "kernel/time.h"
#include "kernel/vmap.h"

#define BACKTRACE_FRAMES 24
#define LAST_LINES 10
#define SCREEN_READ_S 5 /* what is on a screen must be there long enough to be read, or filmed */

static uint32_t panic_owner = UINT32_MAX;
static bool reset_after;
static void (*panic_hook)(void);

void panic_set_reset(bool reset)
{
    reset_after = reset;
}

void panic_set_hook(void (*hook)(void))
{
    panic_hook = hook;
}

static void say(const char *format, ...) PRINTF_LIKE(1, 2);
static void say(const char *format, ...)
{
    char line[320];
    va_list args;

    va_start(args, format);
    int count = vsnprintf(line, sizeof line - 2, format, args);
    va_end(args);
    size_t bytes = MIN((size_t)count, sizeof line - 3);
    memcpy(line + bytes, "\r\n", 2);
    framebuffer_panic_write(line, bytes + 2); /* first: whoever has read a line on the serial port finds it here */
    uart_write_unlocked(line, bytes + 2);
}

static void say_address(unsigned depth, uint64_t address)
{
    uint64_t offset;
    const char *name = ksym_lookup(address, &offset);

    if (name)
        say("  #%-2u %016lx %s+0x%lx", depth, address, name, offset);
    else
        say("  #%-2u %016lx", depth, address);
}

static bool readable_stack(uint64_t address)
{
    return address >= HV_VMAP_BASE && address < HV_VMAP_BASE + HV_VMAP_BYTES
               ? !vmap_is_guard(address) && address % 8 == 0
               : address >= (uint64_t)__data_start && address < (uint64_t)__image_end && address % 8 == 0;
}

static void backtrace(uint64_t rip, uint64_t rbp)
{
    unsigned depth = 0;

    say("backtrace:");
    if (rip)
        say_address(depth++, rip);
    while (depth < BACKTRACE_FRAMES && readable_stack(rbp) && readable_stack(rbp + 8)) {
        const uint64_t *frame = (const uint64_t *)rbp;
        if (!frame[1])
            break;
        say_address(depth++, frame[1]);
        if (frame[0] <= rbp)
            break;
        rbp = frame[0];
    }
}

static void NORETURN stop_cpu(void)
{
    for (;;)
        __asm__ volatile("cli; hlt");
}

static NORETURN void report(const struct trap_frame *frame, uint64_t rbp, const char *format, va_list args)
{
    char text[240];
    struct cpu *cpu = this_cpu();
    uint32_t free_owner = UINT32_MAX;

    irq_disable();
    if (!__atomic_compare_exchange_n(&panic_owner, &free_owner, cpu->id, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
        if (free_owner == cpu->id)
            say("panic: again, while reporting; giving up");
        stop_cpu();
    }
    if (cpu_count > 1)
        apic_ipi_nmi_others();
    if (panic_hook)
        panic_hook();

    vsnprintf(text, sizeof text, format, args);
    say(" ");
    say("PANIC on CPU %u, thread %s, %lu.%06lu s after boot", cpu->id, thread_name(cpu->current),
        time_now_ns() / NS_PER_S, time_now_ns() % NS_PER_S / 1000);
    say("%s", text);
    if (frame) {
        say("rip %016lx  rsp %016lx  rflags %08lx  cs %lx  ss %lx", frame->rip, frame->rsp, frame->rflags, frame->cs,
            frame->ss);
        say("rax %016lx  rbx %016lx  rcx %016lx  rdx %016lx", frame->rax, frame->rbx, frame->rcx, frame->rdx);
        say("rsi %016lx  rdi %016lx  rbp %016lx  r8  %016lx", frame->rsi, frame->rdi, frame->rbp, frame->r8);
        say("r9  %016lx  r10 %016lx  r11 %016lx  r12 %016lx", frame->r9, frame->r10, frame->r11, frame->r12);
        say("r13 %016lx  r14 %016lx  r15 %016lx", frame->r13, frame->r14, frame->r15);
    }
    say("cr0 %lx  cr2 %lx  cr3 %lx  cr4 %lx  efer %lx", read_cr0(), read_cr2(), read_cr3(), read_cr4(), rdmsr(MSR_EFER));
    backtrace(frame ? frame->rip : 0, rbp);
    say("last log lines:");
    for (uint64_t i = MAX((uint64_t)LAST_LINES, log_unprinted()); i-- > 0;) {
        const struct log_entry *entry = log_peek(i);
        if (entry)
            say("  [%5lu.%06lu] %s", entry->time_ns / NS_PER_S, entry->time_ns % NS_PER_S / 1000, entry->text);
    }
    uint64_t read_s = framebuffer_in_use() ? SCREEN_READ_S : 0;
    if (reset_after)
        say("the node resets in %lu s ([node] panic = reset)", read_s);
    else
        say("the node waits ([node] panic = wait)");
    if (reset_after) {
        time_spin_ns(read_s * NS_PER_S);
        power_reset_now();
    }
    stop_cpu();
}

void panic_frame(const struct trap_frame *frame, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    report(frame, frame->rbp, format, args);
}

void panic(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    report(NULL, (uint64_t)__builtin_frame_address(0), format, args);
}

void panic_nmi(const struct trap_frame *frame)
{
    (void)frame;
    if (__atomic_load_n(&panic_owner, __ATOMIC_ACQUIRE) != UINT32_MAX)
        stop_cpu();
}

uintptr_t __stack_chk_guard;
NORETURN void __stack_chk_fail(void);
void __stack_chk_fail(void)
{
    panic("stack smashed in thread %s", thread_name(thread_current()));
}
