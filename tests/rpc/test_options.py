import dataclasses
import io

import grpc
import numpy as np
import png
import pytest
import tifffile
from nst.v1 import style_transfer_pb2 as pb
from nst_client.metadata import read_metadata
from nst_client.translate import options_from_proto
from PIL import Image

from tests.rpc.test_service import serving


async def test_estimate_says_what_stylize_would_begin_with(request_: pb.StylizeRequest):
    async with serving() as (server, stub):
        estimate = await stub.Estimate(pb.EstimateRequest(stylize=request_))
        call = stub.Stylize(request_)
        accepted = (await call.read()).event.accepted
        call.cancel()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Estimate(pb.EstimateRequest())
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert server.scheduler.views.queued_jobs == 0
    assert estimate.options == accepted.options
    assert (estimate.width, estimate.height) == (accepted.width, accepted.height)
    assert estimate.estimate.peak_memory_bytes == accepted.estimate.peak_memory_bytes > 0
    assert estimate.estimate.seconds > 0


async def test_results_come_in_every_format_and_say_how_they_were_made(request_: pb.StylizeRequest, tmp_path):
    request_.options.seed = 11
    found = {}
    async with serving() as (_, stub):
        for name, bits in (("PNG", 8), ("JPEG", 8), ("WEBP", 8), ("TIFF", 8), ("PNG", 16), ("TIFF", 16)):
            request_.output.format = pb.PictureFormat.Value(f"PICTURE_FORMAT_{name}")
            request_.output.bits = bits
            events = [response.event async for response in stub.Stylize(request_)]
            found[name, bits] = b"".join(event.result_chunk.data for event in events)
            accepted = events[0].accepted
            path = tmp_path / f"{bits}.{name}"
            path.write_bytes(found[name, bits])
            said = read_metadata(path)
            options = options_from_proto(accepted.options)
            # Where they change nothing, they are left out.
            assert said.options == dataclasses.replace(options, strength=None, stroke_size=None)
            assert said.options.seed == 11
            assert said.weights.sha256 == accepted.weights.sha256
            assert said.output.bits == bits
            if bits == 8:
                assert Image.open(io.BytesIO(found[name, bits])).format == name
        request_.output.metadata = False
        events = [response.event async for response in stub.Stylize(request_)]
        assert b"nst_stylize" not in b"".join(event.result_chunk.data for event in events)
    shallow = np.asarray(Image.open(io.BytesIO(found["PNG", 8])))
    _, _, rows, _ = png.Reader(bytes=found["PNG", 16]).read()
    deep = np.vstack([np.array(row) for row in rows]).reshape(shallow.shape)
    tiff = tifffile.imread(io.BytesIO(found["TIFF", 16]))
    assert tiff.dtype == np.uint16
    assert np.array_equal(tiff, deep)
    assert np.abs(deep / 257 - shallow).max() <= 0.51
    assert len(np.unique(deep)) > 256


async def test_sixteen_bits_are_refused_where_the_format_has_eight(request_: pb.StylizeRequest):
    request_.output.format = pb.PICTURE_FORMAT_JPEG
    request_.output.bits = 16
    async with serving() as (_, stub):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Estimate(pb.EstimateRequest(stylize=request_))
    assert "output.bits: is 16; JPEG has 8 bits per channel" in caught.value.details()


@pytest.mark.parametrize("field", ["content_mask", "reference", "reference_mask", "styles[0].mask"])
async def test_a_picture_that_is_none_is_named(request_: pb.StylizeRequest, field: str):
    picture = pb.Picture(data=b"text")
    if field == "styles[0].mask":
        request_.styles[0].mask.CopyFrom(picture)
    else:
        request_.reference.CopyFrom(request_.content)
        getattr(request_, field).CopyFrom(picture)
    async with serving() as (_, stub):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Estimate(pb.EstimateRequest(stylize=request_))
    assert f"{field}: cannot be read as a picture" in caught.value.details()


async def test_pictures_that_do_not_fit_are_worked_on_in_tiles(request_: pb.StylizeRequest):
    request_.options.image_size = 2048
    async with serving(max_job_bytes=5 * 2**29) as (_, stub):
        tiled = await stub.Estimate(pb.EstimateRequest(stylize=request_))
        request_.options.image_size = 256
        whole = await stub.Estimate(pb.EstimateRequest(stylize=request_))
    assert tiled.estimate.tile_size in (256, 512, 1024)
    assert tiled.estimate.peak_memory_bytes <= 5 * 2**29
    assert whole.estimate.tile_size == 0


async def test_a_result_that_does_not_fit_is_made_smaller_where_the_request_allows_it(
    request_: pb.StylizeRequest, tmp_path
):
    request_.options.MergeFrom(pb.TransferOptions(image_size=2048, min_image_size=128, iterations=3))
    async with serving(max_job_bytes=300 * 2**20) as (_, stub):
        estimate = await stub.Estimate(pb.EstimateRequest(stylize=request_))
        events = [response.event async for response in stub.Stylize(request_)]
        request_.options.min_image_size = 1024
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Estimate(pb.EstimateRequest(stylize=request_))
        request_.options.min_image_size = 2049
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.Estimate(pb.EstimateRequest(stylize=request_))
    accepted, path = events[0].accepted, tmp_path / "out.png"
    path.write_bytes(b"".join(event.result_chunk.data for event in events))
    assert estimate.estimate.reduced_from == accepted.estimate.reduced_from == 2048
    assert estimate.options == accepted.options
    assert 128 <= accepted.width == accepted.options.image_size < 1024
    assert accepted.options.min_image_size == 128
    assert Image.open(path).size == (accepted.width, accepted.height)
    # The same again has the size that it has, wherever it is made.
    assert read_metadata(path).options.image_size == accepted.width
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert "options.min_image_size: is 2049; accepted values are 0, and" in refused.value.details()


async def test_what_ran_before_does_not_change_a_result(request_: pb.StylizeRequest):
    other = pb.StylizeRequest()
    other.CopyFrom(request_)
    other.options.MergeFrom(pb.TransferOptions(image_size=40, pooling=pb.POOLING_MAX, color=pb.COLOR_MODE_LAB))

    async def sha256(stub, request: pb.StylizeRequest) -> str:
        events = [response.event async for response in stub.Stylize(request)]
        return next(event.result_header.sha256 for event in events if event.HasField("result_header"))

    async with serving() as (_, stub):
        first, between, again = [await sha256(stub, request) for request in (request_, other, request_)]
    assert first == again != between
