/* SPDX-License-Identifier: MIT */
/* pci: the devices of this machine. */
#include "drivers/pci_host.h"
#include "shell/tables.h"

static enum status pci_list(struct shell *shell, const struct command_call *call)
{
    struct out *out = &shell->out;
    const struct pci_function *f;
    char name[PCI_NAME_BYTES];
    (void)call;

    out_array_begin(out, "devices");
    for (unsigned i = 0; (f = pci_get(i)) != NULL; i++) {
        pci_name(f, name);
        out_object_begin(out, NULL);
        out_string(out, "address", name);
        out_string(out, "class", pci_class_name(f));
        out_stringf(out, "device", "%04x:%04x", f->vendor, f->device);
        out_string(out, "driver", f->driver);
        out_string(out, "interrupt", f->driver ? pci_interrupt_name(f->interrupt) : NULL);
        out_object_end(out);
    }
    out_array_end(out);
    return OK;
}

const struct command pci_commands[] = {
    { .noun = "pci", .verb = "list", .summary = "List the devices on the PCI buses and who drives them", .run = pci_list,
      .help = "A device without a driver cannot reach memory: its bus mastering is off. Bridges and displays keep it." },
    { .noun = NULL },
};
