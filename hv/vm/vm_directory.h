/* SPDX-License-Identifier: MIT */
/*
 * VMs that are directories on a volume: /ClusterStorage/VOLUME/NAME with vm.conf (one section [vm NAME];
 * docs/configuration.md), the VM's disks, and saved.state, while it is saved.
 *
 * vm.conf is the VM's own truth: it is read when the volume is mounted and before each start, and changed by a new file
 * that takes its place. Its `uuid` is what the VM is known by wherever it goes; its `owner` is the node that may run
 * it. The node that finds a directory without one of them writes itself there: a volume is mounted by one node at a
 * time.
 *
 * saved.state is there if, and only if, the VM is to go on from it: it gets its name when all of it is durable, before
 * the machine is given up; and it is gone, durably, before a vCPU of the restored machine runs. So no state is ever
 * restored after disks that went on without it.
 */
#ifndef VM_VM_DIRECTORY_H
#define VM_VM_DIRECTORY_H

#include "vm/config_edit.h"
#include "vm/vm.h"

#define VM_CONF_MAX_BYTES (64 * KIB)

struct vm;

/* Looks for VMs on each volume when it is mounted, and starts those with start = auto. Boot, after volume_start(). */
void vm_directories_start(const struct config *config);
/* The node has one more volume, perhaps its first. Thread context, one caller at a time. */
void vm_directories_watch(void);
/*
 * The shell has made, moved or removed a file or a directory of that path (/ClusterStorage/VOLUME/...). Where that makes a VM,
 * changes it, or leaves it without its vm.conf, the node's list has it when this returns; none is started. Waits for the volume.
 */
void vm_directory_touched(const char *path);
/*
 * Whether the path is the directory of a VM that has a machine now, which must not be moved: its name (CONFIG_MAX_NAME_BYTES
 * + 1). Any thread.
 */
bool vm_directory_is_in_use(const char *path, char *name) MUST_CHECK;
/* Whether a storage or a volume that the VM needs is still to come. Thread context. */
bool vm_waits_for_storage(const struct config_vm *config);

/* ---- For the shell: as vm_order(). With OK, *text has what there is to say, or is empty. ---- */

/* Makes a directory on the volume with a vm.conf of these lines, each of them checked before by config_vm_set(), and
 * the VM. */
struct vm_setting {
    const char *key, *value;
};
enum status vm_directory_create(const char *volume, const char *name, const struct vm_setting *settings, unsigned count,
                                char *text, size_t text_bytes) MUST_CHECK;
/* Changes its vm.conf. `take_over`: also `owner` of a VM that is another node's. */
enum status vm_directory_set(const char *name, const struct config_change *change, bool take_over, char *text,
                             size_t text_bytes) MUST_CHECK;

enum vm_disk_work { VM_DISK_ADD, VM_DISK_GROW, VM_DISK_CLONE, VM_DISK_SNAPSHOT, VM_DISK_REVERT };
struct vm_disk_order {
    enum vm_disk_work work;
    const char *disk; /* as in vm.conf */
    const char *to;   /* clone: the copy's path; snapshot and revert: its name, behind the disk's with a point */
    const char *keep; /* revert: the name of a snapshot of what the disk is before; NULL: "before-" and `to` */
    bool discard;     /* revert: no such snapshot */
    uint64_t bytes;   /* add: of a new file, 0: it is there already; grow: its new size */
    bool preallocate;
};
enum status vm_directory_disk(const char *name, const struct vm_disk_order *order, char *text, size_t text_bytes)
    MUST_CHECK;

/* ---- For the VM's thread ---- */

/* Reads its vm.conf anew, and whether it is saved; it is stopped or saved. OK also where vm.conf is wrong: vm->problem.
 */
enum status vm_directory_load(struct vm *vm, char *text, size_t text_bytes) MUST_CHECK;
/* Whether this node may run it; not OK with a text. */
enum status vm_directory_check(const struct vm *vm, char *text, size_t text_bytes) MUST_CHECK;
/* Whether this node may change it. */
enum status vm_directory_owned(const struct vm *vm, char *text, size_t text_bytes) MUST_CHECK;
/* Whether its vm.conf says what the running VM has, so that it could be restored. */
enum status vm_directory_same(struct vm *vm, char *text, size_t text_bytes) MUST_CHECK;
/*
 * Its state into its directory, durably; the machine is as it was afterwards. ERR_CANCELLED: the state may be there or
 * not, whatever comes.
 */
enum status vm_directory_save(struct vm *vm, bool paused, char *text, size_t text_bytes) MUST_CHECK;
/* vm->saved is its saved state there, which is read as it is needed. */
enum status vm_directory_fetch(struct vm *vm, char *text, size_t text_bytes) MUST_CHECK;
enum status vm_directory_drop(struct vm *vm, char *text, size_t text_bytes) MUST_CHECK;
/* Removes vm.conf; with `disks` also its disks there; its directory, where nothing is left in it. With OK, text: what
 * is left. */
enum status vm_directory_remove(struct vm *vm, bool disks, char *text, size_t text_bytes) MUST_CHECK;

#endif
