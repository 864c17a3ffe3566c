plugins += plugins/eviction_lru.so
plugins_eviction_lru_so_SOURCES = plugins/eviction/lru.c plugins/eviction/queue.h
plugins_eviction_lru_so_LDFLAGS = $(plugin_ldflags)
plugins_eviction_lru_so_LDADD   = $(plugin_ldadd)
plugins += plugins/eviction_lfu.so
plugins_eviction_lfu_so_SOURCES = plugins/eviction/lfu.c plugins/eviction/queue.h
plugins_eviction_lfu_so_LDFLAGS = $(plugin_ldflags)
plugins_eviction_lfu_so_LDADD   = $(plugin_ldadd)
