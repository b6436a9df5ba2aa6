/* SPDX-License-Identifier: MIT */
/* What vpci.c and vpci_msix.c share; nobody else includes it. */
#ifndef VDEV_VPCI_INTERNAL_H
#define VDEV_VPCI_INTERNAL_H

#include "vdev/vpci.h"

/* Little-endian fields of configuration space. */
void vpci_put16(uint8_t *bytes, uint16_t value);
void vpci_put32(uint8_t *bytes, uint32_t value);
uint32_t vpci_get32(const uint8_t *bytes);

/* Makes the MMIO bus agree with all BARs and command registers. */
void vpci_map_bars(struct vpci *pci);
/* Makes the interrupt line and the status register agree with intx_wanted, command register and MSI-X. */
void vpci_update_intx(struct vpci_function *fn);
/* Sends what is pending and no longer masked. */
void vpci_msix_flush(struct vpci_function *fn);
/* All vectors masked, nothing pending. */
void vpci_msix_reset(struct vpci_function *fn);

#endif
