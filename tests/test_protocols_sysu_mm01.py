import numpy as np
import pytest
from scipy.io import savemat
from splits import (
    DRAWS,
    GOLDEN,
    OFFICIAL,
    SYSU,
    embed,
    fake_tree,
    files,
    real_size,
    sysu_of,
)

from vireid_jax.protocols import evaluate, find_protocol, get_protocols
from vireid_jax.run.errors import UserError

AGW = np.load(GOLDEN / "sysu_agw_draws_real.npz")


def write_permutations(path, counts, first_ten):
    """Write rand_perm_cam.mat: `first_ten` begin each row of a permutation of 1..n."""
    cameras = np.empty((6, 1), object)
    for camera in range(6):
        cameras[camera, 0] = np.empty((333 if camera in (0, 1, 5) else 533, 1), object)
        cameras[camera, 0].fill(np.zeros((0, 0), np.uint8))
    for (camera, identity, n), rows in zip(counts, first_ten, strict=True):
        rest = [np.setdiff1d(np.arange(1, n + 1), row) for row in rows]
        order = np.concatenate([rows, rest], axis=1).astype(np.uint8)
        cameras[camera - 1, 0][identity - 1, 0] = order
    savemat(path, {"rand_perm_cam": cameras}, do_compression=True)
    return path


@pytest.fixture(scope="module")
def permutations(tmp_path_factory):
    path = tmp_path_factory.mktemp("sysu") / "rand_perm_cam.mat"
    return write_permutations(
        path, OFFICIAL["gallery_cam_id_count"], OFFICIAL["perm10"]
    )


@pytest.mark.parametrize("name", DRAWS["sysu"]["gallery"])
def test_sysu_draws_on_a_small_tree_equal_the_reference_loaders(name):
    mode, shots, trial = name.split("/")
    rows = fake_tree("sysu_mm01")
    protocol = find_protocol(f"sysu_mm01/{mode}/{shots.removesuffix('10')}")
    queries = protocol.queries(rows, 0)
    gallery = protocol.gallery(rows, int(trial.removeprefix("trial")))
    for chosen, expected in [
        (queries, DRAWS["sysu"]["query"][mode]),
        (gallery, DRAWS["sysu"]["gallery"][name]),
    ]:
        assert files(rows, chosen) == expected["files"]
        assert rows.identity[chosen].tolist() == expected["ids"]
        assert rows.camera[chosen].tolist() == expected["cams"]


@pytest.mark.parametrize("mode", ["all", "indoor"])
@pytest.mark.parametrize(("word", "key"), [("single", "single"), ("multi", "multi10")])
def test_agw_draws_at_real_size_equal_the_reference_loaders(mode, word, key):
    rows, protocol = real_size(), find_protocol(f"sysu_mm01/{mode}/{word}")
    images = AGW[f"{mode}_{key}"].reshape(10, len(AGW[f"{mode}_id_cam"]), -1)
    assert protocol.trials == tuple(range(10))
    for trial in protocol.trials:
        assert files(rows, protocol.gallery(rows, trial)) == [
            f"cam{camera}/{identity:04}/{image + 1:04}.jpg"
            for (identity, camera), drawn in zip(
                AGW[f"{mode}_id_cam"], images[trial], strict=True
            )
            for image in drawn
        ]


@pytest.mark.parametrize("mode", ["all", "indoor"])
@pytest.mark.parametrize(("word", "shots"), [("single", 1), ("multi", 10)])
def test_official_draws_equal_the_permutations(mode, word, shots, permutations):
    rows = real_size()
    name = f"sysu_mm01/{mode}/{word}/official"
    protocol = find_protocol(name, permutations=permutations)
    assert (protocol.name, protocol.draws, protocol.shots) == (name, "official", shots)
    assert protocol.trials == tuple(range(1, 11))
    for trial in protocol.trials:
        assert files(rows, protocol.gallery(rows, trial)) == [
            f"cam{camera}/{identity:04}/{image:04}.jpg"
            for (camera, identity, _), order in zip(
                OFFICIAL["gallery_cam_id_count"], OFFICIAL["perm10"], strict=True
            )
            if mode == "all" or camera <= 2
            for image in order[trial - 1, :shots]
        ]


@pytest.mark.parametrize(("name", "gallery"), SYSU)
def test_sysu_counts_are_the_published_ones(name, gallery, permutations):
    rows = real_size()
    official = find_protocol(name + "/official", permutations=permutations)
    for protocol in (find_protocol(name), official):
        assert protocol.published == (3803, gallery)
        assert len(protocol.queries(rows, 1)) == 3803
        drawn = protocol.gallery(rows, 1)
        assert len(drawn) == len(set(drawn)) == gallery


@pytest.mark.parametrize(("mode", "valid"), [("all", 3803), ("indoor", 2208)])
def test_sysu_of_real_size_is_evaluated_and_agrees(mode, valid):
    rows = real_size()
    result = evaluate(find_protocol(f"sysu_mm01/{mode}/single"), rows, embed(rows))
    labels = result.labels
    assert (labels.queries, labels.valid_queries) == (3803, valid)
    assert labels.published_counts == "agree"
    assert len(result.by_trial) == 10
    assert len({trial.mAP for trial in result.by_trial}) == 10
    assert (labels.mode, labels.shots, labels.draws) == (mode, 1, "agw")
    assert labels.direction == "infrared-to-visible"


def test_queries_of_camera_3_ignore_camera_2_whatever_the_identity():
    rows = sysu_of([(c, i, 1) for c in range(1, 7) for i in (5, 6)])
    protocol = find_protocol("sysu_mm01/all/single")
    queries, gallery = protocol.queries(rows, 0), protocol.gallery(rows, 0)
    ignored = protocol.ignored(rows, queries, gallery)
    for row, query in enumerate(queries):
        for column, item in enumerate(gallery):
            rule = (rows.camera[query], rows.camera[item]) == (3, 2)
            assert ignored[row, column] == rule


def test_a_smaller_release_is_evaluated_and_the_report_says_so():
    rows = sysu_of([(c, i, 2 + c) for c in range(1, 7) for i in (5, 6, 9)])
    for protocol in get_protocols("sysu_mm01"):
        result = evaluate(protocol, rows, embed(rows, noise=0.1))
        cameras = (1, 2, 4, 5) if protocol.mode == "all" else (1, 2)
        have = sum(3 * min(protocol.shots, 2 + camera) for camera in cameras)
        assert result.labels.gallery == have  # too few for multi: all there are
        assert result.labels.published_counts == (
            f"differ: 3803 queries, {protocol.published[1]} gallery images"
        )


def test_sysu_without_a_modality_or_without_gallery_cameras_is_an_error():
    indoor = find_protocol("sysu_mm01/indoor/single")
    for counts, message in [
        ([(1, 5, 2)], "no infrared image, and sysu_mm01/indoor/single"),
        ([(3, 5, 2)], "no visible image of cameras 1, 2"),
        ([(3, 5, 2), (4, 5, 2)], "no visible image of cameras 1, 2"),
    ]:
        rows = sysu_of(counts)
        with pytest.raises(UserError, match=message):
            evaluate(indoor, rows, embed(rows))


def test_official_draws_from_another_release_are_an_error(permutations):
    protocol = find_protocol("sysu_mm01/all/single/official", permutations=permutations)
    full = [(c, 6, 40) for c in (1, 2, 3, 5)]
    few = sysu_of([*full, (4, 6, 1)])
    with pytest.raises(UserError, match=r"\d+ images of identity 6 .* split has 1"):
        evaluate(protocol, few, embed(few))
    other = sysu_of([*full, (4, 7, 40)])
    with pytest.raises(UserError, match="has 0 images of identity 7 in camera 4"):
        protocol.gallery(other, 1)


def test_a_missing_or_damaged_file_of_permutations_is_an_error(tmp_path, permutations):
    def find(path):
        return find_protocol("sysu_mm01/all/single/official", permutations=path)

    where = "wuancong/SYSU-MM01"
    with pytest.raises(UserError, match=f"None is no file.*{where}"):
        find(None)
    with pytest.raises(UserError, match=rf"nowhere\.mat is no file.*{where}"):
        find(tmp_path / "nowhere.mat")
    damaged = tmp_path / "damaged.mat"
    whole = permutations.read_bytes()
    for content in (b"", b"<html>", whole[: len(whole) // 2], whole[:128]):
        damaged.write_bytes(content)
        with pytest.raises(UserError, match=rf"damaged\.mat is damaged.*{where}"):
            find(damaged)
    savemat(damaged, {"other": np.zeros(3)})
    with pytest.raises(UserError, match=r"is damaged .*rand_perm_cam"):
        find(damaged)
    write_permutations(damaged, [(1, 6, 4)], [[[1, 2], [2, 1]]])
    with pytest.raises(UserError, match=r"camera 1, identity 6 .* shape \(2, 4\)"):
        find(damaged)
    savemat(damaged, {"rand_perm_cam": np.ones((6, 1))})
    with pytest.raises(UserError, match=r"camera 1, identity 1 .* shape \(\)"):
        find(damaged)
