# Linked into the plugins that use it.
noinst_LIBRARIES += kernels/libcpu.a
kernels_libcpu_a_SOURCES = kernels/cpu/blocks.c kernels/cpu/blocks.h
kernels_libcpu_a_CPPFLAGS = $(kernel_cppflags)
