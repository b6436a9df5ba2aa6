/* SPDX-License-Identifier: MIT */
/*
 * What this CPU lets leak by speculation, and what is to be done about it for the hypervisor and between VMs. Pure core:
 * what CPUID and IA32_ARCH_CAPABILITIES say goes in, a plan comes out. docs/speculation.md has the table for people.
 */
#ifndef KERNEL_SPECULATION_H
#define KERNEL_SPECULATION_H

#include "kernel/types.h"

/* As the CPU says; leaves that it does not have are 0. */
struct speculation_facts {
    bool intel, amd;        /* amd: Hygon too */
    uint32_t family, model;
    uint32_t leaf7_ebx, leaf7_edx, leaf7_2_edx; /* the last one: subleaf 2 */
    uint64_t arch_capabilities;
    uint32_t ext8_ebx, ext21_eax, ext21_ecx; /* leaves 8000_0008H and 8000_0021H */
};

struct speculation {
    /* Branch predictors. */
    bool always_ibrs;       /* enhanced IBRS: on for good in SPEC_CTRL */
    bool no_history;        /* branch history injection: BHI_DIS_S, on for good in SPEC_CTRL beside IBRS */
    bool auto_ibrs;         /* automatic IBRS: on for good in EFER */
    bool ibpb;              /* there is a barrier; it is executed when another VM comes to a CPU */
    bool barrier_on_exit;   /* the CPU keeps branches of guests and hypervisor apart by nothing but a barrier at each exit */
    bool return_on_exit;    /* post-barrier RSB predictions: one call before the first return */
    /* Buffers and caches. */
    bool verw;              /* VERW clears buffers */
    bool clear_on_entry;    /* they leak: cleared before every entry */
    bool flush_l1d;         /* L1TF: flushed when another VM, or other work than the VM's own, had the CPU */
    /* iTLB multihit: no large page of a guest is executable. */
    bool small_code;
};

struct speculation speculation_plan(const struct speculation_facts *facts);

#endif
