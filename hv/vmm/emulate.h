/* SPDX-License-Identifier: MIT */
/*
 * The instruction emulator: carries out one guest instruction that the CPU could not finish because it touches emulated
 * memory (or, where the CPU lacks decode assists, tells an instruction's length). Pure core: Zydis decodes, the
 * semantics are here. It works on a struct cpu_state copy and on callbacks; nothing is committed until all of the
 * instruction has succeeded (for REP: one iteration), so a fault leaves no trace.
 */
#ifndef VMM_EMULATE_H
#define VMM_EMULATE_H

#include "kernel/types.h"
#include "vmm/cpu_state.h"

enum emu_result {
    EMU_DONE,        /* state holds the result, RIP advanced (or, for an unfinished REP, not) */
    EMU_FAULT,       /* ctx->fault is to be injected; state is unchanged but for what the fault itself sets (CR2) */
    EMU_UNSUPPORTED, /* not an instruction that the emulator knows: the vCPU is stopped and the bytes are reported */
    EMU_RETRY,       /* guest memory went away or changed under it: enter the guest again */
    EMU_IO_PENDING,  /* reserved for callbacks that cannot answer at once */
};

/* Kinds of a memory access, for the page walk and the callbacks. */
enum access {
    ACCESS_READ = 1,
    ACCESS_WRITE = 2,
    ACCESS_FETCH = 4,
    ACCESS_IMPLICIT = 8, /* by the CPU itself: supervisor whatever CPL is */
};

/* What the emulator may ask of the world. All callbacks get ops->context. */
struct emu_ops {
    void *context;
    /*
     * Guest physical RAM or MMIO. `count` is 1..64 and never crosses a page. Returns false where neither RAM nor a
     * device answers (the emulator then reads all ones and drops writes, as a bus does: the callback does that itself
     * and returns true; false means EMU_RETRY).
     */
    bool (*read)(void *context, gpa_t gpa, void *bytes, size_t count);
    bool (*write)(void *context, gpa_t gpa, const void *bytes, size_t count);
    /* Atomic compare and exchange on `count` = 1, 2, 4, 8 or 16 bytes; *equal tells. On MMIO: read, compare, write. */
    bool (*compare_exchange)(void *context, gpa_t gpa, const void *expected, const void *desired, size_t count,
                             bool *equal);
    /* OUT/IN, INS/OUTS: size 1, 2 or 4. May be NULL: such an instruction is then EMU_UNSUPPORTED. */
    bool (*port_in)(void *context, uint16_t port, unsigned size, uint32_t *value);
    bool (*port_out)(void *context, uint16_t port, unsigned size, uint32_t value);
    /*
     * A host pointer to `count` bytes of guest RAM at gpa (they never cross a page), or NULL where that is not plain
     * RAM. Valid until the emulator's public function returns, and only for reading; the guest may change it meanwhile.
     * May be NULL as a whole: everything then goes through `read`. It is what makes guest_translate and
     * emu_instruction_length fast.
     */
    const void *(*peek)(void *context, gpa_t gpa, size_t count);
    /*
     * Vector register 0..31 as 64 bytes, whatever part of it the CPU has (the rest reads 0 and is dropped). Both may be
     * NULL: SSE and AVX moves are then EMU_UNSUPPORTED.
     */
    bool (*vector_read)(void *context, unsigned index, uint8_t bytes[64]);
    bool (*vector_write)(void *context, unsigned index, const uint8_t bytes[64]);
};

/*
 * Where the last instruction that needed a length was found: lets the next one in the same page do without a page
 * walk. A translation kept here can be stale, as one in a TLB, so it is used only where the caller knows which
 * instruction it is and the bytes found are that one. One per vCPU, zeroed once; nothing has to be flushed.
 */
struct emu_fetch_hint {
    uint64_t cr3, page, gpa;
};

struct emu {
    struct cpu_state *state; /* in and out */
    const struct emu_ops *ops;
    unsigned physical_bits;  /* the guest's MAXPHYADDR */
    uint8_t bytes[15];       /* instruction bytes that the CPU gave (decode assists), or fetched */
    uint8_t byte_count;      /* 0: fetch through CS:RIP; out: how many of `bytes` are there */
    uint16_t expected;       /* the opcode that the exit tells of, first byte lowest (CPUID 0xa20f, HLT 0xf4), or 0 */
    struct emu_fetch_hint *hint; /* for emu_instruction_length together with `expected`, or NULL */
    struct event fault;      /* valid with EMU_FAULT */
    uint8_t length;          /* of the decoded instruction, out */
};

/*
 * Emulates the instruction at CS:RIP: one instruction, or a bounded number of iterations of a repeated string
 * instruction (RIP then stays where it is until the last one is done; registers count what was done).
 *
 * What an instruction boundary means besides the result is done here too: RFLAGS.RF and the STI and MOV SS shadows are
 * cleared (MOV SS and POP SS set theirs), and where RFLAGS.TF was set before the instruction a #DB is put in
 * state->pending and DR6.BS is set in state->dr6 (an injected #DB does not set it, SDM vol. 3C, 27.6.1). A pending
 * event that is there already is kept, and DR6.BS alone tells of the trap.
 *
 * With EMU_FAULT the caller injects emu->fault; CR2 is in fault.cr2 and is not written to the state. The caller sets
 * RF in the pushed image where its CPU does not do so. A fault in the second or a later iteration of a batch is not
 * reported: the iterations before it are EMU_DONE, and the guest meets the fault itself when it goes on.
 */
enum emu_result emu_step(struct emu *emu) MUST_CHECK;

/*
 * Length in bytes (1..15) of the instruction at CS:RIP, or 0 with emu->fault set (fetch fault) or no fault (not an
 * instruction). Tries the plain short encodings before it calls Zydis: this is on the exit path of CPUs without NRIP
 * save.
 */
unsigned emu_instruction_length(struct emu *emu);

/*
 * Guest paging: translates a linear address in the mode that `state` says (none, 32-bit, PAE, 4-level, 5-level), with
 * the rights of CPL, WP, NXE, SMEP, SMAP (RFLAGS.AC), PKE, and sets accessed and dirty bits atomically through
 * ops->compare_exchange. `access` is a mask of enum access. On success *gpa is set and true returned; otherwise
 * *fault holds #PF (error code and CR2) or, for a non-canonical address, #GP (or #SS if `stack`).
 * A translation that has to be retried because the tables changed is retried inside.
 */
bool guest_translate(const struct cpu_state *state, const struct emu_ops *ops, unsigned physical_bits, gva_t gva,
                     unsigned access, bool stack, gpa_t *gpa, struct event *fault);

#endif
