plugins += plugins/fusion_gated_cpu.so
plugins_fusion_gated_cpu_so_SOURCES  = plugins/fusions/gated_cpu.c
plugins_fusion_gated_cpu_so_CPPFLAGS = $(kernel_cppflags)
plugins_fusion_gated_cpu_so_LDFLAGS  = $(plugin_ldflags)
plugins_fusion_gated_cpu_so_LDADD    = kernels/libfloats.a kernels/libcpu.a $(plugin_ldadd)

if MI_CUDA
plugins += plugins/fusion_prefill_cuda.so
endif
plugins_fusion_prefill_cuda_so_SOURCES = plugins/fusions/prefill_cuda.c kernels/cuda/gated.cu kernels/cuda/gated.h kernels/cuda/boxes.cuh \
	kernels/cuda/wgmma.cuh kernels/cuda/gemm.c kernels/cuda/gemm_parts.h kernels/cuda/gemm_time.c kernels/cuda/gemm.h \
	kernels/cuda/gemm_bias.cu kernels/cuda/prefill.cu kernels/cuda/prefill.h \
	plugins/linear/tune_cuda.c plugins/linear/tune_cuda.h
plugins_fusion_prefill_cuda_so_CPPFLAGS = $(kernel_cppflags) $(CUDA_CPPFLAGS) -I$(top_srcdir)/plugins
plugins_fusion_prefill_cuda_so_LDFLAGS  = $(plugin_ldflags) $(CUDA_LDFLAGS)
plugins_fusion_prefill_cuda_so_LDADD    = $(plugin_ldadd) $(CUDA_LIBS)

if MI_CUDA
plugins += plugins/fusion_decode_cuda.so
endif
plugins_fusion_decode_cuda_so_SOURCES  = plugins/fusions/decode_cuda.c plugins/fusions/left_cuda.h plugins/fusions/lines_cuda.h plugins/fusions/parts_cuda.h \
	plugins/linear/stored_form.c plugins/linear/stored_cuda.h kernels/cuda/quant_stored.cu kernels/cuda/quant_stored.h kernels/cuda/gemv.cu kernels/cuda/pick.cu kernels/cuda/gemv.cuh \
	kernels/cuda/gemv_ends.cuh kernels/cuda/gemv_parts.cuh kernels/cuda/gemv.h $(quant_gemv) \
	kernels/cuda/quant_gemv.cuh kernels/cuda/quant_gemv_parts.cuh kernels/cuda/quant_gemv_products.cuh kernels/cuda/quant_gemv.h kernels/cuda/quant.h kernels/cuda/skinny.cu \
	kernels/cuda/skinny.cuh kernels/cuda/skinny_parts.cuh kernels/cuda/skinny.h kernels/cuda/rows.cu kernels/cuda/ops.h
plugins_fusion_decode_cuda_so_CPPFLAGS = $(kernel_cppflags) -I$(top_srcdir)/plugins
plugins_fusion_decode_cuda_so_LDFLAGS  = $(plugin_ldflags) $(CUDA_LDFLAGS)
plugins_fusion_decode_cuda_so_LDADD    = $(plugin_ldadd) $(CUDA_LIBS)

if MI_CUDA
plugins += plugins/fusion_sampling_cuda.so
endif
plugins_fusion_sampling_cuda_so_SOURCES = plugins/fusions/sampling_cuda.c plugins/samplers/links.h kernels/cuda/chain.cu \
	kernels/cuda/cut.cuh kernels/cuda/draw_all.cu kernels/cuda/draw.cuh kernels/cuda/sampling.h kernels/cuda/team.cuh
plugins_fusion_sampling_cuda_so_CPPFLAGS = $(kernel_cppflags) $(CUDA_CPPFLAGS)
plugins_fusion_sampling_cuda_so_LDFLAGS  = $(plugin_ldflags) $(CUDA_LDFLAGS)
plugins_fusion_sampling_cuda_so_LDADD    = $(plugin_ldadd) $(CUDA_LIBS)

if MI_CUDA
plugins += plugins/fusion_layer_cuda.so
endif
plugins_fusion_layer_cuda_so_SOURCES  = plugins/fusions/layer_cuda.c plugins/fusions/lines_cuda.h plugins/fusions/parts_cuda.h kernels/cuda/layer.cu kernels/cuda/boxes.cuh \
	kernels/cuda/layer.cuh kernels/cuda/layer_ends.cuh kernels/cuda/layer.h kernels/cuda/scaled.cuh kernels/cuda/wgmma.cuh
plugins_fusion_layer_cuda_so_CPPFLAGS = $(kernel_cppflags)
plugins_fusion_layer_cuda_so_LDFLAGS  = $(plugin_ldflags) $(CUDA_LDFLAGS)
plugins_fusion_layer_cuda_so_LDADD    = $(plugin_ldadd) $(CUDA_LIBS)

if MI_CUDA
plugins += plugins/fusion_fp8_cuda.so
endif
plugins_fusion_fp8_cuda_so_SOURCES  = plugins/fusions/fp8_cuda.c kernels/cuda/fp8.cu kernels/cuda/fp8.h kernels/cuda/gated.cu kernels/cuda/gated.h kernels/cuda/boxes.cuh \
	kernels/cuda/wgmma.cuh kernels/cuda/gemm.c \
	kernels/cuda/gemm_parts.h kernels/cuda/gemm_time.c kernels/cuda/gemm.h kernels/cuda/gemm_bias.cu kernels/cuda/prefill.cu \
	kernels/cuda/prefill.h
plugins_fusion_fp8_cuda_so_CPPFLAGS = $(kernel_cppflags) $(CUDA_CPPFLAGS)
plugins_fusion_fp8_cuda_so_LDFLAGS  = $(plugin_ldflags) $(CUDA_LDFLAGS)
plugins_fusion_fp8_cuda_so_LDADD    = $(plugin_ldadd) $(CUDA_LIBS)

if MI_CUDA
plugins += plugins/fusion_head_cuda.so
endif
plugins_fusion_head_cuda_so_SOURCES  = plugins/fusions/head_cuda.c plugins/fusions/parts_cuda.h kernels/cuda/head.cu kernels/cuda/head.h kernels/cuda/boxes.cuh \
	kernels/cuda/layer.cuh kernels/cuda/layer_ends.cuh kernels/cuda/wgmma.cuh kernels/cuda/pick.cu
plugins_fusion_head_cuda_so_CPPFLAGS = $(kernel_cppflags)
plugins_fusion_head_cuda_so_LDFLAGS  = $(plugin_ldflags) $(CUDA_LDFLAGS)
plugins_fusion_head_cuda_so_LDADD    = $(plugin_ldadd) $(CUDA_LIBS)

if MI_CUDA
plugins += plugins/fusion_quant_layer_cuda.so
endif
plugins_fusion_quant_layer_cuda_so_SOURCES  = plugins/fusions/quant_layer_cuda.c plugins/fusions/left_cuda.h plugins/fusions/lines_cuda.h plugins/fusions/parts_cuda.h \
	kernels/cuda/quant_layer.cu kernels/cuda/quant_layer.h kernels/cuda/quant_short.cu kernels/cuda/quant_short.cuh kernels/cuda/quant_short.h kernels/cuda/quant_gemv.cuh kernels/cuda/quant_gemv_parts.cuh kernels/cuda/quant_gemv_products.cuh kernels/cuda/quant_gemv.h \
	kernels/cuda/gemv.cu kernels/cuda/gemv_ends.cuh kernels/cuda/gemv_parts.cuh kernels/cuda/gemv.h $(quant_gemv) kernels/cuda/skinny.cu kernels/cuda/rows.cu \
	kernels/cuda/ops.h
plugins_fusion_quant_layer_cuda_so_CPPFLAGS = $(kernel_cppflags)
plugins_fusion_quant_layer_cuda_so_LDFLAGS  = $(plugin_ldflags) $(CUDA_LDFLAGS)
plugins_fusion_quant_layer_cuda_so_LDADD    = $(plugin_ldadd) $(CUDA_LIBS)
