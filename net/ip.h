/* SPDX-License-Identifier: MIT */
/*
 * Where the fields of IPv4, IPv6 and TCP headers are, in bytes from the header's beginning, and TCP's flags, for who reads and writes
 * frames as bytes (RFC 791, RFC 8200, RFC 9293). Not for files that include lwIP's headers, which has some of these names.
 */
#ifndef NET_IP_H
#define NET_IP_H

#define IP4_BYTES 20u
#define IP4_TOTAL 2u
#define IP4_ID 4u
#define IP4_FRAGMENT 6u
#define IP4_PROTOCOL 9u
#define IP4_SUM 10u
#define IP4_SOURCE 12u
#define IP6_BYTES 40u
#define IP6_PAYLOAD 4u
#define IP6_NEXT 6u
#define IP6_SOURCE 8u
#define TCP_BYTES 20u
#define TCP_SEQUENCE 4u
#define TCP_ACKNOWLEDGED 8u
#define TCP_LENGTH 12u
#define TCP_FLAGS 13u
#define TCP_WINDOW 14u
#define TCP_SUM 16u
#define TCP_URGENT 18u
#define TCP_FIN 0x01u
#define TCP_PSH 0x08u
#define TCP_ACK 0x10u
#define TCP_CWR 0x80u

#endif
