"""Completions from real servers (of transformers, llama.cpp and vLLM), and from a local one."""

from __future__ import annotations

import shutil
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from local_server import llama_cpp, serve, transformers_serve, vllm
from transformers import LlamaConfig, LlamaForCausalLM
from write_gguf import write

from r2a_utils.collecting.decoding import Prompt, Sampling
from r2a_utils.collecting.endpoint import Endpoint, EndpointError
from r2a_utils.collecting.generation import collect_completions
from r2a_utils.collecting.loading import load_problems
from r2a_utils.collecting.server import server_backend
from r2a_utils.collecting.streams import joined
from r2a_utils.models.loading import load_model
from r2a_utils.models.registry import BUNDLED
from r2a_utils.texts.problem import Problem
from r2a_utils.texts.tokens import encode

CONDITIONS = ("with_reasoning", "without_reasoning")


def endpoint(url: str, model: str = "m") -> Endpoint:
    return Endpoint(url, model, timeout_s=60, retries=2, delay_s=0.01)


# --- the real thing ------------------------------------------------------------------------------


@pytest.fixture
def transformers_server(tmp_path):
    """`transformers serve` on the bundled model; yields its endpoint."""
    with transformers_serve(BUNDLED, tmp_path / "log.txt") as url:
        yield Endpoint(url, str(BUNDLED), timeout_s=600)


def test_transformers_serve_writes_what_the_model_writes_here(tiny, transformers_server):
    # One test, because the server takes seconds to start in each process that runs tests.
    problems = load_problems("tiny", n=6, seed=1)
    as_text = server_backend(transformers_server, tiny.tokenizer, 3, end_ids=tiny.end_ids)
    for condition in CONDITIONS:
        sampling = Sampling(max_new_tokens=400)
        here = collect_completions(tiny, problems, condition, sampling=sampling)
        there = collect_completions(tiny, problems, condition, sampling=sampling, backend=as_text)
        for one, other in zip(there, here, strict=True):
            assert one.text == other.text
            assert one == replace(other, settings=one.settings)
        assert all(c.finished for c in there)

    cut = collect_completions(tiny, problems, sampling=Sampling(5), backend=as_text)
    assert [c.finished for c in cut] == [False] * 6
    assert [len(c.completion_ids) for c in cut] == [5] * 6

    samples = collect_completions(
        tiny, problems[:1], sampling=Sampling(60, temperature=2.0), samples=3, backend=as_text
    )
    assert len({c.text for c in samples}) == 3  # it draws, though the model's file says greedy

    forced = server_backend(transformers_server, tiny.tokenizer)
    with pytest.raises(ValueError, match="takes text only"):
        collect_completions(tiny, problems, sampling=Sampling(40, close_after=9), backend=forced)


def assert_same_texts(model, problems, backend) -> None:
    """A back end writes token by token what the model writes here, and ends where it ends."""
    banned = tuple(encode(model.tokenizer, "Wait"))
    for condition in CONDITIONS:
        for limits in ({}, {"close_after": 24}, {"banned_ids": banned}):
            asked = {"sampling": Sampling(400, **limits)}
            here = collect_completions(model, problems, condition, **asked)
            there = collect_completions(model, problems, condition, backend=backend, **asked)
            assert [replace(c, settings="") for c in there] == [
                replace(c, settings="") for c in here
            ]


def test_llama_cpp_writes_what_the_model_writes_here(tiny, tmp_path):
    write(tmp_path / "tiny.gguf", tiny)
    problems = load_problems("tiny", n=6, seed=1)
    with llama_cpp(tmp_path / "tiny.gguf", tmp_path / "log.txt") as url:
        options = {"tags": tiny.tags, "end_ids": tiny.end_ids}
        to = Endpoint(url, "tiny", timeout_s=600)
        backend = server_backend(to, tiny.tokenizer, 3, **options)
        assert_same_texts(tiny, problems, backend)
        drawn = collect_completions(
            tiny, problems[:1], sampling=Sampling(200, temperature=4.0), backend=backend
        )
    # Hot enough, a model writes what it holds least likely; by itself llama.cpp draws from 40.
    [read] = [[*c.prompt_ids, *c.completion_ids] for c in drawn]
    with torch.no_grad():
        logits = tiny.hf(torch.tensor([read])).logits[0, :-1]
    ranks = (logits > logits.gather(1, torch.tensor(read[1:])[:, None])).sum(1)
    assert ranks[len(drawn[0].prompt_ids) - 1 :].max() > 300


def test_vllm_writes_what_the_model_writes_here(tiny, tmp_path, monkeypatch):
    """On random weights: vLLM's attention on a CPU has no heads as narrow as the bundled model's.

    Such a model writes bytes that are no characters, and vLLM decodes those in another way. Its
    texts are streamed.
    """
    streamed = []
    monkeypatch.setattr(
        "r2a_utils.collecting.endpoint.joined", lambda sent: streamed.append(1) or joined(sent)
    )
    config = LlamaConfig(
        vocab_size=700,
        hidden_size=128,
        num_attention_heads=2,
        num_key_value_heads=1,
        num_hidden_layers=3,
        intermediate_size=256,
        initializer_range=0.2,
        bos_token_id=tiny.tokenizer.bos_token_id,
        eos_token_id=tiny.tokenizer.eos_token_id,
    )
    torch.manual_seed(1)
    weights = tmp_path / "weights"
    random = LlamaForCausalLM(config)
    with torch.no_grad():  # a text that ends without closing its thought would be refused
        random.lm_head.weight[config.eos_token_id] = 0
    random.save_pretrained(weights)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(BUNDLED / name, weights)
    model = load_model(str(weights))
    with vllm(weights, tmp_path / "log.txt") as url:
        to = Endpoint(url, "served", timeout_s=600)
        backend = server_backend(to, model.tokenizer, 3, tags=model.tags, end_ids=model.end_ids)
        assert_same_texts(model, load_problems("tiny", n=6, seed=1), backend)
    assert len(streamed) > 36  # texts; those whose thought is closed take two requests


# --- a local server whose replies a test decides -------------------------------------------------


class Echo:
    """Completes every prompt with the same words and counts tokens as `tokenizer` does.

    `bodies` are the requests after the first ones, which ask for one token.
    """

    def __init__(
        self,
        tokenizer,
        text="\nHm.\n</think>\n\n4",
        reason="stop",
        adds_bos=False,
        takes_ids=True,
    ):
        self.tokenizer, self.text, self.reason = tokenizer, text, reason
        self.adds_bos, self.takes_ids, self.bodies = adds_bos, takes_ids, []

    def __call__(self, path, body, headers):
        assert path == "/v1/completions"
        if body["max_tokens"] > 1:
            self.bodies.append(body)
        prompt = body["prompt"]
        if not self.takes_ids and not isinstance(prompt, str):
            return 422, {"detail": [{"loc": ["body", "prompt"], "msg": "not a valid string"}]}
        if isinstance(prompt, str):
            prompt = self.tokenizer.encode(prompt, add_special_tokens=False)
        return {
            "choices": [{"index": 0, "text": self.text, "finish_reason": self.reason}],
            "usage": {"prompt_tokens": len(prompt) + self.adds_bos, "completion_tokens": 9},
        }


@pytest.fixture
def prompts(tokenizer):
    bos, ids = tokenizer.bos_token_id, tokenizer.encode("3 plus 1?", add_special_tokens=False)
    return [
        Prompt((bos, *ids, *([ids[0]] * i)), Problem(f"p{i}", "3 plus 1?"), "with_reasoning", 0)
        for i in range(5)
    ]


def complete(to, tokenizer, prompts, sampling=None, **options):
    found = list(server_backend(to, tokenizer, **options)(prompts, sampling or Sampling(99)))
    return {written.index: (written.ids, written.finished) for written in found}


def test_prompts_go_out_as_ids_with_bos_once(tokenizer, prompts):
    echo = Echo(tokenizer)
    with serve(echo) as url:
        found = complete(
            endpoint(url), tokenizer, prompts, Sampling(77, temperature=0.6, top_p=0.9)
        )
    expected = tokenizer.encode(echo.text, add_special_tokens=False)
    assert found == {i: (expected, True) for i in range(5)}
    assert sorted(b["prompt"] for b in echo.bodies) == sorted(list(p.ids) for p in prompts)
    assert all(b["prompt"].count(tokenizer.bos_token_id) == 1 for b in echo.bodies)
    body = echo.bodies[0]
    assert (body["max_tokens"], body["temperature"], body["top_p"]) == (77, 0.6, 0.9)
    assert "logit_bias" not in body


def test_a_server_draws_from_all_tokens_and_not_as_it_is_used_to(tokenizer, prompts):
    """llama.cpp cuts at 40 tokens by itself, vLLM does what the model's own file says."""

    class Strict(Echo):
        def __call__(self, path, body, headers):
            if "top_p" in body and not body["top_p"] < 1:
                return 422, {"error": "Input validation error: `top_p` must be < 1.0"}
            return super().__call__(path, body, headers)

    for echo in (Echo(tokenizer), Strict(tokenizer)):
        with serve(echo) as url:
            complete(endpoint(url), tokenizer, prompts, Sampling(9))
            complete(endpoint(url), tokenizer, prompts, Sampling(9, temperature=0.6))
        greedy, drawn = echo.bodies[0], echo.bodies[-1]
        assert not {"top_p", "top_k", "min_p"} & set(greedy)
        assert (drawn["temperature"], drawn["top_k"], drawn["min_p"]) == (0.6, -1, 0.0)
        assert drawn.get("top_p") == (None if isinstance(echo, Strict) else 1.0)
        assert greedy["repetition_penalty"] == drawn["repetition_penalty"] == 1.0


def test_what_a_text_depends_on_is_never_left_out(tokenizer, prompts):
    class Strict(Echo):
        def __call__(self, path, body, headers):
            if "seed" in body:
                return 422, {"detail": [{"loc": ["body", "seed"], "msg": "extra", "input": body}]}
            return super().__call__(path, body, headers)

    with (
        serve(Strict(tokenizer)) as url,
        pytest.raises(EndpointError, match=r"refused with 422: body.seed: extra$"),
    ):
        complete(endpoint(url), tokenizer, prompts)


def test_each_prompt_has_a_seed_of_its_own_and_keeps_it(tokenizer, prompts):
    seeds = []
    for _ in range(2):
        echo = Echo(tokenizer)
        with serve(echo) as url:
            complete(endpoint(url), tokenizer, prompts)
        seeds.append({tuple(b["prompt"]): b["seed"] for b in echo.bodies})
    assert seeds[0] == seeds[1]
    assert len(set(seeds[0].values())) == 5
    assert all(0 <= seed < 2**31 for seed in seeds[0].values())


@pytest.mark.parametrize("adds_bos", [False, True])
def test_as_text_bos_is_added_where_the_server_does_not(tokenizer, prompts, adds_bos):
    echo = Echo(tokenizer, adds_bos=adds_bos, takes_ids=False)
    with serve(echo) as url:
        found = complete(endpoint(url), tokenizer, prompts)
    assert found == {i: (encode(tokenizer, echo.text), True) for i in range(5)}
    for body in echo.bodies[-5:]:
        assert body["prompt"].startswith(tokenizer.bos_token) is not adds_bos


def test_a_second_bos_is_refused(tokenizer, prompts):
    with (
        serve(Echo(tokenizer, adds_bos=True)) as url,
        pytest.raises(EndpointError, match=r"made \d+ tokens of a prompt of \d+: it adds a BOS"),
    ):
        complete(endpoint(url), tokenizer, prompts)


def test_another_models_server_is_refused(tokenizer, prompts):
    def other(path, body, headers):
        return {"choices": [{"text": "a", "finish_reason": "stop"}], "usage": {"prompt_tokens": 99}}

    with serve(other) as url, pytest.raises(EndpointError, match="another tokenizer"):
        complete(endpoint(url), tokenizer, prompts)


@pytest.mark.parametrize("around", ["[INST] {} [/INST]", "{} and so on"])
def test_a_server_that_puts_a_template_around_the_text_is_refused(tokenizer, prompts, around):
    """As Ollama does, which takes no token ids."""

    class Templating(Echo):
        def __call__(self, path, body, headers):
            reply = super().__call__(path, body, headers)
            if isinstance(reply, dict):
                text = around.format(body["prompt"])
                reply["usage"]["prompt_tokens"] = len(encode(self.tokenizer, text))
            return reply

    with (
        serve(Templating(tokenizer, takes_ids=False)) as url,
        pytest.raises(EndpointError, match="a template of its own around it"),
    ):
        complete(endpoint(url), tokenizer, prompts)


@pytest.mark.parametrize("listed", [["theirs"], ["one", "two"], ["m"], []])
def test_the_one_model_that_is_served_is_asked_under_its_name(tokenizer, prompts, listed):
    class Named(Echo):
        def __call__(self, path, body, headers):
            if path == "/v1/models":
                return {"object": "list", "data": [{"id": name} for name in listed]}
            if body["model"] != "theirs":
                return 404, {"error": {"message": f"The model `{body['model']}` does not exist."}}
            return super().__call__(path, body, headers)

    echo = Named(tokenizer)
    with serve(echo) as url:
        if listed == ["theirs"]:
            assert len(complete(endpoint(url), tokenizer, prompts)) == 5
            assert {body["model"] for body in echo.bodies} == {"theirs"}
            return
        told = "it serves one, two" if len(listed) == 2 else "The model `m` does not exist"
        with pytest.raises(EndpointError, match=told):
            complete(endpoint(url), tokenizer, prompts)


def test_a_cut_completion_is_not_finished_and_an_end_token_is_dropped(tokenizer, prompts):
    with serve(Echo(tokenizer, "\nHm", "length")) as url:
        found = complete(endpoint(url), tokenizer, prompts[:1])
    assert found[0] == (tokenizer.encode("\nHm", add_special_tokens=False), False)
    with serve(Echo(tokenizer, "\nHm" + tokenizer.eos_token)) as url:
        found = complete(endpoint(url), tokenizer, prompts[:1])
    assert found[0] == (tokenizer.encode("\nHm", add_special_tokens=False), True)


def test_every_end_token_of_the_model_ends_a_servers_text(tokenizer, prompts):
    """A chat model has one for the turn beside that for the text; a server may heed one alone."""
    turn = tokenizer.encode("<｜User｜>", add_special_tokens=False)[0]
    ends = {turn, tokenizer.eos_token_id}
    with serve(echo := Echo(tokenizer, "\nHm.</think>\n\n4<｜User｜>And 5?", "length")) as url:
        found = complete(endpoint(url), tokenizer, prompts[:1], end_ids=ends)
    written = tokenizer.encode("\nHm.</think>\n\n4", add_special_tokens=False)
    assert found[0] == (written, True)
    assert echo.bodies[0]["stop_token_ids"] == sorted(ends)


@pytest.mark.parametrize(
    ("reason", "finished"),
    [("stop", True), ("eos", True), ("end_turn", True), (None, True), ("length", False),
     ("max_tokens", False), ("content_filter", False), ("abort", False)],
)  # fmt: skip
def test_every_reason_that_does_not_break_a_text_off_is_an_end(
    tokenizer, prompts, reason, finished
):
    with serve(Echo(tokenizer, reason=reason)) as url:
        found = complete(endpoint(url), tokenizer, prompts[:1])
    assert found[0][1] is finished


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
@pytest.mark.parametrize(
    ("thought", "text", "written"),
    [("Hm.\n", "\n\n4", "Hm.\n</think>\n\n4"), ("Hm.", "4", "Hm.\n</think>\n\n4"),
     ("Hm", None, "Hm"), (None, "Hm.\n</think>\n\n4", "Hm.\n</think>\n\n4"), (None, None, "")],
)  # fmt: skip
def test_a_thought_in_a_field_of_its_own_is_put_back(
    tokenizer, prompts, field, thought, text, written
):
    class Parsing(Echo):
        def __call__(self, *request):
            reply = super().__call__(*request)
            reply["choices"][0] |= {"text": text, field: thought}
            return reply

    with serve(Parsing(tokenizer)) as url:
        found = complete(endpoint(url), tokenizer, prompts[:1])
    assert tokenizer.decode(found[0][0]) == written


def test_a_server_that_keeps_its_thoughts_is_found_out_and_nothing_of_it_kept(
    tiny, tokenizer, tmp_path
):
    problems, path = load_problems("tiny", n=8, seed=2), tmp_path / "with_reasoning.jsonl"
    answers_only = Echo(tokenizer, "\n\n4")
    with (
        serve(answers_only) as url,
        pytest.raises(EndpointError, match=r"hold no </think>: the server keeps the thought"),
    ):
        backend = server_backend(endpoint(url), tokenizer, concurrency=1)
        collect_completions(tiny, problems, path=path, backend=backend)
    assert len(answers_only.bodies) < 8 and not path.exists()
    with serve(answers_only) as url:  # without reasoning there is no thought to close
        backend = server_backend(endpoint(url), tokenizer)
        found = collect_completions(tiny, problems, "without_reasoning", backend=backend)
    assert all(c.finished for c in found)


def test_half_a_character_is_kept_as_a_whole_one(tokenizer, prompts):
    with serve(Echo(tokenizer, "\ud800</think>\n\n4")) as url:
        found = complete(endpoint(url), tokenizer, prompts[:1])
    assert "\ufffd" in tokenizer.decode(found[0][0])


def test_banned_tokens_are_banned_and_a_server_that_ignores_it_is_refused(tokenizer, prompts):
    banned = tuple(tokenizer.encode("Z", add_special_tokens=False))
    echo = Echo(tokenizer)
    with serve(echo) as url:
        complete(endpoint(url), tokenizer, prompts, Sampling(9, banned_ids=banned))
    assert echo.bodies[0]["logit_bias"] == {str(banned[0]): -100}
    with (
        serve(Echo(tokenizer, "\nZZ")) as url,
        pytest.raises(EndpointError, match="does not heed logit_bias"),
    ):
        complete(endpoint(url), tokenizer, prompts, Sampling(9, banned_ids=banned))


@pytest.mark.parametrize(
    "reply",
    [
        {"choices": []},
        {"usage": {"prompt_tokens": 0}},
        {"error": "?"},
        {"choices": [None]},
        {"choices": [{"text": 3}]},
        {"choices": [{}]},
        {"choices": None},
    ],
)
def test_a_reply_that_is_no_completion_is_refused(tokenizer, prompts, reply):
    if "choices" in reply:
        reply |= {"usage": {"prompt_tokens": len(prompts[0].ids)}}
        prompts = prompts[:1]
    with serve(lambda *request: reply) as url, pytest.raises(EndpointError):
        complete(endpoint(url), tokenizer, prompts)


@pytest.fixture
def special_tags(tokenizer):
    """The bundled tokenizer with its tags as special tokens, which servers leave out of a text."""
    special = deepcopy(tokenizer)
    special.add_special_tokens({"additional_special_tokens": ["<think>", "</think>"]})
    return special


class Knowing(Echo):
    """A server that knows `return_token_ids`, as vLLM does; its text lacks special tokens."""

    def __call__(self, path, body, headers):
        reply = super().__call__(path, body, headers)
        ids = self.tokenizer.encode(self.text, add_special_tokens=False)
        reply["choices"][0]["text"] = self.tokenizer.decode(ids, skip_special_tokens=True)
        if body.get("return_token_ids"):
            reply["choices"][0]["token_ids"] = [*ids, self.tokenizer.eos_token_id]
        return reply


def test_token_ids_are_taken_where_a_server_gives_them(special_tags, prompts):
    knowing = Knowing(special_tags)
    with serve(knowing) as url:
        found = complete(endpoint(url), special_tags, prompts)
    written = special_tags.encode(knowing.text, add_special_tokens=False)
    assert found == {i: (written, True) for i in range(5)}
    assert special_tags.convert_tokens_to_ids("</think>") in written


def test_token_ids_are_taken_where_llama_cpp_has_them(special_tags, prompts):
    class Verbose(Knowing):
        def __call__(self, path, body, headers):
            reply = super().__call__(path, body | {"return_token_ids": True}, headers)
            ids = reply["choices"][0].pop("token_ids")
            if body.get("verbose") and body.get("return_tokens"):
                reply["__verbose"] = {"tokens": ids}
            return reply

    knowing = Verbose(special_tags)
    with serve(knowing) as url:
        found = complete(endpoint(url), special_tags, prompts)
    assert found == {i: (encode(special_tags, knowing.text), True) for i in range(5)}


def test_token_ids_of_another_text_are_refused(tokenizer, prompts):
    class Other(Knowing):
        def __call__(self, *request):
            reply = super().__call__(*request)
            if "token_ids" in reply["choices"][0]:
                reply["choices"][0]["token_ids"][2:4] = [70, 71]
            return reply

    with (
        serve(Other(tokenizer)) as url,
        pytest.raises(EndpointError, match="token ids and its text differ"),
    ):
        complete(endpoint(url), tokenizer, prompts)


def test_bytes_that_are_no_character_may_be_told_by_any_number_of_marks(tokenizer, prompts):
    """vLLM, which decodes as it writes, has one mark where a whole text has one for each byte."""

    class Piecewise(Echo):
        def __call__(self, *request):
            reply = super().__call__(*request)
            text = "\nHm.\n</think>\n\n"
            ids = encode(tokenizer, text) + [encode(tokenizer, "é")[0]] * 2
            reply["choices"][0] |= {"text": f"{text}\ufffd", "token_ids": ids}
            return reply

    with serve(Piecewise(tokenizer)) as url:
        found = complete(endpoint(url), tokenizer, prompts)
    assert tokenizer.decode(found[0][0]).endswith("\ufffd\ufffd")


def test_words_that_a_server_does_not_know_are_left_out_from_then_on(tokenizer, prompts):
    refused = []

    class Strict(Echo):
        def __call__(self, path, body, headers):
            unknown = {"return_token_ids", "skip_special_tokens", "stop_token_ids"} & set(body)
            if unknown:
                refused.append(unknown)
                return 400, f"extra fields: {sorted(unknown)[0]}"
            return super().__call__(path, body, headers)

    with serve(Strict(tokenizer)) as url:
        found = complete(endpoint(url), tokenizer, prompts, concurrency=1)
    assert len(found) == 5 and len(refused) == 3


def test_a_server_that_drops_the_tags_is_refused(special_tags, tokenizer, prompts):
    class Dropping(Knowing):
        def __call__(self, path, body, headers):
            return super().__call__(path, {**body, "return_token_ids": False}, headers)

    with (
        serve(Dropping(special_tags)) as url,
        pytest.raises(EndpointError, match="</think> is a special token"),
    ):
        complete(endpoint(url), special_tags, prompts)
    answers = [replace(prompt, condition="without_reasoning") for prompt in prompts]
    with serve(Dropping(special_tags, "\n\n4")) as url:  # an answer has no tag to lose
        assert len(complete(endpoint(url), special_tags, answers)) == 5


def test_a_thought_that_is_closed_for_the_model_goes_on_as_in_decoding_here(tiny):
    """Budget forcing on a server: greedy texts equal those of the local way, token for token."""

    def decode(path, body, headers):
        ids = torch.tensor([body["prompt"]])
        with torch.no_grad():
            written = tiny.hf.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=body["max_tokens"],
                do_sample=False,
                pad_token_id=tiny.tokenizer.eos_token_id,
            )[0, ids.shape[1] :].tolist()
        ended = written[-1] in tiny.end_ids
        return {
            "choices": [
                {
                    "text": tiny.tokenizer.decode(written, skip_special_tokens=False),
                    "token_ids": written,
                    "finish_reason": "stop" if ended else "length",
                }
            ],
            "usage": {"prompt_tokens": len(body["prompt"])},
        }

    problems = load_problems("tiny", n=6, seed=3)
    sampling = Sampling(max_new_tokens=160, close_after=24)
    here = collect_completions(tiny, problems, sampling=sampling)
    with serve(decode) as url:
        backend = server_backend(endpoint(url), tiny.tokenizer, concurrency=1, tags=tiny.tags)
        there = collect_completions(tiny, problems, sampling=sampling, backend=backend)
    assert [c.completion_ids for c in there] == [c.completion_ids for c in here]
    assert [c.closed_by_us for c in there] == [c.closed_by_us for c in here]
    assert any(c.closed_by_us for c in there)


def test_a_broken_off_collection_goes_on_where_it_was(make_random_model, tokenizer, tmp_path):
    model, problems = make_random_model("qwen2"), load_problems("tiny", n=8, seed=2)
    echo, path = Echo(tokenizer), tmp_path / "with_reasoning.jsonl"

    def breaks_down(path, body, headers):
        return (500, "out of memory") if len(echo.bodies) >= 3 else echo(path, body, headers)

    def collect(url):
        backend = server_backend(endpoint(url), tokenizer, concurrency=1)
        return collect_completions(model, problems, path=path, backend=backend)

    with serve(breaks_down) as url, pytest.raises(EndpointError, match="out of memory"):
        collect(url)
    assert path.read_text().count("\n") == 3
    with serve(echo) as url:
        completions = collect(url)
    assert [c.problem_id for c in completions] == [p.id for p in problems]
    assert len(echo.bodies) == 8
