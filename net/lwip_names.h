/* SPDX-License-Identifier: MIT */
/*
 * lwIP's error names beside ours: both have an ERR_TIMEOUT, and in files that include this the name is ours, lwIP's being
 * LWIP_ERR_TIMEOUT. To be included before any other header of lwIP's.
 */
#ifndef NET_LWIP_NAMES_H
#define NET_LWIP_NAMES_H

#define ERR_TIMEOUT LWIP_ERR_TIMEOUT
#include "lwip/err.h"
#undef ERR_TIMEOUT

#endif
