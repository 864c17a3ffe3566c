/* scan.h - the split rules that models share, as scanners instead of regular expressions. */
#ifndef MI_TOKENIZERS_SCAN_H
#define MI_TOKENIZERS_SCAN_H

#include <stddef.h>

/* Each gives the end of the word that begins at p < end. */
const char *mi_scan_gpt2(const char *p, const char *end);
const char *mi_scan_llama3(const char *p, const char *end);
const char *mi_scan_qwen2(const char *p, const char *end);
/* The end of the text without digits that begins at p; p itself is the start of a digit: its end. */
const char *mi_scan_digits(const char *p, const char *end);

#endif
