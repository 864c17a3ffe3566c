plugins += plugins/linear_blocks.so plugins/linear_reference.so
plugins_linear_blocks_so_SOURCES  = plugins/linear/blocks.c plugins/linear/panel_op.c plugins/linear/panel_op.h
plugins_linear_blocks_so_CPPFLAGS = $(kernel_cppflags)
plugins_linear_blocks_so_LDFLAGS  = $(plugin_ldflags)
plugins_linear_blocks_so_LDADD    = $(cpu_kernels) $(plugin_ldadd)
plugins_linear_reference_so_SOURCES  = plugins/linear/reference.c
plugins_linear_reference_so_CPPFLAGS = $(kernel_cppflags)
plugins_linear_reference_so_LDFLAGS  = $(plugin_ldflags)
plugins_linear_reference_so_LDADD    = $(cpu_kernels) $(plugin_ldadd)
plugins += plugins/linear_dense.so
plugins_linear_dense_so_SOURCES  = plugins/linear/dense.c
plugins_linear_dense_so_CPPFLAGS = $(kernel_cppflags)
plugins_linear_dense_so_LDFLAGS  = $(plugin_ldflags)
plugins_linear_dense_so_LDADD    = $(cpu_kernels) $(plugin_ldadd)
plugins += plugins/linear_int8.so plugins/linear_int4.so
encoded_sources = plugins/linear/encoded.c plugins/linear/encoded.h plugins/linear/panel_op.c plugins/linear/panel_op.h
plugins_linear_int8_so_SOURCES  = plugins/linear/int8.c $(encoded_sources)
plugins_linear_int8_so_CPPFLAGS = $(kernel_cppflags)
plugins_linear_int8_so_LDFLAGS  = $(plugin_ldflags)
plugins_linear_int8_so_LDADD    = $(cpu_kernels) $(plugin_ldadd)
plugins_linear_int4_so_SOURCES  = plugins/linear/int4.c $(encoded_sources)
plugins_linear_int4_so_CPPFLAGS = $(kernel_cppflags)
plugins_linear_int4_so_LDFLAGS  = $(plugin_ldflags)
plugins_linear_int4_so_LDADD    = $(cpu_kernels) $(plugin_ldadd)
plugins += plugins/linear_rescored.so
plugins_linear_rescored_so_SOURCES  = plugins/linear/rescored.c $(encoded_sources)
plugins_linear_rescored_so_CPPFLAGS = $(kernel_cppflags)
plugins_linear_rescored_so_LDFLAGS  = $(plugin_ldflags)
plugins_linear_rescored_so_LDADD    = $(cpu_kernels) $(plugin_ldadd)
plugins += plugins/linear_packed.so
plugins_linear_packed_so_SOURCES  = plugins/linear/packed.c plugins/linear/panel_op.c plugins/linear/panel_op.h
plugins_linear_packed_so_CPPFLAGS = $(kernel_cppflags)
plugins_linear_packed_so_LDFLAGS  = $(plugin_ldflags)
plugins_linear_packed_so_LDADD    = $(cpu_kernels) $(plugin_ldadd)
if MI_CUDA
plugins += plugins/linear_dense_cuda.so plugins/linear_fp8_cuda.so
endif
plugins_linear_dense_cuda_so_SOURCES  = plugins/linear/dense_cuda.c kernels/cuda/gemm.c kernels/cuda/gemm_parts.h kernels/cuda/gemm_time.c kernels/cuda/gemm.h \
	kernels/cuda/gemm_bias.cu kernels/cuda/gemv.cu kernels/cuda/gemv.h $(quant_gemv) \
	kernels/cuda/quant_gemv.h kernels/cuda/quant.h kernels/cuda/skinny.cu kernels/cuda/skinny.cuh \
	kernels/cuda/skinny_parts.cuh kernels/cuda/skinny.h \
	kernels/cuda/invariant.cu kernels/cuda/invariant.h plugins/linear/invariant_cuda.c plugins/linear/invariant_cuda.h \
	plugins/linear/tune_cuda.c plugins/linear/tune_cuda.h
plugins_linear_dense_cuda_so_CPPFLAGS = $(kernel_cppflags) $(CUDA_CPPFLAGS) -I$(top_srcdir)/plugins
plugins_linear_dense_cuda_so_LDFLAGS  = $(plugin_ldflags) $(CUDA_LDFLAGS)
plugins_linear_dense_cuda_so_LDADD    = $(plugin_ldadd) $(CUDA_LIBS)
if MI_CUDA
plugins += plugins/linear_quant_cuda.so
endif
plugins_linear_quant_cuda_so_SOURCES = plugins/linear/quant_cuda.c plugins/linear/quant_cuda.h plugins/linear/int4_cuda.c \
	plugins/linear/int8_cuda.c plugins/linear/stored_cuda.c plugins/linear/stored_form.c plugins/linear/stored_cuda.h \
	kernels/cuda/quant_stored.cu kernels/cuda/quant_stored.h kernels/cuda/quant_codes.cuh kernels/cuda/gemm.c kernels/cuda/gemm_parts.h kernels/cuda/gemm_time.c kernels/cuda/gemm.h \
	kernels/cuda/gemm_bias.cu kernels/cuda/gemv.cu kernels/cuda/gemv.h kernels/cuda/skinny.cu kernels/cuda/skinny.h \
	$(quant_gemv) kernels/cuda/quant_gemv.cuh kernels/cuda/quant_gemv_parts.cuh kernels/cuda/quant_gemv_products.cuh kernels/cuda/quant_gemv.h kernels/cuda/quant_pack.cu \
	kernels/cuda/quant.h kernels/cuda/quant_rows.cu kernels/cuda/quant_rows_mma.cu kernels/cuda/quant_rows_wgmma.cu kernels/cuda/quant_shares.cuh kernels/cuda/quant_tiles.cuh kernels/cuda/quant_rows.h plugins/linear/tune_cuda.c \
	plugins/linear/tune_cuda.h
plugins_linear_quant_cuda_so_CPPFLAGS = $(kernel_cppflags) $(CUDA_CPPFLAGS) -I$(top_srcdir)/plugins
plugins_linear_quant_cuda_so_LDFLAGS  = $(plugin_ldflags) $(CUDA_LDFLAGS)
plugins_linear_quant_cuda_so_LDADD    = $(cpu_kernels) $(plugin_ldadd) $(CUDA_LIBS)
plugins += plugins/linear_fp8.so
plugins_linear_fp8_so_SOURCES  = plugins/linear/fp8.c plugins/linear/fp8.h
plugins_linear_fp8_so_CPPFLAGS = $(kernel_cppflags)
plugins_linear_fp8_so_LDFLAGS  = $(plugin_ldflags)
plugins_linear_fp8_so_LDADD    = $(cpu_kernels) $(plugin_ldadd)
plugins_linear_fp8_cuda_so_SOURCES  = plugins/linear/fp8_cuda.c plugins/linear/fp8.h kernels/cuda/fp8.cu kernels/cuda/fp8.h kernels/cuda/gemm.c \
	kernels/cuda/gemm_parts.h kernels/cuda/gemm_time.c kernels/cuda/gemm.h kernels/cuda/gemm_bias.cu kernels/cuda/gemv.cu \
	kernels/cuda/gemv.h $(quant_gemv) kernels/cuda/skinny.cu
plugins_linear_fp8_cuda_so_CPPFLAGS = $(kernel_cppflags) $(CUDA_CPPFLAGS)
plugins_linear_fp8_cuda_so_LDFLAGS  = $(plugin_ldflags) $(CUDA_LDFLAGS)
plugins_linear_fp8_cuda_so_LDADD    = $(cpu_kernels) $(plugin_ldadd) $(CUDA_LIBS)
