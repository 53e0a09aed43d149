"""What is in force: the configuration file with what was set over it, as far as that fits. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pydantic import ValidationError

from qmodd.config import Config
from qmodd.settings.overrides import Override, Overrides
from qmodd.settings.tree import Leaf, NotAllowed, Value, value_of


@dataclass(frozen=True)
class Composed:
    """The file with every override that fits, and by path why another one is not in force."""

    config: Config
    ignored: Mapping[str, str]


def compose(file: Config, overrides: Overrides, leaves: Mapping[str, Leaf]) -> Composed:
    """Overrides in the order in which they were set: of two that do not go together the earlier one stays."""
    config, ignored = file, dict[str, str]()
    for path, override in overrides.in_order():
        try:
            config = _with_override(config, file, path, override, leaves)
        except NotAllowed as e:
            ignored[path] = str(e)
    return Composed(config, ignored)


def _with_override(config: Config, file: Config, path: str, override: Override, leaves: Mapping[str, Leaf]) -> Config:
    leaf = leaves.get(path)
    if leaf is None:
        raise NotAllowed("unknown_setting", f"this module has no setting {path}")
    value = leaf.check(override.value, value_of(file, path))
    return with_values(config, {path: value}, file)


def with_values(config: Config, values: Mapping[str, Value], file: Config) -> Config:
    """The configuration with other values. Raises NotAllowed (`conflict`) when they do not go with the rest; what the
    file itself does not keep to is not asked of anybody."""
    raw = config.model_dump()
    for path, value in values.items():
        section, _, name = path.partition(".")
        raw[section][name] = value
    try:
        new = Config.model_validate(raw)
    except ValidationError as e:
        said = "; ".join(x["msg"].removeprefix("Value error, ") for x in e.errors(include_url=False))
        raise NotAllowed("conflict", said[:480]) from None
    excused = set(contradictions(file))
    if against := [why for key, why in contradictions_by_key(new) if key not in excused]:
        raise NotAllowed("conflict", "; ".join(against)[:480])
    return new


def contradictions(config: Config) -> list[str]:
    """Which of the relations between settings are not kept."""
    return [key for key, _ in contradictions_by_key(config)]


def contradictions_by_key(config: Config) -> Iterator[tuple[str, str]]:
    """(relation, in words) for each that is not kept: a limit at or below what a loop may do would trip in service."""
    control, safety = config.control, config.safety
    for upper, lower, most, least, unit in (
        ("safety.tec_max_a", "control.tec_current_limit_a", safety.tec_max_a, control.tec_current_limit_a, "A"),
        ("safety.object_max_c", "control.tec_target_c", safety.object_max_c, control.tec_target_c, "C"),
        ("safety.submount_max_c", "control.tec_target_c", safety.submount_max_c, control.tec_target_c, "C"),
    ):
        if not most > least:
            yield f"{upper} {lower}", f"{upper} = {most:g} {unit} has to be above {lower} = {least:g} {unit}"
