import pytest
from nst.v1 import style_transfer_pb2 as pb
from nst_service import runtime as runtime_module
from nst_service.engine.devices import available_bytes
from nst_service.engine.network.weights import Weights
from nst_service.jobs.worker import DeviceWorker


@pytest.fixture
def request_(content_png: bytes, style_png: bytes) -> pb.StylizeRequest:
    return pb.StylizeRequest(
        content=pb.Picture(data=content_png),
        styles=[pb.Style(picture=pb.Picture(data=style_png))],
        options=pb.TransferOptions(iterations=5, image_size=48, preview_every=2),
    )


@pytest.fixture
def quick_start(monkeypatch: pytest.MonkeyPatch, weights: Weights) -> None:
    """Skip the slow parts of the start. One test waits for the real start, in a process of its own."""

    def warm_up(worker: DeviceWorker) -> None:
        worker.memory = available_bytes(worker.device)

    monkeypatch.setattr(DeviceWorker, "warm_up", warm_up)
    monkeypatch.setattr(runtime_module, "load_weights", lambda *_: weights)
