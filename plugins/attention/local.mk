plugins += plugins/attention_simple.so
plugins_attention_simple_so_SOURCES = plugins/attention/simple.c
plugins_attention_simple_so_CPPFLAGS = $(kernel_cppflags)
plugins_attention_simple_so_LDFLAGS = $(plugin_ldflags)
plugins_attention_simple_so_LDADD   = $(plugin_ldadd)
