/* inspect.h - what is there: features, plugin files, models; and the reference
 * of the configuration, from the same tables. */
#ifndef MI_CORE_INSPECT_H
#define MI_CORE_INSPECT_H

#include "config.h"

/* Appends a report to out, as text or, for `json`, as one JSON object with a newline.
 * what: NULL: every feature, one a line (kind, name, backend, file, version), then files that
 * were not loaded; "kind"; "kind:name" or "kind:name@backend"; a plugin "FILE.so": would it
 * load; else a model, found as [model] path is.  MI_ERROR_NOT_FOUND: nothing of that name. */
bool mi_inspect(MiRegistry *, const MiConfig *, const char *what, bool json, GString *out, GError **error);

/* docs/configuration.md: every section and key of the core and of what is loaded. */
void mi_inspect_reference(MiRegistry *, GString *out);
/* etc/default.ini: every key of the core with its default, commented out. */
void mi_inspect_sample(GString *out);

#endif
