/* SPDX-License-Identifier: MIT */
/* [node]: the keys' values. Pure; runs in the loader too. */
#include "vm/config_node.h"

void config_node_defaults(struct config_node *node)
{
    node->name = "node";
    node->panic = CONFIG_PANIC_RESET;
    node->log = CONFIG_LOG_INFO;
    node->serial = 1;
    node->share_cores = false;
    node->exit_barrier = CONFIG_EXIT_BARRIER_AUTO;
    node->apic = CONFIG_APIC_AUTO;
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
#define WORD_KEY(function, type, field, ...)                                                                       \
    static bool function(struct config_node *to, const char *value, struct message *reason)                        \
    {                                                                                                              \
        static const char *const words[] = { __VA_ARGS__ };                                                        \
        int word = choose(value, words, ARRAY_COUNT(words), reason);                                               \
        if (word >= 0)                                                                                             \
            to->field = (type)word;                                                                                \
        return word >= 0;                                                                                          \
    }
WORD_KEY(set_panic, enum config_panic, panic, [CONFIG_PANIC_RESET] = "reset", [CONFIG_PANIC_WAIT] = "wait")
WORD_KEY(set_log, enum config_log, log, [CONFIG_LOG_DEBUG] = "debug", [CONFIG_LOG_INFO] = "info",
         [CONFIG_LOG_WARNING] = "warning", [CONFIG_LOG_ERROR] = "error")
WORD_KEY(set_serial, uint32_t, serial, "none", "com1", "com2", "com3", "com4")
WORD_KEY(set_apic, enum config_apic, apic, [CONFIG_APIC_AUTO] = "auto", [CONFIG_APIC_ON] = "on",
         [CONFIG_APIC_OFF] = "off")
WORD_KEY(set_share_cores, bool, share_cores, "no", "yes")
WORD_KEY(set_exit_barrier, enum config_exit_barrier, exit_barrier, [CONFIG_EXIT_BARRIER_AUTO] = "auto",
         [CONFIG_EXIT_BARRIER_NO] = "no", [CONFIG_EXIT_BARRIER_ALWAYS] = "always")
#undef WORD_KEY

static const struct {
    const char *name;
    bool (*set)(struct config_node *node, const char *value, struct message *reason);
} keys[CONFIG_NODE_KEYS] = {
    [CONFIG_NODE_NAME] = { "name", set_node_name },
    [CONFIG_NODE_PANIC] = { "panic", set_panic },
    [CONFIG_NODE_LOG] = { "log", set_log },
    [CONFIG_NODE_SERIAL] = { "serial", set_serial },
    [CONFIG_NODE_EXIT_BARRIER] = { "exit-barrier", set_exit_barrier },
    [CONFIG_NODE_SHARE_CORES] = { "share-cores", set_share_cores },
    [CONFIG_NODE_APIC] = { "apic-virtualization", set_apic },
};

const char *config_node_key_name(unsigned key)
{
    return keys[key].name;
}

bool config_node_set(struct config_node *node, unsigned key, const char *value, struct message *reason)
{
    return keys[key].set(node, value, reason);
}
