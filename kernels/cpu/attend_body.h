/* attend_body.h - one tile of attention: rows that share keys, times at most
 * MI_TILE_KEYS keys.
 *
 * Keys are turned so that a vector holds one element of LANES keys; then scores
 * and results are the same small matrix product, which runs in registers.  A
 * masked key has the probability 0 and leaves sums as they are, bit by bit: what a
 * row gets does not depend on the rows beside it. */

#if LANES == 16
enum { BLOCK_ROWS = 6, BLOCK_VECS = 4 }; /* 24 of 32 registers */
#else
enum { BLOCK_ROWS = 6, BLOCK_VECS = 2 }; /* 12 of 16 */
#endif

/* Up to so many rows scores and results are made without a copy of keys and values.
 * AVX-512, f16, heads of 64, cycles of a tile with and without the copy: 3 rows 4000
 * and 3200, 7 rows 6400 and 4700, 8 rows 6500 and 5800; with keys that lie in memory
 * 3 rows 10000 and 5300. */
enum { FEW_ROWS = 8 };

/* c = keep c + a b, or a b where keep is NULL; a: [rows][depth], b: [depth][vecs * LANES]. */
INLINE void block(const int rows, const int vecs, const float *a, int64_t lda, const float *b, int64_t ldb, float *c,
                  int64_t ldc, int depth, const float *keep)
{
    V acc[BLOCK_ROWS][BLOCK_VECS];

    UNROLL(6) for (int r = 0; r < rows; r++)
        UNROLL(4) for (int v = 0; v < vecs; v++)
            acc[r][v] = keep ? load(c + r * ldc + v * LANES) * keep[r] : all(0);
    for (int k = 0; k < depth; k++) {
        V column[BLOCK_VECS];
        UNROLL(4) for (int v = 0; v < vecs; v++)
            column[v] = load(b + k * ldb + v * LANES);
        UNROLL(6) for (int r = 0; r < rows; r++) {
            const V x = all(a[r * lda + k]);
            UNROLL(4) for (int v = 0; v < vecs; v++)
                acc[r][v] += x * column[v];
        }
    }
    UNROLL(6) for (int r = 0; r < rows; r++)
        UNROLL(4) for (int v = 0; v < vecs; v++)
            store(c + r * ldc + v * LANES, acc[r][v]);
}

#define BLOCKS(vecs)                                                                                              \
    static void blocks_##vecs(int rows, const float *a, int64_t lda, const float *b, int64_t ldb, float *c,       \
                              int64_t ldc, int depth, const float *keep)                                          \
    {                                                                                                             \
        while (rows > 0) {                                                                                        \
            const int n = rows >= 2 * BLOCK_ROWS ? BLOCK_ROWS : rows > BLOCK_ROWS ? (rows + 1) / 2 : rows;        \
            switch (n) {                                                                                          \
            case 6: block(6, vecs, a, lda, b, ldb, c, ldc, depth, keep); break;                                   \
            case 5: block(5, vecs, a, lda, b, ldb, c, ldc, depth, keep); break;                                   \
            case 4: block(4, vecs, a, lda, b, ldb, c, ldc, depth, keep); break;                                   \
            case 3: block(3, vecs, a, lda, b, ldb, c, ldc, depth, keep); break;                                   \
            case 2: block(2, vecs, a, lda, b, ldb, c, ldc, depth, keep); break;                                   \
            default: block(1, vecs, a, lda, b, ldb, c, ldc, depth, keep); break;                                  \
            }                                                                                                     \
            a += n * lda, c += n * ldc, rows -= n;                                                                \
            if (keep)                                                                                             \
                keep += n;                                                                                        \
        }                                                                                                         \
    }
BLOCKS(1)
BLOCKS(2)
#if LANES == 16
BLOCKS(4)
#endif

/* All columns, a multiple of LANES: a panel of b at a time, for all rows. */
static void product(int rows, int columns, const float *a, int64_t lda, const float *b, int64_t ldb, float *c,
                    int64_t ldc, int depth, const float *keep)
{
    int done = 0;
#if LANES == 16
    for (; columns - done >= 4 * LANES; done += 4 * LANES)
        blocks_4(rows, a, lda, b + done, ldb, c + done, ldc, depth, keep);
#endif
    for (; columns - done >= 2 * LANES; done += 2 * LANES)
        blocks_2(rows, a, lda, b + done, ldb, c + done, ldc, depth, keep);
    if (done < columns)
        blocks_1(rows, a, lda, b + done, ldb, c + done, ldc, depth, keep);
}

/* ---- keys and values out of the cache ------------------------------------------- */

INLINE V load_as(const MiDType dtype, const void *p, int64_t at)
{
    if (dtype == MI_F32)
        return load((const float *)p + at);
    if (dtype == MI_F8 || dtype == MI_I8) { /* without their scale */
        typedef uint8_t Bytes __attribute__((vector_size(LANES)));
        typedef int8_t  Ints __attribute__((vector_size(LANES)));
        Bytes           raw;
        memcpy(&raw, (const uint8_t *)p + at, sizeof raw);
        if (dtype == MI_I8)
            return __builtin_convertvector((Ints)raw, V);
        const VU u = __builtin_convertvector(raw, VU), size = u & 0x7f;
        const V  x = bits((u & 0x80) << 24 | size << 20) * 0x1p120f;
        return choose(size == 0x7f, all(NAN), x);
    }
    const uint16_t *h = (const uint16_t *)p + at;
#ifdef HAVE_F16C
#if LANES == 16
    const __m256i raw = _mm256_loadu_si256((const void *)h);
    return dtype == MI_F16 ? (V)_mm512_cvtph_ps(raw) : (V)_mm512_slli_epi32(_mm512_cvtepu16_epi32(raw), 16);
#else
    const __m128i raw = _mm_loadu_si128((const void *)h);
    return dtype == MI_F16 ? (V)_mm256_cvtph_ps(raw) : (V)_mm256_slli_epi32(_mm256_cvtepu16_epi32(raw), 16);
#endif
#else
    float x[LANES];
    for (int i = 0; i < LANES; i++)
        x[i] = dtype == MI_F16 ? mi_f16_to_f32(h[i]) : mi_bf16_to_f32(h[i]);
    return load(x);
#endif
}

/* n < LANES elements, zeros behind them. */
INLINE V load_rest(const MiDType dtype, const void *p, int64_t at, int n)
{
    char buffer[LANES * 4] = { 0 };
    memcpy(buffer, (const char *)p + (size_t)at * mi_dtype_size(dtype), (size_t)n * mi_dtype_size(dtype));
    return load_as(dtype, buffer, 0);
}

INLINE V load_part(const MiDType dtype, const void *p, int64_t at, int n)
{
    return n >= LANES ? load_as(dtype, p, at) : load_rest(dtype, p, at, n);
}

#define EACH_LANE16(f, s) f(s, 0), f(s, 1), f(s, 2), f(s, 3), f(s, 4), f(s, 5), f(s, 6), f(s, 7), \
                          f(s, 8), f(s, 9), f(s, 10), f(s, 11), f(s, 12), f(s, 13), f(s, 14), f(s, 15)
#define EACH_LANE8(f, s) f(s, 0), f(s, 1), f(s, 2), f(s, 3), f(s, 4), f(s, 5), f(s, 6), f(s, 7)
#define EACH_LANE4(f, s) f(s, 0), f(s, 1), f(s, 2), f(s, 3)
#define EACH_LANE_(n, f, s) EACH_LANE##n(f, s)
#define EACH_LANE(n, f, s) EACH_LANE_(n, f, s)
#define UPPER(s, l) ((l) & (s) ? LANES + (l) - (s) : (l))
#define LOWER(s, l) ((l) & (s) ? LANES + (l) : (l) + (s))
/* Rows i and i + s exchange their off-diagonal squares of s. */
#define EXCHANGE(s)                                                            \
    UNROLL(16) for (int i = 0; i < LANES; i++) if (!(i & (s)))                 \
    {                                                                          \
        const V a = x[i], b = x[i + (s)];                                      \
        x[i] = SHUFFLE(a, b, EACH_LANE(LANES, UPPER, s));                      \
        x[i + (s)] = SHUFFLE(a, b, EACH_LANE(LANES, LOWER, s));                \
    }

/* x[i] = LANES elements of key i, to x[i] = element i of LANES keys. */
INLINE void turn(V *x)
{
    EXCHANGE(1)
    EXCHANGE(2)
#if LANES >= 8
    EXCHANGE(4)
#endif
#if LANES == 16
    EXCHANGE(8)
#endif
}

/* Of the key, side 0, or value at an offset. */
INLINE V scale_at(const MiDType dtype, const MiKvView *kv, int side, int64_t at)
{
    return dtype == MI_F8 || dtype == MI_I8 ? all(mi_scale_value(((const uint16_t *)kv->scales)[at / kv->head_dim * 2 + side]))
                                            : all(1);
}

/* keys[d][j] = element d of key j; keys from n on are zero. */
INLINE void load_keys(const MiDType dtype, const MiTile *t, const int64_t *at, int n)
{
    for (int j = 0; j < MI_TILE_KEYS && j < n; j += LANES) {
        V scale = all(1); /* of LANES keys */
        if (mi_dtype_scaled(dtype))
            for (int i = 0; i < LANES; i++)
                scale[i] = scale_at(dtype, t->kv, 0, at[j + i < n ? j + i : n - 1])[0];
        for (int d = 0; d < t->wide; d += LANES) {
            V x[LANES];
            UNROLL(16) for (int i = 0; i < LANES; i++)
                x[i] = j + i < n && d < t->dim ? load_part(dtype, t->kv->k, at[j + i] + d, t->dim - d) : all(0);
            turn(x);
            UNROLL(16) for (int i = 0; i < LANES; i++)
                store(t->keys + (d + i) * MI_TILE_KEYS + j, mi_dtype_scaled(dtype) ? x[i] * scale : x[i]);
        }
    }
}

INLINE void load_values(const MiDType dtype, const MiTile *t, const int64_t *at, int n)
{
    for (int j = 0; j < n; j++) {
        const V scale = scale_at(dtype, t->kv, 1, at[j]);
        for (int d = 0; d < t->wide; d += LANES) {
            const V x = d < t->dim ? load_part(dtype, t->kv->v, at[j] + d, t->dim - d) : all(0);
            store(t->values + (int64_t)j * t->wide + d, mi_dtype_scaled(dtype) ? x * scale : x);
        }
    }
}

#define LOAD(name, dtype)                                                \
    static void load_##name(const MiTile *t, const int64_t *at, int n)   \
    {                                                                    \
        load_keys(dtype, t, at, n);                                      \
        load_values(dtype, t, at, n);                                    \
    }
LOAD(f32, MI_F32)
LOAD(f16, MI_F16)
LOAD(bf16, MI_BF16)
LOAD(f8, MI_F8)
LOAD(i8, MI_I8)

/* ---- few rows ----------------------------------------------------------------------
 *
 * As few as decode together are worth no copy of keys and values: squares of them go through
 * registers and meet all rows, in the very order of additions that product() has. */

/* c = keep c + a x for rows of one vector, or a x alone; a: [rows][n], x: [n]. */
INLINE void square_rows(const int rows, const int n, const V *x, const float *a, int64_t lda, float *c, int64_t ldc,
                        const float *keep, bool fresh)
{
    V sum[4];

    UNROLL(4) for (int r = 0; r < rows; r++)
        sum[r] = fresh ? all(0) : keep ? load(c + r * ldc) * keep[r] : load(c + r * ldc);
    UNROLL(16) for (int i = 0; i < n; i++)
        UNROLL(4) for (int r = 0; r < rows; r++)
            sum[r] += x[i] * a[r * lda + i];
    UNROLL(4) for (int r = 0; r < rows; r++)
        store(c + r * ldc, sum[r]);
}

/* Four at a time: one row's additions wait for each other, and what waits fills the scheduler. */
INLINE void square(int rows, const int n, const V *x, const float *a, int64_t lda, float *c, int64_t ldc,
                   const float *keep, bool fresh)
{
    for (; rows >= 4; rows -= 4, a += 4 * lda, c += 4 * ldc, keep += keep ? 4 : 0)
        square_rows(4, n, x, a, lda, c, ldc, keep, fresh);
    if (rows == 3)
        square_rows(3, n, x, a, lda, c, ldc, keep, fresh);
    else if (rows == 2)
        square_rows(2, n, x, a, lda, c, ldc, keep, fresh);
    else if (rows == 1)
        square_rows(1, n, x, a, lda, c, ldc, keep, fresh);
}

/* Keys or values that are soon read: the hardware does not see what is behind a page, a block or a head. */
INLINE void prefetch(const MiTile *t, const void *p, const int64_t *at, int n)
{
    const int size = (int)mi_dtype_size(t->kv->dtype), bytes = t->dim * size;

    for (int j = 0; j < n; j++)
        for (int i = 0; i < bytes; i += 64)
            __builtin_prefetch((const char *)p + at[j] * size + i);
}

INLINE void few_scores(const MiDType dtype, const MiTile *t, const int64_t *at, int n)
{
    for (int j = 0; j < n; j += LANES) {
        prefetch(t, t->kv->v, at + j, LANES);
        for (int d = 0; d < t->wide; d += LANES) {
            V x[LANES];
            UNROLL(16) for (int i = 0; i < LANES; i++)
                x[i] = load_as(dtype, t->kv->k, at[j + i] + d);
            turn(x);
            square(t->n_rows, LANES, x, t->q + d, t->wide, t->scores + j, MI_TILE_KEYS, NULL, d == 0);
        }
    }
}

/* Of keys j .. j + n. */
INLINE void few_values(const MiDType dtype, const MiTile *t, const int64_t *at, int j, const int n)
{
    for (int d = 0; d < t->wide; d += LANES) {
        V x[LANES];
        UNROLL(16) for (int i = 0; i < n; i++)
            x[i] = load_as(dtype, t->kv->v, at[j + i] + d);
        square(t->n_rows, n, x, t->scores + j, MI_TILE_KEYS, t->out + d, t->wide, j ? NULL : t->keep, false);
    }
}

INLINE void few_outs(const MiDType dtype, const MiTile *t, const int64_t *at, int n)
{
    int j = 0;

    for (; j + LANES <= n; j += LANES)
        few_values(dtype, t, at, j, LANES);
    for (; j < n; j++)
        few_values(dtype, t, at, j, 1);
}

#define FEW(name, dtype)                                                                                  \
    static void scores_##name(const MiTile *t, const int64_t *at, int n) { few_scores(dtype, t, at, n); } \
    static void outs_##name(const MiTile *t, const int64_t *at, int n) { few_outs(dtype, t, at, n); }
FEW(f32, MI_F32)
FEW(f16, MI_F16)
FEW(bf16, MI_BF16)

/* ---- softmax ---------------------------------------------------------------------- */

/* Scores of a row to probabilities; low <= i < high are the keys it sees. */
static void softmax_row(const MiTile *t, int row, int low, int high)
{
    enum { N = MI_TILE_KEYS / LANES };
    float   *s = t->scores + row * MI_TILE_KEYS;
    VI       lane;
    V        x[N], top = all(-INFINITY), sum = all(0);

    if (low >= MI_TILE_KEYS || high <= 0 || low >= high) {
        memset(s, 0, MI_TILE_KEYS * sizeof *s);
        t->keep[row] = 1;
        return;
    }
    for (int i = 0; i < LANES; i++)
        lane[i] = i;
    UNROLL(16) for (int i = 0; i < N; i++) {
        x[i] = load(s + i * LANES);
        if (t->softcap > 0)
            x[i] = t->softcap * tanh_of(x[i] / t->softcap);
        if (low > 0 || high < MI_TILE_KEYS)
            x[i] = choose((lane + i * LANES >= low) & (lane + i * LANES < high), x[i], all(-INFINITY));
        top = maximum(top, x[i]);
    }
    const float before = t->max[row], highest = max_of(top), now = highest > before ? highest : before;
    UNROLL(16) for (int i = 0; i < N; i++) {
        x[i] = exp_of(x[i] - now);
        sum += x[i];
        store(s + i * LANES, x[i]);
    }
    t->keep[row] = now == before ? 1 : exp_of(all(before - now))[0];
    t->sum[row] = t->sum[row] * t->keep[row] + sum_of(sum);
    t->max[row] = now;
}

/* Where n positions from t0 on lie.  Within a block they are a stride apart: the layouts are asked once
 * for each block, which is two divisions. */
static void places(const MiTile *t, int t0, int n, int64_t *at)
{
    const int size = t->kv->block_size;

    for (int j = 0, run; j < n; j += run) {
        const int     first = t->start + t0 + j, left = size - first % size;
        const int64_t from = mi_kv_offset(t->kv, t->seq, first, t->head);
        run = left < n - j ? left : n - j;
        for (int i = 0; i < run; i++)
            at[j + i] = from + i * t->kv->stride_token;
    }
}

static void attend(const MiTile *t, int t0, int t1)
{
    const int     n = t1 - t0, left = t->kv->kv_len[t->seq] - t->start - t1;
    const int     n_next = left < 0 ? 0 : left < MI_TILE_KEYS ? left : MI_TILE_KEYS;
    const MiDType dtype = t->kv->dtype;
    const bool    few = t->n_rows <= FEW_ROWS && t->dim == t->wide && !mi_dtype_scaled(dtype);
    int64_t       at[MI_TILE_KEYS], next[MI_TILE_KEYS];

    places(t, t0, n, at);
    for (int j = n; j % LANES; j++) /* scores that no row sees */
        at[j] = at[n - 1];
    places(t, t1, n_next, next);
    if (t0 == 0)
        prefetch(t, t->kv->k, at, n);
    if (few) {
        (dtype == MI_F32 ? scores_f32 : dtype == MI_F16 ? scores_f16 : scores_bf16)(t, at, n);
    } else {
        (dtype == MI_F32 ? load_f32 : dtype == MI_F16 ? load_f16 : dtype == MI_F8 ? load_f8 : dtype == MI_I8 ? load_i8 : load_bf16)(
            t, at, n);
        product(t->n_rows, (n + LANES - 1) / LANES * LANES, t->q, t->wide, t->keys, MI_TILE_KEYS, t->scores,
                MI_TILE_KEYS, t->dim, NULL);
    }
    for (int r = 0; r < t->n_rows; r++)
        softmax_row(t, r, t->first[r] - t0, (t->end[r] < t1 ? t->end[r] : t1) - t0);
    prefetch(t, t->kv->k, next, n_next);
    if (few)
        (dtype == MI_F32 ? outs_f32 : dtype == MI_F16 ? outs_f16 : outs_bf16)(t, at, n);
    else
        product(t->n_rows, t->wide, t->scores, MI_TILE_KEYS, t->values, t->wide, t->out, t->wide, n, t->keep);
}

static void merge(int n_rows, int wide, float *max, float *sum, float *out, const float *max2, const float *sum2,
                  const float *out2)
{
    for (int r = 0; r < n_rows; r++) {
        if (sum2[r] == 0)
            continue;
        const float top = max[r] > max2[r] ? max[r] : max2[r];
        const float a = exp_of(all(max[r] - top))[0], b = exp_of(all(max2[r] - top))[0];
        max[r] = top;
        sum[r] = sum[r] * a + sum2[r] * b;
        for (int d = 0; d < wide; d += LANES)
            store(out + r * wide + d, load(out + r * wide + d) * a + load(out2 + r * wide + d) * b);
    }
}
