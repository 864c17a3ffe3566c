plugins += plugins/linear_reference.so
plugins_linear_reference_so_SOURCES  = plugins/linear/reference.c
plugins_linear_reference_so_CPPFLAGS = $(kernel_cppflags)
plugins_linear_reference_so_LDFLAGS  = $(plugin_ldflags)
plugins_linear_reference_so_LDADD    = kernels/libcpu.a $(plugin_ldadd)
