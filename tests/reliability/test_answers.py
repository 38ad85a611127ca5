"""The answers of a server while its device computes. Only `make chaos` measures the times."""

import time
from statistics import median, quantiles

import grpc
from grpc_health.v1 import health_pb2
from nst.v1 import style_transfer_pb2 as pb

from tests.reliability.serving import ENDLESS, KillableServer, MakeRequest, Story, refusal

_REFUSAL_SECONDS = 0.010
"""The median."""
_HEALTH_SECONDS = 0.050
"""The 99th percentile."""


def busy(named: MakeRequest) -> pb.StylizeRequest:
    """Return a request for a job of a realistic size."""
    # Without an id, so that it ends with its call.
    request = named(ENDLESS, request_id="")
    request.options.CopyFrom(pb.TransferOptions(image_size=256, iterations=ENDLESS))
    return request


async def test_a_full_queue_refuses_while_the_device_computes(server: KillableServer, named: MakeRequest, chaos: bool):
    await server.serve(max_queued=0, threads=0)
    async with server.stub() as stub:
        await Story().read(running := stub.stylize(busy(named)), "progress")
        for request_id in ("", "named"):
            seconds = []
            for number in range(300 if chaos else 3):
                request = named(seed=number, request_id=request_id and f"{request_id}-{number}")
                started = time.perf_counter()
                code, reason = await refusal(stub.stylize(request))
                seconds.append(time.perf_counter() - started)
                assert (code, reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL")
            print(f"queue full, {request_id or 'unnamed'}: median {1e3 * median(seconds):.1f} ms")
            assert not chaos or median(seconds) < _REFUSAL_SECONDS
        running.cancel()
        await stub.idle()


async def test_health_is_told_while_the_device_computes(server: KillableServer, named: MakeRequest, chaos: bool):
    await server.serve(threads=0)
    async with server.stub() as stub:
        await Story().read(running := stub.stylize(busy(named)), "progress")
        seconds = []
        for _ in range(1000 if chaos else 5):
            started = time.perf_counter()
            answer = await stub.health.Check(health_pb2.HealthCheckRequest())
            seconds.append(time.perf_counter() - started)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        last = quantiles(seconds, n=100)[-1]
        print(f"health: median {1e3 * median(seconds):.1f} ms, 99th percentile {1e3 * last:.1f} ms")
        assert not chaos or last < _HEALTH_SECONDS
        running.cancel()
        await stub.idle()
