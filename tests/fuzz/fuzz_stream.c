/* SPDX-License-Identifier: MIT */
/*
 * Fuzzes the state stream and the sections of a vCPU (the CPU model, registers, vector state, MSRs, the Hyper-V
 * interface) and of vm/ (the VM, its clock, its disks, what a vCPU waits for, pages).
 *
 * Input: a stream. It is first taken as it is; then with all checksums put right, since no fuzzer finds those, and each
 * section goes to the part that it belongs to.
 *
 * What must hold: no access outside of the stream (the sanitizer watches), every refusal has words, and what was taken
 * is good: registers pass the check again, an XSAVE area has a header that XRSTOR takes, a model's limits are within
 * its ceiling's, and what is saved anew is restored to the same.
 */
#include <stdlib.h>
#include <string.h>

#include "fake_cpuid.h"
#include "kernel/bytes.h"
#include "kernel/crc32c.h"
#include "vm/save_stream.h"
#include "vm/stream.h"
#include "vmm/cpu_state_stream.h"
#include "vmm/hyperv.h"
#include "vmm/msr_policy.h"

#define HEADER 20u
#define SECTION 24u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct cpuid_model ceiling, model;

static void require(bool condition)
{
    if (!condition)
        abort();
}

/* Puts every checksum and the end section's figures right, as far as there is a structure. */
static void fix(uint8_t *bytes, size_t size)
{
    uint64_t at = HEADER, sections = 0;
    if (size < HEADER)
        return;
    memcpy(bytes, "TSKSTATE\1\0\0\0\0\0\0", 16);
    le32_put(bytes + 16, crc32c(0, bytes, 16));
    while (range_within(at, SECTION + 4, size)) {
        uint64_t payload = le64_get(bytes + at + 16);
        if (!range_within(at + SECTION, payload, size) || size - (at + SECTION + payload) < 4)
            return;
        if (!memcmp(bytes + at, "END\0\0\0\0", 8) && payload == 12) {
            le64_put(bytes + at + SECTION, sections);
            le32_put(bytes + at + SECTION + 8, crc32c(0, bytes, at));
        }
        uint64_t end = at + SECTION + payload;
        le32_put(bytes + end, crc32c(0, bytes + at, end - at));
        at = end + 4;
        sections++;
    }
}

static void take_registers(struct stream_reader *r)
{
    struct cpu_state state;
    cpu_state_restore(&state, r, &model.limits);
    require(r->error || cpu_state_check(&state, &model.limits, NULL, 0) == OK);
}

static void take_vectors(struct stream_reader *r)
{
    uint8_t *area = malloc(model.xsave.area_bytes);
    xsave_restore(area, &model.xsave, r);
    require(!(le64_get(area + 512) & ~model.xsave.components));
    for (unsigned i = 8; i < 64; i++)
        require(area[512 + i] == 0);
    require(!(le32_get(area + 24) & ~model.xsave.mxcsr_mask));
    free(area);
}

static void take_model(struct stream_reader *r)
{
    static struct cpuid_model taken;
    cpuid_model_restore(&taken, r, &ceiling);
    if (r->error)
        return;
    require(!(taken.limits.cr4_valid & ~ceiling.limits.cr4_valid));
    require(!(taken.limits.efer_valid & ~ceiling.limits.efer_valid));
    require(!(taken.limits.xcr0_valid & ~ceiling.limits.xcr0_valid));
    require(!(taken.limits.xss_valid & ~ceiling.limits.xss_valid));
    require(!(taken.limits.spec_ctrl_valid & ~ceiling.limits.spec_ctrl_valid));
    require(taken.limits.physical_bits <= ceiling.limits.physical_bits);
    require(taken.xsave.area_bytes <= ceiling.xsave.area_bytes);
    for (uint32_t leaf = 0; leaf < 0x30; leaf++)
        (void)cpuid_find(&taken, leaf, leaf % 5);
    model = taken;
}

static void take_msrs(struct stream_reader *r)
{
    struct msr_state state;
    msr_state_restore(&state, &model, r);
}

static bool no_memory(void *context, gpa_t gpa, const void *bytes, uint64_t count)
{
    (void)context, (void)bytes;
    return gpa.v < MIB && count <= PAGE_BYTES;
}

static void take_hyperv(struct stream_reader *r)
{
    static const struct gmem_ops memory = { .write = no_memory };
    struct hyperv hv;
    hyperv_init(&hv, &memory, 4, 2400000, APIC_TIMER_KHZ, false, 0, 0);
    hyperv_restore(&hv, r);
    if (r->error)
        return;
    uint64_t seen = hyperv_time(&hv, 1000);
    hyperv_retime(&hv, 2400000, 5, 0, seen);
    require(hyperv_time(&hv, 5) >= seen);
}

static void take_hyperv_vcpu(struct stream_reader *r)
{
    struct hyperv_vcpu vcpu;
    hyperv_vcpu_init(&vcpu, r->instance);
    hyperv_vcpu_restore(&vcpu, r);
}

static void take_vm(struct stream_reader *r)
{
    static const struct config_vm config = { .name = "demo", .vcpus = 2, .kernel = "k", .cmdline = "", .disk_count = 1,
                                             .disks = { "d" } };
    struct save_vm vm = { .config = &config, .memory_bytes = 2 * MIB };
    save_vm_get(&vm, r);
    require(r->error || !stream_left(r));
}

static void take_clock(struct stream_reader *r)
{
    struct save_clock clock;
    save_clock_get(&clock, r, 2400000);
    require(r->error || (clock.tsc_khz == 2400000 && clock.guest_ns <= BIT(62)));
}

static void take_disk(struct stream_reader *r)
{
    static const struct save_disk disks[] = {
        { SAVE_DISK_IMAGE, "\\disk", 1 << 20, 0, 0, 0, "" },
        { SAVE_DISK_FILE, "/ClusterStorage/V/a.img", 1 << 20, 77, 5, 1000000007, "" },
        { SAVE_DISK_UNIT, "storage:san", 1 << 30, 0, 0, 0, "naa.6001405" },
    };
    save_disk_get(&disks[r->instance % 3], r);
    require(r->error || !stream_left(r));
}

static void take_vcpu(struct stream_reader *r)
{
    struct save_vcpu vcpu;
    save_vcpu_get(&vcpu, r);
    require(r->error || r->instance || !vcpu.waits_for_sipi);
}

static void take_pages(struct stream_reader *r)
{
    uint8_t *frame = malloc(LARGE_PAGE_BYTES);
    save_pages_get(frame, r, NULL);
    require(r->error || !stream_left(r));
    free(frame);
}

static void take_chunk(struct stream_reader *r)
{
    (void)stream_get_u64(r);
    take_pages(r);
}

static void read_all(const uint8_t *bytes, size_t size)
{
    static const struct {
        const char *tag;
        void (*take)(struct stream_reader *r);
    } known[] = {
        { CPU_SECTION_TAG, take_registers }, { XSAVE_SECTION_TAG, take_vectors },
        { CPUID_SECTION_TAG, take_model },   { MSR_SECTION_TAG, take_msrs },
        { HYPERV_SECTION_TAG, take_hyperv }, { HYPERV_VCPU_SECTION_TAG, take_hyperv_vcpu },
        { SAVE_VM_TAG, take_vm },            { SAVE_CLOCK_TAG, take_clock },
        { SAVE_VCPU_TAG, take_vcpu },        { SAVE_MEMORY_TAG, take_pages },
        { SAVE_CHUNK_TAG, take_chunk },      { SAVE_DISK_TAG, take_disk },
    };
    struct stream_reader r;
    char text[160];
    enum status verdict = stream_verify(bytes, size, text, sizeof(text));
    require((verdict == OK) == (text[0] == 0));
    model = ceiling;
    (void)!stream_reader_init(&r, bytes, size);
    while (stream_next(&r)) {
        unsigned i = 0;
        while (i < ARRAY_COUNT(known) && strcmp(r.tag, known[i].tag))
            i++;
        if (i < ARRAY_COUNT(known))
            known[i].take(&r);
        else
            stream_unknown(&r);
    }
    require((r.error == OK) == (r.error_text[0] == 0));
    require(r.error || (r.at_end && verdict == OK));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!ceiling.count && cpuid_model_build(&ceiling, "host", &fake_intel_host, &fake_abilities, NULL, 0))
        abort();
    uint8_t *copy = malloc(size ? size : 1);
    memcpy(copy, data, size);
    read_all(copy, size);
    fix(copy, size);
    read_all(copy, size);
    free(copy);
    return 0;
}
