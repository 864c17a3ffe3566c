if HAVE_JANSSON
test_programs += tests/fuzz_tokenizer_json tests/test_tokenizer tests/test_tokenizer_json tests/test_tokenizer_small \
	tests/test_tokenizer_vectors
endif
TOKENIZER_CPPFLAGS = $(TEST_CPPFLAGS) -I$(top_srcdir)/plugins/formats -I$(top_srcdir)/plugins/tokenizers $(JANSSON_CFLAGS)
tests_test_tokenizer_vectors_SOURCES  = tests/test_tokenizer_vectors.c $(tokenizer_json) $(TEST_COMMON)
tests_test_tokenizer_vectors_CPPFLAGS = $(TOKENIZER_CPPFLAGS)
tests_test_tokenizer_vectors_LDADD    = $(TEST_LDADD) $(JANSSON_LIBS)
tests_test_tokenizer_small_SOURCES  = tests/test_tokenizer_small.c $(tokenizer_json) $(TEST_COMMON)
tests_test_tokenizer_small_CPPFLAGS = $(TOKENIZER_CPPFLAGS)
tests_test_tokenizer_small_LDADD    = $(TEST_LDADD) $(JANSSON_LIBS)
EXTRA_DIST += tests/data/tokenizer_small.json tests/data/tokenizer_small.py
tests_fuzz_tokenizer_json_SOURCES  = tests/fuzz_tokenizer_json.c tests/fuzz.h $(tokenizer_json) $(TEST_COMMON)
tests_fuzz_tokenizer_json_CPPFLAGS = $(TOKENIZER_CPPFLAGS)
tests_fuzz_tokenizer_json_LDADD    = $(TEST_LDADD) $(JANSSON_LIBS)
tests_test_tokenizer_SOURCES  = tests/test_tokenizer.c plugins/tokenizers/merge.c plugins/tokenizers/normal.c \
	plugins/tokenizers/scan.c $(TEST_COMMON)
tests_test_tokenizer_CPPFLAGS = $(TOKENIZER_CPPFLAGS)
tests_test_tokenizer_LDADD    = $(TEST_LDADD)
tests_test_tokenizer_json_SOURCES  = tests/test_tokenizer_json.c $(tokenizer_json) $(TEST_COMMON)
tests_test_tokenizer_json_CPPFLAGS = $(TOKENIZER_CPPFLAGS)
tests_test_tokenizer_json_LDADD    = $(TEST_LDADD) $(JANSSON_LIBS)
