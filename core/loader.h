/* loader.h - weights on their way to a device: threads that read, convert and
 * copy through pinned buffers, each thread through one of its own. */
#ifndef MI_CORE_LOADER_H
#define MI_CORE_LOADER_H

#include "context.h"

MiLoader *mi_loader_new(MiOwnedContext *, GError **error);
/* Plain bytes. */
bool mi_loader_copy(MiLoader *, void *dst, const void *src, size_t bytes, GError **error);
/* The elements of a weight as dtype, decoded by its format where they are stored otherwise.
 * Returns when dst is filled on the device, or, of copies, will be in stream order. */
bool mi_loader_put(MiLoader *, void *dst, MiDType dtype, const MiWeight *, GError **error);
/* Waits for all copies, and frees. */
bool mi_loader_free(MiLoader *, GError **error);

/* Elements first..first+n of w as dtype at dst, host memory. */
bool mi_weight_convert(const MiWeight *w, int64_t first, int64_t n, MiDType dtype, void *dst, GError **error);

#endif
