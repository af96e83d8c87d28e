"""Sources of the six benchmarks' files and images, and their numbers of questions.

A checksum is given only if it is published: eval.zip's is the same in four independent copies on the hub (their Git LFS
pointers). For the other files the manifest records what was downloaded, and counts are compared with published ones.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from llava.errors import InputError
from llava.eval.benchmark import Benchmark
from llava.eval.benchmarks import gqa, mme, pope, sqa, textvqa
from llava.eval.registry import BENCHMARKS
from llava.prepare.benchmarks import questions as make
from llava.prepare.benchmarks.files import Published
from llava.prepare.sources import Expected
from llava.prepare.web import Mirror

LLAVA = "LLaVA's question file"


@dataclass(frozen=True)
class Pictures:
    """A benchmark's images, which are not downloaded.

    Attributes:
        places: Folders in the benchmark's folder where the evaluation looks for them; the first is the usual one.
        get: Address and size of the archive.
        unpack_in: Where in the benchmark's folder to unpack the archive.
        shared: Folder of the training data with the same images, "" if there is none.
        mirrors: Copies on the hub.
    """

    places: tuple[str, ...]
    get: str
    unpack_in: str
    shared: str = ""
    mirrors: tuple[Mirror, ...] = ()


@dataclass(frozen=True)
class BenchmarkSource:
    """The files of a benchmark and their sources.

    Attributes:
        name: Name on the command line.
        title: Title in reports.
        files: Published files.
        make: Makes the question file's text from the published files in the benchmark's folder; None if a published
            file is the question file.
        expected: Published counts, by the question file's name.
        question_bytes: Size of LLaVA's question file, None if unknown.
        pictures: Its images; None if they are inside the published files.
        absent_pictures: What to do if the published files lack images.
    """

    name: str
    title: str
    files: tuple[Published, ...]
    make: Callable[[Path], str] | None
    expected: Mapping[str, tuple[Expected, ...]]
    question_bytes: int | None = None
    pictures: Pictures | None = None
    absent_pictures: str = ""

    @property
    def benchmark(self) -> Benchmark:
        """The benchmark as defined in the evaluation."""
        return BENCHMARKS[self.name]

    def folder(self, root: Path) -> Path:
        """Its folder in the evaluation root: the first that exists, otherwise the default one."""
        folders = [root / name for name in self.benchmark.folders]
        return next((folder for folder in folders if folder.is_dir()), folders[0])

    def question_file(self, folder: Path) -> Path | None:
        """Its question file; None if it is missing."""
        return next((folder / name for name in self.benchmark.questions if (folder / name).is_file()), None)


def _counts(total: int, stated_by: str = LLAVA, **parts: int) -> tuple[Expected, ...]:
    named = {"": total, **{name.replace("_", " "): number for name, number in parts.items()}}
    return tuple(Expected(what, number, 1, stated_by) for what, number in named.items())


_SCIENCEQA = "https://raw.githubusercontent.com/lupantech/ScienceQA/main/data/scienceqa"
_POPE = "https://raw.githubusercontent.com/AoiDragon/POPE/e3e39262c85a6a83f26cf5094022a782cb0df58d/output/coco"
_TEXTVQA = "https://dl.fbaipublicfiles.com/textvqa"
_MMBENCH = "https://download.openmmlab.com/mmclassification/datasets/mmbench"
_MME_TERMS = (
    "for academic research only, not to be redistributed (the release's readme.txt; "
    "https://github.com/BradyFU/Awesome-Multimodal-Large-Language-Models/tree/Evaluation)"
)

EVAL_ZIP = Published(
    place="eval.zip",
    urls=("datasets/ej2/llava_eval/resolve/main/eval.zip", "datasets/the-Lin/benchmark_llava/resolve/main/eval.zip"),
    size="23 MB",
    sha256="2df36a33e3d3947d3e351e627449ee7cc7725d69ecc8dcbb2103d90172fbe17a",
)
"""LLaVA's own question files. LLaVA offers them on Google Drive, which a plain client cannot download from; these are
copies on the hub."""
EVAL_ZIP_PAGE = "https://drive.google.com/file/d/1atZSBBrAX54yYpxtVVW33zFvcnaHeFPy"

SOURCES: Mapping[str, BenchmarkSource] = MappingProxyType(
    {
        source.name: source
        for source in (
            BenchmarkSource(
                name="gqa",
                title="GQA, test-dev balanced",
                files=(
                    Published(
                        gqa.ANNOTATIONS[0],
                        ("https://downloads.cs.stanford.edu/nlp/data/gqa/questions1.2.zip",),
                        size="1.4 GB",
                        member="testdev_balanced_questions.json",
                        also_at=gqa.ANNOTATIONS[1:],
                    ),
                ),
                make=make.gqa_questions,
                expected={"llava_gqa_testdev_balanced.jsonl": _counts(12_578, images=398)},
                question_bytes=2_276_997,
                pictures=Pictures(
                    gqa.PICTURES,
                    "https://downloads.cs.stanford.edu/nlp/data/gqa/images.zip (21.8 GB)",
                    unpack_in="data",
                    shared="gqa/images",
                    mirrors=(
                        Mirror(
                            "datasets/lmms-lab/GQA/tree/main/testdev_balanced_images",
                            "66 MB",
                            "only the 398 images of test-dev, in a Parquet file: save each as ID.jpg",
                        ),
                    ),
                ),
            ),
            BenchmarkSource(
                name="sqa",
                title="ScienceQA, test split",
                files=(
                    Published(sqa.PROBLEMS, (f"{_SCIENCEQA}/{sqa.PROBLEMS}",)),
                    Published(sqa.SPLITS, (f"{_SCIENCEQA}/{sqa.SPLITS}",)),
                ),
                make=make.sqa_questions,
                expected={"llava_test_CQM-A.json": _counts(4_241, with_an_image=2_017)},
                question_bytes=1_932_005,
                pictures=Pictures(
                    sqa.PICTURES,
                    "https://scienceqa.s3.us-west-1.amazonaws.com/images/test.zip, or test.zip from "
                    "https://drive.google.com/drive/folders/1w8imCXWYn2LxajmGeGH_g5DaL2rabHev",
                    unpack_in="images",
                ),
            ),
            BenchmarkSource(
                name="textvqa",
                title="TextVQA, validation split, with OCR tokens",
                files=(
                    Published(textvqa.ANNOTATION, (f"{_TEXTVQA}/data/{textvqa.ANNOTATION}",)),
                    Published(make.OCR_FILE, (f"{_TEXTVQA}/data/{make.OCR_FILE}",), for_questions=True),
                ),
                make=make.textvqa_questions,
                expected={"llava_textvqa_val_v051_ocr.jsonl": _counts(5_000, images=3_166)},
                question_bytes=1_548_730,
                pictures=Pictures(
                    textvqa.PICTURES,
                    f"{_TEXTVQA}/images/train_val_images.zip (7.1 GB)",
                    unpack_in=".",
                    shared="textvqa/train_images",
                    mirrors=(Mirror("leonardPKU/llava1.5_data/resolve/main/textvqa_train_val_images.zip", "7.1 GB"),),
                ),
            ),
            BenchmarkSource(
                name="pope",
                title="POPE on COCO",
                files=tuple(
                    Published(
                        f"coco/{pope.PREFIX}{category}.json",
                        (f"{_POPE}/{pope.PREFIX}{category}.json",),
                        also_at=(f"{pope.PREFIX}{category}.json",),
                    )
                    for category in make.POPE_OFFSETS
                ),
                make=make.pope_questions,
                expected={
                    "llava_pope_test.jsonl": _counts(8_910, adversarial=3_000, random=2_910, popular=3_000, images=500)
                },
                question_bytes=1_657_039,
                pictures=Pictures(
                    pope.PICTURES, "http://images.cocodataset.org/zips/val2014.zip (6.6 GB)", unpack_in="."
                ),
            ),
            BenchmarkSource(
                name="mme",
                title="MME",
                files=(
                    Published(
                        mme.RELEASE,
                        ("datasets/darkyarding/MME/resolve/main/MME_Benchmark_release_version.zip",),
                        holds="existence",
                        also_at=tuple(place for place in mme.PLACES if not place.startswith(mme.RELEASE)),
                        terms=_MME_TERMS,
                    ),
                ),
                make=make.mme_questions,
                expected={"llava_mme.jsonl": _counts(2_374, images=1_187)},
                question_bytes=564_644,
                absent_pictures="the release's readme.txt says where to get the images of landmark and artwork",
            ),
            BenchmarkSource(
                name="mmbench",
                title="MMBench, English, dev",
                files=(
                    Published(
                        "mmbench_dev_20230712.tsv",
                        (
                            f"{_MMBENCH}/mmbench_dev_20230712.tsv",
                            "datasets/studymakesmehappyyyyy/llava_eval/resolve/main/MMB/mmbench_dev_20230712.tsv",
                        ),
                        size="138 MB",
                        also_at=("mmbench_dev_en_20231003.tsv",),
                    ),
                ),
                make=None,
                expected={
                    "mmbench_dev_20230712.tsv": _counts(4_377, "LLaVA's evaluation", asked_once=1_164),
                    "mmbench_dev_en_20231003.tsv": _counts(4_329, "lmms-lab's copy on the hub", asked_once=1_164),
                },
            ),
        )
    }
)


def get_sources(names: str) -> list[BenchmarkSource]:
    """Sources by comma-separated names of benchmarks; ``all`` means the six.

    Raises:
        InputError: A name is unknown.
    """
    wanted = list(SOURCES) if names == "all" else list(dict.fromkeys(names.split(",")))
    unknown = [name for name in wanted if name not in SOURCES]
    if unknown:
        raise InputError(f"unknown benchmark {unknown[0]!r}; expected {', '.join(SOURCES)}, or all")
    return [SOURCES[name] for name in wanted]
