noinst_PROGRAMS += bench/bandwidth
bench_bandwidth_SOURCES = bench/bandwidth.c
bench_bandwidth_LDADD   = -lpthread
EXTRA_DIST += bench/attention_peer.py bench/batched.py bench/card.py bench/compare.py bench/process.py bench/start.py
noinst_PROGRAMS += bench/prefix
bench_prefix_SOURCES  = bench/prefix.c bench/plugins.h
bench_prefix_CPPFLAGS = $(AM_CPPFLAGS) -I$(top_srcdir)/core
bench_prefix_LDADD    = core/libcore.a $(GLIB_LIBS) $(INIH_LIBS) -lm
noinst_PROGRAMS += bench/linear
bench_linear_SOURCES  = bench/linear.c
bench_linear_CPPFLAGS = $(AM_CPPFLAGS) -I$(top_srcdir)/core -I$(top_srcdir)/kernels
bench_linear_LDADD    = $(cpu_kernels) core/libcore.a $(GLIB_LIBS) $(INIH_LIBS) -lm
if HAVE_JANSSON
noinst_PROGRAMS += bench/tokenizer
endif
bench_tokenizer_SOURCES  = bench/tokenizer.c bench/plugins.h $(tokenizer_json)
bench_tokenizer_CPPFLAGS = $(AM_CPPFLAGS) -I$(top_srcdir)/core -I$(top_srcdir)/plugins/formats $(JANSSON_CFLAGS)
bench_tokenizer_LDADD    = core/libcore.a $(GLIB_LIBS) $(INIH_LIBS) $(JANSSON_LIBS) -lm
EXTRA_DIST += bench/tokenizer_peer.py
EXTRA_DIST += bench/shapes/qwen2-0.5b.json bench/shapes/qwen2-1.5b.json bench/shapes/qwen2-7b.json \
	bench/shapes/qwen3-0.6b.json
noinst_PROGRAMS += bench/scheduler bench/rhythm
bench_scheduler_SOURCES  = bench/scheduler.c bench/scheduler_plot.c bench/scheduler_sim.c bench/scheduler_sim.h bench/plugins.h
bench_scheduler_CPPFLAGS = $(AM_CPPFLAGS) -I$(top_srcdir)/core
bench_scheduler_LDADD    = core/libcore.a $(GLIB_LIBS) $(INIH_LIBS) -lm
bench_rhythm_SOURCES  = bench/rhythm.c bench/plugins.h
bench_rhythm_CPPFLAGS = $(AM_CPPFLAGS) -I$(top_srcdir)/core
bench_rhythm_LDADD    = core/libcore.a $(GLIB_LIBS) $(INIH_LIBS) -lm
EXTRA_DIST += bench/traces/mixed.csv
