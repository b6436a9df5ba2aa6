/* SPDX-License-Identifier: MIT */
/*
 * The reservations of the node's storages: orders to look, to take, to give back (net/scsi/scsi_reserve.h), the claim that
 * is proven after each login, and what is to be done when this node was fenced. See storage.h.
 *
 * An order belongs to the thread that waits for it, on whose stack it is, and to the service from the moment it is handed
 * over until it is done. One at a time for each storage.
 */
#include "net/storage_private.h"

#include <stdio.h>
#include <string.h>

#include "kernel/crc32c.h"
#include "kernel/heap.h"
#include "kernel/log.h"
#include "kernel/random.h"
#include "kernel/text.h"
#include "kernel/thread.h"
#include "kernel/time.h"
#include "net/service.h"

#define TYPE SCSI_PR_WRITE_EXCLUSIVE_REGISTRANTS
#define PATH_BITS (~SCSI_KEY_LIFE)
#define PATHS_NS (6 * NS_PER_S) /* patience for the logout of paths that stand by */

struct storage_order {
    const char *name;         /* or ... */
    struct storage *storage;
    enum scsi_reserve_order order;
    bool take_over, admin, release; /* release: it is taken to be given back */
    bool again;               /* the same, by the user who has it: the keys of paths that stood by are to go */
    char *text;
    size_t text_bytes;
    enum status status;
    unsigned preempted;
    bool begun, done;
};

static struct wait_queue waiters;

/* ---- Keys ---- */

void storage_fence_set_up(struct storage *s, const char *node)
{
    static bool ready;
    const struct config_storage *c = s->config;
    uint32_t half = crc32c(0, node, strlen(node) + 1);
    uint16_t drawn = 0;

    if (!ready)
        wait_queue_init(&waiters, "storage orders");
    ready = true;
    half = crc32c(half, c->initiator, strlen(c->initiator) + 1);
    half = crc32c(half, c->name, strlen(c->name));
    while (!drawn)
        random_bytes(&drawn, sizeof drawn);
    s->life = (uint64_t)half << 32 | (uint64_t)drawn << 16;
    s->claim = (struct scsi_claim){ .key = s->life, .type = TYPE, .path_bits = PATH_BITS, .owner = s };
    s->order_buffer = kzalloc(SCSI_RESERVE_ROOM);
}

uint64_t storage_fence_key(const struct storage_path *path)
{
    return path->storage->life | (path->session.parameters.portal_group & PATH_BITS);
}

static uint64_t key_of(const struct storage *s)
{
    return storage_fence_key(s->active);
}

void storage_fence_prove(struct storage *s)
{
    s->claim.key = key_of(s);
}

/* ---- Fenced ---- */

static unsigned requests_of(const struct scsi_disk *disk)
{
    unsigned count = 0;

    for (const struct disk_request *r = disk->first; r; r = r->next)
        count++;
    return count;
}

void storage_fenced(void *context, const char *why)
{
    struct storage *s = context;
    const struct scsi_holding *h = &s->disk.info.holding;
    unsigned count = requests_of(&s->disk);
    char by[100] = "nobody has it reserved now";

    if (h->held)
        snprintf(by, sizeof by, "key 0x%016lx%s%.48s%s has it now", (unsigned long)h->key, h->holder[0] ? " (" : "", h->holder,
                 h->holder[0] ? ")" : "");
    snprintf(s->fenced, sizeof s->fenced, "fenced: %.110s; %s; %u requests are discarded", why, by, count);
    log_error("storage %s: %s", s->config->name, s->fenced);
    str_copy(s->problem, sizeof s->problem, s->fenced);
    s->by_admin = false;
    if (s->user) {
        s->lost = true;
        (s->user->fenced ? s->user->fenced : s->user->lost)(s->user, s->fenced);
    }
}

void storage_fence_leave(struct storage *s)
{
    s->by_admin = false;
    if (s->fenced[0])
        s->problem[0] = '\0';
    s->fenced[0] = '\0';
    s->claim.blocks = 0;
    s->claim.restore = s->claim.stood_by = false;
    scsi_disk_claim(&s->disk, NULL, time_now_ns());
}

/* ---- The epoch ---- */

static bool read_epoch(const struct scsi_claim *claim, const uint8_t *bytes, size_t count, uint64_t *epoch)
{
    const struct storage *s = claim->owner;

    return count == s->epoch.bytes && s->epoch.read(s->epoch.uuid, bytes, epoch);
}

struct setting {
    const char *name;
    struct storage *storage;
    const struct storage_epoch *epoch;
    bool done;
};

static void do_set_epoch(void *arg)
{
    struct setting *set = arg;
    struct storage *s = set->storage;
    uint32_t block = s->disk.info.block_bytes;

    if (!s->disk.claim || s->disk.fenced)
        return;
    s->epoch = *set->epoch;
    s->claim.block = s->epoch.offset / block;
    s->claim.blocks = (uint32_t)(s->epoch.bytes / block);
    s->claim.block_bytes = block;
    s->claim.epoch = s->epoch.epoch;
    s->claim.read_epoch = read_epoch;
    s->claim.restore = true;
    scsi_disk_claim(&s->disk, &s->claim, time_now_ns());
}

void storage_set_epoch(struct storage *storage, const struct storage_epoch *epoch)
{
    struct setting set = { .storage = storage, .epoch = epoch };

    (void)!net_call(do_set_epoch, &set);
}

/* ---- Orders ---- */

static void claim(struct storage *s, bool admin)
{
    bool has = s->disk.claim && !s->disk.fenced;

    s->single &= s->order->release || s->order->again;
    storage_paths_proven(s); /* what was taken away were also the keys of paths that stand by */
    s->by_admin = admin ? true : s->by_admin;
    if (has) /* it had it already: what is queued stays in its epoch */
        return;
    s->fenced[0] = '\0';
    s->claim.keep = !s->reserve.cannot_keep;
    s->claim.blocks = 0;
    s->claim.restore = s->claim.stood_by = false;
    s->claim.epoch = ++s->epochs;
    scsi_disk_claim(&s->disk, &s->claim, time_now_ns());
}

static void end(struct storage *s, enum status status, const char *text)
{
    struct storage_order *order = s->order;

    s->order = NULL;
    if (!order)
        return;
    order->status = status;
    if (order->text)
        str_copy(order->text, order->text_bytes, text);
    wake_all_set(&waiters, &order->done); /* *order is the other thread's stack, and gone after this */
}

static void over(struct scsi_talk *talk, bool lost)
{
    struct storage *s = talk->owner;
    struct scsi_reserve *r = &s->reserve;
    char text[STORAGE_TEXT + 200];

    if (lost) {
        snprintf(text, sizeof text, "storage %s: the connection was lost meanwhile; try again", s->config->name);
        end(s, ERR_IO, text);
        return;
    }
    if (r->holding.known)
        s->disk.info.holding = r->holding;
    if (r->status != OK) {
        snprintf(text, sizeof text, "storage %s: %s", s->config->name, r->why);
        end(s, r->status, text);
        return;
    }
    text[0] = '\0';
    if (r->order == SCSI_RESERVE_TAKE) {
        s->order->preempted = r->preempted;
        if (r->preempted)
            snprintf(text, sizeof text, "storage %s: reserved with key 0x%016lx; %u strangers' keys were preempted, 0x%016lx the "
                     "last", s->config->name, (unsigned long)r->key, r->preempted, (unsigned long)r->last_preempted);
        else
            snprintf(text, sizeof text, "storage %s: reserved with key 0x%016lx", s->config->name, (unsigned long)r->key);
        if (!s->order->release && !s->order->again)
            log_line(r->preempted ? LOG_WARNING : LOG_INFO, "%s", text);
        claim(s, s->order->admin);
    } else if (r->order == SCSI_RESERVE_RELEASE) {
        storage_fence_leave(s);
        snprintf(text, sizeof text, "storage %s: its reservation is given back", s->config->name);
    }
    end(s, OK, text);
}

void storage_fence_moved(struct storage *s)
{
    if (s->order_talk.active) {
        (void)scsi_talk_forget(&s->order_talk);
        over(&s->order_talk, true);
    }
}

enum status storage_may_order(const struct storage *s, const char *name, char *text, size_t text_bytes)
{
    if (!s) {
        snprintf(text, text_bytes, "storage %s: there is no such storage; `iscsi list` shows those that there are", name);
        return ERR_NOT_FOUND;
    }
    name = s->config->name;
    if (s->broken || s->active->session.state != ISCSI_READY || !s->order_buffer) {
        snprintf(text, text_bytes, "storage %s: its disk is not there (%s): %.120s", name, storage_state_name(s),
                 s->problem[0] ? s->problem : "try again in a moment");
        return ERR_IO;
    }
    if (s->order) {
        snprintf(text, text_bytes, "storage %s: another order about it is under way; try again", name);
        return ERR_TIMEOUT;
    }
    return OK;
}

/* Why it cannot be done now; OK: it can. */
static enum status may(const struct storage *s, const struct storage_order *order)
{
    enum status status = storage_may_order(s, order->name, order->text, order->text_bytes);

    if (status != OK)
        return status;
    const char *name = s->config->name;
    if (s->validation && order->order != SCSI_RESERVE_LOOK) {
        snprintf(order->text, order->text_bytes, "storage %s: it is being validated; try again", name);
        return ERR_TIMEOUT;
    }
    if ((order->admin || order->release) && s->user && s->fenced[0]) {
        snprintf(order->text, order->text_bytes, "storage %s: %s was fenced, what it wanted to write is discarded; stop it first",
                 name, s->user->name);
        return ERR_BUSY;
    }
    if (order->release && s->user && s->disk.claim) {
        snprintf(order->text, order->text_bytes, "storage %s: %s needs the reservation; stop it first", name, s->user->name);
        return ERR_BUSY;
    }
    return OK;
}

static void begin(void *arg)
{
    struct storage_order *order = arg;
    struct storage *s = order->storage ? order->storage : storage_find(order->name);
    char nothing[STORAGE_TEXT];

    if (!order->text) {
        order->text = nothing;
        order->text_bytes = sizeof nothing;
    }
    order->status = may(s, order);
    if (order->text == nothing)
        order->text = NULL;
    if (order->status != OK)
        return;
    order->begun = true;
    s->order = order;
    s->reserve = (struct scsi_reserve){ .order = order->order, .key = key_of(s), .type = TYPE, .take_over = order->take_over,
                                        .buffer = s->order_buffer };
    s->claim.key = s->reserve.key;
    s->order_talk.ops = &scsi_reserve_ops;
    s->order_talk.core = &s->reserve;
    s->order_talk.session[0] = &s->active->session;
    memcpy(s->order_talk.lun, s->disk.lun, sizeof s->disk.lun);
    s->order_talk.over = over;
    s->order_talk.owner = s;
    scsi_reserve_start(&s->reserve);
    scsi_talk_start(&s->order_talk, time_now_ns());
}

static enum status give(struct storage_order *order)
{
    if (!net_call(begin, order)) {
        if (order->text)
            snprintf(order->text, order->text_bytes, "storage %s: this node has no network; add a [network NAME] section to "
                     "tasuki.conf", order->name ? order->name : "");
        return ERR_UNSUPPORTED;
    }
    if (order->begun)
        wait_event(&waiters, __atomic_load_n(&order->done, __ATOMIC_ACQUIRE));
    return order->status;
}

enum status storage_reserve(const char *name, bool take_over, char *text, size_t text_bytes)
{
    return give(&(struct storage_order){ .name = name, .order = SCSI_RESERVE_TAKE, .take_over = take_over, .admin = true,
                                         .text = text, .text_bytes = text_bytes });
}

static void do_end_paths(void *arg)
{
    struct setting *ending = arg;

    ending->done = storage_paths_end(ending->storage);
}

/* The keys of paths that stand by go with the order that follows; no path is to register one meanwhile. */
static void end_paths(struct storage *storage)
{
    struct setting ending = { .storage = storage };

    for (uint64_t end = time_now_ns() + PATHS_NS; net_call(do_end_paths, &ending) && !ending.done && time_now_ns() < end;)
        thread_sleep_ns(10 * NS_PER_MS);
}

static void do_find(void *arg)
{
    struct setting *wanted = arg;
    struct storage *s = storage_find(wanted->name);

    wanted->storage = s && !s->broken && !s->user ? s : NULL;
}

/* The order has ended; where it was refused, paths may stand by again. */
static void do_begin_paths(void *arg)
{
    ((struct storage *)arg)->single = false;
}

enum status storage_release(const char *name, char *text, size_t text_bytes)
{
    struct storage_order take = { .name = name, .order = SCSI_RESERVE_TAKE, .release = true, .text = text, .text_bytes = text_bytes };
    struct setting wanted = { .name = name };

    if (net_call(do_find, &wanted) && wanted.storage)
        end_paths(wanted.storage);
    enum status status = give(&take); /* what an earlier life of this node has left, too; a stranger's is refused */
    if (status == OK)
        status = give(&(struct storage_order){ .name = name, .order = SCSI_RESERVE_RELEASE, .release = true, .text = text,
                                               .text_bytes = text_bytes });
    if (wanted.storage)
        (void)!net_call(do_begin_paths, wanted.storage);
    return status;
}

enum status storage_take(struct storage *storage, bool take_over, uint64_t *key, bool *taken_over, char *text, size_t text_bytes)
{
    struct storage_order order = { .storage = storage, .order = SCSI_RESERVE_TAKE, .take_over = take_over, .text = text,
                                   .text_bytes = text_bytes };
    enum status status = give(&order);

    *key = storage->claim.key;
    *taken_over = order.preempted;
    return status;
}

enum status storage_give_back(struct storage *storage)
{
    if (storage->by_admin) /* he gives it back himself */
        return OK;
    if (storage->path_count > 1) {
        end_paths(storage);
        if (give(&(struct storage_order){ .storage = storage, .order = SCSI_RESERVE_TAKE, .again = true }) != OK)
            log_warning("storage %s: keys of paths that stood by stay at the target; this node takes them away when it reserves next",
                        storage->config->name);
    }
    enum status status = give(&(struct storage_order){ .storage = storage, .order = SCSI_RESERVE_RELEASE });
    (void)!net_call(do_begin_paths, storage);
    return status;
}

void storage_look_one(const char *name)
{
    struct storage_order order = { .name = name, .order = SCSI_RESERVE_LOOK };

    (void)!give(&order);
}

void storage_look(void)
{
    struct storage_info *info = kzalloc(sizeof *info);

    for (unsigned i = 0; info && storage_info_get(i, info); i++)
        if (!strcmp(info->state, "up"))
            storage_look_one(info->name);
    kfree(info, sizeof *info);
}
