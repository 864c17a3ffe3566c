/* machine.c - what the kernel says this process may use: affinity, topology,
 * memory and control groups (version 2, and version 1's usual places). */
#define _GNU_SOURCE
#include "cpu.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool read_text(const char *path, char *text, size_t size)
{
    FILE  *f = fopen(path, "re");
    size_t n = 0;

    if (f) {
        n = fread(text, 1, size - 1, f);
        fclose(f);
    }
    text[n] = 0;
    return n > 0;
}

/* This process's group of version 2, "/" or "/a/b"; a container sees its own as the root. */
static void own_group(char *path, size_t size)
{
    char  text[4096];
    char *line = NULL;

    g_strlcpy(path, "/", size);
    if (read_text("/proc/self/cgroup", text, sizeof text) &&
        (strncmp(text, "0::", 3) == 0 || (line = strstr(text, "\n0::")))) {
        line = line ? line + 4 : text + 3;
        line[strcspn(line, "\n")] = 0;
        g_strlcpy(path, line, size);
    }
}

typedef void (*Limit)(const char *dir, void *out);

/* The group and all above it: each of them limits. */
static void each_group(Limit limit, void *out)
{
    char path[1024], dir[1280];

    own_group(path, sizeof path);
    for (;;) {
        g_snprintf(dir, sizeof dir, "/sys/fs/cgroup%s", path);
        limit(dir, out);
        char *slash = strrchr(path, '/');
        if (!slash || !path[1])
            return;
        slash[slash == path] = 0; /* "/a" becomes "/", which is the last */
    }
}

static bool read_in(const char *dir, const char *file, char *text, size_t size)
{
    char path[1400];
    g_snprintf(path, sizeof path, "%s/%s", dir, file);
    return read_text(path, text, size);
}

/* ---- cores ------------------------------------------------------------------ */

static void cpu_quota(const char *dir, void *out)
{
    char   text[64], period_text[64];
    double quota = 0, period = 0;

    if (read_in(dir, "cpu.max", text, sizeof text)) {
        if (sscanf(text, "%lf %lf", &quota, &period) != 2)
            return; /* "max 100000" */
    } else if (read_in(dir, "cpu/cpu.cfs_quota_us", text, sizeof text) &&
               read_in(dir, "cpu/cpu.cfs_period_us", period_text, sizeof period_text)) {
        quota = atof(text), period = atof(period_text);
    }
    if (quota > 0 && period > 0 && quota / period < *(double *)out)
        *(double *)out = quota / period;
}

/* The lowest hardware thread of the core that cpu belongs to. */
static int core_of(int cpu)
{
    char path[128], text[256];
    g_snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/topology/thread_siblings_list", cpu);
    return read_text(path, text, sizeof text) ? atoi(text) : cpu;
}

int cpu_cores(int *cpus)
{
    cpu_set_t set;
    int       cores[CPU_MAX_THREADS], n = 0;
    double    quota = CPU_MAX_THREADS;

    CPU_ZERO(&set);
    if (sched_getaffinity(0, sizeof set, &set) != 0)
        CPU_SET(0, &set);
    for (int cpu = 0; cpu < CPU_SETSIZE && n < CPU_MAX_THREADS; cpu++) {
        int i = 0, core;
        if (!CPU_ISSET(cpu, &set))
            continue;
        for (core = core_of(cpu); i < n && cores[i] != core; i++)
            ;
        if (i == n)
            cores[n] = core, cpus[n++] = cpu;
    }
    each_group(cpu_quota, &quota);
    const int whole = (int)quota + (quota > (int)quota);
    return whole < n ? whole : n;
}

/* ---- memory ----------------------------------------------------------------- */

typedef struct { size_t free, total; } Memory;

static void memory_limit(const char *dir, void *out)
{
    Memory            *m = out;
    char               text[64], used_text[64];
    unsigned long long limit, used;

    if (!(read_in(dir, "memory.max", text, sizeof text) &&
          read_in(dir, "memory.current", used_text, sizeof used_text)) &&
        !(read_in(dir, "memory/memory.limit_in_bytes", text, sizeof text) &&
          read_in(dir, "memory/memory.usage_in_bytes", used_text, sizeof used_text)))
        return;
    if (sscanf(text, "%llu", &limit) != 1 || sscanf(used_text, "%llu", &used) != 1 || limit >= m->total)
        return;
    m->total = limit;
    m->free = MIN(m->free, limit > used ? limit - used : 0);
}

static size_t meminfo(const char *text, const char *key)
{
    const char        *at = strstr(text, key);
    unsigned long long kib = 0;
    return at && sscanf(at + strlen(key), "%llu", &kib) == 1 ? (size_t)kib * 1024 : 0;
}

bool cpu_memory(size_t *free, size_t *total)
{
    char   text[8192];
    Memory m;

    if (!read_text("/proc/meminfo", text, sizeof text))
        return false;
    m = (Memory){ meminfo(text, "\nMemAvailable:"), meminfo(text, "MemTotal:") };
    each_group(memory_limit, &m);
    *free = m.free, *total = m.total;
    return m.total > 0;
}
