"""Voices made at ElevenLabs: instant voice cloning, https://elevenlabs.io/docs/api-reference/voices/ivc/create."""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING

from pipeline.cloud import Vendor
from pipeline.cloud_voices import FORGET_S, MAKE_S, NAME_CHARACTERS, asking, checked_id, is_gone, refusal, unverified

if TYPE_CHECKING:
    from elevenlabs.client import AsyncElevenLabs
    from elevenlabs.core.request_options import RequestOptions


class ElevenLabsVoices:
    """Implements ``pipeline.cloning.VoiceMaker`` on the speech engine's connections."""

    def __init__(self, vendor: Vendor, client: AsyncElevenLabs, url: str) -> None:
        self._vendor = vendor
        self._voices = client.voices
        self._cloning = client.voices.ivc  # imported now: the SDK puts that off to the first request
        self._url = url

    async def make(self, name: str, sample: bytes, language: str) -> str:
        """See `VoiceMaker.make`. A voice that would have to be verified first is deleted again."""
        from elevenlabs.core.api_error import ApiError

        async with asking(self._vendor, self._url, MAKE_S):
            try:
                made = await self._cloning.create(
                    name=name[:NAME_CHARACTERS],
                    files=[("sample.wav", sample, "audio/wav")],
                    labels={"language": language.partition("-")[0]},
                    request_options=_once(MAKE_S),
                )
            except ApiError as error:
                raise refusal(
                    self._vendor, error.status_code or 0, error.body, (error.headers or {}).get("retry-after")
                ) from None
            voice = checked_id(self._vendor, getattr(made, "voice_id", None))
        if getattr(made, "requires_verification", False):
            await self.forget(voice)
            raise unverified(self._vendor, "requires_verification")
        return voice

    async def forget(self, voice: str) -> None:
        """See `VoiceMaker.forget`."""
        from elevenlabs.core.api_error import ApiError

        async with asking(self._vendor, self._url, FORGET_S):
            try:
                await self._voices.delete(voice, request_options=_once(FORGET_S))
            except ApiError as error:
                status, retry_after = error.status_code or 0, (error.headers or {}).get("retry-after")
                if not is_gone(status, error.body):
                    raise refusal(self._vendor, status, error.body, retry_after) from None


def _once(timeout_s: float) -> RequestOptions:
    return {"timeout_in_seconds": ceil(timeout_s), "max_retries": 0}
