import numpy as np
import pytest
from PIL import Image

from sqz_keras.architecture.spec import ModelSpec, Preprocessing
from sqz_keras.models.squeezenet import build, named_arrays
from trainers.evaluation.agreement import (
    ChangedAnswers,
    agreement_fields,
    compare_models,
    find_evaluation_images,
    image_batches,
)

SPEC = ModelSpec("1.1", classes=3, labels=("a", "b", "c"), input_size=32, preprocessing=Preprocessing(resize_to=36))


@pytest.fixture
def image_dir(tmp_path):
    random = np.random.default_rng(0)
    for index in range(7):
        folder = tmp_path / "images" / "abc"[index % 3]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (40, 40, 3), np.uint8)).save(folder / f"{index}.png")
    return tmp_path / "images"


def test_shares_and_intervals():
    fields = agreement_fields(np.array([0, 1, 2, 2]), np.array([0, 1, 2, 0]), np.array([0, 0, 0, 0]))
    assert (fields["num_images"], fields["agreement"], fields["top1_accuracy"]) == (4, 0.75, 0.5)
    low, high = fields["agreement_interval"]
    assert low == pytest.approx(0.3006, abs=1e-4) and high == pytest.approx(0.9544, abs=1e-4)
    assert "top1_accuracy" not in agreement_fields(np.array([0]), np.array([0]), None)


def test_models_are_compared_with_the_first(image_dir):
    arrays = named_arrays(build(SPEC))
    # Random weights with a bias for one class, which is then the answer to every image.
    always = [arrays | {"conv10/bias": np.eye(3, dtype=np.float32)[index] * 99} for index in (0, 0, 1)]
    first, same, other = compare_models(
        SPEC, always, image_batches(find_evaluation_images(image_dir, SPEC), SPEC, batch_size=2)
    )
    assert first == same
    assert (first["agreement"], first["top1_accuracy"]) == (1.0, round(3 / 7, 6))
    assert (other["agreement"], other["top1_accuracy"]) == (0.0, round(2 / 7, 6))


def test_changed_answers_come_with_their_images(image_dir):
    arrays = named_arrays(build(SPEC))
    first, same, other = (arrays | {"conv10/bias": np.eye(3, dtype=np.float32)[index] * 99} for index in (0, 0, 1))
    images = find_evaluation_images(image_dir, SPEC)
    inputs = np.concatenate([batch for batch, _ in image_batches(images, SPEC)])
    changed = ChangedAnswers()
    compare_models(SPEC, [first, same], image_batches(images, SPEC, batch_size=2), changed)
    assert changed.kept == []
    compare_models(SPEC, [first, other], image_batches(images, SPEC, batch_size=2), changed)
    assert {(answer.before, answer.after) for answer in changed.kept} == {(0, 1)}
    assert all(answer.probability_before > 0.99 < answer.probability_after for answer in changed.kept)
    kept = {answer.inputs.tobytes() for answer in changed.kept}
    assert kept == {image.tobytes() for image in inputs}


def test_of_many_changed_answers_those_of_the_highest_probability_are_kept():
    random = np.random.default_rng(0)
    before, after = (random.dirichlet(np.ones(4), 100).astype(np.float32) for _ in range(2))
    images = np.arange(100, dtype=np.float32).reshape(100, 1, 1, 1)
    changed = ChangedAnswers()
    for start in range(0, 100, 8):
        batch = slice(start, start + 8)
        changed.add(images[batch], before[batch], after[batch])
        assert len(changed.kept) <= 12
    differ = np.flatnonzero(before.argmax(1) != after.argmax(1))
    expected = sorted(differ, key=lambda place: -before[place].max())[:12]
    assert [int(answer.inputs.item()) for answer in changed.kept] == [int(place) for place in expected]
    for answer, place in zip(changed.kept, expected, strict=True):
        assert (answer.before, answer.after) == (before[place].argmax(), after[place].argmax())
        assert (answer.probability_before, answer.probability_after) == (before[place].max(), after[place].max())
        assert answer.inputs.base is None, "a view would keep its batch"


def test_without_labels_agreement_is_what_is_left(image_dir, capsys):
    (image_dir / "a").rename(image_dir / "holiday")
    images = find_evaluation_images(image_dir, SPEC)
    assert [index for _, index in images] == [None] * 7
    assert "These images have no labels" in capsys.readouterr().err
    (fields,) = compare_models(SPEC, [named_arrays(build(SPEC))], image_batches(images, SPEC))
    assert fields["agreement"] == 1 and "top1_accuracy" not in fields


def test_broken_images_are_named_and_left_out(image_dir, capsys):
    (image_dir / "a" / "broken.png").write_bytes(b"no image")
    (fields,) = compare_models(
        SPEC, [named_arrays(build(SPEC))], image_batches(find_evaluation_images(image_dir, SPEC), SPEC)
    )
    assert fields["num_images"] == 7
    assert "broken.png" in capsys.readouterr().err
    for path in image_dir.rglob("*.png"):
        path.write_bytes(b"")
    with pytest.raises(ValueError, match="None of the images"):
        compare_models(SPEC, [named_arrays(build(SPEC))], image_batches(find_evaluation_images(image_dir, SPEC), SPEC))
