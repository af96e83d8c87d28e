"""What a recipe, a pair and a command line make together, and what is refused."""

from pathlib import Path

import pytest

from align_ti.recipes.files import PAIRS, RECIPES, names_in, read_pair, read_recipe
from align_ti.recipes.flags import DISTILLATION, parse_flags, trainer_flags, words_of
from align_ti.recipes.keys import KEYS, SECTIONS
from align_ti.recipes.resolve import for_plan, resolve
from llava.errors import InputError

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(autouse=True)
def in_the_checkout(monkeypatch):
    monkeypatch.chdir(ROOT)


def test_every_key_is_a_flag_of_the_trainer_or_documented():
    for name in names_in(RECIPES):
        values = read_recipe(name)[1].values
        assert set(values) <= trainer_flags(values["module"]) | set(KEYS), name
    for name in names_in(PAIRS):
        values = read_pair(name)[1].values
        for key, value in values.items():
            of_section = value if key in SECTIONS else {key: value}
            assert set(of_section) <= trainer_flags(DISTILLATION) | set(KEYS), (name, key)


def test_pairs_change_a_recipe_and_flags_change_both():
    flags = ["--learning_rate", "1e-5", "--model-max-length=64", "--packing", "--runs", "/r", "--teacher_path", "/t"]
    recipe = resolve("align-ti", "qwen3-8b-1.7b", flags)
    assert (recipe.pair, recipe.text("model_name_or_path")) == ("qwen3-8b-1.7b", "Qwen/Qwen3-1.7B")
    assert recipe.flags["learning_rate"] == ("1e-5",) and recipe.flags["model_max_length"] == ("64",)
    assert recipe.flags["packing"] == () and recipe.text("teacher_path") == "/t"
    assert recipe.text("output_dir") == "/r/student-align-ti"
    assert recipe.text("pretrain_mm_mlp_adapter") == "/r/student-pretrain/mm_projector.bin"
    assert resolve("align-ti", words=["--student_lm", "mine", "--global_batch", "64"]).global_batch == 64
    assert resolve("align-ti", words=["--student_lm", "mine"]).text("model_name_or_path") == "mine"
    assert resolve("align-ti", words=["--deepspeed", ""]).flags["deepspeed"] == ("",)


@pytest.mark.parametrize("recipe", ["sft", "align-ti"])
@pytest.mark.parametrize("pair, share, epochs", [("mini", "50", "0.335"), (None, "25", "0.25"), (None, "150", "1.5")])
def test_a_share_of_the_data_is_a_share_of_the_epochs(recipe, pair, share, epochs):
    assert resolve(recipe, pair, ["--data_share", share]).text("num_train_epochs") == epochs


def test_a_file_of_your_own(tmp_path):
    """It inherits by name; its values are not those of the default pair, and a pair that is asked for changes them."""
    mine = tmp_path / "mine.yaml"
    mine.write_text("base: align-ti\npair: mine\nstudent_lm: my/model\ntpa_d: 8\niva_layer:\ndata_path: my.json\n")
    recipe = resolve(str(mine))
    assert (recipe.name, recipe.text("model_name_or_path"), recipe.text("tpa_d")) == ("mine", "my/model", "8")
    assert recipe.text("output_dir") == "checkpoints/mine/student-align-ti" and "iva_layer" not in recipe.flags
    assert resolve(str(mine), "qwen2-7b-1.5b").text("model_name_or_path") == "Qwen/Qwen2-1.5B"
    pair = tmp_path / "theirs.yaml"
    pair.write_text("base: mini\nruns: /runs\npretrain:\n  learning_rate: 7\n")
    assert resolve("teacher-pretrain", str(pair)).text("learning_rate") == "7"
    assert resolve("teacher-pretrain", str(pair)).text("output_dir") == "/runs/teacher-pretrain"
    assert resolve("teacher-pretrain", str(pair)).global_batch == 64, "of the pair's base"


@pytest.mark.parametrize(
    "text, message",
    [
        ("base: align-ti\nlerning_rate: 1\n", r"mine.yaml, line 2: unknown key 'lerning_rate'; did you mean learn"),
        ("base: align-ti\nglobal_bach: 1\n", r"line 2: unknown key 'global_bach'; did you mean global_batch"),
        ("base: align-ti\nglobal_batch: many\n", "line 2: global_batch is 'many'; expected a whole number, 1 or more"),
        ("base: align-ti\ntpa_d: 1\ntpa_d: 2\n", "line 3: tpa_d is there twice, before in .*line 2"),
        ("base: align-ti\ntpa_d:\n  a: 1\n", "line 2: tpa_d has values of its own; expected a text"),
        ("base: none\n", "line 1: no file none.yaml beside"),
        ("base: mine\n", "is its own base"),
        ("base: align-ti\nteacher_path: ${run}/t\n", r"\$\{run\} in '\$\{run\}/t' stands for nothing"),
        ("runs: ${runs}\nmodule: m\noutput_dir: ${runs}\n", "stands for nothing"),
        ("tpa_d: 1\n", "the recipe mine has no `module`"),
        ("- 1\n", "line 1: expected `key: value`"),
        ("a: [\n", "mine.yaml cannot be read"),
        ("base: align-ti\ndata_share: most\n", "data_share is 'most' of num_train_epochs '1'"),
    ],
)  # fmt: skip
def test_mistakes_in_a_file_are_named_with_their_line(tmp_path, text, message):
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(InputError, match=message):
        resolve(str(tmp_path / "mine.yaml"))


def test_mistakes_in_a_pair(tmp_path):
    pair = tmp_path / "pair.yaml"
    pair.write_text("student_lm: a\nfintune:\n  version: v1\n")
    with pytest.raises(InputError, match="line 2: no recipe reads a section 'fintune'; did you mean finetune"):
        resolve("align-ti", str(pair))
    pair.write_text("finetune:\n  verson: v1\n")
    with pytest.raises(InputError, match="pair.yaml, line 2: unknown key 'verson'; did you mean version"):
        resolve("align-ti", str(pair))
    with pytest.raises(InputError, match="no pair 'qwen3-8b-1.7'; did you mean qwen3-8b-1.7b"):
        resolve("align-ti", "qwen3-8b-1.7")


@pytest.mark.parametrize(
    "recipe, words, message",
    [
        ("align_ti", [], "no recipe 'align_ti'; did you mean align-ti"),
        ("align-ti", ["--tpa_dd", "1"], "unknown flag --tpa_dd; did you mean --tpa_d"),
        ("align-ti", ["8"], "unexpected argument '8': no flag takes it"),
        ("align-ti", ["--global_batch", "0"], "--global_batch is '0'; expected a whole number, 1 or more"),
        ("align-ti", ["--per_device_train_batch_size", "x"], "--per_device_train_batch_size is 'x'"),
        ("teacher-pretrain", ["--tpa_d", "8"], "--tpa_d belongs to distillation, and this stage has no teacher"),
        ("sft", ["--kd_temperature", "2"], "--kd_temperature belongs to distillation"),
        ("sft", ["--lerning_rate", "2"], "unknown flag --lerning_rate; did you mean --learning_rate"),
    ],
)
def test_mistakes_on_the_command_line(recipe, words, message):
    with pytest.raises(InputError, match=message):
        resolve(recipe, None, words)


def test_flags_are_read_as_parsers_read_them():
    words = ["--a", "1", "--b-c=2", "--d", "--report_to", "x", "y", "--n", "-2", "--a=3"]
    flags = parse_flags(words)
    assert flags == {"b_c": ("2",), "d": (), "report_to": ("x", "y"), "n": ("-2",), "a": ("3",)}
    assert parse_flags(words_of(flags)) == flags


def test_settings_of_deepspeed_are_found_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert Path(resolve("align-ti").text("deepspeed")) == ROOT / "scripts/deepspeed/zero2.json"
    assert resolve("align-ti", words=["--deepspeed", "mine.json"]).text("deepspeed") == "mine.json"


def test_a_plan_counts_what_is_not_there_yet(tmp_path):
    """The language model of a teacher to come; on the miniature whatever of the earlier stages is there."""
    words = ["--runs", str(tmp_path / "runs"), "--data_root", str(tmp_path)]
    assert for_plan(resolve("align-ti")).text("teacher_path") == "Qwen/Qwen2-7B"
    assert for_plan(resolve("align-ti", words=["--teacher_path", "hub/name"])).text("teacher_path") == "hub/name"
    mini = for_plan(resolve("align-ti", "mini", words))
    assert mini.text("teacher_path") == f"{tmp_path}/models/teacher-lm"
    assert mini.text("model_name_or_path") == f"{tmp_path}/models/student-lm"
    (tmp_path / "runs" / "student-words").mkdir(parents=True)
    assert for_plan(resolve("sft", "mini", words)).text("model_name_or_path") == f"{tmp_path}/runs/student-words"
    (tmp_path / "runs" / "student-pretrain").mkdir()
    assert for_plan(resolve("sft", "mini", words)).text("model_name_or_path") == f"{tmp_path}/runs/student-pretrain"
