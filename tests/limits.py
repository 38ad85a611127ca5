"""The limits of a server in tests, which leave room for small pictures only."""

from nst_service.engine.options import Limits
from nst_service.jobs.decoders import DecoderLimits

LIMITS = Limits(max_input_pixels=10**6, max_request_pixels=10**7, max_image_size=512, max_iterations=1000, max_styles=2)

DECODER_LIMITS = DecoderLimits(processes=2, max_bytes=2**30, request_seconds=60.0)
