#!/bin/sh
# What needs no model: --help, --version, the man page, refusals of the command line.
mi="$MI_BUILDDIR/miniinfer"
n=0
check() { # what, status
	n=`expr $n + 1`
	if [ "$2" = 0 ]; then echo "ok $n - $1"; else echo "not ok $n - $1"; fi
}
status() { # wanted, command...
	wanted=$1; shift
	"$@" >out.tmp 2>err.tmp </dev/null
	[ $? = "$wanted" ]
}
dir=`mktemp -d` && cd "$dir" || exit 1
trap 'rm -rf "$dir"' EXIT

status 0 "$mi" --version && grep -q '^miniinfer [0-9]' out.tmp; check "--version" $?
status 0 "$mi" --help && grep -q '^usage: miniinfer' out.tmp && grep -q '^Examples:' out.tmp; check "--help with examples" $?
for c in chat run batch inspect plan tokenize perplexity convert; do
	status 0 "$mi" help $c && grep -q "^usage: miniinfer $c" out.tmp && cp out.tmp one.tmp &&
		status 0 "$mi" $c --help && cmp -s one.tmp out.tmp && grep -q '^Examples:' out.tmp
	check "help $c and $c --help are one text" $?
done
! awk 'length > 100' one.tmp | grep -q .; check "help fits a terminal" $?
status 64 "$mi" inspct && grep -q 'did you mean inspect' err.tmp && [ `wc -l <err.tmp` = 1 ]; check "unknown command" $?
status 64 "$mi" help inspct && [ `wc -l <err.tmp` = 1 ]; check "help of an unknown command" $?
status 64 "$mi" run --promt x && grep -q 'did you mean --prompt' err.tmp && [ ! -s out.tmp ]; check "unknown option" $?
status 64 "$mi"; check "nothing at all" $?
"$mi" help --man >man.tmp && grep -q '^.TH MINIINFER 1' man.tmp; check "the man page" $?
if command -v groff >/dev/null; then
	groff -man -Tutf8 -ww man.tmp >page.tmp 2>err.tmp && [ ! -s err.tmp ] && grep -q tokens page.tmp
	check "groff has nothing to say about it" $?
else
	n=`expr $n + 1`; echo "ok $n - groff # SKIP not installed"
fi
"$mi" --help >/dev/full 2>err.tmp
[ $? = 74 ] && grep -q 'standard output' err.tmp; check "a full disk is noticed" $?
echo "1..$n"
