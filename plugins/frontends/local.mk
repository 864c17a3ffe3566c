plugins += plugins/frontend_chat.so
plugins_frontend_chat_so_SOURCES  = plugins/frontends/chat.c
plugins_frontend_chat_so_CPPFLAGS = $(AM_CPPFLAGS) $(EDIT_CFLAGS)
plugins_frontend_chat_so_LDFLAGS  = $(plugin_ldflags)
plugins_frontend_chat_so_LDADD    = $(EDIT_LIBS) $(plugin_ldadd)
if HAVE_EDIT
plugins_frontend_chat_so_CPPFLAGS += -DHAVE_EDIT
endif

plugins_frontend_batch_so_SOURCES  = plugins/frontends/batch.c plugins/frontends/batch_answer.c \
	plugins/frontends/batch_answer.h plugins/frontends/batch_output.c plugins/frontends/batch_output.h \
	plugins/frontends/batch_request.c plugins/frontends/batch_request.h
plugins_frontend_batch_so_CPPFLAGS = $(AM_CPPFLAGS) $(JANSSON_CFLAGS)
plugins_frontend_batch_so_LDFLAGS  = $(plugin_ldflags)
plugins_frontend_batch_so_LDADD    = $(JANSSON_LIBS) $(plugin_ldadd)
if HAVE_JANSSON
plugins += plugins/frontend_batch.so
endif
