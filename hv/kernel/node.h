/* SPDX-License-Identifier: MIT */
/* What the kernel starts when it is up: the node itself (vm/node.c). */
#ifndef KERNEL_NODE_H
#define KERNEL_NODE_H

#include "boot/boot_info.h"

/* Reads the configuration, switches virtualization on, starts the shell and the VMs. Returns at once. */
void node_start(void);

/* The loader's hand-over; valid for ever. */
const struct boot_info *boot_info_get(void);

#endif
