#!/bin/sh
# What needs no model: --help, --version, the man page, refusals of the command line.
. "$MI_SRCDIR/tests/tap.sh"

status 0 "$mi" --version && grep -q '^miniinfer [0-9]' out; check "--version" $?
status 0 "$mi" --help && grep -q '^usage: miniinfer' out && grep -q '^Examples:' out; check "--help with examples" $?
for c in chat run batch inspect plan tokenize perplexity convert quantize bench verify trace; do
	status 0 "$mi" help $c && grep -q "^usage: miniinfer $c" out && cp out one &&
		status 0 "$mi" $c --help && cmp -s one out && grep -q '^Examples:' out
	check "help $c and $c --help are one text" $?
done
! awk 'length > 100' one | grep -q .; check "help fits a terminal" $?
refuses 64 'did you mean inspect?' "$mi" inspct; check "unknown command" $?
refuses 64 "no command 'inspct'" "$mi" help inspct; check "help of an unknown command" $?
refuses 64 'did you mean --prompt?' "$mi" run --promt x; check "unknown option" $?
refuses 64 'what shall it run' "$mi"; check "nothing at all" $?
refuses 64 'one of -p, -f and --ids' "$mi" run -p a -f b; check "two prompts" $?
refuses 64 'with --json only' "$mi" run -p a --logprobs 3; check "log probabilities without --json" $?
refuses 64 '1 to 20 are possible' "$mi" run -p a --json --logprobs 30; check "too many log probabilities" $?
refuses 64 'wants a text: -f FILE' "$mi" perplexity; check "perplexity of nothing" $?
refuses 64 "keep, f32, f16 and bf16" "$mi" convert a b --dtype f31; check "unknown dtype" $?
refuses 66 'no such' "$mi" run -p x -m /no/such/model; check "a model that is not there" $?
refuses 66 'Hugging Face cache' env HF_HOME="$PWD" "$mi" run -p x -m some/body; check "a name that is not in the cache" $?
refuses 66 'x.ini' "$mi" --config /no/such/x.ini; check "a configuration that is not there" $?
refuses 78 'did you mean cache?' "$mi" run -p x --engine.cahce full; check "unknown key on the command line" $?
printf '[engine]\nmax_seqs = 0\n' >x.ini
refuses 78 'x.ini:2' "$mi" run -p x --config x.ini; check "a value out of range, with file and line" $?
refuses 78 'no model' "$mi" run -p x; check "no model" $?

status 0 "$mi" help --man && grep -q '^.TH MINIINFER 1' out; check "the man page" $?
if command -v groff >/dev/null; then
	groff -man -Tutf8 -ww out >page 2>err && [ ! -s err ] && grep -q tokens page
	check "groff has nothing to say about it" $?
else
	skip "groff has nothing to say about it" "not installed"
fi
"$mi" --help >/dev/full 2>err
[ $? = 74 ] && grep -q 'standard output' err; check "a full disk is noticed" $?
done_testing
