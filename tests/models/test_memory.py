"""What a model needs is counted from its shape and holds against a model that is built."""

import pytest
from transformers import DynamicCache

from r2a_utils.models.memory import (
    GPU_BANDWIDTH,
    GPU_OPERATIONS,
    ROOM,
    memory_needed,
    most_rows,
    token_bytes,
    writing_seconds,
)
from r2a_utils.models.registry import REGISTRY, parameter_count, shape_of

ESTIMATED = [name for name in REGISTRY if shape_of(name) is not None]
QWEN = "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B"


def test_the_memory_of_weights_and_cache_is_that_of_a_running_model(tiny):
    weights = sum(p.numel() * p.itemsize for p in tiny.hf.parameters())
    assert memory_needed("r2a-tiny", "float32") == weights
    cache = DynamicCache(config=tiny.hf.config)
    rows, tokens = 3, 11
    ids = tiny.tokenizer("step " * 50, return_tensors="pt").input_ids[:, :tokens]
    tiny.hf(ids.expand(rows, -1), past_key_values=cache)
    kept = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    assert memory_needed("r2a-tiny", "float32", rows, tokens) == weights + kept
    assert kept == rows * tokens * token_bytes("r2a-tiny", "float32")


@pytest.mark.parametrize("name", ESTIMATED)
def test_half_the_precision_takes_half_the_memory(name):
    assert 2 * memory_needed(name, rows=4, tokens=100) == memory_needed(name, "float32", 4, 100)
    assert memory_needed(name) == 2 * parameter_count(shape_of(name))


@pytest.mark.parametrize("name", ESTIMATED)
def test_the_rows_that_fit_do_and_one_more_does_not(name):
    memory = 200e9
    rows = most_rows(name, memory, 10_000)
    assert ROOM * memory_needed(name, rows=rows, tokens=10_000) <= memory
    assert ROOM * memory_needed(name, rows=rows + 1, tokens=10_000) > memory


def test_no_row_fits_where_the_weights_do_not():
    assert most_rows(QWEN, 15e9, 1000) == 0


def test_writing_takes_no_less_than_reading_the_weights_for_each_token_or_than_computing():
    seconds = writing_seconds(QWEN, 500, 64, 10_000)
    steps = 8 * 10_000
    assert seconds >= steps * memory_needed(QWEN) / GPU_BANDWIDTH
    assert seconds >= steps * 2 * parameter_count(shape_of(QWEN)) * 64 / GPU_OPERATIONS
    assert writing_seconds(QWEN, 500, 500, 10_000) < seconds < writing_seconds(QWEN, 500, 1, 10_000)


def test_of_a_model_without_a_known_shape_nothing_is_estimated():
    [name, *_] = [name for name in REGISTRY if name not in ESTIMATED]
    assert memory_needed(name) is token_bytes(name) is most_rows(name, 1e12, 10) is None
    assert writing_seconds(name, 500, 64, 10_000) is None
