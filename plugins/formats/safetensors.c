/* safetensors.c - a Hugging Face model: a directory with config.json and model.safetensors
 * or model.safetensors.index.json and its shards, or one .safetensors file with config.json
 * beside it.
 *
 * Weights stay mapped.  f32, f16, bf16 and what hf_quant.c reads are decoded; other dtypes are
 * listed, and refused by name where one is used.  Rotation is half-split, as transformers computes it. */
#include "hf_config.h"
#include "hf_quant.h"
#include "names.h"
#include "st_file.h"
#include "st_write.h"
#include "tokenizer_json.h"
#include <miniinfer/plugin.h>
#include <string.h>

enum { MAX_SHARDS = 1024, MAX_INDEX = 1 << 25, MAX_STOP = 64 };

typedef struct {
    char            *directory;
    MiMapped        *maps; /* [n_maps] */
    size_t           n_maps;
    MiWeights        weights;
    MiMeta           meta;
    MiQuants         quants;
    MiTokenizerJson *tokens; /* NULL: not asked for yet */
    int32_t          stop[MAX_STOP];
    uint32_t         n_stop;
    MiSource         source;
} Directory;

static const MiFormat safetensors;

static bool fail(const char *path, GError **error, const char *form, ...) G_GNUC_PRINTF(3, 4);
static bool fail(const char *path, GError **error, const char *form, ...)
{
    va_list args;
    va_start(args, form);
    g_autofree char *text = g_strdup_vprintf(form, args);
    va_end(args);
    g_set_error(error, MI_ERROR, MI_ERROR_MODEL, "%s: %s", path, text);
    return false;
}

static bool exists(const char *directory, const char *name)
{
    g_autofree char *path = g_build_filename(directory, name, NULL);
    return g_file_test(path, G_FILE_TEST_EXISTS);
}

static bool is_missing(const GError *e) { return g_error_matches(e, MI_ERROR, MI_ERROR_NOT_FOUND); }

/* ---- weights ------------------------------------------------------------------ */

static bool read_file(Directory *d, const char *name, GError **error)
{
    g_autofree char *path = mi_model_file(d->directory, name, error);
    MiMapped        *maps = path ? g_try_renew(MiMapped, d->maps, d->n_maps + 1) : NULL;

    if (!path)
        return false;
    if (!maps) {
        g_set_error(error, MI_ERROR, MI_ERROR_NO_MEMORY, "%s: no memory for its tables", path);
        return false;
    }
    d->maps = maps;
    maps[d->n_maps] = (MiMapped){ NULL, 0 };
    return mi_st_read(path, &d->source, &maps[d->n_maps++], &d->weights, error);
}

/* Of one directory: what leads out of it or anywhere below is refused. */
static bool shard_name(const char *name)
{
    return g_str_has_suffix(name, ".safetensors") && !strchr(name, '/') && name[0] != '.';
}

/* The files that the index names, each once. */
static bool read_shards(Directory *d, const char *index, const json_t *map, GError **error)
{
    g_autoptr(GHashTable) seen = g_hash_table_new(g_str_hash, g_str_equal);
    char                  shown[64];

    for (void *i = json_object_iter((json_t *)(uintptr_t)map); i;
         i = json_object_iter_next((json_t *)(uintptr_t)map, i)) {
        const char *shard = json_string_value(json_object_iter_value(i));
        if (!shard || !shard_name(shard))
            return fail(index, error, "'%s' is no name of a .safetensors file of the same directory",
                        shard ? mi_shown(shard, strlen(shard), shown) : "weight_map's value");
        if (!g_hash_table_add(seen, (char *)(uintptr_t)shard))
            continue;
        if (g_hash_table_size(seen) > MAX_SHARDS)
            return fail(index, error, "more than %d files", MAX_SHARDS);
        if (!read_file(d, shard, error))
            return false;
    }
    return mi_weights_sort(&d->weights, index, error);
}

static bool read_index(Directory *d, const char *name, GError **error)
{
    g_autofree char *path = g_build_filename(d->directory, name, NULL);
    json_t          *root = mi_json_file(d->directory, name, MAX_INDEX, error);
    const json_t    *map = root ? json_object_get(root, "weight_map") : NULL;
    char             shown[64];
    bool             ok = root != NULL;

    if (ok && (!json_is_object(map) || json_object_size(map) > MI_ST_MAX_TENSORS))
        ok = fail(path, error, "'weight_map' is no object of at most %d names", MI_ST_MAX_TENSORS);
    ok = ok && read_shards(d, path, map, error);
    if (ok)
        for (void *i = json_object_iter((json_t *)(uintptr_t)map); ok && i;
             i = json_object_iter_next((json_t *)(uintptr_t)map, i)) {
            const char *weight = json_object_iter_key(i);
            if (!mi_weights_find(&d->weights, weight))
                ok = fail(path, error, "tensor '%s' is in none of the files", mi_shown(weight, strlen(weight), shown));
        }
    json_decref(root);
    return ok;
}

static bool read_weights(Directory *d, const char *file, GError **error)
{
    static const char whole[] = "model.safetensors", index[] = "model.safetensors.index.json";

    if (!file && !exists(d->directory, whole)) {
        if (exists(d->directory, index))
            return read_index(d, index, error);
        g_set_error(error, MI_ERROR, MI_ERROR_NOT_FOUND, "%s: holds neither %s nor %s%s", d->directory, whole, index,
                    exists(d->directory, "pytorch_model.bin") ? "; pytorch_model.bin cannot be read" : "");
        return false;
    }
    return read_file(d, file ? file : whole, error) && mi_weights_sort(&d->weights, d->directory, error);
}

/* ---- tokenizer ------------------------------------------------------------------ */

static bool add_stop(Directory *d, int64_t id, const char *from, uint32_t n_pieces, GError **error)
{
    if (id < 0 || id >= n_pieces)
        return fail(d->directory, error, "%s is %" G_GINT64_FORMAT "; there are %u tokens", from, id, n_pieces);
    for (uint32_t i = 0; i < d->n_stop; i++)
        if (d->stop[i] == id)
            return true;
    if (d->n_stop == MAX_STOP)
        return fail(d->directory, error, "more than %d end tokens", MAX_STOP);
    d->stop[d->n_stop++] = (int32_t)id;
    return true;
}

/* The tokenizer's eos and eos_token_id of both files, one id or several. */
static bool read_stops(Directory *d, const MiTokenizerData *t, GError **error)
{
    static const char *const keys[] = { "generation_config.eos_token_id", "eos_token_id" };

    for (uint32_t i = 0; i < t->n_stop; i++) /* one at most, which is a piece */
        d->stop[d->n_stop++] = t->stop[i];
    for (size_t i = 0; i < G_N_ELEMENTS(keys); i++) {
        const char *text = mi_meta_find(&d->meta, keys[i]);
        if (text && !add_stop(d, g_ascii_strtoll(text, NULL, 10), keys[i], t->n_pieces, error))
            return false;
        for (int k = 0;; k++) {
            g_autofree char *key = g_strdup_printf("%s.%d", keys[i], k);
            text = mi_meta_find(&d->meta, key);
            if (!text)
                break;
            if (!add_stop(d, g_ascii_strtoll(text, NULL, 10), key, t->n_pieces, error))
                return false;
        }
    }
    return true;
}

/* Links of the cache are followed, others not: asked before the reader opens the files itself. */
static bool check_links(const Directory *d, GError **error)
{
    static const char *const names[] = { "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
                                         "chat_template.jinja" };

    for (size_t i = 0; i < G_N_ELEMENTS(names); i++) {
        g_autoptr(GError) bad = NULL;
        g_autofree char  *path = mi_model_file(d->directory, names[i], &bad);
        if (!path && !is_missing(bad)) {
            g_propagate_error(error, g_steal_pointer(&bad));
            return false;
        }
    }
    return true;
}

/* ---- MiFormat ------------------------------------------------------------------- */

static int probe(const char *path)
{
    if (g_file_test(path, G_FILE_TEST_IS_DIR))
        return exists(path, "model.safetensors") || exists(path, "model.safetensors.index.json") ? 100
               : exists(path, "config.json")                                                     ? 50
                                                                                                 : 0;
    return g_str_has_suffix(path, ".safetensors") ? 90 : 0;
}

static void close_directory(void *self)
{
    Directory *d = self;

    mi_tokenizer_json_free(d->tokens);
    mi_meta_free(&d->meta);
    mi_weights_free(&d->weights);
    mi_quants_free(&d->quants);
    for (size_t i = 0; i < d->n_maps; i++)
        mi_unmap(&d->maps[i]);
    g_free(d->maps);
    g_free(d->directory);
    g_free(d);
}

/* It need not be there; what cannot be read may be. */
static bool read_if_there(Directory *d, const char *name, const char *prefix, GError **error)
{
    g_autoptr(GError) bad = NULL;

    if (mi_config_read(&d->meta, d->directory, name, prefix, &bad) || is_missing(bad))
        return true;
    g_propagate_error(error, g_steal_pointer(&bad));
    return false;
}

static void *open_directory(const char *path, const void *options, GError **error)
{
    const bool       whole = g_file_test(path, G_FILE_TEST_IS_DIR);
    g_autofree char *file = whole ? NULL : g_path_get_basename(path);
    Directory       *d = g_new0(Directory, 1);

    (void)options;
    d->directory = whole ? g_strdup(path) : g_path_get_dirname(path);
    d->source = (MiSource){ &safetensors, d };
    if (read_weights(d, file, error) && mi_config_read(&d->meta, d->directory, "config.json", "", error) &&
        read_if_there(d, "generation_config.json", "generation_config", error) &&
        read_if_there(d, "quantize_config.json", "quantization_config", error) && /* of older GPTQ */
        mi_config_aliases(&d->meta, d->directory, error) &&
        mi_quants_read(&d->quants, &d->weights, &d->meta, d->directory, error))
        return d;
    close_directory(d);
    return NULL;
}

static bool find(void *self, const char *name, MiWeight *out)
{
    const Directory *d = self;
    const MiWeight  *w = mi_weights_find(&d->weights, name);

    if (w)
        *out = *w;
    return w != NULL;
}

static size_t n_weights(void *self) { return ((Directory *)self)->weights.n; }
static void   at(void *self, size_t i, MiWeight *out) { *out = ((Directory *)self)->weights.at[i]; }
static const char *meta(void *self, const char *key) { return mi_meta_find(&((Directory *)self)->meta, key); }

static MiRopeStyle rope_style(void *self)
{
    (void)self;
    return MI_ROPE_HALF;
}

static bool tokenizer(void *self, MiTokenizerData *out, GError **error)
{
    Directory *d = self;

    if (!d->tokens) {
        d->tokens = check_links(d, error) ? mi_tokenizer_json_open(d->directory, error) : NULL;
        if (!d->tokens)
            return false;
    }
    *out = mi_tokenizer_json_data(d->tokens);
    if (!d->n_stop && !read_stops(d, out, error)) {
        d->n_stop = 0;
        return false;
    }
    out->stop = d->stop;
    out->n_stop = d->n_stop;
    return true;
}

static bool decode(void *self, const MiWeight *w, int64_t first, int64_t n, float *out, GError **error)
{
    (void)self;
    return mi_weights_decode(w, first, n, out, error);
}

static void drop(void *self, const MiWeight *w)
{
    const Directory *d = self;

    for (size_t i = 0; i < d->n_maps; i++)
        mi_map_drop(&d->maps[i], w->data, w->bytes);
}

static bool meta_at(void *self, size_t i, const char **key, const char **value)
{
    const MiMeta *m = &((Directory *)self)->meta;

    if (i >= m->n)
        return false;
    *key = m->at[i].key;
    *value = m->at[i].value;
    return true;
}

static const MiFormat safetensors = {
    .struct_size = sizeof safetensors, .probe = probe, .open = open_directory, .close = close_directory, .find = find,
    .count = n_weights, .at = at, .meta = meta, .rope_style = rope_style, .tokenizer = tokenizer, .decode = decode,
    .drop = drop,
    .meta_at = meta_at, .write = mi_st_write,
};

MI_PLUGIN("safetensors", "0.1", "Hugging Face model directories",
          MI_FEATURE_FORMAT("safetensors", "*", &safetensors, NULL));
