/* SPDX-License-Identifier: MIT */
/*
 * Starts a Linux kernel by its EFI stub with a command line, for the peer of `make bench`: firmware starts BOOTX64.EFI from
 * a disk but gives it no arguments. Without no_timer_check Linux panics now and then where the machine is emulated and
 * the computer is busy. Loads \vmlinuz.efi from the volume that it came from itself.
 */
#include <efi.h>
#include <efilib.h>

static CHAR16 command_line[] = L"initrd=\\initrd.img console=ttyS0 quiet no_timer_check";

EFI_STATUS efi_main(EFI_HANDLE image, EFI_SYSTEM_TABLE *table)
{
    EFI_LOADED_IMAGE *self, *kernel;
    EFI_HANDLE handle;

    InitializeLib(image, table);
    EFI_STATUS status = uefi_call_wrapper(BS->HandleProtocol, 3, image, &LoadedImageProtocol, (void **)&self);
    if (EFI_ERROR(status))
        return status;
    EFI_DEVICE_PATH *path = FileDevicePath(self->DeviceHandle, L"\\vmlinuz.efi");
    status = uefi_call_wrapper(BS->LoadImage, 6, FALSE, image, path, NULL, 0, &handle);
    if (EFI_ERROR(status))
        return status;
    status = uefi_call_wrapper(BS->HandleProtocol, 3, handle, &LoadedImageProtocol, (void **)&kernel);
    if (EFI_ERROR(status))
        return status;
    kernel->LoadOptions = command_line;
    kernel->LoadOptionsSize = sizeof command_line;
    return uefi_call_wrapper(BS->StartImage, 3, handle, NULL, NULL);
}
