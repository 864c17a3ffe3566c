# Programs that need a card; they skip without one.  tests/gpu runs them there.
gpu_cppflags = $(AM_CPPFLAGS) -I$(top_srcdir)/kernels $(CUDA_CPPFLAGS)
gpu_ldflags  = $(AM_LDFLAGS) $(CUDA_LDFLAGS) $(CUDA_LDFLAGS:-L%=-Wl,-rpath,%)
gpu_ldadd    = kernels/libcpu.a $(GLIB_LIBS) $(CUDA_LIBS) -ldl -lm
EXTRA_DIST += tests/gpu tests/gpu_determinism.sh tests/gpu_example.sh tests/gpu_faults.sh tests/gpu_models.py tests/gpu_models.sh \
	tests/gpu_steady.sh tests/gpu_transformers.py

tests_gpu_ops_SOURCES  = tests/gpu_ops.c tests/gpu.h tests/gpu_quick.h
tests_gpu_ops_CPPFLAGS = $(gpu_cppflags)
tests_gpu_ops_LDFLAGS  = $(gpu_ldflags)
tests_gpu_ops_LDADD    = $(gpu_ldadd)
tests_gpu_samplers_SOURCES  = tests/gpu_samplers.c tests/gpu.h
tests_gpu_samplers_CPPFLAGS = $(gpu_cppflags)
tests_gpu_samplers_LDFLAGS  = $(gpu_ldflags)
tests_gpu_samplers_LDADD    = $(gpu_ldadd)

tests_gpu_linear_SOURCES  = tests/gpu_linear.c tests/gpu.h kernels/cuda/gemm.c kernels/cuda/gemm_parts.h kernels/cuda/gemm_time.c kernels/cuda/gemm_bias.cu \
	kernels/cuda/gemv.cu kernels/cuda/skinny.cu $(quant_gemv)
tests_gpu_linear_CPPFLAGS = $(gpu_cppflags)
tests_gpu_linear_LDFLAGS  = $(gpu_ldflags)
tests_gpu_linear_LDADD    = $(gpu_ldadd)

tests_gpu_invariant_SOURCES  = tests/gpu_invariant.c tests/gpu.h kernels/cuda/invariant.cu
tests_gpu_invariant_CPPFLAGS = $(gpu_cppflags)
tests_gpu_invariant_LDFLAGS  = $(gpu_ldflags)
tests_gpu_invariant_LDADD    = $(gpu_ldadd)

tests_gpu_engine_SOURCES  = tests/gpu_engine.c tests/gpu.h
tests_gpu_engine_CPPFLAGS = $(gpu_cppflags) -I$(top_srcdir)/core
tests_gpu_engine_LDFLAGS  = $(gpu_ldflags) -rdynamic
tests_gpu_engine_LDADD    = core/libcore.a $(gpu_ldadd) $(INIH_LIBS)

# Plugins with a mistake.
tests_plugins_wrong_cuda_so_SOURCES = tests/plugins/wrong_cuda.c tests/plugins/gated_kernels.cu tests/plugins/gated_kernels.h
tests_plugins_wrong_cuda_so_LDFLAGS = $(plugin_ldflags) $(CUDA_LDFLAGS)
tests_plugins_wrong_cuda_so_LDADD   = $(plugin_ldadd) $(CUDA_LIBS)
tests_plugins_lost_cuda_so_SOURCES = tests/plugins/lost_cuda.c tests/plugins/gated_kernels.cu tests/plugins/gated_kernels.h
tests_plugins_lost_cuda_so_LDFLAGS = $(plugin_ldflags) $(CUDA_LDFLAGS)
tests_plugins_lost_cuda_so_LDADD   = $(plugin_ldadd) $(CUDA_LIBS)

tests_gpu_calls_so_SOURCES  = tests/gpu_calls.c
tests_gpu_calls_so_CPPFLAGS = $(AM_CPPFLAGS) $(CUDA_CPPFLAGS)
tests_gpu_calls_so_CFLAGS   = $(AM_CFLAGS) -fvisibility=default
tests_gpu_calls_so_LDFLAGS  = $(AM_LDFLAGS) -shared
tests_gpu_calls_so_LDADD    = -ldl

# make check runs them, too.  A new one: here, and in the list of tests/gpu.
gpu_programs =
if MI_CUDA
check_PROGRAMS += tests/gpu_calls.so tests/gpu_engine tests/gpu_gated tests/gpu_invariant tests/gpu_linear tests/gpu_ops tests/gpu_packed tests/gpu_quant tests/gpu_quant_layer tests/gpu_samplers
check_PROGRAMS += tests/plugins/lost_cuda.so tests/plugins/wrong_cuda.so
gpu_programs += tests/gpu_attention tests/gpu_decode tests/gpu_layer tests/gpu_head tests/gpu_engine tests/gpu_gated tests/gpu_invariant tests/gpu_linear tests/gpu_ops tests/gpu_packed tests/gpu_quant tests/gpu_quant_layer tests/gpu_samplers \
	tests/gpu_determinism.sh tests/gpu_example.sh tests/gpu_faults.sh tests/gpu_models.sh tests/gpu_steady.sh
# The example's plugins as their Makefile builds them, for machines that have a card and no compiler.
check_DATA = examples/plugin/cuda/acme_add_cuda.so
endif
example = $(abs_top_srcdir)/examples/plugin/cuda
examples/plugin/cuda/acme_add_cuda.so: $(cuda_example) $(pkginclude_HEADERS) miniinfer-plugin-uninstalled.pc
	$(AM_V_GEN)$(MKDIR_P) $(@D) && $(MAKE) -sB -C $(@D) -f $(example)/Makefile VPATH='$(example)' CC='$(CC)' \
		SAN='$(SAN_FLAGS)' NVCC='$(NVCC)' PKG_CONFIG='env PKG_CONFIG_PATH=$(abs_top_builddir):$(PKG_CONFIG_PATH) $(PKG_CONFIG)'
MOSTLYCLEANFILES += examples/plugin/cuda/*.so examples/plugin/cuda/kernels.o

if MI_CUDA
check_PROGRAMS += tests/gpu_fp8
endif
tests_gpu_fp8_SOURCES  = tests/gpu_fp8.c tests/gpu.h tests/scaled.h kernels/cuda/prefill.cu kernels/cuda/rows.cu kernels/cuda/fp8.cu \
	kernels/cuda/gemm.c kernels/cuda/gemm_parts.h kernels/cuda/gemm_time.c kernels/cuda/gemm_bias.cu kernels/cuda/gemv.cu kernels/cuda/skinny.cu \
	$(quant_gemv)
tests_gpu_fp8_CPPFLAGS = $(gpu_cppflags)
tests_gpu_fp8_LDFLAGS  = $(gpu_ldflags)
tests_gpu_fp8_LDADD    = $(gpu_ldadd)

tests_gpu_gated_SOURCES  = tests/gpu_gated.c tests/gpu.h kernels/cuda/gated.cu kernels/cuda/gated.h kernels/cuda/boxes.cuh kernels/cuda/wgmma.cuh \
	kernels/cuda/fp8.cu kernels/cuda/fp8.h kernels/cuda/prefill.cu kernels/cuda/gemm.c kernels/cuda/gemm_parts.h kernels/cuda/gemm_time.c kernels/cuda/gemm_bias.cu
tests_gpu_gated_CPPFLAGS = $(gpu_cppflags)
tests_gpu_gated_LDFLAGS  = $(gpu_ldflags)
tests_gpu_gated_LDADD    = $(gpu_ldadd)

tests_gpu_quant_SOURCES  = tests/gpu_quant.c tests/gpu.h tests/gpu_timed.h kernels/cuda/gemm.c kernels/cuda/gemm_parts.h kernels/cuda/gemm_time.c kernels/cuda/gemm_bias.cu \
	kernels/cuda/gemv.cu kernels/cuda/skinny.cu $(quant_gemv) kernels/cuda/quant_pack.cu kernels/cuda/quant_rows.cu kernels/cuda/quant_rows_mma.cu kernels/cuda/quant_rows_wgmma.cu kernels/cuda/read.cu
tests_gpu_quant_CPPFLAGS = $(gpu_cppflags)
tests_gpu_quant_LDFLAGS  = $(gpu_ldflags)
tests_gpu_quant_LDADD    = $(gpu_ldadd)

tests_gpu_quant_layer_SOURCES  = tests/gpu_quant_layer.c tests/gpu.h kernels/cuda/quant_layer.cu kernels/cuda/quant_short.cu kernels/cuda/quant_pack.cu kernels/cuda/gemm_bias.cu
tests_gpu_quant_layer_CPPFLAGS = $(gpu_cppflags)
tests_gpu_quant_layer_LDFLAGS  = $(gpu_ldflags)
tests_gpu_quant_layer_LDADD    = $(gpu_ldadd)

tests_gpu_packed_SOURCES  = tests/gpu_packed.c tests/gpu.h tests/gpu_timed.h kernels/cuda/gemv.cu kernels/cuda/skinny.cu \
	$(quant_gemv) kernels/cuda/quant_pack.cu kernels/cuda/quant_stored.cu kernels/cuda/quant_stored.h kernels/cuda/gemm_bias.cu kernels/cuda/read.cu
tests_gpu_packed_CPPFLAGS = $(gpu_cppflags)
tests_gpu_packed_LDFLAGS  = $(gpu_ldflags)
tests_gpu_packed_LDADD    = $(gpu_ldadd)
