/* device.h - the device that [engine] device names. */
#ifndef MI_CORE_DEVICE_H
#define MI_CORE_DEVICE_H

#include "config.h"

/* name: "auto", "cpu", "cuda:1".  What comes back is the caller's even if it fails: *options to g_free(), after the
 * backend closed *device; both may be NULL. */
bool mi_device_open(MiRegistry *, const MiConfig *, const char *name, const MiFeature **backend, void **options, void **device,
                    GError **error);

#endif
