"""Who may be served, by the signatures found."""

import pytest

from modelyard.core.errors import Untrusted
from modelyard.core.trust import SignatureCheck, decide_trust, refuse_untrusted

HOLDS = SignatureCheck(key_id="aa" * 32, trusted=True)
BROKEN = SignatureCheck(key_id="bb" * 32, trusted=True, problem="other files")
STRANGER = SignatureCheck(key_id="cc" * 32, trusted=False)


@pytest.mark.parametrize(
    ("checks", "allowed", "words"),
    [
        ([], False, "m:1 is not signed"),
        ([STRANGER], False, "signed by cccccccccccc, which is no trusted key"),
        ([BROKEN, STRANGER], False, "bbbbbbbbbbbb on m:1 does not hold: other files"),
        ([HOLDS], True, "m:1 is signed by the trusted key aaaaaaaaaaaa"),
        ([STRANGER, BROKEN, HOLDS], True, "aaaaaaaaaaaa"),
    ],
)
def test_one_trusted_signature_that_holds_is_needed(
    checks: list[SignatureCheck], allowed: bool, words: str
) -> None:
    decision = decide_trust("m:1", checks, require_signed=True)

    assert decision.allowed is allowed
    assert words in decision.reason
    assert decide_trust("m:1", checks, require_signed=False).allowed


def test_a_refusal_says_how_to_sign() -> None:
    refuse_untrusted("m:1", decide_trust("m:1", [HOLDS], require_signed=True))

    with pytest.raises(Untrusted, match="m:1 is not signed") as refused:
        refuse_untrusted("m:1", decide_trust("m:1", [], require_signed=True))
    assert "modelyard models sign m:1 --key" in refused.value.next_step
