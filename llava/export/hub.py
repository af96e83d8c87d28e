"""Upload of a finished folder to the Hugging Face Hub."""

from __future__ import annotations

import re
from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError, OfflineModeIsEnabled

from llava.errors import InputError

# The Hub's errors derive from those of its HTTP client: httpx in huggingface_hub 1, httpx2 in 2.
_ClientError: type[Exception] = HfHubHTTPError.__bases__[0]

LOGIN = "log in with `hf auth login`, or set HF_TOKEN to a token with write access"


def check_can_push(repository: str) -> None:
    """Check that an upload is possible before the export starts.

    Args:
        repository: ``user/name``.

    Raises:
        InputError: The name is malformed, there is no login or no connection, or the token is rejected.
    """
    if re.fullmatch(r"[\w.-]+/[\w.-]+", repository) is None:
        raise InputError(f"--push_to_hub {repository!r}: expected USER/NAME, for example jane/llava-qwen2-align-ti")
    try:
        HfApi().whoami()
    except LocalTokenNotFoundError as error:
        raise InputError(f"--push_to_hub {repository}: you are not logged in to the Hub; {LOGIN}") from error
    except HfHubHTTPError as error:
        raise InputError(f"--push_to_hub {repository}: the Hub rejected the login ({error}); {LOGIN}") from error
    except (OfflineModeIsEnabled, _ClientError, OSError) as error:
        raise InputError(f"--push_to_hub {repository}: the Hub cannot be reached ({error})") from error


def push(folder: Path, repository: str, private: bool = False) -> str:
    """Create the repository if needed and upload a folder to it.

    Returns:
        URL of the upload's commit.

    Raises:
        InputError: The Hub rejects the upload or cannot be reached; the local folder is complete anyway.
    """
    try:
        api = HfApi()
        api.create_repo(repository, private=private, exist_ok=True)
        commit = api.upload_folder(repo_id=repository, folder_path=folder, commit_message="Upload LLaVA model")
    except (HfHubHTTPError, HFValidationError, OfflineModeIsEnabled, _ClientError, OSError) as error:
        raise InputError(
            f"the upload of {folder} to {repository} failed ({error}); the folder is complete: check that you have "
            "write access to that repository, and upload it with the same command or with `hf upload`"
        ) from error
    return str(commit)
