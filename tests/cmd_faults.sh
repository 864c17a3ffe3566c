#!/bin/sh
# What the commands do when the device fails: one line, a status for the supervisor, nothing left.
. "$MI_SRCDIR/tests/tap.sh"
mi="$MI_BUILDDIR/miniinfer_remote"
[ -x "$mi" ] || skip_all "not built"
mkdir plugins state && cp "$MI_BUILDDIR/tests/plugins/tiny.so" plugins
XDG_STATE_HOME=$PWD/state; export XDG_STATE_HOME
echo tiny >model.tiny
flags="-m model.tiny --plugin-path $PWD/plugins --engine.device remote --engine.linear reference --sampler.chain greedy"
# Standard output may have the beginning of an answer.
ends() { # status, words, command...
	tap_status=$1 tap_words=$2; shift 2
	status "$tap_status" "$@" && [ "`wc -l <err`" = 1 ] && grep -q "^miniinfer: .*$tap_words" err
}
export MI_TEST_FAIL

MI_TEST_FAIL=; status 0 "$mi" run $flags -p hello --raw -n 30 && [ ! -s err ]; check "nothing fails" $?

MI_TEST_FAIL='copy 3 lost' refuses 69 'remote: ' "$mi" run $flags -p hello --raw -n 30; check "the device is lost while weights load" $?
MI_TEST_FAIL='open 1 once' refuses 69 'remote: open' "$mi" run $flags -p hello --raw -n 30; check "it does not open" $?
MI_TEST_FAIL='alloc 9 memory' refuses 71 'bytes of device memory.* are free.*max_len' "$mi" run $flags -p hello --raw -n 30
check "no memory while weights load" $?
for fail in 'replay 9 lost' 'work 900 lost' 'wait 40 once' 'copy_all 1 lost' 'copy_all 2 lost' 'record 40 once'; do
	MI_TEST_FAIL=$fail ends 69 'remote: ' "$mi" run $flags -p hello --raw -n 60; check "run: $fail" $?
done
MI_TEST_FAIL='run 9 refused' ends 78 'remote: run 9' "$mi" run $flags -p hello --raw -n 60; check "run: a node refuses" $?
printf 'hello\nyou\n' >lines
MI_TEST_FAIL='replay 9 lost' "$mi" $flags -n 60 <lines >out 2>err
[ $? = 69 ] && [ "`wc -l <err`" = 1 ]; check "a pipe" $?
MI_TEST_FAIL='replay 9 lost' "$mi" chat $flags -n 60 <lines >out 2>err
[ $? = 69 ] && [ "`wc -l <err`" = 1 ]; check "chat in a pipe" $?
if command -v python3 >/dev/null; then
	MI_TEST_FAIL='replay 9 lost' TERM=dumb python3 - "$mi" chat $flags -n 60 >out 2>err <<-'END'
	import os, pty, sys
	pid, fd = pty.fork()
	if pid == 0:
	    os.execv(sys.argv[1], sys.argv[1:])
	os.write(fd, b'hello\n')        # and no end of input
	said = b''
	try:
	    while part := os.read(fd, 4096):
	        said += part
	except OSError:
	    pass
	sys.stdout.write(said.decode(errors='replace'))
	sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
	END
	[ $? = 69 ] && [ "`grep -c 'miniinfer: remote' out`" = 1 ]; check "chat on a terminal ends" $?
else
	skip "chat on a terminal ends" "no python3"
fi
MI_TEST_FAIL='replay 9 lost' refuses 69 'remote: ' "$mi" bench $flags --context 16 --batch 2 --prompt-tokens 16 --tokens 8 --rounds 2; check "bench" $?
MI_TEST_FAIL=; status 0 "$mi" verify $flags && [ ! -s err ]; check "verify, when nothing fails" $?
MI_TEST_FAIL='replay 9 lost' refuses 69 'remote: ' "$mi" verify $flags; check "verify, in its answers" $?
MI_TEST_FAIL='run 200 lost' refuses 69 'remote: ' "$mi" verify $flags -n 0; check "verify, in its nodes" $?
MI_TEST_FAIL='run 40 lost' refuses 69 'remote: ' "$mi" perplexity $flags -f "$MI_SRCDIR/README.md" --window 64 --windows 4; check "perplexity" $?

if ! "$mi" inspect frontend:batch >/dev/null 2>&1; then
	skip "batch" "built without jansson"; done_testing; exit
fi
i=0; while [ $i -lt 60 ]; do echo "{\"prompt\": \"number $i\", \"max_tokens\": `expr 5 + $i % 20`}"; i=`expr $i + 1`; done >in
flags="$flags --raw --batch-size 4 --generate.ignore_eos true"
MI_TEST_FAIL=; status 0 "$mi" batch in -o whole $flags; sort whole >sorted
for fail in 'replay 150 lost' 'work 5000 lost' 'wait 60 once'; do
	rm -f part
	MI_TEST_FAIL=$fail refuses 69 'stopped after [0-9]* answers.*remote: ' "$mi" batch in -o part $flags
	check "batch: $fail" $?
	have=`wc -l <part`; sort part >half; comm -13 sorted half >wrong
	[ "$have" -gt 0 ] && [ "$have" -lt 60 ] && [ ! -s wrong ] && grep -q "stopped after $have answers" err; check "its output has what was answered" $?
	MI_TEST_FAIL=; status 0 "$mi" batch in -o part $flags && sort part | cmp -s - sorted; check "and can be continued" $?
done
rm -f part; mkfifo pipe; (cat in; sleep 60) >pipe 2>/dev/null & writer=$!
MI_TEST_FAIL='replay 150 lost' timeout 20 "$mi" batch - -o part $flags <pipe >out 2>err
[ $? = 69 ] && [ "`wc -l <err`" = 1 ]; check "batch ends while its input does not" $?
kill $writer 2>/dev/null
rm -f part
MI_TEST_FAIL='run 400 refused' "$mi" batch in -o part $flags >out 2>err
[ $? = 65 ] && [ "`grep -c 'in:[0-9]*: .*remote: run 400' err`" = "`expr 60 - \`wc -l <part\``" ] && [ "`wc -l <part`" -ge 56 ]
check "batch: a node refuses, the step's requests fail" $?
MI_TEST_FAIL=; status 0 "$mi" batch in -o part $flags && sort part | cmp -s - sorted; check "and are tried again" $?
done_testing
