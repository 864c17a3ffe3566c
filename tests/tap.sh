# tap.sh - what the scripts that test commands share; read with `.`.
# Sets mi, data and models, goes into an empty folder that is removed at the end.
mi="$MI_BUILDDIR/miniinfer"
data=${MI_DATA:-$MI_SRCDIR/../shared/data}
models=${MI_MODELS:-$data/models}
n=0
tap_dir=`mktemp -d` && cd "$tap_dir" || exit 99
trap 'rm -rf "$tap_dir"' EXIT

check() { # what, status
	n=`expr $n + 1`
	if [ "$2" = 0 ]; then echo "ok $n - $1"; else
		echo "not ok $n - $1"
		tail -n 5 out err 2>/dev/null | sed 's/^/# /'
	fi
}
skip() { n=`expr $n + 1`; echo "ok $n - $1 # SKIP $2"; }
done_testing() { echo "1..$n"; }
skip_all() { echo "1..0 # SKIP $1"; exit 0; }

# Runs a command into `out` and `err`, without standard input; true: it ended with the wanted status.
status() { # wanted, command...
	tap_wanted=$1; shift
	"$@" >out 2>err </dev/null
	tap_got=$?
	[ "$tap_got" = "$tap_wanted" ] || { echo "status $tap_got, not $tap_wanted: $*" >>err; return 1; }
}
# An error is one line on standard error, and nothing on standard output.
refuses() { # status, words that it must say, command...
	tap_words=$2
	tap_status=$1; shift 2
	status "$tap_status" "$@" && [ ! -s out ] && [ "`wc -l <err`" = 1 ] && grep -q "^miniinfer: .*$tap_words" err
}
