/* SPDX-License-Identifier: MIT */
/* node, cpu, memory, thread, log, config: what the node is and how it is. */
#include <stdio.h>
#include <string.h>

#include "kernel/cpu.h"
#include "kernel/heap.h"
#include "kernel/log.h"
#include "kernel/page.h"
#include "kernel/thread.h"
#include "kernel/time.h"
#include "shell/tables.h"
#include "vm/node.h"
#include "vm/vm.h"
#include "vmm/core.h"
#include "vmm/cpuid_model.h"
#include "vmm/guard.h"
#include "vmm/run.h"

/* ---- node ---- */

static enum status node_show(struct shell *shell, const struct command_call *call)
{
    struct out *out = &shell->out;
    struct page_totals totals;
    struct vm_info info;
    unsigned running = 0, all = 0;
    (void)call;

    page_totals_get(&totals);
    for (; vm_info_get(all, &info); all++)
        running += info.state == VM_RUNNING;
    out_string(out, "name", node_name());
    out_string(out, "cpu", cpu_features.brand[0] ? cpu_features.brand : cpu_features.vendor_name);
    out_uint(out, "cpus", cpu_count);
    out_string(out, "virtualization", vmm ? vmm->name : "none");
    if (!vmm)
        out_string(out, "problem", node_virtualization_problem());
    out_bytes(out, "memory", totals.ram_bytes);
    out_bytes(out, "memory_free", totals.free_bytes);
    out_uint(out, "vms", all);
    out_uint(out, "vms_running", running);
    out_duration(out, "uptime", time_now_ns());
    out_time(out, "time", time_unix_ns() / NS_PER_S);
    out_uint(out, "configuration_problems", node_config()->diagnostic_count + node_config()->diagnostics_dropped);
    return OK;
}

static enum status node_reboot_command(struct shell *shell, const struct command_call *call)
{
    (void)shell;
    (void)call;
    node_reboot();
}

static enum status node_poweroff_command(struct shell *shell, const struct command_call *call)
{
    (void)shell;
    (void)call;
    node_power_off();
}

const struct command node_commands[] = {
    { .noun = "node", .verb = "show", .summary = "Show what this node is and how it is", .run = node_show },
    { .noun = "node", .verb = "reboot", .summary = "Stop all VMs and restart the node", .run = node_reboot_command,
      .help = "VMs are stopped hard, as if their power was cut. Shut guests down first with `vm stop`." },
    { .noun = "node", .verb = "poweroff", .summary = "Stop all VMs and switch the node off", .run = node_poweroff_command,
      .help = "VMs are stopped hard, as if their power was cut. Shut guests down first with `vm stop`." },
    { .noun = NULL },
};

/* ---- cpu ---- */

static enum status cpu_list(struct shell *shell, const struct command_call *call)
{
    struct out *out = &shell->out;
    char guards[160];
    (void)call;

    guard_describe(guards, sizeof guards);

    out_array_begin(out, "cpus");
    for (unsigned i = 0; i < cpu_count; i++) {
        out_object_begin(out, NULL);
        out_uint(out, "cpu", cpus[i]->id);
        out_uint(out, "package", cpus[i]->package);
        out_uint(out, "core", cpus[i]->core);
        out_uint(out, "thread", cpus[i]->core_thread);
        out_uint(out, "apic_id", cpus[i]->apic_id);
        out_bool(out, "virtualization", cpus[i]->virtualization_on);
        out_uint(out, "interrupts", cpus[i]->irq_count);
        out_uint(out, "core_shares", cpus[i]->core_shares);
        out_object_end(out);
    }
    out_array_end(out);
    out_object_begin(out, "host");
    out_string(out, "vendor", cpu_features.vendor_name);
    out_string(out, "model", cpu_features.brand);
    out_stringf(out, "family_model_stepping", "%u/%u/%u", cpu_features.family, cpu_features.model, cpu_features.stepping);
    out_uint(out, "tsc_khz", time_tsc_khz());
    out_bool(out, "tsc_invariant", cpu_features.invariant_tsc);
    out_uint(out, "physical_bits", cpu_features.physical_bits);
    out_string(out, "speculation", guards);
    out_string(out, "cores", !core_any_shared() ? "one thread each" : core_apart() ? "one VM at a time" : "shared by VMs");
    out_object_end(out);
    out_array_begin(out, "models");
    for (unsigned i = 0; cpuid_model_name(i); i++)
        out_string(out, NULL, cpuid_model_name(i));
    out_array_end(out);
    if (vmm) {
        const struct vmm_features *f = vmm->features;
        const struct { const char *name; bool have; } list[] = {
            { "next_rip", f->next_rip }, { "decode_assists", f->decode_assists }, { "flush_by_asid", f->flush_by_asid },
            { "vmcb_clean", f->vmcb_clean }, { "vgif", f->vgif }, { "avic", f->avic },
            { "unrestricted_guest", f->unrestricted }, { "vpid", f->vpid }, { "ept_accessed_dirty", f->ept_ad },
            { "pml", f->pml }, { "preemption_timer", f->preemption_timer }, { "apic_registers", f->apic_register },
            { "virtual_interrupts", f->virtual_interrupt }, { "apic_virtualization", f->apic_assist },
            { "posted_interrupts", f->posted_interrupt },
            { "second_stage_accessed_dirty", f->second_stage_ad }, { "second_stage_1g", f->second_stage_1g },
            { "tsc_scaling", f->tsc.fraction_bits != 0 }, { "xsaves", f->xsaves },
        };
        out_array_begin(out, "virtualization_features");
        for (unsigned i = 0; i < ARRAY_COUNT(list); i++)
            if (list[i].have)
                out_string(out, NULL, list[i].name);
        out_array_end(out);
    }
    return OK;
}

static enum status cpu_apic(struct shell *shell, const struct command_call *call)
{
    const char *mode = call->argument[0];
    bool off = !strcmp(mode, "off"), on = !strcmp(mode, "on");

    vm_set_apic_virtualization(off ? CONFIG_APIC_OFF : on ? CONFIG_APIC_ON : CONFIG_APIC_AUTO);
    if (!off && !(vmm && vmm->features->apic_assist))
        out_message(&shell->out, "the CPUs of this node have no APIC virtualization that it can use; VMs do without");
    else if (!off && !on && !vm_apic_virtualization())
        out_message(&shell->out, "the CPUs of this node do not always deliver interrupts right; VMs do without (`on` insists)");
    else
        out_message(&shell->out, "APIC virtualization is %s for VMs that are started or restored from now on",
                    off ? "off" : "on");
    return OK;
}

static const struct command_argument apic_arguments[] = {
    { .name = "MODE", .help = "where the CPUs do it right, where they can at all, or not", .choices = "auto|on|off" },
    { .name = NULL },
};

const struct command cpu_commands[] = {
    { .noun = "cpu", .verb = "list", .summary = "List the CPUs and what they can do", .run = cpu_list },
    { .noun = "cpu", .verb = "apic", .summary = "Let CPUs deliver the interrupts of VMs, or do it in software",
      .arguments = apic_arguments, .run = cpu_apic,
      .help = "Takes effect when a VM is started or restored, and until the node restarts; `apic-virtualization` in [node] is "
              "what it starts with." },
    { .noun = NULL },
};

/* ---- memory ---- */

static enum status memory_show(struct shell *shell, const struct command_call *call)
{
    struct out *out = &shell->out;
    struct page_totals totals;
    (void)call;

    page_totals_get(&totals);
    out_bytes(out, "total", totals.ram_bytes);
    out_bytes(out, "free", totals.free_bytes);
    out_bytes(out, "free_in_large_pages", totals.free_large_bytes);
    out_bytes(out, "tables", totals.table_bytes);
    out_array_begin(out, "owners");
    for (unsigned owner = 0; owner < PAGE_OWNERS; owner++) {
        struct page_usage usage;
        if (!page_owner_usage((page_owner_t)owner, &usage))
            continue;
        out_object_begin(out, NULL);
        out_string(out, "owner", usage.name);
        out_bytes(out, "held", usage.bytes);
        out_uint(out, "pages_4k", usage.small_pages);
        out_uint(out, "pages_2m", usage.large_pages);
        out_uint(out, "pages_1g", usage.huge_pages);
        out_object_end(out);
    }
    out_array_end(out);
    return OK;
}

const struct command memory_commands[] = {
    { .noun = "memory", .verb = "show", .summary = "Show who holds how much memory", .run = memory_show },
    { .noun = NULL },
};

/* ---- thread ---- */

#define THREADS_SHOWN 256

static enum status thread_list_command(struct shell *shell, const struct command_call *call)
{
    static const char *const states[] = { "runnable", "running", "waiting", "ended" };
    struct out *out = &shell->out;
    struct thread_info *info = kzalloc(THREADS_SHOWN * sizeof *info);
    (void)call;

    if (!info)
        return ERR_NO_MEMORY;
    unsigned count = thread_list(info, THREADS_SHOWN);
    out_array_begin(out, "threads");
    for (unsigned i = 0; i < count; i++) {
        out_object_begin(out, NULL);
        out_string(out, "thread", info[i].name);
        out_uint(out, "cpu", info[i].cpu);
        out_string(out, "state", states[info[i].state]);
        out_duration(out, "cpu_time", info[i].run_ns);
        out_duration(out, "longest_run", info[i].longest_ns);
        out_object_end(out);
    }
    out_array_end(out);
    kfree(info, THREADS_SHOWN * sizeof *info);
    return OK;
}

const struct command thread_commands[] = {
    { .noun = "thread", .verb = "list", .summary = "List the hypervisor's threads and their CPU time",
      .run = thread_list_command },
    { .noun = NULL },
};

/* ---- log ---- */

static enum status log_show(struct shell *shell, const struct command_call *call)
{
    struct out *out = &shell->out;
    struct log_entry *entry = kzalloc(sizeof *entry);
    (void)call;

    if (!entry)
        return ERR_NO_MEMORY;
    out_array_begin(out, "log");
    uint64_t end = log_next_sequence(); /* what is logged meanwhile is not part of it */
    for (uint64_t next = 0; next < end && log_read(next, entry); next = entry->sequence + 1) {
        out_object_begin(out, NULL);
        out_stringf(out, "time", "%lu.%06lu", entry->time_ns / NS_PER_S, entry->time_ns % NS_PER_S / 1000);
        out_string(out, "level", log_level_name(entry->level));
        out_string(out, "text", entry->text);
        out_object_end(out);
    }
    out_array_end(out);
    kfree(entry, sizeof *entry);
    return OK;
}

const struct command log_commands[] = {
    { .noun = "log", .verb = "show", .summary = "Show the log since boot, or what is left of it", .run = log_show },
    { .noun = NULL },
};

/* ---- config ---- */

static void show_network(struct out *out, const struct config_network *network)
{
    char card[18] = "first", address[NET_ADDRESS_TEXT], address6[NET_ADDRESS_TEXT];

    if (network->card == CONFIG_CARD_MAC)
        mac_to_text(network->mac, card);
    else if (network->card == CONFIG_CARD_PCI)
        snprintf(card, sizeof card, "%02x:%02x.%x", network->pci_bus, network->pci_device, network->pci_function);
    address_to_text(&network->address, true, address);
    address_to_text(&network->address6, true, address6);
    out_object_begin(out, NULL);
    out_string(out, "name", network->name);
    out_string(out, "card", card);
    out_string(out, "address", network->ipv4 == CONFIG_ADDRESS_NONE   ? "none"
                               : network->ipv4 == CONFIG_ADDRESS_AUTO ? "dhcp"
                                                                      : address);
    out_string(out, "address6", network->ipv6 == CONFIG_ADDRESS_NONE   ? "none"
                                : network->ipv6 == CONFIG_ADDRESS_AUTO ? "auto"
                                                                       : address6);
    if (network->vlan)
        out_uint(out, "vlan", network->vlan);
    else
        out_null(out, "vlan");
    out_uint(out, "mtu", network->mtu);
    out_object_end(out);
}

static void show_storage(struct out *out, const struct config_storage *storage)
{
    out_object_begin(out, NULL);
    out_string(out, "name", storage->name);
    out_string(out, "target", storage->target);
    out_uint(out, "lun", storage->lun);
    out_uint(out, "portals", storage->portal_count);
    out_string(out, "chap", storage->chap_mutual ? "both ways" : storage->chap ? "one way" : "none");
    out_uint(out, "timeout", storage->timeout_s);
    out_string(out, "volume", storage->volume);
    out_object_end(out);
}

static enum status config_show(struct shell *shell, const struct command_call *call)
{
    struct out *out = &shell->out;
    const struct config *config = node_config();
    static const char *const ports[] = { "none", "com1", "com2", "com3", "com4" };
    static const char *const barriers[] = { [CONFIG_EXIT_BARRIER_AUTO] = "auto", [CONFIG_EXIT_BARRIER_NO] = "no",
                                            [CONFIG_EXIT_BARRIER_ALWAYS] = "always" };
    static const char *const apics[] = { [CONFIG_APIC_AUTO] = "auto", [CONFIG_APIC_ON] = "on", [CONFIG_APIC_OFF] = "off" };
    (void)call;

    out_object_begin(out, "node");
    out_string(out, "name", config->node.name);
    out_string(out, "panic", config->node.panic == CONFIG_PANIC_RESET ? "reset" : "wait");
    out_string(out, "log", log_level_name((enum log_level)config->node.log));
    out_string(out, "serial", ports[config->node.serial]);
    out_string(out, "exit_barrier", barriers[config->node.exit_barrier]);
    out_bool(out, "share_cores", config->node.share_cores);
    out_string(out, "apic_virtualization", apics[config->node.apic]);
    out_object_end(out);
    out_array_begin(out, "networks");
    for (uint32_t i = 0; i < config->network_count; i++)
        show_network(out, &config->networks[i]);
    out_array_end(out);
    out_array_begin(out, "storages");
    for (uint32_t i = 0; i < config->storage_count; i++)
        show_storage(out, &config->storages[i]);
    out_array_end(out);
    out_array_begin(out, "vms");
    for (uint32_t i = 0; i < config->vm_count; i++) {
        const struct config_vm *vm = &config->vms[i];
        out_object_begin(out, NULL);
        out_string(out, "name", vm->name);
        out_bytes(out, "memory", vm->memory_bytes);
        out_uint(out, "vcpus", vm->vcpus);
        out_string(out, "start", vm->start == CONFIG_START_AUTO ? "auto" : "manual");
        out_uint(out, "disks", vm->disk_count);
        out_uint(out, "cards", vm->card_count);
        out_string(out, "kernel", vm->kernel);
        out_object_end(out);
    }
    out_array_end(out);
    out_array_begin(out, "problems");
    for (uint32_t i = 0; i < config->diagnostic_count; i++) {
        const struct config_diagnostic *d = &config->diagnostics[i];
        out_object_begin(out, NULL);
        out_uint(out, "line", d->line);
        out_uint(out, "column", d->column);
        out_string(out, "severity", d->severity == CONFIG_ERROR ? "error" : "warning");
        out_string(out, "text", d->text);
        out_object_end(out);
    }
    out_array_end(out);
    return OK;
}

const struct command config_commands[] = {
    { .noun = "config", .verb = "show", .summary = "Show the configuration as it was read, and what is wrong with it",
      .run = config_show },
    { .noun = NULL },
};
