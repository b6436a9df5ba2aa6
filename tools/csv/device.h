/* SPDX-License-Identifier: MIT */
/*
 * The disk below a volume, on an admin's machine: a file, a block device or a LUN behind iscsi://. Opening one for
 * writing makes sure that nobody else writes it: files and block devices are locked, a LUN's persistent reservation is
 * taken, all before the first write. What is taken is given back by device_close(), and by the end of the program,
 * except for a reservation, which the next run of this tool on this machine takes back.
 *
 * Errors are said (say.h) where they happen, with the device's name.
 */
#ifndef TOOLS_CSV_DEVICE_H
#define TOOLS_CSV_DEVICE_H

#include "csv/disk.h"

enum device_use {
    DEVICE_READ,  /* shared with others that only read */
    DEVICE_WRITE, /* alone */
};

struct device_options {
    enum device_use use;
    uint64_t create_bytes;  /* make a file of this size if there is none; 0: do not */
    bool take_over;         /* a stranger's reservation is preempted: the admin says that he is gone */
    const char *initiator;  /* iSCSI name of this side; NULL: one made from the host's name */
    uint64_t key;           /* this host's reservation key */
};

struct device {
    struct csv_disk disk;
    char name[512];       /* as it was given, without a secret */
    uint64_t key;         /* the reservation that is held; 0: none */
    bool (*close)(struct device *device);
    void (*idle)(struct device *device); /* to be called every second or so while nothing else is; may be NULL */
};

/* NULL: it failed, and was said. */
struct device *device_open(const char *name, const struct device_options *options);
/* Gives back what was taken. False: that failed, and was said. `device` is freed in any case. */
bool device_close(struct device *device);

/* For device.c alone; the name has no scheme in front of it but that of iSCSI. */
struct device *device_open_file(const char *name, const struct device_options *options);
struct device *device_open_iscsi(const char *url, const struct device_options *options);

#endif
