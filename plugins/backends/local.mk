plugins += plugins/backend_cpu.so
plugins_backend_cpu_so_SOURCES = plugins/backends/cpu.c plugins/backends/cpu.h plugins/backends/machine.c \
	plugins/backends/pool.c
plugins_backend_cpu_so_LDFLAGS = $(plugin_ldflags)
plugins_backend_cpu_so_LDADD   = $(plugin_ldadd)
