#!/usr/bin/env python3
"""tokenizer_peer.py DIRECTORY TEXT: the MB/s at which the PyPI package `tokenizers` encodes a megabyte of TEXT
with DIRECTORY/tokenizer.json, in one thread; the median of 5."""
import os
import statistics
import sys
import time

os.environ['TOKENIZERS_PARALLELISM'] = 'false'
from tokenizers import Tokenizer  # noqa: E402

tokenizer = Tokenizer.from_file(sys.argv[1] + '/tokenizer.json')
text = open(sys.argv[2], encoding='utf-8').read()
text = (text * (1000000 // len(text) + 1))[:1000000]
times = []
for _ in range(5):
    start = time.process_time()
    tokenizer.encode(text, add_special_tokens=False)
    times.append(time.process_time() - start)
print(len(text.encode()) / 1e6 / statistics.median(times))
