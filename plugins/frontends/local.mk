plugins += plugins/chat.so
plugins_chat_so_SOURCES  = plugins/frontends/chat.c
plugins_chat_so_CPPFLAGS = $(AM_CPPFLAGS) $(EDIT_CFLAGS)
plugins_chat_so_LDFLAGS  = $(plugin_ldflags)
plugins_chat_so_LDADD    = $(EDIT_LIBS) $(plugin_ldadd)
if HAVE_EDIT
plugins_chat_so_CPPFLAGS += -DHAVE_EDIT
endif
