/* SPDX-License-Identifier: MIT */
/* The [node] section of tasuki.conf: private to the parser (config.c). */
#ifndef VM_CONFIG_NODE_H
#define VM_CONFIG_NODE_H

#include "vm/config.h"
#include "vm/config_message.h"

void config_node_defaults(struct config_node *node);
const char *config_node_key_name(unsigned key);
/* Sets one key; false with the reason. */
bool config_node_set(struct config_node *node, unsigned key, const char *value, struct message *reason) MUST_CHECK;

#endif
