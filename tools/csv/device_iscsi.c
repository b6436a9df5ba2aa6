/* SPDX-License-Identifier: MIT */
/*
 * A LUN as a device, by libiscsi. One command is under way at a time. libiscsi's own reconnecting is off: it would send
 * again what is queued before anybody has looked whether this host may still write. Here, when the connection is lost
 * during a command, a new one is made with the same name and ISID, so that the target ends the old session and all of
 * its commands first (RFC 7143 section 6.3.5); then the reservation is proved (iscsi_reservation.c), and only then the
 * command goes out again. That is tried for PATIENCE_S; afterwards the command fails, and the volume with it.
 */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "iscsi_lun.h"
#include "say.h"
#include "tool.h"

#define COMMAND_S 20  /* without an answer for so long a command's connection counts as lost */
#define PATIENCE_S 60
#define MOST_BYTES (1 * MIB)
#define MOST_UNMAP_BYTES (64 * MIB)

static int64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * INT64_C(1000) + now.tv_nsec / 1000000;
}

static void wait_ms(unsigned ms)
{
    struct timespec time = { ms / 1000, ms % 1000 * 1000000L };
    nanosleep(&time, NULL);
}

static void disconnect(struct lun *l)
{
    if (l->context)
        iscsi_destroy_context(l->context);
    l->context = NULL;
}

/* ---- Commands ---- */

/* Takes over why something failed, for people. */
static void take_words(struct lun *l, struct iscsi_context *context)
{
    const char *words = context ? iscsi_get_error(context) : NULL;
    if (!words || strstr(words, "reconnect")) /* of a connection that was lost libiscsi says how it got to know of it */
        words = "no connection";
    else if (strstr(words, "onnection refused")) /* and of one that never came about, which of its functions failed */
        words = "connection refused";
    snprintf(l->words, sizeof(l->words), "%s", words[0] ? words : "no reason given");
    l->words[strcspn(l->words, "\n")] = 0;
}

/*
 * libiscsi's synchronous calls are not used: they keep what an answer is written into on their stack, and return when a
 * signal comes, while the answer is still to come.
 */
static void answered(struct iscsi_context *context, int status, void *data, void *private_data)
{
    struct lun *l = private_data;
    (void)data;
    l->answered = true;
    l->status = status;
    if (status != SCSI_STATUS_GOOD)
        take_words(l, context); /* what libiscsi does next has an error of its own */
}

/* Until answered() was called. False: it will not be, or not in time. */
static bool wait_answer(struct lun *l, int64_t until_ms)
{
    while (!l->answered) {
        struct pollfd wait = { .fd = iscsi_get_fd(l->context), .events = (short)iscsi_which_events(l->context) };
        int ready = poll(&wait, 1, wait.events ? 1000 : 100);
        if (ready < 0 && errno != EINTR)
            return false;
        if (iscsi_service(l->context, ready > 0 ? wait.revents : 0) < 0 || now_ms() > until_ms)
            return l->answered;
    }
    return true;
}

static struct scsi_task *issue(struct lun *l, const struct lun_command *c)
{
    struct scsi_persistent_reserve_out_basic keys = { .reservation_key = c->key,
                                                      .service_action_reservation_key = c->action_key,
                                                      .aptpl = c->keep };
    struct unmap_list range = { .lba = c->block, .num = c->count };
    uint32_t bytes = c->count * l->block_bytes;
    struct iscsi_context *i = l->context;
    int lun = l->url.lun, block = (int)l->block_bytes;
    switch (c->kind) {
    case LUN_READ:
        return iscsi_read16_task(i, lun, c->block, bytes, block, 0, 0, 0, 0, 0, answered, l);
    case LUN_WRITE:
        return iscsi_write16_task(i, lun, c->block, (unsigned char *)(uintptr_t)c->bytes, bytes, block, 0, 0, c->fua, 0,
                                  0, answered, l);
    case LUN_FLUSH:
        return iscsi_synchronizecache16_task(i, lun, 0, 0, 0, 0, answered, l);
    case LUN_UNMAP:
        return iscsi_unmap_task(i, lun, 0, 0, &range, 1, answered, l);
    case LUN_PR_IN:
        return iscsi_persistent_reserve_in_task(i, lun, c->action, (uint16_t)c->count, answered, l);
    case LUN_PR_OUT:
        return iscsi_persistent_reserve_out_task(i, lun, c->action, SCSI_PERSISTENT_RESERVE_SCOPE_LU, c->type, &keys,
                                                 answered, l);
    case LUN_CAPACITY:
        return iscsi_readcapacity16_task(i, lun, answered, l);
    case LUN_LIMITS:
        return iscsi_inquiry_task(i, lun, 1, SCSI_INQUIRY_PAGECODE_BLOCK_LIMITS, 64, answered, l);
    }
    return NULL;
}

static enum lun_result judge(int status, const struct scsi_task *task)
{
    switch (status) {
    case SCSI_STATUS_GOOD:
    case SCSI_STATUS_CONDITION_MET:
        return LUN_GOOD;
    case SCSI_STATUS_CHECK_CONDITION:
        return task->sense.key == SCSI_SENSE_UNIT_ATTENTION ? LUN_ATTENTION
             : task->sense.key == SCSI_SENSE_NOT_READY      ? LUN_BUSY
                                                            : LUN_REFUSED;
    case SCSI_STATUS_BUSY:
    case SCSI_STATUS_TASK_SET_FULL:
    case SCSI_STATUS_TASK_ABORTED:
        return LUN_BUSY;
    case SCSI_STATUS_RESERVATION_CONFLICT:
        return LUN_CONFLICT;
    default:
        return LUN_GONE;
    }
}

enum lun_result lun_run(struct lun *l, const struct lun_command *command, struct scsi_task **task)
{
    l->answered = false;
    struct scsi_task *answer = l->context ? issue(l, command) : NULL;
    bool good = answer && wait_answer(l, now_ms() + 2 * COMMAND_S * 1000);
    enum lun_result result = good ? judge(l->status, answer) : LUN_GONE;
    if (result && !l->answered)
        take_words(l, l->context);
    if (result == LUN_GONE)
        disconnect(l); /* whatever is still under way ends, before what it refers to does */
    if (!result && task)
        *task = answer;
    else if (answer)
        scsi_free_scsi_task(answer);
    return result;
}

enum lun_result lun_ask(struct lun *l, const struct lun_command *command, struct scsi_task **task)
{
    enum lun_result result = LUN_BUSY;
    for (unsigned tries = 0; tries < 20 && (result == LUN_BUSY || result == LUN_ATTENTION); tries++) {
        if (result == LUN_BUSY && tries)
            wait_ms(100);
        result = lun_run(l, command, task);
    }
    return result;
}

/* ---- Connecting ---- */

static const char *cure_of(const char *words)
{
    static const struct {
        const char *in, *cure;
    } cures[] = {
        { "uthentication", "give the right user and secret: iscsi://USER%SECRET@HOST/..." },
        { "uthorization", "let this host's iSCSI name in at the target (--initiator sets it)" },
        { "arget not found", "is the target's name spelled as the target shows it?" },
        { "TARGET_NOT_FOUND", "is the target's name spelled as the target shows it?" },
        { "LOGICAL_UNIT_NOT_SUPPORTED", "the target has no such LUN" },
        /*
         * Bytes that fill a segment up to a multiple of four are read as text by libiscsi 1.19; LIO leaves there what an earlier
         * and longer answer had. It is so with the answer that has CHAP_N and CHAP_R, whose length depends on CHAP_N's.
         */
        { "NUL not found", "libiscsi cannot read this answer of the target's; LIO's it can where the target's user (userid_mutual "
                           "there, target_user here) has 6 characters or more: give it a longer name" },
        { "onnection refused", "is the target running, and the port right?" },
        { "connect", "is the host reachable, the target running, and the port right?" },
    };
    for (size_t i = 0; i < ARRAY_COUNT(cures); i++)
        if (strstr(words, cures[i].in))
            return cures[i].cure;
    return "see the target's log";
}

/* A session. `quiet`: a failure is not said. */
static bool login(struct lun *l, bool quiet)
{
    disconnect(l);
    struct iscsi_context *i = l->context = iscsi_create_context(l->initiator);
    if (!i) {
        say_error("%s: %s", l->device.name, say_status(ERR_NO_MEMORY));
        return false;
    }
    iscsi_set_noautoreconnect(i, 1);
    iscsi_set_timeout(i, COMMAND_S);
    l->answered = false;
    int bad = iscsi_set_isid_random(i, l->isid >> 8, l->isid & 0xff) || iscsi_set_targetname(i, l->url.target) ||
              iscsi_set_session_type(i, ISCSI_SESSION_NORMAL) ||
              iscsi_set_header_digest(i, ISCSI_HEADER_DIGEST_CRC32C_NONE);
    if (!bad && l->url.user[0])
        bad = iscsi_set_initiator_username_pwd(i, l->url.user, l->url.passwd);
    if (!bad && l->url.target_user[0])
        bad = iscsi_set_target_username_pwd(i, l->url.target_user, l->url.target_passwd);
    if (!bad && !iscsi_full_connect_async(i, l->url.portal, l->url.lun, answered, l) &&
        wait_answer(l, now_ms() + COMMAND_S * 1000) && l->status == SCSI_STATUS_GOOD)
        return true;
    if (!l->answered)
        take_words(l, i);
    if (!quiet)
        say_error("%s: no login: %s; %s", l->device.name, l->words, cure_of(l->words));
    disconnect(l);
    return false;
}

/* Until there is a connection, or patience ends. */
static bool login_again(struct lun *l, int64_t until)
{
    while (!l->lost && now_ms() < until && !say_interrupted()) {
        if (login(l, true))
            return reservation_prove(l);
        wait_ms(500);
    }
    return false;
}

/* ---- The device ---- */

/* One command to its end, over new connections where need be. */
static enum status carry_out(struct lun *l, const struct lun_command *c, const char *what, struct scsi_task **task)
{
    int64_t until = now_ms() + PATIENCE_S * 1000;
    bool told = false;
    while (!l->lost) {
        enum lun_result result = lun_run(l, c, task);
        if (result == LUN_GOOD) {
            if (told)
                say_note("%s: the connection is back", l->device.name);
            return OK;
        }
        if (result == LUN_REFUSED) {
            if (c->kind != LUN_UNMAP && !c->fua)
                say_error("%s: %s at block %" PRIu64 " failed: %s", l->device.name, what, c->block, l->words);
            return ERR_UNSUPPORTED;
        }
        if (now_ms() >= until)
            break;
        if (result == LUN_BUSY) {
            wait_ms(200);
            continue;
        }
        if (result == LUN_ATTENTION || result == LUN_CONFLICT) {
            if (!l->reserves && result == LUN_CONFLICT)
                break;
            if (!reservation_prove(l))
                return ERR_IO;
            wait_ms(50);
            continue;
        }
        if (!told)
            say_note("%s: the connection is lost; trying again for %d s", l->device.name, PATIENCE_S);
        told = true;
        if (!login_again(l, until))
            break;
    }
    if (!l->lost)
        say_error("%s: %s at block %" PRIu64 " failed: %s; see whether the target runs, then run the command again",
                  l->device.name, what, c->block, l->words);
    l->lost = true; /* what comes after it does not wait as long again */
    return ERR_IO;
}

static enum status lun_read(struct csv_disk *disk, uint64_t offset, void *bytes, uint64_t count)
{
    struct lun *l = disk->context;
    for (uint64_t done = 0; done < count;) {
        struct lun_command c = { .kind = LUN_READ, .block = (offset + done) / l->block_bytes };
        struct scsi_task *task;
        c.count = (uint32_t)MIN((count - done) / l->block_bytes, l->most_blocks);
        enum status status = carry_out(l, &c, "reading", &task);
        if (status)
            return ERR_IO;
        uint64_t part = (uint64_t)c.count * l->block_bytes;
        bool whole = task->datain.data && (uint64_t)task->datain.size == part;
        if (whole)
            memcpy((char *)bytes + done, task->datain.data, part);
        scsi_free_scsi_task(task);
        if (!whole) {
            say_error("%s: the target answered a read of %" PRIu64 " bytes with others; its data cannot be trusted",
                      l->device.name, part);
            return ERR_IO;
        }
        done += part;
    }
    return OK;
}

static enum status lun_flush(struct csv_disk *disk)
{
    struct lun *l = disk->context;
    struct lun_command c = { .kind = LUN_FLUSH };
    return carry_out(l, &c, "flushing", NULL) ? ERR_IO : OK;
}

static enum status lun_write(struct csv_disk *disk, uint64_t offset, const void *bytes, uint64_t count, bool fua)
{
    struct lun *l = disk->context;
    for (uint64_t done = 0; done < count;) {
        struct lun_command c = { .kind = LUN_WRITE, .block = (offset + done) / l->block_bytes,
                                 .bytes = (const char *)bytes + done, .fua = fua && !l->no_fua };
        c.count = (uint32_t)MIN((count - done) / l->block_bytes, l->most_blocks);
        enum status status = carry_out(l, &c, "writing", NULL);
        if (status == ERR_UNSUPPORTED && c.fua) {
            l->no_fua = true; /* it has none (SBC-3 6.4.2): a flush afterwards does it */
            continue;
        }
        if (status)
            return ERR_IO;
        done += (uint64_t)c.count * l->block_bytes;
    }
    return fua && l->no_fua ? lun_flush(disk) : OK;
}

static enum status lun_discard(struct csv_disk *disk, uint64_t offset, uint64_t count)
{
    struct lun *l = disk->context;
    for (uint64_t done = 0; done < count && !l->no_unmap;) {
        struct lun_command c = { .kind = LUN_UNMAP, .block = (offset + done) / l->block_bytes };
        c.count = (uint32_t)MIN((count - done) / l->block_bytes, l->most_unmap);
        enum status status = carry_out(l, &c, "unmapping", NULL);
        l->no_unmap |= status == ERR_UNSUPPORTED; /* a hint: nothing is lost */
        if (status && status != ERR_UNSUPPORTED)
            return ERR_IO;
        done += (uint64_t)c.count * l->block_bytes;
    }
    return OK;
}

/* Answers the target's pings. A connection that is lost is made anew by the next command. */
static void lun_idle(struct device *device)
{
    struct lun *l = CONTAINER_OF(device, struct lun, device);
    int ready = 1;
    for (unsigned steps = 0; steps < 16 && ready > 0 && l->context; steps++) { /* a ping, its answer, and so on */
        struct pollfd wait = { .fd = iscsi_get_fd(l->context), .events = (short)iscsi_which_events(l->context) };
        ready = poll(&wait, 1, 0);
        if (iscsi_service(l->context, ready > 0 ? wait.revents : 0) < 0)
            disconnect(l);
    }
}

static void give_host_lock(struct lun *l)
{
    if (l->host_lock >= 0)
        close(l->host_lock);
    l->host_lock = -1;
}

static bool lun_close(struct device *device)
{
    struct lun *l = CONTAINER_OF(device, struct lun, device);
    bool good = !l->context || reservation_release(l);
    if (l->context) {
        l->answered = false;
        if (!iscsi_logout_async(l->context, answered, l))
            (void)wait_answer(l, now_ms() + COMMAND_S * 1000);
    }
    disconnect(l);
    give_host_lock(l);
    memset(&l->url, 0, sizeof(l->url));
    free(l);
    return good;
}

/* ---- Opening ---- */

/* Size, and what the target says of commands. */
static bool measure(struct lun *l)
{
    struct lun_command ask_capacity = { .kind = LUN_CAPACITY }, ask_limits = { .kind = LUN_LIMITS };
    struct scsi_task *task = NULL;
    struct scsi_readcapacity16 *capacity = lun_ask(l, &ask_capacity, &task) ? NULL : scsi_datain_unmarshall(task);
    if (capacity) {
        l->blocks = capacity->returned_lba + 1;
        l->block_bytes = capacity->block_length;
        l->no_unmap = !capacity->lbpme;
    }
    if (task)
        scsi_free_scsi_task(task);
    if (!capacity || (l->block_bytes != 512 && l->block_bytes != 4096) || !l->blocks ||
        l->blocks > UINT64_MAX / l->block_bytes) {
        say_error("%s: no disk with blocks of 512 or 4096 bytes: %s; name another LUN", l->device.name,
                  capacity ? "its blocks have another size" : l->words);
        return false;
    }
    l->most_blocks = (uint32_t)(MOST_BYTES / l->block_bytes);
    l->most_unmap = (uint32_t)(MOST_UNMAP_BYTES / l->block_bytes);
    task = NULL;
    struct scsi_inquiry_block_limits *limits = lun_ask(l, &ask_limits, &task) ? NULL : scsi_datain_unmarshall(task);
    if (limits && limits->max_xfer_len)
        l->most_blocks = MIN(l->most_blocks, limits->max_xfer_len);
    if (limits && limits->max_unmap)
        l->most_unmap = MIN(l->most_unmap, limits->max_unmap);
    if (task)
        scsi_free_scsi_task(task);
    l->device.disk.bytes = l->blocks * l->block_bytes;
    l->device.disk.sector_bytes = l->block_bytes;
    return true;
}

/* The process that holds the lock of this address, or 0. */
static int lock_holder(const struct sockaddr_un *address, socklen_t size)
{
    struct ucred other = { 0 };
    socklen_t bytes = sizeof(other);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    bool known = fd >= 0 && !connect(fd, (const struct sockaddr *)address, size) &&
                 !getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &other, &bytes);
    if (fd >= 0)
        close(fd);
    return known ? (int)other.pid : 0;
}

/* This host's writers of this target, as a number. A container with another host name counts as another host. */
static uint64_t writers_name(const struct lun *l)
{
    uint64_t name = l->key;
    for (const char *at = l->url.target; *at; at++)
        name = (name ^ (uint8_t)*at) * UINT64_C(0x100000001b3);
    return name;
}

/*
 * Only one run on this machine writes a LUN, and nobody reads it meanwhile: the holder of a name in the abstract name
 * space, which ends with it. It listens, so that who comes later is told its process.
 */
static bool take_host_lock(struct lun *l, uint64_t name)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    int length = snprintf(address.sun_path + 1, sizeof(address.sun_path) - 1, "tasuki-csv/%016" PRIx64 "/%d", name,
                          l->url.lun);
    socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)length);
    l->host_lock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool bound = false;
    for (unsigned ticks = 0; ticks < 40 && l->host_lock >= 0 && !bound; ticks++) {
        bound = !bind(l->host_lock, (struct sockaddr *)&address, size);
        if (!bound && errno != EADDRINUSE)
            break;
        if (!bound)
            wait_ms(50); /* a mount that was just ended may need a moment more */
    }
    if (!bound || listen(l->host_lock, 16)) {
        int error = errno, holder = error == EADDRINUSE ? lock_holder(&address, size) : 0;
        if (holder)
            say_error("%s: in use by process %d on this host; wait for that one, or end it (a mount: fusermount3 -u "
                      "DIRECTORY)", l->device.name, holder);
        else
            say_error("%s: in use by another process on this host (%s); try again", l->device.name, strerror(error));
        return false;
    }
    return true;
}

static bool parse(struct lun *l, const char *url)
{
    struct iscsi_context *context = iscsi_create_context(l->initiator);
    struct iscsi_url *parsed = context ? iscsi_parse_full_url(context, url) : NULL;
    if (parsed) {
        l->url = *parsed;
        snprintf(l->device.name, sizeof(l->device.name), "iscsi://%s/%s/%d", l->url.portal, l->url.target, l->url.lun);
        iscsi_destroy_url(parsed);
    } else {
        say_error("this is not an iSCSI volume; write iscsi://[USER%%SECRET@]HOST[:PORT]/TARGET/LUN");
    }
    if (context)
        iscsi_destroy_context(context);
    return parsed != NULL;
}

static bool open_lun(struct lun *l, const char *url, const struct device_options *options)
{
    char host[65] = "";
    gethostname(host, sizeof(host) - 1);
    if (options->initiator)
        snprintf(l->initiator, sizeof(l->initiator), "%s", options->initiator);
    else
        snprintf(l->initiator, sizeof(l->initiator), "iqn.2026-11.tasuki:csv-%s", host);
    for (char *at = l->initiator; *at; at++)
        if (*at >= 'A' && *at <= 'Z')
            *at += 'a' - 'A'; /* names are lower case (RFC 3722) */
    l->key = options->key;
    if (!parse(l, url))
        return false;
    uint64_t name = writers_name(l);
    if (!take_host_lock(l, name))
        return false;
    /*
     * Of a host's writers there is one at a time, and all are one initiator port: who comes after one that was killed
     * ends its session, and is the holder of its reservation. (To another port of that name LIO refuses to PREEMPT.)
     */
    l->isid = (uint32_t)(name ^ name >> 32) * 31 + (uint32_t)l->url.lun;
    if (options->use != DEVICE_WRITE) {
        tool_random(&l->isid, sizeof(l->isid));
        give_host_lock(l); /* readers may be many; a mount that was just ended has now written all it was given */
    }
    if (!login(l, false) || !measure(l))
        return false;
    return options->use == DEVICE_WRITE ? reservation_take(l, options->take_over) : reservation_absent(l);
}

struct device *device_open_iscsi(const char *url, const struct device_options *options)
{
    struct lun *l = calloc(1, sizeof(*l));
    if (!l) {
        say_error("%s", say_status(ERR_NO_MEMORY));
        return NULL;
    }
    l->host_lock = -1;
    if (!open_lun(l, url, options)) {
        lun_close(&l->device);
        return NULL;
    }
    l->device.close = lun_close;
    l->device.idle = lun_idle;
    l->device.disk.context = l;
    l->device.disk.read = lun_read;
    l->device.disk.write = lun_write;
    l->device.disk.flush = lun_flush;
    l->device.disk.discard = lun_discard;
    return &l->device;
}
