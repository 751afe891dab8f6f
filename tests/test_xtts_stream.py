"""XTTS's own streaming: what comes piece by piece is what the library's one-shot way makes of the same tokens."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import numpy as np
import pytest

from tests.xtts_checkpoint import MAX_TOKENS, narrow_vocoder, write_checkpoint  # skips this file without the extra

# isort: split
import torch
from torch import Tensor
from torch.nn import functional
from transformers import LogitsProcessorList
from transformers.generation.logits_process import (
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from pipeline.audio import Pcm
from pipeline.tts import _xtts_model as model
from pipeline.tts._xtts_gpt import Gpt, Sampling
from pipeline.tts._xtts_speech import CHUNKS, PROMPT_TOKENS, TOKENS_AROUND, Sentence, Speech
from pipeline.tts._xtts_vocoder import Stretch, Vocoding

TOKEN_SAMPLES = 1024 / 22_050 * 24_000
ANY = Sampling(temperature=0.75, top_k=50, top_p=0.85, repetition=5.0)
GREEDY = Sampling(temperature=0.75, top_k=1, top_p=1.0, repetition=5.0)
SCHEDULES = {
    "as it is": CHUNKS,
    "one by one": (1,),
    "fours": (4,),
    "stock": (20,),
    "uneven": (3, 11, 2, 7),
    "at once": (1000,),
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[model.Checkpoint]:
    with pytest.MonkeyPatch.context() as patch:
        narrow_vocoder(patch)
        yield model.load(write_checkpoint(tmp_path_factory.mktemp("xtts")), "cpu")


def batch(checkpoint: model.Checkpoint, sampling: Sampling = ANY, rows: int = 4, **more: Any) -> Speech:
    return Speech(Gpt(checkpoint.xtts.gpt, **more), checkpoint.xtts.hifigan_decoder, sampling, rows)


def words(checkpoint: model.Checkpoint, text: str) -> list[int]:
    tokens: list[int] = checkpoint.xtts.tokenizer.encode(text, lang="en")
    return tokens


def sentence(checkpoint: model.Checkpoint, text: str, seed: int = 1, speed: float = 1.0, **more: Any) -> Sentence:
    return Sentence(words(checkpoint, text), checkpoint.speakers["Alpha Tester"], speed, seed, **more)


def spoken(speech: Speech, wanted: Sentence) -> Pcm:
    """Step until it has ended; return all of its sound."""
    if wanted not in speech._waiting:
        speech.open(wanted)
    for _ in range(MAX_TOKENS + 1):
        if wanted.ended:
            break
        speech.step()
    assert wanted.ended and wanted.error is None
    return np.concatenate(wanted.pieces)


def one_shot(checkpoint: model.Checkpoint, said: Sentence) -> Tensor:
    """Do as the library's ``Xtts.inference`` does: run the GPT over all tokens, vocode all latents."""
    xtts, text, codes = checkpoint.xtts, torch.tensor([said.text]), torch.tensor([said.tokens])
    with torch.inference_mode():
        latents = xtts.gpt(
            text,
            torch.tensor([text.shape[-1]]),
            codes,
            torch.tensor([codes.shape[-1] * xtts.gpt.code_stride_len]),
            cond_latents=said.speaker.latents,
            return_latent=True,
        )
        if said.speed != 1.0:
            longer = functional.interpolate(latents.transpose(1, 2), scale_factor=1 / said.speed, mode="linear")
            latents = longer.transpose(1, 2)
        audio: Tensor = xtts.hifigan_decoder(latents, g=said.speaker.embedding)[0, 0]
    return audio


@pytest.mark.parametrize(
    ("sizes", "speed"),
    [*((sizes, 1.0) for sizes in SCHEDULES.values()), (CHUNKS, 0.8), ((1,), 1.7)],
    ids=[*SCHEDULES, "slow", "fast"],
)
def test_a_stream_is_what_one_shot_makes_of_the_same_tokens(
    checkpoint: model.Checkpoint, sizes: Sequence[int], speed: float
) -> None:
    said = sentence(checkpoint, "how are you today?", speed=speed, sizes=sizes)
    audio = spoken(batch(checkpoint), said) / 32767.0
    wanted = one_shot(checkpoint, said).numpy()
    assert audio.shape == wanted.shape and np.abs(wanted).max() > 0.005
    assert np.abs(audio - wanted).max() < 1e-4  # of which 2e-5 are the rounding to 16 bits


def test_a_sentence_ends_with_its_stop_token(checkpoint: model.Checkpoint) -> None:
    bias = checkpoint.xtts.gpt.mel_head.bias
    kept = bias.clone()
    speech = batch(checkpoint)
    try:
        bias[speech.gpt.stop_token] = kept.max() + 1.0
        said = [sentence(checkpoint, "the quick brown fox", seed) for seed in range(8)]
        audio = [spoken(speech, one) for one in said]
        short = [one for one in said if len(one.tokens) < MAX_TOKENS]
        assert short and all(one.tokens.index(speech.gpt.stop_token) == len(one.tokens) - 1 for one in short)
        assert any(len(one.tokens) < 4 for one in short)
        for one, pcm in zip(said, audio, strict=True):
            assert np.abs(pcm / 32767.0 - one_shot(checkpoint, one).numpy()).max() < 1e-4
    finally:
        bias.copy_(kept)


def test_the_first_sound_comes_with_the_fourth_token_and_pieces_grow(checkpoint: model.Checkpoint) -> None:
    speech, said = batch(checkpoint), sentence(checkpoint, "hello there")
    speech.open(said)
    for _ in range(4):
        assert not said.pieces
        speech.step()
    assert len(said.tokens) == 4 and len(said.pieces) == 1 and len(said.pieces[0]) > 0.02 * 24_000
    while not said.ended:
        speech.step()
    lengths = [len(piece) for piece in said.pieces]
    assert lengths[:5] == sorted(lengths[:5])
    # after each piece there is as much sound as the next one's tokens are long, but for the very first
    for begun, size in enumerate(CHUNKS[2:6], 2):
        assert sum(lengths[:begun]) >= (size - 1) * TOKEN_SAMPLES


class Counting:
    """Counts multiplications, and outputs by layer, of all convolutions."""

    def __init__(self) -> None:
        self.multiplied = 0
        self.outputs: dict[int, int] = {}

    def wrap(self, convolve: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def counting(x: Tensor, weight: Tensor, *more: Any, **named: Any) -> Tensor:
            made = convolve(x, weight, *more, **named)
            self.multiplied += made.shape[-1] * weight.numel()
            self.outputs[id(weight)] = self.outputs.get(id(weight), 0) + made.shape[-1]
            return made

        return counting


@pytest.mark.parametrize("sizes", SCHEDULES.values(), ids=SCHEDULES)
def test_nothing_is_vocoded_twice(
    checkpoint: model.Checkpoint, sizes: Sequence[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    said = sentence(checkpoint, "how are you today?", sizes=sizes)
    audio = spoken(batch(checkpoint), said)
    latents = torch.randn(len(said.tokens), checkpoint.xtts.gpt.model_dim)
    streamed, whole = Counting(), Counting()
    plain = {name: getattr(functional, name) for name in ("conv1d", "conv_transpose1d")}
    for counting, cut in ((streamed, sizes), (whole, (len(latents),))):
        for name, convolve in plain.items():
            monkeypatch.setattr(functional, name, counting.wrap(convolve))
        vocoding, begin = Vocoding(checkpoint.xtts.hifigan_decoder, said.speaker.embedding), 0
        emitted = 0
        with torch.inference_mode():
            for size in [*cut] * len(latents):
                if begin < len(latents):
                    piece = latents[None, begin : begin + size]
                    emitted += vocoding.push(piece, begin + size >= len(latents)).shape[-1]
                    begin += size
        assert emitted == len(audio)
    last = checkpoint.xtts.hifigan_decoder.waveform_decoder.conv_post.weight
    assert streamed.outputs[id(last)] == len(audio)
    assert streamed.multiplied <= 1.3 * whole.multiplied


def kept_bytes(state: object) -> int:
    """Sum up the memory behind all tensors that an object of ours reaches, but for the model's."""
    if isinstance(state, Tensor):
        return int(state.untyped_storage().nbytes())
    if isinstance(state, list | tuple):
        return sum(map(kept_bytes, state))
    ours = type(state).__module__ == Vocoding.__module__
    return sum(map(kept_bytes, vars(state).values())) if ours else 0


def test_what_is_kept_between_pieces_is_small_however_long_they_are(checkpoint: model.Checkpoint) -> None:
    vocoding = Vocoding(checkpoint.xtts.hifigan_decoder, checkpoint.speakers["Alpha Tester"].embedding)
    after: list[int] = []
    with torch.inference_mode():
        for size in (20, 200):
            vocoding.push(torch.randn(1, size, checkpoint.xtts.gpt.model_dim), False)
            after.append(kept_bytes(vocoding))
    assert 10_000 < after[1] < 1.1 * after[0] < 500_000


@pytest.mark.parametrize("factor", [4.0, 24_000 / 22_050, 1 / 0.5, 1 / 1.3, 1 / 2.0])
@pytest.mark.parametrize("size", [1, 3, 50])
def test_stretching_in_pieces_is_interpolating_at_once(factor: float, size: int) -> None:
    frames = torch.randn(1, 5, 47, generator=torch.Generator().manual_seed(0))
    stretch = Stretch(factor)
    made = [stretch.push(frames[..., i : i + size], i + size >= 47) for i in range(0, 47, size)]
    wanted = functional.interpolate(frames, scale_factor=factor, mode="linear")
    assert torch.allclose(torch.cat(made, -1), wanted, atol=1e-4)


def test_the_loop_draws_the_tokens_that_the_library_draws(checkpoint: model.Checkpoint) -> None:
    gpt, said = checkpoint.xtts.gpt, sentence(checkpoint, "the quick brown fox jumps")
    spoken(batch(checkpoint, GREEDY), said)
    gpt.init_gpt_for_inference()
    with torch.inference_mode():
        begun = gpt.compute_embeddings(said.speaker.latents, torch.tensor([said.text]))
        how = {"do_sample": True, "top_k": 1, "top_p": 1.0, "temperature": 0.75, "repetition_penalty": 5.0}
        stock = gpt.get_generator(
            fake_inputs=begun,
            num_beams=1,
            output_hidden_states=True,
            return_dict_in_generate=True,
            max_new_tokens=None,
            **how,
        )
        assert [int(token) for token, _ in stock] == said.tokens


def test_chance_falls_as_the_processors_of_transformers_let_it() -> None:
    logits = torch.randn(1, 300, generator=torch.Generator().manual_seed(3)) * 2
    before = torch.tensor([[5, 17, int(logits.argmax())]])
    said = torch.zeros(1, 300, dtype=torch.bool)
    said[0, before[0]] = True
    processors = LogitsProcessorList(
        [
            RepetitionPenaltyLogitsProcessor(ANY.repetition),
            TemperatureLogitsWarper(ANY.temperature),
            TopKLogitsWarper(ANY.top_k),
            TopPLogitsWarper(ANY.top_p),
        ]
    )
    wanted: Tensor = processors(cast(Any, before), cast(Any, logits.clone())).softmax(-1)[0]
    chances = [(i + 0.5) / 5_000 for i in range(5_000)]
    rows = (logits.expand(5_000, -1), said.repeat(5_000, 1), chances)
    drawn = torch.bincount(torch.tensor(ANY.draw(*rows)), minlength=300) / 5_000
    assert torch.allclose(drawn, wanted, atol=1e-3)
    assert ANY.draw(logits, said, [math.nextafter(1.0, 0.0)])[0] in wanted.nonzero()


def test_sentences_in_one_batch_do_not_disturb_each_other(checkpoint: model.Checkpoint) -> None:
    texts = ["hello there", "the quick brown fox jumps over it", "how are you today? " * 8]
    alone = [sentence(checkpoint, text, seed) for seed, text in enumerate(texts)]
    alone_audio = [spoken(batch(checkpoint), one) for one in alone]
    together, speech = (
        [sentence(checkpoint, text, seed) for seed, text in enumerate(texts)],
        batch(checkpoint),
    )
    passing = [sentence(checkpoint, "how are you", seed) for seed in range(3)]
    for one, other in zip(together, passing, strict=True):  # begun at different steps, left in the middle
        speech.open(other)
        speech.open(one)
        for _ in range(5):
            speech.step()
        other.closed = True
    while not all(one.ended for one in together):
        speech.step()
    assert [one.tokens for one in together] == [one.tokens for one in alone]
    for one, audio in zip(together, alone_audio, strict=True):
        assert np.abs(np.concatenate(one.pieces) - audio.astype(int)).max() <= 1


def test_sentences_that_begin_together_are_read_together_and_sound_as_if_alone(
    checkpoint: model.Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = ["hello there", "the quick brown fox jumps over it", "how are you today? " * 8] * 6
    alone = [sentence(checkpoint, text, seed) for seed, text in enumerate(texts[:4])]
    for one in alone:
        spoken(batch(checkpoint), one)
    speech, read = batch(checkpoint, rows=len(texts)), []
    begin = speech.gpt.begin

    def counting(voices: Sequence[Tensor], prompts: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        read.append((len(prompts), (max(map(len, prompts)) + TOKENS_AROUND) * len(prompts)))
        return begin(voices, prompts)

    monkeypatch.setattr(speech.gpt, "begin", counting)
    together = [sentence(checkpoint, text, seed) for seed, text in enumerate(texts)]
    for one in together:
        speech.open(one)
    speech.step()
    assert [len(one.tokens) for one in together] == [1] * len(texts)
    assert 1 < len(read) < len(texts) and max(tokens for _, tokens in read) <= PROMPT_TOKENS
    while not all(one.ended for one in together):
        speech.step()
    for one, other in zip(alone, together, strict=False):
        assert one.tokens == other.tokens
        assert np.abs(np.concatenate(one.pieces) - np.concatenate(other.pieces).astype(int)).max() <= 1


def test_sentences_vocoded_together_end_and_close_at_any_step(checkpoint: model.Checkpoint) -> None:
    """Other speeds and schedules beside them, begun with them and later."""
    bias = checkpoint.xtts.gpt.mel_head.bias
    kept = bias.clone()
    speech = batch(checkpoint, rows=18)
    try:
        bias[speech.gpt.stop_token] = kept.max() + 0.5
        ways = [(speed, sizes) for sizes in (CHUNKS, (3, 11, 2, 7)) for speed in (1.0, 1.0, 0.8)]
        said = [sentence(checkpoint, "how are you", 10 * n + i, way[0], sizes=way[1])
                for n in range(3) for i, way in enumerate(ways)]  # fmt: skip
        for one in said[:12]:
            speech.open(one)
        for _ in range(3):
            speech.step()
        for one in said[12:]:
            speech.open(one)
        closed = next(one for one in said if not one.ended)
        for step in range(2 * MAX_TOKENS):
            closed.closed |= step == 4
            speech.step()
    finally:
        bias.copy_(kept)
    heard = [one for one in said if not one.closed]
    assert len({len(one.tokens) for one in heard}) > 4 and all(one.ended for one in heard)
    assert not closed.ended and len(closed.tokens) < 10
    for one in heard:
        audio, wanted = np.concatenate(one.pieces) / 32767.0, one_shot(checkpoint, one).numpy()
        assert audio.shape == wanted.shape and np.abs(audio - wanted).max() < 1e-4
    assert not speech._choruses and speech.speaking == speech.gpt.rows == len(speech._said) == 0


def test_sentences_that_begin_together_go_through_the_vocoder_at_once(
    checkpoint: model.Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes = dict[int, list[int]]()
    push = Vocoding.push

    def counting(vocoding: Vocoding, latents: Tensor, last: bool) -> Tensor:
        passes[rows].append(len(latents))
        return push(vocoding, latents, last)

    monkeypatch.setattr(Vocoding, "push", counting)
    for rows in (1, 12):
        passes[rows] = []
        speech = batch(checkpoint, rows=rows)
        for seed in range(rows):
            speech.open(sentence(checkpoint, "hello there" * (1 + seed % 3), seed))
        for _ in range(MAX_TOKENS):
            speech.step()
    assert passes[12] == [12 * each for each in passes[1]] and passes[1] == [1] * 8


def test_every_sentence_gets_one_token_a_step(checkpoint: model.Checkpoint) -> None:
    speech = batch(checkpoint)
    said = [sentence(checkpoint, "hello there", seed) for seed in range(4)]
    for one in said:
        speech.open(one)
    for steps in range(1, 6):
        speech.step()
        assert [len(one.tokens) for one in said] == [steps] * 4


def test_a_closed_sentence_gets_no_further_token_and_leaves(checkpoint: model.Checkpoint) -> None:
    speech = batch(checkpoint)
    closed, going_on = sentence(checkpoint, "hello there"), sentence(checkpoint, "how are you")
    speech.open(closed)
    speech.open(going_on)
    for _ in range(3):
        speech.step()
    closed.closed = True
    speech.step()
    assert (len(closed.tokens), len(going_on.tokens)) == (3, 4)
    assert speech.speaking == speech.gpt.rows == 1


def test_more_sentences_than_there_is_room_for_wait_in_turn(checkpoint: model.Checkpoint) -> None:
    speech = batch(checkpoint, rows=2)
    said = [sentence(checkpoint, "hello there", seed) for seed in range(5)]
    for one in said:
        speech.open(one)
    said[2].closed = True  # while it waits
    order: list[int] = []
    for _ in range(3 * MAX_TOKENS):
        speech.step()
        assert speech.speaking <= 2
        order += [i for i, one in enumerate(said) if one.ended and i not in order]
    assert sorted(order[:2]) == [0, 1] and sorted(order[2:]) == [3, 4] and not said[2].tokens
    assert speech.speaking == speech.gpt.rows == 0


@pytest.mark.parametrize("part", ["gpt.begin", "gpt.step", "_decoder"])
def test_a_failure_ends_what_is_spoken_and_nothing_else(
    checkpoint: model.Checkpoint, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    speech = batch(checkpoint)
    said = [sentence(checkpoint, "hello there", seed) for seed in range(4)]

    def fail(*_: object) -> None:
        raise RuntimeError("CUDA out of memory")

    speech.open(said[0])
    speech.step()
    for one in said[1:3]:
        speech.open(one)
    owner, _, name = part.rpartition(".")
    with monkeypatch.context() as patch:
        patch.setattr(speech.gpt if owner else speech, name, fail)
        speech.step()
    hit = said[:1] if part == "gpt.step" else said[:3]
    assert all("out of memory" in str(one.error) or (part == "_decoder" and one.error) for one in hit)
    assert all(len(spoken(speech, one)) > 0 for one in said if one not in hit)


def test_a_vocoding_takes_latents_that_are_none(checkpoint: model.Checkpoint) -> None:
    latents = torch.randn(1, 6, checkpoint.xtts.gpt.model_dim)
    embedding = checkpoint.speakers["Beta Tester"].embedding
    with torch.inference_mode():
        vocoding = Vocoding(checkpoint.xtts.hifigan_decoder, embedding)
        audio = torch.cat(
            [vocoding.push(latents, False), vocoding.push(latents[:, :0], False), vocoding.push(latents[:, :0], True)],
            -1,
        )[0]
        wanted = checkpoint.xtts.hifigan_decoder(latents, g=embedding)[0, 0]
    assert torch.allclose(audio, wanted, atol=1e-5)
