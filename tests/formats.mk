test_programs += tests/test_blocks tests/test_gguf tests/test_gguf_hostile tests/test_gguf_keys
tests_test_gguf_keys_SOURCES  = tests/test_gguf_keys.c tests/formats_common.h tests/gguf_builder.h $(TEST_COMMON)
tests_test_gguf_keys_CPPFLAGS = $(TEST_CPPFLAGS)
tests_test_gguf_keys_LDADD    = $(TEST_LDADD)
tests_test_gguf_hostile_SOURCES  = tests/test_gguf_hostile.c tests/formats_common.h tests/gguf_builder.h $(TEST_COMMON)
tests_test_gguf_hostile_CPPFLAGS = $(TEST_CPPFLAGS)
tests_test_gguf_hostile_LDADD    = $(TEST_LDADD)
tests_test_blocks_SOURCES  = tests/test_blocks.c tests/data/blocks.h
tests_test_blocks_CPPFLAGS = $(TEST_CPPFLAGS) -I$(top_srcdir)/kernels
tests_test_blocks_LDADD    = kernels/libcpu.a $(CMOCKA_LIBS) -lm
tests_test_gguf_SOURCES  = tests/test_gguf.c $(TEST_COMMON)
tests_test_gguf_CPPFLAGS = $(TEST_CPPFLAGS)
tests_test_gguf_LDADD    = $(TEST_LDADD)
if HAVE_JANSSON
test_programs += tests/test_json_scan tests/test_quants tests/test_safetensors tests/test_convert tests/fuzz_formats
check_PROGRAMS += tests/plugins/small_shards.so
endif
tests_test_json_scan_SOURCES  = tests/test_json_scan.c plugins/formats/json_scan.c plugins/formats/json_scan.h
tests_test_json_scan_CPPFLAGS = $(TEST_CPPFLAGS) $(JANSSON_CFLAGS)
tests_test_json_scan_LDADD    = $(TEST_LDADD) $(JANSSON_LIBS)
tests_test_quants_SOURCES  = tests/test_quants.c tests/formats_common.h $(TEST_COMMON)
tests_test_quants_CPPFLAGS = $(TEST_CPPFLAGS)
tests_test_quants_LDADD    = $(TEST_LDADD)
tests_test_safetensors_SOURCES  = tests/test_safetensors.c tests/formats_common.h tests/data/tiny_safetensors.h $(TEST_COMMON)
tests_test_safetensors_CPPFLAGS = $(TEST_CPPFLAGS)
tests_test_safetensors_LDADD    = $(TEST_LDADD)
tests_test_convert_SOURCES  = tests/test_convert.c tests/formats_common.h tests/gguf_builder.h $(TEST_COMMON)
tests_test_convert_CPPFLAGS = $(TEST_CPPFLAGS)
tests_test_convert_LDADD    = $(TEST_LDADD)
tests_plugins_small_shards_so_SOURCES  = $(plugins_format_safetensors_so_SOURCES)
tests_plugins_small_shards_so_CPPFLAGS = $(plugins_format_safetensors_so_CPPFLAGS) -DSHARD_BYTES=4000
tests_plugins_small_shards_so_LDFLAGS  = $(plugin_ldflags)
tests_plugins_small_shards_so_LDADD    = $(plugins_format_safetensors_so_LDADD)
tests_fuzz_formats_SOURCES  = tests/fuzz_formats.c tests/fuzz.h tests/formats_common.h tests/gguf_builder.h $(TEST_COMMON)
tests_fuzz_formats_CPPFLAGS = $(TEST_CPPFLAGS)
tests_fuzz_formats_LDADD    = $(TEST_LDADD)
EXTRA_DIST += tests/data/tiny_safetensors.py tests/data/blocks.py tests/data/gguf_dump.py tests/data/stories260K.dump \
	tests/data/SmolLM2-135M-Instruct.Q4_1.dump tests/data/qwen2.5-coder-0.5b-instruct-q4_k_m.dump
