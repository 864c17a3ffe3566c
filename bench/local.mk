noinst_PROGRAMS += bench/bandwidth
bench_bandwidth_SOURCES = bench/bandwidth.c
bench_bandwidth_LDADD   = -lpthread
EXTRA_DIST += bench/compare.py
