"""The limits of a server in tests, which leave room for small pictures only."""

from nst_service.engine.options import Limits

LIMITS = Limits(max_input_pixels=10**6, max_image_size=512, max_iterations=1000, max_styles=2)
