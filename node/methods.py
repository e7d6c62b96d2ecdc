"""How a function becomes a JSON-RPC method: its signature is parameters and result, its docstring the text.

Owns the reading of parameters by name and by position, and which refusal gets which code. Nothing is declared
twice: the server, the OpenRPC document and the command line all read the table that is made of these.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Final, Union, cast, get_args, get_origin, get_type_hints

from ledger.encoding import Plain
from ledger.errors import Malformed, Rejected
from ledger.fields import Codec, Json, Length, get_codec
from node.jsonrpc import INVALID_PARAMS, NOT_FOUND, OVERLOADED, REJECTED, SYNCING, Fault, Params, make_fault
from node.mempool import Overloaded
from node.prose import make_prose
from node.queries.errors import NotFound
from node.queries.view import View
from node.service import NodeService

PARAMETER_TEXT_BYTES_MAX: Final = 1_024  # the longest is the key of a state proof, in hex
SYNCING_REASON: Final = "node_is_syncing"  # with it a service refuses what it cannot judge before it has caught up

Handler = Callable[..., object]  # an answer, or the coroutine of one; its type is the result's
_Text = Annotated[str, Length(PARAMETER_TEXT_BYTES_MAX)]


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a method. ``default`` is in its JSON form, and only has a meaning if it is not required."""

    name: str
    summary: str
    is_required: bool
    default: Json
    codec: Codec = field(repr=False)

    @property
    def schema(self) -> dict[str, Json]:
        """The JSON schema of its values."""
        return self.codec.schema


@dataclass(frozen=True, slots=True, eq=False)
class Method:
    """One JSON-RPC method. ``handle(service, **arguments)`` answers, or is awaited when ``is_waiting``.

    ``arguments`` are what ``bind`` made. It raises ``Rejected`` or ``Fault``. ``result`` is the type of the answer.
    """

    name: str
    summary: str
    description: str
    parameters: tuple[Parameter, ...]
    result: object
    is_waiting: bool
    handle: Handler = field(repr=False)

    def bind(self, params: Params) -> dict[str, object]:
        """The arguments of a call, checked and converted. Raises ``Fault`` (−32602) that names the parameter."""
        if type(params) is list:
            params = self._name_by_position(params)
        given = cast("dict[str, Json]", params)
        arguments: dict[str, object] = {}
        known = 0
        for parameter in self.parameters:
            name = parameter.name
            if name not in given:
                if parameter.is_required:
                    raise make_fault(INVALID_PARAMS, "parameter_missing", name)
                continue
            known += 1
            value = given[name]
            if value is None and not parameter.is_required:  # by position, null stands for what is left out
                continue
            try:
                arguments[name] = parameter.codec.from_json(value)
            except Malformed as error:
                raise make_fault(INVALID_PARAMS, error.reason, f"{name}: {error.item}") from error
        if known != len(given):
            names = {parameter.name for parameter in self.parameters}
            raise make_fault(INVALID_PARAMS, "parameter_unknown", ascii(next(n for n in given if n not in names)))
        return arguments

    def _name_by_position(self, values: list[Json]) -> dict[str, Json]:
        if len(values) > len(self.parameters):
            item = f"{len(values)} given, {self.name} takes {len(self.parameters)}"
            raise make_fault(INVALID_PARAMS, "too_many_parameters", item)
        return {one.name: value for one, value in zip(self.parameters, values, strict=False)}


def make_method(handler: Handler, summaries: Mapping[str, str], *, name: str = "") -> Method:
    """The method of a function whose first parameter is the service, or the view that a query reads from.

    ``summaries`` has a line for each name that a parameter can have. The type that the function returns is described
    to clients field by field (node/result_schemas.py): a ``TypedDict``, or what node/answers.py has.
    """
    hints = get_type_hints(handler, localns={"Json": Json}, include_extras=True)  # Json names itself
    first, *rest = inspect.signature(handler).parameters.values()
    text = make_prose(handler.__doc__)
    assert text, handler
    return Method(
        name=name or handler.__name__,
        summary=text.partition("\n")[0],
        description=text,
        parameters=tuple(_make_parameter(one, hints[one.name], summaries[one.name]) for one in rest),
        result=hints["return"],
        is_waiting=inspect.iscoroutinefunction(handler),
        handle=_give_view(handler) if hints[first.name] is View else handler,
    )


def explain(error: Rejected) -> Fault:
    """The fault of a refusal: which kind of thing went wrong decides the code, the reason says the rest."""
    if isinstance(error, NotFound):
        return make_fault(NOT_FOUND, error.reason, error.item)
    if isinstance(error, Overloaded):
        return make_fault(OVERLOADED, error.reason, error.item)
    if error.reason == SYNCING_REASON:
        return make_fault(SYNCING, error.reason, error.item)
    return make_fault(REJECTED, error.reason, error.item)


def explain_question(error: Rejected) -> Fault:
    """The fault of a refused question: what has not the required form is a wrong parameter."""
    return make_fault(INVALID_PARAMS, error.reason, error.item) if isinstance(error, Malformed) else explain(error)


def _give_view(query: Handler) -> Handler:
    def answer(service: NodeService, **arguments: object) -> object:
        try:
            return query(View(service.reader, service.table, service.tree), **arguments)
        except Rejected as error:
            raise explain_question(error) from error

    return answer


def _make_parameter(parameter: inspect.Parameter, kind: object, summary: str) -> Parameter:
    is_required = parameter.default is inspect.Parameter.empty
    codec = _find_codec(kind)
    return Parameter(
        name=parameter.name,
        summary=summary,
        is_required=is_required,
        default=None if is_required or parameter.default is None else codec.to_json(parameter.default),
        codec=codec,
    )


def _find_codec(kind: object) -> Codec:
    """As the ledger's, but a text may be as long as the longest parameter, and an object of filters exists."""
    if get_origin(kind) in (Union, types.UnionType):  # X | None
        (kind,) = (part for part in get_args(kind) if part is not types.NoneType)
    if kind is str:
        return get_codec(_Text)
    return _OBJECT_CODEC if get_origin(kind) is dict else get_codec(kind)


def _read_object(value: object) -> object:
    if type(value) is not dict:
        raise Malformed("field_has_wrong_type", f"expected an object, got {type(value).__name__}")
    return value


_OBJECT_CODEC: Final = Codec(
    to_plain=lambda value: cast(Plain, value),
    from_plain=_read_object,
    to_json=lambda value: cast(Json, value),
    from_json=_read_object,
    schema={"type": "object"},
)
