/* SPDX-License-Identifier: MIT */
/*
 * The part of Microsoft's hypervisor interface that guests get (Hypervisor Top-Level Functional Specification, "TLFS",
 * 6.0b): the hypercall page, VP index, reference time and its TSC page, frequencies, crash report. No SynIC, no
 * synthetic timers, no VMBus, no hypercalls that do anything: CPUID does not offer them. docs/guest-interface.md is the
 * reference.
 *
 * Pure: time comes as arguments. Reference time (100 ns units) is one function of the guest's TSC,
 *     ref = ((tsc * scale) >> 64) + offset
 * which is what the guest computes from the page, so the MSR and the page agree to the last unit on every vCPU. scale
 * and offset change only in hyperv_retime, when the rate of the guest's TSC does or its TSC is set anew, with the page's
 * sequence going up. The rate is what the TSC really does on this host, the frequency that the MSR tells is the CPU
 * model's: they differ by a few parts in a million where a host cannot scale (vmm/tsc.h), and the clock stays right.
 *
 * Locking: the caller holds the machine's device lock, except around hyperv_time and hyperv_hypercall, which only read
 * words that do not change while vCPUs run.
 */
#ifndef VMM_HYPERV_H
#define VMM_HYPERV_H

#include "kernel/types.h"
#include "vdev/vdev.h"
#include "vm/stream.h"

#define HV_MSR_GUEST_OS_ID 0x40000000u
#define HV_MSR_HYPERCALL 0x40000001u
#define HV_MSR_VP_INDEX 0x40000002u
#define HV_MSR_VP_RUNTIME 0x40000010u
#define HV_MSR_TIME_REF_COUNT 0x40000020u
#define HV_MSR_REFERENCE_TSC 0x40000021u
#define HV_MSR_TSC_FREQUENCY 0x40000022u
#define HV_MSR_APIC_FREQUENCY 0x40000023u
#define HV_MSR_VP_ASSIST_PAGE 0x40000073u
#define HV_MSR_CRASH_P0 0x40000100u
#define HV_MSR_CRASH_P4 0x40000104u
#define HV_MSR_CRASH_CTL 0x40000105u

#define HV_CRASH_NOTIFY BIT(63)
#define HV_CRASH_MESSAGE BIT(62) /* P3 and P4 are address and bytes of a text */
#define HV_CRASH_MESSAGE_BYTES 1024u

#define HV_STATUS_SUCCESS 0u
#define HV_STATUS_INVALID_HYPERCALL_CODE 2u
#define HV_STATUS_INVALID_HYPERCALL_INPUT 3u
#define HV_CALL_NOTIFY_LONG_SPIN_WAIT 0x0008u

/* CPUID.40000003H: EAX and EDX that this file honours; CPUID.40000004H:EAX that it recommends. */
#define HV_FEATURES_EAX (BIT(0) | BIT(1) | BIT(5) | BIT(6) | BIT(9) | BIT(11))
#define HV_FEATURES_EDX (BIT(8) | BIT(10))
#define HV_HINTS_EAX BIT(5)

struct hyperv {
    uint64_t guest_os_id, hypercall, reference_tsc;
    uint64_t crash[5];
    uint64_t scale;          /* 2^64 * 10^7 / TSC hertz */
    uint64_t offset;         /* 100 ns units, modulo 2^64 */
    uint32_t sequence;       /* of the TSC page; never 0 (= page not usable) */
    uint32_t tsc_khz, apic_khz; /* rate of the TSC, and the APIC timer's */
    uint32_t model_khz;      /* what TSC_FREQUENCY tells */
    uint32_t vcpu_count;
    bool vmmcall;            /* the hypercall instruction is VMMCALL (AMD), else VMCALL */
    const struct gmem_ops *memory;
    /* A guest reported a crash: its five parameters, and the text that it left, "" if none. May be NULL. */
    void (*crashed)(void *context, const uint64_t parameters[5], const char *message);
    void *context;
};

/* One for each vCPU. */
struct hyperv_vcpu {
    uint32_t index;
    uint64_t assist_page;
};

/*
 * State of a new VM (or after its reset: then call it again): reference time is now_ns / 100 at guest TSC `tsc`.
 * Clears all of *hv: `crashed` and `context` are set after it, and model_khz where it is not `tsc_khz`.
 */
void hyperv_init(struct hyperv *hv, const struct gmem_ops *memory, uint32_t vcpu_count, uint32_t tsc_khz,
                 uint32_t apic_khz, bool vmmcall, uint64_t tsc, uint64_t now_ns);
void hyperv_vcpu_init(struct hyperv_vcpu *vcpu, uint32_t index);

/* Reference time at a guest TSC. */
static inline uint64_t hyperv_time(const struct hyperv *hv, uint64_t tsc)
{
    return (uint64_t)(((unsigned __int128)tsc * hv->scale) >> 64) + hv->offset;
}

/* The MSRs 0x40000000..0x400001ff; false: #GP. `tsc` is the guest's TSC now, `runtime_ns` what this vCPU has run. */
bool hyperv_msr_read(const struct hyperv *hv, const struct hyperv_vcpu *vcpu, uint32_t msr, uint64_t *value,
                     uint64_t tsc, uint64_t runtime_ns);
bool hyperv_msr_write(struct hyperv *hv, struct hyperv_vcpu *vcpu, uint32_t msr, uint64_t value);

/*
 * The hypercall instruction, at CPL 0 in protected or long mode (else the caller raises #UD). `input` is RCX in 64-bit
 * mode, EDX:EAX otherwise; the result goes to RAX, or EDX:EAX. Without a hypercall page enabled: false, #UD.
 */
bool hyperv_hypercall(const struct hyperv *hv, uint64_t input, uint64_t *result);

/*
 * The guest's TSC has been set anew or has another rate: from now on reference time at `tsc` is now_ns / 100, but
 * never less than `least` (what the guest may have seen: 0 if nothing). Rewrites the page with a new sequence. vCPUs
 * are stopped.
 */
void hyperv_retime(struct hyperv *hv, uint32_t tsc_khz, uint64_t tsc, uint64_t now_ns, uint64_t least);

/*
 * Payload of the sections "HYPERV" (one for a VM) and "HVVCPU" (instance = vCPU). After hyperv_restore, *hv has the
 * saved state with this host's instruction in mind; the caller then calls hyperv_retime (with least = reference time of
 * the saved clock: hyperv_time before it), once guest memory is restored. The hypercall page is written anew too.
 */
#define HYPERV_SECTION_TAG "HYPERV"
#define HYPERV_VCPU_SECTION_TAG "HVVCPU"
#define HYPERV_SECTION_VERSION 1
void hyperv_save(const struct hyperv *hv, struct stream_writer *w);
void hyperv_restore(struct hyperv *hv, struct stream_reader *r);
void hyperv_vcpu_save(const struct hyperv_vcpu *vcpu, struct stream_writer *w);
void hyperv_vcpu_restore(struct hyperv_vcpu *vcpu, struct stream_reader *r);

#endif
