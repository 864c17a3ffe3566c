/* plugin_check.c - verifies a plugin before any of its code but the query runs.
 *
 * Order: magic -> major equal, minor not newer -> size of MiPlugin -> sizes of
 * the shared structs -> its texts -> each feature: kind, name, backend, table
 * (size at least version 1's and at most ours, members that must be there,
 * lists that end), option table (names, types, defaults in range) -> no key
 * twice.  Every pointer that is followed here or by the core's listing must
 * lie in the plugin's own image, so that a wild one is a message, not a crash. */
#include "plugin_check.h"
#include "options.h"
#include "registry.h"

#include <stdlib.h>
#include <string.h>

typedef struct {
    const MiImage   *image;
    const char      *file;
    const MiFeature *f; /* the one that is looked at */
    GError         **error;
} Check;

static bool refuse(const Check *c, const char *format, ...) G_GNUC_PRINTF(2, 3);
static bool refuse(const Check *c, const char *format, ...)
{
    va_list ap;
    va_start(ap, format);
    g_autofree char *what = g_strdup_vprintf(format, ap);
    va_end(ap);
    if (c->f)
        g_set_error(c->error, MI_ERROR, MI_ERROR_PLUGIN, "%s: %s '%s' %s", c->file, mi_kind_name(c->f->kind),
                    c->f->name, what);
    else
        g_set_error(c->error, MI_ERROR, MI_ERROR_PLUGIN, "%s: %s", c->file, what);
    return false;
}

/* ---- what each kind must have ------------------------------------------------ */

typedef struct {
    const char *name; /* NULL ends a list */
    size_t      at;
} Member;

enum { MAX_MEMBERS = 16 };
/* oldest: bytes of the table in ABI 1.0, whose last member is named; ours: bytes today. */
#define M(type, member) { #member, offsetof(type, member) }
#define NEEDS(kind, type, last, ...) \
    [kind] = { offsetof(type, last) + sizeof ((type *)0)->last, sizeof(type), { __VA_ARGS__, { NULL, 0 } } }
static const struct {
    size_t oldest, ours;
    Member must[MAX_MEMBERS];
} needs[MI_N_KINDS] = {
#define B(member) M(MiBackend, member)
    NEEDS(MI_KIND_BACKEND, MiBackend, parallel, B(probe), B(open), B(close), B(memory), B(alloc), B(free),
          B(stream_new), B(stream_free), B(event_new), B(event_free), B(copy), B(event_record), B(stream_wait),
          B(event_wait)),
    NEEDS(MI_KIND_OP, MiOp, release, M(MiOp, run)),
    NEEDS(MI_KIND_FUSION, MiFusion, op, M(MiFusion, pattern), M(MiFusion, op)),
    NEEDS(MI_KIND_MODEL, MiModel, record, M(MiModel, architectures), M(MiModel, record)),
    NEEDS(MI_KIND_ATTENTION, MiAttention, op, M(MiAttention, layouts), M(MiAttention, op)),
#define C(member) M(MiCache, member)
    NEEDS(MI_KIND_CACHE, MiCache, swap_in, C(layout), C(append), C(bytes), C(create), C(destroy), C(view), C(reserve),
          C(release), C(plan), C(room)),
#define L(member) M(MiLinear, member)
    NEEDS(MI_KIND_LINEAR, MiLinear, op, L(formats), L(layout), L(bytes), L(pack), L(op)),
    NEEDS(MI_KIND_SAMPLER, MiSampler, op, M(MiSampler, op)),
#define S(member) M(MiScheduler, member)
    NEEDS(MI_KIND_SCHEDULER, MiScheduler, took, S(create), S(destroy), S(add), S(remove), S(next), S(waiting)),
#define F(member) M(MiFormat, member)
    NEEDS(MI_KIND_FORMAT, MiFormat, write, F(probe), F(open), F(close), F(find), F(count), F(at), F(meta),
          F(rope_style)),
#define T(member) M(MiTokenizer, member)
    NEEDS(MI_KIND_TOKENIZER, MiTokenizer, special, T(open), T(close), T(encode), T(piece), T(special)),
#define E(member) M(MiFrontend, member)
    NEEDS(MI_KIND_FRONTEND, MiFrontend, destroy, E(create), E(serve), E(stop), E(destroy)),
#define P(member) M(MiPrefix, member)
    NEEDS(MI_KIND_PREFIX, MiPrefix, remove, P(create), P(destroy), P(find), P(insert), P(remove)),
#define V(member) M(MiEviction, member)
    NEEDS(MI_KIND_EVICTION, MiEviction, evict, V(create), V(destroy), V(idle), V(busy), V(hit), V(forget), V(evict)),
};

/* Members that come together or not at all. */
static const struct {
    MiKind kind;
    Member all[5];
} groups[] = {
    { MI_KIND_BACKEND, { B(capture_begin), B(capture_end), B(replay), B(graph_free), { NULL, 0 } } },
    { MI_KIND_ATTENTION, { M(MiAttention, create), M(MiAttention, destroy), { NULL, 0 } } },
    { MI_KIND_CACHE, { C(swap_out), C(swap_in), { NULL, 0 } } },
};

static bool is_set(const void *table, const Member *m) { return *(void *const *)((const char *)table + m->at); }

static bool check_members(const Check *c, const MiFeature *f)
{
    for (const Member *m = needs[f->kind].must; m->name; m++)
        if (!is_set(f->vtable, m))
            return refuse(c, "lacks '%s', which it must have", m->name);
    for (size_t g = 0; g < G_N_ELEMENTS(groups); g++)
        for (const Member *m = groups[g].all; groups[g].kind == f->kind && m->name; m++)
            if (is_set(f->vtable, m) != is_set(f->vtable, &groups[g].all[0]))
                return refuse(c, "has only one of '%s' and '%s', which belong together", groups[g].all[0].name,
                              m->name);
    return true;
}

/* ---- what the tables point at -------------------------------------------------- */

/* A NULL-terminated list of texts with at least one. */
static bool check_list(const Check *c, const char *what, const char *const *list)
{
    int n = 0;

    for (; mi_image_holds(c->image, &list[n], sizeof *list) && list[n]; n++)
        if (!mi_image_holds_text(c->image, list[n]))
            return refuse(c, "has a bad pointer in '%s'", what);
    if (!mi_image_holds(c->image, &list[n], sizeof *list))
        return refuse(c, "has a '%s' without an end", what);
    return n > 0 || refuse(c, "lists nothing as '%s'", what);
}

static bool check_text(const Check *c, const char *what, const char *text)
{
    return mi_image_holds_text(c->image, text) || refuse(c, "has a bad pointer as '%s'", what);
}

/* The op of a feature: of kind op itself, or what another table holds. */
static bool check_op(const Check *c, const MiOp *op)
{
    if ((uintptr_t)op % sizeof(void *) || !mi_image_holds(c->image, op, needs[MI_KIND_OP].oldest))
        return refuse(c, "has a bad pointer as 'op'");
    if (op->struct_size < needs[MI_KIND_OP].oldest || op->struct_size > needs[MI_KIND_OP].ours)
        return refuse(c, "has an op whose table says %zu bytes, %zu are wanted", op->struct_size,
                      needs[MI_KIND_OP].ours);
    if (!op->run)
        return refuse(c, "has an op without 'run'");
    if (op->n_in < 0 || op->n_in > MI_MAX_IN || op->n_out < 0 || op->n_out > MI_MAX_OUT || op->n_weights < 0 ||
        op->n_weights > MI_MAX_WEIGHTS)
        return refuse(c, "says %d inputs, %d outputs, %d weights; up to %d, %d, %d are possible", op->n_in, op->n_out,
                      op->n_weights, MI_MAX_IN, MI_MAX_OUT, MI_MAX_WEIGHTS);
    return true;
}

static bool check_pattern(const Check *c, const MiPattern *lines)
{
    int  n = 0;
    bool must = false;

    for (; mi_image_holds(c->image, &lines[n], sizeof *lines) && lines[n].op; n++) {
        if (!check_text(c, "pattern", lines[n].op))
            return false;
        must = must || lines[n].op[0] != '?';
        for (int i = 0; i < MI_MAX_IN; i++)
            if (abs(lines[n].in[i]) > n)
                return refuse(c, "has a pattern whose line %d takes from line %d", n + 1, lines[n].in[i]);
    }
    if (!mi_image_holds(c->image, &lines[n], sizeof *lines))
        return refuse(c, "has a 'pattern' without an end");
    if (n > MI_MAX_PATTERN)
        return refuse(c, "has a pattern of %d lines; %d are possible", n, MI_MAX_PATTERN);
    return must || refuse(c, n ? "has a pattern all of whose lines are optional" : "has an empty pattern");
}

/* ---- options --------------------------------------------------------------------- */

/* room: bytes of the struct they fill; 0: the core makes it as large as the table needs. */
static bool check_option(const Check *c, const MiOption *table, const MiOption *o, size_t room)
{
    g_autoptr(GError) why = NULL;
    const size_t      size = mi_option_size(o->type), most = room ? room : 1 << 16;

    if (!mi_image_holds_text(c->image, o->key) || !mi_is_feature_name(o->key) || strchr(o->key, '.'))
        return refuse(c, "has an option without a proper name");
    if (size == 0)
        return refuse(c, "option '%s' has unknown type %d", o->key, (int)o->type);
    if (o->offset > most || size > most - o->offset || o->offset % (size == 8 || size == 1 ? size : 4))
        return refuse(c, "option '%s' lies at byte %u of a struct of %zu", o->key, o->offset, most);
    if (room && o->type == MI_STRING)
        return refuse(c, "option '%s' is a text, which a request's row cannot hold", o->key);
    if (!mi_image_holds_text(c->image, o->help))
        return refuse(c, "option '%s' has no help", o->key);
    if (o->choices && !mi_image_holds_text(c->image, o->choices))
        return refuse(c, "option '%s' has a bad pointer as choices", o->key);
    if (!(o->min <= o->max))
        return refuse(c, "option '%s' ranges from %g to %g", o->key, o->min, o->max);
    if (mi_options_find(table, o->key) != o)
        return refuse(c, "has option '%s' twice", o->key);
    if (o->def && !mi_image_holds_text(c->image, o->def))
        return refuse(c, "option '%s' has a bad pointer as default", o->key);
    if (o->def && !mi_option_accepts(o, o->def, &why))
        return refuse(c, "has a default that its own range refuses: %s", why->message);
    return true;
}

static bool check_options(const Check *c, const MiOption *table, size_t room)
{
    const MiOption *o = table;

    if (!table)
        return true;
    for (; mi_image_holds(c->image, o, sizeof *o) && o->key; o++)
        if (!check_option(c, table, o, room))
            return false;
    return mi_image_holds(c->image, o, sizeof *o) || refuse(c, "has an option table without an end");
}

/* ---- features ---------------------------------------------------------------------- */

static bool check_contents(const Check *c, const MiFeature *f)
{
    switch (f->kind) {
    case MI_KIND_OP:
        return check_op(c, f->vtable);
    case MI_KIND_FUSION: {
        const MiFusion *v = f->vtable;
        return check_pattern(c, v->pattern) && (!v->layouts || check_list(c, "layouts", v->layouts)) &&
               check_op(c, v->op);
    }
    case MI_KIND_MODEL:
        return check_list(c, "architectures", ((const MiModel *)f->vtable)->architectures);
    case MI_KIND_ATTENTION: {
        const MiAttention *v = f->vtable;
        return check_list(c, "layouts", v->layouts) && check_op(c, v->op);
    }
    case MI_KIND_CACHE: {
        const MiCache *v = f->vtable;
        return check_text(c, "layout", v->layout) && check_text(c, "append", v->append);
    }
    case MI_KIND_LINEAR: {
        const MiLinear *v = f->vtable;
        return check_list(c, "formats", v->formats) && check_text(c, "layout", v->layout) && check_op(c, v->op);
    }
    case MI_KIND_SAMPLER: {
        const MiSampler *v = f->vtable;
        if (v->params && v->row_size == 0)
            return refuse(c, "declares parameters and no row to hold them");
        return check_options(c, v->params, v->row_size) && check_op(c, v->op);
    }
    default:
        return true;
    }
}

bool mi_is_feature_name(const char *name)
{
    const size_t n = strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_.-");
    return n > 0 && n <= 63 && !name[n];
}

static bool check_feature(Check *c, const MiFeature *f)
{
    if ((unsigned)f->kind >= MI_N_KINDS)
        return refuse(c, "a feature is of unknown kind %d", (int)f->kind);
    if (!mi_image_holds_text(c->image, f->name) || !mi_is_feature_name(f->name))
        return refuse(c, "a feature of kind %s has no proper name; it is up to 63 of a-z 0-9 _ . -",
                      mi_kind_name(f->kind));
    c->f = f;
    if (!mi_image_holds_text(c->image, f->backend) ||
        (strcmp(f->backend, "*") != 0 && !mi_is_feature_name(f->backend)))
        return refuse(c, "names no backend");
    if (!f->vtable)
        return refuse(c, "has no table");
    if ((uintptr_t)f->vtable % sizeof(void *) || !mi_image_holds(c->image, f->vtable, sizeof(size_t)))
        return refuse(c, "has a bad pointer as its table");
    const size_t says = *(const size_t *)f->vtable;
    if (says < needs[f->kind].oldest)
        return refuse(c, "has a table that is too short: %zu bytes, at least %zu are wanted", says,
                      needs[f->kind].oldest);
    if (says > needs[f->kind].ours)
        return refuse(c, "has a table that is too long: %zu bytes, at most %zu are known", says, needs[f->kind].ours);
    if (!mi_image_holds(c->image, f->vtable, says))
        return refuse(c, "has a bad pointer as its table");
    return check_members(c, f) && check_contents(c, f) && check_options(c, f->options, 0);
}

static bool same_key(const MiFeature *a, const MiFeature *b)
{
    return a->kind == b->kind && strcmp(a->name, b->name) == 0 && strcmp(a->backend, b->backend) == 0;
}

static bool check_features(Check *c, const MiPlugin *p)
{
    if (p->n_features == 0 || p->n_features > 4096)
        return refuse(c, "it offers %u features; 1 to 4096 are possible", p->n_features);
    if (!mi_image_holds(c->image, p->features, p->n_features * sizeof *p->features))
        return refuse(c, "has a bad pointer to its features");
    for (uint32_t i = 0; i < p->n_features; i++) {
        c->f = NULL;
        if (!check_feature(c, &p->features[i]))
            return false;
        for (uint32_t j = 0; j < i; j++)
            if (same_key(&p->features[i], &p->features[j]))
                return refuse(c, "is there twice for backend '%s'", p->features[i].backend);
    }
    return true;
}

/* ---- the plugin ---------------------------------------------------------------------- */

/* A line of text: there, not empty, no control bytes. */
static bool check_line(const Check *c, const char *what, const char *text)
{
    if (!mi_image_holds_text(c->image, text) || !*text)
        return refuse(c, "it gives no %s", what);
    if (!g_utf8_validate(text, -1, NULL))
        return refuse(c, "its %s is not UTF-8", what);
    for (const char *p = text; *p; p++)
        if ((unsigned char)*p < ' ' || *p == 0x7f)
            return refuse(c, "its %s is not one line", what);
    return true;
}

bool mi_plugin_check(const MiPlugin *p, const MiImage *image, const char *file, GError **error)
{
    static const struct { const char *name; size_t size; } ours[] = {
#define NAME_AND_SIZE(type) { #type, sizeof(type) },
        MI_ABI_STRUCTS(NAME_AND_SIZE)
    };
    Check c = { image, file, NULL, error };

    if (!p)
        return refuse(&c, "its mi_plugin_query gives nothing");
    if ((uintptr_t)p % sizeof(void *) || !mi_image_holds(image, p, offsetof(MiPlugin, sizes)))
        return refuse(&c, "its mi_plugin_query gives a bad pointer");
    if (p->magic != MI_PLUGIN_MAGIC)
        return refuse(&c, "bad magic, not a miniinfer plugin");
    if (p->abi_major != MI_ABI_MAJOR || p->abi_minor > MI_ABI_MINOR)
        return refuse(&c, "built for plugin ABI %u.%u, this is %u.%u", p->abi_major, p->abi_minor, MI_ABI_MAJOR,
                      MI_ABI_MINOR);
    if (p->struct_size != sizeof *p)
        return refuse(&c, "its MiPlugin is %u bytes, this one's is %zu", p->struct_size, sizeof *p);
    if (!mi_image_holds(image, p, sizeof *p))
        return refuse(&c, "its mi_plugin_query gives a bad pointer");
    for (int i = 0; i < MI_N_ABI_STRUCTS; i++)
        if (p->sizes[i] != ours[i].size)
            return refuse(&c, "its %s is %u bytes, this one's is %zu", ours[i].name, p->sizes[i], ours[i].size);
    return check_line(&c, "name", p->name) && check_line(&c, "version", p->version) &&
           check_line(&c, "description", p->description) && check_line(&c, "licence", p->licence) &&
           check_features(&c, p);
}
