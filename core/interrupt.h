/* interrupt.h - Ctrl-C once stops what runs, twice quits. */
#ifndef MI_CORE_INTERRUPT_H
#define MI_CORE_INTERRUPT_H

#include <stdbool.h>

/* Before the first thread is made: blocks SIGINT and SIGTERM, and waits for them in a thread of
 * its own.  Until a target is set the first one quits with 128 + its number. */
void mi_interrupt_start(void);
/* stop: called in that thread by the first signal; NULL: there is nothing to stop. */
void mi_interrupt_target(void (*stop)(void *), void *user);
bool mi_interrupted(void); /* stop was called */

#endif
