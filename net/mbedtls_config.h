/* SPDX-License-Identifier: MIT */
/*
 * What is built of mbedTLS: MD5 and SHA-256, in plain C on general registers, without allocation, clock or files. The
 * sources are those of the pinned Debian package (tools/sources.lock), unchanged; the Makefile names the files.
 */
#ifndef NET_MBEDTLS_CONFIG_H
#define NET_MBEDTLS_CONFIG_H

#define MBEDTLS_MD5_C
#define MBEDTLS_SHA256_C

#endif
