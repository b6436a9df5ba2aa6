/* SPDX-License-Identifier: MIT */
/* What the commands about VMs share: cmd_vm.c and cmd_vm_settings.c. */
#ifndef SHELL_CMD_VM_H
#define SHELL_CMD_VM_H

#include "shell/command.h"

/* A command_names_fn: the VMs. */
void shell_vm_names(struct shell *shell, void (*offer)(void *to, const char *name), void *to);

#endif
