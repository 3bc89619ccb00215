"""Each check names the typical mistakes: wrong functions, and what participants read about them."""

import ast
import re
from itertools import accumulate
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

from r2a_utils.attention.heads import uniform_mass
from r2a_utils.causal.interventions import (
    Ablation,
    answer_z,
    knockout,
    knockout_profile,
    measure,
)
from r2a_utils.models.places import architecture
from r2a_utils.stats import bootstrap_interval
from r2a_utils.teaching.checks import answers, attention, outcome, patching
from r2a_utils.texts.prompts import INSTRUCTION
from r2a_utils.texts.tags import R1_TAGS
from r2a_utils.texts.trace import STEM, answer_span, cues, encode, forced_ids, sentences

CHECKS = (answers, attention, patching)
THINK, END_THINK = R1_TAGS.open, R1_TAGS.close
PREFILLED = "Okay, I think I have finished thinking.\n"
WRONG = []  # (check, wrong function, words of the line that names its mistake)


def wrong(check, told):
    """Register a wrong function with a part of what its check must say."""

    def register(function):
        WRONG.append(pytest.param(check, function, told, id=f"{check.__name__}: {told[:40]}"))
        return function

    return register


def borders(ids, think, end_think, *, at=None, lengths=None):
    """Right borders, but for the places where a wrong participant puts them."""

    def find(tag):
        return next(i for i in range(len(ids)) if ids[i : i + len(tag)] == tag)

    start, end = at or (find(think), find(end_think))
    first, second = lengths or (len(think), len(end_think))
    edges = [0, 1, start, start + first, end, end + second, len(ids)]
    names = ("bos", "prompt", "think", "reasoning", "end_think", "answer")
    return {name: slice(*pair) for name, *pair in zip(names, edges, edges[1:], strict=False)}


BORDERS = answers.check_segment_borders


@wrong(BORDERS, "a tag may be several tokens")
def one_token_tags(ids, think, end_think):
    return borders(ids, think, end_think, lengths=(1, 1))


@wrong(BORDERS, "the tag's first token alone")
def first_token_of_tag(ids, think, end_think):
    at = (ids.index(think[0]), ids.index(end_think[0]))
    return borders(ids, think, end_think, at=at)


@wrong(BORDERS, "BOS belongs to its own segment")
def bos_in_prompt(ids, think, end_think):
    found = borders(ids, think, end_think)
    return found | {"prompt": slice(0, found["prompt"].stop)}


@wrong(BORDERS, "no part of the reasoning")
def tags_in_reasoning(ids, think, end_think):
    found = borders(ids, think, end_think)
    return found | {"reasoning": slice(found["think"].start, found["end_think"].stop)}


@wrong(BORDERS, "the answer lacks its last token")
def short_answer(ids, think, end_think):
    found = borders(ids, think, end_think)
    return found | {"answer": slice(found["answer"].start, len(ids) - 1)}


@wrong(BORDERS, "behind its last token, not on it")
def inclusive_stops(ids, think, end_think):
    return {n: slice(s.start, s.stop - 1) for n, s in borders(ids, think, end_think).items()}


@wrong(BORDERS, "with the keys bos, prompt")
def keys_missing(ids, think, end_think):
    found = borders(ids, think, end_think)
    return {"prompt": found["prompt"], "answer": found["answer"]}


@wrong(BORDERS, "the values must be slices")
def pairs(ids, think, end_think):
    return {n: (s.start, s.stop) for n, s in borders(ids, think, end_think).items()}


CUES = answers.check_cue_positions


def found_cues(tokens, words, *, pattern=r"\b({})\b", flags=re.IGNORECASE, place="start"):
    ends = list(accumulate(map(len, tokens)))
    matches = re.finditer(pattern.format("|".join(words)), "".join(tokens), flags)
    places = [m.start() if place == "start" else m.end() - 1 for m in matches]
    return [next(i for i, end in enumerate(ends) if p < end) for p in places]


@wrong(CUES, "inside a longer word")
def inside_words(tokens, words):
    return found_cues(tokens, words, pattern="({})")


@wrong(CUES, "upper and lower case")
def case_sensitive(tokens, words):
    return found_cues(tokens, words, flags=0)


@wrong(CUES, "may span several tokens")
def token_by_token(tokens, words):
    return [i for i, token in enumerate(tokens) if token.strip().lower() in words]


@wrong(CUES, "it returns places in the text")
def characters(tokens, words):
    text = "".join(tokens)
    return [m.start() for m in re.finditer(rf"\b({'|'.join(words)})\b", text, re.IGNORECASE)]


@wrong(CUES, "it reports the last token of a cue")
def last_token(tokens, words):
    return found_cues(tokens, words, place="end")


@wrong(CUES, "every occurrence counts")
def first_occurrence(tokens, words):
    return sorted(found_cues(tokens, [word])[0] for word in words if found_cues(tokens, [word]))


PROMPT = answers.check_bare_prompt


def prompt_of(tokenizer, *pieces, bos=1):
    ids = [tokenizer.bos_token_id] * bos
    return ids + [i for piece in pieces for i in encode(tokenizer, piece)]


@wrong(PROMPT, "BOS stands twice")
def two_bos(tokenizer, question):
    pieces = [question + INSTRUCTION + " ", THINK, "\n" + PREFILLED, END_THINK, "\n\n"]
    return prompt_of(tokenizer, *pieces, bos=2)


@wrong(PROMPT, "BOS is missing")
def no_bos(tokenizer, question):
    pieces = [question + INSTRUCTION + " ", THINK, "\n" + PREFILLED, END_THINK, "\n\n"]
    return prompt_of(tokenizer, *pieces, bos=0)


@wrong(PROMPT, "so the thought is not closed")
def open_thought(tokenizer, question):
    opening = question + INSTRUCTION + " "
    return prompt_of(tokenizer, opening, THINK, "\n" + PREFILLED, "\n\n")


@wrong(PROMPT, "the blank line behind </think>")
def no_blank_line(tokenizer, question):
    opening = question + INSTRUCTION + " "
    return prompt_of(tokenizer, opening, THINK, "\n" + PREFILLED, END_THINK)


@wrong(PROMPT, "the thought is empty")
def empty_thought(tokenizer, question):
    opening = question + INSTRUCTION + " "
    return prompt_of(tokenizer, opening, THINK, "\n", END_THINK, "\n\n")


@wrong(PROMPT, "the line break behind <think>")
def no_line_break(tokenizer, question):
    opening = question + INSTRUCTION + " "
    return prompt_of(tokenizer, opening, THINK, PREFILLED, END_THINK, "\n\n")


@wrong(PROMPT, "the instruction to reason")
def no_instruction(tokenizer, question):
    return prompt_of(tokenizer, question, THINK, "\n" + PREFILLED, END_THINK, "\n\n")


@wrong(PROMPT, "<think> is missing")
def no_think(tokenizer, question):
    opening = question + INSTRUCTION + " "
    return prompt_of(tokenizer, opening, "\n" + PREFILLED, END_THINK, "\n\n")


@wrong(answers.check_bare_prompt, "encodes the pieces as one text")
def one_text(tokenizer, question):
    text = question + INSTRUCTION + " " + THINK + "\n" + PREFILLED + END_THINK + "\n\n"
    return [tokenizer.bos_token_id, *encode(tokenizer, text)]


MCNEMAR = answers.check_mcnemar


def discordant(a, b):
    return int((a & ~b).sum()), int((~a & b).sum())


@wrong(MCNEMAR, "p exceeds 1")
def uncut(a, b):
    plus, minus = discordant(a, b)
    return 2 * stats.binom.cdf(min(plus, minus), plus + minus, 0.5)


@wrong(MCNEMAR, "that is one tail")
def one_tail(a, b):
    plus, minus = discordant(a, b)
    return stats.binom.cdf(min(plus, minus), plus + minus, 0.5)


@wrong(MCNEMAR, "the pairs in which both conditions agree")
def all_pairs(a, b):
    return stats.binomtest(discordant(a, b)[0], len(a), 0.5).pvalue


@wrong(MCNEMAR, "the same problems were asked twice")
def unpaired(a, b):
    return stats.fisher_exact([[a.sum(), (~a).sum()], [b.sum(), (~b).sum()]]).pvalue


@wrong(MCNEMAR, "approximation; the exact")
def chi_squared(a, b):
    plus, minus = discordant(a, b)
    return stats.chi2.sf((plus - minus) ** 2 / (plus + minus), 1)


@wrong(MCNEMAR, "continuity correction")
def corrected(a, b):
    plus, minus = discordant(a, b)
    return stats.chi2.sf((abs(plus - minus) - 1) ** 2 / (plus + minus), 1)


@wrong(MCNEMAR, "that is a paired t-test")
def paired_t(a, b):
    return stats.ttest_rel(a.astype(int), b.astype(int)).pvalue


@wrong(MCNEMAR, "raised ValueError")
def no_discordant_pair(a, b):
    plus, minus = discordant(a, b)
    return stats.binomtest(plus, plus + minus, 0.5).pvalue


INTERVAL = answers.check_difference_interval


def resampled(values, rng, tails=(0.025, 0.975)):
    rows = rng.integers(len(values), size=(4000, len(values)))
    return np.quantile(values[rows].mean(axis=1), tails)


@wrong(INTERVAL, "the upper end comes first")
def turned_ends(a, b, rng):
    return resampled(a - b, rng)[::-1]


@wrong(INTERVAL, "too wide")
def apart(a, b, rng):
    rows = rng.integers(len(a), size=(2, 4000, len(a)))
    return np.quantile(a[rows[0]].mean(1) - b[rows[1]].mean(1), [0.025, 0.975])


@wrong(INTERVAL, "the spread of single differences")
def spread(a, b, rng):
    return np.quantile(a - b, [0.025, 0.975])


@wrong(INTERVAL, "one standard error")
def standard_error(a, b, rng):
    error = (a - b).std() / np.sqrt(len(a))
    return (a - b).mean() - error, (a - b).mean() + error


@wrong(INTERVAL, "that holds 90 %")
def ninety(a, b, rng):
    return resampled(a - b, rng, (0.05, 0.95))


@wrong(INTERVAL, "the accuracy with reasoning")
def accuracy(a, b, rng):
    return resampled(a, rng)


@wrong(INTERVAL, "the sign is turned")
def turned_sign(a, b, rng):
    return resampled(b - a, rng)


@wrong(INTERVAL, "two numbers, low and high")
def only_mean(a, b, rng):
    return (a - b).mean()


EARLY = answers.check_early_prompt


def stop_of(spans, kept):
    return spans[kept - 1].stop if kept else spans[0].start


@wrong(EARLY, "the prompt is lost")
def no_prompt(ids, spans, kept, closing):
    return ids[spans[0].start : stop_of(spans, kept)] + closing


@wrong(EARLY, "the closing ids are missing")
def not_closed(ids, spans, kept, closing):
    return ids[: stop_of(spans, kept)]


@wrong(EARLY, "one sentence more")
def one_more(ids, spans, kept, closing):
    return ids[: spans[min(kept, len(spans) - 1)].stop] + closing


@wrong(EARLY, "kept = 0 keeps nothing")
def last_for_none(ids, spans, kept, closing):
    return ids[: spans[kept - 1].stop] + closing


@wrong(EARLY, "wanted are sentences")
def tokens_kept(ids, spans, kept, closing):
    return ids[: spans[0].start + kept] + closing


@wrong(EARLY, "what follows the cut")
def answer_kept(ids, spans, kept, closing):
    return ids[: stop_of(spans, kept)] + closing + ids[spans[-1].stop :]


MASS = attention.check_mass_of_head


@wrong(MASS, "it is not normalised")
def summed(weights, source, target):
    return weights[source, target].sum()


@wrong(MASS, "it averages over the target tokens, too")
def averaged(weights, source, target):
    return weights[source, target].mean()


@wrong(MASS, "by the number of target tokens")
def by_target(weights, source, target):
    return weights[source, target].sum(axis=0).mean()


@wrong(MASS, "source and target are exchanged")
def exchanged(weights, source, target):
    return weights[target, source].sum() / (source.stop - source.start)


@wrong(MASS, "one mass for each source token")
def each_token(weights, source, target):
    return weights[source, target].sum(axis=1)


@wrong(MASS, "BOS and prompt included")
def up_to_target(weights, source, target):
    return weights[source, : target.stop].sum(axis=1).mean()


@wrong(MASS, "the length of the whole trace")
def by_trace(weights, source, target):
    return weights[source, target].sum() / len(weights)


Q_K = attention.check_mass_from_q_k


def softmax(scores, axis=-1):
    weights = np.exp(scores - scores.max(axis=axis, keepdims=True))
    return weights / weights.sum(axis=axis, keepdims=True)


def from_scores(scores, source, target, mask=True, axis=-1):
    n = len(scores)
    seen = np.tril(np.ones((n, n), dtype=bool)) if mask is True else mask
    weights = softmax(np.where(seen, scores, -1e30), axis)
    return weights[source, target].sum(axis=1).mean()


@wrong(Q_K, "the scale is missing")
def no_scale(q, k, scale, source, target):
    return from_scores(q @ k.T, source, target)


@wrong(Q_K, "the causal mask is missing")
def no_mask(q, k, scale, source, target):
    return from_scores(q @ k.T * scale, source, target, mask=np.ones((len(q), len(q)), bool))


@wrong(Q_K, "that divides by √width")
def own_scale(q, k, scale, source, target):
    return from_scores(q @ k.T / np.sqrt(q.shape[1]), source, target)


@wrong(Q_K, "over the target alone")
def among_target(q, k, scale, source, target):
    return softmax(q[source] @ k[target].T * scale).sum(axis=1).mean()


@wrong(Q_K, "the mask comes after the softmax")
def mask_after(q, k, scale, source, target):
    weights = np.tril(softmax(q @ k.T * scale))
    return weights[source, target].sum(axis=1).mean()


@wrong(Q_K, "a token sees itself")
def strict_mask(q, k, scale, source, target):
    mask = np.tril(np.ones((len(q), len(q)), bool), k=-1)
    return from_scores(q @ k.T * scale, source, target, mask=mask)


@wrong(Q_K, "the softmax runs over the queries")
def over_queries(q, k, scale, source, target):
    return from_scores(q @ k.T * scale, source, target, axis=0)


@wrong(Q_K, "the mass is not normalised")
def mass_summed(q, k, scale, source, target):
    return from_scores(q @ k.T * scale, source, target) * (source.stop - source.start)


NULL = attention.check_uniform_null


def visible(source, target, shift=1):
    positions = np.arange(source.start, source.stop)
    return positions, np.clip(positions + shift, target.start, target.stop) - target.start


@wrong(NULL, "a token sees itself as well")
def without_itself(source, target):
    positions, seen = visible(source, target, 0)
    return (seen / positions).mean()


@wrong(NULL, "only what stands before a token can be seen")
def whole_target(source, target):
    positions, _ = visible(source, target)
    return ((target.stop - target.start) / (positions + 1)).mean()


@wrong(NULL, "each source token sees another number")
def of_everything(source, target):
    return (target.stop - target.start) / source.stop


@wrong(NULL, "one share for each source token")
def shares(source, target):
    positions, seen = visible(source, target)
    return seen / (positions + 1)


@wrong(NULL, "it counts tokens")
def counts(source, target):
    return visible(source, target)[1].mean()


TOP = attention.check_share_in_top


def share_in_top(means, k):
    top = np.argsort(-means, axis=1)[:, :k]
    return np.bincount(top.ravel(), minlength=means.shape[1]) / len(means)


@wrong(TOP, "each trace counts once at most")
def as_sets(masses, draws, k):
    return share_in_top(np.stack([masses[sorted(set(draw))].mean(axis=0) for draw in draws]), k)


@wrong(TOP, "ranks each trace by itself")
def trace_by_trace(masses, draws, k):
    return share_in_top(masses, k)


@wrong(TOP, "always ranks the mean over all traces")
def one_ranking(masses, draws, k):
    return share_in_top(np.stack([masses.mean(axis=0) for _ in draws]), k)


@wrong(TOP, "the order is turned")
def smallest(masses, draws, k):
    return share_in_top(-masses[draws].mean(axis=1), k)


@wrong(TOP, "these are counts")
def counted_resamples(masses, draws, k):
    return len(draws) * share_in_top(masses[draws].mean(axis=1), k)


@wrong(TOP, "how often a head is the first")
def firsts(masses, draws, k):
    return share_in_top(masses[draws].mean(axis=1), 1)


@wrong(TOP, "one head too far")
def one_too_many(masses, draws, k):
    return share_in_top(masses[draws].mean(axis=1), k + 1)


TRACKING = attention.check_tracking_of_head


@wrong(TRACKING, "statistic and p-value together")
def whole_result(rows, reasoning):
    inside = rows[:, reasoning] / rows[:, reasoning].sum(axis=1, keepdims=True)
    return stats.spearmanr(np.arange(len(rows)), inside @ np.arange(inside.shape[1]))


def rank(places):
    return stats.spearmanr(np.arange(len(places)), places).statistic


@wrong(TRACKING, "divide by each row's mass")
def not_divided(rows, reasoning):
    return rank(rows[:, reasoning] @ np.arange(reasoning.start, reasoning.stop))


@wrong(TRACKING, "only the reasoning counts")
def whole_text(rows, reasoning):
    return rank(rows @ np.arange(rows.shape[1]))


@wrong(TRACKING, "follows the strongest token")
def peak(rows, reasoning):
    return rank(rows[:, reasoning].argmax(axis=1))


@wrong(TRACKING, "Pearson")
def pearson(rows, reasoning):
    inside = rows[:, reasoning] / rows[:, reasoning].sum(axis=1, keepdims=True)
    return np.corrcoef(np.arange(len(rows)), inside @ np.arange(inside.shape[1]))[0, 1]


@wrong(TRACKING, "how much is read")
def amount(rows, reasoning):
    return rank(rows[:, reasoning].sum(axis=1))


@wrong(TRACKING, "reading forwards must be positive")
def backwards(rows, reasoning):
    inside = rows[:, reasoning] / rows[:, reasoning].sum(axis=1, keepdims=True)
    return -rank(inside @ np.arange(inside.shape[1]))


@wrong(TRACKING, "not over rows")
def over_rows(rows, reasoning):
    inside = rows[:, reasoning] / rows[:, reasoning].sum(axis=1, keepdims=True)
    return rank(inside.mean(axis=0))


CONTRIBUTION = attention.check_contribution_of_head


@wrong(CONTRIBUTION, "leave it apart for each token")
def whole_contribution(weights, values, into, direction):
    return weights @ values @ into @ direction


@wrong(CONTRIBUTION, "weigh each token's value")
def unweighted(weights, values, into, direction):
    return values @ into @ direction


@wrong(CONTRIBUTION, "before they meet the direction")
def no_direction(weights, values, into, direction):
    return weights * (values @ into).sum(axis=1)


@wrong(CONTRIBUTION, "scales the direction to length 1")
def unit_direction(weights, values, into, direction):
    return weights * (values @ into @ direction) / np.linalg.norm(direction)


@wrong(CONTRIBUTION, "project them on the direction")
def vectors(weights, values, into, direction):
    return weights[:, None] * (values @ into)


@wrong(CONTRIBUTION, "a softmax is taken")
def softmaxed(weights, values, into, direction):
    return softmax(weights * (values @ into @ direction))


@wrong(CONTRIBUTION, "counted twice")
def twice(weights, values, into, direction):
    return weights**2 * (values @ into @ direction)


EFFECT = patching.check_effect_of_patch


def differences(patched, clean, corrupted, a, b):
    return (x[a] - x[b] for x in (patched, clean, corrupted))


@wrong(EFFECT, "it is not normalised")
def plain_change(*arguments):
    patched, _, corrupted = differences(*arguments)
    return patched - corrupted


@wrong(EFFECT, "subtract LD_corrupted first")
def not_subtracted(*arguments):
    patched, clean, corrupted = differences(*arguments)
    return patched / (clean - corrupted)


@wrong(EFFECT, "divides by LD_clean alone")
def by_clean(*arguments):
    patched, clean, _ = differences(*arguments)
    return patched / clean


@wrong(EFFECT, "clean and corrupted are exchanged")
def turned_round(*arguments):
    patched, clean, corrupted = differences(*arguments)
    return (patched - clean) / (corrupted - clean)


@wrong(EFFECT, "it takes probabilities")
def probabilities(patched, clean, corrupted, a, b):
    patched, clean, corrupted = differences(*map(softmax, (patched, clean, corrupted)), a, b)
    return (patched - corrupted) / (clean - corrupted)


@wrong(EFFECT, "the clean answer alone")
def clean_answer_alone(patched, clean, corrupted, a, b):
    return (patched[a] - corrupted[a]) / (clean[a] - corrupted[a])


@wrong(EFFECT, "the sign is turned")
def turned(*arguments):
    patched, clean, corrupted = differences(*arguments)
    return (corrupted - patched) / (clean - corrupted)


PATCH = patching.check_patched_logits


def patch(model, donor, receiver, read, write, columns, source=None):
    """A patched run: `read` and `write` are layers, `columns` positions."""
    layers = architecture(model).layers
    with model.lm.trace(list(donor)):
        state = layers[read].input[0, columns].save()
    with model.lm.trace(list(receiver)):
        layers[write].input[0, columns] = state
        logits = model.lm.lm_head.output[0, -1].save()
    return logits.detach()


@wrong(PATCH, "nothing was patched")
def receiver_alone(model, donor, receiver, layer, position):
    return patch(model, receiver, receiver, layer, layer, position)


@wrong(PATCH, "those are the donor's logits")
def donor_alone(model, donor, receiver, layer, position):
    return patch(model, donor, donor, layer, layer, position)


@wrong(PATCH, "donor and receiver are exchanged")
def into_donor(model, donor, receiver, layer, position):
    return patch(model, receiver, donor, layer, layer, position)


@wrong(PATCH, "that patches the layer's output")
def output_patched(model, donor, receiver, layer, position):
    return patch(model, donor, receiver, layer + 1, layer + 1, position)


@wrong(PATCH, "not all")
def everywhere(model, donor, receiver, layer, position):
    return patch(model, donor, receiver, layer, layer, slice(None))


@wrong(PATCH, "everything from the position on")
def from_there_on(model, donor, receiver, layer, position):
    return patch(model, donor, receiver, layer, layer, slice(position, None))


@wrong(PATCH, "a neighbour of the position")
def neighbour(model, donor, receiver, layer, position):
    place = position + 1 if position + 1 < len(receiver) else position - 1
    return patch(model, donor, receiver, layer, layer, place)


@wrong(PATCH, "what the layer below reads")
def layer_below(model, donor, receiver, layer, position):
    return patch(model, donor, receiver, max(layer - 1, 0), layer, position)


MASK = patching.check_knockout_mask


@wrong(PATCH, "kept in it: end the line")
def vector_not_saved(model, donor, receiver, layer, position):
    block = architecture(model).layers[layer]
    with model.lm.trace(list(donor)):
        vector = block.input[0, position]
    with model.lm.trace(list(receiver)):
        block.input[0, position] = vector
        logits = model.lm.lm_head.output[0, -1].save()
    return logits.detach()


@wrong(PATCH, "kept in it: end the line")
def logits_not_saved(model, donor, receiver, layer, position):
    block = architecture(model).layers[layer]
    with model.lm.trace(list(donor)):
        vector = block.input[0, position].save()
    with model.lm.trace(list(receiver)):
        block.input[0, position] = vector
        logits = model.lm.lm_head.output[0, -1]
    return logits.detach()


@wrong(PATCH, "has computed before")
def written_after_reading(model, donor, receiver, layer, position):
    block = architecture(model).layers[layer]
    with model.lm.trace(list(donor)):
        vector = block.input[0, position].save()
    with model.lm.trace(list(receiver)):
        logits = model.lm.lm_head.output[0, -1].save()
        block.input[0, position] = vector
    return logits.detach()


def causal(n, k=0):
    return np.tril(np.ones((n, n), dtype=bool), k)


def cut(mask, queries, keys):
    mask = mask.copy()
    mask[queries, keys] = False
    return mask


@wrong(MASK, "the causal mask is missing")
def all_seen(n, queries, keys):
    return cut(np.ones((n, n), dtype=bool), queries, keys)


@wrong(MASK, "it is the other way round")
def forbidden(n, queries, keys):
    return ~cut(causal(n), queries, keys)


@wrong(MASK, "rows are queries, columns are keys")
def keys_cut(n, queries, keys):
    return cut(causal(n), keys, queries)


@wrong(MASK, "off from everything")
def nothing_seen(n, queries, keys):
    return cut(causal(n), queries, slice(None))


@wrong(MASK, "it hides the keys from every token")
def hidden(n, queries, keys):
    return cut(causal(n), slice(None), keys)


@wrong(MASK, "the diagonal must stay")
def no_diagonal(n, queries, keys):
    return cut(causal(n, -1), queries, keys)


@wrong(MASK, "nothing is cut that could be seen")
def plainly_causal(n, queries, keys):
    return causal(n)


@wrong(MASK, "it is transposed")
def transposed(n, queries, keys):
    return cut(causal(n), queries, keys).T


ABLATION = patching.check_mean_ablated_logits


def ablated(model, ids, layer, positions, columns, value):
    projection = architecture(model).out_projections[layer]
    with model.lm.trace(list(ids)):
        projection.input[0, positions, columns] = value
        logits = model.lm.lm_head.output[0, -1].save()
    return logits.detach()


def columns_of(model, head):
    return slice(head * model.head_dim, (head + 1) * model.head_dim)


@wrong(ABLATION, "nothing was ablated")
def plain_run(model, ids, layer, head, positions, mean):
    with model.lm.trace(list(ids)):
        logits = model.lm.lm_head.output[0, -1].save()
    return logits.detach()


@wrong(ABLATION, "the head at every position")
def at_every_position(model, ids, layer, head, positions, mean):
    return ablated(model, ids, layer, slice(None), columns_of(model, head), mean)


@wrong(ABLATION, "that sets it to zero")
def to_zero(model, ids, layer, head, positions, mean):
    return ablated(model, ids, layer, positions, columns_of(model, head), torch.zeros(1))


@wrong(ABLATION, "the neighbouring head")
def next_head(model, ids, layer, head, positions, mean):
    return ablated(model, ids, layer, positions, columns_of(model, head + 1), mean)


@wrong(ABLATION, "stand side by side")
def strided(model, ids, layer, head, positions, mean):
    return ablated(model, ids, layer, positions, slice(head, None, model.n_heads), mean)


@wrong(ABLATION, "the last position alone")
def last_position(model, ids, layer, head, positions, mean):
    return ablated(model, ids, layer, -1, columns_of(model, head), mean)


@wrong(ABLATION, "every head of the layer")
def all_heads(model, ids, layer, head, positions, mean):
    return ablated(model, ids, layer, positions, slice(None), mean.repeat(model.n_heads))


@wrong(ABLATION, "another layer")
def layer_before(model, ids, layer, head, positions, mean):
    return ablated(model, ids, layer - 1, positions, columns_of(model, head), mean)


@pytest.mark.parametrize(("check", "function", "told"), WRONG)
def test_a_typical_mistake_is_named_in_one_line(check, function, told):
    with pytest.raises(outcome.CheckFailed, match=re.escape(told)) as line:
        check(function)
    assert "\n" not in str(line.value)
    assert str(line.value).startswith(function.__name__)


def test_every_mistake_that_a_check_knows_is_made_above():
    told = [case.values[2] for case in WRONG]
    for module in CHECKS:
        for sentence in sentences_of(Path(module.__file__).read_text()):
            assert any(part in sentence for part in told), sentence


def sentences_of(source: str) -> list[str]:
    """The keys of the checks' dictionaries of mistakes, but for those of the right result."""
    keys = [k for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Dict)
            for k in node.keys if k is not None]  # fmt: skip
    texts = [k.value if isinstance(k, ast.Constant) else ast.unparse(k) for k in keys]
    texts = [text.replace("{END_THINK}", END_THINK) for text in texts]
    return [text for text in texts if " " in text]


def test_the_checks_own_cases_agree_with_the_package(tiny):
    """What the checks hold for right is computed anew in them; here it meets the engines."""
    import xarray as xr

    trace = patching.example_trace()
    segments = trace.segments
    mass = xr.DataArray(
        np.zeros((1, 2)),
        dims=("trace", "to_segment"),
        coords={
            "trace": [0],
            "to_segment": ["reasoning", "answer"],
            "segment_start": (
                ("trace", "to_segment"),
                [[segments[s].start for s in ("reasoning", "answer")]],
            ),
            "segment_stop": (
                ("trace", "to_segment"),
                [[segments[s].stop for s in ("reasoning", "answer")]],
            ),
        },
    )
    positions, seen = visible(segments["answer"], segments["reasoning"])
    assert float(uniform_mass(mass)[0]) == pytest.approx((seen / (positions + 1)).mean())

    words = answers.CUE_WORDS
    own = found_cues(trace.tokens[segments["reasoning"]], words)
    assert [p + segments["reasoning"].start for p in own] == [
        cue.position for cue in cues(trace) if cue.word in words
    ]

    closing = [*encode(tiny.tokenizer, END_THINK), *encode(tiny.tokenizer, STEM)]
    kept = len(sentences(trace))
    ours = [*trace.token_ids[: stop_of(sentences(trace), kept)], *closing]
    assert ours == list(forced_ids(trace, tiny.tokenizer, kept, STEM))

    values = np.random.default_rng(0).random(300)
    ends = answers._interval(values)
    assert np.allclose(ends, bootstrap_interval(values), atol=0.1 * np.ptp(ends))


def test_what_stage_6_asks_about_is_so_on_its_own_trace():
    model, trace = patching.example_model(), patching.example_trace()
    at = answer_span(trace).start
    scored = slice(at, at + 1)
    one_layer = knockout_profile(model, trace, scored=scored)["change"]
    all_layers = knockout(model, trace, scored=scored)["change"]
    prompt = knockout(model, trace, ("answer", "prompt"), scored=scored)["change"]
    assert (one_layer < all_layers).sum() == 2
    assert all_layers < -1 and abs(prompt) < abs(all_layers) / 10

    pool = answer_z(model, [patching.example_trace(i) for i in range(1, 7)])
    heads = [(layer, head) for layer in range(model.n_layers) for head in range(model.n_heads)]
    ablations = [Ablation((head,), method) for method in ("mean", "zero") for head in heads]
    change = measure(model, trace, ablations, scored=scored, pool=pool)["change"].to_numpy()
    mean, zero = -change.reshape(2, len(heads))
    first, *others = np.argsort(-mean)
    assert zero[first] > mean[first] + 0.1
    assert max(mean[others].max(), zero[others].max()) < mean[first] / 50
    assert (zero[others] < mean[others]).any()
