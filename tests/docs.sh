#!/bin/sh
# The plugin in docs/plugins.md compiles as the page says and would load; the links of the documents lead somewhere.
. "$MI_SRCDIR/tests/tap.sh"
sed -n '/^```c$/,/^```$/p' "$MI_SRCDIR/docs/plugins.md" | sed '/^```/d' >relu2.c
PKG_CONFIG_PATH=$MI_BUILDDIR${PKG_CONFIG_PATH:+:$PKG_CONFIG_PATH}; export PKG_CONFIG_PATH
PATH=$MI_BUILDDIR:$PATH
# The page's own commands, the two blocks that follow the code.
awk '/^```sh$/ { n++; on = 1; next } /^```$/ { on = 0 } on && n <= 2' "$MI_SRCDIR/docs/plugins.md" >commands
[ -s relu2.c ] && sh -e commands >out 2>err && grep -q 'doc.relu2' out && [ ! -s err ]; check "the activation of docs/plugins.md" $?
for page in README.md CONTRIBUTING.md docs/quickstart.md docs/architecture.md docs/library.md docs/memory.md docs/checkpoints.md docs/plugins.md docs/verify.md; do
	dir=`dirname "$MI_SRCDIR/$page"`
	for link in `grep -o '](\([^)#]*\))' "$MI_SRCDIR/$page" | sed 's/^](//; s/)$//' | grep -v :`; do
		[ -e "$dir/$link" ] || echo "$page: $link"
	done
	for file in `grep -oE '\`(core|plugins|kernels|include|tests|examples|etc)/[a-z0-9_/.]*\`' "$MI_SRCDIR/$page" | tr -d '\`'`; do
		[ -e "$MI_SRCDIR/$file" ] || echo "$page: $file"
	done
done >out
sed -n '/^```c$/,/^```$/p' "$MI_SRCDIR/docs/library.md" | sed '/^```/d' >library.c
[ -s library.c ] && ${CC:-cc} -std=c11 -Wall -Wextra -Werror -o library library.c `pkg-config --cflags --libs miniinfer` >out2 2>err
check "the program of docs/library.md" $?
[ ! -s out ]; check "what the documents name is there" $?
done_testing
