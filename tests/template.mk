# The template interpreter: against Jinja2's own output, reference chats, hostile templates.
if HAVE_JANSSON
test_programs += tests/fuzz_template tests/test_template tests/test_chat
tests_fuzz_template_SOURCES  = tests/fuzz_template.c tests/fuzz.h tests/hostile_templates.h tests/json_var.h $(TEST_COMMON)
tests_fuzz_template_CPPFLAGS = $(TEST_CPPFLAGS) $(JANSSON_CFLAGS)
tests_fuzz_template_LDADD    = $(TEST_LDADD) $(JANSSON_LIBS)
tests_test_template_SOURCES  = tests/test_template.c tests/hostile_templates.h tests/json_var.h $(TEST_COMMON)
tests_test_template_CPPFLAGS = $(TEST_CPPFLAGS) $(JANSSON_CFLAGS)
tests_test_template_LDADD    = $(TEST_LDADD) $(JANSSON_LIBS)
tests_test_chat_SOURCES  = tests/test_chat.c tests/json_var.h $(tokenizer_json) $(TEST_COMMON)
tests_test_chat_CPPFLAGS = $(TEST_CPPFLAGS) -I$(top_srcdir)/plugins/formats $(JANSSON_CFLAGS)
tests_test_chat_LDADD    = $(TEST_LDADD) $(JANSSON_LIBS)
endif
EXTRA_DIST += tests/data/template_cases.py tests/data/template_cases.json
