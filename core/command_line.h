/* command_line.h - argv, taken apart by the tables of help.c. */
#ifndef MI_CORE_COMMAND_LINE_H
#define MI_CORE_COMMAND_LINE_H

#include "help.h"

#include <glib.h>

typedef struct {
    const MiCommand *command;
    GHashTable      *flags;    /* long name -> value; "" for a switch */
    GPtrArray       *settings; /* "section.key", value, in turn, as they were given */
    GPtrArray       *operands; /* char * */
} MiCommandLine;

/* False with a message for the user, who then gets exit status 64. */
bool mi_command_line_parse(MiCommandLine *, int argc, char **argv, GError **error);
void mi_command_line_clear(MiCommandLine *);

/* The value of a command's own flag; NULL: not given. */
const char *mi_flag(const MiCommandLine *, const char *name);
/* A whole number in [min, max]; def where the flag is not given. */
bool mi_flag_int(const MiCommandLine *, const char *name, int min, int max, int def, int *out, GError **error);

#endif
