// The page: one camera's picture, its numbers as they come, and their last ten minutes.

import { colour, draw } from "./charts.js";
import { Editor } from "./zones.js";

const POINTS = 600;
const RETRY_MS = 2000;
const byId = (id) => document.getElementById(id);

const editor = new Editor(byId("stage"), byId("overlay"), {
  section: byId("editor"), addZone: byId("add-zone"), addLine: byId("add-line"), undo: byId("undo"),
  finish: byId("finish"), save: byId("save"), revert: byId("revert"), hint: byId("hint"), shapes: byId("shapes"),
});
let camera = null;
let history = [];
let numbers = null;
let retry = null;

// A token in the address has been turned into a cookie; it has no place in the browser's history.
if (location.search) window.history.replaceState(null, "", location.pathname);

function show(name) {
  camera = name;
  history = [];
  byId("camera").value = name;
  watch();
  editor.load(name);
  fetch(`api/history?camera=${encodeURIComponent(name)}`).then((answer) => (answer.ok ? answer.json() : []))
    .then((points) => { if (camera === name) { history = points.slice(-POINTS); charts(); } });
}

function watch() {
  clearTimeout(retry);
  if (camera === null || document.hidden) byId("picture").removeAttribute("src");
  else byId("picture").src = `picture.mjpg?camera=${encodeURIComponent(camera)}&again=${Date.now()}`;
}

function listen() {
  numbers?.close();
  numbers = null;
  if (document.hidden) return;
  numbers = new EventSource("api/live");
  numbers.onmessage = (event) => take(JSON.parse(event.data));
  numbers.onerror = () => {
    state("not connected", "bad");
    if (numbers?.readyState === EventSource.CLOSED) setTimeout(listen, RETRY_MS);
  };
}

function take(live) {
  const names = live.cameras.map((reading) => reading.name);
  const select = byId("camera");
  if (names.join("\n") !== [...select.options].map((option) => option.value).join("\n")) {
    select.replaceChildren(...names.map((name) => new Option(name, name)));
    select.hidden = names.length < 2;
    if (camera !== null) select.value = camera;
  }
  if (!names.length) return state("waiting for the first frame");
  if (!names.includes(camera)) show(names[0]);
  const now = live.cameras.find((reading) => reading.name === camera);
  const stale = live.stale.includes(camera);
  const hot = live.throttled ? ", throttled" : "";
  state((stale ? `no frame for ${Math.round(now.since_frame_s)} s` : now.state) + hot, stale || hot ? "bad" : "good");
  const seen = Object.entries(now.seen).map(([name, count]) => `${name} ${count}`).join(", ") || "nothing";
  byId("seen").textContent = `sees ${seen}${now.tracks === null ? "" : `; follows ${now.tracks}`}`;
  const half = (values) => values.p50 ?? null;
  history.push({
    fps: now.fps, age_ms: half(now.age_ms), active_share: now.active_share, temperature_c: live.temperature_c,
    ms: Object.fromEntries(Object.entries(now.ms).map(([stage, values]) => [stage, half(values)])),
  });
  history = history.slice(-POINTS);
  figures(now, live);
  charts();
}

function figures(now, live) {
  const three = (values) => ("p50" in values ? `${values.p50} / ${values.p95} / ${values.p99}` : "");
  byId("now-fps").textContent = now.fps.toFixed(1);
  byId("now-ms").textContent = three(now.ms.total ?? {});
  byId("now-age").textContent = three(now.age_ms);
  byId("now-share").textContent = (100 * now.active_share).toFixed(0);
  byId("now-temperature").textContent = live.temperature_c === null ? "no sensor" : live.temperature_c.toFixed(1);
  const rows = [["frames processed", now.processed], ["frames captured", now.captured]];
  for (const [reason, count] of Object.entries(now.dropped)) rows.push([`dropped: ${reason}`, count]);
  if (now.executed_macs !== null) rows.push(["executed MACs", `${(now.executed_macs / 1e6).toFixed(0)} M`]);
  for (const [sink, queue] of Object.entries(live.queues)) {
    rows.push([sink, `${queue.waiting} waiting, ${queue.dropped} dropped, ${queue.failed} failed`]);
  }
  byId("counters").replaceChildren(...rows.filter(([, value]) => value !== null).flatMap(([name, value]) => {
    const term = document.createElement("dt"), text = document.createElement("dd");
    term.textContent = name;
    text.textContent = value;
    return [term, text];
  }));
}

function charts() {
  const of = (key) => history.map((point) => point[key] ?? null);
  const stages = [...new Set(history.flatMap((point) => Object.keys(point.ms)))];
  draw(byId("chart-fps"), [of("fps")]);
  draw(byId("chart-ms"), stages.map((stage) => history.map((point) => point.ms[stage] ?? null)));
  draw(byId("chart-age"), [of("age_ms")]);
  draw(byId("chart-share"), [of("active_share").map((share) => (share === null ? null : 100 * share))], { ceiling: 100 });
  draw(byId("chart-temperature"), [of("temperature_c")], { floor: 20, ceiling: 100 });
  byId("legend").replaceChildren(...stages.map((stage, index) => {
    const item = document.createElement("span"), mark = document.createElement("i");
    mark.style.background = colour(index);
    item.append(mark, stage);
    return item;
  }));
}

function state(text, kind = "") {
  byId("state").textContent = text;
  byId("state").className = kind;
}

byId("camera").addEventListener("change", (event) => {
  if (editor.changed && !window.confirm("Leave the zones that are not saved?")) event.target.value = camera;
  else show(event.target.value);
});
byId("picture").addEventListener("error", () => { clearTimeout(retry); retry = setTimeout(watch, RETRY_MS); });
document.addEventListener("visibilitychange", () => { watch(); listen(); });
window.addEventListener("resize", charts);
listen();
