/* SPDX-License-Identifier: MIT */
/* The [network NAME] section of tasuki.conf: private to the parser (config.c). */
#ifndef VM_CONFIG_NETWORK_H
#define VM_CONFIG_NETWORK_H

#include "vm/config.h"
#include "vm/config_message.h"

void config_network_defaults(struct config_network *network, const char *name);
const char *config_network_key_name(unsigned key);
/* Sets one key; false with the reason. */
bool config_network_set(struct config_network *network, unsigned key, const char *value, struct message *reason) MUST_CHECK;
/* What is wrong with the section as a whole, beside the networks before it; false with the reason. */
bool config_network_check(const struct config *config, const struct config_network *network, struct message *reason) MUST_CHECK;

/* `network = NAME [MAC]` of a VM, which has room for one more card; false with the reason. */
bool config_vm_add_card(struct config_vm *vm, const char *value, struct message *reason) MUST_CHECK;
/* Whether the configuration has the network of a VM's card; false with the reason. */
bool config_card_check(const struct config *config, const struct config_card_of_vm *card, struct message *reason) MUST_CHECK;

#endif
