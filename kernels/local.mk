# Linked into the plugins that use them: $(cpu_kernels).  Each instruction set
# is an archive of its own, chosen at run time.  No contraction: a*b + c is two
# roundings unless the source says fma, so that all of them give the same bits.
noinst_LIBRARIES += kernels/libcpu.a
kernel_cflags = $(AM_CFLAGS) -ffp-contract=off
kernels_libcpu_a_SOURCES = kernels/cpu/blocks.c kernels/cpu/blocks.h kernels/cpu/dense.c kernels/cpu/dense.h \
	kernels/cpu/dense_lanes.h kernels/cpu/encode.c kernels/cpu/encode.h kernels/cpu/encode_lanes.h \
	kernels/cpu/panels.c kernels/cpu/panels.h \
	kernels/cpu/panels_scalar.c kernels/cpu/quants.c kernels/cpu/quants.h kernels/cpu/x86.h
kernels_libcpu_a_CPPFLAGS = $(kernel_cppflags)
kernels_libcpu_a_CFLAGS   = $(kernel_cflags)
cpu_kernels = kernels/libcpu.a
if X86_64
noinst_LIBRARIES += kernels/libcpu_avx2.a kernels/libcpu_avxvnni.a kernels/libcpu_avx512.a
kernels_libcpu_a_CPPFLAGS += -DMI_X86_64
cpu_kernels += kernels/libcpu_avx2.a kernels/libcpu_avxvnni.a kernels/libcpu_avx512.a kernels/libcpu.a
endif
kernels_libcpu_avx2_a_SOURCES    = kernels/cpu/dense_avx2.c kernels/cpu/encode_avx2.c kernels/cpu/panels_avx2.c kernels/cpu/panels_ymm.h
kernels_libcpu_avx2_a_CPPFLAGS   = $(kernel_cppflags) -DMI_X86_64
kernels_libcpu_avx2_a_CFLAGS     = $(kernel_cflags) -mavx2 -mfma -mf16c
kernels_libcpu_avxvnni_a_SOURCES  = kernels/cpu/panels_avxvnni.c kernels/cpu/panels_ymm.h
kernels_libcpu_avxvnni_a_CPPFLAGS = $(kernel_cppflags) -DMI_X86_64
kernels_libcpu_avxvnni_a_CFLAGS   = $(kernel_cflags) -mavx2 -mfma -mf16c -mavxvnni
kernels_libcpu_avx512_a_SOURCES  = kernels/cpu/dense_avx512.c kernels/cpu/encode_avx512.c kernels/cpu/panels_avx512.c
kernels_libcpu_avx512_a_CPPFLAGS = $(kernel_cppflags) -DMI_X86_64
kernels_libcpu_avx512_a_CFLAGS   = $(kernel_cflags) -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512vnni -mavx2 -mfma -mf16c
# Vectors of floats and attention.  Instruction sets are chosen inside, and contraction is wanted.
noinst_LIBRARIES += kernels/libfloats.a
kernels_libfloats_a_SOURCES = kernels/cpu/attend_body.h kernels/cpu/floats.c kernels/cpu/floats.h \
	kernels/cpu/floats_avx2.c kernels/cpu/floats_avx512.c kernels/cpu/floats_body.h kernels/cpu/floats_plain.c \
	kernels/cpu/scaled.h \
	kernels/cpu/vectors.h
kernels_libfloats_a_CPPFLAGS = $(kernel_cppflags)

# Device code: the plugin that launches it lists its .cu; what they share is included.
# What gemv.cu leaves to others, in files that compile side by side.
quant_gemv = kernels/cuda/quant_gemv.cu kernels/cuda/quant_gemv_blocks.cu kernels/cuda/quant_gemv_wide.cu kernels/cuda/fp8_gemv.cu kernels/cuda/fp8_gemv.h
EXTRA_DIST += kernels/cuda/attention.cuh kernels/cuda/device.cuh kernels/cuda/refused.h
SUFFIXES = .cu
AM_V_NVCC   = $(AM_V_NVCC_@AM_V@)
AM_V_NVCC_  = $(AM_V_NVCC_@AM_DEFAULT_V@)
AM_V_NVCC_0 = @echo "  NVCC    " $@;
NVCCCOMPILE = $(NVCC) -std=c++17 -I$(top_srcdir)/include -I$(top_srcdir)/kernels $(NVCCFLAGS) $(NVCC_GENCODE) \
	-Xcompiler -fPIC,-fvisibility=hidden
.cu.o:
	$(AM_V_NVCC)$(MKDIR_P) $(@D) && $(NVCCCOMPILE) -MMD -MP -MF $@.d -MT $@ -c -o $@ $<
-include $(wildcard kernels/cuda/*.d tests/*.d)
MOSTLYCLEANFILES += kernels/cuda/*.d tests/*.d
