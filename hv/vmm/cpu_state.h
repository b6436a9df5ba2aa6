/* SPDX-License-Identifier: MIT */
/*
 * The architectural state of one vCPU in vendor-neutral form: what a backend loads and stores, what the state stream
 * carries, what the instruction emulator works on. Segment attributes are in the VMX access-rights layout
 * (SDM vol. 3C, 25.4.1): type 0-3, S 4, DPL 5-6, P 7, AVL 12, L 13, D/B 14, G 15, unusable 16. The SVM backend converts.
 */
#ifndef VMM_CPU_STATE_H
#define VMM_CPU_STATE_H

#include "kernel/types.h"

/* Numbers as in ModRM with REX: index into cpu_state.gpr. */
enum gpr {
    GPR_RAX, GPR_RCX, GPR_RDX, GPR_RBX, GPR_RSP, GPR_RBP, GPR_RSI, GPR_RDI,
    GPR_R8, GPR_R9, GPR_R10, GPR_R11, GPR_R12, GPR_R13, GPR_R14, GPR_R15, GPR_COUNT,
};

enum seg { SEG_ES, SEG_CS, SEG_SS, SEG_DS, SEG_FS, SEG_GS, SEG_LDTR, SEG_TR, SEG_COUNT };

#define SEG_TYPE_MASK 0xfu
#define SEG_S BIT(4)
#define SEG_DPL_SHIFT 5
#define SEG_P BIT(7)
#define SEG_L BIT(13)
#define SEG_DB BIT(14)
#define SEG_G BIT(15)
#define SEG_UNUSABLE BIT(16)

struct segment {
    uint64_t base;
    uint32_t limit; /* bytes, granularity applied: the last valid offset */
    uint32_t attributes;
    uint16_t selector;
};

struct table_register {
    uint64_t base;
    uint16_t limit;
};

#define CR0_PE BIT(0)
#define CR0_MP BIT(1)
#define CR0_EM BIT(2)
#define CR0_TS BIT(3)
#define CR0_ET BIT(4)
#define CR0_NE BIT(5)
#define CR0_WP BIT(16)
#define CR0_AM BIT(18)
#define CR0_NW BIT(29)
#define CR0_CD BIT(30)
#define CR0_PG BIT(31)
#define CR4_VME BIT(0)
#define CR4_PVI BIT(1)
#define CR4_TSD BIT(2)
#define CR4_DE BIT(3)
#define CR4_PSE BIT(4)
#define CR4_PAE BIT(5)
#define CR4_MCE BIT(6)
#define CR4_PGE BIT(7)
#define CR4_PCE BIT(8)
#define CR4_OSFXSR BIT(9)
#define CR4_OSXMMEXCPT BIT(10)
#define CR4_UMIP BIT(11)
#define CR4_LA57 BIT(12)
#define CR4_VMXE BIT(13)
#define CR4_SMXE BIT(14)
#define CR4_FSGSBASE BIT(16)
#define CR4_PCIDE BIT(17)
#define CR4_OSXSAVE BIT(18)
#define CR4_SMEP BIT(20)
#define CR4_SMAP BIT(21)
#define CR4_PKE BIT(22)
#define EFER_SCE BIT(0)
#define EFER_LME BIT(8)
#define EFER_LMA BIT(10)
#define EFER_NXE BIT(11)
#define EFER_SVME BIT(12)
#define EFER_FFXSR BIT(14)
#define EFER_AIBRSE BIT(21)
#define RFLAGS_CF BIT(0)
#define RFLAGS_FIXED BIT(1)
#define RFLAGS_PF BIT(2)
#define RFLAGS_AF BIT(4)
#define RFLAGS_ZF BIT(6)
#define RFLAGS_SF BIT(7)
#define RFLAGS_TF BIT(8)
#define RFLAGS_IF BIT(9)
#define RFLAGS_DF BIT(10)
#define RFLAGS_OF BIT(11)
#define RFLAGS_IOPL BIT(12) /* two bits: 12 and 13 */
#define RFLAGS_NT BIT(14)
#define RFLAGS_RF BIT(16)
#define RFLAGS_VM BIT(17)
#define RFLAGS_AC BIT(18)
#define RFLAGS_VIF BIT(19)
#define RFLAGS_VIP BIT(20)
#define RFLAGS_ID BIT(21)

/* Exception vectors, SDM vol. 3A, table 6-1. */
enum exception {
    EXC_DE = 0, EXC_DB = 1, EXC_NMI = 2, EXC_BP = 3, EXC_OF = 4, EXC_BR = 5, EXC_UD = 6, EXC_NM = 7, EXC_DF = 8,
    EXC_TS = 10, EXC_NP = 11, EXC_SS = 12, EXC_GP = 13, EXC_PF = 14, EXC_MF = 16, EXC_AC = 17, EXC_MC = 18, EXC_XM = 19,
};

/* An event that waits to be delivered to the guest, or whose delivery an exit interrupted. */
enum event_type { EVENT_NONE, EVENT_EXTERNAL, EVENT_NMI, EVENT_EXCEPTION, EVENT_SOFT_INT, EVENT_SOFT_EXCEPTION, EVENT_PRIV_SOFT_EXCEPTION };
struct event {
    uint8_t type; /* enum event_type */
    uint8_t vector;
    bool has_error;
    uint8_t instruction_length; /* the software kinds only */
    uint32_t error;
    uint64_t cr2; /* EXC_PF: what CR2 becomes when the event is injected */
};

#define INTERRUPTIBILITY_STI BIT(0)
#define INTERRUPTIBILITY_MOV_SS BIT(1)
#define INTERRUPTIBILITY_NMI BIT(3) /* NMIs are blocked until IRET */

/*
 * cpu_state.pending_debug: debug traps of the instruction before RIP that are still to come. MOV SS holds them back over
 * the next instruction; an exit may come before them. They are delivered as one #DB, before any interrupt.
 */
#define PENDING_DEBUG_HITS 0xfu          /* as DR6.B0-B3: breakpoints that were met */
#define PENDING_DEBUG_ENABLED BIT(12)    /* one of those is enabled in DR7; without it they only come along */
#define PENDING_DEBUG_STEP BIT(14)       /* as DR6.BS: a single step */
#define PENDING_DEBUG_VALID (PENDING_DEBUG_HITS | PENDING_DEBUG_ENABLED | PENDING_DEBUG_STEP)

struct cpu_state {
    uint64_t gpr[GPR_COUNT];
    uint64_t rip;
    uint64_t rflags;
    uint64_t cr0, cr2, cr3, cr4, cr8;
    uint64_t efer;
    uint64_t xcr0, xss;
    uint64_t dr[4], dr6, dr7;
    struct segment seg[SEG_COUNT];
    struct table_register gdtr, idtr;
    uint64_t star, lstar, cstar, fmask, kernel_gs_base, tsc_aux;
    uint64_t sysenter_cs, sysenter_esp, sysenter_eip;
    uint64_t pat, spec_ctrl, debugctl;
    uint64_t pdpte[4]; /* PAE paging: the cached PDPTEs; elsewhere 0 */
    uint32_t pkru;     /* a copy of XSAVE component 9 for the page walk where CR4.PKE is set; elsewhere 0 */
    uint32_t interruptibility;
    uint32_t pending_debug;
    bool halted;            /* in HLT */
    struct event pending;   /* to be injected at the next entry */
};

/* 0 real mode, 1 protected or virtual-8086 ... : helpers that everybody needs. */
static inline bool cpu_long_mode(const struct cpu_state *s) { return s->efer & EFER_LMA; }
static inline bool cpu_mode64(const struct cpu_state *s) { return cpu_long_mode(s) && (s->seg[SEG_CS].attributes & SEG_L); }
static inline bool cpu_real_mode(const struct cpu_state *s) { return !(s->cr0 & CR0_PE); }
static inline bool cpu_v86(const struct cpu_state *s) { return (s->cr0 & CR0_PE) && (s->rflags & RFLAGS_VM); }
static inline unsigned cpu_cpl(const struct cpu_state *s)
{
    return cpu_real_mode(s) ? 0 : cpu_v86(s) ? 3 : (s->seg[SEG_SS].attributes >> SEG_DPL_SHIFT) & 3;
}

#endif
