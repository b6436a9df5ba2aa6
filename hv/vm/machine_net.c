/* SPDX-License-Identifier: MIT */
/*
 * A VM's network cards. See machine_net.h.
 *
 * Frames that the guest sent may wait elsewhere, in another guest's queue or in a physical card without a link, when the
 * VM is stopped. So a card is a piece of memory of its own, the frames' bytes included, that is taken out of the switch,
 * closed, and handed to net_guest_bury(), which gives it back when the last frame has come home. That may be after the
 * VM's next start, or after it was deleted; what comes home rings the VM's doorbell, so the card holds a reference to it.
 * Its memory is the hypervisor's in the accounts, for the VM's has to be nothing when its machine is gone.
 */
#include "vm/machine_net.h"

#include <stdio.h>

#include "kernel/heap.h"
#include "kernel/log.h"
#include "net/guest.h"
#include "vdev/virtio_net.h"
#include "vm/node.h"

#define FRAMES 256u
#define CHUNKS 512u /* a packet of 64 KiB takes 33 */
#define INBOX 256u
#define OUTBOX 512u

struct machine_net {
    struct virtio_net net;
    struct net_guest guest;
    struct vm *vm; /* a reference is held */
    struct frame *frames;
    struct frame_chunk *chunks;
    uint32_t *chunk_numbers;
    struct frame *inbox[INBOX], *outbox[OUTBOX];
    char name[96];
};

uint64_t machine_net_mac(const struct config_vm *config, uint32_t card)
{
    if (config->cards[card].mac)
        return config->cards[card].mac;
    return config->uuid ? config_card_mac(config->uuid, "", card) : config_card_mac(node_name(), config->name, card);
}

static void free_net(struct machine_net *n)
{
    kfree(n->frames, FRAMES * sizeof *n->frames);
    kfree(n->chunks, CHUNKS * sizeof *n->chunks);
    kfree(n->chunk_numbers, CHUNKS * sizeof *n->chunk_numbers);
    kfree(n, sizeof *n);
}

/* The last frame is back; any thread. */
static void gone(struct net_guest *guest)
{
    struct machine_net *n = CONTAINER_OF(guest, struct machine_net, guest);
    struct vm *vm = n->vm;

    free_net(n);
    vm_put(vm);
}

static void link_changed(void *context)
{
    vm_signal(context, ORDER_WORK);
}

/* Device and port, not yet joined. NULL with *status. */
static struct machine_net *make_net(struct vm *vm, uint32_t i, const struct virtio_owner *vm_owner, enum status *status)
{
    struct machine_net *n = kzalloc(sizeof *n);
    struct virtio_owner owner = *vm_owner;

    *status = ERR_NO_MEMORY;
    if (!n)
        return NULL;
    n->frames = kzalloc(FRAMES * sizeof *n->frames);
    n->chunks = kzalloc(CHUNKS * sizeof *n->chunks);
    n->chunk_numbers = kzalloc(CHUNKS * sizeof *n->chunk_numbers);
    if (n->frames && n->chunks && n->chunk_numbers) {
        const struct config_network *network = config_find_network(node_config(), vm->config.cards[i].network);
        struct virtio_net_config config = {
            .mac = machine_net_mac(&vm->config, i),
            .mtu = network ? network->mtu : 1500,
            .pairs = MIN(vm->config.vcpus, (uint32_t)VIRTIO_NET_PAIRS_MAX),
            .frames = n->frames, .chunks = n->chunks, .chunk_numbers = n->chunk_numbers,
            .frame_count = FRAMES, .chunk_count = CHUNKS,
            .inbox = n->inbox, .outbox = n->outbox, .inbox_size = INBOX, .outbox_size = OUTBOX,
        };
        snprintf(n->name, sizeof n->name, "%s: card %u", vm->name, i);
        owner.name = n->name;
        *status = virtio_net_init(&n->net, &owner, &vm->pci, MACHINE_SLOT_NET_FIRST + i, &config);
    }
    if (*status != OK) {
        free_net(n);
        return NULL;
    }
    n->vm = vm;
    vm_hold(vm);
    n->guest = (struct net_guest){ .network = vm->config.cards[i].network, .port = &n->net.port,
                                   .deadline_ns = vm->run_deadline_ns, .link_changed = link_changed, .context = vm };
    return n;
}

enum status machine_nets_build(struct vm *vm, const struct virtio_owner *owner, char *text, size_t text_bytes)
{
    char why[VM_TEXT_BYTES - 80];
    enum status status;

    for (uint32_t i = 0; i < vm->config.card_count; i++) {
        struct machine_net *n = vm->net[i] = make_net(vm, i, owner, &status);
        if (!n) {
            snprintf(text, text_bytes, "vm %s: card %u cannot be made (%s); stop another VM if memory is short", vm->name, i,
                     status_name(status));
            return status;
        }
        vm->device[vm->device_count++] = &n->net.device;
        status = net_guest_attach(&n->guest, why, sizeof why);
        if (status != OK) {
            snprintf(text, text_bytes, "vm %s: card %u: %s", vm->name, i, why);
            return status;
        }
        if (*why)
            log_warning("vm %s: card %u: %s", vm->name, i, why);
    }
    spin_lock(&vm->lock);
    machine_nets_links(vm);
    spin_unlock(&vm->lock);
    return OK;
}

void machine_nets_destroy(struct vm *vm)
{
    for (uint32_t i = 0; i < CONFIG_MAX_CARDS; i++) {
        struct machine_net *n = vm->net[i];
        bool wake;
        if (!n)
            continue;
        vm->net[i] = NULL;
        net_guest_detach(&n->guest);
        spin_lock(&vm->lock);
        virtio_net_close(&n->net);
        spin_unlock(&vm->lock);
        (void)frame_queue_purge(&n->net.port.inbox, &wake); /* of one that was never attached */
        net_guest_bury(&n->guest, &n->net.pool, gone);
    }
}

void machine_nets_links(struct vm *vm)
{
    for (uint32_t i = 0; i < vm->config.card_count; i++)
        if (vm->net[i])
            virtio_net_set_link(&vm->net[i]->net, net_guest_link(&vm->net[i]->guest));
}

void machine_nets_deadline(struct vm *vm)
{
    for (uint32_t i = 0; i < vm->config.card_count; i++)
        if (vm->net[i])
            net_guest_deadline(&vm->net[i]->guest, vm->run_deadline_ns);
}

void machine_nets_announce(struct vm *vm)
{
    for (uint32_t i = 0; i < vm->config.card_count; i++) {
        struct machine_net *n = vm->net[i];
        if (!n)
            continue;
        spin_lock(&vm->lock);
        if (!virtio_net_announce(&n->net))
            virtio_config_changed(&n->net.device); /* its link may be another than it was */
        spin_unlock(&vm->lock);
        net_guest_announce(&n->guest);
    }
}
