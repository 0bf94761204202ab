// The editor of zones and lines: corners in 0..1 of the picture, drawn on an SVG that lies over it.

const NEAR_PX = 24;  // a finger
const MOST_CORNERS = 256;
const SVG = "http://www.w3.org/2000/svg";

export class Editor {
  constructor(stage, overlay, controls) {
    this.stage = stage;
    this.overlay = overlay;
    this.controls = controls;
    this.camera = null;
    this.shapes = [];    // {kind: "zone" | "line", name, points: [[x, y], ...]}
    this.open = null;    // the shape that is being drawn
    this.drag = null;    // [shape, index of the corner]
    this.changed = false;
    controls.addZone.addEventListener("click", () => this.begin("zone"));
    controls.addLine.addEventListener("click", () => this.begin("line"));
    controls.undo.addEventListener("click", () => this.undo());
    controls.finish.addEventListener("click", () => this.finish());
    controls.save.addEventListener("click", () => this.save());
    controls.revert.addEventListener("click", () => this.load(this.camera));
    overlay.addEventListener("pointerdown", (event) => this.down(event));
    overlay.addEventListener("pointermove", (event) => this.move(event));
    overlay.addEventListener("pointerup", (event) => this.up(event));
    overlay.addEventListener("pointercancel", (event) => this.up(event));
    new ResizeObserver(() => this.draw()).observe(stage);
  }

  async load(camera) {
    this.camera = camera;
    const answer = await fetch(`api/zones?camera=${encodeURIComponent(camera)}`);
    this.controls.section.hidden = answer.status === 404;
    this.open = null;
    this.changed = false;
    this.shapes = [];
    if (answer.ok) this.take(await answer.json());
    else if (answer.status !== 404) this.say(await answer.text(), true);
    this.refresh();
  }

  take(document) {
    const zones = document.polygons.map((points, index) => ({ kind: "zone", name: document.names[index], points }));
    const lines = document.lines.map((line) => ({ kind: "line", name: line.name, points: [line.from, line.to] }));
    this.shapes = [...zones, ...lines];
    this.say(this.shapes.length ? "Drag corners to move them." : "No zones yet: add one, and tap its corners.");
  }

  begin(kind) {
    this.open = { kind, name: this.freeName(kind), points: [] };
    this.say(kind === "zone" ? "Tap the corners in order; tap the first one again, or Finish, to close."
      : "Tap both ends; crossing from its left to its right counts as in.");
    this.refresh();
  }

  freeName(kind) {
    const taken = new Set(this.shapes.filter((shape) => shape.kind === kind).map((shape) => shape.name));
    let number = 1;
    while (taken.has(`${kind} ${number}`)) number += 1;
    return `${kind} ${number}`;
  }

  undo() {
    this.open.points.pop();
    this.refresh();
  }

  finish() {
    if (this.open && this.open.points.length >= (this.open.kind === "zone" ? 3 : 2)) {
      this.shapes.push(this.open);
      this.changed = true;
      this.say("Not saved yet.");
    }
    this.open = null;
    this.refresh();
  }

  at(event) {
    const box = this.overlay.getBoundingClientRect();
    const within = (value) => Math.min(1, Math.max(0, Number(value.toFixed(4))));
    return [within((event.clientX - box.left) / box.width), within((event.clientY - box.top) / box.height)];
  }

  isNear(a, b) {
    return Math.hypot((a[0] - b[0]) * this.overlay.clientWidth, (a[1] - b[1]) * this.overlay.clientHeight) <= NEAR_PX;
  }

  down(event) {
    if (!event.isPrimary || event.button !== 0) return;
    event.preventDefault();
    const point = this.at(event);
    if (this.open) {
      const points = this.open.points;
      if (this.open.kind === "zone" && points.length >= 3 && this.isNear(points[0], point)) return this.finish();
      if (points.length < MOST_CORNERS) points.push(point);
      if (this.open.kind === "line" && points.length === 2) return this.finish();
      return this.refresh();
    }
    for (const shape of this.shapes) {
      const index = shape.points.findIndex((corner) => this.isNear(corner, point));
      if (index >= 0) {
        this.drag = [shape, index];
        this.overlay.setPointerCapture(event.pointerId);
        return;
      }
    }
  }

  move(event) {
    if (!this.drag) return;
    const [shape, index] = this.drag;
    shape.points[index] = this.at(event);
    this.changed = true;
    this.draw();
  }

  up() {
    if (!this.drag) return;
    this.drag = null;
    this.refresh();
  }

  async save() {
    const zones = this.shapes.filter((shape) => shape.kind === "zone");
    const lines = this.shapes.filter((shape) => shape.kind === "line");
    const document = {
      normalised: true,
      polygons: zones.map((shape) => shape.points),
      names: zones.map((shape) => shape.name),
      lines: lines.map((shape) => ({ name: shape.name, from: shape.points[0], to: shape.points[1] })),
    };
    try {
      const answer = await fetch(`api/zones?camera=${encodeURIComponent(this.camera)}`, {
        method: "PUT", headers: { "Content-Type": "application/json" }, body: JSON.stringify(document),
      });
      if (!answer.ok) return this.say(await answer.text(), true);
      this.take(await answer.json());
      this.changed = false;
      this.say("Saved.");
    } catch {
      this.say("The camera cannot be reached; nothing was saved.", true);
    }
    this.refresh();
  }

  say(text, bad = false) {
    this.controls.hint.textContent = text;
    this.controls.hint.classList.toggle("bad", bad);
  }

  refresh() {
    const drawing = this.open !== null;
    this.stage.classList.toggle("editing", drawing);
    this.controls.addZone.disabled = this.controls.addLine.disabled = drawing;
    this.controls.undo.disabled = !drawing || !this.open.points.length;
    this.controls.finish.disabled = !drawing;
    this.controls.save.disabled = drawing || !this.changed;
    this.controls.revert.disabled = !drawing && !this.changed;
    this.list();
    this.draw();
  }

  list() {
    this.controls.shapes.replaceChildren(...this.shapes.map((shape) => {
      const row = document.createElement("li");
      const kind = document.createElement("span");
      kind.textContent = shape.kind;
      const name = document.createElement("input");
      name.value = shape.name;
      name.maxLength = 64;
      name.setAttribute("aria-label", `Name of the ${shape.kind}`);
      name.addEventListener("input", () => {
        shape.name = name.value;
        this.changed = true;
        this.controls.save.disabled = this.open !== null;
        this.controls.revert.disabled = false;
        this.draw();
      });
      const remove = document.createElement("button");
      remove.type = "button";
      remove.textContent = "Delete";
      remove.addEventListener("click", () => {
        this.shapes = this.shapes.filter((other) => other !== shape);
        this.changed = true;
        this.say("Not saved yet.");
        this.refresh();
      });
      row.append(kind, name, remove);
      return row;
    }));
  }

  draw() {
    const width = this.overlay.clientWidth, height = this.overlay.clientHeight;
    const place = ([x, y]) => [x * width, y * height];
    const nodes = [];
    const add = (tag, attributes) => {
      const node = document.createElementNS(SVG, tag);
      for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
      nodes.push(node);
      return node;
    };
    for (const shape of this.open ? [...this.shapes, this.open] : this.shapes) {
      const points = shape.points.map(place);
      const closed = shape.kind === "zone" && shape !== this.open;
      add(closed ? "polygon" : "polyline", {
        points: points.map((point) => point.join(",")).join(" "), class: closed ? "shape" : "shape open",
      });
      for (const [cx, cy] of points) {
        add("circle", { cx, cy, r: 7, class: "corner" });
        if (!this.open) add("circle", { cx, cy, r: NEAR_PX, class: "grip" });
      }
      if (points.length) add("text", { x: points[0][0] + 10, y: points[0][1] - 10 }).textContent = shape.name;
    }
    this.overlay.replaceChildren(...nodes);
  }
}
