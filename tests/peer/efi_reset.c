/* SPDX-License-Identifier: MIT */
/*
 * Resets the machine by one means, without a hypervisor: tells whether an emulator and its firmware come back from it.
 * Says "reset: NAME" on COM1, resets, and says "reset: NAME did nothing" if it is still there a second later. A machine that
 * comes back starts this program again from its disk. reset.py defines MEANS, as one of the numbers below, and PIIX4_OFF:
 * whether the power management ports of an Intel PIIX4 are switched off first.
 */
#include <efi.h>
#include <efilib.h>

#define RESET_COLD 1     /* ResetSystem of the firmware */
#define RESET_WARM 2
#define RESET_CF9_CPU 3  /* the chipset's reset control register: CPU only */
#define RESET_CF9_FULL 4 /* with a power cycle, where there is one */
#define RESET_KEYBOARD 5 /* the keyboard controller's pulse of its output port */
#define RESET_PORT_92 6
#define RESET_TRIPLE 7   /* a triple fault */
#define RESET_OFF 8      /* switches off */

static const char *const names[] = { "", "cold", "warm", "cf9-cpu", "cf9-full", "keyboard", "port-92", "triple", "off" };

static void out8(UINT16 port, UINT8 value)
{
    __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port));
}

static UINT8 in8(UINT16 port)
{
    UINT8 value;

    __asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}

static void say(const char *text)
{
    for (; *text; text++) {
        while (!(in8(0x3fd) & 0x20))
            ;
        out8(0x3f8, (UINT8)*text);
    }
}

static void out32(UINT16 port, UINT32 value)
{
    __asm__ volatile("outl %0, %1" : : "a"(value), "Nd"(port));
}

static UINT32 in32(UINT16 port)
{
    UINT32 value;

    __asm__ volatile("inl %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}

/* PMREGMISC of function 3; the device is the second on the bus wherever there is a PIIX4 in an emulator. */
static void piix4_off(void)
{
    const UINT32 address = 0x80000000u | 1 << 11 | 3 << 8;

    out32(0xcf8, address);
    if (in32(0xcfc) != 0x71138086)
        return;
    out32(0xcf8, address | 0x80);
    out32(0xcfc, in32(0xcfc) & ~1u);
}

static void reset(void)
{
    struct {
        UINT16 limit;
        UINT64 base;
    } __attribute__((packed)) no_idt = { 0, 0 };

    switch (MEANS) {
    case RESET_COLD:
        uefi_call_wrapper(RT->ResetSystem, 4, EfiResetCold, EFI_SUCCESS, 0, NULL);
        break;
    case RESET_WARM:
        uefi_call_wrapper(RT->ResetSystem, 4, EfiResetWarm, EFI_SUCCESS, 0, NULL);
        break;
    case RESET_CF9_CPU:
        out8(0xcf9, 0x00);
        out8(0xcf9, 0x04);
        break;
    case RESET_CF9_FULL:
        out8(0xcf9, 0x02);
        out8(0xcf9, 0x06);
        break;
    case RESET_KEYBOARD:
        while (in8(0x64) & 2)
            ;
        out8(0x64, 0xfe);
        break;
    case RESET_PORT_92:
        out8(0x92, (UINT8)(in8(0x92) & 0xfe));
        out8(0x92, (UINT8)(in8(0x92) | 1));
        break;
    case RESET_TRIPLE:
        __asm__ volatile("cli; lidt %0; ud2" : : "m"(no_idt));
        break;
    case RESET_OFF:
        uefi_call_wrapper(RT->ResetSystem, 4, EfiResetShutdown, EFI_SUCCESS, 0, NULL);
        break;
    }
}

EFI_STATUS efi_main(EFI_HANDLE image, EFI_SYSTEM_TABLE *table)
{
    InitializeLib(image, table);
    say("reset: ");
    say(names[MEANS]);
    say("\r\n");
    if (PIIX4_OFF)
        piix4_off();
    reset();
    uefi_call_wrapper(BS->Stall, 1, 1000000);
    say("reset: ");
    say(names[MEANS]);
    say(" did nothing\r\n");
    for (;;)
        uefi_call_wrapper(BS->Stall, 1, 1000000);
}
