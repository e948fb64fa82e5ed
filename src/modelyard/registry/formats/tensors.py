"""What the readers of all formats share."""

import msgspec

from modelyard.core.errors import InvalidRequest

HEADER_CAP_BYTES = 100_000_000
"""The longest header that is read, as in the safetensors specification."""
MAX_TENSORS = 250_000
"""Per file; the largest published models have some 10,000 in one."""
MAX_ELEMENTS = 2**63 - 1


class Tensor(msgspec.Struct, frozen=True):
    """One tensor as its header describes it."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    """First byte, counted from the beginning of the data."""
    end: int
    """One past its last byte."""

    @property
    def elements(self) -> int:
        """Number of values; 1 for a scalar."""
        return product(self.shape)


class DamagedHeader(InvalidRequest):
    """The file is not what its format's specification says; the message names the place."""

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(
            f"{name} is damaged: {problem}",
            next_step="fetch or export the file again; it is refused as it is",
        )


def product(shape: tuple[int, ...]) -> int:
    """Number of values of a shape; raises OverflowError above 2^63 - 1."""
    elements = 1
    for length in shape:
        elements *= length
        if elements > MAX_ELEMENTS:
            raise OverflowError
    return elements
