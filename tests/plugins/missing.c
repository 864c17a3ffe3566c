/* missing.c - calls a function that no library has. */
#include <miniinfer/plugin.h>
bool acme_not_there(void);
static bool run(void *state, MiContext *ctx, const MiCall *call, GError **error)
{
    (void)state, (void)ctx, (void)call, (void)error;
    return acme_not_there();
}
static const MiOp op = { .struct_size = sizeof op, .run = run };
MI_PLUGIN("missing", "0", "Needs what is not there", MI_FEATURE_OP("missing", "cpu", &op, NULL));
