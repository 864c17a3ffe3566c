plugins += plugins/model_llama.so
plugins_model_llama_so_SOURCES = plugins/models/llama.c
plugins_model_llama_so_LDFLAGS = $(plugin_ldflags)
plugins_model_llama_so_LDADD   = $(plugin_ldadd)
plugins += plugins/model_gpt_neox.so
plugins_model_gpt_neox_so_SOURCES = plugins/models/gpt_neox.c
plugins_model_gpt_neox_so_LDFLAGS = $(plugin_ldflags)
plugins_model_gpt_neox_so_LDADD   = $(plugin_ldadd)
