plugins += plugins/format_gguf.so
formats_common = plugins/formats/files.c plugins/formats/files.h plugins/formats/names.c plugins/formats/names.h \
	plugins/formats/tables.c plugins/formats/tables.h
formats_write = plugins/formats/out.c plugins/formats/out.h plugins/formats/convert.c plugins/formats/convert.h
plugins_format_gguf_so_SOURCES = plugins/formats/gguf.c plugins/formats/gguf_write.c plugins/formats/gguf_write.h \
	plugins/formats/gguf_write_tokens.c $(formats_write) plugins/formats/gguf_file.c plugins/formats/gguf_file.h \
	plugins/formats/gguf_tokens.c plugins/formats/gguf_tokens.h \
	plugins/formats/letters.c plugins/formats/letters.h $(formats_common)
plugins_format_gguf_so_CPPFLAGS = $(kernel_cppflags)
plugins_format_gguf_so_CFLAGS  = $(AM_CFLAGS) -Wconversion -Wsign-compare
plugins_format_gguf_so_LDFLAGS = $(plugin_ldflags)
plugins_format_gguf_so_LDADD   = kernels/libcpu.a $(plugin_ldadd)

plugins_format_safetensors_so_SOURCES = plugins/formats/safetensors.c plugins/formats/st_write.c plugins/formats/st_write.h \
	plugins/formats/st_write_config.c plugins/formats/st_write_tokens.c $(formats_write) plugins/formats/st_file.c plugins/formats/st_file.h \
	plugins/formats/hf_config.c plugins/formats/hf_config.h plugins/formats/hf_quant.c plugins/formats/hf_quant.h \
	plugins/formats/st_quant.c plugins/formats/st_quant.h \
	$(tokenizer_json) $(formats_common)
plugins_format_safetensors_so_CPPFLAGS = $(kernel_cppflags) $(JANSSON_CFLAGS)
plugins_format_safetensors_so_CFLAGS  = $(AM_CFLAGS) -Wconversion -Wsign-compare
plugins_format_safetensors_so_LDFLAGS = $(plugin_ldflags)
plugins_format_safetensors_so_LDADD   = kernels/libcpu.a $(JANSSON_LIBS) $(plugin_ldadd)
if HAVE_JANSSON
plugins += plugins/format_safetensors.so
endif

plugins_format_dummy_so_SOURCES = plugins/formats/dummy.c plugins/formats/hf_config.c plugins/formats/hf_config.h $(formats_common)
plugins_format_dummy_so_CPPFLAGS = $(kernel_cppflags) $(JANSSON_CFLAGS)
plugins_format_dummy_so_CFLAGS  = $(AM_CFLAGS) -Wconversion -Wsign-compare
plugins_format_dummy_so_LDFLAGS = $(plugin_ldflags)
plugins_format_dummy_so_LDADD   = kernels/libcpu.a $(JANSSON_LIBS) $(plugin_ldadd)
if HAVE_JANSSON
plugins += plugins/format_dummy.so
endif
