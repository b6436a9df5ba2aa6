/* SPDX-License-Identifier: MIT */
/*
 * Any bytes as tasuki.conf, and as a vm.conf that is then changed: nothing is read or written outside of the buffers, and what
 * comes out keeps its promises.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "vm/config.h"
#include "vm/config_edit.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *room;
static size_t room_bytes;

/* A string of the result lies in the caller's room, ends there, and holds no control character. */
static void check_string(const char *text)
{
    assert(text >= room && text < room + room_bytes);
    assert(memchr(text, 0, (size_t)(room + room_bytes - text)));
    for (; *text; text++)
        assert((unsigned char)*text >= 0x20 || *text == '\t');
}

static void check_vm(const struct config *config, const struct config_vm *vm)
{
    assert(config_name_ok(vm->name));
    assert(config_find_vm(config, vm->name) == vm);
    check_string(vm->name);
    assert(vm->memory_bytes >= CONFIG_MIN_MEMORY && vm->memory_bytes <= CONFIG_MAX_MEMORY);
    assert(vm->memory_bytes % PAGE_BYTES == 0);
    assert(vm->vcpus >= 1 && vm->vcpus <= CONFIG_MAX_VCPUS);
    assert(vm->disk_count <= CONFIG_MAX_DISKS);
    assert(strlen(vm->cmdline) <= CONFIG_MAX_CMDLINE_BYTES);
    assert(vm->kernel || vm->error_count);
    if (vm->kernel)
        check_string(vm->kernel);
    if (vm->initrd)
        check_string(vm->initrd);
    for (uint32_t i = 0; i < vm->disk_count; i++)
        check_string(vm->disks[i]);
}

/* What is kept of an address can be written and read again. */
static void check_address(const struct net_address *address)
{
    char text[NET_ADDRESS_TEXT];
    struct net_address again;

    address_to_text(address, true, text);
    assert(text_to_address(text, &again) && !memcmp(&again, address, sizeof again));
}

static void check_network(const struct config_network *network)
{
    assert(config_name_ok(network->name));
    check_string(network->name);
    assert(network->mtu >= 576 && network->mtu <= 9000 && network->vlan <= 4094 && network->dns_count <= CONFIG_MAX_DNS);
    assert(network->pci_device < 32 && network->pci_function < 8);
    if (network->ipv4 == CONFIG_ADDRESS_STATIC)
        check_address(&network->address);
    if (network->ipv6 == CONFIG_ADDRESS_STATIC)
        check_address(&network->address6);
    for (uint32_t i = 0; i < network->dns_count; i++)
        check_address(&network->dns[i]);
    if (!network->error_count && network->gateway.family)
        assert(net_address_same_network(&network->address, &network->gateway));
}

/* A VM of the name that was asked for, or none; and a change that can be made is there when the text is read again. */
static void check_vm_conf(const char *text, size_t size)
{
    static const char *const values[] = { "96M" };
    static struct config node, config;
    struct config_change change = { .key = "memory", .values = values, .count = 1 };
    char nothing[1], *strings = malloc(size + 1), *out = malloc(size + 32), *again = malloc(size + 33);
    size_t bytes = 0;

    if (!strings || !out || !again)
        abort();
    config_parse(&node, NULL, 0, nothing);
    config_parse_vm(&config, &node, "demo", text, size, strings);
    assert(config.vm_count <= 1 && config.network_count == 0 && config.storage_count == 0);
    bool is_there = config.vm_count;
    room = strings;
    room_bytes = size + 1;
    if (is_there)
        check_vm(&config, &config.vms[0]);
    else
        assert(config.diagnostic_count);
    assert(!is_there || !config.vms[0].uuid || config_uuid_ok(config.vms[0].uuid));
    enum status status = config_edit(text, size, &change, out, size + 32, &bytes);
    assert(status == OK || status == ERR_NOT_FOUND);
    if (status == OK) {
        assert(bytes <= size + 32);
        config_parse_vm(&config, &node, "demo", out, bytes, again);
        assert((config.vm_count != 0) == is_there || bytes > CONFIG_MAX_BYTES || size > CONFIG_MAX_BYTES);
    }
    free(again);
    free(out);
    free(strings);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct config config;
    char *text = malloc(size ? size : 1); /* of the exact size, so that the sanitizer sees a byte too far */
    char *strings = malloc(size + 1);

    if (!text || !strings)
        abort();
    if (size)
        memcpy(text, data, size);
    check_vm_conf(text, size);
    config_parse(&config, text, size, strings);
    free(text); /* the result must not point into it */
    room = strings;
    room_bytes = size + 1;
    assert(config.vm_count <= CONFIG_MAX_VMS);
    assert(config.diagnostic_count <= CONFIG_MAX_DIAGNOSTICS);
    assert(config_name_ok(config.node.name));
    for (uint32_t i = 0; i < config.vm_count; i++)
        check_vm(&config, &config.vms[i]);
    assert(config.network_count <= CONFIG_MAX_NETWORKS);
    for (uint32_t i = 0; i < config.network_count; i++)
        check_network(&config.networks[i]);
    for (uint32_t i = 0; i < config.diagnostic_count; i++) {
        const struct config_diagnostic *d = &config.diagnostics[i];
        assert(d->text[0] && memchr(d->text, 0, sizeof(d->text)) && !strchr(d->text, '\n'));
        assert(i == 0 || d[-1].line <= d->line);
    }
    free(strings);
    return 0;
}
