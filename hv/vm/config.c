/* SPDX-License-Identifier: MIT */
/*
 * The parser of tasuki.conf and of vm.conf. See config.h for the contract.
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
#include "vm/config_node.h"
#include "vm/config_storage.h"
#include "vm/config_vm.h"

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

/* ---- Keys ---- */

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

enum config_vm_key config_vm_find_key(const char *key, size_t bytes, struct message *reason)
{
    return (enum config_vm_key)find_key(key, bytes, config_vm_key_text, CONFIG_VM_KEYS, reason);
}

enum status config_vm_set(struct config_vm *vm, const char *key, const char *value, char *reason, size_t reason_bytes)
{
    struct message m = { reason, reason_bytes };
    enum config_vm_key index;

    if (reason_bytes)
        reason[0] = 0;
    index = config_vm_find_key(key, strlen(key), &m);
    if (index == CONFIG_VM_KEYS)
        return ERR_NOT_FOUND;
    return config_vm_apply(vm, index, value, &m);
}

const struct config_vm *config_find_vm(const struct config *config, const char *name)
{
    for (uint32_t i = 0; i < config->vm_count; i++)
        if (!strcmp(config->vms[i].name, name))
            return &config->vms[i];
    return NULL;
}

/* ---- Lines and sections ---- */

enum section { SECTION_NONE, SECTION_NODE, SECTION_VM, SECTION_NETWORK, SECTION_STORAGE, SECTION_SKIPPED };

/* The sections that have a name. */
static const struct {
    const char *word, *words;
    uint32_t limit;
} kinds[SECTION_SKIPPED] = {
    [SECTION_VM] = { "vm", " VMs", CONFIG_MAX_VMS },
    [SECTION_NETWORK] = { "network", " networks", CONFIG_MAX_NETWORKS },
    [SECTION_STORAGE] = { "storage", " storages", CONFIG_MAX_STORAGES },
};
#define KNOWN_SECTIONS "[node], [network NAME], [storage NAME]"

struct parser {
    struct config *config;
    const struct config *node; /* where networks and storages are: *config, or the node's beside a vm.conf */
    const char *only;          /* of a vm.conf: what its section must be called; NULL: tasuki.conf */
    char *strings; /* next free byte of the caller's room */
    enum section section;
    struct config_vm *vm; /* of SECTION_VM */
    struct config_network *network; /* of SECTION_NETWORK */
    struct config_storage *storage; /* of SECTION_STORAGE */
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

    const char *name = p->section == SECTION_VM        ? p->vm->name
                       : p->section == SECTION_NETWORK ? p->network->name
                       : p->section == SECTION_STORAGE ? p->storage->name
                                                       : NULL;

    if (severity == CONFIG_ERROR && name)
        ++*(p->section == SECTION_VM        ? &p->vm->error_count
            : p->section == SECTION_NETWORK ? &p->network->error_count
                                            : &p->storage->error_count);
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
    if (name) {
        add(&m, kinds[p->section].word);
        add(&m, " ");
        add(&m, name);
    }
    if (name || p->section == SECTION_NODE)
        add(&m, name ? ": " : "node: ");
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

static uint32_t *count_of(struct config *c, enum section kind)
{
    return kind == SECTION_VM ? &c->vm_count : kind == SECTION_NETWORK ? &c->network_count : &c->storage_count;
}

/* The name of number i of a kind of sections, and the line of its header. */
static const char *named(const struct config *c, enum section kind, uint32_t i, uint32_t *line)
{
    *line = kind == SECTION_VM ? c->vms[i].line : kind == SECTION_NETWORK ? c->networks[i].line : c->storages[i].line;
    return kind == SECTION_VM ? c->vms[i].name : kind == SECTION_NETWORK ? c->networks[i].name : c->storages[i].name;
}

/* [vm NAME] and its like. */
static void begin_named(struct parser *p, enum section kind, const char *name, size_t bytes)
{
    struct config *c = p->config;
    const char *word = kinds[kind].word;
    uint32_t *count = count_of(c, kind), line;
    struct message m;

    if (p->only && kind == SECTION_VM && (strlen(p->only) != bytes || memcmp(p->only, name, bytes))) {
        m = diagnose(p, CONFIG_ERROR, name);
        add_quoted(&m, name, bytes);
        add(&m, " is not the name of its directory, so the section is skipped: write [vm ");
        add(&m, p->only);
        add(&m, "], or rename the directory");
        return;
    }
    if (!name_ok(name, bytes)) {
        m = diagnose(p, CONFIG_ERROR, name);
        add(&m, "the section's ");
        add(&m, kind == SECTION_VM ? "VM" : word);
        add(&m, " cannot be called ");
        add_quoted(&m, name, bytes);
        add(&m, ", so it is skipped: write [");
        add(&m, word);
        add(&m, " NAME], up to 63 letters, digits, '.', '_' and '-', a letter or digit first");
        return;
    }
    for (uint32_t i = 0; i < *count; i++) {
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
    if (*count == kinds[kind].limit) {
        m = diagnose(p, CONFIG_ERROR, name);
        add(&m, word);
        add(&m, " ");
        add_bytes(&m, name, bytes);
        add(&m, " is skipped: one node takes at most ");
        add_number(&m, kinds[kind].limit);
        add(&m, kinds[kind].words);
        return;
    }
    uint32_t i = (*count)++;
    name = keep(p, name, bytes);
    p->section = kind;
    if (kind == SECTION_VM) {
        config_vm_defaults(p->vm = &c->vms[i], name);
        p->vm->line = p->line;
    } else if (kind == SECTION_NETWORK) {
        config_network_defaults(p->network = &c->networks[i], name);
        p->network->line = p->line;
    } else {
        config_storage_defaults(p->storage = &c->storages[i], name);
        p->storage->line = p->line;
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
                            : "a section without ']' is skipped: write " KNOWN_SECTIONS " or [vm NAME]");
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
    size_t bytes = (size_t)(word_end - word);
    enum section kind = SECTION_VM;
    while (kind < SECTION_SKIPPED && (strlen(kinds[kind].word) != bytes || memcmp(word, kinds[kind].word, bytes)))
        kind++;
    bool is_node = bytes == 4 && !memcmp(word, "node", 4) && rest == close;
    if (p->only && (is_node || (kind < SECTION_SKIPPED && kind != SECTION_VM))) {
        m = diagnose(p, CONFIG_ERROR, word);
        add(&m, "a VM's file has no section but [vm ");
        add(&m, p->only);
        add(&m, "], so this one is skipped: it belongs into tasuki.conf");
    } else if (is_node) {
        p->section = SECTION_NODE;
    } else if (kind < SECTION_SKIPPED) {
        begin_named(p, kind, rest, (size_t)(close - rest));
    } else {
        m = diagnose(p, CONFIG_WARNING, word);
        add(&m, "unknown section ");
        add_quoted(&m, word, close > word ? (size_t)(close - word) : 0);
        add(&m, " is skipped: known are " KNOWN_SECTIONS " and [vm NAME]");
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
    enum section kind = p->section;
    bool repeatable, done;
    unsigned key_count = kind == SECTION_VM        ? (unsigned)CONFIG_VM_KEYS
                         : kind == SECTION_NETWORK ? (unsigned)CONFIG_NETWORK_KEYS
                         : kind == SECTION_STORAGE ? (unsigned)CONFIG_STORAGE_KEYS
                                                   : (unsigned)CONFIG_NODE_KEYS;
    unsigned index = find_key(key, key_bytes,
                              kind == SECTION_VM        ? config_vm_key_text
                              : kind == SECTION_NETWORK ? config_network_key_name
                              : kind == SECTION_STORAGE ? config_storage_key_name
                                                        : config_node_key_name,
                              key_count, &reason);
    uint32_t *key_line;
    const char *kept;

    if (index == key_count) {
        m = diagnose(p, CONFIG_WARNING, key);
        add(&m, reason_text);
        return;
    }
    if (kind == SECTION_VM && !p->only && (index == CONFIG_VM_UUID || index == CONFIG_VM_OWNER)) {
        m = diagnose(p, CONFIG_ERROR, key);
        add_bytes(&m, key, key_bytes);
        add(&m, " belongs to VMs on a volume, in their vm.conf: delete the line");
        return;
    }
    kept = keep(p, value, value_bytes);
    if (kind == SECTION_VM) {
        done = config_vm_apply(p->vm, index, kept, &reason) == OK;
        key_line = &p->vm->key_line[index];
        repeatable = config_vm_repeatable(index);
    } else if (kind == SECTION_STORAGE) {
        done = config_storage_set(p->storage, index, kept, &reason);
        key_line = &p->storage->key_line[index];
        repeatable = index == CONFIG_STORAGE_PORTAL;
    } else if (kind == SECTION_NETWORK) {
        done = config_network_set(p->network, index, kept, &reason);
        key_line = &p->network->key_line[index];
        repeatable = index == CONFIG_NETWORK_DNS;
    } else {
        done = config_node_set(&p->config->node, index, kept, &reason);
        key_line = &p->config->node.key_line[index];
        repeatable = false;
    }
    if (!done) {
        if (kind == SECTION_STORAGE)
            *key_line = p->line; /* given, though wrong: it is not missed again */
        m = diagnose(p, CONFIG_ERROR, value);
        add_bytes(&m, key, key_bytes);
        add(&m, ": ");
        add(&m, reason_text);
        return;
    }
    if (kind == SECTION_VM && index == CONFIG_VM_DISK)
        p->vm->disk_line[p->vm->disk_count - 1] = p->line;
    if (kind == SECTION_VM && index == CONFIG_VM_NETWORK)
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
        if (p->section == SECTION_STORAGE)
            add(&m, "a line (not shown here, since it may hold a secret)");
        else
            add_quoted(&m, at, (size_t)(end - at));
        add(&m, " is neither a section nor a setting: write key = value");
        return;
    }
    if (p->section == SECTION_NONE) {
        m = diagnose(p, CONFIG_ERROR, at);
        add_quoted(&m, at, (size_t)(key_end - at));
        add(&m, " is set outside of any section: put it under " KNOWN_SECTIONS " or [vm NAME]");
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
            if (config_card_check(p->node, &p->vm->cards[j], &reason))
                continue;
            struct message m = diagnose(p, CONFIG_ERROR, NULL);
            add(&m, text);
        }
    }
}

/* Number i of a kind of sections; false with the reason. */
static bool check_one(struct parser *p, enum section kind, uint32_t i, struct message *reason)
{
    struct config *c = p->config;

    p->section = kind;
    p->start = NULL;
    (void)named(c, kind, i, &p->line);
    switch (kind) {
    case SECTION_VM: return config_storage_check_vm(p->node, p->vm = &c->vms[i], reason);
    case SECTION_NETWORK: return config_network_check(c, p->network = &c->networks[i], reason);
    default: return config_storage_check(c, p->storage = &c->storages[i], reason);
    }
}

static void check_named(struct parser *p, enum section kind)
{
    for (uint32_t i = 0; i < *count_of(p->config, kind); i++) {
        char text[CONFIG_DIAGNOSTIC_BYTES] = "";
        struct message reason = { text, sizeof(text) };
        if (!check_one(p, kind, i, &reason)) {
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

static void parse(struct config *config, const struct config *node, const char *only, const char *text, size_t bytes,
                  char *strings)
{
    struct parser p = { .config = config, .node = node, .only = only, .strings = strings, .section = SECTION_NONE, .line = 0,
                        .start = text };
    size_t at = 0;

    memset(config, 0, sizeof(*config));
    config_node_defaults(&config->node);
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
    if (only && !config->vm_count && !config->diagnostic_count) {
        p.section = SECTION_NONE;
        p.line = 0;
        p.start = NULL;
        struct message m = diagnose(&p, CONFIG_ERROR, NULL);
        add(&m, "there is no section [vm ");
        add(&m, only);
        add(&m, "]: add it, and the VM's settings behind it");
    }
    check_vms(&p);
    for (enum section kind = SECTION_VM; kind < SECTION_SKIPPED; kind++)
        check_named(&p, kind);
    sort_diagnostics(config);
}

void config_parse(struct config *config, const char *text, size_t bytes, char *strings)
{
    parse(config, config, NULL, text, bytes, strings);
}

void config_parse_vm(struct config *config, const struct config *node, const char *name, const char *text, size_t bytes,
                     char *strings)
{
    parse(config, node, name, text, bytes, strings);
}
