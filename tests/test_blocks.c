/* Stored weights mean what another implementation says: bit for bit (data/blocks.py). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <cpu/blocks.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "data/blocks.h"

static const struct {
    const char          *name;
    int                  type, values;
    const unsigned char *raw;
    size_t               bytes;
    const uint32_t      *bits;
    size_t               n;
} kinds[] = {
#define KIND(name, type, values) \
    { #name, type, values, name##_raw, sizeof name##_raw, name##_bits, sizeof name##_bits / sizeof *name##_bits },
    BLOCK_KINDS(KIND)
};

static void decodes_as_the_reference(void **state)
{
    (void)state;
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
        const MiBlockFormat *f = mi_block_format(kinds[k].name);
        float                out[512];
        uint32_t             bits[512];

        assert_non_null(f);
        assert_ptr_equal(f, mi_block_format_gguf((uint32_t)kinds[k].type));
        assert_int_equal(f->values, kinds[k].values);
        assert_int_equal(kinds[k].n / (size_t)f->values * (size_t)f->bytes, kinds[k].bytes);
        /* An exact copy at an odd address: blocks are not aligned, and nothing is read past them. */
        unsigned char *odd = malloc(kinds[k].bytes + 1);
        memcpy(odd + 1, kinds[k].raw, kinds[k].bytes);
        f->decode(odd + 1, out, (int64_t)kinds[k].n);
        free(odd);
        memcpy(bits, out, sizeof bits);
        for (size_t i = 0; i < kinds[k].n; i++)
            if (bits[i] != kinds[k].bits[i] && !(out[i] == 0 && !(kinds[k].bits[i] << 1)))
                fail_msg("%s value %zu is %g (%08x), the reference has %08x", f->name, i, (double)out[i], bits[i],
                         kinds[k].bits[i]);
    }
    assert_null(mi_block_format("q9_9"));
    assert_null(mi_block_format_gguf(16));
}

/* Every f16 and bf16 comes back from f32; between two neighbours the nearer is taken, of equals the even one. */
static void halves_round_to_nearest_even(void **state)
{
    (void)state;
    for (uint32_t h = 0; h < 0x10000; h++) {
        const bool nan16 = (h & 0x7fff) > 0x7c00, nan_b = (h & 0x7fff) > 0x7f80;
        if (nan16)
            assert_true(isnan(mi_f16_to_f32((uint16_t)h)));
        else
            assert_int_equal(mi_f32_to_f16(mi_f16_to_f32((uint16_t)h)), h);
        if (nan_b)
            assert_true(isnan(mi_bf16_to_f32((uint16_t)h)));
        else
            assert_int_equal(mi_f32_to_bf16(mi_bf16_to_f32((uint16_t)h)), h);
        if ((h & 0x7fff) < 0x7bff) { /* the middle to the next one is exact in f32 */
            const float middle = (mi_f16_to_f32((uint16_t)h) + mi_f16_to_f32((uint16_t)(h + 1))) / 2;
            assert_int_equal(mi_f32_to_f16(middle), h + (h & 1));
        }
    }
    assert_int_equal(mi_f32_to_f16(65520.f), 0x7c00);
    assert_int_equal(mi_f32_to_f16(65519.f), 0x7bff);
    assert_int_equal(mi_f32_to_f16(0x1p-25f), 0);
    assert_int_equal(mi_f32_to_f16(0x1.8p-25f), 1);
    assert_int_equal(mi_f32_to_f16(NAN) & 0x7fff, 0x7e00);
    assert_int_equal(mi_f32_to_bf16(1.00390625f), 0x3f80);        /* the middle of 3f80 and 3f81 */
    assert_int_equal(mi_f32_to_bf16(1.01171875f), 0x3f82);
    assert_true(isnan(mi_bf16_to_f32(mi_f32_to_bf16(NAN))));
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(decodes_as_the_reference),
                                        cmocka_unit_test(halves_round_to_nearest_even) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
