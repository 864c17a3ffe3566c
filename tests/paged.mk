# Paged memory: its book-keeping alone, then in the engine.
test_programs += tests/test_pages
tests_test_pages_SOURCES  = tests/test_pages.c plugins/cache/pages.c plugins/cache/pages.h plugins/prefix/chain.c \
	plugins/prefix/chain.h $(TEST_COMMON)
tests_test_pages_CPPFLAGS = $(TEST_CPPFLAGS)
tests_test_pages_LDADD    = $(TEST_LDADD)
