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

bool mi_plot_write(const char *file, const char *title, const double *x, int n, const MiPanel *panels, int n_panels,
                   GError **error)
{
    g_autoptr(GString) s = g_string_new(NULL);
    g_autoptr(GError)  why = NULL;
    const int          height = TOP + n_panels * (PANEL + GAP);
    const double       end = n ? rounded_up(MAX(x[n - 1], 1e-3)) : 1;

    g_string_append_printf(s, "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\">\n"
                              "<style>text { font: 12px sans-serif } .grid { stroke: #ccc }</style>\n"
                              "<rect width=\"100%%\" height=\"100%%\" fill=\"white\"/>\n", WIDTH, height);
    label(s, WIDTH / 2.0, 20, "middle", title);
    for (int i = 0; i < n_panels; i++)
        panel(s, &panels[i], x, n, end, i);
    g_string_append(s, "</svg>\n");
    if (g_file_set_contents(file, s->str, (gssize)s->len, &why))
        return true;
    g_set_error(error, MI_ERROR, MI_ERROR_IO, "%s", why->message);
    return false;
}
