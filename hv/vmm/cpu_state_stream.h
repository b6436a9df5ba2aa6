/* SPDX-License-Identifier: MIT */
/*
 * The vCPU sections of the state stream: "CPU" (registers) and "XSAVE" (x87, SSE, AVX and the rest), one of each for
 * every vCPU, instance = vCPU number. Pure core.
 *
 * A restored state is not believed: everything that VM entry checks (SDM vol. 3C, 27.3.1; AMD APM vol. 2, 15.5.1) is
 * checked here first, so that a stream which was forged or damaged is refused with the name of the register, and never
 * shows up as an entry failure. These functions write and read the payload only; the caller opens the section
 * (stream_section with the tag and version from here, mandatory) or has found it (stream_next).
 */
#ifndef VMM_CPU_STATE_STREAM_H
#define VMM_CPU_STATE_STREAM_H

#include "kernel/types.h"
#include "vm/stream.h"
#include "vmm/cpu_limits.h"
#include "vmm/cpu_state.h"

#define CPU_SECTION_TAG "CPU"
#define CPU_SECTION_VERSION 2 /* 1, without pending_debug, is read too */
#define XSAVE_SECTION_TAG "XSAVE"
#define XSAVE_SECTION_VERSION 1

/* Writes the payload of a "CPU" section. The vCPU must not run. */
void cpu_state_save(const struct cpu_state *state, struct stream_writer *w);

/*
 * Reads the payload of the current "CPU" section into *state. On a wrong value the reader's sticky error names the
 * register (ERR_CORRUPT, ERR_VERSION or ERR_TRUNCATED) and *state must not be run. state->pkru, which is a copy, is not
 * in the section and comes back as 0: whoever restores the XSAVE area sets it.
 */
void cpu_state_restore(struct cpu_state *state, struct stream_reader *r, const struct cpu_limits *limits);

/*
 * The checks of cpu_state_restore on a state from anywhere: OK, or ERR_INVALID and in `text` (cut at `text_bytes`,
 * may be NULL with 0) which register is wrong and why.
 */
enum status cpu_state_check(const struct cpu_state *state, const struct cpu_limits *limits, char *text,
                            size_t text_bytes) MUST_CHECK;

/* Where the components of an XSAVE area in the standard format lie (SDM vol. 1, 13.4; CPUID leaf 0xd). */
#define XSAVE_COMPONENTS 20       /* numbers 0..19; 0 (x87) and 1 (SSE) are the legacy region */
#define XSAVE_LEGACY_BYTES 512u
#define XSAVE_HEADER_BYTES 64u
struct xsave_layout {
    uint64_t components;          /* bit n: component n is in the area; bits 0 and 1 always */
    uint32_t area_bytes;          /* of the whole area, at least 576 */
    uint32_t mxcsr_mask;          /* MXCSR_MASK of the host; 0 means 0xffbf (SDM vol. 1, 11.6.6) */
    struct {
        uint32_t offset, bytes;   /* 0 for absent ones and for 0 and 1 */
    } component[XSAVE_COMPONENTS];
};

/*
 * Writes the payload of an "XSAVE" section from an area in the standard format. Components in their initial state
 * (clear in XSTATE_BV) are written as zeros, so that nothing of an older state gets out.
 */
void xsave_save(const void *area, const struct xsave_layout *layout, struct stream_writer *w);

/*
 * Reads the current "XSAVE" section into `area` (layout->area_bytes bytes; all of it is written). The stream's layout
 * may have other offsets (Intel and AMD differ from component 5 on), but a component that is in use must exist here
 * with the same size. XRSTOR of the result does not fault: XSTATE_BV, XCOMP_BV, the header's reserved bytes and MXCSR
 * are checked.
 */
void xsave_restore(void *area, const struct xsave_layout *layout, struct stream_reader *r);

/* The x87/SSE state that INIT and RESET leave (FCW 0x37f, MXCSR 0x1f80): fills `area`. */
void xsave_reset(void *area, const struct xsave_layout *layout);

#endif
