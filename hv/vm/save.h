/* SPDX-License-Identifier: MIT */
/*
 * A whole machine into a state stream in the node's memory, and back. docs/state-stream.md lists the sections.
 *
 * All of it runs on the VM's own thread, with every vCPU parked (or not made yet) and the guest's clocks stopped.
 * save_orders.c does what comes before and after: parking, threads, states.
 */
#ifndef VM_SAVE_H
#define VM_SAVE_H

#include "vm/machine.h"
#include "vm/save_stream.h"

/*
 * Lets the devices finish what they have begun, and take nothing new. false: something is still under way after some
 * seconds (text says what), and they go on as before. Clocks may run.
 */
bool save_quiesce(struct vm *vm, char *text, size_t text_bytes) MUST_CHECK;
/* The devices go on, after save_quiesce or save_read. */
void save_resume_devices(struct vm *vm);

/*
 * Writes vm->saved; with `spill`, most of it goes on from there (saved.h), and where that fails `text` is whoever's that
 * is not empty. The machine is as it was afterwards, whatever the result. ERR_NO_MEMORY: the node has not enough; nothing is held.
 */
struct saved_spill;
enum status save_write(struct vm *vm, bool paused, const struct saved_spill *spill, char *text, size_t text_bytes)
    MUST_CHECK;

/*
 * Checks all of vm->saved, where it is in memory, then builds the machine and fills it, checking each section before it is used. Its clocks stand (vm->clock_stopped), its devices are
 * quiesced, its vCPUs have no threads. On failure the machine may be half built: the caller takes it down; vm->saved
 * is as it was. *paused: it was paused when it was saved.
 */
enum status save_read(struct vm *vm, bool *paused, char *text, size_t text_bytes) MUST_CHECK;

/* Fills a list of what is in vm->saved, and checks it. */
void save_describe(struct vm *vm, struct vm_saved *description);

#endif
