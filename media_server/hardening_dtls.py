"""Remedies for DTLS, SRTP and RTP: which peers connect, and what one packet may do."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any

from aiortc.rtcdtlstransport import RTCCertificate, RTCDtlsTransport
from aiortc.rtcrtpreceiver import RTCRtpReceiver
from aiortc.rtcrtpsender import RTCRtpSender
from OpenSSL import SSL

from .patching import replace

log = logging.getLogger(__name__)

CIPHERS = ":".join(
    f"ECDHE-{certificate}-{cipher}"
    for certificate in ("ECDSA", "RSA")
    for cipher in ("AES128-GCM-SHA256", "CHACHA20-POLY1305", "AES128-SHA", "AES256-SHA")
)


def rsa_certificates() -> None:
    """Add the ECDHE-RSA suites, so that peers with an RSA certificate connect.

    Without it SIP phones and media frameworks that still make RSA certificates fail with "no shared cipher".
    """

    def make(original: Callable[..., SSL.Context]) -> Callable[..., SSL.Context]:
        def create_ssl_context(self: RTCCertificate, srtp_profiles: list[Any]) -> SSL.Context:
            context = original(self, srtp_profiles=srtp_profiles)
            context.set_cipher_list(CIPHERS.encode())
            return context

        return create_ssl_context

    replace(RTCCertificate, "_create_ssl_context", "self srtp_profiles", make)


def packet_that_raises() -> None:
    """Drop an RTP or RTCP packet that makes the library raise.

    Without it a truncated report (``struct.error`` where only ValueError is caught) ends the task that receives, and
    with it the call.
    """
    replace(RTCDtlsTransport, "_handle_rtcp_data", "self data", _dropping)
    replace(RTCDtlsTransport, "_handle_rtp_data", "self data arrival_time_ms", _dropping)


def _dropping(original: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    async def handle(self: RTCDtlsTransport, *args: Any, **kwargs: Any) -> None:
        try:
            await original(self, *args, **kwargs)
        except ConnectionError:
            raise
        except Exception as error:  # whatever it raises, one packet must not end a call
            log.debug("packet dropped: %r", error)

    return handle


def report_that_cannot_be_written() -> None:
    """Let a sender or receiver stop although its report task failed.

    Without it timestamps that jump by 2**32 overflow the jitter field, the task that reports dies, and ``close`` waits
    for it for ever.
    """
    replace(RTCRtpReceiver, "_run_rtcp", "self", _exiting("_RTCRtpReceiver__rtcp_exited"))
    replace(RTCRtpSender, "_run_rtcp", "self", _exiting("_RTCRtpSender__rtcp_exited"))


def _exiting(event: str) -> Callable[[Callable[..., Awaitable[None]]], Callable[..., Awaitable[None]]]:
    def make(original: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
        async def run_rtcp(self: RTCRtpReceiver | RTCRtpSender) -> None:
            try:
                await original(self)
            except Exception as error:  # whatever it raises, one packet must not end a call
                log.warning("RTCP reports ended: %r", error)
            finally:
                getattr(self, event).set()

        return run_rtcp

    return make


REMEDIES = (rsa_certificates, packet_that_raises, report_that_cannot_be_written)
