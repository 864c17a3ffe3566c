/* st_quant.h - matrices that are quantised already, written as compressed-tensors' "pack-quantized" or, of E4M3,
 * "float-quantized", or as GPTQ. */
#ifndef MI_FORMATS_ST_QUANT_H
#define MI_FORMATS_ST_QUANT_H

#include "convert.h"

/* A matrix is several tensors of the file; a weight that is stored plainly is one, itself. */
typedef enum { MI_PART_WHOLE, MI_PART_CODES, MI_PART_SCALES, MI_PART_ZEROS, MI_PART_SHAPE, MI_PART_GROUPS } MiPart;

typedef struct {
    char        name[MI_NAME_MAX + 32];
    const char *dtype;
    int         ndim;
    int64_t     shape[2];
    uint64_t    bytes;
} MiPartTensor;

/* Its codes lie as one of those layouts has them: words of a row's codes, a scale for groups of columns of a row; or words of a
 * column's, of groups too, with which group each column is of; or E4M3 with a scale for a row. */
bool mi_st_packable(const MiWeight *w);
/* Those of the parts that it has, 4 at most; how many. */
int mi_st_parts(const MiWeight *w, MiPart out[4]);
/* Of any part but MI_PART_WHOLE. */
void mi_st_part_tensor(const MiWeight *w, MiPart, MiPartTensor *out);
void mi_st_write_part(MiOut *, const MiConversion *, const MiWeight *w, MiPart, MiRowOrder);

/* quantization_config's members for all packed weights of a source, as text; NULL: there are none, or, with *error, not
 * all of them are of one kind.  *gptq: they are that, which has a file of this, too. */
char *mi_st_quant_config(const MiSource *from, bool *gptq, GError **error);

#endif
