"""The metrics: events and calls' own counters come out as Prometheus text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

from media_server.metrics import CALL_COUNTERS, STAGES, Metrics
from pipeline.events import EngineFailed, ReplyFinished, ReplyInterrupted, TurnMeasured


def samples(metrics: Metrics) -> dict[str, float]:
    """Return every sample as ``name{label}`` -> value."""
    families = text_string_to_metric_families(metrics.render().decode())
    return {
        sample.name + "".join(f"{{{value}}}" for _, value in sorted(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }


def test_replies_are_counted_by_how_they_ended() -> None:
    metrics = Metrics()
    metrics.observe(ReplyFinished(1, "all of it"))
    metrics.observe(ReplyInterrupted(2, "a part"))
    metrics.observe(ReplyInterrupted(3, ""))
    metrics.observe(EngineFailed("tts", "boom", 4))
    metrics.observe(EngineFailed("stt", "boom"))
    found = samples(metrics)
    assert found["vocal_replies_total{finished}"] == 1
    assert found["vocal_replies_total{interrupted}"] == 2
    assert found["vocal_replies_total{failed}"] == 1
    assert found["vocal_barge_ins_total"] == 1
    assert found["vocal_engine_failures_total{tts}"] == 1
    assert found["vocal_engine_failures_total{stt}"] == 1


def test_a_turns_stages_land_in_millisecond_buckets() -> None:
    metrics = Metrics()
    metrics.observe(TurnMeasured(1, False, "hi", "hello", endpoint_ms=200.0, stt_ms=210.0, first_audio_ms=245.0))
    found = samples(metrics)
    assert found["vocal_turn_stage_ms_sum{endpoint}"] == 200
    assert found["vocal_turn_stage_ms_bucket{200.0}{first_audio}"] == 0
    assert found["vocal_turn_stage_ms_bucket{250.0}{first_audio}"] == 1
    assert "vocal_turn_stage_ms_count{ttft}" not in found
    assert {"endpoint", "first_audio"} <= set(STAGES)


def test_what_was_said_is_not_in_the_metrics() -> None:
    metrics = Metrics()
    metrics.observe(TurnMeasured(1, False, "my secret", "your secret", endpoint_ms=1.0, stt_ms=1.0))
    metrics.observe(ReplyFinished(1, "your secret"))
    metrics.observe(EngineFailed("llm", "secret prompt", 2))
    assert b"secret" not in metrics.render()


@dataclass(frozen=True, eq=False)
class FakeCall:
    """A call that counts what it is told to."""

    numbers: dict[str, int]
    listens_to: str | None = None
    revoked_replies: int = 0
    returned_ms: int = 0

    @property
    def transport(self) -> FakeCall:
        """Play the connection, too."""
        return self

    @property
    def session(self) -> FakeCall:
        """Play the session, too."""
        return self

    @property
    def answering(self) -> FakeCall:
        """Play the agent's half, too."""
        return self

    @property
    def echo(self) -> FakeCall:
        """Play its voice, coming back, too."""
        return self

    def counts(self) -> dict[str, int]:
        """Return a copy, as a peer does."""
        return dict(self.numbers)

    def watch_lateness(self, observe: Callable[[float], None]) -> None:
        """Send one frame, 3 ms late."""
        observe(3.0)


def test_sessions_come_and_go() -> None:
    metrics = Metrics()
    one, other, listener = FakeCall({}), FakeCall({}), FakeCall({}, listens_to="one")
    for call in (one, other, listener):
        metrics.call_opened(call)
    metrics.call_closed(one, "hung up")
    metrics.call_closed(listener, "session closed")
    metrics.refused("full")
    found = samples(metrics)
    assert found["vocal_sessions_active"] == 1
    assert found["vocal_frame_late_ms_count"] == 3
    assert found["vocal_sessions_total"] == 2
    assert found["vocal_sessions_ended_total{hung up}"] == 1
    assert "vocal_sessions_ended_total{session closed}" not in found
    assert found["vocal_sessions_refused_total{full}"] == 1


def test_a_calls_counters_stay_in_the_sum_after_it_ended() -> None:
    metrics = Metrics()
    first = FakeCall({"late_frames": 2, "microphone_received": 100}, revoked_replies=3, returned_ms=640)
    second = FakeCall({"late_frames": 1}, returned_ms=64)
    metrics.call_opened(first)
    metrics.call_opened(second)
    first.numbers["late_frames"] = 3
    assert samples(metrics)["vocal_late_frames_total"] == 4
    metrics.call_closed(first, "hung up")
    metrics.calls.remove(first)
    first.numbers["late_frames"] = 99
    found = samples(metrics)
    assert found["vocal_late_frames_total"] == 4
    assert found["vocal_microphone_received_total"] == 100
    assert found["vocal_revoked_replies_total"] == 3
    assert found["vocal_echo_ms_total"] == 704
    assert {f"vocal_{name}_total" for name in CALL_COUNTERS} <= set(found)


def test_two_servers_in_one_process_do_not_mix() -> None:
    one, other = Metrics(), Metrics()
    one.replies.labels("finished").inc()
    assert "vocal_replies_total{finished}" not in samples(other)
