/* SPDX-License-Identifier: MIT */
/*
 * The TCP connection under an iSCSI session: what struct iscsi_ops asks for, done by lwIP's raw API. One connection at a
 * time; each has the number that the session gave it. Received bytes are handed on where lwIP put them and the window is
 * opened again at once, since the session takes all that it is given; bytes to send are copied into lwIP's buffers as far
 * as these have room, or referred to where they stay.
 *
 * lwIP calls back within its own functions, and the session may end the connection there: the callbacks know, and tell
 * lwIP (ERR_ABRT), as its rules want it.
 *
 * The service's thread.
 */
#ifndef NET_ISCSI_TCP_H
#define NET_ISCSI_TCP_H

#include "net/iscsi/iscsi_session.h"

struct tcp_pcb;

struct iscsi_tcp {
    struct iscsi_session *session;
    struct tcp_pcb *pcb;
    uint32_t connection;
    bool connected;       /* it was, since iscsi_tcp_connect() */
    bool in_callback;     /* of lwIP's; then ... */
    bool gone;            /* ... says that the connection was ended meanwhile */
    bool blocked;         /* the session has more to send */
    bool unsent;          /* lwIP has bytes that were not looked at by tcp_output */
    const char *failed;   /* it could not be made; the session is told by iscsi_tcp_poll */
    uint64_t acknowledged;
    uint64_t blocked_since_ns;
};

void iscsi_tcp_init(struct iscsi_tcp *tcp, struct iscsi_session *session);
/* The members of struct iscsi_ops of that name. */
void iscsi_tcp_connect(struct iscsi_tcp *tcp, uint32_t connection, const struct iscsi_portal *portal);
size_t iscsi_tcp_send(struct iscsi_tcp *tcp, uint32_t connection, const struct iscsi_vec *vec, unsigned count);
void iscsi_tcp_close(struct iscsi_tcp *tcp, uint32_t connection);
/* Once a round of the service, after everything else: what could not be done from within the session's calls. */
void iscsi_tcp_poll(struct iscsi_tcp *tcp, uint64_t now_ns);
/* When to call it at the latest. */
uint64_t iscsi_tcp_deadline(const struct iscsi_tcp *tcp);

#endif
