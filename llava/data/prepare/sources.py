"""The four mixes of the paper (Table 12): their published files, expected counts and image folders.

Only figures that a publisher states are here. Where a size or checksum is None, none was found stated by the
publisher; the counts that the paper or a data card rounds carry the unit they were rounded to.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from llava.errors import InputError

HUB = "https://huggingface.co"


def web_address(place: str) -> str:
    """The address of a file: ``place`` itself, or that of a path on the hub (``$HF_ENDPOINT`` names another hub)."""
    if place.startswith(("http://", "https://")):
        return place
    return f"{os.environ.get('HF_ENDPOINT', HUB).rstrip('/')}/{place}"


@dataclass(frozen=True)
class Mirror:
    """A copy of pictures on the hub, uploaded by somebody else than their publisher.

    That it exists and how large it is was read off stored pages of the hub; what is in it was not looked at.

    Attributes:
        hub_path: where it lies on the hub.
        size: as its page shows it.
        note: what there is to know about it.
    """

    hub_path: str
    size: str
    note: str = ""

    def __str__(self) -> str:
        return f"{web_address(self.hub_path)} ({self.size}{f'; {self.note}' if self.note else ''})"


@dataclass(frozen=True)
class Expected:
    """A published number of rows.

    Attributes:
        what: what is counted; the name of an image folder, or "" for all rows.
        rows: the number.
        unit: what it was rounded to; 1 for an exact one.
        stated_by: where it is written.
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
        name: its name on the command line.
        stage: what it trains.
        content: what is in it, in words.
        places: where its file may lie in the data folder; a download goes to the first.
        hub_path: where its file lies on the hub.
        size: the file's size as its page shows it, None if unknown.
        sha256: the file's checksum, None if unknown.
        expected: published counts.
        image_prefix: put before the image paths, which the file gives relative to its own image folder.
    """

    name: str
    stage: str
    content: str
    places: tuple[str, ...]
    hub_path: str
    size: str | None
    sha256: str | None
    expected: tuple[Expected, ...]
    image_prefix: str = ""

    @property
    def url(self) -> str:
        """Where the file can be downloaded."""
        return web_address(self.hub_path)

    @property
    def preset_variable(self) -> str:
        """The stem of the variables that tell the launch scripts where the mix lies."""
        return self.name.upper().replace("-", "_")

    def find(self, data: Path) -> Path | None:
        """The mix's file in the data folder, None without one."""
        return next((data / place for place in self.places if (data / place).is_file()), None)


@dataclass(frozen=True)
class ImageFolder:
    """A folder of pictures that mixes refer to.

    Attributes:
        path: where it lies in the data folder.
        get: where its pictures come from.
        also_at: other places where people keep it; the first that exists is used.
    """

    path: str
    get: str
    also_at: tuple[str, ...] = ()

    def find(self, data: Path) -> str:
        """Where it lies in ``data``: ``path``, or another place if only that one exists."""
        places = (self.path, *self.also_at)
        return next((place for place in places if (data / place).is_dir()), self.path)


_LAION = "llava/llava_pretrain/images"
_TABLE = "the paper's Table 12"
_COUNTED = "https://github.com/haotian-liu/LLaVA/issues/657"

MIXES = {
    mix.name: mix
    for mix in (
        Mix(
            name="teacher-pretrain",
            stage="teacher, stage 1",
            content="LLaVA-558k captions",
            places=("LLaVA-Pretrain/blip_laion_cc_sbu_558k.json", "blip_laion_cc_sbu_558k.json"),
            hub_path="datasets/liuhaotian/LLaVA-Pretrain/resolve/main/blip_laion_cc_sbu_558k.json",
            size="181 MB",
            sha256=None,
            expected=(Expected("", 558_128, 1, "data cards of its copies on the hub"),),
            image_prefix=_LAION,
        ),
        Mix(
            name="teacher-finetune",
            stage="teacher, stage 2",
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

_WEB_DATA = (
    "https://drive.google.com/drive/folders/1tCUQ-sq6vdshZVkF0ZeF3K4eztkXJgax (ShareGPT4V's web data, academic use)"
)
_VG = "https://cs.stanford.edu/people/rak248/VG_100K_2/images.zip and .../images2.zip"

IMAGE_FOLDERS = {
    folder.path: folder
    for folder in (
        ImageFolder(
            _LAION,
            f"{HUB}/datasets/liuhaotian/LLaVA-Pretrain/resolve/main/images.zip (27.4 GB)",
            also_at=("LLaVA-Pretrain/images",),
        ),
        ImageFolder("coco/train2017", "http://images.cocodataset.org/zips/train2017.zip"),
        ImageFolder("coco/val2017", "COCO's 2017 validation images, https://cocodataset.org"),
        ImageFolder("gqa/images", "https://downloads.cs.stanford.edu/nlp/data/gqa/images.zip"),
        ImageFolder(
            "ocr_vqa/images",
            "https://drive.google.com/drive/folders/1_GYPY5UkUy7HIcR0zq3ZCFgeZN7BAfm_ (script; save all as .jpg)",
        ),
        ImageFolder("textvqa/train_images", "https://dl.fbaipublicfiles.com/textvqa/images/train_val_images.zip"),
        ImageFolder("vg/VG_100K", _VG),
        ImageFolder("vg/VG_100K_2", _VG),
        ImageFolder("sam/images", "https://ai.meta.com/datasets/segment-anything-downloads, 000000 to 000050.tar"),
        ImageFolder("web-celebrity/images", _WEB_DATA),
        ImageFolder("web-landmark/images", _WEB_DATA),
        ImageFolder("wikiart/images", _WEB_DATA),
        ImageFolder("share_textvqa/images", _WEB_DATA),
        ImageFolder("SBU/images", f"{HUB}/datasets/sbu_captions (links to Flickr, many of them gone)"),
        ImageFolder(
            "iconqa_data/iconqa", "https://drive.google.com/file/d/1Xqdt1zMcMZU5N_u1SAIjk-UAclriynGx"
        ),
        ImageFolder(
            "ScienceQA/train", "https://drive.google.com/drive/folders/1w8imCXWYn2LxajmGeGH_g5DaL2rabHev"
        ),
    )
}  # fmt: skip

_MIX665K = ("coco/train2017", "gqa/images", "ocr_vqa/images", "textvqa/train_images", "vg/VG_100K", "vg/VG_100K_2")
MIX_FOLDERS = {
    "teacher-pretrain": (_LAION,),
    "teacher-finetune": _MIX665K,
    "student-pretrain": (_LAION, "coco/train2017", "sam/images"),
    "student-finetune": tuple(IMAGE_FOLDERS),
}
"""The image folders that a mix's publishers list; a report counts what its rows really name."""


def get_mix(name: str) -> Mix:
    """A mix by name.

    Raises:
        InputError: no such mix; the message lists them.
    """
    if name not in MIXES:
        raise InputError(f"no mix {name!r}; there are {', '.join(MIXES)}, and 'all' for the four of them")
    return MIXES[name]


def folder_of(image: str) -> str:
    """The known image folder that a path lies in; for others its first two parts."""
    parts = image.split("/")[:-1]
    for length in range(min(len(parts), 3), 0, -1):
        start = "/".join(parts[:length])
        if start in IMAGE_FOLDERS:
            return start
    return "/".join(parts[:2]) or "."
