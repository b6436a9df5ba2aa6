/* SPDX-License-Identifier: MIT */
/*
 * The machine's PCI devices (pci.h is the pure part): found once at boot, claimed by drivers. There is no IOMMU in use: a
 * device that is claimed may reach all memory, so what a driver tells it is what keeps memory safe; a device that nobody
 * claimed may reach none.
 */
#ifndef DRIVERS_PCI_HOST_H
#define DRIVERS_PCI_HOST_H

#include "drivers/pci.h"

/* Finds all devices and takes bus mastering away from them. Boot CPU, once, before any driver. */
void pci_init(void);

/* Device number i in the order of buses, or NULL behind the last. Any context; lives for ever. */
struct pci_function *pci_get(unsigned i);
/* "00:02.0" */
#define PCI_NAME_BYTES 8
void pci_name(const struct pci_function *function, char name[PCI_NAME_BYTES]);

/*
 * Makes `driver` (a constant) the owner of a device that has none: wakes it where the firmware let it sleep, sizes its
 * registers and lets it decode memory. It cannot reach memory yet. ERR_BUSY: it has an owner. Thread context.
 */
enum status pci_claim(struct pci_function *function, const char *driver, struct pci_bar bar[PCI_BARS]) MUST_CHECK;
/* Maps a memory BAR's registers, or NULL: no such BAR, smaller than `bytes`, or no memory. Mapped for ever. */
volatile void *pci_map(const struct pci_bar *bar, uint64_t bytes) MUST_CHECK;
/* Lets the device reach memory: after the driver has reset it, so that nothing runs that the firmware began. Any context. */
void pci_master(const struct pci_function *function, bool on);
/*
 * No more interrupts, no more memory, no owner. The driver has stopped the device. On the CPU that pci_listen was called on:
 * the handler is not called any more when this returns.
 */
void pci_release(struct pci_function *function);

/*
 * Takes memory away from all devices that have drivers (the others never had it), for good: before the firmware gets it.
 * Thread context.
 */
void pci_silence(void);

#define PCI_ALLOW_MSIX 1
#define PCI_ALLOW_MSI 2
/*
 * Has the device interrupt the calling CPU: handler(arg) runs there with interrupts off, and returns whether the device
 * wanted something (INTx lines are shared). The best of MSI-X (entry 0), MSI and INTx that the device and `allow` have;
 * PCI_INTERRUPT_POLLED where there is none. Thread context. The handler stays until pci_release.
 */
enum pci_interrupt pci_listen(struct pci_function *function, const struct pci_bar bar[PCI_BARS], unsigned allow,
                              bool (*handler)(void *arg), void *arg);

/* Configuration space, for what is special to one device. */
uint32_t pci_read(const struct pci_function *function, unsigned offset, unsigned bytes);
const struct pci_access *pci_access(void);

#endif
