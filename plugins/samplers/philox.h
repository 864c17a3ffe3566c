/* philox.h - Philox4x32-10, a counter-based generator: Salmon, Moraes, Dror and
 * Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.  No state: the
 * key is a request's seed, the counter a position in its text. */
#ifndef SAMPLERS_PHILOX_H
#define SAMPLERS_PHILOX_H

#include <stdint.h>

static inline void philox4x32_10(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4])
{
    uint32_t k0 = key[0], k1 = key[1];

    for (int i = 0; i < 4; i++)
        out[i] = counter[i];
    for (int round = 0; round < 10; round++) {
        const uint64_t a = (uint64_t)0xd2511f53u * out[0], b = (uint64_t)0xcd9e8d57u * out[2];
        const uint32_t x0 = (uint32_t)(b >> 32) ^ out[1] ^ k0, x2 = (uint32_t)(a >> 32) ^ out[3] ^ k1;
        out[0] = x0;
        out[1] = (uint32_t)b;
        out[2] = x2;
        out[3] = (uint32_t)a;
        k0 += 0x9e3779b9u; /* the golden ratio */
        k1 += 0xbb67ae85u; /* sqrt 3 - 1 */
    }
}

/* In [0, 1), 53 bits: the number that belongs to a seed and a position. */
static inline double philox_uniform(uint64_t seed, uint32_t position)
{
    const uint32_t counter[4] = { position, 0, 0, 0 }, key[2] = { (uint32_t)seed, (uint32_t)(seed >> 32) };
    uint32_t       r[4];

    philox4x32_10(counter, key, r);
    return (double)((uint64_t)(r[0] >> 5) << 26 | r[1] >> 6) * 0x1p-53;
}

#endif
