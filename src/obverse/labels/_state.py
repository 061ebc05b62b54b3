"""State that is neither a parameter nor a buffer: saved under ordinary keys, never broadcast, never below float32.

Wrapped modules broadcast the buffers of process 0 before every forward pass, which would overwrite what the other
processes have counted. So statistics are plain tensors of a module that saves, loads and moves them itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Self

import torch
from torch import nn

__all__ = ["StatefulModule"]

_LOW = (torch.float16, torch.bfloat16)


class StatefulModule(nn.Module):
    """A module whose named plain tensors and counters belong to its ``state_dict``."""

    #: Attributes that hold tensors of the state.
    state_tensors: ClassVar[tuple[str, ...]] = ()
    #: Attributes that hold integers of the state.
    state_counters: ClassVar[tuple[str, ...]] = ()
    #: Whether a state of another number of rows may be loaded.
    _takes_any_length: ClassVar[bool] = False

    @property
    def state_bytes(self) -> int:
        """Bytes of all learned parameters and statistics."""
        own: int = sum(getattr(self, name).nbytes for name in self.state_tensors) + 8 * len(self.state_counters)
        own += sum(p.nbytes for p in self._parameters.values() if p is not None)
        return own + sum(child.state_bytes for child in self.children() if isinstance(child, StatefulModule))

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Self:
        """Move parameters, buffers and state; what is float32 stays so under ``half()`` and ``bfloat16()``."""

        def guarded(tensor: torch.Tensor) -> torch.Tensor:
            moved = fn(tensor)
            lowered = moved.dtype in _LOW and tensor.dtype not in _LOW
            return tensor.to(moved.device) if lowered else moved

        for name in self.state_tensors:
            tensor = getattr(self, name)
            moved = guarded(tensor)
            # Compressed states have types of their own.
            setattr(self, name, moved if tensor.dtype not in _LOW else tensor.to(moved.device))
        super()._apply(guarded, recurse)  # type: ignore[no-untyped-call]
        return self

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        for name in self.state_tensors:
            destination[prefix + name] = self._saved(name).detach()
        for name in self.state_counters:
            destination[prefix + name] = torch.tensor(getattr(self, name))

    def _saved(self, name: str) -> torch.Tensor:
        """What is saved of a tensor of the state."""
        tensor: torch.Tensor = getattr(self, name)
        return tensor

    def _load_from_state_dict(
        self,
        state_dict: Any,
        prefix: str,
        local_metadata: Any,
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        names = {prefix + name: name for name in (*self.state_tensors, *self.state_counters)}
        rest = {key: value for key, value in state_dict.items() if key not in names}
        super()._load_from_state_dict(rest, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs)
        given = {name: state_dict[key] for key, name in names.items() if key in state_dict}
        missing_keys += [key for key, name in names.items() if strict and name not in given]
        problems = self._problems(given)
        error_msgs += [f"{prefix}{problem}" for problem in problems]
        if not problems:
            for name, value in given.items():
                self._load(name, value)

    def _problems(self, given: dict[str, torch.Tensor]) -> list[str]:
        """Why a state cannot be loaded, one line each; nothing of it is loaded then."""
        found = []
        for name, value in given.items():
            if name in self.state_counters:
                if value.numel() != 1 or value.is_floating_point() or int(value) < 0:
                    found.append(f"{name} must be a count of at least 0, got {value.tolist()}")
                continue
            current: torch.Tensor = getattr(self, name)
            skipped = 1 if self._takes_any_length else 0
            if value.dim() != current.dim() or value.shape[skipped:] != current.shape[skipped:]:
                found.append(f"{name} has shape {tuple(value.shape)}, this criterion keeps {tuple(current.shape)}")
            elif value.is_floating_point() and not bool(value.isfinite().all()):
                found.append(f"{name} has entries that are NaN or infinite")
        return found

    def _load(self, name: str, value: torch.Tensor) -> None:
        """Take a tensor or counter from a state without problems."""
        if name in self.state_counters:
            setattr(self, name, int(value))
            return
        current: torch.Tensor = getattr(self, name)
        setattr(self, name, value.detach().to(device=current.device, dtype=current.dtype, copy=True))
