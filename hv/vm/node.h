/* SPDX-License-Identifier: MIT */
/* The node: its configuration and what it can do. */
#ifndef VM_NODE_H
#define VM_NODE_H

#include "kernel/types.h"
#include "vm/config.h"

/* As read at boot; never changes. */
const struct config *node_config(void);
const char *node_name(void);
/* Why no VM can run here; "" if they can. */
const char *node_virtualization_problem(void);
/* Stops every VM at once and switches the machine off or restarts it. */
NORETURN void node_power_off(void);
NORETURN void node_reboot(void);

#endif
