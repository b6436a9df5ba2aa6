/* SPDX-License-Identifier: MIT */
/*
 * Registers and vector state in the stream: every mode a guest can be in comes back as it was, every state that could
 * not enter is refused with the register's name, and a component that was in its initial state carries no old bytes.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "fake_stream.h"
#include "vm/kernel_image.h"
#include "vmm/cpu_state_stream.h"

static const struct cpu_limits limits = {
    .cr4_valid = 0x7ffull | CR4_UMIP | CR4_FSGSBASE | CR4_PCIDE | CR4_OSXSAVE | CR4_SMEP | CR4_SMAP,
    .efer_valid = EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE,
    .xcr0_valid = 7, .spec_ctrl_valid = 7, .physical_bits = 40, .linear_bits = 48,
};
static struct fake_stream stream;
static char text[160];

static void body(struct stream_writer *w, void *arg)
{
    cpu_state_save(arg, w);
}

static void real_mode(struct cpu_state *s)
{
    cpu_state_reset(s);
}

static void protected_mode(struct cpu_state *s)
{
    cpu_state_reset(s);
    s->cr0 = CR0_PE | CR0_ET;
    s->rip = 0x100000;
    for (unsigned i = SEG_ES; i <= SEG_GS; i++)
        s->seg[i] = (struct segment){ .limit = 0xffffffff, .attributes = 0xc093, .selector = 0x18 };
    s->seg[SEG_CS] = (struct segment){ .limit = 0xffffffff, .attributes = 0xc09b, .selector = 0x10 };
    s->seg[SEG_LDTR].attributes = SEG_UNUSABLE;
}

static void long_mode(struct cpu_state *s)
{
    protected_mode(s);
    s->cr0 |= CR0_PG | CR0_WP | CR0_NE;
    s->cr4 = CR4_PAE | CR4_PGE | CR4_OSFXSR | CR4_OSXSAVE;
    s->cr3 = 0x12345000;
    s->efer = EFER_LME | EFER_LMA | EFER_SCE | EFER_NXE;
    s->seg[SEG_CS].attributes = 0xa09b;
    s->seg[SEG_SS] = (struct segment){ .attributes = SEG_UNUSABLE };
    s->seg[SEG_GS].base = 0xffff888000000000;
    s->rip = s->lstar = s->sysenter_eip = 0xffffffff81000000;
    s->kernel_gs_base = 0xffff800000000000;
    s->gdtr.base = s->idtr.base = 0xfffffe0000001000;
    s->xcr0 = 7;
    s->rflags |= RFLAGS_IF;
}

static void long_user(struct cpu_state *s)
{
    long_mode(s);
    s->rip = 0x7fffffffe000;
    s->seg[SEG_CS].attributes = 0xa0fb;
    s->seg[SEG_SS] = (struct segment){ .limit = 0xffffffff, .attributes = 0xc0f3, .selector = 0x2b };
}

static void compatibility(struct cpu_state *s)
{
    long_user(s);
    s->seg[SEG_CS].attributes = 0xc0fb;
    s->rip = 0xf7f00000;
}

static void virtual_8086(struct cpu_state *s)
{
    protected_mode(s);
    s->rflags |= RFLAGS_VM;
    s->rip = 0x100;
    for (unsigned i = SEG_ES; i <= SEG_GS; i++)
        s->seg[i] = (struct segment){ .base = 0x12340, .limit = 0xffff, .attributes = 0xf3, .selector = 0x1234 };
}

static void pae(struct cpu_state *s)
{
    protected_mode(s);
    s->cr0 |= CR0_PG;
    s->cr4 = CR4_PAE;
    s->pdpte[0] = 0x1001, s->pdpte[3] = 0x5001;
}

static void unreal(struct cpu_state *s)
{
    cpu_state_reset(s);
    s->seg[SEG_DS] = (struct segment){ .limit = 0xffffffff, .attributes = 0xc093 };
}

static void halted(struct cpu_state *s)
{
    long_mode(s);
    s->halted = true;
    s->pending = (struct event){ .type = EVENT_EXTERNAL, .vector = 0xef };
}

static void faulting(struct cpu_state *s)
{
    long_user(s);
    s->pending =
        (struct event){ .type = EVENT_EXCEPTION, .vector = EXC_PF, .has_error = true, .error = 6, .cr2 = 0xdead000 };
}

static void breakpoint(struct cpu_state *s)
{
    long_user(s);
    s->pending = (struct event){ .type = EVENT_SOFT_EXCEPTION, .vector = EXC_BP, .instruction_length = 1 };
}

static void (*const modes[])(struct cpu_state *) = { real_mode, protected_mode, long_mode, long_user, compatibility,
                                                     virtual_8086, pae, unreal, halted, faulting, breakpoint };

static void fill(struct cpu_state *s)
{
    for (unsigned i = 0; i < GPR_COUNT; i++)
        s->gpr[i] = 0x0101010101010101ull * (i + 1);
    s->cr2 = 0x123456789abcdef0;
    s->cr8 = 9;
    for (unsigned i = 0; i < 4; i++)
        s->dr[i] = 0x1111000000000000ull * (i + 1);
    s->star = 0x0023001000000000, s->fmask = 0x47700, s->tsc_aux = 5, s->spec_ctrl = 1;
    s->sysenter_cs = 0x10, s->sysenter_esp = 0xfffffe0000002000;
}

static void every_mode_comes_back_as_it_was(void **state)
{
    (void)state;
    for (unsigned i = 0; i < ARRAY_COUNT(modes); i++) {
        struct cpu_state before, after;
        memset(&before, 0, sizeof(before));
        modes[i](&before);
        fill(&before);
        assert_int_equal(cpu_state_check(&before, &limits, text, sizeof(text)), OK);
        fake_stream_write(&stream, CPU_SECTION_VERSION, body, &before);
        struct stream_reader *r = fake_stream_read(&stream);
        cpu_state_restore(&after, r, &limits);
        assert_int_equal(r->error, OK);
        assert_memory_equal(&before, &after, offsetof(struct cpu_state, seg));
        for (unsigned k = 0; k < SEG_COUNT; k++) {
            assert_int_equal(before.seg[k].base, after.seg[k].base);
            assert_int_equal(before.seg[k].limit, after.seg[k].limit);
            assert_int_equal(before.seg[k].attributes, after.seg[k].attributes);
            assert_int_equal(before.seg[k].selector, after.seg[k].selector);
        }
        /* Written again, it is the same stream: so nothing is left out on the way back. */
        struct fake_stream again;
        fake_stream_write(&again, CPU_SECTION_VERSION, body, &after);
        assert_int_equal(again.count, stream.count);
        assert_memory_equal(again.bytes, stream.bytes, stream.count);
    }
}

/* Every field of the struct is in the stream: two states that differ in one byte give two streams. */
static void no_field_is_forgotten(void **state)
{
    (void)state;
    struct cpu_state s;
    memset(&s, 0, sizeof(s));
    fake_stream_write(&stream, 1, body, &s);
    struct fake_stream other;
    unsigned silent = 0;
    for (size_t at = 0; at < sizeof(s); at++) {
        ((uint8_t *)&s)[at] = 1;
        fake_stream_write(&other, 1, body, &s);
        silent += !memcmp(other.bytes, stream.bytes, stream.count);
        ((uint8_t *)&s)[at] = 0;
    }
    /* What is silent: padding in each segment and table register and behind `halted`, and PKRU, which is a copy. */
    size_t padding = SEG_COUNT * (sizeof(struct segment) - 18) + 2 * (sizeof(struct table_register) - 10) +
                     (offsetof(struct cpu_state, pending) - offsetof(struct cpu_state, halted) - 1);
    assert_int_equal(silent, padding + sizeof(s.pkru));
}

struct wrong { void (*mode)(struct cpu_state *); size_t at; unsigned width; uint64_t value; const char *name; };
#define FIELD(mode, field, value, name) \
    { mode, offsetof(struct cpu_state, field), sizeof(((struct cpu_state *)0)->field), value, name }

static void states_that_cannot_enter_are_refused_by_name(void **state)
{
    (void)state;
    static const struct wrong wrongs[] = {
        FIELD(long_mode, cr0, BIT(63), "CR0"),
        FIELD(long_mode, cr0, CR0_PG | CR0_ET, "CR0"),
        FIELD(real_mode, cr0, CR0_ET | CR0_NW, "CR0"),
        FIELD(long_mode, cr0, CR0_PE | CR0_ET, "EFER"),
        FIELD(long_mode, cr3, BIT(40), "CR3"),
        FIELD(long_mode, cr4, CR4_PAE | CR4_VMXE, "CR4"),
        FIELD(long_mode, cr4, CR4_PAE | CR4_LA57, "CR4"),
        FIELD(long_mode, cr4, 0, "CR4"),
        FIELD(protected_mode, cr4, CR4_PCIDE, "CR4"),
        FIELD(long_mode, cr8, 16, "CR8"),
        FIELD(long_mode, efer, EFER_LMA, "EFER"),
        FIELD(long_mode, efer, EFER_LME, "EFER"),
        FIELD(long_mode, efer, EFER_LME | EFER_LMA | EFER_SVME, "EFER"),
        FIELD(protected_mode, efer, EFER_LMA, "EFER"),
        FIELD(long_mode, xcr0, 0, "XCR0"),
        FIELD(long_mode, xcr0, 5, "XCR0"),
        FIELD(long_mode, xcr0, 0xe7, "XCR0"),
        FIELD(long_mode, xcr0, 0x27, "XCR0"),
        FIELD(long_mode, xss, 1, "XSS"),
        FIELD(long_mode, dr6, BIT(32), "DR6"),
        FIELD(long_mode, dr7, BIT(63), "DR7"),
        FIELD(long_mode, lstar, BIT(47), "LSTAR"),
        FIELD(long_mode, cstar, BIT(63), "CSTAR"),
        FIELD(long_mode, kernel_gs_base, BIT(48), "KERNEL_GS_BASE"),
        FIELD(long_mode, sysenter_esp, BIT(48), "SYSENTER_ESP"),
        FIELD(long_mode, sysenter_eip, BIT(48), "SYSENTER_EIP"),
        FIELD(long_mode, sysenter_cs, BIT(32), "SYSENTER_CS"),
        FIELD(long_mode, fmask, BIT(32), "FMASK"),
        FIELD(long_mode, tsc_aux, BIT(32), "TSC_AUX"),
        FIELD(long_mode, spec_ctrl, BIT(3), "SPEC_CTRL"),
        FIELD(long_mode, debugctl, BIT(6), "DEBUGCTL"),
        FIELD(long_mode, pat, 0x0007040600070402, "PAT"),
        FIELD(long_mode, pat, 0x0807040600070406, "PAT"),
        FIELD(pae, pdpte[0], BIT(52) | 1, "PDPTE"),
        FIELD(pae, pdpte[3], 7, "PDPTE"),
        FIELD(long_mode, rip, BIT(47), "RIP"),
        FIELD(compatibility, rip, BIT(32), "RIP"),
        FIELD(real_mode, rip, BIT(32), "RIP"),
        FIELD(long_mode, rflags, 0, "RFLAGS"),
        FIELD(long_mode, rflags, RFLAGS_FIXED | BIT(22), "RFLAGS"),
        FIELD(long_mode, rflags, RFLAGS_FIXED | RFLAGS_VM, "RFLAGS"),
        FIELD(real_mode, rflags, RFLAGS_FIXED | RFLAGS_VM, "RFLAGS"),
        FIELD(long_mode, seg[SEG_CS].attributes, SEG_UNUSABLE, "CS"),
        FIELD(long_mode, seg[SEG_CS].attributes, 0xe09b, "CS"),
        FIELD(long_mode, seg[SEG_CS].attributes, 0xa01b, "CS"),
        FIELD(long_mode, seg[SEG_CS].attributes, 0xa19b, "CS"),
        FIELD(long_mode, seg[SEG_CS].attributes, 0xa0fb, "CS"),
        FIELD(long_mode, seg[SEG_CS].attributes, 0x209b, "CS"),
        FIELD(long_mode, seg[SEG_CS].base, BIT(32), "CS"),
        FIELD(long_user, seg[SEG_SS].attributes, 0xc093, "CS"),
        FIELD(long_user, seg[SEG_SS].attributes, 0xc0f1, "SS"),
        FIELD(protected_mode, seg[SEG_SS].limit, 0xfffff000, "SS"),
        FIELD(protected_mode, seg[SEG_DS].attributes, 0xc092, "DS"),
        FIELD(protected_mode, seg[SEG_ES].attributes, 0xc099, "ES"),
        FIELD(protected_mode, seg[SEG_ES].base, BIT(32), "ES"),
        FIELD(long_mode, seg[SEG_FS].base, BIT(48), "FS"),
        FIELD(long_mode, seg[SEG_GS].base, BIT(47), "GS"),
        FIELD(real_mode, seg[SEG_SS].attributes, 0xf3, "SS"),
        FIELD(virtual_8086, seg[SEG_DS].base, 0x12350, "DS"),
        FIELD(virtual_8086, seg[SEG_CS].limit, 0xfffff, "CS"),
        FIELD(virtual_8086, seg[SEG_CS].attributes, 0x9b, "CS"),
        FIELD(long_mode, seg[SEG_TR].attributes, 0x83, "TR"),
        FIELD(long_mode, seg[SEG_TR].attributes, 0x89, "TR"),
        FIELD(long_mode, seg[SEG_TR].attributes, 0x1008b, "TR"),
        FIELD(long_mode, seg[SEG_TR].selector, 0x44, "TR"),
        FIELD(long_mode, seg[SEG_TR].base, BIT(47), "TR"),
        FIELD(long_mode, seg[SEG_LDTR].attributes, 0x8b, "LDTR"),
        FIELD(long_mode, gdtr.base, BIT(47), "GDTR"),
        FIELD(long_mode, idtr.base, BIT(47), "IDTR"),
        FIELD(long_mode, interruptibility, BIT(2), "interruptibility"),
        FIELD(long_mode, interruptibility, 3, "interruptibility"),
        FIELD(protected_mode, interruptibility, INTERRUPTIBILITY_STI, "interruptibility"),
        FIELD(halted, interruptibility, INTERRUPTIBILITY_STI, "halted"),
        FIELD(long_user, halted, 1, "halted"),
        FIELD(halted, pending.type, EVENT_SOFT_INT, "pending"),
        FIELD(halted, pending.type, 7, "pending"),
        FIELD(halted, rflags, RFLAGS_FIXED, "pending"),
        FIELD(halted, pending.has_error, 1, "pending"),
        FIELD(faulting, pending.vector, 32, "pending"),
        FIELD(faulting, pending.vector, EXC_UD, "pending"),
        FIELD(faulting, pending.vector, EXC_NMI, "pending"),
        FIELD(faulting, pending.has_error, 0, "pending"),
        FIELD(faulting, pending.error, BIT(16), "pending"),
        FIELD(faulting, pending.type, EVENT_NMI, "pending"),
        FIELD(breakpoint, pending.instruction_length, 0, "pending"),
        FIELD(breakpoint, pending.instruction_length, 16, "pending"),
        FIELD(breakpoint, pending.vector, EXC_DB, "pending"),
        FIELD(breakpoint, pending.type, EVENT_PRIV_SOFT_EXCEPTION, "pending"),
    };
    for (unsigned i = 0; i < ARRAY_COUNT(wrongs); i++) {
        struct cpu_state s, after;
        wrongs[i].mode(&s);
        assert_int_equal(cpu_state_check(&s, &limits, NULL, 0), OK);
        le_put((uint8_t *)&s + wrongs[i].at, wrongs[i].value, wrongs[i].width);
        text[0] = 0;
        if (cpu_state_check(&s, &limits, text, sizeof(text)) != ERR_INVALID || !strstr(text, wrongs[i].name))
            fail_msg("case %u (%s): \"%s\"", i, wrongs[i].name, text);
        fake_stream_write(&stream, CPU_SECTION_VERSION, body, &s);
        struct stream_reader *r = fake_stream_read(&stream);
        cpu_state_restore(&after, r, &limits);
        assert_int_equal(r->error, ERR_CORRUPT);
        assert_non_null(strstr(r->error_text, wrongs[i].name));
    }
}

static void an_interrupted_nmi_is_delivered_again(void **state)
{
    (void)state;
    struct cpu_state s, after;
    long_mode(&s);
    s.interruptibility = INTERRUPTIBILITY_NMI;
    s.pending = (struct event){ .type = EVENT_NMI, .vector = 2 };
    fake_stream_write(&stream, CPU_SECTION_VERSION, body, &s);
    struct stream_reader *r = fake_stream_read(&stream);
    cpu_state_restore(&after, r, &limits);
    assert_int_equal(r->error, OK);
    assert_int_equal(after.interruptibility, 0);
    assert_int_equal(after.pending.type, EVENT_NMI);
}

static void debug_traps_that_wait_are_kept_and_version_1_has_none(void **state)
{
    (void)state;
    struct cpu_state s, after;
    long_mode(&s);
    s.interruptibility = INTERRUPTIBILITY_MOV_SS;
    s.pending_debug = PENDING_DEBUG_ENABLED | PENDING_DEBUG_STEP | 5;
    fake_stream_write(&stream, 2, body, &s);
    struct stream_reader *r = fake_stream_read(&stream);
    cpu_state_restore(&after, r, &limits);
    assert_int_equal(r->error, OK);
    assert_int_equal(after.pending_debug, s.pending_debug);
    size_t count = fake_stream_payload(&stream);
    fake_stream_write(&stream, 1, body, &s);
    fake_stream_cut(&stream, count - 4);
    r = fake_stream_read(&stream);
    cpu_state_restore(&after, r, &limits);
    assert_int_equal(r->error, OK);
    assert_int_equal(after.pending_debug, 0);
    assert_int_equal(after.interruptibility, INTERRUPTIBILITY_MOV_SS);
    s.pending_debug = BIT(13);
    assert_int_equal(cpu_state_check(&s, &limits, text, sizeof(text)), ERR_INVALID);
    assert_non_null(strstr(text, "pending_debug"));
}

static void other_versions_and_lengths_are_refused(void **state)
{
    (void)state;
    struct cpu_state s, after;
    long_mode(&s);
    fake_stream_write(&stream, CPU_SECTION_VERSION + 1, body, &s);
    struct stream_reader *r = fake_stream_read(&stream);
    cpu_state_restore(&after, r, &limits);
    assert_int_equal(r->error, ERR_VERSION);
    fake_stream_write(&stream, 0, body, &s);
    r = fake_stream_read(&stream);
    cpu_state_restore(&after, r, &limits);
    assert_int_equal(r->error, ERR_VERSION);
    fake_stream_write(&stream, CPU_SECTION_VERSION, body, &s);
    size_t count = fake_stream_payload(&stream);
    for (size_t cut = 0; cut < count; cut++) {
        fake_stream_write(&stream, CPU_SECTION_VERSION, body, &s);
        fake_stream_cut(&stream, cut);
        r = fake_stream_read(&stream);
        cpu_state_restore(&after, r, &limits);
        assert_int_equal(r->error, ERR_TRUNCATED);
    }
}

/* ---- XSAVE ---- */

static struct xsave_layout layout = { .components = 0x207, .area_bytes = 2696, .mxcsr_mask = 0xffff,
                                      .component = { [2] = { 576, 256 }, [9] = { 2688, 8 } } };
static struct xsave_layout other = { .components = 0x207, .area_bytes = 1024, .mxcsr_mask = 0xffff,
                                     .component = { [2] = { 640, 256 }, [9] = { 896, 8 } } };
static uint8_t area[4096], back[4096];

static void xsave_body(struct stream_writer *w, void *arg)
{
    xsave_save(area, arg, w);
}

static void fill_area(uint64_t xstate_bv)
{
    for (unsigned i = 0; i < sizeof(area); i++)
        area[i] = (uint8_t)(i * 13 + 1);
    memset(area + 512, 0, 64);
    le64_put(area + 512, xstate_bv);
    le32_put(area + 24, 0x1f80);
    le32_put(area + 28, 0xffff);
}

static enum status xsave_back(const struct xsave_layout *to)
{
    struct stream_reader *r = fake_stream_read(&stream);
    memset(back, 0xee, sizeof(back));
    xsave_restore(back, to, r);
    return r->error;
}

static void vector_state_comes_back(void **state)
{
    (void)state;
    fill_area(0x207);
    fake_stream_write(&stream, XSAVE_SECTION_VERSION, xsave_body, &layout);
    assert_int_equal(xsave_back(&layout), OK);
    assert_memory_equal(back, area, 416);
    assert_int_equal(le64_get(back + 512), 0x207);
    assert_memory_equal(back + 576, area + 576, 256);
    assert_memory_equal(back + 2688, area + 2688, 8);
    assert_int_equal(back[layout.area_bytes], 0xee);
    /* Onto a CPU with other offsets. */
    assert_int_equal(xsave_back(&other), OK);
    assert_memory_equal(back + 640, area + 576, 256);
    assert_memory_equal(back + 896, area + 2688, 8);
    assert_int_equal(back[other.area_bytes], 0xee);
}

static void initial_components_carry_no_old_bytes(void **state)
{
    (void)state;
    fill_area(0);
    fake_stream_write(&stream, XSAVE_SECTION_VERSION, xsave_body, &layout);
    struct fake_stream first = stream;
    memset(area + 32, 0x77, 384);
    memset(area + 576, 0x77, 256);
    memset(area + 2688, 0x77, 8);
    fake_stream_write(&stream, XSAVE_SECTION_VERSION, xsave_body, &layout);
    assert_memory_equal(first.bytes, stream.bytes, stream.count);
    assert_int_equal(xsave_back(&layout), OK);
    assert_int_equal(le64_get(back + 512), 0);
    assert_int_equal(le32_get(back + 24), 0x1f80);
}

static void what_xrstor_would_refuse_is_refused(void **state)
{
    (void)state;
    fill_area(0x207);
    const size_t legacy = 8 + 8 + 4 + 2 * 12;
    static const struct { size_t at; unsigned width; uint64_t value; enum status status; } patches[] = {
        { 8, 8, 0x20f, ERR_CORRUPT },       /* XSTATE_BV outside of the components */
        { 0, 8, 0x20f, ERR_CORRUPT },       /* components that are not listed */
        { 16, 4, 0xffffffff, ERR_CORRUPT }, /* their count */
        { 20, 4, 1, ERR_CORRUPT },          /* a number that is legacy */
        { 20, 4, 64, ERR_CORRUPT },
        { 28, 4, 255, ERR_CORRUPT },        /* another size */
        { 28, 4, 0xffffffff, ERR_CORRUPT },
        { 32, 4, 2, ERR_CORRUPT },          /* twice the same */
    };
    for (unsigned i = 0; i < ARRAY_COUNT(patches); i++) {
        fake_stream_write(&stream, XSAVE_SECTION_VERSION, xsave_body, &layout);
        fake_stream_patch(&stream, patches[i].at, patches[i].value, patches[i].width);
        assert_int_equal(xsave_back(&layout), patches[i].status);
        assert_int_equal(le64_get(back + 512), 0); /* what is left is the reset state */
    }
    fake_stream_write(&stream, XSAVE_SECTION_VERSION, xsave_body, &layout);
    fake_stream_patch(&stream, legacy + 24, BIT(16), 4);
    assert_int_equal(xsave_back(&layout), ERR_CORRUPT);
    assert_non_null(strstr(stream.reader.error_text, "MXCSR"));
    struct xsave_layout sse = { .components = 3, .area_bytes = 576 };
    fake_stream_write(&stream, XSAVE_SECTION_VERSION, xsave_body, &layout);
    assert_int_equal(xsave_back(&sse), ERR_UNSUPPORTED);
    fill_area(3); /* not in use: fits anyway */
    fake_stream_write(&stream, XSAVE_SECTION_VERSION, xsave_body, &layout);
    assert_int_equal(xsave_back(&sse), OK);
    assert_int_equal(back[576], 0xee);
    fake_stream_write(&stream, XSAVE_SECTION_VERSION + 1, xsave_body, &layout);
    assert_int_equal(xsave_back(&layout), ERR_VERSION);
    size_t count = fake_stream_payload(&stream);
    for (size_t cut = 0; cut < count; cut += 7) {
        fake_stream_write(&stream, XSAVE_SECTION_VERSION, xsave_body, &layout);
        fake_stream_cut(&stream, cut);
        assert_int_equal(xsave_back(&layout), ERR_TRUNCATED);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_mode_comes_back_as_it_was),
        cmocka_unit_test(no_field_is_forgotten),
        cmocka_unit_test(states_that_cannot_enter_are_refused_by_name),
        cmocka_unit_test(an_interrupted_nmi_is_delivered_again),
        cmocka_unit_test(debug_traps_that_wait_are_kept_and_version_1_has_none),
        cmocka_unit_test(other_versions_and_lengths_are_refused),
        cmocka_unit_test(vector_state_comes_back),
        cmocka_unit_test(initial_components_carry_no_old_bytes),
        cmocka_unit_test(what_xrstor_would_refuse_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
