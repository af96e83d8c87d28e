"""The command line, and uploads with the Hub's client replaced."""

import httpx
import pytest
from huggingface_hub import ModelCard
from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError
from transformers import AutoProcessor

import llava.export.hub as hub
from llava.errors import InputError, run_cli
from llava.export.__main__ import main
from llava.model.builder import load_pretrained_model
from tests.llava.export.run_folders import run


class FakeHub:
    """Records what is uploaded; raises what it is told to."""

    calls: list = []
    login: Exception | None = None
    upload: Exception | None = None

    def whoami(self):
        if self.login is not None:
            raise self.login

    def create_repo(self, repository, private, exist_ok):
        self.calls.append((repository, private, exist_ok))

    def upload_folder(self, repo_id, folder_path, commit_message):
        if self.upload is not None:
            raise self.upload
        self.calls.append((repo_id, sorted(path.name for path in folder_path.iterdir())))
        return "https://hub/commit/1"


@pytest.fixture
def fake(monkeypatch):
    class Api(FakeHub):
        calls: list = []

    monkeypatch.setattr(hub, "HfApi", Api)
    return Api


def refused() -> HfHubHTTPError:
    request = httpx.Request("GET", "https://hub/api")
    return HfHubHTTPError("401 Unauthorized", response=httpx.Response(401, request=request))


def test_to_hf_and_back(checkpoint, tmp_path, capsys):
    folder = checkpoint()
    main(["--to", "hf", "--model_path", str(folder), "--output", str(tmp_path / "hf")])
    assert capsys.readouterr().out.splitlines()[-1] == str(tmp_path / "hf")  # DeepSpeed may print before
    card = ModelCard.load(tmp_path / "hf" / "README.md")
    assert card.data.library_name == "transformers"
    assert "AutoModelForImageTextToText" in card.text and "`qwen`" in card.text
    assert type(AutoProcessor.from_pretrained(tmp_path / "hf")).__name__ == "LlavaProcessor"
    main(["--from", "hf", "--model-path", str(tmp_path / "hf"), "--output", str(tmp_path / "back")])
    assert load_pretrained_model(tmp_path / "back")[1].config.mm_template == "qwen"


def test_card_of_an_export_tells_the_history(checkpoint, tmp_path):
    folder = run(checkpoint(), "Qwen/Qwen2-0.5B", "llava_v1_5_mix665k.json")
    scores = tmp_path / "s.json"
    scores.write_text('{"gqa": 12.0}')
    main(["--to", "hf", "--model_path", str(folder), "--output", str(tmp_path / "hf"), "--scores", str(scores)])
    card = ModelCard.load(tmp_path / "hf" / "README.md")
    assert card.data.datasets == ["liuhaotian/LLaVA-Instruct-150K"]
    assert card.data.eval_results[0].metric_value == 12.0
    assert card.data.model_name == "hf"


def test_projector_only_folder_with_its_base(checkpoint, tmp_path):
    from llava.model.checkpoint import save_projector

    folder = checkpoint()
    _, model, _, _ = load_pretrained_model(folder)
    save_projector(model, tmp_path / "stage1")
    base = folder.parent / "language-model"
    load_pretrained_model(folder)[0].save_pretrained(base)
    arguments = ["--to", "hf", "--model_path", str(tmp_path / "stage1"), "--output", str(tmp_path / "hf")]
    with pytest.raises(InputError, match="model_base"):
        main(arguments)
    main([*arguments, "--model_base", str(base), "--version", "plain"])
    assert (tmp_path / "hf" / "config.json").exists()


def test_card_alone(student, tmp_path, capsys):
    main(["--to", "card", "--model_path", str(student)])
    assert capsys.readouterr().out.strip() == str(student / "README.md")
    with pytest.raises(InputError, match="has no run_config.json"):
        main(["--to", "card", "--model_path", str(tmp_path)])
    (student / "README.md").write_text("mine")
    with pytest.raises(InputError, match="is not overwritten"):
        main(["--to", "card", "--model_path", str(student)])


def test_output_is_never_overwritten(tmp_path):
    with pytest.raises(InputError, match="--output is missing"):
        main(["--to", "hf", "--model_path", "x"])
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="not empty"):
        main(["--to", "hf", "--model_path", "x", "--output", str(tmp_path)])


def test_error_is_one_line(tmp_path, capsys):
    arguments = ["--to", "hf", "--model_path", str(tmp_path), "--output", str(tmp_path / "new")]
    with pytest.raises(SystemExit) as done:
        run_cli(lambda: main(arguments))
    assert done.value.code == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ") and "no readable config.json" in error


def test_push(checkpoint, tmp_path, fake, capsys):
    arguments = ["--to", "hf", "--model_path", str(checkpoint()), "--output", str(tmp_path / "hf")]
    main([*arguments, "--push_to_hub", "jane/goat", "--private"])
    (repository, private, exist_ok), (again, files) = fake.calls
    assert (repository, private, exist_ok, again) == ("jane/goat", True, True, "jane/goat")
    assert {"README.md", "config.json", "model.safetensors", "chat_template.jinja", "tokenizer.json"} <= set(files)
    assert "https://hub/commit/1" in capsys.readouterr().out
    assert 'from_pretrained("jane/goat"' in (tmp_path / "hf" / "README.md").read_text()


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (LocalTokenNotFoundError("no"), "not logged in to the Hub; log in with `hf auth login`, or set HF_TOKEN"),
        (refused(), "rejected the login.*401.*hf auth login"),
    ],
)
def test_login_is_checked_before_any_work(tmp_path, fake, error, message):
    fake.login = error
    arguments = ["--to", "hf", "--model_path", "nowhere", "--output", str(tmp_path / "hf")]
    with pytest.raises(InputError, match=message):
        main([*arguments, "--push_to_hub", "jane/goat"])
    assert not (tmp_path / "hf").exists()


def test_no_connection_with_the_real_client(tmp_path, monkeypatch):
    """Each version of the client raises its own library's error."""
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.utils._auth._get_token_from_environment", lambda: "hf_goat")
    with pytest.raises(InputError, match="the Hub cannot be reached .*refused"):
        hub.check_can_push("jane/goat")
    with pytest.raises(InputError, match="the upload of .* failed .*refused.*the folder is complete"):
        hub.push(tmp_path, "jane/goat")


def test_push_wants_a_whole_name_and_the_right_direction(tmp_path, fake):
    arguments = ["--model_path", "nowhere", "--output", str(tmp_path / "hf"), "--push_to_hub"]
    with pytest.raises(InputError, match="expected USER/NAME"):
        main(["--to", "hf", *arguments, "goat"])
    with pytest.raises(InputError, match="needs --to hf"):
        main(["--from", "hf", *arguments, "jane/goat"])


def test_failed_upload_says_that_the_folder_is_complete(tmp_path, fake):
    fake.upload = refused()
    with pytest.raises(InputError, match="upload of .* failed.*the folder is complete"):
        hub.push(tmp_path, "jane/goat")


def test_not_logged_in_with_the_real_client(tmp_path, monkeypatch):
    """The real client, without a token, raises what the message is made from."""
    monkeypatch.setattr("huggingface_hub.utils._auth._get_token_from_environment", lambda: None)
    monkeypatch.setattr("huggingface_hub.utils._auth._get_token_from_file", lambda: None)
    with pytest.raises(InputError, match="not logged in"):
        hub.check_can_push("jane/goat")
