"""How much a run likes an answer: its teacher-forced log-probability and its rank.

An answer is a tuple of token ids. Its log-probability is the sum over its tokens, each given the
ones before it. Its rank is the worst rank of its tokens: 0 exactly where greedy decoding writes it.
Scores are [answer, (log-probability, rank)], in double precision, on the CPU.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from r2a_utils.engine.forward import run_with_cache
from r2a_utils.engine.patches import ActivationCache
from r2a_utils.models.reasoning_model import ReasoningModel

Answers = Sequence[tuple[int, ...]]


def answer_caches(
    model: ReasoningModel,
    token_ids: Sequence[int],
    answers: Answers,
    components: Sequence[str] = (),
    *,
    after: ActivationCache | None = None,
) -> dict[tuple[int, ...], ActivationCache]:
    """Caches of passes over `token_ids` followed by each answer without its last token.

    The key is what follows; answers of one token share the cache under (). Tokens in common
    with `after`, or with the first of the answers, are not run again.
    """
    last, caches = len(token_ids) - 1, {}
    for extension in dict.fromkeys(answer[:-1] for answer in answers):
        read = range(last, last + len(extension) + 1)
        ids = (*token_ids, *extension)
        caches[extension] = run_with_cache(model, ids, components, read, after=after)
        after = after or caches[extension]
    return caches


def cached_scores(
    caches: dict[tuple[int, ...], ActivationCache], answers: Answers
) -> Float[Tensor, "answer 2"]:
    """Scores of the answers in the runs of `answer_caches`."""
    runs = [(caches[answer[:-1]], answer) for answer in answers]
    return torch.stack([answer_scores(run.logits[None], [answer])[0, 0] for run, answer in runs])


def answer_scores(
    logits: Float[Tensor, "run token vocabulary"], answers: Answers
) -> Float[Tensor, "run answer 2"]:
    """[run, answer, (log-probability, rank)] from logits [run, answer token, vocabulary]."""
    rows = []
    for answer in answers:
        ids = torch.tensor(answer, device=logits.device).expand(len(logits), -1)
        chosen = logits.gather(2, ids[..., None])
        log_probability = (chosen[..., 0] - logits.logsumexp(2)).sum(1)
        rank = (logits > chosen).sum(2).amax(1)
        rows.append(torch.stack([log_probability, rank.to(log_probability)], 1))
    return torch.stack(rows, 1).double().cpu()


def logit_step(
    caches: dict[tuple[int, ...], ActivationCache], answers: Answers, dtype: torch.dtype
) -> float:
    """The step between neighbouring logits of `dtype` where those of the answers lie, in nats.

    Of an answer's tokens the steps add up, as their log-probabilities do; of the answers the larger
    counts. A difference of logits that is smaller is rounding: a bfloat16 logit near 30 moves in
    steps of 0.125.
    """
    eps, tiny = torch.finfo(dtype).eps, torch.finfo(dtype).tiny
    steps = []
    for answer in answers:
        logits = caches[answer[:-1]].logits[: len(answer)]
        chosen = logits[range(len(answer)), list(answer)].double().abs().clamp(min=tiny)
        steps.append(float((eps * 2.0 ** chosen.log2().floor()).sum()))
    return max(steps)


def logit_difference(scores: Float[Tensor, "2 2"]) -> float:
    """LD = log p(clean answer) - log p(corrupted answer), in nats; of one token, of the logits."""
    return float(scores[0, 0] - scores[1, 0])
