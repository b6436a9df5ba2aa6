/* SPDX-License-Identifier: MIT */
/* Decoding of plain MOVs, vmm/simple_move.h. Encodings: SDM vol. 2A, 2.1.5 and 2.2.1; vol. 2B, MOV and MOVZX. */
#include "vmm/simple_move.h"

#define REX_W 8u
#define REX_R 4u
#define REX_X 2u
#define REX_B 1u

/* The next byte of the instruction; reading past its end gives zeros, and the end is checked once, at the end. */
static inline uint8_t byte_at(uint64_t code, unsigned at)
{
    return at < 8 ? (uint8_t)(code >> 8 * at) : 0;
}

static uint64_t sign_extended(uint64_t code, unsigned at, unsigned bytes)
{
    uint64_t value = at < 8 ? code >> 8 * at : 0;

    return bytes == 1 ? (uint64_t)(int8_t)value : bytes == 2 ? (uint64_t)(int16_t)value : (uint64_t)(int32_t)value;
}

/* ModRM at *at, which moves past displacement; RIP-relative needs the instruction's end, so *rip_relative says so. */
static bool effective_address(const struct cpu_state *s, uint64_t code, unsigned rex, unsigned *at, uint64_t *address,
                              bool *rip_relative)
{
    uint8_t modrm = byte_at(code, (*at)++);
    unsigned mod = modrm >> 6, rm = modrm & 7;

    *rip_relative = false;
    *address = 0;
    if (mod == 3)
        return false;
    if (rm == 4) {
        uint8_t sib = byte_at(code, (*at)++);
        unsigned index = (sib >> 3 & 7) | (rex & REX_X) << 2, base = sib & 7;
        if (index != 4)
            *address = s->gpr[index] << (sib >> 6);
        if (base == 5 && mod == 0) {
            *address += sign_extended(code, *at, 4);
            *at += 4;
            return true;
        }
        *address += s->gpr[base | (rex & REX_B) << 3];
    } else if (rm == 5 && mod == 0) {
        *rip_relative = true;
        *address = sign_extended(code, *at, 4);
        *at += 4;
        return true;
    } else {
        *address = s->gpr[rm | (rex & REX_B) << 3];
    }
    if (mod) {
        unsigned bytes = mod == 1 ? 1 : 4;
        *address += sign_extended(code, *at, bytes);
        *at += bytes;
    }
    return true;
}

bool simple_move_decode(const struct cpu_state *state, uint64_t code, unsigned count, struct simple_move *move)
{
    unsigned at = 0, rex = 0, immediate = 0;
    bool operand16 = false, rip_relative;

    if (byte_at(code, at) == 0x66) {
        operand16 = true;
        at++;
    }
    if ((byte_at(code, at) & 0xf0) == 0x40)
        rex = byte_at(code, at++);
    unsigned word = rex & REX_W ? 8 : operand16 ? 2 : 4;
    uint8_t opcode = byte_at(code, at++);
    *move = (struct simple_move){ .size = (uint8_t)word, .gpr_size = (uint8_t)word };
    switch (opcode) {
    case 0x88: move->store = true; move->size = 1; break;
    case 0x89: move->store = true; break;
    case 0x8a: move->size = move->gpr_size = 1; break;
    case 0x8b: break;
    case 0xc6: move->store = true; move->size = 1; immediate = 1; break;
    case 0xc7: move->store = true; immediate = word == 2 ? 2 : 4; break;
    case 0x0f:
        opcode = byte_at(code, at++);
        if (opcode != 0xb6 && opcode != 0xb7)
            return false;
        move->size = opcode == 0xb6 ? 1 : 2;
        break;
    default: return false;
    }
    unsigned field = byte_at(code, at) >> 3 & 7, gpr = field | (rex & REX_R) << 1;
    if (!effective_address(state, code, rex, &at, &move->linear, &rip_relative))
        return false;
    if (immediate) {
        if (field)
            return false; /* C6 and C7 are MOV with /0 only */
        move->value = sign_extended(code, at, immediate);
        at += immediate;
    } else if (move->store) {
        move->value = state->gpr[gpr];
    }
    /* Without REX, 4 to 7 as a byte are AH to BH. */
    if (!immediate && !rex && gpr >= 4 && (move->store ? move->size : move->gpr_size) == 1)
        return false;
    if (at > count)
        return false;
    move->gpr = (uint8_t)gpr;
    move->length = (uint8_t)at;
    if (rip_relative)
        move->linear += state->rip + at;
    return true;
}
