/* SPDX-License-Identifier: MIT */
/*
 * How lwIP is built: the raw API alone, called by one thread; IPv4 and IPv6; every pool of fixed size, so that no peer
 * can make it take more memory than stands here (about 6 MiB in all, taken when the node has a network).
 *
 * Windows are sized for iSCSI on a LAN: 512 KiB each way keep 10 Gbit/s busy over 0.4 ms. What one connection may have
 * under way must fit into the pools, which all connections share.
 */
#ifndef NET_LWIPOPTS_H
#define NET_LWIPOPTS_H

/* ---- One thread, no operating system ---- */
#define NO_SYS 1
#define SYS_LIGHTWEIGHT_PROT 0
#define LWIP_SOCKET 0
#define LWIP_NETCONN 0
#define LWIP_NETIF_API 0

/* ---- Memory ---- */
#define MEM_ALIGNMENT 16
#define MEM_SIZE (2 * 1024 * 1024) /* headers and copied data of what is sent and not yet acknowledged */
#define PBUF_POOL_SIZE 1024        /* frames received and not yet used up */
#define PBUF_POOL_BUFSIZE 1600
#define MEMP_NUM_PBUF 2048         /* references to what is sent without a copy */
#define MEMP_NUM_RAW_PCB 8
#define MEMP_NUM_UDP_PCB 16
#define MEMP_NUM_TCP_PCB 64
#define MEMP_NUM_TCP_PCB_LISTEN 8
#define MEMP_NUM_TCP_SEG 4096
#define MEMP_NUM_REASSDATA 16
#define IP_REASS_MAX_PBUFS 128
#define MEMP_NUM_FRAG_PBUF 128
#define MEMP_NUM_ARP_QUEUE 64
#define MEMP_NUM_ND6_QUEUE 64
#define LWIP_SUPPORT_CUSTOM_PBUF 1

/* ---- Link and IP ---- */
#define LWIP_ARP 1
#define LWIP_ETHERNET 1
#define ARP_TABLE_SIZE 127
#define ARP_QUEUEING 1
#define ARP_QUEUE_LEN 8
#define ETHARP_TABLE_MATCH_NETIF 1
#define LWIP_IPV4 1
#define LWIP_IPV6 1
#define LWIP_IPV6_NUM_ADDRESSES 4
#define LWIP_IPV6_AUTOCONFIG 1
#define LWIP_IPV6_MLD 1
#define LWIP_IPV6_DHCP6 0
#define LWIP_ND6_NUM_NEIGHBORS 64
#define LWIP_ND6_NUM_DESTINATIONS 64
#define LWIP_ND6_QUEUEING 1
#define IPV6_FRAG_COPYHEADER 1 /* pointers do not fit into the header of a fragment */
#define IP_FORWARD 0
#define IP_REASSEMBLY 1
#define IP_FRAG 1
#define LWIP_ICMP 1
#define LWIP_ICMP6 1
#define LWIP_RAW 1
#define LWIP_UDP 1
#define LWIP_DHCP 1
#define DHCP_DOES_ARP_CHECK 1 /* an address that somebody has already is declined */
#define LWIP_AUTOIP 0
#define LWIP_DNS 1
#define DNS_MAX_SERVERS 2
#define LWIP_DHCP_PROVIDE_DNS_SERVERS 2
#define LWIP_NETIF_HOSTNAME 1
#define LWIP_NETIF_STATUS_CALLBACK 1
#define LWIP_NETIF_LINK_CALLBACK 1
#define LWIP_NETIF_EXT_STATUS_CALLBACK 0
#define LWIP_NETIF_LOOPBACK 1 /* the node's own addresses answer the node, too */
#define LWIP_LOOPBACK_MAX_PBUFS 256
#define LWIP_HAVE_LOOPIF 0
#define LWIP_SINGLE_NETIF 0

/* ---- TCP ---- */
#define LWIP_TCP 1
#define TCP_MSS 8960 /* the most there can be (MTU 9000); what a connection uses follows from its route's MTU */
#define LWIP_WND_SCALE 1
#define TCP_RCV_SCALE 4
#define TCP_WND (512 * 1024)
#define TCP_SND_BUF (512 * 1024)
#define TCP_SND_QUEUELEN 2048
#define TCP_SNDLOWAT (2 * TCP_MSS + 1) /* of the socket layer, which is not built; lwIP checks it all the same */
#define TCP_QUEUE_OOSEQ 1
#define TCP_OOSEQ_MAX_BYTES (256 * 1024)
#define TCP_OOSEQ_MAX_PBUFS 256
#define LWIP_TCP_SACK_OUT 1
#define LWIP_TCP_TIMESTAMPS 0
#define LWIP_TCP_KEEPALIVE 1
#define TCP_LISTEN_BACKLOG 1
#define TCP_DEFAULT_LISTEN_BACKLOG 16
/*
 * The slow timer, which counts retransmission timeouts, ticks every 100 ms: timeouts then are 200 ms and more, above what
 * peers wait before they acknowledge. Acknowledgements of our own are delayed by the fast timer, which the service runs
 * every NET_FAST_TIMER_MS (net/service.c).
 */
#define TCP_TMR_INTERVAL 50

/* ---- Checksums: made in software, by net_checksum; looked at only where the card has not (net/network.c) ---- */
#define LWIP_CHECKSUM_CTRL_PER_NETIF 1
#define LWIP_CHECKSUM_ON_COPY 1
#define LWIP_CHKSUM_ALGORITHM 0

/* ---- Counters that `net show` prints ---- */
#define LWIP_STATS 1
#define LWIP_STATS_LARGE 1
#define LWIP_STATS_DISPLAY 0
#define MIB2_STATS 0

#define LWIP_DEBUG 0

/* ISNs that nobody can guess (RFC 6528). */
#define LWIP_HOOK_TCP_ISN(local_ip, local_port, remote_ip, remote_port) net_random32()

#endif
