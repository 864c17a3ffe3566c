# One three-line group a test program; helpers in tests/common.h.
test_programs += tests/test_options tests/test_plugin tests/test_program tests/test_schedule
check_PROGRAMS += tests/plugins/acme.so tests/plugins/bad_abi.so tests/plugins/no_query.so tests/plugins/no_run.so \
	tests/plugins/stubs.so
tests_test_options_SOURCES  = tests/test_options.c $(TEST_COMMON)
tests_test_options_CPPFLAGS = $(TEST_CPPFLAGS)
tests_test_options_LDADD    = $(TEST_LDADD)
tests_test_plugin_SOURCES  = tests/test_plugin.c $(TEST_COMMON)
tests_test_plugin_CPPFLAGS = $(TEST_CPPFLAGS)
tests_test_plugin_LDADD    = $(TEST_LDADD)
tests_test_program_SOURCES  = tests/test_program.c $(TEST_COMMON)
tests_test_program_CPPFLAGS = $(TEST_CPPFLAGS)
tests_test_program_LDADD    = $(TEST_LDADD)
tests_test_schedule_SOURCES  = tests/test_schedule.c $(TEST_COMMON)
tests_test_schedule_CPPFLAGS = $(TEST_CPPFLAGS)
tests_test_schedule_LDADD    = $(TEST_LDADD)
tests_plugins_acme_so_SOURCES = tests/plugins/acme.c
tests_plugins_acme_so_LDFLAGS = $(plugin_ldflags)
tests_plugins_acme_so_LDADD   = $(plugin_ldadd)
tests_plugins_bad_abi_so_SOURCES = tests/plugins/bad_abi.c
tests_plugins_bad_abi_so_LDFLAGS = $(plugin_ldflags)
tests_plugins_bad_abi_so_LDADD   = $(plugin_ldadd)
tests_plugins_no_run_so_SOURCES = tests/plugins/no_run.c
tests_plugins_no_run_so_LDFLAGS = $(plugin_ldflags)
tests_plugins_no_run_so_LDADD   = $(plugin_ldadd)
tests_plugins_stubs_so_SOURCES = tests/plugins/stubs.c
tests_plugins_stubs_so_LDFLAGS = $(plugin_ldflags)
tests_plugins_stubs_so_LDADD   = $(plugin_ldadd)
tests_plugins_no_query_so_SOURCES = tests/plugins/no_query.c
tests_plugins_no_query_so_LDFLAGS = $(AM_LDFLAGS) -shared
test_programs += tests/test_engine
check_PROGRAMS += tests/plugins/tiny.so
tests_test_engine_SOURCES  = tests/test_engine.c $(TEST_COMMON)
tests_test_engine_CPPFLAGS = $(TEST_CPPFLAGS)
tests_test_engine_LDADD    = $(TEST_LDADD)
tests_plugins_tiny_so_SOURCES = tests/plugins/tiny.c
tests_plugins_tiny_so_LDFLAGS = $(plugin_ldflags)
tests_plugins_tiny_so_LDADD   = $(plugin_ldadd)
# The same tests on a device that works by itself.
test_programs += tests/test_engine_remote
tests_test_engine_remote_SOURCES  = tests/test_engine.c tests/remote.c tests/remote.h $(TEST_COMMON)
tests_test_engine_remote_CPPFLAGS = $(TEST_CPPFLAGS) -DMI_TEST_REMOTE
tests_test_engine_remote_LDADD    = $(TEST_LDADD)
# And where that device fails.
test_programs += tests/test_faults
tests_test_faults_SOURCES  = tests/test_faults.c tests/remote.c tests/remote.h $(TEST_COMMON)
tests_test_faults_CPPFLAGS = $(TEST_CPPFLAGS)
tests_test_faults_LDADD    = $(TEST_LDADD)
