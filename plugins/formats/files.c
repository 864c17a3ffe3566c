#include "files.h"
#include <errno.h>
#include <fcntl.h>
#include <miniinfer/context.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static bool fail(const char *path, int code, const char *why, GError **error)
{
    g_set_error(error, MI_ERROR, code, "%s: %s", path, why);
    return false;
}

static bool map(int fd, const char *path, MiMapped *out, GError **error)
{
    struct stat st;

    if (fstat(fd, &st) != 0)
        return fail(path, MI_ERROR_MODEL, g_strerror(errno), error);
    if (!S_ISREG(st.st_mode))
        return fail(path, MI_ERROR_MODEL, "not a regular file", error);
    if (st.st_size == 0)
        return fail(path, MI_ERROR_MODEL, "the file is empty", error);
    void *p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (p == MAP_FAILED)
        return fail(path, MI_ERROR_MODEL, g_strerror(errno), error);
    *out = (MiMapped){ p, (size_t)st.st_size };
    return true;
}

bool mi_map(const char *path, MiMapped *out, GError **error)
{
    /* O_NONBLOCK: a FIFO must not hold us up before it can be refused. */
    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

    if (fd < 0)
        return fail(path, errno == ENOENT ? MI_ERROR_NOT_FOUND : MI_ERROR_MODEL, g_strerror(errno), error);
    const bool ok = map(fd, path, out, error);
    close(fd);
    return ok;
}

void mi_unmap(MiMapped *m)
{
    if (m->data)
        munmap((void *)(uintptr_t)m->data, m->size);
    m->data = NULL;
}

/* The file's pages stay in the kernel's cache: the mapping is clean, so nothing is lost. */
void mi_map_drop(const MiMapped *m, const void *data, size_t bytes)
{
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), begin = (uintptr_t)m->data, from = (uintptr_t)data;

    if (from < begin || from - begin > m->size || bytes > m->size - (from - begin))
        return;
    const uintptr_t first = (from + page - 1) / page * page, end = (from + bytes) / page * page;
    if (end > first)
        (void)madvise((char *)(uintptr_t)data + (first - from), end - first, MADV_DONTNEED);
}

/* Is `path` below `directory`?  Both are resolved. */
static bool below(const char *path, const char *directory)
{
    const size_t n = strlen(directory);
    return strncmp(path, directory, n) == 0 && path[n] == '/';
}

/* Without links; free() it. */
static char *resolve(const char *path, GError **error)
{
    char *real = realpath(path, NULL);

    if (!real)
        fail(path, errno == ENOENT ? MI_ERROR_NOT_FOUND : MI_ERROR_MODEL, g_strerror(errno), error);
    return real;
}

char *mi_model_file(const char *directory, const char *name, GError **error)
{
    g_autofree char *path = g_build_filename(directory, name, NULL), *parent = NULL, *repository = NULL;
    char            *real_directory = resolve(directory, error), *real = NULL, *out = NULL;

    if (real_directory)
        real = resolve(path, error);
    if (real) {
        parent = g_path_get_dirname(real_directory);
        if (g_str_has_suffix(parent, "/snapshots"))
            repository = g_path_get_dirname(parent);
        if (below(real, real_directory) || (repository && below(real, repository)))
            out = g_strdup(real);
        else
            fail(path, MI_ERROR_MODEL, "a link that leads out of the model's directory", error);
    }
    free(real);
    free(real_directory);
    return out;
}
