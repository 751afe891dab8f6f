"""XTTS's GPT, decoded for several sentences in one batch, each at its own place.

The loop is our own, on the weights of coqui's ``GPT``: the library's goes through ``generate`` of transformers, whose
caches change from version to version, serves one sentence at a time, and keeps that sentence's beginning in the model.
Keys and values lie in one arena with a row for each sentence and a column for each token; a row is as long as its
sentence, what lies behind is masked. So sentences begin and end at any step without touching each other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import torch
from torch import Tensor
from torch.nn import functional

COLUMNS: Final = 256
"""The arena grows by this many tokens."""

ALIGNED: Final = 8
"""A mask of numbers whose rows are multiples of this is taken as it is; any other is made into one in every layer."""

Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]
"""(layer, queries, keys, values), each ``[rows, heads, tokens, width]``: what the tokens gather."""


class Layer(Protocol):
    """What is around the attention of a layer."""

    def before(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return queries, keys and values ``[rows, tokens, 3 * dim]``, and the normalized ``x``."""
        ...

    def behind(self, x: Tensor, normalized: Tensor, gathered: Tensor) -> Tensor:
        """Return the layer's output; ``gathered`` is what the attention brought."""
        ...


class PlainLayer:
    """A layer of GPT-2 as transformers has it: norm, attention, norm, two layers, each added to what went in."""

    def __init__(self, block: Any) -> None:
        self._block = block

    def before(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Do as `Layer` says."""
        normalized = self._block.ln_1(x)
        return self._block.attn.c_attn(normalized), normalized

    def behind(self, x: Tensor, normalized: Tensor, gathered: Tensor) -> Tensor:
        """Do as `Layer` says. The GELU is the library's (``gelu_new``), in one kernel in place of its eight."""
        x = x + self._block.attn.c_proj(gathered)
        wide = functional.gelu(self._block.mlp.c_fc(self._block.ln_2(x)), approximate="tanh")
        after: Tensor = x + self._block.mlp.c_proj(wide)
        return after


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a token is drawn. ``repetition`` divides what was there already, ``top_k`` and ``top_p`` cut the tail off."""

    temperature: float
    top_k: int
    top_p: float
    repetition: float

    def draw(self, logits: Tensor, said: Tensor, chances: Sequence[float]) -> list[int]:
        """Draw a token for each row, and mark it in ``said``, as those that were there; ``chances`` (0..1) decide.

        As the processors of transformers do it, in their order, but for the source of chance.
        """
        logits = logits.float()
        penalized = torch.where(logits < 0, logits * self.repetition, logits / self.repetition)
        best = torch.where(said, penalized, logits).div_(self.temperature).topk(min(self.top_k, logits.shape[-1]))
        likely = best.values.softmax(-1)
        likely = likely * (likely.cumsum(-1) - likely < self.top_p)
        total = likely.cumsum(-1)
        chance = torch.tensor(chances, dtype=total.dtype, device=total.device)[:, None] * total[:, -1:]
        # the rounding of a sum must not lead behind the last one that may be drawn
        place = torch.searchsorted(total, chance, right=True).clamp(max=(likely > 0).sum(-1, keepdim=True) - 1)
        drawn = best.indices.gather(-1, place)
        said.scatter_(1, drawn, True)
        tokens: list[int] = drawn[:, 0].tolist()
        return tokens


class Gpt:
    """The weights and the arena. Not for two threads at once, and to be used within ``torch.inference_mode()``."""

    def __init__(self, gpt: Any, layers: Sequence[Layer] | None = None) -> None:
        """Take coqui's ``GPT``, and other layers than its own if there are."""
        self._gpt = gpt
        self._layers = layers or [PlainLayer(block) for block in gpt.gpt.h]
        self._heads = int(gpt.heads)
        self._lengths: list[int] = []
        self._arena = self._empty(0, 0)
        self.stop_token = int(gpt.stop_audio_token)
        self.max_tokens = int(gpt.max_gen_mel_tokens)
        self.max_text_tokens = int(gpt.max_text_tokens) - 2

    @property
    def rows(self) -> int:
        """Sentences in the arena."""
        return len(self._lengths)

    def row_bytes(self) -> int:
        """Return what the longest sentence takes in the arena."""
        columns = self.max_text_tokens + 2 + int(self._gpt.max_prompt_tokens) + self.max_tokens
        return columns * 2 * len(self._layers) * int(self._gpt.model_dim) * int(self._arena.element_size())

    def said_before(self) -> Tensor:
        """Mark the tokens that count as said at the start.

        The model's own ``generate`` stands ones for everything before the first token, and penalizes these too.
        """
        said = torch.zeros(int(self._gpt.num_audio_tokens), dtype=torch.bool, device=self._arena.device)
        said[1] = said[int(self._gpt.start_audio_token)] = True
        return said

    def begin(self, voices: Sequence[Tensor], texts: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """Add a row for each sentence; return their first latents ``[n, dim]`` and the logits of their first tokens.

        Shorter ones are filled up behind their end, where nothing of theirs looks, and later steps write over it.
        """
        prompts = [self._prompt(voice, text) for voice, text in zip(voices, texts, strict=True)]
        lengths, first = [len(prompt) for prompt in prompts], self.rows
        x = torch.nn.utils.rnn.pad_sequence(prompts, batch_first=True)
        rows, longest = x.shape[:2]
        self._make_room(first + rows, longest + 1)
        self._lengths += lengths

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            self._arena[layer, 0, first : first + rows, :, :longest] = k
            self._arena[layer, 1, first : first + rows, :, :longest] = v
            return functional.scaled_dot_product_attention(q, k, v, is_causal=True)

        return self._through(x, attend, [length - 1 for length in lengths])

    def _prompt(self, voice: Tensor, text: Sequence[int]) -> Tensor:
        """Return what a sentence begins with: its voice, its text, and the token that starts speech."""
        gpt = self._gpt
        tokens = [int(gpt.start_text_token), *text, int(gpt.stop_text_token)]
        words = torch.tensor([tokens], device=self._arena.device)
        start = gpt.mel_embedding(words.new_full((1, 1), int(gpt.start_audio_token)))
        whole = (voice, gpt.text_embedding(words) + gpt.text_pos_embedding(words), start + gpt.mel_pos_embedding(start))
        return torch.cat(whole, 1)[0]

    def step(self, tokens: Sequence[int], places: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Give each row the token it drew, its ``places``-th; return the next latents and logits ``[rows, ...]``."""
        gpt, rows, columns = self._gpt, self.rows, -(-(max(self._lengths) + 1) // ALIGNED) * ALIGNED
        self._make_room(rows, columns)
        token_and_place = torch.tensor([tokens, places], device=self._arena.device)
        x = gpt.mel_embedding(token_and_place[0]) + gpt.mel_pos_embedding.emb(token_and_place[1])
        ends = torch.tensor(self._lengths, device=self._arena.device)
        every = torch.arange(rows, device=self._arena.device)
        behind = torch.arange(columns, device=self._arena.device) > ends[:, None]
        mask = x.new_zeros(rows, columns).masked_fill_(behind, -torch.inf)[:, None, None]
        self._lengths = [length + 1 for length in self._lengths]

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            keys, values = self._arena[layer, 0, :rows, :, :columns], self._arena[layer, 1, :rows, :, :columns]
            keys[every, :, ends], values[every, :, ends] = k[:, :, 0], v[:, :, 0]
            return functional.scaled_dot_product_attention(q, keys, values, attn_mask=mask)

        return self._through(x[:, None], attend, [0] * rows)

    def end(self, row: int) -> None:
        """Remove a row; the last one takes its place."""
        last = self.rows - 1
        self._arena[:, :, row, :, : self._lengths[last]] = self._arena[:, :, last, :, : self._lengths[last]]
        self._lengths[row] = self._lengths[last]
        self._lengths.pop()

    def clear(self) -> None:
        """Remove all rows and free the arena."""
        self._lengths = []
        self._arena = self._empty(0, 0)

    # --- inside

    def _through(self, x: Tensor, attend: Attend, ends: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Run the layers; return the latents and logits at each row's end."""
        rows, tokens, width = x.shape
        for i, layer in enumerate(self._layers):
            three, normalized = layer.before(x)
            q, k, v = three.view(rows, tokens, 3, self._heads, -1).permute(2, 0, 3, 1, 4)
            gathered = attend(i, q, k, v).transpose(1, 2).reshape(rows, tokens, width)
            x = layer.behind(x, normalized, gathered)
        latents = self._gpt.final_norm(self._gpt.gpt.ln_f(x[range(rows), ends]))
        return latents, self._gpt.mel_head(latents)

    def _make_room(self, rows: int, columns: int) -> None:
        _, _, had_rows, _, had_columns, _ = self._arena.shape
        if rows <= had_rows and columns <= had_columns:
            return
        arena = self._empty(
            max(had_rows, 1 << (rows - 1).bit_length()), max(had_columns, -(-columns // COLUMNS) * COLUMNS)
        )
        arena[:, :, :had_rows, :, :had_columns] = self._arena
        self._arena = arena

    def _empty(self, rows: int, columns: int) -> Tensor:
        weight = self._gpt.mel_embedding.weight
        shape = (len(self._layers), 2, rows, self._heads, columns, int(self._gpt.model_dim) // self._heads)
        arena: Tensor = weight.new_zeros(shape)
        return arena
