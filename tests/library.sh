#!/bin/sh
# libminiinfer from outside: what it exports, and the examples, built with pkg-config alone and run.
#
#   MINIINFER  the program         PKG_CONFIG_PATH  where miniinfer.pc is
#   LIBRARY    libminiinfer.so     TINY             tests/tiny_model
#   SOURCE     the source tree
# In the build tree (MI_BUILDDIR) all have defaults; make installcheck names what it installed.
MINIINFER=${MINIINFER:-$MI_BUILDDIR/miniinfer}
LIBRARY=${LIBRARY:-$MI_BUILDDIR/libminiinfer.so}
TINY=${TINY:-$MI_BUILDDIR/tests/tiny_model}
SOURCE=${SOURCE:-$MI_SRCDIR}
[ -z "$MI_BUILDDIR" ] || PKG_CONFIG_PATH=$MI_BUILDDIR${PKG_CONFIG_PATH:+:$PKG_CONFIG_PATH}
LD_LIBRARY_PATH=${LIBRARY%/*}${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
export PKG_CONFIG_PATH LD_LIBRARY_PATH

tmp=$(mktemp -d) || exit 99
trap 'rm -rf "$tmp"' EXIT
n=0 failed=0
: >"$tmp/err"
ok()
{
    n=$((n + 1))
    if [ "$1" -eq 0 ]; then echo "ok $n - $2"; else echo "not ok $n - $2"; failed=1; sed 's/^/# /' "$tmp/err"; fi
}
# Numbers of two files, line by line, to six digits of the larger one.
near() { paste "$1" "$2" | awk '{ d = $1 - $2; m = $2 < 0 ? -$2 : $2; if (NF != 2 || d * d > 4e-12 * (m < 1 ? 1 : m * m)) { print "line " NR ": " $0; bad = 1 } } END { exit bad || !NR }' >"$tmp/err"; }

# ---- what is exported: the map's functions, which are the header's, and nothing else
nm -D --defined-only "$LIBRARY" | awk '$2 != "A" { sub(/@.*/, "", $3); print $3 }' | sort >"$tmp/exported"
sed -n 's/^\tminiinfer_\([a-z]*\);$/miniinfer_\1/p' "$SOURCE/core/libminiinfer.map" | sort >"$tmp/map"
includes=$(pkg-config --cflags-only-I miniinfer)
for dir in $includes; do [ -e "${dir#-I}/miniinfer/miniinfer.h" ] && headers=${dir#-I}/miniinfer; done
cat "$headers/miniinfer.h" "$headers/generate.h" | tr '\n' ' ' | tr ';' '\n' |
    sed -n 's/.*MINIINFER_API [^(]*[ *]\(miniinfer_[a-z]*\)(.*/\1/p' | sort >"$tmp/header"
[ -s "$tmp/map" ] && diff "$tmp/exported" "$tmp/map" >"$tmp/err" && diff "$tmp/map" "$tmp/header" >>"$tmp/err"
ok $? "exports the functions of the header, no others"
nm -D --defined-only "$LIBRARY" | awk '$2 != "A" && $3 !~ /@@MINIINFER_[0-9.]*$/' >"$tmp/err"
[ ! -s "$tmp/err" ]
ok $? "each with a version"
readelf -d "$LIBRARY" >"$tmp/err"; grep -q 'SONAME.*\[libminiinfer\.so\.0\]' "$tmp/err"
ok $? "its soname has a version"

# ---- the examples, each built as its comment says
for name in activation attention generate batch; do
    sed -n 's/^ \* *cc -o/${CC:-cc} $SAN -std=c11 -Wall -Wextra -Wpedantic -Werror -o/p' "$SOURCE/examples/$name.c" >"$tmp/build.sh"
    cp "$SOURCE/examples/$name.c" "$tmp/" && [ -s "$tmp/build.sh" ] && (cd "$tmp" && . ./build.sh) >"$tmp/err" 2>&1
    ok $? "$name.c builds with pkg-config alone"
done
if command -v ${CXX:-c++} >/dev/null 2>&1 && [ -z "$SAN" ]; then
    printf '#include <miniinfer/generate.h>\nint main() { return miniinfer_close(0) ? 0 : 1; }\n' >"$tmp/cxx.cpp"
    (cd "$tmp" && ${CXX:-c++} -Wall -Wextra -Wpedantic -Werror -o cxx cxx.cpp $(pkg-config --cflags --libs miniinfer) && ./cxx) >"$tmp/err" 2>&1
    ok $? "the header is C++, too"
fi

numbers="-3.5 -2 -1e-3 0 0.25 1 7"
"$tmp/activation" leaky_relu negative_slope=0.1 $numbers >"$tmp/got" 2>"$tmp/err" &&
    printf '%s\n' $numbers | awk '{ print $1 < 0 ? 0.1 * $1 : $1 + 0 }' >"$tmp/want" && near "$tmp/got" "$tmp/want"
ok $? "activation leaky_relu is the formula's"
"$tmp/activation" silu $numbers >"$tmp/got" 2>"$tmp/err" &&
    printf '%s\n' $numbers | awk '{ printf "%.12g\n", $1 / (1 + exp(-$1)) }' >"$tmp/want" && near "$tmp/got" "$tmp/want"
ok $? "activation silu, too"
"$tmp/activation" leaky_relu negativ_slope=0.1 1 >"$tmp/got" 2>"$tmp/err"
[ $? = 1 ] && grep -q "did you mean negative_slope?" "$tmp/err"
ok $? "a parameter that nobody knows is refused by name"

for name in gqa simple; do
    "$tmp/attention" $name 0.25 >"$tmp/got" 2>"$tmp/err" && awk 'BEGIN {
        queries = 5; keys = 12; heads = 4; kv_heads = 2; dim = 16
        for (i = 0; i < queries * heads * dim; i++) q[i] = sin(0.7 * (i + 1))
        for (i = 0; i < keys * kv_heads * dim; i++) { k[i] = sin(0.3 * (i + 1)); v[i] = sin(0.11 * (i + 1)) }
        for (row = 0; row < queries; row++) for (h = 0; h < heads; h++) {
            sum = 0; g = int(h / (heads / kv_heads)); for (d = 0; d < dim; d++) out[d] = 0
            for (t = 0; t <= keys - queries + row; t++) {
                score = 0; at = (t * kv_heads + g) * dim
                for (d = 0; d < dim; d++) score += q[(row * heads + h) * dim + d] * k[at + d]
                w = exp(0.25 * score); sum += w
                for (d = 0; d < dim; d++) out[d] += w * v[at + d]
            }
            for (d = 0; d < dim; d++) printf "%.12g\n", out[d] / sum
        }
    }' >"$tmp/want" && near "$tmp/got" "$tmp/want"
    ok $? "attention $name is what plain loops give"
done

"$TINY" -t "$tmp/tiny" silu gate
greedy="--sampler.chain greedy"
for prompt in "Once upon a time" "Q: what, and why?" ""; do
    "$MINIINFER" run -m "$tmp/tiny" --raw -p "$prompt" -n 24 $greedy >"$tmp/want" 2>"$tmp/err"
    "$tmp/generate" "$tmp/tiny" "$prompt" 24 >"$tmp/got" 2>"$tmp/err"
    status=$?; [ -n "$prompt" ] || { [ $status = 1 ] && grep -q "empty" "$tmp/err"; ok $? "generate refuses an empty prompt"; continue; }
    [ "$(cat "$tmp/got")" = "$(cat "$tmp/want")" ] && [ -s "$tmp/got" ]
    ok $? "generate says what miniinfer run says"
done
"$MINIINFER" run -m "$tmp/tiny" -p "Hi" -n 24 $greedy >"$tmp/want" 2>"$tmp/err" &&
    "$tmp/generate" --chat "$tmp/tiny" "Hi" 24 >"$tmp/got" 2>"$tmp/err" && [ "$(cat "$tmp/got")" = "$(cat "$tmp/want")" ] && [ -s "$tmp/got" ]
ok $? "generate --chat, too"
"$tmp/generate" "$tmp/none" "Hi" >"$tmp/got" 2>"$tmp/err"
[ $? = 1 ] && [ ! -s "$tmp/got" ] && grep -q "^generate: .*$tmp/none" "$tmp/err"
ok $? "a model that is not there is named"

set -- "Once" "Two or three" "A dog, a cat" "why" "The sun shines on" "x" "Seven"
for prompt; do
    printf '%s' "$prompt"
    "$MINIINFER" run -m "$tmp/tiny" --raw -p "$prompt" -n 20 $greedy 2>"$tmp/err" | tr -d '\n'; echo
done >"$tmp/want"
"$tmp/batch" "$tmp/tiny" 20 "$@" >"$tmp/out" 2>"$tmp/err"
[ $? = 0 ] && awk -v n=$# '/^[0-9]+ of / { k++ } END { exit k != n }' "$tmp/err" && tr -d '\n' <"$tmp/out" >"$tmp/got" &&
    [ "$(cat "$tmp/got")" = "$(tr -d '\n' <"$tmp/want")" ]
ok $? "batch says so of each, in order"
echo "1..$n"
exit $failed
