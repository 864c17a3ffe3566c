# Memory and files that fail.
if HAVE_JANSSON
test_programs += tests/test_failing
endif
tests_test_failing_SOURCES  = tests/test_failing.c tests/failing.c tests/failing.h tests/formats_common.h \
	tests/gguf_builder.h $(TEST_COMMON)
tests_test_failing_CPPFLAGS = $(TEST_CPPFLAGS)
tests_test_failing_LDADD    = $(TEST_LDADD)
tests_test_failing_LDFLAGS  = $(AM_LDFLAGS) -rdynamic
