/* size.h - amounts of memory as people write them. */
#ifndef PLUGINS_CACHE_SIZE_H
#define PLUGINS_CACHE_SIZE_H

#include <stdbool.h>
#include <stddef.h>

/* "512 MiB", "1.5GB", "0": false when it is no such thing, or more than there can be. */
bool size_parse(const char *text, size_t *out);

#endif
