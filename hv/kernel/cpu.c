/* SPDX-License-Identifier: MIT */
/* What the CPU is and has: CPUID once, and the control registers that every CPU gets. */
#include "kernel/cpu.h"

#include <string.h>

#include "kernel/cpu_setup.h"
#include "kernel/log.h"

struct cpu_features cpu_features;
struct cpu *cpus[CPU_MAX];
unsigned cpu_count = 1;

#define CR0_HOST (BIT(0) | BIT(1) | BIT(4) | BIT(5) | BIT(16) | BIT(31)) /* PE MP ET NE WP PG */
#define CR4_PAE_BIT BIT(5)
#define CR4_MCE_BIT BIT(6)
#define CR4_PGE_BIT BIT(7)
#define CR4_OSFXSR_BIT BIT(9)
#define CR4_OSXMMEXCPT_BIT BIT(10)
#define CR4_UMIP_BIT BIT(11)
#define CR4_OSXSAVE_BIT BIT(18)
#define CR4_SMEP_BIT BIT(20)
#define CR4_SMAP_BIT BIT(21)
#define EFER_NXE_BIT BIT(11)
#define EFER_AUTO_IBRS_BIT BIT(21)

/*
 * Write combining in entry 1 (PWT alone), so that it can be chosen by one bit that stands in the same place in entries
 * of every size; the rest as after power-up: WB, WC, UC-, UC, WB, WT, UC-, UC (SDM vol. 3A, 12.12.2).
 */
#define HOST_PAT 0x0007040600070106ull

static void copy_register(char *to, uint32_t value)
{
    memcpy(to, &value, sizeof value);
}

static void detect(struct cpu_features *f)
{
    struct speculation_facts facts = { 0 };
    struct cpuid_regs r = cpuid(0, 0);
    uint32_t max = r.eax;

    copy_register(f->vendor_name, r.ebx);
    copy_register(f->vendor_name + 4, r.edx);
    copy_register(f->vendor_name + 8, r.ecx);
    f->vendor = !strcmp(f->vendor_name, "GenuineIntel")                                                     ? CPU_INTEL
                : !strcmp(f->vendor_name, "AuthenticAMD") || !strcmp(f->vendor_name, "HygonGenuine") ? CPU_AMD
                                                                                                            : CPU_OTHER;
    r = cpuid(1, 0);
    f->stepping = r.eax & 15;
    f->model = r.eax >> 4 & 15;
    f->family = r.eax >> 8 & 15;
    if (f->family == 15 || f->family == 6)
        f->model |= r.eax >> 12 & 0xf0;
    if (f->family == 15)
        f->family += r.eax >> 20 & 0xff;
    f->monitor = r.ecx & BIT(3);
    f->vmx = r.ecx & BIT(5);
    f->pcid = r.ecx & BIT(17);
    f->sse42 = r.ecx & BIT(20);
    f->x2apic = r.ecx & BIT(21);
    f->tsc_deadline = r.ecx & BIT(24);
    f->xsave = r.ecx & BIT(26);
    f->rdrand = r.ecx & BIT(30);
    f->hypervisor = r.ecx & BIT(31);
    if (f->hypervisor) {
        r = cpuid(0x40000000, 0);
        f->tcg = r.ebx == 0x54474354 && r.ecx == 0x43544743 && r.edx == 0x47435447; /* "TCGTCGTCGTCG" */
    }
    if (max >= 7) {
        r = cpuid(7, 0);
        f->fsgsbase = r.ebx & BIT(0);
        f->smep = r.ebx & BIT(7);
        f->rdseed = r.ebx & BIT(18);
        f->smap = r.ebx & BIT(20);
        f->umip = r.ecx & BIT(2);
        facts.leaf7_ebx = r.ebx;
        facts.leaf7_edx = r.edx;
        if (r.eax >= 2)
            facts.leaf7_2_edx = cpuid(7, 2).edx;
        if (r.edx & BIT(29))
            f->arch_capabilities = facts.arch_capabilities = rdmsr(MSR_ARCH_CAPABILITIES);
    }
    if (f->xsave && max >= 0xd) {
        r = cpuid(0xd, 0);
        f->xcr0_mask = (uint64_t)r.edx << 32 | r.eax;
        f->xsave_bytes = r.ecx;
        f->xsaves = cpuid(0xd, 1).eax & BIT(3);
        for (uint32_t i = 2; i < 63; i++)
            f->xsave_offset[i] = f->xcr0_mask & BIT(i) ? cpuid(0xd, i).ebx : 0;
    }
    uint32_t max_extended = cpuid(0x80000000, 0).eax;
    f->physical_bits = 36;
    f->linear_bits = 48;
    if (max_extended >= 0x80000001) {
        r = cpuid(0x80000001, 0);
        f->svm = r.ecx & BIT(2);
        f->nx = r.edx & BIT(20);
        f->huge_pages = r.edx & BIT(26);
        f->rdtscp = r.edx & BIT(27);
    }
    if (max_extended >= 0x80000004) {
        for (uint32_t i = 0; i < 3; i++) {
            r = cpuid(0x80000002 + i, 0);
            copy_register(f->brand + i * 16, r.eax);
            copy_register(f->brand + i * 16 + 4, r.ebx);
            copy_register(f->brand + i * 16 + 8, r.ecx);
            copy_register(f->brand + i * 16 + 12, r.edx);
        }
        /* Some CPUs set it to the right (SDM vol. 2A, CPUID, "the processor brand string"). */
        size_t blanks = strspn(f->brand, " ");
        memmove(f->brand, f->brand + blanks, sizeof f->brand - blanks);
    }
    if (max_extended >= 0x80000021) {
        r = cpuid(0x80000021, 0);
        facts.ext21_eax = r.eax;
        facts.ext21_ecx = r.ecx;
    }
    if (max_extended >= 0x80000007)
        f->invariant_tsc = cpuid(0x80000007, 0).edx & BIT(8);
    if (max_extended >= 0x80000008) {
        r = cpuid(0x80000008, 0);
        f->physical_bits = r.eax & 0xff;
        f->linear_bits = r.eax >> 8 & 0xff;
        facts.ext8_ebx = r.ebx;
        f->fpu_pointers_leak = f->vendor == CPU_AMD && !(r.ebx & BIT(2));
    }
    facts.intel = f->vendor == CPU_INTEL;
    facts.amd = f->vendor == CPU_AMD;
    facts.family = f->family;
    facts.model = f->model;
    f->speculation = speculation_plan(&facts);
}

void cpu_detect(void)
{
    detect(&cpu_features);
}

bool cpu_same_as_boot(void)
{
    static struct cpu_features other; /* CPUs come up one at a time */

    memset(&other, 0, sizeof other);
    detect(&other);
    return !memcmp(&other, &cpu_features, sizeof other);
}

void cpu_setup_control(void)
{
    const struct cpu_features *f = &cpu_features;

    write_cr0(CR0_HOST);
    write_cr4(CR4_PAE_BIT | CR4_MCE_BIT | CR4_PGE_BIT | CR4_OSFXSR_BIT | CR4_OSXMMEXCPT_BIT |
              (f->umip ? CR4_UMIP_BIT : 0) | (f->xsave ? CR4_OSXSAVE_BIT : 0) | (f->smep ? CR4_SMEP_BIT : 0) |
              (f->smap ? CR4_SMAP_BIT : 0));
    if (f->nx)
        wrmsr(MSR_EFER, rdmsr(MSR_EFER) | EFER_NXE_BIT);
    wrmsr(MSR_PAT, HOST_PAT);
    if (f->speculation.always_ibrs)
        wrmsr(MSR_SPEC_CTRL, cpu_host_spec_ctrl());
    if (f->speculation.auto_ibrs)
        wrmsr(MSR_EFER, rdmsr(MSR_EFER) | EFER_AUTO_IBRS_BIT);
    if (f->xsave)
        xsetbv(0, f->xcr0_mask);
}

uint32_t cpu_mxcsr_mask(void)
{
    struct { uint8_t bytes[512]; } image ALIGNED(16);
    uint32_t mask;

    memset(&image, 0, sizeof image);
    __asm__ volatile("fxsave64 %0" : "=m"(image));
    memcpy(&mask, image.bytes + 28, sizeof mask);
    return mask ? mask : 0xffbf;
}
