/* attention_scaled.cu - decode over a cache whose keys and values have scales. */
#include <cuda/attention_decode.cuh>

namespace
{

template <typename T> int by_numbers(void *stream, const MiCudaAttention *a, const Split &split)
{
    return a->kv.dtype == MI_F8 ? launch<T, F8>(stream, a, split) : launch<T, I8>(stream, a, split);
}

} // namespace

int mi_attention_decode_scaled(void *stream, const MiCudaAttention *a, const Split &split)
{
    return a->q.dtype == MI_BF16 ? by_numbers<bf16>(stream, a, split) : by_numbers<__half>(stream, a, split);
}
