#!/bin/sh
# The plugins of examples/plugin/cuda on a card: a third party's kernels in every dtype against the same operations on
# the processor, and in a recorded step.  Skips without a card.
#
#   MINIINFER  the program    TINY  tests/tiny_model    ACME  where the example's plugins were built
# In the build tree (MI_BUILDDIR) all three have defaults.
MINIINFER=${MINIINFER:-$MI_BUILDDIR/miniinfer}
TINY=${TINY:-$MI_BUILDDIR/tests/tiny_model}
ACME=${ACME:-$MI_BUILDDIR/examples/plugin/cuda}
skip_all() { echo "1..0 # SKIP $1"; exit 0; }
[ -e "$ACME/acme_add_cuda.so" ] || skip_all "no $ACME/acme_add_cuda.so"

tmp=$(mktemp -d) || exit 99
trap 'rm -rf "$tmp"' EXIT
n=0 failed=0
ok()
{
    n=$((n + 1))
    if [ "$1" -eq 0 ]; then echo "ok $n - $2"; else echo "not ok $n - $2"; failed=1; tail -n 20 "$tmp/out" "$tmp/err" | sed 's/^/# /'; fi
}

# The ids that a greedy run gives: ids MODEL OPTION...
ids()
{
    model=$1; shift
    "$MINIINFER" run --plugin-path "$ACME" --model.path "$tmp/$model" --ids 3,14,15,92,65 -n 24 --ignore-eos --json \
        --sampler.chain greedy "$@" 2>"$tmp/err" | sed -n 's/.*"output_ids": *\[\([0-9, ]*\)\].*/\1/p'
}
same() { [ -n "$1" ] && [ "$1" = "$2" ]; }

"$TINY" "$tmp/llama" silu gate && "$TINY" "$tmp/acme" silu gate AcmeForCausalLM || exit 99
"$MINIINFER" run -m "$tmp/llama" --ids 3 -n 1 --engine.device cuda >/dev/null 2>"$tmp/err"
grep -q "0 usable cuda devices" "$tmp/err" && skip_all "no CUDA device"
grep -q "no backend 'cuda'" "$tmp/err" && skip_all "built without CUDA"

# verify lists what ran each node on the card: ran FEATURE, a line of it that is within tolerance.
ran() { grep -q "^ok .*  $1@cuda  *acme_add_cuda.so " "$tmp/out"; }
for dtype in fp32 fp16 bf16; do
    "$MINIINFER" verify --plugin-path "$ACME" -m "$tmp/acme" --ids 3,14,15,92,65 -n 0 -v --node acme \
        --engine.device cuda --engine.dtype $dtype --against cpu >"$tmp/out" 2>"$tmp/err" && ran op:acme.vector_add
    ok $? "$dtype: acme.vector_add on the card agrees with the processor's"
    # dtype = fp32, the yardstick, runs without fusions.
    [ $dtype = fp32 ] || { ran fusion:acme.add_norm; ok $? "$dtype: so does acme.add_norm"; }
done
same "$(ids acme --engine.device cuda --engine.dtype fp32)" "$(ids llama --engine.device cuda --engine.dtype fp32)"
ok $? "the model gives what Llama gives"
eager=$(ids acme --engine.device cuda --engine.dtype bf16 --engine.graphs false)
same "$eager" "$(ids acme --engine.device cuda --engine.dtype bf16)" && ! grep -q "cannot be recorded" "$tmp/err"
ok $? "its steps are recorded, and give what they give node by node"
echo "1..$n"
exit $failed
