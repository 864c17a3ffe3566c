#!/bin/sh
# tests/reference.py, where there are Python, the data and the models.  MI_REFERENCE=all compares everything.
command -v python3 >/dev/null || { echo "1..0 # SKIP no python3"; exit 0; }
MI_DATA=${MI_DATA:-$MI_SRCDIR/../shared/data}; export MI_DATA
exec python3 "$MI_SRCDIR/tests/reference.py" "$@"
