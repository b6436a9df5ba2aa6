/* SPDX-License-Identifier: MIT */
/* The [vm NAME] section: what each key takes. See config_vm.h; config.c reads the lines. */
#include "vm/config_vm.h"

#include <string.h>

#include "kernel/text.h"
#include "vm/config_network.h"

bool config_uuid_ok(const char *text)
{
    for (unsigned i = 0; i < CONFIG_UUID_CHARACTERS; i++) {
        bool dash = i == 8 || i == 13 || i == 18 || i == 23;
        if (dash ? text[i] != '-' : !((text[i] >= '0' && text[i] <= '9') || (text[i] >= 'a' && text[i] <= 'f')))
            return false;
    }
    return !text[CONFIG_UUID_CHARACTERS];
}

/* ---- Values: a setter stores the value or says what would be right ---- */

static bool set_memory(struct config_vm *vm, const char *value, struct message *reason)
{
    uint64_t bytes;
    enum status status = text_to_bytes(value, &bytes);

    if (status == OK && bytes >= CONFIG_MIN_MEMORY && bytes <= CONFIG_MAX_MEMORY && bytes % PAGE_BYTES == 0) {
        vm->memory_bytes = bytes;
        return true;
    }
    add_quoted(reason, value, strlen(value));
    if (status == ERR_INVALID)
        add(reason, " is not a size: write a whole number and K, M or G, such as 512M");
    else if (status != OK || bytes < CONFIG_MIN_MEMORY || bytes > CONFIG_MAX_MEMORY)
        add(reason, " is out of range: a VM has 1M to 65536G; the unit is K, M or G, and bytes without one");
    else
        add(reason, " is not made of whole pages: write a multiple of 4K");
    return false;
}

static bool set_vcpus(struct config_vm *vm, const char *value, struct message *reason)
{
    uint64_t count;

    if (text_to_u64(value, &count) != OK || count < 1 || count > CONFIG_MAX_VCPUS) {
        add_quoted(reason, value, strlen(value));
        add(reason, " is not a number of vCPUs: write 1 to ");
        add_number(reason, CONFIG_MAX_VCPUS);
        return false;
    }
    vm->vcpus = (uint32_t)count;
    return true;
}

static bool set_path(const char **path, const char *value, struct message *reason)
{
    if (!*value) {
        add(reason, "the path is empty: write one, such as \\tasuki\\images\\vmlinuz on the boot volume, or delete "
                    "the line");
        return false;
    }
    *path = value;
    return true;
}

static bool set_kernel(struct config_vm *vm, const char *value, struct message *reason)
{
    return set_path(&vm->kernel, value, reason);
}

static bool set_initrd(struct config_vm *vm, const char *value, struct message *reason)
{
    return set_path(&vm->initrd, value, reason);
}

static bool set_cmdline(struct config_vm *vm, const char *value, struct message *reason)
{
    if (strlen(value) > CONFIG_MAX_CMDLINE_BYTES) {
        add(reason, "the command line is too long: kernels take at most ");
        add_number(reason, CONFIG_MAX_CMDLINE_BYTES);
        add(reason, " bytes");
        return false;
    }
    vm->cmdline = value;
    return true;
}

static bool set_disk(struct config_vm *vm, const char *value, struct message *reason)
{
    if (!set_path(&vm->disks[vm->disk_count], value, reason))
        return false;
    vm->disk_line[vm->disk_count++] = 0;
    return true;
}

static bool set_cpu(struct config_vm *vm, const char *value, struct message *reason)
{
    static const char *const words[] = { "host", "portable", "portable-1" };

    if (choose(value, words, ARRAY_COUNT(words), reason) < 0)
        return false;
    vm->cpu = value;
    return true;
}

static bool set_tsc_frequency(struct config_vm *vm, const char *value, struct message *reason)
{
    uint32_t khz = 0;
    enum status status = text_to_khz(value, &khz);

    if (status == OK && khz >= CONFIG_MIN_TSC_KHZ && khz <= CONFIG_MAX_TSC_KHZ) {
        vm->tsc_khz = khz;
        return true;
    }
    add_quoted(reason, value, strlen(value));
    add(reason, status == ERR_INVALID ? " is not a frequency of whole kHz: write a number and kHz, MHz or GHz, such as 2400 MHz"
                                      : " is out of range: a TSC has 100 MHz to 10 GHz");
    return false;
}

static bool set_uuid(struct config_vm *vm, const char *value, struct message *reason)
{
    if (!config_uuid_ok(value)) {
        add_quoted(reason, value, strlen(value));
        add(reason, " is not a UUID in lower case, such as 5f0c2f6e-3d0a-4b53-9f6b-0c1d2e3f4a5b: correct it, or delete the line "
                    "and the node makes one");
        return false;
    }
    vm->uuid = value;
    return true;
}

static bool set_owner(struct config_vm *vm, const char *value, struct message *reason)
{
    if (!config_name_ok(value)) {
        add_quoted(reason, value, strlen(value));
        add(reason, " cannot be a node: write the `name` of one, as its prompt shows it");
        return false;
    }
    vm->owner = value;
    return true;
}

static bool set_start(struct config_vm *vm, const char *value, struct message *reason)
{
    static const char *const words[] = { [CONFIG_START_MANUAL] = "manual", [CONFIG_START_AUTO] = "auto" };
    int word = choose(value, words, ARRAY_COUNT(words), reason);

    if (word >= 0)
        vm->start = (enum config_start)word;
    return word >= 0;
}

/* ---- Keys ---- */

static const struct {
    const char *name;
    bool (*set)(struct config_vm *vm, const char *value, struct message *reason);
} vm_keys[CONFIG_VM_KEYS] = {
    [CONFIG_VM_MEMORY] = { "memory", set_memory },
    [CONFIG_VM_VCPUS] = { "vcpus", set_vcpus },
    [CONFIG_VM_KERNEL] = { "kernel", set_kernel },
    [CONFIG_VM_INITRD] = { "initrd", set_initrd },
    [CONFIG_VM_CMDLINE] = { "cmdline", set_cmdline },
    [CONFIG_VM_DISK] = { "disk", set_disk },
    [CONFIG_VM_START] = { "start", set_start },
    [CONFIG_VM_CPU] = { "cpu", set_cpu },
    [CONFIG_VM_TSC_FREQUENCY] = { "tsc-frequency", set_tsc_frequency },
    [CONFIG_VM_NETWORK] = { "network", config_vm_add_card },
    [CONFIG_VM_UUID] = { "uuid", set_uuid },
    [CONFIG_VM_OWNER] = { "owner", set_owner },
};

const char *config_vm_key_name(enum config_vm_key key)
{
    return vm_keys[key].name;
}

const char *config_vm_key_text(unsigned key)
{
    return vm_keys[key].name;
}

bool config_vm_repeatable(enum config_vm_key key)
{
    return key == CONFIG_VM_DISK || key == CONFIG_VM_NETWORK;
}

enum status config_vm_apply(struct config_vm *vm, enum config_vm_key key, const char *value, struct message *reason)
{
    bool is_disk = key == CONFIG_VM_DISK, is_card = key == CONFIG_VM_NETWORK;

    if ((is_disk && vm->disk_count == CONFIG_MAX_DISKS) || (is_card && vm->card_count == CONFIG_MAX_CARDS)) {
        add(reason, is_disk ? "one disk too many: a VM has at most " : "one card too many: a VM has at most ");
        add_number(reason, is_disk ? CONFIG_MAX_DISKS : CONFIG_MAX_CARDS);
        return ERR_NO_MEMORY;
    }
    return vm_keys[key].set(vm, value, reason) ? OK : ERR_INVALID;
}

void config_vm_defaults(struct config_vm *vm, const char *name)
{
    memset(vm, 0, sizeof(*vm));
    vm->name = name;
    vm->memory_bytes = 256 * MIB;
    vm->vcpus = 1;
    vm->cmdline = "";
    vm->start = CONFIG_START_MANUAL;
}
