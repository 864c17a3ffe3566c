#!/bin/sh
# The same seed gives the same text, whatever the batch, the threads, the cache or the size of a step.
tmp=$(mktemp -d) || exit 99
trap 'rm -rf "$tmp"' EXIT
n=0
ok()
{
    n=$((n + 1))
    if [ "$1" -eq 0 ]; then echo "ok $n - $2"; else echo "not ok $n - $2"; sed 's/^/# /' "$tmp/err"; fi
}
output_ids() { sed -n 's/.*"output_ids": *\[\([0-9, ]*\)\].*/\1/p' | tr -d ' '; }

ask() # the ids of seed $1 alone, with further options
{
    seed=$1; shift
    "$MI_BUILDDIR/miniinfer" run --model.path "$tmp/model" --ids 3,14,15,92,65 -n 24 --ignore-eos --json \
        --engine.dtype fp32 --sampler.chain "$chain" $settings --sampler.seed "$seed" "$@" 2>"$tmp/err" | output_ids
}
chain="penalties, logit_bias, temperature, typical, top_k, top_p, min_p, multinomial"
settings="--sampler.repetition_penalty 1.1 --sampler.frequency_penalty 0.2 --sampler.temperature 1.3 --sampler.top_k 60
          --sampler.top_p 0.98 --sampler.min_p 0.001 --sampler.typical_p 0.99"

"$MI_BUILDDIR/tests/tiny_model" "$tmp/model" silu gate 2>"$tmp/err"
ok $? "a tiny model"
for seed in 1 2 3 4 5 6; do ask $seed; done >"$tmp/alone"
[ "$(sort -u "$tmp/alone" | grep -c ,)" -eq 6 ]
ok $? "six seeds give six texts"
for options in "--backend.cpu.threads 1" "--backend.cpu.threads 3" "--engine.cache none" "--engine.cache batch" \
               "--engine.prefill_step 2"; do
    for seed in 1 2 3 4 5 6; do ask $seed $options; done >"$tmp/other"
    cmp "$tmp/alone" "$tmp/other" >"$tmp/err" 2>&1
    ok $? "the same with $options"
done

if "$MI_BUILDDIR/miniinfer" inspect frontend:batch >/dev/null 2>&1; then
    for seed in 6 5 4 3 2 1; do
        echo "{\"id\": $seed, \"ids\": [3,14,15,92,65], \"max_tokens\": 24, \"ignore_eos\": true, \"seed\": $seed}"
    done >"$tmp/requests.jsonl"
    for options in "--engine.max_seqs 1" "--engine.max_seqs 4 --engine.prefill_step 7" "--engine.max_seqs 8"; do
        rm -f "$tmp/answers.jsonl"
        "$MI_BUILDDIR/miniinfer" batch "$tmp/requests.jsonl" -o "$tmp/answers.jsonl" --model.path "$tmp/model" \
            --engine.dtype fp32 --sampler.chain "$chain" $settings --engine.cache batch $options >/dev/null 2>"$tmp/err"
        for seed in 1 2 3 4 5 6; do grep "\"id\": *$seed," "$tmp/answers.jsonl" | output_ids; done >"$tmp/other"
        cmp "$tmp/alone" "$tmp/other" >>"$tmp/err" 2>&1
        ok $? "the same in a batch with $options"
    done
fi
echo "1..$n"
