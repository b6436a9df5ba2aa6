/* SPDX-License-Identifier: MIT */
/*
 * What the firmware and the CPU tell about the machine, put into boot_info: tables, screen, clock, randomness. Each of
 * these may be missing, and then its field keeps the value that boot_info.h gives for "none".
 */
#include "boot/loader.h"

static EFI_GUID acpi_20_guid = { 0x8868e871, 0xe4f1, 0x11d3, { 0xbc, 0x22, 0x00, 0x80, 0xc7, 0x3c, 0x88, 0x81 } };
static EFI_GUID mp_services_guid = { 0x3fdda605, 0xa76e, 0x4f46, { 0xad, 0x29, 0x12, 0xf4, 0x53, 0x1b, 0x3d, 0x08 } };
static EFI_GUID acpi_10_guid = { 0xeb9d2d30, 0x2d88, 0x11d3, { 0x9a, 0x16, 0x00, 0x90, 0x27, 0x3f, 0xc1, 0x4d } };
static EFI_GUID smbios_3_guid = { 0xf2fd1544, 0x9794, 0x4a2c, { 0x99, 0x2e, 0xe5, 0xbb, 0xcf, 0x20, 0xe3, 0x94 } };
static EFI_GUID smbios_guid = { 0xeb9d2d31, 0x2d88, 0x11d3, { 0x9a, 0x16, 0x00, 0x90, 0x27, 0x3f, 0xc1, 0x4d } };
static EFI_GUID rng_guid = { 0x3152bca5, 0xeade, 0x433d, { 0x86, 0x2e, 0xc0, 0x1c, 0xdc, 0x29, 0x1f, 0x44 } };
static EFI_GUID global_variable_guid = { 0x8be4df61, 0x93ca, 0x11d2,
                                         { 0xaa, 0x0d, 0x00, 0xe0, 0x98, 0x03, 0x2b, 0x8c } };
static EFI_GUID graphics_guid = EFI_GRAPHICS_OUTPUT_PROTOCOL_GUID;

/* EFI_RNG_PROTOCOL (UEFI 2.10, 37.5) as far as it is used here. */
struct rng_protocol {
    void *get_info;
    EFI_STATUS (EFIAPI *get_rng)(struct rng_protocol *this, EFI_GUID *algorithm, UINTN bytes, uint8_t *value);
};

static uint64_t configuration_table(const EFI_GUID *guid)
{
    for (UINTN i = 0; i < ST->NumberOfTableEntries; i++)
        if (!CompareMem(&ST->ConfigurationTable[i].VendorGuid, (void *)guid, sizeof(*guid)))
            return (uint64_t)ST->ConfigurationTable[i].VendorTable;
    return 0;
}

/* The screen: the one that the firmware's console is on, else any. Only the two 32-bit formats that need no masks. */
static void read_framebuffer(struct boot_framebuffer *fb)
{
    EFI_GRAPHICS_OUTPUT_PROTOCOL *gop = NULL;
    EFI_GRAPHICS_OUTPUT_MODE_INFORMATION *mode;

    if ((!ST->ConsoleOutHandle || BS->HandleProtocol(ST->ConsoleOutHandle, &graphics_guid, (void **)&gop)) &&
        BS->LocateProtocol(&graphics_guid, NULL, (void **)&gop))
        return;
    if (!gop || !gop->Mode || !gop->Mode->Info || !gop->Mode->FrameBufferBase)
        return;
    mode = gop->Mode->Info;
    if (mode->PixelFormat != PixelRedGreenBlueReserved8BitPerColor &&
        mode->PixelFormat != PixelBlueGreenRedReserved8BitPerColor)
        return;
    if (mode->PixelsPerScanLine < mode->HorizontalResolution ||
        gop->Mode->FrameBufferSize < 4ull * mode->PixelsPerScanLine * mode->VerticalResolution)
        return;
    fb->base = gop->Mode->FrameBufferBase;
    fb->bytes = gop->Mode->FrameBufferSize;
    fb->width = mode->HorizontalResolution;
    fb->height = mode->VerticalResolution;
    fb->stride = mode->PixelsPerScanLine;
    fb->format = mode->PixelFormat == PixelBlueGreenRedReserved8BitPerColor;
}

/* Days from 1970-01-01 to a date of the Gregorian calendar, by years that begin in March so that leap days come last. */
static uint64_t days_since_1970(unsigned year, unsigned month, unsigned day)
{
    unsigned y = month > 2 ? year : year - 1;
    unsigned m = month > 2 ? month - 3 : month + 9;

    return 365ull * y + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day - 1 - 719468;
}

static uint64_t read_time(void)
{
    EFI_TIME t;
    uint64_t seconds;

    if (RT->GetTime(&t, NULL) || t.Year < 1970 || t.Year > 9999 || t.Month < 1 || t.Month > 12 || t.Day < 1 ||
        t.Day > 31 || t.Hour > 23 || t.Minute > 59 || t.Second > 59)
        return 0;
    seconds = days_since_1970(t.Year, t.Month, t.Day) * 86400 + t.Hour * 3600u + t.Minute * 60u + t.Second;
    /* Local time = UTC - TimeZone minutes; the clock of a machine that names no zone is taken to be UTC. */
    if (t.TimeZone != EFI_UNSPECIFIED_TIMEZONE && t.TimeZone >= -1440 && t.TimeZone <= 1440)
        seconds += (uint64_t)(t.TimeZone * 60ll);
    return seconds;
}

/* One 64-bit number from RDSEED or RDRAND. They may fail for a moment when many ask (SDM vol. 1, 7.3.17): try again. */
static int cpu_random(int use_rdseed, uint64_t *value)
{
    for (int attempt = 0; attempt < 100; attempt++) {
        uint8_t carry;
        if (use_rdseed)
            __asm__ volatile("rdseed %0; setc %1" : "=r"(*value), "=qm"(carry) : : "cc");
        else
            __asm__ volatile("rdrand %0; setc %1" : "=r"(*value), "=qm"(carry) : : "cc");
        if (carry)
            return 1;
        __asm__ volatile("pause");
    }
    return 0;
}

static int fill_from_cpu(uint8_t *seed, UINTN bytes, int use_rdseed)
{
    for (UINTN at = 0; at < bytes; at += 8) {
        uint64_t value;
        if (!cpu_random(use_rdseed, &value))
            return 0;
        CopyMem(seed + at, &value, 8);
    }
    return 1;
}

static uint32_t read_seed(uint8_t *seed, UINTN bytes)
{
    struct rng_protocol *rng;
    uint32_t regs[4], max_leaf;

    if (!BS->LocateProtocol(&rng_guid, NULL, (void **)&rng) && !rng->get_rng(rng, NULL, bytes, seed))
        return 1;
    cpuid(0, 0, regs);
    max_leaf = regs[0];
    if (max_leaf >= 7) {
        cpuid(7, 0, regs);
        if ((regs[1] >> 18 & 1) && fill_from_cpu(seed, bytes, 1))
            return 2;
    }
    cpuid(1, 0, regs);
    if ((regs[2] >> 30 & 1) && fill_from_cpu(seed, bytes, 0))
        return 3;
    ZeroMem(seed, bytes);
    return 0;
}

static uint32_t read_secure_boot(void)
{
    uint8_t on = 0;
    UINTN bytes = sizeof(on);

    if (RT->GetVariable((CHAR16 *)L"SecureBoot", &global_variable_guid, NULL, &bytes, &on))
        return 0;
    return on == 1;
}

/* UEFI Platform Initialization specification 1.7, volume 2, 13.4; of its information only the first two fields. */
struct processor_information {
    uint64_t id; /* the local APIC's */
    uint32_t status;
    uint32_t rest[29];
};
#define PROCESSOR_ENABLED 2u

struct mp_services {
    EFI_STATUS (EFIAPI *get_number)(struct mp_services *mp, UINTN *all, UINTN *enabled);
    EFI_STATUS (EFIAPI *get_information)(struct mp_services *mp, UINTN number, struct processor_information *information);
};

static void read_cpus(struct boot_info *info)
{
    struct mp_services *mp;
    UINTN all, enabled;

    if (BS->LocateProtocol(&mp_services_guid, NULL, (void **)&mp) || mp->get_number(mp, &all, &enabled))
        return;
    for (UINTN i = 0; i < all && info->cpu_count < BOOT_CPUS; i++) {
        struct processor_information one;
        if (!mp->get_information(mp, i, &one) && (one.status & PROCESSOR_ENABLED))
            info->cpu_apic_id[info->cpu_count++] = (uint32_t)one.id;
    }
}

void read_platform(struct boot_info *info)
{
    info->rsdp = configuration_table(&acpi_20_guid);
    if (!info->rsdp)
        info->rsdp = configuration_table(&acpi_10_guid);
    info->smbios = configuration_table(&smbios_3_guid);
    if (!info->smbios)
        info->smbios = configuration_table(&smbios_guid);
    info->efi_runtime = (uint64_t)RT;
    read_framebuffer(&info->framebuffer);
    info->random_source = read_seed(info->random_seed, sizeof(info->random_seed));
    info->secure_boot = read_secure_boot();
    info->unix_time_s = read_time();
    read_cpus(info);
}
