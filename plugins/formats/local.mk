plugins += plugins/format_gguf.so
formats_common = plugins/formats/names.c plugins/formats/names.h plugins/formats/tables.c plugins/formats/tables.h \
	plugins/formats/letters.c plugins/formats/letters.h
plugins_format_gguf_so_SOURCES = plugins/formats/gguf.c plugins/formats/gguf_file.c plugins/formats/gguf_file.h \
	plugins/formats/gguf_tokens.c plugins/formats/gguf_tokens.h $(formats_common)
plugins_format_gguf_so_CPPFLAGS = $(kernel_cppflags)
plugins_format_gguf_so_CFLAGS  = $(AM_CFLAGS) -Wconversion -Wsign-compare
plugins_format_gguf_so_LDFLAGS = $(plugin_ldflags)
plugins_format_gguf_so_LDADD   = kernels/libcpu.a $(plugin_ldadd)
