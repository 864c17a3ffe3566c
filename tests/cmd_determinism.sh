#!/bin/sh
# [engine] deterministic = batch, and `verify --determinism`: on a tiny model, and on stories260K where it is there.
. "$MI_SRCDIR/tests/tap.sh"
"$mi" inspect format:safetensors >/dev/null 2>&1 || skip_all "built without jansson"
"$MI_BUILDDIR/tests/tiny_model" -t model silu gate && "$MI_BUILDDIR/tests/tiny_model" acme acme.silu gate || skip_all "no tiny model"
mkdir batchy undeclared && cp "$MI_BUILDDIR/tests/plugins/batchy.so" batchy && cp "$MI_BUILDDIR/tests/plugins/undeclared.so" undeclared
ids=3,14,15,92,65,35,89,79,32,38,46,26,43,38,32,79,50,28,84,19,71,69,39,93,75,10,58,20,94,45,59,23,7,81,64,6
flags="-m model --ids $ids -n 12 --determinism"
batch="--engine.deterministic batch --plugin-path $PWD/undeclared"

# what is chosen
status 0 "$mi" plan -m model --plugin-path "$PWD/undeclared" && grep -q 'acme.attention' out && grep -q 'linear:acme.linear' out; check "without the option the highest rank" $?
status 0 "$mi" plan -m model $batch && ! grep -q 'acme' out && grep -q 'attention *gqa' out && grep -q 'deterministic *batch' out; check "with it what promises the same bits" $?
refuses 78 "deterministic = batch: attention 'acme.attention' on cpu does not promise .*these fit .*gqa with " "$mi" plan -m model $batch --engine.attention acme.attention
check "an attention is refused, others named" $?
refuses 78 "deterministic = batch: linear 'acme.linear' on cpu, of undeclared.so, does not promise .* these do: .*dense,.* reference" \
	"$mi" plan -m model $batch --engine.linear acme.linear; check "a linear is" $?
refuses 78 "deterministic = batch: sampler 'acme.link' on cpu, of undeclared.so" "$mi" plan -m model $batch --sampler.chain "acme.link, greedy"
check "a link of the sampling chain is" $?
refuses 78 "deterministic = batch: op 'acme.silu' on cpu, of undeclared.so" "$mi" plan -m acme $batch --engine.linear auto; check "an operation is" $?
refuses 78 "deterministic.*off, batch" "$mi" plan -m model --engine.deterministic always; check "no such promise" $?

status 0 "$mi" inspect linear:dense && grep -q '^batch-invariant *yes$' out &&
	status 0 "$mi" inspect linear:acme.linear --plugin-path "$PWD/undeclared" && grep -q '^batch-invariant *no$' out
check "inspect says who promises it" $?

# the proof
status 0 "$mi" verify $flags && [ "`grep -c '^ok ' out`" = 10 ] && grep -q '^10 the same to the bit, 0 not, 0 not run$' out &&
	grep -q '^ok .*after making room for others (cache paged of .*: [1-9][0-9]* lost their place)' out &&
	grep -q '^ok .*beginnings found in the cache (cache paged: [1-9][0-9]* of [0-9]* tokens)' out && grep -q '^cost: 8 at once give ' out &&
	grep -q '^the option changes nothing that runs here' out
check "answers are the same alone, together, cut, found, after making room" $?
status 0 "$mi" verify $flags --chunks 3,5 --batch 5 --engine.scheduler fair --sampler.chain greedy && [ "`grep -c '^ok .*in pieces of' out`" = 2 ]
check "other pieces, another scheduler, greedy" $?
status 78 "$mi" verify $flags --plugin-path "$PWD/undeclared" --batch 3 && grep -q 'undeclared.so is for plans only' err && [ ! -s out ]
check "what promises nothing runs where the cost is measured, and nowhere before" $?
status 1 "$mi" verify $flags --plugin-path "$PWD/batchy" && grep -q '^DIFFERS  8 at once: request [0-7], token [0-9]*: ' out && grep -q ' not, ' out
check "a fusion whose bits depend on the batch is found out" $?
status 1 "$mi" verify $flags --plugin-path "$PWD/batchy" --json && grep -q '"ok":false' out && grep -q '"outcome":"differs"' out
check "the same as JSON" $?
status 0 "$mi" verify $flags --json && grep -q '"ok":true' out && ! grep -q '"outcome":"not_run"' out; check "all the same as JSON" $?
refuses 64 'node by node' "$mi" verify $flags --against cpu; check "two kinds of comparison" $?
refuses 64 'chunks is of --determinism' "$mi" verify -m model --ids 1 --chunks 4; check "pieces without it" $?
refuses 64 'chunks has 0' "$mi" verify $flags --chunks 4,0; check "a piece of nothing" $?
refuses 64 'batch is .1.' "$mi" verify $flags --batch 1; check "a batch of one" $?
refuses 78 'model has 0 to 95' "$mi" verify -m model --determinism --ids 96; check "an id that the model lacks" $?
if [ -f "$models/stories260K.gguf" ]; then
	status 0 "$mi" verify -m "$models/stories260K.gguf" --determinism -n 24 && grep -q '^10 the same to the bit' out; check "stories260K" $?
else
	skip "stories260K" "no model"
fi
done_testing
