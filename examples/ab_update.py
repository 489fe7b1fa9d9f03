"""Two slots on a device: an update is verified in the spare slot, switched to, tried, and rolled back if it fails.

    python examples/ab_update.py DEVICE whole.sqz      # a whole file; the first one fills slot a
    python examples/ab_update.py DEVICE delta.sqz      # a delta on what is installed
    python examples/ab_update.py DEVICE                # what the device does whenever it starts

DEVICE is a folder. Whenever the process is killed, a slot that works is there, and the next start finds it.
The .sqz files carry a self-test: sqz-compress --self_test. Needs sqz-keras[receiver], and no Keras.
"""

from __future__ import annotations

import json
import pathlib
import sys

from sqz_keras.files import write_json
from sqz_keras.runtimes import self_test
from sqz_keras.runtimes.receive import write_received
from sqz_keras.runtimes.run import run_litert
from sqz_keras.weights import sqz

STATE = "state.json"  # which slot is active, and whether it is only on trial


def update(device: pathlib.Path, received: pathlib.Path) -> pathlib.Path:
    """Installs a whole file, or a delta on the active slot's model, and starts; returns the model to load."""
    active, spare = slots(device)
    if active:
        start(device)  # the trial of an earlier update is over before its other slot is overwritten
        active, spare = slots(device)
    base = device / active / "model.sqz" if active and sqz.is_delta(received) else None
    model = sqz.read_model(received, base)  # every checksum, the base, the weights
    (device / spare).mkdir(parents=True, exist_ok=True)
    for name in ("model.sqz", "model.tflite"):
        write_received(model, device / spare / name)
    sqz.read_model(device / spare / "model.sqz")  # the file on the disk is the one that was sent
    if not active and not passes(device / spare):
        raise ValueError(f"{received} fails its self-test, and there is no other slot to go back to.")
    write_json(device / STATE, {"active": spare, "on_trial": bool(active)})  # the switch is one rename
    return start(device)


def start(device: pathlib.Path) -> pathlib.Path:
    """The model to load. A slot on trial is self-tested first; if that fails, the other slot becomes active again."""
    active, other = slots(device)
    if json.loads((device / STATE).read_text("utf-8"))["on_trial"]:
        write_json(device / STATE, {"active": other, "on_trial": False})  # a self-test that crashes has failed too
        if passes(device / active):
            write_json(device / STATE, {"active": active, "on_trial": False})
    return device / slots(device)[0] / "model.tflite"


def passes(slot: pathlib.Path) -> bool:
    """Whether the runtime gives the known answer to the known image, with the very file that it is going to load."""
    try:
        model, data = sqz.read_model(slot / "model.sqz"), (slot / "model.tflite").read_bytes()
        self_test.check(model.header.get(sqz.SELF_TEST_KEY), model.spec, lambda images: run_litert(data, images))
    except (ValueError, RuntimeError, OSError) as error:  # from the self-test, the files or the runtime
        print(error, file=sys.stderr)
        return False
    return True


def slots(device: pathlib.Path) -> tuple[str | None, str]:
    """The active slot, None before the first installation, and the spare one."""
    if not (device / STATE).exists():
        return None, "a"
    active = json.loads((device / STATE).read_text("utf-8"))["active"]
    return active, "b" if active == "a" else "a"


if __name__ == "__main__":
    folder, *received = map(pathlib.Path, sys.argv[1:]) if len(sys.argv) in (2, 3) else sys.exit(__doc__)
    if not received and slots(folder)[0] is None:
        sys.exit(f"{folder} holds no model yet; install a whole file first.")
    try:
        print(update(folder, *received) if received else start(folder))
    except (ValueError, OSError) as error:
        sys.exit(f"Nothing was updated: {error}")
