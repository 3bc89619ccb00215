"""A GGUF file is the model that was packed, to the rounding of its packing, or it is refused."""

from __future__ import annotations

import json

import gguf
import pytest
import torch
from transformers import AutoTokenizer
from write_gguf import write, write_vocabulary

from r2a_utils.models.gguf import expanded, find_gguf, packed_weights, restored_tokenizer
from r2a_utils.models.loading import load_model
from r2a_utils.runs.folder import Run
from r2a_utils.texts.prompts import render_prompt
from r2a_utils.texts.tokens import bos_id


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "r2a" / "gguf"


@pytest.fixture(scope="module")
def text(tiny):
    problem = "Start with 3. Add 4. Wait, what is it? The lamp is in the kitchen. \\boxed{7}"
    return torch.tensor([tiny.tokenizer.encode(problem, add_special_tokens=False)])


WITHOUT_BOS = (
    "{% for m in messages %}{% if m['role'] == 'user' %}<｜User｜>{{ m['content'] }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<｜Assistant｜>{% endif %}"
)


@pytest.mark.parametrize(
    ("adds_bos", "template", "split", "has_bos"),
    [
        (False, None, "qwen2", True),  # the bundled model's template writes it
        (False, WITHOUT_BOS, "qwen2", False),
        (None, WITHOUT_BOS, "qwen2", False),
        (None, WITHOUT_BOS, "llama-bpe", True),  # as llama.cpp has it
        (True, WITHOUT_BOS, "qwen2", True),
    ],
)
def test_a_model_has_a_bos_where_its_file_or_its_template_puts_one(
    tiny, tmp_path, adds_bos, template, split, has_bos
):
    write(tmp_path / "x.gguf", tiny, split=split, adds_bos=adds_bos, template=template)
    tokenizer = load_model(tmp_path / "x.gguf", dtype="float32", device="cpu").tokenizer
    own, user = tiny.tokenizer.bos_token_id, tiny.tokenizer.convert_tokens_to_ids("<｜User｜>")
    assert tokenizer.bos_token_id == (own if has_bos else None)
    raw, chat = (render_prompt(tokenizer, "Add 4.", prompt_style=s) for s in ("raw", "chat"))
    assert (raw[0] == own) == has_bos
    assert chat[0] == (user if template else own)
    assert bos_id(tokenizer) == (own if has_bos else user)  # no padding stands first


def test_every_end_that_a_file_names_ends_a_text(tiny, tmp_path):
    turn = tiny.tokenizer.convert_tokens_to_ids("<｜User｜>")
    write(tmp_path / "x.gguf", tiny, turn_end=turn)
    loaded = load_model(tmp_path / "x.gguf", dtype="float32", device="cpu")
    assert loaded.end_ids == {turn, tiny.tokenizer.eos_token_id}


def test_what_an_earlier_version_has_expanded_is_expanded_anew(tiny, tmp_path, cache):
    write(tmp_path / "tiny.gguf", tiny)
    first = expanded(tmp_path / "tiny.gguf", torch.float32)
    old = first.with_name(first.name.rpartition("-")[0])
    first.rename(old)
    (old / "tokenizer.json").write_text("another format")
    assert expanded(tmp_path / "tiny.gguf", torch.float32) == first
    loaded = load_model(tmp_path / "tiny.gguf", dtype="float32", device="cpu")
    assert loaded.tokenizer.encode("Add 4.") == tiny.tokenizer.encode("Add 4.")


def test_a_file_is_called_by_its_name_and_not_by_its_place(tiny, tmp_path):
    write(tmp_path / "tiny.gguf", tiny)
    loaded = load_model(tmp_path / "tiny.gguf", dtype="float32", device="cpu")
    assert (loaded.name, loaded.loaded_from) == ("tiny.gguf", str(tmp_path / "tiny.gguf"))
    run = Run(tmp_path)
    run.record_model(loaded)
    record = run.read_record("model")
    assert record["packed"] == "32.0-bit weights (F32), expanded"
    assert str(tmp_path) not in json.dumps(record)
    with pytest.raises(ValueError, match=r"has no revisions; leave revision out"):
        load_model(tmp_path / "tiny.gguf", revision="main")


def test_what_was_packed_without_rounding_is_the_same_model(tiny, text, tmp_path):
    write(tmp_path / "tiny.gguf", tiny)
    loaded = load_model(tmp_path / "tiny.gguf", dtype="float32", device="cpu")
    assert torch.equal(loaded.hf(text).logits, tiny.hf(text).logits)
    assert loaded.tokenizer.encode("Add 4. Wait") == tiny.tokenizer.encode("Add 4. Wait")
    for condition in ("with_reasoning", "without_reasoning"):  # BOS and the marks of the turns
        asked = [render_prompt(m.tokenizer, "Add 4.", condition) for m in (loaded, tiny)]
        assert asked[0] == asked[1]
    assert len(loaded.tokenizer) == tiny.vocab_size
    assert str(loaded.packed) == "32.0-bit weights (F32), expanded"


def test_rounded_weights_differ_by_their_rounding(tiny, text, tmp_path):
    write(tmp_path / "tiny.gguf", tiny, "Q8_0")
    loaded = load_model(tmp_path / "tiny.gguf", dtype="float32", device="cpu")
    for key, exact in tiny.hf.state_dict().items():
        block = exact.reshape(-1, 32) if exact.ndim == 2 else exact.reshape(1, -1)
        step = block.abs().amax(dim=1, keepdim=True) / 127
        error = (loaded.hf.state_dict()[key].reshape(block.shape) - block).abs()
        # half a step, and the step itself is kept in half precision
        assert (error <= step * (0.5 + 127 * 2**-11)).all(), key
    assert 8.4 < loaded.packed.bits < 8.6 and loaded.packed.packing == "Q8_0"
    assert (
        loaded.hf(text).logits.argmax(-1) == tiny.hf(text).logits.argmax(-1)
    ).float().mean() > 0.9


def test_a_file_is_expanded_once_for_each_type(tiny, tmp_path, cache):
    write(tmp_path / "tiny.gguf", tiny)
    first = expanded(tmp_path / "tiny.gguf", torch.float32)
    kept = (first / "model.safetensors").stat().st_mtime_ns
    (tmp_path / "tiny.gguf").rename(tmp_path / "other.gguf")
    assert expanded(tmp_path / "other.gguf", torch.float32) == first
    assert (first / "model.safetensors").stat().st_mtime_ns == kept
    other = expanded(tmp_path / "other.gguf", torch.bfloat16)
    assert sorted(cache.iterdir()) == sorted([first, other])
    assert packed_weights(first).file == "tiny.gguf"
    assert packed_weights(tmp_path) is None


@pytest.mark.parametrize(
    ("split", "lose", "message"),
    [
        ("new-2027", "none", "splits text as 'new-2027', which is not known"),
        (None, "none", "splits text as None, which is not known"),
    ],
)
def test_what_cannot_be_restored_is_refused(tiny, tmp_path, cache, split, lose, message):
    write(tmp_path / "tiny.gguf", tiny, split=split, lose=lose)
    with pytest.raises(ValueError, match=message):
        load_model(tmp_path / "tiny.gguf", dtype="float32", device="cpu")
    assert not list(cache.iterdir())


def test_a_file_that_lacks_a_tensor_is_refused(tiny, tmp_path, cache):
    write(tmp_path / "tiny.gguf", tiny, lose="blk.3.ffn_up.weight")
    with pytest.raises(ValueError, match=r"model\.layers\.3\.mlp\.up_proj\.weight"):
        load_model(tmp_path / "tiny.gguf", dtype="float32", device="cpu")
    assert not list(cache.iterdir())


def test_a_damaged_or_missing_file_is_named(tmp_path):
    (tmp_path / "x.gguf").write_bytes(b"GGUF" + bytes(40))
    with pytest.raises(ValueError, match="is no whole GGUF file"):
        load_model(tmp_path / "x.gguf")
    with pytest.raises(FileNotFoundError, match=r"none\.gguf is not there"):
        load_model(tmp_path / "none.gguf")


def test_a_full_disk_is_said_before_anything_is_written(tiny, tmp_path, cache, monkeypatch):
    write(tmp_path / "tiny.gguf", tiny)
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Disk", (), {"free": 10**6})())
    with pytest.raises(OSError, match=r"expands to 0\.0 GB.*XDG_CACHE_HOME"):
        expanded(tmp_path / "tiny.gguf", torch.float32)


def test_ollamas_store_names_the_file(tmp_path, monkeypatch):
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path))
    manifest = tmp_path / "manifests/registry.ollama.ai/library/deepseek-r1/1.5b"
    manifest.parent.mkdir(parents=True)
    layers = [{"mediaType": "application/vnd.ollama.image.license", "digest": "sha256:1"}]
    layers += [{"mediaType": "application/vnd.ollama.image.model", "digest": "sha256:2"}]
    manifest.write_text(json.dumps({"layers": layers}))
    assert find_gguf("ollama:deepseek-r1:1.5b") == tmp_path / "blobs" / "sha256-2"
    with pytest.raises(FileNotFoundError, match="ollama pull deepseek-r1:7b"):
        find_gguf("ollama:deepseek-r1:7b")
    with pytest.raises(ValueError, match="write hf:owner/repository/file"):
        find_gguf("hf:owner/file.gguf")


def test_a_file_on_the_hub_is_fetched_at_its_revision(tiny, tmp_path, monkeypatch):
    fetched = []

    def fetch(repository, file, revision):
        fetched.append((repository, file, revision))
        write(tmp_path / file, tiny)
        return str(tmp_path / file)

    monkeypatch.setattr("r2a_utils.models.gguf.hf_hub_download", fetch)
    name = "hf:owner/repository/tiny-q8_0.gguf"
    loaded = load_model(name, revision="v1", dtype="float32", device="cpu")
    assert set(fetched) == {("owner/repository", "tiny-q8_0.gguf", "v1")}
    assert (loaded.name, loaded.loaded_from) == ("tiny-q8_0.gguf", name)


def test_the_true_vocabulary_of_the_r1_distills_splits_as_before(tmp_path, paper_data):
    folder = paper_data.parent / "r1-tokenizer"
    if not (folder / "tokenizer.json").is_file():
        pytest.skip(f"the tokenizer of the R1 distills is not in {folder}")
    true = AutoTokenizer.from_pretrained(folder)
    writer = gguf.GGUFWriter(tmp_path / "r1.gguf", "qwen2")
    write_vocabulary(writer, true, len(true), "deepseek-r1-qwen")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    restored = restored_tokenizer(tmp_path / "r1.gguf", gguf.GGUFReader(tmp_path / "r1.gguf"))
    for text in (
        "<think>\nFirst, 12345 + 6 = 12351.\n</think>\n\nThe answer is \\boxed{12351}.",
        "cafe\u0301 naïve 数学 I'LL don't\r\n\r\n  x_{1}^{2}\t!?",
    ):
        ids = true.encode(text, add_special_tokens=False)
        assert restored.encode(text, add_special_tokens=False) == ids
    assert restored.chat_template == true.chat_template
    for condition in ("with_reasoning", "without_reasoning"):
        asked = [
            render_prompt(tokenizer, "What is 2 + 3?", condition) for tokenizer in (restored, true)
        ]
        assert asked[0] == asked[1]
