"""Segment masses of toy heads, by brute force over whole attention matrices."""

import numpy as np
import xarray as xr

SEGMENTS = ["bos", "prompt", "think", "reasoning", "end_think", "answer"]


def attention_masses(weights_of, lengths, n_layers=4, n_heads=3):
    """Masses of toy heads on traces whose segments have these lengths [trace, 6].

    weights_of(layer, head, segment of the key [key], query index, key index) → unnormalised weight.
    """
    mass = np.zeros((len(lengths), n_layers, n_heads, 6, 6))
    borders = np.concatenate([np.zeros((len(lengths), 1), int), np.cumsum(lengths, axis=1)], axis=1)
    for t, row in enumerate(lengths):
        segment = np.repeat(np.arange(6), row)
        query, key = np.indices((len(segment), len(segment)))
        for layer, head in np.ndindex(n_layers, n_heads):
            weights = np.tril(weights_of(layer, head, segment[key], query, key).astype(float))
            weights /= weights.sum(axis=1, keepdims=True)
            for a, b in np.ndindex(6, 6):
                chosen = weights[np.ix_(segment == a, segment == b)]
                mass[t, layer, head, a, b] = chosen.sum(axis=1).mean()
    return xr.DataArray(
        mass,
        dims=("trace", "layer", "head", "from_segment", "to_segment"),
        coords={
            "trace": np.arange(len(lengths)),
            "from_segment": SEGMENTS,
            "to_segment": SEGMENTS,
            "segment_start": (("trace", "to_segment"), borders[:, :-1]),
            "segment_stop": (("trace", "to_segment"), borders[:, 1:]),
        },
    )
