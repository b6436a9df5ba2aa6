/* SPDX-License-Identifier: MIT */
/*
 * Guest paging in software: a linear address to a guest physical one, as the guest's CPU would do it (SDM vol. 3A,
 * chapter 4; AMD APM vol. 2, chapter 5). Pure: guest memory is reached through struct emu_ops only.
 *
 * A walk first reads all entries, once each, and judges the copies. Only when the access is allowed are accessed and
 * dirty bits set, by compare-exchange against the copy that was judged: if another vCPU changed an entry meanwhile, the
 * walk starts over. So a faulting access leaves no bit behind, and no entry is believed that was not checked.
 *
 * Callers: the instruction emulator for every access, and exit handlers that need one address. It runs on the exit path
 * of CPUs that do not report instruction lengths, hence `peek` and no work that the common case does not need.
 */
#include "vmm/emulate.h"
#include "vmm/emulate_internal.h"
#include <string.h>

#define PTE_P BIT(0)
#define PTE_W BIT(1)
#define PTE_U BIT(2)
#define PTE_A BIT(5)
#define PTE_D BIT(6)
#define PTE_PS BIT(7)
#define PTE_NX BIT(63)
#define PTE_ADDRESS 0x000ffffffffff000ull

#define PF_P 1u
#define PF_W 2u
#define PF_U 4u
#define PF_RSVD 8u
#define PF_FETCH 16u
#define PF_PK 32u

#define MAX_LEVELS 5
/* Tables that change under each of so many walks are answered with a page fault, which a guest expects anyway. */
#define MAX_RESTARTS 64

struct walk {
    const struct cpu_state *state;
    const struct emu_ops *ops;
    uint64_t gva;
    unsigned access;
    bool user;
    unsigned depth;                 /* entries read */
    uint64_t entry_gpa[MAX_LEVELS]; /* where each was */
    uint64_t entry[MAX_LEVELS];     /* what was judged */
};

/* One entry, read once. Where nothing answers it is all ones, which is a reserved-bit fault in every format. */
static uint64_t read_entry(const struct emu_ops *ops, uint64_t gpa, unsigned bytes)
{
    const void *host = ops->peek ? ops->peek(ops->context, GPA(gpa), bytes) : NULL;
    if (likely(host != NULL))
        return bytes == 8 ? *(const volatile uint64_t *)host : *(const volatile uint32_t *)host;
    uint64_t entry = 0;
    if (!ops->read(ops->context, GPA(gpa), &entry, bytes))
        return bytes == 8 ? ~0ull : 0xffffffffu;
    return entry;
}

static bool page_fault(const struct walk *w, unsigned bits, struct event *fault)
{
    unsigned error = bits;
    if (w->access & ACCESS_WRITE)
        error |= PF_W;
    if (w->user)
        error |= PF_U;
    /* The fetch bit exists only where fetches can be told apart (SDM vol. 3A, 4.7). */
    if ((w->access & ACCESS_FETCH) &&
        ((w->state->cr4 & CR4_SMEP) || ((w->state->cr4 & CR4_PAE) && (w->state->efer & EFER_NXE))))
        error |= PF_FETCH;
    *fault =
        (struct event){ .type = EVENT_EXCEPTION, .vector = EXC_PF, .has_error = true, .error = error, .cr2 = w->gva };
    return false;
}

/*
 * The error bits of an access that the entries' combined rights forbid, or 0. `rights` holds U and W if every level
 * grants them, NX if any level denies fetches, and the key of the leaf in its place (SDM vol. 3A, 4.6).
 */
static unsigned forbidden(const struct walk *w, uint64_t rights)
{
    const struct cpu_state *s = w->state;
    if (w->user) {
        if (!(rights & PTE_U))
            return PF_P;
        if ((w->access & ACCESS_WRITE) && !(rights & PTE_W))
            return PF_P;
    } else {
        if ((w->access & ACCESS_WRITE) && !(rights & PTE_W) && (s->cr0 & CR0_WP))
            return PF_P;
        if (rights & PTE_U) {
            if ((w->access & ACCESS_FETCH) && (s->cr4 & CR4_SMEP))
                return PF_P;
            if ((w->access & (ACCESS_READ | ACCESS_WRITE)) && (s->cr4 & CR4_SMAP) &&
                ((w->access & ACCESS_IMPLICIT) || !(s->rflags & RFLAGS_AC)))
                return PF_P;
        }
    }
    if ((w->access & ACCESS_FETCH) && (rights & PTE_NX) && (s->efer & EFER_NXE))
        return PF_P;
    if ((s->cr4 & CR4_PKE) && (rights & PTE_U) && (w->access & (ACCESS_READ | ACCESS_WRITE)) && cpu_long_mode(s)) {
        unsigned key = (s->pkru >> (2 * ((rights >> 59) & 15))) & 3; /* bit 0: no access, bit 1: no writes */
        if ((key & 1) || ((key & 2) && (w->access & ACCESS_WRITE) && (w->user || (s->cr0 & CR0_WP))))
            return PF_P | PF_PK;
    }
    return 0;
}

/* Sets what is missing of A (all levels) and D (the leaf of a write). False: an entry is no longer what was judged. */
static bool mark_used(const struct walk *w, unsigned bytes)
{
    for (unsigned i = 0; i < w->depth; i++) {
        uint64_t wanted = w->entry[i] | PTE_A;
        if (i == w->depth - 1 && (w->access & ACCESS_WRITE))
            wanted |= PTE_D;
        if (wanted == w->entry[i])
            continue;
        bool equal = true;
        /* Tables in read-only or missing memory keep their bits; that is no reason to fault. */
        if (w->ops->compare_exchange(w->ops->context, GPA(w->entry_gpa[i]), &w->entry[i], &wanted, bytes, &equal) &&
            !equal)
            return false;
    }
    return true;
}

/* Four- and five-level paging, and the two lower levels of PAE. */
static bool walk_long(struct walk *w, unsigned physical_bits, uint64_t table, unsigned level, gpa_t *gpa,
                      struct event *fault)
{
    const uint64_t missing = (w->access & ACCESS_WRITE) ? PTE_A | PTE_D : PTE_A;
    /* Reserved in every entry: what lies above the guest's physical width, NX without NXE, and 62:52 in PAE. */
    uint64_t reserved = (PTE_ADDRESS >> physical_bits) << physical_bits;
    if (!(w->state->efer & EFER_NXE))
        reserved |= PTE_NX;
    if (!cpu_long_mode(w->state))
        reserved |= 0x7ff0000000000000ull;

    uint64_t granted = PTE_U | PTE_W, denied = 0, used = PTE_A | PTE_D;
    unsigned depth = 0;
    for (;; level--) {
        unsigned shift = PAGE_SHIFT + 9 * (level - 1);
        uint64_t at = table + ((w->gva >> shift) & 511) * 8;
        uint64_t entry = read_entry(w->ops, at, 8);
        w->entry_gpa[depth] = at;
        w->entry[depth++] = entry;
        if (!(entry & PTE_P))
            return page_fault(w, 0, fault);
        if (unlikely(entry & reserved))
            return page_fault(w, PF_P | PF_RSVD, fault);
        granted &= entry;
        denied |= entry & PTE_NX;
        used &= entry | PTE_D;
        table = entry & PTE_ADDRESS;
        if (level > 1 && !(entry & PTE_PS))
            continue;
        uint64_t offset_mask = BIT(shift) - 1;
        /* A large page: none above 1 GiB, none of 1 GiB in PAE, and its low address bits (but PAT, bit 12) are zero. */
        if (level > 1 && (level > 3 || (entry & offset_mask & PTE_ADDRESS & ~BIT(12))))
            return page_fault(w, PF_P | PF_RSVD, fault);
        used &= entry;
        w->depth = depth;
        unsigned error = forbidden(w, granted | denied | (entry & (15ull << 59)));
        if (unlikely(error))
            return page_fault(w, error, fault);
        *gpa = GPA((table & ~offset_mask) | (w->gva & offset_mask));
        return likely((used & missing) == missing) || (w->access & ACCESS_PROBE) || mark_used(w, 8);
    }
}

/* Two-level paging with 32-bit entries; 4 MiB pages reach 40 bits (PSE-36). */
static bool walk_32bit(struct walk *w, unsigned physical_bits, gpa_t *gpa, struct event *fault)
{
    uint64_t at = (w->state->cr3 & 0xfffff000u) + ((w->gva >> 22) & 1023) * 4;
    uint64_t entry = read_entry(w->ops, at, 4);
    w->entry_gpa[0] = at;
    w->entry[0] = entry;
    w->depth = 1;
    if (!(entry & PTE_P))
        return page_fault(w, 0, fault);
    uint64_t granted = entry & (PTE_U | PTE_W);
    if ((entry & PTE_PS) && (w->state->cr4 & CR4_PSE)) {
        uint64_t high = (entry >> 13) & 0xff;
        unsigned high_bits = physical_bits < 40 ? physical_bits - 32 : 8;
        if ((entry & BIT(21)) || (high >> high_bits))
            return page_fault(w, PF_P | PF_RSVD, fault);
        *gpa = GPA((high << 32) | (entry & 0xffc00000u) | (w->gva & 0x3fffff));
    } else {
        at = (entry & 0xfffff000u) + ((w->gva >> 12) & 1023) * 4;
        entry = read_entry(w->ops, at, 4);
        w->entry_gpa[1] = at;
        w->entry[1] = entry;
        w->depth = 2;
        if (!(entry & PTE_P))
            return page_fault(w, 0, fault);
        granted &= entry;
        *gpa = GPA((entry & 0xfffff000u) | (w->gva & 0xfff));
    }
    unsigned error = forbidden(w, granted);
    if (error)
        return page_fault(w, error, fault);
    return (w->access & ACCESS_PROBE) || mark_used(w, 4);
}

/*
 * PAE paging takes its top level from registers that MOV CR3 filled (SDM vol. 3A, 4.4.1). A backend whose CPU keeps no
 * such registers (SVM with nested paging reads them on each walk, APM vol. 2, 15.25.10) leaves them all zero.
 */
static bool walk_pae(struct walk *w, unsigned physical_bits, gpa_t *gpa, struct event *fault)
{
    const uint64_t *cached = w->state->pdpte;
    unsigned index = (w->gva >> 30) & 3;
    uint64_t entry = cached[index];
    if (!(cached[0] | cached[1] | cached[2] | cached[3]))
        entry = read_entry(w->ops, (w->state->cr3 & 0xffffffe0u) + index * 8, 8) & ~PTE_A; /* QEMU 7.2 sets it */
    if (!(entry & PTE_P))
        return page_fault(w, 0, fault);
    if ((entry & 0xfff00000000001e6ull) || ((entry & PTE_ADDRESS) >> physical_bits))
        return page_fault(w, PF_P | PF_RSVD, fault);
    return walk_long(w, physical_bits, entry & PTE_ADDRESS, 2, gpa, fault);
}

static unsigned cpu_levels(const struct cpu_state *state) { return state->cr4 & CR4_LA57 ? 5 : 4; }

/* An entry of the quick walk, or 0, which sends it to the thorough one. */
static inline uint64_t peek_entry(const struct emu_ops *ops, uint64_t table, uint64_t gva, unsigned shift)
{
    const volatile uint64_t *host = ops->peek(ops->context, GPA((table & PTE_ADDRESS) + ((gva >> shift) & 511) * 8), 8);
    return likely(host != NULL) ? *host : 0;
}

/*
 * The common case of four levels in few instructions: tables in plain RAM, all bits set that the access would set, a
 * page of 4 KiB or 2 MiB, nothing that forbids the access. False means only that the thorough walk must decide.
 */
static bool walk_quickly(const struct cpu_state *state, const struct emu_ops *ops, unsigned physical_bits, uint64_t gva,
                         unsigned access, gpa_t *gpa)
{
    uint64_t e4 = peek_entry(ops, state->cr3, gva, 39);
    if (unlikely(!(e4 & PTE_P)))
        return false;
    uint64_t e3 = peek_entry(ops, e4, gva, 30);
    if (unlikely((e3 & (PTE_P | PTE_PS)) != PTE_P))
        return false;
    uint64_t leaf = peek_entry(ops, e3, gva, 21), all = e4 & e3, any = e4 | e3, offset_mask = LARGE_PAGE_BYTES - 1;
    if (!(leaf & PTE_PS)) {
        if (unlikely(!(leaf & PTE_P)))
            return false;
        all &= leaf;
        any |= leaf;
        leaf = peek_entry(ops, leaf, gva, 12);
        offset_mask = PAGE_BYTES - 1;
    } else if (unlikely(leaf & 0x1fe000)) {
        return false; /* reserved */
    }
    all &= leaf;
    any |= leaf;
    uint64_t needed = PTE_P | PTE_A;
    if (access & ACCESS_WRITE) {
        needed |= PTE_W;
        if (unlikely(!(leaf & PTE_D)))
            return false;
    }
    if (cpu_cpl(state) == 3 && !(access & ACCESS_IMPLICIT))
        needed |= PTE_U;
    else if (unlikely((all & PTE_U) && (state->cr4 & (CR4_SMEP | CR4_SMAP))))
        return false;
    if (unlikely((all & needed) != needed || ((any & PTE_ADDRESS) >> physical_bits) || (e4 & PTE_PS)))
        return false;
    if (unlikely((any & PTE_NX) && ((access & ACCESS_FETCH) || !(state->efer & EFER_NXE))))
        return false;
    if (unlikely((state->cr4 & CR4_PKE) && (all & PTE_U)))
        return false;
    *gpa = GPA((leaf & PTE_ADDRESS & ~offset_mask) | (gva & offset_mask));
    return true;
}

/* Every mode and every case, restarts included. */
static __attribute__((noinline)) bool walk_thoroughly(const struct cpu_state *state, const struct emu_ops *ops,
                                                      unsigned physical_bits, uint64_t gva, unsigned access, gpa_t *gpa,
                                                      struct event *fault)
{
    struct walk w;
    w.state = state;
    w.ops = ops;
    w.gva = gva;
    w.access = access;
    w.user = !(access & ACCESS_IMPLICIT) && cpu_cpl(state) == 3;
    for (unsigned i = 0; i < MAX_RESTARTS; i++) {
        fault->type = EVENT_NONE;
        bool ok = cpu_long_mode(state)
                      ? walk_long(&w, physical_bits, state->cr3 & PTE_ADDRESS, cpu_levels(state), gpa, fault)
                  : (state->cr4 & CR4_PAE) ? walk_pae(&w, physical_bits, gpa, fault)
                                           : walk_32bit(&w, physical_bits, gpa, fault);
        if (ok)
            return true;
        if (fault->type != EVENT_NONE)
            return false;
    }
    return page_fault(&w, PF_P, fault);
}

bool guest_translate(const struct cpu_state *state, const struct emu_ops *ops, unsigned physical_bits, gva_t gva,
                     unsigned access, bool stack, gpa_t *gpa, struct event *fault)
{
    if (unlikely(!(state->cr0 & CR0_PG))) {
        *gpa = GPA(gva.v);
        return true;
    }
    if (likely(cpu_long_mode(state))) {
        unsigned levels = cpu_levels(state);
        if (unlikely(!emu_canonical(gva.v, levels))) {
            *fault = (struct event){ .type = EVENT_EXCEPTION, .vector = stack ? EXC_SS : EXC_GP, .has_error = true };
            return false;
        }
        if (likely(levels == 4 && ops->peek && walk_quickly(state, ops, physical_bits, gva.v, access, gpa)))
            return true;
    }
    return walk_thoroughly(state, ops, physical_bits, gva.v, access, gpa, fault);
}
