/* cmd.h - the commands.  Each gives the process's exit status, having reported
 * what went wrong in one line on standard error. */
#ifndef MI_CORE_CMD_H
#define MI_CORE_CMD_H

#include "exit.h"
#include "prompt.h"
#include "session.h"

int mi_cmd_bare(MiCommandLine *);
int mi_cmd_chat(MiCommandLine *);
int mi_cmd_run(MiCommandLine *);
int mi_cmd_batch(MiCommandLine *);
int mi_cmd_inspect(MiCommandLine *);
int mi_cmd_plan(MiCommandLine *);
int mi_cmd_tokenize(MiCommandLine *);
int mi_cmd_perplexity(MiCommandLine *);
int mi_cmd_convert(MiCommandLine *);
int mi_cmd_quantize(MiCommandLine *);
int mi_cmd_bench(MiCommandLine *);
int mi_cmd_bench_offline(MiCommandLine *);
int mi_cmd_verify(MiCommandLine *);
int mi_cmd_determinism(MiCommandLine *); /* verify --determinism */
int mi_cmd_trace(MiCommandLine *);

/* Prints "miniinfer: message", frees the error, gives its exit status; NULL: 0. */
int mi_cmd_report(GError *);
/* The same for a fault in the command line: 64. */
int mi_cmd_usage(GError *);

/* All of a file, or of standard input where it is "-"; the caller frees it, a NUL follows it. */
char *mi_cmd_slurp(const char *file, size_t *len, GError **error);

/* "1,2,3", blanks allowed, as ids that the caller frees. */
bool mi_cmd_ids(const char *list, int32_t **out, size_t *n, GError **error);

#endif
