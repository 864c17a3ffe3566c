if HAVE_JANSSON
test_programs += tests/test_tokenizer_vectors
endif
TOKENIZER_CPPFLAGS = $(TEST_CPPFLAGS) -I$(top_srcdir)/plugins/formats -I$(top_srcdir)/plugins/tokenizers $(JANSSON_CFLAGS)
tests_test_tokenizer_vectors_SOURCES  = tests/test_tokenizer_vectors.c $(tokenizer_json) $(TEST_COMMON)
tests_test_tokenizer_vectors_CPPFLAGS = $(TOKENIZER_CPPFLAGS)
tests_test_tokenizer_vectors_LDADD    = $(TEST_LDADD) $(JANSSON_LIBS)
