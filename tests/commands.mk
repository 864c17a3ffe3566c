test_programs += tests/test_command_line tests/test_json_out
test_scripts  += tests/batch_kill.sh tests/cmd_batch.sh tests/cmd_bench.sh tests/cmd_chat.sh tests/cmd_help.sh tests/cmd_model.sh tests/cmd_quantize.sh tests/docs.sh tests/dummy.sh tests/quickstart.sh
EXTRA_DIST    += tests/cmd_chat.py tests/quantize.py tests/tap.sh
tests_test_command_line_SOURCES  = tests/test_command_line.c $(TEST_COMMON)
tests_test_command_line_CPPFLAGS = $(TEST_CPPFLAGS)
tests_test_command_line_LDADD    = $(TEST_LDADD)
tests_test_json_out_SOURCES  = tests/test_json_out.c $(TEST_COMMON)
tests_test_json_out_CPPFLAGS = $(TEST_CPPFLAGS)
tests_test_json_out_LDADD    = $(TEST_LDADD)

test_programs += tests/test_quantize
tests_test_quantize_SOURCES  = tests/test_quantize.c core/quantize_awq.c core/quantize_linalg.c core/quantize_round.c $(TEST_COMMON)
tests_test_quantize_CPPFLAGS = $(TEST_CPPFLAGS)
tests_test_quantize_LDADD    = $(TEST_LDADD)

if HAVE_JANSSON
test_programs += tests/test_batch_request
endif
tests_test_batch_request_SOURCES  = tests/test_batch_request.c plugins/frontends/batch_request.c $(TEST_COMMON)
tests_test_batch_request_CPPFLAGS = $(TEST_CPPFLAGS) $(JANSSON_CFLAGS)
tests_test_batch_request_LDADD    = $(TEST_LDADD) $(JANSSON_LIBS)

test_scripts += tests/cmd_determinism.sh tests/cmd_trace.sh tests/cmd_verify.sh
test_programs += tests/test_verify
check_PROGRAMS += tests/plugins/wrong.so tests/plugins/batchy.so tests/plugins/undeclared.so
tests_test_verify_SOURCES  = tests/test_verify.c tests/scaled.h tests/remote.c tests/remote.h $(TEST_COMMON)
tests_test_verify_CPPFLAGS = $(TEST_CPPFLAGS)
tests_test_verify_LDADD    = $(TEST_LDADD)
tests_plugins_batchy_so_SOURCES = tests/plugins/batchy.c
tests_plugins_batchy_so_LDFLAGS = $(plugin_ldflags)
tests_plugins_batchy_so_LDADD   = $(plugin_ldadd) -lm
tests_plugins_undeclared_so_SOURCES = tests/plugins/undeclared.c
tests_plugins_undeclared_so_LDFLAGS = $(plugin_ldflags)
tests_plugins_undeclared_so_LDADD   = $(plugin_ldadd)
tests_plugins_wrong_so_SOURCES = tests/plugins/wrong.c
tests_plugins_wrong_so_LDFLAGS = $(plugin_ldflags)
tests_plugins_wrong_so_LDADD   = $(plugin_ldadd)
# The program with a device that fails: the objects of the other, and beside it for the plugins it finds there.
check_PROGRAMS += miniinfer_remote
test_scripts   += tests/cmd_faults.sh
miniinfer_remote_SOURCES  = tests/remote.c tests/remote.h tests/remote_main.c
miniinfer_remote_CPPFLAGS = $(miniinfer_CPPFLAGS) -I$(top_srcdir)/tests
miniinfer_remote_LDADD    = $(miniinfer_OBJECTS) $(miniinfer_LDADD)
miniinfer_remote_LDFLAGS  = $(AM_LDFLAGS) -Wl,--wrap=mi_plugin_load_all
