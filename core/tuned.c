#include "tuned.h"

#include <string.h>

#define FIRST_LINE "miniinfer tuned 1"
enum { BUDGET_US = 2000000 /* of a start */, MAX_FILE = 4 << 20 };

typedef struct {
    char   *key;
    GBytes *data;
} Entry;

struct MiTuned {
    char       *path; /* NULL: off */
    GPtrArray  *entries; /* Entry *, oldest first */
    GHashTable *by_key;  /* the same */
    bool        foreign; /* the file is not ours: it stays as it is */
    bool        was_read, changed, ended;
    int64_t     from, spent; /* microseconds; from 0: nothing is being measured */
};

static void entry_free(void *p)
{
    Entry *e = p;
    g_free(e->key);
    g_bytes_unref(e->data);
    g_free(e);
}

static void put(MiTuned *t, const char *key, GBytes *data)
{
    Entry *e = g_hash_table_lookup(t->by_key, key);

    if (e) {
        g_hash_table_remove(t->by_key, key);
        g_ptr_array_remove(t->entries, e);
    }
    e = g_new(Entry, 1);
    *e = (Entry){ g_strdup(key), data };
    g_ptr_array_add(t->entries, e);
    g_hash_table_insert(t->by_key, e->key, e);
}

/* ---- the file ----------------------------------------------------------------- */

static GBytes *from_hex(const char *text)
{
    const size_t        n = strlen(text);
    g_autofree guint8 *bytes = NULL;

    if (!n || n % 2 || n / 2 > MI_TUNED_BYTES)
        return NULL;
    bytes = g_malloc(n / 2);
    for (size_t i = 0; i < n; i += 2) {
        const int high = g_ascii_xdigit_value(text[i]), low = g_ascii_xdigit_value(text[i + 1]);
        if (high < 0 || low < 0)
            return NULL;
        bytes[i / 2] = (guint8)(high << 4 | low);
    }
    return g_bytes_new(bytes, n / 2);
}

static bool is_key(const char *key)
{
    for (const char *c = key; *c; c++)
        if (!g_ascii_isprint(*c))
            return false;
    return *key && strlen(key) < MI_TUNED_KEY;
}

/* Of line n; false: it is none of ours. */
static bool read_line(MiTuned *t, char *line, int n)
{
    char   *tab = strchr(line, '\t');
    GBytes *data;

    if (n == 1)
        return strcmp(line, FIRST_LINE) == 0;
    if (!tab || n > MI_TUNED_ENTRIES + 1)
        return false;
    *tab = '\0';
    if (!is_key(line) || !(data = from_hex(tab + 1)))
        return false;
    put(t, line, data);
    return true;
}

/* When first asked for: most runs on a processor never do. */
static void read_file(MiTuned *t)
{
    g_autofree char *text = NULL;
    gsize            size = 0;
    int              n = 0;

    if (t->was_read || !t->path)
        return;
    t->was_read = true;
    if (!g_file_get_contents(t->path, &text, &size, NULL))
        return;
    bool ok = size <= MAX_FILE && size && text[size - 1] == '\n' && !memchr(text, '\0', size);
    for (char *line = text, *end; ok && *line; line = end + 1) {
        end = strchr(line, '\n');
        *end = '\0';
        ok = read_line(t, line, ++n);
    }
    if (ok)
        return;
    t->foreign = true;
    g_hash_table_remove_all(t->by_key);
    g_ptr_array_set_size(t->entries, 0);
    g_message("%s is not what was measured here before, or damaged: it is left out of account; remove it, or set [engine] tuned",
              t->path);
}

/* Another process may have written meanwhile: what it found is kept. */
static void write_file(MiTuned *t)
{
    g_autofree char    *folder = g_path_get_dirname(t->path);
    g_autoptr(GString)  text = g_string_new(FIRST_LINE "\n");
    g_autoptr(GError)   error = NULL;
    MiTuned            *all = mi_tuned_new(t->path);

    read_file(all);
    for (guint i = 0; i < t->entries->len; i++) {
        const Entry *e = t->entries->pdata[i];
        put(all, e->key, g_bytes_ref(e->data));
    }
    const guint n = all->entries->len;
    for (guint i = n > MI_TUNED_ENTRIES ? n - MI_TUNED_ENTRIES : 0; i < n; i++) {
        const Entry  *e = all->entries->pdata[i];
        gsize         size;
        const guint8 *bytes = g_bytes_get_data(e->data, &size);
        g_string_append_printf(text, "%s\t", e->key);
        for (gsize k = 0; k < size; k++)
            g_string_append_printf(text, "%02x", bytes[k]);
        g_string_append_c(text, '\n');
    }
    if (!all->foreign &&
        (g_mkdir_with_parents(folder, 0700) != 0 || !g_file_set_contents(t->path, text->str, (gssize)text->len, &error)))
        g_message("what was measured for this machine cannot be kept: %s", error ? error->message : folder);
    mi_tuned_free(all);
}

/* ---- the whole ------------------------------------------------------------------ */

MiTuned *mi_tuned_new(const char *where)
{
    MiTuned *t = g_new0(MiTuned, 1);

    t->entries = g_ptr_array_new_with_free_func(entry_free);
    t->by_key = g_hash_table_new(g_str_hash, g_str_equal);
    if (strcmp(where, "auto") == 0)
        t->path = g_build_filename(g_get_user_cache_dir(), "miniinfer", "tuned", NULL);
    else if (strcmp(where, "off") != 0)
        t->path = g_strdup(where);
    return t;
}

void mi_tuned_free(MiTuned *t)
{
    if (!t)
        return;
    g_hash_table_unref(t->by_key);
    g_ptr_array_unref(t->entries);
    g_free(t->path);
    g_free(t);
}

const void *mi_tuned_recall(MiTuned *t, const char *key, size_t *bytes)
{
    const Entry *e;

    read_file(t);
    return (e = g_hash_table_lookup(t->by_key, key)) ? g_bytes_get_data(e->data, bytes) : NULL;
}

bool mi_tuned_measures(MiTuned *t)
{
    if (!t->path || t->ended || t->spent > BUDGET_US)
        return false;
    t->from = g_get_monotonic_time();
    return true;
}

void mi_tuned_remember(MiTuned *t, const char *key, const void *data, size_t bytes)
{
    t->spent += t->from ? g_get_monotonic_time() - t->from : 0;
    t->from = 0;
    read_file(t);
    if (!t->path || !is_key(key) || !bytes || bytes > MI_TUNED_BYTES)
        return;
    put(t, key, g_bytes_new(data, bytes));
    t->changed = true;
}

int64_t mi_tuned_end(MiTuned *t)
{
    if (t->changed && !t->foreign)
        write_file(t);
    t->changed = false;
    t->ended = true;
    return t->spent;
}
