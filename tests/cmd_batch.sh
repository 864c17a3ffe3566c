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
logprobs() { sed -n 's/.*"prompt_logprobs":\(\[{[^"]*"id":403,.*]]}\]\).*/\1/p' "$1"; }
echo '{"ids": [1, 403, 407], "logprobs": 2, "prompt_logprobs": true}' >scored
status 0 "$mi" batch scored -o scored.jsonl $flags && status 0 "$mi" run --model.path "$m" --engine.dtype fp32 --ids 1,403,407 -n 12 \
	--logprobs 2 --prompt-logprobs --json && [ -n "`logprobs out`" ] && [ "`logprobs scored.jsonl`" = "`logprobs out`" ]
check "those of the prompt, as run has them" $?
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
[ "`wc -l <err`" = 1 ] && grep -q '^miniinfer: b.jsonl: 6 of 6 answers are there$' err; check "says so in a line" $?
head -n 2 a.jsonl >b.jsonl; echo '{"id":"else","index":0,"request":"x"}' >>b.jsonl; printf '{"id"' >>b.jsonl
status 0 "$mi" batch in -o b.jsonl $flags --sampler.chain temperature,top_k,multinomial --seed 1 && [ "`wc -l <err`" = 1 ] &&
	grep -q 'b.jsonl: 2 of 6 answers are there and 1 to what in does not ask, a broken last line of 5 bytes was cut off; the others follow' err
check "and what else it found" $?

# What an answer depends on: its line, the settings, the model.
same="--sampler.chain temperature,top_k,multinomial --seed 1"
cp a.jsonl b.jsonl
sed 's/Once/ONCE/' in >other
refuses 65 'other:1: not the request that b.jsonl:[1-6] answered' "$mi" batch other -o b.jsonl $flags $same; check "another line" $?
refuses 78 'b.jsonl:[1-6]: answered with other settings' "$mi" batch in -o b.jsonl $flags --sampler.chain temperature,top_k,multinomial --seed 2
check "another seed" $?
refuses 78 'other settings' "$mi" batch in -o b.jsonl $flags $same --sampler.temperature 0.5; check "another temperature" $?
refuses 78 'other settings' "$mi" batch in -o b.jsonl $flags $same -n 13; check "another length" $?
refuses 78 'answered with another model' "$mi" batch in -o b.jsonl $flags $same --engine.dtype auto; check "another dtype" $?
status 0 "$mi" batch in -o b.jsonl $flags $same --batch-size 2 --order input --engine.prefill_step 4 && cmp -s a.jsonl b.jsonl
check "what changes no answer may change" $?
{ cat in; echo 'The end'; } >longer
status 0 "$mi" batch longer -o b.jsonl $flags $same && [ "`wc -l <b.jsonl`" = 7 ] && grep -q '6 of 7 answers' err
check "more lines" $?

# In the order of the input: the first is the longest.
cat >long <<'LINES'
{"prompt": "Once", "max_tokens": 60, "ignore_eos": true}
{"prompt": "Lily", "max_tokens": 1}
{"prompt": 7}
{"prompt": "Tom", "max_tokens": 2, "n": 2}
{"prompt": "The", "max_tokens": 30, "ignore_eos": true}
LINES
ids() { sed 's/^{"id":\([0-9]*\),"index":\([0-9]*\).*/\1.\2/' "$1" | tr '\n' ' '; }
same="$same --batch-size 4"
status 65 "$mi" batch long -o o.jsonl $flags $same --order input && [ "`ids o.jsonl`" = "1.0 2.0 4.0 4.1 5.0 " ]; check "in order" $?
status 65 "$mi" batch long -o f.jsonl $flags $same && [ "`ids f.jsonl`" != "`ids o.jsonl`" ] && [ "`sort f.jsonl | cksum`" = "`sort o.jsonl | cksum`" ]
check "as they finish" $?
sed -n '2p;3p' o.jsonl >p.jsonl
status 65 "$mi" batch long -o p.jsonl $flags $same --order input && grep -q '^miniinfer: long:2: .*written behind' err &&
	[ "`ids p.jsonl`" = "2.0 4.0 1.0 4.1 5.0 " ]
check "says where order cannot be kept" $?

printf '%s\n' '{"prompt": "a", "id": "x"}' '{"prompt": "b", "id": "x"}' '{"prompt": "c", "id": 1}' d >twice
status 65 "$mi" batch twice -o t.jsonl $flags && grep -q '^miniinfer: twice:2: its id is that of line 1, too' err && [ "`wc -l <t.jsonl`" = 3 ]
check "an id that is there twice" $?

# Ctrl-C: what is whole stays, the next run goes on.
i=0; while [ $i -lt 400 ]; do echo "Once upon a time $i"; i=$((i + 1)); done >many
"$mi" batch many -o s.jsonl $flags $same >out 2>err & pid=$!
i=0; while [ $i -lt 200 ] && [ "`cat s.jsonl 2>/dev/null | wc -l`" -lt 5 ]; do sleep 0.02; i=$((i + 1)); done
status 74 "$mi" batch many -o s.jsonl $flags $same && grep -q 's.jsonl: another batch writes to it' err; check "one at a time" $?
kill -TERM $pid; wait $pid
[ $? = 130 ] && there=`wc -l <s.jsonl` && [ "$there" -lt 400 ] && [ -z "`tail -c 1 s.jsonl | tr -d '\n'`" ]; check "stops in the middle" $?
status 0 "$mi" batch many -o s.jsonl $flags $same && grep -q "s.jsonl: $there of 400 answers are there; the others follow" err &&
	[ "`ids s.jsonl | tr ' ' '\n' | sort -u | grep -c .`" = 400 ] && [ "`wc -l <s.jsonl`" = 400 ]
check "and goes on" $?
if command -v python3 >/dev/null; then
	head -n 60 many >some
	cat >on_a_terminal <<-'END'
	import os, pty, re, sys
	pid, fd = pty.fork()
	if pid == 0:
	    os.environ['TERM'] = 'xterm'
	    os.execv(sys.argv[1], sys.argv[1:])
	out = b''
	try:
	    while True:
	        out += os.read(fd, 65536)
	except OSError:
	    pass
	assert os.waitpid(pid, 0)[1] == 0, out
	lines = out.decode().split('\r\x1b[K')
	shown = [re.match(r'\[(#*)(-*)\] (\d+) %, (\d+) of 60, (\d+) on their way, \d+ tokens/s(, \d+:\d\d left)?', l) for l in lines]
	shown = [m for m in shown if m]
	assert len(shown) >= 2, lines
	for m in shown:
	    done = int(m[4])
	    assert len(m[1]) + len(m[2]) == 24 and len(m[1]) == 24 * done // 60 and int(m[3]) == round(100 * done / 60), m[0]
	    assert bool(m[6]) == (10 < done < 60), m[0] # ten were there, and tell nothing of the speed
	assert [int(m[4]) for m in shown] == sorted(int(m[4]) for m in shown) and shown[-1][4] == '60', lines
	END
	rm -f bar.jsonl; "$mi" batch some -o bar.jsonl $flags $same >out 2>err; head -n 10 bar.jsonl >ten; mv ten bar.jsonl
	python3 on_a_terminal "$mi" batch some -o bar.jsonl $flags $same >out 2>err; check "a terminal shows how far it is" $?
else
	skip "a terminal shows how far it is" "no python3"
fi
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
