/* activation.c - applies an activation to an array: no model, no configuration.
 *
 *   cc -o activation activation.c $(pkg-config --cflags --libs miniinfer)
 *   ./activation leaky_relu negative_slope=0.1 -2 -1 0 1 2 */
#include <miniinfer/miniinfer.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_PARAMS = 4, MAX_NUMBERS = 64 };

static void list(void *user, const char *name)
{
    fprintf(user, " %s", name);
}

int main(int argc, char **argv)
{
    MiniinferPair  params[MAX_PARAMS + 1] = { { NULL, NULL } };
    float          x[MAX_NUMBERS], y[MAX_NUMBERS];
    MiniinferError error;
    int            n_params = 0, n = 0;

    for (int i = 2; i < argc; i++) {
        char *equals = strchr(argv[i], '=');
        if (equals && n_params < MAX_PARAMS) {
            *equals = 0;
            params[n_params++] = (MiniinferPair){ argv[i], equals + 1 };
        } else if (n < MAX_NUMBERS) {
            x[n++] = strtof(argv[i], NULL);
        }
    }
    /* "auto" would take a card where there is one; five numbers are nothing for it. */
    Miniinfer *mi = miniinfer_open(NULL, (MiniinferPair[]){ { "engine.device", "cpu" }, { NULL, NULL } }, &error);
    bool       ok = mi != NULL;

    if (mi && n == 0) {
        fprintf(stderr, "usage: activation NAME [PARAM=VALUE...] NUMBER...\noperations:");
        miniinfer_parts(mi, "op", list, stderr, NULL);
        fprintf(stderr, "\n");
    } else if (mi) {
        ok = miniinfer_activation(mi, argv[1], params, x, y, 1, n, &error);
    }
    for (int i = 0; i < n && ok; i++)
        printf("%.9g\n", (double)y[i]);
    if (!ok)
        fprintf(stderr, "activation: %s\n", error.message);
    miniinfer_close(mi);
    return ok && n ? 0 : 1;
}
