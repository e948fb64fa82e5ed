"""Whether a version may be served, by the signatures on it (promise R7)."""

from collections.abc import Sequence

import msgspec

from modelyard.core.errors import Untrusted

_SHOWN_DIGITS = 12


class SignatureCheck(msgspec.Struct, frozen=True, kw_only=True):
    """One signature of a version, held against the keys that are trusted."""

    key_id: str
    """SHA-256 of the public key that it names, 64 hexadecimal digits."""
    trusted: bool
    """Whether that key is a trusted one; the signatures of others can't be checked."""
    problem: str = ""
    """Why it does not hold; empty when it does."""

    @property
    def holds(self) -> bool:
        """Made with a trusted key over exactly these files."""
        return self.trusted and not self.problem


class TrustDecision(msgspec.Struct, frozen=True, kw_only=True):
    """What follows from the signatures of one version."""

    allowed: bool
    signed_by: tuple[str, ...]
    """Ids of the trusted keys whose signatures hold."""
    reason: str
    """One line for people, whatever was decided."""


def decide_trust(
    version: str, checks: Sequence[SignatureCheck], *, require_signed: bool
) -> TrustDecision:
    """Decide on `version` (`name:3`): one trusted signature that holds is enough.

    Without `require_signed` every version is allowed, and the reason still tells what was found.
    """
    signed_by = tuple(check.key_id for check in checks if check.holds)
    broken = [check for check in checks if check.trusted and check.problem]
    if signed_by:
        reason = f"{version} is signed by the trusted key {_names(signed_by)}"
    elif broken:
        reason = (
            f"the signature of the trusted key {_names([broken[0].key_id])} on {version} "
            f"does not hold: {broken[0].problem}"
        )
    elif checks:
        reason = (
            f"{version} is signed by {_names([check.key_id for check in checks])}, "
            "which is no trusted key"
        )
    else:
        reason = f"{version} is not signed"
    allowed = bool(signed_by) or not require_signed
    return TrustDecision(allowed=allowed, signed_by=signed_by, reason=reason)


def refuse_untrusted(version: str, decision: TrustDecision) -> None:
    """Raise Untrusted unless the decision allows `version`."""
    if not decision.allowed:
        raise Untrusted(
            decision.reason,
            next_step="the trust policy of this installation serves signed versions only: "
            f"modelyard models sign {version} --key PRIVATE.pem, with a key whose public half is "
            "in registry.trust.public_keys",
        )


def _names(key_ids: Sequence[str]) -> str:
    return ", ".join(key_id[:_SHOWN_DIGITS] for key_id in key_ids)
