"""Suites of one's own: attacks by name with settings, in a text or a file."""

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, get_args, get_type_hints

from muquant.attacks import ATTACKS, Attack, NormalNoise, Target, Transfer, UniformNoise
from muquant.attacks.base import DistanceAttack
from muquant.base.errors import InputError, first_line, naming
from muquant.base.reading import parse_json, read_bytes
from muquant.base.registry import look_up
from muquant.robustness.settings import Settings
from muquant.robustness.suites import SUITES, Suite, SuiteAttack

LARGEST_FILE = 1 << 20
"""Bytes of a file of attacks."""

_ROW: dict[str, Any] = {"name": str, "limit": int, "bound": float, "after": str | list, "seed": int}
"""What a suite says of an attack, and the types of that."""

_TRANSFER: dict[str, Any] = {"method": str}
"""What is said of a transfer: the attack on the surrogate, which has its usual settings."""

_FORM = 'expected attacks such as "apgd-ce:steps=50,restarts=3,square", or a .json or .toml file of them'


def read_suite(text: str) -> Suite:
    """Return the suite that a text names.

    It is a name of `SUITES`; or attacks of `ATTACKS` with commas between them, each with settings behind a
    colon if it has any: "apgd-ce:steps=50,restarts=3,square"; or a .json or .toml file, whose "attacks" is a
    list of objects with an "attack" and settings each. Settings are parameters of the attack, and `name`,
    `limit`, `bound`, `after` and `seed` of a `SuiteAttack`; several names after which an attack runs have a +
    between them in a text. What is not set is as in the other suites: epsilon, norm and noises by the data.

    Raises:
        InputError: the text cannot be read as any of these. The suite raises it for what it cannot run.
    """
    if text in SUITES:
        return SUITES[text]
    entries = list((_in_file if text.endswith((".json", ".toml")) else _in_text)(text))
    for kind, _ in entries:
        if kind not in ATTACKS:
            raise InputError(
                f"attack {kind!r} is unknown; expected one of {', '.join(ATTACKS)}; or, alone, a suite: "
                f"{', '.join(SUITES)}"
            )
    return _Own(entries)


@dataclass(frozen=True)
class _Own:
    """A suite of given attacks: the name of each, and its settings."""

    entries: list[tuple[str, Mapping[str, Any]]]

    def __call__(self, settings: Settings, surrogate: Target | None) -> list[SuiteAttack]:
        suite: list[SuiteAttack] = []
        for kind, given in self.entries:
            with naming(f"attack {kind}"):
                suite.append(_suite_attack(kind, given, settings, surrogate, suite))
        return suite


def _in_text(text: str) -> Iterator[tuple[str, dict[str, Any]]]:
    kind = ""
    given: dict[str, Any] = {}
    for part in (part.strip() for part in text.split(",")):
        name, colon, setting = part.partition(":")
        if "=" in name and kind:
            setting = part
        else:
            if kind:
                yield kind, given
            kind, given = name.strip(), {}
        if not kind or ((colon or setting) and "=" not in setting):
            raise InputError(f"attacks {text!r}: {_FORM}; found {part!r}")
        if setting:
            key, _, value = (each.strip() for each in setting.partition("="))
            if key in given:
                raise InputError(f"attacks {text!r}: {kind} has {key} twice; give it once")
            given[key] = _value(value)
    yield kind, given


def _value(text: str) -> Any:
    constants = {"true": True, "false": False, "none": None}
    if text.lower() in constants:
        return constants[text.lower()]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _in_file(path: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    content = read_bytes(path, LARGEST_FILE)
    if path.endswith(".json"):
        document = parse_json(content, path)
    else:
        try:
            document = tomllib.loads(content.decode())
        except (ValueError, RecursionError) as error:  # TOMLDecodeError, UnicodeError
            raise InputError(
                f"{path} is not a TOML document that can be used: {first_line(error)}"
            ) from error
    entries = document.get("attacks") if isinstance(document, dict) and set(document) == {"attacks"} else None
    if not isinstance(entries, list) or not entries:
        raise InputError(
            f'{path}: expected "attacks", a list of one or more, and nothing else; write '
            '{"attacks": [{"attack": "apgd-ce", "steps": 50}]} or [[attacks]] before each'
        )
    for number, entry in enumerate(entries):
        if not isinstance(entry, dict) or not isinstance(entry.get("attack"), str):
            raise InputError(
                f'{path}: attacks[{number}]: expected an object with an "attack", such as "apgd-ce", found '
                f"{entry!r:.80}"
            )
        yield entry["attack"], {key: value for key, value in entry.items() if key != "attack"}


def _suite_attack(
    kind: str,
    given: Mapping[str, Any],
    settings: Settings,
    surrogate: Target | None,
    before: list[SuiteAttack],
) -> SuiteAttack:
    row = {key: value for key, value in given.items() if key in _ROW}
    own = {key: value for key, value in given.items() if key not in _ROW}
    _check(row, _ROW)
    attack = _attack(kind, own, settings, surrogate)
    if isinstance(attack, DistanceAttack) and not hasattr(attack, "norm"):
        row.setdefault("bound", settings.l2_bound)
    name = row.pop("name", None) or _unused(kind, before)
    after = row.pop("after", ())
    made = SuiteAttack(
        name, attack, after=tuple(after.split("+") if isinstance(after, str) else after), **row
    )
    _check_row(made, before)
    return made


def _attack(kind: str, given: Mapping[str, Any], settings: Settings, surrogate: Target | None) -> Attack:
    made = look_up("attack", kind, ATTACKS)
    if made is Transfer:
        _check(given, _TRANSFER)
        if surrogate is None:
            raise InputError("it needs a surrogate to transfer from; name one (--surrogate RUN)")
        return Transfer(surrogate=surrogate, method=_attack(given.get("method", "mim"), {}, settings, None))
    hints = get_type_hints(made)
    _check(given, {field.name: hints[field.name] for field in fields(made) if field.init})  # type: ignore[arg-type]
    usual: dict[str, Any] = {}
    if made is NormalNoise:
        usual = {"sigma": settings.sigma}
    elif made is UniformNoise:
        usual = {"epsilon": settings.radius}
    elif "norm" in hints:
        usual = {"epsilon": settings.epsilon, "norm": settings.norm}
    return made(**{**usual, **given})


def _check(given: Mapping[str, Any], known: Mapping[str, Any]) -> None:
    """Refuse settings that are not known, or of another type."""
    for key, value in given.items():
        if key not in known:
            names = ", ".join(dict.fromkeys((*known, *_ROW)))
            raise InputError(f"setting {key!r} is unknown; expected one of {names}")
        kinds = get_args(known[key]) or (known[key],)
        if not any(_is(value, kind) for kind in kinds):
            expected = " or ".join(
                "none" if kind is type(None) else getattr(kind, "__name__", repr(kind)) for kind in kinds
            )
            raise InputError(f"{key}: expected {expected}, found {value!r}")


def _is(value: Any, kind: Any) -> bool:
    if not isinstance(kind, type):  # one of a Literal
        return bool(value == kind)
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, (int, float) if kind is float else kind)


def _unused(kind: str, before: list[SuiteAttack]) -> str:
    names, number = {each.name for each in before}, 1
    while (name := kind if number == 1 else f"{kind}-{number}") in names:
        number += 1
    return name


def _check_row(made: SuiteAttack, before: list[SuiteAttack]) -> None:
    whole = {each.name for each in before if each.limit is None}
    if made.name in {each.name for each in before}:
        raise InputError(f"name: {made.name!r} is another attack's; give each a name of its own")
    if made.limit is not None and made.limit < 1:
        raise InputError(f"limit: expected 1 image or more, found {made.limit}")
    if made.seed < 0 or (made.bound is not None and not made.bound >= 0):
        raise InputError(f"seed, bound: expected at least 0, found {made.seed}, {made.bound}")
    if not all(isinstance(name, str) and name in whole for name in made.after):
        known = ", ".join(sorted(whole)) or "none"
        raise InputError(
            f"after: expected attacks without a limit that run before it: {known}; "
            f"found {', '.join(map(str, made.after))}"
        )
    if made.after and made.limit is not None:
        raise InputError("limit, after: what runs on survivors runs on all of them; leave the limit out")
