"""The four mixes of the paper (Table 12): their published files and expected counts.

All numbers are stated by a publisher. A size or checksum is None if no publisher states one. Counts that the paper or a
data card rounds have the unit they were rounded to.
"""

from dataclasses import dataclass
from pathlib import Path

from llava.errors import InputError
from llava.prepare.image_folders import LAION
from llava.prepare.web import web_address


@dataclass(frozen=True)
class Expected:
    """A published number of rows.

    Attributes:
        what: What is counted: the name of an image folder, or "" for all rows.
        rows: The published number.
        unit: The unit it was rounded to; 1 for an exact number.
        stated_by: The source of the number.
    """

    what: str
    rows: int
    unit: int
    stated_by: str

    def agrees(self, found: int) -> bool:
        """Whether ``found`` may have been rounded (up or down) to the published number."""
        return found == self.rows if self.unit == 1 else abs(found - self.rows) < self.unit


@dataclass(frozen=True)
class Mix:
    """One training set and the published file it is made from.

    Attributes:
        name: Name on the command line.
        stage: The training stage that uses it.
        script: The launch script of that stage.
        content: A short description of its content.
        places: Possible paths of its file in the data folder; downloads are written to the first.
        hub_path: Path of its file on the hub.
        size: Size of the file as stated on its page, None if unknown.
        sha256: Checksum of the file, None if unknown.
        expected: Published counts.
        image_prefix: Prefix for image paths, if the file gives them relative to its own image folder.
    """

    name: str
    stage: str
    script: str
    content: str
    places: tuple[str, ...]
    hub_path: str
    size: str | None
    sha256: str | None
    expected: tuple[Expected, ...]
    image_prefix: str = ""

    @property
    def url(self) -> str:
        """Address of the file."""
        return web_address(self.hub_path)

    def find(self, data: Path) -> Path | None:
        """The mix's file in the data folder, None if it is missing."""
        return next((data / place for place in self.places if (data / place).is_file()), None)


_TABLE = "the paper's Table 12"
_COUNTED = "https://github.com/haotian-liu/LLaVA/issues/657"

MIXES = {
    mix.name: mix
    for mix in (
        Mix(
            name="teacher-pretrain",
            stage="teacher, stage 1",
            script="scripts/teacher/pretrain.sh",
            content="LLaVA-558k captions",
            places=("LLaVA-Pretrain/blip_laion_cc_sbu_558k.json", "blip_laion_cc_sbu_558k.json"),
            hub_path="datasets/liuhaotian/LLaVA-Pretrain/resolve/main/blip_laion_cc_sbu_558k.json",
            size="181 MB",
            sha256=None,
            expected=(Expected("", 558_128, 1, "data cards of its copies on the hub"),),
            image_prefix=LAION,
        ),
        Mix(
            name="teacher-finetune",
            stage="teacher, stage 2",
            script="scripts/teacher/finetune.sh",
            content="LLaVA-1.5 mix of 665k",
            places=("llava_v1_5_mix665k.json",),
            hub_path="datasets/liuhaotian/LLaVA-Instruct-150K/resolve/main/llava_v1_5_mix665k.json",
            size=None,
            sha256=None,
            expected=(
                Expected("", 665_298, 1, _COUNTED),
                Expected("coco/train2017", 364_100, 1, _COUNTED),
                Expected("gqa/images", 72_140, 1, _COUNTED),
                Expected("ocr_vqa/images", 80_000, 1, _COUNTED),
                Expected("textvqa/train_images", 21_953, 1, _COUNTED),
                Expected("text only", 40_688, 1, _COUNTED),
            ),
        ),
        Mix(
            name="student-pretrain",
            stage="student, stage 1",
            script="scripts/student/pretrain.sh",
            content="ShareGPT4V-PT captions, 1.2M",
            places=(
                "share-captioner_coco_lcs_sam_1246k_1107.json",
                "sharegpt4v/share-captioner_coco_lcs_sam_1246k_1107.json",
            ),
            hub_path="datasets/Lin-Chen/ShareGPT4V/resolve/main/share-captioner_coco_lcs_sam_1246k_1107.json",
            size="1.49 GB",
            sha256="5c5f0f4ee58d7b7467f9e49eb5b17f930890a8a0c18a4e2a5be6b15714ef8b3c",
            expected=(Expected("", 1_246_000, 1_000, "ShareGPT4V's data page"),),
        ),
        Mix(
            name="student-finetune",
            stage="student, stage 2",
            script="scripts/distill/align_ti.sh",
            content="MobileVLM_V2_FT_Mix2M: ShareGPT4V 665k, SBU 844k, COCO captions 592k, Visual Dialog 123k, "
            "IConQA 107k, VIGC 37k, TextVQA 35k, VSR 13k, ScienceQA 13k",
            places=("MobileVLM_V2_FT_Mix2M.json",),
            hub_path="datasets/mtgv/MobileVLM_V2_FT_Mix2M/resolve/main/MobileVLM_V2_FT_Mix2M.json",
            size="1.4 GB",
            sha256="a73f7f388b67349aab7b543b2fff00220bbb17aff317bfb988871adf320c9de3",
            expected=(
                Expected("", 2_400_000, 100_000, _TABLE),
                Expected("SBU/images", 844_000, 1_000, _TABLE),
                Expected("iconqa_data/iconqa", 107_000, 1_000, _TABLE),
            ),
        ),
    )
}


def get_mix(name: str) -> Mix:
    """A mix by name.

    Raises:
        InputError: There is no such mix; the message lists the mixes.
    """
    if name not in MIXES:
        raise InputError(f"unknown mix {name!r}; expected {', '.join(MIXES)}, or all")
    return MIXES[name]
