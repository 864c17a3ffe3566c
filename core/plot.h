/* plot.h - curves over one axis of time, or bars over whole numbers, one panel below the other, as an SVG file. */
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

/* Of each column one bar, or two side by side; NAN: none there. */
typedef struct {
    const char   *title;
    const double *y[2]; /* [n] of the plot each */
} MiBars;

typedef struct {
    const char   *title, *x_label, *unit;
    const char   *names[2]; /* of a column's bars; the second NULL: there is one */
    int           n;        /* columns, numbered from 0 */
    const MiBars *panels;
    int           n_panels;
} MiBarPlot;

/* All panels have one scale, so that they compare. */
bool mi_plot_bars(const char *file, const MiBarPlot *, GError **error);

#endif
