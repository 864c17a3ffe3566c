/* scheduler_plot.c - pictures of lines as SVG, side by side. */
#include "scheduler_sim.h"

#include <math.h>

enum { WIDTH = 520, HEIGHT = 380, LEFT = 62, RIGHT = 92, TOP = 34, BOTTOM = 46 };

static const char *const colours[] = { "#1f77b4", "#d62728", "#2ca02c", "#ff7f0e", "#9467bd", "#8c564b", "#17becf" };

typedef struct {
    const Plot *p;
    double      x0, x1, y0, y1; /* y as it is plotted: its logarithm, perhaps */
} Axes;

static double lift(const Plot *p, double y) { return p->log ? log10(MAX(y, 1e-3)) : y; }

static double px(const Axes *a, double x) { return LEFT + (x - a->x0) / (a->x1 - a->x0) * (WIDTH - LEFT - RIGHT); }

static double py(const Axes *a, double y)
{
    return HEIGHT - BOTTOM - (lift(a->p, y) - a->y0) / (a->y1 - a->y0) * (HEIGHT - TOP - BOTTOM);
}

static Axes axes(const Plot *p)
{
    Axes a = { p, p->at[0], p->at[p->n_points - 1], INFINITY, -INFINITY };

    for (int i = 0; i < p->n_lines * p->n_points; i++) {
        a.y0 = MIN(a.y0, lift(p, p->values[i]));
        a.y1 = MAX(a.y1, lift(p, p->values[i]));
    }
    a.y0 = p->log ? floor(a.y0) : 0;
    a.y1 = p->log ? ceil(a.y1) : a.y1 * 1.05;
    a.x1 = a.x1 > a.x0 ? a.x1 : a.x0 + 1;
    a.y1 = a.y1 > a.y0 ? a.y1 : a.y0 + 1;
    return a;
}

static void text(GString *out, double x, double y, const char *anchor, const char *colour, const char *what)
{
    g_string_append_printf(out, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\" fill=\"%s\">%s</text>\n", x, y, anchor, colour,
                           what);
}

static void rule(GString *out, double x1, double y1, double x2, double y2)
{
    g_string_append_printf(out, "<path d=\"M%.1f %.1fL%.1f %.1f\" stroke=\"#ccc\"/>\n", x1, y1, x2, y2);
}

static void frame(GString *out, const Axes *a)
{
    const Plot *p = a->p;
    char        label[32];

    for (int i = 0; i < p->n_points; i++) {
        rule(out, px(a, p->at[i]), TOP, px(a, p->at[i]), HEIGHT - BOTTOM);
        g_snprintf(label, sizeof label, "%g", p->at[i]);
        text(out, px(a, p->at[i]), HEIGHT - BOTTOM + 16, "middle", "#333", label);
    }
    for (int i = 0; i <= (p->log ? (int)lround(a->y1 - a->y0) : 5); i++) {
        const double y = p->log ? pow(10, a->y0 + i) : a->y1 * i / 5;
        rule(out, LEFT, py(a, y), WIDTH - RIGHT, py(a, y));
        g_snprintf(label, sizeof label, "%.3g", y);
        text(out, LEFT - 6, py(a, y) + 4, "end", "#333", label);
    }
    text(out, LEFT, TOP - 14, "start", "#000", p->title);
    text(out, (LEFT + WIDTH - RIGHT) / 2.0, HEIGHT - 10, "middle", "#333", p->x);
    g_string_append_printf(out, "<text transform=\"translate(14 %d) rotate(-90)\" text-anchor=\"middle\">%s</text>\n", HEIGHT / 2,
                           p->y);
}

static void plot(GString *out, const Plot *p)
{
    const Axes a = axes(p);

    frame(out, &a);
    for (int l = 0; l < p->n_lines; l++) {
        const char *colour = colours[l % (int)G_N_ELEMENTS(colours)];
        g_string_append(out, "<polyline fill=\"none\" stroke-width=\"2\" points=\"");
        for (int i = 0; i < p->n_points; i++)
            g_string_append_printf(out, "%.1f,%.1f ", px(&a, p->at[i]), py(&a, p->values[l * p->n_points + i]));
        g_string_append_printf(out, "\" stroke=\"%s\"/>\n", colour);
        g_string_append_printf(out, "<path d=\"M%d %dh16\" stroke=\"%s\" stroke-width=\"3\"/>\n", WIDTH - RIGHT + 10, TOP + 10 + 18 * l,
                               colour);
        text(out, WIDTH - RIGHT + 30, TOP + 14 + 18 * l, "start", "#000", p->names[l]);
    }
}

bool plots_write(const char *path, const Plot *plots, int n_plots, GError **error)
{
    g_autoptr(GString) out = g_string_new(NULL);

    g_string_append_printf(out, "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" font-family=\"sans-serif\" "
                           "font-size=\"12\">\n<rect width=\"100%%\" height=\"100%%\" fill=\"#fff\"/>\n", n_plots * WIDTH, HEIGHT);
    for (int i = 0; i < n_plots; i++) {
        g_string_append_printf(out, "<g transform=\"translate(%d 0)\">\n", i * WIDTH);
        plot(out, &plots[i]);
        g_string_append(out, "</g>\n");
    }
    g_string_append(out, "</svg>\n");
    return g_file_set_contents(path, out->str, (gssize)out->len, error);
}
