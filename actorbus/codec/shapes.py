"""How objects of a class are taken apart into fields, and put together again."""

from __future__ import annotations

import dataclasses
import inspect
from typing import TYPE_CHECKING, Any

from pydantic import MISSING, BaseModel, RootModel

from actorbus.codec.names import names_of
from actorbus.codec.uncarried import Uncarried
from actorbus.errors import UnsupportedPayload

if TYPE_CHECKING:
    from collections.abc import Mapping


class ModelShape:
    """How a pydantic model is taken apart and put together: fields by name, never by alias.

    What is put together is validated. Private attributes and fields marked ``exclude`` stay
    behind.
    """

    __slots__ = ("_cls", "_is_root", "_optional", "_takes_extra", "fields", "names")

    is_model = True

    def __init__(self, cls: type[BaseModel]) -> None:
        kept = {name: field for name, field in cls.model_fields.items() if not field.exclude}
        for name, field in cls.model_fields.items():
            if field.exclude and field.is_required():
                raise UnsupportedPayload(
                    f"{cls.__qualname__}.{name} is marked exclude, so it stays behind,"
                    " and has no default to be rebuilt with; give it one"
                )
        self._cls = cls
        self.names = names_of(cls)
        self.fields = frozenset(kept)
        self._takes_extra = cls.model_config.get("extra") == "allow"
        self._optional = any(field.default is MISSING for field in kept.values())
        self._is_root = issubclass(cls, RootModel)

    def take(self, value: BaseModel) -> tuple[Mapping[str, Any], list[str] | None]:
        """The fields; and the names of those that were set, where not all were."""
        held = value.__dict__
        if self._optional or held.keys() != self.fields:
            held = {
                name: one
                for name, one in held.items()
                if name in self.fields and one is not MISSING
            }
        if value.__pydantic_extra__:
            held = {**held, **value.__pydantic_extra__}
        were_set = value.__pydantic_fields_set__
        return held, None if len(were_set) >= len(held) else sorted(were_set)

    def build(self, fields: dict[str, Any], were_set: list[str] | None) -> Any:
        if not (self._takes_extra or fields.keys() <= self.fields):
            fields = {name: one for name, one in fields.items() if name in self.fields}
        made = self._cls.__pydantic_validator__.validate_python(
            fields["root"] if self._is_root else fields, by_alias=False, by_name=True
        )
        if were_set is not None:
            made.__pydantic_fields_set__.intersection_update(were_set)
        return made


class DataclassShape:
    """How a dataclass is: by its own ``__init__``, then given the fields which that leaves out."""

    __slots__ = ("_cls", "_in_init", "fields", "names")

    is_model = False

    def __init__(self, cls: type[Any]) -> None:
        fields = dataclasses.fields(cls)
        self._cls = cls
        self.names = names_of(cls)
        self.fields = tuple(field.name for field in fields)
        self._in_init = frozenset(field.name for field in fields if field.init)
        _check_init(cls, self._in_init)

    def take(self, value: Any) -> tuple[Mapping[str, Any], list[str] | None]:
        try:
            return {name: getattr(value, name) for name in self.fields}, None
        except AttributeError as error:
            raise Uncarried(f"a field without a value cannot be carried ({error})") from None

    def build(self, fields: dict[str, Any], were_set: list[str] | None) -> Any:
        made = self._cls(**{name: one for name, one in fields.items() if name in self._in_init})
        for name in self.fields:
            if name not in self._in_init and name in fields:
                object.__setattr__(made, name, fields[name])
        return made


Shape = ModelShape | DataclassShape


def shape_of(cls: type[Any]) -> Shape:
    return ModelShape(cls) if issubclass(cls, BaseModel) else DataclassShape(cls)


def _check_init(cls: type[Any], in_init: frozenset[str]) -> None:
    """An object can be rebuilt only if its constructor takes its fields, and needs no more."""
    parameters = inspect.signature(cls).parameters.values()
    named = {
        one.name for one in parameters if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)
    }
    needed = {
        one.name
        for one in parameters
        if one.default is one.empty and one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)
    }
    takes_any = any(one.kind is one.VAR_KEYWORD for one in parameters)
    wrong = (needed - in_init) | (set() if takes_any else in_init - named)
    if wrong:
        raise UnsupportedPayload(
            f"{cls.__qualname__} cannot be rebuilt: {', '.join(sorted(wrong))} is not both a field"
            " and an argument of its constructor"
        )
