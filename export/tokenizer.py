"""A tokenizer for a small text encoder: pieces of lower-case words, learnt from the texts it is for."""

from __future__ import annotations

import string
from collections.abc import Iterable

import onnx

from mmedge.bundle.manifest import TextInput
from mmedge.errors import BundleError, ConfigError
from mmedge.extras import require
from mmedge.preprocess import Tokenizer

from .recipe import Recipe

PAD, UNKNOWN = "[PAD]", "[UNK]"
_LETTERS = list(string.ascii_lowercase + string.digits + string.punctuation)


def train_tokenizer(texts: Iterable[str], vocabulary: int) -> bytes:
    """Train a byte-pair tokenizer; the same texts, in any order, give the same bytes.

    Case, accents and forms of Unicode do not count, and punctuation stands alone. Token 0 is padding, token 1 any
    letter that no text had. All of ASCII is always known, so a typing error is read letter by letter.

    Args:
        texts: What people will write.
        vocabulary: At most this many tokens; few texts give fewer. ``Tokenizer.size`` says how many.

    Returns:
        The ``tokenizer.json``, for the seat's key ``tokenizer``.

    Raises:
        ConfigError: If there is no text, or the letters alone need more tokens.
        MissingDependencyError: If ``tokenizers`` is not installed.

    Example:
        >>> raw = train_tokenizer(["it's a seven", "7", "seven"], vocabulary=128)
        >>> spec = TextInput(max_tokens=8)
        >>> ids = np.empty((1, 8), np.int64)
        >>> Tokenizer(raw, spec).ids("Seven", ids); int(np.count_nonzero(ids))
        1
    """
    tokenizers = require("tokenizers", "training a tokenizer")
    known = list(texts)
    if not any(text.strip() for text in known):
        raise ConfigError(
            "there are no texts to train the tokenizer on",
            where="texts",
            fix="give texts like those that people will write",
        )
    normal, split = tokenizers.normalizers, tokenizers.pre_tokenizers
    # Without a prefix for the inner pieces of words: with one, the library's numbers change from run to run.
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(unk_token=UNKNOWN, fuse_unk=True))
    space = normal.Replace(tokenizers.Regex(r"\s+"), " ")
    tokenizer.normalizer = normal.Sequence(
        [normal.NFKD(), normal.StripAccents(), normal.Lowercase(), space, normal.Strip()]
    )
    tokenizer.pre_tokenizer = split.Sequence([split.Metaspace(), split.Punctuation()])
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=vocabulary,
        min_frequency=2,
        special_tokens=[PAD, UNKNOWN],
        initial_alphabet=_LETTERS,
        show_progress=False,
    )
    tokenizer.train_from_iterator(known, trainer)
    size = tokenizer.get_vocab_size(with_added_tokens=True)
    if size > vocabulary:
        raise ConfigError(
            f"the characters of the texts alone need {size} tokens", where="vocabulary", fix=f"allow at least {size}"
        )
    raw: bytes = tokenizer.to_str().encode()
    return raw


def read_tokenizer(recipe: Recipe, name: str) -> bytes:
    """Return the ``tokenizer.json`` of a recipe's text input.

    Raises:
        ConfigError: If the input names none, or it cannot be read.
    """
    spec, where = recipe.inputs[name], f"inputs.{name}.tokenizer"
    if not isinstance(spec, TextInput) or spec.tokenizer is None:
        raise ConfigError(
            "a text input needs a tokenizer", where=where, fix="set it to the tokenizer.json of the network"
        )
    try:
        return recipe.path(spec.tokenizer).read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read the tokenizer: {error.strerror}", where=where, fix="check the path") from error


def load_tokenizer(recipe: Recipe, name: str) -> Tokenizer:
    """Return the tokenizer of a recipe's text input.

    Raises:
        ConfigError: If the input names none, or it is damaged.

    Example:
        >>> load_tokenizer(recipe, "claim").size  # doctest: +SKIP
        134
    """
    raw, spec = read_tokenizer(recipe, name), recipe.inputs[name]
    assert isinstance(spec, TextInput)
    try:
        return Tokenizer(raw, spec)
    except BundleError as error:
        raise ConfigError(error.message, where=f"inputs.{name}.tokenizer", fix="train it again") from error


def check_vocabulary(model: onnx.ModelProto, tensor: str, tokenizer: Tokenizer) -> None:
    """Raise ConfigError if an embedding fed by ``tensor`` has fewer rows than the tokenizer has tokens.

    A CPU would refuse such a token when it comes; a GPU would answer nonsense.
    """
    rows = {constant.name: constant.dims[0] for constant in model.graph.initializer if constant.dims}
    same = {tensor}
    for node in model.graph.node:
        if node.op_type in ("Cast", "Identity", "Reshape", "Squeeze", "Unsqueeze") and node.input[0] in same:
            same.add(node.output[0])
        elif node.op_type == "Gather" and node.input[1] in same and rows.get(node.input[0], 1 << 62) < tokenizer.size:
            raise ConfigError(
                f"the tokenizer has {tokenizer.size} tokens, but the embedding has {rows[node.input[0]]} rows",
                where=f"{model.graph.name}: {tensor}",
                fix="train the network with this tokenizer",
            )
