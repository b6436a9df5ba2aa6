/* SPDX-License-Identifier: MIT */
/*
 * Recognises instructions in raw bytes. Pure. Those that read or write a control register, for CPUs whose CR intercepts
 * do not name the operand (no decode assists), and for CLTS and LMSW, whose intercepts never do. And those that store
 * or load RFLAGS, for single steps.
 *
 * AMD APM vol. 3: MOV CRn is 0F 22 /r (to) and 0F 20 /r (from), ModRM.mod is ignored; REX.R and, as the older way to
 * reach CR8, a LOCK prefix extend the register number; REX.B extends the general register. CLTS is 0F 06, LMSW is 0F 01
 * /6, SMSW is 0F 01 /4.
 */
#include "vmm/svm/svm_decode.h"

static bool legacy_prefix(uint8_t byte)
{
    switch (byte) {
    case 0x26: case 0x2e: case 0x36: case 0x3e: case 0x64: case 0x65: /* segments */
    case 0x66: case 0x67: case 0xf0: case 0xf2: case 0xf3:
        return true;
    default:
        return false;
    }
}

enum flags_use svm_decode_flags(const uint8_t *bytes, unsigned count, bool mode64)
{
    unsigned i = 0;

    while (i < count && legacy_prefix(bytes[i]))
        i++;
    if (mode64 && i < count && (bytes[i] & 0xf0) == 0x40)
        i++;
    if (i >= count)
        return FLAGS_KEPT;
    switch (bytes[i]) {
    case 0x9c:                                  /* PUSHF */
    case 0xcc: case 0xcd: case 0xce: case 0xf1: /* INT3, INT n, INTO, INT1 */
        return FLAGS_STORED;
    case 0x9d: case 0xcf: /* POPF, IRET */
        return FLAGS_LOADED;
    case 0x0f:
        if (i + 1 < count && bytes[i + 1] == 0x05) /* SYSCALL */
            return FLAGS_STORED;
        if (i + 1 < count && bytes[i + 1] == 0x07) /* SYSRET */
            return FLAGS_LOADED;
        return FLAGS_KEPT;
    default:
        return FLAGS_KEPT;
    }
}

struct cr_instruction svm_decode_cr(const uint8_t *bytes, unsigned count, bool mode64)
{
    struct cr_instruction in = { .operation = CR_OTHER };
    unsigned i = 0;
    uint8_t rex = 0;
    bool lock = false;

    for (; i < count && legacy_prefix(bytes[i]); i++)
        lock |= bytes[i] == 0xf0, in.other_size |= bytes[i] == 0x66;
    if (mode64 && i < count && (bytes[i] & 0xf0) == 0x40)
        rex = bytes[i++];
    if (i + 2 > count || bytes[i] != 0x0f)
        return in;
    uint8_t opcode = bytes[i + 1];
    if (opcode == 0x06) {
        in.operation = CR_CLTS;
        in.length = (uint8_t)(i + 2);
        return in;
    }
    if (i + 3 > count)
        return in;
    uint8_t modrm = bytes[i + 2];
    in.length = (uint8_t)(i + 3);
    in.gpr = (uint8_t)((modrm & 7) | (rex & 1 ? 8 : 0));
    if (opcode == 0x20 || opcode == 0x22) {
        in.operation = opcode == 0x22 ? CR_MOV_TO : CR_MOV_FROM;
        in.number = (uint8_t)((modrm >> 3 & 7) | ((rex & 4) || lock ? 8 : 0));
    } else if (opcode == 0x01 && modrm >> 6 == 3 && (modrm >> 3 & 7) == 6) {
        in.operation = CR_LMSW;
    } else if (opcode == 0x01 && modrm >> 6 == 3 && (modrm >> 3 & 7) == 4) {
        in.operation = CR_SMSW;
        in.wide = rex & 8;
    }
    return in;
}
