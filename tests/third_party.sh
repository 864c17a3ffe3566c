#!/bin/sh
# A third party's plugins, built from examples/plugin with pkg-config alone, used by runs.
#
#   MINIINFER  the program           PKG_CONFIG_PATH  where miniinfer-plugin.pc is
#   TINY       tests/tiny_model      EXAMPLES         examples/plugin
# In the build tree (MI_BUILDDIR) all four have defaults; make installcheck names what it installed.
MINIINFER=${MINIINFER:-$MI_BUILDDIR/miniinfer}
TINY=${TINY:-$MI_BUILDDIR/tests/tiny_model}
EXAMPLES=${EXAMPLES:-$MI_SRCDIR/examples/plugin}
[ -z "$MI_BUILDDIR" ] || PKG_CONFIG_PATH=$MI_BUILDDIR${PKG_CONFIG_PATH:+:$PKG_CONFIG_PATH}
export PKG_CONFIG_PATH

tmp=$(mktemp -d) || exit 99
trap 'rm -rf "$tmp"' EXIT
n=0 failed=0
ok()
{
    n=$((n + 1))
    if [ "$1" -eq 0 ]; then echo "ok $n - $2"; else echo "not ok $n - $2"; failed=1; sed 's/^/# /' "$tmp/err"; fi
}
same() { [ -n "$1" ] && [ "$1" = "$2" ]; }
differ() { [ -n "$1" ] && [ -n "$2" ] && [ "$1" != "$2" ]; }

# The ids that a run gives: ids MODEL OPTION...
ids()
{
    model=$1; shift
    "$MINIINFER" run --plugin-path "$tmp/acme:$tmp/acme/cuda" --model.path "$tmp/$model" --ids 3,14,15,92,65 -n 24 --ignore-eos \
        --json --engine.dtype fp32 "$@" 2>"$tmp/err" | output_ids
}
output_ids() { sed -n 's/.*"output_ids": *\[\([0-9, ]*\)\].*/\1/p' | tr -d ' '; }

mkdir "$tmp/acme" && cp "$EXAMPLES"/*.c "$EXAMPLES/Makefile" "$tmp/acme/" && chmod -R u+w "$tmp/acme"
${MAKE:-make} -C "$tmp/acme" CC="${CC:-cc}" SAN="$SAN" >"$tmp/err" 2>&1
ok $? "the examples build against miniinfer-plugin.pc"
for plugin in acme_relu2 acme_attention acme_sampler; do
    "$MINIINFER" inspect "$tmp/acme/$plugin.so" >"$tmp/err" 2>&1
    ok $? "$plugin.so is accepted"
done

"$TINY" "$tmp/core" relu gate && "$TINY" "$tmp/acme_model" acme.relu2 one
ok $? "two tiny models of the same function"
greedy="--sampler.chain greedy"
want=$(ids core $greedy)
same "$want" "$(ids acme_model $greedy)"
ok $? "acme.relu2 computes relu(g)^2"
same "$want" "$(ids core $greedy --engine.attention acme.plain)"
ok $? "acme.plain attends as the core's attention does"
same "$want" "$(ids acme_model $greedy --engine.attention acme.plain --engine.cache none)"
ok $? "both together, over a cache that keeps nothing"

chain="acme.epsilon, multinomial"
free=$(ids core --sampler.chain "$chain" --sampler.seed 5)
differ "$free" "$want"
ok $? "without a cutoff the chain draws by chance"
same "$free" "$(ids core --sampler.chain multinomial --sampler.seed 5)"
ok $? "and as if acme.epsilon were not there"
same "$want" "$(ids core --sampler.chain "$chain" --sampler.seed 5 --sampler.epsilon_cutoff 1)"
ok $? "with epsilon_cutoff = 1 only the likeliest is left"

# Two requests of one batch, alike but for the field.
request='"ids": [3,14,15,92,65], "max_tokens": 24, "ignore_eos": true, "seed": 5, "epsilon_cutoff":'
printf '{"id": "cut", %s 1}\n{"id": "free", %s 0}\n' "$request" "$request" >"$tmp/requests.jsonl"
if "$MINIINFER" inspect frontend:batch >/dev/null 2>&1; then
    "$MINIINFER" batch "$tmp/requests.jsonl" -o "$tmp/answers.jsonl" --plugin-path "$tmp/acme" \
        --model.path "$tmp/core" --engine.dtype fp32 --engine.cache batch --engine.max_seqs 2 \
        --sampler.chain "$chain" >/dev/null 2>"$tmp/err"
    same "$want" "$(grep '"cut"' "$tmp/answers.jsonl" | output_ids)" &&
        same "$free" "$(grep '"free"' "$tmp/answers.jsonl" | output_ids)"
    ok $? "each request of a batch has its own cutoff"
fi

ids core --sampler.chain "$chain" --sampler.epsilon_cutoff 2 >/dev/null
grep -q "epsilon_cutoff" "$tmp/err"
ok $? "a cutoff of 2 is refused by name"
"$MINIINFER" run --model.path "$tmp/acme_model" --ids 1 -n 1 --engine.dtype fp32 >"$tmp/err" 2>&1
[ $? -ne 0 ] && grep -q "acme.relu2" "$tmp/err"
ok $? "without the plugin the missing op is named"

# A model of its own with an operation of its own; where there is nvcc, for cards too.
mkdir "$tmp/acme/cuda" && cp "$EXAMPLES"/cuda/*.c "$EXAMPLES"/cuda/*.h "$EXAMPLES"/cuda/*.cu "$EXAMPLES/cuda/Makefile" "$tmp/acme/cuda/" &&
    chmod -R u+w "$tmp/acme/cuda"
${MAKE:-make} -C "$tmp/acme/cuda" CC="${CC:-cc}" SAN="$SAN" >"$tmp/err" 2>&1
ok $? "the example for cards builds"
[ -e "$tmp/acme/cuda/acme_add_cuda.so" ] || grep -q "acme_add_cuda.so is left out" "$tmp/err"
ok $? "or says that there is no nvcc"
for plugin in "$tmp"/acme/cuda/*.so; do
    "$MINIINFER" inspect "$plugin" >"$tmp/err" 2>&1
    ok $? "${plugin##*/} is accepted"
done
"$TINY" "$tmp/llama" silu gate && "$TINY" "$tmp/acme_llama" silu gate AcmeForCausalLM
ok $? "two tiny models of the same weights"
want=$(ids llama $greedy --engine.device cpu)
same "$want" "$(ids acme_llama $greedy --engine.device cpu)"
ok $? "acme's model gives what Llama gives"
same "$want" "$(ids acme_llama $greedy --engine.device cpu --engine.dtype auto --engine.kv_dtype fp32)"
ok $? "and with acme.add_norm in place of two nodes"
"$MINIINFER" verify --plugin-path "$tmp/acme/cuda" -m "$tmp/acme_llama" --ids 3,14,15,92,65 --engine.device cpu -v >"$tmp/err" 2>&1 &&
    grep -q "^ok .*  op:acme.vector_add@cpu  *acme_add_cpu.so " "$tmp/err" &&
    grep -q "^ok .*  fusion:acme.add_norm@cpu  *acme_add_cpu.so " "$tmp/err"
ok $? "verify finds both right"
ACME="$tmp/acme/cuda" MINIINFER=$MINIINFER TINY=$TINY sh "${0%/*}/gpu_example.sh" >"$tmp/err" 2>&1
status=$? reason=$(sed -n 's/^1\.\.0 # SKIP //p' "$tmp/err")
ok $status "on a card${reason:+ # SKIP $reason}"
echo "1..$n"
exit $failed
