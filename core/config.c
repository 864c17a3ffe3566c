/* config.c - configurations: reading, precedence, filling structs.
 *
 * The file is read with inih, behind a reader that counts lines and refuses
 * what inih would cut or drop without a word: lines over 198 bytes, names over
 * 49, text behind [section], a line that continues the value above (blanks
 * before a line are taken off, so that it is a key or nothing), control bytes.
 * All pairs are collected first; they count when the whole file was right.
 *
 *   [section]       a-z 0-9 _ . -
 *   key = value     a-z 0-9 _ -; a value ends at the line's end or at " ;"
 *   ; comment       # too, where a line begins
 *
 * A command line replaces what a file says, a later file what an earlier one
 * says; within a file a key stands once.  Nothing in a value is expanded. */
#include "config.h"
#include "options.h"
#include "settings.h"
#include "suggest.h"

#include <errno.h>
#include <fcntl.h>
#include <ini.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { LONGEST_LINE = 198, LONGEST_NAME = 49, LONGEST_SHOWN = 60, LARGEST_FILE = 1 << 20 };
G_STATIC_ASSERT(LONGEST_LINE + 2 <= INI_MAX_LINE); /* size of the buffer that inih hands to next_line() */
#define NAME_LETTERS "abcdefghijklmnopqrstuvwxyz0123456789_-"

typedef struct {
    char       *section, *key, *value; /* key NULL: a section's header */
    const char *file;                  /* interned; NULL: mi_config_set() */
    unsigned    line;
    const char *origin;                /* where file is NULL: whose; NULL: the command line's */
} Entry;

struct MiConfig {
    const char *origin;   /* of what is set; NULL: the command line */
    GPtrArray  *entries;  /* Entry *, in order; owned */
    GHashTable *by_name;  /* "section.key" -> Entry * */
};

static void entry_free(void *p)
{
    Entry *e = p; /* NULL: given away */
    if (!e)
        return;
    g_free(e->section);
    g_free(e->key);
    g_free(e->value);
    g_free(e);
}

MiConfig *mi_config_new(void)
{
    MiConfig *c = g_new0(MiConfig, 1);
    c->entries = g_ptr_array_new_with_free_func(entry_free);
    c->by_name = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    return c;
}

void mi_config_free(MiConfig *c)
{
    if (!c)
        return;
    g_hash_table_unref(c->by_name);
    g_ptr_array_unref(c->entries);
    g_free(c);
}

void mi_config_origin(MiConfig *c, const char *origin) { c->origin = origin; }

static bool wrong(GError **error, const Entry *at, const char *format, ...) G_GNUC_PRINTF(3, 4);
static bool wrong(GError **error, const Entry *at, const char *format, ...)
{
    va_list ap;
    va_start(ap, format);
    g_autofree char *what = g_strdup_vprintf(format, ap);
    va_end(ap);
    if (at->file)
        g_set_error(error, MI_ERROR, MI_ERROR_CONFIG, "%s:%u: %s", at->file, at->line, what);
    else
        g_set_error(error, MI_ERROR, MI_ERROR_CONFIG, "%s: %s", at->origin ? at->origin : "command line", what);
    return false;
}

/* An entry of the table's name, of what was said last. */
static Entry *lookup(const MiConfig *c, const char *section, const char *key)
{
    g_autofree char *name = g_strdup_printf("%s.%s", section, key);
    return g_hash_table_lookup(c->by_name, name);
}

static void put(MiConfig *c, Entry *e)
{
    g_ptr_array_add(c->entries, e);
    if (!e->key)
        return;
    Entry *old = lookup(c, e->section, e->key);
    if (!old || old->file || !e->file)
        g_hash_table_insert(c->by_name, g_strdup_printf("%s.%s", e->section, e->key), e);
}

/* ---- reading a file -------------------------------------------------------- */

typedef struct {
    Entry       at;   /* where the reader is: file and line */
    const char *text, *end;
    GPtrArray  *entries;
    GHashTable *seen; /* "section.key" -> line */
    GError     *error;
} Reading;

static const char bom[] = "\xef\xbb\xbf"; /* may begin a file; inih would take it from behind blanks, too */

static bool name_fits(const char *name, size_t n, const char *letters)
{
    return n > 0 && n <= LONGEST_NAME && strspn(name, letters) >= n;
}

/* line: [n], begins with '['. */
static bool take_section(Reading *r, const char *line, size_t n)
{
    const char *close = memchr(line, ']', n);
    size_t      rest = close ? (size_t)(close + 1 - line) : n;

    if (!close || !name_fits(line + 1, (size_t)(close - line - 1), "." NAME_LETTERS)) {
        g_autofree char *whole = g_strndup(line, rest), *shown = mi_printable(whole, LONGEST_SHOWN);
        return close ? wrong(&r->error, &r->at, "'%s' is no section; its name is up to %d of a-z 0-9 _ . -", shown,
                             LONGEST_NAME)
                     : wrong(&r->error, &r->at, "'%s' lacks its ']'", shown);
    }
    while (rest < n && (line[rest] == ' ' || line[rest] == '\t'))
        rest++;
    if (rest < n && line[rest] != ';' && line[rest] != '#')
        return wrong(&r->error, &r->at, "text behind %.*s; a key begins a line of its own", (int)(close + 1 - line),
                     line);
    Entry *e = g_new0(Entry, 1);
    *e = (Entry){ .section = g_strndup(line + 1, (size_t)(close - line - 1)), .file = r->at.file, .line = r->at.line };
    g_ptr_array_add(r->entries, e);
    return true;
}

/* fgets for inih: the next line, checked, without the blanks before it; NULL at the end or after an error. */
static char *next_line(char *out, int size, void *stream)
{
    Reading    *r = stream;
    const char *line = r->text;

    if (r->error || line == r->end)
        return NULL;
    const char *nl = memchr(line, '\n', (size_t)(r->end - line));
    const char *stop = nl ? nl : r->end;
    r->text = nl ? nl + 1 : r->end;
    r->at.line++;
    while (line < stop && g_ascii_isspace(*line))
        line++;
    while (stop > line && g_ascii_isspace(stop[-1]))
        stop--;
    const size_t n = (size_t)(stop - line);
    const bool   comment = n > 0 && (*line == ';' || *line == '#');
    for (const char *p = line; p < stop; p++)
        if (((unsigned char)*p < ' ' && *p != '\t') || *p == 0x7f) {
            wrong(&r->error, &r->at, "byte 0x%02x is no text", (unsigned)*p);
            return NULL;
        }
    if (n >= 3 && memcmp(line, bom, 3) == 0) {
        wrong(&r->error, &r->at, "a byte order mark that does not begin the file");
        return NULL;
    }
    if (!comment && n > LONGEST_LINE) {
        wrong(&r->error, &r->at, "the line is %zu bytes long; %d are possible", n, LONGEST_LINE);
        return NULL;
    }
    if (n > 0 && *line == '[' && !take_section(r, line, n))
        return NULL;
    g_snprintf(out, (gulong)size, "%.*s\n", comment ? 0 : (int)n, line);
    return out;
}

/* inih's: 0 is an error.  Not called again after one: next_line() ends the file. */
static int take_pair(void *user, const char *section, const char *key, const char *value)
{
    Reading         *r = user;
    g_autofree char *shown = mi_printable(key, LONGEST_SHOWN);

    if (!*section)
        return wrong(&r->error, &r->at, "'%s' stands before any [section]", shown);
    if (!name_fits(key, strlen(key), NAME_LETTERS))
        return wrong(&r->error, &r->at, "'%s' is no key; a name is up to %d of a-z 0-9 _ -", shown, LONGEST_NAME);
    g_autofree char *name = g_strdup_printf("%s.%s", section, key);
    unsigned         first = GPOINTER_TO_UINT(g_hash_table_lookup(r->seen, name));
    if (first)
        return wrong(&r->error, &r->at, "[%s] %s was given in line %u already", section, key, first);
    Entry *e = g_new0(Entry, 1);
    *e = (Entry){ .section = g_strdup(section), .key = g_strdup(key), .value = g_strdup(value), .file = r->at.file,
                  .line = r->at.line };
    g_ptr_array_add(r->entries, e);
    g_hash_table_insert(r->seen, g_steal_pointer(&name), GUINT_TO_POINTER(r->at.line));
    return 1;
}

/* A regular file of sane size, whole. */
static char *slurp(const char *file, size_t *size, GError **error)
{
    struct stat st;
    char       *text = NULL;
    int         fd = open(file, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

    if (fd < 0 || fstat(fd, &st) != 0) {
        g_set_error(error, G_FILE_ERROR, g_file_error_from_errno(errno), "%s: %s", file, g_strerror(errno));
    } else if (!S_ISREG(st.st_mode)) {
        g_set_error(error, MI_ERROR, MI_ERROR_CONFIG, "%s is %s; a configuration is a regular file", file,
                    S_ISDIR(st.st_mode) ? "a directory" : "a device, socket or pipe");
    } else if (st.st_size > LARGEST_FILE) {
        g_set_error(error, MI_ERROR, MI_ERROR_CONFIG, "%s: %" G_GINT64_FORMAT " bytes are no configuration; "
                    "%d are possible", file, (gint64)st.st_size, LARGEST_FILE);
    } else {
        text = g_malloc((size_t)st.st_size + 1);
        ssize_t got = 0;
        for (*size = 0; *size < (size_t)st.st_size; *size += (size_t)got)
            if ((got = read(fd, text + *size, (size_t)st.st_size - *size)) <= 0)
                break;
        if (got < 0) {
            g_set_error(error, MI_ERROR, MI_ERROR_IO, "%s: %s", file, g_strerror(errno));
            g_free(text);
            text = NULL;
        }
    }
    if (fd >= 0)
        close(fd);
    return text;
}

/* What stands in line n, for a message; there are that many. */
static char *line_of(const char *text, const char *end, int n)
{
    while (--n > 0)
        text = (const char *)memchr(text, '\n', (size_t)(end - text)) + 1;
    g_autofree char *line = g_strndup(text, (size_t)(end - text));
    line[strcspn(line, "\r\n")] = 0;
    return mi_printable(g_strstrip(line), LONGEST_SHOWN);
}

bool mi_config_parse(MiConfig *c, const char *file, const char *text, size_t size, GError **error)
{
    g_autoptr(GPtrArray)  entries = g_ptr_array_new_with_free_func(entry_free);
    g_autoptr(GHashTable) seen = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    Reading               r = { .at = { .file = g_intern_string(file) }, .text = text, .end = text + size,
                                .entries = entries, .seen = seen };

    if (size >= 3 && memcmp(text, bom, 3) == 0)
        text = r.text = text + 3;
    if (!g_utf8_validate_len(text, (gsize)(r.end - text), &r.text)) {
        for (const char *p = text; p < r.text; p++)
            r.at.line += *p == '\n';
        r.at.line++;
        return wrong(error, &r.at, "bytes that are not UTF-8");
    }
    r.text = text;
    int bad = ini_parse_stream(next_line, &r, take_pair, &r);
    if (!r.error && bad) {
        g_autofree char *line = line_of(text, r.end, bad);
        r.at.line = (unsigned)bad;
        wrong(&r.error, &r.at, "'%s' is neither [section] nor key = value", line);
    }
    if (r.error) {
        g_propagate_error(error, r.error);
        return false;
    }
    for (guint i = 0; i < entries->len; i++)
        put(c, g_steal_pointer(&entries->pdata[i]));
    return true;
}

bool mi_config_read(MiConfig *c, const char *file, GError **error)
{
    size_t           size = 0;
    g_autofree char *text = slurp(file, &size, error);
    return text && mi_config_parse(c, file, text, size, error);
}

/* ---- the command line ------------------------------------------------------- */

bool mi_config_set(MiConfig *c, const char *dotted, const char *value, GError **error)
{
    const char      *dot = strrchr(dotted, '.');
    g_autofree char *shown = mi_printable(dotted, LONGEST_SHOWN);
    const Entry      here = { .origin = c->origin };
    const char      *dashes = c->origin ? "" : "--";

    if (!dot || !name_fits(dotted, (size_t)(dot - dotted), "." NAME_LETTERS) ||
        !name_fits(dot + 1, strlen(dot + 1), NAME_LETTERS))
        return wrong(error, &here, "'%s%s' is not %ssection.key", dashes, shown, dashes);
    if (!g_utf8_validate(value, -1, NULL))
        return wrong(error, &here, "%s%s: its value is not UTF-8", dashes, dotted);
    Entry *e = g_new0(Entry, 1);
    *e = (Entry){ .section = g_strndup(dotted, (size_t)(dot - dotted)), .key = g_strdup(dot + 1),
                  .value = g_strdup(value), .origin = c->origin };
    put(c, e);
    return true;
}

/* ---- what was said ---------------------------------------------------------- */

const char *mi_config_get(const MiConfig *c, const char *section, const char *key)
{
    const Entry *e = lookup(c, section, key);
    return e ? e->value : NULL;
}

static bool parse_entry(const Entry *e, const MiOption *o, void *at, GError **error)
{
    g_autoptr(GError) why = NULL;

    if (at ? mi_option_parse(o, at, e->value, &why) : mi_option_accepts(o, e->value, &why))
        return true;
    return wrong(error, e, "[%s] %s", e->section, why->message);
}

bool mi_config_fill(const MiConfig *c, const char *section, const MiOption *table, void *out, GError **error)
{
    for (const MiOption *o = table; o->key; o++) {
        const Entry *e = lookup(c, section, o->key);
        void        *at = (char *)out + o->offset;
        if (e) {
            if (!parse_entry(e, o, at, error))
                return false;
        } else if (!o->def) {
            g_set_error(error, MI_ERROR, MI_ERROR_CONFIG, "[%s] %s must be given: %s", section, o->key, o->help);
            return false;
        } else if (!mi_option_parse(o, at, o->def, error)) {
            g_prefix_error(error, "the default of [%s] ", section);
            return false;
        }
    }
    return true;
}

bool mi_config_feature(const MiConfig *c, const MiFeature *f, void **out, GError **error)
{
    *out = NULL;
    if (!f->options)
        return true;
    g_autofree char *section = g_strdup_printf("%s.%s", mi_kind_name(f->kind), f->name);
    g_autofree void *filled = g_malloc0(mi_options_size(f->options));
    if (!mi_config_fill(c, section, f->options, filled, error))
        return false;
    *out = g_steal_pointer(&filled);
    return true;
}

/* ---- whose key is it? ------------------------------------------------------- */

typedef void Visit(const MiOption *table, const char *section, void *user);

/* Every table that a section may take keys from. */
static void visit_tables(MiRegistry *r, Visit *visit, void *user)
{
    for (const char *const *s = mi_settings_sections(); *s; s++)
        visit(mi_settings_table(*s), *s, user);
    for (int kind = 0; kind < MI_N_KINDS; kind++) {
        g_autoptr(GPtrArray) list = mi_registry_list(r, (MiKind)kind, NULL);
        for (guint i = 0; i < list->len; i++) {
            const MiFeature *f = list->pdata[i];
            g_autofree char *section = g_strdup_printf("%s.%s", mi_kind_name(f->kind), f->name);
            visit(f->options, section, user);
            if (f->kind == MI_KIND_SAMPLER)
                visit(((const MiSampler *)f->vtable)->params, "sampler", user);
        }
    }
}

typedef struct {
    const Entry *entry;
    GPtrArray   *sections, *keys; /* interned names: all sections, keys of the entry's */
    bool         section, key;    /* found */
    GError      *error;           /* of the value, by the last table that has the key */
} Owner;

/* One key may stand in several tables: of two backends, of two links; one that takes the value is enough. */
static void look_in(const MiOption *table, const char *section, void *user)
{
    Owner *w = user;

    g_ptr_array_add(w->sections, (void *)g_intern_string(section));
    if (strcmp(section, w->entry->section) != 0)
        return;
    w->section = true;
    for (const MiOption *o = table; o && o->key; o++) {
        g_ptr_array_add(w->keys, (void *)g_intern_string(o->key));
        if (!w->entry->key || strcmp(o->key, w->entry->key) != 0 || (w->key && !w->error))
            continue;
        w->key = true;
        g_clear_error(&w->error);
        parse_entry(w->entry, o, NULL, &w->error);
    }
}

static bool check_entry(MiRegistry *r, const Entry *e, GError **error)
{
    g_autoptr(GPtrArray) sections = g_ptr_array_new(), keys = g_ptr_array_new();
    g_autoptr(GString)   hint = g_string_new(NULL);
    Owner                w = { .entry = e, .sections = sections, .keys = keys };

    visit_tables(r, look_in, &w);
    if (!w.section) {
        const char *near = mi_suggest(e->section, sections);
        if (near)
            g_string_printf(hint, "; did you mean [%s]?", near);
        return wrong(error, e, "unknown section [%s]%s", e->section, hint->str);
    }
    if (e->key && !w.key) {
        mi_suggest_append(hint, e->key, keys);
        if (hint->len == 0 && keys->len == 0)
            g_string_assign(hint, "; it takes none");
        return wrong(error, e, "unknown key '%s' in [%s]%s", e->key, e->section, hint->str);
    }
    if (w.error)
        g_propagate_error(error, w.error);
    return !w.error;
}

/* Keys whose value names features: one, or several in a list. */
static const struct { const char *section, *key; MiKind kind; } naming[] = {
    { "model", "format", MI_KIND_FORMAT },        { "model", "tokenizer", MI_KIND_TOKENIZER },
    { "engine", "device", MI_KIND_BACKEND },      { "engine", "attention", MI_KIND_ATTENTION },
    { "engine", "cache", MI_KIND_CACHE },         { "engine", "linear", MI_KIND_LINEAR },
    { "engine", "scheduler", MI_KIND_SCHEDULER }, { "sampler", "chain", MI_KIND_SAMPLER },
};

/* Whether they are there for any backend; which one it will be is the assembly's business. */
static bool check_names(const MiConfig *c, MiRegistry *r, GError **error)
{
    for (size_t i = 0; i < G_N_ELEMENTS(naming); i++) {
        const Entry  *e = lookup(c, naming[i].section, naming[i].key);
        g_auto(GStrv) names = g_strsplit_set(e ? e->value : "", ", \t", 0);
        for (char **n = names; *n; n++) {
            g_autoptr(GError) why = NULL;
            if (naming[i].kind == MI_KIND_BACKEND)
                (*n)[strcspn(*n, ":")] = 0; /* cuda:1 */
            if (**n && strcmp(*n, "auto") != 0 && !mi_registry_find(r, naming[i].kind, *n, NULL, &why))
                return wrong(error, e, "[%s] %s: %s", e->section, e->key, why->message);
        }
    }
    return true;
}

static bool check_disabled(const MiConfig *c, MiRegistry *r, GError **error)
{
    const Entry         *e = lookup(c, "plugins", "disable");
    g_autoptr(GPtrArray) names = g_ptr_array_new_with_free_func(g_free);
    GPtrArray           *files = mi_registry_files(r);

    if (!e)
        return true;
    for (guint i = 0; i < files->len; i++)
        g_ptr_array_add(names, mi_plugin_stem(((const MiLoaded *)files->pdata[i])->file));
    g_auto(GStrv) parts = g_strsplit(e->value, ",", 0);
    for (char **p = parts; *p; p++) {
        g_autoptr(GString) hint = g_string_new(NULL);
        if (!*g_strstrip(*p) || g_ptr_array_find_with_equal_func(names, *p, g_str_equal, NULL))
            continue;
        g_autofree char *shown = mi_printable(*p, LONGEST_SHOWN);
        mi_suggest_append(hint, *p, names);
        return wrong(error, e, "[plugins] disable: there is no plugin file %s.so%s", shown, hint->str);
    }
    return true;
}

bool mi_config_check(const MiConfig *c, MiRegistry *r, GError **error)
{
    for (guint i = 0; i < c->entries->len; i++)
        if (!check_entry(r, c->entries->pdata[i], error))
            return false;
    return check_names(c, r, error) && check_disabled(c, r, error);
}
