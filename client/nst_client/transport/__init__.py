"""The parts of a client that differ between asyncio and threads.

`nst_client.transport.aio` and `nst_client.transport.threads` have the same names and parameters. The asynchronous
client uses the former. The synchronous client is generated from it and uses the latter.
"""
