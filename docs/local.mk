EXTRA_DIST += docs/architecture.md docs/cuda.md docs/library.md docs/checkpoints.md docs/memory.md docs/plugins.md docs/quantisation.md docs/quickstart.md docs/schedulers.md docs/verify.md

# The man page is written by the program, from the table that --help prints (core/help.c).
man1_MANS   = docs/miniinfer.1
CLEANFILES += docs/miniinfer.1
docs/miniinfer.1: miniinfer$(EXEEXT)
	@$(MKDIR_P) docs
	$(AM_V_GEN)./miniinfer$(EXEEXT) help --man >$@.tmp && mv $@.tmp $@

EXTRA_DIST += docs/configuration.md docs/performance.md

# After a change of an option table; tests/stale.sh fails until then.
.PHONY: reference
reference: miniinfer $(plugins)
	env -u MINIINFER_PLUGIN_PATH ./miniinfer inspect --reference >reference.tmp
	env -u MINIINFER_PLUGIN_PATH ./miniinfer inspect --sample >sample.tmp
	mv reference.tmp $(srcdir)/docs/configuration.md
	mv sample.tmp $(srcdir)/etc/default.ini
