/* quant_gemv.cu - how the kernel of quant_gemv.cuh is laid out, and its launch. */
#include "quant_gemv.cuh"

using namespace mi_gemv;
using mi_quant::Packed, mi_quant::PackedKernel, mi_quant::set_form;

static bool paired(const MiGemvPlan *p) { return p->kind == MI_GEMV_GATED || p->kind == MI_GEMV_QKV; }

/* Eights of pairs, or of rows where not paired. */
static int octets_of(const MiGemvPlan *p) { return ((p->kind == MI_GEMV_QKV ? p->out / 2 : p->out) + 7) / 8; }

static int most_octets(const MiGemvPlan *p) { return (octets_of(p) + p->grid - 1) / p->grid; }

/* Of the block that has most. */
static int most_duos(const MiGemvPlan *p) { return paired(p) ? most_octets(p) : (most_octets(p) + 1) / 2; }

static int width(const MiGemvPlan *p) { return p->rows > 1 ? 4 : 1; }

static int chunks_of(const MiGemvPlan *p) { return (int)mi_quant_chunks(p->in); }

static int cuts_of(const MiGemvPlan *p) { return (chunks_of(p) + p->slice - 1) / p->slice; }

/* Behind a row's last chunk. */
static int tail_of(const MiGemvPlan *p)
{
    return (int)(mi_quant_record(p->form, p->in) - (int64_t)chunks_of(p) * mi_quant_chunk(p->form));
}

static int half_of(const MiGemvPlan *p) { return (p->slice * mi_quant_chunk(p->form) + tail_of(p) + 127) / 128 * 128; }

static int stages_of(const MiGemvPlan *p) { return most_duos(p) * cuts_of(p); }

/* What the kernel without cases is for. */
static bool usual(const MiGemvPlan *p)
{
    return width(p) == 1 && !p->form.zeros && !p->form.levels && !p->form.scales &&
           ((p->form.bits == 4 && p->form.group == 128) || (p->form.bits == 8 && p->form.group == 0));
}

/* A block has one record of W, no second one beside it: multiply_two().  8 bit: not measured. */
static bool single(const MiGemvPlan *p)
{
    return p->kind == MI_GEMV_RESIDUAL && usual(p) && p->form.bits == 4 && most_octets(p) == 1;
}

static int stage_of(const MiGemvPlan *p) { return (single(p) ? 1 : 2) * half_of(p); }

/* Behind the ring: where each part begins, and the end of all. */
typedef struct {
    int xs, factors, known, parts, end;
} Regions;

static Regions regions_of(const MiGemvPlan *p)
{
    const int m = width(p), tiles = most_duos(p) * 8, groups = usual(p) ? 1 : 4;
    const int found = p->team * p->teams * m * (int)sizeof(MiCandidate);
    const int parts = tiles * m * 2 * p->team * (int)sizeof(float);
    Regions   r;

    r.xs = HEADER + p->stages * stage_of(p);
    r.factors = r.xs + chunks_of(p) * 256 * m;
    r.known = r.factors + (chunks_of(p) * groups * m * (int)sizeof(float2) + 15) / 16 * 16;
    r.parts = r.known + (p->kind == MI_GEMV_GATED || p->kind == MI_GEMV_HEAD ? 0 : tiles * m * (int)sizeof(float4));
    r.end = r.parts + (parts > found ? parts : found);
    return r;
}

/* Every tile has a thread for each of its partial sums. */
static bool late(const MiGemvPlan *p)
{
    return (p->kind == MI_GEMV_RESIDUAL || p->kind == MI_GEMV_GATED || p->kind == MI_GEMV_QKV) && width(p) == 1 &&
           usual(p) && !(p->team & (p->team - 1)) && most_duos(p) * 8 * p->team <= p->team * p->teams * 32;
}

template <int BITS, int KIND> static PackedKernel usual_kernel(const MiGemvPlan *p)
{
    using mi_quant::USUAL;
    if constexpr (KIND == MI_GEMV_RESIDUAL || KIND == MI_GEMV_GATED || KIND == MI_GEMV_QKV)
        if (late(p))
            return mi_quant::packed<BITS, USUAL, KIND, 1, true>;
    return mi_quant::packed<BITS, USUAL, KIND, 1, false>;
}

template <int BITS> static PackedKernel usual_kernel(const MiGemvPlan *p)
{
    switch (p->kind) {
    case MI_GEMV_PLAIN:
        return usual_kernel<BITS, MI_GEMV_PLAIN>(p);
    case MI_GEMV_RESIDUAL:
        return usual_kernel<BITS, MI_GEMV_RESIDUAL>(p);
    case MI_GEMV_GATED:
        return usual_kernel<BITS, MI_GEMV_GATED>(p);
    case MI_GEMV_QKV:
        return usual_kernel<BITS, MI_GEMV_QKV>(p);
    case MI_GEMV_HEAD:
        return usual_kernel<BITS, MI_GEMV_HEAD>(p);
    }
    return NULL;
}

static PackedKernel kernel_for(const MiGemvPlan *p)
{
    using namespace mi_quant;
    const MiQuantForm f = p->form;
    const bool        several = width(p) > 1;

    if (f.levels || f.bits == 5 || f.bits == 6 || f.scales == MI_QUANT_PAIRS)
        return blocks_kernel(f, p->kind, several);
    if (f.scales)
        return wide_kernel(f, p->kind, several);
    if (usual(p))
        return f.bits == 4 ? usual_kernel<4>(p) : usual_kernel<8>(p);
    return f.bits == 4 ? any_kernel<4, F16_SCALES>(p->kind, several)
           : f.group   ? any_kernel<8, F16_SCALES>(p->kind, several)
                       : any_kernel<8, ROW_SCALES>(p->kind, several);
}

/* Kernels of less than 8 bit are short: more than two of them on a multiprocessor cost more than their prefetches bring. */
enum { TWO_BESIDE = 76 << 10 };

int mi_quant::lay_out(MiGemvPlan *p)
{
    const int cuts = cuts_of(p);

    if (p->slice < 1 || p->team < 1 || p->teams < 1 || p->team * p->teams > MAX_WARPS || p->grid < 1 ||
        (cuts > 1 && p->teams > 1))
        return cudaErrorInvalidValue;
    if (p->stages > stages_of(p))
        p->stages = stages_of(p);
    /* As in gemv.cu: a team always comes back to the same stages. */
    if (p->stages < stages_of(p))
        p->stages -= p->stages % p->teams;
    p->flight = p->flight < p->stages ? p->flight : p->stages;
    if (p->stages > MAX_STAGES || p->stages < 1 || p->flight < 1)
        return cudaErrorInvalidValue;
    p->smem = regions_of(p).end;
    if (p->form.bits < 8 && p->smem < TWO_BESIDE)
        p->smem = TWO_BESIDE;
    return mi_allow_smem(kernel_for(p), p->smem);
}

/* The rules are measurements on an H100: docs/performance.md. */
int mi_quant::plan(MiGemvPlan *p, int sms, int most)
{
    const int chunks = chunks_of(p), per = (octets_of(p) + sms - 1) / sms;
    const int least = 8; /* chunks: they end at a multiple of 128 bytes, and eight warps have one each */

    if (p->dtype != MI_BF16 || p->rows < 1 || p->rows > MI_GEMV_FEW_ROWS || p->in < 8 || p->in % 8 || p->out < 1 ||
        p->norm_dim || !mi_quant_possible(p->form) ||
        (p->kind == MI_GEMV_GATED && p->out % 8) || (p->kind == MI_GEMV_QKV && p->out % 16))
        return cudaErrorNotSupported;
    p->direct = false;
    p->cluster = p->split = 1;
    p->stage_rows = 2;
    p->grid = (octets_of(p) + per - 1) / per;
    if (p->grid < sms)
        p->grid = octets_of(p) < sms ? octets_of(p) : sms;
    /* A stage is 16 KB or so of two records: each costs the one thread that requests them 500 clocks. */
    p->slice = chunks;
    if ((single(p) ? 1 : 2) * chunks * mi_quant_chunk(p->form) > 20 << 10) {
        p->slice = (p->form.bits < 8 ? 12 << 10 : 8 << 10) / mi_quant_chunk(p->form) / least * least;
        p->slice = p->slice < least ? least : p->slice;
    }
    const int duos = most_duos(p), cuts = cuts_of(p);
    p->team = cuts > 1 || duos == 1 ? 8 : duos < 4 ? 4 : 2;
    p->teams = cuts > 1 ? 1 : 8 / p->team;
    p->stages = 0;
    /* Two kernels of a chain on a multiprocessor, if the rest leaves room for that. */
    const int stage = stage_of(p), beside = (most - 2048) / 2 - regions_of(p).end;
    const int limit = p->kind == MI_GEMV_HEAD ? 160 << 10 : beside >= 48 << 10 && beside < 96 << 10 ? beside : 96 << 10;
    p->stages = stages_of(p) < MAX_STAGES ? stages_of(p) : MAX_STAGES;
    while (p->stages > p->teams && p->stages * stage > limit)
        p->stages--;
    if (p->stages < stages_of(p))
        p->stages -= p->stages % p->teams;
    while (p->stages > p->teams && regions_of(p).end > most)
        p->stages -= p->teams;
    while (p->team > 1 && regions_of(p).end > most)
        p->team /= 2;
    const bool whole = p->stages >= stages_of(p);
    const int  under_way = whole ? 15 << 10 : p->kind == MI_GEMV_HEAD ? 60 << 10 : 30 << 10, fewest = whole ? 1 : 2;
    p->flight = under_way / stage > fewest ? under_way / stage : fewest;
    p->ahead = p->pace = 0;
    if (paired(p) && !whole) {
        p->ahead = 8;
        p->pace = 2500;
    }
    return regions_of(p).end > most ? (int)cudaErrorNotSupported : lay_out(p);
}

int mi_quant::start(void *stream, const MiGemvPlan *p, const Args &args)
{
    const Regions     r = regions_of(p);
    const MiQuantForm f = p->form;
    Packed            a = {};

    static_cast<Args &>(a) = args;
    a.each = octets_of(p) / p->grid;
    a.more = octets_of(p) % p->grid;
    a.stage_bytes = stage_of(p);
    a.xs = r.xs;
    a.known = r.known;
    a.parts = r.parts;
    a.record = mi_quant_record(f, p->in);
    a.blocks_of_x = chunks_of(p);
    a.chunk = mi_quant_chunk(f);
    a.values = mi_quant_values(f);
    a.slice = p->slice;
    a.cuts = cuts_of(p);
    a.cuts_magic = a.cuts > 1 ? (uint32_t)((((uint64_t)1 << 32) + a.cuts - 1) / a.cuts) : 0;
    a.half = half_of(p);
    a.tail = tail_of(p);
    set_form(&a, f);
    a.factors = r.factors;
    while (2 << a.team_shift <= p->team)
        a.team_shift++;
    return mi_launch(kernel_for(p), dim3(p->grid), dim3((a.warps + 1) * 32), p->smem, stream, a);
}
