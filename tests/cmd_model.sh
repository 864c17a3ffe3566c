#!/bin/sh
# The commands on a real, tiny model, in the reference mode.  Expected texts: logits_stories260k.json.
. "$MI_SRCDIR/tests/tap.sh"
m=$data/models/stories260K.gguf
[ -r "$m" ] || m=$models/stories260K.gguf
[ -r "$m" ] || skip_all "no stories260K.gguf; MI_DATA or MI_MODELS says where it is"
flags="--model.path $m --engine.dtype fp32 --sampler.chain greedy"
prompt='Once upon a time'
ids=1,403,407,261,378
story=', there was a little girl named Lily. She loved to play outside'

status 0 "$mi" run $flags --raw -p "$prompt" -n 24 && grep -q "^$story" out && [ ! -s err ]
check "run --raw continues a text, silently" $?
cp out text
status 0 "$mi" run $flags --ids $ids -n 24 && cmp -s out text; check "run --ids, with the beginning token" $?
printf %s "$prompt" >prompt
status 0 "$mi" run $flags --raw -f prompt -n 24 && cmp -s out text; check "run -f" $?
"$mi" run $flags --raw -n 24 <prompt >out 2>err && cmp -s out text; check "run from standard input" $?
status 0 "$mi" run $flags --raw -p "$prompt" -n 24 -t 1 --engine.prefill_step 2 && cmp -s out text
check "threads and prefill step change nothing" $?
status 0 "$mi" run $flags --raw -p "$prompt" -n 24 -v && cmp -s out text && grep -q 'tokens/s' err && grep -q ' ms  plugins' err
check "-v itemises on standard error" $?
mkdir refused && echo text >refused/not.so
status 0 "$mi" run $flags --raw -p "$prompt" -n 24 --plugin-path "$PWD/refused" && cmp -s out text &&
	[ "`cat err`" = "miniinfer: plugin refused: $PWD/refused/not.so: no shared object" ]
check "a plugin that is refused is told of, and the answer comes" $?
status 0 "$mi" run $flags --raw -p "$prompt" -n 24 --plugin-path ./here && cmp -s out text &&
	[ "`cat err`" = 'miniinfer: --plugin-path: ./here: plugins are searched in absolute directories only' ]
check "a folder of plugins that is not searched is told of" $?
status 0 "$mi" run $flags --raw -p "$prompt" -n 24 --generate.stop 'girl' && grep -q 'little $' out && ! grep -q girl out
check "a stop text ends the answer and is left out" $?

status 0 "$mi" run $flags --raw -p "$prompt" -n 4 --json --logprobs 2 --prompt-logprobs && [ "`wc -l <out`" = 1 ]
check "run --json prints one line" $?
if command -v python3 >/dev/null; then
	python3 - <<-'END' >err 2>&1
	import json
	o = json.load(open('out'))
	assert o['prompt_ids'] == [1, 403, 407, 261, 378], o['prompt_ids']
	assert len(o['output_ids']) == 4 and o['finish_reason'] == 'length'
	assert o['text'].startswith(', there')
	assert [l['id'] for l in o['logprobs']] == o['output_ids']
	assert all(l['top'][0][1] == l['logprob'] and len(l['top']) == 2 for l in o['logprobs'])
	assert [l['id'] for l in o['prompt_logprobs']] == o['prompt_ids'][1:]
	t = o['timings']
	assert t['prompt_tokens'] == 5 and t['decode_tokens'] == 4 and t['cached_tokens'] == 0 and t['prompt_ms'] > 0
	END
	check "its members" $?
else
	skip "its members" "no python3"
fi

printf '%s' "$prompt" | "$mi" tokenize -m "$m" --json >out 2>err && grep -qx '{"ids":\[403,407,261,378\]}' out
check "tokenize --json" $?
printf '%s\0\0%s' "$prompt" "$prompt" | "$mi" tokenize -m "$m" --json -0 >out 2>err &&
	[ "`tr '\n' ' ' <out`" = '{"ids":[403,407,261,378]} {"ids":[]} {"ids":[403,407,261,378]} ' ]
check "several texts" $?
: | "$mi" tokenize -m "$m" --json >out 2>err && grep -qx '{"ids":\[\]}' out; check "tokenize nothing" $?
printf 'a\n' | "$mi" tokenize -m "$m" >out 2>err && grep -q '	\\n$' out; check "tokenize spells pieces out" $?

for i in 1 2 3 4 5 6; do echo 'Once upon a time there was a little girl. She liked to play in the park.'; done >text
status 0 "$mi" perplexity $flags -f text --window 32 --windows 2 --json &&
	grep -q '"tokens":62,"window":32,"windows":2' out && grep -q '"ppl":[0-9]' out && grep -q '"ppl_second_half":[0-9]' out
check "perplexity --json" $?
refuses 65 'one window takes 512' "$mi" perplexity $flags -f text; check "perplexity of a short text" $?

status 0 "$mi" plan $flags --json && grep -q '"allocated":[0-9]' out && [ "`wc -l <out`" = 1 ]; check "plan --json" $?
status 0 "$mi" plan $flags && grep -q '^attention ' out && grep -q ' allocated$' out; check "plan" $?
status 0 "$mi" plan --model.path "$m" --engine.linear int4 && grep -q '^0-4, each *f32 *int4 *7 ' out && grep -q '^output *f32 *int8 *1 ' out &&
	grep -q '^output layer *int8 *auto' out
check "plan says how the layers are packed" $?
status 0 "$mi" plan --model.path "$m" --engine.linear int4 --engine.head dense && grep -q '^0-4, each *f32 *int4 *7 ' out &&
	grep -q '^output *f32 *dense *1 .* 0 32.000' out
check "and the output layer by itself" $?
for head in dense int4 fp8; do
	"$mi" perplexity --model.path "$m" --engine.head $head -f "$MI_SRCDIR/README.md" --window 32 --windows 2 --json >$head.out 2>err
done
status 0 "$mi" perplexity --model.path "$m" --engine.linear dense -f "$MI_SRCDIR/README.md" --window 32 --windows 2 --json &&
	cmp -s out dense.out && ! cmp -s out int4.out && ! cmp -s out fp8.out && ! cmp -s int4.out fp8.out
check "which is what then runs" $?
status 0 "$mi" inspect "$m" && [ -s out ]; check "inspect a model" $?

"$mi" run $flags --raw -p "$prompt" -n 24 >text 2>err
status 0 "$mi" convert "$m" dir && status 0 "$mi" run $flags --model.path dir --raw -p "$prompt" -n 24 && cmp -s out text
check "convert to safetensors: the same text" $?
refuses 74 'writes no file over another' "$mi" convert "$m" dir; check "convert onto something" $?

refuses 78 'unknown\|no link' "$mi" run $flags --raw -p x --sampler.temprature 1; check "an unknown parameter" $?
refuses 78 "prompt is empty" "$mi" run $flags --ids '' ; check "no prompt" $?
refuses 64 'no list of token ids' "$mi" run $flags --ids '1;2'; check "ids that are none" $?
refuses 78 'model has 0 to 511' "$mi" run $flags --ids 512; check "an id that the model lacks" $?
refuses 78 'max_len' "$mi" run $flags --raw -f text --engine.max_len 16; check "a prompt that is too long" $?
head -c 3000 "$m" >cut.gguf
refuses 65 'cut.gguf: byte' "$mi" run $flags --model.path "$PWD/cut.gguf" -p x; check "a model that is cut off" $?

# Ctrl-C once: what there is, and 130.  A script's background job would have the signal ignored.
if command -v setsid >/dev/null; then
	setsid sh -c 'trap - INT; exec "$@"' sh "$mi" run $flags --raw -p "$prompt" -n 400 --ignore-eos --generate.n 128 >out 2>err &
	sleep 1
	kill -TERM $! 2>/dev/null
	wait $!
	got=$?
	[ $got = 130 ] && [ -s out ] && [ ! -s err ]; check "a signal stops the answer and keeps what there is" $?
else
	skip "a signal stops the answer and keeps what there is" "no setsid"
fi
"$mi" run $flags --raw -p "$prompt" -n 24 >/dev/full 2>err
[ $? = 74 ] && [ "`wc -l <err`" = 1 ]; check "a full disk is noticed" $?
done_testing
