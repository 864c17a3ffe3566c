#!/bin/sh
# tests/quantised.py, where there is Python.
command -v python3 >/dev/null || { echo "1..0 # SKIP no python3"; exit 0; }
exec python3 "$MI_SRCDIR/tests/quantised.py"
