/* remote_main.c - the program with the device of remote.c beside all others: what its commands do when that fails.
 * MI_TEST_FAIL: "replay 20 lost", see remote.h.  What is left of it at the end is a line on standard error. */
#include "remote.h"

#include <stdio.h>
#include <stdlib.h>

/* The linker puts this in place of the core's function. */
void __real_mi_plugin_load_all(MiRegistry *r, const char *cli_path, const char *config_path, const char *disable);
void __wrap_mi_plugin_load_all(MiRegistry *r, const char *cli_path, const char *config_path, const char *disable);

static void say_what_is_left(void)
{
    if (remote_left())
        fprintf(stderr, "%s\n", remote_left());
}

void __wrap_mi_plugin_load_all(MiRegistry *r, const char *cli_path, const char *config_path, const char *disable)
{
    static bool again;

    __real_mi_plugin_load_all(r, cli_path, config_path, disable);
    remote_add(r);
    if (again)
        return;
    again = true;
    remote_fail_as(g_getenv("MI_TEST_FAIL"));
    atexit(say_what_is_left);
}
