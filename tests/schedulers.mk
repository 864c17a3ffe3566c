scheduler_world = tests/scheduler_world.c tests/scheduler_world.h $(TEST_COMMON)
test_programs += tests/test_scheduler
tests_test_scheduler_SOURCES  = tests/test_scheduler.c $(scheduler_world)
tests_test_scheduler_CPPFLAGS = $(TEST_CPPFLAGS)
tests_test_scheduler_LDADD    = $(TEST_LDADD)
