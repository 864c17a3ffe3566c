noinst_LIBRARIES += core/libcore.a
core_libcore_a_SOURCES = \
	core/arena.c core/arena.h \
	core/command_line.c core/command_line.h \
	core/assembly.c core/assembly.h \
	core/context.c core/context.h \
	core/config.c core/config.h \
	core/engine.c core/engine.h \
	core/exit.h \
	core/fuse.c core/fuse.h \
	core/help.c core/help.h \
	core/inspect.c core/inspect.h \
	core/json_out.c core/json_out.h \
	core/model.c \
	core/options.c core/options.h \
	core/parts.h core/plan.c \
	core/image.c core/image.h \
	core/plugin.c \
	core/plugin_check.c core/plugin_check.h \
	core/program.c core/program.h \
	core/registry.c core/registry.h \
	core/reference.c \
	core/report.c core/report.h core/report_model.c \
	core/rope.c core/rope.h \
	core/schedule.c core/schedule.h \
	core/sequence.c core/sequence.h \
	core/weights.c core/weights.h \
	core/settings.c core/settings.h \
	core/suggest.c core/suggest.h \
	core/template.h
core_libcore_a_CPPFLAGS = $(AM_CPPFLAGS) -I$(top_srcdir)/core $(INIH_CFLAGS) -DMI_PLUGINDIR='"$(plugindir)"'

bin_PROGRAMS += miniinfer
miniinfer_SOURCES  = \
	core/cmd.h core/cmd_common.c core/cmd_inspect.c \
	core/main.c
miniinfer_CPPFLAGS = $(AM_CPPFLAGS) -I$(top_srcdir)/core -DMI_VERSION='"$(VERSION)"'
miniinfer_LDADD    = core/libcore.a $(GLIB_LIBS) $(INIH_LIBS) -lm
