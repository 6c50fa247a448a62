#!/usr/bin/env python3
"""Forwards TCP connections and holds back each request for a while, as a store far away does.

latency-proxy.py SECONDS HOST:PORT: prints the port of 127.0.0.1 where it listens, and runs until it is ended. A request
begins with the first bytes of the client after bytes of the server; every one is held back once.
"""
import asyncio
import sys

DELAY = float(sys.argv[1])
HOST, PORT = sys.argv[2].rsplit(":", 1)


async def forward(reader, writer):
    try:
        server_reader, server_writer = await asyncio.open_connection(HOST, int(PORT))
    except OSError:
        writer.close()
        return
    is_new = True

    async def up():
        nonlocal is_new
        while data := await reader.read(1 << 18):
            if is_new:
                is_new = False
                await asyncio.sleep(DELAY)
            server_writer.write(data)
            await server_writer.drain()
        server_writer.close()

    async def down():
        nonlocal is_new
        while data := await server_reader.read(1 << 18):
            is_new = True
            writer.write(data)
            await writer.drain()
        writer.close()

    await asyncio.gather(up(), down(), return_exceptions=True)


async def main():
    server = await asyncio.start_server(forward, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    async with server:
        await server.serve_forever()


asyncio.run(main())
