"""What a picture says about how it was made."""

import dataclasses
import json

from nst_service.engine.network.vgg import Vgg19
from nst_service.engine.spec import TransferSpec

KEY = "nst_stylize"
"""Of the version; the JSON begins with it, so that it can be found in a file of any format."""


def describe(spec: TransferSpec, model: Vgg19, version: str) -> str:
    """Return JSON in one line of ASCII with the version, the weights and all options, defaults filled in."""
    return json.dumps(
        {
            KEY: version,
            "weights": {"id": model.weights_id, "sha256": model.weights_sha256},
            "options": dataclasses.asdict(spec.options),
            "output": dataclasses.asdict(spec.output),
            "styles": [{"weight": style.share, "scale": style.scale} for style in spec.styles],
        }
    )
