#define _GNU_SOURCE
#undef _FORTIFY_SOURCE /* its inline functions go round the ones here */
#include "failing.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static bool     armed, endless;
static FailKind failing;
static long     left; /* calls until the one that fails; 0: it did */

void failing_begin(FailKind kind, long nth, bool for_ever)
{
    failing = kind;
    left = nth;
    endless = for_ever;
    armed = true;
}

bool failing_end(void)
{
    armed = false;
    return left == 0;
}

static bool fails(FailKind kind)
{
    if (!armed || kind != failing || (left == 0 && !endless))
        return false;
    left -= left > 0;
    if (left > 0)
        return false;
    errno = kind == FAIL_FILES ? EIO : ENOMEM;
    return true;
}

/* ---- what is replaced: found by plugins and libraries, so not hidden -------------------------- */
#pragma GCC visibility push(default)

/* GLib's own: no bytes are NULL, a product that overflows too; g_free() is free(). */
gpointer g_try_malloc(gsize n) { return n == 0 || fails(FAIL_MEMORY) ? NULL : malloc(n); }
gpointer g_try_malloc0(gsize n) { return n == 0 || fails(FAIL_MEMORY) ? NULL : calloc(1, n); }

gpointer g_try_malloc_n(gsize n, gsize size)
{
    return size && n > G_MAXSIZE / size ? NULL : g_try_malloc(n * size);
}

gpointer g_try_malloc0_n(gsize n, gsize size)
{
    return size && n > G_MAXSIZE / size ? NULL : g_try_malloc0(n * size);
}

gpointer g_try_realloc(gpointer p, gsize n) { return n == 0 || fails(FAIL_MEMORY) ? NULL : realloc(p, n); }

gpointer g_try_realloc_n(gpointer p, gsize n, gsize size)
{
    return size && n > G_MAXSIZE / size ? NULL : g_try_realloc(p, n * size);
}

/* The C library's. */
#define REAL(name)                                   \
    static __typeof__(&name) real;                   \
    if (!real)                                       \
        *(void **)&real = dlsym(RTLD_NEXT, #name)

int open(const char *path, int flags, ...)
{
    REAL(open);
    va_list args;
    va_start(args, flags);
    const mode_t mode = flags & O_CREAT ? va_arg(args, mode_t) : 0;
    va_end(args);
    return fails(FAIL_FILES) ? -1 : real(path, flags, mode);
}

int fstat(int fd, struct stat *st)
{
    REAL(fstat);
    return fails(FAIL_FILES) ? -1 : real(fd, st);
}

int stat(const char *path, struct stat *st)
{
    REAL(stat);
    return fails(FAIL_FILES) ? -1 : real(path, st);
}

ssize_t read(int fd, void *to, size_t n)
{
    REAL(read);
    return fails(FAIL_FILES) ? -1 : real(fd, to, n);
}

ssize_t pread(int fd, void *to, size_t n, off_t at)
{
    REAL(pread);
    return fails(FAIL_FILES) ? -1 : real(fd, to, n, at);
}

void *mmap(void *at, size_t n, int protection, int flags, int fd, off_t from)
{
    REAL(mmap);
    return fd >= 0 && fails(FAIL_FILES) ? MAP_FAILED : real(at, n, protection, flags, fd, from);
}

FILE *fopen(const char *restrict path, const char *restrict mode)
{
    REAL(fopen);
    return fails(FAIL_FILES) ? NULL : real(path, mode);
}

int fsync(int fd)
{
    REAL(fsync);
    return fails(FAIL_FILES) ? -1 : real(fd);
}

int rename(const char *from, const char *to)
{
    REAL(rename);
    return fails(FAIL_FILES) ? -1 : real(from, to);
}

char *realpath(const char *restrict path, char *restrict out)
{
    REAL(realpath);
    return fails(FAIL_FILES) ? NULL : real(path, out);
}
#pragma GCC visibility pop

/* ---- every call in turn --------------------------------------------------------------------------- */

static int lowest_free(void)
{
    const int fd = open("/dev/null", O_RDONLY);
    close(fd);
    return fd;
}

static void check_message(FailKind kind, long n, const GError *error)
{
    static const char *const reasons[FAIL_N] = { "memory", "Input/output error" };

    if (!error)
        fail_msg("call %ld: refused without a word", n);
    if (strchr(error->message, '\n') || !strstr(error->message, reasons[kind]))
        fail_msg("call %ld: '%s' does not say '%s', or is not one line", n, error->message, reasons[kind]);
}

void failing_each(FailKind kind, FailingAct *act, void *user)
{
    g_autoptr(GString) wanted = g_string_new(NULL), result = g_string_new(NULL);
    g_autoptr(GError)  first = NULL;

    if (!act(user, wanted, &first))
        fail_msg("%s", first->message);
    const int fd = lowest_free();
    for (int for_ever = 0; for_ever < 2; for_ever++)
        for (long n = 1, failed = true; failed; n++) {
            g_autoptr(GError) error = NULL;
            g_string_truncate(result, 0);
            failing_begin(kind, n, for_ever);
            const bool ok = act(user, result, &error);
            failed = failing_end();
            if (!ok)
                check_message(kind, n, error);
            else if (strcmp(result->str, wanted->str) != 0)
                fail_msg("call %ld failed, and without a word '%s' became '%s'", n, wanted->str, result->str);
            assert_true(ok || failed);
            assert_int_equal(lowest_free(), fd);
        }
}
