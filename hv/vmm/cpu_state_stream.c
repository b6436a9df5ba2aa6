/* SPDX-License-Identifier: MIT */
/*
 * Registers in the state stream (cpu_state_stream.h), and the proof that a restored state can enter. The checks are
 * those of a VMX entry (SDM vol. 3C, 27.3.1, with unrestricted guest on), which are the stricter ones, joined with
 * SVM's (APM vol. 2, 15.5.1) and with what WRMSR and MOV to a control register would have refused.
 */
#include "vmm/cpu_state_stream.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* ---- Layout of the "CPU" section, one list for both directions ---- */

/* Either a writer or a reader: `put` says which. */
struct pass {
    struct stream_writer *w;
    struct stream_reader *r;
};

static void pass_u64(struct pass *p, uint64_t *value)
{
    if (p->w)
        stream_put_u64(p->w, *value);
    else
        *value = stream_get_u64(p->r);
}

static void pass_u32(struct pass *p, uint32_t *value)
{
    if (p->w)
        stream_put_u32(p->w, *value);
    else
        *value = stream_get_u32(p->r);
}

static void pass_u16(struct pass *p, uint16_t *value)
{
    if (p->w)
        stream_put_u16(p->w, *value);
    else
        *value = stream_get_u16(p->r);
}

static void pass_u8(struct pass *p, uint8_t *value)
{
    if (p->w)
        stream_put_u8(p->w, *value);
    else
        *value = stream_get_u8(p->r);
}

static void pass_bool(struct pass *p, bool *value, const char *name)
{
    uint8_t byte = *value;
    pass_u8(p, &byte);
    if (p->r && byte > 1)
        stream_fail(p->r, ERR_CORRUPT, "%s is %u", name, byte);
    *value = byte & 1;
}

static void pass_state(struct pass *p, struct cpu_state *s, unsigned version)
{
    for (unsigned i = 0; i < GPR_COUNT; i++)
        pass_u64(p, &s->gpr[i]);
    uint64_t *const first[] = { &s->rip, &s->rflags, &s->cr0,  &s->cr2,  &s->cr3,
                                &s->cr4, &s->cr8,    &s->efer, &s->xcr0, &s->xss };
    for (unsigned i = 0; i < ARRAY_COUNT(first); i++)
        pass_u64(p, first[i]);
    for (unsigned i = 0; i < 4; i++)
        pass_u64(p, &s->dr[i]);
    pass_u64(p, &s->dr6);
    pass_u64(p, &s->dr7);
    for (unsigned i = 0; i < SEG_COUNT; i++) {
        pass_u64(p, &s->seg[i].base);
        pass_u32(p, &s->seg[i].limit);
        pass_u32(p, &s->seg[i].attributes);
        pass_u16(p, &s->seg[i].selector);
    }
    struct table_register *const tables[] = { &s->gdtr, &s->idtr };
    for (unsigned i = 0; i < ARRAY_COUNT(tables); i++) {
        pass_u64(p, &tables[i]->base);
        pass_u16(p, &tables[i]->limit);
    }
    uint64_t *const msrs[] = { &s->star,           &s->lstar,   &s->cstar,       &s->fmask,
                               &s->kernel_gs_base, &s->tsc_aux, &s->sysenter_cs, &s->sysenter_esp,
                               &s->sysenter_eip,   &s->pat,     &s->spec_ctrl,   &s->debugctl };
    for (unsigned i = 0; i < ARRAY_COUNT(msrs); i++)
        pass_u64(p, msrs[i]);
    for (unsigned i = 0; i < 4; i++)
        pass_u64(p, &s->pdpte[i]);
    pass_u32(p, &s->interruptibility);
    pass_bool(p, &s->halted, "halted");
    pass_u8(p, &s->pending.type);
    pass_u8(p, &s->pending.vector);
    pass_bool(p, &s->pending.has_error, "pending.has_error");
    pass_u8(p, &s->pending.instruction_length);
    pass_u32(p, &s->pending.error);
    pass_u64(p, &s->pending.cr2);
    if (version >= 2)
        pass_u32(p, &s->pending_debug);
}

void cpu_state_save(const struct cpu_state *state, struct stream_writer *w)
{
    struct cpu_state copy = *state;
    struct pass pass = { w, NULL };
    pass_state(&pass, &copy, CPU_SECTION_VERSION);
}

/* ---- Checks ---- */

struct check {
    const struct cpu_state *s;
    const struct cpu_limits *limits;
    char *text;
    size_t text_bytes;
    bool bad;
};

static void wrong(struct check *c, const char *format, ...) PRINTF_LIKE(2, 3);
static void wrong(struct check *c, const char *format, ...)
{
    if (c->bad)
        return;
    c->bad = true;
    va_list args;
    va_start(args, format);
    if (c->text_bytes)
        vsnprintf(c->text, c->text_bytes, format, args);
    va_end(args);
}

static void no_bits(struct check *c, const char *name, uint64_t value, uint64_t bits)
{
    if (value & bits)
        wrong(c, "%s is 0x%llx: bits 0x%llx must be 0", name, (unsigned long long)value,
              (unsigned long long)(value & bits));
}

static void canonical(struct check *c, const char *name, uint64_t address)
{
    if (!cpu_canonical(c->limits, address))
        wrong(c, "%s is 0x%llx: not canonical", name, (unsigned long long)address);
}

static void check_control(struct check *c)
{
    const struct cpu_state *s = c->s;
    const uint64_t cr0_valid =
        CR0_PE | CR0_MP | CR0_EM | CR0_TS | CR0_ET | CR0_NE | CR0_WP | CR0_AM | CR0_NW | CR0_CD | CR0_PG;
    uint64_t above_physical = ~(BIT(c->limits->physical_bits) - 1);
    no_bits(c, "CR0", s->cr0, ~cr0_valid);
    if ((s->cr0 & CR0_PG) && !(s->cr0 & CR0_PE))
        wrong(c, "CR0 has PG without PE");
    if ((s->cr0 & CR0_NW) && !(s->cr0 & CR0_CD))
        wrong(c, "CR0 has NW without CD");
    no_bits(c, "CR3", s->cr3, above_physical);
    no_bits(c, "CR4", s->cr4, ~c->limits->cr4_valid);
    no_bits(c, "CR8", s->cr8, ~0xfull);
    no_bits(c, "EFER", s->efer, ~c->limits->efer_valid);
    bool lma = s->efer & EFER_LMA;
    if (lma != ((s->efer & EFER_LME) && (s->cr0 & CR0_PG)))
        wrong(c, "EFER is 0x%llx: LMA must be LME with CR0.PG", (unsigned long long)s->efer);
    if (lma && !(s->cr4 & CR4_PAE))
        wrong(c, "CR4 lacks PAE in long mode");
    if (!lma)
        no_bits(c, "CR4 outside long mode", s->cr4, CR4_PCIDE);
    uint64_t xcr0_valid = c->limits->xcr0_valid ? c->limits->xcr0_valid : 1;
    if (!(s->xcr0 & 1) || ((s->xcr0 & 4) && !(s->xcr0 & 2)) ||
        ((s->xcr0 & 0xe0) && ((s->xcr0 & 0xe0) != 0xe0 || !(s->xcr0 & 4))))
        wrong(c, "XCR0 is 0x%llx: components do not go together", (unsigned long long)s->xcr0);
    no_bits(c, "XCR0", s->xcr0, ~xcr0_valid);
    no_bits(c, "XSS", s->xss, ~c->limits->xss_valid);
    no_bits(c, "DR6", s->dr6, 0xffffffff00000000);
    no_bits(c, "DR7", s->dr7, 0xffffffff00000000);
    /* PDPTEs: present ones have bits 2:1, 8:5 and the address's top clear (SDM vol. 3A, table 4-8). */
    bool pae = (s->cr0 & CR0_PG) && (s->cr4 & CR4_PAE) && !lma;
    for (unsigned i = 0; i < 4; i++)
        if (pae && (s->pdpte[i] & 1))
            no_bits(c, "a PDPTE", s->pdpte[i], 0x1e6 | above_physical);
}

static void check_msrs(struct check *c)
{
    const struct cpu_state *s = c->s;
    canonical(c, "LSTAR", s->lstar);
    canonical(c, "CSTAR", s->cstar);
    canonical(c, "KERNEL_GS_BASE", s->kernel_gs_base);
    canonical(c, "SYSENTER_ESP", s->sysenter_esp);
    canonical(c, "SYSENTER_EIP", s->sysenter_eip);
    no_bits(c, "SYSENTER_CS", s->sysenter_cs, 0xffffffff00000000);
    no_bits(c, "FMASK", s->fmask, 0xffffffff00000000);
    no_bits(c, "TSC_AUX", s->tsc_aux, 0xffffffff00000000);
    no_bits(c, "SPEC_CTRL", s->spec_ctrl, ~c->limits->spec_ctrl_valid);
    no_bits(c, "DEBUGCTL", s->debugctl, ~(BIT(0) | BIT(1)));
    for (unsigned i = 0; i < 8; i++) {
        unsigned type = s->pat >> (8 * i) & 0xff;
        if (type > 7 || type == 2 || type == 3)
            wrong(c, "PAT is 0x%llx: no such memory type", (unsigned long long)s->pat);
    }
}

static const char *const seg_names[SEG_COUNT] = { "ES", "CS", "SS", "DS", "FS", "GS", "LDTR", "TR" };

/* What holds for each usable segment: reserved bits, P, S, and limit against granularity. */
static void check_attributes(struct check *c, unsigned i, bool system)
{
    const struct segment *g = &c->s->seg[i];
    bool is_system = !(g->attributes & SEG_S);
    if ((g->attributes & 0xfffe0f00) || !(g->attributes & SEG_P) || is_system != system)
        wrong(c, "%s has attributes 0x%x", seg_names[i], g->attributes);
    if (((g->limit & 0xfff) != 0xfff && (g->attributes & SEG_G)) ||
        ((g->limit & 0xfff00000) && !(g->attributes & SEG_G)))
        wrong(c, "%s has limit 0x%x with attributes 0x%x", seg_names[i], g->limit, g->attributes);
}

/* ES, SS, DS, FS, GS in protected or real mode. */
static void check_data(struct check *c, unsigned i)
{
    const struct segment *g = &c->s->seg[i];
    unsigned type = g->attributes & SEG_TYPE_MASK;
    if (i == SEG_FS || i == SEG_GS)
        canonical(c, i == SEG_FS ? "FS base" : "GS base", g->base);
    if (g->attributes & SEG_UNUSABLE) {
        no_bits(c, seg_names[i], g->attributes, 0xfffe0000);
        return;
    }
    check_attributes(c, i, false);
    if (i == SEG_SS ? type != 3 && type != 7 : !(type & 1) || ((type & 8) && !(type & 2)))
        wrong(c, "%s has type %u", seg_names[i], type);
    if (i != SEG_FS && i != SEG_GS && (g->base >> 32))
        wrong(c, "%s has base 0x%llx", seg_names[i], (unsigned long long)g->base);
}

static void check_code(struct check *c)
{
    const struct cpu_state *s = c->s;
    const struct segment *cs = &s->seg[SEG_CS];
    unsigned type = cs->attributes & SEG_TYPE_MASK, dpl = cs->attributes >> SEG_DPL_SHIFT & 3;
    unsigned ss_dpl = s->seg[SEG_SS].attributes >> SEG_DPL_SHIFT & 3;
    bool lma = s->efer & EFER_LMA;
    if (cs->attributes & SEG_UNUSABLE) {
        wrong(c, "CS is unusable");
        return;
    }
    check_attributes(c, SEG_CS, false);
    /* Type 3, a data segment, is what real mode leaves there; DPL is then 0 (SDM: only with unrestricted guest). */
    if (type != 3 && type != 9 && type != 11 && type != 13 && type != 15)
        wrong(c, "CS has type %u", type);
    if ((type == 3 && dpl) || ((type == 9 || type == 11) && dpl != ss_dpl) ||
        ((type == 13 || type == 15) && dpl > ss_dpl))
        wrong(c, "CS of type %u has DPL %u, SS has %u", type, dpl, ss_dpl);
    if ((type == 3 || !(s->cr0 & CR0_PE)) && ss_dpl)
        wrong(c, "SS has DPL %u in real mode", ss_dpl);
    if (lma && (cs->attributes & SEG_L) && (cs->attributes & SEG_DB))
        wrong(c, "CS has both L and D");
    if (cs->base >> 32)
        wrong(c, "CS has base 0x%llx", (unsigned long long)cs->base);
}

static void check_segments(struct check *c)
{
    const struct cpu_state *s = c->s;
    bool lma = s->efer & EFER_LMA;
    if (s->rflags & RFLAGS_VM) {
        for (unsigned i = SEG_ES; i <= SEG_GS; i++)
            if (s->seg[i].base != (uint64_t)s->seg[i].selector << 4 || s->seg[i].limit != 0xffff ||
                s->seg[i].attributes != 0xf3)
                wrong(c, "%s is not a virtual-8086 segment", seg_names[i]);
    } else {
        check_code(c);
        const unsigned data[] = { SEG_SS, SEG_DS, SEG_ES, SEG_FS, SEG_GS };
        for (unsigned i = 0; i < ARRAY_COUNT(data); i++)
            check_data(c, data[i]);
    }
    const struct segment *tr = &s->seg[SEG_TR], *ldtr = &s->seg[SEG_LDTR];
    unsigned tr_type = tr->attributes & SEG_TYPE_MASK;
    check_attributes(c, SEG_TR, true);
    if ((tr->attributes & SEG_UNUSABLE) || (tr->selector & 4) || !(tr_type == 11 || (tr_type == 3 && !lma)))
        wrong(c, "TR has selector 0x%x and attributes 0x%x", tr->selector, tr->attributes);
    canonical(c, "TR base", tr->base);
    if (!(ldtr->attributes & SEG_UNUSABLE)) {
        check_attributes(c, SEG_LDTR, true);
        if ((ldtr->attributes & SEG_TYPE_MASK) != 2 || (ldtr->selector & 4))
            wrong(c, "LDTR has selector 0x%x and attributes 0x%x", ldtr->selector, ldtr->attributes);
        canonical(c, "LDTR base", ldtr->base);
    }
    canonical(c, "GDTR base", s->gdtr.base);
    canonical(c, "IDTR base", s->idtr.base);
}

static void check_rflags(struct check *c)
{
    const struct cpu_state *s = c->s;
    const uint64_t rflags_valid = 0x3f7fd7;
    if ((s->rflags & ~rflags_valid) || !(s->rflags & RFLAGS_FIXED))
        wrong(c, "RFLAGS is 0x%llx", (unsigned long long)s->rflags);
    if ((s->rflags & RFLAGS_VM) && (cpu_long_mode(s) || cpu_real_mode(s)))
        wrong(c, "RFLAGS has VM outside protected mode");
}

static void check_flow(struct check *c)
{
    const struct cpu_state *s = c->s;
    if (cpu_mode64(s))
        canonical(c, "RIP", s->rip);
    else if (s->rip >> 32)
        wrong(c, "RIP is 0x%llx outside 64-bit mode", (unsigned long long)s->rip);

    uint32_t shadow = s->interruptibility & (INTERRUPTIBILITY_STI | INTERRUPTIBILITY_MOV_SS);
    no_bits(c, "interruptibility", s->interruptibility,
            ~(uint64_t)(INTERRUPTIBILITY_STI | INTERRUPTIBILITY_MOV_SS | INTERRUPTIBILITY_NMI));
    if (shadow == (INTERRUPTIBILITY_STI | INTERRUPTIBILITY_MOV_SS))
        wrong(c, "interruptibility has both the STI and the MOV SS shadow");
    if ((shadow & INTERRUPTIBILITY_STI) && !(s->rflags & RFLAGS_IF))
        wrong(c, "interruptibility has the STI shadow with IF clear");
    no_bits(c, "pending_debug", s->pending_debug, ~(uint64_t)PENDING_DEBUG_VALID);
    if (s->halted && (shadow || (s->seg[SEG_SS].attributes >> SEG_DPL_SHIFT & 3)))
        wrong(c, "halted in an interrupt shadow or outside ring 0");
}

/* Vectors that push an error code (SDM vol. 3A, table 6-1). */
static bool pushes_error(unsigned vector)
{
    return vector == EXC_DF || (vector >= EXC_TS && vector <= EXC_PF) || vector == EXC_AC;
}

/* The event to inject (SDM vol. 3C, 27.2.1.3). */
static void check_pending(struct check *c)
{
    const struct cpu_state *s = c->s;
    const struct event *e = &s->pending;
    bool blocked = s->interruptibility & (INTERRUPTIBILITY_STI | INTERRUPTIBILITY_MOV_SS);
    bool software = e->type >= EVENT_SOFT_INT;
    bool ok = true;
    switch (e->type) {
    case EVENT_NONE:
        return;
    case EVENT_EXTERNAL:
        ok = (s->rflags & RFLAGS_IF) && !blocked;
        break;
    case EVENT_NMI:
        ok = e->vector == EXC_NMI && !(s->interruptibility & (INTERRUPTIBILITY_MOV_SS | INTERRUPTIBILITY_NMI));
        break;
    case EVENT_EXCEPTION:
        ok = e->vector < 32 && e->vector != EXC_NMI && e->has_error == (pushes_error(e->vector) && !cpu_real_mode(s));
        break;
    case EVENT_SOFT_INT:
        break;
    case EVENT_SOFT_EXCEPTION:
        ok = e->vector == EXC_BP || e->vector == EXC_OF;
        break;
    case EVENT_PRIV_SOFT_EXCEPTION:
        ok = e->vector == EXC_DB;
        break;
    default:
        ok = false;
    }
    if (software)
        ok = ok && e->instruction_length >= 1 && e->instruction_length <= 15;
    if (e->type != EVENT_EXCEPTION)
        ok = ok && !e->has_error;
    if (e->has_error && (e->error & 0xffff0000))
        ok = false;
    /* What HLT can be left by (SDM vol. 3C, 27.3.1.5); a halted vCPU with another event is a contradiction. */
    if (s->halted && e->type != EVENT_EXTERNAL && e->type != EVENT_NMI &&
        !(e->type == EVENT_EXCEPTION && (e->vector == EXC_DB || e->vector == EXC_MC)))
        ok = false;
    if (!ok)
        wrong(c, "the pending event (type %u, vector %u) cannot be delivered", e->type, e->vector);
}

enum status cpu_state_check(const struct cpu_state *state, const struct cpu_limits *limits, char *text,
                            size_t text_bytes)
{
    struct check check = { state, limits, text, text_bytes, false };
    check_control(&check);
    check_msrs(&check);
    check_rflags(&check);
    check_segments(&check);
    check_flow(&check);
    check_pending(&check);
    return check.bad ? ERR_INVALID : OK;
}

void cpu_state_restore(struct cpu_state *state, struct stream_reader *r, const struct cpu_limits *limits)
{
    char text[96];
    memset(state, 0, sizeof(*state));
    if (!r->error && (!r->version || r->version > CPU_SECTION_VERSION))
        stream_fail(r, ERR_VERSION, "version %u, this node reads up to %u: update it", r->version, CPU_SECTION_VERSION);
    struct pass pass = { NULL, r };
    pass_state(&pass, state, r->version);
    /* An NMI whose delivery was interrupted brings its own blocking (SDM vol. 3C, 28.2.3): delivery sets it again. */
    if (state->pending.type == EVENT_NMI)
        state->interruptibility &= ~(uint32_t)INTERRUPTIBILITY_NMI;
    if (!r->error && cpu_state_check(state, limits, text, sizeof(text)))
        stream_fail(r, ERR_CORRUPT, "%s", text);
    if (!r->error && stream_left(r))
        stream_fail(r, ERR_CORRUPT, "it is longer than its version says");
}
