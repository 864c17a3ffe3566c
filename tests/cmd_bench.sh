#!/bin/sh
# `bench` on a tiny model: what it prints adds up, and what it refuses.
. "$MI_SRCDIR/tests/tap.sh"
"$mi" inspect format:safetensors >/dev/null 2>&1 || skip_all "built without jansson"
"$MI_BUILDDIR/tests/tiny_model" model silu gate || skip_all "no tiny model"

status 0 "$mi" bench -m model --context 16 --batch 1,3 --prompt-tokens 40 --tokens 20 --rounds 3 --json
check "all of it" $?
if command -v python3 >/dev/null; then
	cp out bench.json
	python3 - <<-'END' >err 2>&1
	import json
	o = json.load(open('bench.json'))
	assert o['model'] == 'model' and o['device'] and o['cache'] and o['bytes_per_s'] > 0, o
	assert o['ready_ms'] >= sum(o['start_ms'].values()) * 0.99 and o['first_token_ms'] > o['ready_ms'], o
	r = o['results']
	assert [(x['work'], x['batch']) for x in r] == [('decode', 1), ('decode', 3), ('prefill', 1)], r
	assert [x.get('context') or x['prompt'] for x in r] == [16, 16, 40]
	for x in r:
	    assert 0 < x['ms_least'] <= x['ms'] <= x['ms_most'], x
	    tokens = 40 if x['work'] == 'prefill' else x['batch']
	    assert abs(x['tokens_per_s'] * x['ms'] / 1e3 - tokens) < 1e-3 * tokens, x
	# tiny_model: 2 layers, 7 matrices f32, tied or not a head of 96 x 32; 2 heads of 8
	matrices = 2 * (32 * 32 * 2 + 16 * 32 * 2 + 3 * 32 * 48) + 96 * 32
	limit = (matrices * 4 + 26 * 2 * 2 * 2 * 8 * 2) / o['bytes_per_s'] * 1e3
	assert 0.7 * limit < r[0]['limit_ms'] < 1.4 * limit, (limit, r[0])
	END
	check "its figures add up" $?
	# 15 rounds, and one that is not counted, of 90 steps each: no more than the whole command took.
	python3 - "$mi" <<-'END' >err 2>&1
	import json, subprocess, sys, time
	t = time.time()
	o = json.loads(subprocess.run([sys.argv[1], 'bench', 'decode', '-m', 'model', '--tokens', '90', '--context', '8',
	                               '--rounds', '15', '--json'],
	                              capture_output=True, check=True).stdout)
	ms = (time.time() - t) * 1e3
	x, = o['results']
	assert x['ms_least'] * 90 * 15 <= ms, (x, ms)
	END
	check "no more time than there was" $?
else
	skip "its figures add up" "no python3"
	skip "no more time than there was" "no python3"
fi
status 0 "$mi" bench batch -m model --tokens 4 --rounds 1 --batch 5 --context 70 --engine.max_seqs 2 --engine.max_len 32 &&
	grep -q '^decode  *5  *70 ' out && ! grep -q '^prefill' out
check "room is made" $?
status 0 "$mi" bench prefill -m model --prompt-tokens 7,9 --rounds 1 && [ "`grep -c '^prefill' out`" = 2 ] && ! grep -q '^decode' out
check "two prompts" $?
status 0 "$mi" bench offline -m model --sequences 5 --input 3-9 --output 4-8 --seed 7 --plot load.svg &&
	grep -q '^5 sequences, ' out && grep -q 'tokens/s out' out && grep -q '</svg>' load.svg
check "offline" $?
if command -v python3 >/dev/null; then
	status 0 "$mi" bench offline -m model --sequences 5 --input 3-9 --output 4-8 --seed 7 --json
	cp out bench.json
	# the same from where other engines take it
	python3 - "$mi" <<-'END' >err 2>&1
	import json, random, subprocess, sys
	o = json.load(open('bench.json'))
	random.seed(7)
	prompts = [[random.randint(0, 95) for _ in range(random.randint(3, 9))] for _ in range(5)]
	wanted = [random.randint(4, 8) for _ in range(5)]
	assert o['tokens_in'] == sum(map(len, prompts)) and o['sum_of_ids'] == sum(map(sum, prompts)), o
	assert o['tokens_out'] == sum(wanted) and abs(o['tokens_out_per_s'] * o['seconds'] - sum(wanted)) < 0.1, o
	assert max(wanted) <= o['steps'] <= sum(wanted), o
	# bytes of weights, and of a position, by two steps of `bench decode`
	d = json.loads(subprocess.run([sys.argv[1], 'bench', 'decode', '-m', 'model', '--tokens', '2', '--context', '8,24', '--rounds', '1',
	                               '--json'], capture_output=True, check=True).stdout)
	near, far = (r['limit_ms'] * d['bytes_per_s'] / 1e3 for r in d['results'])
	kv, weights = (far - near) / 16, near - (far - near) / 16 * 9
	positions = sum(len(p) + k for p, n in zip(prompts, wanted) for k in range(1, n))
	bytes = weights * o['steps'] + kv * positions
	assert abs(o['limit_s'] * o['bytes_per_s'] - bytes) < 1e-3 * bytes, (o['limit_s'] * o['bytes_per_s'], bytes)
	for key, n in ('first_token_ms', 5), ('between_tokens_ms', sum(wanted) - 5):
	    s = o[key]
	    assert sum(s['bars']) == n and 0 <= s['p50'] <= s['p90'] <= s['p99'] <= s['most'] <= o['seconds'] * 1e3, s
	assert o['prompt_tokens'] == o['tokens_in'] and o['found_tokens'] == o['hit_rate'] == o['preemptions'] == 0, o
	assert max(wanted) < o['kv_most'] <= o['kv_positions'], o
	END
	check "offline: Python's workload" $?
	cat >parts.py <<-'END'
	import json, sys
	o, second = json.load(open('out')), sys.argv[1] == 'second'
	b = o['breakdown']
	kinds = b['decode'], b['prompts']
	assert sum(k['steps'] for k in kinds) == o['steps'] and b['prompts']['steps'] > 0, b
	for k in kinds:
	    names = [n for n in k if n.endswith('_s')]
	    assert len(names) == 5 and abs(sum(k[n] for n in names) - k['s']) < 1e-6 and min(k[n] for n in names) >= 0, k
	    assert k['gemm_s'] > 0 and k['attention_s'] > 0 and k['sampling_s'] > 0 and k['rest_s'] > 0 == k['layers_s'], k
	    assert 0 < k['looked_into'] < k['steps'] if second else k['looked_into'] == k['steps'], k
	total = sum(k['s'] for k in kinds) + b['host_exposed_s'] + b['not_accounted_s']
	assert abs(total - o['seconds']) < 1e-6 and b['host_exposed_s'] >= 0, (total, o['seconds'])
	if not second: # every step has its marks: nothing is left but what lies before the first and behind the last
	    assert 0 <= b['not_accounted_s'] < 0.2 * o['seconds'], b
	END
	offline="bench offline -m model --sequences 20 --input 30-70 --output 20-40"
	status 0 "$mi" $offline --json && python3 parts.py first 2>err; check "where the time went" $?
	status 0 "${mi}_remote" $offline --json --engine.device remote --engine.max_seqs 8 --engine.prefill_step 32 && python3 parts.py second 2>err
	check "by a second run, where the device works by itself" $?
	# what was measured is told even if the look into it fails
	MI_TEST_FAIL='record 600 once' status 69 "${mi}_remote" $offline --json --engine.device remote --engine.max_seqs 8 --engine.prefill_step 32 &&
		grep -q '"tokens_out_per_s"' out && ! grep -q breakdown out && [ "`wc -l <err`" = 1 ]
	check "a second run that fails" $?
	status 0 "${mi}_remote" $offline --json --engine.device remote --once && ! grep -q breakdown out; check "and without" $?
	# a second run that is told nothing by the first: the same prompts would be found
	status 0 "${mi}_remote" $offline --json --engine.device remote --engine.cache paged --cache.paged.bytes "4 MiB" &&
		python3 -c "import json; o = json.load(open('out')); assert o['found_tokens'] == 0 and o['breakdown']['prompts']['steps'], o" 2>err
	check "prompts that no cache knows" $?
else
	skip "where the time went" "no python3"
	skip "offline: Python's workload" "no python3"
fi
refuses 64 'is not of offline' "$mi" bench offline -m model --rounds 3; check "rounds of offline" $?
refuses 64 'is of `bench offline`' "$mi" bench decode -m model --seed 3; check "a seed of decode" $?
refuses 64 'no range' "$mi" bench offline -m model --input 9-3; check "a range upside down" $?
refuses 64 'did you mean prefill?' "$mi" bench perfill -m model; check "no such work" $?
refuses 64 '1 to 1000' "$mi" bench -m model --rounds 0; check "no rounds" $?
refuses 64 "'x'" "$mi" bench -m model --batch 1,x; check "a batch that is none" $?
refuses 64 'wants numbers' "$mi" bench -m model --batch ,; check "no batch" $?
refuses 64 'of prefill' "$mi" bench decode -m model --prompt-tokens 4; check "a prompt for decode" $?
refuses 78 'max_len' "$mi" bench decode -m model --context 5000000; check "more than the model can" $?
done_testing
