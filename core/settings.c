#include "settings.h"
#include "options.h"

#include <string.h>

#define DTYPES "auto, fp32, bf16, fp16"
#define KV_DTYPES DTYPES ", fp8, int8"

static const MiOption model[] = {
    { "path", MI_STRING, offsetof(MiModelSettings, path), "", 0, 0,
      "a file, a directory, or a name that is looked up in the local Hugging Face cache; nothing is downloaded", NULL },
    { "format", MI_STRING, offsetof(MiModelSettings, format), "auto", 0, 0,
      "how to read it: auto, or the name of a format", NULL },
    MI_CHOICE(MiModelSettings, load, "auto", "auto, dummy",
              "what its weights are; dummy: random ones of the shapes in a config.json, for benchmarks"),
    { "tokenizer", MI_STRING, offsetof(MiModelSettings, tokenizer), "auto", 0, 0,
      "auto: the one the model names; or the name of a tokenizer", NULL },
    { "chat_template", MI_STRING, offsetof(MiModelSettings, chat_template), "", 0, 0,
      "a file with a template that replaces the model's", NULL },
    MI_OPTION_END,
};

static const MiOption engine[] = {
    MI_OPTION(MiEngineSettings, device, "auto", 0, 0, "auto, cpu, cuda or cuda:1"),
    MI_CHOICE(MiEngineSettings, dtype, "auto", DTYPES,
              "of activations; fp32 is the reference: weights are dequantised, plain loops compute"),
    MI_CHOICE(MiEngineSettings, kv_dtype, "auto", KV_DTYPES,
              "of keys and values; fp8 (E4M3) and int8 with a scale for each position and head"),
    MI_OPTION(MiEngineSettings, attention, "auto", 0, 0, "auto: the first that fits the cache; or a name"),
    MI_OPTION(MiEngineSettings, cache, "auto", 0, 0, "auto, or a name: where keys and values live"),
    MI_OPTION(MiEngineSettings, linear, "auto", 0, 0,
              "auto: weights as they are stored; or a name: how they are packed while loading"),
    MI_OPTION(MiEngineSettings, head, "auto", 0, 0,
              "the output layer, apart from linear: same; or a name; auto: what the linear has for it (of int4 int8; of packed as "
              "it is stored; of fp8 too, with the last projection before it; of others the same)"),
    MI_OPTION(MiEngineSettings, scheduler, "auto", 0, 0, "auto, or a name: which sequences a step runs"),
    MI_OPTION(MiEngineSettings, max_seqs, "1", 1, 4096, "sequences at once"),
    MI_OPTION(MiEngineSettings, max_len, "0", 0, 1 << 24,
              "positions of one sequence, prompt and answer; 0: what the model was made for, at most 4096"),
    MI_OPTION(MiEngineSettings, max_tokens, "0", 0, 1 << 20,
              "rows of one step; 0: what prefill_step and max_seqs make"),
    MI_OPTION(MiEngineSettings, prefill_step, "512", 1, 1 << 16, "rows of one step that prompts may take"),
    MI_OPTION(MiEngineSettings, graphs, "true", 0, 0,
              "record the steps that decode and replay them; false: node by node, slower, the same tokens"),
    MI_OPTION(MiEngineSettings, rehearse, "false", 0, 0,
              "record all steps that may come, and load what prompts need, at the start, which takes longer, so that no request "
              "waits for it"),
    MI_CHOICE(MiEngineSettings, deterministic, "off", "off, batch",
              "batch: a request gets the same tokens and log probabilities, to the bit, alone and in any batch, its prompt cut "
              "anywhere, after making room for others, with its beginning found in the cache"),
    MI_OPTION(MiEngineSettings, tuned, "auto", 0, 0,
              "where it is kept what is the fastest on this machine's card, measured at the first start with a model of a shape: "
              "auto, the user's cache folder; a file; or off: not measured"),
    MI_OPTION_END,
};

static const MiOption generate[] = {
    MI_OPTION(MiGenerateSettings, max_tokens, "0", 0, 1 << 24,
              "tokens of an answer; 0: until the model ends it or its length does"),
    MI_OPTION(MiGenerateSettings, min_tokens, "0", 0, 1 << 24, "no end before so many tokens"),
    MI_OPTION(MiGenerateSettings, n, "1", 1, 128, "answers to one prompt"),
    MI_OPTION(MiGenerateSettings, ignore_eos, "false", 0, 0, "go on where the model would end"),
    MI_OPTION(MiGenerateSettings, stop, "", 0, 0,
              "a text that ends the answer and is left out of it; \\n, \\t and \\\\ are read as in C"),
    MI_OPTION(MiGenerateSettings, system, "", 0, 0, "the system message of a chat; empty: the template's own"),
    MI_OPTION_END,
};

static const MiOption sampler[] = {
    { "chain", MI_STRING, offsetof(MiSettings, chain),
      "penalties, logit_bias, temperature, top_k, top_p, min_p, typical, multinomial", 0, 0,
      "the samplers between logits and token, in order; the last one draws: greedy or multinomial", NULL },
    MI_OPTION_END,
};

static const MiOption plugins[] = {
    { "path", MI_STRING, offsetof(MiSettings, plugin_path), "", 0, 0,
      "absolute directories, joined by ':', that are searched after --plugin-path and $MINIINFER_PLUGIN_PATH", NULL },
    { "disable", MI_STRING, offsetof(MiSettings, disable), "", 0, 0,
      "plugin files that are not loaded, joined by commas, without their .so", NULL },
    MI_OPTION_END,
};

/* at: of the struct that the table fills, in MiSettings. */
static const struct { const char *name; const MiOption *table; size_t at; } sections[] = {
    { "model", model, offsetof(MiSettings, model) },
    { "engine", engine, offsetof(MiSettings, engine) },
    { "generate", generate, offsetof(MiSettings, generate) },
    { "sampler", sampler, 0 },
    { "plugins", plugins, 0 },
};

bool mi_settings_read(const MiConfig *c, MiSettings *out, GError **error)
{
    memset(out, 0, sizeof *out);
    for (size_t i = 0; i < G_N_ELEMENTS(sections); i++)
        if (!mi_config_fill(c, sections[i].name, sections[i].table, (char *)out + sections[i].at, error))
            return false;
    return true;
}

const char *const *mi_settings_sections(void)
{
    static const char *const names[] = { "model", "engine", "generate", "sampler", "plugins", NULL };

    return names;
}

const MiOption *mi_settings_table(const char *section)
{
    for (size_t i = 0; i < G_N_ELEMENTS(sections); i++)
        if (strcmp(sections[i].name, section) == 0)
            return sections[i].table;
    return NULL;
}
