"""What a registered model needs: memory from its shape, time from operations and bandwidth.

Memory is counted: the weights, and the keys and values that each token of a text keeps while it is
written. Time is an estimate by the roofline: a step that writes one token in each row takes as long
as the slowest of moving bytes, computing, and starting the kernels of each layer. No estimate here
has been measured on a GPU. Plain sums over the registry's shapes: no library is loaded. What is
not estimated, since the registry has no shape of the model, is None.
"""

from __future__ import annotations

from r2a_utils.models.registry import parameter_count, shape_of

BYTES = {"bfloat16": 2, "float32": 4}
# Beside what is counted: the states of the text being read, and gaps that the allocator leaves.
ROOM = 1.1
# Tokens before the reasoning; the longest problem of MATH-500 has about this many.
PROMPT_TOKENS = 512
# The GPU of the estimate, by the maker's data sheet: an H100 (SXM, 80 GB).
GPU = "H100"
GPU_MEMORY = 80e9  # bytes
GPU_BANDWIDTH = 3.35e12  # bytes a second
GPU_OPERATIONS = 4e14  # a second, in bfloat16: two fifths of the peak
# Python starts the kernels of one layer one after the other; an assumption, not a measurement.
LAUNCH_SECONDS = 1e-3
# A step reads all keys and values once to attend and once more, and writes them, to append to them.
CACHE_PASSES = 3


def memory_needed(name: str, dtype: str = "bfloat16", rows: int = 0, tokens: int = 0) -> int | None:
    """Bytes of a registered model's weights, and of the keys and values of `rows` × `tokens`."""
    shape = shape_of(name)
    if shape is None:
        return None
    return parameter_count(shape) * BYTES[dtype] + rows * tokens * _token_bytes(shape, dtype)


def token_bytes(name: str, dtype: str = "bfloat16") -> int | None:
    """Bytes of the keys and values that one token keeps in all layers, windows counted whole."""
    shape = shape_of(name)
    return None if shape is None else _token_bytes(shape, dtype)


def most_rows(name: str, memory: float, tokens: int, dtype: str = "bfloat16") -> int | None:
    """How many texts of `tokens` can be written at once in `memory` bytes; 0: not one."""
    shape = shape_of(name)
    if shape is None:
        return None
    free = memory / ROOM - parameter_count(shape) * BYTES[dtype]
    return max(0, int(free // (tokens * _token_bytes(shape, dtype))))


def writing_seconds(name: str, problems: int, rows: int, tokens: int) -> float | None:
    """Estimated seconds to write `problems` texts, `rows` at a time, on GPUs in bfloat16.

    Every batch is taken to hold one text that runs to `tokens`, as long traces do. Layers on
    several GPUs work one after the other, so that more GPUs give more memory and no more speed.
    """
    shape = shape_of(name)
    if shape is None:
        return None
    parameters = parameter_count(shape)
    cache = rows * tokens / 2 * _token_bytes(shape, "bfloat16")  # on average over the steps
    moving = (parameters * BYTES["bfloat16"] + CACHE_PASSES * cache) / GPU_BANDWIDTH
    computing = 2 * parameters * rows / GPU_OPERATIONS
    launching = LAUNCH_SECONDS * shape["num_hidden_layers"]
    batches = -(-problems // rows)
    return batches * tokens * max(moving, computing, launching)


def _token_bytes(shape: dict, dtype: str) -> int:
    head_dim = shape.get("head_dim") or shape["hidden_size"] // shape["num_attention_heads"]
    return 2 * shape["num_hidden_layers"] * shape["num_key_value_heads"] * head_dim * BYTES[dtype]
