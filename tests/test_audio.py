"""Laws of `seqdyn.data.audio`: which recording is in which split, and what its frames are."""

import inspect
import os
import shutil

import numpy as np
import pytest
from _refusals import refusal

from seqdyn.data import extras, waves
from seqdyn.data.audio import Mel, log_mel, recordings, spoken_digits
from seqdyn.data.check import check
from seqdyn.data.waves import RATE, background, changed, noise, pitch, speed, stretch
from seqdyn.learn.config import Spec

pytestmark = pytest.mark.slow  # librosa compiles with numba where it is new


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
        mask = step >= MEL.steps - lengths if pad == "before" else step < lengths
        assert not train.xs[~mask].any() and mask.sum() < mask.size
        np.testing.assert_allclose(train.xs[mask].mean(axis=0, dtype=np.float64), 0, atol=1e-5)
        np.testing.assert_allclose(train.xs[mask].std(axis=0, dtype=np.float64), 1, atol=1e-5)


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


def test_frames_are_those_of_the_sound_not_of_a_file_of_the_same_size(folder, tmp_path):
    import soundfile

    copied = shutil.copytree(folder, tmp_path / "recordings")
    before = read(copied, cache_dir=tmp_path)["test"].xs
    for path in copied.glob("*.wav"):
        soundfile.write(path, soundfile.read(path)[0][::-1] ** 3, RATE)
    assert path.stat().st_size == (folder / path.name).stat().st_size
    assert not np.array_equal(read(copied, cache_dir=tmp_path)["test"].xs, before)


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
    for sample in (np.nan, np.inf, 1e30):
        sound = np.append(tone(440, 0.1), np.float32(sample))
        soundfile.write(broken / "3_ada_7.wav", sound, RATE, subtype="FLOAT")
        assert f"at 8000 Hz, samples within −1 … 1, but has one of size {sample:g}" in refusal(
            spoken_digits, broken, cache_dir=tmp_path
        )
    assert "all recordings are ada's" in refusal(spoken_digits, broken, held_out="speakers", cache_dir=tmp_path)
    soundfile.write(broken / "3_ada_7.wav", tone(440, 0.1), 16000)
    assert "3_ada_7.wav must be a mono recording at 8000 Hz, but has 16000 Hz" in refusal(
        spoken_digits, broken, cache_dir=tmp_path
    )
    (broken / "3_ada_7.wav").rename(broken / "3_ada_7.WAV")
    assert "3_ada_7.WAV must be a mono recording" in refusal(spoken_digits, broken, cache_dir=tmp_path)
    (broken / "3_ada_7.WAV").unlink()
    (broken / "3_ada_7.wav").symlink_to("nowhere")
    assert "3_ada_7.wav cannot be read" in refusal(spoken_digits, broken, cache_dir=tmp_path)


def test_one_training_recording_has_no_other_behind_it(folder, tmp_path):
    for index in (0, 5, 6):
        shutil.copy(folder / f"0_ada_{index}.wav", tmp_path)
    sentence = refusal(spoken_digits, tmp_path, variants=1, changes=("background",), cache_dir=tmp_path / "cache")
    assert "there is one training recording" in sentence


# Changes of a waveform


def peak(samples):
    """The frequency, in Hz, with the most power."""
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples)), 1 << 16))
    return spectrum.argmax() * RATE / (1 << 16)


@pytest.mark.parametrize("semitones", [-4.0, 2.0, 12.0])
def test_a_shift_of_pitch_moves_the_peak_by_its_ratio_and_keeps_the_duration(semitones):
    wave = tone(600, 0.5)
    new = pitch(wave, semitones)
    assert len(new) == len(wave) and new.dtype == np.float32
    assert peak(new) == pytest.approx(600 * 2 ** (semitones / 12), rel=0.01)


@pytest.mark.parametrize("rate", [0.7, 1.3])
def test_a_stretch_changes_the_duration_and_not_the_peak_and_speed_changes_both(rate):
    wave = tone(600, 0.5)
    stretched, faster = stretch(wave, rate), speed(wave, rate)
    assert len(stretched) == pytest.approx(len(wave) / rate, abs=2)
    assert peak(stretched) == pytest.approx(600, rel=0.01)
    assert len(faster) == pytest.approx(len(wave) / rate, abs=2)
    assert peak(faster) == pytest.approx(600 * rate, rel=0.01)


@pytest.mark.parametrize("decibels", [-3.0, 20.0])
def test_noise_has_the_ratio_to_the_signal_that_was_asked_for(decibels):
    wave = tone(600, 0.5)
    added = noise(wave, decibels, np.random.default_rng(0)).astype(np.float64) - wave
    assert 10 * np.log10(np.mean(wave.astype(np.float64) ** 2) / np.mean(added**2)) == pytest.approx(decibels, abs=1e-3)
    spectrum = np.abs(np.fft.rfft(added)) ** 2
    halves = spectrum[: len(spectrum) // 2].mean(), spectrum[len(spectrum) // 2 :].mean()
    assert halves[0] == pytest.approx(halves[1], rel=0.3)  # white


@pytest.mark.parametrize("seconds", [0.1, 2.0])
def test_a_background_is_a_stretch_of_the_other_recording_at_the_ratio_asked_for(seconds):
    wave, other = tone(600, 0.5), tone(1500, seconds)
    added = background(wave, other, 10.0, np.random.default_rng(0)).astype(np.float64) - wave
    assert 10 * np.log10(np.mean(wave.astype(np.float64) ** 2) / np.mean(added**2)) == pytest.approx(10, abs=1e-3)
    assert peak(added) == pytest.approx(1500, rel=0.01)
    loud = background(wave, 7 * other, 10.0, np.random.default_rng(0))
    np.testing.assert_allclose(loud - wave, added, atol=1e-6)
    np.testing.assert_array_equal(background(wave, 0 * other, 10.0, np.random.default_rng(0)), wave)


def test_samples_of_a_file_are_heard_as_floats_of_one_channel_or_not_at_all():
    heard = tone(500, 0.3)
    whole = np.round(heard * 32767).astype(np.int16)
    rng = np.random.default_rng
    heights = whole / 32768.0
    for of in (whole, whole.astype(">i2"), whole.astype(np.int32) << 16, heights, heights.tolist()):
        assert np.array_equal(waves.mono(of), (whole / 32768.0).astype(np.float32))
        assert np.array_equal(log_mel(of), log_mel(waves.mono(whole)))
        for change in waves.USUAL:
            assert np.array_equal(changed(of, change, rng(0)), changed(waves.mono(whole), change, rng(0)))
        assert np.array_equal(background(of, of, 5.0, rng(0)), background(*[waves.mono(whole)] * 2, 5.0, rng(0)))
    assert waves.mono(heard) is heard
    for wrong in (np.stack([heard, heard], axis=1), np.stack([whole, whole]), whole.astype(np.int8), heard[:0], "beep"):
        for call in (log_mel, *(lambda of, c=c: changed(of, c, rng(0)) for c in waves.USUAL)):
            assert "samples" in refusal(call, wrong)
        assert "other" in refusal(background, heard, wrong, 5.0, rng(0))
    assert "finite" in refusal(log_mel, np.full(400, np.nan))
    assert "other is None; it must be numbers" in refusal(changed, heard, "background", rng(0))


@pytest.mark.parametrize("change", list(waves.USUAL))
def test_a_usual_change_is_a_function_of_the_generator_and_leaves_the_word_its_length_within_bounds(change):
    wave = tone(600, 0.5)
    new, same, other = (changed(wave, change, np.random.default_rng(s)) for s in (1, 1, 2))
    assert np.array_equal(new, same) and not (len(other) == len(new) and np.array_equal(new, other))
    bounds = {"stretch": 1.25, "speed": 1.1}.get(change, 1.0)
    assert len(wave) / bounds - 2 <= len(new) <= len(wave) * bounds + 2
    turned = {"pitch": 2 ** (2 / 12), "speed": 1.1}.get(change, 1.0)
    assert 600 / turned * 0.99 <= peak(new) <= 600 * turned * 1.01


# The bank


def test_a_bank_holds_variants_of_each_training_recording_in_their_order(folder):
    plain = read(folder)
    data = read(folder, variants=3, changes=("stretch", "noise"))
    assert all(np.array_equal(data[s].xs, plain[s].xs) for s in plain)  # nothing else moves
    bank, train = data["bank"], data["train"]
    assert bank.xs.shape == (24, 3, MEL.steps, 20) and bank.lengths.shape == (24, 3)
    assert np.array_equal(bank.ys, train.ys)
    assert np.array_equal(bank.lengths[:, 1], train.lengths) and not np.array_equal(bank.lengths[:, 0], train.lengths)
    assert np.abs(bank.lengths - train.lengths[:, None]).max() <= 0.25 * MEL.steps + 1
    last = train.xs[:, -3]
    template = last[train.ys == 1].mean(axis=0) - last[train.ys == 0].mean(axis=0)
    score = bank.xs[:, 1, -3] @ template
    assert score[train.ys == 1].min() > score[train.ys == 0].max()  # and each is a variant of its own digit
    check(Spec("labelled", MEL.steps, 4, features=20, classes=2), data)


def test_backgrounds_come_from_their_folder_or_else_from_training_recordings(folder, tmp_path, monkeypatch):
    import soundfile

    from seqdyn.data import audio

    read_paths = []
    plain = audio._read
    monkeypatch.setattr(audio, "_read", lambda path: read_paths.append(path) or plain(path))
    train = read(folder, variants=1, changes=("background",), cache_dir=tmp_path / "a")
    assert len(train["bank"].ys) == len(train["train"].ys)
    assert {int(path.stem.split("_")[2]) for path in read_paths[60:]} <= set(range(audio.TEST, 100))
    (tmp_path / "street").mkdir()
    soundfile.write(tmp_path / "street" / "any name.wav", tone(300, 1.0), RATE)
    given = dict(variants=1, changes=("background",), background=tmp_path / "street")
    street = read(folder, **given, cache_dir=tmp_path / "a")
    assert not np.array_equal(street["bank"].xs, train["bank"].xs)
    assert "must be a folder of .wav files" in refusal(read, folder, **given | {"background": tmp_path / "none"})
    assert "must have 'background'" in refusal(read, folder, **given | {"changes": ("noise",)})


def test_a_bank_is_a_function_of_seed_and_file_name(folder, tmp_path):
    one, again = (read(folder, variants=1, changes=("pitch",), cache_dir=tmp_path / c)["bank"].xs for c in "ab")
    assert np.array_equal(one, again)
    assert not np.array_equal(one[:10], read(folder, variants=1, changes=("pitch",), seed=1)["bank"].xs[:10])


def test_a_bank_that_does_not_fit_its_training_split_is_a_sentence(folder):
    data = read(folder, variants=2, changes=("noise",))
    spec = Spec("labelled", MEL.steps, 4, features=20, classes=2)
    bank = data["bank"]

    def refused(changed):
        return refusal(check, spec, data | {"bank": changed})

    assert 'data["bank"] has xs of the shape (23, 2, 32, 20)' in refused(bank._replace(xs=bank.xs[1:]))
    assert "lengths of (24,)" in refused(bank._replace(lengths=bank.lengths[:, 0]))
    assert "lengths of the split bank has 0" in refused(bank._replace(lengths=0 * bank.lengths))
    assert "xs of the split bank has nan" in refused(bank._replace(xs=bank.xs * np.nan))
    check(spec, data)


@pytest.mark.parametrize(
    "options, sentence",
    [
        (dict(mel=Mel(mels=0)), "mels is 0"),
        (dict(mel=Mel(hop=0.0)), "hop is 0.0"),
        (dict(mel=Mel(seconds=-1.0)), "seconds is -1.0"),
        (dict(mel=Mel(seconds=1e-5)), "seconds is 1e-05"),
        (dict(mel=Mel(seconds=np.inf)), "seconds is inf"),
        (dict(mel=Mel(window=np.inf)), "window is inf"),
        (dict(mel=Mel(mels=2.5)), "mels is 2.5"),
        (dict(mel="x"), "mel is 'x'"),
        (dict(validation="x"), "validation is 'x'"),
        (dict(limit="x"), "limit is 'x'"),
        (dict(variants=1.5), "variants is 1.5"),
        (dict(changes=3), "changes is 3"),
        (dict(validation=1.0), "validation is 1.0"),
        (dict(held_out="digits"), "held_out is 'digits'"),
        (dict(limit=3), "limit is 3"),
        (dict(variants=-1), "variants is -1"),
        (dict(changes=("reverb",)), "changes is ('reverb',)"),
    ],
)
def test_a_wrong_setting_is_a_sentence(folder, options, sentence):
    assert sentence in refusal(inspect.unwrap(spoken_digits), folder, **options)


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
