"""Laws of trained networks put to use: predictions, explanations and what they write are those of the network."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from _processes import Process
from _refusals import refusal

import seqdyn as sd
from seqdyn.data.batches import Batch
from seqdyn.data.text import Examples, labelled_text
from seqdyn.data.vectors import load_vocabulary, save_vocabulary
from seqdyn.learn import model, train
from seqdyn.runs import manifest, use

X64 = False
TEXTS = ["a fine film", "dull, dull, dull", "what a film"]


@pytest.fixture(scope="module")
def reviews(tmp_path_factory):
    texts, labels = TEXTS * 4, [1, 0, 2] * 4
    text = labelled_text({name: (texts, labels) for name in ("train", "validation", "test")}, length=6)
    spec = sd.Spec("labelled", steps=6, batch=4, hidden=(4,), vocabulary=len(text.vocabulary), embedding=3, classes=3)
    out = tmp_path_factory.mktemp("use") / "out"
    experiment = sd.Experiment("reviews", sd.grid(spec, seeds=2, lr=0.1), updates=3, probes=())
    return sd.run(experiment, out, text.splits, vocabulary=text.vocabulary, verify=False), text.splits["test"]


@pytest.fixture(scope="module")
def stream(tmp_path_factory):
    spec = sd.Spec("stream", steps=5, batch=2, hidden=(4,), vocabulary=3, readout="every", cell="lstm")
    out = tmp_path_factory.mktemp("use") / "out"
    experiment = sd.Experiment("stream", sd.grid(spec, seeds=1, lr=0.1), updates=3, probes=())
    return sd.run(experiment, out, _ids(), vocabulary=tuple("abc"), verify=False)


def _ids():
    ids = np.asarray(["abc".index(c) for c in "abca" * 40], np.int32)
    return dict.fromkeys(("train", "validation", "test"), ids)


@pytest.mark.parametrize(
    "given, said",
    [
        (("b", "a", "c"), "another vocabulary, from id 0 on"),
        (("a", "b"), "another vocabulary, from id 2 on"),
        (("a", "b", "c", "d"), "has 4 words; it must have 1 to 3"),
        ((), "has 0 words"),
        (("a", "b", "a"), "'a' at places 0 and 2"),
        (("a", None, "c"), "has None at place 1"),
        ((b"a", b"b", b"c"), "has b'a' at place 0"),
        ({"a"}, "it must be a list of words"),
        ({"a": 1, "b": 2, "c": 3}, "a dict whose ids are [1, 2, 3]"),
        ({0: "a", 1: "b", 2: "c"}, "a dict whose ids are ['a', 'b', 'c']"),
        (5, "vocabulary is 5"),
    ],
    ids=str,
)
def test_a_vocabulary_is_the_word_of_each_id_and_stays_what_it_is(stream, given, said):
    before, experiment = (stream / "vocabulary.txt").read_bytes(), manifest.experiment(stream)
    assert said in refusal(sd.run, experiment, stream, _ids(), vocabulary=given)
    assert (stream / "vocabulary.txt").read_bytes() == before


def test_a_vocabulary_may_say_the_id_of_each_word(stream):
    sd.run(manifest.experiment(stream), stream, _ids(), vocabulary={"c": 2, "a": 0, "b": np.int64(1)}, verify=False)
    assert load_vocabulary(stream / "vocabulary.txt") == ("a", "b", "c")


def test_a_prediction_is_the_probability_that_the_network_gives(reviews):
    out, examples = reviews
    of = use.trained(out, 1)
    batch = use._batch(of.spec, examples.xs, examples.lengths)
    logits = model.predict(of.spec, sd.restore(out, 1), batch)
    right = np.exp(np.asarray(logits, np.float64))
    right /= right.sum(1, keepdims=True)
    for data in (
        TEXTS * 4,
        pd.Series(TEXTS * 4),
        pd.DataFrame({"text": TEXTS * 4}),
        np.array(TEXTS * 4),
        [text.encode() for text in TEXTS * 4],
        np.array([text.encode() for text in TEXTS * 4]),
        pd.Series([text.encode() for text in TEXTS * 4]),
        examples,
        tuple(examples),
        (examples.xs.tolist(), examples.lengths.tolist()),
    ):
        np.testing.assert_allclose(sd.predict(out, 1, data, batch=5), right, rtol=1e-5)
    assert np.abs(sd.predict(out, 0, TEXTS * 4) - right).max() > 1e-3  # another run
    for text in (TEXTS[0], TEXTS[0].encode()):
        np.testing.assert_allclose(sd.predict(out, 1, text), right[:1], rtol=1e-5)
    (one, words), (other, same) = (sd.explained(out, 1, text) for text in (TEXTS[0], TEXTS[0].encode()))
    assert np.array_equal(one, other) and words == same
    short = [examples.xs[:1, -int(examples.lengths[0]) :], right[:1]]
    np.testing.assert_allclose(sd.predict(out, 1, short[0]), short[1], rtol=1e-5)
    for n in (2, 3):  # as many sequences as there are arrays in (xs, lengths) and (xs, lengths, ys)
        rows = examples.xs[:n].tolist()
        np.testing.assert_allclose(sd.predict(out, 1, rows), sd.predict(out, 1, np.asarray(rows)), rtol=1e-5)


def test_a_long_text_is_read_from_the_end_that_is_asked_for(reviews):
    out, _ = reviews
    text = "a fine film what a film dull dull"  # eight words, and <start>, for six steps
    for truncate, kept in (("first", "a fine film what a"), ("last", "what a film dull dull")):
        words = [word.word for word in sd.explained(out, 0, text, truncate=truncate)[1]]
        assert " ".join(words[-5:]) == kept
    first = sd.predict(out, 0, text, truncate="first")
    np.testing.assert_allclose(first, sd.predict(out, 0, "a fine film what a"), rtol=1e-5)


def test_the_gradient_of_a_word_is_the_difference_that_its_vector_makes(reviews):
    out, _ = reviews
    answer, words = sd.explained(out, 0, TEXTS[1])
    np.testing.assert_allclose(answer, sd.predict(out, 0, TEXTS[1])[0], rtol=1e-5)
    assert [word.word for word in words] == ["<start>", "dull", "dull", "dull"]
    of = use.trained(out, 0)
    xs, lengths = use._read(of, TEXTS[1])
    shift, k = 1e-2, int(np.argmax(answer))
    slopes = []
    for unit in np.eye(3, dtype=np.float32):  # of the last word alone: it gets an id of its own
        sides = []
        for side in (shift, -shift):
            row = of.params.embedding[xs[0, -1]] + side * unit
            params = of.params._replace(embedding=of.params.embedding.at[0].set(row))
            batch = use._batch(of.spec, np.r_[xs[0, :-1], 0][None], lengths)
            sides.append(jax.nn.softmax(model.predict(of.spec, params, batch))[0, k])
        slopes.append((sides[0] - sides[1]) / (2 * shift))
    np.testing.assert_allclose(words[-1].gradient, np.linalg.norm(np.asarray(slopes)), rtol=1e-2)


@pytest.mark.slow
def test_what_is_written_at_temperature_0_is_the_most_probable_symbol_after_all_before(stream):
    written = sd.generate(stream, 0, "ab", 4, temperature=0)
    of, text = use.trained(stream, 0), "ab"
    for _ in range(4):
        ids = jnp.asarray([["abc".index(c)] for c in text], jnp.int32)
        text += "abc"[int(jnp.argmax(model.predict(of.spec, of.params, Batch(ids, ids))[-1, 0]))]
    assert "ab" + written == text == "ab" + sd.generate(stream, 0, "ab", 4, temperature=np.float32(0))
    hot = {sd.generate(stream, 0, "ab", 12, temperature=5.0, seed=seed) for seed in range(3)}
    assert len(hot) == 3 and sd.generate(stream, 0, "ab", 12, temperature=5.0, seed=1) in hot


@pytest.mark.slow
def test_numbers_and_predictions_at_every_step_come_in_the_order_of_the_examples(tmp_path):
    spec = sd.Spec("next_step", steps=4, batch=2, hidden=(3,), features=2, readout="every")
    bits = (np.arange(3 * 4 * 2).reshape(3, 4, 2) % 3 == 0).astype(np.float32)
    data = {name: Examples(bits, np.full(3, 4), bits) for name in ("train", "validation", "test")}
    out = sd.run(sd.Experiment("bits", spec, updates=1, probes=()), tmp_path / "out", data, verify=False)
    found = sd.predict(out, 0, bits, batch=2)
    assert found.shape == (3, 4, 2) and (found > 0).all() and (found < 1).all()
    np.testing.assert_allclose(found[2], sd.predict(out, 0, bits[2:])[0], rtol=1e-5)
    assert "data has the shape (4, 2); it must be [n, steps] of ids or [n, steps, d]" in refusal(
        sd.predict, out, 0, bits[2]
    )


@pytest.mark.slow
def test_sampled_sequences_are_padded_where_their_task_pads_them(tmp_path):
    spec = sd.Spec(steps=6, batch=5, hidden=(3,), holdout=5, shortest=2, mask=False)
    out = sd.run(sd.Experiment("lengths", spec, updates=2, probes=()), tmp_path / "out", verify=False)
    of = use.trained(out, 0)
    batch = train.training_batch(of.spec, None, 0)
    xs, lengths = np.asarray(batch.xs).swapaxes(0, 1), np.asarray(batch.mask).sum(0)
    assert lengths.min() < 6
    right = np.asarray(model.predict(of.spec, of.params, batch))[:, 0]
    np.testing.assert_allclose(sd.predict(out, 0, (xs, lengths)), right, rtol=1e-6)
    short = int(lengths.argmin())
    np.testing.assert_allclose(sd.predict(out, 0, xs[[short], : lengths[short]]), right[[short]], rtol=1e-6)


def test_a_sentence_is_said_with_a_bar_for_each_word(reviews, tmp_path):
    process = Process(["experiments/say.py", "--run", reviews[0], TEXTS[0]])
    lines = process.finish().splitlines()
    assert lines[0].startswith("class ") and [line.split()[0] for line in lines[1:]] == ["<start>", *TEXTS[0].split()]
    assert max(line.count("█") for line in lines) == 40


@pytest.mark.parametrize(
    "call, given, told",
    [
        (sd.predict, (9, "film"), "run is 9"),
        (sd.predict, ("0", "film"), "run is '0'"),
        (sd.restore, (0.5,), "run is 0.5"),
        (sd.predict, (0, []), "at most 6 steps"),
        (sd.predict, (0, [[1, 2], [1]]), "data is no array"),
        (sd.predict, (0, ""), "must have a word"),
        (sd.predict, (0, [[1.5] * 6]), "must be whole numbers"),
        (sd.predict, (0, [[99] * 6]), "an id between 0 and"),
        (sd.predict, (0, [[1] * 7]), "at most 6 steps"),
        (sd.predict, (0, 3), "at most 6 steps"),
        (sd.explained, (0, ["a", "b"]), "must be one text"),
        (sd.generate, (0, "a", 3), "only a stream goes on"),
    ],
)
def test_what_a_network_cannot_read_is_a_sentence(reviews, call, given, told):
    assert told in refusal(call, reviews[0], *given)


@pytest.mark.parametrize("change", [{0: "good"}, {3: "🙂"}, {4: " "}, {4: "Film"}, {5: "a film"}], ids=str)
def test_a_text_is_not_read_by_a_vocabulary_of_other_tokens(reviews, tmp_path, change):
    """Each text would be one of unknown words, and its prediction that of another text."""
    out, examples = tmp_path / "out", reviews[1]
    shutil.copytree(reviews[0], out)
    words = load_vocabulary(out / "vocabulary.txt")
    save_vocabulary(out / "vocabulary.txt", [change.get(i, word) for i, word in enumerate(words)])
    (at, word), *_ = change.items()
    for call in (sd.predict, sd.explained):
        assert f"id {at} is {word!r}" in refusal(call, out, 0, TEXTS[0])
    assert np.array_equal(sd.predict(out, 0, examples), sd.predict(reviews[0], 0, examples))  # of ids


def test_texts_without_a_known_word_are_told(reviews):
    with pytest.warns(UserWarning, match="^1 of 3 texts have no word of the vocabulary of .*'good 好'"):
        sd.predict(reviews[0], 0, ["a bad film", "good 好", "dull"])


@pytest.mark.parametrize(
    "prompt, n, heat, told",
    [
        ("", 1, 1.0, "prompt"),
        ("x", 1, 1.0, "'x'"),
        ("a", 0, 1.0, "n is 0"),
        ("a", 1, -1.0, "temperature"),
        ("a", 1, True, "temperature"),
    ],
)
def test_what_a_stream_cannot_go_on_from_is_a_sentence(stream, prompt, n, heat, told):
    assert told in refusal(sd.generate, stream, 0, prompt, n, temperature=heat)


@pytest.mark.parametrize(
    "more",
    [
        dict(classes=3, features=2, bidirectional=True),
        dict(classes=2, features=2, pad="after"),
        dict(classes=0, features=1, targets=2),
        dict(classes=2, features=2, targets=2),
    ],
    ids=str,
)
def test_labels_of_every_step_count_on_steps_that_are_not_padding_alone(more, tmp_path):
    """Loss and accuracy are the means over all of these, whatever stands for labels on padding."""
    n, steps, rng = 7, 5, np.random.default_rng(0)
    spec = sd.Spec("labelled", steps=steps, readout="every", batch=4, hidden=(4,), cell="gru", **more)
    xs, lengths = rng.normal(size=(n, steps, spec.features)), np.arange(n) % steps + 1
    t = np.arange(steps)[None]
    valid = t < lengths[:, None] if spec.pad == "after" else t >= steps - lengths[:, None]
    shape = (n, steps) if spec.targets == 1 else (n, steps, 2)
    ys = rng.integers(0, spec.classes, shape) if spec.classes else rng.normal(size=shape)
    ys[~valid] = -100 if spec.classes else np.nan
    experiment = sd.Experiment("tags", sd.grid(spec, lr=0.05), updates=4, chunk=4, probe_every=4, probes=())
    data = dict.fromkeys(("train", "validation", "test"), (xs, lengths, ys))
    ds = sd.load(sd.run(experiment, tmp_path, data)).isel(run=0)
    found = sd.predict(tmp_path, 0, (xs, lengths))[valid].astype(np.float64)
    ys = ys[valid]
    if spec.classes and spec.targets > 1:
        right = np.where(ys == 1, found, 1 - found)
        loss = -np.sum(np.log(right), axis=1)
        np.testing.assert_allclose(ds.test_accuracy[-1], np.mean(right > 0.5), rtol=1e-5)
    elif spec.classes:
        p = found if spec.classes > 2 else np.stack([1 - found, found], axis=1)
        loss = -np.log(p[np.arange(len(ys)), ys])
        np.testing.assert_allclose(ds.test_accuracy[-1], np.mean(p.argmax(axis=1) == ys), rtol=1e-5)
    else:
        loss = np.sum((found - ys) ** 2, axis=1)
        np.testing.assert_array_equal(sd.predict(tmp_path, 0, xs[..., 0]), sd.predict(tmp_path, 0, xs))  # [n, s]
    np.testing.assert_allclose(ds.test_loss[-1], loss.mean(), rtol=1e-5)


def test_numbers_of_one_feature_are_not_read_as_sequences_of_one_step(tmp_path):
    spec = sd.Spec("labelled", steps=5, batch=2, hidden=(3,), features=1, classes=2)
    xs = np.random.default_rng(0).normal(size=(6, 5, 1))
    data = dict.fromkeys(("train", "validation"), (xs, np.full(6, 5), [0, 1] * 3))
    out = sd.run(sd.Experiment("x", sd.grid(spec), updates=1), tmp_path / "out", data, verify=False)
    np.testing.assert_array_equal(sd.predict(out, 0, xs[..., 0]), sd.predict(out, 0, xs))
    assert "data has the shape (5, 1); it must be" in refusal(sd.predict, out, 0, xs[0])
    assert "truncate is 'middle'; it must be one of" in refusal(sd.predict, out, 0, xs, truncate="middle")
