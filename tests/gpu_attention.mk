# Needs a card: run by tests/gpu, not by make check.
if MI_CUDA
check_PROGRAMS += tests/gpu_attention
endif
tests_gpu_attention_SOURCES = tests/gpu_attention.c tests/gpu_attention.h tests/gpu_attention_world.c tests/gpu_attention_bench.c \
	kernels/cuda/attention_decode.cu kernels/cuda/attention_flash.cu kernels/cuda/attention_gqa.cu \
	kernels/cuda/attention_scaled.cu kernels/cuda/attention_simple.cu kernels/cuda/attention_whole.cu kernels/cuda/attention_widen.cu kernels/cuda/read.cu tests/scaled.h
tests_gpu_attention_CPPFLAGS = $(kernel_cppflags) $(CUDA_CPPFLAGS)
tests_gpu_attention_LDFLAGS  = $(AM_LDFLAGS) $(CUDA_LDFLAGS)
tests_gpu_attention_CFLAGS   = $(AM_CFLAGS) -O3
tests_gpu_attention_LDADD    = $(CUDA_LIBS) -lm
