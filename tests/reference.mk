test_scripts += tests/reference.sh
EXTRA_DIST   += tests/reference.py
