"""What the fields of messages mean, in a few words of Markdown: from the model (`Field(description=...)`), else from
`meanings.toml` beside this file."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib import resources

from pydantic import BaseModel


@cache
def table() -> dict[str, dict[str, str]]:
    """By model and field."""
    text = resources.files("qmodd.schema").joinpath("meanings.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


def meaning(model: type[BaseModel], field: str) -> str:
    """Empty where nobody has said it."""
    return model.model_fields[field].description or table().get(model.__name__, {}).get(field, "")
