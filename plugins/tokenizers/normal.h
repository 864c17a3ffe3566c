/* normal.h - Unicode normalisation form C. */
#ifndef MI_TOKENIZERS_NORMAL_H
#define MI_TOKENIZERS_NORMAL_H

#include <stdbool.h>
#include <stddef.h>

/* text in NFC: *out is text itself when nothing changes, else new memory for g_free().  Bytes
 * that are no UTF-8 stay as they are.  False: no memory. */
bool mi_nfc(const char *text, size_t len, char **out, size_t *out_len);

#endif
