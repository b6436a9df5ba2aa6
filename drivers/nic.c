/* SPDX-License-Identifier: MIT */
/* What all drivers of network cards do alike when they take a card, and when they find that it cannot be used. */
#include "drivers/nic.h"

#include <stdio.h>

#include "kernel/heap.h"
#include "kernel/log.h"

static void refused(const char *name, const char *why)
{
    log_error("%s: the card cannot be used: %s", name, why);
}

struct nic *nic_begin(struct pci_function *f, const char *driver, size_t bytes, const struct nic_ops *ops,
                      const struct nic_user *user, struct pci_bar bar[PCI_BARS])
{
    struct nic *nic = kzalloc(bytes);
    char at[PCI_NAME_BYTES], name[sizeof nic->name];

    pci_name(f, at);
    snprintf(name, sizeof name, "%s %s", driver, at);
    if (!nic) {
        refused(name, "there is no memory for it");
        return NULL;
    }
    *nic = (struct nic){ .ops = ops, .pci = f, .user = user };
    snprintf(nic->name, sizeof nic->name, "%s", name);
    if (pci_claim(f, driver, bar) == OK)
        return nic;
    refused(name, "it has a driver already");
    kfree(nic, bytes);
    return NULL;
}

struct nic *nic_refuse(struct nic *nic, size_t bytes, const char *why)
{
    refused(nic->name, why);
    kfree(nic, bytes);
    return NULL;
}
