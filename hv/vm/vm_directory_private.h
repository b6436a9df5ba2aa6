/* SPDX-License-Identifier: MIT */
/* What vm_directory.c, vm_discovery.c and vm_settings.c share. */
#ifndef VM_VM_DIRECTORY_PRIVATE_H
#define VM_VM_DIRECTORY_PRIVATE_H

#include "vm/config.h"
#include "vm/vm_directory.h"
#include "vm/vm_files.h"

#define VM_STATE_FILE "saved.state"

/* A vm.conf that was read. */
struct vm_conf {
    struct config config;
    char *strings;
    size_t strings_bytes;
    char path[CONFIG_MAX_DISKS + 2][VM_PATH_BYTES]; /* whole ones, for who builds from it */
    bool too_long; /* one of them was cut */
};

/* NULL: no memory. */
struct vm_conf *vm_conf_parse(const char *name, const char *text, size_t bytes) MUST_CHECK;
void vm_conf_free(struct vm_conf *conf);

void vm_uuid_make(char uuid[CONFIG_UUID_CHARACTERS + 1]);
/* The path of a file in a VM's directory; "" is the directory. */
void vm_directory_path(const char *volume, const char *name, const char *file, char path[VM_PATH_BYTES]);
/*
 * What a path in vm.conf means: from the VM's directory on, but for storages, whole paths and those of the boot volume. False:
 * it is too long, and cut.
 */
bool vm_directory_resolve(const char *volume, const char *name, const char *path, char resolved[VM_PATH_BYTES]) MUST_CHECK;

#endif
