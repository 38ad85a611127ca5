"""The translation of options, limits and weights to the contract."""

from collections.abc import Mapping

from nst.v1 import style_transfer_pb2 as pb

from nst_service.engine.network.vgg import Vgg19
from nst_service.engine.options import Limits, OutputOptions, TransferOptions
from nst_service.jobs.views import Durability
from nst_service.rpc.translate.fields import OPTION_ENUMS, enum_to_proto, scalars_to_proto


def options_to_proto(options: TransferOptions) -> pb.TransferOptions:
    """Translate the options of a transfer. An option that is None is not set."""
    return pb.TransferOptions(
        **scalars_to_proto(pb.TransferOptions, options),
        preset=enum_to_proto(options.preset),
        **{name: enum_to_proto(getattr(options, name)) for name in OPTION_ENUMS},
        scale_iterations=options.scale_iterations,
        content_layers=_layers_to_proto(options.content_layers),
        style_layers=_layers_to_proto(options.style_layers),
    )


def output_to_proto(output: OutputOptions) -> pb.OutputOptions:
    """Translate the options of the output."""
    return pb.OutputOptions(**scalars_to_proto(pb.OutputOptions, output), format=enum_to_proto(output.format))


def limits_to_proto(
    limits: Limits, durability: Durability, *, max_request_bytes: int, max_queued_jobs: int
) -> pb.Limits:
    """Translate the limits of a server."""
    return pb.Limits(
        max_request_bytes=max_request_bytes,
        max_input_pixels=limits.max_input_pixels,
        max_image_size=limits.max_image_size,
        max_iterations=limits.max_iterations,
        max_styles=limits.max_styles,
        max_queued_jobs=max_queued_jobs,
        reattach_seconds=durability.reattach_seconds,
        retention_seconds=durability.retention_seconds,
    )


def weights_to_proto(model: Vgg19) -> pb.Weights:
    """Translate the id and the checksum of the weights of a model."""
    return pb.Weights(id=model.weights_id, sha256=model.weights_sha256)


def _layers_to_proto(layers: Mapping[str, float]) -> list[pb.LayerWeight]:
    return [pb.LayerWeight(layer=layer, weight=weight) for layer, weight in layers.items()]
