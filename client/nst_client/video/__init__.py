"""Videos and sequences of pictures, frame by frame, without flicker.

    from nst_client import StyleTransferClient
    from nst_client.video import open_footage, stylize_sequence

    with StyleTransferClient("localhost:50051") as client:
        frames = open_footage("walk.mp4").frames()
        for frame, result in stylize_sequence(client, frames, "painting.jpg"):
            result.save(f"{frame.number:06d}.png")

Every frame starts from the result of the frame before, warped by optical flow, and stays close to it wherever the flow
is reliable: Ruder, Dosovitskiy & Brox, "Artistic style transfer for videos" (2016).
"""

try:
    import av  # noqa: F401
    import cv2  # noqa: F401
    import numpy as np  # noqa: F401
except ModuleNotFoundError as error:
    message = f"nst_client.video needs {error.name}: pip install 'nst-stylize[video]'"
    raise ModuleNotFoundError(message, name=error.name) from error

from nst_client.video.flow import flow_between, reliable, warp
from nst_client.video.frames import Footage, FootageError, Frame, naming, open_footage
from nst_client.video.sequence import FinishedFrame, stylize_sequence
from nst_client.video.writers import FolderWriter, FrameWriter, VideoWriter

__all__ = [
    "FinishedFrame",
    "FolderWriter",
    "Footage",
    "FootageError",
    "Frame",
    "FrameWriter",
    "VideoWriter",
    "flow_between",
    "naming",
    "open_footage",
    "reliable",
    "stylize_sequence",
    "warp",
]
