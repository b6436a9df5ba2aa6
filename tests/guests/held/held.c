/* SPDX-License-Identifier: MIT */
/*
 * Debug traps that MOV SS holds back, for a test that saves and restores the VM meanwhile. Again and again, for each page
 * of RAM: SS is loaded from a word with a data breakpoint, and the instruction behind that, which the trap has to wait
 * for, writes to the page. Under a write-protecting dirty log that is an exit in the shadow of MOV SS, and the state that
 * is saved there has a trap pending. Each trap must come, once, at its place. `q` on the console ends it.
 */
#include "guest.h"

#define COM1 0x3f8

static volatile uint16_t stack_selector = 0x10;
static volatile uint64_t hits, wrong_reason, wrong_place;
extern uint8_t held_after[];

static void on_debug(struct guest_frame *frame)
{
    uint64_t dr6;
    __asm__ volatile("movq %%dr6, %0; movq %1, %%dr6" : "=&r"(dr6) : "r"(0ull));
    hits++;
    wrong_reason += (dr6 & 0x400f) != 1;
    wrong_place += frame->rip != (uint64_t)held_after;
}

static bool told_to_end(void)
{
    return (inb(COM1 + 5) & 1) && inb(COM1) == 'q';
}

void guest_main(void)
{
    uint64_t begin = (guest_program_end() + 4095) & ~4095ull, end = guest_ram_end(), loads = 0, missed = 0;
    guest_handlers[1] = on_debug;
    __asm__ volatile("movq %0, %%dr0; movq %1, %%dr6; movq %2, %%dr7"
                     :
                     : "r"(&stack_selector), "r"(0ull), "r"(0x70002ull | BIT(10)));
    for (uint64_t pass = 1; !told_to_end(); pass++) {
        for (uint64_t page = begin; page < end; page += 4096) {
            uint64_t before = hits;
            __asm__ volatile(".globl held_after\n movw %0, %%ss; movb $0, (%1)\n held_after: nop"
                             :
                             : "m"(stack_selector), "r"(page)
                             : "memory");
            loads++;
            missed += hits != before + 1;
        }
        guest_printf("pass %lu\r\n", pass);
    }
    __asm__ volatile("movq %0, %%dr7" : : "r"(0x400ull));
    guest_equal("a trap for each load of SS", loads, hits);
    guest_equal("none early, late or twice", 0, missed);
    guest_equal("for the breakpoint alone", 0, wrong_reason);
    guest_equal("behind the next instruction", 0, wrong_place);
}
