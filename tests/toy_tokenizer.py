"A small tokenizer of real text in fifteen languages, as XLM-R's: trained once in a process"
import os
from functools import cache

import pytest

from xlnb.data.tasks import get_task
from xlnb.training.pretraining import train_tokenizer

mirror = pytest.mark.skipif(not os.environ.get("XLNB_DATA"), reason="XLNB_DATA is not set: real text comes from the mirror of the benchmarks")


@cache
def real_tokenizer(size=8000, rows=300):
    "Pieces of the sentences of XNLI"
    task = get_task("xnli")
    texts = [t for lang in task.langs for r in task.load(lang, "validation", limit=rows) for t in (r["text_a"], r["text_b"])]
    return train_tokenizer(texts, size)
