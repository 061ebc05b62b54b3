"""Fixtures of the penalty tests."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from penalties_cases import EVERY

from obverse.penalties import Penalty


@pytest.fixture(params=EVERY, ids=repr)
def every(request: Any) -> Penalty:
    return request.param


@pytest.fixture
def weights() -> Any:
    """Magnitudes over many scales, with zero."""
    return np.concatenate([[0.0], np.geomspace(1e-6, 30, 150)])
