test_programs += tests/test_command_line tests/test_json_out
test_scripts  += tests/cmd_help.sh
tests_test_command_line_SOURCES  = tests/test_command_line.c $(TEST_COMMON)
tests_test_command_line_CPPFLAGS = $(TEST_CPPFLAGS)
tests_test_command_line_LDADD    = $(TEST_LDADD)
tests_test_json_out_SOURCES  = tests/test_json_out.c $(TEST_COMMON)
tests_test_json_out_CPPFLAGS = $(TEST_CPPFLAGS)
tests_test_json_out_LDADD    = $(TEST_LDADD)
