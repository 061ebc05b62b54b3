"""Reads the YAML of recipes: plain values only, no key twice, and no aliases, so that a short file stays small."""

from __future__ import annotations

from typing import Any

import yaml

__all__ = ["read_yaml", "yaml_fault"]


class _PlainLoader(yaml.SafeLoader):
    """The safe loader without aliases, and with an error where a key is given twice."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Refuse an alias: a few lines of them can stand for gigabytes."""
        if self.check_event(yaml.AliasEvent):
            event: Any = self.peek_event()  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(None, None, "aliases are not allowed", event.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Refuse a key that is given twice, of which YAML would keep the last."""
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} is given twice", key.start_mark)
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)

    def construct_scalar(self, node: Any) -> Any:
        """Refuse a number of thousands of digits, which Python does not convert."""
        if isinstance(node, yaml.ScalarNode) and len(node.value) > _LONGEST and node.tag != _TEXT:
            raise yaml.constructor.ConstructorError(
                None, None, f"a value of {len(node.value):,} characters is no number", node.start_mark
            )
        return super().construct_scalar(node)


_LONGEST = 1000
_TEXT = "tag:yaml.org,2002:str"


def read_yaml(text: str) -> Any:
    """The content of a YAML text in plain types.

    Raises
    ------
    yaml.YAMLError
        For anything but plain values: see `yaml_fault`.
    """
    try:
        return yaml.load(text, Loader=_PlainLoader)
    except RecursionError:
        raise yaml.YAMLError("it is nested too deeply") from None
    except (ValueError, OverflowError) as error:  # a date such as 2020-13-45
        raise yaml.YAMLError(str(error)) from None


def yaml_fault(error: yaml.YAMLError) -> str:
    """What is wrong with a YAML text, as the end of a sentence: the line, where it is known, and the problem."""
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or next(iter(str(error).splitlines()), type(error).__name__)
    return f", line {mark.line + 1}: {problem}" if mark is not None else f": {problem}"
