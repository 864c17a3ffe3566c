#include "interrupt.h"

#include <glib.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

static GMutex lock;
static void (*target)(void *);
static void *target_user;
static bool  interrupted;

static void *wait_for_signals(void *set)
{
    for (int number; sigwait(set, &number) == 0;) {
        g_mutex_lock(&lock);
        const bool quit = interrupted || !target;
        interrupted = true;
        if (!quit)
            target(target_user);
        g_mutex_unlock(&lock);
        if (quit)
            _exit(128 + number);
    }
    return NULL;
}

void mi_interrupt_start(void)
{
    static sigset_t  set;
    struct sigaction old;
    pthread_t        thread;

    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    /* A shell starts a background job with SIGINT ignored: it stays so. */
    if (sigaction(SIGINT, NULL, &old) == 0 && old.sa_handler != SIG_IGN)
        sigaddset(&set, SIGINT);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    if (pthread_create(&thread, NULL, wait_for_signals, &set) == 0)
        pthread_detach(thread);
    else
        pthread_sigmask(SIG_UNBLOCK, &set, NULL);
}

void mi_interrupt_target(void (*stop)(void *), void *user)
{
    g_mutex_lock(&lock);
    target = stop;
    target_user = user;
    g_mutex_unlock(&lock);
}

bool mi_interrupted(void)
{
    g_mutex_lock(&lock);
    const bool yes = interrupted;
    g_mutex_unlock(&lock);
    return yes;
}
