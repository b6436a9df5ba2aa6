/* SPDX-License-Identifier: MIT */
/*
 * The virtual machine control block as the manual lays it out (AMD APM vol. 2, appendix B), its bits, and the exit
 * codes (appendix C). Names are the manual's. Every offset that is used is checked below.
 */
#ifndef VMM_SVM_VMCB_H
#define VMM_SVM_VMCB_H

#include "kernel/types.h"

struct vmcb_segment {
    uint16_t selector;
    uint16_t attributes; /* descriptor bits 40-47 in 0-7, 52-55 in 8-11 */
    uint32_t limit;
    uint64_t base;
};

struct vmcb {
    /* Control area, table B-1. */
    uint16_t cr_reads, cr_writes;      /* 000: a bit a register */
    uint16_t dr_reads, dr_writes;      /* 004 */
    uint32_t exceptions;               /* 008 */
    uint32_t intercepts1;              /* 00c */
    uint32_t intercepts2;              /* 010 */
    uint32_t intercepts3;              /* 014 */
    uint8_t reserved0[0x3c - 0x18];
    uint16_t pause_threshold;          /* 03c */
    uint16_t pause_count;              /* 03e */
    uint64_t iopm_base, msrpm_base;    /* 040, 048 */
    uint64_t tsc_offset;               /* 050 */
    uint32_t asid;                     /* 058 */
    uint8_t tlb_control;               /* 05c */
    uint8_t reserved1[3];
    uint32_t int_ctl;                  /* 060: V_TPR, V_IRQ ... */
    uint8_t int_vector;                /* 064 */
    uint8_t reserved2[3];
    uint64_t int_state;                /* 068: bit 0 interrupt shadow */
    uint64_t exit_code;                /* 070 */
    uint64_t exit_info1, exit_info2;   /* 078, 080 */
    uint64_t exit_int_info;            /* 088 */
    uint64_t np_enable;                /* 090 */
    uint8_t reserved3[0xa8 - 0x98];
    uint64_t event_inject;             /* 0a8 */
    uint64_t n_cr3;                    /* 0b0 */
    uint64_t lbr_control;              /* 0b8 */
    uint32_t clean;                    /* 0c0 */
    uint32_t reserved4;
    uint64_t next_rip;                 /* 0c8 */
    uint8_t byte_count;                /* 0d0 */
    uint8_t bytes[15];                 /* 0d1 */
    uint8_t reserved5[0x400 - 0xe0];
    /* State save area, table B-2. */
    struct vmcb_segment es, cs, ss, ds, fs, gs, gdtr, ldtr, idtr, tr; /* 400 to 490 */
    uint8_t reserved6[0x4cb - 0x4a0];
    uint8_t cpl;                       /* 4cb */
    uint32_t reserved7;
    uint64_t efer;                     /* 4d0 */
    uint8_t reserved8[0x548 - 0x4d8];
    uint64_t cr4, cr3, cr0;            /* 548, 550, 558 */
    uint64_t dr7, dr6;                 /* 560, 568 */
    uint64_t rflags, rip;              /* 570, 578 */
    uint8_t reserved9[0x5d8 - 0x580];
    uint64_t rsp;                      /* 5d8 */
    uint8_t reserved10[0x5f8 - 0x5e0];
    uint64_t rax;                      /* 5f8 */
    uint64_t star, lstar, cstar, sfmask; /* 600 */
    uint64_t kernel_gs_base;           /* 620 */
    uint64_t sysenter_cs, sysenter_esp, sysenter_eip; /* 628 */
    uint64_t cr2;                      /* 640 */
    uint8_t reserved11[0x668 - 0x648];
    uint64_t g_pat;                    /* 668 */
    uint64_t debugctl;                 /* 670 */
    uint64_t branch_from, branch_to, exception_from, exception_to; /* 678 */
    uint8_t reserved12[0x6e0 - 0x698];
    uint64_t spec_ctrl;                /* 6e0: where the CPU switches it */
    uint8_t reserved13[0x1000 - 0x6e8];
};

#define VMCB_AT(member, offset) _Static_assert(offsetof(struct vmcb, member) == (offset), "VMCB offset of " #member)
VMCB_AT(cr_reads, 0x000);
VMCB_AT(cr_writes, 0x002);
VMCB_AT(dr_reads, 0x004);
VMCB_AT(exceptions, 0x008);
VMCB_AT(intercepts1, 0x00c);
VMCB_AT(intercepts2, 0x010);
VMCB_AT(intercepts3, 0x014);
VMCB_AT(pause_threshold, 0x03c);
VMCB_AT(pause_count, 0x03e);
VMCB_AT(iopm_base, 0x040);
VMCB_AT(msrpm_base, 0x048);
VMCB_AT(tsc_offset, 0x050);
VMCB_AT(asid, 0x058);
VMCB_AT(tlb_control, 0x05c);
VMCB_AT(int_ctl, 0x060);
VMCB_AT(int_vector, 0x064);
VMCB_AT(int_state, 0x068);
VMCB_AT(exit_code, 0x070);
VMCB_AT(exit_info1, 0x078);
VMCB_AT(exit_info2, 0x080);
VMCB_AT(exit_int_info, 0x088);
VMCB_AT(np_enable, 0x090);
VMCB_AT(event_inject, 0x0a8);
VMCB_AT(n_cr3, 0x0b0);
VMCB_AT(lbr_control, 0x0b8);
VMCB_AT(clean, 0x0c0);
VMCB_AT(next_rip, 0x0c8);
VMCB_AT(byte_count, 0x0d0);
VMCB_AT(bytes, 0x0d1);
VMCB_AT(es, 0x400);
VMCB_AT(cs, 0x410);
VMCB_AT(ss, 0x420);
VMCB_AT(ds, 0x430);
VMCB_AT(fs, 0x440);
VMCB_AT(gs, 0x450);
VMCB_AT(gdtr, 0x460);
VMCB_AT(ldtr, 0x470);
VMCB_AT(idtr, 0x480);
VMCB_AT(tr, 0x490);
VMCB_AT(cpl, 0x4cb);
VMCB_AT(efer, 0x4d0);
VMCB_AT(cr4, 0x548);
VMCB_AT(cr3, 0x550);
VMCB_AT(cr0, 0x558);
VMCB_AT(dr7, 0x560);
VMCB_AT(dr6, 0x568);
VMCB_AT(rflags, 0x570);
VMCB_AT(rip, 0x578);
VMCB_AT(rsp, 0x5d8);
VMCB_AT(rax, 0x5f8);
VMCB_AT(star, 0x600);
VMCB_AT(lstar, 0x608);
VMCB_AT(cstar, 0x610);
VMCB_AT(sfmask, 0x618);
VMCB_AT(kernel_gs_base, 0x620);
VMCB_AT(sysenter_cs, 0x628);
VMCB_AT(sysenter_esp, 0x630);
VMCB_AT(sysenter_eip, 0x638);
VMCB_AT(cr2, 0x640);
VMCB_AT(g_pat, 0x668);
VMCB_AT(debugctl, 0x670);
VMCB_AT(exception_to, 0x690);
VMCB_AT(spec_ctrl, 0x6e0);
_Static_assert(sizeof(struct vmcb) == 4096, "a VMCB is one page");
#undef VMCB_AT

/* intercepts1, offset 00c. */
#define SVM_I1_INTR BIT(0)
#define SVM_I1_NMI BIT(1)
#define SVM_I1_SMI BIT(2)
#define SVM_I1_INIT BIT(3)
#define SVM_I1_VINTR BIT(4)
#define SVM_I1_CR0_SELECTIVE BIT(5)
#define SVM_I1_RDPMC BIT(15)
#define SVM_I1_CPUID BIT(18)
#define SVM_I1_RSM BIT(19)
#define SVM_I1_IRET BIT(20)
#define SVM_I1_INVD BIT(22)
#define SVM_I1_PAUSE BIT(23)
#define SVM_I1_HLT BIT(24)
#define SVM_I1_INVLPGA BIT(26)
#define SVM_I1_IOIO BIT(27)
#define SVM_I1_MSR BIT(28)
#define SVM_I1_TASK_SWITCH BIT(29)
#define SVM_I1_FERR_FREEZE BIT(30)
#define SVM_I1_SHUTDOWN BIT(31)
/* intercepts2, offset 010. */
#define SVM_I2_VMRUN BIT(0)
#define SVM_I2_VMMCALL BIT(1)
#define SVM_I2_VMLOAD BIT(2)
#define SVM_I2_VMSAVE BIT(3)
#define SVM_I2_STGI BIT(4)
#define SVM_I2_CLGI BIT(5)
#define SVM_I2_SKINIT BIT(6)
#define SVM_I2_RDTSCP BIT(7)
#define SVM_I2_WBINVD BIT(9)
#define SVM_I2_MONITOR BIT(10)
#define SVM_I2_MWAIT BIT(11)
#define SVM_I2_XSETBV BIT(13)
#define SVM_I2_RDPRU BIT(14)
/* intercepts3, offset 014. */
#define SVM_I3_INVLPGB BIT(0)
#define SVM_I3_INVLPGB_ILLEGAL BIT(1)
#define SVM_I3_INVPCID BIT(2)
#define SVM_I3_MCOMMIT BIT(3)
#define SVM_I3_TLBSYNC BIT(4)

/* int_ctl, offset 060. */
#define SVM_V_TPR_MASK 0xffu
#define SVM_V_IRQ BIT(8)
#define SVM_V_INTR_PRIO_SHIFT 16
#define SVM_V_IGN_TPR BIT(20)
#define SVM_V_INTR_MASKING BIT(24)
#define SVM_SHADOW BIT(0) /* int_state */
#define SVM_LBR_VIRTUALIZE BIT(0) /* lbr_control */
#define VMCB_SEG_L BIT(9) /* struct vmcb_segment.attributes: SEG_L, four bits further down */

/* tlb_control, 15.16.1. */
#define SVM_TLB_NONE 0
#define SVM_TLB_ALL 1
#define SVM_TLB_GUEST 3

/* Exceptions that push an error code (8.2): #DF, #TS, #NP, #SS, #GP, #PF, #AC, #CP, #VC, #SX. */
#define SVM_ERROR_VECTORS 0x60227d00u

/* exit_int_info and event_inject, 15.20. */
#define SVM_EVENT_VECTOR 0xffu
#define SVM_EVENT_TYPE_SHIFT 8
#define SVM_EVENT_TYPE_MASK 7u
#define SVM_EVENT_INTR 0
#define SVM_EVENT_NMI 2
#define SVM_EVENT_EXCEPTION 3
#define SVM_EVENT_SOFT 4
#define SVM_EVENT_HAS_ERROR BIT(11)
#define SVM_EVENT_VALID BIT(31)

/* VMCB clean bits, 15.15.3. */
#define SVM_CLEAN_INTERCEPTS BIT(0) /* and TSC offset, pause filter */
#define SVM_CLEAN_MAPS BIT(1)
#define SVM_CLEAN_ASID BIT(2)
#define SVM_CLEAN_TPR BIT(3)
#define SVM_CLEAN_NP BIT(4)
#define SVM_CLEAN_CRX BIT(5)
#define SVM_CLEAN_DRX BIT(6)
#define SVM_CLEAN_DT BIT(7)
#define SVM_CLEAN_SEG BIT(8)
#define SVM_CLEAN_CR2 BIT(9)
#define SVM_CLEAN_LBR BIT(10)
#define SVM_CLEAN_ALL 0x7ffu

/* I/O exit information, 15.10.2. */
#define SVM_IO_IN BIT(0)
#define SVM_IO_STRING BIT(2)
#define SVM_IO_SIZE_SHIFT 4
/* Nested page fault information, 15.25.6. */
#define SVM_NPF_WRITE BIT(1)
#define SVM_NPF_FETCH BIT(4)
#define SVM_NPF_TABLE BIT(33)
/* Decode assists of MOV CRn, 15.33.1. */
#define SVM_CR_IS_MOV BIT(63)

/* Exit codes, appendix C. */
#define SVM_EXIT_CR0_READ 0x00
#define SVM_EXIT_CR0_WRITE 0x10
#define SVM_EXIT_CR4_WRITE 0x14
#define SVM_EXIT_CR8_WRITE 0x18
#define SVM_EXIT_EXCEPTION 0x40
#define SVM_EXIT_INTR 0x60
#define SVM_EXIT_NMI 0x61
#define SVM_EXIT_SMI 0x62
#define SVM_EXIT_INIT 0x63
#define SVM_EXIT_VINTR 0x64
#define SVM_EXIT_CR0_SELECTIVE 0x65
#define SVM_EXIT_RDPMC 0x6f
#define SVM_EXIT_CPUID 0x72
#define SVM_EXIT_RSM 0x73
#define SVM_EXIT_IRET 0x74
#define SVM_EXIT_INVD 0x76
#define SVM_EXIT_PAUSE 0x77
#define SVM_EXIT_HLT 0x78
#define SVM_EXIT_INVLPGA 0x7a
#define SVM_EXIT_IOIO 0x7b
#define SVM_EXIT_MSR 0x7c
#define SVM_EXIT_TASK_SWITCH 0x7d
#define SVM_EXIT_FERR_FREEZE 0x7e
#define SVM_EXIT_SHUTDOWN 0x7f
#define SVM_EXIT_VMRUN 0x80
#define SVM_EXIT_VMMCALL 0x81
#define SVM_EXIT_VMLOAD 0x82
#define SVM_EXIT_VMSAVE 0x83
#define SVM_EXIT_STGI 0x84
#define SVM_EXIT_CLGI 0x85
#define SVM_EXIT_SKINIT 0x86
#define SVM_EXIT_RDTSCP 0x87
#define SVM_EXIT_WBINVD 0x89
#define SVM_EXIT_MONITOR 0x8a
#define SVM_EXIT_MWAIT 0x8b
#define SVM_EXIT_MWAIT_ARMED 0x8c
#define SVM_EXIT_XSETBV 0x8d
#define SVM_EXIT_RDPRU 0x8e
#define SVM_EXIT_INVLPGB 0xa0
#define SVM_EXIT_INVLPGB_ILLEGAL 0xa1
#define SVM_EXIT_INVPCID 0xa2
#define SVM_EXIT_MCOMMIT 0xa3
#define SVM_EXIT_TLBSYNC 0xa4
#define SVM_EXIT_NPF 0x400
#define SVM_EXIT_INVALID UINT64_MAX

#endif
