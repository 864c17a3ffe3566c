test_programs += tests/test_sampler_draw
tests_test_sampler_draw_SOURCES  = tests/test_sampler_draw.c tests/sampler.h $(TEST_COMMON)
tests_test_sampler_draw_CPPFLAGS = $(TEST_CPPFLAGS)
tests_test_sampler_draw_LDADD    = $(TEST_LDADD)
test_programs += tests/test_scheduler
tests_test_scheduler_SOURCES  = tests/test_scheduler.c $(TEST_COMMON)
tests_test_scheduler_CPPFLAGS = $(TEST_CPPFLAGS)
tests_test_scheduler_LDADD    = $(TEST_LDADD)
