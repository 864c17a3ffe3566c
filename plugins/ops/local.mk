plugins += plugins/ops_cpu.so
plugins_ops_cpu_so_SOURCES = plugins/ops/cpu.c plugins/ops/elementwise.c plugins/ops/lines.c plugins/ops/logprobs.c \
	plugins/ops/norms.c plugins/ops/ops.h plugins/ops/rows.c
plugins_ops_cpu_so_CPPFLAGS = $(kernel_cppflags)
plugins_ops_cpu_so_LDFLAGS  = $(plugin_ldflags)
plugins_ops_cpu_so_LDADD    = kernels/libfloats.a kernels/libcpu.a $(plugin_ldadd)

if MI_CUDA
plugins += plugins/ops_cuda.so
endif
plugins_ops_cuda_so_SOURCES = plugins/ops/cuda.c kernels/cuda/elementwise.cu kernels/cuda/cut.cuh kernels/cuda/lines.cuh \
	kernels/cuda/logprobs.cu kernels/cuda/norms.cu kernels/cuda/ops.h kernels/cuda/rows.cu kernels/cuda/sampling.h \
	kernels/cuda/team.cuh
plugins_ops_cuda_so_CPPFLAGS = $(kernel_cppflags) $(CUDA_CPPFLAGS)
plugins_ops_cuda_so_LDFLAGS  = $(plugin_ldflags) $(CUDA_LDFLAGS)
plugins_ops_cuda_so_LDADD    = $(plugin_ldadd) $(CUDA_LIBS)
