"""Upload of a finished folder to the Hugging Face Hub."""

from __future__ import annotations

import re
from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError, OfflineModeIsEnabled

from llava.errors import InputError

# The base of the Hub's errors is that of its HTTP client: httpx in huggingface_hub 1, httpx2 in 2.
_ClientError: type[Exception] = HfHubHTTPError.__bases__[0]

LOGIN = "log in with `hf auth login`, or set HF_TOKEN to a token with write access"


def check_can_push(repository: str) -> None:
    """See that an upload is possible before the work that leads to it.

    Args:
        repository: ``user/name``.

    Raises:
        InputError: a malformed name, no login, a refused token, or no connection.
    """
    if re.fullmatch(r"[\w.-]+/[\w.-]+", repository) is None:
        raise InputError(f"--push_to_hub {repository!r}: expected USER/NAME, for example jane/llava-qwen2-align-ti")
    try:
        HfApi().whoami()
    except LocalTokenNotFoundError as error:
        raise InputError(f"--push_to_hub {repository}: you are not logged in to the Hub; {LOGIN}") from error
    except HfHubHTTPError as error:
        raise InputError(f"--push_to_hub {repository}: the Hub refused the login ({error}); {LOGIN}") from error
    except (OfflineModeIsEnabled, _ClientError, OSError) as error:
        raise InputError(f"--push_to_hub {repository}: the Hub cannot be reached ({error})") from error


def push(folder: Path, repository: str, private: bool = False) -> str:
    """Create the repository if needed and upload a folder to it.

    Returns:
        The address of the upload's commit.

    Raises:
        InputError: the Hub refuses it or cannot be reached; the folder is complete all the same.
    """
    try:
        api = HfApi()
        api.create_repo(repository, private=private, exist_ok=True)
        commit = api.upload_folder(repo_id=repository, folder_path=folder, commit_message="Upload LLaVA model")
    except (HfHubHTTPError, HFValidationError, OfflineModeIsEnabled, _ClientError, OSError) as error:
        raise InputError(
            f"the upload of {folder} to {repository} failed ({error}); the folder is complete: check that you may "
            "write to that repository, and push it with the same command or with `hf upload`"
        ) from error
    return str(commit)
