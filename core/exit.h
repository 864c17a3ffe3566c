/* exit.h - what the process's exit status says: the numbers of sysexits.h.
 *
 * A supervisor restarts after none of 64, 65, 66 and 78: the same start would
 * end the same way. */
#ifndef MI_CORE_EXIT_H
#define MI_CORE_EXIT_H

#include <miniinfer/context.h>

enum {
    MI_EXIT_DIFFERS = 1,    /* `verify`: it ran, and something is out of tolerance */
    MI_EXIT_USAGE = 64,     /* the command line */
    MI_EXIT_DATA = 65,      /* a model or an input file that is not what it says */
    MI_EXIT_NOT_FOUND = 66, /* a file, model or feature */
    MI_EXIT_DEVICE = 69,
    MI_EXIT_INTERNAL = 70,
    MI_EXIT_OS = 71, /* no memory */
    MI_EXIT_IO = 74, /* reading or writing failed */
    MI_EXIT_PERMISSION = 77,
    MI_EXIT_CONFIG = 78, /* the configuration, a plugin that it needs, or parts that do not fit */
};

/* error NULL: 0. */
static inline int mi_exit_status(const GError *error)
{
    static const int by_code[] = {
        [MI_ERROR_PLUGIN] = MI_EXIT_CONFIG,      [MI_ERROR_NOT_FOUND] = MI_EXIT_NOT_FOUND,
        [MI_ERROR_CONFIG] = MI_EXIT_CONFIG,      [MI_ERROR_UNSUPPORTED] = MI_EXIT_CONFIG,
        [MI_ERROR_MODEL] = MI_EXIT_DATA,         [MI_ERROR_DEVICE] = MI_EXIT_DEVICE,
        [MI_ERROR_NO_MEMORY] = MI_EXIT_OS,       [MI_ERROR_IO] = MI_EXIT_IO,
    };

    if (!error)
        return 0;
    if (error->domain == MI_ERROR)
        return (size_t)error->code < G_N_ELEMENTS(by_code) ? by_code[error->code] : MI_EXIT_INTERNAL;
    if (error->domain != G_FILE_ERROR)
        return MI_EXIT_INTERNAL;
    switch (error->code) {
    case G_FILE_ERROR_NOENT:
    case G_FILE_ERROR_NOTDIR:
        return MI_EXIT_NOT_FOUND;
    case G_FILE_ERROR_ACCES:
    case G_FILE_ERROR_PERM:
        return MI_EXIT_PERMISSION;
    default:
        return MI_EXIT_IO;
    }
}

#endif
