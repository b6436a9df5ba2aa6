/* SPDX-License-Identifier: MIT */
/* The [storage NAME] section of tasuki.conf, and what a VM's disk of it is called: private to the parser (config.c). */
#ifndef VM_CONFIG_STORAGE_H
#define VM_CONFIG_STORAGE_H

#include "vm/config.h"
#include "vm/config_message.h"

void config_storage_defaults(struct config_storage *storage, const char *name);
const char *config_storage_key_name(unsigned key);
/* Sets one key; false with the reason, which never holds a secret. */
bool config_storage_set(struct config_storage *storage, unsigned key, const char *value, struct message *reason) MUST_CHECK;
/* What is wrong with the section as a whole, beside the storages before it; false with the reason. */
bool config_storage_check(const struct config *config, const struct config_storage *storage, struct message *reason) MUST_CHECK;
/* The same of a VM's disks that are storages. */
bool config_storage_check_vm(const struct config *config, const struct config_vm *vm, struct message *reason) MUST_CHECK;

#endif
