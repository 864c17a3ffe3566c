#include "letters.h"
#include <glib.h>
#include <string.h>

static bool itself(unsigned byte)
{
    return (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
}

/* The 68 others, in order: letter 0x100 + i stands for the i-th. */
static unsigned other(unsigned i) { return i < 33 ? i : i < 67 ? 0x7f + (i - 33) : 0xad; }

bool mi_letters_to_bytes(const char *text, size_t len, char *out, size_t *n)
{
    const unsigned char *p = (const unsigned char *)text;

    *n = 0;
    for (size_t i = 0; i < len;) {
        unsigned c = p[i++];
        if (c >= 0x80) { /* two bytes of UTF-8 are enough for U+0143 */
            if (c < 0xc2 || c > 0xc5 || i == len || (p[i] & 0xc0) != 0x80)
                return false;
            c = (c & 0x1f) << 6 | (p[i++] & 0x3f);
        }
        if (c < 0x100 ? !itself(c) : c - 0x100 >= 68)
            return false;
        out[(*n)++] = (char)(c < 0x100 ? c : other(c - 0x100));
    }
    return true;
}

size_t mi_bytes_to_letters(const char *bytes, size_t len, char *out)
{
    size_t n = 0;

    for (size_t i = 0; i < len; i++) {
        const unsigned byte = (unsigned char)bytes[i];
        const unsigned c = itself(byte) ? byte : 0x100 + (byte <= 0x20 ? byte : byte == 0xad ? 67 : byte - 0x7f + 33);
        if (c >= 0x80)
            out[n++] = (char)(0xc0 | c >> 6);
        out[n++] = (char)(c >= 0x80 ? 0x80 | (c & 0x3f) : c);
    }
    return n;
}

bool mi_byte_piece(const char *text, size_t len)
{
    return len == 6 && memcmp(text, "<0x", 3) == 0 && g_ascii_isxdigit(text[3]) && g_ascii_isxdigit(text[4]) &&
           text[5] == '>';
}
