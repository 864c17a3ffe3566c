/* hash.c - equal prefixes by a chain of hashes, whole blocks only.
 *
 * SipHash-2-4 (Aumasson, Bernstein 2012) under a key of the kernel's randomness: a
 * client that knows this file still cannot prepare texts that share a bucket, and
 * tokens are compared whatever the hash says. */
#include "chain.h"
#include <string.h>
#include <sys/random.h>

typedef struct {
    uint64_t v0, v1, v2, v3;
} Sip;

static uint64_t turn(uint64_t x, int by) { return x << by | x >> (64 - by); }

static void rounds(Sip *s, int n)
{
    while (n-- > 0) {
        s->v0 += s->v1, s->v2 += s->v3;
        s->v1 = turn(s->v1, 13) ^ s->v0, s->v3 = turn(s->v3, 16) ^ s->v2;
        s->v0 = turn(s->v0, 32);
        s->v2 += s->v1, s->v0 += s->v3;
        s->v1 = turn(s->v1, 17) ^ s->v2, s->v3 = turn(s->v3, 21) ^ s->v0;
        s->v2 = turn(s->v2, 32);
    }
}

static void word(Sip *s, uint64_t m)
{
    s->v3 ^= m;
    rounds(s, 2);
    s->v0 ^= m;
}

static uint64_t siphash(const uint8_t key[CHAIN_KEY], uint64_t before, const int32_t *tokens, int32_t n)
{
    uint64_t k[2], last = (uint64_t)(8 + 4 * (int64_t)n) << 56; /* the message's length, in its top byte */

    memcpy(k, key, CHAIN_KEY);
    Sip s = { k[0] ^ 0x736f6d6570736575u, k[1] ^ 0x646f72616e646f6du, k[0] ^ 0x6c7967656e657261u,
              k[1] ^ 0x7465646279746573u };
    word(&s, before);
    for (int32_t i = 0; i + 1 < n; i += 2)
        word(&s, (uint64_t)(uint32_t)tokens[i] | (uint64_t)(uint32_t)tokens[i + 1] << 32);
    if (n % 2)
        last |= (uint32_t)tokens[n - 1];
    word(&s, last);
    s.v2 ^= 0xff;
    rounds(&s, 4);
    return s.v0 ^ s.v1 ^ s.v2 ^ s.v3;
}

static void *create(const MiPrefixSpec *spec, const void *options, GError **error)
{
    uint8_t key[CHAIN_KEY];

    (void)options;
    if (getentropy(key, sizeof key) == 0)
        return chain_new(spec, siphash, key, error);
    g_set_error(error, MI_ERROR, MI_ERROR_IO, "prefix 'hash': the kernel gives no random numbers; set [cache.paged] "
                                              "prefix = trie");
    return NULL;
}

static const MiPrefix hash = {
    .struct_size = sizeof hash,
    .create = create,
    .destroy = chain_free,
    .find = chain_find,
    .insert = chain_insert,
    .remove = chain_remove,
};

MI_PLUGIN("hash", "0.1", "Equal prefixes by chained hashes", MI_FEATURE_PREFIX("hash", "*", &hash, NULL));
