/* lines_cuda.h - lines of patterns that several fusions for cards have.  Where each of them stands, a plugin's own
 * enumeration says, under these names. */
#ifndef PLUGINS_FUSIONS_LINES_CUDA_H
#define PLUGINS_FUSIONS_LINES_CUDA_H

/* From attention's output to the end of a layer. */
#define MLP_LINES \
    [O] = {"linear", {0}}, [O_ADD] = {"add", {0, 1 + O}}, [NORM] = {"rmsnorm", {1 + O_ADD}}, \
    [GATE] = {"linear", {1 + NORM}}, [UP] = {"linear", {1 + NORM}}, [SILU] = {"silu", {1 + GATE}}, \
    [MUL] = {"mul", {1 + SILU, 1 + UP}}, [DOWN] = {"linear", {1 + MUL}}, [DOWN_ADD] = {"add", {1 + O_ADD, 1 + DOWN}}

/* What attention reads, of the line `norm`. */
#define QKV_LINES(norm) [Q] = {"linear", {1 + norm}}, [K] = {"linear", {1 + norm}}, [V] = {"linear", {1 + norm}}
#define ROPE_LINES [ROPE_Q] = {"rope", {1 + Q}}, [ROPE_K] = {"rope", {1 + K}}, [APPEND] = {"kv_append", {1 + ROPE_K, 1 + V}}
/* The same where each head of q and k is normed, as in Qwen3. */
#define NORMED_ROPE_LINES \
    [NORM_Q] = {"rmsnorm", {1 + Q}}, [NORM_K] = {"rmsnorm", {1 + K}}, [NORMED_ROPE_Q] = {"rope", {1 + NORM_Q}}, \
    [NORMED_ROPE_K] = {"rope", {1 + NORM_K}}, [NORMED_APPEND] = {"kv_append", {1 + NORMED_ROPE_K, 1 + V}}

#endif
