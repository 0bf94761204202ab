#!/usr/bin/env python3
"""Run ``edgekit run`` with every sink for many frames, and see that it stays as it is.

``scripts/soak.py --frames 100000`` takes a quarter of an hour or so.

Starts a broker (mosquitto), a web server for the webhook and somebody who watches the page's pictures; then looks at
memory, file descriptors and threads of the run as it goes on, ends it with SIGTERM and reads every file that it wrote.
Prints JSON; exits 1 if memory grew, descriptors or threads changed, or a file is not whole.
"""

from __future__ import annotations

import http.client
import json
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import click
import cv2

from edgekit.cameras.demo import HEIGHT, WIDTH, DemoCamera

ZONES = {
    "polygons": [[[0.1, 0.1], [0.9, 0.1], [0.9, 0.9], [0.1, 0.9]]],
    "names": ["middle"],
    "lines": [{"name": "across", "from": [0.5, 0], "to": [0.5, 1]}],
}
GROWTH_MB = 5.0
SETTLING = 2000
"""Frames after which memory must not grow any more."""

ENDS_WITHIN_S = 2.0


def free_port() -> int:
    """One that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def broker(folder: Path) -> Iterator[int | None]:
    """mosquitto's port; None where it is not installed."""
    program = shutil.which("mosquitto", path="/usr/local/sbin:/usr/sbin:/usr/bin:/usr/local/bin")
    if program is None:
        yield None
        return
    port = free_port()
    (folder / "mosquitto.conf").write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\n")
    process = subprocess.Popen([program, "-c", folder / "mosquitto.conf"], stderr=subprocess.DEVNULL)
    try:
        yield port
    finally:
        process.terminate()
        process.wait()


@contextmanager
def webhook(received: list[str]) -> Iterator[int]:
    """A server that takes what is posted; notes the kind of each event."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            received.append(self.headers["Content-Type"])
            self.send_response(204)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()


def watch(port: int, seen: list[int]) -> None:
    """Read the page's pictures until the run ends."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    try:
        connection.request("GET", "/picture.mjpg?camera=soak")
        answer = connection.getresponse()
        while data := answer.read(1 << 14):
            seen[0] += len(data)
    except OSError:
        pass


def ask(port: int, path: str) -> str:
    """What the run answers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().read().decode()
    finally:
        connection.close()


def processed(metrics: str) -> int:
    """Frames so far."""
    lines = [line for line in metrics.splitlines() if line.startswith("edgekit_frames_processed_total{")]
    return round(sum(float(line.rpartition(" ")[2]) for line in lines))


def state(pid: int) -> dict[str, float]:
    """Memory in MB, descriptors and threads of a process."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line)
    return {
        "rss_mb": int(status["VmRSS"].split()[0]) / 1024,
        "descriptors": len(list(Path(f"/proc/{pid}/fd").iterdir())),
        "threads": int(status["Threads"]),
    }


def write_clip(path: Path) -> Path:
    """The demo as a video, so that a decoder takes part."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), DemoCamera.fps, (WIDTH, HEIGHT))
    for frame in DemoCamera():
        writer.write(cv2.cvtColor(frame.image, cv2.COLOR_RGB2BGR))
    writer.release()
    return path


def check_files(folder: Path) -> dict[str, Any]:
    """How much of each file can be read."""
    text = (folder / "lines.jsonl").read_bytes()
    lines = [json.loads(line) for line in text.splitlines()]
    videos = list(folder.glob("video*.mp4"))
    frames = 0
    for path in videos:
        video = cv2.VideoCapture(str(path))
        while video.grab():
            frames += 1
    pictures = list((folder / "frames").glob("*.jpg"))
    broken = [path.name for path in pictures if cv2.imread(str(path)) is None]
    return {
        "lines": len(lines),
        "whole_lines": text.endswith(b"\n"),
        "videos": len(videos),
        "video_frames": frames,
        "pictures": len(pictures),
        "broken_pictures": len(broken),
        "left_over": sorted(path.name for path in folder.rglob("*part*")),
    }


@click.command()
@click.option("--frames", default=100_000, show_default=True)
@click.option("--source", help="What is looped: a video, or demo.  [default: a video of the demo]")
@click.option("--every", default=2.0, show_default=True, help="Seconds between two looks at the process.")
def main(frames: int, source: str | None, every: float) -> None:
    """Soak test of a run with every sink."""
    received: list[str] = []
    seen = [0]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="edgekit-soak-")))
        (folder / "zones.json").write_text(json.dumps(ZONES))
        source = source or str(write_clip(folder / "clip.mp4"))
        mqtt = stack.enter_context(broker(folder))
        hook, view = stack.enter_context(webhook(received)), free_port()
        command = [
            sys.executable, "-m", "edgekit.cli", "run", "default", "--source", f"soak={source}", "--loop", "--track",
            "--threads", "1", "--mask", f"omg & roi({folder}/zones.json) | tracks", "--zones", folder / "zones.json",
            "--jsonl", folder / "lines.jsonl", "--save", folder / "video.mp4", "--record", folder / "frames",
            "--record-mb", "20", "--view", str(view), "--webhook", f"http://127.0.0.1:{hook}/",
            *(["--mqtt", f"mqtt://127.0.0.1:{mqtt}/soak"] if mqtt else []),
        ]  # fmt: skip
        run = subprocess.Popen(list(map(str, command)))
        samples: list[dict[str, float]] = []
        try:
            start_s, watcher, done = time.monotonic(), None, 0
            while done < frames:
                time.sleep(min(every, 0.2) if not samples else every)
                if run.poll() is not None:
                    raise click.ClickException(f"the run ended by itself, with {run.returncode}")
                try:
                    done = processed(ask(view, "/metrics"))
                except OSError:
                    if time.monotonic() - start_s > 30:
                        raise
                    continue
                if done and watcher is None:
                    watcher = threading.Thread(target=watch, args=(view, seen), daemon=True)
                    watcher.start()
                samples.append({"frames": done, **state(run.pid)})
            faults = [line for line in ask(view, "/metrics").splitlines() if line.startswith("edgekit_errors_total{")]
            took_s, asked_s = time.monotonic() - start_s, time.monotonic()
            run.send_signal(signal.SIGTERM)
            code = run.wait(30)
            ended_s = time.monotonic() - asked_s
        finally:
            run.kill()
        files = check_files(folder)
    settled = [sample for sample in samples if sample["frames"] >= min(SETTLING, frames / 2)]
    report = {
        "frames": done,
        "frames_per_s": round(done / took_s, 1),
        "rss_mb": [round(sample["rss_mb"], 1) for sample in (settled[0], settled[-1])],
        "rss_growth_mb": round(settled[-1]["rss_mb"] - settled[0]["rss_mb"], 2),
        "rss_highest_mb": round(max(sample["rss_mb"] for sample in settled), 1),
        "descriptors": sorted({int(sample["descriptors"]) for sample in settled}),
        "threads": sorted({int(sample["threads"]) for sample in settled}),
        "faults": faults,
        "exit_code": code,
        "ended_s": round(ended_s, 2),
        "broker": mqtt is not None,
        "webhooks": len(received),
        "page_bytes": seen[0],
        **files,
        "samples": samples[:: max(1, len(samples) // 50)],
    }
    click.echo(json.dumps(report, indent=1))
    good = (
        report["rss_growth_mb"] < GROWTH_MB
        and max(report["descriptors"]) - min(report["descriptors"]) <= 2  # a connection that is being answered
        and len(report["threads"]) == 1
        and code == 128 + signal.SIGTERM
        and ended_s < ENDS_WITHIN_S
        and files["whole_lines"]
        and files["video_frames"] > 0
        and not files["broken_pictures"]
        and not files["left_over"]
    )
    sys.exit(not good)


if __name__ == "__main__":
    main()
