/* SPDX-License-Identifier: MIT */
/*
 * The policy on MSRs and control registers: what does not exist is #GP on read and on write, what exists keeps what is
 * written, and EFER, CR0, CR4, XCR0 and CR8 refuse what CPUID does not promise. cpu=lax leaves out what only the CPU
 * checks, since it goes to no hypervisor, and QEMU 7.2 does not: canonical addresses in MSRs, PAT's types, reserved
 * bits of CR0, CR3 and CR8.
 */
#include "guest.h"

static bool lax;

#define MSR_EFER 0xc0000080u
#define MSR_SPEC_CTRL 0x48u
#define MSR_PRED_CMD 0x49u
#define MSR_ARCH_CAPABILITIES 0x10au
#define MSR_FLUSH_CMD 0x10bu

static void unknown(void)
{
    /* Not on either vendor's list, among them VMX's, SVM's and the host's own secrets. */
    static const uint32_t msrs[] = { 0x2,        0x3a,       0x40,       0x60,       0xc1,       0x186,
                                     0x198,      0x345,      0x38f,      0x480,      0x48b,      0x4c1,
                                     0x560,      0x606,      0x900,      0xda1,      0x20000000, 0x40000003,
                                     0x4000ffff, 0xbfffffff, 0xc0000000, 0xc0000104, 0xc0000200, 0xc0010111,
                                     0xc0010114, 0xc0010117, 0xc0010140, 0xc0020000, 0xffffffff };
    unsigned readable = 0, writable = 0;
    for (unsigned i = 0; i < COUNT(msrs); i++) {
        uint64_t value = 0;
        if (msrs[i] == 0x3a || msrs[i] == 0x198) /* constants on Intel */
            continue;
        if (guest_rdmsr(msrs[i], &value)) {
            readable++;
            guest_note("MSR 0x%x reads 0x%lx", msrs[i], value);
        }
        if (guest_wrmsr(msrs[i], 0)) {
            writable++;
            guest_note("MSR 0x%x can be written", msrs[i]);
        }
    }
    guest_equal("unknown MSRs are #GP(0) on reading", 0, readable);
    guest_equal("unknown MSRs are #GP(0) on writing", 0, writable);
}

static void round_trip(void)
{
    static const struct { uint32_t msr; uint64_t value; const char *text; } kept[] = {
        { 0xc0000100, 0xffff800012345678, "FS_BASE" },
        { 0xc0000101, 0x00007fff87654321, "GS_BASE" },
        { 0xc0000102, 0xffffc000deadbeef, "KERNEL_GS_BASE" },
        { 0xc0000081, 0x0023001000000000, "STAR" },
        { 0xc0000082, 0xffffffff81000000, "LSTAR" },
        { 0xc0000083, 0xffffffff81000010, "CSTAR" },
        { 0xc0000084, 0x47700, "FMASK" },
        { 0x174, 0x10, "SYSENTER_CS" },
        { 0x175, 0xffffffff80001000, "SYSENTER_ESP" },
        { 0x176, 0xffffffff80002000, "SYSENTER_EIP" },
        { 0x277, 0x0007010600070106, "PAT" },
        { 0x2ff, 0xc06, "MTRR_DEF_TYPE" },
        { 0x200, 0x00000006, "MTRR_PHYSBASE0" },
        { 0x250, 0x0606060606060606, "MTRR_FIX64K" },
    };
    for (unsigned i = 0; i < COUNT(kept); i++) {
        uint64_t before = 0, after = 0;
        if (!guest_rdmsr(kept[i].msr, &before) || !guest_wrmsr(kept[i].msr, kept[i].value)) {
            guest_check(kept[i].text, false);
            continue;
        }
        (void)cpuid(0, 0); /* an exit in between */
        (void)guest_rdmsr(kept[i].msr, &after);
        guest_equal(kept[i].text, kept[i].value, after);
        wrmsr(kept[i].msr, before);
    }
    if (!lax) {
        guest_check("a base that is not canonical is #GP", !guest_wrmsr(0xc0000100, 0x0000800000000000));
        guest_check("LSTAR that is not canonical is #GP", !guest_wrmsr(0xc0000082, 0x8000000000000000));
        guest_check("a PAT type that is reserved is #GP", !guest_wrmsr(0x277, 2));
    }
    guest_check("MTRRCAP is read-only", !guest_wrmsr(0xfe, 0));
    guest_equal("MTRRCAP counts eight", 8, rdmsr(0xfe) & 0xff);
    guest_equal("no machine-check banks", 0, rdmsr(0x179) & 0xff);
    /* The hidden upper half of a segment register and its MSR are one. */
    uint64_t value;
    wrmsr(0xc0000101, (uint64_t)&value);
    __asm__ volatile("movq $0x1122334455667788, %%rax; movq %%rax, %%gs:0" : : : "rax", "memory");
    guest_equal("GS_BASE is what GS addresses with", 0x1122334455667788, value);
    wrmsr(0xc0000102, 0x1234);
    uint64_t gs = rdmsr(0xc0000101);
    __asm__ volatile("swapgs" : : : "memory");
    guest_equal("SWAPGS brings KERNEL_GS_BASE", 0x1234, rdmsr(0xc0000101));
    guest_equal("and puts GS_BASE there", gs, rdmsr(0xc0000102));
    if (cpuid(0x80000001, 0).edx & BIT(27)) {
        uint32_t aux;
        wrmsr(0xc0000103, 0xabcd1234);
        __asm__ volatile("rdtscp" : "=c"(aux) : : "rax", "rdx");
        guest_equal("RDTSCP gives TSC_AUX", 0xabcd1234, aux);
    }
    if (cpuid(7, 0).ecx & BIT(22)) {
        uint64_t aux;
        __asm__ volatile("rdpid %0" : "=r"(aux));
        guest_equal("RDPID gives it too", 0xabcd1234, aux);
    }
}

/* ---- Time stamp counter ---- */

static void tsc(void)
{
    uint64_t before = rdtsc();
    wrmsr(0x10, before + 1000000000000ull);
    uint64_t after = rdtsc();
    guest_check("writing the TSC moves it", after - before >= 1000000000000ull && after - before < 1100000000000ull);
    guest_check("RDMSR and RDTSC agree", rdmsr(0x10) - rdtsc() + guest_tsc_hz() < 2 * guest_tsc_hz());
    if (cpuid(7, 0).ebx & BIT(1)) {
        guest_check("TSC_ADJUST has the difference", rdmsr(0x3b) - 1000000000000ull < guest_tsc_hz() * 10 ||
                                                       1000000000000ull - rdmsr(0x3b) < guest_tsc_hz() * 10);
        wrmsr(0x3b, 0);
        guest_check("TSC_ADJUST 0 brings it back", rdtsc() - before < guest_tsc_hz() * 100);
    } else {
        wrmsr(0x10, rdtsc() - 1000000000000ull);
    }
    uint64_t last = 0;
    bool monotonic = true;
    for (unsigned i = 0; i < 10000; i++) {
        uint64_t now = i & 1 ? rdmsr(0x10) : rdtsc();
        monotonic &= now > last;
        last = now;
    }
    guest_check("the TSC only goes forward, however it is read", monotonic);
}

/* ---- Control registers ---- */

struct write { unsigned which; uint64_t value; };

static void try_write_cr(void *argument)
{
    struct write *w = argument;
    if (w->which == 0)
        write_cr0(w->value);
    else if (w->which == 3)
        write_cr3(w->value);
    else if (w->which == 4)
        write_cr4(w->value);
    else if (w->which == 8)
        write_cr8(w->value);
    else
        __asm__ volatile("xsetbv" : : "c"(w->which - 100), "a"((uint32_t)w->value), "d"((uint32_t)(w->value >> 32)));
}

/* -1, or the vector with the error code above it. */
static int64_t write_cr(unsigned which, uint64_t value)
{
    struct write w = { which, value };
    struct guest_fault fault = guest_try(try_write_cr, &w);
    return fault.vector < 0 ? -1 : (int64_t)(fault.error << 8 | (uint64_t)fault.vector);
}

static void control_registers(void)
{
    struct guest_cpuid one = cpuid(1, 0), seven = cpuid(7, 0), ext = cpuid(0x80000001, 0);
    uint64_t cr4 = read_cr4(), cr0 = read_cr0(), efer = rdmsr(MSR_EFER);
    /* CR4's bits and the CPUID bit that allows each. */
    const struct { unsigned bit; bool have; const char *text; } bits[] = {
        { 9, one.edx & BIT(24), "CR4.OSFXSR" },
        { 11, seven.ecx & BIT(2), "CR4.UMIP" },
        { 12, seven.ecx & BIT(16), "CR4.LA57" },
        { 13, one.ecx & BIT(5), "CR4.VMXE" },
        { 14, one.ecx & BIT(6), "CR4.SMXE" },
        { 16, seven.ebx & BIT(0), "CR4.FSGSBASE" },
        { 17, one.ecx & BIT(17), "CR4.PCIDE" },
        { 18, one.ecx & BIT(26), "CR4.OSXSAVE" },
        { 20, seven.ebx & BIT(7), "CR4.SMEP" },
        { 21, seven.ebx & BIT(20), "CR4.SMAP" },
        { 22, seven.ecx & BIT(3), "CR4.PKE" },
        { 23, seven.edx & BIT(20), "CR4.CET" },
        { 24, seven.ecx & BIT(31), "CR4.PKS" },
        { 15, false, "CR4 bit 15" },
        { 40, false, "CR4 bit 40" },
        { 63, false, "CR4 bit 63" },
    };
    for (unsigned i = 0; i < COUNT(bits); i++) {
        /* LA57 cannot be changed in long mode, CET needs CR0.WP; SMEP and SMAP would strike our user-accessible pages.
         */
        if (bits[i].have && (bits[i].bit == 12 || bits[i].bit == 20 || bits[i].bit == 21 || bits[i].bit == 23))
            continue;
        guest_equal(bits[i].text, bits[i].have ? UINT64_MAX : 13, (uint64_t)write_cr(4, cr4 | BIT(bits[i].bit)));
        write_cr4(cr4);
    }
    guest_equal("CR4 without PAE in long mode is #GP", 13, (uint64_t)write_cr(4, cr4 & ~BIT(5)));
    guest_equal("CR0.PG without PE is #GP", 13, (uint64_t)write_cr(0, cr0 & ~BIT(0)));
    guest_equal("CR0 without PG in 64-bit code is #GP", 13, (uint64_t)write_cr(0, cr0 & ~BIT(31)));
    guest_equal("CR0.NW without CD is #GP", 13, (uint64_t)write_cr(0, cr0 | BIT(29)));
    if (!lax)
        guest_equal("CR0's upper half is #GP", 13, (uint64_t)write_cr(0, cr0 | BIT(32)));
    guest_equal("CR0.CD with NW is taken", UINT64_MAX, (uint64_t)write_cr(0, cr0 | BIT(30) | BIT(29)));
    guest_equal("CR0.CD and NW read back", 3, read_cr0() >> 29 & 3);
    write_cr0(cr0);
    guest_equal("CR0 reads back", cr0, read_cr0());
    guest_equal("CR4 reads back", cr4, read_cr4());
    write_cr0(cr0 | BIT(3));
    __asm__ volatile("clts");
    guest_equal("CLTS clears TS", 0, read_cr0() & BIT(3));
    __asm__ volatile("lmsw %w0" : : "r"((uint32_t)cr0 | BIT(3)));
    guest_equal("LMSW sets TS", BIT(3), read_cr0() & BIT(3));
    __asm__ volatile("lmsw %w0" : : "r"(0));
    guest_equal("LMSW does not clear PE", 1, read_cr0() & 1);
    write_cr0(cr0);
    if (!lax)
        guest_equal("CR3 with a reserved bit is #GP", 13, (uint64_t)write_cr(3, read_cr3() | BIT(51)));
    if (!lax)
        guest_equal("CR8 above 15 is #GP", 13, (uint64_t)write_cr(8, 16));
    guest_check("EFER's reserved bits are #GP", !guest_wrmsr(MSR_EFER, efer | BIT(20)));
    guest_check("EFER.SVME is #GP, for CPUID has no SVM", (ext.ecx & BIT(2)) || !guest_wrmsr(MSR_EFER, efer | BIT(12)));
    guest_check("EFER.LME cannot be cleared under paging", !guest_wrmsr(MSR_EFER, efer & ~BIT(8)));
    guest_check("EFER.SCE and NXE can be set", guest_wrmsr(MSR_EFER, efer | BIT(0) | BIT(11)));
    guest_equal("EFER reads back", efer | BIT(0) | BIT(11), rdmsr(MSR_EFER));
    wrmsr(MSR_EFER, efer);
    if (one.ecx & BIT(26)) {
        write_cr4(cr4 | BIT(18));
        struct guest_cpuid d = cpuid(0xd, 0);
        uint64_t have = (uint64_t)d.edx << 32 | d.eax;
        guest_equal("CPUID shows OSXSAVE after CR4", 1, cpuid(1, 0).ecx >> 27 & 1);
        guest_equal("XCR0 without x87 is #GP", 13, (uint64_t)write_cr(100, 2));
        guest_equal("XCR0 bits that CPUID lacks are #GP", 13, (uint64_t)write_cr(100, have | 1 | BIT(62)));
        guest_equal("XCR0 with AVX and without SSE is #GP", 13, (uint64_t)write_cr(100, 5));
        guest_equal("XCR0 with all that CPUID has", UINT64_MAX, (uint64_t)write_cr(100, have));
        guest_equal("XCR1 does not exist", 13, (uint64_t)write_cr(101, 1));
        (void)write_cr(100, 1);
        write_cr4(cr4);
        guest_equal("XSETBV without OSXSAVE is #UD", 6, (uint64_t)write_cr(100, 1));
    }
}

/* SPEC_CTRL has the bits that CPUID brings, and keeps them over exits; the commands are there with their CPUID bits. */
static void speculation(void)
{
    struct guest_cpuid seven = cpuid(7, 0), more = seven.eax >= 2 ? cpuid(7, 2) : (struct guest_cpuid){ 0 };
    uint32_t amd = guest_amd() ? cpuid(0x80000008, 0).ebx : 0, arch = seven.edx & BIT(29);
    uint64_t value, valid = (seven.edx & BIT(26) || amd & BIT(14) ? 1 : 0) | (seven.edx & BIT(27) || amd & BIT(15) ? 2 : 0) |
                            (seven.edx & BIT(31) || amd & BIT(24) ? 4 : 0) | (more.edx & BIT(1) ? 0x18 : 0) |
                            (more.edx & BIT(2) ? 0x60 : 0) | (more.edx & BIT(0) || amd & BIT(28) ? 0x80 : 0) |
                            (more.edx & BIT(3) ? 0x100 : 0) | (more.edx & BIT(4) ? 0x400 : 0);
    guest_note("SPEC_CTRL has 0x%lx", valid);
    guest_equal("SPEC_CTRL is there with its bits", !!valid, guest_rdmsr(MSR_SPEC_CTRL, &value));
    for (unsigned bit = 0; bit < 64 && valid; bit++) {
        bool taken = guest_wrmsr(MSR_SPEC_CTRL, BIT(bit));
        if (valid >> bit & 1) {
            (void)cpuid(0, 0);
            guest_equal("a bit of SPEC_CTRL", BIT(bit), taken ? rdmsr(MSR_SPEC_CTRL) : 0);
        } else if (bit > 10) {
            guest_check("a bit of SPEC_CTRL that no CPU has is #GP", !taken);
        }
        (void)guest_wrmsr(MSR_SPEC_CTRL, 0);
        guest_equal("and none", 0, rdmsr(MSR_SPEC_CTRL));
    }
    guest_equal("PRED_CMD", seven.edx & BIT(26) || amd & BIT(12), guest_wrmsr(MSR_PRED_CMD, 1));
    guest_check("PRED_CMD cannot be read", !guest_rdmsr(MSR_PRED_CMD, &value));
    guest_equal("FLUSH_CMD", !!(seven.edx & BIT(28)), guest_wrmsr(MSR_FLUSH_CMD, 1));
    guest_equal("ARCH_CAPABILITIES", !!arch, guest_rdmsr(MSR_ARCH_CAPABILITIES, &value));
    guest_check("ARCH_CAPABILITIES is read-only", !guest_wrmsr(MSR_ARCH_CAPABILITIES, arch ? value : 0));
    if (guest_amd() && cpuid(0x80000000, 0).eax >= 0x80000021)
        guest_equal("automatic IBRS", !!(cpuid(0x80000021, 0).eax & BIT(8)), guest_wrmsr(MSR_EFER, rdmsr(MSR_EFER) | BIT(21)));
    wrmsr(MSR_EFER, rdmsr(MSR_EFER) & ~BIT(21));
}

static void leaf(void *argument)
{
    (void)argument;
    __asm__ volatile("vmcall");
}

static void instructions(void)
{
    struct guest_fault fault = guest_try(leaf, NULL);
    if (guest_intel() || guest_amd())
        guest_equal("a hypercall without its page is #UD", 6, (uint64_t)fault.vector);
    guest_check("CPUID names a hypervisor", cpuid(1, 0).ecx >> 31);
    guest_check("no VMX, no SVM in CPUID", !(cpuid(1, 0).ecx & BIT(5)) && !(cpuid(0x80000001, 0).ecx & BIT(2)));
    struct guest_cpuid beyond = cpuid(0x40000200, 0);
    guest_equal("leaves that are not there are zero", 0, beyond.eax | beyond.ebx | beyond.ecx | beyond.edx);
}

/* First of all: the node tells of the first sixteen refusals only, and its log is looked at for these. */
static void refusals(void)
{
    uint64_t value;
    guest_check("a value that EFER does not take is #GP", !guest_wrmsr(MSR_EFER, rdmsr(MSR_EFER) | BIT(20)));
    guest_check("a write of what is read-only is #GP", !guest_wrmsr(0xfe, 0));
    guest_check("a read of what is not there is #GP", !guest_rdmsr(0x20000000, &value));
}

void guest_main(void)
{
    refusals();
    const char *cpu = guest_argument("cpu");
    lax = cpu && !strncmp(cpu, "lax", 4);
    unknown();
    round_trip();
    tsc();
    control_registers();
    speculation();
    instructions();
}
