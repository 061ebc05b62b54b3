"""A record of a run that stays small however long the run is."""

from __future__ import annotations

from typing import Any

__all__ = ["Trajectory"]

_MOST = 1000


class Trajectory:
    """Points in order; when there are too many, every other one is dropped and the spacing doubled."""

    def __init__(self) -> None:
        self.points: list[dict[str, Any]] = []
        self._spacing = 1
        self._seen = 0

    def takes_next(self) -> bool:
        """Whether the next point is recorded; ask once per point, before the work of making it."""
        self._seen += 1
        return (self._seen - 1) % self._spacing == 0

    def add(self, point: dict[str, Any]) -> None:
        self.points.append(point)
        if len(self.points) > _MOST:
            self.points = self.points[::2]
            self._spacing *= 2

    def state_dict(self) -> dict[str, Any]:
        return {
            "points": [dict(point) for point in self.points],
            "spacing": self._spacing,
            "seen": self._seen,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.points = [dict(point) for point in state["points"]]
        self._spacing, self._seen = int(state["spacing"]), int(state["seen"])
