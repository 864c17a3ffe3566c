plugins += plugins/attention_gqa.so plugins/attention_simple.so
plugins_attention_gqa_so_SOURCES  = plugins/attention/gqa.c
plugins_attention_gqa_so_CPPFLAGS = $(kernel_cppflags)
plugins_attention_gqa_so_LDFLAGS  = $(plugin_ldflags)
plugins_attention_gqa_so_LDADD    = kernels/libfloats.a $(plugin_ldadd)
plugins_attention_simple_so_SOURCES  = plugins/attention/simple.c
plugins_attention_simple_so_CPPFLAGS = $(kernel_cppflags)
plugins_attention_simple_so_LDFLAGS  = $(plugin_ldflags)
plugins_attention_simple_so_LDADD    = $(plugin_ldadd)
if MI_CUDA
plugins += plugins/attention_flash_cuda.so plugins/attention_gqa_cuda.so plugins/attention_simple_cuda.so
endif
attention_cuda = plugins/attention/cuda.c plugins/attention/cuda.h kernels/cuda/attention.h
attention_cuda_fast = $(attention_cuda) plugins/attention/cuda_fast.c kernels/cuda/attention.cuh \
	kernels/cuda/attention_decode.cu kernels/cuda/attention_decode.cuh kernels/cuda/attention_gqa.cu \
	kernels/cuda/attention_scaled.cu kernels/cuda/scaled.cuh \
	kernels/cuda/attention_parts.cuh kernels/cuda/attention_whole.cu
plugins_attention_flash_cuda_so_SOURCES  = plugins/attention/flash_cuda.c $(attention_cuda_fast) kernels/cuda/attention_tiles.cuh kernels/cuda/boxes.cuh kernels/cuda/wgmma.cuh \
	kernels/cuda/attention_flash.cu kernels/cuda/attention_widen.cu
plugins_attention_flash_cuda_so_CPPFLAGS = $(kernel_cppflags) $(CUDA_CPPFLAGS)
plugins_attention_flash_cuda_so_LDFLAGS  = $(plugin_ldflags) $(CUDA_LDFLAGS)
plugins_attention_flash_cuda_so_LDADD    = $(plugin_ldadd) $(CUDA_LIBS)
plugins_attention_gqa_cuda_so_SOURCES  = plugins/attention/gqa_cuda.c $(attention_cuda_fast)
plugins_attention_gqa_cuda_so_CPPFLAGS = $(kernel_cppflags) $(CUDA_CPPFLAGS)
plugins_attention_gqa_cuda_so_LDFLAGS  = $(plugin_ldflags) $(CUDA_LDFLAGS)
plugins_attention_gqa_cuda_so_LDADD    = $(plugin_ldadd) $(CUDA_LIBS)
plugins_attention_simple_cuda_so_SOURCES  = plugins/attention/simple_cuda.c $(attention_cuda) \
	kernels/cuda/attention_simple.cu
plugins_attention_simple_cuda_so_CPPFLAGS = $(kernel_cppflags) $(CUDA_CPPFLAGS)
plugins_attention_simple_cuda_so_LDFLAGS  = $(plugin_ldflags) $(CUDA_LDFLAGS)
plugins_attention_simple_cuda_so_LDADD    = $(plugin_ldadd) $(CUDA_LIBS)
