import pytest
import torch
from tokenizers import Tokenizer, processors
from transformers import PreTrainedTokenizerFast

from llava.conversation import TEMPLATES, get_template
from llava.data.annotations.entry import EntryError
from llava.data.tokenize import TokenizedSample, tokenize_conversation
from llava.errors import InputError


@pytest.fixture(params=["qwen_tokenizer", "trimming_tokenizer", "llama_tokenizer", "legacy_llama_tokenizer"])
def tokenizer(request):
    return request.getfixturevalue(request.param)


def text(tokenizer, ids):
    """Text of ids, byte for byte (image sentinels left out, SentencePiece's marks as spaces)."""
    pieces = tokenizer.convert_ids_to_tokens([int(index) for index in ids if index >= 0])
    if any(piece.startswith("<0x") or "▁" in piece for piece in pieces):
        data = b""
        for piece in pieces:
            is_byte = len(piece) == 6 and piece.startswith("<0x")
            data += bytes([int(piece[3:5], 16)]) if is_byte else piece.replace("▁", " ").encode()
        return data.decode()
    return tokenizer.decode([int(index) for index in ids if index >= 0], clean_up_tokenization_spaces=False)


def test_masks_spell_the_right_words(tokenizer, talk):
    turns = talk("<image>\nWhat is 山羊?", "A 🐐 goat.\n", "Really, 🐐?", "  Yes.")
    for version, end in (("v1", "</s>"), ("qwen", "<|endoftext|>")):
        sample = tokenize_conversation(turns, tokenizer, get_template(version), 1)
        ids = sample.input_ids
        assert text(tokenizer, ids[sample.labels != -100]) == f" A 🐐 goat.\n{end}   Yes.{end}"
        assert text(tokenizer, ids[sample.instruction_mask]) == "What is 山羊? Really, 🐐?"
        assert text(tokenizer, ids[sample.end_of_turn_mask]) == end * 2
        assert torch.equal(ids[sample.labels != -100], sample.labels[sample.labels != -100])
        assert (ids == -200).sum() == 1


def test_chatml_targets_leave_out_the_newline_after_the_turn(qwen_tokenizer, talk):
    sample = tokenize_conversation(talk("<image>\nWhat?", "A goat."), qwen_tokenizer, get_template("qwen_2"), 1)
    assert text(qwen_tokenizer, sample.input_ids[sample.labels != -100]) == "A goat.<|im_end|>"
    assert sample.labels[-1] == -100
    assert text(qwen_tokenizer, sample.input_ids[-1:]) == "\n"
    assert text(qwen_tokenizer, sample.input_ids[sample.instruction_mask]) == "What?"


def test_a_word_that_means_something_elsewhere_changes_nothing(qwen_tokenizer, talk):
    """Answers that hold role tags or turn ends, which break masks that are searched for in the text."""
    answer = "Write ASSISTANT: and USER: there.<|endoftext|> ASSISTANT: more"
    sample = tokenize_conversation(talk("q", answer, "q2", "b"), qwen_tokenizer, get_template("qwen"), 0)
    targets = text(qwen_tokenizer, sample.input_ids[sample.labels != -100])
    assert targets == f" {answer}<|endoftext|> b<|endoftext|>"
    assert sample.end_of_turn_mask.sum() == 2


@pytest.mark.parametrize("version", sorted(TEMPLATES))
def test_position_zero_is_never_a_target(tokenizer, talk, version):
    sample = tokenize_conversation(talk("Caption it.", "A goat."), tokenizer, get_template(version), 0)
    assert sample.labels[0] == -100
    assert (sample.labels != -100).any()


def test_several_images(tokenizer, talk):
    turns = talk("<image> or <image>?", "Left.", "And <image>?", "No.")
    sample = tokenize_conversation(turns, tokenizer, get_template("qwen"), 3)
    assert (sample.input_ids == -200).sum() == 3
    assert text(tokenizer, sample.input_ids[sample.instruction_mask]) == "or ?And ?"
    assert not sample.instruction_mask[sample.input_ids == -200].any()
    assert not (sample.labels != -100)[sample.input_ids == -200].any()


def test_bos_stands_once_and_belongs_to_nothing(llama_tokenizer, talk):
    sample = tokenize_conversation(talk("<image>\nWhat?", "A."), llama_tokenizer, get_template("v1"), 1)
    assert (sample.input_ids == llama_tokenizer.bos_token_id).sum() == 1
    assert sample.input_ids[0] == llama_tokenizer.bos_token_id
    plain = tokenize_conversation(talk("<image>", "A."), llama_tokenizer, get_template("plain"), 1)
    assert plain.input_ids[:2].tolist() == [llama_tokenizer.bos_token_id, -200]
    assert plain.labels[:2].tolist() == [-100, -100]
    assert (plain.labels[2:] != -100).all()


def test_white_space_at_the_end_stays_with_its_turn(tokenizer, talk):
    sample = tokenize_conversation(talk("q  ", "A.  "), tokenizer, get_template("v1"), 0)
    assert text(tokenizer, sample.input_ids[sample.end_of_turn_mask]) == "</s>"
    assert text(tokenizer, sample.input_ids[sample.labels != -100]) == " A.  </s>"
    assert text(tokenizer, sample.input_ids[sample.instruction_mask]).startswith(" q ")


def test_tokens_that_the_tokenizer_adds_are_no_targets(llama_tokenizer, talk):
    """A tokenizer that closes every text with EOS of its own."""
    backend = Tokenizer.from_str(llama_tokenizer.backend_tokenizer.to_str())
    special = [("<s>", 1), ("</s>", 2)]
    backend.post_processor = processors.TemplateProcessing("<s> $A </s>", special_tokens=special)
    closing = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>")
    sample = tokenize_conversation(talk("<image>", "A."), closing, get_template("plain"), 1)
    assert sample.input_ids[-1] == 2 and sample.labels[-1] == -100
    assert (sample.labels[3:-1] != -100).all()


def test_unused_turns_are_dropped(qwen_tokenizer, talk):
    template = get_template("qwen")
    core = talk("q", "a")
    expected = tokenize_conversation(core, qwen_tokenizer, template, 0)
    full = [{"from": "gpt", "value": "Hello."}, *core, {"from": "human", "value": "And?"}]
    assert torch.equal(tokenize_conversation(full, qwen_tokenizer, template, 0).input_ids, expected.input_ids)


def test_plain_takes_one_pair_only(qwen_tokenizer, talk):
    with pytest.raises(InputError, match="'plain'.*4 turns"):
        tokenize_conversation(talk("<image>", "a", "q", "b"), qwen_tokenizer, get_template("plain"), 1)


def test_slow_tokenizer_is_refused(talk, tmp_path):
    from transformers import CanineTokenizer

    with pytest.raises(InputError, match="CanineTokenizer.*offsets.*fast"):
        tokenize_conversation(talk("q", "a"), CanineTokenizer(), get_template("qwen"), 0)


class TestTruncation:
    visual = 10

    @pytest.fixture
    def sample(self, qwen_tokenizer, talk) -> TokenizedSample:
        turns = talk("<image>\nWhat is it?", "A red apple.", "Sure?", "Yes.")
        return tokenize_conversation(turns, qwen_tokenizer, get_template("qwen"), 1)

    def test_spliced_length(self, sample):
        assert sample.spliced_length(self.visual) == len(sample.input_ids) + self.visual - 1

    def test_what_fits_is_left_alone(self, sample):
        assert sample.truncate(sample.spliced_length(self.visual), self.visual) is sample

    def test_every_limit(self, sample):
        """At each limit: as long as possible, a prefix of the sample, or the right complaint."""
        full = sample.spliced_length(self.visual)
        image_end = int((sample.input_ids == -200).nonzero()) + self.visual
        first_target = int((sample.labels != -100).nonzero()[0]) + self.visual - 1
        seen = set()
        for limit in range(1, full):
            try:
                cut = sample.truncate(limit, self.visual)
            except EntryError as error:
                seen.add(error.kind)
                assert error.kind == ("image cut away" if limit < image_end else "answer cut away")
                assert limit <= first_target
                assert f"{full} positions" in str(error) and f"limit is {limit}" in str(error)
                continue
            assert limit > first_target
            assert cut.spliced_length(self.visual) == limit
            for name, tensor in vars(cut).items():
                assert torch.equal(tensor, getattr(sample, name)[: len(tensor)])
        assert seen == {"image cut away", "answer cut away"}

    def test_late_image_is_not_cut_silently(self, qwen_tokenizer, talk):
        turns = talk("q", "a", "<image>\nAnd this?", "b")
        sample = tokenize_conversation(turns, qwen_tokenizer, get_template("qwen"), 1)
        with pytest.raises(EntryError, match="an image is cut away"):
            sample.truncate(int((sample.input_ids == -200).nonzero()) + self.visual - 1, self.visual)
