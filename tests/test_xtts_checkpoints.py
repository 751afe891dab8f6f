"""XTTS checkpoints and the voices made with them: what is loaded, what is refused and why, what is computed once."""

from __future__ import annotations

import os
import pickle
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.xtts_checkpoint import (  # skips without the extra
    change_config,
    narrow_vocoder,
    write_checkpoint,
    write_sample,
)

# isort: split
import torch
from TTS.tts.configs.xtts_config import XttsConfig

from pipeline import memory
from pipeline.errors import EngineError, EngineUnavailable
from pipeline.tts import _xtts_latents as latents_module
from pipeline.tts import _xtts_model as model
from pipeline.tts import xtts
from pipeline.tts._xtts_latents import Latents
from pipeline.voices import VoiceSamples


@pytest.fixture(scope="module", autouse=True)
def narrow() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        narrow_vocoder(patch)
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("xtts"))


@pytest.fixture(scope="module")
def loaded(whole: Path) -> model.Checkpoint:
    return model.load(whole, "cpu")


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    """A copy to be changed; the large file is shared until it is written anew."""
    copy = tmp_path / "checkpoint"
    copy.mkdir()
    for file in whole.iterdir():
        if file.name == "model.pth":
            os.link(file, copy / file.name)
        else:
            shutil.copy(file, copy)
    return copy


def rewrite(path: Path, content: object, **how: Any) -> None:
    path.unlink()
    torch.save(content, path, **how)


def create(folder: Path, **settings: str) -> xtts.XttsTextToSpeech:
    data = str(folder.parent / "data")
    return xtts.create({"XTTS_MODEL_PATH": str(folder), "VOCAL_DATA_DIR": data, "VOCAL_XTTS_DEVICE": "cpu", **settings})


class RunsCode:
    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("touch /tmp/xtts-was-run",)


def test_a_checkpoint_is_loaded_warmed_and_usable(folder: Path) -> None:
    settings = {"XTTS_MODEL_PATH": str(folder), "VOCAL_XTTS_DEVICE": "cpu"}
    described = xtts.describe(settings)
    assert (described.lacks, described.heavy) == (None, True)
    assert described.rank < 0  # without a GPU it is never chosen by itself
    engine = create(folder)
    assert engine._speech.gpt.rows == 0
    engine.close()


def test_finetuned_and_released_layouts_load_alike(folder: Path, loaded: model.Checkpoint) -> None:
    weights = torch.load(folder / "model.pth", weights_only=True)["model"]
    config = XttsConfig()
    config.load_json(str(folder / "config.json"))
    doubled = {
        "gpt.gpt.wte.weight": weights["gpt.mel_embedding.weight"],
        "gpt.gpt_inference.lm_head.1.bias": weights["gpt.mel_head.bias"],
        "gpt.gpt.h.0.attn.bias": torch.ones(1, 1, 8, 8, dtype=torch.bool),
    }
    trained = {"torch_mel_spectrogram_dvae.mel_norms": torch.ones(80), "dvae.codebook": torch.ones(2)}
    finetuned = {f"xtts.{name}": weight for name, weight in (weights | trained).items()}
    layouts: list[tuple[object, dict[str, Any]]] = [
        ({"config": config, "model": weights | doubled}, {}),
        ({"config": {}, "model": finetuned, "step": 7}, {}),
        (weights, {"_use_new_zipfile_serialization": False}),
    ]
    for content, how in layouts:
        rewrite(folder / "model.pth", content, **how)
        before = (folder / "model.pth").read_bytes()
        assert model.load(folder, "cpu").fingerprint() == loaded.fingerprint()
        assert (folder / "model.pth").read_bytes() == before


@pytest.mark.parametrize("file", ["model.pth", "speakers_xtts.pth"])
def test_a_pickle_with_code_is_refused_and_not_run(folder: Path, file: str) -> None:
    path = folder / file
    rewrite(path, {"model": {"weight": torch.ones(2), "more": RunsCode()}})
    with pytest.raises(EngineUnavailable, match=rf"{file} is refused: .* posix.system would be run"):
        create(folder)
    path.write_bytes(pickle.dumps(RunsCode(), 2))
    with pytest.raises(EngineUnavailable, match=f"{file} is refused"):
        create(folder)
    assert not Path("/tmp/xtts-was-run").exists()


@pytest.mark.parametrize("file", ["config.json", "vocab.json", "model.pth"])
def test_an_incomplete_checkpoint_says_what_is_missing(folder: Path, file: str) -> None:
    (folder / file).unlink()
    assert xtts.describe({"XTTS_MODEL_PATH": str(folder)}).lacks == f"{file} in XTTS_MODEL_PATH={folder}"
    with pytest.raises(EngineUnavailable, match=file):
        create(folder)


def test_without_a_folder_it_says_what_to_set(tmp_path: Path) -> None:
    assert xtts.describe({"HF_HOME": str(tmp_path)}).lacks == (
        "a model: coqui/XTTS-v2 is not here; `vocal-node models fetch xtts` brings it, XTTS_MODEL_PATH names another"
    )
    nowhere = tmp_path / "nowhere"
    lacks = f"XTTS_MODEL_PATH that is there: no folder {nowhere}"
    assert xtts.describe({"XTTS_MODEL_PATH": str(nowhere)}).lacks == lacks
    with pytest.raises(EngineUnavailable, match="no folder"):
        create(nowhere)


def test_the_fetched_one_is_taken_where_no_folder_is_named(folder: Path, tmp_path: Path) -> None:
    """It lies in the hub's cache; a folder that is named wins, and the licence keeps anything from being downloaded."""
    cached = tmp_path / "hub" / "models--coqui--XTTS-v2"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text("0123abc")
    (cached / "snapshots").mkdir()
    settings = {"HF_HOME": str(tmp_path), "VOCAL_XTTS_DEVICE": "cpu", "VOCAL_DATA_DIR": str(tmp_path / "data")}
    with pytest.raises(EngineUnavailable, match="`vocal-node models fetch xtts`"):
        xtts.create(settings | {"COQUI_TOS_AGREED": "1"})
    (cached / "snapshots" / "0123abc").symlink_to(folder)
    assert xtts.describe(settings).lacks is None
    assert xtts.model(settings | {"XTTS_MODEL_PATH": str(folder)}).repository == ""
    xtts.create(settings).close()


def test_a_checkpoint_that_does_not_fit_is_not_loaded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_bytes", lambda: 10_000_000.0)
    with pytest.raises(EngineUnavailable, match=r"memory: tts xtts needs 0\.\d GiB on cpu, 0\.0 GiB are free; fre"):
        create(folder)


def test_without_the_packages_it_says_how_to_get_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(xtts, "find_spec", lambda name: None if name == "TTS" else object())
    assert xtts.describe({}).lacks == "pip install 'vocal-node[xtts]'"


def test_another_model_is_recognized(folder: Path) -> None:
    change_config(folder, model="vits")
    with pytest.raises(EngineUnavailable, match=r"of another model \('vits'\)"):
        create(folder)


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("config.json", b"{", "config.json cannot be read"),
        ("config.json", b"[1]", "of another model"),
        ("config.json", b"\xff\xfe", "config.json cannot be read"),
        ("config.json", b'{"model": "xtts"}', "XTTS-v1"),
        ("vocab.json", b"{}", "vocab.json is no vocabulary"),
        ("model.pth", b"", "model.pth is damaged"),
        ("model.pth", b"version https://git-lfs.github.com/spec/v1\n", "model.pth is damaged"),
        ("speakers_xtts.pth", b"rubbish", "speakers_xtts.pth is damaged"),
    ],
)
def test_a_broken_file_is_named(folder: Path, file: str, content: bytes, words: str) -> None:
    (folder / file).unlink()
    (folder / file).write_bytes(content)
    with pytest.raises(EngineUnavailable, match=words):
        create(folder)


def test_a_download_that_broke_off_is_damaged(folder: Path) -> None:
    path = folder / "model.pth"
    half = path.read_bytes()[: path.stat().st_size // 2]
    path.unlink()
    path.write_bytes(half)
    with pytest.raises(EngineUnavailable, match=r"model.pth is damaged"):
        create(folder)


def test_weights_that_do_not_fit_their_configuration_are_refused(folder: Path) -> None:
    weights = torch.load(folder / "model.pth", weights_only=True)["model"]
    rewrite(folder / "model.pth", {"model": {name: w for name, w in weights.items() if "perceiver" not in name}})
    with pytest.raises(EngineUnavailable, match=r"does not fit its config.json.*Missing key"):
        create(folder)
    rewrite(folder / "model.pth", {"model": [1, 2]})
    with pytest.raises(EngineUnavailable, match="holds no weights"):
        create(folder)


@pytest.mark.parametrize(
    ("device", "words"),
    [
        ("tpu", "must be cpu, cuda or cuda:1, ..., not 'tpu'"),
        ("cuda:99", r"cuda:99 is not there: torch .* finds \d+ GPUs"),
    ],
)
def test_a_device_that_is_not_there_is_named(folder: Path, device: str, words: str) -> None:
    with pytest.raises(EngineUnavailable, match=words):
        create(folder, VOCAL_XTTS_DEVICE=device)


# --- voices


def latents_in(data: Path, checkpoint: model.Checkpoint) -> Latents:
    return Latents(checkpoint, data / "latents", VoiceSamples(data / "voices"))


def test_latents_are_those_that_the_library_computes(loaded: model.Checkpoint, tmp_path: Path) -> None:
    found = latents_in(tmp_path, loaded).of(write_sample(tmp_path))
    assert found.latents.shape == (1, 32, 64) and found.embedding.shape == (1, 512, 1)
    other = latents_in(tmp_path, loaded).of(write_sample(tmp_path, hz=220.0))
    assert not torch.allclose(found.latents, other.latents, atol=1e-6)
    assert not torch.allclose(found.embedding, other.embedding, atol=1e-6)


def test_a_voice_is_computed_once_also_after_a_restart(loaded: model.Checkpoint, tmp_path: Path) -> None:
    sample, first = write_sample(tmp_path), latents_in(tmp_path, loaded)
    found = first.of(sample)
    assert first.of(sample) is found and first.computed == 1
    second = latents_in(tmp_path, loaded)
    kept = second.of(sample)
    assert second.computed == 0
    assert torch.equal(kept.latents, found.latents) and torch.equal(kept.embedding, found.embedding)


def test_a_changed_model_computes_it_anew(loaded: model.Checkpoint, tmp_path: Path) -> None:
    sample = write_sample(tmp_path)
    before = latents_in(tmp_path, loaded).of(sample)
    changed = model.load(write_checkpoint(tmp_path / "changed", seed=5), "cpu")
    again = latents_in(tmp_path, changed)
    after = again.of(sample)
    assert again.computed == 1 and not torch.allclose(before.latents, after.latents)
    assert len(list((tmp_path / "latents").iterdir())) == 2


def test_how_the_sample_is_used_belongs_to_the_model(folder: Path, loaded: model.Checkpoint) -> None:
    change_config(folder, gpt_cond_len=loaded.config.gpt_cond_len + 1)
    assert model.load(folder, "cpu").fingerprint() != loaded.fingerprint()


@pytest.mark.parametrize("rubbish", [b"", b"\x80\x04pickle", b"\x08\0\0\0\0\0\0\0{}      "])
def test_a_damaged_file_is_computed_again(loaded: model.Checkpoint, tmp_path: Path, rubbish: bytes) -> None:
    sample = write_sample(tmp_path)
    found = latents_in(tmp_path, loaded).of(sample)
    (file,) = (tmp_path / "latents").iterdir()
    file.write_bytes(rubbish)
    again = latents_in(tmp_path, loaded)
    assert torch.equal(again.of(sample).latents, found.latents) and again.computed == 1
    third = latents_in(tmp_path, loaded)
    third.of(sample)
    assert third.computed == 0


def test_a_folder_that_cannot_be_written_costs_only_time(loaded: model.Checkpoint, tmp_path: Path) -> None:
    sample = write_sample(tmp_path)
    (tmp_path / "latents").write_text("a file in its place")
    latents = latents_in(tmp_path, loaded)
    assert latents.of(sample) is latents.of(sample)
    assert latents.computed == 1


def test_the_voices_used_longest_ago_leave_memory_and_disk(
    loaded: model.Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(latents_module, "IN_MEMORY", 2)
    monkeypatch.setattr(latents_module, "ON_DISK", 2)
    one, two, three = (write_sample(tmp_path, hz=hz) for hz in (100.0, 150.0, 200.0))
    latents = latents_in(tmp_path, loaded)
    for age, sample in enumerate((one, two)):
        latents.of(sample)
        os.utime(latents._file(sample), (age, age))
    latents.of(one)
    latents.of(three)
    assert list(latents._memory) == [one, three]
    assert not latents._file(one).exists() and latents._file(three).exists()
    latents.of(two)
    assert latents.computed == 3  # it was on the disk


@pytest.mark.parametrize("content", [b"", b"RIFF", b"RIFF\x24\0\0\0WAVEfmt "])
def test_a_sample_that_cannot_be_read_is_an_error(loaded: model.Checkpoint, tmp_path: Path, content: bytes) -> None:
    sample = write_sample(tmp_path)
    (tmp_path / "voices" / f"{sample}.wav").write_bytes(content)
    with pytest.raises(EngineError, match="voice sample"):
        latents_in(tmp_path, loaded).of(sample)


def test_a_deleted_sample_takes_its_voice_with_it(loaded: model.Checkpoint, tmp_path: Path) -> None:
    latents = latents_in(tmp_path, loaded)
    gone, kept = write_sample(tmp_path, hz=100.0), write_sample(tmp_path, hz=150.0)
    latents.of(gone)
    latents.of(kept)
    (tmp_path / "voices" / f"{gone}.wav").unlink()
    with pytest.raises(EngineError, match="no voice sample"):
        latents.of(gone)
    again = latents_in(tmp_path, loaded)
    assert [file.name[:64] for file in (tmp_path / "latents").iterdir()] == [kept]
    again.of(kept)
    assert again.computed == 0
