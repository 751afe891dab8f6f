"""``vocal-node models``, and the one policy of downloads: against a hub on this machine, with the real libraries."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import os
import pty
import shutil
import signal
import subprocess
import sys
import termios
import time
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest

from media_server.cli import main
from media_server.engine_set import EngineSet
from pipeline import engines, model_download, model_hub, models
from pipeline.engines import choose
from pipeline.errors import EngineUnavailable
from pipeline.model_hub import readable

from .hub_server import Hub, black_hole, serving_in_thread
from .processes import ROOT, printing
from .recordings import in_frames, recording
from .tiny_whisper import Script, build

BASE, TINY = "Systran/faster-whisper-base.en", "Systran/faster-whisper-tiny.en"
XTTS = "coqui/XTTS-v2"
XTTS_FILES = {
    "config.json": b"{}",
    "vocab.json": b"{}",
    "model.pth": b"w" * 300_000,
    "speakers_xtts.pth": b"s" * 200_000,
}


@pytest.fixture(scope="module")
def whisper(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("whisper") / "model", Script(" Thank you."))


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Run in an empty folder with an empty cache, allowed to ask; without the developer's settings."""
    for name in list(os.environ):
        if name.startswith(("VOCAL_", "XTTS_", "COQUI_", "HF_", "CUDA_VISIBLE")) or name.endswith("_API_KEY"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("VOCAL_WHISPER_DEVICE", "cpu")
    monkeypatch.chdir(tmp_path)


def cli(capsys: pytest.CaptureFixture[str], *arguments: str, url: str = "") -> tuple[int, str, str]:
    """Run ``vocal-node models``; return its exit code and what it says, on stdout and on stderr."""
    code = main(["models", *arguments, *(["--set", f"HF_ENDPOINT={url}"] if url else [])])
    out, err = capsys.readouterr()
    return code, out, err


def settings(url: str = "", **more: str) -> dict[str, str]:
    """Return our environment with a hub, as the process would have it."""
    return {**os.environ, **({"HF_ENDPOINT": url} if url else {}), **more}


# --- list


def test_an_empty_cache_is_listed_with_what_brings_each_model(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = cli(capsys, "list")
    assert (code, err) == (0, "")
    for words in (
        "faster_whisper (stt) base.en",
        "transformers (llm) meta-llama/Llama-3.1-8B-Instruct",
        "xtts (tts) coqui/XTTS-v2",
        "smart_turn (turn) pipecat-ai/smart-turn-v3",
        "BSD 2-Clause",
        "`vocal-node models fetch xtts`",
        "Coqui Public Model License: no commercial use",
        "Llama 3.1 Community License",
        "16.1 GB",
        "148 MB",
        str(Path("home/hub").absolute()),
    ):
        assert words in out
    assert "  here" not in out


def test_what_is_not_known_and_what_cannot_be_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    more = ("--set", "VOCAL_TRANSFORMERS_MODEL=maker/model", "--set", "XTTS_MODEL_PATH=/no/such")
    code, out, _ = cli(capsys, "list", *more)
    assert code == 0
    assert "transformers (llm) maker/model" in out
    assert out.count("not known before the hub is asked") == 2
    assert "XTTS_MODEL_PATH that is there: no folder /no/such" in out


def test_listing_loads_no_model_and_asks_nobody() -> None:
    code = (
        "import sys\nfrom media_server.models import listing\nlisting({})\n"
        "heavy = ('torch', 'transformers', 'faster_whisper', 'huggingface_hub')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


# --- fetch


def test_a_fetched_model_is_listed_and_heard_with_offline(whisper: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hub = Hub.of(BASE, whisper)
    with serving_in_thread(hub) as url:
        code, out, err = cli(capsys, "fetch", "faster_whisper", url=url)
    assert code == 0, err
    folder = Path(out.strip())
    assert (folder / "model.bin").read_bytes() == (whisper / "model.bin").read_bytes()
    assert err.splitlines()[0].startswith(f"{BASE}: 2 MB, licence mit, into ")
    percents = [line for line in err.splitlines() if " % of " in line]
    assert 1 <= len(percents) <= 11
    assert percents[-1] == f"{BASE}: 100 % of 2 MB"

    code, out, _ = cli(capsys, "list", "--json")
    listed = {one["engine"]: one for one in json.loads(out)}
    assert code == 0
    assert listed["faster_whisper"]["here"] == str(folder)
    assert listed["faster_whisper"]["lacks"] is None
    assert cli(capsys, "fetch", "faster_whisper", "--offline") == (0, f"{folder}\n", "")

    chosen = choose("stt", "auto", settings(VOCAL_OFFLINE="1"))
    try:
        assert chosen.why.startswith("stt faster_whisper: Whisper base.en on cpu; passed over: openai_compatible")
        assert asyncio.run(words_of(chosen.engine)) == "Thank you."
    finally:
        engines.close(chosen.engine)


async def words_of(stt: Any) -> str:
    return str([t async for t in stt.transcribe(in_frames(recording("go-forward.wav")), None)][-1].text)


def test_another_model_than_the_settings_name_says_how_to_use_it(
    whisper: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving_in_thread(Hub.of(TINY, whisper)) as url:
        code, out, err = cli(capsys, "fetch", "faster_whisper", "tiny.en", url=url)
    assert (code, Path(out.strip()).is_dir()) == (0, True)
    assert err.splitlines()[-1] == "To run it, set VOCAL_WHISPER_MODEL=tiny.en"


def test_a_download_that_broke_off_goes_on_where_it_was(whisper: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hub = Hub.of(BASE, whisper)
    hub.cuts_at = len(hub.files["model.bin"]) // 2
    with serving_in_thread(hub) as url:
        code, _, err = cli(capsys, "fetch", "faster_whisper", url=url)
        assert code == 1
        assert "cannot be reached" in err.splitlines()[-1]
        assert "goes on where" in err.splitlines()[-1]
        assert [asked.first_byte for asked in hub.downloads("model.bin")] == [None, hub.cuts_at]

        code, out, _ = cli(capsys, "list")
        assert "  here" not in out
        hub.cuts_at = None
        assert cli(capsys, "fetch", "faster_whisper", url=url)[0] == 0
    asked = [asked.first_byte for asked in hub.downloads("model.bin")]
    assert asked == [None, len(hub.files["model.bin"]) // 2, len(hub.files["model.bin"]) // 2], "never from the start"


def test_a_connection_that_is_lost_now_and_then_is_made_again(whisper: Path, tmp_path: Path) -> None:
    """In one run: each connection brings a piece more, the last one all of the rest."""
    hub = Hub.of(BASE, whisper)
    size = len(hub.files["model.bin"])
    hub.cuts_at = size // 3

    def told(here_bytes: int, all_bytes: int) -> None:
        if here_bytes == size // 3:
            hub.cuts_at = None

    with serving_in_thread(hub) as url:
        own = settings(url)
        offer = model_hub.ask(BASE, ("*",), own)
        assert model_hub.download(offer, own, told) == model_hub.cached(BASE, own)
    assert [asked.first_byte for asked in hub.downloads("model.bin")] == [None, size // 3]


def test_what_does_not_match_its_checksum_is_thrown_away(whisper: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hub = Hub.of(BASE, whisper)
    hub.damages = True
    with serving_in_thread(hub) as url:
        code, _, err = cli(capsys, "fetch", "faster_whisper", url=url)
        assert code == 1
        assert "does not match its checksum" in err.splitlines()[-1]
        hub.damages = False
        assert cli(capsys, "fetch", "faster_whisper", url=url)[0] == 0
    assert [asked.first_byte for asked in hub.downloads("model.bin")] == [None, None]


def test_two_at_once_do_not_write_the_same_file(whisper: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hub = Hub.of(BASE, whisper)
    sha256 = hashlib.sha256(hub.files["model.bin"]).hexdigest()
    lock = Path("home/hub/.locks/models--Systran--faster-whisper-base.en", f"{sha256}.lock")
    with serving_in_thread(hub) as url, model_download._alone(lock):
        code, _, err = cli(capsys, "fetch", "faster_whisper", url=url)
    assert code == 1
    assert "another process is at just now" in err.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (
            ["telephone"],
            2,
            "loads models (faster_whisper, transformers, xtts, smart_turn), not 'telephone'",
        ),
        (["faster_whisper", "enormous"], 2, "not 'enormous'"),
        (["faster_whisper", "--set", "nonsense"], 2, "NAME=VALUE"),
        (["faster_whisper", "maker/nothing"], 1, "the hub has no maker/nothing"),
        (["faster_whisper", "--offline"], 1, "while VOCAL_OFFLINE forbids it"),
        (["faster_whisper", "--set", "HF_HUB_OFFLINE=1"], 1, "while HF_HUB_OFFLINE forbids it"),
        (["faster_whisper", "--set", "HF_ENDPOINT=http://127.0.0.1:9"], 1, "the hub, which cannot be reached"),
    ],
)
def test_what_cannot_be_fetched_is_one_line(
    whisper: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, words: str
) -> None:
    with serving_in_thread(Hub.of(BASE, whisper)) as url:
        os.environ["HF_ENDPOINT"] = url  # the fixture puts it back
        ended, out, err = cli(capsys, "fetch", *arguments)
    assert (ended, out) == (code, "")
    (line,) = err.splitlines()
    assert words in line


def test_a_folder_is_never_fetched(whisper: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "maker" / "model").mkdir(parents=True)
    code, _, err = cli(capsys, "fetch", "faster_whisper", "maker/model")
    assert (code, "maker/model is a folder" in err) == (1, True)


def test_a_disk_that_is_too_small_is_said_before_anything_is_downloaded(
    whisper: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(2, 1, model_hub.SPARE_BYTES + 1000))
    hub = Hub.of(BASE, whisper)
    with serving_in_thread(hub) as url:
        code, _, err = cli(capsys, "fetch", "faster_whisper", url=url)
    assert code == 1
    assert f"disk space: the rest of {BASE} takes 2 MB, and 100 MB are free" in err.splitlines()[-1]
    assert hub.downloads("model.bin") == []


def test_a_licence_has_to_be_accepted(capsys: pytest.CaptureFixture[str]) -> None:
    hub = Hub(XTTS, XTTS_FILES | {"dvae.pth": b"x" * 500_000}, licence="other")
    with serving_in_thread(hub) as url:
        code, out, err = cli(capsys, "fetch", "xtts", url=url)
        assert (code, out, len(err.splitlines())) == (1, "", 1)
        assert "LICENSE.txt" in err
        assert "--accept-license" in err
        assert hub.asked == []
        code, out, _ = cli(capsys, "fetch", "xtts", "--accept-license", url=url)
        assert code == 0
        assert sorted(file.name for file in Path(out.strip()).iterdir()) == sorted(XTTS_FILES)
        assert cli(capsys, "fetch", "xtts", url=url)[:2] == (0, out), "what is here is not asked about again"
        shutil.rmtree("home")
        assert cli(capsys, "fetch", "xtts", "--set", "COQUI_TOS_AGREED=1", url=url)[0] == 0


@pytest.mark.parametrize(("answer", "code"), [(b"y\n", 0), (b"\n", 1), (b"no\n", 1)])
def test_on_a_terminal_the_licence_is_asked_for_and_progress_is_a_bar(answer: bytes, code: int) -> None:
    with serving_in_thread(Hub(XTTS, XTTS_FILES)) as url:
        ours, theirs = pty.openpty()
        termios.tcsetwinsize(theirs, (24, 100))
        with open(ours, "r+b", buffering=0) as terminal:
            process = subprocess.Popen(
                [sys.executable, "-m", "media_server", "models", "fetch", "xtts"],
                env=settings(url, PYTHONPATH=str(ROOT)), stdin=theirs, stderr=theirs, stdout=subprocess.PIPE,
            )  # fmt: skip
            os.close(theirs)
            said = b""
            while b"[y/N]" not in said:
                said += terminal.read(1000)
            assert b"Coqui Public Model License" in said
            terminal.write(answer)
            out = process.communicate(timeout=60)[0]
            rest = read_to_end(terminal)
    assert process.returncode == code
    assert (Path(out.decode().strip()) / "model.pth").exists() == (code == 0) or not out
    assert (b"100%" in rest) == (code == 0)


def read_to_end(terminal: Any) -> bytes:
    said = b""
    while True:
        try:
            piece = terminal.read(1000)
        except OSError:  # how Linux says that nobody is left at the other end
            return said
        if not piece:
            return said
        said += piece


def test_ctrl_c_ends_it_and_it_goes_on(
    whisper: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = Hub.of(BASE, whisper)
    size = len(hub.files["model.bin"])

    def interrupted(here_bytes: int, all_bytes: int) -> None:
        if here_bytes > size // 4:
            raise KeyboardInterrupt

    with serving_in_thread(hub) as url:
        with monkeypatch.context() as patch:
            patch.setattr("media_server.models._percent", lambda offer: interrupted)
            code, _, err = cli(capsys, "fetch", "faster_whisper", url=url)
        assert (code, err.splitlines()[-1]) == (130, "vocal-node: stopped; the same command goes on where it was")
        assert cli(capsys, "fetch", "faster_whisper", url=url)[0] == 0
    first, second = hub.downloads("model.bin")
    assert first.first_byte is None
    assert second.first_byte is not None
    assert second.first_byte > size // 4


# --- the policy


def test_a_hub_that_says_nothing_is_one_line_and_the_next_best_hears() -> None:
    with black_hole() as url:
        began_s = time.monotonic()
        chosen = choose("stt", "auto", settings(url))
        took_s = time.monotonic() - began_s
        engines.close(chosen.engine)
    assert chosen.name == "pocketsphinx"
    assert chosen.why.count("faster_whisper (needs the hub, which cannot be reached for Systran/") == 1
    assert took_s < model_hub.HUB_S + 15, "loading the next one included"


def test_a_server_downloads_what_it_lacks_and_says_how_far_it_is(whisper: Path, tmp_path: Path) -> None:
    hub = Hub.of(BASE, whisper)
    with serving_in_thread(hub) as url:
        own = {"HF_ENDPOINT": url, "VOCAL_STT": "auto", "VOCAL_OFFLINE": "0", "VOCAL_WHISPER_DEVICE": "cpu"}
        with printing(["-m", "media_server", "serve"], tmp_path, {**own, "PYTHONPATH": str(ROOT)}) as server:
            server.line(r"^Vocal Node is ready: ")
            lines = "\n".join(server.lines)
    assert f"downloading {BASE}, 2 MB, once" in lines
    assert f"{BASE}: 100 % of 2 MB" in lines
    assert "stt faster_whisper: Whisper base.en on " in lines
    assert "downloaded when first used (148 MB)" in lines


def test_doctor_says_what_would_be_downloaded_and_offline_what_brings_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    assert " * faster_whisper     usable      Whisper base.en on cpu, downloaded when first" in capsys.readouterr().out
    assert main(["doctor", "--offline"]) == 0
    out = capsys.readouterr().out
    assert " * pocketsphinx " in out
    assert "lacks: a model: base.en is not here; `vocal-node models fetch faster_whisper` brings it" in out


def test_offline_is_passed_on_and_nobody_is_asked(whisper: Path, tmp_path: Path) -> None:
    hub = Hub.of(BASE, whisper)
    with serving_in_thread(hub) as url:
        own = {"HF_ENDPOINT": url, "VOCAL_STT": "auto", "VOCAL_OFFLINE": "0"}
        command = ["launcher.py", "--combined-logs", "--offline", "--services", "stt"]
        with printing([str(ROOT / command[0]), *command[1:]], tmp_path, own) as launched:
            launched.line(r"stt is ready: ")
            lines = "\n".join(launched.lines)
    assert "stt pocketsphinx: " in lines
    assert "`vocal-node models fetch faster_whisper`" in lines
    assert hub.asked == []


def test_nobody_waits_in_a_call_for_a_download(whisper: Path) -> None:
    hub = Hub.of(BASE, whisper)

    async def use(url: str) -> None:
        async with EngineSet({"stt": "scripted", "llm": "echo", "tts": "tone"}, settings(url)) as source:
            with pytest.raises(EngineUnavailable, match="`vocal-node models fetch faster_whisper` brings it"):
                await source.get("stt", "faster_whisper")
            assert hub.asked == []
        async with EngineSet({"stt": "faster_whisper", "llm": "echo", "tts": "tone"}, settings(url)):
            assert len(hub.downloads("model.bin")) == 1
        async with EngineSet({"stt": "scripted", "llm": "echo", "tts": "tone"}, settings(url)) as source:
            assert (await source.get("stt", "faster_whisper")).name == "faster_whisper"

    with serving_in_thread(hub) as url:
        asyncio.run(use(url))


def test_a_server_that_is_ended_does_not_wait_for_a_download(
    whisper: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub = Hub.of(BASE, whisper)
    hub.rest_s = 1.0
    with serving_in_thread(hub) as url:
        own = {"HF_ENDPOINT": url, "VOCAL_STT": "faster_whisper", "VOCAL_OFFLINE": "0", "VOCAL_WHISPER_DEVICE": "cpu"}
        with printing(["-m", "media_server", "serve"], tmp_path, {**own, "PYTHONPATH": str(ROOT)}) as server:
            server.line(rf"{BASE}: \d+ % of")
            began_s = time.monotonic()
            server.process.send_signal(signal.SIGINT)
            assert server.end() == 0
            assert time.monotonic() - began_s < 30, "all of it would take a minute"
        hub.rest_s = 0.0
        assert cli(capsys, "fetch", "faster_whisper", url=url)[0] == 0
    first, second = hub.downloads("model.bin")
    assert first.first_byte is None
    assert second.first_byte is not None


def test_progress_is_logged_now_and_then(whisper: Path, caplog: pytest.LogCaptureFixture) -> None:
    offer = model_hub.Offer("maker/model", "mit", 2_000_000_000, (), ())
    with caplog.at_level(logging.INFO, "pipeline.models"):
        told = models._logged(offer)
        for step in range(2001):
            told(step * 1_000_000, 2_000_000_000)
    assert caplog.messages == ["downloading maker/model, 2.0 GB, once", "maker/model: 100 % of 2.0 GB"]


@pytest.mark.parametrize(
    ("size_bytes", "text"), [(400_000, "0 MB"), (145_000_000, "145 MB"), (999_600_000, "1.0 GB"), (16.07e9, "16.1 GB")]
)
def test_sizes_are_as_people_write_them(size_bytes: float, text: str) -> None:
    assert readable(size_bytes) == text


def test_the_cache_is_as_the_hub_s_library_has_it(whisper: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It finds every file, and downloads none again."""
    from huggingface_hub import snapshot_download

    with serving_in_thread(Hub.of(BASE, whisper)) as url:
        folder = cli(capsys, "fetch", "faster_whisper", url=url)[1].strip()
    cache = Path("home/hub").absolute()
    assert snapshot_download(BASE, cache_dir=cache, local_files_only=True) == folder
    assert not list(cache.rglob("*.incomplete"))
