import pytest
from nst.v1 import style_transfer_pb2 as pb


@pytest.fixture
def request_(content_png: bytes, style_png: bytes) -> pb.StylizeRequest:
    return pb.StylizeRequest(
        content=pb.Picture(data=content_png),
        styles=[pb.Style(picture=pb.Picture(data=style_png))],
        options=pb.TransferOptions(iterations=5, image_size=48, preview_every=2),
    )
