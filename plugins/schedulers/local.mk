plugins += plugins/scheduler_fcfs.so
plugins_scheduler_fcfs_so_SOURCES = plugins/schedulers/fcfs.c
plugins_scheduler_fcfs_so_LDFLAGS = $(plugin_ldflags)
plugins_scheduler_fcfs_so_LDADD   = $(plugin_ldadd)
