plugins += plugins/fusion_gated_cpu.so
plugins_fusion_gated_cpu_so_SOURCES  = plugins/fusions/gated_cpu.c
plugins_fusion_gated_cpu_so_CPPFLAGS = $(kernel_cppflags)
plugins_fusion_gated_cpu_so_LDFLAGS  = $(plugin_ldflags)
plugins_fusion_gated_cpu_so_LDADD    = kernels/libfloats.a kernels/libcpu.a $(plugin_ldadd)
