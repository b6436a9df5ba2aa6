/* SPDX-License-Identifier: MIT */
/*
 * A virtual machine as the node's admin knows it: a name, a configuration, a state, and what can be asked of it.
 *
 * Each VM has one thread of its own, which does everything to it that cannot be done by a vCPU: starting, stopping,
 * resetting, pausing, saving, and the work of its devices. Orders come to that thread through a mailbox of bits, so
 * nothing is ever done to a VM by two threads at once, whoever asked and in whatever order.
 *
 * A VM of tasuki.conf, or one that the shell made beside it, is in the node's memory alone. One on a volume is a directory there
 * (vm_directory.h): its file vm.conf is read before each start, its saved state outlives the node.
 */
#ifndef VM_VM_H
#define VM_VM_H

#include "kernel/status.h"
#include "kernel/types.h"
#include "vm/config.h"
#include "vm/save_stream.h"
#include "vmm/dirty.h"

#define VM_MAX 64
#define VM_TEXT_BYTES 480

struct vm;

enum vm_state {
    VM_STOPPED, /* no memory, no vCPUs */
    VM_RUNNING,
    VM_PAUSED,  /* by the admin */
    VM_SAVED,   /* its state is kept: in the node's memory, or in its directory on a volume */
    VM_FAILED,  /* stopped by a fault of its own; everything is still there to be looked at: vm_info.reason */
};

struct vm_info {
    char name[CONFIG_MAX_NAME_BYTES + 1];
    enum vm_state state;
    char reason[VM_TEXT_BYTES]; /* why it is in that state, if there is something to say */
    uint64_t since_ns;          /* host time of the last change of state */
    unsigned vcpu_count;
    uint64_t memory_bytes;
    uint64_t held_bytes;        /* all host memory accounted to it */
    uint64_t exits;
    uint64_t guest_ns;          /* the guest's own clock */
    uint64_t guest_zero_ns;     /* host time at which it would have shown 0, had it never stood; 0: there is no guest */
    unsigned reset_count;
    unsigned disk_count, card_count;
    struct { char network[CONFIG_MAX_NAME_BYTES + 1]; uint64_t mac; } card[CONFIG_MAX_CARDS];
    char cpu_model[32];
    uint32_t tsc_khz;           /* as the guest is told; 0: as the host, not known before it is started */
    bool apic_virtualization;   /* its interrupts are delivered by the CPU */
    /* Of a VM on a volume; else "": */
    char volume[CONFIG_MAX_NAME_BYTES + 1], owner[CONFIG_MAX_NAME_BYTES + 1], uuid[CONFIG_UUID_CHARACTERS + 1];
    char problem[VM_TEXT_BYTES]; /* the first thing that is wrong with its vm.conf; "": none */
    uint64_t saved_bytes;        /* of its saved state, in memory or on the volume; 0: none */
    bool changed;                /* vm.conf was changed since it was started */
    bool starts;                 /* by itself, when its storages are there */
};

const char *vm_state_name(enum vm_state state);

/* The problem of a VM on a volume until its vm.conf was read for the first time. */
#define VM_NOT_READ "its vm.conf was not read yet; look again when its volume is mounted and was searched"

/* Makes a VM from a configuration; nothing runs yet. The strings are copied. Errors come with a text. */
enum status vm_create(const struct config_vm *config, char *text, size_t text_bytes) MUST_CHECK;
/*
 * Forgets a stopped or saved VM, and what was saved of it; of one on a volume its vm.conf goes too, with `disks` also the disks
 * in its directory, and the directory if nothing else is in it. With OK, `text` says what is left there.
 */
enum status vm_delete(const char *name, bool disks, char *text, size_t text_bytes) MUST_CHECK;

/*
 * The orders. Each waits until the order is carried out and returns what came of it; on failure `text` says object,
 * cause and cure. Thread context, not a VM's own thread.
 */
enum vm_order {
    VM_ORDER_START,
    VM_ORDER_STOP,     /* hard: as pulling the plug */
    VM_ORDER_SHUTDOWN, /* presses the power button */
    VM_ORDER_RESET,
    VM_ORDER_PAUSE,
    VM_ORDER_RESUME,
    VM_ORDER_INSPECT,  /* logs the registers of every vCPU */
    VM_ORDER_SAVE,     /* running or paused: its state goes into the node's memory, then it takes nothing else there; of a VM
                          on a volume into its directory */
    VM_ORDER_RESTORE,  /* saved: it goes on where it was. On failure its saved state is kept, and vm_info.reason says why */
    VM_ORDER_DESCRIBE, /* by vm_saved_describe */
    VM_ORDER_DIRTY_START, VM_ORDER_DIRTY_COLLECT, VM_ORDER_DIRTY_STOP, /* by vm_dirty */
    VM_ORDER_DEADLINE, /* vm_set_deadline */
    VM_ORDER_DELETE,   /* vm_delete */
    VM_ORDER_CALL,     /* machine.h, vm_call */
    VM_ORDER_COUNT,
};
/* With OK, `text` has a message of its own where there is more to say than that it is done; else it is empty. */
enum status vm_order(const char *name, enum vm_order order, char *text, size_t text_bytes) MUST_CHECK;

/* What a saved VM's stream holds; `error` is empty if all of its checksums are right. */
#define VM_SAVED_ROWS 32
struct vm_saved {
    uint64_t bytes, section_count;
    unsigned row_count;
    struct save_row row[VM_SAVED_ROWS];
    char error[160];
};
enum status vm_saved_describe(const char *name, struct vm_saved *description, char *text, size_t text_bytes) MUST_CHECK;

/*
 * The dirty log: which of a VM's pages were written. The three orders VM_ORDER_DIRTY_*; `dirty` (large: not on a stack)
 * says with what, and takes what came of it. The log ends with the VM.
 */
#define VM_DIRTY_RANGES 512
struct vm_dirty {
    enum dirty_engine engine;  /* start: which; DIRTY_OFF: the best that the CPU has. All: which it is */
    uint64_t page_count;       /* collect: pages of 4 KiB */
    uint64_t ticks;            /* collect: of the host's TSC, what the log's own work took */
    uint64_t range_count;      /* of pages that follow each other; the first VM_DIRTY_RANGES are in range[] */
    struct { uint64_t gfn, count; } range[VM_DIRTY_RANGES];
};
const char *vm_dirty_engine_name(enum dirty_engine engine);
enum status vm_dirty(const char *name, enum vm_order order, struct vm_dirty *dirty, char *text, size_t text_bytes) MUST_CHECK;

/*
 * Whether the CPU delivers the interrupts of VMs that are started or restored from now on (APIC virtualization): where it
 * can and does it right, where it can, or not. Else software does, and a VM's state knows no difference. Any context.
 */
void vm_set_apic_virtualization(enum config_apic apic);
bool vm_apic_virtualization(void);

/* From now on every start and restore is refused: the node is going down. */
void vm_refuse_starts(void);

/* Past this host time (time_now_ns) no instruction of the VM runs; TIME_NEVER takes the deadline away. */
enum status vm_set_deadline(const char *name, uint64_t deadline_ns, char *text, size_t text_bytes) MUST_CHECK;

/* The index-th VM, in order of creation; false past the last. */
bool vm_info_get(unsigned index, struct vm_info *info);
bool vm_info_find(const char *name, struct vm_info *info);
/* What its i-th disk is, as it is configured, a path from a vm.conf in full; false behind the last. */
#define VM_DISK_BYTES 1024
bool vm_disk_get(const char *name, unsigned i, char path[VM_DISK_BYTES]);

/* ---- Console ---- */

#define VM_CONSOLE_BYTES (64 * KIB)     /* of output that are kept */
#define VM_CONSOLE_OPEN_BYTES (1 * MIB) /* while somebody reads: a guest prints faster than a serial line takes it */

/*
 * Opens the console; *position (a count of bytes since the VM was made) is the oldest byte that is kept. Output is never
 * held up by who reads it, so what is printed too fast is lost, and vm_console_read says how much. Where memory is short,
 * no more than VM_CONSOLE_BYTES are kept while it is open. false: no such VM. One reader at a time; each open has its close.
 */
bool vm_console_open(const char *name, uint64_t *position) MUST_CHECK;
void vm_console_close(const char *name);
/*
 * Copies output from `*position` on and moves it. Returns the bytes copied, 0 if there is nothing new. *lost: how many
 * bytes before them are no longer kept.
 */
size_t vm_console_read(const char *name, uint64_t *position, void *bytes, size_t count, uint64_t *lost);
/* Types into the console; returns the bytes taken. */
size_t vm_console_write(const char *name, const void *bytes, size_t count);

#endif
