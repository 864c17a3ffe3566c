test_programs += tests/test_config
tests_test_config_SOURCES  = tests/test_config.c $(TEST_COMMON)
tests_test_config_CPPFLAGS = $(TEST_CPPFLAGS)
tests_test_config_LDADD    = $(TEST_LDADD)
