/* SPDX-License-Identifier: MIT */
/*
 * The inside of a VM: its vCPUs with their APICs, its devices, its clock. Private to vm/.
 *
 * Locks: `lock` is the machine's device lock; it is held around every call into a device except the APICs' own side,
 * and never across a wait. A vCPU's fields belong to its thread, or to the VM's thread while the vCPU is parked.
 */
#ifndef VM_MACHINE_H
#define VM_MACHINE_H

#include "kernel/spinlock.h"
#include "kernel/thread.h"
#include "kernel/time.h"
#include "kernel/timer.h"
#include "vdev/ramdisk.h"
#include "vdev/vdev.h"
#include "vdev/vgsi.h"
#include "vdev/vioapic.h"
#include "vdev/virtio_blk.h"
#include "vdev/virtio_console.h"
#include "vdev/virtio_rng.h"
#include "vdev/vlapic.h"
#include "vdev/vpci.h"
#include "vdev/vpic.h"
#include "vdev/vpit.h"
#include "vdev/vpm.h"
#include "vdev/vrtc.h"
#include "vdev/vuart.h"
#include "vm/config.h"
#include "vm/lun.h"
#include "vm/vm.h"
#include "vmm/cpuid_model.h"
#include "vmm/dirty.h"
#include "vmm/emulate.h"
#include "vmm/gmem.h"
#include "vmm/hyperv.h"
#include "vmm/length_cache.h"
#include "vmm/msr_policy.h"
#include "vmm/run.h"
#include "vmm/stage2.h"

#define MACHINE_IOAPIC_ID 0 /* four bits, in a space of its own: up to 32 local APICs do not leave it a number of theirs */
#define MACHINE_PCI_BASE 0xe0000000ull
#define MACHINE_PCI_END 0xfec00000ull
#define MACHINE_SLOT_DISK_FIRST 3 /* on the guest's PCI bus */
#define MACHINE_SLOT_NET_FIRST (MACHINE_SLOT_DISK_FIRST + CONFIG_MAX_DISKS)
#define MACHINE_DEVICES (CONFIG_MAX_DISKS + CONFIG_MAX_CARDS + 2)
#define MACHINE_DRAIN_NS (3 * NS_PER_S) /* for what disks have under way when the guest's life ends */
#define MACHINE_DISK_SLOTS 32     /* requests in flight of one disk */
#define MACHINE_CONSOLE_INPUT 1024
#define MACHINE_REFUSED_MSRS 16   /* of which each is logged once */

/* What other vCPUs and devices ask of a vCPU; bits of machine_cpu.signals. */
#define SIGNAL_INIT BIT(0)
#define SIGNAL_SIPI BIT(1)

struct machine_cpu {
    struct vcpu vcpu; /* first member */
    struct vm *vm;
    struct vlapic apic;
    struct vtimer_queue timers;
    struct msr_state msrs;
    struct hyperv_vcpu hyperv;
    uint64_t tsc_adjust;
    uint32_t signals;      /* atomic */
    uint8_t sipi_vector;
    bool waits_for_sipi;
    enum apic_assist assist; /* what the backend was told last */
    struct emu_ops emu_ops;
    struct length_cache lengths; /* of instructions that touch device registers, where the backend keeps none */
};

struct machine_disk {
    struct virtio_blk blk;
    struct ramdisk ram;
    struct lun *lun;             /* the disk is a storage's; NULL: it is the RAM copy, and the next four count */
    const uint8_t *image;        /* the boot module */
    uint64_t image_bytes;
    hpa_t *chunks;               /* the VM's own copy, 2 MiB each, made when first touched; 0 = not yet */
    uint64_t chunk_count;
    struct virtio_blk_slot slots[MACHINE_DISK_SLOTS];
    page_owner_t owner;
    char name[96];
};

struct vm {
    struct vm_core core; /* first member */
    struct config_vm config;
    char name[CONFIG_MAX_NAME_BYTES + 1];
    char *strings;       /* what config points to */
    size_t strings_bytes;

    /* The mailbox. */
    struct wait_queue queue;      /* the VM's thread waits here */
    struct wait_queue done;       /* who gave an order waits here */
    uint32_t orders;              /* atomic; 1 << enum vm_order, and the ORDER_ bits below */
    uint32_t order_busy;          /* atomic; somebody has an order under way */
    bool order_done;
    enum status result;
    char result_text[VM_TEXT_BYTES];
    bool gone;                    /* its thread has ended */
    unsigned references;          /* under the list's lock */

    enum vm_state state;
    char reason[VM_TEXT_BYTES];
    uint64_t since_ns;
    unsigned reset_count;
    uint64_t run_deadline_ns;     /* host time; TIME_NEVER: none */
    uint64_t reset_window_ns;     /* host time; see resets_too_often */
    unsigned resets_in_window, crash_reports;
    uint32_t deferred_orders;     /* the guest's, until it is resumed */
    bool cpus_shown;              /* under the list's lock: vm.c, fill_info */
    bool waits_for_disk;          /* VM_PAUSED by the loss of a storage, or a full volume: goes on when it is back, or has room */
    bool built;                   /* memory, vCPUs and devices exist */
    void *order_argument;         /* of the order under way: in and out */
    struct saved *saved;          /* VM_SAVED: its state, where it is not on a volume; else NULL */
    uint64_t saved_bytes;         /* of a state on a volume */
    bool changed;                 /* vm.conf was, since the VM was built */
    bool starts;                  /* to be started when all that it needs is there */
    int64_t made_ns;              /* when its directory on a volume was made; 0: it has none. Atomic */
    char problem[VM_TEXT_BYTES];  /* with its vm.conf; "": none. Under the list's lock, as `config` of a VM on a volume */
    page_owner_t saved_owner;     /* of *saved */
    uint64_t saved_guest_ns;      /* the guest's clock in it */
    enum dirty_engine dirty_engine; /* DIRTY_OFF: the log is off */

    struct machine_cpu *cpu[VLAPIC_MAX];
    struct vcpu *vcpu[VLAPIC_MAX];
    unsigned cpu_count;
    struct gmem gmem;
    struct stage2 stage2;
    struct gmem_ops memory;
    struct cpuid_model model;
    struct hyperv hyperv;
    uint64_t clock_base_ns;       /* host time of guest time 0, moved on by pauses */
    bool clock_stopped;           /* the guest's clocks stand, at: */
    uint64_t paused_at_ns, paused_at_tsc; /* host clocks, one moment, when the guest's were stopped last */
    uint64_t tsc_offset;          /* guest TSC = machine_tsc() + this */
    uint32_t tsc_rate_khz;        /* at which it really runs here; what the guest is told is model.tsc_khz */

    struct spinlock lock;         /* the device lock */
    struct vbus ports, mmio;
    struct vtimer_queue timers;
    struct timer host_timer;      /* for the head of `timers` */
    struct vlapic_bus apics;
    struct vioapic ioapic;
    struct vpic pic;
    struct vgsi gsi;
    struct vpit pit;
    struct vrtc rtc;
    struct vuart com1;
    struct vpm pm;
    struct vpci pci;
    struct virtio_console console;
    struct virtio_rng rng;
    struct machine_disk *disk[CONFIG_MAX_DISKS];
    struct machine_net *net[CONFIG_MAX_CARDS]; /* machine_net.h */
    struct virtio_device *device[MACHINE_DEVICES];
    unsigned device_count;

    /* The console: output kept for whoever looks, input waiting for the guest. */
    struct spinlock console_lock;
    char *console_ring;           /* the last bytes of the output: by position, modulo its size */
    uint64_t console_mask;        /* its size, a power of two, - 1 */
    uint64_t console_oldest;      /* position from which on it is whole, unless overwritten since */
    uint64_t console_written;
    uint8_t input[MACHINE_CONSOLE_INPUT];
    unsigned input_first, input_count;
    bool virtio_spoke; /* last, of the two consoles: it gets the input. Under `lock` */

    uint32_t refused_msr[MACHINE_REFUSED_MSRS];
    unsigned refused_msr_count;
    bool apic_page_mapped;        /* under the device lock */
};

/* Orders that come from inside. */
#define ORDER_WORK BIT(16)        /* devices: timers, queues, console input */
#define ORDER_GUEST_OFF BIT(17)   /* the guest switched itself off */
#define ORDER_GUEST_RESET BIT(18) /* the guest asked for a reset, or fell over */
#define ORDER_FAILED BIT(19)      /* a vCPU cannot go on; reason is set */
#define ORDER_DISKS BIT(20)       /* a storage is lost, or is back */

/* The guest's monotonic clock, which stands while its clocks are stopped. */
static inline uint64_t machine_now(const struct vm *vm)
{
    return (unlikely(vm->clock_stopped) ? vm->paused_at_ns : time_now_ns()) - vm->clock_base_ns;
}

/*
 * Host time at which the guest's clock reaches `deadline`, TIME_NEVER for never. From now on, and not by the clock's
 * base: the clock of a guest that came from elsewhere may be ahead of this node's uptime.
 */
static inline uint64_t machine_host_time(const struct vm *vm, uint64_t deadline)
{
    uint64_t host_now = time_now_ns(), now = machine_now(vm), wait = deadline > now ? deadline - now : 0;

    return wait < TIME_NEVER - 1 - host_now ? host_now + wait : TIME_NEVER;
}

/* The TSC of a guest that never had an offset: the host's, scaled. It stands likewise. */
static inline uint64_t machine_tsc(const struct vm *vm)
{
    return tsc_scale(vm->core.tsc_multiplier, unlikely(vm->clock_stopped) ? vm->paused_at_tsc : rdtsc());
}

/*
 * machine.c: builds and takes down everything below struct vm; the text says what failed. `model`: the CPU model that it
 * is to have (copied), NULL: the one that its configuration names. VM's thread.
 */
enum status machine_build(struct vm *vm, const struct cpuid_model *model, char *text, size_t text_bytes) MUST_CHECK;
void machine_destroy(struct vm *vm);
/* A CPU model of this host with the VM's vCPUs; name as in the configuration, NULL = "host". */
enum status machine_model(const struct vm *vm, const char *name, struct cpuid_model *model, char *text,
                          size_t text_bytes) MUST_CHECK;
/* The Hyper-V interface at power-up, at the guest's time. */
void machine_hyperv_init(struct vm *vm);
/*
 * The boot module with that path, which stays the node's; ERR_NOT_FOUND, with a text, where the configuration did not name it
 * or the firmware could not read it. Or a file on a volume, whose bytes are in memory until machine_file_close(). `kind` is the
 * word for it in the text.
 */
struct boot_file;
enum status machine_file(const struct vm *vm, const char *kind, const char *path, struct boot_file *file, char *text,
                         size_t text_bytes) MUST_CHECK;
/* Of zeros: nothing. */
void machine_file_close(struct boot_file *file);
/*
 * machine_disk.c: the virtio disks that the configuration asks for, from slot `first_slot` of the bus on; half built ones are
 * destroyed too.
 */
enum status machine_build_disks(struct vm *vm, const struct virtio_owner *owner, unsigned first_slot, char *text,
                                size_t text_bytes) MUST_CHECK;
void machine_destroy_disks(struct vm *vm);
/*
 * Looks how the disks' files are now, so that machine_disk_tell() can say it, under the device lock too. May wait. Not OK with
 * a text.
 */
enum status machine_note_disks(struct vm *vm, char *text, size_t text_bytes) MUST_CHECK;
/* Makes the file of disk i larger, durably, and tells the guest. May wait. Not OK with a text. */
enum status machine_grow_disk(struct vm *vm, unsigned i, uint64_t bytes, char *text, size_t text_bytes) MUST_CHECK;
/* What identifies disk i, and tells that nobody has written it since. */
struct save_disk;
void machine_disk_tell(const struct vm *vm, unsigned i, struct save_disk *disk);
/*
 * Gives the disks' files another time of modification, durably: from now on a guest writes them, which leaves no other trace,
 * and a state that was saved before must not be restored any more. May wait. Not OK with a text.
 */
enum status machine_mark_disks(struct vm *vm, char *text, size_t text_bytes) MUST_CHECK;
/* Answers what storages have done for the guest's disks. Device lock. */
void machine_complete_disks(struct vm *vm);
/*
 * Nothing of the storages' is under way for the guest's disks when it returns; what is after `ns` is cancelled. All vCPUs are
 * parked or gone.
 */
void machine_drain_disks(struct vm *vm, uint64_t ns);
/* Whether a storage of the VM's disks is lost, and why (STORAGE_TEXT bytes). */
bool machine_disk_lost(struct vm *vm, char *why);
/* Whether one is lost for good, for another node has it now. */
bool machine_disk_fenced(struct vm *vm);
/* A disk's write waits for its volume to take it; likewise. */
bool machine_disk_stuck(struct vm *vm, char *why);
/* Tells the guest which of its disks, units of storages, have grown. The VM's thread, no lock. */
void machine_tell_grown_disks(struct vm *vm);
/* Tries such writes again. */
void machine_retry_disks(struct vm *vm);
/* Device work of the VM's thread; true if there is more at once. */
bool machine_work(struct vm *vm);

/* machine_boot.c: loads the kernel and sets every vCPU to its start. Memory is zero. */
enum status machine_boot(struct vm *vm, char *text, size_t text_bytes) MUST_CHECK;
/* Back to power-up: devices and vCPUs (which are parked), memory zero. */
void machine_reset(struct vm *vm);

/* vcpu.c: what the run loop asks (struct vcpu_ops). */
extern const struct vcpu_ops machine_vcpu_ops;
extern const struct vlapic_ops machine_apic_ops;
void machine_cpu_reset(struct machine_cpu *cpu, bool init);
void machine_timers_changed(void *cpu);
/* A local APIC has changed its mode, or may have. Thread context: a vCPU's own, or the VM's with all vCPUs parked. */
void machine_apic_page_update(struct vm *vm);

/* exits.c */
bool machine_exit(struct vcpu *vcpu, struct vm_exit *exit);
void machine_emu_ops(struct machine_cpu *cpu);
/* Rings the virtio doorbell at gpa; false: there is none. No lock. */
bool machine_doorbell(struct vm *vm, gpa_t gpa);

/* fast_mmio.c: carries out the MOV that met a device register; false: nothing is done, the emulator must. */
bool machine_simple_move(struct vcpu *vcpu, const struct vm_exit *exit) MUST_CHECK;

/* vm.c, the list. The VM of that name, with a reference to give back by vm_put; NULL: there is none. Any thread. */
struct vm *vm_get(const char *name) MUST_CHECK;
/* One more reference, for who has one. */
void vm_hold(struct vm *vm);
/* Gives a reference back; the last one frees the VM, whose machine is taken down by then. */
void vm_put(struct vm *vm);
/* Takes it off the list, with the list's reference; nobody finds it any more. The caller holds a reference. */
void vm_list_remove(struct vm *vm);
/* Whether vm_info_get may look at the vCPUs, which it does from other threads. VM's thread. */
void vm_show_cpus(struct vm *vm, bool show);
/* Says so in `text`; always ERR_NOT_FOUND. */
enum status vm_no_such(const char *name, char *text, size_t text_bytes) MUST_CHECK;

/*
 * vm.c: takes another configuration, and what is wrong with it, of a VM that is not built. VM's thread. ERR_NO_MEMORY, with a
 * text: it has its old one.
 */
enum status vm_reconfigure(struct vm *vm, const struct config_vm *config, const char *problem, char *text, size_t text_bytes)
    MUST_CHECK;
/*
 * Whether another VM on this node has that UUID and the better right to it, and its name (CONFIG_MAX_NAME_BYTES + 1): one that
 * runs, or one whose directory is older. `vm` is not built.
 */
bool vm_uuid_taken(const struct vm *vm, const char *uuid, char *name);

/* orders.c: runs fn(vm, arg) in the VM's thread, between its orders; as vm_order(). */
typedef enum status vm_call_fn(struct vm *vm, void *arg, char *text, size_t text_bytes);
enum status vm_call(const char *name, vm_call_fn *fn, void *arg, char *text, size_t text_bytes) MUST_CHECK;

/* orders.c: the VM's thread, a thread_create function; `vm` is a struct vm of which it holds a reference until it ends. */
void vm_thread(void *vm);

/* orders.c, for who carries out orders on the VM's thread. */
void vm_park_all(struct vm *vm);
void vm_unpark_all(struct vm *vm);
/* The guest's clocks stand from the one to the other; all vCPUs are parked. Starting clocks that run does nothing. */
void vm_stop_clocks(struct vm *vm);
void vm_start_clocks(struct vm *vm);
/* Makes the vCPUs' threads. `requests`: what they find at once; REQ_PARK keeps them out of the guest. */
enum status vm_start_threads(struct vm *vm, uint32_t requests, char *text, size_t text_bytes) MUST_CHECK;
/* Ends the threads and destroys the machine; none: nothing. */
void vm_take_down(struct vm *vm);
/* Notes and logs a change of state; the reason of an earlier one is forgotten. */
void vm_set_state(struct vm *vm, enum vm_state state);
/* True, with words, once the node is going down. */
bool vm_starts_refused(const struct vm *vm, char *text, size_t text_bytes);

/* save_orders.c: orders about a saved state; the argument of vm_do_describe is a struct vm_saved. */
enum status vm_do_save(struct vm *vm, char *text, size_t text_bytes) MUST_CHECK;
enum status vm_do_restore(struct vm *vm, char *text, size_t text_bytes) MUST_CHECK;
enum status vm_do_describe(struct vm *vm, char *text, size_t text_bytes) MUST_CHECK;
/* Gives the stream's memory back, or removes its file; none: nothing. Not OK: the file is still there, or may be. */
enum status vm_drop_saved(struct vm *vm, char *text, size_t text_bytes) MUST_CHECK;

/* track.c: orders about the dirty log. The argument is a struct vm_dirty. */
enum status track_start(struct vm *vm, char *text, size_t text_bytes) MUST_CHECK;
enum status track_collect(struct vm *vm, char *text, size_t text_bytes) MUST_CHECK;
enum status track_stop(struct vm *vm, char *text, size_t text_bytes) MUST_CHECK;

/* orders.c: the next order may come. Whoever has order_busy. */
void vm_orders_open(struct vm *vm);
/* orders.c: tells the VM's thread. Any context. */
void vm_signal(struct vm *vm, uint32_t orders);
/* A vCPU cannot go on: remembers why (the first reason wins) and tells the VM's thread. */
void vm_fail(struct vm *vm, const char *format, ...) PRINTF_LIKE(2, 3);
/* vm.c: keeps what the guest printed. */
void vm_console_output(struct vm *vm, const void *bytes, size_t count);

#endif
