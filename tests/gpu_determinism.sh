#!/bin/sh
# [engine] deterministic = batch on a card: what is chosen and refused, and `verify --determinism` on random weights of
# Qwen2's shape and of others, in every dtype.  Skips without a card.
#
#   MINIINFER  the program; in the build tree (MI_BUILDDIR) it has a default.
MINIINFER=${MINIINFER:-$MI_BUILDDIR/miniinfer}
tmp=$(mktemp -d) || exit 99
trap 'rm -rf "$tmp"' EXIT
n=0 failed=0
ok()
{
    n=$((n + 1))
    if [ "$1" -eq 0 ]; then echo "ok $n - $2"; else echo "not ok $n - $2"; failed=1; cat "$tmp/out" "$tmp/err" | tail -n 30 | sed 's/^/# /'; fi
}
mi() { "$MINIINFER" "$@" --model.load dummy --engine.device cuda --engine.tuned off >"$tmp/out" 2>"$tmp/err"; }

shape() # name heads kv_heads head_dim window
{
    cat >"$tmp/$1.json" <<-END
	{ "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "num_hidden_layers": 4, "hidden_size": 896, "num_attention_heads": $2,
	  "num_key_value_heads": $3, "head_dim": $4, "intermediate_size": 4864, "vocab_size": 32000, "tie_word_embeddings": true,
	  "hidden_act": "silu", "rms_norm_eps": 1e-06, "rope_theta": 1000000.0, "max_position_embeddings": 4096,
	  "torch_dtype": "bfloat16" }
	END
}
shape qwen 14 2 64
shape long 8 8 128
ids=$(i=0; while [ $i -lt 400 ]; do i=$((i + 1)); printf '%d,' $((i * 7919 % 31999)); done; echo 5)

mi plan -m "$tmp/qwen.json"
status=$?
if grep -q 'usable cuda device' "$tmp/err"; then echo "1..0 # SKIP no CUDA device"; exit 0; fi
[ $status -eq 0 ]; ok $? "a plan"
mi plan -m "$tmp/qwen.json" --engine.deterministic batch && grep -q '^attention *invariant' "$tmp/out"
ok $? "the option chooses attention 'invariant'"
grep -q 'linear:invariant' "$tmp/out"; ok $? "and linear 'invariant'"
mi plan -m "$tmp/qwen.json" --engine.deterministic batch --engine.linear dense
[ $? -eq 78 ] && grep -q "linear 'dense' on cuda, of linear_dense_cuda.so, does not promise the same bits in every batch; these do: invariant$" "$tmp/err"
ok $? "a product whose order of sums follows the number of rows is refused"
mi plan -m "$tmp/qwen.json" --engine.deterministic batch --engine.attention flash
[ $? -eq 78 ] && grep -q "attention 'flash' on cuda does not promise" "$tmp/err" && grep -q "invariant with " "$tmp/err"
ok $? "so is an attention that shares out keys by the batch"

prove() # what, model, option...
{
    what=$1 model=$2; shift 2
    mi verify -m "$tmp/$model.json" --determinism --ids "$ids" "$@"
    [ $? -eq 0 ] && grep -q '^[1-9][0-9]* the same to the bit, 0 not, 0 not run$' "$tmp/out"
    ok $? "$what: the same bits alone, together, cut, found, after making room"
    sed -n 's/^cost/# cost/p' "$tmp/out"
}
prove "bf16" qwen
prove "bf16, 32 at once, fair" qwen --batch 32 --engine.scheduler fair -n 24 --chunks 7,100
prove "f16, heads of 128, each its own keys" long --engine.dtype fp16
prove "fp32" qwen --engine.dtype fp32 --batch 4 --chunks 7,512
prove "attention simple, no graphs" qwen --engine.attention simple --engine.graphs false --batch 4 --chunks 33
prove "greedy" qwen --sampler.chain greedy --batch 5 --chunks 64

# that the proof can fail: the parts that are chosen without the option
mi verify -m "$tmp/qwen.json" --determinism --ids "$ids" --engine.deterministic off --batch 32 --chunks 7
status=$?
[ $status -eq 1 ] && grep -q '^DIFFERS' "$tmp/out"
ok $? "without the option some bits differ, and that is found"
echo "1..$n"
exit $failed
