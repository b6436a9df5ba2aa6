/* SPDX-License-Identifier: MIT */
/* A session's connection by lwIP. See iscsi_tcp.h. */
#include "net/iscsi_tcp.h"

#include <string.h>

#include "kernel/time.h"
#include "net/address.h"
#include "net/lwip_names.h"
#include "net/network.h"

#include "lwip/tcp.h"

#define WRITE_MAX 0xf000u              /* of one tcp_write, whose count has 16 bits */
#define AGAIN_NS (10 * NS_PER_MS)      /* a connection that has no memory tries again */
#define KEEP_IDLE_MS 10000
#define KEEP_INTERVAL_MS 2000
#define KEEP_COUNT 5

void iscsi_tcp_init(struct iscsi_tcp *tcp, struct iscsi_session *session)
{
    memset(tcp, 0, sizeof *tcp);
    tcp->session = session;
}

/* ---- lwIP's callbacks ---- */

/* What a callback answers: whether the connection still is. */
static err_t leave(struct iscsi_tcp *tcp)
{
    tcp->in_callback = false;
    return tcp->gone ? ERR_ABRT : ERR_OK;
}

static void enter(struct iscsi_tcp *tcp)
{
    tcp->in_callback = true;
    tcp->gone = false;
}

static err_t received(void *arg, struct tcp_pcb *pcb, struct pbuf *p, err_t error)
{
    struct iscsi_tcp *tcp = arg;
    (void)error;

    enter(tcp);
    if (!p) {
        iscsi_session_closed(tcp->session, tcp->connection, "the target closed the connection; its log says why",
                             time_now_ns());
        return leave(tcp);
    }
    uint64_t now_ns = time_now_ns();
    for (struct pbuf *q = p; q && !tcp->gone; q = q->next)
        iscsi_session_received(tcp->session, tcp->connection, q->payload, q->len, q->next, now_ns);
    if (!tcp->gone) {
        /* lwIP acknowledges every second packet; this one was several segments (coalesce.h), and two are enough (RFC 9293, 3.8.6.3). */
        if (p->tot_len > tcp_mss(pcb))
            tcp_set_flags(pcb, TF_ACK_NOW);
        tcp_recved(pcb, p->tot_len);
    }
    (void)pbuf_free(p);
    return leave(tcp);
}

static err_t sent(void *arg, struct tcp_pcb *pcb, u16_t bytes)
{
    struct iscsi_tcp *tcp = arg;
    (void)pcb;

    enter(tcp);
    tcp->acknowledged += bytes;
    iscsi_session_acknowledged(tcp->session, tcp->connection, tcp->acknowledged, time_now_ns());
    if (!tcp->gone && tcp->blocked) {
        tcp->blocked = false;
        iscsi_session_writable(tcp->session, tcp->connection, time_now_ns());
    }
    return leave(tcp);
}

static err_t connected(void *arg, struct tcp_pcb *pcb, err_t error)
{
    struct iscsi_tcp *tcp = arg;
    (void)pcb;
    (void)error;

    tcp->connected = true;
    enter(tcp);
    iscsi_session_connected(tcp->session, tcp->connection, time_now_ns());
    return leave(tcp);
}

/* lwIP has freed the pcb already. */
static void failed(void *arg, err_t error)
{
    struct iscsi_tcp *tcp = arg;

    tcp->pcb = NULL;
    iscsi_session_closed(tcp->session, tcp->connection,
                         error == ERR_RST && !tcp->connected ? "the connection was refused: nothing listens there; start the "
                                                               "target, or correct portal"
                         : error == ERR_RST ? "the target reset the connection; its log says why"
                         : error == ERR_ABRT ? "the connection timed out: nobody answers, or this node's address has changed"
                                             : "the connection was lost", time_now_ns());
}

/* ---- What the session asks for ---- */

static bool address_of(const struct iscsi_portal *portal, ip_addr_t *to)
{
    struct net_address address;

    if (!text_to_address(portal->host, &address) || strchr(portal->host, '/'))
        return false;
    bool v6 = address.family == NET_IPV6;
    memset(to, 0, sizeof *to);
    IP_SET_TYPE_VAL(*to, v6 ? IPADDR_TYPE_V6 : IPADDR_TYPE_V4);
    memcpy(v6 ? (void *)ip_2_ip6(to)->addr : (void *)&ip_2_ip4(to)->addr, address.bytes, v6 ? 16 : 4);
    return true;
}

void iscsi_tcp_connect(struct iscsi_tcp *tcp, uint32_t connection, const struct iscsi_portal *portal)
{
    ip_addr_t to;

    tcp->connection = connection;
    tcp->acknowledged = 0;
    tcp->blocked = tcp->unsent = tcp->connected = false;
    tcp->failed = NULL;
    if (!address_of(portal, &to)) {
        tcp->failed = "the portal is a name, not an address: write its address into the configuration, and let the target "
                      "announce addresses";
        return;
    }
    tcp->pcb = tcp_new_ip_type(IP_GET_TYPE(&to));
    if (!tcp->pcb) {
        tcp->failed = "the network's memory is used up";
        return;
    }
    tcp_arg(tcp->pcb, tcp);
    tcp_recv(tcp->pcb, received);
    tcp_sent(tcp->pcb, sent);
    tcp_err(tcp->pcb, failed);
    tcp_nagle_disable(tcp->pcb);
    ip_set_option(tcp->pcb, SOF_KEEPALIVE);
    tcp->pcb->keep_idle = KEEP_IDLE_MS;
    tcp->pcb->keep_intvl = KEEP_INTERVAL_MS;
    tcp->pcb->keep_cnt = KEEP_COUNT;
    err_t error = tcp_connect(tcp->pcb, &to, portal->port, connected);
    if (error != ERR_OK)
        tcp->failed = error == ERR_RTE ? net_no_way() : "the network's memory is used up";
}

/* As much of one piece as there is room for. */
static size_t put(struct iscsi_tcp *tcp, const struct iscsi_vec *vec, bool more)
{
    size_t done = 0;

    while (done < vec->count) {
        size_t room = MIN((size_t)tcp_sndbuf(tcp->pcb), (size_t)WRITE_MAX), part = MIN(vec->count - done, room);
        u8_t flags = (vec->stays ? 0 : TCP_WRITE_FLAG_COPY) | (more || part < vec->count - done ? TCP_WRITE_FLAG_MORE : 0);
        if (!part || tcp_write(tcp->pcb, (const uint8_t *)vec->bytes + done, (u16_t)part, flags) != ERR_OK)
            break;
        done += part;
    }
    return done;
}

size_t iscsi_tcp_send(struct iscsi_tcp *tcp, uint32_t connection, const struct iscsi_vec *vec, unsigned count)
{
    size_t taken = 0;

    if (!tcp->pcb || connection != tcp->connection)
        return 0;
    for (unsigned i = 0; i < count; i++) {
        size_t part = put(tcp, &vec[i], i + 1 < count);
        taken += part;
        if (part < vec[i].count) {
            if (!tcp->blocked)
                tcp->blocked_since_ns = time_now_ns();
            tcp->blocked = true;
            break;
        }
    }
    tcp->unsent |= taken != 0;
    return taken;
}

void iscsi_tcp_close(struct iscsi_tcp *tcp, uint32_t connection)
{
    struct tcp_pcb *pcb = tcp->pcb;
    (void)connection;

    tcp->pcb = NULL;
    tcp->gone = true;
    tcp->blocked = tcp->unsent = false;
    tcp->failed = NULL;
    if (!pcb)
        return;
    tcp_arg(pcb, NULL);
    tcp_err(pcb, NULL);
    tcp_abort(pcb);
}

/* ---- Between ---- */

void iscsi_tcp_poll(struct iscsi_tcp *tcp, uint64_t now_ns)
{
    if (tcp->failed) {
        const char *why = tcp->failed;
        tcp->failed = NULL;
        iscsi_session_closed(tcp->session, tcp->connection, why, now_ns);
    }
    if (tcp->pcb && tcp->unsent) {
        tcp->unsent = false;
        (void)tcp_output(tcp->pcb);
    }
    /* Room may come without a word of lwIP's: where the memory that all connections share was used up. */
    if (tcp->pcb && tcp->blocked && now_ns - tcp->blocked_since_ns >= AGAIN_NS) {
        tcp->blocked = false;
        iscsi_session_writable(tcp->session, tcp->connection, now_ns);
        if (tcp->pcb && tcp->unsent) {
            tcp->unsent = false;
            (void)tcp_output(tcp->pcb);
        }
    }
}

uint64_t iscsi_tcp_deadline(const struct iscsi_tcp *tcp)
{
    if (tcp->failed || (tcp->pcb && tcp->unsent))
        return 0;
    return tcp->pcb && tcp->blocked ? tcp->blocked_since_ns + AGAIN_NS : UINT64_MAX;
}
