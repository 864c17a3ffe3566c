/* links.h - what a request may say to each link of the sampling chain: the row of
 * parameters, its table, and whether a row asks for anything.  For every backend. */
#ifndef SAMPLERS_LINKS_H
#define SAMPLERS_LINKS_H

#include <miniinfer/sampler.h>

typedef struct { float repetition_penalty, presence_penalty, frequency_penalty; } PenaltiesRow;
static const MiOption penalties_params[] = {
    MI_OPTION(PenaltiesRow, repetition_penalty, "1", 0.01, 100, "above 1: less of what prompt and answer have"),
    MI_OPTION(PenaltiesRow, presence_penalty, "0", -100, 100, "subtracted from the logits of what the answer has"),
    MI_OPTION(PenaltiesRow, frequency_penalty, "0", -100, 100, "subtracted for every time that the answer has it"),
    MI_OPTION_END,
};
static inline bool penalties_wants(const void *row)
{
    const PenaltiesRow *p = row;
    return p->repetition_penalty != 1 || p->presence_penalty != 0 || p->frequency_penalty != 0;
}

typedef struct { MiBiases logit_bias; } LogitBiasRow;
static const MiOption logit_bias_params[] = {
    MI_OPTION(LogitBiasRow, logit_bias, "", 0, 0, "added to the logits of tokens: \"151: -100, 42: 2.5\""),
    MI_OPTION_END,
};
static inline bool logit_bias_wants(const void *row) { return ((const LogitBiasRow *)row)->logit_bias.n > 0; }

typedef struct { float temperature; } TemperatureRow;
static const MiOption temperature_params[] = {
    MI_OPTION(TemperatureRow, temperature, "0.7", 0, 100, "divides the logits; 0: the likeliest token only"),
    MI_OPTION_END,
};
static inline bool temperature_wants(const void *row) { return ((const TemperatureRow *)row)->temperature != 1; }

typedef struct { int32_t top_k; } TopKRow;
static const MiOption top_k_params[] = {
    MI_OPTION(TopKRow, top_k, "40", 0, INT32_MAX, "keeps so many of the likeliest tokens; 0: all"),
    MI_OPTION_END,
};
static inline bool top_k_wants(const void *row) { return ((const TopKRow *)row)->top_k > 0; }

typedef struct { float top_p; } TopPRow;
static const MiOption top_p_params[] = {
    MI_OPTION(TopPRow, top_p, "0.95", 0, 1, "keeps the likeliest tokens that together have this probability; 1: all"),
    MI_OPTION_END,
};
static inline bool top_p_wants(const void *row) { return ((const TopPRow *)row)->top_p < 1; }

typedef struct { float min_p; } MinPRow;
static const MiOption min_p_params[] = {
    MI_OPTION(MinPRow, min_p, "0.05", 0, 1, "keeps what has this share of the likeliest token's probability; 0: all"),
    MI_OPTION_END,
};
static inline bool min_p_wants(const void *row) { return ((const MinPRow *)row)->min_p > 0; }

typedef struct { float typical_p; } TypicalRow;
static const MiOption typical_params[] = {
    MI_OPTION(TypicalRow, typical_p, "1", 0, 1,
              "keeps the most typical tokens that together have this probability; 1: all"),
    MI_OPTION_END,
};
static inline bool typical_wants(const void *row) { return ((const TypicalRow *)row)->typical_p < 1; }

typedef struct { uint64_t seed; } MultinomialRow;
static const MiOption multinomial_params[] = {
    MI_OPTION(MultinomialRow, seed, "0", 0, 0, "fixes what is drawn; 0: the engine picks one for the request"),
    MI_OPTION_END,
};

#endif
