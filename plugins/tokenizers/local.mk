# Shared by the tokenizers: pieces by text, merging, splitting.
tokenizer_common = plugins/tokenizers/lexicon.c plugins/tokenizers/lexicon.h \
	plugins/tokenizers/merge.c plugins/tokenizers/merge.h plugins/tokenizers/utf8.h
tokenizer_sentence = plugins/tokenizers/sentence.c plugins/tokenizers/sentence.h

plugins += plugins/tokenizer_bpe.so
plugins_tokenizer_bpe_so_SOURCES = plugins/tokenizers/bpe.c $(tokenizer_common) \
	plugins/tokenizers/normal.c plugins/tokenizers/normal.h plugins/tokenizers/scan.c plugins/tokenizers/scan.h \
	plugins/tokenizers/split.c plugins/tokenizers/split.h
plugins_tokenizer_bpe_so_LDFLAGS = $(plugin_ldflags)
plugins_tokenizer_bpe_so_LDADD   = $(plugin_ldadd)

plugins += plugins/tokenizer_spm.so
plugins_tokenizer_spm_so_SOURCES = plugins/tokenizers/spm.c $(tokenizer_common) $(tokenizer_sentence)
plugins_tokenizer_spm_so_LDFLAGS = $(plugin_ldflags)
plugins_tokenizer_spm_so_LDADD   = $(plugin_ldadd)

plugins += plugins/tokenizer_unigram.so
plugins_tokenizer_unigram_so_SOURCES = plugins/tokenizers/unigram.c $(tokenizer_common) $(tokenizer_sentence)
plugins_tokenizer_unigram_so_LDFLAGS = $(plugin_ldflags)
plugins_tokenizer_unigram_so_LDADD   = $(plugin_ldadd)

# What reads a tokenizer.json, for the plugin of a directory format and for tests; needs jansson.
tokenizer_json = plugins/formats/tokenizer_json.c plugins/formats/tokenizer_json.h \
	plugins/formats/tokenizer_steps.c plugins/formats/tokenizer_steps.h \
	plugins/formats/tokenizer_vocab.c plugins/formats/tokenizer_vocab.h \
	plugins/formats/json_scan.c plugins/formats/json_scan.h plugins/formats/letters.c plugins/formats/letters.h
EXTRA_DIST += plugins/formats/tokenizer_json.c plugins/formats/tokenizer_json.h \
	plugins/formats/tokenizer_steps.c plugins/formats/tokenizer_steps.h \
	plugins/formats/tokenizer_vocab.c plugins/formats/tokenizer_vocab.h \
	plugins/formats/json_scan.c plugins/formats/json_scan.h
