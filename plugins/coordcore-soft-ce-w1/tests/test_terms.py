"""The loss terms: their parts against independent formulas, their gradients, and what they leave undone."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cross_entropy

from coordcore.coords import CoordVocab
from coordcore.errors import RunError
from coordcore.protocols import CoordPositions, LossTerm, TextPositions
from coordcore.testing.closeness import assert_close_to_scale
from coordcore_soft_ce_w1 import CoordSoftCEW1Config, fused, gaussian_soft_targets, soft_cross_entropy, wasserstein_1
from coordcore_soft_ce_w1.terms import CoordTerm, loss_terms, text_gate
from coordcore_train.objective import LinearHead, Objective, make_targets

K = 1000
COORD_IDS = torch.arange(200, 200 + K)
VOCABULARY = 1300


def vocabulary_logits(n, dtype=torch.float64, seed=0, scale=4.0):
    return (torch.randn(n, VOCABULARY, generator=torch.Generator().manual_seed(seed)) * scale).to(dtype)


def coord_positions(logits, bins):
    """What the objective hands over, from logits over the whole vocabulary."""
    return CoordPositions(
        logits=logits[:, COORD_IDS], bins=bins, values=bins.to(logits.dtype), full_lse=logits.logsumexp(-1)
    )


def text_positions(logits):
    return TextPositions(logits=logits, labels=torch.zeros(len(logits), dtype=torch.int64), coord_ids=COORD_IDS)


def some_bins(n):
    return torch.randint(0, K, (n,), generator=torch.Generator().manual_seed(n))


# --- which terms, which parts ----------------------------------------------------------------------------------------


def test_the_default_is_one_coord_term():
    (term,) = loss_terms(CoordSoftCEW1Config())
    assert isinstance(term, LossTerm)
    assert term.scope == "coord"
    assert term.needs == {"full_lse"}
    assert term.weights == {
        "ce": 1.0,
        "soft_ce": 1.0,
        "w1": 1.0,
        "gate": 1.0,
        "coord_mass": 0.0,
        "mae": 0.0,
        "p_target": 0.0,
        "top5": 0.0,
    }


def test_without_the_gate_the_full_vocabulary_is_not_asked_for():
    (term,) = loss_terms(CoordSoftCEW1Config(gate_weight=0.0))
    assert term.needs == set()
    assert set(term.weights) == {"ce", "soft_ce", "w1", "mae", "p_target", "top5"}


def test_a_text_gate_is_a_second_term():
    _, term = loss_terms(CoordSoftCEW1Config(text_gate_weight=0.5))
    assert isinstance(term, LossTerm)
    assert (term.scope, term.weights, term.needs) == ("text", {"text_gate": 0.5}, set())


@pytest.mark.parametrize("gate_weight", [0.0, 1.0])
def test_the_parts_are_exactly_those_announced(gate_weight):
    term = CoordTerm(config=CoordSoftCEW1Config(gate_weight=gate_weight))
    parts = term(coord_positions(vocabulary_logits(5), some_bins(5)))
    assert set(parts) == set(term.weights)
    assert {part.shape for part in parts.values()} == {(5,)}


# --- the formulas ----------------------------------------------------------------------------------------------------


def test_ce_and_gate_add_up_to_the_full_cross_entropy():
    logits, bins = vocabulary_logits(32), some_bins(32)
    parts = CoordTerm(config=CoordSoftCEW1Config())(coord_positions(logits, bins))
    expected = cross_entropy(logits, COORD_IDS[bins], reduction="none")
    torch.testing.assert_close(parts["ce"] + parts["gate"], expected)


def composed(positions, config):
    """Every part from the public functions and plain torch, under autograd: the readable form of the term."""
    logits, bins = positions.logits, positions.bins
    index = bins.unsqueeze(-1)
    targets = gaussian_soft_targets(bins, num_bins=K, sigma=config.sigma, truncate=config.truncate, dtype=logits.dtype)
    probs = logits.detach().softmax(-1)
    parts = {
        "ce": cross_entropy(logits, bins, reduction="none"),
        "soft_ce": soft_cross_entropy(logits, targets, temperature=config.temperature),
        "w1": wasserstein_1((logits / config.temperature).softmax(-1), targets),
        "mae": ((probs * torch.arange(K)).sum(-1) - bins).abs(),
        "p_target": probs.gather(-1, index).squeeze(-1),
        "top5": ((logits >= logits.gather(-1, index)).sum(-1) <= 5).to(logits.dtype),
    }
    if config.gate_weight:
        gate = positions.full_lse - logits.logsumexp(-1)
        parts |= {"gate": gate, "coord_mass": torch.exp(-gate.detach())}
    return parts


@pytest.mark.parametrize(
    "config",
    [
        CoordSoftCEW1Config(),
        CoordSoftCEW1Config(sigma=3.0, truncate=9, temperature=2.0, w1_weight=40.0),
        CoordSoftCEW1Config(soft_ce_weight=0.0, gate_weight=0.3, temperature=0.5),
        CoordSoftCEW1Config(ce_weight=0.0, w1_weight=0.0, gate_weight=0.0),
        CoordSoftCEW1Config(ce_weight=0.0, soft_ce_weight=0.0, w1_weight=0.0),
    ],
)
def test_the_term_is_the_composition_of_the_public_functions(config):
    logits, bins = vocabulary_logits(32).requires_grad_(), some_bins(32)
    bins[:16] = logits[:16, COORD_IDS].argmax(-1)  # so that top5 has both answers
    term, positions = CoordTerm(config=config), coord_positions(logits, bins)
    actual, expected = term(positions), composed(positions, config)
    assert set(actual) == set(expected)
    for name in expected:
        torch.testing.assert_close(actual[name], expected[name], rtol=1e-10, atol=1e-10, msg=name)

    def gradient(parts):
        total = sum((weight * parts[name]).sum() for name, weight in term.weights.items() if weight)
        return torch.autograd.grad(total, logits, retain_graph=True)[0]

    torch.testing.assert_close(gradient(actual), gradient(expected), rtol=1e-8, atol=1e-12)


def test_temperature_leaves_the_other_parts_alone():
    positions = coord_positions(vocabulary_logits(8), some_bins(8))
    warm = CoordTerm(config=CoordSoftCEW1Config(temperature=3.0))(positions)
    plain = CoordTerm(config=CoordSoftCEW1Config())(positions)
    changed = {name for name in plain if not torch.equal(plain[name], warm[name])}
    assert changed == {"soft_ce", "w1"}


def test_the_diagnostics_are_their_definitions():
    logits, bins = vocabulary_logits(64), some_bins(64)
    bins[:32] = logits[:32, COORD_IDS].argmax(-1)  # so that top5 has both answers
    parts = CoordTerm(config=CoordSoftCEW1Config())(coord_positions(logits, bins))
    probs = logits[:, COORD_IDS].softmax(-1)
    torch.testing.assert_close(parts["mae"], (probs @ torch.arange(K).double() - bins).abs())
    torch.testing.assert_close(parts["p_target"], probs[torch.arange(64), bins])
    hit = (probs.topk(5).indices == bins[:, None]).any(-1)
    assert 0 < hit.sum() < 64
    assert parts["top5"].tolist() == hit.double().tolist()
    torch.testing.assert_close(parts["coord_mass"], logits.softmax(-1)[:, COORD_IDS].sum(-1))


def test_top5_ends_at_the_fifth_bin():
    logits = -torch.arange(K).float().repeat(2, 1)
    positions = CoordPositions(logits=logits, bins=torch.tensor([4, 5]), values=torch.tensor([4.0, 5.0]))
    assert CoordTerm(config=CoordSoftCEW1Config(gate_weight=0.0))(positions)["top5"].tolist() == [1.0, 0.0]


def test_a_tie_counts_against_the_target():
    positions = CoordPositions(logits=torch.zeros(1, K), bins=torch.tensor([3]), values=torch.tensor([3.0]))
    assert CoordTerm(config=CoordSoftCEW1Config(gate_weight=0.0))(positions)["top5"].tolist() == [0.0]


def test_mae_keeps_its_digits_under_autocast():
    logits = torch.full((1, K), -50.0)
    logits[0, 997] = 50.0
    positions = CoordPositions(logits=logits, bins=torch.tensor([990]), values=torch.tensor([990.0]))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        parts = CoordTerm(config=CoordSoftCEW1Config(gate_weight=0.0))(positions)
    assert parts["mae"].tolist() == [7.0]


def test_a_position_does_not_depend_on_its_neighbours():
    logits, bins = vocabulary_logits(12, torch.float32), some_bins(12)
    term = CoordTerm(config=CoordSoftCEW1Config())
    whole = term(coord_positions(logits, bins))
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    for name, part in term(coord_positions(logits[order][:5], bins[order][:5])).items():
        torch.testing.assert_close(part, whole[name][order][:5], msg=name)


def test_no_positions_give_no_values():
    parts = CoordTerm(config=CoordSoftCEW1Config())(coord_positions(vocabulary_logits(0), some_bins(0)))
    assert {part.shape for part in parts.values()} == {(0,)}


def test_float32_parts_are_close_to_float64():
    logits, bins = vocabulary_logits(64, torch.float32), some_bins(64)
    config = CoordSoftCEW1Config()
    exact = composed(coord_positions(logits.double(), bins), config)
    plain = composed(coord_positions(logits, bins), config)
    for name, part in CoordTerm(config=config)(coord_positions(logits, bins)).items():
        # The distance in bins is a difference of two numbers of up to 999.
        assert_close_to_scale(part, plain[name], exact[name], scale=999.0 if name == "mae" else None, what=name)


# --- gradients -------------------------------------------------------------------------------------------------------


def test_gradients_of_the_weighted_parts_are_right():
    bins = torch.tensor([0, 4, 9])
    columns = torch.arange(2, 12)
    logits = torch.randn(3, 15, dtype=torch.float64, generator=torch.Generator().manual_seed(2)).requires_grad_()
    term = CoordTerm(config=CoordSoftCEW1Config(temperature=1.5, sigma=1.0))

    def weighted(z):
        parts = term(CoordPositions(logits=z[:, columns], bins=bins, values=bins.double(), full_lse=z.logsumexp(-1)))
        return tuple(parts[name] for name, weight in term.weights.items() if weight)

    assert torch.autograd.gradcheck(weighted, (logits,), nondet_tol=1e-12)


def test_diagnostics_carry_no_gradient():
    logits = vocabulary_logits(4).requires_grad_()
    config = CoordSoftCEW1Config(soft_ce_weight=0.0, w1_weight=0.0)
    term = CoordTerm(config=config)
    parts = term(coord_positions(logits, some_bins(4)))
    assert {name for name, part in parts.items() if part.requires_grad} == {"ce", "gate"}


# --- inside the objective --------------------------------------------------------------------------------------------


def test_in_the_objective_ce_and_gate_charge_the_full_cross_entropy():
    vocab = CoordVocab(ids=COORD_IDS.tolist())
    labels = torch.tensor([[-100, 3, 207, 1199, 5], [-100, -100, 200, 9, -100]])
    generator = torch.Generator().manual_seed(4)
    hidden = torch.randn(2, 5, 8, generator=generator)
    lm_head = torch.nn.Linear(8, VOCABULARY, bias=False)
    torch.nn.init.normal_(lm_head.weight, generator=generator)
    terms = loss_terms(CoordSoftCEW1Config(soft_ce_weight=0.0, w1_weight=0.0, text_gate_weight=0.5))
    objective = Objective([("coord_soft_ce_w1", term) for term in terms], vocab)
    loss = objective(hidden, LinearHead(lm_head), make_targets(labels, vocab)).loss

    target = labels[:, 1:]
    is_coord = torch.isin(target, COORD_IDS)
    is_text = (target != -100) & ~is_coord

    def plain(dtype):
        shifted = (hidden.to(dtype) @ lm_head.weight.to(dtype).T)[:, :-1]
        gate = -torch.log1p(-shifted[is_text].softmax(-1)[:, COORD_IDS].sum(-1))
        return cross_entropy(shifted[is_coord], target[is_coord]) + 0.5 * gate.mean()

    assert_close_to_scale(loss, plain(torch.float32), plain(torch.float64))


# --- hard cases ------------------------------------------------------------------------------------------------------


def test_nan_reaches_every_part_of_its_own_position():
    logits = vocabulary_logits(3)
    logits[1, COORD_IDS[17]] = float("nan")
    parts = CoordTerm(config=CoordSoftCEW1Config())(coord_positions(logits, some_bins(3)))
    wrong = {name for name, part in parts.items() if part.isnan().tolist() != [False, True, False]}
    assert wrong == set()


@pytest.mark.parametrize("where", [0, 199, 200, 1199, 1299])
def test_extreme_logits_stay_finite_with_their_gradients(where):
    logits = torch.full((2, VOCABULARY), -1e4)
    logits[:, where] = 1e4
    logits.requires_grad_()
    config = CoordSoftCEW1Config(text_gate_weight=1.0)
    coord_term, text_term = loss_terms(config)
    parts = {**coord_term(coord_positions(logits, torch.tensor([0, 999]))), **text_term(text_positions(logits))}
    assert {name for name, part in parts.items() if not part.isfinite().all()} == set()
    sum(part.sum() for part in parts.values()).backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_a_bin_out_of_range_is_named():
    with pytest.raises(ValueError, match=r"bins must lie in 0\.\.999, got -1; select the positions"):
        CoordTerm(config=CoordSoftCEW1Config())(coord_positions(vocabulary_logits(2), torch.tensor([3, -1])))


def test_where_values_cannot_be_looked_at_a_bad_bin_is_nan_in_every_supervised_part(monkeypatch):
    # As on an accelerator, where check_bins reads no values.
    monkeypatch.setattr(fused, "check_bins", lambda bins, num_bins: None)
    parts = CoordTerm(config=CoordSoftCEW1Config())(coord_positions(vocabulary_logits(3), torch.tensor([-1, 5, 1000])))
    for name in ("ce", "soft_ce", "w1", "p_target", "top5"):
        assert parts[name].isnan().tolist() == [True, False, True], name


def test_a_missing_full_lse_is_named():
    positions = CoordPositions(logits=torch.zeros(1, K), bins=torch.tensor([3]), values=torch.tensor([3.0]))
    with pytest.raises(RunError, match=r'it reads positions\.full_lse, .* add "full_lse" to its needs'):
        CoordTerm(config=CoordSoftCEW1Config())(positions)


# --- the text gate ---------------------------------------------------------------------------------------------------


def logits_with_coord_mass(log_odds):
    """Two rows whose coord mass is sigmoid(log_odds), spread unevenly, in float64."""
    logits = vocabulary_logits(2, scale=1.0)
    text = torch.ones(VOCABULARY, dtype=torch.bool)
    text[COORD_IDS] = False
    logits[:, text] -= logits[:, text].logsumexp(-1, keepdim=True)
    logits[:, COORD_IDS] -= logits[:, COORD_IDS].logsumexp(-1, keepdim=True) - log_odds
    return logits + 20.0


@pytest.mark.parametrize("log_odds", [-60.0, -20.0, -3.0, 0.0, 3.0, 10.0, 17.0, 40.0, 300.0])
def test_the_text_gate_is_right_for_any_coord_mass(log_odds):
    # -log(1 - sigmoid(x)) = softplus(x)
    expected = torch.nn.functional.softplus(torch.tensor(log_odds, dtype=torch.float64)).item()
    logits = logits_with_coord_mass(log_odds).float()
    gate = text_gate(text_positions(logits))
    # A difference of two logarithms of sums that are as large as the logits.
    assert_close_to_scale(gate, torch.full_like(gate, expected), scale=logits.abs().max().item())


@pytest.mark.parametrize("log_odds", [-60.0, -3.0, 0.0, 10.0, 17.0, 40.0, 300.0])
def test_the_gradient_of_the_text_gate_is_right_for_any_coord_mass(log_odds):
    logits = logits_with_coord_mass(log_odds)
    rounded = logits.float().requires_grad_()
    text_gate(text_positions(rounded)).sum().backward()
    # Coord columns: P_k. Text columns: P_k - (softmax over the text columns)_k.
    exact = rounded.detach().double()
    text_only = exact.index_fill(-1, COORD_IDS, -float("inf"))
    expected = exact.softmax(-1) - text_only.softmax(-1)
    assert rounded.grad is not None
    # A probability is off by the rounding of its exponent, a share of the largest logit.
    scale = (exact.softmax(-1).max() * exact.abs().max()).item()
    assert_close_to_scale(rounded.grad, expected.float(), scale=scale)


def test_gradcheck_of_the_text_gate():
    logits = torch.randn(3, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(3)).requires_grad_()
    ids = torch.tensor([3, 4, 9])  # not in one block
    labels = torch.zeros(3, dtype=torch.int64)
    assert torch.autograd.gradcheck(
        lambda z: text_gate(TextPositions(logits=z, labels=labels, coord_ids=ids)), (logits,)
    )


def test_the_text_gate_lets_nan_through():
    logits = vocabulary_logits(3)
    logits[1, COORD_IDS[0]] = float("nan")
    assert text_gate(text_positions(logits)).isnan().tolist() == [False, True, False]


def test_the_text_gate_of_no_positions():
    assert text_gate(text_positions(vocabulary_logits(0))).shape == (0,)
