plugins += plugins/ops_cpu.so
plugins_ops_cpu_so_SOURCES = plugins/ops/cpu.c
plugins_ops_cpu_so_LDFLAGS = $(plugin_ldflags)
plugins_ops_cpu_so_LDADD   = $(plugin_ldadd)
