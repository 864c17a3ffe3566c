scheduler_common = plugins/schedulers/batching.c plugins/schedulers/batching.h plugins/schedulers/heap.c \
	plugins/schedulers/heap.h plugins/schedulers/pace.c plugins/schedulers/pace.h
scheduler_cflags = $(AM_CFLAGS) -Wconversion -Wsign-compare
plugins += plugins/scheduler_fcfs.so
plugins_scheduler_fcfs_so_SOURCES = plugins/schedulers/fcfs.c $(scheduler_common)
plugins_scheduler_fcfs_so_CFLAGS  = $(scheduler_cflags)
plugins_scheduler_fcfs_so_LDFLAGS = $(plugin_ldflags)
plugins_scheduler_fcfs_so_LDADD   = $(plugin_ldadd)
