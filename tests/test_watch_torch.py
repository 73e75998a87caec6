"""Laws of `watch.torch`: what it reads of PyTorch's fused modules is what autograd says of the same loop written by
hand, it changes nothing, and what it writes opens and draws like any run."""

import copy
import pickle

import numpy as np
import pytest
import xarray as xr

torch = pytest.importorskip("torch", reason="PyTorch is not installed (the extra 'torch')")

from _processes import Process  # noqa: E402
from torch.nn.utils import parametrizations, parametrize  # noqa: E402
from torch.nn.utils import rnn as rnn_utils  # noqa: E402

from analysis import gradient_flow  # noqa: E402
from seqdyn import ConfigError, load  # noqa: E402
from seqdyn.watch import torch as watch  # noqa: E402

pytestmark = pytest.mark.torch
torch.set_num_threads(1)  # two wait for each other where other tests use the cores

T, B, D, H = 6, 3, 2, 4
LENGTHS = torch.tensor([4, 6, 3])


def drawn(i, *shape):
    return torch.tensor(np.random.default_rng(i).normal(size=shape))


def step(net, end, x, h, c):
    """(h_t, c_t) of one sequence, as PyTorch documents its modules."""
    w, u = getattr(net, f"weight_ih_{end}"), getattr(net, f"weight_hh_{end}")
    b_x, b_h = (getattr(net, f"bias_{of}_{end}") if net.bias else 0 for of in ("ih", "hh"))
    zx, zh = w @ x + b_x, u @ h + b_h
    if isinstance(net, torch.nn.LSTM):
        i, f, g, o = (zx + zh).chunk(4)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        return o.sigmoid() * c.tanh(), c
    if isinstance(net, torch.nn.GRU):
        (rx, zx, nx), (rh, zh, nh) = zx.chunk(3), zh.chunk(3)
        z = (zx + zh).sigmoid()
        return (1 - z) * (nx + (rx + rh).sigmoid() * nh).tanh() + z * h, c
    return ((zx + zh).tanh() if net.nonlinearity == "tanh" else (zx + zh).relu()), c


def by_hand(net, xs, lengths, first, loss):
    """‖∂L/∂h_t‖ and ‖∂L/∂c_t‖ [layer, t, b], 0 on padding: the gradients of zeros that are added to the states."""
    ways = 2 if net.bidirectional else 1
    of = net.num_layers * ways, T, B, H
    dh, dc = (torch.zeros(of, dtype=torch.float64, requires_grad=True) for _ in range(2))
    tops, lasts = [], []
    for b in range(B):
        below, ends = xs[: lengths[b], b], []
        for level in range(net.num_layers):
            outputs = []
            for way in range(ways):
                i, order = level * ways + way, range(lengths[b])
                h, c, hs = first[0][i, b], first[1][i, b], {}
                for t in reversed(order) if way else order:
                    h, c = step(net, f"l{level}" + "_reverse" * way, below[t], h, c)
                    h, c = h + dh[i, t, b], c + dc[i, t, b]
                    hs[t] = h
                outputs.append(torch.stack([hs[t] for t in order]))
                ends.append((h, c))
            below = torch.cat(outputs, -1)
        tops.append(below)
        lasts.append(ends)
    h_n, c_n = (torch.stack([torch.stack([end[k] for end in ends]) for ends in lasts], 1) for k in (0, 1))
    found = torch.autograd.grad(loss(torch.cat(tops), h_n, c_n), (dh, dc), allow_unused=True, materialize_grads=True)
    return [one.norm(dim=-1).numpy() for one in found]


def outputs_alone(ys, h, c):
    return ((ys @ drawn(7, ys.shape[-1])) ** 2).sum() / B


def last_states_alone(ys, h, c):
    return (((h + c) @ drawn(8, H)) ** 2).sum() / B


def both(ys, h, c):
    return outputs_alone(ys, h, c) + h[-1].sum() / B


# cell, layers, both directions, batch_first, packed (in order or not), biases, first state, loss: all pairs of most
DESIGN = [
    (torch.nn.RNN, {"nonlinearity": "relu"}, 2, True, True, None, True, False, outputs_alone),
    (torch.nn.RNN, {}, 1, False, False, "shuffled", False, True, last_states_alone),
    (torch.nn.LSTM, {}, 1, True, True, "shuffled", True, True, both),
    (torch.nn.LSTM, {}, 2, False, False, None, False, False, last_states_alone),
    (torch.nn.GRU, {}, 1, True, False, None, False, True, last_states_alone),
    (torch.nn.GRU, {}, 2, False, True, "sorted", True, False, outputs_alone),
]


@pytest.mark.parametrize("kind,options,layers,ways,batch_first,packed,bias,begun,loss", DESIGN)
def test_readings_are_autograds_of_the_loop_written_by_hand(
    kind, options, layers, ways, batch_first, packed, bias, begun, loss
):
    torch.manual_seed(0)
    options = options | dict(num_layers=layers, bidirectional=ways, batch_first=batch_first, bias=bias)
    net = kind(D, H, dtype=torch.float64, **options)
    look = watch.module(net)
    lengths = {None: torch.full((B,), T), "shuffled": LENGTHS, "sorted": LENGTHS.sort(descending=True)[0]}[packed]
    xs, states = drawn(0, T, B, D), (layers * (1 + ways), B, H)
    first = [torch.zeros(states, dtype=torch.float64)] * 2
    if begun:
        first = [drawn(1, *states), drawn(2, *states) if kind is torch.nn.LSTM else first[1]]
    x = xs.transpose(0, 1) if batch_first else xs
    if packed:
        x = rnn_utils.pack_padded_sequence(x, lengths, batch_first, enforce_sorted=packed == "sorted")
    hx = (tuple(first) if kind is torch.nn.LSTM else first[0]) if begun else None
    ys, last = net(x, hx)
    h, c = last if kind is torch.nn.LSTM else (last, torch.zeros_like(last))
    if packed:
        ys, _ = rnn_utils.pad_packed_sequence(ys, batch_first)
    ys = ys if batch_first else ys.transpose(0, 1)
    loss(torch.cat([ys[b, : lengths[b]] for b in range(B)]), h, c).backward()
    look.step()
    wanted = by_hand(net, xs, lengths, first, loss)
    for seen, norms in zip((look.seen, look.seen_c), wanted, strict=True):
        for one, of in zip(seen, norms, strict=bool(seen)):
            np.testing.assert_allclose(one.each, B * of, rtol=1e-5, atol=0)
            count = np.sum(np.arange(T)[:, None] < lengths.numpy(), axis=1)
            np.testing.assert_allclose(one.rms, np.sqrt(np.sum((B * of) ** 2, axis=1) / count), rtol=1e-5)
    assert len(look.seen) == states[0] and len(look.seen_c) == (states[0] if kind is torch.nn.LSTM else 0)


# --- what else a loop may do --------------------------------------------------------------------------------------


def lstm(**options):
    torch.manual_seed(0)
    return torch.nn.LSTM(D, H, dtype=torch.float64, **options)


XS = drawn(0, T, B, D)


def looked_at(net, **options):
    """Readings of an update in which `net` reads `XS`, and its gradients."""
    look = watch.module(net, **options)
    (net(XS)[0] ** 2).sum(-1).mean(1).sum().backward()
    look.step()
    look.close()
    return look


def test_watching_changes_no_bit_of_the_training():
    one, two = lstm(), lstm()
    looked_at(one)
    (two(XS)[0] ** 2).sum(-1).mean(1).sum().backward()
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        assert torch.equal(a.grad, b.grad)


PARAMETRIZED = {
    "orthogonal": parametrizations.orthogonal,
    "spectral norm": parametrizations.spectral_norm,  # which moves on whenever the weight is made
    "dropout": lambda net, name: parametrize.register_parametrization(net, name, torch.nn.Dropout(0.3)),
}


@pytest.mark.parametrize("how", PARAMETRIZED)
def test_weights_that_are_made_anew_are_those_of_the_call_and_are_made_no_more_often(how):
    def trained(watched):
        torch.manual_seed(0)
        net = torch.nn.RNN(D, H, dtype=torch.float64)
        PARAMETRIZED[how](net, "weight_hh_l0")
        look = watch.module(net) if watched else None
        outputs = net(XS)[0], net(XS.flip(0))[0]  # each call may have weights of its own
        loss = sum((ys**2).sum(-1).mean(1).sum() for ys in outputs)
        loss.backward()
        if look:
            look.step(loss)  # ∂L/∂weights of both calls are held against PyTorch's
        return [*net.parameters(), *net.buffers(), *(p.grad for p in net.parameters()), torch.rand(1)]

    for a, b in zip(trained(True), trained(False), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("kind", [torch.nn.LSTM, torch.nn.GRU])
def test_a_loss_of_the_last_state_alone_is_read_in_float32_too(kind):
    # There one call of PyTorch's makes outputs and h_n, and its hooks hear None of what the loss does not reach.
    torch.manual_seed(0)
    read, weights = {}, kind(D, H).state_dict()
    for dtype in (torch.float64, torch.float32):
        net = kind(D, H, dtype=dtype)
        net.load_state_dict(weights)
        look = watch.module(net)
        last = net(XS.to(dtype))[1]
        ((last[0] if kind is torch.nn.LSTM else last) ** 2).sum(-1).mean().backward()
        look.step()
        read[dtype] = look.seen[0].each
    np.testing.assert_allclose(read[torch.float32], read[torch.float64], rtol=1e-4)


def test_gradients_that_accumulate_are_one_update():
    whole, net = looked_at(lstm()), lstm()
    look = watch.module(net, reduction=B)
    for part in (XS[:, :2], XS[:, 2:]):
        ((net(part)[0] ** 2).sum() / B).backward()
    look.step()
    np.testing.assert_allclose(look.seen[0].each, whole.seen[0].each, rtol=1e-12)
    np.testing.assert_allclose(look.seen_c[0].rms, whole.seen_c[0].rms, rtol=1e-12)


def test_a_factor_of_what_backward_is_called_of_is_in_all_readings():
    plain, net = looked_at(lstm()), lstm()
    look = watch.module(net)
    (1024 * (net(XS)[0] ** 2).sum(-1).mean(1).sum()).backward()
    look.step()
    np.testing.assert_array_equal(look.seen[0].rms, 1024 * plain.seen[0].rms)


def test_calls_of_other_lengths_stand_side_by_side():
    net, lengths = lstm(), (T, 5, 3)  # the later ones are read by the program of the first
    look = watch.module(net, reduction="sum")
    sum((net(XS[:steps])[0] ** 2).sum() for steps in lengths).backward()
    look.step()
    for i, steps in enumerate(lengths):
        first = [torch.zeros(1, B, H, dtype=torch.float64)] * 2
        wanted = by_hand(net, XS, [steps] * B, first, lambda ys, h, c: (ys**2).sum())
        for seen, norms in zip((look.seen, look.seen_c), wanted, strict=True):
            np.testing.assert_allclose(seen[0].each[:, B * i : B * (i + 1)], norms[0], rtol=1e-5)
    np.testing.assert_array_equal(look.seen[0].count, [9, 9, 9, 6, 6, 3])


def test_what_is_done_without_gradients_or_after_the_backward_pass_is_not_looked_at():
    plain, net, xs = looked_at(lstm()), lstm(), XS.clone()
    look = watch.module(net)
    with torch.no_grad():
        net(xs[:3])
    loss = (net(xs)[0] ** 2).sum(-1).mean(1).sum()
    net(xs)  # without a backward pass
    loss.backward()
    with torch.no_grad():
        xs.zero_()
        for weight in net.parameters():
            weight.zero_()
    look.step()
    np.testing.assert_array_equal(look.seen[0].each, plain.seen[0].each)


def test_dropout_between_layers_is_the_one_that_was_drawn():
    net = lstm(num_layers=2, dropout=0.5)
    look = watch.module(net)
    torch.manual_seed(1)
    ys, _ = net(XS)
    (ys**2).sum(-1).mean(1).sum().backward()
    look.step()
    one, two = lstm(), torch.nn.LSTM(H, H, dtype=torch.float64)
    for layer, apart in enumerate((one, two)):
        apart.load_state_dict({k: getattr(net, k.replace("l0", f"l{layer}")) for k in one.state_dict()})
    below, above = watch.module(one), watch.module(two)
    torch.manual_seed(1)
    ys_apart, _ = two(torch.dropout(one(XS)[0], 0.5, True))
    np.testing.assert_allclose(ys_apart.detach(), ys.detach(), rtol=1e-12)
    (ys_apart**2).sum(-1).mean(1).sum().backward()
    below.step(), above.step()
    np.testing.assert_allclose(look.seen[0].each, below.seen[0].each, rtol=1e-10)
    np.testing.assert_allclose(look.seen[1].each, above.seen[0].each, rtol=1e-10)


def test_a_gradient_that_vanishes_is_read_beyond_floats():
    net = torch.nn.RNN(1, 1, nonlinearity="relu", bias=False)
    with torch.no_grad():
        net.weight_ih_l0.fill_(1.0)
        net.weight_hh_l0.fill_(0.5)
    look = watch.module(net, verify=False)  # whose numbers end at 2⁻¹⁴⁹
    net(torch.ones(400, 1, 1))[1].sum().backward()
    look.step()
    np.testing.assert_array_equal(look.seen[0].log2, np.arange(-399, 1))


def test_copies_of_a_watched_module_are_not_watched():
    net = lstm()
    look = watch.module(net)
    for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        other(XS)[0].sum().backward()
    look.step()
    assert look.seen == ()
    with pytest.warns(UserWarning, match="nothing was seen"):
        look.close()


# --- what is written ----------------------------------------------------------------------------------------------


def trained(path, made=5, asked=True, **options):
    """(the open look, what was seen at each look if `asked`, the losses) of a run on packed sequences."""
    torch.manual_seed(0)
    net, seen, losses = torch.nn.LSTM(D, H, bidirectional=True, dtype=torch.float64), {}, []
    options = dict(every=2, updates=5, verify=False, lr=0.5, seed=3) | options
    look = watch.module(net, path=path, **options)
    descent = torch.optim.SGD(net.parameters(), 0.5)
    for update in range(made):
        ys, (h, _) = net(rnn_utils.pack_padded_sequence(XS, LENGTHS, enforce_sorted=False))
        loss = (ys.data**2).sum() / B + h.sum() / B
        descent.zero_grad()
        loss.backward()
        before = look.seen if asked else None
        look.step(loss)
        descent.step()
        losses.append(loss.item())
        if asked and look.seen is not before:
            seen[update] = look.seen, look.seen_c
    return look, seen, losses


@pytest.mark.slow
def test_a_run_is_recorded_by_the_lag_from_each_sequences_last_step(tmp_path):
    look, seen, losses = trained(tmp_path / "run", task="mine", name="ours")
    look.test(0.25)
    look.close()
    ds = load(tmp_path / "run").isel(run=0)
    assert list(seen) == [0, 2, 4] and list(np.flatnonzero(~np.isnan(ds.adjoint_norm[:, 0, -1]))) == [0, 2, 4]
    np.testing.assert_allclose(ds.loss, losses, rtol=1e-6)
    assert ds.recorded.all() and ds.finite.all()
    np.testing.assert_array_equal(ds.test_loss, [np.nan, np.nan, 0.25])
    known = [str(ds[name].values) for name in ("label", "cell", "lr", "seed", "clip", "momentum")]
    assert known == ["ours", "lstm", "0.5", "3", "inf", "nan"] and 0.8 < ds.gain < 1.25  # PyTorch's own is 1
    counts = [int((LENGTHS > lag).sum()) for lag in range(T)][::-1]
    for update, (of_h, of_c) in seen.items():
        np.testing.assert_array_equal(ds.adjoint_count[update], counts)
        for layer in (0, 1):  # the second reads backwards: its last step is a sequence's first
            for name, one in (("adjoint_norm", of_h[layer]), ("adjoint_norm_c", of_c[layer])):
                each = [np.asarray(one.each)[: LENGTHS[b], b][:: -1 if layer else 1] for b in range(B)]
                rows = np.stack([np.pad(row, (T - len(row), 0)) for row in each])
                rms = np.sqrt(np.sum(rows**2, axis=0) / counts)
                np.testing.assert_allclose(ds[name][update, layer], rms, rtol=1e-6)
            np.testing.assert_allclose(ds.adjoint_nonzero[update, layer], 1)


def test_a_look_that_nobody_waits_for_has_the_records_of_one_that_is_asked_for(tmp_path):
    for asked in (True, False):
        trained(tmp_path / str(asked), asked=asked, updates=6, made=6)[0].close()
    xr.testing.assert_identical(*(load(tmp_path / str(asked)).load() for asked in (True, False)))


def test_what_a_kill_leaves_opens(tmp_path, monkeypatch):
    monkeypatch.setattr("seqdyn.runs.elsewhere.SECONDS", 0.0)  # a stretch is one update
    look, _, losses = trained(tmp_path / "run", made=3)
    ds = load(tmp_path / "run").isel(run=0)  # nobody has closed it
    np.testing.assert_allclose(ds.loss, [*losses, np.nan, np.nan], rtol=1e-6)
    np.testing.assert_array_equal(ds.recorded, [1, 1, 1, 0, 0])
    with pytest.raises(RuntimeError, match="another process trains in"):
        trained(tmp_path / "run")
    look.close()


@pytest.mark.slow
def test_a_loop_that_ends_early_is_written_at_the_end_of_the_process(tmp_path):
    program = """
import sys, torch
from seqdyn.watch import torch as watch
net = torch.nn.RNN(2, 4)
look = watch.module(net, path=sys.argv[1], updates=5, every=2)
for _ in range(3):
    loss = net(torch.ones(6, 3, 2))[0].sum()
    loss.backward()
    look.step(loss)
raise SystemExit(3)
"""
    process = Process(["-c", program, tmp_path / "run"])
    assert (process.finish(), process.returncode) == ("", 3)
    ds = load(tmp_path / "run").isel(run=0)
    np.testing.assert_array_equal(ds.recorded, [1, 1, 1, 0, 0])
    assert ds.adjoint_norm[2, 0, -1] > 0  # of a look that was on its way


def test_what_comes_after_the_last_update_is_not_recorded(tmp_path):
    with pytest.warns(UserWarning, match="updates is 2; what the loop does after them is not recorded."):
        look, seen, losses = trained(tmp_path / "run", updates=2, made=5)
    np.testing.assert_allclose(load(tmp_path / "run").loss[0], losses[:2], rtol=1e-6)  # without close
    assert list(seen) == [0, 1, 2, 4]
    look.close()


def test_nothing_is_written_over(tmp_path):
    trained(tmp_path / "run")[0].close()
    files = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and ".lock" not in path.name}
    with pytest.raises(ConfigError, match="holds a run; it must be new, or empty"):
        trained(tmp_path / "run")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("")
    with pytest.raises(ConfigError, match="exists and is not a run directory"):
        trained(tmp_path / "mine")
    assert files == {path: path.read_bytes() for path in files}


def test_a_run_that_diverges_is_data(tmp_path):
    net = lstm()
    look = watch.module(net, every=1, path=tmp_path / "run", updates=3, steps=T)
    for update in range(3):
        loss = net(XS * (torch.nan if update else 1))[0].sum()
        net.zero_grad()
        loss.backward()
        look.step(loss)
    look.close()
    ds = load(tmp_path / "run").isel(run=0)
    np.testing.assert_array_equal(ds.finite, [True, False, False])
    assert np.isfinite(ds.adjoint_norm[0]).all() and np.isnan(ds.adjoint_norm[1:, 0, :-1]).all()


@pytest.mark.slow
def test_a_thousand_updates_of_pytorch_draw_like_any_run(tmp_path):
    """Of the example, as it is."""
    process = Process(["experiments/own/torch_adding.py", tmp_path / "out"], cwd=tmp_path)
    said = process.finish()
    assert process.returncode == 0, said
    ds = load(tmp_path / "out").isel(run=0)
    assert ds.recorded.all() and ds.sizes["step"] == 1000 and np.isfinite(ds.loss).all()
    looks = np.flatnonzero((ds.adjoint_count > 0).all("time"))
    np.testing.assert_array_equal(looks, [*range(0, 1000, 50), 999])
    reach = (ds.adjoint_norm.isel(layer=0, time=0) / ds.adjoint_norm.isel(layer=0, time=-1)).values[looks]
    assert 100 * reach[0] < reach[-1]  # to learn is to open the way
    assert ds.test_loss[-1] < 0.05 < 0.12 < ds.loss[0]
    *figures, page = gradient_flow.show(tmp_path / "out")
    assert {path.stem for path in figures} == {
        "norms_by_lag",
        "norms_through_training_no_clip",
        "learning",
        "outcomes",
    }
    assert "recorded at 21 updates" in page.read_text()


# --- refusals -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sentence,options",
    [
        ("every is 0; it must be a whole number of at least 1.", {"every": 0}),
        ("reduction is 'avg'; it must be 'mean', 'sum' or the number", {"reduction": "avg"}),
        ("reduction is -1; it must be", {"reduction": -1}),
        ("reduction is True; it must be", {"reduction": True}),
        ("updates is 10 without path; leave it out", {"updates": 10}),
        ("lr is 0.1 without path; leave it out", {"lr": 0.1}),
        ("updates is None beside path; it must be how many", {"path": "new"}),
        ("updates is 1.5; it must be a whole number", {"path": "new", "updates": 1.5}),
        ("path is 3; it must be that of a new directory.", {"path": 3, "updates": 1}),
        ("steps is 0; it must be a whole number", {"path": "new", "updates": 1, "steps": 0}),
        ("task is 3; it must be a string.", {"path": "new", "updates": 1, "task": 3}),
        ("rate is 0.1; the numbers of a run are seed, lr, gain", {"path": "new", "updates": 1, "rate": 0.1}),
        ("lr is -0.1; it must be greater than 0.", {"path": "new", "updates": 1, "lr": -0.1}),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(sentence, options, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    net = torch.nn.GRU(D, H)
    with pytest.raises(ConfigError) as refused:
        watch.module(net, **options)
    assert str(refused.value).startswith(sentence)
    assert not list(tmp_path.iterdir()) and not net._forward_hooks


@pytest.mark.parametrize("of", [np.array, torch.tensor, np.float32], ids=lambda of: of.__name__)
def test_numbers_may_be_arrays_or_tensors_of_one(of, tmp_path):
    look, seen, _ = trained(tmp_path / "of", lr=of(0.5), reduction=of(float(B)))
    other, right, _ = trained(tmp_path / "plain", lr=0.5, reduction=float(B))
    look.close(), other.close()
    found, plain = (load(tmp_path / name) for name in ("of", "plain"))
    assert found.lr.values == plain.lr.values == 0.5
    np.testing.assert_array_equal(found.adjoint_norm.values, plain.adjoint_norm.values)


def test_a_loss_of_many_lines_is_said_on_one():
    look = watch.module(torch.nn.GRU(D, H))
    with pytest.raises(ConfigError, match="loss is tensor.*; it must be one number") as told:
        look.step(torch.arange(12.0).reshape(4, 3))
    assert "\n" not in str(told.value)


def test_a_module_without_numbers_is_said():
    net = torch.nn.GRU(D, H, device="meta")
    look = watch.module(net)
    net(torch.zeros(3, 1, D, device="meta"))[0].sum().backward()
    with pytest.raises(ConfigError, match="of the module is a tensor that is no array"):
        look.step()


def test_other_modules_are_refused():
    with pytest.raises(ConfigError, match="proj_size is 2; it must be 0"):
        watch.module(torch.nn.LSTM(D, H, proj_size=2))
    with pytest.raises(ConfigError, match=r"module is Sequential; it must be torch.nn's RNN, LSTM or GRU \(.* 1\)"):
        watch.module(torch.nn.Sequential(torch.nn.Linear(D, D), torch.nn.GRU(D, H)))
    with pytest.raises(ConfigError, match="module is GRUCell"):
        watch.module(torch.nn.GRUCell(D, H))
    with pytest.raises(ConfigError, match="module is int"):
        watch.module(3)


def test_a_look_that_cannot_be_right_says_so_at_once(tmp_path):
    net = lstm()
    look = watch.module(net, path=tmp_path, updates=1)
    net(XS)
    with pytest.raises(ConfigError, match="look.step.. came without loss.backward"):
        look.step()
    look = watch.module(net, path=tmp_path, updates=1)  # which is free again
    loss = net(XS)[0].sum() + net.weight_hh_l0.square().sum()  # a penalty on the weights
    loss.backward()
    with pytest.raises(ConfigError, match="∂L/∂weight_hh_l0 of our backward pass is .* away from PyTorch's"):
        look.step(loss)
    assert not net._forward_hooks

    class Scaled(torch.nn.LSTM):
        def forward(self, x):
            ys, last = super().forward(x)
            return 2 * ys, last

    scaled = Scaled(D, H, dtype=torch.float64)
    look = watch.module(scaled)
    scaled(XS)[0].sum().backward()
    with pytest.raises(ConfigError, match="the outputs of the module are 1.0e.00 away"):
        look.step()


def test_what_takes_or_returns_something_else_than_pytorchs_own_is_said():
    class Packs(torch.nn.LSTM):
        def forward(self, x, lengths):
            return super().forward(rnn_utils.pack_padded_sequence(x, lengths, enforce_sorted=False))

    class Outputs(torch.nn.LSTM):
        def forward(self, x):
            return super().forward(x)[0]

    class Named(torch.nn.LSTM):
        def forward(self, seq):
            return super().forward(seq)

    for net, given, named in (
        (Packs(D, H), (XS.float(), LENGTHS), {}),
        (Outputs(D, H), (XS.float()[:2],), {}),
        (Named(D, H), (), {"seq": XS.float()[:2]}),
    ):
        watch.module(net)
        with pytest.raises(ConfigError, match="the module takes or returns something else than PyTorch's own; it must"):
            net(*given, **named)
        assert not net._forward_hooks


@pytest.mark.parametrize("loss", ["much", [1.0, 2.0], torch.ones(2)])
def test_a_loss_is_one_number(loss):
    with pytest.raises(ConfigError, match="it must be one number"):
        watch.module(lstm()).step(loss)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # PyTorch looks at its own
def test_a_model_that_is_compiled_is_watched_as_it_is():
    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm, self.out = torch.nn.LSTM(2, 3), torch.nn.Linear(3, 1)

        def forward(self, x):
            return self.out(self.lstm(x)[0][-1])

    def watched(compiled):
        torch.manual_seed(0)
        model = Model()
        forward = torch.compile(model, backend="eager") if compiled else model
        look, seen = watch.module(model.lstm, every=2), []
        for i in range(3):
            model.zero_grad()
            loss = (
                forward(torch.tensor(np.random.default_rng(i).normal(size=(5, 4, 2)), dtype=torch.float32)) ** 2
            ).mean()
            loss.backward()
            look.step(loss)
            seen.append(look.seen[0].rms)
        return seen

    np.testing.assert_array_equal(watched(True), watched(False))
