/* SPDX-License-Identifier: MIT */
/*
 * Loading a data segment register from a selector, with the checks of MOV to a segment register (SDM vol. 2B, MOV;
 * vol. 3A, 3.4 and 5.6). CS and the system segments are never loaded here. The new segment is kept in the step and
 * becomes the vCPU's on commit; the descriptor's accessed bit is set in guest memory as the last thing that can fail.
 */
#include "vmm/emulate_internal.h"
#include <string.h>

#define DESCRIPTOR_ACCESSED BIT(40)

static bool privilege_allows(const struct step *s, enum seg seg, uint16_t selector, unsigned type, unsigned dpl)
{
    unsigned rpl = selector & 3, cpl = cpu_cpl(s->state);
    bool code = type & 8, writable_data = !code && (type & 2);
    if (seg == SEG_SS)
        return writable_data && rpl == cpl && dpl == cpl;
    if (code && !(type & 2))
        return false; /* execute-only */
    bool conforming = code && (type & 4);
    return conforming || (rpl <= dpl && cpl <= dpl);
}

static void load_null(struct step *s, enum seg seg, uint16_t selector)
{
    unsigned cpl = cpu_cpl(s->state);
    if (seg == SEG_SS && (!s->mode64 || cpl == 3 || (selector & 3) != cpl)) {
        emu_raise(s, EXC_GP);
        return;
    }
    /* SS keeps its DPL, which is the CPL. */
    s->segment = (struct segment){ .selector = selector, .attributes = SEG_UNUSABLE | (cpl << SEG_DPL_SHIFT) };
}

static void load_protected(struct step *s, enum seg seg, uint16_t selector)
{
    const struct cpu_state *state = s->state;
    const struct segment *ldt = &state->seg[SEG_LDTR];
    bool local = selector & 4;
    uint64_t base = local ? ldt->base : state->gdtr.base;
    uint32_t limit = local ? ldt->limit : state->gdtr.limit, code = selector & 0xfffcu;
    struct emu_range range;
    if ((local && (ldt->attributes & SEG_UNUSABLE)) || (selector | 7u) > limit) {
        emu_raise_code(s, EXC_GP, code);
        return;
    }
    emu_resolve_system(s, base + (selector & ~7u), 8, ACCESS_READ, &range);
    uint64_t raw = emu_read_value(s, &range);
    unsigned type = (raw >> 40) & 15, dpl = (raw >> 45) & 3;
    if (!((raw >> 44) & 1) || !privilege_allows(s, seg, selector, type, dpl))
        emu_raise_code(s, EXC_GP, code);
    if (!((raw >> 47) & 1))
        emu_raise_code(s, seg == SEG_SS ? EXC_SS : EXC_NP, code);
    while (s->result == EMU_DONE && !(raw & DESCRIPTOR_ACCESSED)) {
        uint64_t marked = raw | DESCRIPTOR_ACCESSED;
        emu_resolve_system(s, base + (selector & ~7u), 8, ACCESS_READ | ACCESS_WRITE, &range);
        if (!emu_exchange(s, &range, &raw, &marked)) {
            s->result = EMU_RETRY; /* the descriptor is being changed: judge it anew */
            return;
        }
        raw = marked;
    }
    uint32_t units = (uint32_t)((raw & 0xffff) | ((raw >> 32) & 0xf0000));
    s->segment = (struct segment){
        .base = ((raw >> 16) & 0xffffff) | ((raw >> 32) & 0xff000000),
        .limit = (raw >> 55) & 1 ? (units << 12) | 0xfff : units,
        .attributes = (uint32_t)((raw >> 40) & 0xf0ff),
        .selector = selector,
    };
}

void emu_load_segment(struct step *s, enum seg seg, uint16_t selector)
{
    if (s->result != EMU_DONE)
        return;
    s->load_segment = (uint8_t)seg;
    if (cpu_real_mode(s->state) || cpu_v86(s->state)) {
        s->segment = s->state->seg[seg]; /* limit and attributes stay as they are */
        s->segment.selector = selector;
        s->segment.base = (uint64_t)selector << 4;
    } else if (selector & ~3u) {
        load_protected(s, seg, selector);
    } else {
        load_null(s, seg, selector);
    }
}
