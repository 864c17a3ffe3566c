# Paged memory: its book-keeping alone, then in the engine.
test_programs += tests/test_pages
tests_test_pages_SOURCES  = tests/test_pages.c plugins/cache/pages.c plugins/cache/pages.h plugins/prefix/chain.c \
	plugins/prefix/chain.h $(TEST_COMMON)
tests_test_pages_CPPFLAGS = $(TEST_CPPFLAGS)
tests_test_pages_LDADD    = $(TEST_LDADD)
check_PROGRAMS += tests/plugins/collide.so
tests_plugins_collide_so_SOURCES = tests/plugins/collide.c plugins/prefix/chain.c plugins/prefix/chain.h
tests_plugins_collide_so_LDFLAGS = $(plugin_ldflags)
tests_plugins_collide_so_LDADD   = $(plugin_ldadd)
test_programs += tests/test_paged tests/test_paged_remote
tests_test_paged_SOURCES  = tests/test_paged.c tests/engine_run.h $(TEST_COMMON)
tests_test_paged_CPPFLAGS = $(TEST_CPPFLAGS)
tests_test_paged_LDADD    = $(TEST_LDADD)
tests_test_paged_remote_SOURCES  = tests/test_paged.c tests/engine_run.h tests/remote.c tests/remote.h $(TEST_COMMON)
tests_test_paged_remote_CPPFLAGS = $(TEST_CPPFLAGS) -DMI_TEST_REMOTE
tests_test_paged_remote_LDADD    = $(TEST_LDADD)
test_programs += tests/test_determinism tests/test_determinism_remote
tests_test_determinism_remote_SOURCES  = tests/test_determinism.c tests/engine_run.h tests/remote.c tests/remote.h $(TEST_COMMON)
tests_test_determinism_remote_CPPFLAGS = $(TEST_CPPFLAGS) -DMI_TEST_REMOTE
tests_test_determinism_remote_LDADD    = $(TEST_LDADD)
tests_test_determinism_SOURCES  = tests/test_determinism.c tests/engine_run.h $(TEST_COMMON)
tests_test_determinism_CPPFLAGS = $(TEST_CPPFLAGS)
tests_test_determinism_LDADD    = $(TEST_LDADD)
test_programs += tests/test_eviction
tests_test_eviction_SOURCES  = tests/test_eviction.c plugins/cache/pages.c plugins/cache/pages.h $(TEST_COMMON)
tests_test_eviction_CPPFLAGS = $(TEST_CPPFLAGS)
tests_test_eviction_LDADD    = $(TEST_LDADD)
