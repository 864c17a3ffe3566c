# Sample configurations, one per use; tests/stale.sh checks each.
samplesdir = $(pkgdatadir)/etc
dist_samples_DATA = etc/default.ini etc/qwen2.ini etc/reference.ini etc/smollm2.ini
