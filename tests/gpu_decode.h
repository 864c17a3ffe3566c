/* gpu_decode.h - what gpu_decode.c needs on the card besides the kernels it tests. */
#ifndef TESTS_GPU_DECODE_H
#define TESTS_GPU_DECODE_H

#include <cuda/gemv.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct {
    const char *name;
    int         hidden, layers, heads, kv_heads, dim, mlp, vocab;
} Shape;
typedef struct Model Model;

/* Random weights; aborts when the card refuses something. */
Model *model_new(const Shape *, int context, int rows);
void   model_free(Model *);
/* "gated.teams=4 down.flight=2": changes to the layouts that plan() chose; false: not possible. */
bool model_lay_out(Model *, const char *changes);
/* A step from token to token, captured; steps times.  tokens: [steps][rows]; logits: [rows][vocab] of the last. */
void   model_generate(Model *, int steps, int32_t *tokens, float *logits);
double model_step_ms(Model *, int batches, int reps); /* median of the batches */
double model_kernel_us(Model *, int kind);            /* kind: of kernel_names */
double model_bytes(const Model *, int kind);          /* read by one kernel; kind N_KERNELS: by a step */
double read_bandwidth(void);                          /* bytes a second */

enum { QKV, ATTENTION, O, GATED, DOWN, HEAD, PICK, N_KERNELS };
extern const char *const kernel_names[N_KERNELS];

#ifdef __cplusplus
}
#endif
#endif
