/* SPDX-License-Identifier: MIT */
/* What virtio_pci.c and virtio_state.c share; nobody else includes it. */
#ifndef VDEV_VIRTIO_INTERNAL_H
#define VDEV_VIRTIO_INTERNAL_H

#include "vdev/virtio_pci.h"

/* What a driver's write of 0 to the status register does. */
void virtio_driver_reset(struct virtio_device *dev);
/* Whether the features that the driver has written may stand. */
bool virtio_features_acceptable(const struct virtio_device *dev);
/* Makes the queues follow the accepted features. */
void virtio_apply_features(struct virtio_device *dev);

#endif
