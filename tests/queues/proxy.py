"""A local TCP proxy, so that a test can take a server away and give it back."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit, urlunsplit

from servers import own_port


class Proxy:
    """Forward connections to the server of a URL until they are cut.

    ``url``: the same URL, by way of this proxy.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._server = parts.hostname or "127.0.0.1", parts.port or 0
        self._place = own_port()  # which keeps it while the listener is away
        self._port = self._place.getsockname()[1]
        credentials, at, _ = parts.netloc.rpartition("@")
        self.url = urlunsplit(parts._replace(netloc=f"{credentials}{at}127.0.0.1:{self._port}"))
        self._open: set[socket.socket] = set()
        self._listener: socket.socket | None = None
        self._changing, self._flowing = threading.Lock(), threading.Event()
        self._flowing.set()
        self.restore()

    def _serve(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                listener.close()
                return  # it was cut
            try:
                server = socket.create_connection(self._server)
            except OSError:
                client.close()  # as the server itself did
                continue
            with self._changing:
                if listener is not self._listener:  # it was cut meanwhile
                    client.close()
                    server.close()
                    continue
                self._open |= {client, server}
            for source, target in ((client, server), (server, client)):
                threading.Thread(target=self._pump, args=(source, target), daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                self._flowing.wait()
                target.sendall(data)
        except OSError:
            pass  # one end is gone: so is the other
        _end(target)
        with self._changing:
            self._open.discard(source)
        source.close()

    @property
    def serves(self) -> bool:
        """Whether it takes connections."""
        return self._listener is not None

    def cut(self) -> None:
        """Break every connection and refuse new ones."""
        with self._changing:
            self._refuse()
            for end in self._open:
                _end(end)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Let nothing through meanwhile, and break no connection, as a server that stalls."""
        self._flowing.clear()
        try:
            yield
        finally:
            self._flowing.set()

    @contextmanager
    def refusing(self) -> Iterator[None]:
        """Refuse new connections meanwhile, and break none."""
        with self._changing:
            self._refuse()
        try:
            yield
        finally:
            self.restore()

    def _refuse(self) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            _end(listener)

    def restore(self) -> None:
        """Take connections again, on the same port."""
        self._listener = listener = socket.create_server(("127.0.0.1", self._port))
        threading.Thread(target=self._serve, args=(listener,), daemon=True).start()

    def close(self) -> None:
        """Break every connection for good, and give the port back."""
        self.cut()
        self._place.close()


def _end(end: socket.socket) -> None:
    """Wake whoever waits on the socket, which closing it alone would not."""
    try:
        end.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # it ended by itself
