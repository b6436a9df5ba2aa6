/* SPDX-License-Identifier: MIT */
/*
 * Which kind of device a name means.
 */
#include <string.h>

#include "device.h"

struct device *device_open(const char *name, const struct device_options *options)
{
    return device_open_file(name, options);
}

bool device_close(struct device *device)
{
    return device->close(device);
}
