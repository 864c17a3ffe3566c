test_programs += tests/test_linear
tests_test_linear_SOURCES  = tests/test_linear.c tests/linear.h $(TEST_COMMON)
tests_test_linear_CPPFLAGS = $(TEST_CPPFLAGS) -I$(top_srcdir)/kernels
tests_test_linear_LDADD    = kernels/libcpu.a $(TEST_LDADD)
