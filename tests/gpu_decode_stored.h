/* gpu_decode_stored.h - gpu_decode.c's weights as the kernels read them: plain, of 4 and 8 bit, E4M3, GGUF's blocks. */
#ifndef TESTS_GPU_DECODE_STORED_H
#define TESTS_GPU_DECODE_STORED_H

#include "gpu_decode_data.h"
#include "scaled.h"

#include <cuda/quant_stored.h>

/* How the weights of a case are stored; bits 0: as they are. */
static MiQuantForm form;

static const float *scales_of[3]; /* of what was stored last as E4M3, by which matrix of a kernel's it is */

/* Random blocks of that kind instead of what is to be stored; NULL: not so. */
static const MiStoredBlocks *blocks;

static void *random_blocks(int64_t n)
{
    const size_t bytes = (size_t)n * blocks->bytes;
    uint8_t     *b = malloc(bytes);

    for (size_t i = 0; i < bytes; i++)
        b[i] = (uint8_t)(128 * uniform() + 128);
    for (int64_t i = 0; i < n; i++) { /* its one or two f16: 2^-6 to 2^-5 */
        uint8_t *halves = b + i * blocks->bytes + (strcmp(blocks->name, "q6_k") == 0 ? 208 : 0);
        halves[1] = 0x24 | (halves[1] & 0x83);
        if (blocks->form.minima)
            halves[3] = 0x24 | (halves[3] & 0x83);
    }
    void *there = upload(b, bytes);
    free(b);
    return there;
}

/* Any codes but those that are no numbers. */
static void *stored_e4m3(const Array *w, int first, int rows, int in, int part)
{
    const int per = form.group ? form.group : 1, across = form.group ? (in + form.group - 1) / form.group : 1;
    const int n_scales = (rows + per - 1) / per * across;
    uint8_t  *codes = malloc((size_t)rows * in);
    float    *scales = malloc((size_t)n_scales * sizeof *scales);

    for (int i = 0; i < n_scales; i++)
        scales[i] = 0.001f * (1.5f + uniform());
    for (int r = 0; r < rows; r++)
        for (int i = 0; i < in; i++) {
            const int code = (int)(128 * (1 + uniform())) & 0xff, at = r / per * across + (form.group ? i / per : 0);
            codes[(size_t)r * in + i] = (uint8_t)((code & 0x7f) == 0x7f ? 0x38 : code);
            w->host[(size_t)(first + r) * in + i] = (float)scaled_code(MI_F8, codes[(size_t)r * in + i]) * scales[at];
        }
    void *d = upload(codes, (size_t)rows * in);
    scales_of[part] = upload(scales, (size_t)n_scales * sizeof *scales);
    free(codes), free(scales);
    return d;
}

static MiGemvPlan with_scales(const MiGemvPlan *p)
{
    MiGemvPlan q = *p;
    memcpy(q.scales, scales_of, sizeof q.scales);
    return q;
}

/* Rows of w, a kernel's matrix `part`, as it reads them; the host's become what they stand for. */
static void *stored(const Array *w, int first, int rows, int in, int part)
{
    char        *plain = (char *)w->device + (size_t)first * in * 2;
    const size_t bytes = (size_t)rows * in * 4;

    if (!form.bits)
        return plain;
    if (form.bits == MI_QUANT_E4M3)
        return stored_e4m3(w, first, rows, in, part);
    void *packed = upload(NULL, (size_t)mi_quant_bytes(form, rows, in)), *back = upload(NULL, bytes);
    if (blocks)
        must(mi_cuda_pack_blocks(NULL, blocks, random_blocks((int64_t)rows * in / blocks->values), rows, in, packed), "packing");
    else
        must(mi_cuda_quantise(NULL, form, plain, MI_BF16, rows, in, packed), "quantising");
    must(mi_cuda_dequantise(NULL, form, packed, 0, rows, in, back, MI_F32), "dequantising");
    download(w->host + (size_t)first * in, back, bytes);
    return packed;
}

#endif
