"""Markers and ids shared by the whole LLaVA family; their values are part of the format."""

IGNORE_INDEX = -100
"""Label of a token that is not a target."""

IMAGE_TOKEN_INDEX = -200
"""Id that stands in ``input_ids`` where one image's visual tokens are spliced in."""

DEFAULT_IMAGE_TOKEN = "<image>"
DEFAULT_IMAGE_PATCH_TOKEN = "<im_patch>"
DEFAULT_IM_START_TOKEN = "<im_start>"
DEFAULT_IM_END_TOKEN = "<im_end>"
IMAGE_PLACEHOLDER = "<image-placeholder>"
