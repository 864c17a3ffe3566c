/* collide.c - the worst prefix index there can be: to its hash all texts are one. */
#include "../../plugins/prefix/chain.h"

static uint64_t constant(const uint8_t key[CHAIN_KEY], uint64_t before, const int32_t *tokens, int32_t n)
{
    (void)key, (void)before, (void)tokens, (void)n;
    return 42;
}

static void *create(const MiPrefixSpec *spec, const void *options, GError **error)
{
    const uint8_t key[CHAIN_KEY] = { 0 };

    (void)options;
    return chain_new(spec, constant, key, error);
}

static const MiPrefix collide = {
    .struct_size = sizeof collide,
    .create = create,
    .destroy = chain_free,
    .find = chain_find,
    .insert = chain_insert,
    .remove = chain_remove,
};

MI_PLUGIN("collide", "1.0", "All texts have one hash", MI_FEATURE_PREFIX("collide", "*", &collide, NULL));
