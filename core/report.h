/* report.h - the parts of inspect: one report, written as text or as JSON. */
#ifndef MI_CORE_REPORT_H
#define MI_CORE_REPORT_H

#include "json_out.h"
#include "registry.h"

/* Facts as aligned lines "key  value" in text, or members of the object that is open in json. */
typedef struct {
    GString *text; /* NULL: json is written */
    MiJson   json;
    char     key[32]; /* the last one, as JSON has it */
} MiReport;

void mi_report_text(MiReport *, const char *key, const char *value); /* printable, cut after 2000 bytes in text */
void mi_report_int(MiReport *, const char *key, int64_t value);
void mi_report_list(MiReport *, const char *key, const char *const *values); /* NULL: "any", or null */
void mi_report_options(MiReport *, const char *key, const char *section, const MiOption *table);

/* One feature with all that its table says. */
void mi_report_feature(MiReport *, MiRegistry *, const MiFeature *);
/* An open model. */
bool mi_report_model(MiReport *, MiRegistry *, const MiSource *, const char *path, GError **error);

#endif
