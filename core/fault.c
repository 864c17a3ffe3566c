#include "fault.h"
#include "exit.h"

#include <signal.h>
#include <string.h>
#include <unistd.h>

/* Only what is safe in a signal handler. */
static void on_bus(int signal)
{
    static const char text[] = "miniinfer: a model file became shorter while it was in use; fetch it again\n";
    ssize_t           ignored = write(STDERR_FILENO, text, sizeof text - 1);

    (void)signal, (void)ignored;
    _exit(MI_EXIT_IO);
}

void mi_fault_install(void)
{
    struct sigaction action = { .sa_handler = on_bus };
    sigaction(SIGBUS, &action, NULL);
}
