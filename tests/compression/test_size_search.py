import pytest

from sqz_keras.compression.size_search import next_aim


@pytest.mark.parametrize("target", [8_000, 12_000, 30_000])
def test_the_aim_comes_near_the_target_where_half_of_the_file_follows_it(target):
    """As in small files of small models, for which no file was found in six attempts."""
    aim, tried = target, []
    for _ in range(3):
        tried.append((round(5_000 + 0.55 * aim), aim))
        aim = next_aim(tried, 0.995 * target)
    assert 0.99 * target <= tried[-1][0] <= target
