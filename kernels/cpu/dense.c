/* dense.c - dense.h in plain C, and the choice of an instruction set. */
#include <cpu/blocks.h>
#include <cpu/dense.h>
#include <string.h>

/* Four registers of four floats: what every 64-bit machine has. */
typedef float Four __attribute__((vector_size(16)));
typedef struct { Four a, b, c, d; } Lanes;
enum { TILE_OUT = 1, TILE_ROWS = 2 };

static inline Lanes lanes_zero(void) { return (Lanes){ { 0 }, { 0 }, { 0 }, { 0 } }; }
static inline Lanes lanes_fma(Lanes a, Lanes b, Lanes sum)
{
    return (Lanes){ sum.a + a.a * b.a, sum.b + a.b * b.b, sum.c + a.c * b.c, sum.d + a.d * b.d };
}
static inline Lanes lanes_f32(const void *p)
{
    Lanes v;
    memcpy(&v, p, sizeof v);
    return v;
}
static inline Lanes lanes_of(const void *p, float (*convert)(uint16_t))
{
    uint16_t half[16];
    float    v[16];

    memcpy(half, p, sizeof half);
    for (int i = 0; i < 16; i++)
        v[i] = convert(half[i]);
    return lanes_f32(v);
}
static inline Lanes lanes_f16(const void *p) { return lanes_of(p, mi_f16_to_f32); }
static inline Lanes lanes_bf16(const void *p) { return lanes_of(p, mi_bf16_to_f32); }
static inline float lanes_sum(Lanes v)
{
    const Four f = (v.a + v.c) + (v.b + v.d);
    return (f[0] + f[2]) + (f[1] + f[3]);
}

#include <cpu/dense_lanes.h>

static bool usable(void) { return true; }

const MiDenseIsa mi_dense_scalar = { "scalar", usable, { run_f32, run_f16, run_bf16 } };

static const MiDenseIsa *const isas[] = {
#ifdef MI_X86_64
    &mi_dense_avx512, &mi_dense_avx2,
#endif
    &mi_dense_scalar,
};

const MiDenseIsa *mi_dense_isa(const char *isa)
{
    for (size_t i = 0; i < sizeof isas / sizeof *isas; i++)
        if ((strcmp(isa, "auto") == 0 || strcmp(isa, isas[i]->name) == 0) && isas[i]->usable())
            return isas[i];
    return NULL;
}
