test_programs += tests/test_ops
tests_test_ops_SOURCES  = tests/test_ops.c tests/device.h $(TEST_COMMON)
tests_test_ops_CPPFLAGS = $(TEST_CPPFLAGS) -I$(top_srcdir)/kernels
tests_test_ops_LDADD    = kernels/libcpu.a $(TEST_LDADD)
