/* config.h - an INI file and a command line, as sections of keys.
 *
 * A section is the core's ("model", "engine", ...) or a feature's, named
 * kind.name: [cache.paged], [backend.cpu].  [sampler] holds `chain` and the
 * defaults of every parameter that a link of the chain declares. */
#ifndef MI_CORE_CONFIG_H
#define MI_CORE_CONFIG_H

#include "registry.h"

typedef struct MiConfig MiConfig;

MiConfig *mi_config_new(void);
/* What messages call the source of mi_config_set()'s pairs, where it is no command line; origin: a constant. */
void      mi_config_origin(MiConfig *c, const char *origin);
void      mi_config_free(MiConfig *c);

/* Reads an INI file; nothing of it counts when anything in it is wrong. */
bool mi_config_read(MiConfig *c, const char *file, GError **error);
/* The same of [size] bytes in memory; file is what messages call it. */
bool mi_config_parse(MiConfig *c, const char *file, const char *text, size_t size, GError **error);
/* "section.key" (split at the last dot), from the command line: replaces what a file said. */
bool mi_config_set(MiConfig *c, const char *dotted, const char *value, GError **error);

const char *mi_config_get(const MiConfig *c, const char *section, const char *key); /* NULL: not said */

/* Fills `out` from the section: the table's defaults first.  Errors name file and line. */
bool mi_config_fill(const MiConfig *c, const char *section, const MiOption *table, void *out, GError **error);
/* A feature's options, from [kind.name]: *out is allocated, NULL where it has no table or something is wrong. */
bool mi_config_feature(const MiConfig *c, const MiFeature *f, void **out, GError **error);

/* Every section and key is somebody's: the core's, a loaded feature's, a sampler's parameter;
 * every value is possible; a feature that one names is there; [plugins] disable names files that are there. */
bool mi_config_check(const MiConfig *c, MiRegistry *r, GError **error);

#endif
