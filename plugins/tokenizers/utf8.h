/* utf8.h - one character of text that need not be UTF-8. */
#ifndef MI_TOKENIZERS_UTF8_H
#define MI_TOKENIZERS_UTF8_H

#include <stddef.h>
#include <stdint.h>

/* What stands for a byte b that begins no valid character: above Unicode. */
#define MI_INVALID_BYTE 0x110000u

/* The character at p < end, its bytes in *n.  Overlong forms, surrogates and cut characters
 * are invalid: MI_INVALID_BYTE + that byte, *n = 1. */
static inline uint32_t mi_utf8_at(const char *p, const char *end, size_t *n)
{
    const unsigned char *s = (const unsigned char *)p;
    const size_t         left = (size_t)(end - p);
    uint32_t             c = s[0];

    *n = 1;
    if (c < 0x80)
        return c;
    if (c >= 0xc2 && c < 0xe0 && left >= 2 && (s[1] & 0xc0) == 0x80) {
        *n = 2;
        return (c & 0x1fu) << 6 | (s[1] & 0x3fu);
    }
    if (c >= 0xe0 && c < 0xf0 && left >= 3 && (s[1] & 0xc0) == 0x80 && (s[2] & 0xc0) == 0x80) {
        uint32_t u = (c & 0x0fu) << 12 | (s[1] & 0x3fu) << 6 | (s[2] & 0x3fu);
        if (u >= 0x800 && (u < 0xd800 || u > 0xdfff)) {
            *n = 3;
            return u;
        }
    }
    if (c >= 0xf0 && c < 0xf5 && left >= 4 && (s[1] & 0xc0) == 0x80 && (s[2] & 0xc0) == 0x80 &&
        (s[3] & 0xc0) == 0x80) {
        uint32_t u = (c & 0x07u) << 18 | (s[1] & 0x3fu) << 12 | (s[2] & 0x3fu) << 6 | (s[3] & 0x3fu);
        if (u >= 0x10000 && u < 0x110000) {
            *n = 4;
            return u;
        }
    }
    return MI_INVALID_BYTE + c;
}

#endif
