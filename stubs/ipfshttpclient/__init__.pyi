"""What node/documents/daemon.py uses of ipfshttpclient 0.7.0, typed: what a daemon answers is an ``object`` here."""

from typing import Protocol

from ipfshttpclient.http_requests import ClientSync

class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...

class Block:
    def get(
        self, cid: str, *, opts: dict[str, str] = {}, offline: bool = False, timeout: float | None = None
    ) -> bytes: ...

class Dag:
    def imprt(
        self, data: _Readable, *, opts: dict[str, str] = {}, stream: bool = False, timeout: float | None = None
    ) -> object: ...

class Pin:
    def add(
        self, path: str, *, opts: dict[str, str] = {}, offline: bool = False, timeout: float | None = None
    ) -> object: ...
    def rm(self, path: str, *, opts: dict[str, str] = {}, timeout: float | None = None) -> object: ...
    def ls(
        self,
        *paths: str,
        type: str = "all",
        opts: dict[str, str] = {},
        stream: bool = False,
        timeout: float | None = None,
    ) -> object: ...

class Repo:
    def gc(
        self, *, quiet: bool = False, opts: dict[str, str] = {}, stream: bool = False, timeout: float | None = None
    ) -> object: ...
    def stat(self, *, opts: dict[str, str] = {}, timeout: float | None = None) -> object: ...

class Client:
    block: Block
    dag: Dag
    pin: Pin
    repo: Repo
    _client: ClientSync
    def __init__(
        self,
        addr: str = ...,
        base: str = ...,
        *,
        chunk_size: int = ...,
        session: bool = False,
        timeout: float | None = 120,
    ) -> None: ...
    def version(self, *, timeout: float | None = None) -> object: ...
    def close(self) -> None: ...
