plugins += plugins/chat.so
plugins_chat_so_SOURCES  = plugins/frontends/chat.c
plugins_chat_so_CPPFLAGS = $(AM_CPPFLAGS) $(EDIT_CFLAGS)
plugins_chat_so_LDFLAGS  = $(plugin_ldflags)
plugins_chat_so_LDADD    = $(EDIT_LIBS) $(plugin_ldadd)
if HAVE_EDIT
plugins_chat_so_CPPFLAGS += -DHAVE_EDIT
endif

plugins_batch_so_SOURCES  = plugins/frontends/batch.c plugins/frontends/batch_request.c plugins/frontends/batch_request.h
plugins_batch_so_CPPFLAGS = $(AM_CPPFLAGS) $(JANSSON_CFLAGS)
plugins_batch_so_LDFLAGS  = $(plugin_ldflags)
plugins_batch_so_LDADD    = $(JANSSON_LIBS) $(plugin_ldadd)
if HAVE_JANSSON
plugins += plugins/batch.so
endif
