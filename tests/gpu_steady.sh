#!/bin/sh
# What 1,000 steps ask of the CUDA runtime once nothing is new: one launch, one mark and one wait each; no memory, no
# copies, no kernels and no other waits.  Counted by gpu_calls.so in the program's own calls.  Skips without a card.
#
#   MINIINFER  the program    CALLS  tests/gpu_calls.so
# In the build tree (MI_BUILDDIR) both have defaults.
MINIINFER=${MINIINFER:-$MI_BUILDDIR/miniinfer}
CALLS=${CALLS:-$MI_BUILDDIR/tests/gpu_calls.so}
skip_all() { echo "1..0 # SKIP $1"; exit 0; }
[ -e "$CALLS" ] || skip_all "no $CALLS"

tmp=$(mktemp -d) || exit 99
trap 'rm -rf "$tmp"' EXIT
n=0 failed=0
ok()
{
    n=$((n + 1))
    if [ "$1" -eq 0 ]; then echo "ok $n - $2"; else echo "not ok $n - $2"; failed=1; tail -n 30 "$tmp/err" | sed 's/^/# /'; fi
}
count() { sed -n "s/^calls $1 //p" "$tmp/err"; }

# Two layers of Qwen2's shape, with random weights.
cat >"$tmp/model.json" <<'END'
{ "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "num_hidden_layers": 2, "hidden_size": 896, "num_attention_heads": 14,
  "num_key_value_heads": 2, "intermediate_size": 4864, "vocab_size": 4096, "tie_word_embeddings": true, "hidden_act": "silu",
  "rms_norm_eps": 1e-06, "rope_theta": 1000000.0, "max_position_embeddings": 4096, "torch_dtype": "bfloat16" }
END

# BATCH FROM OPTION...: the first of two rounds meets every shape there is, and the second begins where FROM says
steady()
{
    batch=$1 from=$2; shift 2
    MI_CALLS_FROM=$from MI_CALLS_N=1000 LD_PRELOAD=$CALLS "$MINIINFER" bench batch --model.path "$tmp/model.json" --model.load dummy --engine.device cuda \
        --batch "$batch" --context 8 --tokens 1200 --rounds 1 --engine.tuned off --json "$@" >"$tmp/out" 2>"$tmp/err"
    status=$?
    grep -q 'usable cuda device' "$tmp/err" && skip_all "no CUDA device"
    what="$batch sequences"
    [ $status -eq 0 ]; ok $? "$what: the bench ends well"
    [ "$(count cudaGraphLaunch)" = 1000 ]; ok $? "$what: 1000 launches of a graph were counted"
    [ "$(count cudaEventSynchronize)" = 1000 ] && [ "$(count cudaEventRecord)" = 1000 ]; ok $? "$what: each is marked once and waited for once"
    others=$(grep '^calls cuda' "$tmp/err" | grep -v -e cudaGraphLaunch -e cudaEventSynchronize -e cudaEventRecord | grep -v ' 0$')
    [ "$(grep -c '^calls cuda' "$tmp/err")" -gt 20 ] && [ -z "$others" ]; ok $? "$what: nothing else is asked of the runtime" "$others"
    [ "$(count malloc)" = 0 ]; ok $? "$what: the thread that launches allocates nothing"
}
steady 1 1210
steady 8 1260
echo "1..$n"
exit $failed
