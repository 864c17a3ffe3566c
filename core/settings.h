/* settings.h - the sections of a configuration that belong to the core, as
 * structs that option tables fill (settings.c). */
#ifndef MI_CORE_SETTINGS_H
#define MI_CORE_SETTINGS_H

#include "config.h"

/* [model] */
typedef struct {
    const char *path;          /* a directory, a file, or a name in the Hugging Face cache */
    const char *format;        /* "auto", or the name of a format */
    const char *load;          /* "auto", or "dummy": random weights of the file's shapes */
    const char *tokenizer;     /* "auto", or the name of a tokenizer */
    const char *chat_template; /* a file that replaces the model's; "": the model's */
} MiModelSettings;

/* [engine] */
typedef struct {
    const char *device;    /* "auto", "cpu", "cuda", "cuda:1" */
    const char *dtype;     /* "auto", "fp32" (the reference), "bf16", "fp16" */
    const char *kv_dtype;  /* "auto", "fp32", "bf16", "fp16", "fp8", "int8" */
    const char *attention; /* "auto" or a name; so are the next three */
    const char *cache, *linear, *scheduler;
    const char *head;      /* "auto": as the linear has it; "same": the linear; or the name of one */
    int32_t     max_seqs;     /* sequences at once */
    int32_t     max_len;      /* positions of one sequence; 0: the model's, at most 4096 */
    bool        rehearse;     /* at the start, what may come */
    bool        graphs;       /* record steps and replay them, where the device can */
    int32_t     max_tokens;   /* rows of one step; 0: from prefill_step and max_seqs */
    int32_t     prefill_step; /* rows of a step that prompts may take */
    const char *deterministic; /* "off", or "batch": the same bits in every batch */
    const char *tuned;        /* where measured choices are kept: "auto", "off", a file */
} MiEngineSettings;

/* [generate]: what a request asks for when it does not say. */
typedef struct {
    int32_t     max_tokens; /* 0: until the model ends or its length does */
    int32_t     min_tokens, n;
    bool        ignore_eos;
    const char *stop;   /* one stop string, with \n \t \\ escapes; "": none */
    const char *system; /* the system message of a chat; "": the template's own */
} MiGenerateSettings;

typedef struct {
    MiModelSettings    model;
    MiEngineSettings   engine;
    MiGenerateSettings generate;
    const char        *chain;        /* [sampler] chain = penalties, temperature, ... */
    const char        *plugin_path;  /* [plugins] path */
    const char        *disable;      /* [plugins] disable = a, b */
} MiSettings;

/* Fills *out from the sections; strings live as long as the configuration. */
bool mi_settings_read(const MiConfig *, MiSettings *out, GError **error);

/* The tables, for the reference and `inspect`: section names in order, NULL-terminated. */
const char *const *mi_settings_sections(void);
const MiOption    *mi_settings_table(const char *section); /* NULL: not the core's */

#endif
