/* SPDX-License-Identifier: MIT */
/* The [vm NAME] section of tasuki.conf and of vm.conf: private to the parser (config.c) and who edits its text (config_edit.c). */
#ifndef VM_CONFIG_VM_H
#define VM_CONFIG_VM_H

#include "vm/config.h"
#include "vm/config_message.h"

/* config_vm_key_name() for any number below CONFIG_VM_KEYS. */
const char *config_vm_key_text(unsigned key);
/* Whether each line of the key adds one, instead of replacing the one before. */
bool config_vm_repeatable(enum config_vm_key key);
/* Sets one key, with the reason where that is not OK: ERR_INVALID, ERR_NO_MEMORY (one disk or card too many). */
enum status config_vm_apply(struct config_vm *vm, enum config_vm_key key, const char *value, struct message *reason) MUST_CHECK;
/* The key of that name, or CONFIG_VM_KEYS with the known ones as the reason. */
enum config_vm_key config_vm_find_key(const char *key, size_t bytes, struct message *reason) MUST_CHECK;

#endif
