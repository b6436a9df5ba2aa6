/* SPDX-License-Identifier: MIT */
/* The NMI half of the guest `exceptions` (nmi.c). Needs a second CPU; takes over vectors 1, 2 and 0x80. */
#ifndef EXCEPTIONS_NMI_H
#define EXCEPTIONS_NMI_H

void nmi_tests(void);

#endif
