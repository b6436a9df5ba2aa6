/* SPDX-License-Identifier: MIT */
/*
 * Page tables of four levels: the host's own (SDM vol. 3A, 4.5; APM vol. 2, 5.3), EPT (SDM vol. 3C, 29.3.2) and NPT
 * (APM vol. 2, 15.25). They differ in bits only, and struct pt_format has the bits.
 *
 * An entry is changed by one atomic store or by compare-and-exchange. The CPU's own updates (accessed, dirty) are thus
 * never lost, and a walker sees the old entry or the new one. Splitting builds the new table completely before one
 * exchange publishes it.
 *
 * Changing one leaf into 512 smaller ones with the same translation and rights leaves nothing stale (SDM vol. 3A,
 * 4.10.2.3: a processor may use either). It is the later change of the small ones that needs the flush. Nothing here
 * flushes.
 */
#include "kernel/pt.h"

#include <string.h>

#define LEVELS 4
#define VA_BITS 48

#define X86_P BIT(0)
#define X86_W BIT(1)
#define X86_U BIT(2)
#define X86_PWT BIT(3)
#define X86_PCD BIT(4)
#define X86_A BIT(5)
#define X86_D BIT(6)
#define X86_PS BIT(7)
#define X86_G BIT(8)
#define X86_SOFT BIT(9)
#define X86_NX BIT(63)

#define EPT_R BIT(0)
#define EPT_W BIT(1)
#define EPT_X BIT(2)
#define EPT_TYPE(type) ((uint64_t)(type) << 3)
#define EPT_PS BIT(7)
#define EPT_A BIT(8)
#define EPT_D BIT(9)
#define EPT_SOFT BIT(11)

const struct pt_format pt_format_host = {
    .name = "host",
    .levels = LEVELS,
    .present_mask = X86_P,
    .table_bits = X86_P | X86_W | X86_U,
    .read = X86_P,
    .write = X86_W,
    .no_exec = X86_NX,
    .user = X86_U,
    .global = X86_G,
    .accessed = X86_A,
    .dirty = X86_D,
    .large = X86_PS,
    .soft0 = X86_SOFT,
    .memory_uc = X86_PWT | X86_PCD,
    .memory_wc = X86_PWT,
    .accessed_in_tables = true,
};

/* A nested walk counts as a user access (APM vol. 2, 15.25.5), so that U goes with the right to read. */
const struct pt_format pt_format_npt = {
    .name = "NPT",
    .levels = LEVELS,
    .present_mask = X86_P,
    .table_bits = X86_P | X86_W | X86_U,
    .read = X86_P | X86_U,
    .write = X86_W,
    .no_exec = X86_NX,
    .accessed = X86_A,
    .dirty = X86_D,
    .large = X86_PS,
    .soft0 = X86_SOFT,
    .memory_uc = X86_PWT | X86_PCD,
    .memory_wc = X86_PWT,
    .accessed_in_tables = true,
};

/* Memory types as in SDM vol. 3A, table 12-2: 0 UC, 1 WC, 6 WB. Accessed and dirty bits need EPTP bit 6. */
const struct pt_format pt_format_ept = {
    .name = "EPT",
    .levels = LEVELS,
    .present_mask = EPT_R | EPT_W | EPT_X,
    .table_bits = EPT_R | EPT_W | EPT_X,
    .read = EPT_R,
    .write = EPT_W,
    .exec = EPT_X,
    .accessed = EPT_A,
    .dirty = EPT_D,
    .large = EPT_PS,
    .soft0 = EPT_SOFT,
    .memory_wb = EPT_TYPE(6),
    .memory_uc = EPT_TYPE(0),
    .memory_wc = EPT_TYPE(1),
    .accessed_in_tables = true,
};

/* ---- Entries ---- */

static uint64_t load(const uint64_t *entry)
{
    return __atomic_load_n(entry, __ATOMIC_ACQUIRE);
}

static void store(uint64_t *entry, uint64_t value)
{
    __atomic_store_n(entry, value, __ATOMIC_RELEASE);
}

static bool replace(uint64_t *entry, uint64_t *old, uint64_t value)
{
    return __atomic_compare_exchange_n(entry, old, value, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
}

/* The bits of a leaf that rights decide, without size and address. */
static uint64_t rights_bits(const struct pt_format *format, uint64_t rights)
{
    uint64_t bits = 0;

    bits |= rights & PT_READ ? format->read : 0;
    bits |= rights & PT_WRITE ? format->write : 0;
    bits |= rights & PT_EXEC ? format->exec : format->no_exec;
    bits |= rights & PT_USER ? format->user : 0;
    bits |= rights & PT_GLOBAL ? format->global : 0;
    bits |= rights & PT_ACCESSED ? format->accessed : 0;
    bits |= rights & PT_DIRTY ? format->dirty : 0;
    bits |= rights & PT_SOFT0 ? format->soft0 : 0;
    bits |= rights & PT_UNCACHED ? format->memory_uc : rights & PT_WRITE_COMBINING ? format->memory_wc
                                                                                   : format->memory_wb;
    return bits;
}

uint64_t pt_leaf_entry(const struct pt_format *format, hpa_t hpa, uint64_t bytes, uint64_t rights)
{
    return hpa.v | rights_bits(format, rights) | (bytes > PAGE_BYTES ? format->large : 0);
}

uint64_t pt_entry_rights(const struct pt_format *format, uint64_t entry)
{
    uint64_t type_mask = format->memory_wb | format->memory_uc | format->memory_wc, rights = 0;

    rights |= (entry & format->read) == format->read ? PT_READ : 0;
    rights |= entry & format->write ? PT_WRITE : 0;
    rights |= (format->exec ? entry & format->exec : !(entry & format->no_exec)) ? PT_EXEC : 0;
    rights |= entry & format->user ? PT_USER : 0;
    rights |= entry & format->global ? PT_GLOBAL : 0;
    rights |= entry & format->accessed ? PT_ACCESSED : 0;
    rights |= entry & format->dirty ? PT_DIRTY : 0;
    rights |= entry & format->soft0 ? PT_SOFT0 : 0;
    if ((entry & type_mask) == format->memory_uc)
        rights |= PT_UNCACHED;
    else if ((entry & type_mask) == format->memory_wc)
        rights |= PT_WRITE_COMBINING;
    return rights;
}

/* ---- Walking ---- */

static unsigned index_at(uint64_t va, uint64_t bytes)
{
    return (unsigned)(va / bytes % PT_TABLE_ENTRIES);
}

/* Addresses as offsets in the 48-bit space; host addresses of the upper half lose their sign extension. */
static uint64_t offset_of(uint64_t va)
{
    return va & (BIT(VA_BITS) - 1);
}

static bool range_ok(uint64_t va, uint64_t bytes)
{
    uint64_t sign = va >> (VA_BITS - 1);
    bool canonical = sign == 0 || sign == 1 || sign == BIT(64 - VA_BITS + 1) - 1;

    return canonical && va % PAGE_BYTES == 0 && bytes % PAGE_BYTES == 0 &&
           range_within(offset_of(va), bytes, BIT(VA_BITS));
}

/* The entry at which a walk for va ends: a leaf, an absent entry, or the one of size `stop`. *bytes is its size. */
static uint64_t *walk(const struct pt *pt, uint64_t va, uint64_t stop, uint64_t *bytes)
{
    uint64_t *table = phys_to_virt(pt->root);

    for (uint64_t size = BIT(39);; size /= PT_TABLE_ENTRIES) {
        uint64_t *slot = &table[index_at(va, size)], entry = load(slot);

        if (size <= stop || !pt_entry_present(pt->format, entry) || pt_entry_is_leaf(pt->format, entry, size)) {
            *bytes = size;
            return slot;
        }
        table = pt_entry_table(entry);
    }
}

uint64_t *pt_leaf(const struct pt *pt, uint64_t va, uint64_t *leaf_bytes)
{
    uint64_t *slot = walk(pt, va, PAGE_BYTES, leaf_bytes);

    return pt_entry_present(pt->format, load(slot)) ? slot : NULL;
}

uint64_t *pt_entry_at(const struct pt *pt, uint64_t va, uint64_t bytes)
{
    uint64_t found;
    uint64_t *slot = walk(pt, va, bytes, &found);

    return found == bytes ? slot : NULL;
}

bool pt_lookup(const struct pt *pt, uint64_t va, hpa_t *hpa, uint64_t *rights)
{
    uint64_t bytes, entry;

    entry = load(walk(pt, va, PAGE_BYTES, &bytes));
    if (!pt_entry_present(pt->format, entry))
        return false;
    *hpa = HPA((entry & PT_ADDRESS_MASK & ~(bytes - 1)) | (va & (bytes - 1)));
    *rights = pt_entry_rights(pt->format, entry);
    return true;
}

/* ---- Tables ---- */

bool pt_table_alloc(struct pt *pt, unsigned page_flags, hpa_t *table)
{
    if (!page_alloc(PAGE_BYTES, pt->owner, page_flags, table))
        return false;
    pt->table_count++;
    return true;
}

void pt_table_free(struct pt *pt, hpa_t table)
{
    page_free(table, PAGE_BYTES, pt->owner);
    pt->table_count--;
}

bool pt_create(struct pt *pt, const struct pt_format *format, page_owner_t owner, uint64_t max_leaf)
{
    *pt = (struct pt){ .format = format, .owner = owner, .max_leaf = max_leaf };
    return pt_table_alloc(pt, PAGE_ZERO, &pt->root);
}

static void free_tables(struct pt *pt, hpa_t table_hpa, uint64_t entry_bytes)
{
    const uint64_t *table = phys_to_virt(table_hpa);

    for (unsigned i = 0; entry_bytes > PAGE_BYTES && i < PT_TABLE_ENTRIES; i++)
        if (pt_entry_present(pt->format, table[i]) && !pt_entry_is_leaf(pt->format, table[i], entry_bytes))
            free_tables(pt, HPA(table[i] & PT_ADDRESS_MASK), entry_bytes / PT_TABLE_ENTRIES);
    pt_table_free(pt, table_hpa);
}

void pt_destroy(struct pt *pt)
{
    free_tables(pt, pt->root, BIT(39));
    pt->root = HPA(0);
}

/* Splits one leaf of size `bytes` into 512. */
static enum status split_leaf(struct pt *pt, uint64_t *slot, uint64_t bytes)
{
    uint64_t child_bytes = bytes / PT_TABLE_ENTRIES, old = load(slot);
    uint64_t *table;
    hpa_t table_hpa;

    if (!pt_table_alloc(pt, 0, &table_hpa))
        return ERR_NO_MEMORY;
    table = phys_to_virt(table_hpa);
    do {
        uint64_t child = old & ~(PT_ADDRESS_MASK & (bytes - 1));

        if (child_bytes == PAGE_BYTES)
            child &= ~pt->format->large;
        for (unsigned i = 0; i < PT_TABLE_ENTRIES; i++, child += child_bytes)
            table[i] = child;
    } while (!replace(slot, &old, table_hpa.v | pt->format->table_bits));
    return OK;
}

enum status pt_split(struct pt *pt, uint64_t va, uint64_t bytes)
{
    uint64_t found;

    for (;;) {
        uint64_t *slot = walk(pt, va, bytes, &found);

        if (found <= bytes || !pt_entry_present(pt->format, load(slot)))
            return OK;
        enum status status = split_leaf(pt, slot, found);
        if (status != OK)
            return status;
    }
}

/* Makes va a border between leaves. */
static enum status cut(struct pt *pt, uint64_t va)
{
    uint64_t bytes;

    for (;;) {
        uint64_t *slot = walk(pt, va, PAGE_BYTES, &bytes);

        if (va % bytes == 0 || !pt_entry_present(pt->format, load(slot)))
            return OK;
        enum status status = split_leaf(pt, slot, bytes);
        if (status != OK)
            return status;
    }
}

/* The entry of size `bytes` for va, with tables made on the way. A leaf above it is ERR_EXISTS. */
static enum status make_slot(struct pt *pt, uint64_t va, uint64_t bytes, uint64_t **out)
{
    for (;;) {
        uint64_t found;
        uint64_t *slot = walk(pt, va, bytes, &found);
        hpa_t table;

        *out = slot;
        if (found == bytes)
            return OK;
        if (pt_entry_present(pt->format, load(slot)))
            return ERR_EXISTS;
        if (!pt_table_alloc(pt, PAGE_ZERO, &table))
            return ERR_NO_MEMORY;
        store(slot, table.v | pt->format->table_bits);
    }
}

/* ---- Ranges ---- */

static uint64_t leaf_for(const struct pt *pt, uint64_t va, uint64_t hpa, uint64_t bytes)
{
    uint64_t size = pt->max_leaf;

    while (size > PAGE_BYTES && ((va | hpa) % size != 0 || bytes < size))
        size /= PT_TABLE_ENTRIES;
    return size;
}

/* Maps as much from va on as one table takes with one size of leaves; *done is what it mapped, on failure too. */
static enum status map_some(struct pt *pt, uint64_t va, uint64_t hpa, uint64_t bytes, uint64_t rights, uint64_t *done)
{
    uint64_t size = leaf_for(pt, va, hpa, bytes), entry;
    uint64_t *slot;

    *done = 0;
    for (;;) {
        enum status status = make_slot(pt, va, size, &slot);
        if (status != OK)
            return status;
        entry = load(slot);
        if (!pt_entry_present(pt->format, entry))
            break;
        if (pt_entry_is_leaf(pt->format, entry, size))
            return ERR_EXISTS;
        size /= PT_TABLE_ENTRIES; /* a table, perhaps an empty one: tables are never freed early */
    }
    entry = pt_leaf_entry(pt->format, HPA(hpa), size, rights);
    for (unsigned i = index_at(va, size); i < PT_TABLE_ENTRIES && bytes - *done >= size; i++) {
        if (pt_entry_present(pt->format, load(slot)))
            break; /* the next round finds out what it is */
        store(slot++, entry);
        entry += size;
        *done += size;
    }
    return OK;
}

enum status pt_map(struct pt *pt, uint64_t va, hpa_t hpa, uint64_t bytes, uint64_t rights)
{
    uint64_t done = 0, step;

    if (!range_ok(va, bytes) || hpa.v % PAGE_BYTES != 0 || !range_within(hpa.v, bytes, PT_ADDRESS_MASK + PAGE_BYTES))
        return ERR_RANGE;
    if (!(rights & PT_READ))
        return ERR_INVALID;
    while (done < bytes) {
        enum status status = map_some(pt, va + done, hpa.v + done, bytes - done, rights, &step);
        done += step;
        if (status != OK) {
            if (pt_unmap(pt, va, done) != OK)
                return ERR_INVALID;
            return status;
        }
    }
    return OK;
}

/* Replaces the rights of every leaf in the range, or (rights 0) takes the leaves out. */
static enum status change(struct pt *pt, uint64_t va, uint64_t bytes, uint64_t rights)
{
    const struct pt_format *format = pt->format;
    uint64_t kept = PT_ADDRESS_MASK | format->accessed | format->dirty | format->soft0 | format->large;
    uint64_t at = offset_of(va), end = at + bytes, size;
    enum status status;

    if (!range_ok(va, bytes))
        return ERR_RANGE;
    if (bytes == 0)
        return OK;
    status = cut(pt, at);
    if (status == OK && end < BIT(VA_BITS))
        status = cut(pt, end);
    if (status != OK)
        return status;
    for (; at < end; at = ALIGN_DOWN(at, size) + size) {
        uint64_t *slot = walk(pt, at, PAGE_BYTES, &size), entry = load(slot), value;

        if (!pt_entry_present(format, entry))
            continue;
        do
            value = rights ? (entry & (size > PAGE_BYTES ? kept : kept & ~format->large)) | rights_bits(format, rights) : 0;
        while (!replace(slot, &entry, value));
    }
    return OK;
}

enum status pt_unmap(struct pt *pt, uint64_t va, uint64_t bytes)
{
    return change(pt, va, bytes, 0);
}

enum status pt_protect(struct pt *pt, uint64_t va, uint64_t bytes, uint64_t rights)
{
    return rights & PT_READ ? change(pt, va, bytes, rights) : ERR_INVALID;
}
