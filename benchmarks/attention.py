"""Segment masses: time and memory against a plain forward pass, the eager way and TransformerLens.

    python benchmarks/attention.py                  # the 135M shape on a CPU, float32
    python benchmarks/attention.py --device cuda --dtype bfloat16 --lengths 8192 32768 \\
        --shape deepseek-ai/DeepSeek-R1-Distill-Qwen-7B

Random weights of the published shape: speed does not depend on what the weights say. Each way runs
in a process of its own, so that its memory is its own: time is the best of the repetitions, and
memory the peak above what the loaded model holds. The CPU's seconds tell the ways apart on a busy
machine too, with --threads 1. Prints a table and asserts nothing. "Floor" is what the operations
that no exact method can avoid would take at the speed of a plain forward pass.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import lens
import psutil
import torch

from r2a_utils.attention.mass import segment_mass
from r2a_utils.models.loading import ReasoningModel, random_model
from r2a_utils.models.registry import REGISTRY, parameter_count, shape_of
from r2a_utils.texts.trace import SEGMENTS, Trace
from r2a_utils.training.vocabulary import train_tokenizer

# The shares of the segments in a long R1 trace: it is mostly reasoning.
SHARES = (0, 0.05, 0, 0.80, 0, 0.15)

WIDTH = 17  # of a column in the table


def main() -> None:
    arguments = parse()
    if arguments.only:
        print(json.dumps(measure(arguments)))
        return
    print(f"{arguments.shape}, {arguments.dtype}, {hardware(arguments)}")
    columns = ("seconds", "× plain", "CPU s", "× plain", "GB above weights")
    print(f"{'tokens':>7}  {'way':<16}" + "".join(f"{column:>{WIDTH}}" for column in columns))
    for length in arguments.lengths:
        plain: dict = {}
        for way in WAYS:
            found = in_own_process(arguments, way, length)
            plain = found if way == "plain forward" else plain
            print(f"{length:>7}  {way:<16}" + row(found, plain), flush=True)
        least = floor(arguments.shape, length)
        print(f"{length:>7}  {'floor':<16}{'':>{WIDTH}}{least:>{WIDTH}.2f}\n")


# The ways to the masses of one trace --------------------------------------------------------------


def plain_forward(model: ReasoningModel) -> Callable[[Trace], None]:
    """The yardstick: the decoder alone, no logits and no cache."""
    return lambda trace: model.hf.model(input_ids(model, trace), use_cache=False)


def r2a(model: ReasoningModel) -> Callable[[Trace], None]:
    return lambda trace: segment_mass(model, [trace])


def eager(model: ReasoningModel) -> Callable[[Trace], None]:
    """One layer's matrices at a time, pooled in a hook and dropped: kinder than keeping all."""
    model.hf.set_attn_implementation("eager")
    pool: list[Callable] = []

    def forget(module, args, output):
        pool[0](output[1])
        return output[0], None

    for layer in model.hf.model.layers:
        layer.self_attn.register_forward_hook(forget)

    def run(trace: Trace) -> None:
        pool[:] = [pooled(model, trace)]
        model.hf.model(input_ids(model, trace), use_cache=False)

    return run


def transformer_lens(model: ReasoningModel) -> Callable[[Trace], None]:
    bridge = lens.bridge(model)

    def run(trace: Trace) -> None:
        pool = pooled(model, trace)

        def forget(pattern, hook) -> None:  # what a hook returns would replace the pattern
            pool(pattern)

        hooks = [(f"blocks.{layer}.attn.hook_pattern", forget) for layer in range(model.n_layers)]
        bridge.run_with_hooks(input_ids(model, trace), return_type=None, fwd_hooks=hooks)

    return run


WAYS = {
    "plain forward": plain_forward,
    "segment_mass": r2a,
    "eager": eager,
    "TransformerLens": transformer_lens,
}


def pooled(model: ReasoningModel, trace: Trace) -> Callable[[torch.Tensor], torch.Tensor]:
    """From a layer's matrices [1, head, token, token] to its masses [1, head, segment, segment]."""
    spans = torch.zeros(len(trace), len(SEGMENTS), device=model.device, dtype=model.dtype)
    for column, segment in enumerate(SEGMENTS):
        spans[trace.segments[segment], column] = 1
    means = (spans / spans.sum(0)).T
    return lambda weights: means @ (weights @ spans)


def input_ids(model: ReasoningModel, trace: Trace) -> torch.Tensor:
    return torch.tensor([trace.token_ids], device=model.device)


def long_trace(length: int) -> Trace:
    """Random tokens, in segments of the proportions that an R1 trace has."""
    ids = torch.randint(0, 300, (length,), generator=torch.Generator().manual_seed(0))
    sizes = [max(1, int(share * length)) for share in SHARES]
    sizes[3] += length - sum(sizes)
    stops = torch.tensor(sizes).cumsum(0).tolist()
    starts = [0, *stops[:-1]]
    segments = dict(zip(SEGMENTS, map(slice, starts, stops), strict=True))
    return Trace(tuple(ids.tolist()), ("",) * length, segments)


# Measuring ----------------------------------------------------------------------------------------


def in_own_process(arguments: argparse.Namespace, way: str, length: int) -> dict:
    if way == "TransformerLens" and not lens.INSTALLED:
        return {"skipped": "not installed"}
    shape = shape_of(arguments.shape)
    matrices = 4 * shape["num_attention_heads"] * length**2  # one layer's, float32
    # The eager softmax holds scores, their float32 copy and the weights.
    if way in ("eager", "TransformerLens") and 3 * matrices > free_memory(arguments.device):
        return {"skipped": f"would hold {3 * matrices / 1e9:.0f} GB"}
    command = [sys.executable, __file__, "--only", way, "--lengths", str(length)]
    for name in ("shape", "dtype", "device", "threads", "repeat"):
        command += [f"--{name}", str(getattr(arguments, name))]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        return {"skipped": (done.stderr.strip().splitlines() or ["killed, out of memory"])[-1][:60]}
    return json.loads(done.stdout.splitlines()[-1])


def measure(arguments: argparse.Namespace) -> dict:
    torch.set_num_threads(arguments.threads)
    tokenizer = train_tokenizer(["any text"])
    model = random_model(arguments.shape, tokenizer, dtype=arguments.dtype, device=arguments.device)
    run = WAYS[arguments.only](model)
    [length] = arguments.lengths
    with torch.no_grad():
        run(long_trace(64))  # kernels, caches and nnsight's sources are ready after this
        peak, seconds, cpu = PeakMemory(arguments.device), [], []
        with peak:
            for _ in range(arguments.repeat):
                start, cpu_start = time.perf_counter(), time.process_time()
                run(long_trace(length))
                if arguments.device != "cpu":
                    torch.cuda.synchronize()
                seconds.append(time.perf_counter() - start)
                cpu.append(time.process_time() - cpu_start)
    return {"seconds": min(seconds), "cpu": min(cpu), "gigabytes": peak.above / 1e9}


class PeakMemory:
    """Bytes above those at the start: the allocator's peak on a GPU, the process's on a CPU."""

    def __init__(self, device: str):
        self.on_gpu, self.above, self.done = device != "cpu", 0, threading.Event()

    def __enter__(self) -> None:
        if self.on_gpu:
            torch.cuda.reset_peak_memory_stats()
            self.start = torch.cuda.memory_allocated()
        else:
            self.start = psutil.Process().memory_info().rss
            self.watcher = threading.Thread(target=self.watch)
            self.watcher.start()

    def watch(self) -> None:
        process = psutil.Process()
        while not self.done.wait(0.005):
            self.above = max(self.above, process.memory_info().rss - self.start)

    def __exit__(self, *error) -> None:
        if self.on_gpu:
            self.above = torch.cuda.max_memory_allocated() - self.start
        else:
            self.done.set()
            self.watcher.join()


def floor(name: str, length: int) -> float:
    """Least operations of forward pass and masses, as a multiple of those of the forward pass.

    A causal attention takes 2 · head_dim operations a pair of tokens and head for the scores and as
    many for the values; six more columns of values take 2 · 6. Bytes do not bound it: a pass reads
    the weights once for all tokens, and the columns add 6 / head_dim to what attention reads.
    """
    shape = shape_of(name)
    hidden, heads = shape["hidden_size"], shape["num_attention_heads"]
    head_dim = shape.get("head_dim") or hidden // heads
    vocabulary = shape["vocab_size"] * hidden * (1 if shape["tie_word_embeddings"] else 2)
    linear = 2 * (parameter_count(shape) - vocabulary) * length
    pairs = shape["num_hidden_layers"] * heads * length**2 / 2
    forward = linear + pairs * 4 * head_dim
    return (forward + pairs * 2 * len(SEGMENTS)) / forward


def free_memory(device: str) -> int:
    return psutil.virtual_memory().available if device == "cpu" else torch.cuda.mem_get_info()[0]


def row(found: dict, plain: dict) -> str:
    if "skipped" in found:
        return f"  ({found['skipped']})"
    values = []
    for measured in ("seconds", "cpu"):
        values += [found[measured], found[measured] / plain.get(measured, float("nan"))]
    return "".join(f"{value:>{WIDTH}.2f}" for value in (*values, found["gigabytes"]))


def hardware(arguments: argparse.Namespace) -> str:
    if arguments.device != "cpu":
        return torch.cuda.get_device_name()
    return f"{arguments.threads} threads of {platform.processor() or platform.machine()}"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", choices=REGISTRY, default="smollm2-135m")
    parser.add_argument("--lengths", type=int, nargs="+", default=[4096, 16384])
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--only", choices=WAYS, help="measure one way, in this process")
    return parser.parse_args()


if __name__ == "__main__":
    main()
