"""The description in a result file of how the picture was made: version, weights and all options."""

import dataclasses
import json

from nst_service.engine.network.vgg import Vgg19
from nst_service.engine.spec import TransferSpec

VERSION_KEY = "nst_stylize"
"""The key of the version. The JSON begins with it, so that it can be found in a file of any format."""


def describe(spec: TransferSpec, model: Vgg19, version: str) -> str:
    """Return JSON in one line of ASCII with the version, the weights and all options, defaults filled in."""
    return json.dumps(
        {
            VERSION_KEY: version,
            "weights": {"id": model.weights_id, "sha256": model.weights_sha256},
            "options": dataclasses.asdict(spec.options),
            "output": dataclasses.asdict(spec.output),
            "styles": [{"weight": style.share, "scale": style.scale} for style in spec.styles],
        }
    )
