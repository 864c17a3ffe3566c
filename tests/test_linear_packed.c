/* test_linear_packed.c - linear:packed on every instruction set of this machine: weights of random codes in all layouts that
 * it takes, against sums in f64 of what mi_quant_decode() says they are.  x is of numbers that no rounding changes. */
#include "linear.h"

#include <cpu/panels.h>
#include <cpu/quants.h>

typedef struct { const char *activations, *isa; } Options; /* of the plugin */

typedef struct {
    const char *name, *format;
    MiCodes     codes_as;
    MiZeros     zeros_as;
    int         bits;
    int64_t     out, in, group;
    bool        middle, ordered; /* zeros are all in the middle; columns in no order */
} Case;

static const Case cases[] = {
    { "gptq, groups of 32", "gptq", MI_CODES_ACROSS, MI_ZEROS_ALONG, 4, 40, 96, 32, false, false },
    { "gptq, symmetric", "gptq", MI_CODES_ACROSS, MI_ZEROS_ALONG, 4, 72, 256, 64, true, false },
    { "gptq, act order", "gptq", MI_CODES_ACROSS, MI_ZEROS_ALONG, 4, 40, 384, 128, false, true },
    { "gptq, symmetric act order", "gptq", MI_CODES_ACROSS, MI_ZEROS_ALONG, 4, 40, 160, 32, true, true },
    { "gptq, groups of 256", "gptq", MI_CODES_ACROSS, MI_ZEROS_ALONG, 4, 40, 512, 256, false, false },
    { "gptq, 8 bits", "gptq", MI_CODES_ACROSS, MI_ZEROS_ALONG, 8, 36, 256, 128, false, true },
    { "awq", "awq", MI_CODES_AWQ, MI_ZEROS_AWQ, 4, 40, 256, 128, false, false },
    { "packed", "ct_int4", MI_CODES_ALONG, MI_ZEROS_NONE, 4, 37, 200, 64, true, false },
    { "packed, zeros", "ct_int4", MI_CODES_ALONG, MI_ZEROS_DOWN, 4, 37, 200, 64, false, false },
    { "packed, rows", "ct_int4", MI_CODES_ALONG, MI_ZEROS_DOWN, 4, 33, 199, 199, false, false },
    { "bytes, rows", "ct_int8", MI_CODES_I8, MI_ZEROS_NONE, 8, 33, 199, 199, true, false },
    { "bytes, rows, zeros", "ct_int8", MI_CODES_I8, MI_ZEROS_I8, 8, 33, 199, 199, false, false },
};

typedef struct {
    MiQuant  q;
    MiWeight w;
    float   *values; /* [out][in] */
} Made;

static void *random_bytes(size_t n, uint64_t *seed)
{
    uint8_t *p = g_malloc(n);
    for (size_t i = 0; i < n; i++)
        p[i] = (uint8_t)test_random(seed);
    return p;
}

static int32_t *shuffled_groups(const Case *c, uint64_t *seed)
{
    int32_t *of = g_new(int32_t, c->in);

    for (int64_t i = 0; i < c->in; i++)
        of[i] = (int32_t)(i / c->group);
    for (int64_t i = c->in - 1; i > 0; i--) {
        const int64_t k = test_random(seed) % (uint32_t)(i + 1);
        const int32_t x = of[i];
        of[i] = of[k];
        of[k] = x;
    }
    return of;
}

static void decode(Made *m)
{
    g_autofree void *scratch = g_malloc(mi_quant_scratch(&m->q));
    m->values = g_new(float, m->q.out * m->q.in);
    assert_true(mi_quant_decode(&m->q, 0, m->q.out * m->q.in, m->values, scratch));
}

static Made make(const Case *c, uint64_t seed)
{
    const int64_t groups = (c->in + c->group - 1) / c->group, most = (c->out + 8) * (c->in + 8);
    uint16_t     *scales = g_new(uint16_t, c->out * groups);
    Made          m = { .q = { .codes_as = c->codes_as, .bits = c->bits, .out = c->out, .in = c->in, .n_groups = groups,
                               .group_in = c->group, .group_out = 1, .scale_dtype = MI_F16, .zeros_as = c->zeros_as } };

    for (int64_t i = 0; i < c->out * groups; i++)
        scales[i] = mi_f32_to_f16(0.001f + 0.01f * fabsf(test_uniform(&seed)));
    m.q.codes = random_bytes((size_t)most, &seed);
    m.q.scales = scales;
    m.q.scale_row = c->codes_as == MI_CODES_ACROSS || c->codes_as == MI_CODES_AWQ ? 1 : groups;
    m.q.scale_group = m.q.scale_row == 1 && groups > 1 ? c->out : 1;
    if (c->codes_as == MI_CODES_ACROSS || c->codes_as == MI_CODES_AWQ)
        m.q.scale_group = c->out;
    if (c->zeros_as != MI_ZEROS_NONE) {
        uint8_t *zeros = random_bytes((size_t)((c->out + 8) * groups), &seed);
        if (c->middle)
            memset(zeros, c->bits == 4 ? 0x88 : 0x80, (size_t)((c->out + 8) * groups));
        m.q.zeros = zeros;
    } else if (c->codes_as != MI_CODES_I8) {
        m.q.zero = 1 << (c->bits - 1);
    }
    if (c->ordered)
        m.q.group_of = shuffled_groups(c, &seed);
    m.w = (MiWeight){ .name = c->name, .format = c->format, .ndim = 2, .shape = { c->out, c->in }, .data = m.q.codes,
                      .bytes = (size_t)most };
    decode(&m);
    return m;
}

static void free_made(Made *m)
{
    g_free((void *)(uintptr_t)m->q.codes);
    g_free((void *)(uintptr_t)m->q.scales);
    g_free((void *)(uintptr_t)m->q.zeros);
    g_free((void *)(uintptr_t)m->q.group_of);
    g_free(m->values);
}

/* Every number is exact in 8 bits: all are 127 but for the sign. */
static float *make_x(int64_t n, uint64_t seed)
{
    float *x = g_new(float, n);
    for (int64_t i = 0; i < n; i++)
        x[i] = test_random(&seed) & 1 ? 127 : -127;
    return x;
}

/* Sums in f32; and where there are zeros, zero times scale as f16 has it, at most 255 times scale. */
static void compare(const Case *c, const Made *m, const float *x, const float *y, int64_t rows, const float *bias)
{
    for (int64_t r = 0; r < rows; r++)
        for (int64_t o = 0; o < c->out; o++) {
            double sum = bias ? (double)bias[o] : 0, size = 0, zeros = 0;
            for (int64_t g = 0; g < m->q.n_groups; g++) {
                double of_group = 0;
                for (int64_t i = 0; i < c->in; i++) {
                    if ((m->q.group_of ? m->q.group_of[i] : i / c->group) != g)
                        continue;
                    const double p = (double)m->values[o * c->in + i] * (double)x[r * c->in + i];
                    sum += p;
                    size += fabs(p);
                    of_group += (double)x[r * c->in + i];
                }
                zeros += fabs(of_group) * 0.011 * (c->bits == 4 ? 15 : 128) * 0x1p-11;
            }
            const double off = fabs((double)y[r * c->out + o] - sum);
            if (!(off <= 1e-5 * size + (c->middle ? 0 : zeros)))
                fail_msg("%s: [%d][%d] is %g, not %g", c->name, (int)r, (int)o, (double)y[r * c->out + o], sum);
        }
}

static const MiLinear *packed_linear(void)
{
    static MiRegistry *registry;
    g_autoptr(GError)  error = NULL;

    if (!registry)
        registry = load(NULL);
    const MiFeature *f = mi_registry_find(registry, MI_KIND_LINEAR, "packed", "cpu", &error);
    if (!f)
        fail_msg("%s", error->message);
    return f->vtable;
}

/* Two of one input, in orders of their own. */
static void run_one(const Case *c, const char *isa, int n_threads, int64_t rows)
{
    const Options    options = { "auto", isa };
    Device           device;
    MiContext        ctx = test_context(&device, n_threads);
    Made             made[2] = { make(c, 7), make(c, 8) };
    MiWeight         parts[2] = { made[0].w, made[1].w };
    g_autofree float *x = make_x(rows * c->in, 9), *bias = test_floats(c->out, 10);
    float           *y[2] = { g_new(float, rows * c->out), g_new(float, rows * c->out) }, *biases[2] = { bias, NULL };
    Bound            b;

    for (int i = 0; i < 2; i++)
        parts[i].quant = &made[i].q;
    Packed p = test_pack(packed_linear(), &ctx, parts, 2, &options);
    test_bind(&b, &p, x, rows, y, biases);
    test_run(&b, &p);
    test_unbind(&b, &p);
    for (int i = 0; i < 2; i++) {
        compare(c, &made[i], x, y[i], rows, biases[i]);
        g_free(y[i]);
        free_made(&made[i]);
    }
    free(p.memory);
}

static void multiplies_what_is_stored(void **state)
{
    (void)state;
    for (const char *const *isa = mi_panel_isas(); *isa; isa++) {
        if (!mi_panel_kernel("q4_0", *isa, MI_X_BLOCK))
            continue;
        for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
            run_one(&cases[i], *isa, 0, 1);
            run_one(&cases[i], *isa, 3, 70);
        }
    }
}

static void refuses(const Case *c, const char *words, float scale)
{
    g_autoptr(GError) error = NULL;
    const Options     options = { "auto", "auto" };
    Device            device;
    MiContext         ctx = test_context(&device, 0);
    Made              m = make(c, 7);
    size_t            bytes;
    MiOperand         out;

    m.w.quant = &m.q;
    for (int64_t i = 0; i < c->out && scale != 0; i++)
        ((uint16_t *)(uintptr_t)m.q.scales)[i] = mi_f32_to_f16(scale);
    if (c->ordered)
        ((int32_t *)(uintptr_t)m.q.group_of)[0] = m.q.group_of[0] ? 0 : 1;
    bool ok = packed_linear()->bytes(&m.w, 1, MI_F32, &options, &bytes, &error);
    if (ok) {
        void *memory = aligned_alloc(256, (bytes + 255) / 256 * 256);
        ok = packed_linear()->pack(&ctx, &m.w, 1, &options, memory, &out, &error);
        free(memory);
    }
    free_made(&m);
    if (ok || !strstr(error->message, words))
        fail_msg("%s: '%s' lacks '%s'", c->name, ok ? "no error" : error->message, words);
}

static void refuses_what_no_panel_holds(void **state)
{
    static const Case odd[] = {
        { "groups of 16", "gptq", MI_CODES_ACROSS, MI_ZEROS_ALONG, 4, 40, 96, 16, false, false },
        { "8 bits in groups of 64", "gptq", MI_CODES_ACROSS, MI_ZEROS_ALONG, 8, 40, 128, 64, false, false },
        { "uneven", "gptq", MI_CODES_ACROSS, MI_ZEROS_ALONG, 4, 40, 96, 32, false, true },
    };

    (void)state;
    refuses(&odd[0], "groups of 16 columns of 4 bits", 0);
    refuses(&odd[1], "groups of 64 columns of 8 bits", 0);
    refuses(&odd[2], "its groups are not of 32 columns each", 0);
    refuses(&cases[0], "no finite number", INFINITY);
}

TEST_MAIN(cmocka_unit_test(multiplies_what_is_stored), cmocka_unit_test(refuses_what_no_panel_holds));
