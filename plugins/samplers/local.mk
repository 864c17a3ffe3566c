sampler_headers = plugins/samplers/draw.h plugins/samplers/philox.h plugins/samplers/rows.h \
	plugins/samplers/softmax.h
# What a seed draws does not depend on the compiler's choice of fused multiply-adds.
sampler_cflags = $(AM_CFLAGS) -ffp-contract=off
plugins += plugins/sampler_greedy.so
plugins_sampler_greedy_so_SOURCES = plugins/samplers/greedy.c $(sampler_headers)
plugins_sampler_greedy_so_CFLAGS  = $(sampler_cflags)
plugins_sampler_greedy_so_LDFLAGS = $(plugin_ldflags)
plugins_sampler_greedy_so_LDADD   = $(plugin_ldadd)
plugins += plugins/sampler_multinomial.so
plugins_sampler_multinomial_so_SOURCES = plugins/samplers/multinomial.c $(sampler_headers)
plugins_sampler_multinomial_so_CFLAGS  = $(sampler_cflags)
plugins_sampler_multinomial_so_LDFLAGS = $(plugin_ldflags)
plugins_sampler_multinomial_so_LDADD   = $(plugin_ldadd)
plugins += plugins/sampler_temperature.so
plugins_sampler_temperature_so_SOURCES = plugins/samplers/temperature.c $(sampler_headers)
plugins_sampler_temperature_so_CFLAGS  = $(sampler_cflags)
plugins_sampler_temperature_so_LDFLAGS = $(plugin_ldflags)
plugins_sampler_temperature_so_LDADD   = $(plugin_ldadd)
