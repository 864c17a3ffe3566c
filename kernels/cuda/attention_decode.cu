/* attention_decode.cu - how decode is shared out, and its kernel for a cache of the activations' type. */
#include <cuda/attention_decode.cuh>

namespace
{

/* As many parts as keep all multiprocessors busy, none of fewer keys than pay for adding it up: a cluster, or through
 * the workspace where a cluster would leave most of the card idle.  Those are at most 2 * processors in all: that is
 * its size. */
Split split_of(const MiCudaAttention *a)
{
    const int pairs = a->batch.shape.n_seqs * a->kv.n_kv_heads, max_kv = a->batch.shape.max_kv, sms = card().processors;
    const int most = max_kv <= SMALL ? 1 : max_kv / LEAST,
              n = sms * (pairs > sms / 2 ? 2 : 1) / (pairs > 0 ? pairs : 1);
    Split s = {};

    s.group = (int)a->q.shape[1] / a->kv.n_kv_heads, s.per_row = 65536 / s.group + 1;
    s.one = SMALL;
    s.n_parts = n > most ? most : n;
    s.n_parts = s.n_parts > MAX_PARTS ? MAX_PARTS : s.n_parts < 1 ? 1 : s.n_parts;
    if (s.n_parts > 1 && (!card().clusters || (max_kv > MAX_CLUSTER_KEYS && 4 * pairs * MAX_CLUSTER < 3 * sms))) {
        s.power = -1;
        return s;
    }
    while (2 << s.power <= s.n_parts && 2 << s.power <= MAX_CLUSTER)
        s.power++;
    s.n_parts = 1 << s.power, s.log2_owners = s.power;
    return s;
}

/* Whether attention_whole.cu takes it.  All blocks have to fit at once, and in clusters: two a multiprocessor, or few.
 */
bool is_whole(const MiCudaAttention *a, Split *split)
{
    const int even = (a->batch.shape.max_kv + split->n_parts - 1) / split->n_parts, sms = card().processors;
    const int blocks = a->batch.shape.n_seqs * a->kv.n_kv_heads * split->n_parts;
    Split     s = *split;

    s.slots = ((even > LEAST ? even : LEAST) + KEYS - 1) / KEYS, s.one = s.slots * KEYS;
    s.log2_owners = s.power < 3 ? s.power : 3;
    if (s.power < 0 || a->softcap > 0 || mi_cuda_attention_few(a) > 8 ||
        s.one > mi_attention_whole_keys(&a->kv) ||
        blocks > (mi_attention_whole_bytes(&a->kv, s) <= 112 << 10 ? 2 * sms : sms / 2))
        return false;
    *split = s;
    return true;
}

} // namespace

extern "C" size_t mi_cuda_attention_workspace(int head_dim)
{
    return 2 * (size_t)card().processors * 16 * ((size_t)head_dim + 2) * sizeof(float);
}

extern "C" int mi_cuda_attention_decode(void *stream, const MiCudaAttention *a, void *workspace, int32_t *arrived)
{
    Split split = split_of(a);

    split.parts = (float *)workspace;
    split.arrived = arrived;
    if (!mi_cuda_attention_fits(a))
        return cudaErrorNotSupported;
    if (is_whole(a, &split))
        return mi_attention_whole(stream, a, split);
    if (mi_dtype_scaled(a->kv.dtype))
        return mi_attention_decode_scaled(stream, a, split);
    return a->q.dtype == MI_BF16 ? launch<bf16, bf16>(stream, a, split) : launch<__half, __half>(stream, a, split);
}
