#include "report.h"
#include "invariant.h"
#include "options.h"
#include "suggest.h"

#include <string.h>

enum { KEY_WIDTH = 15, LONGEST_TEXT = 2000 };

static void line(MiReport *r, const char *key, const char *value)
{
    g_autofree char *shown = mi_printable(value, LONGEST_TEXT);
    g_string_append_printf(r->text, "%-*s %s\n", KEY_WIDTH, key, shown);
}

/* "head sizes" is head_sizes in JSON; valid until the next call. */
static const char *member(MiReport *r, const char *key)
{
    g_strlcpy(r->key, key, sizeof r->key);
    return g_strdelimit(r->key, " ", '_');
}

void mi_report_text(MiReport *r, const char *key, const char *value)
{
    if (r->text)
        line(r, key, value);
    else
        mi_json_string(&r->json, member(r, key), value);
}

void mi_report_int(MiReport *r, const char *key, int64_t value)
{
    if (r->text)
        g_string_append_printf(r->text, "%-*s %" G_GINT64_FORMAT "\n", KEY_WIDTH, key, value);
    else
        mi_json_int(&r->json, member(r, key), value);
}

void mi_report_list(MiReport *r, const char *key, const char *const *values)
{
    if (r->text) {
        g_autofree char *joined = values ? g_strjoinv(", ", (char **)values) : g_strdup("any");
        line(r, key, joined);
        return;
    }
    if (!values) {
        mi_json_string(&r->json, member(r, key), NULL);
        return;
    }
    mi_json_open(&r->json, member(r, key), '[');
    for (; *values; values++)
        mi_json_string(&r->json, NULL, *values);
    mi_json_close(&r->json, ']');
}

static void option_json(MiJson *j, const MiOption *o)
{
    mi_json_open(j, NULL, '{');
    mi_json_string(j, "key", o->key);
    mi_json_string(j, "type", mi_option_type_name(o->type));
    mi_json_string(j, "default", o->def);
    if ((o->min != 0 || o->max != 0) && o->type == MI_INT) {
        mi_json_int(j, "min", (int64_t)o->min);
        mi_json_int(j, "max", (int64_t)o->max);
    } else if (o->min != 0 || o->max != 0) {
        mi_json_float(j, "min", o->min);
        mi_json_float(j, "max", o->max);
    }
    if (o->choices) {
        g_auto(GStrv) choices = g_strsplit(o->choices, ", ", 0);
        mi_json_open(j, "choices", '[');
        for (char **c = choices; *c; c++)
            mi_json_string(j, NULL, *c);
        mi_json_close(j, ']');
    }
    mi_json_string(j, "help", o->help);
    mi_json_close(j, '}');
}

void mi_report_options(MiReport *r, const char *key, const char *section, const MiOption *table)
{
    if (!r->text) {
        mi_json_open(&r->json, member(r, key), '[');
        for (const MiOption *o = table; o && o->key; o++)
            option_json(&r->json, o);
        mi_json_close(&r->json, ']');
        return;
    }
    g_autofree char *in = g_strdup_printf("[%s]", section);
    line(r, key, table && table->key ? in : "none");
    for (const MiOption *o = table; o && o->key; o++) {
        g_autofree char *range = mi_option_range(o);
        g_string_append_printf(r->text, "  %s = %s    %s%s%s\n      %s\n", o->key,
                               !o->def ? "(must be given)" : *o->def ? o->def : "(empty)",
                               mi_option_type_name(o->type), *range ? ", " : "", range, o->help);
    }
}

/* ---- what each kind's table says --------------------------------------------------- */

static void dtypes(MiReport *r, const char *key, uint32_t set)
{
    static const char *const names[MI_N_DTYPES] = { "f32", "f16", "bf16", "f8", "i8", "i32" };
    const char              *list[MI_N_DTYPES + 1];
    int                      n = 0;

    for (int t = 0; t < MI_N_DTYPES; t++)
        if (set & 1u << t)
            list[n++] = names[t];
    list[n] = NULL;
    mi_report_list(r, key, list);
}

static void op_facts(MiReport *r, const MiOp *op)
{
    mi_report_int(r, "inputs", op->n_in);
    mi_report_int(r, "outputs", op->n_out);
    mi_report_int(r, "weights", op->n_weights);
}

static void attention_facts(MiReport *r, const MiAttention *a)
{
    const char *can[5];
    int         n = 0;

    mi_report_list(r, "layouts", a->layouts);
    dtypes(r, "cache dtypes", a->dtypes);
    if (a->prefill)
        can[n++] = "prefill";
    if (a->decode)
        can[n++] = "decode";
    if (a->window)
        can[n++] = "window";
    if (a->softcap)
        can[n++] = "softcap";
    can[n] = NULL;
    mi_report_list(r, "can", can);
    g_autoptr(GPtrArray) sizes = g_ptr_array_new_with_free_func(g_free);
    for (const int32_t *d = a->head_dims; d && *d; d++)
        g_ptr_array_add(sizes, g_strdup_printf("%d", *d));
    g_ptr_array_add(sizes, NULL);
    mi_report_list(r, "head sizes", a->head_dims ? (const char *const *)sizes->pdata : NULL);
}

static void pattern_facts(MiReport *r, const MiFusion *f)
{
    g_autoptr(GPtrArray) ops = g_ptr_array_new();

    for (const MiPattern *p = f->pattern; p->op; p++)
        g_ptr_array_add(ops, (void *)p->op);
    g_ptr_array_add(ops, NULL);
    mi_report_list(r, "pattern", (const char *const *)ops->pdata);
    mi_report_list(r, "layouts", f->layouts);
}

static void facts(MiReport *r, const MiFeature *f)
{
    switch (f->kind) {
    case MI_KIND_OP:
        op_facts(r, f->vtable);
        break;
    case MI_KIND_FUSION:
        pattern_facts(r, f->vtable);
        break;
    case MI_KIND_MODEL:
        mi_report_list(r, "architectures", ((const MiModel *)f->vtable)->architectures);
        break;
    case MI_KIND_ATTENTION:
        attention_facts(r, f->vtable);
        break;
    case MI_KIND_CACHE:
        mi_report_text(r, "layout", ((const MiCache *)f->vtable)->layout);
        mi_report_text(r, "append op", ((const MiCache *)f->vtable)->append);
        break;
    case MI_KIND_LINEAR:
        mi_report_list(r, "formats", ((const MiLinear *)f->vtable)->formats);
        mi_report_text(r, "layout", ((const MiLinear *)f->vtable)->layout);
        break;
    case MI_KIND_SAMPLER:
        mi_report_text(r, "gives", ((const MiSampler *)f->vtable)->draws ? "the token" : "logits");
        mi_report_options(r, "parameters", "sampler", ((const MiSampler *)f->vtable)->params);
        break;
    case MI_KIND_FORMAT:
        mi_report_text(r, "writes", MI_HAS((const MiFormat *)f->vtable, write) ? "yes" : "no");
        break;
    default:
        break;
    }
}

void mi_report_feature(MiReport *r, MiRegistry *reg, const MiFeature *f)
{
    const MiLoaded  *by = mi_registry_provider(reg, f);
    g_autofree char *section = g_strdup_printf("%s.%s", mi_kind_name(f->kind), f->name);

    if (r->text) {
        g_string_append_printf(r->text, "%s:%s@%s\n", mi_kind_name(f->kind), f->name, f->backend);
    } else {
        mi_json_string(&r->json, "kind", mi_kind_name(f->kind));
        mi_json_string(&r->json, "name", f->name);
        mi_json_string(&r->json, "backend", f->backend);
    }
    if (by) {
        mi_report_text(r, "file", by->file);
        mi_report_text(r, "plugin", by->plugin->name);
        mi_report_text(r, "version", by->plugin->version);
        mi_report_text(r, "description", by->plugin->description);
        mi_report_text(r, "licence", by->plugin->licence);
    }
    facts(r, f);
    if (mi_feature_op(f))
        mi_report_text(r, "batch-invariant", mi_feature_invariant(f) ? "yes" : "no");
    mi_report_options(r, "options", section, f->options);
}
