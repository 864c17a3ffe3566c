#include "size.h"
#include <glib.h>
#include <string.h>

bool size_parse(const char *text, size_t *out)
{
    static const struct { const char *unit; double bytes; } units[] = {
        { "", 1 }, { "B", 1 }, { "kB", 1e3 }, { "KB", 1e3 }, { "MB", 1e6 }, { "GB", 1e9 }, { "TB", 1e12 },
        { "KiB", 0x1p10 }, { "MiB", 0x1p20 }, { "GiB", 0x1p30 }, { "TiB", 0x1p40 },
    };
    const size_t digits = strspn(text, "0123456789."), n = strlen(text);
    char         number[32], *end;

    if (digits == 0 || digits >= sizeof number)
        return false;
    memcpy(number, text, digits);
    number[digits] = 0;
    const double x = g_ascii_strtod(number, &end);
    const size_t skip = digits + (digits < n && text[digits] == ' ');
    for (size_t i = 0; i < G_N_ELEMENTS(units); i++)
        if (strcmp(text + skip, units[i].unit) == 0) {
            *out = x * units[i].bytes < 0x1p62 ? (size_t)(x * units[i].bytes) : 0;
            return *end == 0 && x * units[i].bytes < 0x1p62 && !(x > 0 && *out == 0);
        }
    return false;
}
