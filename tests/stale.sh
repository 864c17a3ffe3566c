#!/bin/sh
# What is written from the option tables says what they say; sample configurations are possible.
unset MINIINFER_PLUGIN_PATH
mi=$MI_BUILDDIR/miniinfer
docs=$MI_SRCDIR/docs/configuration.md
dir=`mktemp -d` || exit 99
trap 'rm -rf "$dir"' EXIT
set -- "$MI_SRCDIR"/etc/*.ini
echo "1..`expr $# + 3`"
n=0
check() { # status, what
	n=`expr $n + 1`
	if test "$1" = 0; then echo "ok $n - $2"; else echo "not ok $n - $2 (make reference)"; fi
}

"$mi" inspect --sample >"$dir/default.ini" && cmp "$dir/default.ini" "$MI_SRCDIR/etc/default.ini" >&2
check $? 'etc/default.ini is what `inspect --sample` prints'

# Section by section: a plugin that this machine cannot build has its section in the docs only.
# One of a linear that both backends have is known by its file, too.
key='/^## / { split($0, w); line = $0; if ((getline) <= 0) $0 = ""; k = w[2] "|" (match($0, /`[^`]*[.]so`/) ? substr($0, RSTART + 1, RLENGTH - 2) : "") }'
section() { awk -v want="$2" "$key"'line != "" { on = k == want; if (on) print line; line = "" } on' "$1"; }
headings() { awk "$key"'line != "" { print k; line = "" }' "$1"; }
stale=0
"$mi" inspect --reference >"$dir/now.md" || stale=1
awk '/^## /{ exit } 1' "$docs" >"$dir/a"
awk '/^## /{ exit } 1' "$dir/now.md" | cmp - "$dir/a" >&2 || stale=1
for s in `{ headings "$docs"; headings "$dir/now.md"; } | sort -u`; do
	section "$docs" "$s" >"$dir/a"
	section "$dir/now.md" "$s" >"$dir/b"
	cmp -s "$dir/a" "$dir/b" && continue
	so=${s#*|}
	if test -s "$dir/b" || test -z "$so" || test -e "$MI_PLUGINS/$so" ||
		! grep -q "plugins/$so" "$MI_SRCDIR"/plugins/*/local.mk; then
		echo "# $s differs" && stale=1
	fi
done
check $stale 'docs/configuration.md is what `inspect --reference` prints'

sed 's/^;\([a-z_]* =\)/\1/' "$dir/default.ini" >"$dir/all.ini"
set -- "$@" "$dir/all.ini"
for ini; do
	"$mi" inspect --config "$ini" backend >"$dir/out" 2>&1 || sed 's/^/# /' "$dir/out"
	"$mi" inspect --config "$ini" backend >/dev/null 2>&1
	check $? "`basename "$ini"` is possible"
done
