"""Speed of a patch grid against a loop of full forwards, and against the floor by operation count.

    python benchmarks/patching.py                             # the 135M shape on a CPU, float32
    python benchmarks/patching.py --device cuda --shape deepseek-ai/DeepSeek-R1-Distill-Llama-8B \
        --tokens 2137 --cells 32x11

TransformerLens is measured too where it is installed.

Random weights of the published shape: speed does not depend on what the weights say. Prints a table
and asserts nothing. The loops run a sample of cells and are scaled to the whole grid. "Floor" is
the time that the operations which no exact method can avoid would take at the speed of a plain
forward: the receiver's cache, the donor's from the first token on that differs, and for each
cell the layers from its own on, over the positions from its own on.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import lens
import nnsight
import numpy as np
import torch

from r2a_utils.causal.pairs import ContrastPair
from r2a_utils.causal.patching import patch_grid
from r2a_utils.engine.forward import run_with_cache
from r2a_utils.models.loading import ReasoningModel, random_model
from r2a_utils.training.vocabulary import train_tokenizer

LAST_TOKENS = 130  # the patched positions lie within this many tokens of the end


def main() -> None:
    arguments = parse()
    device, dtype = torch.device(arguments.device), arguments.dtype
    tokenizer = train_tokenizer(["any text"])
    model = random_model(arguments.shape, tokenizer, dtype=dtype, device=device)
    layers, positions = (int(n) for n in arguments.cells.split("x"))
    pair = make_pair(model, arguments.tokens)
    first = max(1, arguments.tokens - LAST_TOKENS)
    chosen_layers = spread(0, model.n_layers - 1, layers)
    columns = spread(first, arguments.tokens - 1, positions)
    cells = [(layer, p) for layer in chosen_layers for p in columns]
    sample = [
        cells[i] for i in np.linspace(0, len(cells) - 1, arguments.sample).round().astype(int)
    ]
    donor = run_with_cache(model, pair.clean_ids).activations["resid"]

    def grid() -> None:
        patch_grid(model, pair, columns, chosen_layers, min_gap=0.0)

    forward = timed(lambda: plain_forward(model, pair, None, donor, False), device, 3)
    whole = timed(grid, device, arguments.repeat)
    rows = {"plain forward, one (last logits)": forward, "patch_grid, whole grid": whole}
    for name, full_logits in (("nnsight loop", False), ("loop with full logits", True)):

        def loop(full_logits: bool = full_logits) -> None:
            for cell in sample:
                plain_forward(model, pair, cell, donor, full_logits)

        scaled = timed(loop, device, 1) * (len(cells) / len(sample))
        rows[f"{name}, whole grid from {len(sample)} cells"] = scaled
    if lens.INSTALLED:
        bridge = lens.bridge(model)

        def loop() -> None:
            for cell in sample:
                lens_forward(bridge, pair, cell, donor)

        scaled = timed(loop, device, 1) * (len(cells) / len(sample))
        rows[f"TransformerLens, whole grid from {len(sample)} cells"] = scaled
    share = operations(model, pair, cells) / plain_operations(model, arguments.tokens)
    rows["floor by operation count"] = floor = forward * share

    threads = f"{torch.get_num_threads()} threads"
    place = torch.cuda.get_device_name(device) if device.type == "cuda" else threads
    print(
        f"{arguments.shape}, T = {arguments.tokens}, {len(chosen_layers)} layers x {len(columns)} "
        f"positions = {len(cells)} cells, {dtype}, {place}"
    )
    print(f"{'':44s} {'wall s':>10s} {'CPU s':>10s}   of patch_grid's wall, CPU")
    for name, seconds in rows.items():
        ratio = seconds / whole
        print(f"{name:44s} {seconds[0]:10.2f} {seconds[1]:10.2f} {ratio[0]:8.2f} {ratio[1]:8.2f}")
    print("patch_grid over the floor: {:.2f} (wall), {:.2f} (CPU)".format(*whole / floor))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", default="smollm2-135m", help="a registered name")
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--cells", default="30x8", help="layers x positions")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default=None)
    parser.add_argument("--sample", type=int, default=6, help="cells that the loops run")
    parser.add_argument("--repeat", type=int, default=3)
    arguments = parser.parse_args()
    arguments.dtype = arguments.dtype or ("float32" if arguments.device == "cpu" else "bfloat16")
    return arguments


def spread(first: int, last: int, n: int) -> list[int]:
    """At most `n` whole numbers, evenly from first to last."""
    return np.unique(np.linspace(first, last, n).round().astype(int)).tolist()


def make_pair(model: ReasoningModel, tokens: int) -> ContrastPair:
    """Random tokens that differ from the first patched position on, so that every cell runs."""
    clean = np.random.default_rng(0).integers(0, model.vocab_size, tokens)
    corrupted = clean.copy()
    corrupted[max(1, tokens - LAST_TOKENS) :] += 1
    return ContrastPair(clean, corrupted % model.vocab_size, 1, 2)


def plain_forward(model, pair, cell, donor, full_logits: bool) -> torch.Tensor:
    """One full forward of the corrupted run, in one nnsight trace, with one cell patched."""
    ids = torch.tensor([pair.corrupted_ids], device=model.device)
    keep = 0 if full_logits else 1
    with torch.no_grad(), model.lm.trace(ids, use_cache=False, logits_to_keep=keep):
        if cell is not None:
            layer, position = cell
            model.lm.model.layers[layer].input[:, position] = donor[layer][position]
        logits = nnsight.save(model.lm.output.logits)
    return logits[0, -1]


@torch.no_grad()
def lens_forward(bridge, pair, cell, donor) -> torch.Tensor:
    """The same in TransformerLens: a hook on the layer's input, the logits of all positions."""
    layer, position = cell

    def patch(resid: torch.Tensor, hook) -> torch.Tensor:
        resid[:, position] = donor[layer][position]
        return resid

    hooks = [(f"blocks.{layer}.hook_resid_pre", patch)]
    ids = torch.tensor([pair.corrupted_ids], device=donor[layer].device)
    return bridge.run_with_hooks(ids, return_type="logits", fwd_hooks=hooks)[0, -1]


def timed(work: Callable[[], object], device: torch.device, repeat: int) -> np.ndarray:
    """Median (wall seconds, CPU seconds) of `repeat` runs, after one uncounted if several.

    On a machine that others use as well, the CPU seconds of a single thread are what compares.
    """
    seconds = []
    for _ in range(repeat + (repeat > 1)):
        start = time.perf_counter(), time.process_time()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append((time.perf_counter() - start[0], time.process_time() - start[1]))
    return np.median(seconds[repeat > 1 :], axis=0)


def layer_operations(model: ReasoningModel, queries: range) -> float:
    """Multiply-adds of one layer for the given positions, attention over all keys before each."""
    config, width = model.hf.config, model.n_heads * model.head_dim
    weights = 2 * width * model.hidden_size + 3 * config.intermediate_size * model.hidden_size
    weights += 2 * model.n_kv_heads * model.head_dim * model.hidden_size
    keys = sum(i + 1 for i in queries)
    return len(queries) * weights + 2 * width * keys


def plain_operations(model: ReasoningModel, tokens: int) -> float:
    unembedding = model.hidden_size * model.vocab_size
    return model.n_layers * layer_operations(model, range(tokens)) + unembedding


def operations(model: ReasoningModel, pair: ContrastPair, cells: list[tuple[int, int]]) -> float:
    """What an exact method has to do: the caches, then each cell's own layers and positions."""
    tokens, differing = len(pair), range(min(pair.differing_positions), len(pair))
    total = plain_operations(model, tokens) + model.n_layers * layer_operations(model, differing)
    for layer, position in cells:
        total += (model.n_layers - layer) * layer_operations(model, range(position, tokens))
        total += model.hidden_size * model.vocab_size
    return total


if __name__ == "__main__":
    main()
