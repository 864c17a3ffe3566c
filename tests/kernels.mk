test_programs += tests/test_linear tests/test_linear_blocks
tests_test_linear_SOURCES  = tests/test_linear.c tests/linear.h $(TEST_COMMON)
tests_test_linear_CPPFLAGS = $(TEST_CPPFLAGS) -I$(top_srcdir)/kernels
tests_test_linear_LDADD    = $(cpu_kernels) $(TEST_LDADD)
tests_test_linear_blocks_SOURCES  = tests/test_linear_blocks.c tests/linear.h $(TEST_COMMON)
tests_test_linear_blocks_CPPFLAGS = $(TEST_CPPFLAGS) -I$(top_srcdir)/kernels
tests_test_linear_blocks_LDADD    = $(cpu_kernels) $(TEST_LDADD)
