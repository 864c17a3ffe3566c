#!/bin/sh
# `verify` on a tiny model: what agrees, a fusion that does not, and what it refuses.
. "$MI_SRCDIR/tests/tap.sh"
"$mi" inspect format:safetensors >/dev/null 2>&1 || skip_all "built without jansson"
"$MI_BUILDDIR/tests/tiny_model" model silu gate || skip_all "no tiny model"
flags="-m model --ids 3,14,15,92,65"
mkdir wrong && cp "$MI_BUILDDIR/tests/plugins/wrong.so" wrong

status 0 "$mi" verify $flags && grep -q '^nodes: 0 of [0-9]* out of tolerance' out && grep -q '^tokens: all 32 agree' out
check "a model agrees with its reference" $?
status 0 "$mi" verify $flags --batch 3 --steps 2 -n 0 -v && [ "`grep -c '^ok ' out`" = "`sed -n 's/^nodes: 0 of \([0-9]*\) .*/\1/p' out`" ] &&
	! grep -q '^tokens' out
check "-v lists every node, several sequences" $?
status 0 "$mi" verify $flags -n 8 --against linear:reference && grep -q '^tokens: all 8 agree' out; check "against another linear" $?
status 0 "$mi" verify $flags -n 0 --against attention:simple --node attention && ! grep -q '  linear:' out && grep -q '  attention:gqa@cpu' out
check "against another attention, those nodes only" $?

status 1 "$mi" verify $flags --plugin-path "$PWD/wrong" --node 'acme.gated' &&
	grep -q '^WRONG .* fusion:acme.gated@cpu  *wrong.so  *model.layers.0: silu + mul$' out &&
	grep -q '^nodes: 2 of 2 out of tolerance$' out &&
	grep -q '^first: model.layers.0: silu + mul, by fusion:acme.gated@cpu of wrong.so, in a step of ' out
check "a wrong fusion is named, with its plugin, and the status is 1" $?
status 1 "$mi" verify $flags --plugin-path "$PWD/wrong" && [ "`grep -c '^WRONG' out`" = 2 ] && ! grep '^WRONG' out | grep -v wrong.so
check "and nothing else is" $?
status 1 "$mi" verify $flags --plugin-path "$PWD/wrong" --json && grep -q '"ok":false' out && grep -q '"first_plugin":"wrong.so"' out
check "the same as JSON" $?
status 0 "$mi" verify $flags --plugin-path "$PWD/wrong" --plugins.disable wrong; check "without it all is right again" $?
if command -v python3 >/dev/null; then
	status 0 "$mi" verify $flags --json --steps 3 && python3 - <<-'END' >err 2>&1
	import json
	o = json.load(open('out'))
	assert o['ok'] is True and o['first'] is None and o['out_of_tolerance'] == 0
	assert o['tokens'] == {'compared': 32, 'agreed': 32}
	n = o['nodes']
	assert [x['worst'] for x in n] == sorted((x['worst'] for x in n), reverse=True)
	assert all(x['ok'] and x['steps'] == 4 for x in n), n
	assert sum('cache_worst' in x for x in n) == 2 and sum('nodes_worst' in x for x in n) == sum(x['fused'] for x in n) > 0
	END
	check "its members" $?
else
	skip "its members" "no python3"
fi

refuses 66 "no node is called 'zebra'" "$mi" verify $flags --node zebra; check "no such node" $?
refuses 64 "did you mean linear:" "$mi" verify $flags --against liner:dense; check "a reference that is none" $?
refuses 78 "no backend 'zebra'" "$mi" verify $flags --against zebra; check "a device that is not there" $?
refuses 64 'no list of token ids' "$mi" verify -m model --ids x; check "ids that are none" $?
refuses 64 'one of -p and --ids' "$mi" verify $flags -p x; check "two prompts" $?
refuses 78 'do not compute the same rows' "$mi" verify $flags --against cache:none; check "a cache that recomputes" $?
refuses 78 'model has 0 to 95' "$mi" verify -m model --ids 96; check "an id that the model lacks" $?
refuses 65 'tokenizer' "$mi" verify -m model; check "no ids and no tokenizer" $?
done_testing
