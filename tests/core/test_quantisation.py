"""The quantisation conventions, for points and for boxes."""

from __future__ import annotations

import json

import attrs
import numpy as np
import pytest

from coordcore.errors import InputError
from coordcore.quantisation import (
    DEFAULT_QUANTISATION,
    QUANTISATIONS,
    Quantisation,
    count_outside,
    encode_boxes,
    quantisation,
    require_same,
)

# --- conventions ----------------------------------------------------------------------------------------------------

LARGEST_ERROR = {  # in bins; the oracle table of the documentation
    "nearest_999": 0.50,
    "qwen_1000": 1.00,
    "florence_1000": 0.50,
    "outward_999": 1.00,
    "floor_999": 1.00,
    "rex_reward": 2.00,
    "mixed_999_1000": 1.50,
    "coordexp_999": 1.56,  # the edge of the image is read a pixel before it; 1 up to there
    "paligemma_1024": 1.00,
}


def test_every_convention_has_its_row_in_the_table() -> None:
    assert list(QUANTISATIONS) == list(LARGEST_ERROR)


@pytest.mark.parametrize("name", LARGEST_ERROR)
def test_largest_error_in_bins(name: str) -> None:
    spec, size = quantisation(name), 640.0
    edges = np.arange(2 * spec.encode_scale + 1) / 2 / spec.encode_scale * size  # of bins, and of rounding to them
    pixels = np.clip(np.concatenate([edges - 1e-9, edges, edges + 1e-9]), 0, size)
    errors = [
        np.abs(spec.decode(spec.encode(pixels, size, upper=upper), size) - pixels) / size * spec.encode_scale
        for upper in (False, True)
    ]
    assert round(float(np.max(errors)), 2) == LARGEST_ERROR[name]


@pytest.mark.parametrize(
    ("name", "expected"),
    [  # of x = 0, 1, 5, 320.4, 639.5, 640 on 640 pixels, worked out by hand
        ("nearest_999", [0, 2, 8, 500, 998, 999]),
        ("qwen_1000", [0, 2, 8, 501, 999, 999]),
        ("florence_1000", [0, 1, 7, 500, 999, 999]),
        ("floor_999", [0, 1, 7, 500, 998, 999]),
        ("rex_reward", [0, 1, 7, 500, 998, 999]),
        ("mixed_999_1000", [0, 2, 8, 500, 998, 999]),
    ],
)
def test_encode(name: str, expected: list[int]) -> None:
    bins = quantisation(name).encode([0, 1, 5, 320.4, 639.5, 640], 640)
    assert (bins.tolist(), bins.dtype) == (expected, np.int64)


def test_halves_go_up_where_numpy_would_go_to_even() -> None:
    half_bins = np.array([0.5, 1.5, 2.5, 3.5])
    assert DEFAULT_QUANTISATION.encode(half_bins, 999).tolist() == [1, 2, 3, 4]
    assert np.round(half_bins).tolist() == [0, 2, 2, 4]


def test_the_largest_number_below_one_half_goes_down() -> None:
    below = np.nextafter(0.5, 0)
    assert (int(DEFAULT_QUANTISATION.encode(below, 999)), int(np.floor(below + 0.5))) == (0, 1)


def test_whole_pixels_on_a_bin_edge_are_floored_exactly() -> None:
    # 29 / 100 * 1000 is 289.99999999999994 in floating point.
    assert int(quantisation("florence_1000").encode(29, 100)) == 290


def test_outward_rounds_the_low_corner_down_and_the_high_corner_up() -> None:
    spec = quantisation("outward_999")
    assert spec.encode([10.2, 10.2], 999, upper=[False, True]).tolist() == [10, 11]


def test_outward_has_no_meaning_for_points() -> None:
    with pytest.raises(InputError, match="outward_999 rounds boxes outward and cannot encode single points"):
        quantisation("outward_999").encode([1.0], 10)


@pytest.mark.parametrize("name", ["nearest_999", "qwen_1000", "florence_1000"])
@pytest.mark.parametrize("size", [7, 640, 1333, 8191])
def test_a_decoded_bin_encodes_to_itself(name: str, size: int) -> None:
    spec, bins = quantisation(name), np.arange(1000)
    assert spec.encode(spec.decode(bins, size), size).tolist() == bins.tolist()


def test_size_broadcasts_over_corners() -> None:
    assert DEFAULT_QUANTISATION.encode([[640, 480, 320, 240]], [640, 480, 640, 480]).tolist() == [[999, 999, 500, 500]]


def test_bin_units_are_unrounded() -> None:
    assert DEFAULT_QUANTISATION.to_bin_units([0, 8, 640], 640).tolist() == [0.0, 12.4875, 999.0]


@pytest.mark.parametrize("name", ["nearest_999", "qwen_1000", "florence_1000", "rex_reward"])
def test_bin_units_decode_to_the_value(name: str) -> None:
    spec, pixels = quantisation(name), np.linspace(1, 638, 500)
    assert np.allclose(spec.decode(spec.to_bin_units(pixels, 640), 640), pixels, rtol=0, atol=1e-9)


def test_bin_units_end_at_the_last_bin() -> None:
    assert quantisation("qwen_1000").to_bin_units(640, 640) == 999.0


@pytest.mark.parametrize("value", [-0.001, 640.001, float("nan"), float("inf")])
def test_values_outside_the_image_or_not_finite_are_errors(value: float) -> None:
    with pytest.raises(InputError, match=r"lies outside the image|must be finite numbers"):
        DEFAULT_QUANTISATION.encode([3.0, value], 640)


def test_the_error_names_the_value_and_the_image() -> None:
    with pytest.raises(InputError) as error:
        DEFAULT_QUANTISATION.encode([3.0, 641.5], 640)
    assert str(error.value) == "value 641.5 lies outside the image (0..640 pixels); mend it or ask for clipping"


def test_clip_moves_to_the_edge_and_can_be_counted() -> None:
    values = [-5, 3, 700]
    assert DEFAULT_QUANTISATION.encode(values, 640, outside="clip").tolist() == [0, 5, 999]
    assert count_outside(values, 640) == 2


def test_clip_does_not_hide_nan() -> None:
    with pytest.raises(InputError, match="values must be finite numbers, got nan"):
        DEFAULT_QUANTISATION.encode([float("nan")], 640, outside="clip")


@pytest.mark.parametrize("size", [0, -3, float("nan")])
def test_a_size_that_is_no_size(size: float) -> None:
    with pytest.raises(InputError, match="image size must be"):
        DEFAULT_QUANTISATION.encode([1.0], size)


@pytest.mark.parametrize("values", [["12"], [True], [[1, 2], [3]], [None]])
def test_what_is_no_array_of_numbers(values: object) -> None:
    with pytest.raises(InputError, match="values must be"):
        DEFAULT_QUANTISATION.encode(values, 640)


def test_decode_of_pixels_says_so() -> None:
    with pytest.raises(InputError) as error:
        DEFAULT_QUANTISATION.decode([3, 1016], 640)
    assert str(error.value) == "bins must lie in 0..999; 1016 > 999: this looks like absolute pixels"


def test_unknown_convention_lists_the_names() -> None:
    with pytest.raises(InputError, match="unknown quantisation 'nearest'; available: nearest_999, qwen_1000, flor"):
        quantisation("nearest")


def test_as_dict_survives_json() -> None:
    spec = quantisation("florence_1000")
    assert Quantisation.from_dict(json.loads(json.dumps(spec.as_dict()))) == spec


def test_a_strangers_convention_can_be_read() -> None:
    spec = attrs.evolve(DEFAULT_QUANTISATION, name="mine", bins=500)
    assert Quantisation.from_dict(spec.as_dict()) == spec


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"extra": 1}, "p.json: must hold exactly name, version"),
        ({"rounding": "round"}, "p.json: 'rounding' must be in"),
        ({"encode_scale": "999"}, "p.json: 'encode_scale' must be"),
        ({"bins": 0}, "p.json: 'bins' must be > 1: 0"),
        ({"decode_shift": float("nan")}, "p.json: decode_shift must be a finite number, got nan"),
        ({"encode_scale": 1000.0}, "p.json is quantised as nearest_999 .* encode_scale 1000.0 against 999.0"),
    ],
)
def test_a_damaged_spec_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Quantisation.from_dict({**DEFAULT_QUANTISATION.as_dict(), **change}, source="p.json")


def test_a_spec_with_a_missing_entry_is_refused() -> None:
    data = DEFAULT_QUANTISATION.as_dict()
    del data["version"]
    with pytest.raises(InputError, match="must hold exactly"):
        Quantisation.from_dict(data)


def test_require_same_accepts_the_same() -> None:
    require_same(DEFAULT_QUANTISATION, quantisation("nearest_999"), "a", "b")


def test_require_same_names_both_owners_and_the_difference() -> None:
    with pytest.raises(InputError) as error:
        require_same(quantisation("floor_999"), quantisation("rex_reward"), "train.jsonl", "the run")
    assert str(error.value) == (
        "train.jsonl is quantised as floor_999 (version 1), the run as rex_reward (version 1): name floor_999 against "
        "rex_reward, decode_scale 999.0 against 1000.0; use one convention throughout ([coords] quantisation), or "
        "write the data again from pixels"
    )


# --- boxes ----------------------------------------------------------------------------------------------------------


def test_boxes_give_bins_and_unrounded_values() -> None:
    encoded = encode_boxes([[8, 4.8, 640, 480]], 640, 480)
    assert encoded.bins.tolist() == [[12, 10, 999, 999]]
    assert encoded.values.tolist() == [[12.4875, 9.99, 999.0, 999.0]]
    assert (encoded.widened, encoded.clipped) == (0, 0)


@pytest.mark.parametrize(
    ("box", "bins", "values"),
    [
        ([5.1, 0, 5.2, 9], [5, 0, 6, 9], [5.1, 0, 6, 9]),
        ([0, 7, 3, 7], [0, 7, 3, 8], [0, 7, 3, 8]),
        ([999, 0, 999, 9], [998, 0, 999, 9], [998, 0, 999, 9]),
        ([4, 4, 4, 4], [4, 4, 5, 5], [4, 4, 5, 5]),
    ],
)
def test_a_collapsed_box_is_widened_by_one_bin_and_counted(
    box: list[float], bins: list[int], values: list[float]
) -> None:
    encoded = encode_boxes([box, [0, 0, 9, 9]], 999, 999)
    assert encoded.bins.tolist() == [bins, [0, 0, 9, 9]]
    assert encoded.values[0].tolist() == pytest.approx(values, abs=1e-12)
    assert encoded.widened == 1


def test_boxes_round_outward_when_the_convention_says_so() -> None:
    encoded = encode_boxes([[10.2, 10.2, 20.2, 20.2]], 999, 999, quantisation=quantisation("outward_999"))
    assert encoded.bins.tolist() == [[10, 10, 21, 21]]


def test_clipped_boxes_are_counted() -> None:
    encoded = encode_boxes([[-3, 5, 50, 60], [1, 2, 3, 4], [9, 9, 700, 900]], 640, 480, outside="clip")
    assert (encoded.bins[0].tolist(), encoded.bins[2].tolist()) == ([0, 10, 78, 125], [14, 19, 999, 999])
    assert encoded.clipped == 2


@pytest.mark.parametrize("box", [[-9, 5, -3, 9], [-9, 5, 0, 9], [650, 5, 660, 9], [5, 480, 9, 490]])
def test_clipping_makes_up_no_box(box: list[float]) -> None:
    with pytest.raises(InputError, match=r"box 0 .* does not overlap the image of 640 x 480; leave it out"):
        encode_boxes([box], 640, 480, outside="clip")


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        ([[1, 1, 2, 2], [10, 0, 5, 9]], r"box 1 \[10.0, 0.0, 5.0, 9.0\]: corners are not x1 <= x2, y1 <= y2; is this"),
        ([[0, 0, 641, 9]], r"box 0 .*: lies outside the image of 640 x 480; mend it or ask for clipping"),
        ([[0, 0, float("nan"), 9]], "boxes must be finite numbers, got nan"),
        ([0, 0, 1, 9], r"boxes must have shape \[n, 4\] .* got \[4\]"),
        ([[0, 0, 1]], r"got \[1, 3\]"),
    ],
)
def test_bad_boxes_are_named(boxes: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        encode_boxes(boxes, 640, 480)


def test_no_boxes_are_fine() -> None:
    assert encode_boxes([], 640, 480).bins.shape == (0, 4)


# --- positions that are indices of pixels ---------------------------------------------------------------------------


def test_coordexp_counts_from_the_first_pixel_to_the_last() -> None:
    spec = quantisation("coordexp_999")
    assert spec.decode([0, 333, 999], 1000).tolist() == [0, 333, 999]  # k / 999 * (W - 1)
    assert spec.encode([10.2, 10.2, 1000], 1000, upper=[False, True, True]).tolist() == [10, 11, 999]
    assert spec.to_bin_units([10.25], 1000).tolist() == [10.25]


def test_an_image_of_one_pixel_has_a_position() -> None:
    assert quantisation("coordexp_999").decode([0], 1).tolist() == [0]


def test_an_inset_of_none_is_not_written_and_need_not_be() -> None:
    old = DEFAULT_QUANTISATION.as_dict()
    assert "inset" not in old
    assert Quantisation.from_dict(old) == Quantisation.from_dict(old | {"inset": 0.0}) == DEFAULT_QUANTISATION


def test_an_inset_travels() -> None:
    spec = quantisation("coordexp_999")
    assert spec.as_dict()["inset"] == 1.0
    assert Quantisation.from_dict(spec.as_dict()) == spec


def test_the_same_convention_without_its_inset_is_another() -> None:
    without = {key: value for key, value in quantisation("coordexp_999").as_dict().items() if key != "inset"}
    with pytest.raises(InputError, match=r"inset 0\.0 against 1\.0"):
        Quantisation.from_dict(without)
