/* SPDX-License-Identifier: MIT */
/*
 * Instruction length for CPUs that do not report it. Nearly all exits that need one come from a few short instructions
 * (CPUID, RDMSR and WRMSR, IN and OUT, HLT, VMMCALL, control and debug registers, descriptor tables); these are
 * recognised here from the bytes in guest memory, in place. None of them has a length that depends on the operand size,
 * so prefixes only have to be counted. Everything else goes to the decoder.
 */
#include "vmm/emulate_internal.h"

#define MAX_INSTRUCTION_BYTES 15

/* Bytes of ModRM, SIB and displacement, given those that are there; 0 if they are not all there. */
static unsigned modrm_bytes(const uint8_t *at, unsigned have, bool addresses16)
{
    if (have == 0)
        return 0;
    unsigned mod = at[0] >> 6, rm = at[0] & 7, n = 1;
    if (mod == 3)
        return 1;
    if (addresses16) {
        n += mod == 1 ? 1 : mod == 2 || rm == 6 ? 2 : 0;
    } else {
        if (rm == 4) {
            if (have < 2)
                return 0;
            rm = at[1] & 7;
            n++;
        }
        n += mod == 1 ? 1 : mod == 2 || rm == 5 ? 4 : 0;
    }
    return n <= have ? n : 0;
}

static bool is_prefix(uint8_t byte, bool mode64)
{
    switch (byte) {
    case 0x26:
    case 0x2e:
    case 0x36:
    case 0x3e:
    case 0x64:
    case 0x65:
    case 0x66:
    case 0x67:
    case 0xf0:
    case 0xf2:
    case 0xf3: return true;
    default: return mode64 && (byte & 0xf0) == 0x40;
    }
}

/* The length of a known short instruction among `have` bytes, or 0. */
static unsigned short_length(const uint8_t *at, unsigned have, bool mode64, bool wide)
{
    unsigned i = 0, more;
    bool address_prefix = false;
    while (i < have && is_prefix(at[i], mode64))
        address_prefix |= at[i++] == 0x67;
    if (i >= have)
        return 0;
    switch (at[i]) {
    case 0x0f:
        if (i + 1 >= have)
            return 0;
        switch (at[i + 1]) {
        case 0x06:
        case 0x08:
        case 0x09:
        case 0x30:
        case 0x31:
        case 0x32:
        case 0x33:
        case 0xa2:
        case 0xaa: return i + 2; /* CLTS INVD WBINVD WRMSR RDTSC RDMSR RDPMC CPUID RSM */
        case 0x20:
        case 0x21:
        case 0x22:
        case 0x23: return i + 3 <= have ? i + 3 : 0; /* MOV CR and DR: the mod field is ignored */
        case 0x00:
        case 0x01:
        case 0xc7:
            /* Descriptor tables, SMSW, LMSW, INVLPG, VMMCALL, XSETBV, RDTSCP, MONITOR ...; RDRAND */
            more = modrm_bytes(at + i + 2, have - i - 2, !mode64 && wide == address_prefix);
            return more ? i + 2 + more : 0;
        default: return 0;
        }
    case 0x6c:
    case 0x6d:
    case 0x6e:
    case 0x6f:
    case 0x90:
    case 0x9c:
    case 0x9d:
    case 0xcc:
    case 0xcf:
    case 0xec:
    case 0xed:
    case 0xee:
    case 0xef:
    case 0xf1:
    case 0xf4:
    case 0xfa:
    case 0xfb: return i + 1; /* INS OUTS PAUSE PUSHF POPF INT3 IRET IN OUT INT1 HLT CLI STI */
    case 0xcd:
    case 0xe4:
    case 0xe5:
    case 0xe6:
    case 0xe7: return i + 2 <= have ? i + 2 : 0; /* INT n, IN and OUT with a port */
    default: return 0;
    }
}

/* The few that matter most, without a prefix; at least two bytes are there. 0: look further. */
static inline unsigned shortest_length(const uint8_t *at)
{
    if (at[0] == 0x0f)
        return at[1] == 0xa2 || at[1] == 0x30 || at[1] == 0x32 ? 2 : 0;
    if ((at[0] & 0xf4) == 0xe4) /* E4 to E7: a port in the instruction; EC to EF: in DX */
        return at[0] & 8 ? 1 : 2;
    return at[0] == 0xf4;
}

/* The length of the expected instruction by way of the hint; 0 if there is another one, prefixes included. */
static inline unsigned hinted_length(const struct emu *emu, uint64_t linear)
{
    const struct emu_fetch_hint *hint = emu->hint;
    uint64_t offset = linear & (PAGE_BYTES - 1);
    if (hint->page != linear - offset || hint->cr3 != emu->state->cr3 || offset > PAGE_BYTES - 2 || !hint->gpa)
        return 0;
    const uint8_t *at = emu->ops->peek(emu->ops->context, GPA(hint->gpa | offset), 2);
    if (unlikely(!at || at[0] != (emu->expected & 0xff)))
        return 0;
    return at[0] != 0x0f ? 1 : at[1] == emu->expected >> 8 ? 2 : 0;
}

unsigned emu_instruction_length(struct emu *emu)
{
    const struct cpu_state *state = emu->state;
    bool mode64 = cpu_mode64(state);
    const uint8_t *at = emu->bytes;
    unsigned have = emu->byte_count, length = 0;
    emu->fault.type = EVENT_NONE;
    if (have == 0) {
        uint64_t linear = mode64 ? state->rip : (uint32_t)(state->seg[SEG_CS].base + (uint32_t)state->rip);
        gpa_t gpa;
        if (unlikely(!emu->ops->peek || (!mode64 && (uint32_t)state->rip > state->seg[SEG_CS].limit)))
            return emu_decoded_length(emu);
        if (emu->hint && emu->expected && (length = hinted_length(emu, linear)))
            return emu->length = (uint8_t)length;
        if (unlikely(!guest_translate(state, emu->ops, emu->physical_bits, GVA(linear), ACCESS_FETCH, false, &gpa,
                                      &emu->fault)))
            return 0;
        unsigned room = (unsigned)(PAGE_BYTES - (linear & (PAGE_BYTES - 1)));
        have = MIN(MAX_INSTRUCTION_BYTES, room);
        at = emu->ops->peek(emu->ops->context, gpa, have);
        if (at && emu->hint)
            *emu->hint = (struct emu_fetch_hint){ .cr3 = state->cr3,
                                                  .page = ALIGN_DOWN(linear, PAGE_BYTES),
                                                  .gpa = ALIGN_DOWN(gpa.v, PAGE_BYTES) };
    }
    if (likely(at != NULL)) {
        length = likely(have >= 2) ? shortest_length(at) : 0;
        if (!length)
            length = short_length(at, MIN(have, MAX_INSTRUCTION_BYTES), mode64, state->seg[SEG_CS].attributes & SEG_DB);
        /* The decoder also sees to what has no length, such as an instruction that ends past the segment's limit. */
        if (likely(length && (mode64 || (uint32_t)state->rip + (uint64_t)length - 1 <= state->seg[SEG_CS].limit)))
            return emu->length = (uint8_t)length;
    }
    return emu_decoded_length(emu);
}
