/* SPDX-License-Identifier: MIT */
/*
 * [storage NAME]: a logical unit of an iSCSI target, by which portals it is reached, and who this node is there. The keys'
 * values, and what only all of them together can tell. Pure; runs in the loader too.
 *
 * No message here quotes the value of chap or chap-mutual: diagnostics are logged and shown.
 */
#include "vm/config_storage.h"

#include <string.h>

#include "kernel/text.h"

#define ISCSI_PORT 3260
#define ISCSI_NAME_MAX 223 /* bytes of an iSCSI name (RFC 7143, 4.2.7) */
#define SECRET_MIN 12      /* 96 bits (RFC 7143, 9.2.1) */
#define TIMEOUT_DEFAULT_S 60
#define TIMEOUT_MIN_S 5
#define TIMEOUT_MAX_S 86400

void config_storage_defaults(struct config_storage *storage, const char *name)
{
    memset(storage, 0, sizeof(*storage));
    storage->name = name;
    storage->timeout_s = TIMEOUT_DEFAULT_S;
}

static bool refuse(struct message *reason, const char *value, const char *why)
{
    add_quoted(reason, value, strlen(value));
    add(reason, why);
    return false;
}

bool config_portal_parse(const char *value, struct config_portal *portal)
{
    const char *end = strchr(value, ']'), *colon = strrchr(value, ':');
    char text[NET_ADDRESS_TEXT];
    uint64_t port = ISCSI_PORT;
    size_t bytes = strlen(value);

    if (*value == '[') {
        if (!end || (end[1] && end[1] != ':'))
            return false;
        colon = end[1] ? end + 1 : NULL;
        bytes = (size_t)(end - ++value);
    } else if (colon && strchr(value, ':') != colon) {
        colon = NULL; /* IPv6 without brackets has no port */
    } else if (colon) {
        bytes = (size_t)(colon - value);
    }
    if (bytes >= sizeof text || (colon && (text_to_u64(colon + 1, &port) != OK || port < 1 || port > 65535)))
        return false;
    memcpy(text, value, bytes);
    text[bytes] = 0;
    portal->port = (uint16_t)port;
    return !strchr(text, '/') && text_to_address(text, &portal->address);
}

static bool set_portal(struct config_storage *storage, const char *value, struct message *reason)
{
    struct config_portal portal;

    if (!config_portal_parse(value, &portal))
        return refuse(reason, value, " is not a portal: write the address of the target, such as 10.0.0.5 or 10.0.0.5:3260 "
                                     "or [fd00::5]:3260");
    if (storage->portal_count == CONFIG_MAX_PORTALS) {
        add(reason, "one portal too many: at most ");
        add_number(reason, CONFIG_MAX_PORTALS);
        add(reason, " are tried");
        return false;
    }
    storage->portals[storage->portal_count++] = portal;
    return true;
}

/* iqn., eui. or naa., then what RFC 7143 (4.2.7) allows. */
static bool iscsi_name(const char *value)
{
    size_t bytes = strlen(value);

    if (bytes <= 4 || bytes > ISCSI_NAME_MAX ||
        (!str_starts_with(value, "iqn.") && !str_starts_with(value, "eui.") && !str_starts_with(value, "naa.")))
        return false;
    for (const char *c = value; *c; c++)
        if (!(*c >= 'a' && *c <= 'z') && !(*c >= 'A' && *c <= 'Z') && !(*c >= '0' && *c <= '9') && *c != '-' && *c != '.' &&
            *c != ':' && (unsigned char)*c < 0x80)
            return false;
    return true;
}

static bool set_target(struct config_storage *storage, const char *value, struct message *reason)
{
    if (!iscsi_name(value))
        return refuse(reason, value, " is not the name of a target: write it as the target tells it, such as "
                                     "iqn.2026-11.example:lun");
    storage->target = value;
    return true;
}

static bool set_initiator(struct config_storage *storage, const char *value, struct message *reason)
{
    if (!iscsi_name(value))
        return refuse(reason, value, " is not the name of an initiator: write one that no other node has, such as "
                                     "iqn.2026-11.example:alpha");
    storage->initiator = value;
    return true;
}

static bool set_lun(struct config_storage *storage, const char *value, struct message *reason)
{
    uint64_t lun;

    if (text_to_u64(value, &lun) != OK || lun > 16383)
        return refuse(reason, value, " is not the number of a logical unit: write 0 to 16383");
    storage->lun = (uint16_t)lun;
    return true;
}

const char *config_chap_secret(const char *value)
{
    const char *secret = value + strcspn(value, " \t");

    return secret + strspn(secret, " \t");
}

/* A name and a secret. Neither is ever quoted. */
static bool set_account(const char **account, const char *value, struct message *reason)
{
    const char *secret = config_chap_secret(value);
    size_t name_bytes = strcspn(value, " \t"), secret_bytes = strlen(secret);

    if (!name_bytes || name_bytes > 255 || !secret_bytes) {
        add(reason, "it is to have a name and a secret with a blank between: write them as the target has them");
        return false;
    }
    if (secret_bytes < SECRET_MIN || secret_bytes > 255) {
        add(reason, "the secret has ");
        add_number(reason, secret_bytes);
        add(reason, " bytes: a secret has 12 to 255 of them; shorter ones can be guessed");
        return false;
    }
    *account = value;
    return true;
}

static bool set_chap(struct config_storage *storage, const char *value, struct message *reason)
{
    return set_account(&storage->chap, value, reason);
}

static bool set_chap_mutual(struct config_storage *storage, const char *value, struct message *reason)
{
    return set_account(&storage->chap_mutual, value, reason);
}

static bool set_timeout(struct config_storage *storage, const char *value, struct message *reason)
{
    uint64_t seconds;

    if (text_to_u64(value, &seconds) != OK || seconds < TIMEOUT_MIN_S || seconds > TIMEOUT_MAX_S)
        return refuse(reason, value, " is not a number of seconds: write 5 to 86400, after which VMs are paused that wait for "
                                     "their disk");
    storage->timeout_s = (uint32_t)seconds;
    return true;
}

static bool set_volume(struct config_storage *storage, const char *value, struct message *reason)
{
    if (!config_name_ok(value))
        return refuse(reason, value, " cannot be a volume's name: write up to 63 letters, digits, '.', '_' and '-', a letter "
                                     "or digit first");
    storage->volume = value;
    return true;
}

static const struct {
    const char *name;
    bool (*set)(struct config_storage *storage, const char *value, struct message *reason);
} keys[CONFIG_STORAGE_KEYS] = {
    [CONFIG_STORAGE_PORTAL] = { "portal", set_portal },
    [CONFIG_STORAGE_TARGET] = { "target", set_target },
    [CONFIG_STORAGE_LUN] = { "lun", set_lun },
    [CONFIG_STORAGE_INITIATOR] = { "initiator", set_initiator },
    [CONFIG_STORAGE_CHAP] = { "chap", set_chap },
    [CONFIG_STORAGE_CHAP_MUTUAL] = { "chap-mutual", set_chap_mutual },
    [CONFIG_STORAGE_TIMEOUT] = { "timeout", set_timeout },
    [CONFIG_STORAGE_VOLUME] = { "volume", set_volume },
};

const char *config_storage_key_name(unsigned key)
{
    return keys[key].name;
}

bool config_storage_set(struct config_storage *storage, unsigned key, const char *value, struct message *reason)
{
    return keys[key].set(storage, value, reason);
}

/* ---- The whole ---- */

static bool missing(struct message *reason, const char *key, const char *cure)
{
    add(reason, "there is no ");
    add(reason, key);
    add(reason, cure);
    return false;
}

bool config_storage_check(const struct config *config, const struct config_storage *storage, struct message *reason)
{
    if (!storage->portal_count && !storage->key_line[CONFIG_STORAGE_PORTAL])
        return missing(reason, "portal", ": add portal = ADDRESS of the target");
    if (!storage->target && !storage->key_line[CONFIG_STORAGE_TARGET])
        return missing(reason, "target", ": add target = NAME of the target, such as iqn.2026-11.example:lun");
    if (!storage->initiator && !storage->key_line[CONFIG_STORAGE_INITIATOR])
        return missing(reason, "initiator", ": add initiator = NAME of this node, such as iqn.2026-11.example:alpha");
    if (storage->chap_mutual && !storage->chap)
        return missing(reason, "chap beside chap-mutual", ": a target proves itself only to who logs in with chap = NAME "
                                                          "SECRET");
    if (storage->chap && storage->chap_mutual &&
        !strcmp(config_chap_secret(storage->chap), config_chap_secret(storage->chap_mutual))) {
        add(reason, "chap and chap-mutual have the same secret, so that the target's proof proves nothing: give them two");
        return false;
    }
    for (const struct config_storage *other = config->storages; other < storage; other++) {
        if (!other->target || !storage->target || strcmp(other->target, storage->target) || other->lun != storage->lun)
            continue;
        add(reason, "it is the same target and lun as storage ");
        add(reason, other->name);
        add(reason, ": write the portals of both into one section");
        return false;
    }
    return true;
}

const char *config_disk_storage(const char *disk)
{
    return str_starts_with(disk, "storage:") ? disk + 8 : NULL;
}

bool config_disk_on_volume(const char *disk)
{
    return str_starts_with(disk, "/ClusterStorage/");
}

static const struct config_storage *find(const struct config *config, const char *name)
{
    for (uint32_t i = 0; i < config->storage_count; i++)
        if (!strcmp(config->storages[i].name, name))
            return &config->storages[i];
    return NULL;
}

/* A raw unit belongs to one disk of one VM: whoever else wrote it would destroy it. */
bool config_storage_check_vm(const struct config *config, const struct config_vm *vm, struct message *reason)
{
    for (uint32_t i = 0; i < vm->disk_count; i++) {
        const char *name = config_disk_storage(vm->disks[i]);
        const struct config_storage *storage = name ? find(config, name) : NULL;
        if (name && !storage) {
            add(reason, "disk = storage:");
            add(reason, name);
            add(reason, ": there is no [storage ");
            add(reason, name);
            add(reason, "]: add the section, or correct the name");
            return false;
        }
        if (storage && storage->volume) {
            add(reason, "disk = storage:");
            add(reason, name);
            add(reason, ": it is to hold volume ");
            add(reason, storage->volume);
            add(reason, ", which a VM that writes to it directly would destroy: delete one of the two");
            return false;
        }
    }
    return true;
}
