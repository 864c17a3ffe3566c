plugins += plugins/prefix_hash.so
plugins_prefix_hash_so_SOURCES = plugins/prefix/hash.c plugins/prefix/chain.c plugins/prefix/chain.h
plugins_prefix_hash_so_LDFLAGS = $(plugin_ldflags)
plugins_prefix_hash_so_LDADD   = $(plugin_ldadd)
plugins += plugins/prefix_trie.so
plugins_prefix_trie_so_SOURCES = plugins/prefix/trie.c
plugins_prefix_trie_so_LDFLAGS = $(plugin_ldflags)
plugins_prefix_trie_so_LDADD   = $(plugin_ldadd)
