/* SPDX-License-Identifier: MIT */
/*
 * Which kind of device a name means.
 */
#include "kernel/text.h"

#include "device.h"

struct device *device_open(const char *name, const struct device_options *options)
{
    return str_starts_with(name, "iscsi://") ? device_open_iscsi(name, options) : device_open_file(name, options);
}

bool device_close(struct device *device)
{
    return device->close(device);
}
