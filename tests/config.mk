test_programs += tests/fuzz_ini tests/test_config tests/test_inspect
test_scripts  += tests/stale.sh
test_scripts  += tests/braces.sh
tests_test_inspect_SOURCES  = tests/test_inspect.c $(TEST_COMMON)
tests_test_inspect_CPPFLAGS = $(TEST_CPPFLAGS)
tests_test_inspect_LDADD    = $(TEST_LDADD)
tests_fuzz_ini_SOURCES  = tests/fuzz_ini.c tests/fuzz.h
tests_fuzz_ini_CPPFLAGS = $(TEST_CPPFLAGS)
tests_fuzz_ini_LDADD    = $(TEST_LDADD)
tests_test_config_SOURCES  = tests/test_config.c $(TEST_COMMON)
tests_test_config_CPPFLAGS = $(TEST_CPPFLAGS)
tests_test_config_LDADD    = $(TEST_LDADD)

check_PROGRAMS += tests/plugins/broken.so tests/plugins/data_query.so tests/plugins/dependent.so tests/plugins/missing.so
tests_plugins_broken_so_SOURCES = tests/plugins/broken.c
tests_plugins_broken_so_LDFLAGS = $(plugin_ldflags)
tests_plugins_broken_so_LDADD   = $(plugin_ldadd)
tests_plugins_data_query_so_SOURCES = tests/plugins/data_query.c
tests_plugins_data_query_so_CFLAGS  = $(AM_CFLAGS) -fvisibility=default
tests_plugins_data_query_so_LDFLAGS = $(AM_LDFLAGS) -shared
# Its dependency has a mi_plugin_query, it has none.
tests_plugins_dependent_so_SOURCES = tests/plugins/dependent.c
tests_plugins_dependent_so_LDFLAGS = $(AM_LDFLAGS) -shared -Wl,--no-as-needed -Ltests/plugins -Wl,-rpath,'$$ORIGIN'
tests_plugins_dependent_so_LDADD   = -l:acme.so
tests_plugins_dependent_so_DEPENDENCIES = tests/plugins/acme.so
tests_plugins_missing_so_SOURCES = tests/plugins/missing.c
tests_plugins_missing_so_LDFLAGS = $(AM_LDFLAGS) -shared
