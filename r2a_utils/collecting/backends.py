"""Where a run's texts come from: the model itself, a server that runs it, or our own hand.

The stages name their source in one word, which this file turns into a back end for
`collect_completions`.
"""

from __future__ import annotations

from collections.abc import Callable

from r2a_utils.collecting.decoding import Backend, Prompt, Sampling
from r2a_utils.collecting.endpoint import Endpoint
from r2a_utils.collecting.server import server_backend
from r2a_utils.collecting.solutions import write_solution
from r2a_utils.models.loading import ReasoningModel
from r2a_utils.paper import TRACED, paper_writer
from r2a_utils.texts.problem import Problem
from r2a_utils.texts.tags import respelt
from r2a_utils.texts.trace import encode
from r2a_utils.tiny.world import write_text

# A text of 10,000 tokens at three in a second. Servers let wait what they have no room for.
LONGEST_TEXT_S = 3600.0

Write = Callable[[Problem, str], str]


def writer_of(dataset: str) -> Write:
    """What has been written for the problems of a data set, by problem and condition.

    Of "tiny" and "told" our own texts, of "R1-Qwen-1.5B" and "R1-Qwen-7B" the authors' traces of
    that model; of any other data set the solutions that it brings (`write_solution`).
    """
    if dataset in TRACED:
        return paper_writer(dataset)
    return write_text if dataset in ("tiny", "told") else write_solution


def backend_of(source: str, model: ReasoningModel, write: Write | None = None) -> Backend | None:
    """The back end of a source; None is decoding on the model's own device.

    "model" decodes here; "written" reads what `write(problem, condition)` has written, and lets
    nothing be generated; a URL that ends in the version ("http://localhost:8000/v1") asks an
    OpenAI-compatible server for completions of the model under the name that it is loaded by, or
    under the only one that the server has.
    Raises ValueError for anything else, or where nothing has been written.
    """
    if source == "model":
        return None
    if source == "written" and write is not None:
        return teacher_forced(model, write)
    if source.startswith(("http://", "https://")):
        endpoint = Endpoint(source, model.loaded_from or model.name, timeout_s=LONGEST_TEXT_S)
        return server_backend(endpoint, model.tokenizer, tags=model.tags, end_ids=model.end_ids)
    written = '"written", ' if write is not None else ""
    raise ValueError(f'source is {source!r}; choose "model", {written}or the URL of a server')


def teacher_forced(model: ReasoningModel, write: Write) -> Backend:
    """A back end that lets nothing be generated: `write(problem, condition)` is the completion.

    For models that cannot solve the problems but can be watched while they read. A text that is
    longer than the sampling's limit, its end token counted, is cut there and is not finished.
    It is written with R1's tags, which become the model's own. Nothing is drawn or closed: of the
    sampling, the limit alone counts.
    """

    def teacher_forced(prompts: list[Prompt], sampling: Sampling):
        limit = sampling.max_new_tokens
        for index, prompt in enumerate(prompts):
            ids = encode(
                model.tokenizer, respelt(write(prompt.problem, prompt.condition), model.tags)
            )
            yield index, ids[:limit], len(ids) < limit

    return teacher_forced
