/* SPDX-License-Identifier: MIT */
/*
 * Random instructions with a memory operand in a device's page: RDI and RSI point there. What would lead the program
 * itself astray (jumps, its stack, system registers) is left out, everything else is taken as it comes: most raise #UD.
 */
#include "hostile.h"

#define CODE_BYTES 64

/* Opcodes that are not tried: prefixes (chosen separately), control transfers, the stack, HLT, CLI and STI, port I/O,
 * and x87 and FXSAVE, whose operands in device memory are beyond any emulator's duty. */
static bool spared(unsigned opcode)
{
    static const uint8_t ranges[][2] = {
        { 0x06, 0x07 }, { 0x0e, 0x0f }, { 0x16, 0x17 }, { 0x1e, 0x1f }, { 0x26, 0x26 }, { 0x2e, 0x2e },
        { 0x36, 0x36 }, { 0x3e, 0x3e }, { 0x40, 0x62 }, { 0x64, 0x68 }, { 0x6a, 0x6a }, { 0x6c, 0x7f },
        { 0x8e, 0x8f }, { 0x94, 0x94 }, { 0x9a, 0x9d }, { 0xbc, 0xbc }, { 0xc2, 0xc5 }, { 0xc8, 0xcf },
        { 0xd8, 0xed }, { 0xf0, 0xf4 }, { 0xfa, 0xfd }, { 0xff, 0xff },
    };
    static const uint8_t two[][2] = {
        { 0x00, 0x09 }, { 0x0e, 0x0f }, { 0x10, 0x7f }, { 0x80, 0x8f }, { 0xa0, 0xa1 }, { 0xa8, 0xaa }, { 0xae, 0xae },
        { 0xb2, 0xb2 }, { 0xb4, 0xb5 }, { 0xb8, 0xb9 }, { 0xc2, 0xc2 }, { 0xc4, 0xc6 }, { 0xcc, 0xcc }, { 0xd0, 0xff },
    };
    if (opcode >= 0xf00) {
        for (unsigned i = 0; i < COUNT(two); i++)
            if ((opcode & 0xff) >= two[i][0] && (opcode & 0xff) <= two[i][1])
                return true;
        return false;
    }
    for (unsigned i = 0; i < COUNT(ranges); i++)
        if (opcode >= ranges[i][0] && opcode <= ranges[i][1])
            return true;
    return false;
}

struct attempt { uint8_t *code; uint64_t address, rax, rcx; };

static void run(void *argument)
{
    struct attempt *attempt = argument;
    uint64_t rdi = attempt->address, rsi = attempt->address + 8, rcx = attempt->rcx, rax = attempt->rax;
    __asm__ volatile("pushq %%rbx; pushq %%rbp; call *%4; cld; popq %%rbp; popq %%rbx"
                     : "+D"(rdi), "+S"(rsi), "+c"(rcx), "+a"(rax)
                     : "r"(attempt->code)
                     : "rdx", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "memory", "cc");
}

void hostile_opcodes(uint64_t count)
{
    static uint8_t code[CODE_BYTES] __attribute__((aligned(64)));
    static const uint8_t prefixes[] = { 0x66, 0xf2, 0xf3, 0xf0, 0x48, 0x4c, 0x40, 0x67 };
    static const uint64_t pages[] = { 0xfee00000, 0xfec00000, 0xd0000000, 0xe0000000, 0xfed00000, 0xfffff000 };
    uint64_t ran = 0, faults = 0;
    for (uint64_t i = 0; i < count; i++) {
        unsigned at = 0, opcode = any() % 3 ? any() & 0xff : 0xf00 | (any() & 0xff);
        if (spared(opcode))
            continue;
        for (uint64_t r = any(); (r & 3) == 0 && at < 3; r >>= 5)
            code[at++] = prefixes[r >> 2 & 7];
        if (opcode >= 0xf00)
            code[at++] = 0x0f;
        code[at++] = (uint8_t)opcode;
        uint8_t reg = (uint8_t)(any() & 7);
        if (reg == 4)
            reg = 0;
        code[at++] = (uint8_t)(reg << 3 | 7); /* [RDI] */
        while (at < CODE_BYTES - 1)
            code[at++] = 0x90;
        code[at] = 0xc3;
        struct attempt attempt = { code, pages[any() % COUNT(pages)] + (any() & 0xff8), any(), any() & 15 };
        if (attempt.address - APIC_PAGE < 0x1000 && (attempt.address & 0xff0) == 0x300)
            attempt.address -= 0x100; /* not the ICR: an INIT to itself would end it */
        struct guest_fault fault = guest_try(run, &attempt);
        __asm__ volatile("cld" : : : "memory");
        ran++;
        faults += fault.vector != -1;
    }
    guest_note("%lu instructions, %lu faults", ran, faults);
    guest_check("random instructions on device memory", ran > 0);
}
