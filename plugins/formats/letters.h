/* letters.h - how vocabularies spell bytes: GPT-2's letters, <0xNN>.
 *
 * GPT-2 writes a byte that is a printable character of Latin-1 as that character
 * and the other 68 as U+0100 and on, in order; so a blank is U+0120. */
#ifndef MI_FORMATS_LETTERS_H
#define MI_FORMATS_LETTERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* text [len] to out, at most len bytes; false: a character that is no letter for a byte. */
bool mi_letters_to_bytes(const char *text, size_t len, char *out, size_t *n);
/* bytes [len] to out, at most 2 * len bytes; how many. */
size_t mi_bytes_to_letters(const char *bytes, size_t len, char *out);
/* Is it of the form "<0x0A>"? */
bool mi_byte_piece(const char *text, size_t len);

#endif
