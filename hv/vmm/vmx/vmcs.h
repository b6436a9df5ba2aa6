/* SPDX-License-Identifier: MIT */
/*
 * VMCS fields by name and encoding (SDM vol. 3D, appendix B), control bits (vol. 3C, 25.6 to 25.8), basic exit reasons
 * (appendix C), and the VMX instructions. The list is a macro, so that the dump names every field.
 *
 * X(name, encoding). Bits 14-13 of an encoding are the width (0: 16, 1: 64, 2: 32, 3: natural), bits 11-10 the kind
 * (0 control, 1 read-only, 2 guest, 3 host): 25.11.2.
 */
#ifndef VMM_VMX_VMCS_H
#define VMM_VMX_VMCS_H

#include "kernel/types.h"

#define VMCS_FIELDS(X)                                                                                             \
    X(VPID, 0x0000) X(POSTED_INTERRUPT_VECTOR, 0x0002)                                                             \
    X(GUEST_ES_SELECTOR, 0x0800) X(GUEST_CS_SELECTOR, 0x0802) X(GUEST_SS_SELECTOR, 0x0804)                         \
    X(GUEST_DS_SELECTOR, 0x0806) X(GUEST_FS_SELECTOR, 0x0808) X(GUEST_GS_SELECTOR, 0x080a)                         \
    X(GUEST_LDTR_SELECTOR, 0x080c) X(GUEST_TR_SELECTOR, 0x080e) X(GUEST_INTERRUPT_STATUS, 0x0810)                  \
    X(GUEST_PML_INDEX, 0x0812)                                                                                     \
    X(HOST_ES_SELECTOR, 0x0c00) X(HOST_CS_SELECTOR, 0x0c02) X(HOST_SS_SELECTOR, 0x0c04)                            \
    X(HOST_DS_SELECTOR, 0x0c06) X(HOST_FS_SELECTOR, 0x0c08) X(HOST_GS_SELECTOR, 0x0c0a)                            \
    X(HOST_TR_SELECTOR, 0x0c0c)                                                                                    \
    X(IO_BITMAP_A, 0x2000) X(IO_BITMAP_B, 0x2002) X(MSR_BITMAP, 0x2004) X(EXIT_MSR_STORE_ADDRESS, 0x2006)          \
    X(EXIT_MSR_LOAD_ADDRESS, 0x2008) X(ENTRY_MSR_LOAD_ADDRESS, 0x200a) X(EXECUTIVE_VMCS, 0x200c)                   \
    X(PML_ADDRESS, 0x200e) X(TSC_OFFSET, 0x2010) X(VIRTUAL_APIC_ADDRESS, 0x2012)                                   \
    X(APIC_ACCESS_ADDRESS, 0x2014) X(EPT_POINTER, 0x201a) X(EOI_EXIT_0, 0x201c) X(EOI_EXIT_1, 0x201e)              \
    X(EOI_EXIT_2, 0x2020) X(EOI_EXIT_3, 0x2022) X(XSS_EXITING_BITMAP, 0x202c)                                      \
    X(TSC_MULTIPLIER, 0x2032)                                                                                      \
    X(GUEST_PHYSICAL_ADDRESS, 0x2400)                                                                              \
    X(VMCS_LINK_POINTER, 0x2800) X(GUEST_DEBUGCTL, 0x2802) X(GUEST_PAT, 0x2804) X(GUEST_EFER, 0x2806)              \
    X(GUEST_PDPTE0, 0x280a) X(GUEST_PDPTE1, 0x280c) X(GUEST_PDPTE2, 0x280e) X(GUEST_PDPTE3, 0x2810)                \
    X(HOST_PAT, 0x2c00) X(HOST_EFER, 0x2c02)                                                                       \
    X(PIN_CONTROLS, 0x4000) X(PROCESSOR_CONTROLS, 0x4002) X(EXCEPTION_BITMAP, 0x4004)                              \
    X(PAGE_FAULT_MASK, 0x4006) X(PAGE_FAULT_MATCH, 0x4008) X(CR3_TARGET_COUNT, 0x400a) X(EXIT_CONTROLS, 0x400c)    \
    X(EXIT_MSR_STORE_COUNT, 0x400e) X(EXIT_MSR_LOAD_COUNT, 0x4010) X(ENTRY_CONTROLS, 0x4012)                       \
    X(ENTRY_MSR_LOAD_COUNT, 0x4014) X(ENTRY_INTERRUPTION_INFO, 0x4016) X(ENTRY_EXCEPTION_ERROR, 0x4018)            \
    X(ENTRY_INSTRUCTION_LENGTH, 0x401a) X(TPR_THRESHOLD, 0x401c) X(SECONDARY_CONTROLS, 0x401e) X(PLE_GAP, 0x4020)  \
    X(PLE_WINDOW, 0x4022)                                                                                          \
    X(INSTRUCTION_ERROR, 0x4400) X(EXIT_REASON, 0x4402) X(EXIT_INTERRUPTION_INFO, 0x4404)                          \
    X(EXIT_INTERRUPTION_ERROR, 0x4406) X(IDT_VECTORING_INFO, 0x4408) X(IDT_VECTORING_ERROR, 0x440a)                \
    X(EXIT_INSTRUCTION_LENGTH, 0x440c) X(EXIT_INSTRUCTION_INFO, 0x440e)                                            \
    X(GUEST_ES_LIMIT, 0x4800) X(GUEST_CS_LIMIT, 0x4802) X(GUEST_SS_LIMIT, 0x4804) X(GUEST_DS_LIMIT, 0x4806)        \
    X(GUEST_FS_LIMIT, 0x4808) X(GUEST_GS_LIMIT, 0x480a) X(GUEST_LDTR_LIMIT, 0x480c) X(GUEST_TR_LIMIT, 0x480e)      \
    X(GUEST_GDTR_LIMIT, 0x4810) X(GUEST_IDTR_LIMIT, 0x4812)                                                        \
    X(GUEST_ES_RIGHTS, 0x4814) X(GUEST_CS_RIGHTS, 0x4816) X(GUEST_SS_RIGHTS, 0x4818) X(GUEST_DS_RIGHTS, 0x481a)    \
    X(GUEST_FS_RIGHTS, 0x481c) X(GUEST_GS_RIGHTS, 0x481e) X(GUEST_LDTR_RIGHTS, 0x4820) X(GUEST_TR_RIGHTS, 0x4822)  \
    X(GUEST_INTERRUPTIBILITY, 0x4824) X(GUEST_ACTIVITY, 0x4826) X(GUEST_SYSENTER_CS, 0x482a)                       \
    X(PREEMPTION_TIMER, 0x482e)                                                                                    \
    X(HOST_SYSENTER_CS, 0x4c00)                                                                                    \
    X(CR0_MASK, 0x6000) X(CR4_MASK, 0x6002) X(CR0_READ_SHADOW, 0x6004) X(CR4_READ_SHADOW, 0x6006)                  \
    X(EXIT_QUALIFICATION, 0x6400) X(GUEST_LINEAR_ADDRESS, 0x640a)                                                  \
    X(GUEST_CR0, 0x6800) X(GUEST_CR3, 0x6802) X(GUEST_CR4, 0x6804) X(GUEST_ES_BASE, 0x6806)                        \
    X(GUEST_CS_BASE, 0x6808) X(GUEST_SS_BASE, 0x680a) X(GUEST_DS_BASE, 0x680c) X(GUEST_FS_BASE, 0x680e)            \
    X(GUEST_GS_BASE, 0x6810) X(GUEST_LDTR_BASE, 0x6812) X(GUEST_TR_BASE, 0x6814) X(GUEST_GDTR_BASE, 0x6816)        \
    X(GUEST_IDTR_BASE, 0x6818) X(GUEST_DR7, 0x681a) X(GUEST_RSP, 0x681c) X(GUEST_RIP, 0x681e)                      \
    X(GUEST_RFLAGS, 0x6820) X(GUEST_PENDING_DEBUG, 0x6822) X(GUEST_SYSENTER_ESP, 0x6824)                           \
    X(GUEST_SYSENTER_EIP, 0x6826)                                                                                  \
    X(HOST_CR0, 0x6c00) X(HOST_CR3, 0x6c02) X(HOST_CR4, 0x6c04) X(HOST_FS_BASE, 0x6c06) X(HOST_GS_BASE, 0x6c08)    \
    X(HOST_TR_BASE, 0x6c0a) X(HOST_GDTR_BASE, 0x6c0c) X(HOST_IDTR_BASE, 0x6c0e) X(HOST_SYSENTER_ESP, 0x6c10)       \
    X(HOST_SYSENTER_EIP, 0x6c12) X(HOST_RSP, 0x6c14) X(HOST_RIP, 0x6c16)

#define VMCS_FIELD(name, encoding) VMCS_##name = encoding,
enum vmcs_field { VMCS_FIELDS(VMCS_FIELD) };
#undef VMCS_FIELD

/* The same thing of segment n (enum seg) is two encodings after that of n - 1. */
_Static_assert(VMCS_GUEST_TR_SELECTOR == VMCS_GUEST_ES_SELECTOR + 14 &&
               VMCS_GUEST_TR_LIMIT == VMCS_GUEST_ES_LIMIT + 14 &&
               VMCS_GUEST_TR_RIGHTS == VMCS_GUEST_ES_RIGHTS + 14 &&
               VMCS_GUEST_TR_BASE == VMCS_GUEST_ES_BASE + 14, "encodings of segments");

/* Pin-based controls, 25.6.1. */
#define PIN_EXTERNAL_INTERRUPT BIT(0)
#define PIN_NMI BIT(3)
#define PIN_VIRTUAL_NMI BIT(5)
#define PIN_PREEMPTION_TIMER BIT(6)
#define PIN_POSTED_INTERRUPT BIT(7)
/* Primary processor-based controls, 25.6.2. */
#define CPU_INTERRUPT_WINDOW BIT(2)
#define CPU_TSC_OFFSET BIT(3)
#define CPU_HLT BIT(7)
#define CPU_INVLPG BIT(9)
#define CPU_MWAIT BIT(10)
#define CPU_RDPMC BIT(11)
#define CPU_RDTSC BIT(12)
#define CPU_CR3_LOAD BIT(15)
#define CPU_CR3_STORE BIT(16)
#define CPU_CR8_LOAD BIT(19)
#define CPU_CR8_STORE BIT(20)
#define CPU_TPR_SHADOW BIT(21)
#define CPU_NMI_WINDOW BIT(22)
#define CPU_MOV_DR BIT(23)
#define CPU_IO BIT(24)
#define CPU_IO_BITMAPS BIT(25)
#define CPU_MSR_BITMAPS BIT(28)
#define CPU_MONITOR BIT(29)
#define CPU_PAUSE BIT(30)
#define CPU_SECONDARY BIT(31)
/* Secondary processor-based controls, 25.6.2. */
#define CPU2_APIC_ACCESS BIT(0)
#define CPU2_EPT BIT(1)
#define CPU2_RDTSCP BIT(3)
#define CPU2_X2APIC BIT(4)
#define CPU2_VPID BIT(5)
#define CPU2_WBINVD BIT(6)
#define CPU2_UNRESTRICTED BIT(7)
#define CPU2_APIC_REGISTER BIT(8)
#define CPU2_VIRTUAL_INTERRUPT BIT(9)
#define CPU2_PAUSE_LOOP BIT(10)
#define CPU2_INVPCID BIT(12)
#define CPU2_PML BIT(17)
#define CPU2_XSAVES BIT(20)
#define CPU2_TSC_SCALING BIT(25)
/* Exit and entry controls, 25.7.1 and 25.8.1. */
#define EXIT_SAVE_DEBUG BIT(2)
#define EXIT_HOST_64 BIT(9)
#define EXIT_ACK_INTERRUPT BIT(15)
#define EXIT_SAVE_PAT BIT(18)
#define EXIT_LOAD_PAT BIT(19)
#define EXIT_SAVE_EFER BIT(20)
#define EXIT_LOAD_EFER BIT(21)
#define ENTRY_LOAD_DEBUG BIT(2)
#define ENTRY_IA32E BIT(9)
#define ENTRY_LOAD_PAT BIT(14)
#define ENTRY_LOAD_EFER BIT(15)

/* EPT pointer, 25.6.11, and IA32_VMX_EPT_VPID_CAP, appendix A.10. */
#define EPTP_WB 6ull
#define EPTP_WALK_4 (3ull << 3)
#define EPTP_AD BIT(6)
#define EPT_CAP_WALK_4 BIT(6)
#define EPT_CAP_WB BIT(14)
#define EPT_CAP_2M BIT(16)
#define EPT_CAP_1G BIT(17)
#define EPT_CAP_INVEPT BIT(20)
#define EPT_CAP_AD BIT(21)
#define EPT_CAP_INVEPT_SINGLE BIT(25)
#define EPT_CAP_INVEPT_ALL BIT(26)
#define EPT_CAP_INVVPID BIT(32)
#define EPT_CAP_INVVPID_SINGLE BIT(41)
#define EPT_CAP_INVVPID_ALL BIT(42)

/* Interruption information: exits, IDT-vectoring, entries (25.8.3, 25.9.2, 25.9.3). */
#define INTERRUPTION_TYPE_SHIFT 8
#define INTERRUPTION_TYPE_MASK 7u
#define INTERRUPTION_EXTERNAL 0
#define INTERRUPTION_NMI 2
#define INTERRUPTION_EXCEPTION 3
#define INTERRUPTION_SOFT_INT 4
#define INTERRUPTION_PRIV_SOFT_EXCEPTION 5
#define INTERRUPTION_SOFT_EXCEPTION 6
#define INTERRUPTION_HAS_ERROR BIT(11)
#define INTERRUPTION_NMI_UNBLOCKED BIT(12)
#define INTERRUPTION_VALID BIT(31)

/* Exit qualification of I/O (table 28-5), of EPT violations (table 28-7). */
#define QUALIFICATION_IO_IN BIT(3)
#define QUALIFICATION_IO_STRING BIT(4)
#define QUALIFICATION_EPT_WRITE BIT(1)
#define QUALIFICATION_EPT_FETCH BIT(2)
#define QUALIFICATION_EPT_LINEAR BIT(7)
#define QUALIFICATION_EPT_FINAL BIT(8)
#define QUALIFICATION_NMI_UNBLOCKED BIT(12)

/* Of APIC-access exits (table 28-6). */
#define QUALIFICATION_APIC_OFFSET 0xfffu
#define QUALIFICATION_APIC_TYPE_SHIFT 12
#define APIC_ACCESS_WRITE 1        /* linear, by an instruction; 0: a read */
#define APIC_ACCESS_FETCH 2
#define APIC_ACCESS_DELIVERY 3     /* linear, during event delivery */
#define APIC_ACCESS_PHYSICAL_DELIVERY 10
#define APIC_ACCESS_PHYSICAL 15    /* by a walk of page tables */

#define REASON_ENTRY_FAILURE BIT(31)
enum vmx_reason {
    REASON_EXCEPTION = 0, REASON_INTERRUPT = 1, REASON_TRIPLE_FAULT = 2, REASON_INIT = 3, REASON_SIPI = 4,
    REASON_INTERRUPT_WINDOW = 7, REASON_NMI_WINDOW = 8, REASON_TASK_SWITCH = 9, REASON_CPUID = 10, REASON_GETSEC = 11,
    REASON_HLT = 12, REASON_INVD = 13, REASON_RDPMC = 15, REASON_RSM = 17, REASON_VMCALL = 18, REASON_VMCLEAR = 19,
    REASON_VMLAUNCH = 20, REASON_VMPTRLD = 21, REASON_VMPTRST = 22, REASON_VMREAD = 23, REASON_VMRESUME = 24,
    REASON_VMWRITE = 25, REASON_VMXOFF = 26, REASON_VMXON = 27, REASON_CR = 28, REASON_IO = 30, REASON_RDMSR = 31,
    REASON_WRMSR = 32, REASON_ENTRY_STATE = 33, REASON_ENTRY_MSR = 34, REASON_MWAIT = 36, REASON_MONITOR = 39,
    REASON_PAUSE = 40, REASON_ENTRY_MC = 41, REASON_TPR = 43,
    REASON_APIC_ACCESS = 44, REASON_APIC_EOI = 45, REASON_EPT_VIOLATION = 48, REASON_EPT_MISCONFIG = 49,
    REASON_INVEPT = 50, REASON_RDTSCP = 51, REASON_PREEMPTION_TIMER = 52, REASON_INVVPID = 53, REASON_WBINVD = 54,
    REASON_XSETBV = 55, REASON_APIC_WRITE = 56, REASON_INVPCID = 58, REASON_VMFUNC = 59, REASON_ENCLS = 60, REASON_PML_FULL = 62,
    REASON_XSAVES = 63, REASON_XRSTORS = 64,
};

static inline uint64_t vmread(enum vmcs_field field)
{
    uint64_t value;
    __asm__ volatile("vmread %1, %0" : "=r"(value) : "r"((uint64_t)field) : "cc");
    return value;
}

/* Straight into memory: one instruction less. */
static inline void vmread_to(enum vmcs_field field, uint64_t *value)
{
    __asm__ volatile("vmread %1, %0" : "=m"(*value) : "r"((uint64_t)field) : "cc");
}

/* Logs the field and the value that the CPU refuses. vmx.c. */
void vmx_write_failed(enum vmcs_field field, uint64_t value);

static inline bool vmwrite_ok(enum vmcs_field field, uint64_t value)
{
    __asm__ goto("vmwrite %0, %1; jna %l[failed]" : : "rm"(value), "r"((uint64_t)field) : "cc" : failed);
    return true;
failed:
    return false;
}

static inline void vmwrite(enum vmcs_field field, uint64_t value)
{
    if (!vmwrite_ok(field, value))
        vmx_write_failed(field, value);
}

/* The four that take a physical address in memory. False: VMfail. */
#define VMX_ADDRESS_OPERATION(name, instruction)                                                                   \
    static inline bool name(uint64_t hpa)                                                                          \
    {                                                                                                              \
        bool ok;                                                                                                   \
        __asm__ volatile(instruction " %1; seta %0" : "=qm"(ok) : "m"(hpa) : "cc", "memory");                      \
        return ok;                                                                                                 \
    }
VMX_ADDRESS_OPERATION(vmxon, "vmxon")
VMX_ADDRESS_OPERATION(vmclear, "vmclear")
VMX_ADDRESS_OPERATION(vmptrld, "vmptrld")
#undef VMX_ADDRESS_OPERATION

/* INVEPT and INVVPID: a type and a descriptor of two quadwords. Types: 1 one context, 2 all. */
#define INVALIDATE_SINGLE 1
#define INVALIDATE_ALL 2
#define VMX_INVALIDATION(name, instruction)                                                                        \
    static inline bool name(uint64_t type, uint64_t what)                                                          \
    {                                                                                                              \
        const uint64_t descriptor[2] = { what, 0 };                                                                \
        bool ok;                                                                                                   \
        __asm__ volatile(instruction " %1, %2; seta %0" : "=qm"(ok) : "m"(descriptor), "r"(type) : "cc", "memory"); \
        return ok;                                                                                                 \
    }
VMX_INVALIDATION(invept, "invept")
VMX_INVALIDATION(invvpid, "invvpid")
#undef VMX_INVALIDATION

#endif
