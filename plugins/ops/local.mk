plugins += plugins/ops_cpu.so
plugins_ops_cpu_so_SOURCES = plugins/ops/cpu.c plugins/ops/elementwise.c plugins/ops/lines.c plugins/ops/logprobs.c \
	plugins/ops/norms.c plugins/ops/ops.h plugins/ops/rows.c
plugins_ops_cpu_so_CPPFLAGS = $(kernel_cppflags)
plugins_ops_cpu_so_LDFLAGS  = $(plugin_ldflags)
plugins_ops_cpu_so_LDADD    = kernels/libfloats.a kernels/libcpu.a $(plugin_ldadd)
