#!/bin/sh
# A batch: prompts and requests, bad lines, resuming, and answers that do not depend on the company.
. "$MI_SRCDIR/tests/tap.sh"
m=$data/models/stories260K.gguf
[ -r "$m" ] || m=$models/stories260K.gguf
[ -r "$m" ] || skip_all "no stories260K.gguf; MI_DATA or MI_MODELS says where it is"
"$mi" inspect frontend:batch >/dev/null 2>&1 || skip_all "built without jansson"
flags="--model.path $m --engine.dtype fp32 --raw -n 12"

text() { sed -n "s/^{\"id\":$1,\"index\":${2-0},\"text\":\"\\([^\"]*\\)\".*/\\1/p" a.jsonl; }
alone() { "$mi" run --model.path "$m" --engine.dtype fp32 --raw -n 12 "$@" --json | sed 's/.*"text":"\([^"]*\)".*/\1/'; }

cat >in <<'END'
Once upon a time
{"prompt": "Lily", "id": "lily", "max_tokens": 5}

{"ids": [1, 403, 407], "id": 7, "stop": [" girl"], "temperature": 0.0, "top_k": 1}
{"prompt": "The park", "n": 3, "seed": 5, "id": "three", "temperature": 1.5, "logprobs": 2}
END
status 0 "$mi" batch in -o a.jsonl $flags --sampler.chain temperature,top_k,multinomial --seed 1 --batch-size 3 &&
	[ "`wc -l <a.jsonl`" = 6 ] && [ ! -s err ] && [ ! -s out ]
check "six answers to four lines" $?
[ "`text 1`" = "`alone -p 'Once upon a time' --sampler.chain temperature,top_k,multinomial --seed 1`" ]
check "the answer of a run alone" $?
[ "`text '"three"' 1`" = "`alone -p 'The park' --sampler.chain temperature,top_k,multinomial --seed 6 --sampler.temperature 1.5`" ]
check "the second of three answers has the next seed" $?
grep -q '"id":7,.*little","output_ids".*"finish_reason":"stop"' a.jsonl; check "a stop text of its own" $?
grep -q '"id":"lily".*"finish_reason":"length"' a.jsonl; check "a length of its own" $?
grep -q '"id":"three","index":2.*"logprobs":\[{"id":.*"top":\[\[' a.jsonl; check "log probabilities" $?
if command -v python3 >/dev/null; then
	python3 -c 'import json
for line in open("a.jsonl"): json.loads(line)' 2>err; check "every line is JSON" $?
fi

sort a.jsonl >whole
# As a kill leaves it: two whole lines and a half of the third.
head -n 2 a.jsonl >b.jsonl; sed -n 3p a.jsonl | head -c 30 >>b.jsonl
status 0 "$mi" batch in -o b.jsonl $flags --sampler.chain temperature,top_k,multinomial --seed 1 && sort b.jsonl | cmp -s - whole
check "goes on where it was killed" $?
status 0 "$mi" batch in -o b.jsonl $flags --sampler.chain temperature,top_k,multinomial --seed 1 && sort b.jsonl | cmp -s - whole
check "does nothing twice" $?
echo 'dear diary' >mine
cp mine copy
refuses 65 'mine:1: no answer of an earlier batch' "$mi" batch in -o mine $flags && cmp -s mine copy
check "leaves a file of others alone" $?

cat >bad <<'END'
Once upon a time
{"prompt": "x", "nonsense": 3}
{"prompt": 5}
{broken
{"prompt": "x", "ids": [1]}
{"ids": [99999]}
{"prompt": "a", "prompt": "b"}
{"prompt": "x", "max_tokens": 1.5}
{"messages": "x"}
{"prompt": "x", "id": [1]}
END
printf '\377\n' >>bad
"$mi" batch bad -o c.jsonl $flags >out 2>err
[ $? = 65 ] && [ "`wc -l <c.jsonl`" = 1 ] && [ "`wc -l <err`" = 11 ]
check "bad lines are reported, good ones answered" $?
for line in 2 3 4 5 6 7 8 9 10 11; do grep -q "^miniinfer: bad:$line: ." err || echo "# line $line"; done >out
[ ! -s out ]; check "each with its number" $?
refuses 66 'no/such' "$mi" batch /no/such -o d.jsonl $flags; check "no such input" $?
"$mi" batch in -o /dev/full $flags >out 2>err
[ $? = 74 ] && [ "`wc -l <err`" = 1 ]; check "a full disk ends it" $?
mkfifo pipe; (cat in; n=0; while [ $n -lt 100 ] && [ "`cat slow 2>/dev/null | wc -l`" != 6 ]; do n=`expr $n + 1`; sleep 0.1; done; echo $n >waited) >pipe &
status 0 true; "$mi" batch - -o slow $flags <pipe >out 2>err && wait && [ "`cat waited`" -lt 100 ]; check "answers are written while the input waits" $?
"$mi" batch - $flags <in 2>err | [ "`wc -l`" = 6 ]; check "from and to a pipe" $?
done_testing
