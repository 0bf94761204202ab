"""Describe a bundle or a checkpoint: ``edgekit info BUNDLE|CKPT|default [--json]``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from edgekit.cli import Program
from edgekit.masks.threshold import frame_threshold
from edgekit.spec import DetectorSpec


@click.command(cls=Program)
@click.argument("model")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def main(model: str, as_json: bool) -> None:
    """Say what MODEL is: classes, input, masks, precision, accuracy, MACs, origin.

    MODEL is a bundle (folder or zip file; its hashes are checked), a .pt checkpoint (needs PyTorch) or 'default'.
    """
    from edgekit.pipeline import is_checkpoint, resolve_model

    path = resolve_model(model)
    document = _checkpoint(path) if is_checkpoint(path) else _bundle(path)
    if as_json:
        click.echo(json.dumps(document, indent=2))
        return
    lines = _segmenter_lines(document) if document.get("task") == "segmentation" else _lines(document)
    for title, value in lines:
        click.echo(f"{title:<18}{value}")


def _bundle(path: Path) -> dict[str, Any]:
    from edgekit.bundle import SegmentationBundle, open_any_bundle
    from edgekit.segmentation.pipeline import own_prompts

    bundle = open_any_bundle(path)
    manifest = bundle.manifest
    asked = {"prompt_names": list(own_prompts(bundle).names)} if isinstance(bundle, SegmentationBundle) else {}
    return {
        "kind": "bundle",
        "path": str(path),
        "bytes": sum(entry.bytes for entry in manifest.files.values()),
        "choices": list(manifest.choices),
        **manifest.document,
        **asked,
    }


def _checkpoint(path: Path) -> dict[str, Any]:
    from edgekit.errors import MissingDependencyError

    try:
        import torch  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingDependencyError("torch", "train", "read a checkpoint") from error
    from edgekit.models.checkpoint import load_checkpoint

    checkpoint = load_checkpoint(path)
    return {
        "kind": "checkpoint",
        "path": str(path),
        "bytes": path.stat().st_size,
        "spec": checkpoint.spec.to_json(),
        "parameters": sum(value.numel() for value in checkpoint.model.parameters()),
        "metrics": checkpoint.metrics,
        "provenance": checkpoint.provenance,
        "config": checkpoint.config,
    }


def _lines(document: dict[str, Any]) -> list[tuple[str, str]]:
    """What a person wants to know first, in order."""
    spec, provenance = document["spec"], document["provenance"]
    anchors = sum(level["rows"] * level["columns"] * len(level["sizes"]) for level in spec["anchors"])
    classes = spec["classes"]
    shown = ", ".join(classes[:20]) + (", ..." if len(classes) > 20 else "")
    least = frame_threshold(0.0, DetectorSpec.from_json(spec))
    unsure = f" (in unsure frames from {least:g})" if least < spec["mask_threshold"] else ""
    grid = DetectorSpec.from_json(spec).mask_grid
    lines = [
        (document["kind"], f"{document['path']}  ({document['bytes'] / 1e6:.2f} MB)"),
        ("model", f"{spec['model']}, {document['parameters'] / 1e6:.2f} M parameters"),
        ("classes", f"{len(classes)}: {shown}"),
        ("input", f"{spec['width']}x{spec['height']} RGB, letterboxed; (pixel - {spec['mean']:g}) / {spec['std']:g}"),
        ("anchors", f"{anchors} on {len(spec['anchors'])} {'level' if len(spec['anchors']) == 1 else 'levels'}"),
        *([("proposals", _proposals(spec["two_stage"]))] if spec.get("two_stage") else []),
        (
            "mask",
            f"{grid[0]}x{grid[1]} cells, active from {spec['mask_threshold']:g}{unsure}, "
            f"dilated by {spec['mask_dilation']}",
        ),
        (
            "detections",
            f"score from {spec['score_threshold']:g}, NMS at {spec['nms_iou']:g}, at most {spec['max_detections']}",
        ),
    ]
    if document["kind"] == "bundle":
        lines += _bundle_lines(document)
    else:
        lines += [(str(name), f"{value}") for name, value in document["metrics"].items()]
    return [*lines, *_origin_lines(provenance)]


def _segmenter_lines(document: dict[str, Any]) -> list[tuple[str, str]]:
    """The same of a bundle that segments by words."""
    spec, provenance, names = document["spec"], document["provenance"], document["prompt_names"]
    shown = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
    refined = "refined along colours" if spec["pamr"] else "as they come"
    return [
        (document["kind"], f"{document['path']}  ({document['bytes'] / 1e6:.2f} MB)"),
        ("model", f"{spec['model']}, {document['parameters'] / 1e6:.2f} M parameters, segments by words"),
        ("prompts", f"{len(names)}: {shown}"),
        ("text encoder", f"{spec['text'][:12]}, sentences {spec['templates']!r}: other prompts must be made by it"),
        (
            "input",
            f"{spec['width']}x{spec['height']} RGB; pictures are stretched by up to {spec['stretch']:.2f} to fill it",
        ),
        ("masks", f"{spec['columns']}x{spec['rows']} cells, {refined}, background under {spec['background']:g}"),
        *_common_lines(document),
        ("MACs", f"{document['macs']['dense'] / 1e6:.0f} M"),
        *_origin_lines(provenance),
    ]


def _origin_lines(provenance: dict[str, Any]) -> list[tuple[str, str]]:
    return [
        ("training data", provenance.get("training_data", "not recorded")),
        ("starting weights", provenance.get("starting_weights", "not recorded")),
        *([("teacher", provenance["teacher"])] if "teacher" in provenance else []),
    ]


def _proposals(rules: dict[str, Any]) -> str:
    return f"at most {rules['proposals']}, of the best {rules['before_nms']} anchors after NMS at {rules['nms_iou']:g}"


def _common_lines(document: dict[str, Any]) -> list[tuple[str, str]]:
    accuracy, calibration = document["accuracy"], document["calibration"]
    lines = [
        ("format", f"{document['graph_format']}, {document['precision']}, for {document['target'] or 'any board'}"),
        ("engines", f"{', '.join(document['choices'])}; {document['threads']} threads"),
        ("calibration", f"{calibration['images']} images" if calibration else "none"),
    ]
    if document["kept_float"]:
        lines.append(("kept in float", f"{len(document['kept_float'])} layers"))
    if accuracy:
        lines.append(("accuracy", _rounded(accuracy)))
    return lines


def _bundle_lines(document: dict[str, Any]) -> list[tuple[str, str]]:
    macs = document["macs"]
    lines = _common_lines(document)
    lines.insert(2, ("MACs", f"{macs['dense'] / 1e6:.0f} M dense, {macs['omg'] / 1e6:.0f} M for the mask"))
    if sparse := document.get("sparse"):
        lines.append(("sparse programs", _break_even(sparse["break_even"])))
        if sparse["accuracy"]:
            lines.append(("  accuracy", _rounded(sparse["accuracy"])))
    return lines


def _rounded(values: dict[str, Any]) -> str:
    return ", ".join(
        f"{name} {value:.4f}" if isinstance(value, float) else f"{name} {value}" for name, value in values.items()
    )


def _break_even(known: dict[str, Any] | None) -> str:
    if known is None:
        return "for every frame; break-even not measured (edgekit bench sparse)"
    where = f"measured on {known['cpu']}, {known['threads']} threads"
    if known["share"] >= 1:
        return f"for every frame; never slower than {known['engine']}, {where}"
    return f"up to {100 * known['share']:.0f} % active, above it {known['engine']} is faster, {where}"


if __name__ == "__main__":
    main()
