/* help.h - every command with its options: what the parser accepts, what
 * --help prints and what the man page says, from one table. */
#ifndef MI_CORE_HELP_H
#define MI_CORE_HELP_H

#include <stdbool.h>

/* --section.key=value is accepted beside these, for every key of the configuration. */
typedef struct {
    char        letter; /* 0: none */
    const char *name;   /* NULL ends a table */
    const char *arg;    /* "N"; NULL: a switch */
    const char *key;    /* the configuration key that it stands for; NULL: the command's own.
                         * A switch sets it to "true". */
    const char *help;
} MiFlag;

typedef struct {
    const char   *name;     /* NULL ends the table; "": no command given */
    const char   *operands; /* "SRC DST" */
    int           min_operands, max_operands;
    const char   *summary; /* one line */
    const char   *text;    /* paragraphs, separated by empty lines */
    const MiFlag *flags;
    const char *const *examples; /* a command line and what it does, in turn; NULL-terminated */
} MiCommand;

extern const MiCommand mi_commands[];
extern const MiFlag    mi_common_flags[]; /* every command takes them */

const MiCommand *mi_command_find(const char *name); /* NULL: no such command */
const MiFlag    *mi_flag_find(const MiCommand *, const char *name, char letter); /* by either; NULL: none */

void mi_help_print(const MiCommand *); /* NULL: the overview */
void mi_help_man(void);                /* the man page, as roff */

#endif
