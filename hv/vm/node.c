/* SPDX-License-Identifier: MIT */
/*
 * What happens when the kernel is up: read the configuration, switch virtualization on, make the VMs, start those that
 * shall start, and give the shell to the admin. Nothing in here stops the node from coming up: what is wrong is logged
 * with its cause and its cure, and shown again by `node show` and `config show`.
 */
#include "vm/node.h"

#include <stdio.h>
#include <string.h>

#include "drivers/pci_host.h"
#include "drivers/uart.h"
#include "kernel/heap.h"
#include "kernel/log.h"
#include "kernel/node.h"
#include "kernel/page.h"
#include "kernel/panic.h"
#include "kernel/power.h"
#include "kernel/thread.h"
#include "kernel/time.h"
#include "net/service.h"
#include "net/storage.h"
#include "shell/service.h"
#include "vm/vm.h"
#include "vm/vm_directory.h"
#include "vmm/core.h"
#include "vmm/guard.h"
#include "vmm/run.h"
#include "volume/volume.h"

#define STORAGE_NS (20 * NS_PER_S) /* so long a storage may take after boot before it is a warning */

static struct config config;
static char problem[200];

const struct config *node_config(void)
{
    return &config;
}

const char *node_name(void)
{
    return config.node.name;
}

const char *node_virtualization_problem(void)
{
    return problem;
}

/* Until here the port was COM1. What was said before stays there; the framebuffer and `log show` have it all. */
static void choose_serial(uint32_t number)
{
    static const uint16_t ports[] = { 0, 0x3f8, 0x2f8, 0x3e8, 0x2e8 };

    if (number == 1)
        return;
    if (number)
        log_info("node: the shell moves to COM%u", number);
    else
        log_info("node: no serial port from here on, and so no shell ([node] serial = none)");
    uart_drain();
    if (!uart_init(ports[number]))
        log_error("node: no serial port answers at COM%u (port 0x%x), so the shell is on COM1; correct `serial` in [node]",
                  number, ports[number]);
}

static void read_config(void)
{
    const struct boot_info *info = boot_info_get();
    const char *text = info->config ? phys_to_virt(HPA(info->config)) : NULL;
    size_t bytes = text ? MIN(info->config_bytes, CONFIG_MAX_BYTES) : 0;
    char *strings = kzalloc(bytes + 1);

    if (!strings)
        panic("node: no memory for the configuration");
    config_parse(&config, text, bytes, strings);
    if (!text)
        log_warning("config: \\tasuki\\tasuki.conf could not be read (%s); the node runs with defaults and without VMs. "
                    "Put the file on the volume that the node boots from",
                    (info->config_status & 0xff) == 14 ? "there is no such file" : "the firmware reported an error");
    for (uint32_t i = 0; i < config.diagnostic_count; i++) {
        const struct config_diagnostic *d = &config.diagnostics[i];
        log_line(d->severity == CONFIG_ERROR ? LOG_ERROR : LOG_WARNING, "config: line %u, column %u: %s", d->line,
                 d->column, d->text);
    }
    if (config.diagnostics_dropped)
        log_warning("config: %u more problems are not listed", config.diagnostics_dropped);
    panic_set_reset(config.node.panic == CONFIG_PANIC_RESET);
    log_set_console_level((enum log_level)config.node.log);
    vm_set_apic_virtualization(config.node.apic);
    choose_serial(config.node.serial);
}

/*
 * Starting takes a while for each VM (memory, images), so it has a thread of its own and the shell is there at once. A VM
 * whose storage is not there yet is started when it is.
 */
static void start_vms(void *arg)
{
    char text[VM_TEXT_BYTES];
    uint64_t left = 0, tell_ns = time_now_ns() + STORAGE_NS;
    (void)arg;

    _Static_assert(CONFIG_MAX_VMS <= 64, "a bit for each VM that is still to be started");
    for (uint32_t i = 0; i < config.vm_count; i++)
        left |= config.vms[i].start == CONFIG_START_AUTO ? BIT(i) : 0;
    while (left) {
        for (uint32_t i = 0; i < config.vm_count; i++) {
            if (!(left & BIT(i)) || vm_waits_for_storage(&config.vms[i]))
                continue;
            left &= ~BIT(i);
            if (vm_order(config.vms[i].name, VM_ORDER_START, text, sizeof text) != OK)
                log_error("%s", text);
        }
        for (uint32_t i = 0; i < config.vm_count && time_now_ns() >= tell_ns; i++)
            if (left & BIT(i))
                log_warning("vm %s: it waits for a disk, and starts when that is there; `iscsi list` and `csv list` tell what is "
                            "wrong", config.vms[i].name);
        tell_ns = time_now_ns() >= tell_ns ? TIME_NEVER : tell_ns;
        if (left)
            thread_sleep_ns(NS_PER_S / 2);
    }
}

void node_start(void)
{
    char text[VM_TEXT_BYTES];

    read_config();
    pci_init();
    if (vmm_init(problem, sizeof problem) != OK)
        log_error("node: no VM can run here: %s", problem);
    else
        log_info("node: virtualization by %s", vmm->name);
    guard_init(config.node.exit_barrier == CONFIG_EXIT_BARRIER_NO       ? GUARD_OFF
               : config.node.exit_barrier == CONFIG_EXIT_BARRIER_ALWAYS ? GUARD_ALWAYS
                                                                        : GUARD_AUTO);
    if (core_init(config.node.share_cores) != OK)
        panic("node: no memory for the list of cores");
    for (uint32_t i = 0; i < config.vm_count; i++)
        if (vm_create(&config.vms[i], text, sizeof text) != OK)
            log_error("%s", text);
    if (shell_service_start(config.node.name) != OK)
        log_error("node: no memory for the shell");
    net_start(&config);
    volume_start(&config);
    vm_directories_start(&config);
    if (!thread_create("autostart", 0, start_vms, NULL))
        log_error("node: no memory to start the VMs; start them by hand");
}

static void stop_all(void)
{
    struct vm_info info;
    char text[VM_TEXT_BYTES];

    /* From now on no VM starts; one that is just starting is stopped in the next round. */
    vm_refuse_starts();
    for (bool again = true; again;) {
        again = false;
        for (unsigned i = 0; vm_info_get(i, &info); i++) {
            if ((info.state == VM_STOPPED && !info.held_bytes) || (info.state == VM_SAVED && info.volume[0]))
                continue;
            again = true;
            if (vm_order(info.name, VM_ORDER_STOP, text, sizeof text) != OK && info.state != VM_STOPPED)
                log_warning("%s", text);
        }
    }
    volume_stop();
    storage_stop();
    vmm_disable();
    pci_silence();
}

void node_power_off(void)
{
    stop_all();
    log_info("node: off");
    power_off();
}

void node_reboot(void)
{
    stop_all();
    log_info("node: restarts");
    power_reboot();
}
