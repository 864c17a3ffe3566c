#include "plot.h"
#include <miniinfer/context.h>

#include <math.h>

enum { WIDTH = 900, PANEL = 150, LEFT = 70, RIGHT = 20, TOP = 50, GAP = 46 };

static const char *const colours[] = { "#1b6ca8", "#c8553d", "#3a7d44", "#7d5ba6" };

/* A number of one or two digits and zeros, not below x. */
static double rounded_up(double x)
{
    static const double steps[] = { 1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10 };
    const double        ten = x > 0 ? pow(10, floor(log10(x))) : 1;

    for (size_t i = 0; i < G_N_ELEMENTS(steps); i++)
        if (x <= steps[i] * ten)
            return steps[i] * ten;
    return 10 * ten;
}

/* Numbers in a file do not follow the locale. */
static void put(GString *s, const char *before, double x, const char *after)
{
    char text[G_ASCII_DTOSTR_BUF_SIZE];
    g_string_append_printf(s, "%s%s%s", before, g_ascii_formatd(text, sizeof text, "%.6g", x), after);
}

static void label(GString *s, double x, double y, const char *anchor, const char *text)
{
    g_autofree char *safe = g_markup_escape_text(text, -1);

    put(s, "<text x=\"", x, "\"");
    put(s, " y=\"", y, "\"");
    g_string_append_printf(s, " text-anchor=\"%s\">%s</text>\n", anchor, safe);
}

static void number(GString *s, double x, double y, const char *anchor, double value, const char *unit)
{
    g_autoptr(GString) text = g_string_new(NULL);

    put(text, "", value, unit);
    label(s, x, y, anchor, text->str);
}

static void panel(GString *s, const MiPanel *p, const double *x, int n, double end, int index)
{
    const double top = TOP + index * (PANEL + GAP), bottom = top + PANEL, wide = WIDTH - LEFT - RIGHT;
    double       most = 0;

    for (int i = 0; i < n; i++)
        most = MAX(most, p->y[i]);
    most = rounded_up(most);
    label(s, LEFT, top - 8, "start", p->title);
    for (int i = 0; i <= 2; i++) {
        const double y = bottom - PANEL * i / 2.0;
        put(s, "<line class=\"grid\" x1=\"", LEFT, "\"");
        put(s, " x2=\"", LEFT + wide, "\"");
        put(s, " y1=\"", y, "\"");
        put(s, " y2=\"", y, "\"/>\n");
        number(s, LEFT - 8, y + 4, "end", most * i / 2, "");
    }
    for (int i = 0; i <= 5; i++)
        number(s, LEFT + wide * i / 5, bottom + 16, "middle", end * i / 5, " s");
    g_string_append_printf(s, "<polyline fill=\"none\" stroke-width=\"1.5\" stroke=\"%s\" points=\"",
                           colours[(size_t)index % G_N_ELEMENTS(colours)]);
    for (int i = 0; i < n; i++) {
        put(s, "", LEFT + wide * x[i] / end, ",");
        put(s, "", bottom - PANEL * p->y[i] / most, " ");
    }
    g_string_append(s, "\"/>\n");
}

static void begin(GString *s, int height, const char *title)
{
    g_string_append_printf(s, "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\">\n"
                              "<style>text { font: 12px sans-serif } .grid { stroke: #ccc }</style>\n"
                              "<rect width=\"100%%\" height=\"100%%\" fill=\"white\"/>\n", WIDTH, height);
    label(s, WIDTH / 2.0, 20, "middle", title);
}

static bool finish(GString *s, const char *file, GError **error)
{
    g_autoptr(GError) why = NULL;

    g_string_append(s, "</svg>\n");
    if (g_file_set_contents(file, s->str, (gssize)s->len, &why))
        return true;
    g_set_error(error, MI_ERROR, MI_ERROR_IO, "%s", why->message);
    return false;
}

bool mi_plot_write(const char *file, const char *title, const double *x, int n, const MiPanel *panels, int n_panels,
                   GError **error)
{
    g_autoptr(GString) s = g_string_new(NULL);
    const double       end = n ? rounded_up(MAX(x[n - 1], 1e-3)) : 1;

    begin(s, TOP + n_panels * (PANEL + GAP), title);
    for (int i = 0; i < n_panels; i++)
        panel(s, &panels[i], x, n, end, i);
    return finish(s, file, error);
}

/* ---- points ----------------------------------------------------------------------- */

enum { DOTS = 96, DOTS_TOP = 74, TICKS = 30 /* numbers below a panel, or less */ };

/* What the axis of values, a logarithm's, goes from and to: whole decades. */
typedef struct { double low, decades; } Axis;

static Axis axis_of(const MiDotPlot *p)
{
    double least = G_MAXDOUBLE, most = 0;

    for (int i = 0; i < p->n_panels; i++)
        for (int k = 0; k < 2 && p->names[k]; k++)
            for (int c = 0; c < p->n; c++)
                if (p->panels[i].y[k][c] > 0) {
                    least = MIN(least, p->panels[i].y[k][c]);
                    most = MAX(most, p->panels[i].y[k][c]);
                }
    if (!(most > 0) || !isfinite(most))
        return (Axis){ 1, 1 };
    const double low = floor(log10(least) + 1e-9);
    return (Axis){ pow(10, low), MAX(ceil(log10(most) - 1e-9) - low, 1) };
}

static void line(GString *s, const char *class, double x1, double y1, double x2, double y2)
{
    g_string_append_printf(s, "<line class=\"%s\"", class);
    put(s, " x1=\"", x1, "\"");
    put(s, " y1=\"", y1, "\"");
    put(s, " x2=\"", x2, "\"");
    put(s, " y2=\"", y2, "\"/>\n");
}

static void dot(GString *s, double x, double y, double radius, int which)
{
    put(s, "<circle cx=\"", x, "\"");
    put(s, " cy=\"", y, "\"");
    put(s, " r=\"", radius, "\"");
    g_string_append_printf(s, " fill=\"%s\"/>\n", colours[which]);
}

static void dots(GString *s, const MiDotPlot *p, int index, Axis axis)
{
    const double top = DOTS_TOP + index * (DOTS + GAP), bottom = top + DOTS, wide = WIDTH - LEFT - RIGHT;
    const double column = wide / MAX(p->n, 1);
    const int    each = MAX((p->n + TICKS - 1) / TICKS, 1);

    label(s, LEFT, top - 6, "start", p->panels[index].title);
    for (int i = 0; i <= (int)axis.decades; i++)
        for (int part = 1; part <= 9 && (part == 1 || i < (int)axis.decades); part++) {
            const double y = bottom - DOTS * (i + log10(part)) / axis.decades;
            line(s, part == 1 ? "grid" : "fine", LEFT, y, LEFT + wide, y);
            if (part == 1)
                number(s, LEFT - 8, y + 4, "end", axis.low * pow(10, i), p->unit);
        }
    for (int c = 0; c < p->n; c++) {
        const double x = LEFT + column * (c + 0.5);
        double       at[2] = { NAN, NAN };
        for (int k = 0; k < 2 && p->names[k]; k++)
            if (p->panels[index].y[k][c] > 0)
                at[k] = bottom - DOTS * log10(p->panels[index].y[k][c] / axis.low) / axis.decades;
        if (isfinite(at[0]) && isfinite(at[1]))
            line(s, "pair", x, at[0], x, at[1]);
        for (int k = 1; k >= 0; k--)
            if (isfinite(at[k]))
                dot(s, x, at[k], CLAMP(column / 4, 1.5, 4), k);
        if (c % each == 0)
            number(s, x, bottom + 16, "middle", c, "");
    }
    label(s, LEFT - 8, bottom + 16, "end", p->x_label);
}

bool mi_plot_dots(const char *file, const MiDotPlot *p, GError **error)
{
    g_autoptr(GString) s = g_string_new(NULL);
    const Axis         axis = axis_of(p);

    begin(s, DOTS_TOP + p->n_panels * (DOTS + GAP), p->title);
    g_string_append(s, "<style>line { stroke: #eee } .grid { stroke: #aaa } .pair { stroke: #888 }</style>\n");
    for (int k = 0; k < 2 && p->names[k]; k++) {
        dot(s, LEFT + 6 + 110 * k, 40, 4, k);
        label(s, LEFT + 18 + 110 * k, 44, "start", p->names[k]);
    }
    for (int i = 0; i < p->n_panels; i++)
        dots(s, p, i, axis);
    return finish(s, file, error);
}
