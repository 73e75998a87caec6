"""Laws of `seqdyn.data.audio`: which recording is in which split, and what its frames are."""

import os

import numpy as np
import pytest

from seqdyn.data import extras
from seqdyn.data.audio import RATE, Mel, log_mel, recordings, spoken_digits
from seqdyn.data.check import check
from seqdyn.learn.config import Spec
from seqdyn.types import ConfigError


def refusal(call, *args, **kwargs):
    """The sentence of the ConfigError that a call must raise."""
    with pytest.raises(ConfigError) as caught:
        call(*args, **kwargs)
    sentence = str(caught.value)
    assert sentence.endswith(".") and "\n" not in sentence
    return sentence


def tone(hertz, seconds, rate=RATE, loud=0.3):
    """A sine."""
    return (loud * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)).astype(np.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two digits by three speakers, seven recordings each: the pitch says the digit, the length who it is."""
    import soundfile

    folder = tmp_path_factory.mktemp("recordings")
    for digit in (0, 1):
        for s, speaker in enumerate(("ada", "bob", "cleo")):
            for index in range(10):
                wave = tone(400 + 800 * digit + 5 * index, 0.2 + 0.1 * s)
                soundfile.write(folder / f"{digit}_{speaker}_{index}.wav", wave, RATE)
    return folder


MEL = Mel(mels=20, seconds=0.5)


def read(folder, **options):
    return spoken_digits(folder, **({"mel": MEL, "cache_dir": folder / "cache"} | options))


def test_the_test_split_is_index_0_to_4_and_validation_is_drawn_from_the_rest(folder):
    data = read(folder)
    assert {name: len(e.ys) for name, e in data.items()} == {"train": 24, "validation": 6, "test": 30}
    assert np.bincount(data["validation"].ys).tolist() == [3, 3]
    check(Spec("labelled", MEL.steps, 4, features=20, classes=2, mask=True), data)
    assert np.array_equal(read(folder, seed=1)["test"].xs.shape, data["test"].xs.shape)
    assert not np.array_equal(read(folder, seed=1)["validation"].xs, data["validation"].xs)
    assert np.array_equal(read(folder)["validation"].xs, data["validation"].xs)


def test_whole_speakers_can_be_held_out(folder):
    data = read(folder, held_out="speakers")
    # The length of a recording says who speaks.
    assert len(set(data["validation"].lengths)) == 1 and len(set(data["train"].lengths)) == 2
    assert not set(data["validation"].lengths) & set(data["train"].lengths)
    assert set(data["test"].lengths) > set(data["train"].lengths)


def test_frames_are_standardised_on_those_of_training_and_padding_is_zero(folder):
    for pad in ("before", "after"):
        train = read(folder, pad=pad)["train"]
        step = np.arange(MEL.steps)[None]
        lengths = train.lengths[:, None]
        live = step >= MEL.steps - lengths if pad == "before" else step < lengths
        assert not train.xs[~live].any() and live.sum() < live.size
        np.testing.assert_allclose(train.xs[live].mean(axis=0, dtype=np.float64), 0, atol=1e-5)
        np.testing.assert_allclose(train.xs[live].std(axis=0, dtype=np.float64), 1, atol=1e-5)


def test_a_limit_keeps_the_digits_in_proportion(folder):
    data = read(folder, limit=20)
    assert {name: np.bincount(e.ys).tolist() for name, e in data.items()} == {
        "train": [8, 8],
        "validation": [2, 2],
        "test": [10, 10],
    }


def test_the_band_of_a_tone_is_that_of_its_frequency_and_decibels_are_those_of_its_power():
    import librosa

    mel = Mel(mels=40)
    centres = librosa.mel_frequencies(42, fmax=RATE / 2)[1:-1]
    for hertz in (500, 1000, 3000):
        frames = log_mel(tone(hertz, 0.5), mel)
        assert frames.shape == (1 + 4000 // 128, 40)
        band = int(frames[10].argmax())
        assert abs(centres[band] - hertz) <= np.max(np.diff(centres)[max(band - 1, 0) : band + 1])
    quiet, loud = log_mel(tone(1000, 0.5, loud=0.1), mel), log_mel(tone(1000, 0.5, loud=1.0), mel)
    assert np.max(loud - quiet) == pytest.approx(20, abs=1e-3)
    assert loud.max() - loud.min() <= 80 + 1e-3


def test_frames_are_cached_and_made_again_when_a_setting_changes(folder, tmp_path, monkeypatch):
    from seqdyn.data import audio

    first = read(folder, cache_dir=tmp_path)
    calls = []
    monkeypatch.setattr(audio, "wave", lambda one: calls.append(one) or tone(440, 0.2))
    assert np.array_equal(read(folder, cache_dir=tmp_path)["train"].xs, first["train"].xs) and not calls
    read(folder, cache_dir=tmp_path, mel=MEL._replace(hop=10.0))
    assert len(calls) == 60


def test_a_folder_that_is_not_the_data_set_is_a_sentence(folder, tmp_path):
    import soundfile

    assert "it does not exist" in refusal(spoken_digits, tmp_path / "nowhere")
    assert "some below index 5" in refusal(spoken_digits, tmp_path)
    wrong = tmp_path / "wrong"
    wrong.mkdir()
    soundfile.write(wrong / "seven.wav", tone(440, 0.1), RATE)
    assert "'seven.wav'" in refusal(spoken_digits, wrong)
    broken = tmp_path / "broken"
    broken.mkdir()
    for digit in range(10):
        for index in (0, 1, 2, 3, 4, 5, 6, 7, 8, 9):
            soundfile.write(broken / f"{digit}_ada_{index}.wav", tone(440, 0.1), RATE)
    (broken / "3_ada_7.wav").write_bytes(b"RIFF")
    assert "3_ada_7.wav must be a mono recording at 8000 Hz, but cannot be read" in refusal(
        spoken_digits, broken, cache_dir=tmp_path
    )
    soundfile.write(broken / "3_ada_7.wav", tone(440, 0.1), 16000)
    assert "3_ada_7.wav must be a mono recording at 8000 Hz, but has 16000 Hz" in refusal(
        spoken_digits, broken, cache_dir=tmp_path
    )


@pytest.mark.parametrize(
    "options, sentence",
    [
        (dict(mel=Mel(mels=0)), "mels is 0"),
        (dict(mel=Mel(hop=0.0)), "hop is 0.0"),
        (dict(mel=Mel(seconds=-1.0)), "seconds is -1.0"),
        (dict(validation=1.0), "validation is 1.0"),
        (dict(held_out="digits"), "held_out is 'digits'"),
        (dict(limit=3), "limit is 3"),
    ],
)
def test_a_wrong_setting_is_a_sentence(folder, options, sentence):
    assert sentence in refusal(spoken_digits, folder, **options)


def test_a_missing_library_is_a_sentence_that_names_its_extra(folder, tmp_path, monkeypatch):
    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(extras.importlib, "import_module", missing)
    sentence = refusal(spoken_digits, folder, cache_dir=tmp_path)
    assert sentence == "reading recordings needs soundfile: install seqdyn[audio]."


def test_the_real_recordings_are_as_many_as_there_should_be(tmp_path):
    path = os.environ.get("SEQDYN_AUDIO")
    if path is None or not os.path.isdir(path):
        pytest.skip("needs spoken digits: set SEQDYN_AUDIO to the folder of FSDD's recordings")
    found = recordings(path)
    assert len(found) == 3000 and len({one.speaker for one in found}) == 6
    data = spoken_digits(path, limit=100, cache_dir=tmp_path)
    assert data["train"].xs.shape == (80, 51, 40) and data["test"].xs.shape == (100, 51, 40)
    check(Spec("labelled", 51, 8, features=40, classes=10), data)
