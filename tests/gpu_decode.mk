# Needs a card: run by tests/gpu, not by make check.
if MI_CUDA
check_PROGRAMS += tests/gpu_decode
endif
tests_gpu_decode_SOURCES  = tests/gpu_decode.c tests/gpu_decode.h tests/gpu_decode_data.h tests/gpu_decode_stored.h tests/gpu_numbers.h tests/scaled.h tests/gpu_decode_step.cu kernels/cuda/gemv.cu kernels/cuda/pick.cu \
	kernels/cuda/gemv.cuh kernels/cuda/gemv_ends.cuh kernels/cuda/gemv_parts.cuh kernels/cuda/gemv.h $(quant_gemv) kernels/cuda/quant_pack.cu kernels/cuda/quant_stored.cu kernels/cuda/skinny.cu \
	kernels/cuda/skinny.cuh kernels/cuda/skinny_parts.cuh kernels/cuda/skinny.h \
	kernels/cuda/attention_decode.cu kernels/cuda/attention_scaled.cu kernels/cuda/attention_whole.cu
tests_gpu_decode_CPPFLAGS = $(kernel_cppflags) $(CUDA_CPPFLAGS)
tests_gpu_decode_LDFLAGS  = $(AM_LDFLAGS) $(CUDA_LDFLAGS)
tests_gpu_decode_LDADD    = $(CUDA_LIBS) -lm
