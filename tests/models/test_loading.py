"""Models: known by name, found wherever they are, refused with words that help."""

from __future__ import annotations

import json
import sys
from dataclasses import replace

import psutil
import pytest
import torch
from huggingface_hub import HfApi
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers import models as tokenizer_models
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    Mistral3Config,
    Mistral3ForConditionalGeneration,
    PreTrainedTokenizerFast,
    dynamic_module_utils,
)

from r2a_utils.models import loading, weights
from r2a_utils.models.loading import ReasoningModel, load_model, random_model
from r2a_utils.models.registry import REGISTRY, parameter_count, shape_of
from r2a_utils.texts.prompts import PromptStyle, render_prompt
from r2a_utils.texts.tags import R1_TAGS, Tags

# What the hub's pages say; the totals of the safetensors files.
PUBLISHED_TOTALS = {
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B": 1_777_088_000,
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B": 7_615_616_512,
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-14B": 14_770_033_664,
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-32B": 32_763_876_352,
    "deepseek-ai/DeepSeek-R1-Distill-Llama-8B": 8_030_261_248,
    "deepseek-ai/DeepSeek-R1-Distill-Llama-70B": 70_553_706_496,
    "smollm2-135m": 134_515_008,
    "Qwen/Qwen3-4B": 4_022_468_096,
    "Qwen/Qwen3-8B": 8_190_735_360,
    "Qwen/Qwen3-4B-Thinking-2507": 4_022_468_096,
    "deepseek-ai/DeepSeek-R1-0528-Qwen3-8B": 8_190_735_360,
    "agentica-org/DeepScaleR-1.5B-Preview": 1_777_088_000,
    "Qwen/QwQ-32B": 32_763_876_352,
    "HuggingFaceTB/SmolLM3-3B": 3_075_098_624,
    "open-thoughts/OpenThinker3-7B": 7_615_616_512,
    "nvidia/OpenReasoning-Nemotron-7B": 7_615_616_512,
    "microsoft/Phi-4-mini-reasoning": 3_836_021_760,
    "allenai/Olmo-3-7B-Think": 7_298_011_136,
    "mistralai/Magistral-Small-2507": 23_572_403_200,
    "openai/gpt-oss-20b": 20_914_757_184,
}
# Billions of the language model, as the hub's page cuts them off; the files hold a tower beside it.
LANGUAGE_PARTS = {
    "mistralai/Ministral-3-3B-Reasoning-2512": 3.4,
    "mistralai/Ministral-3-8B-Reasoning-2512": 8.4,
}
# Their files hold the embedding twice, once as the head, which the model ties to it.
STORED_TWICE = {"Qwen/Qwen3-0.6B": 751_632_384, "Qwen/Qwen3-1.7B": 2_031_739_904}
PUBLISHED_TOTALS |= {
    name: total - shape_of(name)["vocab_size"] * shape_of(name)["hidden_size"]
    for name, total in STORED_TWICE.items()
}


@pytest.fixture
def folder(make_random_model, tokenizer, tmp_path):
    """A small Qwen3 in a local folder, as save_pretrained leaves it."""
    make_random_model("qwen3").hf.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    return tmp_path


@pytest.fixture
def without_network(monkeypatch):
    def fail(*args, **kwargs):
        raise ConnectionError("Name or service not known")

    monkeypatch.setattr(HfApi, "model_info", fail)


def hub_answers(monkeypatch, error):
    def fail(*args, **kwargs):
        raise error.__new__(error)

    monkeypatch.setattr(HfApi, "model_info", fail)


# The registry -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PUBLISHED_TOTALS)
def test_published_shapes_have_the_published_number_of_parameters(name):
    assert parameter_count(shape_of(name)) == PUBLISHED_TOTALS[name]


@pytest.mark.parametrize("name", LANGUAGE_PARTS)
def test_a_text_model_beside_a_tower_has_the_published_size(name):
    count = parameter_count(shape_of(name))
    assert count // 10**8 == round(10 * LANGUAGE_PARTS[name])
    with torch.device("meta"):
        hf = AutoModelForCausalLM.from_config(AutoConfig.for_model(**shape_of(name)))
    assert sum(p.numel() for p in hf.parameters()) == count


def test_every_registered_shape_is_held_against_a_published_size():
    held = PUBLISHED_TOTALS.keys() | LANGUAGE_PARTS.keys()
    assert held == {name for name, known in REGISTRY.items() if known.shape is not None}


def test_a_model_without_a_surely_known_shape_is_registered_and_has_no_twin(tokenizer):
    assert shape_of("Qwen/Qwen3.5-0.8B") is None
    with pytest.raises(ValueError, match=r"no shape of Qwen/Qwen3.5-0.8B"):
        random_model("Qwen/Qwen3.5-0.8B", tokenizer)


def test_the_count_of_parameters_is_that_of_the_built_model(any_model):
    config = any_model.hf.config.to_dict()
    if config["model_type"] == "granite":
        with pytest.raises(ValueError, match="cannot count the parameters of a 'granite' model"):
            parameter_count(config)
    else:
        assert parameter_count(config) == sum(p.numel() for p in any_model.hf.parameters())


@pytest.mark.parametrize("name", PUBLISHED_TOTALS)
def test_published_shapes_build_the_architecture_that_they_name(name):
    shape = shape_of(name)
    config = AutoConfig.for_model(**shape)
    with torch.device("meta"):
        hf = AutoModelForCausalLM.from_config(config)
    assert sum(p.numel() for p in hf.parameters()) == PUBLISHED_TOTALS[name]
    asked = shape["rope_parameters"]
    for kind, given in asked.items() if "rope_type" not in asked else [(None, asked)]:
        built = config.rope_parameters if kind is None else config.rope_parameters[kind]
        assert built["rope_theta"] == given["rope_theta"]


def test_the_bundled_model_is_registered_with_the_shape_in_its_file(tiny):
    assert "r2a-tiny" in REGISTRY
    count = sum(p.numel() for p in tiny.hf.parameters())
    assert parameter_count(shape_of("r2a-tiny")) == count
    assert count <= 5_000_000


# Loading ------------------------------------------------------------------------------------------


def test_the_bundled_model_loads_and_writes_its_tags_as_one_token(tiny):
    assert type(tiny.hf).__name__ == "Qwen2ForCausalLM"
    assert 6 <= tiny.n_layers <= 8 and tiny.n_kv_heads < tiny.n_heads
    assert (tiny.name, tiny.dtype, tiny.device.type) == ("r2a-tiny", torch.float32, "cpu")
    for tag in (tiny.tags.open, tiny.tags.close):
        assert len(tiny.tokenizer.encode(tag, add_special_tokens=False)) == 1


def test_a_local_folder_loads_with_the_shape_that_it_has(folder):
    model = load_model(folder, device="cpu")
    assert (model.n_layers, model.n_heads, model.n_kv_heads) == (3, 6, 2)
    assert model.head_dim == 24 != model.hidden_size // model.n_heads
    assert (model.name, model.loaded_from, model.revision) == (folder.name, str(folder), None)
    assert load_model(folder, device="cpu", display_name="Mine").name == "Mine"
    assert model.dtype == torch.float32
    assert not any(p.requires_grad for p in model.hf.parameters())
    assert load_model(str(folder), device="cpu", dtype=torch.bfloat16).dtype == torch.bfloat16


@pytest.mark.parametrize("tied", [False, True])
def test_of_a_model_that_reads_pictures_the_text_model_alone_is_loaded(tokenizer, tmp_path, tied):
    text = {
        "model_type": "ministral3", "hidden_size": 32, "intermediate_size": 64, "head_dim": 8,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
        "vocab_size": len(tokenizer), "tie_word_embeddings": tied,
    }  # fmt: skip
    tower = {
        "model_type": "pixtral", "hidden_size": 16, "intermediate_size": 32, "patch_size": 14,
        "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 28,
    }  # fmt: skip
    config = Mistral3Config(text_config=text, vision_config=tower, tie_word_embeddings=tied)
    whole = Mistral3ForConditionalGeneration(config).eval()
    whole.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    model = load_model(tmp_path, device="cpu")
    ids = torch.arange(12)[None]
    assert type(model.hf).__name__ == "Ministral3ForCausalLM"
    with torch.no_grad():
        assert torch.equal(model.hf(ids).logits, whole(input_ids=ids).logits)


def test_the_digest_of_the_weights_tells_models_apart(folder, make_random_model):
    loaded, same = load_model(folder, device="cpu"), make_random_model("qwen3")
    assert loaded.weights_sha256 == same.weights_sha256
    other = make_random_model("qwen3")
    other.hf.model.layers[1].mlp.up_proj.weight[3, 2] += 1e-3
    assert other.weights_sha256 != same.weights_sha256


def test_random_models_come_from_their_seed(make_random_model):
    state = torch.get_rng_state()
    digests = [make_random_model("llama", seed=s).weights_sha256 for s in (0, 0, 1)]
    assert digests[0] == digests[1] != digests[2]
    assert torch.equal(torch.get_rng_state(), state)


def test_a_twin_has_the_shape_of_the_model_that_it_is_named_after(tokenizer):
    name = "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B"
    twin = random_model(name, tokenizer, num_hidden_layers=1, vocab_size=len(tokenizer))
    assert (twin.n_heads, twin.n_kv_heads, twin.head_dim, twin.hidden_size) == (12, 2, 128, 1536)


def test_smollm2_is_a_chat_model_whose_tags_are_several_tokens(smollm2):
    assert (smollm2.n_layers, smollm2.n_heads, smollm2.n_kv_heads) == (30, 9, 3)
    assert len(smollm2.tokenizer.encode("<think>", add_special_tokens=False)) > 1
    # Digits stand alone, and the space before one is a token of its own, as in SmolLM2's own files.
    assert smollm2.tokenizer.tokenize("a  12") == ["a", "ĠĠ", "1", "2"]
    question = "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"
    ids = smollm2.tokenizer(question, return_tensors="pt").input_ids
    written = smollm2.hf.generate(ids, max_new_tokens=12, do_sample=False)[0, ids.shape[1] :]
    assert "Paris" in smollm2.tokenizer.decode(written)


# Refusals -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("smolm2-135", "smollm2-135m"),
        ("r2a_tiny", "r2a-tiny"),
        ("DeepSeek-R1-Distill-Qwen-1.5B", "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B"),
        ("distill-llama-8b", "deepseek-ai/DeepSeek-R1-Distill-Llama-8B"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(name, nearest):
    with pytest.raises(ValueError, match=f"no registered model.*nearest.*{nearest}"):
        load_model(name)


def test_no_weights_and_no_network(without_network):
    with pytest.raises(
        FileNotFoundError, match=r"hub cannot be reached .*hf download deepseek-ai/"
    ):
        load_model("deepseek-ai/DeepSeek-R1-Distill-Qwen-7B")


def test_a_misspelt_hub_id_without_network_names_the_nearest(without_network):
    with pytest.raises(FileNotFoundError, match=r"nearest registered names: deepseek-ai/.*Qwen-7B"):
        load_model("deepseek-ai/DeepSeek-R1-Distil-Qwen-7B")


def test_without_network_what_the_machine_holds_is_loaded(without_network, monkeypatch):
    monkeypatch.setattr(weights, "try_to_load_from_cache", lambda *a, **k: "/cache/config.json")
    found = weights.find_weights(
        "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B", "main", False, torch.float32
    )
    assert found == (
        "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B",
        "main",
        {"trust_remote_code": False, "local_files_only": True},
    )


def test_a_revision_is_pinned_to_its_commit(monkeypatch):
    info = type("Info", (), {"sha": "0123abc"})
    monkeypatch.setattr(HfApi, "model_info", lambda *a, **k: info)
    assert weights.find_weights("some/model", "main", True, torch.float32) == (
        "some/model",
        "0123abc",
        {"trust_remote_code": True},
    )


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (RepositoryNotFoundError, "the hub has no model 'some/r2a-tiny'.*nearest.*r2a-tiny"),
        (RevisionNotFoundError, "has no revision 'nightly'"),
        (GatedRepoError, "accept on its page, then `hf auth login`"),
    ],
)
def test_what_the_hub_refuses_is_said(monkeypatch, error, words):
    hub_answers(monkeypatch, error)
    with pytest.raises(ValueError, match=words):
        load_model("some/r2a-tiny", revision="nightly")


def test_a_folder_without_a_model(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds no model \(config.json and weights\)"):
        load_model(tmp_path)


UP = "model.layers.1.mlp.up_proj.weight"


def renamed(tensors):
    return {key.replace("up_proj", "upward"): tensor for key, tensor in tensors.items()}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: {k: v for k, v in t.items() if k != UP}, rf"lack {UP}\."),
        (renamed, rf"lack .*{UP}.*; they hold instead .*layers\.1\.mlp\.upward"),
        (lambda t: {f"other.{k}": v for k, v in t.items()}, r"lack .* and \d+ more"),
        (lambda t: t | {UP: t[UP][:9].clone()}, rf"have in another shape {UP}"),
        (lambda t: t | {UP: t[UP] * torch.nan}, rf"NaN or infinite\) in {UP}"),
        (lambda t: t | {UP: t[UP] / 0}, rf"NaN or infinite\) in {UP}"),
        (
            lambda t: t | {"model.layers.0.self_attn.q_proj.bias": torch.ones(144)},
            r"has no place for model\.layers\.0\.self_attn\.q_proj\.bias",
        ),
    ],
    ids=["missing", "renamed", "prefixed", "shape", "nan", "infinite", "bias"],
)
def test_weights_that_are_not_whole_are_refused_by_name(folder, change, words):
    """Transformers would fill them in at random, with a warning, and the run would succeed."""
    file = folder / "model.safetensors"
    save_file(change(load_file(file)), file, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=words):
        load_model(folder, device="cpu")


def test_what_a_model_does_not_need_may_lie_beside_its_weights(folder, make_random_model):
    """Heads for several tokens at once, and rotary tables that old checkpoints hold."""
    file = folder / "model.safetensors"
    more = {"mtp.head.weight": torch.ones(3), "model.rotary_emb.inv_freq": torch.ones(12)}
    save_file(load_file(file) | more, file, metadata={"format": "pt"})
    assert (
        load_model(folder, device="cpu").weights_sha256 == make_random_model("qwen3").weights_sha256
    )


def test_an_unembedding_that_is_the_embedding_is_not_missing(
    make_random_model, tokenizer, tmp_path
):
    model = make_random_model("llama", tie_word_embeddings=True)
    model.hf.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    assert "lm_head.weight" not in load_file(tmp_path / "model.safetensors")
    assert load_model(tmp_path, device="cpu").weights_sha256 == model.weights_sha256


def test_a_decoder_that_cannot_be_read_is_refused_when_it_is_loaded(tokenizer, tmp_path):
    config = MambaConfig(num_hidden_layers=1, hidden_size=8, vocab_size=len(tokenizer))
    MambaForCausalLM(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="has no attention that can be read"):
        load_model(tmp_path, device="cpu")


def test_types_and_devices_that_are_not_there(folder, monkeypatch):
    with pytest.raises(
        ValueError, match=r"'float16' is not offered \(the R1 distills overflow it\)"
    ):
        load_model(folder, dtype=torch.float16)
    with pytest.raises(ValueError, match="'half' is not offered; choose from float32"):
        load_model(folder, dtype="half")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(ValueError, match="no device 'cuda:1': torch sees 0 GPUs"):
        load_model(folder, device="cuda:1")


def test_weights_beyond_the_free_memory(folder, monkeypatch):
    free = type("Memory", (), {"available": 1000})
    monkeypatch.setattr(psutil, "virtual_memory", lambda: free)
    with pytest.raises(MemoryError, match=r"does not fit .*Take a smaller model, dtype='bfloat16'"):
        load_model(folder, device="cpu")


def test_weights_beyond_a_gpus_memory_go_to_all_gpus_or_nowhere(monkeypatch):
    """A machine with two GPUs of 16 GB: 1.5B fits one, 7B in bfloat16 both, 32B none."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    free = {0: int(14e9), 1: int(15e9), torch.device("cuda:1"): int(15e9)}
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free[device], int(16e9)))
    place = loading._place("auto")
    assert place == torch.device("cuda:1")

    def placed(name, spread=True):
        config = AutoConfig.for_model(**shape_of(f"deepseek-ai/DeepSeek-R1-Distill-{name}"))
        return loading._device_map(name, config, torch.bfloat16, place, spread)

    assert placed("Qwen-1.5B") == place
    assert placed("Qwen-7B") == "auto"
    with pytest.raises(MemoryError, match=r"15.2 GB of weights, 15.0 GB free"):
        placed("Qwen-7B", spread=False)
    with pytest.raises(MemoryError, match=r"65.5 GB of weights, 29.0 GB free"):
        placed("Qwen-32B")
    free |= {1: int(20e9), place: int(20e9)}  # one would hold 7B's weights and hardly a text
    assert placed("Qwen-7B") == "auto"
    assert placed("Qwen-7B", spread=False) == place
    free |= {1: int(40e9), place: int(40e9)}
    assert placed("Qwen-7B") == place


def test_a_tokenizer_that_cannot_write_the_tags_is_refused(folder):
    letters = Tokenizer(tokenizer_models.WordLevel({"[UNK]": 0, "think": 1}, unk_token="[UNK]"))
    letters.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=letters, unk_token="[UNK]").save_pretrained(folder)
    with pytest.raises(ValueError, match=r"cannot write the tag <think>.*add_tokens"):
        load_model(folder, device="cpu")


def test_a_tag_of_several_tokens_is_accepted(folder):
    bytes_only = Tokenizer(tokenizer_models.BPE())
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    bytes_only = Tokenizer(tokenizer_models.BPE({c: i for i, c in enumerate(alphabet)}, []))
    bytes_only.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bytes_only.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=bytes_only).save_pretrained(folder)
    model = load_model(folder, device="cpu")
    assert len(model.tokenizer.encode("</think>")) == 8


def test_code_that_comes_with_weights_does_not_run_unless_asked(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "path", list(sys.path))
    marker = folder / "ran"
    code = f"from pathlib import Path\nPath({str(marker)!r}).touch()\nclass Own: pass\n"
    (folder / "modeling_own.py").write_text(code)
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "modeling_own.Own"}}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="trust_remote_code"):
        load_model(folder, device="cpu")
    assert not marker.exists()
    with pytest.raises(Exception, match="Own"):  # it runs, and is no configuration
        load_model(folder, device="cpu", trust_remote_code=True)
    assert marker.exists()


def test_the_wrapper_and_the_plain_module_are_the_same_model(make_random_model):
    model = make_random_model("qwen2")
    assert isinstance(model, ReasoningModel)
    ids = torch.tensor([[5, 9, 7]])
    with torch.no_grad(), model.lm.trace(input_ids=ids):
        logits = model.lm.output.logits.save()
    assert torch.equal(logits, model.hf(ids).logits)


def test_a_model_whose_files_hold_no_template_gets_the_one_that_is_registered(
    tiny, tmp_path, monkeypatch
):
    """As Magistral's."""
    tiny.hf.save_pretrained(tmp_path)
    tiny.tokenizer.save_pretrained(tmp_path)
    (tmp_path / "chat_template.jinja").unlink()
    known = replace(REGISTRY["mistralai/Magistral-Small-2507"], hub_id="owner/tiny", shape=None)
    monkeypatch.setitem(REGISTRY, "owner/tiny", known)
    monkeypatch.setattr(loading, "find_weights", lambda *asked: (str(tmp_path), None, {}))
    model = load_model("owner/tiny", device="cpu")
    style = PromptStyle("First draft:{open}a scratchpad{close}Then the answer.")
    ids = render_prompt(model.tokenizer, "2 + 2?", prompt_style=style, tags=model.tags)
    assert model.tokenizer.decode(ids) == (
        model.tokenizer.bos_token + "[SYSTEM_PROMPT]First draft:[THINK]a scratchpad[/THINK]"
        "Then the answer.[/SYSTEM_PROMPT][INST]2 + 2?[/INST][THINK]"
    )


def test_a_models_tags_are_given_or_found_in_its_template(tiny, tmp_path):
    tiny.hf.save_pretrained(tmp_path)
    tiny.tokenizer.save_pretrained(tmp_path)
    assert load_model(tmp_path, device="cpu").tags == R1_TAGS
    given = Tags("[THINK]", "[/THINK]", after_open="")
    assert load_model(tmp_path, device="cpu", tags=given).tags == given
    template = tmp_path / "chat_template.jinja"
    written = template.read_text("utf-8")
    for tags in (R1_TAGS.open, R1_TAGS.close):
        written = written.replace(tags, "")
    template.write_text(written + "{# <seed:think> #}", "utf-8")
    model = load_model(tmp_path, device="cpu")
    assert (model.tags.open, model.tags.close) == ("<seed:think>", "</seed:think>")
