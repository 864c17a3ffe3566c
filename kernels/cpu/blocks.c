/* blocks.c - decoding of stored weights, plain C. */
#include <cpu/blocks.h>
#include <string.h>

static void f32(const void *src, float *dst, int64_t n) { memcpy(dst, src, (size_t)n * sizeof *dst); }

static const MiBlockFormat formats[] = {
    { "f32", 0, 1, 4, f32 },
};

const MiBlockFormat *mi_block_format(const char *name)
{
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++)
        if (strcmp(formats[i].name, name) == 0)
            return &formats[i];
    return NULL;
}

const MiBlockFormat *mi_block_format_gguf(uint32_t type)
{
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++)
        if ((uint32_t)formats[i].gguf == type)
            return &formats[i];
    return NULL;
}
