/* SPDX-License-Identifier: MIT */
/*
 * PCI configuration space. See pci.h.
 *
 * Nothing that a device or the firmware says is believed further than it is checked: bus numbers of bridges may loop,
 * capability lists may loop or point into the header, sizes may be no sizes.
 */
#include "drivers/pci.h"

#define ALL_ONES 0xffffffffu
#define HEADER_MULTI 0x80
#define MSI_ADDRESS 0xfee00000u
/* Offsets in the MSI capability, and bits of its control word (6.8.1). */
#define MSI_CONTROL 2
#define MSI_ENABLE BIT(0)
#define MSI_MULTIPLE (7u << 4)
#define MSI_64BIT BIT(7)
#define MSI_MASKABLE BIT(8)
/* In the MSI-X capability (6.8.2). */
#define MSIX_CONTROL 2
#define MSIX_TABLE 4
#define MSIX_ENABLE BIT(15)
#define MSIX_MASK_ALL BIT(14)
#define MSIX_ENTRY_WORDS 4
#define MSIX_ENTRY_MASKED 1u

static uint32_t get(const struct pci_access *access, struct pci_address at, unsigned offset, unsigned bytes)
{
    return access->read(access, at, offset, bytes);
}

/* ---- What there is ---- */

static bool read_function(const struct pci_access *access, struct pci_address at, struct pci_function *f)
{
    uint32_t id = get(access, at, PCI_VENDOR, 4);

    if ((id & 0xffff) == 0xffff)
        return false;
    uint32_t class = get(access, at, PCI_REVISION, 4);
    *f = (struct pci_function){
        .at = at, .vendor = (uint16_t)id, .device = (uint16_t)(id >> 16), .revision = (uint8_t)class,
        .interface = (uint8_t)(class >> 8), .subclass = (uint8_t)(class >> 16), .class = (uint8_t)(class >> 24),
        .header = (uint8_t)(get(access, at, PCI_HEADER_TYPE, 1) & ~HEADER_MULTI),
        .line = (uint8_t)get(access, at, PCI_INTERRUPT_LINE, 1), .pin = (uint8_t)get(access, at, PCI_INTERRUPT_PIN, 1),
    };
    return true;
}

/* Buses wait in the map of those that were found, so that depth costs no stack. */
void pci_walk(const struct pci_access *access, struct pci_table *table, unsigned first)
{
    uint8_t wanted[32] = { 0 };
    unsigned bus = first;

    do {
        table->bus_seen[bus / 8] |= (uint8_t)(1u << bus % 8);
        for (unsigned device = 0; device < 32; device++) {
            unsigned functions = 1;
            for (unsigned function = 0; function < functions; function++) {
                struct pci_address at = { (uint8_t)bus, (uint8_t)device, (uint8_t)function };
                struct pci_function f;
                if (!read_function(access, at, &f))
                    continue;
                if (function == 0 && (get(access, at, PCI_HEADER_TYPE, 1) & HEADER_MULTI))
                    functions = 8;
                if (f.header == 1 || f.header == 2) {
                    unsigned behind = get(access, at, PCI_SECONDARY_BUS, 1);
                    if (behind) /* 0: the firmware left it without buses */
                        wanted[behind / 8] |= (uint8_t)(1u << behind % 8);
                }
                if (table->count < PCI_MAX_DEVICES)
                    table->function[table->count++] = f;
                else
                    table->left_out++;
            }
        }
        for (bus = 0; bus < 256; bus++)
            if ((wanted[bus / 8] >> bus % 8 & 1) && !pci_bus_seen(table, bus))
                break;
    } while (bus < 256);
}

void pci_command(const struct pci_access *access, const struct pci_function *f, uint32_t set, uint32_t clear)
{
    uint32_t command = get(access, f->at, PCI_COMMAND, 2);

    access->write(access, f->at, PCI_COMMAND, 2, (command & ~clear) | set);
}

bool pci_quiesce(const struct pci_access *access, const struct pci_function *f)
{
    bool mastered = get(access, f->at, PCI_COMMAND, 2) & PCI_COMMAND_MASTER, silence;

    if (f->driver || f->header != 0 || f->class == PCI_CLASS_BRIDGE)
        return false;
    silence = mastered && f->class != PCI_CLASS_DISPLAY;
    pci_command(access, f, (uint32_t)PCI_COMMAND_NO_INTX, silence ? (uint32_t)PCI_COMMAND_MASTER : 0);
    return silence;
}

/* ---- Registers ---- */

/* All ones are written and what stays zero is the size; the address goes back at once. */
static uint32_t probe(const struct pci_access *access, struct pci_address at, unsigned offset, uint32_t *was)
{
    *was = get(access, at, offset, 4);
    access->write(access, at, offset, 4, ALL_ONES);
    uint32_t mask = get(access, at, offset, 4);
    access->write(access, at, offset, 4, *was);
    return mask;
}

static bool is_power_of_two(uint64_t n)
{
    return n && !(n & (n - 1));
}

void pci_read_bars(const struct pci_access *access, const struct pci_function *f, struct pci_bar bar[PCI_BARS])
{
    unsigned bars = f->header == 0 ? PCI_BARS : f->header == 1 ? 2 : 0;
    uint32_t command = get(access, f->at, PCI_COMMAND, 2);

    for (unsigned i = 0; i < PCI_BARS; i++)
        bar[i] = (struct pci_bar){ .kind = PCI_BAR_NONE };
    access->write(access, f->at, PCI_COMMAND, 2, command & ~(uint32_t)(PCI_COMMAND_IO | PCI_COMMAND_MEMORY));
    for (unsigned i = 0; i < bars; i++) {
        unsigned offset = PCI_BAR0 + 4 * i;
        uint32_t low, mask = probe(access, f->at, offset, &low);
        struct pci_bar b = { .kind = PCI_BAR_NONE };
        if (mask == 0 || mask == ALL_ONES)
            continue; /* none, or nobody answers any more */
        if (low & 1) {
            uint32_t bits = mask & ~3u;
            if (!(bits & 0xffff0000u))
                bits |= 0xffff0000u; /* 16 bits of address are enough for a port (6.2.5.1) */
            b = (struct pci_bar){ .kind = PCI_BAR_IO, .base = low & ~3u, .bytes = (uint32_t)(~bits + 1) };
        } else {
            uint64_t base = low & ~15u, bits = 0xffffffff00000000u | (mask & ~15u);
            if ((low >> 1 & 3) == 2 && i + 1 < bars) {
                uint32_t high, high_mask = probe(access, f->at, offset + 4, &high);
                base |= (uint64_t)high << 32;
                bits = (uint64_t)high_mask << 32 | (mask & ~15u);
            }
            b = (struct pci_bar){ .kind = PCI_BAR_MEMORY, .prefetchable = low & 8, .base = base, .bytes = ~bits + 1 };
        }
        if (b.base && is_power_of_two(b.bytes) && !(b.base & (b.bytes - 1)))
            bar[i] = b;
        if (!(low & 1) && (low >> 1 & 3) == 2)
            i++;
    }
    access->write(access, f->at, PCI_COMMAND, 2, command);
}

unsigned pci_find_capability(const struct pci_access *access, const struct pci_function *f, unsigned id, unsigned after)
{
    unsigned limit = 48; /* capabilities of 4 bytes that fit behind the header: more is a loop */
    unsigned at;

    if (f->header > 1 || !(get(access, f->at, PCI_STATUS, 2) & PCI_STATUS_CAPABILITIES))
        return 0;
    at = get(access, f->at, after ? after + 1 : PCI_CAPABILITIES, 1) & 0xfc;
    while (at >= 0x40 && limit--) {
        uint32_t header = get(access, f->at, at, 2);
        if ((header & 0xff) == id)
            return at;
        at = header >> 8 & 0xfc;
    }
    return 0;
}

/* ---- Power ---- */

#define POWER_CONTROL 4
#define POWER_STATE 3u
#define POWER_EVENT BIT(15) /* cleared by writing 1 */

/* What a reset loses of the header, and its size: the rest is read-only, or status. */
static const struct { uint8_t offset, bytes; } kept[PCI_KEPT] = {
    { PCI_BAR0, 4 }, { PCI_BAR0 + 4, 4 }, { PCI_BAR0 + 8, 4 }, { PCI_BAR0 + 12, 4 }, { PCI_BAR0 + 16, 4 }, { PCI_BAR0 + 20, 4 },
    { PCI_CACHE_LINE, 1 }, { PCI_LATENCY, 1 }, { PCI_INTERRUPT_LINE, 1 }, { PCI_COMMAND, 2 },
};

bool pci_wake_begin(const struct pci_access *access, const struct pci_function *f, uint32_t header[PCI_KEPT])
{
    unsigned cap = f->header == 0 ? pci_find_capability(access, f, PCI_CAP_POWER, 0) : 0;
    uint32_t control = cap ? get(access, f->at, cap + POWER_CONTROL, 2) : 0;

    if (!(control & POWER_STATE) || control == 0xffff)
        return false;
    for (unsigned i = 0; i < PCI_KEPT; i++)
        header[i] = get(access, f->at, kept[i].offset, kept[i].bytes);
    access->write(access, f->at, cap + POWER_CONTROL, 2, control & ~(POWER_STATE | (uint32_t)POWER_EVENT));
    return true;
}

void pci_wake_end(const struct pci_access *access, const struct pci_function *f, const uint32_t header[PCI_KEPT])
{
    for (unsigned i = 0; i < PCI_KEPT; i++)
        access->write(access, f->at, kept[i].offset, kept[i].bytes, header[i]);
}

/* ---- Interrupts ---- */

enum status pci_msi_enable(const struct pci_access *access, const struct pci_function *f, uint32_t apic_id, uint8_t vector)
{
    unsigned cap = pci_find_capability(access, f, PCI_CAP_MSI, 0);

    if (!cap)
        return ERR_UNSUPPORTED;
    uint32_t control = get(access, f->at, cap + MSI_CONTROL, 2);
    unsigned data = control & MSI_64BIT ? 12 : 8;
    control &= ~(uint32_t)(MSI_ENABLE | MSI_MULTIPLE); /* one message */
    access->write(access, f->at, cap + MSI_CONTROL, 2, control);
    access->write(access, f->at, cap + 4, 4, MSI_ADDRESS | apic_id << 12);
    if (control & MSI_64BIT)
        access->write(access, f->at, cap + 8, 4, 0);
    access->write(access, f->at, cap + data, 2, vector);
    if (control & MSI_MASKABLE)
        access->write(access, f->at, cap + data + 4, 4, 0);
    pci_command(access, f, (uint32_t)PCI_COMMAND_NO_INTX, 0);
    access->write(access, f->at, cap + MSI_CONTROL, 2, control | (uint32_t)MSI_ENABLE);
    return OK;
}

bool pci_msix_find(const struct pci_access *access, const struct pci_function *f, const struct pci_bar bar[PCI_BARS],
                   struct pci_msix *msix)
{
    unsigned cap = pci_find_capability(access, f, PCI_CAP_MSIX, 0);

    if (!cap)
        return false;
    uint32_t table = get(access, f->at, cap + MSIX_TABLE, 4);
    *msix = (struct pci_msix){ .capability = cap, .bar = table & 7, .offset = table & ~7u,
                               .entry_count = (get(access, f->at, cap + MSIX_CONTROL, 2) & 0x7ff) + 1 };
    return msix->bar < PCI_BARS && bar[msix->bar].kind == PCI_BAR_MEMORY &&
           range_within(msix->offset, (uint64_t)msix->entry_count * 16, bar[msix->bar].bytes);
}

void pci_msix_enable(const struct pci_access *access, const struct pci_function *f, const struct pci_msix *msix,
                     volatile uint32_t *table, uint32_t apic_id, uint8_t vector)
{
    uint32_t control = get(access, f->at, msix->capability + MSIX_CONTROL, 2);

    /* On with all masked first: some devices let their table be written only then. */
    control |= (uint32_t)(MSIX_ENABLE | MSIX_MASK_ALL);
    access->write(access, f->at, msix->capability + MSIX_CONTROL, 2, control);
    for (unsigned i = 0; i < msix->entry_count; i++)
        table[i * MSIX_ENTRY_WORDS + 3] |= MSIX_ENTRY_MASKED;
    table[0] = MSI_ADDRESS | apic_id << 12;
    table[1] = 0;
    table[2] = vector;
    table[3] &= ~MSIX_ENTRY_MASKED;
    pci_command(access, f, (uint32_t)PCI_COMMAND_NO_INTX, 0);
    access->write(access, f->at, msix->capability + MSIX_CONTROL, 2, control & ~(uint32_t)MSIX_MASK_ALL);
}

void pci_interrupts_off(const struct pci_access *access, const struct pci_function *f)
{
    unsigned msi = pci_find_capability(access, f, PCI_CAP_MSI, 0), msix = pci_find_capability(access, f, PCI_CAP_MSIX, 0);

    if (msi)
        access->write(access, f->at, msi + MSI_CONTROL, 2,
                      get(access, f->at, msi + MSI_CONTROL, 2) & ~(uint32_t)MSI_ENABLE);
    if (msix)
        access->write(access, f->at, msix + MSIX_CONTROL, 2,
                      get(access, f->at, msix + MSIX_CONTROL, 2) & ~(uint32_t)MSIX_ENABLE);
    pci_command(access, f, (uint32_t)PCI_COMMAND_NO_INTX, 0);
}

/* ---- Words ---- */

const char *pci_class_name(const struct pci_function *f)
{
    static const struct { uint8_t class, subclass; const char *name; } names[] = {
        { 0x01, 0x01, "IDE controller" }, { 0x01, 0x04, "RAID controller" }, { 0x01, 0x06, "SATA controller" },
        { 0x01, 0x07, "SAS controller" }, { 0x01, 0x08, "NVMe controller" }, { 0x02, 0x00, "Ethernet card" },
        { 0x02, 0x07, "InfiniBand card" }, { 0x03, 0x00, "VGA display" }, { 0x04, 0x03, "sound" },
        { 0x06, 0x00, "host bridge" }, { 0x06, 0x01, "ISA bridge" }, { 0x06, 0x04, "PCI bridge" },
        { 0x07, 0x00, "serial port" }, { 0x0c, 0x03, "USB controller" }, { 0x0c, 0x04, "Fibre Channel card" },
        { 0x0c, 0x05, "SMBus" },
    };
    static const char *const classes[] = {
        "device without a class", "storage", "network card", "display", "multimedia", "memory", "bridge", "communication",
        "system device", "input device", "docking station", "processor", "serial bus", "wireless", "intelligent I/O",
        "satellite", "encryption", "signal processing", "accelerator",
    };

    for (unsigned i = 0; i < ARRAY_COUNT(names); i++)
        if (names[i].class == f->class && names[i].subclass == f->subclass)
            return names[i].name;
    return f->class < ARRAY_COUNT(classes) ? classes[f->class] : "unknown device";
}

const char *pci_interrupt_name(enum pci_interrupt interrupt)
{
    switch (interrupt) {
    case PCI_INTERRUPT_NONE: return "none";
    case PCI_INTERRUPT_POLLED: return "polled";
    case PCI_INTERRUPT_INTX: return "intx";
    case PCI_INTERRUPT_MSI: return "msi";
    case PCI_INTERRUPT_MSIX: return "msix";
    }
    return "unknown";
}
