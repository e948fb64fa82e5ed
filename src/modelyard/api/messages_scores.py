"""What judges tell the management API, and are told."""

from pydantic import BaseModel, ConfigDict, Field, model_validator

from modelyard.core.scores import MOST_AT_ONCE

_PRINTABLE = r"^[!-~]+$"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ScoreWish(_Strict):
    """One answer judged, or not."""

    request_id: str = Field(min_length=1, max_length=128, pattern=_PRINTABLE)
    """`x-request-id` of the answer."""
    judge: str = Field(min_length=1, max_length=128, pattern=_PRINTABLE)
    """Model, prompt and rubric, each with its version; another of any is another judge."""
    score: float | None = Field(ge=0, le=1, allow_inf_nan=False, strict=True)
    """0 is the worst, 1 the best; null: the judge could not say."""
    reason: str = Field(default="", max_length=500)
    """Needed where there is no score."""

    @model_validator(mode="after")
    def _says_why(self) -> "ScoreWish":
        if self.score is None and not self.reason.strip():
            raise ValueError("a judge that could not say has to say why, in reason")
        return self


class ScoresWish(_Strict):
    scores: tuple[ScoreWish, ...] = Field(min_length=1, max_length=MOST_AT_ONCE)


class ScoreReceipt(_Strict):
    """What became of a batch."""

    accepted: int
    duplicates: int
    """Of a judge that had judged the request before: what it said first stands."""
    unknown: int
    """Of those accepted, requests of which there is no record, or not yet: a gateway may still
    have it."""


class ScoreView(_Strict):
    """What one judge said of a request."""

    judge: str
    score: float | None
    reason: str
    at: float
    """Unix seconds."""


class DueView(_Strict):
    """A request that a judge has said nothing of."""

    request_id: str
    model: str
    digest: str
    received_at: float


class DueList(_Strict):
    requests: tuple[DueView, ...]
