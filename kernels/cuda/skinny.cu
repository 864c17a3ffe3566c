/* skinny.cu - how the kernel of skinny.cuh is laid out, and its launcher. */
#include "skinny.cuh"

#include <algorithm>

namespace mi_skinny
{

/* ---- the layout ------------------------------------------------------------------- */

static bool paired(const MiGemvPlan *p) { return p->kind == MI_GEMV_GATED || p->kind == MI_GEMV_QKV; }
static bool normed(const MiGemvPlan *p) { return paired(p) || p->kind == MI_GEMV_HEAD; }

static int sixteens(const MiGemvPlan *p) { return p->rows <= 16 ? 1 : 2; }
static int pieces(const MiGemvPlan *p) { return 4 * sixteens(p); } /* of a group's sums */
static int steps_of(const MiGemvPlan *p) { return (p->in + STEP - 1) / STEP; }
/* What is dealt out to the blocks that have the same columns. */
static int pairs_of(const MiGemvPlan *p) { return p->kind == MI_GEMV_GATED ? p->out : (p->out + 1) / 2; }

/* Of the block that has most. */
static int most_tiles(const MiGemvPlan *p)
{
    const int blocks = p->grid / p->split;
    return ((pairs_of(p) + blocks - 1) / blocks + TILE_PAIRS - 1) / TILE_PAIRS;
}
static int most_groups(const MiGemvPlan *p) { return (most_tiles(p) + 1) / 2; }

static int most_steps(const MiGemvPlan *p) { return (steps_of(p) + p->split - 1) / p->split; }
static int column_bytes(const MiGemvPlan *p) { return std::min(most_steps(p) * STEP, p->in) * 2; }
static int pitch_of(const MiGemvPlan *p) { return (column_bytes(p) + 63) / 128 * 128 + 64; }
static int stage_bytes(const MiGemvPlan *p) { return TILE_ROWS * pitch_of(p); }

/* Projections back to the residual are one kernel whether columns are in parts or not: together, the kernels of a step
 * must fit the instruction caches. */
static bool exchanges(const MiGemvPlan *p) { return p->split > 1 || !normed(p); }

/* Groups after which parts of the columns exchange sums: all where that is little. */
static int round_of(const MiGemvPlan *p)
{
    return !exchanges(p) || most_groups(p) <= 8 ? most_groups(p) : 4;
}

typedef struct {
    int gains, xs, known, bests, exchange, exchange_bytes, end;
} Regions;

static Regions regions_of(const MiGemvPlan *p)
{
    const int owned = (most_groups(p) * pieces(p) + p->split - 1) / p->split;
    Regions   r;

    r.gains = START + p->stages * stage_bytes(p);
    r.xs = (r.gains + (normed(p) ? 2 * column_bytes(p) : 0) + 127) / 128 * 128;
    r.known = r.xs + std::max(sixteens(p) * 16 * pitch_of(p), 2 * p->team * pieces(p) * 256);
    r.bests = r.known + (p->kind == MI_GEMV_QKV ? owned * 512 : 0);
    r.exchange = r.bests + (p->kind == MI_GEMV_HEAD ? p->team * pieces(p) / 2 * 256 : 0);
    r.exchange_bytes =
        !exchanges(p) ? 0 : (round_of(p) * pieces(p) + p->split - 1) / p->split * p->split * 256;
    r.end = r.exchange + (round_of(p) < most_groups(p) ? 2 : 1) * r.exchange_bytes;
    return r;
}

/* ---- the kernels ------------------------------------------------------------------- */

typedef void (*Kernel)(Wide);

/* Steps of columns that a warp keeps: few, so that two blocks have room on a multiprocessor, else as many as it can. */
constexpr int FEW_KEPT = 4, MOST_KEPT = 7, MOST_SMEM = 227 << 10;

static int kept(const MiGemvPlan *p) { return most_steps(p) > FEW_KEPT * MOST_WARPS ? MOST_KEPT : FEW_KEPT; }

template <int KIND> static Kernel kernel_of(const MiGemvPlan *p)
{
    const bool one = sixteens(p) == 1;

    if constexpr (KIND == MI_GEMV_RESIDUAL) {
        if (kept(p) == FEW_KEPT)
            return one ? skinny<KIND, 1, FEW_KEPT, true> : skinny<KIND, 2, FEW_KEPT, true>;
        return one ? skinny<KIND, 1, MOST_KEPT, true> : skinny<KIND, 2, MOST_KEPT, true>;
    } else {
        if (kept(p) > FEW_KEPT)
            return NULL;
        if (p->split > 1)
            return one ? skinny<KIND, 1, FEW_KEPT, true> : skinny<KIND, 2, FEW_KEPT, true>;
        return one ? skinny<KIND, 1, FEW_KEPT, false> : skinny<KIND, 2, FEW_KEPT, false>;
    }
}

static Kernel kernel_for(const MiGemvPlan *p)
{
    switch (p->kind) {
    case MI_GEMV_PLAIN:
    case MI_GEMV_RESIDUAL:
        return kernel_of<MI_GEMV_RESIDUAL>(p);
    case MI_GEMV_GATED:
        return kernel_of<MI_GEMV_GATED>(p);
    case MI_GEMV_QKV:
        return kernel_of<MI_GEMV_QKV>(p);
    case MI_GEMV_HEAD:
        return kernel_of<MI_GEMV_HEAD>(p);
    }
    return NULL;
}

/* Warps that keep all of x; eight share the ends well. */
static int warps_of(const MiGemvPlan *p)
{
    return std::max((most_steps(p) + kept(p) - 1) / kept(p), std::min(most_steps(p), 8));
}

static bool power_of_2(int n) { return n > 0 && (n & (n - 1)) == 0; }

int lay_out(MiGemvPlan *p)
{
    if (!power_of_2(p->split) || !power_of_2(p->cluster) || p->split > MOST_PARTS || p->cluster > 8 || p->cluster < p->split ||
        p->grid < p->cluster || p->grid % p->cluster || steps_of(p) < p->split)
        return cudaErrorInvalidValue;
    p->team = warps_of(p);
    p->teams = 1;
    p->stage_rows = TILE_ROWS;
    p->stages = std::min(p->stages, most_tiles(p));
    p->flight = std::min(p->flight, p->stages);
    p->smem = regions_of(p).end;
    const Kernel k = kernel_for(p);
    if (!k || p->team > (kept(p) == MOST_KEPT ? 11 : MOST_WARPS) || p->stages < std::min(2, most_tiles(p)) || p->stages > 64 ||
        p->flight < 1 || p->smem > MOST_SMEM)
        return cudaErrorInvalidValue;
    return mi_allow_smem(k, p->smem);
}

/* Clusters that run at once with a block on each multiprocessor: those of a cluster are neighbours. */
static int clusters_at_once(const MiGemvPlan *p, int sms, int most)
{
    cudaLaunchConfig_t  c = {};
    cudaLaunchAttribute a = {};
    int                 n = 0;

    if (p->cluster == 1)
        return sms;
    c.gridDim = dim3(sms / p->cluster * p->cluster);
    c.blockDim = dim3((p->team + 1) * 32);
    c.dynamicSmemBytes = most / 4 * 3;
    a.id = cudaLaunchAttributeClusterDimension;
    a.val.clusterDim.x = p->cluster;
    a.val.clusterDim.y = a.val.clusterDim.z = 1;
    c.attrs = &a;
    c.numAttrs = 1;
    if (mi_allow_smem(kernel_for(p), MOST_SMEM) || cudaOccupancyMaxActiveClusters(&n, kernel_for(p), &c)) {
        (void)cudaGetLastError();
        return 0;
    }
    return std::min(n, sms / p->cluster);
}

/* The rules are measurements on an H100 of a whole step: docs/performance.md. */
int plan(MiGemvPlan *p, int sms, int most)
{
    const int64_t bytes = (int64_t)p->out * p->in * (p->kind == MI_GEMV_GATED ? 4 : 2);
    const bool    head = p->kind == MI_GEMV_HEAD;

    p->direct = false;
    p->ahead = 0;
    p->pace = 400;
    p->split = 1;
    /* So many KB of x a block: exchanging sums costs more than fetching twice as much. */
    const bool wide = sixteens(p) > 1;
    const int  room = head ? 128 : wide && paired(p) ? 100 : wide && p->kind == MI_GEMV_RESIDUAL ? 80 : 60;
    while (p->split < MOST_PARTS &&
           (kept(p) > FEW_KEPT || column_bytes(p) * 16 * sixteens(p) > room << 10))
        p->split *= 2;
    p->cluster = std::min(8, steps_of(p));
    while (!power_of_2(p->cluster))
        p->cluster--;
    p->split = std::min(p->split, p->cluster);
    p->team = warps_of(p);
    if (!kernel_for(p))
        return cudaErrorNotSupported;
    const int clusters = clusters_at_once(p, sms, most);
    if (clusters < 1)
        return cudaErrorNotSupported;
    const int shares = p->cluster / p->split, each = (pairs_of(p) + clusters * shares - 1) / (clusters * shares);
    p->grid = (pairs_of(p) + each * shares - 1) / (each * shares) * p->cluster;
    /* A ring as deep as leaves the kernel before and the one after a place beside it; those that have no neighbours
     * take what helps. */
    const bool alone = head || p->kind == MI_GEMV_PLAIN;
    const bool gated = p->kind == MI_GEMV_GATED, large = gated && wide && column_bytes(p) > 2048;
    const int  limit = alone || large ? most - 1024 : (p->kind == MI_GEMV_QKV ? 110 : gated ? 150 : 165) << 10;
    const int  stage = stage_bytes(p);
    p->stages = std::min(most_tiles(p), head ? 6 : alone ? 8 : 64);
    while (p->stages > 2 && regions_of(p).end > limit)
        p->stages--;
    const bool whole = p->stages >= most_tiles(p);
    const int  under_way = head                                    ? 60 << 10
                           : whole || bytes < 6 << 20              ? 15 << 10
                           : gated && wide && bytes < 24 << 20 ? 75 << 10
                                                                   : 30 << 10;
    p->flight = std::max(under_way / stage, whole ? 1 : 2);
    return regions_of(p).end > most ? (int)cudaErrorNotSupported : lay_out(p);
}

MiGemvLater later(const MiGemvPlan *p, const void *w, int64_t most)
{
    const int     blocks = p->grid / p->split, each = (pairs_of(p) + blocks - 1) / blocks;
    const int64_t row = (int64_t)p->in * 2, rows = p->kind == MI_GEMV_GATED ? p->out : p->out / 2 * 2;
    MiGemvLater   l = {};

    l.at = w;
    l.stride = each * row * (p->kind == MI_GEMV_GATED ? 1 : 2);
    l.bytes = (int32_t)(std::min(most, l.stride) / 16 * 16);
    l.n = (int32_t)(rows * row / l.stride); /* the last block's may be shorter: not that one */
    return l;
}

/* ---- launching -------------------------------------------------------------------- */

int start(void *stream, const MiGemvPlan *p, const Args &args)
{
    const Regions r = regions_of(p);
    const int     blocks = p->grid / p->split;
    Wide          a = {};

    (Args &)a = args;
    a.each = pairs_of(p) / blocks;
    a.more = pairs_of(p) % blocks;
    a.warps = p->team;
    a.stages = p->stages;
    a.stage_bytes = stage_bytes(p);
    a.flight = p->flight;
    a.known = r.known;
    a.xs = a.parts = r.xs;
    a.steps = steps_of(p);
    while (1 << a.split < p->split)
        a.split++;
    while (1 << (a.split + a.share) < p->cluster)
        a.share++;
    for (int i = 0; i < 1 << a.share; i++)
        a.sharers |= 1 << (i << a.split);
    a.pitch = pitch_of(p);
    a.round = round_of(p);
    a.rounds = (most_groups(p) + a.round - 1) / a.round;
    a.gains = r.gains;
    a.bests = r.bests;
    a.exchange = r.exchange;
    a.exchange_bytes = r.exchange_bytes;
    for (int i = 0; i < MI_GEMV_LATER; i++)
        a.later[i] = p->later[i];
    return mi_launch_clusters(kernel_for(p), dim3(p->grid), dim3((p->team + 1) * 32), (unsigned)p->cluster, p->smem, stream,
                              a);
}

} // namespace mi_skinny
