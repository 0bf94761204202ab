"""An RTSP server of one clip, for tests: ``python rtsp_server.py FOLDER FPS PORT KEY_INTERVAL``.

FOLDER holds the clip as 00000.jpg, 00001.jpg, ...; it is sent as H.264 with a key frame every KEY_INTERVAL frames, at
``rtsp://127.0.0.1:PORT/live``, over and over. Prints the port once it listens. Needs GStreamer's own Python packages,
so the Python that runs it is mostly the system's: ``--check`` says whether all is there.
"""

from __future__ import annotations

import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402 - versions are chosen before the import


def main() -> None:
    Gst.init(None)
    if sys.argv[1:] == ["--check"]:
        elements = ("multifilesrc", "jpegdec", "videoconvert", "x264enc", "rtph264pay")
        sys.exit(", ".join(name for name in elements if Gst.ElementFactory.find(name) is None) or 0)
    folder, fps, port, key_interval = sys.argv[1:]
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(port)
    factory = GstRtspServer.RTSPMediaFactory()
    clip = f"multifilesrc location={folder}/%05d.jpg loop=true caps=image/jpeg,framerate={fps}/1"
    # Baseline and zerolatency: what surveillance cameras send, without frames that refer to later ones.
    encoder = f"x264enc tune=zerolatency speed-preset=ultrafast bitrate=8000 key-int-max={key_interval} threads=1"
    factory.set_launch(
        f"( {clip} ! jpegdec ! videoconvert ! identity sync=true ! {encoder} ! video/x-h264,profile=baseline"
        " ! rtph264pay name=pay0 pt=96 config-interval=1 )"
    )
    factory.set_shared(True)  # like a camera: whoever connects later joins the same stream, between key frames
    server.get_mount_points().add_factory("/live", factory)
    if server.attach(None) == 0:
        sys.exit(f"port {port} is taken")
    print(server.get_bound_port(), flush=True)
    GLib.MainLoop().run()


if __name__ == "__main__":
    main()
