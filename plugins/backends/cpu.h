/* cpu.h - the parts of the CPU backend. */
#ifndef PLUGINS_BACKENDS_CPU_H
#define PLUGINS_BACKENDS_CPU_H

#include <glib.h>
#include <stdbool.h>
#include <stddef.h>

enum { CPU_MAX_THREADS = 512 };

typedef struct Pool Pool;

/* n_threads: with the caller of run(); 0: as many as cores.  NULL with *error. */
Pool *cpu_pool_new(int n_threads, int spin_us, bool pin, GError **error);
void  cpu_pool_free(Pool *);
/* fn(arg, i, n) for every i < n, n threads; returns when all have.  No allocation.  A call from
 * inside fn, or from another thread while one runs, is done by the calling thread alone. */
void cpu_pool_run(Pool *, void (*fn)(void *arg, int i, int n), void *arg);

/* The cores this process may use: its affinity, one hardware thread a core, and at most the
 * quota of its control groups.  cpus: [CPU_MAX_THREADS] their numbers; returns how many. */
int cpu_cores(int *cpus);
/* Bytes, of the machine or of the tightest control group. */
bool cpu_memory(size_t *free, size_t *total);

#endif
