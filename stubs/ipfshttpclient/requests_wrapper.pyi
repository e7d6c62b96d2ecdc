"""The parts of requests and urllib3 that ipfshttpclient 0.7.0 extends, and node/documents/wire.py extends again."""

import socket

import requests
import requests.adapters
import urllib3
import urllib3.connection

class HTTPConnection(urllib3.connection.HTTPConnection):
    def _new_conn(self) -> socket.socket: ...

class HTTPConnectionPool(urllib3.HTTPConnectionPool): ...
class HTTPAdapter(requests.adapters.HTTPAdapter): ...

class Session(requests.Session): ...
