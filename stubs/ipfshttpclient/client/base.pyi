"""How ipfshttpclient 0.7.0 wraps a JSON answer, whatever its form."""

class ResponseBase:
    def as_json(self) -> object: ...
