/* SPDX-License-Identifier: MIT */
/* The commands of the node, by noun; each table is in cmd_NOUN.c. */
#ifndef SHELL_TABLES_H
#define SHELL_TABLES_H

#include "shell/command.h"

extern const struct command node_commands[], cpu_commands[], memory_commands[], log_commands[], config_commands[],
    thread_commands[], vm_commands[], vm_settings_commands[], net_commands[], pci_commands[], storage_commands[], volume_commands[];

#endif
