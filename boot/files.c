/* SPDX-License-Identifier: MIT */
/*
 * The configuration and the modules, read from the volume that the loader came from.
 *
 * The loader runs the hypervisor's own parser over the text, only to learn the paths; what the text means, and what is
 * wrong with it, is for the hypervisor to say. Each path is read once, however many VMs name it. A file that cannot be
 * read is handed over with the firmware's status, and the boot goes on.
 */
#include "boot/loader.h"

#include "vm/config.h"

#define CHUNK (4u << 20) /* one read; firmware of some machines fails on larger ones */
#define MAX_MODULES (CONFIG_MAX_VMS * (2 + CONFIG_MAX_DISKS))
#define MAX_PATH 1024 /* characters, the last one 0 */
#define TOLD_PATH 40   /* characters that a message shows of a path that is too long */

static EFI_GUID simple_file_system_guid = EFI_SIMPLE_FILE_SYSTEM_PROTOCOL_GUID;
static EFI_GUID file_info_guid = EFI_FILE_INFO_ID;
static EFI_GUID loaded_image_guid = EFI_LOADED_IMAGE_PROTOCOL_GUID;

static EFI_STATUS open_volume(EFI_HANDLE image, EFI_FILE_PROTOCOL **root)
{
    EFI_LOADED_IMAGE_PROTOCOL *loaded;
    EFI_SIMPLE_FILE_SYSTEM_PROTOCOL *volume;
    EFI_STATUS status = BS->HandleProtocol(image, &loaded_image_guid, (void **)&loaded);

    if (!status)
        status = BS->HandleProtocol(loaded->DeviceHandle, &simple_file_system_guid, (void **)&volume);
    return status ? status : volume->OpenVolume(volume, root);
}

/*
 * UTF-8, known to be well-formed, to the UCS-2 that UEFI's file systems speak, with '/' taken as '\'. NULL, or what
 * keeps the path from being opened; `wide` is then a name for the message: the path's beginning, with ? for characters
 * that UCS-2 lacks.
 */
static const CHAR16 *wide_path(const char *path, CHAR16 wide[MAX_PATH])
{
    const uint8_t *at = (const uint8_t *)path;
    const CHAR16 *problem = NULL;
    unsigned count = 0;

    while (*at) {
        uint32_t c = *at++;
        if (count == MAX_PATH - 1) {
            wide[TOLD_PATH] = 0;
            return L"the path is too long: 1023 characters at most";
        }
        if (c >= 0xf0) {
            problem = L"the path has a character that UEFI's file systems do not have";
            c = '?';
            at += 3;
        } else if (c >= 0xe0) {
            c = (c & 0x0f) << 12 | (at[0] & 0x3fu) << 6 | (at[1] & 0x3fu);
            at += 2;
        } else if (c >= 0xc0) {
            c = (c & 0x1f) << 6 | (at[0] & 0x3fu);
            at += 1;
        }
        wide[count++] = (CHAR16)(c == '/' ? '\\' : c);
    }
    wide[count] = 0;
    return problem;
}

static EFI_STATUS file_size(EFI_FILE_PROTOCOL *file, uint64_t *bytes)
{
    UINTN room = SIZE_OF_EFI_FILE_INFO + MAX_PATH * sizeof(CHAR16);
    EFI_FILE_INFO *file_info;
    EFI_STATUS status = BS->AllocatePool(EfiLoaderData, room, (void **)&file_info);

    if (status)
        return status;
    status = file->GetInfo(file, &file_info_guid, &room, file_info);
    if (!status && (file_info->Attribute & EFI_FILE_DIRECTORY))
        status = EFI_INVALID_PARAMETER;
    if (!status)
        *bytes = file_info->FileSize;
    BS->FreePool(file_info);
    return status;
}

/*
 * Reads a whole file into pages of the given type, with at least `spare` zero bytes behind it. On failure nothing is
 * taken and *base and *bytes are 0.
 */
static EFI_STATUS read_file(EFI_FILE_PROTOCOL *root, CHAR16 *path, uint32_t type, uint64_t spare, uint64_t max_bytes,
                            uint64_t *base, uint64_t *bytes)
{
    EFI_FILE_PROTOCOL *file;
    uint64_t size = 0, at = 0, pages = 0;
    EFI_STATUS status = root->Open(root, &file, path, EFI_FILE_MODE_READ, 0);

    *base = *bytes = 0;
    if (status)
        return status;
    status = file_size(file, &size);
    if (!status && size > max_bytes)
        status = EFI_BAD_BUFFER_SIZE;
    if (!status) {
        pages = take_pages(size + spare, ANYWHERE, type);
        if (!pages)
            status = EFI_OUT_OF_RESOURCES;
    }
    while (!status && at < size) {
        UINTN count = size - at < CHUNK ? size - at : CHUNK;
        status = file->Read(file, &count, (void *)(pages + at));
        if (!status && !count)
            status = EFI_END_OF_FILE;
        at += count;
    }
    file->Close(file);
    if (status) {
        if (pages)
            give_pages(pages);
        return status;
    }
    *base = pages;
    *bytes = size;
    return EFI_SUCCESS;
}

/* Reads the file of one path, unless it was read before. `wide` is room for the converted path. */
static void read_module(struct boot_info *info, EFI_FILE_PROTOCOL *root, const char *path, CHAR16 *wide)
{
    struct boot_module *modules = (struct boot_module *)info->modules, *m;

    if (!path)
        return;
    for (uint64_t i = 0; i < info->module_count; i++)
        if (!strcmpa((const CHAR8 *)modules[i].path, (const CHAR8 *)path))
            return;
    m = &modules[info->module_count++];
    m->path = (uint64_t)path;
    m->efi_status = EFI_INVALID_PARAMETER;
    const CHAR16 *problem = wide_path(path, wide);
    if (!problem) {
        Print((CHAR16 *)L"Tasuki: reading %s\n", wide);
        m->efi_status = read_file(root, wide, BOOT_MEM_MODULE, 0, ~0ull >> 1, &m->base, &m->bytes);
    }
    if (m->efi_status)
        complain(wide, problem ? problem : L"the file cannot be read",
                 L"Check its path in \\tasuki\\tasuki.conf. The boot goes on.", problem ? 0 : m->efi_status);
}

/* Reads what the configuration names. Its strings are kept for the hypervisor: they are the modules' paths. */
static void read_modules(struct boot_info *info, EFI_FILE_PROTOCOL *root)
{
    uint64_t strings = take_pages(info->config_bytes + 1, BELOW_4G, BOOT_MEM_LOADER);
    struct config *config = NULL;
    CHAR16 *wide = NULL;

    info->modules = take_pages(MAX_MODULES * sizeof(struct boot_module), BELOW_4G, BOOT_MEM_LOADER);
    BS->AllocatePool(EfiLoaderData, sizeof(*config), (void **)&config);
    BS->AllocatePool(EfiLoaderData, MAX_PATH * sizeof(CHAR16), (void **)&wide);
    if (!strings || !info->modules || !config || !wide) {
        complain(L"Memory", L"none is left for the list of modules", L"Add memory. The boot goes on without VMs.", 0);
        return;
    }
    config_parse(config, (const char *)info->config, info->config_bytes, (char *)strings);
    for (uint32_t v = 0; v < config->vm_count; v++) {
        const struct config_vm *vm = &config->vms[v];
        if (!vm->kernel || !config_disk_on_volume(vm->kernel))
            read_module(info, root, vm->kernel, wide);
        if (!vm->initrd || !config_disk_on_volume(vm->initrd))
            read_module(info, root, vm->initrd, wide);
        for (uint32_t d = 0; d < vm->disk_count; d++)
            if (!config_disk_storage(vm->disks[d]) && !config_disk_on_volume(vm->disks[d]))
                read_module(info, root, vm->disks[d], wide);
    }
    BS->FreePool(wide);
    BS->FreePool(config);
}

void read_files(EFI_HANDLE image, struct boot_info *info)
{
    EFI_FILE_PROTOCOL *root;

    info->config_status = open_volume(image, &root);
    if (info->config_status) {
        complain(L"Boot volume", L"it cannot be opened", L"The boot goes on without a configuration.",
                 info->config_status);
        return;
    }
    info->config_status = read_file(root, (CHAR16 *)L"\\tasuki\\tasuki.conf", BOOT_MEM_LOADER, 1, CONFIG_MAX_BYTES,
                                    &info->config, &info->config_bytes);
    if (info->config_status)
        complain(L"\\tasuki\\tasuki.conf", L"the file cannot be read",
                 L"Put it on the boot volume. The boot goes on without it.", info->config_status);
    else
        read_modules(info, root);
    root->Close(root);
}
