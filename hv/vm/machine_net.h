/* SPDX-License-Identifier: MIT */
/*
 * A VM's network cards: virtio's card in front, the network service behind. Private to vm/. All functions: the VM's
 * thread.
 */
#ifndef VM_MACHINE_NET_H
#define VM_MACHINE_NET_H

#include "vm/machine.h"

/* Makes the cards that the VM's configuration has, and joins them to their networks; the text says what failed. */
enum status machine_nets_build(struct vm *vm, const struct virtio_owner *owner, char *text, size_t text_bytes) MUST_CHECK;
/* Takes them out. vCPUs are stopped. */
void machine_nets_destroy(struct vm *vm);
/* The guest's links follow the cards'. Locked. */
void machine_nets_links(struct vm *vm);
/* The VM's run deadline has moved. */
void machine_nets_deadline(struct vm *vm);
/* The VM goes on, perhaps elsewhere: guest and service tell the LAN, and the guest looks at its links. */
void machine_nets_announce(struct vm *vm);

/* The address of a card: the configuration's, or the VM's own. Any context. */
uint64_t machine_net_mac(const struct config_vm *config, uint32_t card);

#endif
