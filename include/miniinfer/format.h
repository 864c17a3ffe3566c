/* format.h - a weights file, under the names Hugging Face uses.
 *
 *   weights    model.layers.0.self_attn.q_proj.weight
 *   metadata   num_hidden_layers; nested: rope_scaling.factor, architectures.0
 *
 * A plugin translates what its files call them (GGUF: blk.0.attn_q.weight,
 * qwen2.block_count).  The file is input of a stranger: every size in it is
 * checked before it is used. */
#ifndef MINIINFER_FORMAT_H
#define MINIINFER_FORMAT_H

#include <miniinfer/context.h>
#include <miniinfer/quant.h>

typedef struct MiSource MiSource;

typedef struct MiWeight {
    const char     *name;   /* canonical */
    const char     *format; /* how it is stored: "bf16", "q4_k", "gptq"; keys of MiLinear.formats */
    int32_t         ndim;
    int64_t         shape[4]; /* logical: a projection is [out, in], whatever its packing */
    const void     *data;     /* mapped, until close() */
    size_t          bytes;
    const MiSource *source;
    const MiQuant  *quant; /* of "gptq", "awq", "ct_int4", "ct_int8", "fp8", until close(); NULL: none of those */
    bool companion;        /* scales, zeros and the like of such a weight, as they lie in the file: no parameter */
} MiWeight;

/* What was quantised before it was stored has the name and shape of the matrix that it stands
 * for, x.weight [out, in]; data, bytes are its codes as the file has them:
 *
 *   "gptq"     x.qweight; companions x.scales, x.qzeros, x.g_idx: 4 or 8 bits, with or without act order
 *   "awq"      x.qweight; x.scales, x.qzeros: 4 bits, "gemm"
 *   "ct_int4"  x.weight_packed; x.weight_scale, .weight_zero_point, .weight_g_idx, .weight_shape
 *   "ct_int8"  the same, or x.weight of int8
 *   "fp8"      x.weight of e4m3fn; x.weight_scale or x.weight_scale_inv: of the matrix, rows or blocks
 *
 * Readers go by quant, which says it all; find() knows the companions, too. */

/* Which elements of a head turn together, as q and k rows are stored. */
typedef enum {
    MI_ROPE_HALF,        /* i and i + dim/2: "non-traditional", Hugging Face */
    MI_ROPE_INTERLEAVED, /* 2i and 2i + 1: "traditional", the original Llama, GGUF of Llama */
} MiRopeStyle;

typedef enum { MI_PIECE_NORMAL, MI_PIECE_UNKNOWN, MI_PIECE_CONTROL, MI_PIECE_USER, MI_PIECE_BYTE } MiPieceType;

typedef struct {
    const char *text; /* [len], not terminated; bytes, not byte-level letters; of MI_PIECE_BYTE "<0x0A>" */
    uint32_t    len;
    MiPieceType type;
    float       score; /* of a unigram model, or of one that merges by score */
    bool        lstrip, rstrip; /* of a special piece: white space on that side of it goes */
} MiPiece;

typedef struct {
    const char    *kind;          /* the tokenizer feature it wants: "bpe", "spm" (merges by score), "unigram" */
    const char    *pre;           /* how text is split before merging, as GGUF names it ("gpt-2", "llama-bpe",
                                   * "qwen2", "smollm"); "regex": by `split`; "metaspace": before each
                                   * U+2581 ("spm", "unigram"); NULL: not at all */
    const char *const *split;     /* regular expressions, applied one after the other; NULL-terminated, or NULL */
    const char    *chat_template; /* Jinja; NULL: none */
    const MiPiece *pieces;        /* [n_pieces] by id; a gap in the ids has text NULL */
    const int32_t (*merges)[2];   /* [n_merges] ids, best first; NULL: by score */
    uint32_t       n_pieces, n_merges;
    int32_t        bos, eos, pad, unk; /* -1: none */
    const int32_t *stop;          /* [n_stop] ids that end an answer: eos, eot, generation_config's */
    uint32_t       n_stop;
    bool           add_bos, add_eos;
    bool           add_prefix_space; /* a blank before the text, and after each special piece in it */
    bool           prefix_first;     /* add_prefix_space: only before the text */
    bool           prefix_if_none;   /* add_prefix_space: only before what begins with no blank (always so in "bpe") */
    bool           nfc;                /* text is normalised to NFC first */
    bool           byte_fallback;      /* unknown characters become <0xNN> pieces */
    bool           ignore_merges;      /* a whole word that is a piece is taken as it is */
    bool           collapse_spaces;    /* runs of blanks become one, those at the ends go (unigram) */
    bool           escape_spaces;      /* a blank is written U+2581 in pieces (sentencepiece) */
} MiTokenizerData;

/* How a model is to be written. */
typedef struct {
    const char *dtype; /* of matrices: "keep" (as stored, where the format can), "f32", "f16", "bf16" */
    /* Called now and then, may be NULL; false: stop, the file is removed. */
    bool (*progress)(void *user, uint64_t done, uint64_t total);
    void *user;
} MiWriteSpec;

typedef struct {
    size_t struct_size;
    /* LOAD.  0: not mine; of several the highest opens it.  Reads a few bytes at most. */
    int (*probe)(const char *path);
    /* LOAD.  Maps the file or directory and checks its tables; options may be NULL. */
    void *(*open)(const char *path, const void *options, GError **error);
    void (*close)(void *self);
    /* LOAD.  False: there is no such weight.  Fills *out with pointers into self. */
    bool (*find)(void *self, const char *name, MiWeight *out);
    /* LOAD.  For listing: how many, and the i-th. */
    size_t (*count)(void *self);
    void (*at)(void *self, size_t i, MiWeight *out);
    /* LOAD.  The value as text, "28", "0.1", "true"; NULL: the file does not say. */
    const char *(*meta)(void *self, const char *key);
    /* LOAD. */
    MiRopeStyle (*rope_style)(void *self);
    /* LOAD, optional.  Fills *out with pointers into self.  MI_ERROR_NOT_FOUND: the files have
     * none, which is no fault: such a model takes ids and gives ids. */
    bool (*tokenizer)(void *self, MiTokenizerData *out, GError **error);
    /* LOAD, optional.  n elements of w from element `first` on (both whole blocks of its
     * storage) as f32; false: a storage it cannot decode. */
    bool (*decode)(void *self, const MiWeight *w, int64_t first, int64_t n, float *out, GError **error);
    /* LOAD, optional.  For listing: the i-th key and value of the metadata, canonical; false: no more. */
    bool (*meta_at)(void *self, size_t i, const char **key, const char **value);
    /* LOAD, optional.  The write half: `from` (any format) as a file or directory of this one at
     * `path`, which must not exist; nothing is left there after an error. */
    bool (*write)(const char *path, const MiSource *from, const MiWriteSpec *, GError **error);
    /* LOAD, optional.  The payload was read and will hardly be again: its pages need not stay in
     * this process.  Reading it all the same works. */
    void (*drop)(void *self, const MiWeight *w);
} MiFormat;

/* An open file with its methods. */
struct MiSource {
    const MiFormat *vt;
    void           *self;
};

static inline bool mi_source_has(const MiSource *s, const char *name)
{
    MiWeight w;
    return s->vt->find(s->self, name, &w);
}

static inline const char *mi_source_meta(const MiSource *s, const char *key) { return s->vt->meta(s->self, key); }

#endif
