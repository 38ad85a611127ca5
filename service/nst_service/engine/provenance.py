"""The description in a result file of how the picture was made: version, weights and all options."""

import dataclasses
import json

from nst_service.engine.network.vgg import Vgg19
from nst_service.engine.spec import TransferSpec

VERSION_KEY = "nst_stylize"
"""The key of the version. The JSON begins with it, so that it can be found in a file of any format."""


_NEUTRAL_OPTIONS = {"strength": 0.5, "stroke_size": 0.5}
"""Options that release 0.1.0 does not have, and the values that change nothing. With those they are left out, so that
the files of its requests stay as they are."""


def describe(spec: TransferSpec, model: Vgg19, version: str) -> str:
    """Return JSON in one line of ASCII with the version, the weights and all options, defaults filled in."""
    options = dataclasses.asdict(spec.options)
    for name, value in _NEUTRAL_OPTIONS.items():
        if options[name] == value:
            del options[name]
    return json.dumps(
        {
            VERSION_KEY: version,
            "weights": {"id": model.weights_id, "sha256": model.weights_sha256},
            "options": options,
            "output": dataclasses.asdict(spec.output),
            "styles": [{"weight": style.share, "scale": style.scale} for style in spec.styles],
        }
    )
