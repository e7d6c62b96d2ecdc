"""What tests/node/json_schemas.py uses of fastjsonschema, typed; its functions carry no types of their own."""

from collections.abc import Callable, Mapping

class JsonSchemaException(ValueError): ...

def compile(
    definition: object,
    *,
    formats: Mapping[str, str] = ...,
    use_default: bool = True,
) -> Callable[[object], object]: ...
