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

/* ---- bars ------------------------------------------------------------------------- */

enum { BARS = 90, BARS_TOP = 74, TICKS = 30 /* numbers below a panel, or less */ };

static void box(GString *s, double x, double y, double wide, double high, const char *colour)
{
    put(s, "<rect x=\"", x, "\"");
    put(s, " y=\"", y, "\"");
    put(s, " width=\"", wide, "\"");
    put(s, " height=\"", high, "\"");
    g_string_append_printf(s, " fill=\"%s\"/>\n", colour);
}

static void bars(GString *s, const MiBarPlot *p, int index, double most)
{
    const MiBars *b = &p->panels[index];
    const double  top = BARS_TOP + index * (BARS + GAP), bottom = top + BARS, wide = WIDTH - LEFT - RIGHT;
    const double  column = wide / MAX(p->n, 1), bar = column * (p->names[1] ? 0.4 : 0.7);
    const int     each = (p->n + TICKS - 1) / TICKS;

    label(s, LEFT, top - 6, "start", b->title);
    for (int i = 0; i <= 2; i++) {
        const double y = bottom - BARS * i / 2.0;
        put(s, "<line class=\"grid\" x1=\"", LEFT, "\"");
        put(s, " x2=\"", LEFT + wide, "\"");
        put(s, " y1=\"", y, "\"");
        put(s, " y2=\"", y, "\"/>\n");
        number(s, LEFT - 8, y + 4, "end", most * i / 2, p->unit);
    }
    for (int i = 0; i < p->n; i++) {
        for (int k = 0; k < 2; k++) {
            const double high = p->names[k] && isfinite(b->y[k][i]) ? BARS * b->y[k][i] / most : 0;
            if (high > 0)
                box(s, LEFT + column * i + (column - bar * (p->names[1] ? 2 : 1)) / 2 + bar * k, bottom - high, bar, high, colours[k]);
        }
        if (i % MAX(each, 1) == 0)
            number(s, LEFT + column * (i + 0.5), bottom + 14, "middle", i, "");
    }
    label(s, LEFT - 8, bottom + 14, "end", p->x_label);
}

bool mi_plot_bars(const char *file, const MiBarPlot *p, GError **error)
{
    g_autoptr(GString) s = g_string_new(NULL);
    double             most = 0;

    for (int i = 0; i < p->n_panels; i++)
        for (int k = 0; k < 2; k++)
            for (int c = 0; p->names[k] && c < p->n; c++)
                most = isfinite(p->panels[i].y[k][c]) ? MAX(most, p->panels[i].y[k][c]) : most;
    most = rounded_up(most);
    begin(s, BARS_TOP + p->n_panels * (BARS + GAP), p->title);
    for (int k = 0; k < 2 && p->names[k]; k++) {
        box(s, LEFT + 110 * k, 34, 12, 12, colours[k]);
        label(s, LEFT + 18 + 110 * k, 44, "start", p->names[k]);
    }
    for (int i = 0; i < p->n_panels; i++)
        bars(s, p, i, most);
    return finish(s, file, error);
}
