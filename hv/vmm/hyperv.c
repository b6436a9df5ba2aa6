/* SPDX-License-Identifier: MIT */
/*
 * Microsoft's hypervisor interface, as far as guests get it (hyperv.h). Section numbers are those of the TLFS 6.0b.
 *
 * The pages that a guest asks for (hypercall page, TSC page, VP assist page) are overlays in the TLFS; here they are
 * written into the guest's own RAM, which no known guest can tell apart, and which needs nothing at save and restore.
 */
#include "vmm/hyperv.h"

#include <string.h>

#include "kernel/bytes.h"
#include "kernel/index_mask.h"

#define PAGE_MASK (~(PAGE_BYTES - 1))
#define ENABLE BIT(0)
#define LOCKED BIT(1) /* of the hypercall MSR: immutable until reset (3.13) */

/* TSC page (12.8.3): sequence, reserved, scale, offset. */
enum { TSC_SEQUENCE = 0, TSC_SCALE = 8, TSC_OFFSET = 16 };

/*
 * 2^64 * 10^7 / hertz: 100 ns units for each tick as a fraction of 2^64. Needs more than 10 MHz, which every TSC has; a
 * smaller frequency would not fit and gives the largest fraction.
 */
static uint64_t scale_of(uint32_t tsc_khz)
{
    const uint64_t units_per_ms = 10000;
    if (tsc_khz <= units_per_ms)
        return UINT64_MAX;
    /* floor(2^64 * units / khz) by long division, 32 bits at a time: the remainder is always below khz. */
    uint64_t high = (units_per_ms << 32) / tsc_khz, rest = (units_per_ms << 32) % tsc_khz;
    return (high << 32) + ((rest << 32) / tsc_khz);
}

static void set_clock(struct hyperv *hv, uint32_t tsc_khz, uint64_t tsc, uint64_t reference)
{
    hv->tsc_khz = tsc_khz;
    hv->scale = scale_of(tsc_khz);
    hv->offset = 0;
    hv->offset = reference - hyperv_time(hv, tsc);
}

void hyperv_init(struct hyperv *hv, const struct gmem_ops *memory, uint32_t vcpu_count, uint32_t tsc_khz,
                 uint32_t apic_khz, bool vmmcall, uint64_t tsc, uint64_t now_ns)
{
    memset(hv, 0, sizeof(*hv));
    hv->memory = memory;
    hv->vcpu_count = vcpu_count;
    hv->apic_khz = apic_khz;
    hv->model_khz = tsc_khz;
    hv->vmmcall = vmmcall;
    hv->sequence = 1;
    set_clock(hv, tsc_khz, tsc, now_ns / 100);
}

void hyperv_vcpu_init(struct hyperv_vcpu *vcpu, uint32_t index)
{
    *vcpu = (struct hyperv_vcpu){ .index = index };
}

static bool put_page(const struct hyperv *hv, uint64_t gpa, const uint8_t page[PAGE_BYTES])
{
    return hv->memory->write(hv->memory->context, GPA(gpa), page, PAGE_BYTES);
}

/* VMCALL or VMMCALL, and RET (3.13: the page's contents are the hypervisor's business). The rest is INT3. */
static bool write_hypercall_page(const struct hyperv *hv)
{
    static const uint8_t vmcall[] = { 0x0f, 0x01, 0xc1, 0xc3 }, vmmcall[] = { 0x0f, 0x01, 0xd9, 0xc3 };
    uint8_t page[PAGE_BYTES];
    memset(page, 0xcc, sizeof(page));
    memcpy(page, hv->vmmcall ? vmmcall : vmcall, sizeof(vmcall));
    return put_page(hv, hv->hypercall & PAGE_MASK, page);
}

/*
 * The guest reads sequence, scale and offset and the sequence again. A page that is rewritten while it may be read goes
 * through sequence 0 ("use the MSR instead") first.
 */
static bool write_tsc_page(const struct hyperv *hv)
{
    uint8_t page[PAGE_BYTES] = { 0 };
    uint64_t gpa = hv->reference_tsc & PAGE_MASK;
    le64_put(page + TSC_SCALE, hv->scale);
    le64_put(page + TSC_OFFSET, hv->offset);
    if (!put_page(hv, gpa, page))
        return false;
    le32_put(page, hv->sequence);
    return hv->memory->write(hv->memory->context, GPA(gpa), page, 4);
}

/* ---- MSRs ---- */

bool hyperv_msr_read(const struct hyperv *hv, const struct hyperv_vcpu *vcpu, uint32_t msr, uint64_t *value,
                     uint64_t tsc, uint64_t runtime_ns)
{
    switch (msr) {
    case HV_MSR_GUEST_OS_ID:
        *value = hv->guest_os_id;
        return true;
    case HV_MSR_HYPERCALL:
        *value = hv->hypercall;
        return true;
    case HV_MSR_VP_INDEX:
        *value = vcpu->index;
        return true;
    case HV_MSR_VP_RUNTIME:
        *value = runtime_ns / 100;
        return true;
    case HV_MSR_TIME_REF_COUNT:
        *value = hyperv_time(hv, tsc);
        return true;
    case HV_MSR_REFERENCE_TSC:
        *value = hv->reference_tsc;
        return true;
    case HV_MSR_TSC_FREQUENCY:
        *value = hv->model_khz * 1000ull;
        return true;
    case HV_MSR_APIC_FREQUENCY:
        *value = hv->apic_khz * 1000ull;
        return true;
    case HV_MSR_VP_ASSIST_PAGE:
        *value = vcpu->assist_page;
        return true;
    case HV_MSR_CRASH_P0 ... HV_MSR_CRASH_P4:
        *value = hv->crash[index_mask(msr - HV_MSR_CRASH_P0, ARRAY_COUNT(hv->crash))];
        return true;
    case HV_MSR_CRASH_CTL:
        *value = HV_CRASH_NOTIFY | HV_CRASH_MESSAGE;
        return true;
    default:
        return false;
    }
}

static bool write_hypercall(struct hyperv *hv, uint64_t value)
{
    if (hv->hypercall & LOCKED)
        return true; /* stays as it is */
    if (!hv->guest_os_id)
        value &= ~ENABLE; /* no page for a guest that has not said what it is (3.13) */
    uint64_t before = hv->hypercall;
    hv->hypercall = value;
    if ((value & ENABLE) && !write_hypercall_page(hv)) {
        hv->hypercall = before;
        return false;
    }
    return true;
}

static bool write_assist_page(struct hyperv *hv, struct hyperv_vcpu *vcpu, uint64_t value)
{
    static const uint8_t zeros[PAGE_BYTES];
    if ((value & ENABLE) && !put_page(hv, value & PAGE_MASK, zeros))
        return false;
    vcpu->assist_page = value;
    return true;
}

static bool write_reference_tsc(struct hyperv *hv, uint64_t value)
{
    uint64_t before = hv->reference_tsc;
    hv->reference_tsc = value;
    if ((value & ENABLE) && !write_tsc_page(hv)) {
        hv->reference_tsc = before;
        return false;
    }
    return true;
}

/* A guest that dies says so (TLFS 2.4.4, 0x40000100). The text is copied once, and made printable. */
static void report_crash(const struct hyperv *hv, uint64_t control)
{
    char text[HV_CRASH_MESSAGE_BYTES + 1] = "";
    uint64_t bytes = MIN(hv->crash[4], (uint64_t)HV_CRASH_MESSAGE_BYTES);
    if ((control & HV_CRASH_MESSAGE) && bytes &&
        hv->memory->read(hv->memory->context, GPA(hv->crash[3]), text, bytes)) {
        text[bytes] = 0;
        for (char *c = text; *c; c++)
            if ((*c < 0x20 && *c != '\n') || *c == 0x7f || (uint8_t)*c >= 0x80)
                *c = '?';
    } else {
        text[0] = 0;
    }
    if (hv->crashed)
        hv->crashed(hv->context, hv->crash, text);
}

bool hyperv_msr_write(struct hyperv *hv, struct hyperv_vcpu *vcpu, uint32_t msr, uint64_t value)
{
    switch (msr) {
    case HV_MSR_GUEST_OS_ID:
        hv->guest_os_id = value;
        if (!value)
            hv->hypercall &= ~ENABLE; /* 3.13 */
        return true;
    case HV_MSR_HYPERCALL:
        return write_hypercall(hv, value);
    case HV_MSR_REFERENCE_TSC:
        return write_reference_tsc(hv, value);
    case HV_MSR_VP_ASSIST_PAGE:
        return write_assist_page(hv, vcpu, value);
    case HV_MSR_CRASH_P0 ... HV_MSR_CRASH_P4:
        hv->crash[index_mask(msr - HV_MSR_CRASH_P0, ARRAY_COUNT(hv->crash))] = value;
        return true;
    case HV_MSR_CRASH_CTL:
        if (value & HV_CRASH_NOTIFY)
            report_crash(hv, value);
        return true;
    default: /* the rest is read only, or not there */
        return false;
    }
}

bool hyperv_hypercall(const struct hyperv *hv, uint64_t input, uint64_t *result)
{
    if (!(hv->hypercall & ENABLE))
        return false;
    *result = (input & 0xffff) == HV_CALL_NOTIFY_LONG_SPIN_WAIT ? HV_STATUS_SUCCESS : HV_STATUS_INVALID_HYPERCALL_CODE;
    return true;
}

/* ---- Changes of the clock, save and restore ---- */

void hyperv_retime(struct hyperv *hv, uint32_t tsc_khz, uint64_t tsc, uint64_t now_ns, uint64_t least)
{
    set_clock(hv, tsc_khz, tsc, MAX(now_ns / 100, least));
    /* Neither 0 nor all ones is a sequence (12.8.3). */
    hv->sequence = hv->sequence >= UINT32_MAX - 1 ? 1 : hv->sequence + 1;
    /* A page that has become unwritable stays as it was: the guest gave it away. */
    if ((hv->reference_tsc & ENABLE) && !write_tsc_page(hv))
        hv->reference_tsc &= ~ENABLE;
    if ((hv->hypercall & ENABLE) && !write_hypercall_page(hv))
        hv->hypercall &= ~ENABLE;
}

void hyperv_save(const struct hyperv *hv, struct stream_writer *w)
{
    stream_put_u64(w, hv->guest_os_id);
    stream_put_u64(w, hv->hypercall);
    stream_put_u64(w, hv->reference_tsc);
    for (unsigned i = 0; i < ARRAY_COUNT(hv->crash); i++)
        stream_put_u64(w, hv->crash[i]);
    stream_put_u64(w, hv->offset);
    stream_put_u32(w, hv->sequence);
    stream_put_u32(w, hv->tsc_khz);
    stream_put_u32(w, hv->apic_khz);
}

void hyperv_restore(struct hyperv *hv, struct stream_reader *r)
{
    if (!r->error && r->version != HYPERV_SECTION_VERSION)
        stream_fail(r, ERR_VERSION, "version %u, this node reads %u: update it", r->version, HYPERV_SECTION_VERSION);
    hv->guest_os_id = stream_get_u64(r);
    hv->hypercall = stream_get_u64(r);
    hv->reference_tsc = stream_get_u64(r);
    for (unsigned i = 0; i < ARRAY_COUNT(hv->crash); i++)
        hv->crash[i] = stream_get_u64(r);
    hv->offset = stream_get_u64(r);
    hv->sequence = stream_get_u32(r);
    uint32_t tsc_khz = stream_get_u32(r), apic_khz = stream_get_u32(r);
    if (r->error)
        return;
    if (!tsc_khz || !hv->sequence || apic_khz != hv->apic_khz)
        stream_fail(r, ERR_CORRUPT, "TSC of %u kHz, APIC timer of %u kHz, sequence %u", tsc_khz, apic_khz,
                    hv->sequence);
    hv->tsc_khz = tsc_khz;
    hv->scale = scale_of(tsc_khz);
}

void hyperv_vcpu_save(const struct hyperv_vcpu *vcpu, struct stream_writer *w)
{
    stream_put_u32(w, vcpu->index);
    stream_put_u64(w, vcpu->assist_page);
}

void hyperv_vcpu_restore(struct hyperv_vcpu *vcpu, struct stream_reader *r)
{
    if (!r->error && r->version != HYPERV_SECTION_VERSION)
        stream_fail(r, ERR_VERSION, "version %u, this node reads %u: update it", r->version, HYPERV_SECTION_VERSION);
    uint32_t index = stream_get_u32(r);
    uint64_t assist_page = stream_get_u64(r);
    if (!r->error && index != vcpu->index)
        stream_fail(r, ERR_CORRUPT, "VP index %u, expected %u", index, vcpu->index);
    vcpu->assist_page = assist_page;
}
