#!/usr/bin/env python3
"""Makes tokenizer_small.json: small vocabularies, and texts as other libraries encode them.

Needs the PyPI packages sentencepiece 0.2 and tokenizers 0.23; the file made is in the repository.  The models
are trained on words drawn with a fixed seed.  Two forms:

  "pieces"     a SentencePiece model: [text, score, type] by id (types as in miniinfer/format.h) and its settings
  "tokenizer"  a tokenizer.json, with "config", a tokenizer_config.json or null

vectors: [text, ids, decoded], decoded null where unknown pieces have no text; "special": are special pieces read.
"""
import io
import json
import random
import sys

import sentencepiece
import tokenizers
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

NORMAL, UNKNOWN, CONTROL, USER, BYTE = range(5)


def corpus(r):
    syllables = [a + b for a in ['k', 't', 'r', 'm', 'sh', 'l', 'b', '', 'st'] for b in ['a', 'en', 'o', 'ing', 'ue', 'ö']]
    words = [''.join(r.choice(syllables) for _ in range(r.randrange(1, 4))) for _ in range(300)]
    lines = []
    for _ in range(1500):
        line = [r.choice(words[:r.choice([20, 100, 300])]) for _ in range(r.randrange(3, 12))]
        if r.random() < .3:
            line[0] = line[0].capitalize()
        if r.random() < .3:
            line.insert(r.randrange(len(line)), str(r.randrange(3000)))
        lines.append(' '.join(line) + r.choice(['.', '!', '?', ' ...', ',', '']))
    return lines, words


POOLS = ['abcdefgzKS', "'sSdDmMtTlLrReEvV ", '0123456789½²٣Ⅷ', '      \t\n\r\u00a0\u3000', '!?.,;:-_()<>|/#',
         'öéàüñ日本語кирאבعरไ한ខ', '\u0301\u0308\u0323\u0334\u1100\u1161\u11a8', '😀👨\u200d🇩🇪', '▁ ', '\x01\x7f']


def texts(r, words, specials, n):
    out = ['', ' ', 'a', '  two  blanks  ', 'x' * 300, 'ka' * 200, '日本' * 40]
    while len(out) < n:
        s = ''
        for _ in range(r.randrange(1, 14)):
            k = r.random()
            if specials and k < .15:
                s += r.choice(specials)
            elif k < .6:
                s += r.choice(['', ' ', ' ', '  ']) + r.choice(words)
            else:
                pool = r.choice(POOLS)
                s += ''.join(r.choice(pool) for _ in range(r.randrange(1, 4)))
        out.append(s)
    return out


def sp_model(name, lines, words, r, **options):
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(lines), model_writer=model, vocab_size=options.pop('size'),
                                             normalization_rule_name='identity', num_threads=1, minloglevel=2,
                                             character_coverage=.995, hard_vocab_limit=False, **options)
    sp = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    pieces = []
    for i in range(sp.get_piece_size()):
        t = UNKNOWN if sp.is_unknown(i) else CONTROL if sp.is_control(i) else BYTE if sp.is_byte(i) else NORMAL
        pieces.append([sp.id_to_piece(i), sp.get_score(i), t])
    vectors = []
    for t in texts(r, words, [], 70):
        ids = sp.encode(t)
        vectors.append([t, ids, None if sp.unk_id() in ids else sp.decode(ids)])
    return dict(name=name, kind='unigram' if options['model_type'] == 'unigram' else 'spm', pieces=pieces, special=False,
                unk=sp.unk_id(), byte_fallback=options['byte_fallback'], add_prefix_space=options['add_dummy_prefix'],
                collapse_spaces=options['remove_extra_whitespaces'], vectors=vectors)


def hf_model(name, tok, words, r, specials, config=None):
    tok.add_tokens([AddedToken(s, special=False, normalized=False) for s in specials[2:3]])
    tok.add_special_tokens([AddedToken(s, special=True, normalized=False, lstrip=s == '<strip>', rstrip=s == '<strip>')
                            for s in specials[:2] + specials[3:]])
    vectors = []
    for t in texts(r, words, specials, 70):
        ids = tok.encode(t, add_special_tokens=False).ids
        vectors.append([t, ids, None])
    return dict(name=name, tokenizer=json.loads(tok.to_str()), config=config, special=True, vectors=vectors)


def byte_level(lines, split, size, normalizer=None, prefix=False):
    tok = Tokenizer(models.BPE())
    if normalizer:
        tok.normalizer = normalizer
    level = pre_tokenizers.ByteLevel(add_prefix_space=prefix, use_regex=not split)
    tok.pre_tokenizer = pre_tokenizers.Sequence(split + [level]) if split else level
    tok.decoder = decoders.ByteLevel()
    tok.train_from_iterator(lines, trainers.BpeTrainer(vocab_size=size, show_progress=False,
                                                       initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    return tok


def llama2(lines, size):
    tok = Tokenizer(models.BPE(byte_fallback=True, unk_token='<unk>', fuse_unk=True))
    tok.normalizer = normalizers.Sequence([normalizers.Prepend('▁'), normalizers.Replace(' ', '▁')])
    tok.decoder = decoders.Sequence([decoders.Replace('▁', ' '), decoders.ByteFallback(), decoders.Fuse(),
                                     decoders.Strip(' ', 1, 0)])
    trainer = trainers.BpeTrainer(vocab_size=size, show_progress=False,
                                  special_tokens=['<unk>', '<s>', '</s>'] + ['<0x%02X>' % b for b in range(256)])
    tok.train_from_iterator((w for line in lines for w in line.replace(' ', ' \n').split('\n')), trainer)
    j = json.loads(tok.to_str())  # the byte pieces are ordinary ones, not added
    j['added_tokens'] = j['added_tokens'][:3]
    return Tokenizer.from_str(json.dumps(j))


def unigram(lines, size, scheme, split):
    tok = Tokenizer(models.Unigram())
    tok.pre_tokenizer = pre_tokenizers.Metaspace(replacement='▁', prepend_scheme=scheme, split=split)
    tok.decoder = decoders.Metaspace(replacement='▁', prepend_scheme=scheme, split=split)
    tok.train_from_iterator(lines, trainers.UnigramTrainer(vocab_size=size, show_progress=False, unk_token='<unk>',
                                                           special_tokens=['<unk>', '<s>', '</s>']))
    return tok


def main():
    r = random.Random(20)
    lines, words = corpus(r)
    regex = lambda p: pre_tokenizers.Split(tokenizers.Regex(p), 'isolated')
    specials = ['<|end|>', '<|e', '<tool>', '<strip>']
    o200k = ('[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+(?i:\'s|\'t|\'re|\'ve|\'m|\'ll|\'d)?'
             '|[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*(?i:\'s|\'t|\'re|\'ve|\'m|\'ll|\'d)?'
             '|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+')
    sp = dict(byte_fallback=True, add_dummy_prefix=True, remove_extra_whitespaces=False)
    models_ = [
        sp_model('sp bpe', lines, words, r, model_type='bpe', size=420, **sp),
        sp_model('sp bpe no bytes', lines, words, r, model_type='bpe', size=200,
                 byte_fallback=False, add_dummy_prefix=False, remove_extra_whitespaces=False),
        sp_model('sp unigram', lines, words, r, model_type='unigram', size=420, **sp),
        sp_model('sp unigram collapsing', lines, words, r, model_type='unigram', size=200,
                 byte_fallback=False, add_dummy_prefix=True, remove_extra_whitespaces=True),
        hf_model('gpt-2', byte_level(lines, [], 400), words, r, specials),
        hf_model('gpt-2 with prefix', byte_level(lines, [], 400, prefix=True), words, r, specials),
        hf_model('smollm', byte_level(lines, [pre_tokenizers.Digits(True)], 400), words, r, specials),
        hf_model('o200k, nfc', byte_level(lines, [regex(o200k)], 400, normalizers.NFC()), words, r, specials),
        hf_model('three splits', byte_level(lines, [regex('\\p{N}{1,3}'), regex('[一-龥぀-ゟ゠-ヿ]+'), regex(
            '[!"#$%&\'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+'
            '| ?[\\p{P}\\p{S}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+')], 400), words, r, specials),
        hf_model('only digits split', byte_level(lines, [pre_tokenizers.Digits(False)], 300), words, r, specials),
        hf_model('llama 2', llama2(lines, 450), words, r, ['<s>', '</s>', '<tool>', '<strip>'],
                 dict(bos_token='<s>', eos_token=dict(content='</s>'), add_bos_token=True)),
        hf_model('metaspace', unigram(lines, 200, 'always', True), words, r, ['<s>', '</s>', '<tool>', '<strip>']),
        hf_model('metaspace first', unigram(lines, 200, 'first', False), words, r, ['<s>', '</s>', '<tool>', '<strip>']),
    ]
    with open(sys.argv[1] if len(sys.argv) > 1 else 'tokenizer_small.json', 'w') as f:
        f.write('[' + ',\n'.join(json.dumps(m, separators=(',', ':'), ensure_ascii=False) for m in models_) + ']\n')


main()
