/* dependent.c - linked with a plugin, and none itself. */
int dependent(void);
int dependent(void) { return 0; }
