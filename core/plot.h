/* plot.h - curves over one axis of time, one panel below the other, as an SVG file. */
#ifndef MI_CORE_PLOT_H
#define MI_CORE_PLOT_H

#include <glib.h>
#include <stdbool.h>

typedef struct {
    const char   *title;
    const double *y; /* [n] */
} MiPanel;

/* x: [n] seconds, ascending.  False with *error: the file cannot be written. */
bool mi_plot_write(const char *file, const char *title, const double *x, int n, const MiPanel *panels, int n_panels,
                   GError **error);

#endif
