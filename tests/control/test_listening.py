"""The controller's socket: nothing waits in it for an acknowledgement."""

import asyncio
import socket

from modelyard.control.listening import listen


async def test_answers_are_sent_at_once() -> None:
    """Nagle's algorithm is off: it held each answer of two writes for 40 ms (found in a switch)."""
    told: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def met(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        own = writer.get_extra_info("socket")
        told.set_result(own.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        writer.close()

    with listen("127.0.0.1", 0, "--port") as listener:
        server = await asyncio.start_server(met, sock=listener)
        async with server:
            _, writer = await asyncio.open_connection(*listener.getsockname())
            assert await told
            writer.close()
            await writer.wait_closed()
