/* SPDX-License-Identifier: MIT */
/*
 * The parser of tasuki.conf. See config.h for the contract.
 *
 * Three layers, each knowing only the one below: lines (split, checked to be printable UTF-8, comment cut off), the
 * section that a line belongs to, and a table of keys for each section whose setters check one value.
 *
 * Invariants: no byte outside text[0, bytes) is read; a value takes its length and a NUL from `strings`, and a line
 * that gives a value has at least one more character ('=' or ']') than the value, so bytes + 1 always suffice; every
 * string that leaves this file is valid UTF-8 without control characters, because lines that are not are dropped whole.
 */
#include "vm/config.h"

#include <string.h>

#include "kernel/text.h"
#include "vm/config_message.h"
#include "vm/config_network.h"

/* ---- Characters ---- */

static bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

static bool is_name_char(char c, bool first)
{
    if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9'))
        return true;
    return !first && (c == '.' || c == '_' || c == '-');
}

static bool name_ok(const char *name, size_t bytes)
{
    if (bytes == 0 || bytes > CONFIG_MAX_NAME_BYTES)
        return false;
    for (size_t i = 0; i < bytes; i++)
        if (!is_name_char(name[i], i == 0))
            return false;
    return true;
}

bool config_name_ok(const char *name)
{
    return name_ok(name, strlen(name));
}

/* The length of the UTF-8 character at text[0], or 0 if it is none or a control character other than tab. */
static size_t character_bytes(const char *text, size_t left)
{
    uint32_t point = 0;
    size_t bytes = utf8_decode(text, left, &point);

    return (point < 0x20 && point != '\t') || (point >= 0x7f && point < 0xa0) ? 0 : bytes;
}

/* ---- Values: a setter stores the value or says what would be right ---- */

/* One word of a fixed list; its index, or -1 with the list as the reason. */
static int choose(const char *value, const char *const *words, size_t word_count, struct message *reason)
{
    for (size_t i = 0; i < word_count; i++)
        if (!strcmp(value, words[i]))
            return (int)i;
    add_quoted(reason, value, strlen(value));
    add(reason, " is not known here: write ");
    for (size_t i = 0; i < word_count; i++) {
        add(reason, i == 0 ? "" : i + 1 == word_count ? " or " : ", ");
        add(reason, words[i]);
    }
    return -1;
}

static bool set_memory(struct config_vm *vm, const char *value, struct message *reason)
{
    uint64_t bytes;
    enum status status = text_to_bytes(value, &bytes);

    if (status == OK && bytes >= CONFIG_MIN_MEMORY && bytes <= CONFIG_MAX_MEMORY && bytes % PAGE_BYTES == 0) {
        vm->memory_bytes = bytes;
        return true;
    }
    add_quoted(reason, value, strlen(value));
    if (status == ERR_INVALID)
        add(reason, " is not a size: write a whole number and K, M or G, such as 512M");
    else if (status != OK || bytes < CONFIG_MIN_MEMORY || bytes > CONFIG_MAX_MEMORY)
        add(reason, " is out of range: a VM has 1M to 65536G; the unit is K, M or G, and bytes without one");
    else
        add(reason, " is not made of whole pages: write a multiple of 4K");
    return false;
}

static bool set_vcpus(struct config_vm *vm, const char *value, struct message *reason)
{
    uint64_t count;

    if (text_to_u64(value, &count) != OK || count < 1 || count > CONFIG_MAX_VCPUS) {
        add_quoted(reason, value, strlen(value));
        add(reason, " is not a number of vCPUs: write 1 to ");
        add_number(reason, CONFIG_MAX_VCPUS);
        return false;
    }
    vm->vcpus = (uint32_t)count;
    return true;
}

static bool set_path(const char **path, const char *value, struct message *reason)
{
    if (!*value) {
        add(reason, "the path is empty: write a path on the boot volume, such as \\tasuki\\images\\vmlinuz, or delete "
                    "the line");
        return false;
    }
    *path = value;
    return true;
}

static bool set_kernel(struct config_vm *vm, const char *value, struct message *reason)
{
    return set_path(&vm->kernel, value, reason);
}

static bool set_initrd(struct config_vm *vm, const char *value, struct message *reason)
{
    return set_path(&vm->initrd, value, reason);
}

static bool set_cmdline(struct config_vm *vm, const char *value, struct message *reason)
{
    if (strlen(value) > CONFIG_MAX_CMDLINE_BYTES) {
        add(reason, "the command line is too long: kernels take at most ");
        add_number(reason, CONFIG_MAX_CMDLINE_BYTES);
        add(reason, " bytes");
        return false;
    }
    vm->cmdline = value;
    return true;
}

static bool set_disk(struct config_vm *vm, const char *value, struct message *reason)
{
    if (!set_path(&vm->disks[vm->disk_count], value, reason))
        return false;
    vm->disk_line[vm->disk_count++] = 0;
    return true;
}

static bool set_cpu(struct config_vm *vm, const char *value, struct message *reason)
{
    static const char *const words[] = { "host", "portable", "portable-1" };

    if (choose(value, words, ARRAY_COUNT(words), reason) < 0)
        return false;
    vm->cpu = value;
    return true;
}

static bool set_tsc_frequency(struct config_vm *vm, const char *value, struct message *reason)
{
    uint32_t khz = 0;
    enum status status = text_to_khz(value, &khz);

    if (status == OK && khz >= CONFIG_MIN_TSC_KHZ && khz <= CONFIG_MAX_TSC_KHZ) {
        vm->tsc_khz = khz;
        return true;
    }
    add_quoted(reason, value, strlen(value));
    add(reason, status == ERR_INVALID ? " is not a frequency of whole kHz: write a number and kHz, MHz or GHz, such as 2400 MHz"
                                      : " is out of range: a TSC has 100 MHz to 10 GHz");
    return false;
}

static bool set_node_name(struct config_node *node, const char *value, struct message *reason)
{
    if (!config_name_ok(value)) {
        add_quoted(reason, value, strlen(value));
        add(reason, " cannot be a name: write up to 63 letters, digits, '.', '_' and '-', a letter or digit first");
        return false;
    }
    node->name = value;
    return true;
}

/* A key that takes one of some words: the setting is the word's number. */
#define WORD_KEY(function, section, type, field, ...)                                                              \
    static bool function(struct section *to, const char *value, struct message *reason)                            \
    {                                                                                                              \
        static const char *const words[] = { __VA_ARGS__ };                                                        \
        int word = choose(value, words, ARRAY_COUNT(words), reason);                                               \
        if (word >= 0)                                                                                             \
            to->field = (type)word;                                                                                \
        return word >= 0;                                                                                          \
    }
WORD_KEY(set_start, config_vm, enum config_start, start, [CONFIG_START_MANUAL] = "manual", [CONFIG_START_AUTO] = "auto")
WORD_KEY(set_panic, config_node, enum config_panic, panic, [CONFIG_PANIC_RESET] = "reset", [CONFIG_PANIC_WAIT] = "wait")
WORD_KEY(set_log, config_node, enum config_log, log, [CONFIG_LOG_DEBUG] = "debug", [CONFIG_LOG_INFO] = "info",
         [CONFIG_LOG_WARNING] = "warning", [CONFIG_LOG_ERROR] = "error")
WORD_KEY(set_serial, config_node, uint32_t, serial, "none", "com1", "com2", "com3", "com4")
WORD_KEY(set_apic, config_node, enum config_apic, apic, [CONFIG_APIC_AUTO] = "auto", [CONFIG_APIC_ON] = "on",
         [CONFIG_APIC_OFF] = "off")
WORD_KEY(set_share_cores, config_node, bool, share_cores, "no", "yes")
WORD_KEY(set_exit_barrier, config_node, enum config_exit_barrier, exit_barrier, [CONFIG_EXIT_BARRIER_AUTO] = "auto",
         [CONFIG_EXIT_BARRIER_NO] = "no", [CONFIG_EXIT_BARRIER_ALWAYS] = "always")
#undef WORD_KEY

/* ---- Keys ---- */

static const struct {
    const char *name;
    bool (*set)(struct config_node *node, const char *value, struct message *reason);
} node_keys[CONFIG_NODE_KEYS] = {
    [CONFIG_NODE_NAME] = { "name", set_node_name },
    [CONFIG_NODE_PANIC] = { "panic", set_panic },
    [CONFIG_NODE_LOG] = { "log", set_log },
    [CONFIG_NODE_SERIAL] = { "serial", set_serial },
    [CONFIG_NODE_EXIT_BARRIER] = { "exit-barrier", set_exit_barrier },
    [CONFIG_NODE_SHARE_CORES] = { "share-cores", set_share_cores },
    [CONFIG_NODE_APIC] = { "apic-virtualization", set_apic },
};

static const struct {
    const char *name;
    bool (*set)(struct config_vm *vm, const char *value, struct message *reason);
} vm_keys[CONFIG_VM_KEYS] = {
    [CONFIG_VM_MEMORY] = { "memory", set_memory },
    [CONFIG_VM_VCPUS] = { "vcpus", set_vcpus },
    [CONFIG_VM_KERNEL] = { "kernel", set_kernel },
    [CONFIG_VM_INITRD] = { "initrd", set_initrd },
    [CONFIG_VM_CMDLINE] = { "cmdline", set_cmdline },
    [CONFIG_VM_DISK] = { "disk", set_disk },
    [CONFIG_VM_START] = { "start", set_start },
    [CONFIG_VM_CPU] = { "cpu", set_cpu },
    [CONFIG_VM_TSC_FREQUENCY] = { "tsc-frequency", set_tsc_frequency },
    [CONFIG_VM_NETWORK] = { "network", config_vm_add_card },
};

static const char *node_key_name(unsigned key)
{
    return node_keys[key].name;
}

static const char *vm_key_name(unsigned key)
{
    return vm_keys[key].name;
}

const char *config_vm_key_name(enum config_vm_key key)
{
    return vm_keys[key].name;
}

/* The index of a key, or `count` with the known ones as the reason. */
static unsigned find_key(const char *key, size_t bytes, const char *(*name)(unsigned), unsigned count,
                         struct message *reason)
{
    for (unsigned i = 0; i < count; i++)
        if (strlen(name(i)) == bytes && !memcmp(name(i), key, bytes))
            return i;
    add(reason, "unknown key ");
    add_quoted(reason, key, bytes);
    add(reason, ": known here are ");
    for (unsigned i = 0; i < count; i++) {
        add(reason, i == 0 ? "" : i + 1 == count ? " and " : ", ");
        add(reason, name(i));
    }
    return count;
}

static enum status apply_vm_key(struct config_vm *vm, unsigned key, const char *value, struct message *reason)
{
    bool is_disk = key == CONFIG_VM_DISK, is_card = key == CONFIG_VM_NETWORK;

    if ((is_disk && vm->disk_count == CONFIG_MAX_DISKS) || (is_card && vm->card_count == CONFIG_MAX_CARDS)) {
        add(reason, is_disk ? "one disk too many: a VM has at most " : "one card too many: a VM has at most ");
        add_number(reason, is_disk ? CONFIG_MAX_DISKS : CONFIG_MAX_CARDS);
        return ERR_NO_MEMORY;
    }
    return vm_keys[key].set(vm, value, reason) ? OK : ERR_INVALID;
}

enum status config_vm_set(struct config_vm *vm, const char *key, const char *value, char *reason, size_t reason_bytes)
{
    struct message m = { reason, reason_bytes };
    unsigned index;

    if (reason_bytes)
        reason[0] = 0;
    index = find_key(key, strlen(key), vm_key_name, CONFIG_VM_KEYS, &m);
    if (index == CONFIG_VM_KEYS)
        return ERR_NOT_FOUND;
    return apply_vm_key(vm, index, value, &m);
}

void config_vm_defaults(struct config_vm *vm, const char *name)
{
    memset(vm, 0, sizeof(*vm));
    vm->name = name;
    vm->memory_bytes = 256 * MIB;
    vm->vcpus = 1;
    vm->cmdline = "";
    vm->start = CONFIG_START_MANUAL;
}

const struct config_vm *config_find_vm(const struct config *config, const char *name)
{
    for (uint32_t i = 0; i < config->vm_count; i++)
        if (!strcmp(config->vms[i].name, name))
            return &config->vms[i];
    return NULL;
}

/* ---- Lines and sections ---- */

enum section { SECTION_NONE, SECTION_NODE, SECTION_VM, SECTION_NETWORK, SECTION_SKIPPED };

struct parser {
    struct config *config;
    char *strings; /* next free byte of the caller's room */
    enum section section;
    struct config_vm *vm; /* of SECTION_VM */
    struct config_network *network; /* of SECTION_NETWORK */
    uint32_t line;
    const char *start; /* of the current line */
};

/*
 * A diagnostic at `at` within the current line. The text begins with the object's name; the caller adds the rest to
 * the message that is returned, which goes nowhere when the array is full.
 */
static struct message diagnose(struct parser *p, enum config_severity severity, const char *at)
{
    struct config *c = p->config;
    struct config_diagnostic *d;
    struct message m = { NULL, 0 };

    if (severity == CONFIG_ERROR && p->section == SECTION_VM)
        p->vm->error_count++;
    if (severity == CONFIG_ERROR && p->section == SECTION_NETWORK)
        p->network->error_count++;
    if (c->diagnostic_count == CONFIG_MAX_DIAGNOSTICS) {
        c->diagnostics_dropped++;
        return m;
    }
    d = &c->diagnostics[c->diagnostic_count++];
    d->severity = severity;
    d->line = p->line;
    d->column = p->line ? 1 : 0;
    for (const char *before = p->start; at && before < at; before++)
        d->column += ((unsigned char)*before & 0xc0) != 0x80;
    d->text[0] = 0;
    m.at = d->text;
    m.room = sizeof(d->text);
    if (p->section == SECTION_VM) {
        add(&m, "vm ");
        add(&m, p->vm->name);
        add(&m, ": ");
    } else if (p->section == SECTION_NETWORK) {
        add(&m, "network ");
        add(&m, p->network->name);
        add(&m, ": ");
    } else if (p->section == SECTION_NODE) {
        add(&m, "node: ");
    }
    return m;
}

/* Copies a value into the caller's room. */
static const char *keep(struct parser *p, const char *value, size_t bytes)
{
    char *kept = p->strings;

    memcpy(kept, value, bytes);
    kept[bytes] = 0;
    p->strings += bytes + 1;
    return kept;
}

/* The name of number i of a kind of sections, and the line of its header. */
static const char *named(const struct config *c, enum section kind, uint32_t i, uint32_t *line)
{
    *line = kind == SECTION_VM ? c->vms[i].line : c->networks[i].line;
    return kind == SECTION_VM ? c->vms[i].name : c->networks[i].name;
}

/* [vm NAME] or [network NAME]. */
static void begin_named(struct parser *p, enum section kind, const char *name, size_t bytes)
{
    struct config *c = p->config;
    const char *word = kind == SECTION_VM ? "vm" : "network";
    uint32_t count = kind == SECTION_VM ? c->vm_count : c->network_count, line;
    uint32_t limit = kind == SECTION_VM ? CONFIG_MAX_VMS : CONFIG_MAX_NETWORKS;
    struct message m;

    if (!name_ok(name, bytes)) {
        m = diagnose(p, CONFIG_ERROR, name);
        add(&m, kind == SECTION_VM ? "the section's VM cannot be called " : "the section's network cannot be called ");
        add_quoted(&m, name, bytes);
        add(&m, ", so it is skipped: write [");
        add(&m, word);
        add(&m, " NAME], up to 63 letters, digits, '.', '_' and '-', a letter or digit first");
        return;
    }
    for (uint32_t i = 0; i < count; i++) {
        const char *other = named(c, kind, i, &line);
        if (strlen(other) != bytes || memcmp(other, name, bytes))
            continue;
        m = diagnose(p, CONFIG_ERROR, name);
        add(&m, word);
        add(&m, " ");
        add(&m, other);
        add(&m, ": a second section of that name is skipped (the first is in line ");
        add_number(&m, line);
        add(&m, "): give it another name");
        return;
    }
    if (count == limit) {
        m = diagnose(p, CONFIG_ERROR, name);
        add(&m, word);
        add(&m, " ");
        add_bytes(&m, name, bytes);
        add(&m, " is skipped: one node takes at most ");
        add_number(&m, limit);
        add(&m, kind == SECTION_VM ? " VMs" : " networks");
        return;
    }
    p->section = kind;
    if (kind == SECTION_VM) {
        p->vm = &c->vms[c->vm_count++];
        config_vm_defaults(p->vm, keep(p, name, bytes));
        p->vm->line = p->line;
    } else {
        p->network = &c->networks[c->network_count++];
        config_network_defaults(p->network, keep(p, name, bytes));
        p->network->line = p->line;
    }
}

/* `at` points to '['; `end` is the end of the line without comment and trailing blanks. */
static void parse_section(struct parser *p, const char *at, const char *end)
{
    const char *word = at + 1, *word_end, *rest, *close = at;
    struct message m;

    p->section = SECTION_NONE;
    while (close < end && *close != ']')
        close++;
    if (close + 1 != end) {
        m = diagnose(p, CONFIG_ERROR, close < end ? close + 1 : at);
        add(&m, close < end ? "text after a section's ']', so the section is skipped: put it on a line of its own"
                            : "a section without ']' is skipped: write [node], [network NAME] or [vm NAME]");
        p->section = SECTION_SKIPPED;
        return;
    }
    p->section = SECTION_SKIPPED; /* until it is recognised */
    while (word < close && is_blank(*word))
        word++;
    for (word_end = word; word_end < close && !is_blank(*word_end); word_end++)
        ;
    for (rest = word_end; rest < close && is_blank(*rest); rest++)
        ;
    while (close > rest && is_blank(close[-1]))
        close--;
    if (word_end - word == 4 && !memcmp(word, "node", 4) && rest == close) {
        p->section = SECTION_NODE;
    } else if (word_end - word == 2 && !memcmp(word, "vm", 2)) {
        begin_named(p, SECTION_VM, rest, (size_t)(close - rest));
    } else if (word_end - word == 7 && !memcmp(word, "network", 7)) {
        begin_named(p, SECTION_NETWORK, rest, (size_t)(close - rest));
    } else {
        m = diagnose(p, CONFIG_WARNING, word);
        add(&m, "unknown section ");
        add_quoted(&m, word, close > word ? (size_t)(close - word) : 0);
        add(&m, " is skipped: known are [node], [network NAME] and [vm NAME]");
    }
}

/* Notes where a key was set; a second time is worth a warning, because only the last line counts. */
static void note_line(struct parser *p, uint32_t *key_line, const char *key, size_t key_bytes)
{
    if (*key_line) {
        struct message m = diagnose(p, CONFIG_WARNING, key);
        add_bytes(&m, key, key_bytes);
        add(&m, " was set in line ");
        add_number(&m, *key_line);
        add(&m, " already, and this line replaces it: delete one of the two");
    }
    *key_line = p->line;
}

/* Sets one key of the current section. */
static void set_key(struct parser *p, const char *key, size_t key_bytes, const char *value, size_t value_bytes)
{
    char reason_text[CONFIG_DIAGNOSTIC_BYTES] = "";
    struct message reason = { reason_text, sizeof(reason_text) }, m;
    bool in_vm = p->section == SECTION_VM, in_network = p->section == SECTION_NETWORK, repeatable, done;
    unsigned key_count = in_vm ? (unsigned)CONFIG_VM_KEYS : in_network ? (unsigned)CONFIG_NETWORK_KEYS : (unsigned)CONFIG_NODE_KEYS;
    unsigned index = find_key(key, key_bytes, in_vm ? vm_key_name : in_network ? config_network_key_name : node_key_name,
                              key_count, &reason);
    uint32_t *key_line;
    const char *kept;

    if (index == key_count) {
        m = diagnose(p, CONFIG_WARNING, key);
        add(&m, reason_text);
        return;
    }
    kept = keep(p, value, value_bytes);
    if (in_vm) {
        done = apply_vm_key(p->vm, index, kept, &reason) == OK;
        key_line = &p->vm->key_line[index];
        repeatable = index == CONFIG_VM_DISK || index == CONFIG_VM_NETWORK;
    } else if (in_network) {
        done = config_network_set(p->network, index, kept, &reason);
        key_line = &p->network->key_line[index];
        repeatable = index == CONFIG_NETWORK_DNS;
    } else {
        done = node_keys[index].set(&p->config->node, kept, &reason);
        key_line = &p->config->node.key_line[index];
        repeatable = false;
    }
    if (!done) {
        m = diagnose(p, CONFIG_ERROR, value);
        add_bytes(&m, key, key_bytes);
        add(&m, ": ");
        add(&m, reason_text);
        return;
    }
    if (in_vm && index == CONFIG_VM_DISK)
        p->vm->disk_line[p->vm->disk_count - 1] = p->line;
    if (in_vm && index == CONFIG_VM_NETWORK)
        p->vm->cards[p->vm->card_count - 1].line = p->line;
    if (repeatable)
        *key_line = p->line;
    else
        note_line(p, key_line, key, key_bytes);
}

/* `at` points to the first character that is not blank. */
static void parse_setting(struct parser *p, const char *at, const char *end)
{
    const char *equals = at, *key_end, *value;
    struct message m;

    if (p->section == SECTION_SKIPPED)
        return;
    while (equals < end && *equals != '=')
        equals++;
    for (key_end = equals; key_end > at && is_blank(key_end[-1]); key_end--)
        ;
    if (equals == end || key_end == at) {
        m = diagnose(p, CONFIG_ERROR, at);
        add_quoted(&m, at, (size_t)(end - at));
        add(&m, " is neither a section nor a setting: write key = value");
        return;
    }
    if (p->section == SECTION_NONE) {
        m = diagnose(p, CONFIG_ERROR, at);
        add_quoted(&m, at, (size_t)(key_end - at));
        add(&m, " is set outside of any section: put it under [node], [network NAME] or [vm NAME]");
        return;
    }
    for (value = equals + 1; value < end && is_blank(*value); value++)
        ;
    set_key(p, at, (size_t)(key_end - at), value, (size_t)(end - value));
}

/* One line without its line end. */
static void parse_line(struct parser *p, const char *line, size_t bytes)
{
    const char *at = line, *end = line + bytes;
    struct message m;

    p->start = line;
    if (bytes > CONFIG_MAX_LINE_BYTES) {
        m = diagnose(p, CONFIG_ERROR, line);
        add(&m, "the line is skipped: it is longer than ");
        add_number(&m, CONFIG_MAX_LINE_BYTES);
        add(&m, " bytes");
        return;
    }
    for (const char *c = line; c < end;) {
        size_t count = character_bytes(c, (size_t)(end - c));
        if (!count) {
            m = diagnose(p, CONFIG_ERROR, c);
            add(&m, "the line is skipped: it holds a byte that is not text; save the file as UTF-8");
            return;
        }
        c += count;
    }
    for (const char *c = line; c < end; c++) {
        if (*c == '#' && (c == line || is_blank(c[-1])))
            end = c;
    }
    while (at < end && is_blank(*at))
        at++;
    while (end > at && is_blank(end[-1]))
        end--;
    if (at == end)
        return;
    if (*at == '[')
        parse_section(p, at, end);
    else
        parse_setting(p, at, end);
}

/* What only the whole section can tell. The diagnostics point at its header. */
static void check_vms(struct parser *p)
{
    p->section = SECTION_VM;
    for (uint32_t i = 0; i < p->config->vm_count; i++) {
        p->vm = &p->config->vms[i];
        p->line = p->vm->line;
        p->start = NULL;
        if (!p->vm->kernel && !p->vm->key_line[CONFIG_VM_KERNEL]) {
            struct message m = diagnose(p, CONFIG_ERROR, NULL);
            add(&m, "there is no kernel to start: add kernel = PATH of a bzImage or a Multiboot kernel");
        }
        for (uint32_t j = 0; j < p->vm->card_count; j++) {
            char text[CONFIG_DIAGNOSTIC_BYTES] = "";
            struct message reason = { text, sizeof(text) };
            p->line = p->vm->cards[j].line;
            if (config_card_check(p->config, &p->vm->cards[j], &reason))
                continue;
            struct message m = diagnose(p, CONFIG_ERROR, NULL);
            add(&m, text);
        }
    }
}

static void check_networks(struct parser *p)
{
    p->section = SECTION_NETWORK;
    for (uint32_t i = 0; i < p->config->network_count; i++) {
        char text[CONFIG_DIAGNOSTIC_BYTES] = "";
        struct message reason = { text, sizeof(text) };
        p->network = &p->config->networks[i];
        p->line = p->network->line;
        p->start = NULL;
        if (!config_network_check(p->config, p->network, &reason)) {
            struct message m = diagnose(p, CONFIG_ERROR, NULL);
            add(&m, text);
        }
    }
}

/* Diagnostics of the checks come last; this puts them where their lines are. Stable, and short enough for insertion. */
static void sort_diagnostics(struct config *c)
{
    for (uint32_t i = 1; i < c->diagnostic_count; i++) {
        struct config_diagnostic moved = c->diagnostics[i];
        uint32_t j = i;
        for (; j && c->diagnostics[j - 1].line > moved.line; j--)
            c->diagnostics[j] = c->diagnostics[j - 1];
        c->diagnostics[j] = moved;
    }
}

void config_parse(struct config *config, const char *text, size_t bytes, char *strings)
{
    struct parser p = { .config = config, .strings = strings, .section = SECTION_NONE, .line = 0, .start = text };
    size_t at = 0;

    memset(config, 0, sizeof(*config));
    config->node.name = "node";
    config->node.panic = CONFIG_PANIC_RESET;
    config->node.log = CONFIG_LOG_INFO;
    config->node.serial = 1;
    config->node.share_cores = false;
    config->node.exit_barrier = CONFIG_EXIT_BARRIER_AUTO;
    config->node.apic = CONFIG_APIC_AUTO;
    strings[0] = 0;

    if (bytes > CONFIG_MAX_BYTES) {
        struct message m = diagnose(&p, CONFIG_ERROR, text);
        add(&m, "the file is larger than 1 MiB: what follows is skipped");
        bytes = CONFIG_MAX_BYTES;
    }
    if (bytes >= 2 && ((text[0] == '\xff' && text[1] == '\xfe') || (text[0] == '\xfe' && text[1] == '\xff'))) {
        struct message m = diagnose(&p, CONFIG_ERROR, text);
        add(&m, "the file is UTF-16 and was not read: save it as UTF-8");
        return;
    }
    if (bytes >= 3 && !memcmp(text, "\xef\xbb\xbf", 3))
        at = 3;
    while (at < bytes) {
        const char *line = text + at;
        const char *newline = memchr(line, '\n', bytes - at);
        size_t line_bytes = newline ? (size_t)(newline - line) : bytes - at;

        at += line_bytes + 1;
        if (line_bytes && line[line_bytes - 1] == '\r')
            line_bytes--;
        p.line++;
        parse_line(&p, line, line_bytes);
    }
    check_vms(&p);
    check_networks(&p);
    sort_diagnostics(config);
}
