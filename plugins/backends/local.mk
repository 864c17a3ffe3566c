plugins += plugins/backend_cpu.so
plugins_backend_cpu_so_SOURCES = plugins/backends/cpu.c plugins/backends/cpu.h plugins/backends/machine.c \
	plugins/backends/pool.c
plugins_backend_cpu_so_LDFLAGS = $(plugin_ldflags)
plugins_backend_cpu_so_LDADD   = $(plugin_ldadd)

if MI_CUDA
plugins += plugins/backend_cuda.so
endif
plugins_backend_cuda_so_SOURCES  = plugins/backends/cuda.c kernels/cuda/copies.cu kernels/cuda/copies.h \
	kernels/cuda/read.cu kernels/cuda/read.h
plugins_backend_cuda_so_CPPFLAGS = $(kernel_cppflags) $(CUDA_CPPFLAGS)
plugins_backend_cuda_so_LDFLAGS  = $(plugin_ldflags) $(CUDA_LDFLAGS)
plugins_backend_cuda_so_LDADD    = $(plugin_ldadd) $(CUDA_LIBS)
