/* plugin_check.h - whether what mi_plugin_query() returned is a plugin of ours. */
#ifndef MI_CORE_PLUGIN_CHECK_H
#define MI_CORE_PLUGIN_CHECK_H

#include "image.h"

#include <miniinfer/plugin.h>

/* Calls nothing of the plugin.  file: for messages, one line each. */
bool mi_plugin_check(const MiPlugin *p, const MiImage *image, const char *file, GError **error);

/* [a-z0-9_.-]+, at most 63 bytes. */
bool mi_is_feature_name(const char *name);

#endif
