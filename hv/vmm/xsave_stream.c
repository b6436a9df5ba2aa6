/* SPDX-License-Identifier: MIT */
/*
 * The "XSAVE" section (cpu_state_stream.h): vector state of a vCPU, component by component.
 *
 *   u64 components of the area | u64 XSTATE_BV | u32 count of extended components | for each, ascending:
 *   u32 number, u32 offset, u32 bytes | 512 bytes of legacy region | the extended components' bytes in that order
 *
 * The offsets are where the writer's CPU keeps a component; they are for a person to read, the reader puts it where its
 * own CPU wants it. Standard format, SDM vol. 1, 13.4.
 */
#include <string.h>

#include "kernel/bytes.h"
#include "vmm/cpu_state_stream.h"

#define X87_SSE 3ull
#define XSTATE_BV XSAVE_LEGACY_BYTES /* offset in the area */
#define FCW 0u
#define MXCSR 24u
#define MXCSR_DEFAULT 0x1f80u
#define MXCSR_MASK 28u

static void put_zeros(struct stream_writer *w, uint32_t count)
{
    static const uint8_t zeros[64];
    for (; count; count -= MIN(count, (uint32_t)sizeof(zeros)))
        stream_put_bytes(w, zeros, MIN(count, (uint32_t)sizeof(zeros)));
}

static uint32_t mxcsr_mask(const struct xsave_layout *layout)
{
    return layout->mxcsr_mask ? layout->mxcsr_mask : 0xffbf;
}

void xsave_reset(void *area, const struct xsave_layout *layout)
{
    uint8_t *p = area;
    memset(p, 0, layout->area_bytes);
    le16_put(p + FCW, 0x37f);
    le32_put(p + MXCSR, MXCSR_DEFAULT);
    le32_put(p + MXCSR_MASK, mxcsr_mask(layout));
}

/*
 * The legacy region. MXCSR belongs to SSE and AVX alike, and XRSTOR checks it even where SSE is in its initial state,
 * so it always travels; the rest of an initial component does not.
 */
static void save_legacy(const uint8_t *area, uint64_t in_use, struct stream_writer *w)
{
    uint8_t legacy[XSAVE_LEGACY_BYTES] = { 0 };
    le16_put(legacy + FCW, 0x37f);
    if (in_use & 1) {
        memcpy(legacy, area, 24);
        memcpy(legacy + 32, area + 32, 128);
    }
    memcpy(legacy + MXCSR, area + MXCSR, 8);
    if (in_use & 2)
        memcpy(legacy + 160, area + 160, 256);
    stream_put_bytes(w, legacy, sizeof(legacy));
}

void xsave_save(const void *area, const struct xsave_layout *layout, struct stream_writer *w)
{
    const uint8_t *p = area;
    uint64_t components = layout->components | X87_SSE;
    uint64_t in_use = le64_get(p + XSTATE_BV) & components;
    uint32_t count = 0;
    for (unsigned i = 2; i < XSAVE_COMPONENTS; i++)
        count += components >> i & 1;
    stream_put_u64(w, components);
    stream_put_u64(w, in_use);
    stream_put_u32(w, count);
    for (unsigned i = 2; i < XSAVE_COMPONENTS; i++) {
        if (!(components >> i & 1))
            continue;
        stream_put_u32(w, i);
        stream_put_u32(w, layout->component[i].offset);
        stream_put_u32(w, layout->component[i].bytes);
    }
    save_legacy(p, in_use, w);
    for (unsigned i = 2; i < XSAVE_COMPONENTS; i++) {
        if (!(components >> i & 1))
            continue;
        if (in_use >> i & 1)
            stream_put_bytes(w, p + layout->component[i].offset, layout->component[i].bytes);
        else
            put_zeros(w, layout->component[i].bytes);
    }
}

static void skip(struct stream_reader *r, uint32_t count)
{
    uint8_t bytes[64];
    while (count && !r->error) {
        uint32_t step = MIN(count, (uint32_t)sizeof(bytes));
        stream_get_bytes(r, bytes, step);
        count -= step;
    }
}

void xsave_restore(void *area, const struct xsave_layout *layout, struct stream_reader *r)
{
    uint8_t *p = area;
    uint32_t bytes_of[XSAVE_COMPONENTS] = { 0 };
    uint64_t listed = X87_SSE, here = layout->components | X87_SSE;
    xsave_reset(area, layout);
    if (!r->error && r->version != XSAVE_SECTION_VERSION)
        stream_fail(r, ERR_VERSION, "version %u, this node reads %u: update it", r->version, XSAVE_SECTION_VERSION);
    uint64_t components = stream_get_u64(r), in_use = stream_get_u64(r);
    uint32_t count = stream_get_u32(r);
    if (!r->error && count > XSAVE_COMPONENTS)
        stream_fail(r, ERR_CORRUPT, "%u components", count);
    for (uint32_t i = 0; i < count && !r->error; i++) {
        uint32_t number = stream_get_u32(r);
        (void)stream_get_u32(r);
        uint32_t bytes = stream_get_u32(r);
        if (r->error)
            break;
        if (number < 2 || number >= XSAVE_COMPONENTS || listed >> number) {
            stream_fail(r, ERR_CORRUPT, "component %u is out of place", number);
            break;
        }
        listed |= BIT(number);
        bytes_of[number] = bytes;
        if ((in_use >> number & 1) && !(here >> number & 1))
            stream_fail(r, ERR_UNSUPPORTED, "component %u is in use and this VM's CPU has none", number);
        else if ((in_use >> number & 1) && bytes != layout->component[number].bytes)
            stream_fail(r, ERR_CORRUPT, "component %u has %u bytes, not %u", number, bytes,
                        layout->component[number].bytes);
    }
    if (!r->error && (components != listed || (in_use & ~components)))
        stream_fail(r, ERR_CORRUPT, "XSTATE_BV is 0x%llx of components 0x%llx", (unsigned long long)in_use,
                    (unsigned long long)components);

    stream_get_bytes(r, p, XSAVE_LEGACY_BYTES);
    if (!r->error && (le32_get(p + MXCSR) & ~mxcsr_mask(layout)))
        stream_fail(r, ERR_CORRUPT, "MXCSR is 0x%x", le32_get(p + MXCSR));
    le32_put(p + MXCSR_MASK, mxcsr_mask(layout));
    memset(p + 416, 0, XSAVE_LEGACY_BYTES - 416); /* not the CPU's (SDM vol. 1, 13.4.1) */
    le64_put(p + XSTATE_BV, in_use);
    for (unsigned i = 2; i < XSAVE_COMPONENTS && !r->error; i++) {
        if (!(listed >> i & 1))
            continue;
        if (in_use >> i & 1)
            stream_get_bytes(r, p + layout->component[i].offset, bytes_of[i]);
        else
            skip(r, bytes_of[i]);
    }
    if (!r->error && stream_left(r))
        stream_fail(r, ERR_CORRUPT, "it is longer than its components");
    if (r->error)
        xsave_reset(area, layout);
}
