/* floats_plain.c - what every machine has: vectors of four, which compilers turn
 * into SSE2 or NEON. */
#include <cpu/floats.h>
#define LANES 4
#define FLOATS mi_floats_plain
#define FLOATS_NAME "plain"
#include <cpu/floats_body.h>
