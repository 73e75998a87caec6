"""Laws of users' own tasks that draw ids: read as one-hot vectors they are what vectors would be, and an embedding is a
product with them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from _refusals import refusal
from _training import update

import seqdyn as sd
from experiments import causes
from seqdyn.data.batches import Batch
from seqdyn.data.synthetic import TemporalOrder
from seqdyn.learn import model, train
from seqdyn.learn.verify import TOLERANCE, gradient_error
from seqdyn.numbers import Numbers

X64 = False
KINDS, STEPS = 6, 10


@sd.part
class Symbols:
    """Temporal order, as ids."""

    of_lengths: bool = False
    above: int = 0
    """Added to each id."""
    fraction: float = 0.0
    """Added to each id of sequences that have lengths."""

    def build(self):
        order = TemporalOrder(steps=STEPS)

        def ids(key, lengths):
            xs, ys = order.sample(key, lengths)
            return jnp.argmax(xs, axis=-1) + self.above, ys

        def draw(key, batch):
            return ids(key, jnp.full(batch, STEPS))

        def of_lengths(key, lengths):
            xs, ys = ids(key, lengths)
            return (xs + self.fraction if self.fraction else xs), ys

        loss = optax.softmax_cross_entropy_with_integer_labels
        return sd.task(draw, loss=loss, inputs=0, outputs=4, of_lengths=of_lengths if self.of_lengths else None)


def spec(task=None, **fields):
    usual = dict(batch=4, holdout=4, hidden=(3,), vocabulary=KINDS)
    return sd.Spec(task or Symbols(), **(usual | fields))


@pytest.mark.parametrize("shortest", [0, 5])
def test_ids_without_an_embedding_train_as_their_one_hot_vectors_do(shortest):
    ids = spec(Symbols(of_lengths=True), shortest=shortest)
    vectors = sd.Spec("temporal_order", steps=STEPS, batch=4, holdout=4, hidden=(3,), shortest=shortest)
    read, drawn = (train.training_batch(of, None, 0) for of in (ids, vectors))
    np.testing.assert_array_equal(read.ys, drawn.ys)
    real = np.ones((STEPS, 4), bool) if drawn.mask is None else np.asarray(drawn.mask)
    assert real.all() == (shortest == 0)
    np.testing.assert_array_equal(np.asarray(jax.nn.one_hot(read.xs, KINDS))[real], np.asarray(drawn.xs)[real])
    after = [update(of, Numbers(), train.init(of), autodiff=False).after.params for of in (ids, vectors)]
    for one, other in zip(*map(jax.tree.leaves, after), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)


def test_an_embedding_of_drawn_ids_has_the_gradient_of_autodiff():
    of = spec(Symbols(of_lengths=True), embedding=2, shortest=5)
    assert train.init(of).params.embedding.shape == (KINDS, 2)
    assert gradient_error(of, None) < TOLERANCE


@pytest.mark.parametrize("above, wrong", [(1, 6), (-1, -1)])
def test_ids_that_are_not_of_the_vocabulary_are_refused(above, wrong):
    """A gather would take the last row, and a one-hot vector be 0."""
    said = refusal(gradient_error, dataclasses.replace(spec(Symbols(above=above)), batch=40), None)
    assert f"id {wrong};" in said and "0 to 5" in said


def test_a_run_that_meets_an_id_that_is_not_of_the_vocabulary_diverges_and_why_says_which(tmp_path):
    of = spec(Symbols(above=1), batch=40, embedding=2)
    out = sd.run(sd.Experiment("ids", of, updates=2, chunk=1), tmp_path / "out", verify=False)
    assert not sd.load(out).finite.any()
    assert "the batch has 6, no id of the vocabulary, at step" in str(sd.why(out, 0))


@pytest.mark.parametrize(
    "task, fields, words",
    [
        (Symbols(), dict(vocabulary=0), "Symbols, which draws ids"),
        (Symbols(), dict(vocabulary=1), "vocabulary is 1"),
        (Symbols(), dict(features=3), "features is 3"),
        (Symbols(), dict(embedding=2, vocabulary=0), "vocabulary is 0"),
        (Symbols(), dict(embedding=2, pretrained=True), "pretrained is True"),
        ("temporal_order", dict(steps=STEPS), "makes its own inputs"),
    ],
)
def test_a_vocabulary_belongs_to_a_task_that_draws_ids(task, fields, words):
    assert words in refusal(lambda: sd.Experiment("ids", spec(task, **fields), updates=2))


@pytest.mark.parametrize("xs, words", [(jnp.ones((5, 4)), "float32"), (jnp.ones((5, 4, 2), int), "(5, 4, 2)")])
def test_what_is_drawn_without_inputs_must_be_ids(xs, words):
    @sd.part
    class Other:
        def build(self):
            return sd.task(lambda key, b: (xs, jnp.ones(b)), loss=lambda p, y: p[:, 0] - y, inputs=0, outputs=1)

    said = refusal(spec, Other())
    assert words in said and "ids" in said


def test_ids_of_sequences_with_lengths_are_whole_numbers_too():
    assert "xs of of_lengths" in refusal(spec, Symbols(of_lengths=True, fraction=0.5))


def test_a_run_of_drawn_ids_is_recorded_restored_and_reads_others(tmp_path):
    of = spec(embedding=2)
    words = [f"word{i}" for i in range(KINDS)]
    out = sd.run(sd.Experiment("ids", of, updates=2, chunk=1), tmp_path / "out", vocabulary=words)
    assert sd.load(out).adjoint_norm.notnull().all()
    ids = np.arange(STEPS)[None] % KINDS
    found = sd.predict(out, 0, ids)
    batch = Batch(jnp.asarray(ids.T, jnp.int32), jnp.zeros(1, jnp.int32))
    predicted = model.predict(dataclasses.replace(of, batch=1), sd.restore(out, 0), batch)
    np.testing.assert_allclose(found, predicted, rtol=1e-5)
    assert "draws its ids" in refusal(sd.predict, out, 0, "word1 word2")
    assert "draws its ids" in refusal(sd.explained, out, 0, "word1 word2")


def test_temporal_order_among_many_words_asks_the_same_and_draws_every_word():
    order, words = TemporalOrder(steps=50), causes.Words(50, 20).build()
    xs, ys = order.build().draw(jax.random.key(1), 40)
    ids, asked = map(np.asarray, words.draw(jax.random.key(1), 40))
    symbols = np.asarray(jnp.argmax(xs, axis=-1))
    np.testing.assert_array_equal(asked, ys)
    np.testing.assert_array_equal(np.where(ids < 2, ids, 2), np.minimum(symbols, 2))
    assert {*ids.ravel().tolist()} == {*range(20)}
