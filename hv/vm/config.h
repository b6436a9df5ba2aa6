/* SPDX-License-Identifier: MIT */
/*
 * tasuki.conf: what the node is called, which networks it is on and which VMs it runs; and vm.conf, the same for one VM that
 * is a directory on a volume. docs/configuration.md describes the format to an admin.
 *
 * Pure core: text in, one struct config and a list of diagnostics out. It allocates nothing, keeps no state, and reads
 * any bytes at all without leaving its buffers; a line that is wrong costs that line and a diagnostic, never the rest.
 * Callers: the loader (to learn which files to read), the hypervisor (to create the VMs), the shell (`config show`,
 * `vm create`).
 */
#ifndef VM_CONFIG_H
#define VM_CONFIG_H

#include "kernel/status.h"
#include "kernel/types.h"
#include "net/address.h"

#define CONFIG_MAX_VMS 64
#define CONFIG_MAX_NETWORKS 16
#define CONFIG_MAX_STORAGES 16
#define CONFIG_MAX_PORTALS 4       /* of one storage */
#define CONFIG_MAX_DNS 2           /* of one network */
#define CONFIG_MAX_DISKS 16        /* of one VM */
#define CONFIG_MAX_CARDS 8         /* network cards of one VM */
#define CONFIG_MAX_DIAGNOSTICS 64  /* kept; further ones are counted */
#define CONFIG_MAX_BYTES (1u << 20) /* of the file; more is not read */
#define CONFIG_MAX_LINE_BYTES 4096
#define CONFIG_MAX_NAME_BYTES 63
#define CONFIG_MAX_CMDLINE_BYTES 2047 /* Linux/x86 takes 2048 with the NUL */
#define CONFIG_MAX_VCPUS 32
#define CONFIG_MIN_MEMORY (1ull << 20)
#define CONFIG_MAX_MEMORY (1ull << 46)
#define CONFIG_MIN_TSC_KHZ 100000u /* guests count in units of 100 MHz (MSR_PLATFORM_INFO) */
#define CONFIG_MAX_TSC_KHZ 10000000u
#define CONFIG_DIAGNOSTIC_BYTES 224
#define CONFIG_UUID_CHARACTERS 36

enum config_severity {
    CONFIG_WARNING, /* understood, or skipped without changing what runs */
    CONFIG_ERROR,   /* what the admin asked for will not happen */
};

struct config_diagnostic {
    enum config_severity severity;
    uint32_t line;   /* from 1; 0 = the whole file */
    uint32_t column; /* in characters, from 1; 0 with line 0 */
    char text[CONFIG_DIAGNOSTIC_BYTES]; /* object, cause and cure; valid UTF-8, no newline, cut where it is too long */
};

enum config_panic { CONFIG_PANIC_RESET, CONFIG_PANIC_WAIT };
enum config_log { CONFIG_LOG_DEBUG, CONFIG_LOG_INFO, CONFIG_LOG_WARNING, CONFIG_LOG_ERROR };
enum config_exit_barrier { CONFIG_EXIT_BARRIER_AUTO, CONFIG_EXIT_BARRIER_NO, CONFIG_EXIT_BARRIER_ALWAYS };
enum config_apic { CONFIG_APIC_AUTO, CONFIG_APIC_ON, CONFIG_APIC_OFF };
enum config_start { CONFIG_START_MANUAL, CONFIG_START_AUTO };

/* The keys of each section, also the index into their `key_line` (the line where a key was set last; 0 = never). */
enum config_node_key {
    CONFIG_NODE_NAME,
    CONFIG_NODE_PANIC,
    CONFIG_NODE_LOG,
    CONFIG_NODE_SERIAL,
    CONFIG_NODE_SHARE_CORES,
    CONFIG_NODE_EXIT_BARRIER,
    CONFIG_NODE_APIC,
    CONFIG_NODE_KEYS,
};
enum config_vm_key {
    CONFIG_VM_MEMORY,
    CONFIG_VM_VCPUS,
    CONFIG_VM_KERNEL,
    CONFIG_VM_INITRD,
    CONFIG_VM_CMDLINE,
    CONFIG_VM_DISK,
    CONFIG_VM_START,
    CONFIG_VM_CPU,
    CONFIG_VM_TSC_FREQUENCY,
    CONFIG_VM_NETWORK,
    CONFIG_VM_UUID,  /* vm.conf alone */
    CONFIG_VM_OWNER, /* likewise */
    CONFIG_VM_KEYS,
};

enum config_network_key {
    CONFIG_NETWORK_CARD,
    CONFIG_NETWORK_ADDRESS,
    CONFIG_NETWORK_ADDRESS6,
    CONFIG_NETWORK_GATEWAY,
    CONFIG_NETWORK_VLAN,
    CONFIG_NETWORK_MTU,
    CONFIG_NETWORK_DNS,
    CONFIG_NETWORK_KEYS,
};

enum config_storage_key {
    CONFIG_STORAGE_PORTAL,
    CONFIG_STORAGE_TARGET,
    CONFIG_STORAGE_LUN,
    CONFIG_STORAGE_INITIATOR,
    CONFIG_STORAGE_CHAP,
    CONFIG_STORAGE_CHAP_MUTUAL,
    CONFIG_STORAGE_TIMEOUT,
    CONFIG_STORAGE_VOLUME,
    CONFIG_STORAGE_KEYS,
};

/* Strings are never NULL where the comment does not say so; they are NUL-terminated UTF-8 without control characters. */
struct config_node {
    const char *name; /* "node" by default */
    enum config_panic panic;
    enum config_log log;
    uint32_t serial; /* the shell's port: 1..4 for COM1..COM4, 0 = none */
    enum config_exit_barrier exit_barrier;
    bool share_cores; /* VMs may run on the threads of one core at the same moment; false by default */
    enum config_apic apic; /* whether CPUs that can deliver guests' interrupts do */
    uint32_t key_line[CONFIG_NODE_KEYS];
};

/* One `network =` of a VM: a card at one of the node's networks. */
struct config_card_of_vm {
    char network[CONFIG_MAX_NAME_BYTES + 1];
    uint64_t mac;  /* ethernet.h; 0: one is made of the VM's identity */
    uint32_t line;
};

struct config_vm {
    const char *name;
    uint64_t memory_bytes; /* multiple of 4 KiB */
    uint32_t vcpus;        /* 1..CONFIG_MAX_VCPUS */
    const char *kernel;    /* path as written; NULL = none */
    const char *initrd;    /* path; NULL = none */
    const char *cmdline;   /* "" by default */
    const char *disks[CONFIG_MAX_DISKS]; /* paths, or storages (config_disk_storage), in the order of the file */
    uint32_t disk_line[CONFIG_MAX_DISKS];
    uint32_t disk_count;
    struct config_card_of_vm cards[CONFIG_MAX_CARDS]; /* in the order of the file */
    uint32_t card_count;
    enum config_start start;
    uint32_t tsc_khz; /* of the guest's TSC; 0 = the host's. Whether a host can run it is not known here. */
    const char *cpu; /* name of the CPU model; NULL = host. Whether a host can have it is not known here. */
    const char *uuid;   /* of a VM on a volume; NULL: not given */
    const char *owner;  /* the node where it starts, of a VM on a volume; NULL: not given */
    const char *volume; /* where its directory is; NULL: on none. No key: who reads a vm.conf sets it */
    uint32_t line;   /* of the section's header; 0 = not from a file */
    uint32_t key_line[CONFIG_VM_KEYS];
    uint32_t error_count; /* errors among its diagnostics: such a VM is listed and not started */
};

enum config_card { CONFIG_CARD_FIRST, CONFIG_CARD_MAC, CONFIG_CARD_PCI };
/* AUTO is DHCP for IPv4, router advertisements for IPv6. */
enum config_addressing { CONFIG_ADDRESS_NONE, CONFIG_ADDRESS_AUTO, CONFIG_ADDRESS_STATIC };

struct config_network {
    const char *name;
    enum config_card card;
    uint8_t mac[6];                             /* CONFIG_CARD_MAC */
    uint8_t pci_bus, pci_device, pci_function;  /* CONFIG_CARD_PCI */
    enum config_addressing ipv4, ipv6;
    struct net_address address, address6;       /* of STATIC */
    struct net_address gateway;                 /* IPv4; NET_NONE: none */
    uint16_t vlan;                              /* 1..4094; 0: untagged */
    uint16_t mtu;
    struct net_address dns[CONFIG_MAX_DNS];
    uint32_t dns_count;
    uint32_t line; /* of the section's header */
    uint32_t key_line[CONFIG_NETWORK_KEYS];
    uint32_t error_count; /* errors among its diagnostics: such a network is listed and not used */
};

struct config_portal {
    struct net_address address;
    uint16_t port;
};

/* "10.0.0.5", "10.0.0.5:3260", "fd00::5", "[fd00::5]:3260"; without a port it is 3260. False: it is none. */
bool config_portal_parse(const char *value, struct config_portal *portal) MUST_CHECK;

struct config_storage {
    const char *name;
    struct config_portal portals[CONFIG_MAX_PORTALS]; /* of the same target */
    uint32_t portal_count;
    const char *target, *initiator; /* iSCSI names; NULL: not given, or wrong */
    const char *chap, *chap_mutual; /* a name, blanks, a secret (config_chap_secret): never to be shown; NULL: none */
    const char *volume;             /* its name; NULL: none */
    uint32_t timeout_s;             /* until VMs are paused that wait for it */
    uint16_t lun;
    uint32_t line; /* of the section's header */
    uint32_t key_line[CONFIG_STORAGE_KEYS];
    uint32_t error_count; /* errors among its diagnostics: such a storage is listed and not used */
};

struct config {
    struct config_node node;
    struct config_network networks[CONFIG_MAX_NETWORKS]; /* in the order of the file, names unique */
    uint32_t network_count;
    struct config_storage storages[CONFIG_MAX_STORAGES]; /* likewise */
    uint32_t storage_count;
    struct config_vm vms[CONFIG_MAX_VMS]; /* in the order of the file, names unique */
    uint32_t vm_count;
    struct config_diagnostic diagnostics[CONFIG_MAX_DIAGNOSTICS]; /* in the order of the file */
    uint32_t diagnostic_count;
    uint32_t diagnostics_dropped; /* beyond the array */
};

/*
 * Reads `bytes` bytes of `text` (need not be NUL-terminated; NULL with 0 gives the defaults) into *config, whose former
 * contents do not matter. `strings` is room for bytes + 1 characters, where every string of *config then lives; it must
 * live as long as *config, `text` need not. Any context; cannot fail: what is wrong is in config->diagnostics.
 */
void config_parse(struct config *config, const char *text, size_t bytes, char *strings);

/*
 * The same for the vm.conf of a VM whose directory is called `name`: one section [vm NAME], with uuid and owner. config->vms[0]
 * is the VM; vm_count is 0 where the section is missing or has another name. Networks and storages are looked up in `node`.
 */
void config_parse_vm(struct config *config, const struct config *node, const char *name, const char *text, size_t bytes,
                     char *strings);

/* The VM, or the network, of that name, or NULL. */
const struct config_vm *config_find_vm(const struct config *config, const char *name);
const struct config_network *config_find_network(const struct config *config, const char *name);

/* Makes *vm a VM with default settings. `name` must outlive it and have passed config_name_ok(). */
void config_vm_defaults(struct config_vm *vm, const char *name);

/* True for a UUID as it is written here: 8-4-4-4-12 hexadecimal digits, in lower case. */
bool config_uuid_ok(const char *text);

/* True for 1 to CONFIG_MAX_NAME_BYTES letters, digits, '.', '_' and '-', the first a letter or a digit. */
bool config_name_ok(const char *name);

/*
 * Sets one key of a VM, as a line of its section does; `value` must outlive *vm. On failure *vm is unchanged and
 * `reason` (cut at `reason_bytes`) says what is wrong with the value and what would be right: ERR_NOT_FOUND for an
 * unknown key, ERR_INVALID for a bad value, ERR_NO_MEMORY for one disk or card too many.
 */
enum status config_vm_set(struct config_vm *vm, const char *key, const char *value, char *reason,
                          size_t reason_bytes) MUST_CHECK;

/*
 * The MAC address of a VM's card that the configuration gives none: always the same for the same node, VM and card,
 * locally administered (IEEE 802, 8.2.2), and no other's but by chance (one in 2^46).
 */
uint64_t config_card_mac(const char *node, const char *vm, uint32_t card);

/* The storage that a VM's disk is ("storage:NAME"), or NULL where it is a path. */
const char *config_disk_storage(const char *disk);
/* Whether a path is that of a file on a volume (/ClusterStorage/...). */
bool config_disk_on_volume(const char *disk);

/* Where the secret begins in config_storage's chap or chap_mutual. */
const char *config_chap_secret(const char *value);

/* The name of a VM's key, for messages. */
const char *config_vm_key_name(enum config_vm_key key);

#endif
