#!/bin/sh
# The chat on a terminal, the chat in a pipe, and `miniinfer` alone in a pipe.
. "$MI_SRCDIR/tests/tap.sh"
m=$data/models/stories260K.gguf
[ -r "$m" ] || m=$models/stories260K.gguf
[ -r "$m" ] || skip_all "no stories260K.gguf; MI_DATA or MI_MODELS says where it is"
# The model has no template of its own.
echo '{{ bos_token }}{% for m in messages %}{{ m.content }}{% endfor %}' >template
flags="--model.path $m --engine.dtype fp32 --sampler.chain greedy --model.chat_template $PWD/template"
XDG_STATE_HOME=$PWD/state; export XDG_STATE_HOME

"$mi" run $flags -p 'Once upon a time' -n 12 >one 2>err; "$mi" run $flags -p 'Lily' -n 12 >two 2>>err
printf 'Once upon a time\n\nLily\n' | "$mi" $flags -n 12 >out 2>err && [ ! -s err ] && cat one two | cmp -s - out
check "one answer for each line of a pipe" $?
printf 'Once upon a time\n' | "$mi" chat $flags -n 12 >out 2>err && cmp -s one out && [ ! -s err ] && [ ! -e state ]
check "a chat in a pipe prints answers only" $?
refuses 64 'no option' "$mi" chat --promt x; check "a wrong option" $?
"$mi" run --model.path "$m" --engine.dtype fp32 -p x >out 2>err </dev/null
[ $? = 78 ] && [ "`wc -l <err`" = 1 ] && grep -q template err; check "a model without a template, in one line" $?

if ! command -v python3 >/dev/null; then
	skip "the chat on a terminal" "no python3"
elif "$mi" inspect frontend:chat 2>/dev/null | grep -q plain; then
	skip "the chat on a terminal" "built without libedit"
else
	TERM=xterm LC_ALL=C.UTF-8 TAP_FIRST=`expr $n + 1` python3 "$MI_SRCDIR/tests/cmd_chat.py" "$mi" chat $flags -n 300
	n=`expr $n + 9`
	[ "`stat -c %a state/miniinfer/history`" = 600 ]; check "nobody else reads the history" $?
fi
done_testing
