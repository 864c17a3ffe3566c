/* plot.h - curves over one axis of time, or points over whole numbers, one panel below the other, as an SVG file. */
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

/* Of each column one point, or two; what is not above 0 is not there. */
typedef struct {
    const char   *title;
    const double *y[2]; /* [n] of the plot each */
} MiDots;

typedef struct {
    const char   *title, *x_label, *unit;
    const char   *names[2]; /* of a column's points; the second NULL: there is one */
    int           n;        /* columns, numbered from 0 */
    const MiDots *panels;
    int           n_panels;
} MiDotPlot;

/* On a logarithmic axis, the same in all panels. */
bool mi_plot_dots(const char *file, const MiDotPlot *, GError **error);

#endif
