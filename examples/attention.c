/* attention.c - causal grouped-query attention over arrays, by the attention of a name.
 *
 *   cc -o attention attention.c $(pkg-config --cflags --libs miniinfer) -lm
 *   ./attention gqa 0.25 */
#include <math.h>
#include <miniinfer/miniinfer.h>
#include <stdio.h>
#include <stdlib.h>

enum { QUERIES = 5, KEYS = 12, HEADS = 4, KV_HEADS = 2, DIM = 16 };

/* Any numbers will do, if everybody can make them again. */
static void fill(float *x, int n, double step)
{
    for (int i = 0; i < n; i++)
        x[i] = (float)sin(step * (i + 1));
}

int main(int argc, char **argv)
{
    static float   q[QUERIES * HEADS * DIM], k[KEYS * KV_HEADS * DIM], v[KEYS * KV_HEADS * DIM], out[QUERIES * HEADS * DIM];
    MiniinferError error;

    fill(q, QUERIES * HEADS * DIM, 0.7);
    fill(k, KEYS * KV_HEADS * DIM, 0.3);
    fill(v, KEYS * KV_HEADS * DIM, 0.11);

    const MiniinferAttention attention = {
        .struct_size = sizeof attention,
        .q = q, .k = k, .v = v, .out = out, /* [position][head][element], in rows */
        .n_queries = QUERIES,               /* the last of so many positions, as when a prompt comes in parts */
        .n_keys = KEYS,
        .n_heads = HEADS,
        .n_kv_heads = KV_HEADS, /* two heads of q read one of k */
        .head_dim = DIM,
        .causal = true,
        .scale = argc > 2 ? strtof(argv[2], NULL) : 0, /* 0: 1 / sqrt(DIM) */
    };
    Miniinfer *mi = miniinfer_open(NULL, (MiniinferPair[]){ { "engine.device", "cpu" }, { NULL, NULL } }, &error);

    if (!mi || !miniinfer_attention(mi, argc > 1 ? argv[1] : "gqa", &attention, &error)) {
        fprintf(stderr, "attention: %s\n", error.message);
        miniinfer_close(mi);
        return 1;
    }
    for (int i = 0; i < QUERIES * HEADS * DIM; i++)
        printf("%.9g\n", (double)out[i]);
    miniinfer_close(mi);
    return 0;
}
