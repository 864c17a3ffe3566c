/* fuzz_formats.c - structure-aware mutants of small model files, each opened and read in full.
 *
 *   fuzz_formats [--count N] [--seconds S] [--seed N] [--only I]
 *
 * Fields of a GGUF (counts, lengths, types, dimensions, offsets, texts) and words of the
 * JSON of safetensors directories, quantised ones too, are replaced, doubled, cut.  Run i of a seed is always
 * the same mutant: after a finding `--only i` repeats it, and the files of the last one
 * are still in the folder that the first line names.  A mutant that takes more than a
 * second of CPU time is a finding, too.  Prints TAP. */
#include "formats_common.h"
#include "fuzz.h"
#include "gguf_builder.h"
#include <inttypes.h>
#include <sys/resource.h>
#include <time.h>

static uint64_t number(uint64_t old, uint64_t size)
{
    static const uint64_t odd[] = { 0, 1, 2, 3, 4, 5, 7, 8, 9, 10, 13, 30, 31, 33, 63, 127, 128, 255, 256, 65535, 65536,
                                    0x7fffffff, 0x80000000, 0xffffffff, 0x100000000, 1ull << 61, 1ull << 62,
                                    0x7fffffffffffffff, 1ull << 63, UINT64_MAX - 31, UINT64_MAX - 7, UINT64_MAX };
    switch (below(6)) {
    case 0: return old + 1;
    case 1: return old - 1;
    case 2: return old * 2;
    case 3: return size - below(64);
    case 4: return random_bits();
    default: return odd[below(G_N_ELEMENTS(odd))];
    }
}

/* ---- reading everything ------------------------------------------------------------- */

static char *folder, *gguf_path;

/* Whoever refuses a mutant says why, in one line. */
static void said_why(GError **error)
{
    if (!*error || strchr((*error)->message, '\n')) {
        printf("# %s\n", *error ? (*error)->message : "no reason");
        fflush(stdout);
        abort();
    }
    g_clear_error(error);
}

static void read_weight(const MiFormat *f, void *self, const MiWeight *w, double *sum)
{
    g_autoptr(GError) error = NULL;
    float             x[256];
    int64_t           n = 1;
    volatile char     last;

    for (int d = 0; d < w->ndim; d++)
        n *= w->shape[d];
    if (w->bytes)
        last = ((const char *)w->data)[w->bytes - 1];
    (void)last;
    for (int64_t take = 256; take >= 1; take /= 8) /* whole blocks of some kind */
        if (n >= take && f->decode(self, w, n / take * take - take, take, x, &error))
            *sum += (double)x[0];
        else if (n >= take)
            said_why(&error);
}

static void read_tokens(const MiTokenizerData *t, double *sum)
{
    for (uint32_t i = 0; i < t->n_pieces; i++)
        for (uint32_t c = 0; c < t->pieces[i].len; c++)
            *sum += t->pieces[i].text[c];
    for (uint32_t i = 0; i < t->n_merges && t->merges; i++)
        if (t->merges[i][0] < 0 || t->merges[i][1] < 0 || (uint32_t)t->merges[i][0] >= t->n_pieces ||
            (uint32_t)t->merges[i][1] >= t->n_pieces)
            abort();
    for (uint32_t i = 0; i < t->n_stop; i++)
        if (t->stop[i] < 0 || (uint32_t)t->stop[i] >= t->n_pieces)
            abort();
    if (t->bos >= (int32_t)t->n_pieces || t->eos >= (int32_t)t->n_pieces)
        abort();
    *sum += t->chat_template ? (double)strlen(t->chat_template) : 0;
}

/* True: the mutant was a file after all. */
static bool exercise(const MiFormat *f, const char *path, const MiFormat *other, bool write)
{
    g_autoptr(GError) error = NULL;
    void             *self = f->open(path, NULL, &error);
    MiTokenizerData   t;
    const char       *key, *value;
    MiWeight          w, again;
    double            sum = f->probe(path);

    if (!self) {
        said_why(&error);
        return false;
    }
    for (size_t i = 0; i < f->count(self); i++) {
        f->at(self, i, &w);
        if (!f->find(self, w.name, &again) || again.data != w.data)
            abort();
        read_weight(f, self, &w, &sum);
    }
    for (size_t i = 0; f->meta_at(self, i, &key, &value); i++)
        sum += (double)(strlen(key) + strlen(value)) + (f->meta(self, key) != NULL);
    for (int i = 0; i < 2; i++)
        if (f->tokenizer(self, &t, &error))
            read_tokens(&t, &sum);
        else
            said_why(&error);
    if (write) {
        const MiSource    from = { f, self };
        const MiWriteSpec spec = { .dtype = "keep" };
        g_autofree char  *out = g_build_filename(folder, "out", NULL);
        for (int i = 0; i < 2; i++) {
            if (!(i ? other : f)->write(out, &from, &spec, &error))
                said_why(&error);
            if (g_file_test(out, G_FILE_TEST_IS_DIR))
                remove_folder(out);
            g_remove(out);
        }
    }
    f->close(self);
    return sum == sum;
}

/* ---- GGUF ----------------------------------------------------------------------------- */

static void mutate_gguf(GByteArray *b, const GArray *marks)
{
    const Mark m = g_array_index(marks, Mark, below(marks->len)), other = g_array_index(marks, Mark, below(marks->len));
    uint64_t   x = 0;

    if (m.at + m.width > b->len || other.at + other.width > b->len)
        return;
    memcpy(&x, b->data + m.at, MIN(m.width, 8));
    switch (below(m.kind == MARK_TEXT ? 8 : 12)) {
    case 0: g_byte_array_set_size(b, (guint)below(b->len) + 1); break;
    case 1: memmove(b->data + m.at, b->data + other.at, MIN(m.width, other.width)); break;
    case 2: b->data[m.at + below(m.width)] ^= (guint8)(1u << below(8)); break;
    case 3: b->data[below(b->len)] = (guint8)random_bits(); break;
    case 4: /* some bytes less */
        g_byte_array_remove_range(b, (guint)m.at, (guint)MIN(m.width, 1 + below(8)));
        break;
    case 5: { /* a field twice */
        g_autofree guint8 *copy = g_memdup2(b->data + m.at, b->len - m.at);
        const guint        n = b->len - (guint)m.at;
        g_byte_array_append(b, copy, (guint)MIN(m.width, 64));
        memmove(b->data + m.at + MIN(m.width, 64), copy, n);
        break;
    }
    default:
        x = number(x, b->len);
        memcpy(b->data + m.at, &x, MIN(m.width, 8));
    }
}

static bool run_gguf(const MiFormat *f, const MiFormat *other)
{
    static Builder base[SMALL_N];
    const size_t   which = below(SMALL_N);

    if (!base[0].bytes)
        for (int i = 0; i < SMALL_N; i++)
            base[i] = small_gguf((Small)i);
    g_autoptr(GByteArray) b = g_byte_array_new();
    g_byte_array_append(b, base[which].bytes->data, base[which].bytes->len);
    for (size_t n = 1 + below(3); n; n--)
        mutate_gguf(b, base[which].marks);
    put(folder, "x.gguf", b->data, b->len);
    return exercise(f, gguf_path, other, below(16) == 0);
}

/* ---- JSON ------------------------------------------------------------------------------- */

/* Where the word at i ends: a string, a number, a bracket. */
static size_t word_end(const GString *s, size_t i)
{
    size_t e = i + 1;

    if (s->str[i] == '"')
        while (e < s->len && s->str[e] != '"')
            e++;
    else if (g_ascii_isalnum(s->str[i]) || s->str[i] == '-')
        while (e < s->len && (g_ascii_isalnum(s->str[e]) || strchr("+-.", s->str[e])))
            e++;
    return MIN(s->str[i] == '"' ? e + 1 : e, s->len);
}

static void mutate_json(GString *s, uint64_t size)
{
    static const char *const words[] = {"null",
                                        "true",
                                        "{}",
                                        "[]",
                                        "\"\"",
                                        "\"F32\"",
                                        "\"F8_E4M3\"",
                                        "\"BOOL\"",
                                        "\"a\"",
                                        "-1",
                                        "0",
                                        "1e3",
                                        "1.5",
                                        "1e309",
                                        "18446744073709551616",
                                        "9223372036854775807",
                                        "\"\\u0000\"",
                                        "\"\\ud800\"",
                                        "[1,2,3,4,5]",
                                        "[[[[[[[[[[1]]]]]]]]]]",
                                        "\"../x.safetensors\"",
                                        "\xff",
                                        ","};
    if (s->len < 2)
        return;
    const size_t     i = below(s->len), e = word_end(s, i), j = below(s->len), k = word_end(s, j);
    g_autofree char *copy = g_strndup(s->str + j, k - j), *n = NULL;

    switch (below(8)) {
    case 0: g_string_truncate(s, i); break;
    case 1: g_string_erase(s, (gssize)i, (gssize)(e - i)); break;
    case 2: g_string_insert(s, (gssize)i, copy); break;
    case 3: s->str[i] = (char)random_bits(); break;
    case 4: g_string_erase(s, (gssize)i, (gssize)(e - i)), g_string_insert(s, (gssize)i, copy); break;
    case 5:
        n = g_strdup_printf("%" PRIu64, number(g_ascii_strtoull(s->str + i, NULL, 10), size));
        g_string_erase(s, (gssize)i, (gssize)(e - i)), g_string_insert(s, (gssize)i, n);
        break;
    default:
        g_string_erase(s, (gssize)i, (gssize)(e - i)), g_string_insert(s, (gssize)i, words[below(G_N_ELEMENTS(words))]);
    }
}

static void put_json(const char *name, const char *text, bool mutate)
{
    g_autoptr(GString) s = g_string_new(text);

    for (size_t n = mutate ? 1 + below(3) : 0; n; n--)
        mutate_json(s, s->len);
    put(folder, name, s->str, s->len);
}

static bool run_safetensors(const MiFormat *f, const MiFormat *other)
{
    static const char header[] =
        "{\"__metadata__\":{\"format\":\"pt\"},\"lm_head.weight\":{\"dtype\":\"F16\",\"shape\":[4,8],\"data_offsets\":["
        "0,64]},"
        "\"model.embed_tokens.weight\":{\"dtype\":\"BF16\",\"shape\":[4,8],\"data_offsets\":[64,128]},"
        "\"model.layers.0.self_attn.q_proj.weight\":{\"dtype\":\"F32\",\"shape\":[8,8],\"data_offsets\":[128,384]},"
        "\"model.layers.0.self_attn.rotary_emb.inv_freq\":{\"dtype\":\"I64\",\"shape\":[],\"data_offsets\":[384,392]}} "
        "  ";
    static const char config[] =
        "{\"architectures\":[\"LlamaForCausalLM\"],\"hidden_size\":8,\"num_hidden_layers\":1,\"num_attention_heads\":2,"
        "\"rms_norm_eps\":1e-05,\"rope_parameters\":{\"rope_theta\":10000.0,\"rope_type\":\"llama3\",\"factor\":8.0},"
        "\"eos_token_id\":[1,2],\"vocab_size\":4,\"tie_word_embeddings\":false}";
    static const char index[] =
        "{\"metadata\":{\"total_size\":392},\"weight_map\":{\"lm_head.weight\":\"1.safetensors\","
        "\"model.embed_tokens.weight\":\"1.safetensors\"}}";
    static const char tokens[] =
        "{\"added_tokens\":[{\"id\":3,\"content\":\"<e>\",\"special\":true}],\"pre_tokenizer\":{\"type\":\"ByteLevel\","
        "\"add_prefix_space\":false},\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"ab\":2},\"merges\":[\"a "
        "b\"]}}";
    const size_t         which = below(8);
    const bool           sharded = which == 5 || which == 6;
    g_autoptr(GString)   s = g_string_new(header);
    g_autoptr(GByteArray) b = g_byte_array_new();
    g_autofree char      *whole = g_build_filename(folder, "model.safetensors", NULL);
    g_autofree char      *shards = g_build_filename(folder, "model.safetensors.index.json", NULL);

    for (size_t n = which < 4 ? 1 + below(3) : 0; n; n--)
        mutate_json(s, 392);
    uint64_t len = s->len;
    if (below(10) == 0)
        len = number(len, s->len + 400);
    g_byte_array_append(b, (const guint8 *)&len, 8);
    g_byte_array_append(b, (const guint8 *)s->str, (guint)s->len);
    for (int i = 0; i < 392; i++)
        g_byte_array_append(b, (const guint8 *)"\1", 1);
    if (below(10) == 0)
        g_byte_array_set_size(b, (guint)below(b->len) + 1);
    g_remove(whole);
    g_remove(shards);
    put(folder, sharded ? "1.safetensors" : "model.safetensors", b->data, b->len);
    if (sharded)
        put_json("model.safetensors.index.json", index, which == 5);
    put_json("config.json", config, which == 4 || which == 6);
    put_json("generation_config.json", "{\"eos_token_id\":[3,1]}", which == 7);
    put_json("tokenizer.json", tokens, which == 7 && below(2));
    return exercise(f, folder, other, below(16) == 0);
}

/* What is quantised already: one matrix of 16 columns and 8 rows in one of the layouts. */
static bool run_quantised(const MiFormat *f, const MiFormat *other)
{
#define TENSOR(name, dtype, shape, from, to) \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":[" #from "," #to "]}"
    static const struct { const char *config, *header; } base[] = {
        { "{\"quant_method\":\"gptq\",\"bits\":4,\"group_size\":8,\"checkpoint_format\":\"gptq\",\"desc_act\":true}",
          "{" TENSOR("x.qweight", "I32", "[2,8]", 0, 64) "," TENSOR("x.qzeros", "I32", "[2,1]", 64, 72) ","
          TENSOR("x.scales", "F16", "[2,8]", 72, 104) "," TENSOR("x.g_idx", "I32", "[16]", 104, 168) "}" },
        { "{\"quant_method\":\"awq\",\"bits\":4,\"group_size\":8,\"version\":\"gemm\"}",
          "{" TENSOR("x.qweight", "I32", "[16,1]", 0, 64) "," TENSOR("x.qzeros", "I32", "[2,1]", 64, 72) ","
          TENSOR("x.scales", "F16", "[2,8]", 72, 104) "}" },
        { "{\"quant_method\":\"compressed-tensors\",\"config_groups\":{\"group_0\":{\"weights\":{\"num_bits\":4,\"group_size\":8}}}}",
          "{" TENSOR("x.weight_packed", "I32", "[8,2]", 0, 64) "," TENSOR("x.weight_zero_point", "I32", "[1,2]", 64, 72) ","
          TENSOR("x.weight_scale", "BF16", "[8,2]", 72, 104) "," TENSOR("x.weight_g_idx", "I32", "[16]", 104, 168) ","
          TENSOR("x.weight_shape", "I64", "[2]", 168, 184) "}" },
        { "{\"quant_method\":\"compressed-tensors\"}",
          "{" TENSOR("x.weight", "I8", "[8,8]", 0, 64) "," TENSOR("x.weight_zero_point", "I8", "[8,1]", 64, 72) ","
          TENSOR("x.weight_scale", "F32", "[8,1]", 72, 104) "}" },
        { "{\"quant_method\":\"fp8\",\"weight_block_size\":[4,4]}",
          "{" TENSOR("x.weight", "F8_E4M3", "[8,8]", 0, 64) "," TENSOR("x.weight_scale_inv", "F32", "[2,2]", 64, 80) "}" },
    };
    const size_t          which = below(G_N_ELEMENTS(base));
    g_autoptr(GString)    s = g_string_new(base[which].header);
    g_autofree char      *config = g_strdup_printf("{\"architectures\":[\"LlamaForCausalLM\"],\"hidden_size\":16,"
                                                   "\"num_hidden_layers\":1,\"num_attention_heads\":2,\"quantization_config\":%s}",
                                                   base[which].config);
    g_autoptr(GByteArray) b = g_byte_array_new();
    g_autofree char      *shards = g_build_filename(folder, "model.safetensors.index.json", NULL);
    const bool            in_config = below(3) == 0;
    guint8                data[184];

    for (size_t n = in_config ? 0 : below(3); n; n--)
        mutate_json(s, 200);
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (guint8)(below(4) ? below(2) : random_bits());
    for (guint i = 0; which % 2 == 0 && i < 16; i++) /* an order, mostly right */
        data[104 + 4 * i] = (guint8)(i / 8), data[105 + 4 * i] = data[106 + 4 * i] = data[107 + 4 * i] = 0;
    memcpy(data + 168, (const int64_t[]){ 8, 16 }, 16);
    if (below(4) == 0)
        data[below(sizeof data)] = (guint8)random_bits();
    const uint64_t len = s->len;
    const char    *end = s->len > 2 ? strrchr(s->str, ',') : NULL;
    const size_t   bytes = end ? g_ascii_strtoull(end + 1, NULL, 10) : 0;
    g_byte_array_append(b, (const guint8 *)&len, 8);
    g_byte_array_append(b, (const guint8 *)s->str, (guint)s->len);
    g_byte_array_append(b, data, (guint)MIN(bytes, sizeof data));
    g_remove(shards);
    put(folder, "model.safetensors", b->data, b->len);
    put_json("config.json", config, in_config);
    put_json("generation_config.json", "{}", false);
    return exercise(f, folder, other, below(16) == 0);
#undef TENSOR
}

/* ---- runs ------------------------------------------------------------------------------- */

static double cpu_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* The mutants of a format, or `only` one. */
static bool fuzz(const char *name, FuzzPlan plan, gint64 only, const MiFormat *f, const MiFormat *other,
                 bool (*run)(const MiFormat *, const MiFormat *), int test)
{
    double slowest = 0;
    gint64 good = 0, n = 0;

    plan.began = g_get_monotonic_time();
    for (gint64 i = MAX(only, 0); slowest <= 1 && (only < 0 ? fuzz_goes_on(&plan, i) : i == only); i++, n++) {
        random_state = ((uint64_t)plan.seed + 1) * 0x9e3779b97f4a7c15u ^ ((uint64_t)i + 1) * 0xd1342543de82ef95u;
        const double before = cpu_seconds();
        good += run(f, other);
        slowest = MAX(slowest, cpu_seconds() - before);
        if (slowest > 1)
            printf("# %s: mutant %" G_GINT64_FORMAT " took %.1f s\n", name, i, slowest);
    }
    printf("%s %d - %s: %" G_GINT64_FORMAT " mutants of seed %" G_GINT64_FORMAT ", %" G_GINT64_FORMAT
           " still files, slowest %.0f ms\n", slowest > 1 ? "not ok" : "ok", test, name, n, plan.seed, good, slowest * 1e3);
    return slowest <= 1;
}

int main(int argc, char **argv)
{
    gint64             only = -1;
    const GOptionEntry more[] = { { "only", 0, 0, G_OPTION_ARG_INT64, &only, "this mutant alone", "I" }, { 0 } };
    FuzzPlan           plan = fuzz_plan(argc, argv, 2000, more);

    plan.seconds /= 3; /* a third for each */
    if (!g_getenv("TMPDIR") && g_file_test("/dev/shm", G_FILE_TEST_IS_DIR))
        g_setenv("TMPDIR", "/dev/shm", FALSE); /* written files are synced, which a disk takes its time for */
    folder = new_folder();
    gguf_path = g_build_filename(folder, "x.gguf", NULL);
    printf("1..3\n# the mutants are made in %s\n", folder);
    fflush(stdout);
    const MiFormat *gguf = format_of("gguf"), *st = format_of("safetensors");
    const bool      a = fuzz("gguf", plan, only, gguf, st, run_gguf, 1),
               b = fuzz("safetensors", plan, only, st, gguf, run_safetensors, 2),
               c = fuzz("quantised", plan, only, st, gguf, run_quantised, 3);
    struct rusage use;
    getrusage(RUSAGE_SELF, &use);
    printf("# peak memory %ld KiB\n", use.ru_maxrss);
    remove_folder(folder);
    g_free(folder);
    g_free(gguf_path);
    return !(a && b && c);
}
