test_programs += tests/test_attention tests/test_ops
tests_test_ops_SOURCES  = tests/test_ops.c tests/device.h $(TEST_COMMON)
tests_test_ops_CPPFLAGS = $(TEST_CPPFLAGS) -I$(top_srcdir)/kernels
tests_test_ops_LDADD    = kernels/libfloats.a kernels/libcpu.a $(TEST_LDADD)
tests_test_attention_SOURCES  = tests/test_attention.c tests/device.h $(TEST_COMMON)
tests_test_attention_CPPFLAGS = $(TEST_CPPFLAGS) -I$(top_srcdir)/kernels
tests_test_attention_LDADD    = kernels/libfloats.a kernels/libcpu.a $(TEST_LDADD)
