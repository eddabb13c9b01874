"""A TCP proxy that delays, swallows or resets what passes: the network faults that this kernel cannot make by itself.

    with ChaosProxy("127.0.0.1:2379") as proxy:   # clients use proxy.address
        proxy.blackhole()                         # nothing passes; nobody is told. heal() lets go on what was held
        proxy.reset()                             # RST to both ends of every connection; new ones may come
        proxy.heal()

What is swallowed is held, as TCP would send it again: bytes are late or their connection ends, they never go missing.
"""

import asyncio
import contextlib
import socket
import struct
import threading
import time

_CHUNK = 1 << 16
_AHEAD = 256  # chunks of one direction that may be delayed at a time


def _linger_not(connection):
    """Its close sends RST."""
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


class _Direction:
    """What passes one way, in all connections."""

    def __init__(self):
        self.open = asyncio.Event()
        self.open.set()
        self.delay, self.passed, self.held = 0.0, 0, 0


class ChaosProxy:
    """Thread-safe. `connections` open now; `accepted`, `resets`, `refused` since the start; `passed` and `held` bytes."""

    def __init__(self, target, listen="127.0.0.1"):
        host, port = target.rsplit(":", 1)
        self._target = host, int(port)
        self._listener = socket.create_server((listen, 0), backlog=128)
        self._listener.setblocking(False)
        self.address = "{}:{}".format(*self._listener.getsockname())
        self._loop = asyncio.new_event_loop()
        self._up, self._down = _Direction(), _Direction()
        self._pairs, self._refusing = {}, False
        self.accepted = self.resets = self.refused = 0
        self._thread = threading.Thread(target=self._loop.run_forever, name="chaos-proxy", daemon=True)

    def __enter__(self):
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._accept(), self._loop)
        return self

    def __exit__(self, *_):
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    # ---- faults

    def delay(self, seconds, up=True, down=True):
        """So late comes each byte to the server (`up`) and to the client (`down`); 0: at once."""
        def change():
            self._up.delay, self._down.delay = seconds if up else 0.0, seconds if down else 0.0
        self._do(change)

    def blackhole(self, up=True, down=True):
        """Nothing passes to the server (`up`), to the client (`down`); new connections get no answer."""
        def change():
            for direction, closed in ((self._up, up), (self._down, down)):
                (direction.open.clear if closed else direction.open.set)()
        self._do(change)

    def reset(self):
        """RST to both ends of every connection; how many there were."""
        return self._do(self._reset)

    def refuse(self):
        """RST to every connection, and to new ones as they come."""
        def change():
            self._refusing = True
            return self._reset()
        return self._do(change)

    def heal(self):
        """What was held passes, all is as at the start."""
        def change():
            self._refusing = False
            for direction in (self._up, self._down):
                direction.delay = 0.0
                direction.open.set()
        self._do(change)

    @property
    def connections(self):
        return len(self._pairs)

    @property
    def passed(self):
        """(to the server, to the client)."""
        return self._up.passed, self._down.passed

    @property
    def held(self):
        """Bytes read from one end and held back from the other since the start."""
        return self._up.held + self._down.held

    # ---- the loop's thread

    def _do(self, change):
        async def run():
            return change()
        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(10)

    async def _accept(self):
        while True:
            client, _ = await self._loop.sock_accept(self._listener)
            self.accepted += 1
            if self._refusing:
                self.refused += 1
                _linger_not(client)
                client.close()
                continue
            self._pairs[client] = asyncio.ensure_future(self._serve(client))

    async def _serve(self, client):
        server, parts = socket.socket(), []
        try:
            for one in (client, server):
                one.setblocking(False)
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await self._up.open.wait()
            await self._loop.sock_connect(server, self._target)
            for source, sink, direction in ((client, server, self._up), (server, client, self._down)):
                waiting = asyncio.Queue(_AHEAD)
                parts += [asyncio.ensure_future(self._read(source, waiting, direction)),
                          asyncio.ensure_future(self._write(waiting, sink, direction))]
            await asyncio.gather(*parts)
        except (OSError, asyncio.CancelledError):
            for one in (client, server):
                _linger_not(one)
        finally:
            for part in parts:
                part.cancel()
            await asyncio.gather(*parts, return_exceptions=True)
            self._pairs.pop(client, None)
            client.close()
            server.close()

    async def _read(self, source, waiting, direction):
        data = b"more"
        while data:
            data = await self._loop.sock_recv(source, _CHUNK)
            if not direction.open.is_set():
                direction.held += len(data)
            await waiting.put((time.monotonic() + direction.delay, data))

    async def _write(self, waiting, sink, direction):
        while True:
            due, data = await waiting.get()
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            await direction.open.wait()
            if not data:
                sink.shutdown(socket.SHUT_WR)
                return
            await self._loop.sock_sendall(sink, data)
            direction.passed += len(data)

    def _reset(self):
        pairs = list(self._pairs.values())
        for task in pairs:
            task.cancel()
        self.resets += len(pairs)
        return len(pairs)

    async def _end(self):
        self._reset()
        tasks = [task for task in asyncio.all_tasks(self._loop) if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._listener.close()
