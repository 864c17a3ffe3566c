#!/bin/sh
# nvcc 13.0 takes the loop behind a discarded `if constexpr` away where what is discarded is itself a loop with a pragma and
# without braces: attention did without its mask once.  A check of the text, since most machines cannot run what comes of it.
echo 1..1
found=`find "$MI_SRCDIR/kernels" "$MI_SRCDIR/examples" -name '*.cu' -o -name '*.cuh' | sort | xargs awk '
	FNR == 1 { open = 0 }
	open && /^[ \t]*#pragma unroll/ { print FILENAME ":" FNR - 1 ": braces are missing" }
	{ open = /if constexpr \(/ && /\)[ \t]*$/ || /^[ \t]*(\} )?else[ \t]*$/ }'`
if [ -z "$found" ]; then echo 'ok 1 - loops with a pragma stand in braces under `if constexpr`'; else
	echo 'not ok 1 - loops with a pragma stand in braces under `if constexpr`'
	echo "$found" | sed 's/^/# /'
fi
