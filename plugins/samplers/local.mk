sampler_headers = plugins/samplers/cut.h plugins/samplers/draw.h plugins/samplers/links.h plugins/samplers/philox.h \
	plugins/samplers/rows.h plugins/samplers/softmax.h
# What a seed draws does not depend on fused multiply-adds; a comparison that traps on NaN is no vector.
sampler_cflags = $(AM_CFLAGS) -ffp-contract=off -fno-trapping-math
plugins += plugins/sampler_greedy.so
plugins_sampler_greedy_so_SOURCES = plugins/samplers/greedy.c $(sampler_headers)
plugins_sampler_greedy_so_CFLAGS  = $(sampler_cflags)
plugins_sampler_greedy_so_LDFLAGS = $(plugin_ldflags)
plugins_sampler_greedy_so_LDADD   = $(plugin_ldadd)
plugins += plugins/sampler_logit_bias.so
plugins_sampler_logit_bias_so_SOURCES = plugins/samplers/logit_bias.c $(sampler_headers)
plugins_sampler_logit_bias_so_CFLAGS  = $(sampler_cflags)
plugins_sampler_logit_bias_so_LDFLAGS = $(plugin_ldflags)
plugins_sampler_logit_bias_so_LDADD   = $(plugin_ldadd)
plugins += plugins/sampler_min_p.so
plugins_sampler_min_p_so_SOURCES = plugins/samplers/min_p.c $(sampler_headers)
plugins_sampler_min_p_so_CFLAGS  = $(sampler_cflags)
plugins_sampler_min_p_so_LDFLAGS = $(plugin_ldflags)
plugins_sampler_min_p_so_LDADD   = $(plugin_ldadd)
plugins += plugins/sampler_multinomial.so
plugins_sampler_multinomial_so_SOURCES = plugins/samplers/multinomial.c $(sampler_headers)
plugins_sampler_multinomial_so_CFLAGS  = $(sampler_cflags)
plugins_sampler_multinomial_so_LDFLAGS = $(plugin_ldflags)
plugins_sampler_multinomial_so_LDADD   = $(plugin_ldadd)
plugins += plugins/sampler_penalties.so
plugins_sampler_penalties_so_SOURCES = plugins/samplers/penalties.c $(sampler_headers)
plugins_sampler_penalties_so_CFLAGS  = $(sampler_cflags)
plugins_sampler_penalties_so_LDFLAGS = $(plugin_ldflags)
plugins_sampler_penalties_so_LDADD   = $(plugin_ldadd)
plugins += plugins/sampler_temperature.so
plugins_sampler_temperature_so_SOURCES = plugins/samplers/temperature.c $(sampler_headers)
plugins_sampler_temperature_so_CFLAGS  = $(sampler_cflags)
plugins_sampler_temperature_so_LDFLAGS = $(plugin_ldflags)
plugins_sampler_temperature_so_LDADD   = $(plugin_ldadd)
plugins += plugins/sampler_top_k.so
plugins_sampler_top_k_so_SOURCES = plugins/samplers/top_k.c $(sampler_headers)
plugins_sampler_top_k_so_CFLAGS  = $(sampler_cflags)
plugins_sampler_top_k_so_LDFLAGS = $(plugin_ldflags)
plugins_sampler_top_k_so_LDADD   = $(plugin_ldadd)
plugins += plugins/sampler_top_p.so
plugins_sampler_top_p_so_SOURCES = plugins/samplers/top_p.c $(sampler_headers)
plugins_sampler_top_p_so_CFLAGS  = $(sampler_cflags)
plugins_sampler_top_p_so_LDFLAGS = $(plugin_ldflags)
plugins_sampler_top_p_so_LDADD   = $(plugin_ldadd)
plugins += plugins/sampler_typical.so
plugins_sampler_typical_so_SOURCES = plugins/samplers/typical.c $(sampler_headers)
plugins_sampler_typical_so_CFLAGS  = $(sampler_cflags)
plugins_sampler_typical_so_LDFLAGS = $(plugin_ldflags)
plugins_sampler_typical_so_LDADD   = $(plugin_ldadd)

if MI_CUDA
plugins += plugins/samplers_cuda.so
endif
plugins_samplers_cuda_so_SOURCES = plugins/samplers/cuda.c plugins/samplers/links.h plugins/samplers/rows.h \
	kernels/cuda/cut.cuh kernels/cuda/cuts.cu kernels/cuda/draw.cuh kernels/cuda/sampling.cu kernels/cuda/sampling.h kernels/cuda/team.cuh
plugins_samplers_cuda_so_CPPFLAGS = $(kernel_cppflags) $(CUDA_CPPFLAGS)
plugins_samplers_cuda_so_LDFLAGS  = $(plugin_ldflags) $(CUDA_LDFLAGS)
plugins_samplers_cuda_so_LDADD    = $(plugin_ldadd) $(CUDA_LIBS)
