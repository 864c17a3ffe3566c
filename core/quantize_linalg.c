/* quantize_linalg.c - what GPTQ needs of linear algebra: one product, blocked for registers, and a factor of an inverse. */
#include "quantize.h"

#include <math.h>
#include <string.h>

enum { ROWS = 4, WIDE = 64 /* floats of a tile */, DEEP = 128 /* t at a time: a tile of x is 32 KB */, FACTOR = 64 };

/* ---- threads ---------------------------------------------------------------------- */

typedef struct {
    void (*fn)(void *, int, int);
    void *user;
    int   i, n;
} Share;

static gpointer share(gpointer data)
{
    const Share *s = data;
    s->fn(s->user, s->i, s->n);
    return NULL;
}

void mi_on_processors(void (*fn)(void *user, int i, int n), void *user)
{
    const int            n = (int)MAX(g_get_num_processors(), 1);
    g_autofree Share    *shares = g_new(Share, n);
    g_autofree GThread **threads = g_new0(GThread *, n);

    for (int i = 0; i < n; i++) {
        shares[i] = (Share){ fn, user, i, n };
        threads[i] = i ? g_thread_try_new("quantize", share, &shares[i], NULL) : NULL;
    }
    for (int i = 0; i < n; i++)
        if (threads[i])
            g_thread_join(threads[i]);
        else
            share(&shares[i]);
}

/* ---- the product -------------------------------------------------------------------- */

typedef float Wide __attribute__((vector_size(4 * 16), aligned(4), may_alias));

/* c[ROWS][WIDE] += sign * a' x for nt rows; a: [nt][lda], x: [nt][WIDE].  Unrolled, or the sums would not stay in registers:
 * twice as fast. */
MI_ON_ANY_MACHINE
static void tile(float *c, int64_t ldc, const float *a, int64_t lda, const float *x, int64_t nt, float sign)
{
    Wide sum[ROWS][WIDE / 16] = { 0 };

    for (int64_t t = 0; t < nt; t++) {
        const Wide *xt = (const Wide *)(x + t * WIDE);
#pragma GCC unroll 4
        for (int r = 0; r < ROWS; r++) {
#pragma GCC unroll 4
            for (int k = 0; k < WIDE / 16; k++)
                sum[r][k] += a[t * lda + r] * xt[k];
        }
    }
#pragma GCC unroll 4
    for (int r = 0; r < ROWS; r++) {
#pragma GCC unroll 4
        for (int k = 0; k < WIDE / 16; k++)
            *(Wide *)(c + r * ldc + 16 * k) += sign * sum[r][k];
    }
}

/* The same where less than a tile is there. */
static void corner(const MiProduct *p, int64_t i, int64_t j, int64_t t0, int64_t nt, const float *x)
{
    for (int64_t r = i; r < MIN(i + ROWS, p->ni); r++)
        for (int64_t k = j; k < MIN(j + WIDE, p->nj); k++) {
            float sum = 0;
            for (int64_t t = 0; t < nt; t++)
                sum += p->a[(t0 + t) * p->lda + r] * x[t * WIDE + k - j];
            p->c[r * p->ldc + k] += p->sign * sum;
        }
}

/* Tiles of columns, one after the other; a thread takes each n-th. */
static void product_share(void *user, int part, int n_parts)
{
    const MiProduct  *p = user;
    g_autofree float *x = g_new(float, DEEP * WIDE);

    for (int64_t j = part * WIDE; j < p->nj; j += n_parts * WIDE) {
        const int64_t nj = MIN(WIDE, p->nj - j), ni = p->upper ? MIN(p->ni, j + nj) : p->ni;
        for (int64_t t = 0; t < p->nt; t += DEEP) {
            const int64_t nt = MIN(DEEP, p->nt - t);
            for (int64_t k = 0; k < nt; k++)
                memcpy(x + k * WIDE, p->x + (t + k) * p->ldx + j, (size_t)nj * sizeof *x);
            for (int64_t i = 0; i < ni; i += ROWS)
                if (nj == WIDE && i + ROWS <= p->ni)
                    tile(p->c + i * p->ldc + j, p->ldc, p->a + t * p->lda + i, p->lda, x, nt, p->sign);
                else
                    corner(p, i, j, t, nt, x);
        }
    }
}

void mi_product(const MiProduct *p) { mi_on_processors(product_share, (void *)(uintptr_t)p); }

double mi_quadratic(const float *h, const float *d, int64_t n, int64_t rows)
{
    g_autofree float *y = g_try_new0(float, (gsize)(rows * n)); /* [rows][n] */
    double            sum = 0;

    if (!y)
        return -1;
    mi_product(&(MiProduct){ .c = y, .ldc = n, .a = d, .lda = rows, .x = h, .ldx = n, .nt = n, .ni = rows, .nj = n, .sign = 1 });
    for (int64_t i = 0; i < n; i++)
        for (int64_t r = 0; r < rows; r++)
            sum += (double)y[r * n + i] * (double)d[i * rows + r];
    return sum;
}

/* ---- the factor ------------------------------------------------------------------------ */

/* h = r' r, r upper, in h's upper triangle: rows by blocks of FACTOR, those behind a block made up for at once. */
static bool cholesky(float *h, int64_t n)
{
    for (int64_t b = 0; b < n; b += FACTOR) {
        const int64_t end = MIN(b + FACTOR, n);
        for (int64_t k = b; k < end; k++) {
            float *row = h + k * n;
            for (int64_t m = b; m < k; m++) {
                const float  f = h[m * n + k];
                const float *above = h + m * n;
                for (int64_t j = k; j < n; j++)
                    row[j] -= f * above[j];
            }
            if (!(row[k] > 0) || !isfinite(row[k]))
                return false;
            const float d = sqrtf(row[k]);
            for (int64_t j = k; j < n; j++)
                row[j] /= d;
        }
        mi_product(&(MiProduct){ .c = h + end * n + end, .ldc = n, .a = h + b * n + end, .lda = n, .x = h + b * n + end, .ldx = n,
                                 .nt = end - b, .ni = n - end, .nj = n - end, .sign = -1, .upper = true });
    }
    return true;
}

/* v = (r')^-1, lower: row i is (e_i - sum over m < i of r[m][i] v[m]) / r[i][i]. */
static void invert(const float *r, float *v, int64_t n)
{
    memset(v, 0, (size_t)(n * n) * sizeof *v);
    for (int64_t b = 0; b < n; b += FACTOR) {
        const int64_t end = MIN(b + FACTOR, n);
        mi_product(&(MiProduct){ .c = v + b * n, .ldc = n, .a = r + b, .lda = n, .x = v, .ldx = n, .nt = b, .ni = end - b, .nj = b,
                                 .sign = -1 });
        for (int64_t i = b; i < end; i++) {
            float *row = v + i * n;
            row[i] += 1;
            for (int64_t m = b; m < i; m++) {
                const float  f = r[m * n + i];
                const float *above = v + m * n;
                for (int64_t j = 0; j <= m; j++)
                    row[j] -= f * above[j];
            }
            for (int64_t j = 0; j <= i; j++)
                row[j] /= r[i * n + i];
        }
    }
}

static void turn(float *h, int64_t n) /* rows and columns from the last on, the upper triangle stays one */
{
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = i; j < n; j++) {
            const int64_t a = n - 1 - j, b = n - 1 - i; /* h[a][b] in the turned one is h[i][j] */
            if (i * n + j < a * n + b) {
                const float x = h[i * n + j];
                h[i * n + j] = h[a * n + b];
                h[a * n + b] = x;
            }
        }
}

/* With h turned = r' r: h = s s' with s = r' turned, upper, so that h^-1 = (s^-1)' s^-1; s^-1 is (r')^-1 turned. */
bool mi_inverse_factor(float *h, int64_t n)
{
    g_autofree float *v = g_try_new(float, (gsize)n * (gsize)n);

    turn(h, n);
    if (!v || !cholesky(h, n))
        return false;
    invert(h, v, n);
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = i; j < n; j++)
            h[i * n + j] = v[(n - 1 - i) * n + n - 1 - j];
    return true;
}
