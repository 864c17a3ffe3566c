/* fault.h - a mapped file that became shorter while it is read. */
#ifndef MI_CORE_FAULT_H
#define MI_CORE_FAULT_H

/* From here on SIGBUS is a line on standard error and MI_EXIT_IO, not a core dump: weights are
 * mapped, and whoever truncates their file makes reading them a fault. */
void mi_fault_install(void);

#endif
