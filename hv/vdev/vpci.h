/* SPDX-License-Identifier: MIT */
/*
 * The PCI bus of a guest: bus 0, configuration mechanism #1 at ports 0xcf8 and 0xcfc (PCI Local Bus 3.0, 3.2.2.3.2), a
 * host bridge at 00:00.0 and up to 31 single-function devices in slots 1 to 31. There is no firmware in front of a
 * directly booted kernel, so this bus does its work: every BAR gets an address when its function is added, memory
 * decoding is on, and the interrupt line register holds the 8259's input (vpci_irq), as firmware writes it on a PC
 * (PCI 3.0, 6.2.4).
 *
 * What the machine's ACPI tables must say: memory window [mmio_base, mmio_end) in _CRS, I/O 0xcf8-0xcff consumed, and
 * in _PRT for each slot s pin INTA -> GSI 16 + s % 8 (vpci_gsi), or where the 8259s are in use the input vpci_irq,
 * level, active low, no link device. Several slots share a GSI; the bus ORs their requests, so the line goes down only
 * when nobody asks any more. That each GSI reaches an input of the 8259s too is the machine's business (vgsi.h).
 *
 * BARs decode only inside the window. A BAR that a guest moves elsewhere, or onto another range of the MMIO bus,
 * answers nothing until it is moved to a free place; guest RAM is never shadowed because the window holds none.
 *
 * Everything here is called with the machine's device lock held.
 */
#ifndef VDEV_VPCI_H
#define VDEV_VPCI_H

#include "vdev/vdev.h"

#define VPCI_SLOTS 32
#define VPCI_BARS 6
#define VPCI_MSIX_MAX 64 /* vectors of one function */
#define VPCI_PORT_BASE 0xcf8
#define VPCI_PORT_BYTES 8
#define VPCI_GSI_BASE 16
#define VPCI_GSI_COUNT 8
#define VPCI_IRQ_BASE 10 /* inputs of the 8259 pair that the GSIs share, level-triggered */
#define VPCI_IRQ_COUNT 2

/* Offsets and bits of the configuration header (PCI 3.0, 6.1 and 6.2). */
#define PCI_VENDOR_ID 0x00
#define PCI_DEVICE_ID 0x02
#define PCI_COMMAND 0x04
#define PCI_COMMAND_MEMORY 0x0002
#define PCI_COMMAND_MASTER 0x0004
#define PCI_COMMAND_INTX_OFF 0x0400
#define PCI_STATUS 0x06
#define PCI_STATUS_INTX 0x0008
#define PCI_STATUS_CAPS 0x0010
#define PCI_REVISION 0x08
#define PCI_CLASS_PROG 0x09
#define PCI_CACHE_LINE 0x0c
#define PCI_BAR0 0x10
#define PCI_SUBSYSTEM_VENDOR 0x2c
#define PCI_SUBSYSTEM_ID 0x2e
#define PCI_CAP_POINTER 0x34
#define PCI_INTERRUPT_LINE 0x3c
#define PCI_INTERRUPT_PIN 0x3d
#define PCI_CAP_VENDOR 0x09
#define PCI_CAP_MSIX 0x11

struct vpci;
struct vpci_function;

/* What a function may want to know or do itself. Every member may be NULL. */
struct vpci_function_ops {
    /*
     * An access to a part of configuration space that vpci_hook_config() named: 1, 2 or 4 bytes, naturally aligned and
     * not crossing a dword. A write has already been stored under the writable mask when it is called.
     */
    uint32_t (*config_read)(void *device, unsigned offset, unsigned size, uint32_t stored);
    void (*config_write)(void *device, unsigned offset, unsigned size, uint32_t value);
    void (*command_changed)(void *device);      /* the command register changed (bus mastering, memory decoding) */
    void (*bar_moved)(void *device, unsigned bar); /* the BAR was mapped, moved or taken away */
};

struct vpci_bar {
    uint64_t bytes; /* power of two from 16 bytes to 2 GiB; 0: not there */
    bool is_64bit;  /* takes the next BAR's place as well */
    bool prefetchable;
    const struct vdev_ops *ops;
    uint64_t initial; /* the address that the bus gave it */
    uint64_t mapped;  /* where it is on the MMIO bus now; meaningful if is_mapped */
    bool is_mapped;
};

struct vpci_msix_entry { uint64_t address; uint32_t data, control; };
struct vpci_msix {
    unsigned count;  /* 0: no MSI-X */
    unsigned offset; /* of the capability */
    uint64_t pending;
    struct vpci_msix_entry entry[VPCI_MSIX_MAX];
};

struct vpci_function {
    struct vpci *bus; /* NULL: not on a bus */
    unsigned slot;
    const struct vpci_function_ops *ops;
    void *device;
    bool intx_wanted;     /* the device asserts INTA; whether the pin follows is the command register's business */
    unsigned cap_last;    /* offset of the last capability, for linking; 0: none */
    unsigned cap_next;    /* first free byte for capabilities */
    uint8_t config[256];
    uint8_t writable[256]; /* bits that a guest may change */
    uint8_t initial[256];  /* what a reset restores */
    unsigned hook_base, hook_bytes;
    struct vpci_bar bar[VPCI_BARS];
    struct vpci_msix msix;
};

/* How a machine wires its bus. Copied by vpci_init. */
struct vpci_wiring {
    struct vbus *ports;       /* 0xcf8..0xcff are added here */
    struct vbus *mmio;        /* BARs come and go here */
    uint64_t mmio_base, mmio_end; /* below 4 GiB, page-aligned, free of RAM and of every fixed device */
    struct vline gsi;         /* set(context, GSI, level); the pin member is not used */
    struct vmsi_sink msi;
    /* Byte accesses to port 0xcf9 (reset control), which lies inside the address register's dword; NULL: nobody. */
    const struct vdev_ops *reset_control;
    void *reset_control_device;
};

struct vpci {
    struct vpci_wiring wiring;
    uint32_t address; /* 0xcf8 */
    uint64_t mmio_next;
    struct vpci_function *function[VPCI_SLOTS];
    struct vpci_function host_bridge;
    uint32_t intx_slots[VPCI_GSI_COUNT]; /* bit s: slot s holds the line up */
};

static inline unsigned vpci_gsi(unsigned slot)
{
    return VPCI_GSI_BASE + slot % VPCI_GSI_COUNT;
}

/* The 8259's input that INTA of a slot reaches: always the one of its GSI, since the slots' count divides. */
static inline unsigned vpci_irq(unsigned slot)
{
    return VPCI_IRQ_BASE + slot % VPCI_IRQ_COUNT;
}
_Static_assert(VPCI_GSI_COUNT % VPCI_IRQ_COUNT == 0, "slots that share a GSI share an input of the 8259s");

/* Sets the bus up with its host bridge. ERR_INVALID: window; else what vbus_add said. */
enum status vpci_init(struct vpci *pci, const struct vpci_wiring *wiring) MUST_CHECK;

/*
 * Building a function, in this order: vpci_function_init, any of vpci_add_bar, vpci_add_cap, vpci_add_msix,
 * vpci_hook_config and writes to config[] for what has no setter, then vpci_attach. The memory is the caller's and must
 * outlive the bus. class_code: base class << 16 | subclass << 8 | programming interface.
 */
void vpci_function_init(struct vpci_function *fn, const struct vpci_function_ops *ops, void *device, uint16_t vendor,
                        uint16_t device_id, uint8_t revision, uint32_t class_code, uint16_t subsystem_vendor,
                        uint16_t subsystem_id);
/* A memory BAR. ops get offsets in the BAR and the function's `device`. ERR_INVALID: size, number, or taken. */
enum status vpci_add_bar(struct vpci_function *fn, unsigned bar, uint64_t bytes, bool is_64bit, bool prefetchable,
                         const struct vdev_ops *ops) MUST_CHECK;
/* Appends a capability; bytes[0] is its ID, bytes[1] is filled in. *offset may be NULL. ERR_NO_MEMORY: no room. */
enum status vpci_add_cap(struct vpci_function *fn, const uint8_t *bytes, unsigned count, unsigned *offset) MUST_CHECK;
/*
 * The MSI-X capability for `count` vectors, with table and pending bits at these offsets of that BAR. The BAR's ops
 * hand accesses to them to vpci_msix_read and vpci_msix_write.
 */
enum status vpci_add_msix(struct vpci_function *fn, unsigned count, unsigned bar, uint32_t table_offset,
                          uint32_t pba_offset) MUST_CHECK;
/* Routes configuration accesses in [offset, offset + bytes) through ops->config_read and config_write; one window. */
void vpci_hook_config(struct vpci_function *fn, unsigned offset, unsigned bytes);
/*
 * Puts the function into a slot (1 to 31), gives its BARs addresses and maps them. ERR_EXISTS: slot taken;
 * ERR_NO_MEMORY: the window or the MMIO bus is full (nothing is attached then).
 */
enum status vpci_attach(struct vpci *pci, struct vpci_function *fn, unsigned slot) MUST_CHECK;

/* Back to how it was after the last vpci_attach: BARs at their first addresses, MSI-X off, lines down. */
void vpci_reset(struct vpci *pci);

/* INTA of the function. Does nothing to the pin while MSI-X is on or the guest has switched INTx off. */
void vpci_set_intx(struct vpci_function *fn, bool level);
/* True if the guest has switched MSI-X on: then INTx is not used. */
bool vpci_msix_enabled(const struct vpci_function *fn);
/* Sends the vector's message, or remembers it as pending while it is masked or the function is no bus master. */
void vpci_msix_notify(struct vpci_function *fn, unsigned vector);
/* The MSI-X table and pending bits; offset from the table's or PBA's start, any size, outside reads 0. */
uint64_t vpci_msix_read(const struct vpci_function *fn, bool pba, uint64_t offset, unsigned size);
void vpci_msix_write(struct vpci_function *fn, uint64_t offset, unsigned size, uint64_t value);

static inline uint16_t vpci_command(const struct vpci_function *fn)
{
    return (uint16_t)(fn->config[PCI_COMMAND] | fn->config[PCI_COMMAND + 1] << 8);
}
static inline bool vpci_is_master(const struct vpci_function *fn)
{
    return vpci_command(fn) & PCI_COMMAND_MASTER;
}

/* Configuration space of one function, as through 0xcfc; 1, 2 or 4 bytes within a dword. For tests and ECAM. */
uint32_t vpci_config_read(struct vpci *pci, unsigned slot, unsigned function, unsigned offset, unsigned size);
void vpci_config_write(struct vpci *pci, unsigned slot, unsigned function, unsigned offset, unsigned size,
                       uint32_t value);

/*
 * One mandatory section "PCI" with the bus and every function's guest-writable state. The restoring bus must have been
 * built alike (same functions in the same slots); what does not fit fails the stream by name. BARs are remapped and
 * lines driven to their restored level; the owner calls it with the reader standing in that section.
 */
#define VPCI_STREAM_TAG "PCI"
#define VPCI_STREAM_VERSION 1
void vpci_save(const struct vpci *pci, struct stream_writer *w);
void vpci_restore(struct vpci *pci, struct stream_reader *r);

#endif
