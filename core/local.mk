noinst_LIBRARIES += core/libcore.a
core_libcore_a_SOURCES = \
	core/answer.c core/answer.h \
	core/ahead.c \
	core/arena.c core/arena.h \
	core/chat.c core/chat.h \
	core/command_line.c core/command_line.h \
	core/compare.c core/compare.h \
	core/assembly.c core/assembly.h \
	core/buckets.c \
	core/constants.c core/constants.h \
	core/context.c core/context.h \
	core/breakdown.c core/breakdown.h \
	core/config.c core/config.h \
	core/crowd.c core/crowd.h \
	core/device.c core/device.h \
	core/engine.c core/engine.h \
	core/exit.h \
	core/fault.c core/fault.h \
	core/fuse.c core/fuse.h \
	core/graph.c core/graph.h \
	core/help.c core/help.h \
	core/inspect.c core/inspect.h \
	core/invariant.c core/invariant.h \
	core/json_out.c core/json_out.h \
	core/model.c \
	core/node_times.c core/node_times.h \
	core/numbers.c core/numbers.h \
	core/options.c core/options.h \
	core/pace.c core/pace.h \
	core/parts.h core/plan.c \
	core/identity.c core/identity.h \
	core/image.c core/image.h \
	core/loader.c core/loader.h \
	core/plugin.c \
	core/plugin_check.c core/plugin_check.h \
	core/program.c core/program.h \
	core/prompt.c core/prompt.h \
	core/registry.c core/registry.h \
	core/reference.c \
	core/report.c core/report.h core/report_model.c \
	core/rope.c core/rope.h \
	core/runner.c core/runner.h core/runner_parts.h \
	core/schedule.c core/schedule.h \
	core/sequence.c core/sequence.h \
	core/side.c core/side.h \
	core/spread.c core/spread.h \
	core/usage.c core/usage.h \
	core/allow.c core/verify.c core/verify_cache.c core/verify.h core/verify_step.h \
	core/tuned.c core/tuned.h \
	core/weights.c core/weights.h \
	core/session.c core/session.h \
	core/settings.c core/settings.h core/shift.c core/shift.h \
	core/suggest.c core/suggest.h \
	core/template.h core/template_value.h core/template_text.h core/template_node.h core/template_eval.h \
	core/template_lex.c core/template_expression.c core/template_parse.c core/template_value.c core/template_text.c \
	core/template_print.c core/template_format.c core/template_arith.c core/template_eval.c core/template_exec.c \
	core/template_filters.c core/template_sequences.c core/template_methods.c core/template_tests.c \
	core/template_globals.c
core_libcore_a_CPPFLAGS = $(AM_CPPFLAGS) -I$(top_srcdir)/core $(INIH_CFLAGS) -DMI_PLUGINDIR='"$(plugindir)"'

bin_PROGRAMS += miniinfer
miniinfer_SOURCES  = \
	core/cmd.h core/cmd_answer.c core/cmd_bench.c core/cmd_bench_offline.c core/step_work.c core/step_work.h core/cmd_common.c core/cmd_determinism.c core/determinism.c core/determinism.h core/cmd_frontend.c core/cmd_inspect.c core/cmd_model.c core/cmd_perplexity.c \
	core/cmd_quantize.c core/quantize.h core/quantize_awq.c core/quantize_awq.h core/quantize_calibrate.c core/quantize_fold.c \
	core/quantize_linalg.c core/quantize_report.c core/quantize_round.c core/quantize_store.c \
	core/cmd_run.c core/cmd_session.c core/cmd_trace.c core/cmd_verify.c \
	core/interrupt.c core/interrupt.h \
	core/main.c \
	core/plot.c core/plot.h
miniinfer_CPPFLAGS = $(AM_CPPFLAGS) -I$(top_srcdir)/core -DMI_VERSION='"$(VERSION)"'
miniinfer_LDADD    = core/libcore.a $(GLIB_LIBS) $(INIH_LIBS) -lm

# The library is linked as plugins are, without libtool, and installed by hand under its version; the links in the build
# folder are what a program that was linked there finds.  Everything in it but what the map lists is its own.
lib_soname = libminiinfer.so.0
noinst_PROGRAMS += libminiinfer.so
EXTRA_DIST += core/libminiinfer.map
libminiinfer_so_SOURCES = core/api.c core/api.h core/api_answer.c core/api_answer.h core/api_batch.c core/api_parts.c core/api_text.c
libminiinfer_so_CPPFLAGS = $(miniinfer_CPPFLAGS)
libminiinfer_so_LDFLAGS  = $(AM_LDFLAGS) -shared $(NO_UNDEFINED) -Wl,-soname,$(lib_soname) -Wl,-z,nodelete \
	-Wl,--version-script=$(top_srcdir)/core/libminiinfer.map
libminiinfer_so_LDADD    = core/libcore.a $(GLIB_LIBS) $(INIH_LIBS) -lm
EXTRA_libminiinfer_so_DEPENDENCIES = core/libminiinfer.map
all-local: $(lib_soname)
$(lib_soname): libminiinfer.so
	$(AM_V_GEN)ln -sf libminiinfer.so $@
CLEANFILES += $(lib_soname)
install-exec-local: libminiinfer.so
	$(MKDIR_P) '$(DESTDIR)$(libdir)'
	$(INSTALL_PROGRAM) libminiinfer.so '$(DESTDIR)$(libdir)/libminiinfer.so.$(VERSION)'
	cd '$(DESTDIR)$(libdir)' && ln -sf libminiinfer.so.$(VERSION) $(lib_soname) && ln -sf $(lib_soname) libminiinfer.so
uninstall-local:
	rm -f '$(DESTDIR)$(libdir)/libminiinfer.so' '$(DESTDIR)$(libdir)/$(lib_soname)' '$(DESTDIR)$(libdir)/libminiinfer.so.$(VERSION)'
