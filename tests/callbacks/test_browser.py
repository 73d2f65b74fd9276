"""The grid in TensorBoard, opened in a real browser."""

import io
import socket
import subprocess
import sys
import time
import urllib.request

import numpy as np
import pytest
from PIL import Image

from keras_jsigr.callbacks.grid.record import Record

program = pytest.importorskip("tensorboard.program", reason="tensorboard is missing")

SECONDS = 60
# The pictures of a page with shadow roots: TensorBoard nests its elements in them.
PICTURES = """
const found = [];
const look = (root) => {
  for (const e of root.querySelectorAll("*")) {
    if (e.tagName === "IMG" && e.src.includes("individualImage")) found.push(e);
    if (e.shadowRoot) look(e.shadowRoot);
  }
};
look(document);
return found.map((e) => [e.naturalWidth, e.naturalHeight]);
"""


@pytest.fixture
def tensorboard(tmp_path):
    """The viewer on a free port, its address, and the picture it has to show."""
    picture = np.full((300, 400, 3), 255, np.uint8)
    picture[100:200, 100:300] = [188, 55, 84]
    record = Record(tmp_path / "saliency", "epoch")
    for number in range(2):
        record.add(number, picture, {"saliency/agreement": 0.5})
    record.close()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(tmp_path)]
    command += ["--host", "127.0.0.1", "--port", str(port), "--load_fast", "false"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, **quiet)
    address = f"http://127.0.0.1:{port}"
    try:
        wait_for(lambda: answers(f"{address}/data/plugin/images/tags"))
        yield address
    finally:
        process.terminate()
        process.wait()


@pytest.fixture
def driver(tmp_path, open_chromium):
    made = open_chromium(tmp_path / "chromium", "--window-size=1400,1300")
    yield made
    made.quit()


def answers(address):
    try:
        with urllib.request.urlopen(address, timeout=5) as answer:
            return b"saliency/grid" in answer.read()
    except OSError:
        return False


def wait_for(condition):
    end = time.monotonic() + SECONDS
    while not (found := condition()):
        assert time.monotonic() < end, f"nothing after {SECONDS} seconds"
        time.sleep(0.2)
    return found


@pytest.mark.slow
def test_images_tab_shows_the_grid(tensorboard, driver):
    driver.get(f"{tensorboard}/#images")
    shown = wait_for(
        lambda: [size for size in driver.execute_script(PICTURES) if size[0]]
    )
    assert shown == [[400, 300]]
    pixels = np.asarray(Image.open(io.BytesIO(driver.get_screenshot_as_png())))
    reds = (np.abs(pixels[..., :3].astype(int) - [188, 55, 84]) < 12).all(-1)
    assert reds.sum() > 2_000
