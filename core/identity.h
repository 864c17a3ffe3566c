/* identity.h - what makes two engines answer alike, as text to compare. */
#ifndef MI_CORE_IDENTITY_H
#define MI_CORE_IDENTITY_H

#include "parts.h"

/* The model as it is read and run: metadata, weights, dtype, tokenizer, template; the caller frees it. */
char *mi_identity_model(const MiAssembly *);
/* The sampler chain, and what each link does where a request says nothing; the caller frees it. */
char *mi_identity_sampling(const MiAssembly *);

#endif
