#define _GNU_SOURCE
#include "image.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <miniinfer/context.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* This program's own header, put there by the linker: what a plugin must be like. */
extern const ElfW(Ehdr) __ehdr_start __attribute__((visibility("hidden")));

static bool refuse(GError **error, const char *format, ...) G_GNUC_PRINTF(2, 3);
static bool refuse(GError **error, const char *format, ...)
{
    va_list ap;
    va_start(ap, format);
    g_propagate_error(error, g_error_new_valist(MI_ERROR, MI_ERROR_PLUGIN, format, ap));
    va_end(ap);
    return false;
}

static bool check_header(const char *file, const ElfW(Ehdr) *h, ssize_t got, GError **error)
{
    if (got < 0)
        return refuse(error, "%s: %s", file, g_strerror(errno));
    if (got == 0)
        return refuse(error, "%s: the file is empty", file);
    if (got < SELFMAG || memcmp(h->e_ident, ELFMAG, SELFMAG) != 0)
        return refuse(error, "%s: no shared object", file);
    if (got < (ssize_t)sizeof *h)
        return refuse(error, "%s: the file is cut short: its header ends after %zd bytes", file, got);
    if (h->e_ident[EI_CLASS] != __ehdr_start.e_ident[EI_CLASS] ||
        h->e_ident[EI_DATA] != __ehdr_start.e_ident[EI_DATA] || h->e_machine != __ehdr_start.e_machine)
        return refuse(error, "%s: built for another machine (ELF machine %d, class %d; this is %d, class %d)", file,
                      h->e_machine, h->e_ident[EI_CLASS], __ehdr_start.e_machine, __ehdr_start.e_ident[EI_CLASS]);
    if (h->e_type != ET_DYN)
        return refuse(error, "%s: no shared object (ELF type %d)", file, h->e_type);
    if (h->e_phentsize != sizeof(ElfW(Phdr)))
        return refuse(error, "%s: its program headers are %d bytes each, %zu are wanted", file, h->e_phentsize,
                      sizeof(ElfW(Phdr)));
    return true;
}

static bool check_segments(const char *file, int fd, const ElfW(Ehdr) *h, uint64_t size, GError **error)
{
    const size_t              bytes = (size_t)h->e_phnum * sizeof(ElfW(Phdr));
    g_autofree ElfW(Phdr)    *ph = g_malloc0(bytes + 1);

    if (h->e_phoff > size || bytes > size - h->e_phoff)
        return refuse(error, "%s: the file is cut short: its program headers end past it", file);
    if (pread(fd, ph, bytes, (off_t)h->e_phoff) < 0)
        return refuse(error, "%s: %s", file, g_strerror(errno));
    for (int i = 0; i < h->e_phnum; i++)
        if (ph[i].p_filesz > 0 && (ph[i].p_offset > size || ph[i].p_filesz > size - ph[i].p_offset))
            return refuse(error, "%s: the file is cut short: it has %" G_GUINT64_FORMAT
                          " bytes, a segment ends at byte %" G_GUINT64_FORMAT, file, (guint64)size, (guint64)(ph[i].p_offset + ph[i].p_filesz));
    return true;
}

bool mi_image_check_file(const char *file, GError **error)
{
    ElfW(Ehdr)  h = { 0 };
    struct stat st;
    int         fd = open(file, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    bool        ok;

    if (fd < 0 || fstat(fd, &st) != 0)
        ok = refuse(error, "%s: %s", file, g_strerror(errno));
    else if (!S_ISREG(st.st_mode))
        ok = refuse(error, "%s: no regular file", file);
    else if (st.st_mode & S_IWOTH)
        ok = refuse(error, "%s: everybody may write it; chmod o-w", file);
    else
        ok = check_header(file, &h, pread(fd, &h, sizeof h, 0), error) &&
             check_segments(file, fd, &h, (uint64_t)st.st_size, error);
    if (fd >= 0)
        close(fd);
    return ok;
}

typedef struct {
    const struct link_map *map;
    MiImage               *out;
} Search;

static int find_object(struct dl_phdr_info *info, size_t size, void *user)
{
    Search *s = user;

    (void)size;
    if (info->dlpi_addr != s->map->l_addr)
        return 0;
    for (int i = 0; i < info->dlpi_phnum && s->out->n < MI_MAX_SEGMENTS; i++) { /* LCOV_EXCL_BR_LINE: linkers make 4 to 6 */
        const ElfW(Phdr) *ph = &info->dlpi_phdr[i];
        if (ph->p_type != PT_LOAD || !(ph->p_flags & PF_R)) /* LCOV_EXCL_BR_LINE: no linker leaves PF_R out */
            continue;
        uintptr_t start = info->dlpi_addr + ph->p_vaddr;
        s->out->at[s->out->n].start = start;
        s->out->at[s->out->n].code = ph->p_flags & PF_X;
        s->out->at[s->out->n++].end = start + ph->p_memsz;
    }
    return 1;
}

bool mi_image_of(void *dl, MiImage *out)
{
    struct link_map *map;

    out->n = 0;
    /* LCOV_EXCL_BR_START: both fail for what dlopen() did not give only */
    return dlinfo(dl, RTLD_DI_LINKMAP, &map) == 0 && dl_iterate_phdr(find_object, &(Search){ map, out }) == 1;
    /* LCOV_EXCL_BR_STOP */
}

/* Bytes from p to the end of its segment; 0: not the object's. */
static size_t room(const MiImage *m, const void *p)
{
    const uintptr_t at = (uintptr_t)p;

    for (int i = 0; i < m->n; i++)
        if (at >= m->at[i].start && at < m->at[i].end)
            return m->at[i].end - at;
    return 0;
}

bool mi_image_holds(const MiImage *m, const void *p, size_t n) { return n > 0 && room(m, p) >= n; }

bool mi_image_holds_code(const MiImage *m, const void *p)
{
    const uintptr_t at = (uintptr_t)p;

    for (int i = 0; i < m->n; i++)
        if (m->at[i].code && at >= m->at[i].start && at < m->at[i].end)
            return true;
    return false;
}

bool mi_image_holds_text(const MiImage *m, const char *p)
{
    const size_t n = room(m, p);
    return n > 0 && memchr(p, 0, n);
}
