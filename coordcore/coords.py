"""Coordinates as ordered bins, tokens and ids. Torch-free at import."""

from __future__ import annotations

import operator
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, SupportsIndex

import attrs

from coordcore.errors import InputError
from coordcore.quantisation import NUM_BINS

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_TOKEN = re.compile(r"<\|coord_(0|[1-9][0-9]{0,2})\|>")
_CURE = "add the 1000 tokens with `coordcore expand BASE --output DIR`"


class MissingCoordTokensError(InputError):
    """The tokenizer has none of the coord tokens: the checkpoint was never expanded."""


def is_coord_token(text: object) -> bool:
    """Whether `text` is exactly one of `<|coord_0|>` .. `<|coord_999|>`; the wildcard `<|coord_*|>` is not."""
    return isinstance(text, str) and _TOKEN.fullmatch(text) is not None


def token_to_int(token: str) -> int:
    """The bin of a coord token. Raises InputError naming the token."""
    match = _TOKEN.fullmatch(token)
    if match is None:
        raise InputError(f"{token!r} is not a coord token; expected <|coord_k|> with k from 0 to 999, no leading zeros")
    return int(match[1])


def int_to_token(value: SupportsIndex | float) -> str:
    """The coord token of a bin; 10.0 is 10. Raises InputError for what is no whole number in 0..999."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, (bool, float)) or not hasattr(value, "__index__"):
        raise InputError(f"{value!r} is not a bin; expected an integer from 0 to 999")
    number = operator.index(value)
    if number >= NUM_BINS:
        raise InputError(f"{number} > 999: this looks like absolute pixels; encode pixels with a quantisation first")
    if number < 0:
        raise InputError(f"{number} < 0 is not a bin; expected an integer from 0 to 999")
    return f"<|coord_{number}|>"


def ints_to_tokens(values: Iterable[SupportsIndex | float]) -> list[str]:
    """`int_to_token` for each."""
    return [int_to_token(value) for value in values]


def tokens_to_ints(tokens: Iterable[str]) -> list[int]:
    """`token_to_int` for each."""
    return [token_to_int(token) for token in tokens]


def _as_tuple(ids: Iterable[int]) -> tuple[int, ...]:
    return tuple(ids)


def _are_ids(_instance: Any, _attribute: Any, ids: tuple[int, ...]) -> None:
    distinct = len(set(ids))
    if len(ids) != NUM_BINS or distinct != NUM_BINS:
        raise InputError(f"a coord vocabulary has {NUM_BINS} distinct ids, got {len(ids)}, {distinct} of them distinct")


@attrs.frozen(kw_only=True)
class CoordVocab:
    """The token ids of the 1000 bins of one tokenizer. `ids[k]` is the id of `<|coord_k|>`."""

    ids: tuple[int, ...] = attrs.field(converter=_as_tuple, validator=_are_ids, repr=lambda ids: f"{ids[0]}..{ids[-1]}")

    @classmethod
    def from_tokenizer(
        cls, tokenizer: Any, *, embedding_rows: int | None = None, config_vocab_size: int | None = None
    ) -> CoordVocab:
        """Resolve the ids from a transformers tokenizer and check them.

        embedding_rows: rows of the model's embedding matrix. config_vocab_size: `vocab_size` of the text config.
        Raises MissingCoordTokensError when there are no coord tokens at all, InputError when some are missing or
        unknown, share an id, or lie outside the matrix or the configured vocabulary.
        """
        found = dict(enumerate(tokenizer.convert_tokens_to_ids(ints_to_tokens(range(NUM_BINS)))))
        unknown = getattr(tokenizer, "unk_token_id", None)
        known = {k: token_id for k, token_id in found.items() if token_id is not None and token_id != unknown}
        return cls.checked(known, "the tokenizer", embedding_rows=embedding_rows, config_vocab_size=config_vocab_size)

    @classmethod
    def checked(
        cls,
        known: Mapping[int, int],
        what: str,
        *,
        embedding_rows: int | None = None,
        config_vocab_size: int | None = None,
    ) -> CoordVocab:
        """From `known`, bin -> id of the tokens that have one of their own. Raises as `from_tokenizer`.

        what: whose tokens they are, "the tokenizer", for messages.
        """
        missing = [k for k in range(NUM_BINS) if k not in known]
        if len(missing) == NUM_BINS:
            raise MissingCoordTokensError(f"{what} has no coord tokens; {_CURE}")
        if missing:
            lacks = f"{what} lacks {len(missing)} of the 1000 coord tokens (missing or mapped to the unknown token)"
            raise InputError(f"{lacks}: {_some(ints_to_tokens(missing))}; {_CURE}, from a base that has none of them")
        ids = [known[k] for k in range(NUM_BINS)]
        first = dict(zip(reversed(ids), reversed(range(NUM_BINS)), strict=True))
        shared = [f"{int_to_token(k)} = {int_to_token(first[i])} = {i}" for k, i in enumerate(ids) if first[i] != k]
        if shared:
            raise InputError(f"{what} gives several coord tokens one id: {_some(shared)}; {_CURE}")
        for rows, where in ((embedding_rows, "rows of the embedding matrix"), (config_vocab_size, "config.vocab_size")):
            outside = [f"{int_to_token(k)} = {i}" for k, i in enumerate(ids) if rows is not None and not 0 <= i < rows]
            if outside:
                cure = f"tokenizer and weights do not belong together: {_CURE}, from the original base"
                raise InputError(f"{what} has coord token ids outside the {rows} {where}: {_some(outside)}; {cure}")
        return cls(ids=ids)

    def ids_tensor(self, device: torch.device | str | None = None) -> Tensor:
        """[1000] int64, in bin order."""
        import torch

        return torch.tensor(self.ids, dtype=torch.int64, device=device)

    def bins(self, ids: Any) -> Any:
        """The bin of each token id, -1 where it is no coord token: int64, the shape of `ids`.

        `ids` is an integer tensor (the result is one, on its device), or an array or sequence (the result is an array).
        """
        if type(ids).__module__.partition(".")[0] == "torch":
            import torch

            known, bins = torch.from_numpy(self._table).to(ids.device)
            at = torch.searchsorted(known, ids.to(torch.int64)).clamp(max=NUM_BINS - 1)
            return torch.where(known[at] == ids, bins[at], -1)
        import numpy as np

        table, order = self._table
        array = np.asarray(ids, dtype=np.int64)
        index = np.minimum(np.searchsorted(table, array), NUM_BINS - 1)
        return np.where(table[index] == array, order[index], -1)

    @cached_property
    def _table(self) -> Any:
        """[2, 1000] int64: the ids in ascending order, and their bins. Kept: `bins` is called for every example."""
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
