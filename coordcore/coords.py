"""Coordinates as ordered bins, tokens and ids. Torch-free at import."""

from __future__ import annotations

import operator
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, SupportsIndex, get_args

import attrs
from attrs.validators import ge, in_, instance_of, le, matches_re

from coordcore.errors import InputError
from coordcore.quantisation import NUM_BINS

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Order = Literal["xy", "yx"]
PATTERN = r"<[^<>{}\s\"'\\]*\{(?::0[1-9])?\}[^<>{}\s\"'\\]*>"


class MissingCoordTokensError(InputError):
    """The tokenizer has none of the coord tokens: the checkpoint was never expanded."""


@attrs.frozen(kw_only=True)
class CoordFormat:
    """How a model writes coordinates: by the tokens `tokens.format(k)` of `bins` bins, in each point x or y first.

    tokens: one `{}`, or `{:04}` for zeros in front, within < and >. Travels with a checkpoint, as `CoordVocab.format`.
    Records and boxes have x first whatever the order: it is applied where tokens are written into an answer or read.
    """

    tokens: str = attrs.field(default="<|coord_{}|>", validator=matches_re(PATTERN))
    # Tables of bins are int16.
    bins: int = attrs.field(default=NUM_BINS, validator=[instance_of(int), ge(2), le(2**15 - 1)])
    order: Order = attrs.field(default="xy", validator=in_(get_args(Order)))

    @cached_property
    def written(self) -> tuple[str, ...]:
        """The token of each bin."""
        return tuple(map(self.tokens.format, range(self.bins)))

    @cached_property
    def bin_of(self) -> Mapping[str, int]:
        """The bin of each token."""
        return {token: k for k, token in enumerate(self.written)}

    def pattern(self, number: str = "[0-9]+") -> str:
        """A regular expression for a token, and for what only looks like one: `number` for the bin's digits."""
        return number.join(map(re.escape, re.split(r"\{.*\}", self.tokens)))

    def arranged(self, values: Sequence[Any]) -> tuple[Any, ...]:
        """`values`, x, y, x, y ..., in the order of the text, and those of the text with x first."""
        step = 1 if self.order == "xy" else 2
        return tuple(value for at in range(0, len(values), step) for value in reversed(values[at : at + step]))

    def rough_length(self, text: str) -> int:
        """About how many tokens a text has, for `ExampleSource.length`: each coord token one, three bytes of the rest.

        Qwen3's tokenizer makes 0.7 (English) to 1.4 (JSON) times as many of what is no coord token.
        """
        return len(re.sub(self.pattern(), "...", text).encode(errors="replace")) // 3

    def __str__(self) -> str:
        return f"{self.written[0]} to {self.written[-1]}{', y first' if self.order == 'yx' else ''}"


DEFAULT_COORDS = CoordFormat()

PRESETS: Mapping[str, tuple[CoordFormat, str]] = {
    "rex_omni": (CoordFormat(tokens="<{}>"), "floor_{last}"),
    "paligemma": (CoordFormat(tokens="<loc{:04}>", bins=1024, order="yx"), "paligemma_1024"),
}
"""What published models have, by name, with the name of their quantisation, in which `{last}` is the last bin."""


def is_coord_token(text: object, coords: CoordFormat = DEFAULT_COORDS) -> bool:
    """Whether `text` is exactly one of `<|coord_0|>` .. `<|coord_999|>`; the wildcard `<|coord_*|>` is not."""
    return isinstance(text, str) and text in coords.bin_of


def token_to_int(token: str, coords: CoordFormat = DEFAULT_COORDS) -> int:
    """The bin of a coord token. Raises InputError naming the token."""
    if token in coords.bin_of:
        return coords.bin_of[token]
    raise InputError(f"{token!r} is not a coord token; expected {coords}")


def int_to_token(value: SupportsIndex | float, coords: CoordFormat = DEFAULT_COORDS) -> str:
    """The coord token of a bin; 10.0 is 10. Raises InputError for what is no whole number in 0..999."""
    last = coords.bins - 1
    number = int(value) if isinstance(value, float) and value.is_integer() else value
    if isinstance(number, (bool, float)) or not hasattr(number, "__index__") or operator.index(number) < 0:
        raise InputError(f"{value!r} is not a bin; expected an integer from 0 to {last}")
    if operator.index(number) > last:
        raise InputError(f"{number} > {last}: this looks like absolute pixels; encode pixels with a quantisation first")
    return coords.written[number]


def ints_to_tokens(values: Iterable[SupportsIndex | float], coords: CoordFormat = DEFAULT_COORDS) -> list[str]:
    """`int_to_token` for each."""
    return [int_to_token(value, coords) for value in values]


def tokens_to_ints(tokens: Iterable[str], coords: CoordFormat = DEFAULT_COORDS) -> list[int]:
    """`token_to_int` for each."""
    return [token_to_int(token, coords) for token in tokens]


@attrs.frozen(kw_only=True)
class CoordVocab:
    """The token ids of the bins of one tokenizer. `ids[k]` is the id of the token of bin k, as `format` writes it."""

    ids: tuple[int, ...] = attrs.field(converter=tuple[int, ...], repr=lambda ids: f"{ids[0]}..{ids[-1]}")
    format: CoordFormat = attrs.field(default=DEFAULT_COORDS, repr=False)

    def __attrs_post_init__(self) -> None:
        if not len(self.ids) == len(set(self.ids)) == self.format.bins:
            found = f"{len(self.ids)}, {len(set(self.ids))} of them distinct"
            raise InputError(f"a coord vocabulary has {self.format.bins} distinct ids, got {found}")

    @classmethod
    def from_tokenizer(
        cls,
        tokenizer: Any,
        coords: CoordFormat = DEFAULT_COORDS,
        *,
        embedding_rows: int | None = None,
        config_vocab_size: int | None = None,
    ) -> CoordVocab:
        """Resolve the ids from a transformers tokenizer and check them.

        embedding_rows: rows of the model's embedding matrix. config_vocab_size: `vocab_size` of the text config.
        Raises MissingCoordTokensError when there are no coord tokens at all, InputError when some are missing or
        unknown, share an id, or lie outside the matrix or the configured vocabulary.
        """
        found = zip(coords.written, tokenizer.convert_tokens_to_ids(list(coords.written)), strict=True)
        unknown = getattr(tokenizer, "unk_token_id", None)
        known = {token: token_id for token, token_id in found if token_id is not None and token_id != unknown}
        return cls.checked(
            known, "the tokenizer", coords, embedding_rows=embedding_rows, config_vocab_size=config_vocab_size
        )

    @classmethod
    def checked(
        cls,
        known: Mapping[str, int],
        what: str,
        coords: CoordFormat = DEFAULT_COORDS,
        *,
        embedding_rows: int | None = None,
        config_vocab_size: int | None = None,
    ) -> CoordVocab:
        """From `known`, token -> id of tokens that have one of their own. Raises as `from_tokenizer`.

        what: whose tokens they are, "the tokenizer", for messages.
        """
        cure = f"add the {coords.bins} tokens with `coordcore expand BASE --output DIR`"
        missing = [token for token in coords.written if token not in known]
        if len(missing) == coords.bins:
            raise MissingCoordTokensError(f"{what} has no coord tokens; {cure}")
        if missing:
            lacks = f"{what} lacks {len(missing)} of the {coords.bins} coord tokens (missing or unknown)"
            raise InputError(f"{lacks}: {_some(missing)}; {cure}, from a base that has none of them")
        ids = [known[token] for token in coords.written]
        first = dict(zip(reversed(ids), reversed(coords.written), strict=True))
        shared = [f"{text} = {first[i]} = {i}" for text, i in zip(coords.written, ids, strict=True) if first[i] != text]
        if shared:
            raise InputError(f"{what} gives several coord tokens one id: {_some(shared)}; {cure}")
        for most, where in ((embedding_rows, "rows of the embedding matrix"), (config_vocab_size, "config.vocab_size")):
            outside = [f"{first[i]} = {i}" for i in ids if most is not None and not 0 <= i < most]
            if outside:
                cure = f"tokenizer and weights do not belong together: {cure}, from the original base"
                raise InputError(f"{what} has coord token ids outside the {most} {where}: {_some(outside)}; {cure}")
        return cls(ids=ids, format=coords)

    def ids_tensor(self, device: torch.device | str | None = None) -> Tensor:
        """[K] int64, in bin order."""
        import torch

        return torch.tensor(self.ids, dtype=torch.int64, device=device)

    def bins(self, ids: Any) -> Any:
        """The bin of each token id, -1 where it is no coord token: int64, the shape of `ids`.

        `ids` is an integer tensor (the result is one, on its device), or an array or sequence (the result is an array).
        """
        if type(ids).__module__.partition(".")[0] == "torch":
            import torch

            return torch.from_numpy(self.bins(ids.cpu().numpy())).to(ids.device)
        import numpy as np

        table, order = self._table
        array = np.asarray(ids, dtype=np.int64)
        index = np.minimum(np.searchsorted(table, array), len(table) - 1)
        return np.where(table[index] == array, order[index], -1)

    @cached_property
    def _table(self) -> Any:
        """[2, K] int64: the ids in ascending order, and their bins. Kept: `bins` is called for every example."""
        import numpy as np

        ids = np.array(self.ids, dtype=np.int64)
        order = np.argsort(ids)
        return np.stack([ids[order], order])

    def mask(self, ids: Any) -> Any:
        """Which token ids are coord tokens: bool, the shape and kind of `bins(ids)`."""
        return self.bins(ids) >= 0


def _some(items: Sequence[str], limit: int = 3) -> str:
    more = [f"and {len(items) - limit} more"] if len(items) > limit else []
    return ", ".join([*items[:limit], *more])
