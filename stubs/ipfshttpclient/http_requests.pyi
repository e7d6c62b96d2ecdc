"""The HTTP side of ipfshttpclient 0.7.0: what node/documents/wire.py puts its guard into."""

from requests import Session

class ClientSync:
    def __init__(
        self,
        addr: str,
        base: str,
        *,
        offline: bool = False,
        auth: tuple[str, str] | None = None,
        cookies: dict[str, str] | None = None,
        headers: dict[str, str] | None = None,
        timeout: float | None = None,
    ) -> None: ...
    def _make_session(self) -> Session: ...
    def open_session(self) -> None: ...
    def close_session(self) -> None: ...
