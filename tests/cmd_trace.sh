#!/bin/sh
# `trace` on a tiny model: the table, the file, and that both add up.
. "$MI_SRCDIR/tests/tap.sh"
"$mi" inspect format:safetensors >/dev/null 2>&1 || skip_all "built without jansson"
"$MI_BUILDDIR/tests/tiny_model" model silu gate || skip_all "no tiny model"
flags="-m model --ids 3,14,15,92,65"

status 0 "$mi" trace $flags --steps 3 -o trace.json && [ -s trace.json ] && grep -q '^prompt: 1 step, 5 rows, ' out &&
	grep -q '^decode: 3 steps, 3 rows, ' out && grep -q ' linear:dense@cpu  *linear_dense.so$' out
check "the table, and a file" $?
status 0 "$mi" trace $flags --steps 0 && grep -q '^prompt: ' out && ! grep -q '^decode: ' out; check "the prompt alone" $?
status 0 "$mi" trace $flags --batch 3 --engine.prefill_step 4 --steps 2 && grep -q '^decode: ' out; check "several sequences, in pieces" $?
if command -v python3 >/dev/null; then
	status 0 "$mi" trace $flags --steps 3 --rounds 3 --json -o trace.json && python3 - <<-'END' >err 2>&1
	import json
	o, t = json.load(open('out')), json.load(open('trace.json'))['traceEvents']
	assert all(e['ph'] == 'X' and e['dur'] >= 0 and e['args']['plugin'] for e in t)
	steps = [[e for e in t if e['args']['step'] == s] for s in range(4)]
	assert len(t) == sum(map(len, steps)) and len(steps[1]) == len(steps[2]) == len(steps[3]) > 20
	assert [s[0]['args']['rows'] for s in steps] == [5, 1, 1, 1] and {e['tid'] for e in steps[0]} == {1}
	ts = [e['ts'] for e in t]
	assert ts == sorted(ts), 'nodes in their order'
	for kind, events in (('prompt', steps[0]), ('decode', steps[1] + steps[2] + steps[3])):
	    total = sum(e['dur'] for e in events)
	    assert abs(o[kind]['us'] - total) < 1e-3 * total + 1, (kind, total)
	    assert abs(sum(f['share'] for f in o[kind]['features']) - 1) < 1e-6
	    assert sum(f['count'] for f in o[kind]['features']) == len(events)
	    for f in o[kind]['features']:
	        mine = sum(e['dur'] for e in events if e['cat'] == f['runs_as'])
	        assert abs(f['us'] - mine) < 1e-3 * mine + 1, f
	names = [e['name'] for e in steps[1]]
	assert 'model.layers.1: linear self_attn.o_proj' in names and 'linear lm_head' in names or 'linear model.embed_tokens' in names, names
	END
	check "their members" $?
else
	skip "their members" "no python3"
fi
refuses 74 'nowhere' "$mi" trace $flags -o /nowhere/at/all.json; check "a file that cannot be written" $?
refuses 64 'one of -p and --ids' "$mi" trace $flags -p x; check "two prompts" $?
refuses 64 '1 to 101' "$mi" trace $flags --rounds 0; check "no rounds" $?
refuses 64 'did you mean --steps?' "$mi" trace $flags --step 3; check "an option that it lacks" $?
done_testing
