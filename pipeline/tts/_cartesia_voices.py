"""Voices made at Cartesia: https://docs.cartesia.ai/api-reference/voices/clone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.cloud import Vendor, import_put_off
from pipeline.cloud_voices import FORGET_S, MAKE_S, NAME_CHARACTERS, asking, checked_id, is_gone, refusal

if TYPE_CHECKING:
    from cartesia import AsyncCartesia


class CartesiaVoices:
    """Implements ``pipeline.cloning.VoiceMaker`` on the speech engine's client."""

    def __init__(self, vendor: Vendor, client: AsyncCartesia) -> None:
        once = client.with_options(max_retries=0)
        once._platform = "Unknown"  # as in the engine: looking it up reads files
        import_put_off()
        self._vendor = vendor
        self._voices = once.voices  # imported now: the SDK puts that off to the first request
        self._url = str(client.base_url)

    async def make(self, name: str, sample: bytes, language: str) -> str:
        """See `VoiceMaker.make`."""
        from cartesia import APIConnectionError, APIStatusError

        async with asking(self._vendor, self._url, MAKE_S):
            try:
                made = await self._voices.clone(
                    clip=("sample.wav", sample, "audio/wav"),
                    language=language.partition("-")[0],
                    name=name[:NAME_CHARACTERS],
                    timeout=MAKE_S,
                )
            except APIStatusError as error:
                retry_after = error.response.headers.get("Retry-After")
                raise refusal(self._vendor, error.status_code, error.body, retry_after) from None
            except APIConnectionError as error:
                raise self._vendor.failure(error.__cause__, self._url, MAKE_S) from None
            return checked_id(self._vendor, getattr(made, "id", None))

    async def forget(self, voice: str) -> None:
        """See `VoiceMaker.forget`."""
        from cartesia import APIConnectionError, APIStatusError

        async with asking(self._vendor, self._url, FORGET_S):
            try:
                await self._voices.delete(voice, timeout=FORGET_S)
            except APIStatusError as error:
                if not is_gone(error.status_code, error.body):
                    retry_after = error.response.headers.get("Retry-After")
                    raise refusal(self._vendor, error.status_code, error.body, retry_after) from None
            except APIConnectionError as error:
                raise self._vendor.failure(error.__cause__, self._url, FORGET_S) from None
