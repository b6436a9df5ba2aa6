/* SPDX-License-Identifier: MIT */
/*
 * Four-level paging in 64-bit mode here; paging.S does 32-bit and PAE paging from protected mode. In each: pages of
 * every size, accessed and dirty bits, device memory through it (so that the hypervisor walks these tables as well),
 * page faults.
 */
#include "guest.h"

#define IOAPIC 0xfec00000ull
#define WINDOW (1ull << 39)
#define P 1ull
#define W 2ull
#define U 4ull
#define A BIT(5)
#define D BIT(6)
#define PS BIT(7)

extern volatile uint64_t guest_pml4[512];
static volatile uint64_t pdpt[512] __attribute__((aligned(4096))), pd[512] __attribute__((aligned(4096))),
    pt[512] __attribute__((aligned(4096)));
static uint8_t page[4096] __attribute__((aligned(4096)));

/* What paging32 and paging_pae leave behind (paging.S). */
struct results {
    uint32_t ram, device, large, large_device, fault_error, fault_address, pte, pde, device_pte, written;
};
extern void paging_run(uint32_t mode, struct results *results);

static void flush(void)
{
    write_cr3(read_cr3());
}

static void tables(void)
{
    for (unsigned i = 0; i < 512; i++)
        pdpt[i] = pd[i] = pt[i] = 0;
    guest_pml4[1] = (uint64_t)pdpt | P | W | U;
    pdpt[0] = (uint64_t)pd | P | W | U;
    pd[0] = (uint64_t)pt | P | W | U;
    flush();
}

struct invpcid { uint64_t type, pcid, address; };

static void invpcid(void *argument)
{
    struct invpcid *what = argument;
    __asm__ volatile("invpcid (%0), %1" : : "r"(&what->pcid), "r"(what->type) : "memory");
}

/* -1, or the exception. */
static uint64_t try_invpcid(uint64_t type, uint64_t pcid, uint64_t address)
{
    struct invpcid what = { type, pcid, address };
    return (uint64_t)(int64_t)guest_try(invpcid, &what).vector;
}

/* `one` is what at[0] and the global at[0x800] show; each kind of INVPCID in turn brings the other page. */
static void invalidations(volatile uint32_t *at, const uint8_t *one, const uint8_t *other, unsigned pcid)
{
    const uint64_t none = (uint64_t)-1;
    if (!(cpuid(7, 0).ebx & BIT(10))) {
        guest_equal("without INVPCID in CPUID it is #UD", 6, try_invpcid(2, 0, 0));
        return;
    }
    pt[2] = (uint64_t)one | P | W | BIT(8);
    write_cr4(read_cr4() | BIT(7));
    for (unsigned type = 0; type < 4; type++) {
        const uint8_t *now = type & 1 ? one : other;
        uint32_t before = at[0x800];
        pt[0] = (uint64_t)now | P | W;
        guest_equal("INVPCID", none, try_invpcid(type, type < 2 ? pcid : 0, WINDOW));
        guest_equal("brings the new translation", *(const uint32_t *)now, at[0]);
        guest_equal("and a global page is as it was", before, at[0x800]);
        if (type != 2)
            continue;
        pt[2] = (uint64_t)other | P | W | BIT(8);
        guest_equal("INVPCID of all contexts", none, try_invpcid(2, 0, 0));
        guest_equal("flushes global pages too", *(const uint32_t *)other, at[0x800]);
    }
    write_cr4(read_cr4() & ~BIT(7));
    guest_equal("INVPCID: a type that does not exist is #GP", 13, try_invpcid(4, 0, 0));
    guest_equal("INVPCID: a PCID of more than 12 bits is #GP", 13, try_invpcid(1, 0x1000, 0));
    guest_equal("INVPCID: an address that is not canonical is #GP", 13, try_invpcid(0, 0, BIT(62)));
}

static void four_level(void)
{
    volatile uint32_t *at = (volatile uint32_t *)WINDOW;
    tables();
    pt[0] = (uint64_t)page | P | W;
    *(uint32_t *)page = 0x1234;
    guest_equal("4 KiB: read", 0x1234, at[0]);
    guest_equal("4 KiB: accessed after a read", A, pt[0] & (A | D));
    guest_equal("4 KiB: accessed in every level", A, guest_pml4[1] & pdpt[0] & pd[0] & A);
    at[0] = 0x5678;
    guest_equal("4 KiB: dirty after a write", A | D, pt[0] & (A | D));
    guest_equal("4 KiB: written", 0x5678, *(volatile uint32_t *)page);

    pt[1] = IOAPIC | P | W;
    mmio_write32(IOAPIC, 7);
    guest_equal("4 KiB: read of device memory", 7, at[0x400]);
    guest_equal("4 KiB: accessed after it", A, pt[1] & (A | D));
    at[0x400] = 9;
    guest_equal("4 KiB: device memory is written", 9, mmio_read32(IOAPIC));
    guest_equal("4 KiB: dirty after it", A | D, pt[1] & (A | D));

    pd[1] = ((uint64_t)page & ~0x1fffffull) | P | W | PS;
    volatile uint32_t *large = (volatile uint32_t *)(WINDOW + 0x200000 + ((uint64_t)page & 0x1fffff));
    guest_equal("2 MiB: read", 0x5678, *large);
    guest_equal("2 MiB: accessed", A, pd[1] & (A | D));
    *large = 0x9abc;
    guest_equal("2 MiB: dirty", A | D, pd[1] & (A | D));
    pd[2] = (IOAPIC & ~0x1fffffull) | P | W | PS;
    guest_equal("2 MiB: read of device memory", 9, *(volatile uint32_t *)(WINDOW + 0x400000 + (IOAPIC & 0x1fffff)));

    if (cpuid(0x80000001, 0).edx & BIT(26)) {
        pdpt[1] = 0 | P | W | PS;
        guest_equal("1 GiB: read", 0x9abc, *(volatile uint32_t *)(WINDOW + 0x40000000 + (uint64_t)page));
        guest_equal("1 GiB: accessed", A, pdpt[1] & (A | D));
        pdpt[2] = 0xc0000000 | P | W | PS;
        *(volatile uint32_t *)(WINDOW + 0x80000000 + (IOAPIC & 0x3fffffff)) = 5;
        guest_equal("1 GiB: write of device memory", 5, mmio_read32(IOAPIC));
        guest_equal("1 GiB: dirty after it", A | D, pdpt[2] & (A | D));
    } else {
        guest_note("no 1 GiB pages");
    }
    /* A translation that is changed and flushed is gone, by INVLPG and by CR3. */
    static uint8_t other[4096] __attribute__((aligned(4096)));
    *(uint32_t *)other = 0xfeed;
    pt[0] = (uint64_t)other | P | W;
    __asm__ volatile("invlpg (%0)" : : "r"(WINDOW) : "memory");
    guest_equal("INVLPG brings the new translation", 0xfeed, at[0]);
    pt[0] = (uint64_t)page | P | W;
    flush();
    guest_equal("MOV to CR3 brings the new translation", 0x9abc, at[0]);
    /* Global pages outlive CR3 but not CR4.PGE. */
    write_cr4(read_cr4() | BIT(7));
    pt[2] = (uint64_t)page | P | W | BIT(8);
    guest_equal("a global page", 0x9abc, at[0x800]);
    pt[2] = (uint64_t)other | P | W | BIT(8);
    write_cr4(read_cr4() & ~BIT(7));
    guest_equal("switching CR4.PGE off flushes it", 0xfeed, at[0x800]);
    if (cpuid(1, 0).ecx & BIT(17)) {
        write_cr4(read_cr4() | BIT(17));
        write_cr3((read_cr3() & ~0xfffull) | 5);
        guest_equal("PCID is kept in CR3", 5, read_cr3() & 0xfff);
        guest_equal("memory under a PCID", 0x9abc, at[0]);
        invalidations(at, page, other, 5);
        write_cr3(read_cr3() & ~0xfffull);
        write_cr4(read_cr4() & ~BIT(17));
    } else {
        guest_note("no PCID");
        invalidations(at, page, other, 0);
    }
    guest_pml4[1] = 0;
    flush();
}

static void legacy(uint32_t mode, const char *name)
{
    static struct results r;
    memset(&r, 0, sizeof(r));
    mmio_write32(IOAPIC, 3);
    paging_run(mode, &r);
    guest_note("%s", name);
    guest_equal("4 KiB page: read", 0x11223344, r.ram);
    guest_equal("4 KiB page: write", 0x55667788, r.written);
    guest_equal("4 KiB page: accessed and dirty", A | D, r.pte & (A | D));
    guest_equal("directory entry: accessed", A, r.pde & A);
    guest_equal("device memory: read", 3, r.device);
    guest_equal("device memory: accessed and dirty", A | D, r.device_pte & (A | D));
    guest_equal("device memory: write", 0x2c, mmio_read32(IOAPIC));
    guest_equal("large page: read", 0x55667788, r.large);
    guest_equal("device memory through a large page", 0x2c, r.large_device);
    guest_equal("page fault: error code", 2, r.fault_error);
    guest_equal("page fault: address", 0x80003004, r.fault_address);
}

void guest_main(void)
{
    four_level();
    legacy(0, "32-bit paging");
    legacy(1, "PAE paging");
}
