"""The image folders that the mixes refer to, and where to get their images.

Images are never downloaded. Mirrors are listed because some of the publishers' addresses are dead (most of OCR-VQA's).
Copies that state that their images were changed (for example resized) are not listed.
"""

from dataclasses import dataclass
from pathlib import Path

from llava.prepare.web import HUB, Mirror


@dataclass(frozen=True)
class ImageFolder:
    """An image folder that mixes refer to.

    Attributes:
        path: Its path in the data folder.
        get: Where to get its images.
        unpack_in: Where in the data folder to unpack the publisher's archive; "" if there is no single archive.
        mirrors: Copies on the hub.
        also_at: Other common paths in the data folder; the first that exists is used.
    """

    path: str
    get: str
    unpack_in: str = ""
    mirrors: tuple[Mirror, ...] = ()
    also_at: tuple[str, ...] = ()

    def find(self, data: Path) -> str:
        """Its path in ``data``: ``path``, or an alternative if only that exists."""
        places = (self.path, *self.also_at)
        return next((place for place in places if (data / place).is_dir()), self.path)

    def sources(self, data: Path) -> list[str]:
        """Where to get it, the publisher first."""
        where = f", to be unpacked in {data / self.unpack_in}" if self.unpack_in else ""
        return [f"{self.get}{where}", *(f"or a mirror: {mirror}" for mirror in self.mirrors)]


LAION = "llava/llava_pretrain/images"
_WEB_DATA = (
    "https://drive.google.com/drive/folders/1tCUQ-sq6vdshZVkF0ZeF3K4eztkXJgax (ShareGPT4V's web data, academic use)"
)
_VG = "https://cs.stanford.edu/people/rak248/VG_100K_2/"
_COCO = "http://images.cocodataset.org/zips/"
_LLAVA15 = "leonardPKU/llava1.5_data/resolve/main/"
_DATAOPTIM = "datasets/BAAI/DataOptim/resolve/main/images/"
_SHAREGPT4V = "datasets/teowu/ShareGPT-WebData/resolve/main/"


def _web(name: str, size: str) -> ImageFolder:
    return ImageFolder(f"{name}/images", _WEB_DATA, mirrors=(Mirror(f"{_SHAREGPT4V}{name}.zip", size),))


IMAGE_FOLDERS = {
    folder.path: folder
    for folder in (
        ImageFolder(
            LAION,
            f"{HUB}/datasets/liuhaotian/LLaVA-Pretrain/resolve/main/images.zip (27.4 GB)",
            unpack_in=LAION,
            also_at=("LLaVA-Pretrain/images",),
        ),
        ImageFolder(
            "coco/train2017",
            f"{_COCO}train2017.zip (19.3 GB)",
            unpack_in="coco",
            mirrors=(Mirror(f"{_LLAVA15}coco.zip", "19.3 GB"),),
        ),
        ImageFolder("coco/val2017", f"{_COCO}val2017.zip (1 GB)", unpack_in="coco"),
        ImageFolder(
            "gqa/images",
            "https://downloads.cs.stanford.edu/nlp/data/gqa/images.zip (21.8 GB)",
            unpack_in="gqa",
            mirrors=(Mirror(f"{_LLAVA15}gqa_images.zip", "21.8 GB"),),
        ),
        ImageFolder(
            "ocr_vqa/images",
            "https://drive.google.com/drive/folders/1_GYPY5UkUy7HIcR0zq3ZCFgeZN7BAfm_ (a download script; most of "
            "its addresses no longer answer; save all as .jpg)",
            mirrors=(
                Mirror(
                    "datasets/weizhiwang/llava_v15_instruction_images/resolve/main/ocr_vqa_images_llava_v15.zip",
                    "9.0 GB",
                    "made for LLaVA's mix, github.com/haotian-liu/LLaVA/pull/1458",
                ),
                Mirror(f"{_DATAOPTIM}ocrvqa/ocrvqa.zip", "8.9 GB"),
            ),
        ),
        ImageFolder(
            "textvqa/train_images",
            "https://dl.fbaipublicfiles.com/textvqa/images/train_val_images.zip (7.1 GB)",
            unpack_in="textvqa",
            mirrors=(Mirror(f"{_LLAVA15}textvqa_train_val_images.zip", "7.1 GB"),),
        ),
        ImageFolder(
            "vg/VG_100K",
            f"{_VG}images.zip (9.7 GB)",
            unpack_in="vg",
            mirrors=(Mirror(f"{_DATAOPTIM}visual_genome/images.zip", "9.7 GB"),),
        ),
        ImageFolder(
            "vg/VG_100K_2",
            f"{_VG}images2.zip (5.5 GB)",
            unpack_in="vg",
            mirrors=(Mirror(f"{_DATAOPTIM}visual_genome/images2.zip", "5.5 GB"),),
        ),
        ImageFolder(
            "sam/images",
            "https://ai.meta.com/datasets/segment-anything-downloads, sa_000000.tar to sa_000050.tar (after agreeing "
            "to SA-1B's licence)",
            mirrors=(
                Mirror(
                    f"{_SHAREGPT4V}sam_images_share-sft.zip",
                    "8.9 GB",
                    "the 9,000 of student-finetune; those of student-pretrain are available only from Meta",
                ),
            ),
        ),
        _web("web-celebrity", "103 MB"),
        _web("web-landmark", "227 MB"),
        _web("wikiart", "185 MB"),
        _web("share_textvqa", "126 MB"),
        ImageFolder("SBU/images", f"{HUB}/datasets/sbu_captions (links to Flickr, many of them gone)"),
        ImageFolder(
            "iconqa_data/iconqa",
            "https://iconqa2021.s3.us-west-1.amazonaws.com/iconqa_data.zip, or "
            "https://drive.google.com/file/d/1Xqdt1zMcMZU5N_u1SAIjk-UAclriynGx",
            unpack_in=".",
        ),
        ImageFolder(
            "ScienceQA/train",
            "https://scienceqa.s3.us-west-1.amazonaws.com/images/train.zip, or train.zip from "
            "https://drive.google.com/drive/folders/1w8imCXWYn2LxajmGeGH_g5DaL2rabHev",
            unpack_in="ScienceQA",
        ),
    )
}

_MIX665K = ("coco/train2017", "gqa/images", "ocr_vqa/images", "textvqa/train_images", "vg/VG_100K", "vg/VG_100K_2")
MIX_FOLDERS = {
    "teacher-pretrain": (LAION,),
    "teacher-finetune": _MIX665K,
    "student-pretrain": (LAION, "coco/train2017", "sam/images"),
    "student-finetune": tuple(IMAGE_FOLDERS),
}
"""The image folders that a mix's publishers list; a report counts the folders its rows actually use."""


def folder_of(image: str) -> str:
    """The known image folder that contains a path; for other paths their first two parts."""
    parts = image.split("/")[:-1]
    for length in range(min(len(parts), 3), 0, -1):
        start = "/".join(parts[:length])
        if start in IMAGE_FOLDERS:
            return start
    return "/".join(parts[:2]) or "."
