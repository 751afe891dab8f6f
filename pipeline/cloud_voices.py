"""What the vendors' voice cloning has in common: one attempt within a limit, and errors in a user's words."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from .cloud import CODE, NO_LANGUAGE, VOICE_ID, Vendor, code_of
from .errors import EngineError, NotOffered

MAKE_S = 30.0
"""An upload of 1.4 MB, and what the vendor makes of it. It is never tried twice: that might make two voices."""
FORGET_S = 10.0
NAME_CHARACTERS = 100
"""Of a voice's name: what the vendors' own pages take."""

FULL = ("voice_limit_reached", "voice_limit_exceeded", "too_many_voices", "voice_add_edit_limit_exceeded")
NO_PLAN = (
    "can_not_use_instant_voice_cloning",
    "paid_plan_required",
    "plan_upgrade_required",
    "subscription_required",
    "feature_not_available",
)
UNVERIFIED = ("voice_verification_required", "verification_required", "requires_verification")
NOT_THERE = ("voice_not_found", "voice_does_not_exist", "not_found", "invalid_uid", "invalid_voice_id")


def refusal(vendor: Vendor, status: int, body: object, retry_after: str | None = None) -> EngineError:
    """Return what the answer to a request for a new voice means."""
    if status < 400:
        return vendor.rubbish("no voice's id")
    codes = _codes(body)
    code = next((code for code in codes if code in (*FULL, *NO_PLAN, *UNVERIFIED)), next(iter(codes), ""))
    shown = f"{status}, {code}" if code else f"{status}"
    if code in FULL:
        return vendor.error(
            f"{vendor.name} keeps no more voices for this account ({shown}); delete some, or see {vendor.console}"
        )
    if code in NO_PLAN:
        return vendor.error(f"the plan at {vendor.name} has no voice cloning ({shown}); see {vendor.console}")
    if code in UNVERIFIED:
        return unverified(vendor, shown)
    if code in NO_LANGUAGE and status < 500:
        return NotOffered(f"{vendor.engine}: {vendor.name} clones no voices in this language ({shown})")
    match vendor.meanings.get(code, status):
        case 404:
            return vendor.error(f"{vendor.name} clones no voices at this address ({shown}); check {vendor.url}")
        case 400 | 413 | 415 | 422:
            return vendor.error(
                f"{vendor.name} did not take the sample ({shown}); send another, or see {vendor.console}"
            )
    return vendor.refusal(status, code, retry_after, model="")


def unverified(vendor: Vendor, shown: str) -> EngineError:
    """Return the error for a voice that may not be used before its owner has spoken to the vendor."""
    return vendor.error(
        f"{vendor.name} wants this voice verified by whom it belongs to ({shown}); see {vendor.console}"
    )


def is_gone(status: int, body: object) -> bool:
    """Tell whether the answer to a deletion says that there is no such voice."""
    return status == 404 or (status < 500 and any(code in NOT_THERE for code in _codes(body)))


def checked_id(vendor: Vendor, voice: object) -> str:
    """Return the id of a new voice. Raises EngineError for what can be none: it becomes a part of URLs."""
    if not isinstance(voice, str) or not VOICE_ID.fullmatch(voice):
        raise vendor.rubbish("no voice's id")
    return voice


@asynccontextmanager
async def asking(vendor: Vendor, url: str, timeout_s: float) -> AsyncIterator[None]:
    """Bound a request; turn what an HTTP client, or an SDK that stumbled over an answer, raises into words."""
    try:
        async with asyncio.timeout(timeout_s):
            yield
    except EngineError:
        raise
    except Exception as error:
        raise vendor.failure(error, url, timeout_s) from None


def _codes(body: object) -> list[str]:
    """Return the machine-readable codes in a vendor's error: ElevenLabs has an old one and a new one."""
    detail = body.get("detail", body) if isinstance(body, Mapping) else None
    status = detail.get("status") if isinstance(detail, Mapping) else None
    found = [code_of(body), status if isinstance(status, str) and CODE.fullmatch(status) else ""]
    return [code for code in found if code]
