# Needs a card: run by tests/gpu, not by make check.
if MI_CUDA
check_PROGRAMS += tests/gpu_layer
endif
tests_gpu_layer_SOURCES  = tests/gpu_layer.c tests/gpu_numbers.h tests/scaled.h kernels/cuda/layer.cu kernels/cuda/layer.cuh kernels/cuda/layer_ends.cuh kernels/cuda/layer.h kernels/cuda/boxes.cuh \
	kernels/cuda/wgmma.cuh kernels/cuda/attention_decode.cu kernels/cuda/attention_scaled.cu \
	kernels/cuda/attention_whole.cu
tests_gpu_layer_CPPFLAGS = $(kernel_cppflags) $(CUDA_CPPFLAGS)
tests_gpu_layer_LDFLAGS  = $(AM_LDFLAGS) $(CUDA_LDFLAGS)
tests_gpu_layer_LDADD    = $(CUDA_LIBS) -lm

if MI_CUDA
check_PROGRAMS += tests/gpu_head
endif
tests_gpu_head_SOURCES  = tests/gpu_head.c tests/gpu_numbers.h kernels/cuda/head.cu kernels/cuda/head.h kernels/cuda/boxes.cuh kernels/cuda/layer.cuh kernels/cuda/layer_ends.cuh \
	kernels/cuda/pick.cu
tests_gpu_head_CPPFLAGS = $(kernel_cppflags) $(CUDA_CPPFLAGS)
tests_gpu_head_LDFLAGS  = $(AM_LDFLAGS) $(CUDA_LDFLAGS)
tests_gpu_head_LDADD    = $(CUDA_LIBS) -lm
