"""The report as a file: what is in it, what it asks for, and what it says where there is nothing to show."""

from __future__ import annotations

import base64
import io
import time
from html.parser import HTMLParser
from pathlib import Path

import pytest
from evaluation_support import header, row, truth
from PIL import Image
from report_support import LABELS, evaluated, full_report

from coordcore import InputError
from coordcore_detection.evaluate.evaluation import evaluate
from coordcore_detection.report.write import require_free, write_report

SECTIONS = (
    *("metrics", "training", "offsets", "images", "distributions"),
    *("precision", "calibration", "errors", "contract", "manifest"),
)


class Page(HTMLParser):
    """What a browser would see of the page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.addresses: list[str] = []
        self.images: list[dict[str, str]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attributes}
        self.tags.append(tag)
        self.ids += [found["id"]] if "id" in found else []
        self.links += [found["href"]] if "href" in found else []
        self.addresses += [found[name] for name in ("src", "href", "action", "srcset", "data") if name in found]
        if tag == "img":
            self.images.append(found)
        if tag not in ("meta", "img", "br", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return full_report(tmp_path_factory.mktemp("full"))


@pytest.fixture(scope="module")
def page(path: Path) -> Page:
    return Page(path)


def picture(source: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2])))


def test_every_section_is_there_once_and_in_the_contents(page: Page) -> None:
    assert [id_ for id_ in page.ids if not id_.endswith("-title")] == list(SECTIONS)
    assert page.links == [f"#{section}" for section in SECTIONS]


def test_the_tags_are_closed(page: Page) -> None:
    assert page.open == []


def test_every_image_lies_in_the_page_and_decodes(page: Page) -> None:
    kinds = {(image["src"].partition(",")[0], str(picture(image["src"]).format)) for image in page.images}
    assert kinds == {("data:image/png;base64", "PNG"), ("data:image/jpeg;base64", "JPEG")}
    assert min(min(picture(image["src"]).size) for image in page.images) > 100


def test_every_image_is_described(page: Page) -> None:
    assert min(len(image["alt"]) for image in page.images) > 10


def test_nothing_is_asked_from_outside(page: Page, path: Path) -> None:
    assert {address.partition(":")[0] for address in page.addresses if not address.startswith("#")} == {"data"}
    assert "http" not in path.read_text().replace("http-equiv", "")


def test_nothing_from_data_becomes_a_tag(page: Page) -> None:
    assert {"script", "b"} & set(page.tags) == set()
    assert LABELS[1] in page.text
    assert "try <b>1<b>" in page.text


def test_what_html_and_utf8_cannot_hold_is_shown_all_the_same(tmp_path: Path) -> None:
    result = evaluated(1)[2].result
    result.checkpoint, result.notes = "runs/odd\udcff", ["a\x00b\x9b31m\u202ec"]
    text = Page(write_report(tmp_path, result)).text
    assert ("Detection report: odd\\udcff" in text, r"a\x00b\x9b31m\u202ec" in text) == (True, True)


def test_each_picture_is_a_file_too(page: Page, path: Path) -> None:
    files = sorted((path.parent / "report").iterdir())
    assert len(files) == len(page.images)
    assert {Image.open(file).format for file in files} == {"PNG"}


def test_the_plots_are_those_that_were_asked_for(path: Path) -> None:
    names = {file.stem for file in (path.parent / "report").iterdir()}
    assert names >= {
        *("training-loss", "training-text_ce-ce", "training-soft-far", "training-grad_norm"),
        *(
            "training-learning-rate",
            "training-checkpoints",
            "offset-norms-head_offset",
            "best-1",
            "worst-1",
            "random-1",
        ),
        *("distribution-1-x1", "distribution-2-y2", "precision-recall-by_label", "precision-recall-agnostic"),
        *("calibration-by_label", "error-by-size", "error-by-coordinate", "found-by-size"),
    }


def test_each_ap_stands_beside_its_ceiling(page: Page) -> None:
    assert page.text.count("; ceiling ") == 3  # AP, AP50, AP75


def test_the_manifest_is_there_as_text(page: Page) -> None:
    assert "[loss.soft]\nwidth = 10.0" in page.text


def test_an_evaluation_without_a_run_says_so(tmp_path: Path) -> None:
    truths, _, found = evaluated(3)
    text = Page(write_report(tmp_path, found.result, evaluated=found, truth=truths)).text
    assert text.count("The predictions come from no run folder.") == 3
    assert "No distribution was recorded" in text


def test_a_result_alone_makes_a_report(tmp_path: Path) -> None:
    _, _, found = evaluated(3)
    page = Page(write_report(tmp_path, found.result))
    assert [id_ for id_ in page.ids if not id_.endswith("-title")] == list(SECTIONS)
    assert page.text.count("was read without its predictions and ground truth") == 2


@pytest.mark.parametrize("boxes", [[], [("cat", (1.0, 1.0, 9.0, 9.0))]], ids=["no truth", "no answer"])
def test_nothing_to_compare_makes_a_report(tmp_path: Path, boxes: list[tuple[str, tuple[float, ...]]]) -> None:
    truths = [truth("a", boxes)]
    found = evaluate(truths, header(), [row("a", [])])
    page = Page(write_report(tmp_path, found.result, evaluated=found, truth=truths))
    assert len(page.images) == (4 if boxes else 0)  # the image, two curves, the share found


def test_a_former_report_is_replaced(tmp_path: Path) -> None:
    truths, _, found = evaluated(6)
    write_report(tmp_path, found.result, evaluated=found, truth=truths)
    write_report(tmp_path, found.result)
    assert not (tmp_path / "report" / "best-1.png").exists()


def test_pictures_of_others_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "mine.png").write_bytes(b"")
    write_report(tmp_path, evaluated(3)[2].result)
    assert (tmp_path / "report" / "mine.png").exists()


def test_a_report_is_not_replaced_unasked(tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text("mine")
    with pytest.raises(InputError, match="exists; replace it with --overwrite"):
        require_free(tmp_path, overwrite=False)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "report").write_text("a file")
    with pytest.raises(InputError, match=r"report: cannot be written: file exists"):
        write_report(tmp_path, evaluated(1)[2].result)


def test_the_same_evaluation_gives_the_same_file(tmp_path: Path, path: Path) -> None:
    again = full_report(tmp_path).read_text()
    assert again == path.read_text()


def test_settings_of_matplotlib_play_no_part_and_are_left_alone(tmp_path: Path) -> None:
    import matplotlib

    found = evaluated(3)[2].result
    write_report(tmp_path / "a", found)
    with matplotlib.rc_context({"axes.facecolor": "black", "font.size": 30.0}):
        write_report(tmp_path / "b", found)
        assert matplotlib.rcParams["font.size"] == 30.0
    assert (tmp_path / "a" / "report.html").read_text() == (tmp_path / "b" / "report.html").read_text()


def test_a_report_of_200_photographs_is_small_and_quick(tmp_path: Path) -> None:
    started = time.process_time()
    written = full_report(tmp_path, 200, size=(1024, 768))
    assert time.process_time() - started < 20  # 10 s of an idle core, and room for a slow one
    assert written.stat().st_size < 5_000_000
