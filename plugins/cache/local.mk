plugins += plugins/cache_batch.so
plugins_cache_batch_so_SOURCES = plugins/cache/batch.c plugins/cache/store.c plugins/cache/store.h
plugins_cache_batch_so_LDFLAGS = $(plugin_ldflags)
plugins_cache_batch_so_LDADD   = $(plugin_ldadd)
plugins += plugins/cache_full.so
plugins_cache_full_so_SOURCES = plugins/cache/full.c plugins/cache/store.c plugins/cache/store.h
plugins_cache_full_so_LDFLAGS = $(plugin_ldflags)
plugins_cache_full_so_LDADD   = $(plugin_ldadd)
plugins += plugins/cache_none.so
plugins_cache_none_so_SOURCES = plugins/cache/none.c plugins/cache/store.c plugins/cache/store.h
plugins_cache_none_so_LDFLAGS = $(plugin_ldflags)
plugins_cache_none_so_LDADD   = $(plugin_ldadd)
plugins += plugins/cache_paged.so
plugins_cache_paged_so_SOURCES = plugins/cache/paged.c plugins/cache/pages.c plugins/cache/pages.h plugins/cache/size.c \
	plugins/cache/size.h plugins/cache/store.c plugins/cache/store.h
plugins_cache_paged_so_LDFLAGS = $(plugin_ldflags)
plugins_cache_paged_so_LDADD   = $(plugin_ldadd)
