/* SPDX-License-Identifier: MIT */
/*
 * The loader's sequence, from the firmware's call to the jump into the hypervisor. loader.h lists the other files.
 *
 * Two kinds of trouble: a file that cannot be read is the hypervisor's to report (its shell comes up and says so), and
 * is only handed over; a machine on which the hypervisor cannot even start (no memory, no NX, 5-level paging) ends
 * here, with a message and a return to the firmware.
 */
#include "boot/loader.h"

void complain(const CHAR16 *object, const CHAR16 *cause, const CHAR16 *cure, EFI_STATUS status)
{
    if (status)
        Print((CHAR16 *)L"Tasuki: %s: %s (%r). %s\n", object, cause, status, cure);
    else
        Print((CHAR16 *)L"Tasuki: %s: %s. %s\n", object, cause, cure);
}

/* Lets the admin read the message before the firmware clears the screen: until a key, a minute at most. */
static EFI_STATUS give_up(EFI_STATUS status)
{
    EFI_INPUT_KEY key;

    Print((CHAR16 *)L"Tasuki was not started. Press a key to go back to the firmware.\n");
    for (int tenth = 0; tenth < 600; tenth++) {
        if (ST->ConIn && ST->ConIn->ReadKeyStroke(ST->ConIn, &key) == EFI_SUCCESS)
            break;
        BS->Stall(100000);
    }
    return status;
}

static inline void out8(uint16_t port, uint8_t value)
{
    __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port));
}

static inline uint8_t in8(uint16_t port)
{
    uint8_t value;

    __asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}

/* As the firmware has set the port up. Where there is none, its registers read as all ones and nothing waits. */
static void serial_put(char c)
{
    const uint16_t com1 = 0x3f8, line_status = com1 + 5;

    for (unsigned spin = 0; spin < 100000 && !(in8(line_status) & 0x20); spin++)
        __asm__ volatile("pause");
    out8(com1, (uint8_t)c);
}

_Noreturn void stranded(EFI_STATUS status)
{
    for (const char *c = "\r\nTasuki: Firmware: it does not let go of the machine (ExitBootServices, status "; *c; c++)
        serial_put(*c);
    for (int shift = 60; shift >= 0; shift -= 4)
        serial_put("0123456789abcdef"[status >> shift & 0xf]);
    for (const char *c = "). Update the firmware. The machine is reset.\r\n"; *c; c++)
        serial_put(*c);
    RT->ResetSystem(EfiResetCold, status, 0, NULL);
    for (;;)
        __asm__ volatile("hlt");
}

/* What the tables of build_tables() rely on. */
static EFI_STATUS check_cpu(void)
{
    uint32_t regs[4];
    uint64_t cr4;

    cpuid(0x80000001, 0, regs);
    if (!(regs[3] & (1u << 20))) {
        complain(L"CPU", L"it has no execute-disable bit, or the firmware hides it",
                 L"Turn on \"Execute Disable\" (also called NX or XD) in the firmware's setup.", 0);
        return EFI_UNSUPPORTED;
    }
    __asm__ volatile("mov %%cr4, %0" : "=r"(cr4));
    if (cr4 & (1u << 12)) {
        complain(L"Firmware", L"it runs with 5-level paging, which the hypervisor does not take over",
                 L"Turn off \"5-level paging\" (LA57) in the firmware's setup.", 0);
        return EFI_UNSUPPORTED;
    }
    return EFI_SUCCESS;
}

static uint64_t read_tsc(void)
{
    uint32_t low, high;

    __asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
    return (uint64_t)high << 32 | low;
}

EFI_STATUS efi_main(EFI_HANDLE image, EFI_SYSTEM_TABLE *system_table)
{
    struct boot_info *info;
    uint64_t entry, stub, cr3;
    EFI_STATUS status;

    InitializeLib(image, system_table);
    BS->SetWatchdogTimer(0, 0, 0, NULL); /* large modules may take longer than the firmware's five minutes */
    Print((CHAR16 *)L"Tasuki\n");

    status = check_cpu();
    if (status)
        return give_up(status);

    info = (struct boot_info *)take_pages(sizeof(*info), BELOW_4G, BOOT_MEM_LOADER);
    stub = take_code_page(BELOW_4G, BOOT_MEM_LOADER);
    if (!info || !stub) {
        complain(L"Memory", L"none is left below 4 GiB", L"Add memory to the machine.", 0);
        return give_up(EFI_OUT_OF_RESOURCES);
    }
    info->magic = BOOT_INFO_MAGIC;
    info->version = BOOT_INFO_VERSION;
    info->bytes = sizeof(*info);

    /* The image before the modules: they may eat up the memory that it needs. */
    status = place_image(info, &entry);
    if (status)
        return give_up(status);
    cr3 = build_tables(info, stub);
    if (!cr3) {
        complain(L"Page tables", L"no memory is left below 4 GiB", L"Add memory to the machine.", 0);
        return give_up(EFI_OUT_OF_RESOURCES);
    }
    info->ap_trampoline = take_pages(2 * PAGE, 0xfffff, BOOT_MEM_RESERVED);
    read_files(image, info);
    read_platform(info);
    status = memory_prepare(info);
    if (!status)
        status = leave_firmware(image, info);
    if (status) {
        complain(L"Firmware", L"its memory map cannot be read",
                 L"Update the firmware; if that does not help, report its version.", status);
        return give_up(status);
    }
    info->tsc_at_exit = read_tsc();

    __builtin_memcpy((void *)stub, handoff_start, (uint64_t)(handoff_end - handoff_start));
    ((handoff_fn)stub)(cr3, entry, HV_DIRECT_BASE + (uint64_t)info);
}
