EXTRA_DIST += docs/configuration.md

# After a change of an option table; tests/stale.sh fails until then.
.PHONY: reference
reference: miniinfer $(plugins)
	env -u MINIINFER_PLUGIN_PATH ./miniinfer inspect --reference >reference.tmp
	env -u MINIINFER_PLUGIN_PATH ./miniinfer inspect --sample >sample.tmp
	mv reference.tmp $(srcdir)/docs/configuration.md
	mv sample.tmp $(srcdir)/etc/default.ini
